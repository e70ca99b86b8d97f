//! Where clients come in: a unix socket, or a TCP port behind TLS.

use super::connection::Tls;
use cairn_net::{Expect, Identity};
use socket2::{Domain, SockRef, Socket, Type};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections the system keeps until they are accepted.
const BACKLOG: i32 = 128;
/// Longest path of a unix socket on Linux, `sun_path` less its last zero.
const SOCKET_PATH_MAX: usize = 107;
/// Who runs the server may attach; nobody else on the machine.
const SOCKET_MODE: u32 = 0o600;

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another server has it.
    #[error("{} is served by another process: stop it, or choose another path", path.display())]
    Served {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there, which is left alone.
    #[error("{} exists and is not a socket: choose another path", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The system's limit.
    #[error("{} has {len} bytes, a socket's path at most {SOCKET_PATH_MAX}: choose a shorter one", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The path cannot be used.
    #[error("cannot listen on {}: {source}", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The port is taken.
    #[error("{addr} is in use by another process: choose another port")]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen on {addr}: {source}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A place where clients connect.
pub struct Listener(pub(crate) Kind);

pub(crate) enum Kind {
    Unix { listener: UnixListener, file: SocketFile },
    Tcp { listener: TcpListener, tls: Tls },
}

/// A client that has connected.
pub(crate) enum Incoming {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

impl Listener {
    /// Listens on a unix socket that only this user can open. A socket file that nobody listens on any more is
    /// replaced. Must run inside a tokio runtime.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        let owned = || path.to_path_buf();
        let fail = |source| BindError::Unix { path: path.to_path_buf(), source };
        let len = path.as_os_str().len();
        if len > SOCKET_PATH_MAX {
            return Err(BindError::PathTooLong { path: owned(), len });
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(BindError::NotASocket { path: owned() });
            }
            Ok(_) => match StdUnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(fail)?;
                }
                Ok(_) => return Err(BindError::Served { path: owned() }),
                // A full backlog is a server, too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(BindError::Served { path: owned() });
                }
                Err(error) => return Err(fail(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail)?;
        let addr = socket2::SockAddr::unix(path).map_err(fail)?;
        socket.bind(&addr).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::Served { path: owned() },
            _ => fail(error),
        })?;
        // Before it listens: nobody gets in between.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(fail)?;
        let file = SocketFile::of(path).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let listener = UnixListener::from_std(socket.into()).map_err(fail)?;
        Ok(Listener(Kind::Unix { listener, file }))
    }

    /// Listens on a TCP port. Clients must use TLS 1.3 and show a certificate of the cluster that names one of
    /// `expect`; they are shown `identity`'s. Must run inside a tokio runtime.
    pub fn tcp(addr: SocketAddr, identity: Identity, expect: Expect) -> Result<Self, BindError> {
        let listen = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        match listen() {
            Ok(listener) => Ok(Listener(Kind::Tcp { listener, tls: Tls { identity, expect } })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::InUse { addr }),
            Err(source) => Err(BindError::Tcp { addr, source }),
        }
    }

    /// The TCP address, with the port the system chose where none was given.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Unix { .. } => None,
            Kind::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        match &self.0 {
            Kind::Unix { listener, .. } => Ok(Incoming::Unix(listener.accept().await?.0)),
            Kind::Tcp { listener, .. } => {
                let (stream, addr) = listener.accept().await?;
                // Replies are gathered here; nothing is to wait for an acknowledgement.
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_keepalive(true)?;
                Ok(Incoming::Tcp(stream, addr))
            }
        }
    }

    pub(crate) fn tls(&self) -> Option<Tls> {
        match &self.0 {
            Kind::Unix { .. } => None,
            Kind::Tcp { tls, .. } => Some(tls.clone()),
        }
    }

    /// Takes the socket's file away, so that nobody waits for a server that is stopping.
    pub(crate) fn retire(&self) {
        if let Kind::Unix { file, .. } = &self.0 {
            file.remove();
        }
    }
}

/// The file of a unix socket, taken away with the listener unless another one has replaced it.
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let about = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_path_buf(), device: about.dev(), inode: about.ino() })
    }

    fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|about| (about.dev(), about.ino()) == (self.device, self.inode));
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}
