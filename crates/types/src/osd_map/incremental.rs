//! What changes from one epoch of the OSD map to the next.

use super::{CrushBlob, MapFault, OsdFlags, OsdInfo, OsdMap, Pool, Ratios};
use crate::{EntityAddr, Epoch, Fsid, OsdId, PgId, PoolId, Timestamp, Weight};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// The change that makes `epoch` out of the epoch before it.
///
/// Frequent changes of an OSD that concern one field have their own small entry; everything else
/// replaces the OSD's entry. An OSD appears in one of the four at most. In the maps by placement
/// group `None` removes the entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdMapIncremental {
    /// The epoch it makes.
    pub epoch: Epoch,
    /// The cluster.
    pub fsid: Fsid,
    /// When it was made.
    pub modified: Timestamp,
    /// New switches.
    pub flags: Option<OsdFlags>,
    /// New ratios.
    pub ratios: Option<Ratios>,
    /// A new CRUSH map.
    pub crush: Option<CrushBlob>,
    /// A new largest pool number.
    pub pool_max: Option<PoolId>,
    /// New and changed pools, whole.
    pub pools: BTreeMap<PoolId, Pool>,
    /// Pools that are removed.
    pub removed_pools: BTreeSet<PoolId>,
    /// New and changed OSDs, whole.
    pub osds: BTreeMap<OsdId, OsdInfo>,
    /// OSDs of which only `up_thru` changes.
    pub up_thru: BTreeMap<OsdId, Epoch>,
    /// OSDs of which only the weight changes.
    pub weights: BTreeMap<OsdId, Weight>,
    /// OSDs that are removed.
    pub removed_osds: BTreeSet<OsdId>,
    /// Changes of `pg_temp`.
    pub pg_temp: BTreeMap<PgId, Option<Vec<OsdId>>>,
    /// Changes of `primary_temp`.
    pub primary_temp: BTreeMap<PgId, Option<OsdId>>,
    /// Changes of `upmap`.
    pub upmap: BTreeMap<PgId, Option<Vec<OsdId>>>,
    /// Changes of `upmap_items`.
    pub upmap_items: BTreeMap<PgId, Option<Vec<(OsdId, OsdId)>>>,
    /// Changes of the blocklist.
    pub blocklist: BTreeMap<EntityAddr, Option<Timestamp>>,
}

impl OsdMapIncremental {
    /// A change of nothing but the epoch.
    pub fn empty(epoch: Epoch, fsid: Fsid, modified: Timestamp) -> Self {
        OsdMapIncremental {
            epoch,
            fsid,
            modified,
            flags: None,
            ratios: None,
            crush: None,
            pool_max: None,
            pools: BTreeMap::new(),
            removed_pools: BTreeSet::new(),
            osds: BTreeMap::new(),
            up_thru: BTreeMap::new(),
            weights: BTreeMap::new(),
            removed_osds: BTreeSet::new(),
            pg_temp: BTreeMap::new(),
            primary_temp: BTreeMap::new(),
            upmap: BTreeMap::new(),
            upmap_items: BTreeMap::new(),
            blocklist: BTreeMap::new(),
        }
    }
}

impl OsdMap {
    /// The map after a change. The change is taken whole or refused whole.
    pub fn apply(&self, change: &OsdMapIncremental) -> Result<OsdMap, MapFault> {
        if change.fsid != self.fsid {
            return Err(MapFault::OtherCluster { have: self.fsid, found: change.fsid });
        }
        if self.epoch.0.checked_add(1) != Some(change.epoch.0) {
            return Err(MapFault::NotNext { have: self.epoch, found: change.epoch });
        }
        let mut map = self.clone();
        map.epoch = change.epoch;
        map.modified = change.modified;
        map.flags = change.flags.unwrap_or(map.flags);
        map.ratios = change.ratios.unwrap_or(map.ratios);
        if let Some(crush) = &change.crush {
            map.crush = crush.clone();
        }
        map.pool_max = change.pool_max.unwrap_or(map.pool_max);
        replace(&mut map.pools, &change.pools);
        remove("the entry", &mut map.pools, &change.removed_pools, &change.pools)?;
        map.apply_osds(change)?;
        change_entries("pg_temp", &mut map.pg_temp, &change.pg_temp)?;
        change_entries("primary_temp", &mut map.primary_temp, &change.primary_temp)?;
        change_entries("upmap", &mut map.upmap, &change.upmap)?;
        change_entries("upmap_items", &mut map.upmap_items, &change.upmap_items)?;
        change_entries("the blocklist entry", &mut map.blocklist, &change.blocklist)?;
        map.check()?;
        Ok(map)
    }

