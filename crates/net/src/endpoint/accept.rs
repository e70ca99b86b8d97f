//! The side that accepts: TLS, hello, and the joining of streams into connections.

use super::Core;
use crate::carrier::{Stream, quic, tcp};
use crate::connection::{Belongs, Connection, Peer, ReadyLane, start};
use crate::error::CloseReason;
use crate::pki::tls;
use crate::receive::Receive;
use bytes::BytesMut;
use cairn_types::EntityName;
use cairn_wire::LaneSet;
use cairn_wire::handshake::{
    Handshake, Hello, Offer, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, RefusalCode, Welcome,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// After an accept that failed for want of descriptors or memory; the system tells no better moment.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// An authenticated connection that waits for a yes or no. Dropping it closes it without a word.
pub struct Incoming {
    core: Arc<Core>,
    addr: SocketAddr,
    hello: Hello,
    welcome: Welcome,
    lanes: Vec<ReadyLane>,
    quic: Option<quinn::Connection>,
    belongs: Belongs,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({} at {})", self.hello.offer.name, self.addr)
    }
}

impl Incoming {
    /// Who connects, by its certificate.
    pub fn name(&self) -> &EntityName {
        &self.hello.offer.name
    }

    /// From where.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Grows with every start of the peer's process.
    pub fn incarnation(&self) -> u64 {
        self.hello.offer.incarnation
    }

    /// The lanes it asks for.
    pub fn lanes(&self) -> LaneSet {
        self.hello.lanes
    }

    /// Welcomes the peer; frames go to `receive` from now on.
    pub async fn accept(mut self, receive: Receive) -> Result<Connection, CloseReason> {
        let tuning = &self.core.config.tuning;
        let mut buf = BytesMut::new();
        Handshake::Welcome(self.welcome.clone()).encode(&mut buf);
        let bytes = buf.freeze();
        let all = async {
            for lane in &mut self.lanes {
                lane.stream.write_all(bytes.clone()).await?;
            }
            Ok(())
        };
        tokio::time::timeout(tuning.handshake_timeout, all)
            .await
            .map_err(|_elapsed| CloseReason::Silent)?
            .map_err(CloseReason::of_io)?;
        let peer = Peer {
            name: self.hello.offer.name,
            addr: self.addr,
            incarnation: self.hello.offer.incarnation,
            version: self.welcome.version,
            features: self.welcome.features,
        };
        Ok(start(peer, self.lanes, self.quic, tuning, receive, self.belongs))
    }

    /// Refuses the peer with one sentence for people.
    pub async fn refuse(self, code: RefusalCode, text: impl Into<String>) {
        let refusal =
            Refusal { code, version_min: PROTOCOL_MIN, version_max: PROTOCOL_MAX, text: text.into() };
        let streams = self.lanes.into_iter().map(|lane| lane.stream).collect();
        say_no(streams, refusal, self.core.config.tuning.handshake_timeout).await;
    }
}

/// Writes a refusal to every stream and waits, for a bounded time, until the peer has read it.
async fn say_no(streams: Vec<Stream>, refusal: Refusal, within: Duration) {
    let mut buf = BytesMut::new();
    Handshake::Refusal(refusal).encode(&mut buf);
    let bytes = buf.freeze();
    let all = async {
        for mut stream in streams {
            if stream.write_all(bytes.clone()).await.is_ok() {
                stream.linger().await;
            }
        }
    };
    let _ = tokio::time::timeout(within, all).await;
}

/// Streams of which more are to come: keyed by who connects and the id it drew.
type Halves = Mutex<BTreeMap<(EntityName, [u8; 16]), Half>>;

/// The lanes of one connection that have arrived.
struct Half {
    hello: Hello,
    lanes: Vec<ReadyLane>,
}

impl Half {
    /// Whether a lane with this hello belongs to the others.
    fn takes(&self, hello: &Hello) -> bool {
        let first = &self.hello;
        hello.offer == first.offer
            && hello.connection == first.connection
            && hello.lanes == first.lanes
            && self.lanes.iter().all(|ready| ready.lane != hello.lane)
    }

    fn complete(&self) -> bool {
        self.lanes.len() == self.hello.lanes.count()
    }
}

/// Handshakes of one listener.
struct Listener {
    core: Arc<Core>,
    incoming: mpsc::Sender<Incoming>,
    belongs: Belongs,
    halves: Halves,
}

fn refuse(code: RefusalCode, text: String) -> Refusal {
    Refusal { code, version_min: PROTOCOL_MIN, version_max: PROTOCOL_MAX, text }
}

