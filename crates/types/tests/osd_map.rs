//! The OSD map and its changes: what is made by `diff` is taken by `apply`; what makes no sense is refused.

use cairn_types::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const OSDS: i32 = 6;
const PG_NUM: u32 = 8;

fn addr(port: u16) -> EntityAddr {
    EntityAddr { socket: ([127, 0, 0, 1], port).into(), nonce: 7 }
}

fn pool(name: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        size: 3,
        min_size: 2,
        pg_num: PG_NUM,
        pgp_num: PG_NUM,
        crush_rule: 0,
        flags: PoolFlags::default(),
        application: "rbd".to_owned(),
        snap_seq: SnapId(0),
        quota_bytes: 0,
        quota_objects: 0,
        autoscale: true,
        created: Timestamp(1),
        last_change: Epoch(1),
    }
}

fn osd(n: u8) -> OsdInfo {
    OsdInfo::new(OsdUuid([n; 16]))
}

fn small_map() -> OsdMap {
    let mut map = OsdMap::new(Fsid([1; 16]), Timestamp(5), CrushBlob::new(1, vec![1, 2, 3]));
    map.epoch = Epoch(10);
    map.pool_max = PoolId(1);
    map.pools.insert(PoolId(1), pool("vms"));
    map.osds = (0..3).map(|n| (OsdId(n), osd(n as u8))).collect();
    map
}

fn any_osd() -> impl Strategy<Value = OsdInfo> {
    (any::<bool>(), 0..=0x1_0000u32, 0..=0x1_0000u32, 0u32..9, 0u32..9, any::<u8>()).prop_map(
        |(up, weight, affinity, from, thru, uuid)| OsdInfo {
            up,
            weight: Weight(weight),
            primary_affinity: Weight(affinity),
            up_from: Epoch(from),
            up_thru: Epoch(thru),
            public: Some(addr(6800)),
            cluster: Some(addr(6801)),
            ..osd(uuid)
        },
    )
}

fn any_set() -> impl Strategy<Value = Vec<OsdId>> {
    proptest::sample::subsequence((0..OSDS).map(OsdId).collect::<Vec<_>>(), 1..4).prop_shuffle()
}

fn any_pg() -> impl Strategy<Value = PgId> {
    (0..PG_NUM).prop_map(|seed| PgId { pool: PoolId(1), seed })
}

prop_compose! {
    fn any_map()(
        flags in any::<u8>(),
        crush in (1u32..4, proptest::collection::vec(any::<u8>(), 0..4)),
        osds in proptest::collection::vec(any_osd(), OSDS as usize),
        extra in proptest::collection::btree_map(OSDS..OSDS + 4, any_osd(), 0..4),
        more_pools in 0i64..3,
        size in 2u8..5,
        pg_temp in proptest::collection::btree_map(any_pg(), any_set(), 0..5),
        primary_temp in proptest::collection::btree_map(any_pg(), (0..OSDS).prop_map(OsdId), 0..5),
        upmap in proptest::collection::btree_map(any_pg(), any_set(), 0..3),
        items in proptest::collection::btree_map(any_pg(), any_set(), 0..3),
        blocked in proptest::collection::btree_map(1u16..9, 0u64..3, 0..5),
    ) -> OsdMap {
        let mut map = small_map();
        map.flags = OsdFlag::ALL.iter().enumerate()
            .fold(OsdFlags::default(), |set, (n, &flag)| set.with(flag, flags >> (n % 8) & 1 == 1));
        map.crush = CrushBlob::new(crush.0, crush.1);
        map.osds = (0..).map(OsdId).zip(osds).collect();
        map.osds.extend(extra.into_iter().map(|(n, info)| (OsdId(n), info)));
        map.pool_max = PoolId(1 + more_pools);
        map.pools.get_mut(&PoolId(1)).unwrap().size = size;
        for n in 0..more_pools {
            map.pools.insert(PoolId(2 + n), pool(&format!("p{n}")));
        }
        map.pg_temp = pg_temp;
        map.primary_temp = primary_temp;
        map.upmap = upmap;
        map.upmap_items = items.into_iter()
            .map(|(pg, osds)| (pg, osds.into_iter().map(|o| (o, OsdId((o.0 + 1) % OSDS))).collect()))
            .collect();
        map.blocklist = blocked.into_iter().map(|(port, until)| (addr(port), Timestamp(until))).collect();
        map
    }
}

