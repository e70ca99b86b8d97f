//! The side that connects.

use super::Core;
use crate::carrier::{Stream, quic, tcp};
use crate::connection::{Belongs, Connection, Peer, ReadyLane, start};
use crate::error::{ConnectError, PeerRefusal, StrangerError};
use crate::pki::{AuthError, Expect, tls};
use crate::receive::Receive;
use bytes::BytesMut;
use cairn_types::EntityName;
use cairn_wire::LaneSet;
use cairn_wire::handshake::{Handshake, Hello, Welcome};
use ring::rand::SecureRandom;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(super) async fn connect(
    core: &Arc<Core>,
    addr: SocketAddr,
    expect: &Expect,
    lanes: LaneSet,
    receive: Receive,
    belongs: Belongs,
) -> Result<Connection, ConnectError> {
    let after = core.config.tuning.handshake_timeout;
    let attempt = async {
        match &core.quic {
            Some(endpoint) => connect_quic(core, endpoint, addr, expect, lanes).await,
            None => connect_tcp(core, addr, expect, lanes).await.map(|(name, ready)| (name, ready, None)),
        }
    };
    let (name, ready, quic) = tokio::time::timeout(after, attempt)
        .await
        .map_err(|_elapsed| ConnectError::TimedOut { addr, after })??;
    let mut peers = ready.iter().map(|(_, welcome)| welcome);
    let first = peers.next().expect("every connection has the control lane").clone();
    // The process was restarted between two lanes.
    if peers.any(|other| *other != first) {
        return Err(ConnectError::Lost { addr });
    }
    let peer =
        Peer { name, addr, incarnation: first.incarnation, version: first.version, features: first.features };
    let ready = ready.into_iter().map(|(lane, _)| lane).collect();
    Ok(start(peer, ready, quic, &core.config.tuning, receive, belongs))
}

pub(super) type Opened = Vec<(ReadyLane, Welcome)>;

/// Ties the streams of one connection together; nobody can guess it who has not seen it.
fn draw_connection_id() -> [u8; 16] {
    let mut id = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut id).expect("the system has entropy");
    id
}

pub(super) async fn connect_tcp(
    core: &Arc<Core>,
    addr: SocketAddr,
    expect: &Expect,
    lanes: LaneSet,
) -> Result<(EntityName, Opened), ConnectError> {
    let connection = draw_connection_id();
    let mut tasks = JoinSet::new();
    for lane in lanes.iter() {
        let hello = Hello { offer: core.offer.clone(), connection, lane, lanes };
        let (core, expect) = (core.clone(), expect.clone());
        tasks.spawn(async move { open_tcp(&core, addr, expect, hello).await });
    }
    let mut opened = Vec::with_capacity(lanes.count());
    let mut name: Option<EntityName> = None;
    while let Some(result) = tasks.join_next().await {
        let (found, ready, welcome) = result.expect("a handshake does not panic and is not aborted")?;
        if *name.get_or_insert_with(|| found.clone()) != found {
            return Err(ConnectError::Lost { addr });
        }
        opened.push((ready, welcome));
    }
    Ok((name.expect("at least one lane"), opened))
}

pub(super) async fn open_tcp(
    core: &Core,
    addr: SocketAddr,
    expect: Expect,
    hello: Hello,
) -> Result<(EntityName, ReadyLane, Welcome), ConnectError> {
    let socket = tcp::dial(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused { addr },
        _ => ConnectError::Unreachable { addr, source },
    })?;
    let (config, verifier) = tls::client(core.identity(), expect);
    let stream = tcp::client_tls(socket, config).await;
    let found = trusted(addr, verifier.outcome(), || match &stream {
        Err(error) => tls_error(addr, error),
        Ok(_) => ConnectError::Lost { addr },
    })?;
    let stream = stream.map_err(|error| tls_error(addr, &error))?;
    let mut stream = Stream::Tls(Box::new(stream));
    let lane = hello.lane;
    let (welcome, inbox) = greet(addr, &mut stream, hello, &found, |error| tls_error(addr, &error)).await?;
    Ok((found, ReadyLane { lane, stream, inbox }, welcome))
}

/// The peer's name, or why it is not trusted, or what happened before it could be asked.
fn trusted(
    addr: SocketAddr,
    outcome: Option<Result<EntityName, AuthError>>,
    otherwise: impl FnOnce() -> ConnectError,
) -> Result<EntityName, ConnectError> {
    match outcome {
        Some(Ok(name)) => Ok(name),
        Some(Err(source)) => Err(ConnectError::Untrusted { addr, source }),
        None => Err(otherwise()),
    }
}