/// Reads the hello of a stream. `None` when there is none; whoever has no certificate of ours never comes here.
async fn read_hello(stream: &mut Stream, addr: SocketAddr) -> Option<(Hello, BytesMut)> {
    let mut buf = BytesMut::new();
    loop {
        match Handshake::decode(&mut buf) {
            Ok(Some(Handshake::Hello(hello))) => return Some((hello, buf)),
            Ok(None) => {}
            Ok(Some(_)) => {
                tracing::warn!(%addr, "a peer began with an answer instead of a hello");
                return None;
            }
            Err(error) => {
                tracing::warn!(%addr, %error, "a peer sent no hello");
                return None;
            }
        }
        if stream.read(&mut buf).await.ok()? == 0 {
            return None;
        }
    }
}

impl Listener {
    /// The agreement with a hello, of a peer whose certificate says `found`.
    fn agree(&self, hello: &Hello, found: &EntityName) -> Result<Welcome, Refusal> {
        if hello.offer.name != *found {
            let text = format!("your certificate is of {found}, your hello of {}", hello.offer.name);
            return Err(refuse(RefusalCode::IDENTITY, text));
        }
        let ours: &Offer = &self.core.offer;
        ours.answer(&hello.offer)
    }

    async fn hand_on(&self, addr: SocketAddr, half: Half, welcome: Welcome, quic: Option<quinn::Connection>) {
        let incoming = Incoming {
            core: self.core.clone(),
            addr,
            hello: half.hello,
            welcome,
            lanes: half.lanes,
            quic,
            belongs: self.belongs.clone(),
        };
        // When the endpoint is closing nobody takes it, and it is dropped.
        let _ = self.incoming.send(incoming).await;
    }

    async fn tcp_stream(self: Arc<Self>, socket: TcpStream, addr: SocketAddr, permit: OwnedSemaphorePermit) {
        let within = self.core.config.tuning.handshake_timeout;
        let handshake = async {
            let (config, verifier) = tls::server(self.core.identity());
            match tcp::server_tls(socket, config).await {
                Ok(stream) => {
                    let found = verifier.outcome()?.ok()?;
                    let mut stream = Stream::Tls(Box::new(stream));
                    let (hello, inbox) = read_hello(&mut stream, addr).await?;
                    Some((found, hello, stream, inbox))
                }
                Err((error, mut socket)) => {
                    match verifier.outcome() {
                        Some(Err(reason)) => tracing::warn!(%addr, %reason, "a peer is not trusted"),
                        _ => tracing::debug!(%addr, %error, "a TLS handshake failed"),
                    }
                    discard_until_end(&mut socket).await;
                    None
                }
            }
        };
        let Ok(Some((found, hello, stream, inbox))) = tokio::time::timeout(within, handshake).await else {
            return;
        };
        let welcome = match self.agree(&hello, &found) {
            Ok(welcome) => welcome,
            Err(refusal) => return say_no(vec![stream], refusal, within).await,
        };
        let key = (found, hello.connection);
        let ready = ReadyLane { lane: hello.lane, stream, inbox };
        match self.join(&key, hello, ready) {
            Joined::Complete(half) => self.hand_on(addr, half, welcome, None).await,
            Joined::Refused(stream, refusal) => say_no(vec![stream], refusal, within).await,
            Joined::Waits => {}
            Joined::First => {
                // The others come at the same time or not at all; they need the place.
                drop(permit);
                tokio::time::sleep(within).await;
                self.halves.lock().remove(&key);
            }
        }
    }

    fn join(&self, key: &(EntityName, [u8; 16]), hello: Hello, ready: ReadyLane) -> Joined {
        let mut halves = self.halves.lock();
        if let Some(half) = halves.get_mut(key) {
            if !half.takes(&hello) {
                let text = "this lane does not belong to the lanes before it".to_owned();
                return Joined::Refused(ready.stream, refuse(RefusalCode::LANES, text));
            }
            half.lanes.push(ready);
            if !half.complete() {
                return Joined::Waits;
            }
            return match halves.remove(key) {
                Some(half) => Joined::Complete(half),
                None => Joined::Waits,
            };
        }
        let half = Half { hello, lanes: vec![ready] };
        if half.complete() {
            return Joined::Complete(half);
        }
        if halves.len() >= self.core.config.tuning.handshakes_max {
            let text = "too many connections are being made: try again".to_owned();
            let stream = half.lanes.into_iter().next().expect("put in above").stream;
            return Joined::Refused(stream, refuse(RefusalCode::BUSY, text));
        }
        halves.insert(key.clone(), half);
        Joined::First
    }

