//! What the leader asks for as time passes.

use crate::support::{Cluster, addr, boot, create, make_pool, set};
use cairn_mon::service::watch::{Now, Watch};
use cairn_mon::service::{ClusterCommand, LeaderCommand, OsdCommand, PoolCommand, PoolSetting, Request};
use cairn_types::{Digest, Epoch, OsdFlag, OsdId, OsdStat, PgState, PoolId, PoolStat};

fn at(steady_ms: u64) -> Now {
    Now { steady_ms }
}

fn down(osds: &[i32]) -> Request {
    Request::Osd(OsdCommand::Down { osds: osds.iter().copied().map(OsdId).collect() })
}

fn auto_out(n: i32) -> Request {
    Request::Leader(LeaderCommand::OsdAutoOut { osd: OsdId(n) })
}

#[test]
fn an_osd_that_is_down_goes_out_after_the_delay_and_not_before() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3", "n4"]);
    let mut watch = Watch::new(&cluster.state, at(0));
    cluster.ok(down(&[1]));
    watch.observe(&cluster.state, at(1_000));
    let beacons = |watch: &mut Watch, cluster: &Cluster, now| {
        for n in [0, 2, 3] {
            watch.beacon(OsdId(n), cluster.osd(n).up_from, at(now));
        }
    };
    beacons(&mut watch, &cluster, 600_000);
    let due = watch.tick(&cluster.state, None, at(600_999));
    assert_eq!((due.requests, due.next_ms), (vec![], Some(601_000)));
    assert_eq!(watch.tick(&cluster.state, None, at(601_000)).requests, [auto_out(1)]);
    cluster.ok(set("mon_osd_down_out_interval_ms", "0"));
    assert_eq!(watch.tick(&cluster.state, None, at(601_000)).requests, [], "0 is never");
    cluster.ok(set("mon_osd_down_out_interval_ms", "700000"));
    assert_eq!(watch.tick(&cluster.state, None, at(601_000)).requests, []);
    beacons(&mut watch, &cluster, 700_000);
    cluster.ok(Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::NoOut, on: true }));
    assert_eq!(watch.tick(&cluster.state, None, at(701_000)).requests, []);
    cluster.ok(Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::NoOut, on: false }));
    assert_eq!(watch.tick(&cluster.state, None, at(701_000)).requests, [auto_out(1)]);
}

#[test]
fn coming_back_in_between_starts_the_delay_anew() {
    let mut cluster = Cluster::with_osds(&["n1", "n2"]);
    let mut watch = Watch::new(&cluster.state, at(0));
    for (request, now) in [(down(&[1]), 0), (boot(1, 2), 599_000), (down(&[1]), 600_000)] {
        cluster.ok(request);
        watch.observe(&cluster.state, at(now));
    }
    watch.beacon(OsdId(0), cluster.osd(0).up_from, at(1_190_000));
    assert_eq!(watch.tick(&cluster.state, None, at(1_199_999)).requests, []);
    assert_eq!(watch.tick(&cluster.state, None, at(1_200_000)).requests, [auto_out(1)]);
}

#[test]
fn marking_out_stops_below_the_share_that_is_in() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3", "n4", "n5"]);
    cluster.ok(down(&[0, 1, 2, 3, 4]));
    let mut watch = Watch::new(&cluster.state, at(0));
    // 5 of 5 and 4 of 5 are enough to let one go, 3 of 5 are not.
    assert_eq!(watch.tick(&cluster.state, None, at(600_000)).requests, [auto_out(0), auto_out(1)]);
}

#[test]
fn one_that_never_booted_is_not_marked_out() {
    let mut cluster = Cluster::new();
    cluster.ok(create(0, "n1"));
    let mut watch = Watch::new(&cluster.state, at(0));
    assert_eq!(watch.tick(&cluster.state, None, at(10_000_000)).requests, []);
}

#[test]
fn an_osd_without_beacons_is_down_and_a_new_leader_waits_anew() {
    let cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    let mut watch = Watch::new(&cluster.state, at(0));
    for n in [0, 1] {
        watch.beacon(OsdId(n), cluster.osd(n).up_from, at(30_000));
    }
    watch.beacon(OsdId(2), Epoch(1), at(30_000));
    let due = watch.tick(&cluster.state, None, at(60_000));
    let failed = LeaderCommand::OsdFailed { osd: OsdId(2), up_from: cluster.osd(2).up_from };
    assert_eq!(due.requests, [Request::Leader(failed)], "a beacon of another run is no sign of life");
    assert_eq!(due.next_ms, Some(90_000));
    let mut watch = Watch::new(&cluster.state, at(60_000));
    assert_eq!(watch.tick(&cluster.state, None, at(119_999)).requests, []);
}