    fn apply_osds(&mut self, change: &OsdMapIncremental) -> Result<(), MapFault> {
        let mut named = BTreeSet::new();
        let lists = [
            change.osds.keys().collect::<Vec<_>>(),
            change.up_thru.keys().collect(),
            change.weights.keys().collect(),
            change.removed_osds.iter().collect(),
        ];
        if let Some(osd) = lists.into_iter().flatten().find(|osd| !named.insert(**osd)) {
            return Err(MapFault::Twice { entry: osd.to_string() });
        }
        replace(&mut self.osds, &change.osds);
        for (&osd, &epoch) in &change.up_thru {
            let info = self.osds.get_mut(&osd).ok_or(MapFault::NoOsd { what: "up_thru", osd })?;
            info.up_thru = epoch;
        }
        for (&osd, &weight) in &change.weights {
            let info = self.osds.get_mut(&osd).ok_or(MapFault::NoOsd { what: "a weight", osd })?;
            info.weight = weight;
        }
        remove("the entry", &mut self.osds, &change.removed_osds, &change.osds)
    }

    /// The change that makes `next` out of this map, whatever lies between them; `next.epoch` should
    /// be the epoch after this one's. `self.apply(&self.diff(next)) == next` for maps of one cluster
    /// made at one time.
    pub fn diff(&self, next: &OsdMap) -> OsdMapIncremental {
        let mut change = OsdMapIncremental::empty(next.epoch, next.fsid, next.modified);
        change.flags = (self.flags != next.flags).then_some(next.flags);
        change.ratios = (self.ratios != next.ratios).then_some(next.ratios);
        change.crush = (self.crush != next.crush).then(|| next.crush.clone());
        change.pool_max = (self.pool_max != next.pool_max).then_some(next.pool_max);
        change.pools = changed(&self.pools, &next.pools);
        change.removed_pools = removed(&self.pools, &next.pools);
        change.removed_osds = removed(&self.osds, &next.osds);
        for (osd, info) in changed(&self.osds, &next.osds) {
            match self.osds.get(&osd) {
                Some(before) if (OsdInfo { up_thru: info.up_thru, ..*before }) == info => {
                    change.up_thru.insert(osd, info.up_thru);
                }
                Some(before) if (OsdInfo { weight: info.weight, ..*before }) == info => {
                    change.weights.insert(osd, info.weight);
                }
                _ => {
                    change.osds.insert(osd, info);
                }
            }
        }
        change.pg_temp = entries_changed(&self.pg_temp, &next.pg_temp);
        change.primary_temp = entries_changed(&self.primary_temp, &next.primary_temp);
        change.upmap = entries_changed(&self.upmap, &next.upmap);
        change.upmap_items = entries_changed(&self.upmap_items, &next.upmap_items);
        change.blocklist = entries_changed(&self.blocklist, &next.blocklist);
        change
    }
}

fn replace<K: Ord + Copy, V: Clone>(map: &mut BTreeMap<K, V>, new: &BTreeMap<K, V>) {
    map.extend(new.iter().map(|(&key, value)| (key, value.clone())));
}

fn remove<K: Ord + Display, V>(
    what: &'static str,
    map: &mut BTreeMap<K, V>,
    gone: &BTreeSet<K>,
    new: &BTreeMap<K, V>,
) -> Result<(), MapFault> {
    for key in gone {
        if new.contains_key(key) {
            return Err(MapFault::Twice { entry: key.to_string() });
        }
        if map.remove(key).is_none() {
            return Err(MapFault::NothingToRemove { what, entry: key.to_string() });
        }
    }
    Ok(())
}

fn change_entries<K: Ord + Copy + Display, V: Clone>(
    what: &'static str,
    map: &mut BTreeMap<K, V>,
    changes: &BTreeMap<K, Option<V>>,
) -> Result<(), MapFault> {
    for (&key, change) in changes {
        match change {
            Some(value) => {
                map.insert(key, value.clone());
            }
            None if map.remove(&key).is_none() => {
                return Err(MapFault::NothingToRemove { what, entry: key.to_string() });
            }
            None => {}
        }
    }
    Ok(())
}

fn changed<K: Ord + Copy, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let differs = |(key, value): &(&K, &V)| before.get(key) != Some(value);
    after.iter().filter(differs).map(|(&key, value)| (key, value.clone())).collect()
}

fn removed<K: Ord + Copy, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> BTreeSet<K> {
    before.keys().filter(|key| !after.contains_key(key)).copied().collect()
}

fn entries_changed<K: Ord + Copy, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let mut changes: BTreeMap<K, Option<V>> =
        changed(before, after).into_iter().map(|(key, value)| (key, Some(value))).collect();
    changes.extend(removed(before, after).into_iter().map(|key| (key, None)));
    changes
}
