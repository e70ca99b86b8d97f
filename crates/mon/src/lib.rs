//! The monitors of a cluster, without I/O: no clock, no entropy, no hash order.
//!
//! What the monitors agree on and decide is in [`service`]. [`monitor`] joins it with the replicated log
//! (`cairn-paxos`) into one monitor: a state machine that a driver feeds with events and the time, and that
//! answers with effects. `docs/monitors.md` tells the whole.

pub mod monitor;
pub mod service;