proptest! {
    #[test]
    fn a_map_and_the_difference_to_another_make_the_other(from in any_map(), to in any_map(), at in 0u64..9) {
        let mut to = to;
        to.epoch = from.epoch.next();
        to.modified = Timestamp(at);
        prop_assert_eq!(to.check(), Ok(()));
        let change = from.diff(&to);
        prop_assert_eq!(from.apply(&change), Ok(to));
        // Also after the change has been text.
        let text = serde_json::to_string(&change).unwrap();
        prop_assert_eq!(serde_json::from_str::<OsdMapIncremental>(&text).unwrap(), change);
    }
}

#[test]
fn the_small_frequent_changes_have_small_entries() {
    let from = small_map();
    let mut to = from.clone();
    to.epoch = Epoch(11);
    to.osds.get_mut(&OsdId(0)).unwrap().up_thru = Epoch(9);
    to.osds.get_mut(&OsdId(1)).unwrap().weight = Weight::ZERO;
    to.osds.get_mut(&OsdId(2)).unwrap().lost_at = Epoch(3);
    let change = from.diff(&to);
    assert_eq!(change.up_thru, BTreeMap::from([(OsdId(0), Epoch(9))]));
    assert_eq!(change.weights, BTreeMap::from([(OsdId(1), Weight::ZERO)]));
    assert_eq!(change.osds.keys().collect::<Vec<_>>(), [&OsdId(2)]);
}

/// Makes a statement of an expression whose value is of no interest.
fn put<T>(_: T) {}

/// Applies a change to the small map, made by `edit`.
fn refused(edit: impl FnOnce(&mut OsdMapIncremental)) -> MapFault {
    let map = small_map();
    let mut change = OsdMapIncremental::empty(Epoch(11), map.fsid, map.modified);
    edit(&mut change);
    map.apply(&change).unwrap_err()
}

#[test]
fn a_change_out_of_turn_or_of_another_cluster_is_refused() {
    for epoch in [0, 9, 10, 12] {
        let fault = refused(|change| change.epoch = Epoch(epoch));
        assert_eq!(fault, MapFault::NotNext { have: Epoch(10), found: Epoch(epoch) });
    }
    assert!(matches!(refused(|change| change.fsid = Fsid([9; 16])), MapFault::OtherCluster { .. }));
}

