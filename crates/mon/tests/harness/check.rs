//! What must hold whatever happens: everyone goes through one sequence of states and maps; what was
//! acknowledged stays; reads are not older than what was acknowledged before they were asked.

use cairn_mon::service::ClusterState;
use cairn_mon::service::subscription::MapBatch;
use cairn_types::{Epoch, OsdMap};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Checker {
    /// Version of the state → its hash.
    states: BTreeMap<u64, u64>,
    /// Epoch → the map, as the first monitor to apply it had it.
    pub maps: BTreeMap<Epoch, OsdMap>,
    /// Highest version of which anybody was told.
    pub acknowledged: u64,
    pub failures: Vec<String>,
}

impl Checker {
    pub fn must(&mut self, holds: bool, say: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(say());
        }
    }

    pub fn state(&mut self, who: u32, state: &ClusterState) {
        let version = state.version();
        let map = state.osd_map();
        let first = self.maps.entry(map.epoch).or_insert_with(|| map.clone()) == map;
        self.must(first, || format!("mon.{who} has another map {}", map.epoch));
        // Late in a long run the history makes hashing slow: each sixteenth must do.
        if version > 200 && !version.is_multiple_of(16) {
            return;
        }
        let hash = state.hash();
        let known = *self.states.entry(version).or_insert(hash);
        self.must(known == hash, || format!("mon.{who} differs from the others at version {version}"));
    }

    pub fn acknowledge(&mut self, version: u64) {
        self.acknowledged = self.acknowledged.max(version);
    }

    /// A subscriber takes maps; returns what it has then.
    pub fn maps_taken(&mut self, who: &str, have: Option<OsdMap>, batch: MapBatch) -> Option<OsdMap> {
        let mut map = batch.full.or(have);
        for change in batch.increments {
            let next = map.as_ref().map(|map| map.apply(&change));
            match next {
                Some(Ok(next)) => map = Some(next),
                other => self.failures.push(format!("{who} cannot take {}: {other:?}", change.epoch)),
            }
        }
        if let Some(map) = &map {
            let same = self.maps.get(&map.epoch) == Some(map);
            self.must(same, || format!("{who} made another map {} than the monitors", map.epoch));
        }
        map
    }
}
