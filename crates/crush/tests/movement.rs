//! How little moves after a change, and how evenly data lies.
//!
//! The bounds, and how near they are met:
//!
//! - One straw2 bucket, one replica: what moves comes from or goes to the changed item, and nothing else
//!   moves. That is the least possible, and it is exact.
//! - A hierarchy: a weight that grows by some share pulls that share in at *each* level, and what enters a
//!   rack spreads over its hosts by their weights. So up to one least movement per level: [`WORST_RATIO`] for
//!   the three levels and three replicas here; [`MEAN_RATIO`] on the mean over many changes.
//! - Balance: a device's objects are binomial with its share of the weight. Over 10^6 objects and 1,000 devices no
//!   device is further than [`WORST_DEVIATIONS`] standard deviations off.

#[path = "support/random_text.rs"]
#[allow(dead_code)]
mod random_text;

use cairn_crush::build::{ReplicaMode, SimpleRule};
use cairn_crush::placement::{OsdState, Osds, Overrides, Pool, object_hash};
use cairn_crush::whatif::{self, Change, Cluster, PoolUse, capacity_by_weight};
use cairn_crush::{Algorithm, CrushMap, Placer, Scratch, Tunables};
use cairn_types::{OsdId, PoolId, Weight};
use random_text::Random;
use std::collections::BTreeMap;

/// Most that one change to a cluster may move, in units of the least possible.
const WORST_RATIO: f64 = 3.0;

/// The same on the mean.
const MEAN_RATIO: f64 = 2.1;

/// Standard deviations of the binomial; 5 is exceeded by one device in 1.7 million.
const WORST_DEVIATIONS: f64 = 5.0;

fn weight(random: &mut Random) -> Weight {
    Weight(0x4000 + random.below(0x4_0000) as u32)
}

fn add_rule(map: &mut CrushMap, failure_domain: &str) {
    let (name, mode) = ("rule", ReplicaMode::Firstn);
    let rule = SimpleRule { name, root: "default", failure_domain, class: None, mode, is_erasure: false };
    map.add_simple_rule(&rule).unwrap();
}

/// One bucket of devices.
fn flat(random: &mut Random) -> CrushMap {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    for device in 0..2 + random.below(30) as i32 {
        map.add_device(device, &format!("osd.{device}"), weight(random), None, root).unwrap();
    }
    add_rule(&mut map, "osd");
    map
}

/// Racks of hosts of devices.
fn cluster(random: &mut Random, racks: i32, hosts: i32, devices: i32) -> CrushMap {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    for rack in 0..racks {
        let rack_id = map.add_bucket(&format!("rack{rack}"), "rack", Algorithm::Straw2).unwrap();
        map.link(rack_id, root).unwrap();
        for host in rack * hosts..(rack + 1) * hosts {
            let host_id = map.add_bucket(&format!("host{host}"), "host", Algorithm::Straw2).unwrap();
            map.link(host_id, rack_id).unwrap();
            for device in host * devices..(host + 1) * devices {
                map.add_device(device, &format!("osd.{device}"), weight(random), None, host_id).unwrap();
            }
        }
    }
    add_rule(&mut map, "host");
    map
}

#[test]
fn one_bucket_moves_only_what_it_must() {
    const INPUTS: i32 = 4000;
    for seed in 0..150 {
        let mut random = Random(seed);
        let before = flat(&mut random);
        let mut after = before.clone();
        let changed = random.below(before.max_devices as u64) as i32;
        let (may_gain, may_lose, changed) = match random.below(4) {
            0 => {
                let new = before.max_devices;
                after
                    .add_device(
                        new,
                        "new",
                        weight(&mut random),
                        None,
                        before.item_by_name("default").unwrap(),
                    )
                    .unwrap();
                (true, false, new)
            }
            1 => {
                after.remove_item(changed).unwrap();
                (false, true, changed)
            }
            2 => {
                after.reweight_item(changed, Weight(0x10)).unwrap();
                (false, true, changed)
            }
            _ => {
                after.reweight_item(changed, Weight(0x64_0000)).unwrap();
                (true, false, changed)
            }
        };
        let (before_placer, after_placer) = (Placer::new(&before).unwrap(), Placer::new(&after).unwrap());
        let weights = vec![Weight::ONE; 64];
        let (mut scratch, mut scratch_after) = (Scratch::new(), Scratch::new());
        for x in 0..INPUTS {
            let old = before_placer.place(0, x, 1, &weights, None, &mut scratch)[0];
            let new = after_placer.place(0, x, 1, &weights, None, &mut scratch_after)[0];
            let is_due = may_gain && new == changed || may_lose && old == changed;
            assert!(old == new || is_due, "seed {seed}: {x} went from {old} to {new} when {changed} changed");
        }
    }
}

