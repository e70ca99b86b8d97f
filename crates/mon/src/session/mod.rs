//! What a process keeps with the monitors: a connection to one of them, its calls until they are answered, and the
//! maps it wants.
//!
//! | behaviour | module |
//! |---|---|
//! | which monitor, what is sent again when, which maps are new; pure | `core` |
//! | the handle, the connection and the clock | `client` |

mod client;
pub mod core;

pub use client::{CALL_TIMEOUT, MonClient};

use crate::service::subscription::{MapBatch, Need};
use cairn_types::{Epoch, MgrMap, MonMap};
use cairn_wire::ErrorCode;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;

/// Reads where the configuration says that monitors are, or says nothing.
type LookUp = Arc<dyn Fn() -> Option<Vec<SocketAddr>> + Send + Sync>;

/// Where a process looks for monitors.
#[derive(Clone)]
pub struct Monitors {
    addrs: Vec<SocketAddr>,
    look_up: Option<LookUp>,
}

impl Monitors {
    /// There to begin with, and where `look_up` says whenever none is found: all may have been replaced while the process
    /// was cut off, and its configuration been written anew. It may wait for a disk.
    pub fn new(
        addrs: Vec<SocketAddr>,
        look_up: impl Fn() -> Option<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Monitors {
        Monitors { addrs, look_up: Some(Arc::new(look_up)) }
    }

    /// Where they are to begin with.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

impl From<Vec<SocketAddr>> for Monitors {
    fn from(addrs: Vec<SocketAddr>) -> Monitors {
        Monitors { addrs, look_up: None }
    }
}

impl fmt::Debug for Monitors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.addrs)
    }
}

/// What a process wants to be told. The epochs grow with what it was told, so it says this once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wants {
    /// OSD maps after an epoch (0 for none yet).
    pub osd_map: Option<(Epoch, Need)>,
    /// Monitor maps.
    pub mon_map: bool,
    /// Mgr maps.
    pub mgr_map: bool,
    /// What is set for this process.
    pub config: bool,
}

/// Something new, as it was asked for by [`Wants`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Update {
    /// OSD maps, in order and without a gap: either they follow those before, or they start with a full map.
    OsdMaps(MapBatch),
    /// The monitors.
    MonMap(MonMap),
    /// The mgrs.
    MgrMap(MgrMap),
    /// What is set for this process, by option.
    Config {
        /// Version of all settings.
        version: u64,
        /// What is set.
        values: BTreeMap<String, String>,
    },
}

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CallError {
    /// The monitors say no; nothing was changed.
    #[error("{why}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why and what to do, for people.
        why: String,
    },
    /// No monitor could be connected to.
    #[error("no monitor answers at {}: is the cluster running?{}", Addrs(monitors), Last(last))]
    Unreachable {
        /// Where they were looked for.
        monitors: Vec<SocketAddr>,
        /// What the last attempt met, if one has ended.
        last: Option<String>,
    },
    /// A monitor was reached, and it and this process do not take each other: another cluster, another release.
    #[error("the monitors and this process cannot work together: {why}")]
    TurnedAway {
        /// What the last attempt met.
        why: String,
    },
    /// A monitor is connected, but no answer came in time.
    #[error(
        "the monitors did not agree within {waited_ms} ms: is a majority of them running? A change may still happen"
    )]
    TimedOut {
        /// How long was waited.
        waited_ms: u64,
    },
    /// Too much waits here already.
    #[error("more than {most} calls to the monitors wait for an answer")]
    TooMany {
        /// How many may.
        most: usize,
    },
    /// The runtime that the client was started in has ended.
    #[error("the connection to the monitors was shut down with its runtime")]
    Closed,
}

impl CallError {
    /// For programs: what RADOS would answer.
    pub fn code(&self) -> ErrorCode {
        match self {
            CallError::Refused { code, .. } => *code,
            CallError::Unreachable { .. } | CallError::TimedOut { .. } => ErrorCode::TIMEDOUT,
            CallError::TurnedAway { .. } => ErrorCode::PERM,
            CallError::TooMany { .. } => ErrorCode::BUSY,
            CallError::Closed => ErrorCode::CANCELED,
        }
    }
}

struct Addrs<'a>(&'a [SocketAddr]);

impl fmt::Display for Addrs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, addr) in self.0.iter().enumerate() {
            write!(f, "{}{addr}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct Last<'a>(&'a Option<String>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |last| write!(f, " ({last})"))
    }
}
