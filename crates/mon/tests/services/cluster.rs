use crate::support::{Cluster, addr};
use cairn_mon::service::{ClusterCommand, LeaderCommand, Refusal, Request};
use cairn_types::{EntityAddr, OsdFlag, Ratio, Ratios, Timestamp};

fn block(addr: EntityAddr, for_ms: u64) -> Request {
    Request::Cluster(ClusterCommand::Block { addr, for_ms })
}

#[test]
fn flags_are_the_operators_but_full() {
    let mut cluster = Cluster::new();
    for on in [true, false] {
        cluster.ok(Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::NoOut, on }));
        assert_eq!(cluster.state.osd_map().flags.has(OsdFlag::NoOut), on);
    }
    let full = Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::Full, on: true });
    assert_eq!(cluster.refused(full), Refusal::FlagOfTheMonitors { flag: "full" });
    cluster.ok(Request::Leader(LeaderCommand::OsdFull { full: true }));
    assert!(cluster.state.osd_map().flags.has(OsdFlag::Full));
}

#[test]
fn ratios_rise() {
    let mut cluster = Cluster::new();
    let ratios = |near, backfill, full| {
        let [nearfull, backfillfull, full] = [near, backfill, full].map(Ratio::percent);
        Request::Cluster(ClusterCommand::Ratios(Ratios { nearfull, backfillfull, full }))
    };
    cluster.ok(ratios(70, 80, 90));
    for bad in [ratios(80, 70, 90), ratios(70, 95, 90), ratios(70, 80, 101)] {
        assert!(matches!(cluster.refused(bad), Refusal::BadRatios { .. }));
    }
}

#[test]
fn a_fence_is_never_shortened_and_goes_when_its_time_is_over() {
    let mut cluster = Cluster::new();
    let who = addr(7000, 5);
    cluster.ok(block(who, 60_000));
    let expire = |since| Request::Leader(LeaderCommand::ExpireBlocklist { entries: vec![(who, since)] });
    let first = cluster.state.version();
    // A weaker one by a leader whose clock is behind: the end for people stays, and the time begins anew.
    cluster.now = Timestamp(cluster.now.0 - 3_600_000);
    let until = cluster.state.osd_map().blocklist[&who];
    cluster.ok(block(who, 1_000));
    assert_eq!(cluster.state.osd_map().blocklist[&who], until);
    cluster.ok(expire(first));
    assert!(cluster.state.osd_map().is_blocklisted(&who), "it has been renewed");
    let renewed = cluster.state.version();
    cluster.ok(block(addr(7001, 5), 1_000));
    cluster.ok(expire(renewed));
    assert!(!cluster.state.osd_map().is_blocklisted(&who));
    assert!(cluster.state.osd_map().is_blocklisted(&addr(7001, 5)));
    for for_ms in [0, u64::MAX] {
        assert!(matches!(cluster.refused(block(who, for_ms)), Refusal::BadDuration { .. }));
    }
}

#[test]
fn a_whole_host_can_be_shut_out_and_let_in() {
    let mut cluster = Cluster::new();
    let host = EntityAddr::whole_host([10, 0, 0, 1].into());
    cluster.ok(block(host, 60_000));
    assert!(cluster.state.osd_map().is_blocklisted(&addr(7000, 5)));
    let unblock = || Request::Cluster(ClusterCommand::Unblock { addr: host });
    cluster.ok(unblock());
    assert!(!cluster.state.osd_map().is_blocklisted(&addr(7000, 5)));
    assert_eq!(cluster.refused(unblock()), Refusal::NotBlocked { addr: host });
}
