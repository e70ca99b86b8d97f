use crate::support::{Cluster, addr, boot, create, host, make_pool, set, uuid};
use cairn_mon::service::{ClusterCommand, LeaderCommand, OsdCommand, Refusal, Reply, Request};
use cairn_types::{Epoch, OsdFlag, OsdId, Timestamp, Weight};

fn osd(command: OsdCommand) -> Request {
    Request::Osd(command)
}

fn out(n: i32) -> Request {
    osd(OsdCommand::Out { osds: vec![OsdId(n)] })
}

fn take_in(n: i32) -> Request {
    osd(OsdCommand::In { osds: vec![OsdId(n)] })
}

fn down(n: i32) -> Request {
    osd(OsdCommand::Down { osds: vec![OsdId(n)] })
}

fn fail(cluster: &Cluster, n: i32) -> Request {
    Request::Leader(LeaderCommand::OsdFailed { osd: OsdId(n), up_from: cluster.osd(n).up_from })
}

fn auto_out(n: i32) -> Request {
    Request::Leader(LeaderCommand::OsdAutoOut { osd: OsdId(n) })
}

fn flag(flag: OsdFlag, on: bool) -> Request {
    Request::Cluster(ClusterCommand::Flag { flag, on })
}

#[test]
fn a_new_store_gets_the_lowest_free_number_and_a_place_once() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.ok(create(0, "n1")), Reply::Osd { osd: OsdId(0) });
    assert_eq!(cluster.ok(create(1, "n2")), Reply::Osd { osd: OsdId(1) });
    let version = cluster.state.version();
    assert_eq!(cluster.ok(create(1, "n2")), Reply::Osd { osd: OsdId(1) }, "asked again");
    assert_eq!(cluster.state.version(), version, "nothing changed");
    let info = cluster.osd(0);
    assert!(!info.up && info.is_in() && info.up_from == Epoch(0));
    let elsewhere = OsdCommand::Create {
        uuid: uuid(1),
        id: Some(OsdId(7)),
        class: None,
        weight: Weight::ONE,
        location: host("n1"),
    };
    assert_eq!(cluster.refused(osd(elsewhere)), Refusal::StoreHasNumber { osd: OsdId(1), wanted: OsdId(7) });
    let taken = OsdCommand::Create {
        uuid: uuid(9),
        id: Some(OsdId(0)),
        class: None,
        weight: Weight::ONE,
        location: host("n1"),
    };
    assert_eq!(cluster.refused(osd(taken)), Refusal::OsdExists { osd: OsdId(0) });
    for id in [-1, 1 << 16] {
        let beyond = OsdCommand::Create {
            uuid: uuid(9),
            id: Some(OsdId(id)),
            class: None,
            weight: Weight::ONE,
            location: host("n1"),
        };
        assert!(matches!(cluster.refused(osd(beyond)), Refusal::TooMany { .. }));
    }
}

#[test]
fn with_noin_a_new_store_waits_outside() {
    let mut cluster = Cluster::new();
    cluster.ok(flag(OsdFlag::NoIn, true));
    cluster.ok(create(0, "n1"));
    assert!(!cluster.osd(0).is_in());
}

#[test]
fn a_boot_is_stamped_with_the_epoch_that_shows_it() {
    let mut cluster = Cluster::new();
    cluster.ok(create(0, "n1"));
    cluster.ok(boot(0, 1));
    let info = cluster.osd(0);
    assert!(info.up);
    assert_eq!(info.up_from, cluster.epoch());
    assert_eq!(info.public, Some(addr(6800, 1)));
    let version = cluster.state.version();
    cluster.ok(boot(0, 1));
    assert_eq!(cluster.state.version(), version, "said again, it changes nothing");
}

#[test]
fn two_runs_of_an_osd_are_never_in_one_epoch() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    let first = cluster.osd(0).up_from;
    assert_eq!(cluster.ok(boot(0, 2)), Reply::BootLater { epoch: first.next() });
    assert!(!cluster.osd(0).up, "the first run is marked down");
    assert_eq!(cluster.ok(boot(0, 2)), Reply::Done);
    assert_eq!(cluster.osd(0).up_from, Epoch(first.0 + 2));
    // Marked down and booting in one transaction: the boot waits, too.
    let both = cluster.batch(&[down(0), boot(0, 3)]);
    assert_eq!(both[1], Ok(Reply::BootLater { epoch: cluster.epoch() }));
    // Booting and failing in one transaction: the failure waits.
    let both = cluster.batch(&[boot(0, 3), down(0)]);
    assert_eq!(both[1], Err(Refusal::Busy { osd: OsdId(0) }));
    assert!(cluster.osd(0).up);
}