#[test]
fn a_reference_to_what_is_not_there_is_refused() {
    let pg = PgId { pool: PoolId(1), seed: 3 };
    let elsewhere = PgId { pool: PoolId(2), seed: 3 };
    let beyond = PgId { pool: PoolId(1), seed: PG_NUM };
    let set = |osds: &[i32]| Some(osds.iter().copied().map(OsdId).collect::<Vec<_>>());
    type Edit = Box<dyn FnOnce(&mut OsdMapIncremental)>;
    let edits: Vec<(&str, Edit)> = vec![
        ("pg_temp names osd.9", Box::new(move |c| put(c.pg_temp.insert(pg, set(&[0, 9]))))),
        ("pg_temp names pool 2", Box::new(move |c| put(c.pg_temp.insert(elsewhere, set(&[0]))))),
        ("pg_temp names placement group 1.8", Box::new(move |c| put(c.pg_temp.insert(beyond, set(&[0]))))),
        ("is empty", Box::new(move |c| put(c.pg_temp.insert(pg, set(&[]))))),
        ("names an OSD twice", Box::new(move |c| put(c.upmap.insert(pg, set(&[1, 1]))))),
        ("removes pg_temp of 1.3", Box::new(move |c| put(c.pg_temp.insert(pg, None)))),
        ("primary_temp names osd.9", Box::new(move |c| put(c.primary_temp.insert(pg, Some(OsdId(9)))))),
        (
            "upmap_items names osd.9",
            Box::new(move |c| put(c.upmap_items.insert(pg, Some(vec![(OsdId(0), OsdId(9))])))),
        ),
        ("up_thru names osd.9", Box::new(|c| put(c.up_thru.insert(OsdId(9), Epoch(1))))),
        ("a weight names osd.9", Box::new(|c| put(c.weights.insert(OsdId(9), Weight::ONE)))),
        ("from 0 to 1", Box::new(|c| put(c.weights.insert(OsdId(0), Weight(0x1_0001))))),
        ("osd.9, which is not", Box::new(|c| put(c.removed_osds.insert(OsdId(9))))),
        ("of 7, which is not", Box::new(|c| put(c.removed_pools.insert(PoolId(7))))),
        ("was never given out", Box::new(|c| put(c.pools.insert(PoolId(2), pool("x"))))),
        (
            "another pool's",
            Box::new(|c| {
                c.pool_max = Some(PoolId(2));
                c.pools.insert(PoolId(2), pool("vms"));
            }),
        ),
        ("blocklist entry", Box::new(|c| put(c.blocklist.insert(addr(1), None)))),
        (
            "osd.0 twice",
            Box::new(|c| {
                c.weights.insert(OsdId(0), Weight::ONE);
                c.up_thru.insert(OsdId(0), Epoch(1));
            }),
        ),
        ("min_size", Box::new(|c| put(c.pools.insert(PoolId(1), Pool { min_size: 4, ..pool("vms") })))),
    ];
    for (expected, edit) in edits {
        let text = refused(edit).to_string();
        assert!(text.contains(expected), "{text:?} should contain {expected:?}");
    }
}

#[test]
fn removing_a_pool_or_an_osd_that_is_still_named_is_refused() {
    let mut map = small_map();
    map.pg_temp.insert(PgId { pool: PoolId(1), seed: 0 }, vec![OsdId(2)]);
    let mut change = OsdMapIncremental::empty(Epoch(11), map.fsid, map.modified);
    change.removed_osds.insert(OsdId(2));
    assert!(matches!(map.apply(&change), Err(MapFault::NoOsd { what: "pg_temp", osd: OsdId(2) })));
    change.removed_osds.clear();
    change.removed_pools.insert(PoolId(1));
    assert!(matches!(map.apply(&change), Err(MapFault::NoPool { what: "pg_temp", .. })));
    change.pg_temp.insert(PgId { pool: PoolId(1), seed: 0 }, None);
    assert!(map.apply(&change).unwrap().pools.is_empty());
}

#[test]
fn a_host_in_the_blocklist_stands_for_all_its_processes() {
    let mut map = small_map();
    map.blocklist.insert(addr(1), Timestamp(9));
    assert!(map.is_blocklisted(&addr(1)));
    assert!(!map.is_blocklisted(&EntityAddr { nonce: 8, ..addr(1) }), "its successor is another process");
    map.blocklist.insert(EntityAddr::whole_host([127, 0, 0, 1].into()), Timestamp(9));
    assert!(map.is_blocklisted(&EntityAddr { nonce: 8, ..addr(2) }));
}

#[test]
fn ratios_print_as_fractions_and_compare_exactly() {
    let texts = [Ratio::percent(85), Ratio::percent(90), Ratio::ONE, Ratio(0)].map(|r| r.to_string());
    assert_eq!(texts, ["0.85", "0.9", "1", "0"]);
    assert!(Ratio::percent(85).reached_by(85, 100));
    assert!(!Ratio::percent(85).reached_by(u64::MAX / 100 * 84, u64::MAX));
}
