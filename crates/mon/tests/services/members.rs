use crate::support::{Cluster, addr};
use cairn_mon::service::{AuthCommand, LeaderCommand, MonCommand, Once, Refusal, Reply, Request};
use cairn_types::{EntityName, Epoch, MonId};

fn add(name: &str, port: u16) -> Request {
    Request::Mon(MonCommand::Add { name: name.to_owned(), addrs: vec![addr(port, 0)] })
}

fn remove(name: &str) -> Request {
    Request::Mon(MonCommand::Remove { name: name.to_owned() })
}

/// The log has the members that the change is for.
fn settle(cluster: &mut Cluster) {
    let change = cluster.state.mon_map().change.clone().expect("a monitor joins or leaves");
    cluster.ok(Request::Leader(LeaderCommand::MonChanged { change }));
}

fn names(cluster: &Cluster) -> Vec<&str> {
    cluster.state.mon_map().mons.keys().map(String::as_str).collect()
}

#[test]
fn monitors_come_and_go_and_numbers_never_come_again() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.ok(add("d", 3303)), Reply::Mon { mon: MonId(3) });
    assert_eq!(cluster.ok(add("d", 3303)), Reply::Mon { mon: MonId(3) }, "asked again");
    assert_eq!(cluster.state.mon_map().epoch, Epoch(2));
    assert_eq!(names(&cluster), ["a", "b", "c"], "it does not count yet");
    assert_eq!(cluster.state.mon_map().name_of(MonId(3)), Some("d"), "but everybody knows where it is");
    settle(&mut cluster);
    assert_eq!(names(&cluster), ["a", "b", "c", "d"]);
    assert_eq!(cluster.ok(add("d", 3303)), Reply::Mon { mon: MonId(3) }, "and again");
    cluster.ok(remove("d"));
    assert_eq!(names(&cluster), ["a", "b", "c"]);
    assert_eq!(cluster.state.mon_map().name_of(MonId(3)), Some("d"), "its voice is still needed");
    cluster.ok(remove("d"));
    settle(&mut cluster);
    assert_eq!(cluster.state.mon_map().name_of(MonId(3)), None);
    assert_eq!(cluster.ok(add("d", 3303)), Reply::Mon { mon: MonId(4) });
    settle(&mut cluster);
    assert_eq!(cluster.state.mon_map().rank("d"), Some(3));
    assert_eq!(cluster.state.mon_map().majority(), 3);
}

#[test]
fn what_cannot_be_a_monitor_is_refused() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.refused(remove("x")), Refusal::NoMon { name: "x".to_owned() });
    assert_eq!(cluster.refused(add("a", 9)), Refusal::MonExists { name: "a".to_owned() });
    assert_eq!(cluster.refused(add("d", 3301)), Refusal::AddrTaken { name: "b".to_owned() });
    assert!(matches!(cluster.refused(add("a/b", 9)), Refusal::BadName { .. }));
    let none = MonCommand::Add { name: "d".to_owned(), addrs: vec![] };
    assert_eq!(cluster.refused(Request::Mon(none)), Refusal::BadAddrs { found: 0, most: 4 });
    for (n, name) in ["d", "e", "f", "g", "h", "i"].into_iter().enumerate() {
        cluster.ok(add(name, 3400 + n as u16));
        settle(&mut cluster);
    }
    assert!(matches!(cluster.refused(add("j", 3500)), Refusal::TooMany { limit: 9, .. }));
}

#[test]
fn one_monitor_changes_at_a_time_and_the_last_one_stays() {
    let mut cluster = Cluster::new();
    let both = cluster.batch(&[remove("a"), remove("b")]);
    assert_eq!(both, [Ok(Reply::Done), Err(Refusal::MonLeaves { name: "a".to_owned() })]);
    assert_eq!(cluster.refused(add("d", 3303)), Refusal::MonLeaves { name: "a".to_owned() });
    settle(&mut cluster);
    cluster.ok(remove("b"));
    settle(&mut cluster);
    assert_eq!(cluster.refused(remove("c")), Refusal::LastMon { name: "c".to_owned() });
}

#[test]
fn of_two_that_are_added_at_once_one_has_to_wait() {
    let mut cluster = Cluster::new();
    let joins = Refusal::MonJoins { name: "d".to_owned() };
    let both = cluster.batch(&[add("d", 3303), add("e", 3304)]);
    assert_eq!(both, [Ok(Reply::Mon { mon: MonId(3) }), Err(joins.clone())]);
    assert_eq!(cluster.refused(add("e", 3304)), joins);
    assert_eq!(cluster.refused(remove("a")), joins);
    // Somebody else who adds one of that name: its process would be another.
    assert_eq!(cluster.refused(add("d", 3305)), Refusal::MonExists { name: "d".to_owned() });
    settle(&mut cluster);
    assert_eq!(cluster.ok(add("e", 3304)), Reply::Mon { mon: MonId(4) });
}

#[test]
fn one_that_never_comes_is_taken_back() {
    let mut cluster = Cluster::new();
    cluster.ok(add("d", 3303));
    let joins = cluster.state.mon_map().change.clone().expect("it joins");
    cluster.ok(remove("d"));
    // The log had it in that very moment: it has to go again.
    cluster.ok(Request::Leader(LeaderCommand::MonChanged { change: joins }));
    assert_eq!(names(&cluster), ["a", "b", "c"]);
    assert_eq!(cluster.refused(add("d", 3305)), Refusal::MonLeaves { name: "d".to_owned() });
    settle(&mut cluster);
    assert_eq!(cluster.ok(add("d", 3305)), Reply::Mon { mon: MonId(4) }, "its number is used up");
}

