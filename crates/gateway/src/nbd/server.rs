//! The server: clients accepted, served and at last waited for.

use super::connection;
use super::listen::{Incoming, Listener};
use super::negotiate::ExportInfo;
use super::proto::STRING_MAX;
use crate::block::BlockDevice;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Clients served at a time; further ones wait in the system's backlog. With 32 MiB each they take at most 1 GiB.
pub const CONNECTIONS_MAX: usize = 32;
/// Time that requests in progress have when the server stops.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Pause after the system refused to give a connection out (no more files, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A device with the name that clients ask for.
pub struct Export<D> {
    /// At most 4,096 bytes.
    pub name: String,
    /// For people.
    pub description: String,
    /// What is served.
    pub device: Arc<D>,
}

impl<D: BlockDevice> Export<D> {
    pub(crate) fn about(&self) -> ExportInfo {
        let info = self.device.info();
        ExportInfo {
            name: self.name.clone(),
            description: self.description.clone(),
            size_bytes: info.size_bytes,
            read_only: info.read_only,
            block_min_bytes: info.block_min_bytes,
            block_preferred_bytes: info.block_preferred_bytes,
        }
    }
}

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nothing to serve.
    #[error("there is no export to serve")]
    NoExport,
    /// The protocol's limit.
    #[error("the name or description of an export has {len} bytes, at most {STRING_MAX} are allowed")]
    TextTooLong {
        /// Its length.
        len: usize,
    },
    /// Clients could not tell them apart.
    #[error("two exports are named {name}")]
    SameName {
        /// The name.
        name: String,
    },
    /// The protocol's rules for units are broken.
    #[error(
        "export {name} has block sizes {min} and {preferred}: both must be powers of two, the first at most \
         65,536, the second no smaller than the first and at least 512"
    )]
    BlockSizes {
        /// The export.
        name: String,
        /// Its smallest unit.
        min: u32,
        /// Its preferred unit.
        preferred: u32,
    },
}

/// An NBD server over one or more exports; the first is the default.
pub struct Server<D> {
    exports: Arc<Vec<Export<D>>>,
}

impl<D: BlockDevice> Server<D> {
    /// Checks what is to be served.
    pub fn new(exports: Vec<Export<D>>) -> Result<Self, ServerError> {
        if exports.is_empty() {
            return Err(ServerError::NoExport);
        }
        for (place, export) in exports.iter().enumerate() {
            let len = export.name.len().max(export.description.len());
            if len > STRING_MAX {
                return Err(ServerError::TextTooLong { len });
            }
            if exports[..place].iter().any(|other| other.name == export.name) {
                return Err(ServerError::SameName { name: export.name.clone() });
            }
            let info = export.device.info();
            let (min, preferred) = (info.block_min_bytes, info.block_preferred_bytes);
            let sound = min.is_power_of_two() && min <= 65_536;
            if !sound || !preferred.is_power_of_two() || preferred < min.max(512) {
                return Err(ServerError::BlockSizes { name: export.name.clone(), min, preferred });
            }
        }
        Ok(Server { exports: Arc::new(exports) })
    }

    /// Serves clients until `stop` resolves; then answers what is in progress, for at most [`STOP_GRACE`]. The devices
    /// stay open: their owner closes them afterwards.
    pub async fn run(self, listener: Listener, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut clients = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let incoming = tokio::select! {
                () = &mut stop => break,
                Some(_) = clients.join_next() => continue,
                incoming = next_client(&listener, &places) => incoming,
            };
            let (incoming, place) = match incoming {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "no client can be accepted for a moment");
                    tokio::select! {
                        () = &mut stop => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    }
                }
            };
            let (exports, tls, stopped) = (self.exports.clone(), listener.tls(), stopped.clone());
            clients.spawn(async move {
                let (from, ended) = match incoming {
                    Incoming::Unix(stream) => {
                        ("a unix socket".to_owned(), connection::serve(&exports, stream, tls, stopped).await)
                    }
                    Incoming::Tcp(stream, addr) => {
                        (addr.to_string(), connection::serve(&exports, stream, tls, stopped).await)
                    }
                };
                match ended {
                    Ok(()) => tracing::debug!(from, "an NBD client left"),
                    Err(error) => tracing::warn!(from, %error, "an NBD client was cut off"),
                }
                drop(place);
            });
        }
        listener.retire();
        drop(listener);
        stopping.send_replace(true);
        let all = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            tracing::warn!("requests were not answered before the server stopped");
        }
        clients.shutdown().await;
    }
}

async fn next_client(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> io::Result<(Incoming, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
    Ok((listener.accept().await?, place))
}
