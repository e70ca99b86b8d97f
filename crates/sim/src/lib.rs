//! The whole cluster from one seed.
//!
//! The project's own cores, never copies of them, run in one thread under virtual time; network, clocks, disks and
//! power are simulated, and every source of chance is drawn from one seed. A failure is a seed and a commit.
//!
//! | what | where |
//! |---|---|
//! | one source of chance; virtual time | `rng`, `timeline` |
//! | what a seed's cluster is, and what goes wrong in it | `shape`, `plan` |
//! | links between hosts | `network` |
//! | the cluster: processes, disks, power, the operator | `world` |
//! | what must hold; the deliberate bugs that must be found | `check`, `canary` |
//! | one seed from start to verdict; one that never ends | `run`, `watch` |
//! | the shortest plan that fails; what is told of it and of many runs | `shrink`, `report` |

pub mod canary;
pub mod check;
pub mod network;
pub mod plan;
pub mod report;
pub mod rng;
pub mod run;
pub mod shape;
pub mod shrink;
pub mod timeline;
pub mod watch;
pub mod world;
