//! The checks: which code, how severe, and that each says the next step.

use crate::support::{Cluster, create};
use cairn_mon::service::health::{Quorum, View, health};
use cairn_mon::service::status::status;
use cairn_mon::service::{
    ClusterCommand, LeaderCommand, OsdCommand, PoolCommand, PoolSetting, Request, render,
};
use cairn_types::*;

fn quorum(names: &[&str]) -> Quorum {
    let members: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Quorum { leader: members.first().cloned(), members }
}

const CLEAN: PgState = PgState(PgState::ACTIVE.0 | PgState::CLEAN.0);

fn digest() -> Digest {
    let mut digest = Digest { pg_states: [(CLEAN, 32)].into(), ..Digest::default() };
    let counts = PgCounts { copies: 300, ..PgCounts::default() };
    digest.pools.insert(PoolId(1), PoolStat { objects: 100, counts, ..PoolStat::default() });
    for n in 0..3 {
        digest.osds.insert(OsdId(n), OsdStat { total_bytes: 1_000, used_bytes: 10, ..OsdStat::default() });
    }
    digest
}

fn read(cluster: &Cluster, digest: Option<&Digest>) -> Health {
    let quorum = quorum(&["a", "b", "c"]);
    let health = health(View { state: &cluster.state, quorum: &quorum, digest, now: cluster.now });
    for (code, check) in &health.checks {
        assert!(check.next_step.len() > 20, "{code} does not say what to do");
        assert!(check.count > 0 && !check.summary.is_empty() && check.detail.len() <= 51, "{code}");
    }
    health
}

fn codes(health: &Health) -> Vec<HealthCode> {
    health.checks.keys().copied().collect()
}

fn healthy() -> Cluster {
    let mut cluster = Cluster::usual();
    let addr = crate::support::addr(9000, 1);
    cluster.ok(Request::Leader(LeaderCommand::MgrSeen { name: "x".to_owned(), addr }));
    cluster
}

fn down(n: i32) -> Request {
    Request::Osd(OsdCommand::Down { osds: vec![OsdId(n)] })
}

#[test]
fn a_cluster_as_it_should_be_is_ok() {
    let health = read(&healthy(), Some(&digest()));
    assert_eq!((health.status, codes(&health)), (HealthStatus::Ok, vec![]));
    assert_eq!(render::health(&health), "HEALTH_OK\n");
}

#[test]
fn a_monitor_that_is_not_in_the_quorum_is_named() {
    let cluster = healthy();
    let (quorum, digest) = (quorum(&["a", "c"]), digest());
    let view = View { state: &cluster.state, quorum: &quorum, digest: Some(&digest), now: cluster.now };
    let health = health(view);
    let check = &health.checks[&HealthCode::MonDown];
    assert_eq!(check.summary, "1/3 monitors down, quorum a,c");
    assert!(check.detail[0].starts_with("mon.b at 10.0.0.1:3301"), "{:?}", check.detail);
    assert!(check.next_step.contains("cairn mon rm"));
    assert_eq!(health.status, HealthStatus::Warning);
}

#[test]
fn a_dead_osd_and_its_host() {
    let mut cluster = healthy();
    cluster.ok(create(3, "n3"));
    cluster.ok(crate::support::boot(3, 1));
    cluster.ok(down(2));
    let health = read(&cluster, Some(&digest()));
    assert_eq!(codes(&health), [HealthCode::OsdDown], "one of the host's two is up");
    assert_eq!(health.checks[&HealthCode::OsdDown].summary, "1 OSD down");
    assert_eq!(health.checks[&HealthCode::OsdDown].detail, ["osd.2 (root=default,host=n3) is down"]);
    cluster.ok(down(3));
    let health = read(&cluster, Some(&digest()));
    assert_eq!(codes(&health), [HealthCode::OsdDown, HealthCode::OsdHostDown]);
    assert_eq!(health.checks[&HealthCode::OsdHostDown].summary, "1 host (2 OSDs) down");
    cluster.ok(Request::Osd(OsdCommand::Out { osds: vec![OsdId(2), OsdId(3)] }));
    let health = read(&cluster, Some(&digest()));
    assert_eq!(codes(&health), [HealthCode::TooFewOsds], "what is out may be down");
}

#[test]
fn one_that_flaps_is_named_with_the_time_it_may_come_back() {
    let mut cluster = healthy();
    for nonce in 2..=6 {
        let up_from = cluster.osd(0).up_from;
        cluster.ok(Request::Leader(LeaderCommand::OsdFailed { osd: OsdId(0), up_from }));
        let _ = cluster.run(crate::support::boot(0, nonce));
    }
    let health = read(&cluster, Some(&digest()));
    let until = cluster.now.plus_ms(60_000).to_string();
    assert!(health.checks[&HealthCode::OsdFlapping].detail[0].ends_with(&until));
}

