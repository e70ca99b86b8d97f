//! Everything there is, as of now: the index with what changed since laid over it. For offline tools; the
//! running store never asks for all of anything.

use super::{OmapEntries, State};
use crate::error::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

impl State {
    /// Numbers of the shards that an object has, in order.
    pub fn shards_of(&self, nid: u64) -> Result<BTreeSet<u32>, StoreError> {
        let mut numbers: BTreeSet<u32> = self.snapshot.shard_numbers(nid, 0)?.into_iter().collect();
        let first = (nid, 0);
        let changed = self.shards.pinned(Bound::Included(&first));
        for ((_, number), shard) in changed.take_while(|((own, _), _)| *own == nid) {
            if shard.is_some() {
                numbers.insert(*number);
            } else {
                numbers.remove(number);
            }
        }
        Ok(numbers)
    }

    /// Object number and shard number of every shard, in order.
    pub fn each_shard(&self, mut visit: impl FnMut(u64, u32)) -> Result<(), StoreError> {
        let mut changed = self.shards.pinned(Bound::Unbounded).peekable();
        let mut visit_if = |key: (u64, u32), is_there: bool| {
            if is_there {
                visit(key.0, key.1);
            }
        };
        self.snapshot.each_shard(|nid, number| {
            while let Some((own, shard)) = changed.next_if(|(own, _)| **own < (nid, number)) {
                visit_if(*own, shard.is_some());
            }
            match changed.next_if(|(own, _)| **own == (nid, number)) {
                Some((own, shard)) => visit_if(*own, shard.is_some()),
                None => visit_if((nid, number), true),
            }
            Ok(())
        })?;
        changed.for_each(|(own, shard)| visit_if(*own, shard.is_some()));
        Ok(())
    }

    /// Counts of all shared units: those of 2 and more.
    pub fn all_refs(&self) -> Result<BTreeMap<u64, u32>, StoreError> {
        let mut all = BTreeMap::new();
        self.snapshot.each_refs(|unit, count| {
            all.insert(unit, count);
        })?;
        all.extend(self.refs.iter().map(|(unit, (count, _))| (*unit, *count)));
        all.retain(|_, count| *count >= 2);
        Ok(all)
    }

    /// Numbers of all omaps that have, or at the last checkpoint had, entries.
    pub fn omap_numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        let with_value = |entries: &OmapEntries| -> BTreeSet<u64> {
            entries.iter().filter(|(_, value)| value.is_some()).map(|((number, _), _)| *number).collect()
        };
        let mut numbers = self.snapshot.omap_numbers()?;
        numbers.extend(with_value(&self.committing_omap));
        for dropped in &self.dropped_omaps {
            numbers.remove(dropped);
        }
        numbers.extend(with_value(&self.omap));
        Ok(numbers)
    }

    /// The next number that an object or omap would get.
    pub fn next_nid(&self) -> u64 {
        self.next_nid
    }
}
