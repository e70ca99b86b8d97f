//! The OSD as a process: its store, sockets and clocks around the core. Nothing is decided here.
//!
//! | behaviour | file |
//! |---|---|
//! | made, started, stopped | here |
//! | events into the core, effects out of it | `driver` |
//! | what the store is given and what comes back | `disk` |
//! | connections of clients and OSDs | `door`, `link` |
//! | what the mgr is told | `reporter` |
//!
//! Everything but the store runs on the one thread of its runtime: a frame that arrives is handed to the core by the
//! task that read it, and what the core sends is queued there and then.

mod clock;
mod create;
mod disk;
mod door;
mod driver;
mod link;
mod reporter;

pub use create::{CreateError, NewOsd, create};

use crate::core::{Config, Setup, StopReason, Usage};
use crate::persist::{PersistError, load_host, look};
use cairn_mon::service::subscription::Need;
use cairn_mon::session::{MonClient, Monitors, Wants};
use cairn_net::{BindError, Endpoint, Identity};
use cairn_store::device::file::{OpenError, QueueKind};
use cairn_store::{OpenOptions, Store, StoreError};
use cairn_types::{EntityAddr, EntityName, Epoch, Fsid, OsdId};
use driver::{Driver, Parts};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// How long a start waits for a store that another process has. The kernel lets go of the files of a killed process
/// only when the last request of its ring has ended, which is after the process is gone.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it looks again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// How long an OSD that stops gives its connections to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Batches of maps that wait for the core.
const UPDATES_MAX: usize = 16;

/// What an OSD runs with.
#[derive(Clone, Debug)]
pub struct OsdOptions {
    /// Its certificate.
    pub identity: Identity,
    /// File or device that [`create()`] has made its store on.
    pub store: PathBuf,
    /// How the store is opened.
    pub open: OpenOptions,
    /// Where clients reach it; port 0 lets the system choose.
    pub public: SocketAddr,
    /// Where OSDs reach it; port 0 lets the system choose.
    pub cluster: SocketAddr,
    /// Where monitors are looked for first.
    pub monitors: Monitors,
    /// Times and bounds of the core.
    pub config: Config,
}

impl OsdOptions {
    /// With the usual times and bounds, on ports that the system chooses.
    pub fn new(identity: Identity, store: impl Into<PathBuf>, monitors: impl Into<Monitors>) -> OsdOptions {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        OsdOptions {
            identity,
            store: store.into(),
            // A group's log has no holes: without one change none after it may be kept.
            open: OpenOptions { stops_at_refusal: true, keeps_damage: true, ..OpenOptions::default() },
            public: any,
            cluster: any,
            monitors: monitors.into(),
            config: Config::default(),
        }
    }
}

