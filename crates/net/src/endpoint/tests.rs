//! Members of the cluster that do not keep to the format, and strangers: what only raw streams can show.

use super::{Endpoint, connect};
use crate::carrier::Stream;
use crate::config::{Carrier, Config, Tuning};
use crate::connection::ReadyLane;
use crate::error::{CloseReason, ConnectError};
use crate::pki::{ClusterCa, Expect, Identity, Validity};
use crate::receive::{Delivery, Receive};
use bytes::Bytes;
use cairn_types::Fsid;
use cairn_wire::handshake::RefusalCode;
use cairn_wire::{Frame, FrameError, Goodbye, GoodbyeReason, KeepAlive, Lane, LaneSet, Payload};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

struct Pair {
    client: Endpoint,
    server: Endpoint,
    addr: SocketAddr,
}

async fn pair_with(carrier: Carrier, tuning: Tuning) -> Pair {
    let ca = ClusterCa::create(Fsid([5; 16]), SystemTime::now()).unwrap();
    let issue = |name: &str| {
        let credentials = ca.issue(&name.parse().unwrap(), Validity::from_now(SystemTime::now()));
        Identity::try_from(&credentials.unwrap()).unwrap()
    };
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config =
        |identity, listen| Config { carrier, tuning: tuning.clone(), ..Config::new(identity, listen) };
    let client = Endpoint::bind(config(issue("osd.1"), None)).await.unwrap();
    let server = Endpoint::bind(config(issue("osd.0"), listen)).await.unwrap();
    let addr = server.local_addr().unwrap();
    Pair { client, server, addr }
}

async fn pair(carrier: Carrier) -> Pair {
    pair_with(carrier, Tuning::default()).await
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    });
}

/// The client's end of a control lane as a bare stream, the server's as a connection.
async fn raw(pair: &Pair) -> (Stream, Option<quinn::Connection>, mpsc::Receiver<Delivery>) {
    let (sender, inbox) = mpsc::channel(8);
    let core = &pair.client.core;
    let connect = async {
        match &core.quic {
            None => {
                let opened = connect::connect_tcp(core, pair.addr, &Expect::Member, LaneSet::CONTROL).await;
                let (_, opened) = opened.unwrap();
                (opened, None)
            }
            Some(quic) => {
                let opened =
                    connect::connect_quic(core, quic, pair.addr, &Expect::Member, LaneSet::CONTROL).await;
                let (_, opened, quic) = opened.unwrap();
                (opened, quic)
            }
        }
    };
    let accept = async {
        pair.server.accept().await.unwrap().accept(Receive::Channel(sender)).await.unwrap();
    };
    let ((mut opened, quic), ()) = tokio::join!(connect, accept);
    let (ReadyLane { stream, .. }, _) = opened.remove(0);
    (stream, quic, inbox)
}

async fn end(inbox: &mut mpsc::Receiver<Delivery>) -> CloseReason {
    match inbox.recv().await {
        Some(Delivery::Closed { reason, .. }) => reason,
        other => panic!("the end was due, got {other:?}"),
    }
}

fn keep_alive() -> Frame {
    Frame::new(&KeepAlive {}, Payload::none()).unwrap()
}

fn resummed(mut bytes: Vec<u8>) -> Bytes {
    let sum = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}

