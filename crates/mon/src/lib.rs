//! The monitors of a cluster, without I/O: no clock, no entropy, no hash order.
//!
//! What the monitors agree on and decide is in [`service`]. `docs/monitors.md` tells the whole.

pub mod service;
