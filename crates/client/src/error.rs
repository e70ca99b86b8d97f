//! Why there is no client, or no pool.

use crate::io::OpError;
use cairn_mon::session::CallError;
use cairn_net::BindError;
use std::io;
use std::net::SocketAddr;

/// Why a client could not be made or asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No monitor to ask.
    #[error("no monitor is named; the configuration lists their addresses under 'monitors'")]
    NoMonitors,
    /// This side's sockets.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The monitors.
    #[error(transparent)]
    Monitors(#[from] CallError),
    /// No way to the monitors from this machine.
    #[error("this machine has no way to any monitor; the first is at {monitor}: {source}")]
    NoRoute {
        /// The first of them.
        monitor: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The monitors answered something that was not asked.
    #[error("the monitors' answer does not fit what was asked; are they of another version?")]
    BadAnswer,
    /// A pool that is not there.
    #[error("there is no pool '{name}'; {}", pools_there(pools))]
    NoPool {
        /// As given.
        name: String,
        /// Those that are.
        pools: Vec<String>,
    },
    /// An operation.
    #[error(transparent)]
    Op(#[from] OpError),
}

fn pools_there(pools: &[String]) -> String {
    match pools {
        [] => "there is none at all: make one with 'cairn pool create'".to_owned(),
        [one] => format!("there is only '{one}'"),
        many => format!("there are '{}'", many.join("', '")),
    }
}
