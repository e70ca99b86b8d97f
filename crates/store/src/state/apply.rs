//! Applying mutations.

use super::{SPENT_STEP, State, shard_of};
use crate::error::StoreError;
use crate::format::mutation::Mutation;
use crate::format::values::{Head, Shard, Slot};
use crate::limits::{BLOCK_BYTES, SHARD_BLOCKS};
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

/// A block that the state no longer refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freed {
    /// Device block.
    pub unit: u64,
    /// Freed by removal, not by an overwrite: its space is worth giving back to the medium.
    pub discard: bool,
}

/// Why a mutation does not fit the state: the log or the index is damaged.
#[derive(Debug)]
pub enum Misfit {
    /// What does not fit.
    Contradiction(&'static str),
    /// The index cannot be read.
    Store(StoreError),
}

impl From<StoreError> for Misfit {
    fn from(error: StoreError) -> Self {
        Misfit::Store(error)
    }
}

impl State {
    /// Applies one step of transaction `seq`.
    pub fn apply(&mut self, mutation: &Mutation, seq: u64) -> Result<(), Misfit> {
        match mutation {
            Mutation::PutCollection(pg) => {
                self.collections.insert(*pg);
                self.collection_changes.push((*pg, true));
                self.added_bytes += 64;
            }
            Mutation::DropCollection(pg) => {
                self.collections.remove(pg);
                self.collection_changes.push((*pg, false));
            }
            Mutation::PutHead { key, head } => {
                self.next_nid = self.next_nid.max(head.nid + 1).max(head.omap + 1);
                self.added_bytes += (key.len() + head_bytes(head)) as u64;
                let was_there = match self.heads.put(key.clone(), Some(head.clone()), self.generation) {
                    Some(was_there) => was_there,
                    None => self.snapshot.head(key)?.is_some(),
                };
                self.objects += u64::from(!was_there);
            }
            Mutation::DropHead { key } => {
                if self.head(key)?.is_none() {
                    return Err(Misfit::Contradiction("it removes an object that is not there"));
                }
                self.objects -= 1;
                self.heads.put(key.clone(), None, self.generation);
            }
            Mutation::Map { nid, block, unit, crcs, payload } => {
                self.map(*nid, *block, *unit, crcs, payload.as_ref(), seq)?;
            }
            Mutation::Unmap { nid, block, count } => {
                let holes = vec![Slot::HOLE; *count as usize];
                self.replace(*nid, *block, &holes, true)?;
            }
            Mutation::Share { from_nid, from_block, nid, block, count } => {
                self.share((*from_nid, *from_block), (*nid, *block), *count)?;
            }
            Mutation::PutOmap { omap, key, value } => {
                self.added_bytes += (8 + key.len() + value.len()) as u64;
                self.put_omap(*omap, key, Some(value.clone()));
            }
            Mutation::DropOmapKey { omap, key } => self.put_omap(*omap, key, None),
            Mutation::DropOmap { omap } => {
                let keys: Vec<(u64, Bytes)> = self
                    .omap
                    .range((*omap, Bytes::new())..)
                    .take_while(|((number, _), _)| number == omap)
                    .map(|(key, _)| key.clone())
                    .collect();
                keys.iter().for_each(|key| drop(self.omap.remove(key)));
                self.dropped_omaps.push(*omap);
            }
        }
        Ok(())
    }

    fn put_omap(&mut self, omap: u64, key: &Bytes, value: Option<Bytes>) {
        self.spent_omap.by_ref().take(SPENT_STEP).for_each(drop);
        self.omap.insert((omap, key.clone()), value);
    }

    fn map(
        &mut self,
        nid: u64,
        block: u64,
        unit: u64,
        crcs: &[u32],
        payload: Option<&Bytes>,
        seq: u64,
    ) -> Result<(), Misfit> {
        let slots: SmallVec<[Slot; 4]> = crcs
            .iter()
            .enumerate()
            .map(|(at, &crc)| Slot { unit: unit + at as u64, crc, shared: false })
            .collect();
        self.added_bytes += 16 * crcs.len() as u64;
        self.replace(nid, block, &slots, false)?;
        let Some(payload) = payload else {
            // What was to be written there before must not be written over it.
            self.pending.free_run(unit, slots.len() as u64);
            return Ok(());
        };
        for (at, slot) in slots.iter().enumerate() {
            let at = at * BLOCK_BYTES as usize;
            self.pending.insert(slot.unit, payload.slice(at..at + BLOCK_BYTES as usize), seq);
        }
        Ok(())
    }

