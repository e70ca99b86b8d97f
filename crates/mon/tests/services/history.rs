use crate::support::{Cluster, make_pool};
use cairn_mon::service::limits::MAX_MAPS_PER_MESSAGE;
use cairn_mon::service::subscription::{MapBatch, Need, next_maps};
use cairn_mon::service::{LeaderCommand, PoolCommand, Request};
use cairn_types::{Epoch, OsdMap};

/// A cluster at exactly this epoch, and each of its maps.
fn at_epoch(epoch: u32) -> (Cluster, Vec<OsdMap>) {
    let mut cluster = Cluster::new();
    let mut maps = vec![cluster.state.osd_map().clone()];
    cluster.ok(make_pool("vms"));
    maps.push(cluster.state.osd_map().clone());
    while cluster.epoch() < Epoch(epoch) {
        cluster.ok(Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() }));
        maps.push(cluster.state.osd_map().clone());
    }
    (cluster, maps)
}

fn trim(cluster: &mut Cluster, first: u32) {
    cluster.ok(Request::Leader(LeaderCommand::TrimOsdMaps { first: Epoch(first) }));
}

/// What a subscriber has after all messages, and how many there were.
fn follow(cluster: &Cluster, mut map: Option<OsdMap>, need: Need) -> (OsdMap, usize, Vec<Epoch>) {
    let (mut messages, mut seen) = (0, Vec::new());
    loop {
        let have = map.as_ref().map_or(Epoch(0), |map| map.epoch);
        let batch = next_maps(cluster.state.osd_maps(), have, need);
        if batch == MapBatch::default() {
            return (map.expect("a map"), messages, seen);
        }
        messages += 1;
        assert!(batch.increments.len() <= MAX_MAPS_PER_MESSAGE as usize);
        let last = batch.last();
        if let Some(full) = batch.full {
            seen.push(full.epoch);
            map = Some(full);
        }
        for change in batch.increments {
            let before = map.expect("something to change");
            map = Some(before.apply(&change).expect("without a gap"));
            seen.push(change.epoch);
        }
        assert_eq!(last, map.as_ref().map(|map| map.epoch));
    }
}

#[test]
fn every_epoch_that_is_kept_can_be_rebuilt() {
    let (mut cluster, maps) = at_epoch(200);
    let all = |cluster: &Cluster, first: u32| {
        for map in &maps {
            let wanted = (map.epoch.0 >= first).then_some(map);
            assert_eq!(cluster.state.osd_maps().map_at(map.epoch).as_ref(), wanted, "{}", map.epoch);
        }
        assert_eq!(cluster.state.osd_maps().map_at(Epoch(201)), None);
    };
    all(&cluster, 1);
    for first in [2, 64, 65, 130, 200] {
        trim(&mut cluster, first);
        assert_eq!(cluster.state.osd_maps().first(), Epoch(first));
        all(&cluster, first);
    }
}

#[test]
fn trimming_to_what_is_gone_or_not_there_does_nothing() {
    let (mut cluster, _) = at_epoch(20);
    trim(&mut cluster, 10);
    let version = cluster.state.version();
    for first in [0, 9, 10, 21] {
        trim(&mut cluster, first);
    }
    assert_eq!((cluster.state.version(), cluster.state.osd_maps().first()), (version, Epoch(10)));
}

#[test]
fn an_osd_gets_every_epoch_and_a_client_the_newest() {
    let (cluster, maps) = at_epoch(200);
    let newest = maps.last().expect("a map");
    let old = Some(maps[49].clone());
    let (map, messages, seen) = follow(&cluster, old.clone(), Need::EveryEpoch);
    assert_eq!((&map, messages), (newest, 4));
    assert_eq!(seen, (51..=200).map(Epoch).collect::<Vec<_>>());
    let (map, messages, seen) = follow(&cluster, old, Need::Newest);
    assert_eq!((&map, messages, seen), (newest, 1, vec![Epoch(200)]));
    let (map, _, seen) = follow(&cluster, Some(maps[194].clone()), Need::Newest);
    assert_eq!((&map, seen.len()), (newest, 5), "a few increments are shorter than a map");
    let (map, messages, _) = follow(&cluster, None, Need::Newest);
    assert_eq!((&map, messages), (newest, 1));
    let (map, _, seen) = follow(&cluster, None, Need::EveryEpoch);
    assert_eq!(&map, newest);
    assert_eq!(seen, (1..=200).map(Epoch).collect::<Vec<_>>(), "a new OSD works out the past of its groups");
    for need in [Need::EveryEpoch, Need::Newest] {
        assert_eq!(next_maps(cluster.state.osd_maps(), Epoch(999), need), MapBatch::default());
    }
}

#[test]
fn who_is_behind_the_trimmed_history_starts_from_its_first_map() {
    let (mut cluster, maps) = at_epoch(200);
    trim(&mut cluster, 100);
    let (map, _, seen) = follow(&cluster, Some(maps[49].clone()), Need::EveryEpoch);
    assert_eq!(&map, maps.last().expect("a map"));
    assert_eq!(seen, (100..=200).map(Epoch).collect::<Vec<_>>());
    let batch = next_maps(cluster.state.osd_maps(), Epoch(150), Need::EveryEpoch);
    assert_eq!(batch.oldest, Epoch(100), "what is older can be forgotten");
}