#[test]
fn without_a_mgr_or_its_statistics_groups_are_unknown() {
    let mut cluster = healthy();
    let health = read(&cluster, None);
    assert_eq!(codes(&health), [HealthCode::PgAvailability]);
    let check = &health.checks[&HealthCode::PgAvailability];
    assert_eq!(check.summary, "Reduced data availability: 32 pgs unknown");
    let addr = crate::support::addr(9000, 1);
    cluster.ok(Request::Leader(LeaderCommand::MgrLost { name: "x".to_owned(), addr }));
    assert_eq!(codes(&read(&cluster, None)), [HealthCode::MgrDown, HealthCode::PgAvailability]);
}

#[test]
fn groups_that_do_not_serve() {
    let cluster = healthy();
    let mut digest = digest();
    digest.pg_states = [(CLEAN, 30), (PgState::PEERING, 1)].into();
    let pg = PgId { pool: PoolId(1), seed: 3 };
    let acting = vec![OsdId(1), OsdId(0)];
    digest.problems.push(PgProblem { pg, state: PgState::PEERING, acting, for_ms: 12_000 });
    let health = read(&cluster, Some(&digest));
    let check = &health.checks[&HealthCode::PgAvailability];
    assert_eq!((check.severity, check.count), (Severity::Warning, 2), "and one has not reported");
    assert_eq!(check.detail, ["pg 1.3 is peering for 12 s, acting [1,0]"]);
    digest.pg_states = [(CLEAN, 31), (PgState::DOWN, 1)].into();
    let health = read(&cluster, Some(&digest));
    assert_eq!(health.checks[&HealthCode::PgAvailability].severity, Severity::Error);
    assert_eq!(health.status, HealthStatus::Error);
}

#[test]
fn copies_that_are_missing_misplaced_unfound_or_differ() {
    let cluster = healthy();
    let mut digest = digest();
    let degraded = PgState::ACTIVE | PgState::UNDERSIZED | PgState::DEGRADED;
    let (remapped, damaged) = (PgState::ACTIVE | PgState::REMAPPED, CLEAN | PgState::INCONSISTENT);
    digest.pg_states = [(CLEAN, 29), (degraded, 1), (remapped, 1), (damaged, 1)].into();
    let stat = digest.pools.get_mut(&PoolId(1)).expect("the pool");
    stat.counts = PgCounts { copies: 300, degraded: 20, misplaced: 6, unfound: 1 };
    let health = read(&cluster, Some(&digest));
    let summary = |code| health.checks[&code].summary.as_str();
    assert_eq!(
        summary(HealthCode::PgDegraded),
        "Degraded data redundancy: 20/300 objects degraded (6.666%), 1 pg degraded or undersized, 1 undersized"
    );
    assert_eq!(summary(HealthCode::ObjectMisplaced), "6/300 objects misplaced (2.000%)");
    assert_eq!(summary(HealthCode::ObjectUnfound), "1/100 objects unfound");
    assert_eq!(summary(HealthCode::PgDamaged), "Possible data damage: 1 pg inconsistent");
    assert_eq!(health.status, HealthStatus::Error);
}

#[test]
fn recovery_and_backfill_without_room() {
    let cluster = healthy();
    let mut digest = digest();
    let states = [PgState::ACTIVE | PgState::RECOVERY_TOOFULL, PgState::ACTIVE | PgState::BACKFILL_TOOFULL];
    digest.pg_states = [(CLEAN, 30), (states[0], 1), (states[1], 1)].into();
    let health = read(&cluster, Some(&digest));
    assert_eq!(codes(&health), [HealthCode::PgRecoveryFull, HealthCode::PgBackfillFull]);
}

#[test]
fn an_osd_that_fills_up_is_in_one_check_at_a_time() {
    let cluster = healthy();
    for (used_bytes, code, severity) in [
        (849, None, None),
        (850, Some(HealthCode::OsdNearFull), Some(Severity::Warning)),
        (900, Some(HealthCode::OsdBackfillFull), Some(Severity::Warning)),
        (950, Some(HealthCode::OsdFull), Some(Severity::Error)),
    ] {
        let mut digest = digest();
        digest.osds.insert(OsdId(1), OsdStat { total_bytes: 1_000, used_bytes, ..OsdStat::default() });
        let health = read(&cluster, Some(&digest));
        assert_eq!(codes(&health), Vec::from_iter(code), "{used_bytes}");
        assert_eq!(health.checks.values().map(|check| check.severity).next(), severity);
    }
}

#[test]
fn flags_and_slow_operations() {
    let mut cluster = healthy();
    let flag = |flag| Request::Cluster(ClusterCommand::Flag { flag, on: true });
    cluster.ok(flag(OsdFlag::NoOut));
    let mut digest = digest();
    digest.osds.get_mut(&OsdId(2)).expect("the OSD").slow_ops = 4;
    let health = read(&cluster, Some(&digest));
    assert_eq!(codes(&health), [HealthCode::OsdMapFlags, HealthCode::SlowOps]);
    assert_eq!(health.checks[&HealthCode::SlowOps].summary, "4 slow operations");
    assert_eq!(health.status, HealthStatus::Warning);
    cluster.ok(flag(OsdFlag::Pause));
    assert_eq!(read(&cluster, Some(&digest)).status, HealthStatus::Error, "no I/O goes on");
}

