//! What can go wrong, by boundary: binding, connecting, sending, and the end of a connection.

use crate::pki::AuthError;
use cairn_wire::handshake::{HandshakeError, Refusal, RefusalCode};
use cairn_wire::{Frame, FrameError, GoodbyeReason, Lane};
use rustls::AlertDescription;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}{}", hint(source))]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// QUIC cannot be set up with these packet sizes.
    #[error("QUIC packets of {mtu} bytes cannot be used: {why}")]
    Mtu {
        /// As configured.
        mtu: u16,
        /// The bound that is broken.
        why: &'static str,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process has the port: stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have the address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
        _ => "",
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there: the process is not running.
    #[error("{addr} refuses connections: nothing listens there")]
    Refused {
        /// Where.
        addr: SocketAddr,
    },
    /// The system cannot reach the address.
    #[error("{addr} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No full answer in time.
    #[error("{addr} did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// Where.
        addr: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The peer is not who it should be.
    #[error("{addr} is not trusted: {source}")]
    Untrusted {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: AuthError,
    },
    /// The peer does not trust this side.
    #[error("{addr} does not trust this side: {reason}")]
    NotTrusted {
        /// Where.
        addr: SocketAddr,
        /// What it says.
        reason: PeerRefusal,
    },
    /// The peer is known and says no.
    #[error("{addr} refuses the connection: {}", refusal.text)]
    Denied {
        /// Where.
        addr: SocketAddr,
        /// What it says.
        refusal: Refusal,
    },
    /// TLS or QUIC found no understanding: what listens there is not cairn, or uses the other carrier.
    #[error("{addr} does not answer as a cairn process: {source}")]
    Stranger {
        /// Where.
        addr: SocketAddr,
        /// What was seen.
        source: StrangerError,
    },
    /// The peer closed while the connection was being made.
    #[error("{addr} closed the connection before it was made")]
    Lost {
        /// Where.
        addr: SocketAddr,
    },
    /// This endpoint is closed.
    #[error("this endpoint is closed")]
    EndpointClosed,
}

impl ConnectError {
    /// The two ends do not take each other: another cluster, another name, another release. Trying again changes
    /// nothing until somebody does.
    pub fn is_refusal(&self) -> bool {
        match self {
            ConnectError::Untrusted { .. } | ConnectError::NotTrusted { .. } => true,
            ConnectError::Denied { refusal, .. } => {
                !matches!(refusal.code, RefusalCode::BUSY | RefusalCode::CLOSING)
            }
            _ => false,
        }
    }
}

/// What a listener that is not a cairn process, or not one of this carrier, answered.
#[derive(Debug, thiserror::Error)]
pub enum StrangerError {
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// No QUIC.
    #[error(transparent)]
    Quic(#[from] quinn::ConnectionError),
    /// Something else inside TLS.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A handshake message that is out of place.
    #[error("its answer to a hello is none")]
    OutOfPlace,
}

/// What a TLS alert says about this side's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerRefusal {
    /// The certificate was not made by the peer's cluster.
    OtherCluster,
    /// The certificate has expired, or its time has not come, by the peer's clock.
    Expired,
    /// The certificate is good, but not for whom the peer expected.
    WrongName,
    /// Any other alert.
    Alert(AlertDescription),
}

impl From<AlertDescription> for PeerRefusal {
    fn from(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::UnknownCA => PeerRefusal::OtherCluster,
            AlertDescription::CertificateExpired => PeerRefusal::Expired,
            AlertDescription::AccessDenied => PeerRefusal::WrongName,
            other => PeerRefusal::Alert(other),
        }
    }
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerRefusal::OtherCluster => f.write_str("this side's certificate was made by another cluster"),
            PeerRefusal::Expired => f.write_str(
                "this side's certificate does not hold now, by its clock: issue a new one or set the clocks",
            ),
            PeerRefusal::WrongName => f.write_str("it expected someone else here"),
            PeerRefusal::Alert(alert) => write!(f, "TLS alert {alert:?}"),
        }
    }
}

/// Why a frame was not queued.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
    /// The connection was made without this lane.
    #[error("the connection has no {0} lane")]
    NoLane(Lane),
}

/// Why a frame was not queued at once; it comes back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrySendError {
    /// The lane's queue has no room.
    #[error("the send queue is full")]
    Full(Box<Frame>),
    /// It never will be.
    #[error(transparent)]
    Never(SendError),
}

/// Why a connection ended. Told once to its handler, and to everyone who asks.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it in good order.
    #[error("closed by this side ({0})")]
    Local(GoodbyeReason),
    /// The peer closed it in good order.
    #[error("closed by the peer ({0})")]
    Peer(GoodbyeReason),
    /// The peer's end vanished: its process died, or its system reset the connection.
    #[error("lost: the peer's end is gone")]
    Lost,
    /// Nothing came from the peer for too long.
    #[error("lost: the peer has been silent for too long")]
    Silent,
    /// The system or TLS gave up on the stream.
    #[error("failed: {0}")]
    Io(Arc<io::Error>),
    /// The peer sent what is no frame.
    #[error("ended because of a bad frame on the {lane} lane: {error}")]
    Frame {
        /// Where.
        lane: Lane,
        /// What is wrong with it.
        error: Arc<FrameError>,
    },
    /// The handler of this side panicked, or dropped the receiver of its frames.
    #[error("ended because the receiver on this side is gone")]
    ReceiverGone,
    /// This side aborted it.
    #[error("aborted by this side")]
    Aborted,
}

impl CloseReason {
    /// Of an error of the stream.
    pub(crate) fn of_io(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
            | Kind::UnexpectedEof => CloseReason::Lost,
            Kind::TimedOut => CloseReason::Silent,
            _ => CloseReason::Io(Arc::new(error)),
        }
    }
}
