//! The monitors' services over the replicated log, without I/O. `docs/monitors.md` tells the whole.
//!
//! A [`Request`] and the time go to a [`Draft`] over the leader's [`ClusterState`], which refuses it or
//! yields a [`Transaction`]; the log orders transactions; [`ClusterState::apply`] does the same on every
//! monitor. What the leader alone remembers, such as who has reported whom, is [`watch::Watch`]; it
//! turns reports and the passing of time into requests.
//!
//! | behaviour | module |
//! |---|---|
//! | the state, its hash | `state`, `canonical` |
//! | transactions and how commands become one | `transaction`, `draft` |
//! | full maps, increments, trimming | `history` |
//! | a request sent twice | `remembered` |
//! | OSDs: create, boot, out, in, down, destroy | `osd` |
//! | failure reports, down → out, mgr failover | `failure`, `watch` |
//! | where OSDs are | `crush` |
//! | pools | `pool` |
//! | `pg_temp`, `up_thru`, upmap | `pg` |
//! | flags, ratios, blocklist | `cluster` |
//! | settings | `config` |
//! | monitors, mgrs, who may connect | `members` |
//! | which maps to send to whom | `subscription` |
//! | health, status, their text | `health`, `status`, `render` |
//! | times and shares; bounds | `timing`; `limits` |

mod canonical;
mod cluster;
mod config;
pub mod crush;
mod draft;
mod failure;
pub mod health;
mod history;
pub mod limits;
mod members;
mod osd;
mod pg;
mod pool;
mod refusal;
mod remembered;
pub mod render;
mod request;
mod state;
pub mod status;
pub mod subscription;
pub mod timing;
mod transaction;
pub mod watch;

pub use cluster::ClusterCommand;
pub use config::{Config, ConfigCommand, ConfigSection, OPTIONS, OptionKind, OptionSpec};
pub use draft::Draft;
pub use failure::{Evidence, FailureReport, Verdict};
pub use history::OsdMapHistory;
pub use members::{Auth, AuthCommand, AuthEntity, MonCommand};
pub use osd::OsdCommand;
pub use pg::PgCommand;
pub use pool::{PoolCommand, PoolSetting};
pub use refusal::Refusal;
pub use remembered::Remembered;
pub use request::{LeaderCommand, Once, Reply, Request};
pub use state::{Block, ClusterState, Genesis, OsdRecord};
pub use transaction::{ApplyError, Transaction};
