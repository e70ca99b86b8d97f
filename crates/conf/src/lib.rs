//! Configuration files, and the directory of a cluster whose daemons run on one machine.
//!
//! | what | module |
//! |---|---|
//! | `cairn.toml` of clients, and where it is looked for | `client` |
//! | `daemon.toml` of a monitor, an OSD, a mgr | `daemon` |
//! | certificate, key and CA that a configuration names | `identity` |
//! | reading and writing TOML, errors with line and column | `document` |
//! | where things are in a cluster's directory | `layout` |
//! | making that directory, whole or not at all | `create`, `staging` |
//! | ports for it | `ports` |
//! | the pid file that a running daemon keeps locked | `pid_file` |
//!
//! The keys are described in `docs/format/conf.md`.

mod client;
mod create;
mod daemon;
mod document;
mod error;
mod identity;
mod layout;
mod pid_file;
mod ports;
mod staging;

pub use client::{CONF_ENV, ClientConf, LOCAL_CONF, SYSTEM_CONF, find};
pub use create::{ClusterPlan, DaemonPlan, create_cluster, create_daemon};
pub use daemon::{DaemonConf, MgrConf, MonConf, OsdConf, Role};
pub use error::{ConfError, CreateError, PidFileError};
pub use identity::IdentityFiles;
pub use layout::Layout;
pub use pid_file::{Held, PidFile, running};
pub use ports::free_ports;
pub use staging::Staging;
