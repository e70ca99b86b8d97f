//! The OSD: objects and what clients do to them, placement groups, and the daemon around them.

pub mod core;
pub mod object;
