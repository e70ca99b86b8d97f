//! Settings of an endpoint, with every bound and time in one place.

use crate::pki::Identity;
use std::net::SocketAddr;
use std::time::Duration;

/// How bytes travel. Both ends of a connection use the same; ports of the two are apart (TCP and UDP).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Carrier {
    /// One TCP+TLS stream per lane. The default: `docs/decisions/carrier.md`.
    #[default]
    Tcp,
    /// QUIC, one stream per lane.
    Quic,
}

/// How an endpoint is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this side shows to its peers.
    pub identity: Identity,
    /// How bytes travel.
    pub carrier: Carrier,
    /// Where to listen; port 0 lets the system choose. `None` only connects.
    pub listen: Option<SocketAddr>,
    /// Grows with every start of the process; peers see it.
    pub incarnation: u64,
    /// Bounds and times.
    pub tuning: Tuning,
}

impl Config {
    /// The defaults for `identity`.
    pub fn new(identity: Identity, listen: Option<SocketAddr>) -> Self {
        Config { identity, carrier: Carrier::default(), listen, incarnation: 0, tuning: Tuning::default() }
    }
}

/// Bounds and times of an endpoint and its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// From connecting to the last welcome; a peer that takes longer is not there.
    pub handshake_timeout: Duration,
    /// A side that sent nothing for this long sends a keep-alive.
    pub keep_alive_interval: Duration,
    /// A peer of which nothing came for this many intervals is dead (a stopped process, a cut cable).
    pub silent_intervals_max: u32,
    /// How long a graceful close may take before it is a hard one.
    pub close_timeout: Duration,
    /// Most bytes that wait in one lane's send queue; senders wait beyond it. A frame counts at least
    /// [`SEND_COST_MIN`], and a frame larger than the bound goes when the queue is empty.
    pub send_queue_bytes_max: usize,
    /// Handshakes under way at once; further ones wait in the system's backlog.
    pub handshakes_max: usize,
    /// Connections that are made but not yet taken by [`Endpoint::accept`](crate::Endpoint::accept).
    pub accept_queue_max: usize,
    /// Buffers asked for on QUIC's socket, each direction; a warning tells when the system gives less.
    pub udp_buffer_len: usize,
    /// Packet size of QUIC.
    pub quic_mtu: QuicMtu,
}

/// Packet sizes of QUIC: see the measurements in `docs/decisions/carrier.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuicMtu {
    /// Found by probing up to 1,452 bytes, with segmentation offload: right on any network.
    Usual,
    /// Known to be this size from the start on the whole path, at most [`QuicMtu::OFFLOAD_MAX`] bytes, with
    /// segmentation offload (ten such packets must fit in one send of 65,507 bytes).
    Jumbo(u16),
}

impl QuicMtu {
    /// Largest packet with segmentation offload. Above it the system drops the whole send silently.
    pub const OFFLOAD_MAX: u16 = 6_500;
}

/// See [`Tuning::handshake_timeout`].
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`Tuning::keep_alive_interval`]. With [`SILENT_INTERVALS_MAX`] a stopped peer is found within 4 s; heartbeats
/// between OSDs are finer, and a killed process is seen at once where its system closes its sockets.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See [`Tuning::silent_intervals_max`].
pub const SILENT_INTERVALS_MAX: u32 = 3;
/// See [`Tuning::close_timeout`].
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`Tuning::send_queue_bytes_max`]: the largest frame and as much again.
pub const SEND_QUEUE_BYTES_MAX: usize = 32 << 20;
/// What a frame counts at least in the send queue, so that the queue of small ones is bounded too.
pub const SEND_COST_MIN: usize = 512;
/// See [`Tuning::handshakes_max`].
pub const HANDSHAKES_MAX: usize = 256;
/// See [`Tuning::accept_queue_max`].
pub const ACCEPT_QUEUE_MAX: usize = 64;
/// See [`Tuning::udp_buffer_len`].
pub const UDP_BUFFER_LEN: usize = 4 << 20;

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            silent_intervals_max: SILENT_INTERVALS_MAX,
            close_timeout: CLOSE_TIMEOUT,
            send_queue_bytes_max: SEND_QUEUE_BYTES_MAX,
            handshakes_max: HANDSHAKES_MAX,
            accept_queue_max: ACCEPT_QUEUE_MAX,
            udp_buffer_len: UDP_BUFFER_LEN,
            quic_mtu: QuicMtu::Usual,
        }
    }
}
