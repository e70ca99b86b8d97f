//! A new OSD: a number from the monitors, an empty store, the superblock in it.

use crate::core::Superblock;
use crate::persist::create_host;
use cairn_mon::service::crush::Location;
use cairn_mon::service::{OsdCommand, Reply, Request};
use cairn_mon::session::{CallError, MonClient};
use cairn_net::{BindError, Endpoint, Identity};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{Access, FileDevice, FileMedium, OpenError, QueueKind};
use cairn_store::{CreateOptions, Engine, OpenOptions, Store, StoreError, TransactionError};
use cairn_types::{OsdId, OsdUuid, Weight};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::mpsc;

/// Bytes of weight 1.0.
const TIB: u64 = 1 << 40;

/// What a new OSD is made from.
#[derive(Clone, Debug)]
pub struct NewOsd {
    /// Of whoever may ask the monitors for it, such as client.admin.
    pub identity: Identity,
    /// Where monitors are looked for.
    pub monitors: Vec<SocketAddr>,
    /// File to make, or a file or block device that is there.
    pub store: PathBuf,
    /// Length of a file to make; `None`: it is there.
    pub len_bytes: Option<u64>,
    /// Sizes of the store's parts. Whose it is, is filled in.
    pub options: CreateOptions,
    /// The number of a destroyed OSD that this one replaces; chosen if not given.
    pub id: Option<OsdId>,
    /// Device class, such as `ssd`.
    pub class: Option<String>,
    /// CRUSH weight; TiB of the device if not given.
    pub weight: Option<Weight>,
    /// Its place.
    pub location: Location,
}

/// Why an OSD cannot be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The file or device.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store.
    #[error("{}: {source}", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// Its first transaction.
    #[error("the new store takes no transaction: {0}")]
    Transaction(#[from] TransactionError),
    /// The monitors.
    #[error("the monitors gave no number: {0}")]
    Monitors(#[from] CallError),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gives no random numbers.
    #[error("cannot draw the store's id: {0}")]
    Entropy(#[source] std::io::Error),
    /// The monitors answered something else.
    #[error("the monitors answered something else than a number: is this release older than theirs?")]
    Answer,
}

/// Makes a store and the OSD on it, and tells its number. Its certificate is made for that number afterwards.
///
/// # Errors
/// Why not. A number that was given before a failure waits as an OSD that never booted: purge it.
pub async fn create(new: NewOsd) -> Result<OsdId, CreateError> {
    let NewOsd { identity, monitors, store: path, len_bytes, options, id, class, weight, location } = new;
    let medium = match len_bytes {
        Some(len) => FileMedium::create(&path, len)?,
        None => FileMedium::open(&path, Access::ReadWrite)?,
    };
    let mut drawn = [0; 16];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut drawn));
    random.map_err(CreateError::Entropy)?;
    let uuid = OsdUuid(drawn);
    let device: Arc<dyn BlockingDevice> = medium;
    let len = device.geometry().len_bytes;
    let weight = weight.unwrap_or_else(|| weight_of(len));
    let fsid = identity.fsid();
    let osd = ask(identity, monitors, OsdCommand::Create { uuid, id, class, weight, location }).await?;
    let store_error = |source| CreateError::Store { path: path.clone(), source };
    let options = CreateOptions { cluster: fsid.0, osd: osd.0, store: uuid.0, ..options };
    Engine::<FileDevice>::create(device, &options).map_err(store_error)?;
    let store = Store::open(&path, &OpenOptions::default(), QueueKind::Auto).map_err(store_error)?;
    let superblock = Superblock { fsid, uuid, whoami: osd, born: None, clean: None };
    store.commit(create_host(&superblock))?;
    store.close().map_err(store_error)?;
    Ok(osd)
}

async fn ask(
    identity: Identity,
    monitors: Vec<SocketAddr>,
    command: OsdCommand,
) -> Result<OsdId, CreateError> {
    let endpoint = Arc::new(Endpoint::bind(cairn_net::Config::new(identity, None)).await?);
    let (updates, _none) = mpsc::channel(1);
    let answer = MonClient::start(endpoint.clone(), monitors, updates).change(Request::Osd(command)).await;
    endpoint.close().await;
    match answer? {
        Reply::Osd { osd } => Ok(osd),
        _ => Err(CreateError::Answer),
    }
}

/// TiB in 16.16 fixed point, at least the smallest there is.
fn weight_of(len_bytes: u64) -> Weight {
    let weight = u128::from(len_bytes) * u128::from(Weight::ONE.0) / u128::from(TIB);
    Weight(u32::try_from(weight).unwrap_or(u32::MAX).max(1))
}
