//! The epochs of the OSD map that are kept: increments, and full maps at intervals to start from.

use super::limits::MAX_MAPS_PER_MESSAGE;
use super::timing::FULL_MAP_INTERVAL;
use cairn_types::{Epoch, MapFault, OsdMap, OsdMapIncremental};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Epochs `first..=current` of the OSD map. There is a full map at `first` and an increment for every
/// epoch after it, so each can be rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdMapHistory {
    current: OsdMap,
    full: BTreeMap<Epoch, OsdMap>,
    increments: BTreeMap<Epoch, OsdMapIncremental>,
}

impl OsdMapHistory {
    /// A history that starts with `map`.
    pub fn new(map: OsdMap) -> Self {
        OsdMapHistory {
            full: BTreeMap::from([(map.epoch, map.clone())]),
            increments: BTreeMap::new(),
            current: map,
        }
    }

    /// The newest map.
    pub fn current(&self) -> &OsdMap {
        &self.current
    }

    /// The oldest epoch that is kept.
    pub fn first(&self) -> Epoch {
        self.full.keys().next().copied().unwrap_or(self.current.epoch)
    }

    /// Takes the next change.
    pub fn push(&mut self, change: OsdMapIncremental) -> Result<(), MapFault> {
        let next = self.current.apply(&change)?;
        let newest_full = self.full.keys().next_back().copied().unwrap_or_default();
        if next.epoch.0 >= newest_full.0 + FULL_MAP_INTERVAL {
            self.full.insert(next.epoch, next.clone());
        }
        self.increments.insert(next.epoch, change);
        self.current = next;
        Ok(())
    }

    /// The map of one epoch, if it is kept.
    pub fn map_at(&self, epoch: Epoch) -> Option<OsdMap> {
        if epoch > self.current.epoch {
            return None;
        }
        let (start, full) = self.full.range(..=epoch).next_back()?;
        self.increments
            .range(start.next()..)
            .take_while(|(at, _)| **at <= epoch)
            .try_fold(full.clone(), |map, (_, change)| map.apply(change).ok())
    }

    /// The increments of `from..=to`, at most [`MAX_MAPS_PER_MESSAGE`] of them.
    pub fn increments(&self, from: Epoch, to: Epoch) -> Vec<OsdMapIncremental> {
        let wanted = self.increments.range(from..).take_while(|(at, _)| **at <= to);
        wanted.take(MAX_MAPS_PER_MESSAGE as usize).map(|(_, change)| change.clone()).collect()
    }

    /// Forgets the epochs before `first`. Does nothing for an epoch that is not kept.
    pub fn trim(&mut self, first: Epoch) {
        let Some(map) = self.map_at(first) else { return };
        self.full = self.full.split_off(&first);
        self.full.insert(first, map);
        self.increments = self.increments.split_off(&first.next());
    }
}
