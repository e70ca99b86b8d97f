use crate::support::Cluster;
use cairn_mon::service::{OsdCommand, PgCommand, Refusal, Request};
use cairn_types::{Epoch, OsdId, PgId, PoolId};

fn pg(seed: u32) -> PgId {
    PgId { pool: PoolId(1), seed }
}

fn temp(from: i32, seed: u32, set: &[i32]) -> Request {
    let set = set.iter().copied().map(OsdId).collect();
    Request::Pg(PgCommand::Temp { from: OsdId(from), sets: [(pg(seed), set)].into() })
}

fn up_thru(cluster: &Cluster, n: i32, want: Epoch) -> Request {
    Request::Pg(PgCommand::UpThru { osd: OsdId(n), up_from: cluster.osd(n).up_from, want })
}

#[test]
fn up_thru_is_recorded_for_the_run_that_asks_and_never_falls() {
    let mut cluster = Cluster::usual();
    let now = cluster.epoch();
    let request = up_thru(&cluster, 0, now);
    cluster.ok(request);
    assert_eq!(cluster.osd(0).up_thru, now);
    let request = up_thru(&cluster, 0, Epoch(1));
    cluster.ok(request);
    assert_eq!(cluster.osd(0).up_thru, now);
    let future = Epoch(cluster.epoch().0 + 1);
    let request = up_thru(&cluster, 0, future);
    assert_eq!(cluster.refused(request), Refusal::FutureEpoch { found: future, have: cluster.epoch() });
    let other_run = PgCommand::UpThru { osd: OsdId(0), up_from: Epoch(1), want: now };
    assert_eq!(cluster.refused(Request::Pg(other_run)), Refusal::OsdNotUp { osd: OsdId(0) });
    let request = up_thru(&cluster, 1, now);
    cluster.ok(Request::Osd(OsdCommand::Down { osds: vec![OsdId(1)] }));
    assert_eq!(cluster.refused(request), Refusal::OsdNotUp { osd: OsdId(1) });
}

#[test]
fn an_up_thru_travels_in_its_small_entry() {
    let mut cluster = Cluster::usual();
    let now = cluster.epoch();
    let request = up_thru(&cluster, 0, now);
    cluster.ok(request);
    let change = cluster.state.osd_maps().increments(cluster.epoch(), cluster.epoch()).remove(0);
    assert_eq!((change.up_thru.len(), change.osds.len()), (1, 0));
}

#[test]
fn stand_in_sets_come_and_go() {
    let mut cluster = Cluster::usual();
    cluster.ok(temp(1, 4, &[1, 0]));
    assert_eq!(cluster.state.osd_map().pg_temp[&pg(4)], [OsdId(1), OsdId(0)]);
    cluster.ok(temp(1, 4, &[]));
    assert!(cluster.state.osd_map().pg_temp.is_empty());
    cluster.ok(temp(1, 32, &[1]));
    assert!(cluster.state.osd_map().pg_temp.is_empty(), "a group that is gone is passed over");
    for bad in [&[0, 0][..], &[0, 1, 2, 0]] {
        assert_eq!(cluster.refused(temp(1, 4, bad)), Refusal::BadSet { pg: pg(4), size: 3 });
    }
    cluster.ok(temp(1, 4, &[9]));
    assert!(cluster.state.osd_map().pg_temp.is_empty(), "nor does one of OSDs that are gone");
    assert_eq!(cluster.refused(temp(1, 4, &[0, 9])), Refusal::NoOsd { osd: OsdId(9) });
    cluster.ok(Request::Osd(OsdCommand::Down { osds: vec![OsdId(2)] }));
    assert_eq!(cluster.refused(temp(2, 4, &[1])), Refusal::OsdNotUp { osd: OsdId(2) });
    cluster.ok(temp(1, 4, &[2]));
    assert!(cluster.state.osd_map().pg_temp.is_empty(), "a set of the dead helps nobody");
}

#[test]
fn upmaps_name_osds_that_exist_and_can_be_taken_back() {
    let mut cluster = Cluster::usual();
    let upmap = |set: Option<Vec<i32>>| {
        let set = set.map(|set| set.into_iter().map(OsdId).collect());
        Request::Pg(PgCommand::Upmap { pg: pg(1), set })
    };
    cluster.ok(upmap(Some(vec![2, 1, 0])));
    assert_eq!(cluster.state.osd_map().upmap.len(), 1);
    assert_eq!(cluster.refused(upmap(Some(vec![7]))), Refusal::NoOsd { osd: OsdId(7) });
    assert!(matches!(cluster.refused(upmap(Some(vec![]))), Refusal::BadSet { .. }));
    cluster.ok(upmap(None));
    assert!(cluster.state.osd_map().upmap.is_empty());
    let items = |items| Request::Pg(PgCommand::UpmapItems { pg: pg(1), items });
    cluster.ok(items(Some(vec![(OsdId(0), OsdId(1))])));
    let twice = Some(vec![(OsdId(0), OsdId(1)), (OsdId(2), OsdId(1))]);
    assert!(matches!(cluster.refused(items(twice)), Refusal::BadSet { .. }));
    cluster.ok(items(None));
    assert!(cluster.state.osd_map().upmap_items.is_empty());
    let nowhere = PgCommand::Upmap { pg: PgId { pool: PoolId(9), seed: 0 }, set: Some(vec![OsdId(0)]) };
    assert!(matches!(cluster.refused(Request::Pg(nowhere)), Refusal::NoPg { .. }));
}