#[test]
fn a_boot_of_the_wrong_store_an_old_run_or_a_blocked_process_is_refused() {
    let mut cluster = Cluster::with_osds(&["n1", "n2"]);
    let wrong = OsdCommand::Boot {
        osd: OsdId(0),
        uuid: uuid(5),
        public: addr(6900, 9),
        cluster: addr(6901, 9),
        clean: None,
    };
    assert!(matches!(cluster.refused(osd(wrong)), Refusal::OtherStore { .. }));
    assert_eq!(cluster.refused(boot(7, 1)), Refusal::NoOsd { osd: OsdId(7) });
    cluster.ok(down(0));
    cluster.ok(boot(0, 5));
    assert!(matches!(cluster.refused(boot(0, 4)), Refusal::OldRun { .. }));
    cluster.ok(Request::Cluster(ClusterCommand::Block { addr: addr(6800, 6), for_ms: 1_000 }));
    assert_eq!(cluster.refused(boot(0, 6)), Refusal::Blocklisted { addr: addr(6800, 6) });
    cluster.ok(flag(OsdFlag::NoUp, true));
    let later = Reply::BootLater { epoch: cluster.epoch().next() };
    assert_eq!(cluster.ok(boot(0, 7)), later);
    assert!(!cluster.osd(0).up, "the run before is over in any case");
    assert_eq!(cluster.refused(boot(0, 7)), Refusal::FlagSet { flag: OsdFlag::NoUp, osd: OsdId(0) });
}

#[test]
fn a_clean_interval_is_taken_only_if_it_lies_in_the_past_and_is_newer() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    cluster.ok(down(0));
    let mut boot_clean = |nonce, begin, end| {
        let (public, cluster_addr) = (addr(6800, nonce), addr(6801, nonce));
        let clean = Some((Epoch(begin), Epoch(end)));
        cluster.ok(osd(OsdCommand::Boot {
            osd: OsdId(0),
            uuid: uuid(0),
            public,
            cluster: cluster_addr,
            clean,
        }));
        let clean = cluster.osd(0).last_clean_interval;
        cluster.ok(down(0));
        clean
    };
    assert_eq!(boot_clean(2, 2, 3), (Epoch(2), Epoch(3)));
    assert_eq!(boot_clean(3, 1, 2), (Epoch(2), Epoch(3)), "older");
    assert_eq!(boot_clean(4, 4, 99), (Epoch(2), Epoch(3)), "in the future");
    assert_eq!(boot_clean(5, 4, 4), (Epoch(2), Epoch(3)), "empty");
}

#[test]
fn stopping_marks_down_the_run_that_stops_and_no_other() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    cluster.ok(osd(OsdCommand::Stopping { osd: OsdId(0), public: addr(6800, 0) }));
    assert!(cluster.osd(0).up, "an earlier run");
    cluster.ok(osd(OsdCommand::Stopping { osd: OsdId(0), public: addr(6800, 1) }));
    assert!(!cluster.osd(0).up);
    assert_eq!(cluster.osd(0).down_at, cluster.epoch());
    assert_eq!(cluster.state.osd_record(OsdId(0)), None, "no failure is counted");
}

#[test]
fn out_by_hand_stays_out_and_out_by_itself_comes_back_with_its_weight() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3", "n4"]);
    cluster.ok(osd(OsdCommand::Reweight { osd: OsdId(0), weight: Weight(0x8000) }));
    for request in [down(0), auto_out(0)] {
        cluster.ok(request);
    }
    assert!(!cluster.osd(0).is_in());
    cluster.ok(boot(0, 2));
    assert_eq!(cluster.osd(0).weight, Weight(0x8000));
    for request in [out(1), down(1), boot(1, 2)] {
        cluster.ok(request);
    }
    assert!(!cluster.osd(1).is_in(), "the operator took it out");
    cluster.ok(take_in(1));
    assert_eq!(cluster.osd(1).weight, Weight::ONE);
}

