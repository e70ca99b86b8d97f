//! The whole cluster from one seed.
//!
//! The project's own cores, never copies of them, run in one thread under virtual time; network, clocks, disks and
//! power are simulated, and every source of chance is drawn from one seed. A failure is a seed and a commit.

pub mod check;
pub mod network;
pub mod plan;
pub mod rng;
pub mod shape;
pub mod shrink;
pub mod timeline;
