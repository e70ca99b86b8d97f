//! What a planned change would do: how much data moves, from where to where, and how full each OSD gets.
//!
//! Everything is computed from maps, nothing is changed and nobody is asked. Data is taken to be spread
//! evenly over the names' hashes, so that a group that has not split yet holds twice what its neighbours do.

use crate::build::EditError;
use crate::placement::{OsdState, Osds, Overrides, PgMapping, Placement, Pool};
use crate::{CrushMap, NO_ITEM, Placer, Scratch};
use cairn_types::{OsdId, Weight};
use std::collections::BTreeMap;

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new OSD, up and in, below a bucket.
    AddOsd {
        /// Its number.
        osd: OsdId,
        /// Its CRUSH weight.
        weight: Weight,
        /// Its device class.
        class: Option<String>,
        /// The bucket, usually a host.
        parent: i32,
    },
    /// The OSDs at or below an item fail and are marked out. The map keeps them.
    Lose {
        /// A device or a bucket.
        item: i32,
    },
    /// An OSD's in-weight changes: 0 is out, 1.0 fully in.
    Reweight {
        /// The OSD.
        osd: OsdId,
        /// The weight.
        weight: Weight,
    },
    /// An item's CRUSH weight changes.
    CrushReweight {
        /// A device or a bucket.
        item: i32,
        /// The weight.
        weight: Weight,
    },
    /// An item goes below another bucket.
    Move {
        /// A device or a bucket.
        item: i32,
        /// Where to.
        parent: i32,
    },
    /// An item leaves the map with all below it.
    Remove {
        /// A device or a bucket.
        item: i32,
    },
}

impl Change {
    /// Makes the change in copies of the maps.
    pub fn apply(&self, map: &mut CrushMap, osds: &mut Osds) -> Result<(), EditError> {
        let known = |map: &CrushMap, osd: OsdId| match map.parents_of(osd.0).next() {
            Some(_) => Ok(()),
            None => Err(EditError::UnknownItem(osd.0)),
        };
        match self {
            Change::AddOsd { osd, weight, class, parent } => {
                map.add_device(osd.0, &osd.to_string(), *weight, class.as_deref(), *parent)?;
                osds.set(*osd, OsdState::READY);
            }
            Change::Lose { item } => {
                if !map.has_item(*item) {
                    return Err(EditError::UnknownItem(*item));
                }
                for osd in map.devices_below(*item) {
                    let state = OsdState { is_up: false, weight: Weight::ZERO, ..osds.state(osd) };
                    osds.set(OsdId(osd), state);
                }
            }
            Change::Reweight { osd, weight } => {
                known(map, *osd)?;
                osds.set(*osd, OsdState { weight: *weight, ..osds.state(osd.0) });
            }
            Change::CrushReweight { item, weight } => map.reweight_item(*item, *weight)?,
            Change::Move { item, parent } => map.move_item(*item, *parent)?,
            Change::Remove { item } => {
                let devices = map.devices_below(*item);
                map.remove_subtree(*item)?;
                for osd in devices {
                    if map.parents_of(osd).next().is_none() {
                        osds.set(OsdId(osd), OsdState::ABSENT);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A pool and what it stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// The pool.
    pub pool: Pool,
    /// What clients have stored in it, each byte counted once.
    pub stored_bytes: u64,
    /// Chunks of an erasure code that hold data (k); 1 for copies. Above 0.
    pub data_chunks: u32,
}

/// A cluster as far as it matters here.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// The CRUSH map.
    pub placer: &'a Placer,
    /// The OSDs.
    pub osds: &'a Osds,
    /// What is placed otherwise. Temporary sets do not matter: it is the up set that data moves to.
    pub overrides: &'a Overrides,
    /// What each OSD can hold.
    pub capacity_bytes: &'a BTreeMap<OsdId, u64>,
}

impl<'a> Cluster<'a> {
    fn placement(&self) -> Placement<'a> {
        Placement { placer: self.placer, osds: self.osds, overrides: self.overrides }
    }
}

/// Bytes and shards: one shard is one group's copy or chunk on one OSD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Amount {
    /// Shards of placement groups.
    pub shards: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.shards += 1;
        self.bytes += bytes;
    }
}

/// How full one OSD is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OsdUse {
    /// Held before.
    pub before: Amount,
    /// Held once all has moved.
    pub after: Amount,
    /// What it can hold after the change; 0 if that is not known or it is gone.
    pub capacity_bytes: u64,
}

