//! The monitor as a process: files, sockets and clocks around [`Monitor`]. Nothing is decided here but who may speak.
//!
//! | behaviour | module |
//! |---|---|
//! | log and checkpoints on disk, and the thread that writes them | `storage` |
//! | who may say what | `door` |
//! | connections to the other monitors | `peers` |
//! | what arrives | `inbox` |
//! | connections of everybody else: calls, subscriptions | `callers` |
//! | the loop that joins them | `driver` |

mod callers;
mod door;
mod driver;
mod inbox;
mod peers;
mod storage;

pub use callers::MAX_CONNECTIONS;
pub use storage::{Damage, MonIdentity, StorageError};

use crate::clock;
use crate::monitor::{Checkpoint, Fault, Monitor, RestoreError, Setup};
use crate::service::{ClusterState, Genesis};
use cairn_net::{BindError, Config, Endpoint, Identity};
use cairn_paxos::{DurableState, Timing, TimingError};
use cairn_types::{EntityKind, EntityName, Fsid, MonMap};
use driver::Driver;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage::{Opened, Storage};
use thiserror::Error;

/// How long a monitor that stops gives its connections to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a monitor is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seed {
    /// One of the first monitors of a new cluster; the same for all of them.
    Founding(Genesis),
    /// One that joins a running cluster; the map that has its number.
    Joining(MonMap),
}

/// What a monitor runs with.
#[derive(Clone, Debug)]
pub struct MonOptions {
    /// Its certificate.
    pub identity: Identity,
    /// Where [`create`] has put its files.
    pub data_dir: PathBuf,
    /// Where it listens; the monitor map must name the same address.
    pub listen: SocketAddr,
    /// Durations of the replicated log, the same at all monitors.
    pub timing: Timing,
}

impl MonOptions {
    /// With the usual durations.
    pub fn new(identity: Identity, data_dir: impl Into<PathBuf>, listen: SocketAddr) -> MonOptions {
        MonOptions { identity, data_dir: data_dir.into(), listen, timing: Timing::default() }
    }
}

/// Why a monitor cannot be made or run.
#[derive(Debug, Error)]
pub enum MonError {
    /// Its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What its files say.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Its durations.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// No name of a monitor, or not one of the map it is made from.
    #[error("{name} is not one of the monitors it is to be made from")]
    NotInMap {
        /// The name.
        name: EntityName,
    },
    /// The certificate is somebody else's.
    #[error("{} has {found} of cluster {found_fsid}, but the certificate is of {name} of cluster {fsid}", dir.display())]
    WrongIdentity {
        /// Where its files are.
        dir: PathBuf,
        /// Whose they are.
        found: EntityName,
        /// Of which cluster.
        found_fsid: Fsid,
        /// Who the certificate names.
        name: EntityName,
        /// And its cluster.
        fsid: Fsid,
    },
    /// No thread for the storage.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// It stopped for good.
    #[error(transparent)]
    Stopped(#[from] Fault),
}

/// Makes the files of the monitor `name` in `data_dir`, which must have none yet.
pub fn create(data_dir: &Path, name: &EntityName, seed: Seed) -> Result<(), MonError> {
    let mon_map = match &seed {
        Seed::Founding(genesis) => ClusterState::new(genesis.clone()).mon_map().clone(),
        Seed::Joining(map) => map.clone(),
    };
    let known = mon_map.peers().find(|(known, _)| name.kind() == EntityKind::Mon && *known == name.id());
    let id = known.ok_or_else(|| MonError::NotInMap { name: name.clone() })?.1.id;
    let (log, checkpoint): (DurableState, Option<Checkpoint>) = match seed {
        Seed::Founding(genesis) => {
            let setup = Setup::founding(id, 0, Timing::default(), genesis)?;
            (setup.log, setup.checkpoint)
        }
        Seed::Joining(_) => (DurableState::joining(), None),
    };
    let identity = MonIdentity { fsid: mon_map.fsid, name: name.clone(), id, mon_map };
    Ok(Storage::create(data_dir, identity, log, checkpoint.as_ref())?)
}

/// Runs a monitor until `stop` ends or it is removed from the cluster. Dropped, it is as if the process had been
/// killed. For a runtime of one thread.
pub async fn run(options: MonOptions, stop: impl Future<Output = ()>) -> Result<(), MonError> {
    let MonOptions { identity, data_dir, listen, timing } = options;
    timing.check()?;
    let Opened { storage, identity: own, log, checkpoint } = Storage::open(&data_dir)?;
    if (own.fsid, &own.name) != (identity.fsid(), identity.name()) {
        return Err(MonError::WrongIdentity {
            dir: data_dir,
            found: own.name,
            found_fsid: own.fsid,
            name: identity.name().clone(),
            fsid: identity.fsid(),
        });
    }
    let config = Config { incarnation: clock::wall().0, ..Config::new(identity, Some(listen)) };
    let endpoint = Arc::new(Endpoint::bind(config).await?);
    let mon_map = own.mon_map.clone();
    let setup = Setup { id: own.id, run: clock::draw(), timing, log, checkpoint, mon_map };
    let monitor = Monitor::start(setup, driver::now())?;
    let ended = Driver::new(monitor, &own, endpoint.clone(), storage)?.run(stop).await;
    // Its files are free from here on.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.close()).await;
    ended
}
