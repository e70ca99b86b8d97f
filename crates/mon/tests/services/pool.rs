use crate::support::{Cluster, make_pool};
use cairn_mon::service::{LeaderCommand, PoolCommand, PoolSetting, Refusal, Reply, Request};
use cairn_types::{PoolFlag, PoolId, SnapId};

fn create(name: &str, size: Option<u8>, min_size: Option<u8>, pg_num: Option<u32>) -> Request {
    let (name, rule, application) = (name.to_owned(), None, String::new());
    Request::Pool(PoolCommand::Create { name, size, min_size, pg_num, rule, application })
}

fn set(setting: PoolSetting) -> Request {
    Request::Pool(PoolCommand::Set { name: "vms".to_owned(), setting })
}

fn remove(name: &str, confirm: &str) -> Request {
    Request::Pool(PoolCommand::Remove { name: name.to_owned(), confirm: confirm.to_owned() })
}

#[test]
fn the_defaults_fit_three_machines() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    assert_eq!(cluster.ok(make_pool("vms")), Reply::Pool { pool: PoolId(1), pg_num: 32 });
    let (_, pool) = cluster.state.osd_map().pool_by_name("vms").expect("the pool");
    assert_eq!((pool.size, pool.min_size, pool.pgp_num), (3, 2, 32));
    assert_eq!(pool.last_change, cluster.epoch());
}

#[test]
fn each_pool_leaves_room_for_the_next() {
    let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
    let numbers = ["a", "b", "c", "d"].map(|name| match cluster.ok(make_pool(name)) {
        Reply::Pool { pg_num, .. } => pg_num,
        other => panic!("{other:?}"),
    });
    assert_eq!(numbers, [32, 32, 16, 8]);
}

#[test]
fn what_cannot_be_a_pool_is_refused() {
    let mut cluster = Cluster::usual();
    assert_eq!(cluster.refused(make_pool("vms")), Refusal::PoolExists { pool: "vms".to_owned() });
    for name in ["", "-x", ".x", "a/b", "a b", "ä", &"x".repeat(129)] {
        assert!(matches!(cluster.refused(make_pool(name)), Refusal::BadName { .. }), "{name:?}");
    }
    for (size, min_size) in [(0, 0), (11, 2), (3, 4), (3, 0)] {
        let request = create("p", Some(size), Some(min_size), None);
        assert_eq!(cluster.refused(request), Refusal::BadSizes { size, min_size });
    }
    for pg_num in [0, 65_537] {
        assert_eq!(
            cluster.refused(create("p", None, None, Some(pg_num))),
            Refusal::BadPgNum { found: pg_num }
        );
    }
    // 32 × 3 are there: 218 × 3 more make 750 on 3 OSDs, which is just allowed.
    let too_many = cluster.refused(create("p", None, None, Some(219)));
    assert_eq!(too_many, Refusal::TooManyPgs { pg_num: 219, per_osd: 251, osds: 3 });
    cluster.ok(create("p", None, None, Some(218)));
}

#[test]
fn an_unknown_rule_names_those_there_are() {
    let mut cluster = Cluster::usual();
    let rule = Some("ssd".to_owned());
    let (name, application) = ("p".to_owned(), String::new());
    let request = PoolCommand::Create { name, size: None, min_size: None, pg_num: None, rule, application };
    let refusal = cluster.refused(Request::Pool(request));
    assert!(refusal.to_string().contains("replicated_rule"), "{refusal}");
}