/// Why an OSD cannot run, or does no longer.
#[derive(Debug, Error)]
pub enum OsdError {
    /// The certificate is no OSD's.
    #[error("the certificate is of {name}; an OSD needs one of its own, such as osd.0")]
    NotAnOsd {
        /// Whose it is.
        name: EntityName,
    },
    /// The store is another OSD's, or of another cluster.
    #[error("the store {} is of {found} of cluster {found_fsid}, but the certificate is of {name} of cluster {fsid}", path.display())]
    OtherStore {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        found: OsdId,
        /// Of which cluster.
        found_fsid: Fsid,
        /// Who the certificate names.
        name: EntityName,
        /// And its cluster.
        fsid: Fsid,
    },
    /// The store cannot be opened.
    #[error("{}: {source}", path.display())]
    Store {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// What is in it cannot be used.
    #[error("{}: {source}", path.display())]
    Contents {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: PersistError,
    },
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The disk failed, or a change could not be carried out: nothing is acknowledged any more.
    #[error("the OSD stops: {why}")]
    Failed {
        /// What happened.
        why: String,
    },
    /// It cannot be part of the cluster.
    #[error(transparent)]
    Stopped(StopReason),
}

/// Runs an OSD until `stop` ends, it is not wanted any more, or it fails. Dropped, it is as if the process had been
/// killed. For a runtime of one thread.
///
/// # Errors
/// Why it cannot run, or stopped without being asked.
pub async fn run(options: OsdOptions, stop: impl Future<Output = ()>) -> Result<(), OsdError> {
    let OsdOptions { identity, store: path, mut open, public, cluster, monitors, config } = options;
    let name = identity.name().clone();
    let whoami = name.osd_id().ok_or_else(|| OsdError::NotAnOsd { name: name.clone() })?;
    open.cluster = Some(identity.fsid().0);
    let store_error = |source| OsdError::Store { path: path.clone(), source };
    let store = open_when_free(&path, &open).await.map_err(store_error)?;
    let (host, usage) = load(&store).await.map_err(store_error)?;
    let host = host.map_err(|source| OsdError::Contents { path: path.clone(), source })?;
    let superblock = host.superblock;
    if (superblock.fsid, superblock.whoami) != (identity.fsid(), whoami) {
        return Err(OsdError::OtherStore {
            path,
            found: superblock.whoami,
            found_fsid: superblock.fsid,
            name,
            fsid: identity.fsid(),
        });
    }
    let nonce = clock::nonce();
    let endpoint = |listen| {
        let mut net = cairn_net::Config::new(identity.clone(), Some(listen));
        net.incarnation = nonce;
        net.tuning.close_timeout = CLOSE_TIMEOUT;
        Endpoint::bind(net)
    };
    let public_end = Arc::new(endpoint(public).await?);
    let cluster_end = Arc::new(endpoint(cluster).await?);
    let addr = |end: &Endpoint, asked| EntityAddr { socket: end.local_addr().unwrap_or(asked), nonce };
    let setup = Setup {
        superblock,
        maps: host.maps,
        groups: host.groups,
        removing: host.removing,
        public: addr(&public_end, public),
        cluster: addr(&cluster_end, cluster),
        usage,
    };
    tracing::info!(osd = %whoami, public = %setup.public, cluster = %setup.cluster, "starting");
    let (updates_in, updates) = mpsc::channel(UPDATES_MAX);
    let mon = MonClient::start(cluster_end.clone(), monitors, updates_in);
    // The core says from which epoch on; the mgr's place is wanted from the start.
    let wants = Wants { osd_map: None, mon_map: true, mgr_map: true, config: false };
    mon.subscribe(wants);
    let (ended, end) = oneshot::channel();
    let parts =
        Parts { whoami, store: store.clone(), mon, cluster: cluster_end.clone(), kept: host.kept, wants };
    let driver = Driver::new(parts, setup, config, ended).map_err(OsdError::Stopped)?;
    let tasks = driver.start(updates, &public_end);
    let result = tokio::select! {
        result = end => result,
        () = async { stop.await; driver.stop(); std::future::pending().await } => unreachable!("waits for ever"),
    };
    drop(tasks);
    let result = match result {
        Ok(Ok(StopReason::Clean)) => Ok(()),
        Ok(Ok(reason)) => Err(OsdError::Stopped(reason)),
        Ok(Err(why)) => Err(OsdError::Failed { why }),
        Err(_) => Err(OsdError::Failed { why: "its driver is gone".into() }),
    };
    driver.shut();
    drop(driver);
    tokio::join!(public_end.close(), cluster_end.close());
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    match (result, closed) {
        (Ok(()), Ok(Err(source))) => Err(OsdError::Store { path, source }),
        (result, _) => result,
    }
}

/// Opens the store, which the run before may hold for a moment after its end.
async fn open_when_free(path: &Path, open: &OpenOptions) -> Result<Store, StoreError> {
    let began = Instant::now();
    loop {
        match Store::open(path, open, QueueKind::Auto) {
            Err(StoreError::Open(error))
                if matches!(*error, OpenError::InUse(_)) && began.elapsed() < LOCK_TIMEOUT =>
            {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            opened => return opened,
        }
    }
}

type Loaded = (Result<crate::persist::Host, PersistError>, Usage);

/// Reads what is stored, without holding up the runtime.
async fn load(store: &Store) -> Result<Loaded, StoreError> {
    let (sender, loaded) = oneshot::channel();
    let question = |engine: &mut cairn_store::Engine<_>| (load_host(engine), look(engine));
    store.query(question, move |answer| drop(sender.send(answer)))?;
    loaded.await.unwrap_or(Err(StoreError::Closed))
}

/// Of an OSD's maps, every epoch.
fn wants_maps(wants: Wants, have: Epoch) -> Wants {
    Wants { osd_map: Some((have, Need::EveryEpoch)), ..wants }
}