    /// Gives blocks new slots and lets go of the old ones. A slot that keeps its unit stays as used as it was.
    fn replace(&mut self, nid: u64, block: u64, slots: &[Slot], discard: bool) -> Result<(), Misfit> {
        let mut done = 0;
        while done < slots.len() {
            let (number, first) = shard_of(block + done as u64);
            let count = (SHARD_BLOCKS - first).min(slots.len() - done);
            let new = &slots[done..done + count];
            done += count;
            let snapshot = &self.snapshot;
            let old = self.shards.take(&(nid, number), || snapshot.shard(nid, number))?;
            if old.is_none() && new.iter().all(Slot::is_hole) {
                continue;
            }
            // Not copied but while a checkpoint has it.
            let mut shard = old.unwrap_or_default();
            let first_freed = self.freed.len();
            for (slot, new) in Arc::make_mut(&mut shard).slots[first..first + count].iter_mut().zip(new) {
                if slot.unit != new.unit {
                    // Live, it was reserved. In the log it is free: what was freed since the checkpoint is not
                    // given out before the next.
                    if self.is_replaying && self.alloc.is_waiting(new.unit) {
                        return Err(Misfit::Contradiction(
                            "it uses a block that was freed since the checkpoint",
                        ));
                    }
                    if !new.is_hole() && !self.alloc.mark_used(new.unit) {
                        return Err(Misfit::Contradiction("it uses a block that is in use, or is none"));
                    }
                    self.let_go(*slot, discard)?;
                } else if slot.shared && self.refs(slot.unit)? > 1 {
                    return Err(Misfit::Contradiction("it overwrites a block that is shared"));
                }
                *slot = *new;
            }
            for run in self.freed[first_freed..].chunk_by(|a, b| a.unit + 1 == b.unit) {
                self.pending.free_run(run[0].unit, run.len() as u64);
            }
            self.put_shard(nid, number, shard);
        }
        Ok(())
    }

    fn put_shard(&mut self, nid: u64, number: u32, shard: Arc<Shard>) {
        // An entry at its worst: a run for every block.
        self.added_bytes += 64;
        let value = (!shard.is_empty()).then_some(shard);
        self.shards.put((nid, number), value, self.generation);
    }

    /// One reference less. The caller tells `pending` of what is freed.
    fn let_go(&mut self, slot: Slot, discard: bool) -> Result<(), Misfit> {
        if slot.is_hole() {
            return Ok(());
        }
        if slot.shared {
            let count = self.refs(slot.unit)?;
            if count > 1 {
                self.put_refs(slot.unit, count - 1);
                return Ok(());
            }
        }
        if !self.alloc.mark_freed(slot.unit) {
            return Err(Misfit::Contradiction("it frees a block that is free"));
        }
        self.freed.push(Freed { unit: slot.unit, discard });
        Ok(())
    }

    fn put_refs(&mut self, unit: u64, count: u32) {
        self.added_bytes += 12;
        let old = self.refs.insert(unit, (count, self.generation));
        self.refs_dirty += usize::from(old.is_none_or(|(_, changed)| changed != self.generation));
    }

    fn share(&mut self, from: (u64, u64), to: (u64, u64), count: u64) -> Result<(), Misfit> {
        // Taken down first: the ranges may overlap.
        let mut slots = Vec::with_capacity(count as usize);
        for at in 0..count {
            let slot = self.slot(from.0, from.1 + at)?;
            slots.push(Slot { shared: !slot.is_hole(), ..slot });
        }
        for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| !slot.is_hole()) {
            let refs = self.refs(slot.unit)?;
            self.put_refs(slot.unit, refs + 1);
            let (number, place) = shard_of(from.1 + at as u64);
            let Some(shard) = self.shard(from.0, number)? else { continue };
            if !shard.slots[place].shared {
                let mut shard = (*shard).clone();
                shard.slots[place].shared = true;
                self.put_shard(from.0, number, Arc::new(shard));
            }
        }
        for (at, new) in slots.iter().enumerate() {
            let (number, place) = shard_of(to.1 + at as u64);
            let old = self.shard(to.0, number)?;
            if old.is_none() && new.is_hole() {
                continue;
            }
            let mut shard = old.map_or_else(Shard::default, |shard| (*shard).clone());
            let old = std::mem::replace(&mut shard.slots[place], *new);
            // The count was raised for the new slot already, so letting go of the same unit is right too.
            let first_freed = self.freed.len();
            self.let_go(old, true)?;
            self.freed[first_freed..].iter().for_each(|freed| self.pending.free(freed.unit));
            self.put_shard(to.0, number, Arc::new(shard));
        }
        Ok(())
    }
}

fn head_bytes(head: &Head) -> usize {
    40 + head.omap_header.len()
        + head.xattrs.iter().map(|(name, value)| 8 + name.len() + value.len()).sum::<usize>()
}
