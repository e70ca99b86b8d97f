//! Placement exactly as Ceph computes it: CRUSH, and the OSD map's way from an object to its OSDs.

pub mod binary;
mod map;
pub mod tester;
pub mod text;

pub use map::*;