#[test]
fn marking_out_by_itself_stops_below_the_share_and_at_noout() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    cluster.ok(auto_out(0));
    assert!(cluster.osd(0).is_in(), "it is up");
    cluster.ok(osd(OsdCommand::Down { osds: (0..3).map(OsdId).collect() }));
    cluster.ok(flag(OsdFlag::NoOut, true));
    assert!(matches!(cluster.refused(auto_out(0)), Refusal::FlagSet { flag: OsdFlag::NoOut, .. }));
    cluster.ok(flag(OsdFlag::NoOut, false));
    // All at once: the share is counted within the transaction.
    let results = cluster.batch(&[auto_out(0), auto_out(1), auto_out(2)]);
    assert_eq!(results[0], Ok(Reply::Done));
    assert_eq!(results[1], Err(Refusal::TooFewIn { osd: OsdId(1), still_in: 2, of: 3 }));
    assert!(results[2].is_err());
    cluster.ok(set("mon_osd_min_in_ratio", "0.5"));
    cluster.ok(auto_out(1));
    assert!(cluster.run(out(2)).is_ok(), "by hand everything goes");
}

#[test]
fn failures_stop_below_the_share_that_is_up_and_at_nodown() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3", "n4"]);
    cluster.ok(flag(OsdFlag::NoDown, true));
    let request = fail(&cluster, 0);
    assert!(matches!(cluster.refused(request), Refusal::FlagSet { flag: OsdFlag::NoDown, .. }));
    cluster.ok(flag(OsdFlag::NoDown, false));
    let all: Vec<Request> = (0..4).map(|n| fail(&cluster, n)).collect();
    let results = cluster.batch(&all);
    assert_eq!(results[..3], [Ok(Reply::Done), Ok(Reply::Done), Ok(Reply::Done)]);
    assert_eq!(results[3], Err(Refusal::TooFewUp { osd: OsdId(3), up: 1, of: 4 }));
    // A failure of a run that is over is nothing.
    let late = Request::Leader(LeaderCommand::OsdFailed { osd: OsdId(3), up_from: Epoch(1) });
    cluster.ok(late);
    assert!(cluster.osd(3).up);
}

#[test]
fn the_only_osd_of_a_cluster_can_fail() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    let request = fail(&cluster, 0);
    cluster.ok(request);
    assert!(!cluster.osd(0).up);
}

#[test]
fn one_that_fails_again_and_again_is_kept_down_for_longer_each_time() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    for nonce in 2..=5 {
        let request = fail(&cluster, 0);
        cluster.ok(request);
        cluster.ok(boot(0, nonce));
    }
    let request = fail(&cluster, 0);
    cluster.ok(request);
    assert_eq!(cluster.refused(boot(0, 6)), Refusal::Flapping { osd: OsdId(0), for_ms: 60_000 });
    cluster.now = Timestamp(cluster.now.0 + 60_000);
    cluster.ok(boot(0, 6));
    let request = fail(&cluster, 0);
    cluster.ok(request);
    assert_eq!(cluster.refused(boot(0, 7)), Refusal::Flapping { osd: OsdId(0), for_ms: 120_000 });
    cluster.now = Timestamp(cluster.now.0 + 700_000);
    cluster.ok(boot(0, 7));
}

#[test]
fn a_wall_clock_that_is_set_back_keeps_nobody_down_until_it_has_caught_up() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    let right = cluster.now;
    cluster.now = Timestamp(right.0 + 3_600_000);
    for nonce in 2..=6 {
        let request = fail(&cluster, 0);
        cluster.ok(request);
        if nonce < 6 {
            cluster.ok(boot(0, nonce));
        }
    }
    assert!(matches!(cluster.refused(boot(0, 6)), Refusal::Flapping { .. }));
    cluster.now = right;
    cluster.ok(boot(0, 6));
}