/// Groups that have not all they want.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Groups with at least one shard missing, the next ones included.
    pub degraded_pgs: u64,
    /// Groups that no OSD holds.
    pub unmapped_pgs: u64,
    /// Shards that no OSD holds.
    pub missing_shards: u64,
}

/// What a change does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Groups of all pools.
    pub pgs: u64,
    /// Groups whose up set changes.
    pub remapped_pgs: u64,
    /// All that is held after the change.
    pub held: Amount,
    /// All that goes to an OSD that has not got it.
    pub moved: Amount,
    /// The part of it that is made anew from other copies, as the OSD that had it is down or gone.
    pub rebuilt: Amount,
    /// The least bytes any placement would have to move for every OSD to hold what it holds after.
    pub least_bytes: u64,
    /// What goes from where to where; from nowhere what fills a hole.
    pub flows: BTreeMap<(Option<OsdId>, OsdId), Amount>,
    /// Every OSD that holds anything before or after, or can.
    pub osds: BTreeMap<OsdId, OsdUse>,
    /// Before.
    pub health_before: Health,
    /// After, once all has moved.
    pub health_after: Health,
}

/// What each device can hold, by the convention that a CRUSH weight of 1.0 is one TiB.
pub fn capacity_by_weight(map: &CrushMap) -> BTreeMap<OsdId, u64> {
    let mut capacities = BTreeMap::new();
    for bucket in map.buckets.iter().flatten().filter(|bucket| !map.is_shadow(bucket.id)) {
        for (position, &item) in bucket.items.iter().enumerate().filter(|(_, item)| **item >= 0) {
            // 16.16 TiB: 40 − 16 bits.
            capacities.entry(OsdId(item)).or_insert(u64::from(bucket.item_weight(position)) << 24);
        }
    }
    capacities
}

/// Maps every group of the pools before and after the change, and adds up the differences.
pub fn compare(before: &Cluster<'_>, after: &Cluster<'_>, pools: &[PoolUse]) -> Outcome {
    let mut outcome = Outcome::default();
    for (&osd, &capacity_bytes) in after.capacity_bytes {
        outcome.osds.entry(osd).or_default().capacity_bytes = capacity_bytes;
    }
    let mut scratch = (Scratch::new(), Scratch::new());
    let (mut old, mut new) = (PgMapping::default(), PgMapping::default());
    let (placement_before, placement_after) = (before.placement(), after.placement());
    for PoolUse { pool, stored_bytes, data_chunks } in pools {
        let mut shares = Shares::new(pool.pg_num, stored_bytes / u64::from((*data_chunks).max(1)));
        for seed in 0..pool.pg_num {
            let bytes = shares.next(seed);
            placement_before.map(pool, seed, &mut scratch.0, &mut old);
            placement_after.map(pool, seed, &mut scratch.1, &mut new);
            outcome.add_pg(pool, bytes, &old.up, &new.up, after.osds);
        }
    }
    for used in outcome.osds.values() {
        outcome.least_bytes += used.after.bytes.saturating_sub(used.before.bytes);
    }
    outcome
}

impl Outcome {
    fn add_pg(&mut self, pool: &Pool, bytes: u64, old: &[i32], new: &[i32], osds_after: &Osds) {
        self.pgs += 1;
        self.remapped_pgs += u64::from(old != new);
        self.health_before.add(pool.size, old);
        self.health_after.add(pool.size, new);
        for osd in devices(old) {
            self.osds.entry(osd).or_default().before.add(bytes);
        }
        for osd in devices(new) {
            self.osds.entry(osd).or_default().after.add(bytes);
            self.held.add(bytes);
        }
        let mut leaving = devices(old).filter(|osd| !new.contains(&osd.0));
        for (position, &target) in new.iter().enumerate().filter(|(_, osd)| **osd != NO_ITEM) {
            let source = match pool.is_positional {
                // A chunk belongs to its position.
                true if old.get(position) == Some(&target) => continue,
                true => old.get(position).filter(|&&osd| osd != NO_ITEM).map(|&osd| OsdId(osd)),
                // Copies are all alike: any that leaves stands for any that comes.
                false if old.contains(&target) => continue,
                false => leaving.next(),
            };
            self.moved.add(bytes);
            let is_readable = source.is_some_and(|osd| {
                let state = osds_after.state(osd.0);
                state.exists && state.is_up
            });
            if !is_readable {
                self.rebuilt.add(bytes);
            }
            self.flows.entry((source, OsdId(target))).or_default().add(bytes);
        }
    }
}

