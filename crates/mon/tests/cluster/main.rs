//! Monitors as they run, with files, sockets and certificates: what dies, comes back, joins and leaves, and who is
//! turned away.

mod support;

use cairn_mon::daemon::{MonError, Seed, StorageError, create};
use cairn_mon::message::{MonCall, MonPeer};
use cairn_mon::monitor::{Answer, Call, CallTag, DaemonNews, PeerMessage, Query, Reading};
use cairn_mon::service::subscription::Need;
use cairn_mon::service::{LeaderCommand, MonCommand, OsdCommand, Reply, Request};
use cairn_mon::session::{CallError, MonClient, Update, Wants};
use cairn_net::{ClusterCa, Config, Delivery, Endpoint, Expect, Identity, Receive, Validity};
use cairn_types::{EntityAddr, EntityKind, Epoch, Fsid, OsdId, OsdMap, OsdUuid};
use cairn_wire::{ErrorCode, Frame, Lane, LaneSet, Payload};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use support::{Cluster, Mon, create_pool, free_addrs, name, next_snap, quorum, status, test};
use tokio::sync::mpsc;

/// Follows the OSD map until `done` holds.
async fn follow(
    updates: &mut mpsc::Receiver<Update>,
    map: &mut Option<OsdMap>,
    done: impl Fn(&OsdMap) -> bool,
) {
    while !map.as_ref().is_some_and(&done) {
        let Some(Update::OsdMaps(batch)) = updates.recv().await else { continue };
        if let Some(full) = batch.full {
            *map = Some(full);
        }
        for change in &batch.increments {
            let next = map.as_ref().map(|map| map.apply(change).expect("it follows"));
            *map = next;
        }
    }
}

#[test]
fn the_leader_dies_and_changes_go_on() {
    test(async {
        let mut cluster = Cluster::start(&["a", "b", "c"]);
        let (client, mut updates) = cluster.client("client.admin").await;
        client.subscribe(Wants { osd_map: Some((Epoch(0), Need::Newest)), ..Wants::default() });
        assert!(matches!(client.change(create_pool("vms")).await, Ok(Reply::Pool { pg_num: 8, .. })));
        let mut map = None;
        follow(&mut updates, &mut map, |map| map.pools.len() == 1).await;
        assert_eq!(next_snap(&client).await, 1);
        quorum(&client, &["a", "b", "c"]).await;
        let mut snaps = 1;
        // Each in turn dies and comes back; when the second dies, the first must have caught up.
        for round in 0..3 {
            let leader = status(&client).await.mon.leader.expect("a leader");
            cluster.kill(&leader);
            let killed = Instant::now();
            snaps += 1;
            assert_eq!(next_snap(&client).await, snaps);
            let gap = killed.elapsed();
            eprintln!(
                "round {round}: {} ms after the death of mon.{leader} a change is made",
                gap.as_millis()
            );
            assert!(gap < Duration::from_secs(10), "a change took {gap:?}");
            let left: Vec<&str> = ["a", "b", "c"].into_iter().filter(|mon| *mon != leader).collect();
            quorum(&client, &left).await;
            cluster.start_mon(&leader);
            quorum(&client, &["a", "b", "c"]).await;
        }
        // Maps still come, from whichever monitor the session is with now.
        assert!(client.change(create_pool("more")).await.is_ok());
        follow(&mut updates, &mut map, |map| map.pools.len() == 2).await;
    });
}

#[test]
fn all_die_at_once_and_nothing_is_forgotten() {
    test(async {
        let names = ["a", "b", "c"];
        let mut cluster = Cluster::start(&names);
        let (client, _updates) = cluster.client("client.admin").await;
        client.change(create_pool("vms")).await.expect("a pool");
        for expected in 1..=20 {
            assert_eq!(next_snap(&client).await, expected);
        }
        names.iter().for_each(|mon| cluster.kill(mon));
        // Under way while there is nobody: it waits.
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { next_snap(&client).await }
        });
        names.iter().for_each(|mon| cluster.start_mon(mon));
        assert_eq!(waiting.await.expect("no panic"), 21);
        assert_eq!(next_snap(&client).await, 22);
        // In good order, too.
        for mon in names {
            cluster.take(mon).stop().expect("it stops");
        }
        names.iter().for_each(|mon| cluster.start_mon(mon));
        assert_eq!(next_snap(&client).await, 23);
    });
}

#[test]
fn without_a_majority_changes_wait() {
    test(async {
        let mut cluster = Cluster::start(&["a", "b", "c"]);
        let (client, _updates) = cluster.client("client.admin").await;
        client.change(create_pool("vms")).await.expect("a pool");
        cluster.kill("a");
        cluster.kill("b");
        let error = client.with_timeout(Duration::from_secs(2)).read(Query::Status).await;
        let error = error.expect_err("one of three is no majority");
        assert!(matches!(error, CallError::TimedOut { .. } | CallError::Unreachable { .. }), "{error}");
        cluster.start_mon("b");
        assert_eq!(next_snap(&client).await, 1);
    });
}

