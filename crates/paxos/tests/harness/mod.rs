//! A cluster of monitors in one thread under virtual time: clocks that drift, a network that loses,
//! doubles, delays and reorders, disks that lose what was not flushed, and checkers that watch all of it.

#![allow(dead_code)] // Each test binary uses a part.

pub mod app;
pub mod check;
pub mod rng;
pub mod world;
