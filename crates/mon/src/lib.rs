//! The monitors of a cluster.
//!
//! What the monitors agree on and decide is in [`service`]. [`monitor`] joins it with the replicated log
//! (`cairn-paxos`) into one monitor: a state machine that a driver feeds with events and the time, and that
//! answers with effects. [`session`] is the other end: what a client, OSD or mgr keeps with the monitors. These are
//! without I/O: no clock, no entropy, no hash order; only the drivers have them: [`daemon`], which makes a process of a
//! monitor, and [`session::MonClient`]. [`message`] has what travels. `docs/monitors.md` tells the whole.

mod clock;
pub mod daemon;
pub mod message;
pub mod monitor;
pub mod service;
pub mod session;
