//! What both carriers must do, over loopback. Each test runs once per carrier.

mod common;

use cairn_net::{
    BindError, CloseReason, ConnectError, Delivery, Endpoint, Expect, PeerRefusal, Receive, SendError,
    TrySendError, pki::AuthError,
};
use cairn_types::EntityKind;
use cairn_wire::handshake::RefusalCode;
use cairn_wire::{Echo, EchoReply, GoodbyeReason, Lane, LaneSet};
use common::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

both_carriers! {
    async fn an_echo_comes_back_with_its_payload(net: Net) {
        let (server, addr) = net.echo_server("osd.0").await;
        let client = net.endpoint("client.admin", None).await;
        let (receive, mut inbox) = channel(8);
        let expect = entity("osd.0");
        let connection = client.connect(addr, &expect, LaneSet::CLIENT, receive).await.unwrap();
        assert_eq!(connection.peer().name, name("osd.0"));
        assert_eq!(connection.carrier(), net.carrier);
        for (tid, len) in [(1, 0), (2, 1), (3, 4096), (4, 5000), (5, 1 << 20), (6, 16 << 20)] {
            let sent = echo(tid, true, len);
            connection.send(Lane::Client, sent.clone()).await.unwrap();
            let (lane, frame) = next_frame(&mut inbox).await;
            assert_eq!(lane, Lane::Client);
            let reply: EchoReply = frame.message().unwrap();
            assert_eq!((reply.request.tid, reply.payload_len_bytes), (tid, len as u64));
            assert_eq!(frame.payload(), sent.payload());
        }
        server.close().await;
    }

    async fn frames_of_a_lane_stay_in_order(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (receive, mut inbox) = channel(4);
        let (connection, _peer) = net.pair(&client, &server, LaneSet::ALL, ignore(), receive).await;
        const FRAMES: u64 = 600;
        for lane in Lane::ALL {
            let connection = connection.clone();
            tokio::spawn(async move {
                for tid in 0..FRAMES {
                    connection.send(lane, echo(tid, false, (tid as usize * 37) % 9000)).await.unwrap();
                }
            });
        }
        let mut due = [0; 3];
        while due != [FRAMES; 3] {
            let (lane, frame) = next_frame(&mut inbox).await;
            let due = &mut due[usize::from(lane.number())];
            assert_eq!(frame.message::<Echo>().unwrap().request.tid, *due, "{lane}");
            *due += 1;
        }
    }

    async fn a_lane_that_is_not_read_stops_its_sender_and_no_other_lane(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let gate = Arc::new(Gate::default());
        let (connection, _peer) =
            net.pair(&client, &server, LaneSet::ALL, ignore(), Receive::Handler(gate.clone())).await;
        // What fits in the queue, the carrier's windows and the system's buffers; then no more.
        const LEN: usize = 1 << 20;
        let mut queued = 0u64;
        while tokio::time::timeout(Duration::from_millis(500), connection.send(Lane::Client, echo(queued, false, LEN)))
            .await
            .is_ok_and(|sent| sent.is_ok())
        {
            queued += 1;
            assert!(queued < 128, "128 MiB are waiting for a receiver that takes nothing");
        }
        assert!(matches!(connection.try_send(Lane::Client, echo(queued, false, LEN)), Err(TrySendError::Full(_))));
        // Longer than a silent peer is kept: it lives, it only does not read this lane.
        tokio::time::sleep(net.tuning.keep_alive_interval * (net.tuning.silent_intervals_max + 2)).await;
        connection.send(Lane::Control, echo(7, false, 10)).await.unwrap();
        gate.wait_for(Lane::Control, 1).await;
        assert_eq!(gate.count(Lane::Client), 0);
        gate.open();
        gate.wait_for(Lane::Client, queued).await;
        assert!(connection.close_reason().is_none());
    }

    async fn a_full_channel_holds_the_peer_back(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (receive, mut inbox) = channel(1);
        let (connection, _peer) = net.pair(&client, &server, LaneSet::CLIENT, ignore(), receive).await;
        let sender = connection.clone();
        let all = tokio::spawn(async move {
            for tid in 0..200 {
                sender.send(Lane::Client, echo(tid, false, 1 << 20)).await.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!all.is_finished(), "200 MiB went to a receiver that holds one frame");
        for tid in 0..200 {
            assert_eq!(next_frame(&mut inbox).await.1.message::<Echo>().unwrap().request.tid, tid);
        }
        all.await.unwrap();
    }

    async fn a_close_delivers_what_is_queued_and_tells_both_sides(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (receive, mut inbox) = channel(4);
        let (connection, peer) = net.pair(&client, &server, LaneSet::ALL, ignore(), receive).await;
        for tid in 0..40 {
            connection.send(Lane::Recovery, echo(tid, false, 300_000)).await.unwrap();
        }
        connection.close(GoodbyeReason::Done);
        assert!(matches!(connection.send(Lane::Client, echo(0, false, 0)).await, Err(SendError::Closed)));
        for tid in 0..40 {
            assert_eq!(next_frame(&mut inbox).await.1.message::<Echo>().unwrap().request.tid, tid);
        }
        let Some(Delivery::Closed { reason, .. }) = inbox.recv().await else { panic!("one closing word") };
        assert!(matches!(reason, CloseReason::Peer(GoodbyeReason::Done)), "{reason}");
        assert!(matches!(peer.closed().await, CloseReason::Peer(GoodbyeReason::Done)));
        assert!(matches!(connection.closed().await, CloseReason::Local(GoodbyeReason::Done)));
    }

    async fn closing_an_endpoint_closes_its_connections(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (connection, _peer) = net.pair(&client, &server, LaneSet::ALL, ignore(), ignore()).await;
        let addr = server.local_addr().unwrap();
        server.close().await;
        let reason = connection.closed().await;
        assert!(matches!(reason, CloseReason::Peer(GoodbyeReason::Shutdown)), "{reason}");
        assert!(server.accept().await.is_none());
        let error = server.connect(addr, &Expect::Member, LaneSet::ALL, ignore()).await.unwrap_err();
        assert!(matches!(error, ConnectError::EndpointClosed), "{error}");
    }

    async fn an_aborted_connection_is_lost_to_the_peer(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (connection, peer) = net.pair(&client, &server, LaneSet::ALL, ignore(), ignore()).await;
        connection.abort();
        assert!(matches!(connection.closed().await, CloseReason::Aborted));
        let reason = peer.closed().await;
        assert!(matches!(reason, CloseReason::Lost), "{reason}");
    }

    async fn another_cluster_is_told_in_one_sentence(net: Net) {
        let server = net.listening("mon.a").await;
        let other = Net::new(net.carrier);
        let client = other.endpoint("client.admin", None).await;
        let addr = server.local_addr().unwrap();
        let error = client.connect(addr, &Expect::Kind(EntityKind::Mon), LaneSet::CLIENT, ignore()).await.unwrap_err();
        let expected = format!(
            "{addr} is not trusted: its certificate is of cluster {}, this is cluster {}",
            net.ca.fsid(), other.ca.fsid()
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, ConnectError::Untrusted { source: AuthError::OtherCluster { .. }, .. }));
    }

    async fn a_client_with_a_forged_certificate_is_refused(net: Net) {
        let server = net.listening("mon.a").await;
        let client = net.endpoint_of(net.forged("client.admin"), None).await;
        let addr = server.local_addr().unwrap();
        let error = client.connect(addr, &entity("mon.a"), LaneSet::CLIENT, ignore()).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::NotTrusted { reason: PeerRefusal::OtherCluster, .. }),
            "{error}"
        );
    }

    async fn a_server_with_a_forged_certificate_is_not_trusted(net: Net) {
        let server = net.endpoint_of(net.forged("mon.a"), loopback()).await;
        let client = net.endpoint("client.admin", None).await;
        let addr = server.local_addr().unwrap();
        let error = client.connect(addr, &entity("mon.a"), LaneSet::CLIENT, ignore()).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Untrusted { source: AuthError::UnknownIssuer { .. }, .. }),
            "{error}"
        );
    }

    async fn someone_else_than_expected_is_not_trusted(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("client.admin", None).await;
        let addr = server.local_addr().unwrap();
        for expect in [entity("osd.1"), Expect::Kind(EntityKind::Mon)] {
            let error = client.connect(addr, &expect, LaneSet::CLIENT, ignore()).await.unwrap_err();
            assert_eq!(error.to_string(), format!("{addr} is not trusted: it is osd.0, expected {expect}"));
        }
    }

    async fn an_expired_certificate_is_told_to_both_sides(net: Net) {
        let addr_of = |e: &Endpoint| e.local_addr().unwrap();
        let client = net.endpoint("client.admin", None).await;
        let old = net.endpoint_of(net.expired("osd.0"), loopback()).await;
        let error = client.connect(addr_of(&old), &entity("osd.0"), LaneSet::CLIENT, ignore()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Untrusted { source: AuthError::Expired, .. }), "{error}");

        let server = net.listening("osd.1").await;
        let old = net.endpoint_of(net.expired("client.old"), None).await;
        let error = old.connect(addr_of(&server), &entity("osd.1"), LaneSet::CLIENT, ignore()).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotTrusted { reason: PeerRefusal::Expired, .. }), "{error}");
    }

    async fn a_refusal_says_why(net: Net) {
        let server = Arc::new(net.listening("mon.a").await);
        let client = net.endpoint("client.admin", None).await;
        let addr = server.local_addr().unwrap();
        let taking = server.clone();
        tokio::spawn(async move {
            let incoming = taking.accept().await.unwrap();
            assert_eq!(incoming.name(), &name("client.admin"));
            incoming.refuse(RefusalCode::BUSY, "come back later").await;
        });
        let error = client.connect(addr, &entity("mon.a"), LaneSet::ALL, ignore()).await.unwrap_err();
        assert!(matches!(&error, ConnectError::Denied { refusal, .. } if refusal.code == RefusalCode::BUSY), "{error}");
        assert!(error.to_string().ends_with("refuses the connection: come back later"), "{error}");
    }

    async fn a_port_in_use_is_told(net: Net) {
        let first = net.listening("mon.a").await;
        let addr = first.local_addr().unwrap();
        let error = Endpoint::bind(net.config(net.identity("mon.b"), Some(addr))).await.unwrap_err();
        assert!(matches!(error, BindError::Listen { .. }));
        assert!(error.to_string().contains("another process has the port"), "{error}");
    }

    async fn nothing_there_is_told(net: Net) {
        let addr = {
            let gone = net.listening("osd.0").await;
            let addr = gone.local_addr().unwrap();
            gone.close().await;
            drop(gone);
            addr
        };
        let client = net.endpoint("client.admin", None).await;
        let start = Instant::now();
        let error = client.connect(addr, &Expect::Member, LaneSet::CLIENT, ignore()).await.unwrap_err();
        match net.carrier {
            cairn_net::Carrier::Tcp => {
                assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
                assert!(start.elapsed() < net.tuning.handshake_timeout, "at once, not by the timeout");
            }
            // UDP has no refusal that quinn passes on.
            cairn_net::Carrier::Quic => assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}"),
        }
    }

    async fn a_handler_that_panics_ends_only_its_connection(net: Net) {
        struct Panics;
        impl cairn_net::Handler for Panics {
            fn on_frame(&self, _: &cairn_net::Connection, _: Lane, _: cairn_wire::Frame) {
                panic!("a test wants this");
            }
            fn on_closed(&self, _: &cairn_net::Connection, _: &CloseReason) {}
        }
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (other, other_peer) = net.pair(&client, &server, LaneSet::CLIENT, ignore(), ignore()).await;
        // Often: the peer ends the other lanes in answer, and that must never be taken for the cause.
        for tid in 0..16 {
            let panics = Receive::Handler(Arc::new(Panics));
            let (connection, peer) = net.pair(&client, &server, LaneSet::CLIENT, ignore(), panics).await;
            connection.send(Lane::Client, echo(tid, false, 1)).await.unwrap();
            let reason = peer.closed().await;
            assert!(matches!(reason, CloseReason::ReceiverGone), "{reason}");
            assert!(matches!(connection.closed().await, CloseReason::Lost));
        }
        assert!(other.close_reason().is_none() && other_peer.close_reason().is_none());
    }

    async fn a_dropped_receiver_ends_the_connection(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (receive, inbox) = channel(1);
        drop(inbox);
        let (connection, peer) = net.pair(&client, &server, LaneSet::CLIENT, ignore(), receive).await;
        connection.send(Lane::Client, echo(1, false, 1)).await.unwrap();
        assert!(matches!(peer.closed().await, CloseReason::ReceiverGone));
        assert!(matches!(connection.closed().await, CloseReason::Lost));
    }

    async fn an_idle_connection_lives_on_keep_alives(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (connection, peer) = net.pair(&client, &server, LaneSet::ALL, ignore(), ignore()).await;
        tokio::time::sleep(net.tuning.keep_alive_interval * (3 * net.tuning.silent_intervals_max)).await;
        assert!(connection.close_reason().is_none() && peer.close_reason().is_none());
    }

    async fn a_lane_that_was_not_asked_for_takes_nothing(net: Net) {
        let server = net.listening("osd.0").await;
        let client = net.endpoint("osd.1", None).await;
        let (connection, _peer) = net.pair(&client, &server, LaneSet::CONTROL, ignore(), ignore()).await;
        let error = connection.send(Lane::Recovery, echo(1, false, 1)).await.unwrap_err();
        assert!(matches!(error, SendError::NoLane(Lane::Recovery)));
    }

    async fn many_connections_at_once(net: Net) {
        let (server, addr) = net.echo_server("osd.0").await;
        let client = Arc::new(net.endpoint("client.admin", None).await);
        let mut tasks = tokio::task::JoinSet::new();
        for tid in 0..24 {
            let client = client.clone();
            tasks.spawn(async move {
                let (receive, mut inbox) = channel(1);
                let connection = client.connect(addr, &entity("osd.0"), LaneSet::ALL, receive).await.unwrap();
                connection.send(Lane::Control, echo(tid, true, 100)).await.unwrap();
                assert_eq!(next_frame(&mut inbox).await.1.message::<EchoReply>().unwrap().request.tid, tid);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        server.close().await;
    }
}

#[test]
fn packets_that_do_not_fit_in_a_send_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for mtu in [cairn_net::QuicMtu::Jumbo(9000), cairn_net::QuicMtu::Jumbo(500)] {
            let mut net = Net::new(cairn_net::Carrier::Quic);
            net.tuning.quic_mtu = mtu;
            let error = Endpoint::bind(net.config(net.identity("mon.a"), loopback())).await.unwrap_err();
            assert!(matches!(error, BindError::Mtu { .. }), "{error}");
        }
    });
}

/// A receiver that nobody reads, for sides that only send.
fn ignore() -> Receive {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    Receive::Channel(sender)
}
