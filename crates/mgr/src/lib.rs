//! The mgr: statistics of the cluster.
//!
//! One mgr is active and others stand by; the monitors choose, by beacons. OSDs tell the active one how they and
//! their groups are; it sums that up every second for the monitors ([`cairn_types::Digest`]) and for Prometheus.
//! Nothing it holds is kept: a new active mgr has everything again after one round of reports.
//!
//! | behaviour | module |
//! |---|---|
//! | what is gathered, when it is old, what is told; pure | `core` |
//! | names and forms of the metrics; pure | `metrics` |
//! | sockets and clocks | `daemon`, `http` |

pub mod core;
pub mod daemon;
mod http;
pub mod metrics;