fn pool(name: &str, size: u8, pg_num: u32) -> Request {
    let (name, application) = (name.to_owned(), String::new());
    let (size, pg_num) = (Some(size), Some(pg_num));
    Request::Pool(PoolCommand::Create { name, size, min_size: Some(1), pg_num, rule: None, application })
}

#[test]
fn pools_with_too_few_groups_copies_or_osds() {
    let mut cluster = healthy();
    let mut digest = digest();
    // With two pools on three OSDs each should have 16 groups; a quarter of that is tolerated.
    for (name, groups, few) in [("p4", 4, false), ("p1", 1, true)] {
        cluster.ok(pool(name, 3, groups));
        digest.pg_states = [(CLEAN, 32 + u64::from(groups))].into();
        let found = codes(&read(&cluster, Some(&digest))).contains(&HealthCode::PoolTooFewPgs);
        assert_eq!(found, few, "{groups}");
        let (name, confirm) = (name.to_owned(), name.to_owned());
        cluster.ok(Request::Pool(PoolCommand::Remove { name, confirm }));
    }
    cluster.ok(pool("thin", 1, 32));
    cluster.ok(pool("wide", 5, 8));
    digest.pg_states = [(CLEAN, 72)].into();
    let health = read(&cluster, Some(&digest));
    assert_eq!(codes(&health), [HealthCode::TooFewOsds, HealthCode::PoolNoRedundancy]);
    let detail = &health.checks[&HealthCode::TooFewOsds].detail;
    assert_eq!(detail, &["pool 'wide' keeps 5 copies, but its rule reaches 3 OSDs in"]);
}

#[test]
fn too_many_groups_when_osds_leave() {
    let mut cluster = healthy();
    cluster.ok(pool("big", 3, 180));
    cluster.ok(Request::Osd(OsdCommand::Out { osds: vec![OsdId(2)] }));
    let mut digest = digest();
    digest.pg_states = [(CLEAN, 212)].into();
    let health = read(&cluster, Some(&digest));
    assert_eq!(codes(&health), [HealthCode::TooFewOsds, HealthCode::TooManyPgs]);
}

#[test]
fn quotas_and_pools_nobody_is_said_to_use() {
    let mut cluster = healthy();
    let set = |setting| Request::Pool(PoolCommand::Set { name: "vms".to_owned(), setting });
    cluster.ok(set(PoolSetting::Application(String::new())));
    cluster.ok(set(PoolSetting::QuotaObjects(110)));
    let mut full = digest();
    let health = read(&cluster, Some(&full));
    assert_eq!(codes(&health), [HealthCode::PoolNearFull, HealthCode::PoolAppNotEnabled]);
    cluster.ok(Request::Leader(LeaderCommand::PoolFull { pool: PoolId(1), full: true }));
    full.pools.get_mut(&PoolId(1)).expect("the pool").objects = 0;
    let health = read(&cluster, Some(&full));
    assert_eq!(codes(&health), [HealthCode::PoolFull], "an empty pool may have no application");
    assert_eq!(health.status, HealthStatus::Error);
}

#[test]
fn long_lists_are_cut_with_a_count() {
    let mut cluster = Cluster::new();
    let addr = crate::support::addr(9000, 1);
    cluster.ok(Request::Leader(LeaderCommand::MgrSeen { name: "x".to_owned(), addr }));
    for n in 0..60 {
        cluster.ok(create(n, "n1"));
    }
    let health = read(&cluster, None);
    let check = &health.checks[&HealthCode::OsdDown];
    assert_eq!((check.count, check.detail.len()), (60, 51));
    assert_eq!(check.detail[50], "and 10 more");
}

#[test]
fn the_status_reads_as_operators_expect() {
    let mut cluster = healthy();
    cluster.ok(down(2));
    let mut digest = digest();
    digest.pg_states = [(CLEAN, 30)].into();
    digest.io.write_ops_per_s = 7;
    let (quorum, now) = (quorum(&["a", "b", "c"]), cluster.now);
    let status = status(View { state: &cluster.state, quorum: &quorum, digest: Some(&digest), now });
    assert_eq!(status.pg.states, [(CLEAN, 30), (PgState::UNKNOWN, 2)].into());
    let text = render::status(&status);
    for line in [
        "    health: HEALTH_WARN\n            1 OSD down\n",
        "    mon: 3 daemons, quorum a,b,c (leader a)\n",
        "    mgr: x(active)\n",
        "    osd: 3 osds: 2 up, 3 in; epoch ",
        "    pools:   1 pools, 32 pgs\n",
        "    pgs:     30 active+clean\n",
        "    client:   0 B/s rd, 0 B/s wr, 0 op/s rd, 7 op/s wr\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let json = serde_json::to_string(&status).expect("JSON");
    assert!(json.contains(r#""states":{"unknown":2,"active+clean":30}"#), "{json}");
}