#[test]
fn a_silent_mgr_is_replaced() {
    let mut cluster = Cluster::new();
    let mut watch = Watch::new(&cluster.state, at(0));
    let seen = watch.mgr_beacon("x", addr(9000, 1), at(0)).expect("it is new");
    cluster.ok(seen);
    watch.observe(&cluster.state, at(0));
    assert_eq!(watch.mgr_beacon("x", addr(9000, 1), at(3_000)), None);
    let due = watch.tick(&cluster.state, None, at(7_999));
    assert_eq!((due.requests, due.next_ms), (vec![], Some(8_000)));
    let lost = LeaderCommand::MgrLost { name: "x".to_owned(), addr: addr(9000, 1) };
    assert_eq!(watch.tick(&cluster.state, None, at(8_000)).requests, [Request::Leader(lost)]);
}

#[test]
fn a_blocklist_entry_goes_when_its_time_has_passed_under_one_leader() {
    let mut cluster = Cluster::new();
    let who = addr(7000, 1);
    let block = Request::Cluster(ClusterCommand::Block { addr: who, for_ms: 60_000 });
    cluster.ok(block.clone());
    let since = cluster.state.version();
    let mut watch = Watch::new(&cluster.state, at(0));
    let due = watch.tick(&cluster.state, None, at(59_999));
    assert_eq!((due.requests, due.next_ms), (vec![], Some(60_000)));
    let expire = |since| Request::Leader(LeaderCommand::ExpireBlocklist { entries: vec![(who, since)] });
    assert_eq!(watch.tick(&cluster.state, None, at(60_000)).requests, [expire(since)]);
    // The next leader has not seen any of it pass, whatever its wall clock says.
    let mut next = Watch::new(&cluster.state, at(7_000_000));
    assert_eq!(next.tick(&cluster.state, None, at(7_059_999)).requests, []);
    assert_eq!(next.tick(&cluster.state, None, at(7_060_000)).requests, [expire(since)]);
    // Who shuts out again shuts out for as long from there on.
    cluster.ok(block);
    next.observe(&cluster.state, at(7_060_001));
    assert_eq!(next.tick(&cluster.state, None, at(7_120_000)).requests, []);
    cluster.ok(expire(since));
    assert!(cluster.state.osd_map().is_blocklisted(&who), "what was asked for before does not end it");
    let renewed = cluster.state.version();
    assert_eq!(next.tick(&cluster.state, None, at(7_120_001)).requests, [expire(renewed)]);
    cluster.ok(expire(renewed));
    assert!(!cluster.state.osd_map().is_blocklisted(&who));
}

#[test]
fn full_osds_and_used_up_quotas_stop_writes_and_room_lets_them_go_on() {
    let mut cluster = Cluster::usual();
    let setting = PoolSetting::QuotaBytes(1_000);
    cluster.ok(Request::Pool(PoolCommand::Set { name: "vms".to_owned(), setting }));
    let mut watch = Watch::new(&cluster.state, at(0));
    let mut digest = Digest::default();
    let mut tick = |cluster: &Cluster, used_bytes, stored_bytes| {
        digest.osds.insert(OsdId(0), OsdStat { total_bytes: 100, used_bytes, ..OsdStat::default() });
        digest.pools.insert(PoolId(1), PoolStat { stored_bytes, ..PoolStat::default() });
        watch.tick(&cluster.state, Some(&digest), at(0)).requests
    };
    let osd_full = |full| Request::Leader(LeaderCommand::OsdFull { full });
    let pool_full = |full| Request::Leader(LeaderCommand::PoolFull { pool: PoolId(1), full });
    assert_eq!(tick(&cluster, 94, 999), []);
    assert_eq!(tick(&cluster, 95, 1_000), [osd_full(true), pool_full(true)]);
    cluster.ok(osd_full(true));
    cluster.ok(pool_full(true));
    assert_eq!(tick(&cluster, 95, 1_000), [], "it is so already");
    assert_eq!(tick(&cluster, 94, 999), [osd_full(false), pool_full(false)]);
}

#[test]
fn epochs_go_once_every_group_is_clean_past_them() {
    let mut cluster = Cluster::new();
    cluster.ok(make_pool("vms"));
    while cluster.epoch() < Epoch(700) {
        cluster.ok(Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() }));
    }
    let mut watch = Watch::new(&cluster.state, at(0));
    let clean = PgState::ACTIVE | PgState::CLEAN;
    let digest = |groups, clean_epoch| Digest {
        pg_states: [(clean, groups)].into(),
        last_epoch_clean_min: clean_epoch,
        ..Digest::default()
    };
    let mut trim = |digest: &Digest| watch.tick(&cluster.state, Some(digest), at(0)).requests;
    let to = |first| vec![Request::Leader(LeaderCommand::TrimOsdMaps { first: Epoch(first) })];
    assert_eq!(trim(&digest(32, Some(Epoch(699)))), to(200), "the newest 500 stay");
    assert_eq!(trim(&digest(32, Some(Epoch(150)))), to(150));
    assert_eq!(trim(&digest(32, Some(Epoch(20)))), vec![], "too few to be worth an entry");
    assert_eq!(trim(&digest(31, Some(Epoch(699)))), vec![], "one group has not reported");
    assert_eq!(trim(&digest(32, None)), vec![]);
}
