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
    cluster.ok(block(who, 1_000));
    assert_eq!(cluster.state.osd_map().blocklist[&who], cluster.now.plus_ms(60_000));
    let expire = || Request::Leader(LeaderCommand::ExpireBlocklist { addrs: vec![who] });
    cluster.ok(expire());
    assert!(cluster.state.osd_map().is_blocklisted(&who), "its time is not over");
    cluster.now = Timestamp(cluster.now.0 + 60_000);
    cluster.ok(expire());
    assert!(!cluster.state.osd_map().is_blocklisted(&who));
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