#[test]
fn clusters_move_close_to_the_least() {
    let mut ratios = Vec::new();
    for seed in 0..24 {
        let mut random = Random(1000 + seed);
        let (racks, hosts, devices) =
            (4 + random.below(4) as i32, 3 + random.below(4) as i32, 2 + random.below(5) as i32);
        let map = cluster(&mut random, racks, hosts, devices);
        let host = map.item_by_name(&format!("host{}", random.below((racks * hosts) as u64))).unwrap();
        let device = random.below(map.max_devices as u64) as i32;
        let change = match seed % 6 {
            0 => Change::AddOsd {
                osd: OsdId(map.max_devices),
                weight: Weight(0x2_0000),
                class: None,
                parent: host,
            },
            1 => Change::Remove { item: device },
            2 => Change::Remove { item: host },
            3 => Change::CrushReweight { item: device, weight: Weight(0x8_0000) },
            4 => Change::CrushReweight { item: device, weight: Weight(0x1000) },
            _ => Change::Reweight { osd: OsdId(device), weight: Weight::ZERO },
        };
        let osds = Osds::new(vec![OsdState::READY; map.max_devices as usize]);
        let (mut map_after, mut osds_after) = (map.clone(), osds.clone());
        change.apply(&mut map_after, &mut osds_after).unwrap();
        let (placer, placer_after) = (Placer::new(&map).unwrap(), Placer::new(&map_after).unwrap());
        let overrides = Overrides::default();
        let (capacity, capacity_after) = (capacity_by_weight(&map), capacity_by_weight(&map_after));
        let before =
            Cluster { placer: &placer, osds: &osds, overrides: &overrides, capacity_bytes: &capacity };
        let after = Cluster {
            placer: &placer_after,
            osds: &osds_after,
            overrides: &overrides,
            capacity_bytes: &capacity_after,
        };
        let pool = Pool {
            id: PoolId(1),
            size: 3,
            pg_num: 1 << 15,
            pgp_num: 1 << 15,
            rule: 0,
            is_positional: false,
            is_seeded: true,
        };
        let pools = [PoolUse { pool, stored_bytes: 1 << 40, data_chunks: 1 }];
        let outcome = whatif::compare(&before, &after, &pools);
        assert_eq!(outcome.health_after.missing_shards, 0, "seed {seed}");
        let ratio = outcome.moved.bytes as f64 / outcome.least_bytes as f64;
        println!("{change:?}: moves {ratio:.3} times the least");
        assert!(ratio <= WORST_RATIO, "seed {seed}: {change:?} moves {ratio} times the least");
        ratios.push(ratio);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    println!("{mean:.3} times the least on the mean");
    assert!(mean <= MEAN_RATIO, "{mean}");
}

#[test]
fn a_million_objects_lie_as_straw2_promises() {
    const OBJECTS: u32 = 1_000_000;
    let map = cluster(&mut Random(7), 25, 8, 5);
    let placer = Placer::new(&map).unwrap();
    let capacity: BTreeMap<OsdId, u64> = capacity_by_weight(&map);
    let total: u64 = capacity.values().sum();
    let in_weights = vec![Weight::ONE; capacity.len()];
    let mut counts = vec![0_u32; capacity.len()];
    let mut scratch = Scratch::new();
    for object in 0..OBJECTS {
        let hash = object_hash("", "", &format!("rbd_data.10226b8b4567.{object:016x}"));
        let osds = placer.place(0, hash as i32, 1, &in_weights, None, &mut scratch);
        counts[osds[0] as usize] += 1;
    }
    let (mut worst, mut chi_squared) = (0.0_f64, 0.0);
    for (osd, &count) in counts.iter().enumerate() {
        let share = capacity[&OsdId(osd as i32)] as f64 / total as f64;
        let expected = f64::from(OBJECTS) * share;
        let deviations = (f64::from(count) - expected) / (expected * (1.0 - share)).sqrt();
        worst = worst.max(deviations.abs());
        chi_squared += (f64::from(count) - expected).powi(2) / expected;
    }
    // Chi squared with n degrees of freedom has mean n and variance 2n.
    let freedom = (counts.len() - 1) as f64;
    let excess = (chi_squared - freedom) / (2.0 * freedom).sqrt();
    println!("worst device {worst:.2} deviations off, all together {excess:.2}");
    assert!(worst < WORST_DEVIATIONS, "{worst}");
    assert!(excess.abs() < WORST_DEVIATIONS, "{excess}");
}