#[test]
fn bad_frames_end_their_connection_and_no_other() {
    for carrier in [Carrier::Tcp, Carrier::Quic] {
        run(async {
            let pair = pair(carrier).await;
            let (_bystander, _quic, mut bystander) = raw(&pair).await;
            let whole = keep_alive().to_bytes(Lane::Control, 0);
            let mut oversized = whole.to_vec();
            oversized[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
            let mut damaged = whole.to_vec();
            damaged[9] ^= 1;
            let twice = [&whole[..], &whole[..]].concat();
            type IsIt = fn(&FrameError) -> bool;
            let cases: [(Bytes, IsIt); 5] = [
                (Bytes::from(vec![0x47; 4096]), |e| matches!(e, FrameError::Magic { .. })),
                (resummed(oversized), |e| matches!(e, FrameError::TooLong { part: "payload", .. })),
                (damaged.into(), |e| matches!(e, FrameError::HeaderSum { .. })),
                (twice.into(), |e| matches!(e, FrameError::Sequence { expected: 1, found: 0, .. })),
                (keep_alive().to_bytes(Lane::Client, 0), |e| matches!(e, FrameError::Lane { found: 1, .. })),
            ];
            for (bytes, expected) in cases {
                let (mut stream, _quic, mut inbox) = raw(&pair).await;
                stream.write_all(bytes).await.unwrap();
                let reason = end(&mut inbox).await;
                assert!(
                    matches!(&reason, CloseReason::Frame { lane: Lane::Control, error } if expected(error)),
                    "{reason}"
                );
            }
            assert!(bystander.try_recv().is_err(), "nothing happened to the other connection");
        });
    }
}

#[test]
fn an_end_without_goodbye_or_within_a_frame_is_a_loss() {
    for carrier in [Carrier::Tcp, Carrier::Quic] {
        run(async {
            let pair = pair(carrier).await;
            let goodbye = Frame::new(&Goodbye { reason: GoodbyeReason::Done }, Payload::none()).unwrap();
            let goodbye = goodbye.to_bytes(Lane::Control, 0);
            for (bytes, lost) in [(Bytes::new(), true), (goodbye.slice(..20), true), (goodbye.clone(), false)]
            {
                let (mut stream, _quic, mut inbox) = raw(&pair).await;
                if !bytes.is_empty() {
                    stream.write_all(bytes).await.unwrap();
                }
                let linger = tokio::spawn(async move { stream.linger().await });
                let reason = end(&mut inbox).await;
                assert_eq!(matches!(reason, CloseReason::Lost), lost, "{reason}");
                assert!(lost || matches!(reason, CloseReason::Peer(GoodbyeReason::Done)), "{reason}");
                linger.abort();
            }
        });
    }
}

#[test]
fn a_name_that_is_not_the_certificates_is_refused() {
    for carrier in [Carrier::Tcp, Carrier::Quic] {
        run(async {
            let mut pair = pair(carrier).await;
            let core = std::sync::Arc::get_mut(&mut pair.client.core).expect("it listens nowhere");
            core.offer.name = "mon.a".parse().unwrap();
            let error = pair
                .client
                .connect(pair.addr, &Expect::Member, LaneSet::ALL, Receive::Channel(mpsc::channel(1).0))
                .await
                .unwrap_err();
            assert!(
                matches!(&error, ConnectError::Denied { refusal, .. }
                    if refusal.code == RefusalCode::IDENTITY
                    && refusal.text == "your certificate is of osd.1, your hello of mon.a"),
                "{error}"
            );
        });
    }
}

#[test]
fn a_release_without_a_common_version_is_told_so() {
    for carrier in [Carrier::Tcp, Carrier::Quic] {
        run(async {
            let mut pair = pair(carrier).await;
            let core = std::sync::Arc::get_mut(&mut pair.client.core).expect("it listens nowhere");
            (core.offer.version_min, core.offer.version_max) = (1000, 1001);
            let error = pair
                .client
                .connect(pair.addr, &Expect::Member, LaneSet::ALL, Receive::Channel(mpsc::channel(1).0))
                .await
                .unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("osd.0 speaks protocol versions 1 to 1, osd.1 speaks 1000 to 1001: upgrade"),
                "{text}"
            );
        });
    }
}

#[test]
fn half_open_peers_are_dropped_and_make_room() {
    run(async {
        let tuning =
            Tuning { handshake_timeout: Duration::from_millis(1500), handshakes_max: 3, ..Tuning::default() };
        let pair = pair_with(Carrier::Tcp, tuning).await;
        // Two say nothing, one is no TLS client; a listener with three places is full.
        let mut silent =
            [TcpStream::connect(pair.addr).await.unwrap(), TcpStream::connect(pair.addr).await.unwrap()];
        let mut http = TcpStream::connect(pair.addr).await.unwrap();
        http.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        for stream in silent.iter_mut().chain([&mut http]) {
            let mut rest = Vec::new();
            // The end, or a reset: either way the server has let go.
            let _ = stream.read_to_end(&mut rest).await;
        }
        let (_stream, _quic, mut inbox) = raw(&pair).await;
        assert!(inbox.try_recv().is_err(), "the connection stands");
    });
}

#[test]
fn a_connection_whose_other_lanes_never_come_is_dropped() {
    run(async {
        let tuning = Tuning { handshake_timeout: Duration::from_millis(700), ..Tuning::default() };
        let pair = pair_with(Carrier::Tcp, tuning).await;
        let offer = pair.client.core.offer.clone();
        let hello = cairn_wire::handshake::Hello {
            offer,
            connection: [1; 16],
            lane: Lane::Control,
            lanes: LaneSet::ALL,
        };
        let error = connect::open_tcp(&pair.client.core, pair.addr, Expect::Member, hello).await.err();
        assert!(matches!(error, Some(ConnectError::Lost { .. })), "{error:?}");
    });
}

#[test]
fn a_listener_that_is_no_cairn_process_is_told_from_one() {
    run(async {
        let pair = pair(Carrier::Tcp).await;
        let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = stranger.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = stranger.accept().await {
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
            }
        });
        let error = pair
            .client
            .connect(addr, &Expect::Member, LaneSet::CONTROL, Receive::Channel(mpsc::channel(1).0))
            .await
            .unwrap_err();
        assert!(matches!(error, ConnectError::Stranger { .. }), "{error}");
    });
}
