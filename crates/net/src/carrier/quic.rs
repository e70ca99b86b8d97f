//! QUIC: one connection, one bidirectional stream per lane.

use super::poll_once;
use crate::config::{QuicMtu, Tuning};
use crate::error::BindError;
use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Application code of a connection that was closed in good order.
pub(crate) const CODE_DONE: VarInt = VarInt::from_u32(0);
/// Application code of a connection that was given up.
pub(crate) const CODE_ABORTED: VarInt = VarInt::from_u32(1);
/// First guess of the round trip: a data centre, not the internet's 333 ms.
const INITIAL_RTT: Duration = Duration::from_millis(2);
/// Flow control windows: bandwidth × delay of 25 Gbit/s at 5 ms, per lane.
const WINDOW_LEN: u32 = 16 << 20;
/// Behind our own keep-alives, for connections that nobody supervises yet.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct QuicStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    /// Resolves when the peer has all that was sent.
    stopped: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl QuicStream {
    pub(crate) fn new((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Self {
        QuicStream { send, recv, stopped: None }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        tokio_util::io::poll_read_buf(Pin::new(&mut self.recv), cx, buf)
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<()>> {
        // The future does all its work in one poll and takes what is written off the slices.
        let written = ready!(poll_once(self.send.write_chunks(out.make_contiguous()), cx))?;
        out.drain(..written.chunks);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = &mut self.send;
        let stopped = self.stopped.get_or_insert_with(|| {
            let _ = send.finish(); // fails only when finished or stopped already
            let stopped = send.stopped();
            Box::pin(async move { stopped.await.map(|_| ()).map_err(io::Error::other) })
        });
        stopped.as_mut().poll(cx)
    }
}

fn transport(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let window = VarInt::from_u32(WINDOW_LEN);
    transport
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(window)
        .receive_window(VarInt::from_u32(4 * WINDOW_LEN))
        .send_window(4 * u64::from(WINDOW_LEN))
        .max_concurrent_bidi_streams(VarInt::from_u32(3))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("30 s is in range")));
    match tuning.quic_mtu {
        QuicMtu::Usual => {}
        QuicMtu::Jumbo(mtu) => {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(mtu);
            transport.initial_mtu(mtu).mtu_discovery_config(Some(discovery));
        }
    }
    Arc::new(transport)
}

/// An endpoint on its own UDP socket; it listens when `listen` is given.
pub(crate) fn bind(listen: Option<SocketAddr>, tuning: &Tuning) -> Result<quinn::Endpoint, BindError> {
    let mtu_error = |mtu, why| Err(BindError::Mtu { mtu, why });
    let max_payload = match tuning.quic_mtu {
        QuicMtu::Usual => None,
        QuicMtu::Jumbo(mtu) if mtu > QuicMtu::OFFLOAD_MAX => {
            return mtu_error(mtu, "ten of them do not fit in one send with segmentation offload");
        }
        QuicMtu::Jumbo(mtu) if mtu < 1200 => {
            return mtu_error(mtu, "QUIC asks for 1,200 at least");
        }
        QuicMtu::Jumbo(mtu) => Some(mtu),
    };
    let mut config = EndpointConfig::default();
    if let Some(mtu) = max_payload {
        config.max_udp_payload_size(mtu).expect("checked to be at least 1,200");
    }
    let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let (addr, socket) = match listen {
        Some(addr) => (addr, udp_socket(addr, tuning)),
        // Dual-stack where the system has IPv6.
        None => (any6, udp_socket(any6, tuning).or_else(|_| udp_socket(any4, tuning))),
    };
    let listen_error = |source| BindError::Listen { addr, source };
    let socket = socket.map_err(listen_error)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(config, None, socket, runtime).map_err(listen_error)
}

fn udp_socket(addr: SocketAddr, tuning: &Tuning) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_send_buffer_size(tuning.udp_buffer_len)?;
    socket.set_recv_buffer_size(tuning.udp_buffer_len)?;
    let given = socket.recv_buffer_size()?;
    if given < tuning.udp_buffer_len {
        tracing::warn!(
            given,
            asked = tuning.udp_buffer_len,
            "the system caps UDP buffers: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

pub(crate) fn client_config(tls: rustls::ClientConfig, tuning: &Tuning) -> quinn::ClientConfig {
    let tls = QuicClientConfig::try_from(tls).expect("AES-128-GCM is among the suites");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(tuning));
    config
}

pub(crate) fn server_config(tls: rustls::ServerConfig, tuning: &Tuning) -> quinn::ServerConfig {
    let tls = QuicServerConfig::try_from(tls).expect("AES-128-GCM is among the suites");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport(tuning));
    config
}

/// The TLS alert that closed a connection, if one did.
pub(crate) fn alert_of(error: &quinn::ConnectionError) -> Option<rustls::AlertDescription> {
    let quinn::ConnectionError::ConnectionClosed(close) = error else { return None };
    // RFC 9001 §4.8: CRYPTO_ERROR is 0x100 plus the alert.
    let code = u64::from(close.error_code);
    (0x100..0x200).contains(&code).then(|| rustls::AlertDescription::from((code - 0x100) as u8))
}
