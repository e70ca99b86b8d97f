//! TCP with TLS 1.3: one socket per lane.

use rustls_pki_types::{DnsName, ServerName};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Connections the system keeps while all handshake places are taken.
const BACKLOG: i32 = 1024;

/// What one read of a socket may take. TLS asks for 4 KiB at a time, which would be two system calls for a block with its
/// header, and 260 for 1 MiB.
const READ_AHEAD_LEN: usize = 64 << 10;

/// An authenticated socket.
pub(crate) type TlsSocket = TlsStream<BufReader<TcpStream>>;

pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted daemon takes its port back while old connections of it linger.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Buffers stay sized by the system, which follows bandwidth × delay; a fixed size would turn that off.
fn tune(stream: &TcpStream) -> io::Result<()> {
    // Frames are batched here; nothing is to wait for an acknowledgement.
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_keepalive(true)
}

pub(crate) async fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let stream = socket.connect(addr).await?;
    tune(&stream)?;
    Ok(stream)
}

pub(crate) async fn client_tls(stream: TcpStream, config: rustls::ClientConfig) -> io::Result<TlsSocket> {
    // Sent to nobody (SNI is off) and compared with nothing: the verifier looks at the entity.
    let name = ServerName::DnsName(DnsName::try_from("cairn").expect("a valid name"));
    TlsConnector::from(Arc::new(config)).connect(name, read_ahead(stream)).await.map(TlsStream::Client)
}

/// Gives the socket back on failure: the alert in it must reach the peer before the socket is closed.
pub(crate) async fn server_tls(
    stream: TcpStream,
    config: rustls::ServerConfig,
) -> Result<TlsSocket, (io::Error, TcpStream)> {
    if let Err(error) = tune(&stream) {
        return Err((error, stream));
    }
    let accept = TlsAcceptor::from(Arc::new(config)).accept(read_ahead(stream)).into_fallible();
    accept.await.map(TlsStream::Server).map_err(|(error, stream)| (error, stream.into_inner()))
}

fn read_ahead(stream: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_AHEAD_LEN, stream)
}