/// Until nobody joins or leaves.
async fn wait_until_settled(client: &MonClient) {
    while status(client).await.mon.changing {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_monitor_joins_and_leaves() {
    test(async {
        let mut cluster = Cluster::start(&["a"]);
        let (client, _updates) = cluster.client("client.admin").await;
        client.change(create_pool("vms")).await.expect("a pool");
        let socket = free_addrs(1)[0];
        let addrs = vec![EntityAddr { socket, nonce: 0 }];
        let add = Request::Mon(MonCommand::Add { name: "b".to_owned(), addrs });
        assert!(matches!(client.change(add).await, Ok(Reply::Mon { .. })));
        // It does not count yet: the others go on without it until it runs.
        assert_eq!(next_snap(&client).await, 1);
        let mon_map = match client.with_timeout(Duration::from_millis(500)).read(Query::MonMap).await {
            Ok(Reading::MonMap(map)) => map,
            other => panic!("a monitor map was asked for: {other:?}"),
        };
        cluster.addrs.insert("b".to_owned(), socket);
        create(&cluster.dir("b"), &name("mon.b"), Seed::Joining(mon_map)).expect("it is made");
        cluster.start_mon("b");
        quorum(&client, &["a", "b"]).await;
        assert_eq!(next_snap(&client).await, 2);
        wait_until_settled(&client).await;
        let remove = Request::Mon(MonCommand::Remove { name: "b".to_owned() });
        assert!(matches!(client.change(remove).await, Ok(Reply::Done)));
        quorum(&client, &["a"]).await;
        assert_eq!(next_snap(&client).await, 3);
        cluster.take("b").ended().await.expect("it stops by itself");
    });
}

fn boot(osd: i32) -> Request {
    let addr: EntityAddr = "127.0.0.1:6800/1".parse().expect("an address");
    let uuid = OsdUuid([1; 16]);
    Request::Osd(OsdCommand::Boot { osd: OsdId(osd), uuid, public: addr, cluster: addr, clean: None })
}

fn refused(result: Result<Reply, CallError>) -> (ErrorCode, String) {
    match result {
        Err(CallError::Refused { code, why }) => (code, why),
        other => panic!("it should be refused: {other:?}"),
    }
}

#[test]
fn nobody_speaks_for_another() {
    test(async {
        let cluster = Cluster::start(&["a"]);
        let (osd, _updates) = cluster.client("osd.1").await;
        let (code, why) = refused(osd.change(boot(2)).await);
        assert_eq!((code, why.as_str()), (ErrorCode::PERM, "osd.1 may not speak for osd.2"));
        let (code, why) = refused(osd.change(create_pool("vms")).await);
        assert_eq!(
            (code, why.as_str()),
            (ErrorCode::PERM, "osd.1 may not change pools; a client or mgr may")
        );
        // As itself it passes the door, and the core says that it does not exist.
        let (code, _) = refused(osd.change(boot(1)).await);
        assert_eq!(code, ErrorCode::NOENT);
        let (client, _updates) = cluster.client("client.admin").await;
        let (code, _) = refused(client.change(Request::Leader(LeaderCommand::OsdFull { full: true })).await);
        assert_eq!(code, ErrorCode::PERM);
        assert!(client.session().await.expect("a number") > 0);
        assert_eq!(client.session().await, client.session().await);
    });
}

/// A connection without the session's manners.
async fn raw(
    cluster: &Cluster,
    who: &str,
) -> (Arc<Endpoint>, cairn_net::Connection, mpsc::Receiver<Delivery>) {
    let (sender, inbox) = mpsc::channel(8);
    let endpoint = cluster.endpoint(who).await;
    let expect = Expect::Kind(EntityKind::Mon);
    let addr = *cluster.addrs.values().next().expect("a monitor");
    let connect = endpoint.connect(addr, &expect, LaneSet::CONTROL, Receive::Channel(sender));
    let connection = connect.await.expect("it connects");
    (endpoint, connection, inbox)
}

#[test]
fn what_is_out_of_place_ends_the_connection() {
    test(async {
        let cluster = Cluster::start(&["a"]);
        let (client, _updates) = cluster.client("client.admin").await;
        client.session().await.expect("a leader");
        let forged = PeerMessage::News(DaemonNews::OsdBeacon { osd: OsdId(1), up_from: Epoch(1) });
        let peer = Frame::new(&MonPeer(forged), Payload::none()).expect("a frame");
        let no_monitor_message =
            Frame::new(&cairn_wire::op::Ping { seq: 1, epoch: Epoch(1) }, Payload::none());
        let answer = cairn_mon::message::MonAnswer { tag: CallTag(1), answer: Answer::Busy };
        let answer = Frame::new(&answer, Payload::none()).expect("a frame");
        // mon.z has a certificate, but is in no map: all it could tell is where the monitors are.
        let (_stranger, stranger, mut heard) = raw(&cluster, "mon.z").await;
        let ping = PeerMessage::Call { run: 1, tag: CallTag(1), call: Call::Read(Query::Version) };
        let ping = Frame::new(&MonPeer(ping), Payload::none()).expect("a frame");
        stranger.send(Lane::Control, ping).await.expect("it is sent");
        for (who, frame) in [
            ("client.admin", peer.clone()),
            ("osd.1", peer.clone()),
            ("client.admin", no_monitor_message.expect("a frame")),
            ("client.admin", answer),
        ] {
            let (_endpoint, connection, _inbox) = raw(&cluster, who).await;
            connection.send(Lane::Control, frame).await.expect("it is sent");
            connection.closed().await;
        }
        assert!(heard.try_recv().is_err(), "a stranger gets no answer");
        // One that behaves stays.
        let (_endpoint, connection, mut inbox) = raw(&cluster, "client.admin").await;
        let call = MonCall { tag: CallTag(77), call: Call::Read(Query::Version) };
        let frame = Frame::new(&call, Payload::none()).expect("a frame");
        connection.send(Lane::Control, frame).await.expect("it is sent");
        let Some(Delivery::Frame { frame, .. }) = inbox.recv().await else { panic!("an answer is due") };
        let answer: cairn_mon::message::MonAnswer = frame.message().expect("an answer");
        assert_eq!(answer.tag, CallTag(77));
    });
}

#[test]
fn who_finds_no_monitor_is_told_so() {
    test(async {
        let cluster = Cluster::start(&["a"]);
        let nowhere = free_addrs(2);
        let (updates, _inbox) = mpsc::channel(1);
        let client = MonClient::start(cluster.endpoint("client.admin").await, nowhere.clone(), updates);
        let client = client.with_timeout(Duration::from_millis(500));
        let error = client.read(Query::Status).await.expect_err("nothing listens").to_string();
        let start =
            format!("no monitor answers at {}, {}: is the cluster running? (", nowhere[0], nowhere[1]);
        assert!(error.starts_with(&start), "{error}");
        assert!(error.ends_with("refuses connections: nothing listens there)"), "{error}");

        // Of another cluster.
        let other = ClusterCa::create(Fsid([9; 16]), SystemTime::now()).expect("a CA");
        let credentials = other.issue(&name("client.admin"), Validity::from_now(SystemTime::now()));
        let identity = Identity::try_from(&credentials.expect("a certificate")).expect("an identity");
        let endpoint = Arc::new(Endpoint::bind(Config::new(identity, None)).await.expect("an endpoint"));
        let (updates, _inbox) = mpsc::channel(1);
        let client = MonClient::start(endpoint, vec![cluster.addrs["a"]], updates);
        let client = client.with_timeout(Duration::from_secs(2));
        let error = client.read(Query::Status).await.expect_err("another cluster").to_string();
        assert!(error.contains("its certificate is of cluster"), "{error}");
    });
}

#[test]
fn a_monitor_that_cannot_run_says_why() {
    test(async {
        let mut cluster = Cluster::start(&["a"]);
        let (client, _updates) = cluster.client("client.admin").await;
        client.session().await.expect("a leader");
        // Its files are in use.
        let error = Mon::start(cluster.options("a")).ended().await.expect_err("it runs already");
        assert!(matches!(error, MonError::Storage(StorageError::InUse { .. })), "{error}");
        let genesis = Seed::Founding(cairn_mon::service::Genesis {
            fsid: cluster.ca.fsid(),
            now: Default::default(),
            mons: [("a".to_owned(), vec![])].into(),
        });
        let error = create(&cluster.dir("a"), &name("mon.a"), genesis.clone()).expect_err("it runs");
        assert!(matches!(error, MonError::Storage(StorageError::InUse { .. })), "{error}");
        let error = create(&cluster.dir("b"), &name("mon.b"), genesis.clone()).expect_err("not in the map");
        assert!(matches!(error, MonError::NotInMap { .. }), "{error}");
        // Its port is taken.
        create(&cluster.dir("copy"), &name("mon.a"), genesis.clone()).expect("it is made");
        let mut options = cluster.options("a");
        options.data_dir = cluster.dir("copy");
        let error = Mon::start(options.clone()).ended().await.expect_err("the port is taken");
        assert!(matches!(error, MonError::Bind(_)), "{error}");
        // It is somebody else.
        options.identity = cluster.identity("mon.b");
        let error = Mon::start(options.clone()).ended().await.expect_err("another monitor");
        assert!(matches!(error, MonError::WrongIdentity { .. }), "{error}");
        // It was never made.
        options.data_dir = cluster.dir("nothing");
        let error = Mon::start(options).ended().await.expect_err("no monitor");
        assert!(matches!(error, MonError::Storage(StorageError::Missing { .. })), "{error}");
        cluster.take("a").stop().expect("it stops");
        let error = create(&cluster.dir("a"), &name("mon.a"), genesis).expect_err("it is there");
        assert!(matches!(error, MonError::Storage(StorageError::Exists { .. })), "{error}");
    });
}
