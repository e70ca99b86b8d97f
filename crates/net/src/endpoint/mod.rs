//! An endpoint: one listening socket, connections in and out.

mod accept;
mod connect;
#[cfg(test)]
mod tests;

pub use accept::Incoming;

use crate::carrier::{quic, tcp};
use crate::config::{Carrier, Config};
use crate::connection::{Belongs, Connection};
use crate::error::{BindError, ConnectError};
use crate::pki::{Expect, Identity};
use crate::receive::Receive;
use cairn_wire::LaneSet;
use cairn_wire::handshake::Offer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, watch};

/// Makes connections and accepts them, on the tokio runtime it was bound in.
///
/// Dropping it closes its connections in good order, without waiting for that.
pub struct Endpoint {
    core: Arc<Core>,
    local_addr: Option<SocketAddr>,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    closing: watch::Sender<bool>,
    /// Ends when the last connection and handshake has.
    ended: Mutex<mpsc::Receiver<()>>,
    /// `None` once closed.
    belongs: parking_lot::Mutex<Option<Belongs>>,
}

/// What handshakes of both directions need.
struct Core {
    config: Config,
    offer: Offer,
    quic: Option<quinn::Endpoint>,
}

impl Core {
    fn identity(&self) -> &Identity {
        &self.config.identity
    }
}

impl Endpoint {
    /// Opens the sockets and begins to accept if the configuration says where.
    pub async fn bind(config: Config) -> Result<Endpoint, BindError> {
        let identity = &config.identity;
        let offer = Offer::ours(identity.fsid(), identity.name().clone(), config.incarnation);
        let (incoming_tx, incoming) = mpsc::channel(config.tuning.accept_queue_max.max(1));
        let (closing, closing_rx) = watch::channel(false);
        let (alive, ended) = mpsc::channel(1);
        let belongs = Belongs { closing: closing_rx, alive };
        let listen_error = |addr| move |source| BindError::Listen { addr, source };
        let (core, local_addr);
        match config.carrier {
            Carrier::Quic => {
                let quic = quic::bind(config.listen, &config.tuning)?;
                local_addr = match config.listen {
                    Some(addr) => Some(quic.local_addr().map_err(listen_error(addr))?),
                    None => None,
                };
                core = Arc::new(Core { config, offer, quic: Some(quic.clone()) });
                if local_addr.is_some() {
                    accept::listen_quic(core.clone(), quic, incoming_tx, belongs.clone());
                }
            }
            Carrier::Tcp => {
                let listener = match config.listen {
                    Some(addr) => Some(tcp::listen(addr).map_err(listen_error(addr))?),
                    None => None,
                };
                local_addr = match (&listener, config.listen) {
                    (Some(listener), Some(addr)) => Some(listener.local_addr().map_err(listen_error(addr))?),
                    _ => None,
                };
                core = Arc::new(Core { config, offer, quic: None });
                if let Some(listener) = listener {
                    accept::listen_tcp(core.clone(), listener, incoming_tx, belongs.clone());
                }
            }
        }
        Ok(Endpoint {
            core,
            local_addr,
            incoming: Mutex::new(incoming),
            closing,
            ended: Mutex::new(ended),
            belongs: parking_lot::Mutex::new(Some(belongs)),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// What it shows to its peers.
    pub fn identity(&self) -> &Identity {
        self.core.identity()
    }

    /// Connects to `addr`, where `expect` should be. Returns when the peer has accepted every lane; frames go
    /// to `receive` from then on.
    pub async fn connect(
        &self,
        addr: SocketAddr,
        expect: &Expect,
        lanes: LaneSet,
        receive: Receive,
    ) -> Result<Connection, ConnectError> {
        let belongs = self.belongs.lock().clone().ok_or(ConnectError::EndpointClosed)?;
        connect::connect(&self.core, addr, expect, lanes, receive, belongs).await
    }

    /// The next connection from outside, authenticated and waiting for a yes or no; `None` once closed, or
    /// when the endpoint does not listen.
    pub async fn accept(&self) -> Option<Incoming> {
        self.incoming.lock().await.recv().await
    }

    /// Stops accepting, closes every connection in good order and waits for the end of the last, at most
    /// about the close timeout.
    pub async fn close(&self) {
        self.belongs.lock().take();
        self.closing.send_replace(true);
        // Those nobody took are dropped, and with them their part of `alive`.
        self.incoming.lock().await.close();
        while self.incoming.lock().await.recv().await.is_some() {}
        let _ = self.ended.lock().await.recv().await;
        if let Some(quic) = &self.core.quic {
            quic.close(quic::CODE_DONE, b"");
            let _ = tokio::time::timeout(self.core.config.tuning.close_timeout, quic.wait_idle()).await;
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({}", self.identity().name())?;
        match self.local_addr {
            Some(addr) => write!(f, " at {addr})"),
            None => f.write_str(")"),
        }
    }
}