impl Health {
    fn add(&mut self, size: u32, up: &[i32]) {
        let found = devices(up).count() as u64;
        let missing = u64::from(size).saturating_sub(found);
        self.missing_shards += missing;
        self.degraded_pgs += u64::from(missing > 0);
        self.unmapped_pgs += u64::from(found == 0);
    }
}

fn devices(osds: &[i32]) -> impl Iterator<Item = OsdId> {
    osds.iter().filter(|&&osd| osd != NO_ITEM).map(|&osd| OsdId(osd))
}

/// Divides bytes among groups by how many hashes fall to each, without losing any to rounding.
struct Shares {
    bytes: u128,
    /// Parts in all, a power of two.
    parts: u128,
    pg_num: u32,
    given_parts: u128,
}

impl Shares {
    fn new(pg_num: u32, bytes: u64) -> Self {
        let parts = u128::from(pg_num).next_power_of_two();
        Shares { bytes: bytes.into(), parts, pg_num, given_parts: 0 }
    }

    /// The bytes of the group with this seed; asked for in order.
    fn next(&mut self, seed: u32) -> u64 {
        // The group that would split from this one may not be there yet; then its hashes fall here.
        let sibling = u128::from(seed) + self.parts / 2;
        let has_both = sibling < self.parts && sibling >= u128::from(self.pg_num);
        let first = self.bytes * self.given_parts / self.parts;
        self.given_parts += if has_both { 2 } else { 1 };
        (self.bytes * self.given_parts / self.parts - first) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{ReplicaMode, SimpleRule};
    use crate::placement::stable_mod;
    use crate::{Algorithm, Tunables};
    use cairn_types::PoolId;

    const TIB: u64 = 1 << 40;

    /// Four hosts of three OSDs of one TiB.
    fn cluster() -> (CrushMap, Osds) {
        let mut map = CrushMap::new(Tunables::default());
        let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
        for host in 0..4 {
            let id = map.add_bucket(&format!("host{host}"), "host", Algorithm::Straw2).unwrap();
            map.link(id, root).unwrap();
            for osd in 3 * host..3 * host + 3 {
                map.add_device(osd, &format!("osd.{osd}"), Weight::ONE, None, id).unwrap();
            }
        }
        for (name, mode) in [("replicated", ReplicaMode::Firstn), ("erasure", ReplicaMode::Indep)] {
            let rule = SimpleRule {
                name,
                root: "default",
                failure_domain: "host",
                class: None,
                mode,
                is_erasure: false,
            };
            map.add_simple_rule(&rule).unwrap();
        }
        (map, Osds::new(vec![OsdState::READY; 12]))
    }

    fn pool(size: u32, is_positional: bool) -> PoolUse {
        let pool = Pool {
            id: PoolId(1),
            size,
            pg_num: 512,
            pgp_num: 512,
            rule: usize::from(is_positional),
            is_positional,
            is_seeded: true,
        };
        PoolUse { pool, stored_bytes: TIB, data_chunks: if is_positional { 2 } else { 1 } }
    }

    fn outcome(change: &Change, pools: &[PoolUse]) -> Outcome {
        let (map, osds) = cluster();
        let (mut map_after, mut osds_after) = (map.clone(), osds.clone());
        change.apply(&mut map_after, &mut osds_after).unwrap();
        let overrides = Overrides::default();
        let (placer, placer_after) = (Placer::new(&map).unwrap(), Placer::new(&map_after).unwrap());
        let (capacity, capacity_after) = (capacity_by_weight(&map), capacity_by_weight(&map_after));
        let before =
            Cluster { placer: &placer, osds: &osds, overrides: &overrides, capacity_bytes: &capacity };
        let after = Cluster {
            placer: &placer_after,
            osds: &osds_after,
            overrides: &overrides,
            capacity_bytes: &capacity_after,
        };
        compare(&before, &after, pools)
    }

    /// What must hold of any outcome.
    fn check_sums(outcome: &Outcome) {
        let moved = outcome.flows.values().fold(Amount::default(), |sum, flow| Amount {
            shards: sum.shards + flow.shards,
            bytes: sum.bytes + flow.bytes,
        });
        assert_eq!(moved, outcome.moved);
        assert_eq!(outcome.osds.values().map(|osd| osd.after.bytes).sum::<u64>(), outcome.held.bytes);
        assert!(outcome.least_bytes <= outcome.moved.bytes);
        for (osd, used) in &outcome.osds {
            let into: u64 =
                outcome.flows.iter().filter(|(flow, _)| flow.1 == *osd).map(|(_, flow)| flow.bytes).sum();
            let out = outcome.flows.iter().filter(|(flow, _)| flow.0 == Some(*osd));
            let out: u64 = out.map(|(_, flow)| flow.bytes).sum();
            assert!(used.before.bytes + into - out >= used.after.bytes, "{osd}");
        }
    }

    #[test]
    fn a_new_disk_gets_its_share() {
        let host = cluster().0.item_by_name("host1").unwrap();
        let change = Change::AddOsd { osd: OsdId(12), weight: Weight::ONE, class: None, parent: host };
        let outcome = outcome(&change, &[pool(3, false)]);
        check_sums(&outcome);
        assert_eq!((outcome.pgs, outcome.held.bytes), (512, 3 * TIB));
        let used = outcome.osds[&OsdId(12)];
        assert_eq!((used.before.bytes, used.capacity_bytes), (0, TIB));
        // Hosts are chosen first, three of four: the new one's gets somewhat more than before.
        assert!((TIB / 6..TIB / 3).contains(&used.after.bytes), "{used:?}");
        assert!(outcome.moved.bytes < 3 * used.after.bytes, "{outcome:?}");
        assert_eq!(outcome.rebuilt, Amount::default());
        assert_eq!(outcome.health_after, Health::default());
    }

    #[test]
    fn a_lost_host_is_rebuilt_from_the_others() {
        let host = cluster().0.item_by_name("host2").unwrap();
        for (pool, shard_bytes) in [(pool(3, false), TIB), (pool(3, true), TIB / 2)] {
            let outcome = outcome(&Change::Lose { item: host }, &[pool]);
            check_sums(&outcome);
            assert_eq!(outcome.held.bytes, 3 * shard_bytes);
            let lost: u64 = [6, 7, 8].iter().map(|&osd| outcome.osds[&OsdId(osd)].before.bytes).sum();
            assert_eq!(outcome.rebuilt.bytes, lost);
            assert!([6, 7, 8].iter().all(|&osd| outcome.osds[&OsdId(osd)].after == Amount::default()));
            assert_eq!(outcome.health_after, Health::default());
        }
    }

    #[test]
    fn too_few_hosts_leave_groups_degraded() {
        let host = cluster().0.item_by_name("host0").unwrap();
        let outcome = outcome(&Change::Lose { item: host }, &[pool(4, false)]);
        check_sums(&outcome);
        assert_eq!(outcome.health_before, Health::default());
        assert_eq!(outcome.health_after, Health { degraded_pgs: 512, unmapped_pgs: 0, missing_shards: 512 });
        assert_eq!(outcome.moved, Amount::default());
    }

    #[test]
    fn nothing_moves_when_nothing_changes() {
        let outcome = outcome(&Change::Reweight { osd: OsdId(3), weight: Weight::ONE }, &[pool(3, false)]);
        assert_eq!((outcome.moved, outcome.remapped_pgs, outcome.least_bytes), (Amount::default(), 0, 0));
    }

    #[test]
    fn shares_follow_the_hashes() {
        for pg_num in [1, 2, 3, 5, 7, 8, 12, 100] {
            let mut counts = vec![0_u64; pg_num as usize];
            for hash in 0..1 << 12 {
                counts[stable_mod(hash, pg_num) as usize] += 1;
            }
            let mut shares = Shares::new(pg_num, 1 << 12);
            let shares: Vec<u64> = (0..pg_num).map(|seed| shares.next(seed)).collect();
            assert_eq!(shares, counts, "{pg_num}");
        }
    }
}