/// What went wrong inside TLS over TCP.
fn tls_error(addr: SocketAddr, error: &io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => {
            ConnectError::NotTrusted { addr, reason: PeerRefusal::from(*alert) }
        }
        Some(other) => ConnectError::Stranger { addr, source: other.clone().into() },
        None => ConnectError::Lost { addr },
    }
}

/// Says hello on one lane and waits for the answer.
async fn greet(
    addr: SocketAddr,
    stream: &mut Stream,
    hello: Hello,
    found: &EntityName,
    io_error: impl Fn(io::Error) -> ConnectError,
) -> Result<(Welcome, BytesMut), ConnectError> {
    let mut buf = BytesMut::new();
    Handshake::Hello(hello).encode(&mut buf);
    // A peer that does not trust us may have closed already; its reason is read below.
    let _ = stream.write_all(buf.split().freeze()).await;
    loop {
        let answer = Handshake::decode(&mut buf)
            .map_err(|error| ConnectError::Stranger { addr, source: error.into() })?;
        match answer {
            Some(Handshake::Welcome(welcome)) if welcome.name == *found => return Ok((welcome, buf)),
            Some(Handshake::Refusal(refusal)) => return Err(ConnectError::Denied { addr, refusal }),
            Some(_) => {
                return Err(ConnectError::Stranger { addr, source: StrangerError::OutOfPlace });
            }
            None => {
                if stream.read(&mut buf).await.map_err(&io_error)? == 0 {
                    return Err(ConnectError::Lost { addr });
                }
            }
        }
    }
}

pub(super) async fn connect_quic(
    core: &Arc<Core>,
    endpoint: &quinn::Endpoint,
    addr: SocketAddr,
    expect: &Expect,
    lanes: LaneSet,
) -> Result<(EntityName, Opened, Option<quinn::Connection>), ConnectError> {
    let (config, verifier) = tls::client(core.identity(), expect.clone());
    let config = quic::client_config(config, &core.config.tuning);
    let connecting = endpoint.connect_with(config, addr, "cairn").map_err(|error| match error {
        quinn::ConnectError::EndpointStopping => ConnectError::EndpointClosed,
        other => ConnectError::Unreachable { addr, source: io::Error::other(other) },
    })?;
    let connection = connecting.await;
    let found = trusted(addr, verifier.outcome(), || match &connection {
        Err(error) => quic_error(addr, error.clone(), core),
        Ok(_) => ConnectError::Lost { addr },
    })?;
    let connection = connection.map_err(|error| quic_error(addr, error, core))?;
    let lost = |error: Option<quinn::ConnectionError>| match error {
        Some(error) => quic_error(addr, error, core),
        None => ConnectError::Lost { addr },
    };
    let id = draw_connection_id();
    // Every hello goes out before the first answer: the peer answers when it has all lanes.
    let mut tasks = JoinSet::new();
    for lane in lanes.iter() {
        let hello = Hello { offer: core.offer.clone(), connection: id, lane, lanes };
        let (connection, found) = (connection.clone(), found.clone());
        tasks.spawn(async move {
            let streams = connection.open_bi().await.map_err(|_| ConnectError::Lost { addr })?;
            let mut stream = Stream::Quic(Box::new(quic::QuicStream::new(streams)));
            let answer = greet(addr, &mut stream, hello, &found, |_| ConnectError::Lost { addr }).await?;
            Ok::<_, ConnectError>((lane, stream, answer))
        });
    }
    let mut opened = Vec::with_capacity(lanes.count());
    while let Some(result) = tasks.join_next().await {
        match result.expect("a handshake does not panic and is not aborted") {
            Ok((lane, stream, (welcome, inbox))) => opened.push((ReadyLane { lane, stream, inbox }, welcome)),
            // The connection knows better than the stream why.
            Err(ConnectError::Lost { .. }) => return Err(lost(connection.close_reason())),
            Err(other) => return Err(other),
        }
    }
    Ok((found, opened, Some(connection)))
}

/// What went wrong inside QUIC.
fn quic_error(addr: SocketAddr, error: quinn::ConnectionError, core: &Core) -> ConnectError {
    use quinn::ConnectionError as Error;
    if let Some(alert) = quic::alert_of(&error) {
        return ConnectError::NotTrusted { addr, reason: PeerRefusal::from(alert) };
    }
    match error {
        Error::TimedOut => ConnectError::TimedOut { addr, after: core.config.tuning.handshake_timeout },
        Error::TransportError(_) | Error::VersionMismatch => {
            ConnectError::Stranger { addr, source: error.into() }
        }
        Error::LocallyClosed => ConnectError::EndpointClosed,
        _ => ConnectError::Lost { addr },
    }
}
