//! The OSD: objects and what clients do to them, placement groups, and the daemon around them.

pub mod core;
pub mod daemon;
pub mod message;
pub mod object;
pub mod persist;