#[test]
fn settings_are_checked_against_each_other_and_the_flags() {
    let mut cluster = Cluster::usual();
    cluster.ok(set(PoolSetting::Size(2)));
    assert_eq!(cluster.refused(set(PoolSetting::Size(1))), Refusal::BadSizes { size: 1, min_size: 2 });
    cluster.ok(set(PoolSetting::MinSize(1)));
    cluster.ok(set(PoolSetting::Size(1)));
    cluster.ok(set(PoolSetting::Flag(PoolFlag::NoSizeChange, true)));
    assert!(matches!(cluster.refused(set(PoolSetting::Size(2))), Refusal::PoolFlagSet { .. }));
    for flag in [PoolFlag::Full, PoolFlag::SelfManagedSnaps] {
        assert!(matches!(
            cluster.refused(set(PoolSetting::Flag(flag, true))),
            Refusal::FlagOfTheMonitors { .. }
        ));
    }
    cluster.ok(set(PoolSetting::Flag(PoolFlag::NoSizeChange, false)));
    let change = cluster.state.osd_map().pool_by_name("vms").expect("the pool").1.last_change;
    cluster.ok(set(PoolSetting::Size(1)));
    let (_, pool) = cluster.state.osd_map().pool_by_name("vms").expect("the pool");
    assert_eq!(pool.last_change, change, "no change, no new interval");
    cluster.ok(make_pool("other"));
    let taken = cluster.refused(set(PoolSetting::Name("other".to_owned())));
    assert_eq!(taken, Refusal::PoolExists { pool: "other".to_owned() });
    cluster.ok(set(PoolSetting::Name("vms2".to_owned())));
    assert!(matches!(cluster.refused(set(PoolSetting::MinSize(1))), Refusal::NoPool { .. }));
}

#[test]
fn the_number_of_groups_of_a_pool_stays() {
    let mut cluster = Cluster::usual();
    cluster.ok(set(PoolSetting::PgNum(32)));
    for pg_num in [31, 64] {
        let refusal = cluster.refused(set(PoolSetting::PgNum(pg_num)));
        assert_eq!(refusal, Refusal::PgNumFixed { pool: "vms".to_owned(), have: 32 });
    }
}

#[test]
fn removing_needs_the_name_twice_and_takes_the_groups_entries_along() {
    use cairn_mon::service::PgCommand;
    use cairn_types::{OsdId, PgId};
    let mut cluster = Cluster::usual();
    let pg = PgId { pool: PoolId(1), seed: 3 };
    let sets = [(pg, vec![OsdId(1), OsdId(0)])].into();
    cluster.ok(Request::Pg(PgCommand::Temp { from: OsdId(1), sets }));
    cluster.ok(Request::Pg(PgCommand::UpmapItems { pg, items: Some(vec![(OsdId(0), OsdId(1))]) }));
    assert!(matches!(cluster.refused(remove("vms", "vm")), Refusal::Unconfirmed { .. }));
    cluster.ok(set(PoolSetting::Flag(PoolFlag::NoDelete, true)));
    assert!(matches!(cluster.refused(remove("vms", "vms")), Refusal::PoolFlagSet { .. }));
    cluster.ok(set(PoolSetting::Flag(PoolFlag::NoDelete, false)));
    cluster.ok(remove("vms", "vms"));
    let map = cluster.state.osd_map();
    assert!(map.pools.is_empty() && map.pg_temp.is_empty() && map.upmap_items.is_empty());
    assert_eq!(cluster.ok(make_pool("vms")), Reply::Pool { pool: PoolId(2), pg_num: 32 }, "a new number");
}

#[test]
fn snapshot_numbers_grow_and_a_full_pool_says_so() {
    let mut cluster = Cluster::usual();
    let next = || Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    assert_eq!(cluster.ok(next()), Reply::Snap { snap: SnapId(1) });
    let two = cluster.batch(&[next(), next()]);
    assert_eq!(two, [Ok(Reply::Snap { snap: SnapId(2) }), Ok(Reply::Snap { snap: SnapId(3) })]);
    for full in [true, false] {
        cluster.ok(Request::Leader(LeaderCommand::PoolFull { pool: PoolId(1), full }));
        assert_eq!(cluster.state.osd_map().pools[&PoolId(1)].flags.has(PoolFlag::Full), full);
    }
}