#[test]
fn a_destroyed_osd_keeps_number_and_place_for_a_new_store() {
    let mut cluster = Cluster::with_osds(&["n1", "n2"]);
    let destroy = |confirmed| osd(OsdCommand::Destroy { osd: OsdId(0), confirmed });
    assert!(matches!(cluster.refused(destroy(true)), Refusal::OsdUp { .. }));
    cluster.ok(down(0));
    assert!(matches!(cluster.refused(destroy(false)), Refusal::Unconfirmed { .. }));
    cluster.ok(destroy(true));
    assert!(cluster.osd(0).is_destroyed());
    assert_eq!(cluster.osd(0).lost_at, cluster.epoch(), "peering does not wait for it");
    assert_eq!(cluster.refused(boot(0, 2)), Refusal::OsdDestroyed { osd: OsdId(0) });
    let again = OsdCommand::Create {
        uuid: uuid(8),
        id: Some(OsdId(0)),
        class: None,
        weight: Weight::ONE,
        location: host("n1"),
    };
    assert_eq!(cluster.ok(osd(again)), Reply::Osd { osd: OsdId(0) });
    assert!(cluster.osd(0).lost_at > Epoch(0), "what the number held before is still lost");
}

#[test]
fn purge_removes_every_trace() {
    let mut cluster = Cluster::usual();
    cluster.ok(create(3, "n4"));
    let before = cairn_mon::service::crush::tree(cluster.state.osd_map()).expect("a tree").len();
    cluster.ok(osd(OsdCommand::Purge { osd: OsdId(3), confirmed: true }));
    assert!(!cluster.state.osd_map().osds.contains_key(&OsdId(3)));
    let after = cairn_mon::service::crush::tree(cluster.state.osd_map()).expect("a tree").len();
    assert_eq!(after, before - 1);
    assert_eq!(cluster.ok(create(4, "n4")), Reply::Osd { osd: OsdId(3) }, "the number is free");
}

#[test]
fn lost_is_for_what_is_down_and_confirmed() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    let lost = |confirmed| osd(OsdCommand::Lost { osd: OsdId(0), confirmed });
    assert!(matches!(cluster.refused(lost(true)), Refusal::OsdUp { .. }));
    cluster.ok(down(0));
    assert!(matches!(cluster.refused(lost(false)), Refusal::Unconfirmed { .. }));
    cluster.ok(lost(true));
    assert_eq!(cluster.osd(0).lost_at, cluster.epoch());
}

#[test]
fn shares_are_from_0_to_1() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    let above = Weight(0x1_0001);
    let reweight = |weight| osd(OsdCommand::Reweight { osd: OsdId(0), weight });
    let affinity = |affinity| osd(OsdCommand::PrimaryAffinity { osd: OsdId(0), affinity });
    assert_eq!(cluster.refused(reweight(above)), Refusal::NoShare { found: above });
    assert_eq!(cluster.refused(affinity(above)), Refusal::NoShare { found: above });
    cluster.ok(reweight(Weight::ZERO));
    assert!(!cluster.osd(0).is_in());
    cluster.ok(affinity(Weight(0x4000)));
    assert_eq!(cluster.osd(0).primary_affinity, Weight(0x4000));
}

#[test]
fn a_list_of_osds_is_taken_whole_or_not_at_all() {
    let mut cluster = Cluster::with_osds(&["n1", "n2"]);
    let osds = vec![OsdId(0), OsdId(1), OsdId(2)];
    assert_eq!(cluster.refused(osd(OsdCommand::Out { osds })), Refusal::NoOsd { osd: OsdId(2) });
    assert!(cluster.osd(0).is_in());
    let many = OsdCommand::Out { osds: vec![OsdId(0); 5000] };
    assert!(matches!(cluster.refused(osd(many)), Refusal::TooMany { .. }));
}

#[test]
fn a_death_clears_stand_ins_that_only_had_dead_members() {
    use cairn_mon::service::PgCommand;
    use cairn_types::{PgId, PoolId};
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    cluster.ok(make_pool("vms"));
    let pg = |seed| PgId { pool: PoolId(1), seed };
    let sets = [(pg(0), vec![OsdId(0)]), (pg(1), vec![OsdId(0), OsdId(1)])].into();
    cluster.ok(Request::Pg(PgCommand::Temp { from: OsdId(1), sets }));
    cluster.ok(down(0));
    let left: Vec<PgId> = cluster.state.osd_map().pg_temp.keys().copied().collect();
    assert_eq!(left, [pg(1)]);
}
