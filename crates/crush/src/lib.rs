//! Placement exactly as Ceph computes it: CRUSH, and the OSD map's way from an object to its OSDs.

pub mod binary;
pub mod build;
pub mod hash;
mod ln;
mod map;
mod mapper;
pub mod placement;
pub mod tester;
pub mod text;
mod validate;
pub mod whatif;

pub use map::*;
pub use mapper::{ChooseArgs, DEFAULT_CHOOSE_ARGS, MAX_DRAWS, NO_ITEM, Placer, Scratch};
pub use validate::MapError;