    async fn quic_connection(self: Arc<Self>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
        let within = self.core.config.tuning.handshake_timeout;
        let addr = incoming.remote_address();
        let handshake = async {
            let (config, verifier) = tls::server(self.core.identity());
            let config = Arc::new(quic::server_config(config, &self.core.config.tuning));
            let connection = match incoming.accept_with(config).ok()?.await {
                Ok(connection) => connection,
                Err(error) => {
                    match verifier.outcome() {
                        Some(Err(reason)) => tracing::warn!(%addr, %reason, "a peer is not trusted"),
                        _ => tracing::debug!(%addr, %error, "a QUIC handshake failed"),
                    }
                    return None;
                }
            };
            let found = verifier.outcome()?.ok()?;
            let (mut half, mut agreed): (Option<Half>, Option<Welcome>) = (None, None);
            while half.as_ref().is_none_or(|half| !half.complete()) {
                let mut stream =
                    Stream::Quic(Box::new(quic::QuicStream::new(connection.accept_bi().await.ok()?)));
                let (hello, inbox) = read_hello(&mut stream, addr).await?;
                let fits = half.as_ref().is_none_or(|half| half.takes(&hello));
                let welcome = self.agree(&hello, &found).and_then(|welcome| {
                    let text = "this lane does not belong to the lanes before it";
                    if fits { Ok(welcome) } else { Err(refuse(RefusalCode::LANES, text.into())) }
                });
                match welcome {
                    Ok(welcome) => agreed = Some(welcome),
                    Err(refusal) => {
                        say_no(vec![stream], refusal, within).await;
                        return None;
                    }
                }
                let ready = ReadyLane { lane: hello.lane, stream, inbox };
                half.get_or_insert_with(|| Half { hello, lanes: Vec::new() }).lanes.push(ready);
            }
            Some((half?, agreed?, connection))
        };
        let done = tokio::time::timeout(within, handshake).await;
        // The place is kept until the connection is taken: so a full accept queue stops the listener.
        let _permit = permit;
        if let Ok(Some((half, welcome, connection))) = done {
            self.hand_on(addr, half, welcome, Some(connection)).await;
        }
    }
}

enum Joined {
    Complete(Half),
    /// The first of several.
    First,
    Waits,
    Refused(Stream, Refusal),
}

/// Reads until the peer ends: closing a socket with unread bytes resets it, and a reset discards the alert
/// that says why. The caller bounds the time.
async fn discard_until_end(socket: &mut TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buf = [0; 1024];
    if socket.shutdown().await.is_ok() {
        while socket.read(&mut buf).await.is_ok_and(|len| len > 0) {}
    }
}

fn listener(
    core: Arc<Core>,
    incoming: mpsc::Sender<Incoming>,
    belongs: Belongs,
) -> (Arc<Listener>, Arc<Semaphore>) {
    let places = Arc::new(Semaphore::new(core.config.tuning.handshakes_max.max(1)));
    (Arc::new(Listener { core, incoming, belongs, halves: Halves::default() }), places)
}

/// Runs `work` on its own task until it is done or the endpoint closes.
fn spawn_until_closing(belongs: &Belongs, work: impl Future<Output = ()> + Send + 'static) {
    let Belongs { mut closing, alive } = belongs.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        drop(alive);
    });
}

pub(super) fn listen_tcp(
    core: Arc<Core>,
    socket: TcpListener,
    incoming: mpsc::Sender<Incoming>,
    belongs: Belongs,
) {
    let (listener, places) = listener(core, incoming, belongs.clone());
    let tasks = belongs.clone();
    spawn_until_closing(&belongs, async move {
        while let Ok(permit) = places.clone().acquire_owned().await {
            match socket.accept().await {
                Ok((stream, addr)) => {
                    spawn_until_closing(&tasks, listener.clone().tcp_stream(stream, addr, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    });
}

pub(super) fn listen_quic(
    core: Arc<Core>,
    endpoint: quinn::Endpoint,
    incoming: mpsc::Sender<Incoming>,
    belongs: Belongs,
) {
    // quinn tells a listener by its having a configuration; each connection gets its own verifier.
    let (config, _) = tls::server(core.identity());
    endpoint.set_server_config(Some(quic::server_config(config, &core.config.tuning)));
    let (listener, places) = listener(core, incoming, belongs.clone());
    let tasks = belongs.clone();
    spawn_until_closing(&belongs, async move {
        while let Ok(permit) = places.clone().acquire_owned().await {
            let Some(incoming) = endpoint.accept().await else { return };
            spawn_until_closing(&tasks, listener.clone().quic_connection(incoming, permit));
        }
    });
}