fn seen(name: &str, nonce: u64) -> Request {
    Request::Leader(LeaderCommand::MgrSeen { name: name.to_owned(), addr: addr(9000, nonce) })
}

fn lost(name: &str, nonce: u64) -> Request {
    Request::Leader(LeaderCommand::MgrLost { name: name.to_owned(), addr: addr(9000, nonce) })
}

fn mgrs(cluster: &Cluster) -> (Option<&str>, Vec<&str>) {
    let map = cluster.state.mgr_map();
    let active = map.active.as_ref().map(|(name, _)| name.as_str());
    (active, map.standbys.keys().map(String::as_str).collect())
}

#[test]
fn a_standby_takes_over_from_a_mgr_that_is_silent_or_starts_anew() {
    let mut cluster = Cluster::new();
    for name in ["x", "y", "z"] {
        cluster.ok(seen(name, 1));
    }
    assert_eq!(mgrs(&cluster), (Some("x"), vec!["y", "z"]));
    cluster.ok(lost("x", 0));
    assert_eq!(mgrs(&cluster).0, Some("x"), "another run was meant");
    cluster.ok(lost("x", 1));
    assert_eq!(mgrs(&cluster), (Some("y"), vec!["z"]));
    cluster.ok(seen("y", 2));
    assert_eq!(mgrs(&cluster), (Some("z"), vec!["y"]), "its new run knows nothing yet");
    cluster.ok(seen("y", 1));
    assert_eq!(cluster.state.mgr_map().standbys["y"].addr.nonce, 2, "late news of the old run");
    cluster.ok(lost("y", 2));
    cluster.ok(seen("z", 2));
    assert_eq!(mgrs(&cluster), (Some("z"), vec![]), "there is no other");
    cluster.ok(lost("z", 2));
    assert_eq!(mgrs(&cluster), (None, vec![]));
}

#[test]
fn entities_are_let_in_shut_out_and_forgotten() {
    let mut cluster = Cluster::new();
    let name: EntityName = "client.admin".parse().expect("a name");
    let revoke = || Request::Auth(AuthCommand::Revoke { name: name.clone() });
    assert!(matches!(cluster.refused(revoke()), Refusal::NoEntity { .. }));
    cluster.ok(Request::Auth(AuthCommand::Put { name: name.clone(), key_sha256: [1; 32] }));
    assert!(!cluster.state.auth().entities[&name].revoked);
    cluster.ok(revoke());
    assert!(cluster.state.auth().entities[&name].revoked);
    cluster.ok(Request::Auth(AuthCommand::Remove { name: name.clone() }));
    assert!(cluster.state.auth().entities.is_empty());
    assert_eq!(cluster.state.auth().version, 3);
}

#[test]
fn sessions_are_never_given_twice() {
    let mut cluster = Cluster::new();
    let both = cluster.batch(&[Request::Session, Request::Session]);
    assert_eq!(both, [Ok(Reply::Session { client: 1 }), Ok(Reply::Session { client: 2 })]);
    assert_eq!(cluster.ok(Request::Session), Reply::Session { client: 3 });
}

#[test]
fn a_request_sent_twice_counts_once_in_a_batch_and_later() {
    use cairn_mon::service::{Draft, PoolCommand};
    use cairn_types::SnapId;
    let mut cluster = Cluster::usual();
    let snap = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    let id = |tid| cairn_wire::RequestId { client: 1, incarnation: 0, tid };
    let born = cluster.state.version();
    let once = Once { id: id(1), born };
    let mut draft = Draft::new(&cluster.state, cluster.now);
    let first = Ok(Reply::Snap { snap: SnapId(1) });
    assert_eq!([(); 2].map(|()| draft.run_once(once, &snap)), [first.clone(), first.clone()]);
    let ahead = Once { id: id(2), born: born + 1 };
    assert_eq!(draft.run_once(ahead, &snap), Err(Refusal::BornInFuture { born: born + 1, have: born }));
    let transaction = draft.finish().expect("a change");
    cluster.state.apply(&transaction).expect("it applies");
    let mut draft = Draft::new(&cluster.state, cluster.now);
    assert_eq!(draft.run_once(once, &snap), first);
    assert_eq!(draft.finish(), None, "nothing is left to do");
}

#[test]
fn what_changes_nothing_counts_once_too() {
    use cairn_mon::service::{ClusterCommand, Draft};
    use cairn_types::OsdFlag;
    let mut cluster = Cluster::new();
    let flag = |on| Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::NoOut, on });
    let once = Once { id: cairn_wire::RequestId { client: 1, incarnation: 0, tid: 1 }, born: 0 };
    let clear = |cluster: &mut Cluster| {
        let mut draft = Draft::new(&cluster.state, cluster.now);
        draft.run_once(once, &flag(false)).expect("accepted");
        if let Some(transaction) = draft.finish() {
            cluster.state.apply(&transaction).expect("it applies");
        }
    };
    clear(&mut cluster);
    cluster.ok(flag(true));
    clear(&mut cluster);
    assert!(cluster.state.osd_map().flags.has(OsdFlag::NoOut), "a late copy does not clear it again");
}
