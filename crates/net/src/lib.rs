//! Authenticated connections between cairn processes.
//!
//! An [`Endpoint`] has the [`Identity`] that the cluster's CA gave to this process. It connects to peers and
//! accepts them; both sides prove who they are, always. A [`Connection`] has a few [lanes](cairn_wire::Lane), each
//! ordered and with its own bounded send queue, and carries [frames](cairn_wire::Frame). Received frames go to a
//! [`Handler`] on the reading task or to a bounded channel. TCP with TLS 1.3 and QUIC stand behind the same
//! interface ([`Carrier`]).
//!
//! The bytes are described in `docs/format/wire.md`.

mod carrier;
mod config;
mod connection;
mod endpoint;
mod error;
mod lane;
pub mod pki;
mod queue;
mod receive;
mod token;

pub use config::{
    ACCEPT_QUEUE_MAX, CLOSE_TIMEOUT, Carrier, Config, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, KEEP_ALIVE_INTERVAL,
    QuicMtu, SEND_COST_MIN, SEND_QUEUE_BYTES_MAX, SILENT_INTERVALS_MAX, Tuning, UDP_BUFFER_LEN,
};
pub use connection::{Connection, Peer};
pub use endpoint::{Endpoint, Incoming};
pub use error::{BindError, CloseReason, ConnectError, PeerRefusal, SendError, StrangerError, TrySendError};
pub use pki::{AuthError, ClusterCa, Credentials, Expect, Fingerprint, Identity, IdentityError, Validity};
pub use receive::{Delivery, Handler, Receive};
pub use token::{JoinToken, ParseJoinTokenError};
