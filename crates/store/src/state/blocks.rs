//! Planning what happens to an object's blocks: whole blocks get checksums and a place, parts of blocks
//! are merged with what is there.
//!
//! Invariant: what a block has beyond its object's size is zero, so that growth reads as zeros.

use super::plan::{PlanError, Planner, RESERVE_BLOCKS};
use super::shard_of;
use crate::error::{ReadError, StoreError, TransactionError};
use crate::format::mutation::Mutation;
use crate::format::values::{Head, Shard, Slot};
use crate::limits::{BLOCK_BYTES, DIRECT_BYTES_MIN, SHARD_BLOCKS};
use crate::txn::Sums;
use bytes::{Bytes, BytesMut};
use cairn_types::ObjectId;

const BLOCK: usize = BLOCK_BYTES as usize;

/// The checksum of what was read, if that is not what had been written.
fn damage_in(read: &Result<Bytes, PlanError>) -> Option<u32> {
    match read {
        Err(PlanError::Refused(TransactionError::Read(ReadError::Corrupt { found, .. }))) => Some(*found),
        _ => None,
    }
}

impl Planner<'_> {
    /// Writes bytes anywhere.
    pub(super) fn write(
        &mut self,
        head: &Head,
        object: &ObjectId,
        offset: u64,
        data: &Bytes,
        checksums: Option<&[u32]>,
    ) -> Result<(), PlanError> {
        let len = data.len();
        let skew = (offset % BLOCK_BYTES) as usize;
        if let Some(given) = checksums
            && (skew != 0 || !len.is_multiple_of(BLOCK) || given.len() != len / BLOCK)
        {
            return Err(TransactionError::Checksums { given: given.len(), offset, len: len as u64 }.into());
        }
        if len == 0 {
            return Ok(());
        }
        let first = offset / BLOCK_BYTES;
        let mut from = 0;
        let mut block = first;
        if skew != 0 || len < BLOCK {
            from = len.min(BLOCK - skew);
            self.write_part(head, object, block, skew, &data.slice(..from))?;
            block += 1;
        }
        let whole = (len - from) / BLOCK;
        if whole > 0 {
            let middle = data.slice(from..from + whole * BLOCK);
            let crcs: Sums = middle.chunks_exact(BLOCK).map(crc32fast::hash).collect();
            if let Some(given) = checksums {
                let differs = crcs.iter().zip(given).position(|(found, given)| found != given);
                if let Some(at) = differs {
                    let (given, found) = (given[at], crcs[at]);
                    return Err(TransactionError::ChecksumMismatch { block: at, given, found }.into());
                }
            }
            self.write_blocks(head.nid, block, &middle, &crcs)?;
            block += whole as u64;
            from += whole * BLOCK;
        }
        if from < len {
            self.write_part(head, object, block, 0, &data.slice(from..))?;
        }
        Ok(())
    }

    /// Makes a range read as zeros. What the object has behind it stays.
    pub(super) fn zero(
        &mut self,
        head: &Head,
        object: &ObjectId,
        offset: u64,
        end: u64,
    ) -> Result<(), PlanError> {
        if offset >= end {
            return Ok(());
        }
        let (first, skew) = (offset / BLOCK_BYTES, (offset % BLOCK_BYTES) as usize);
        // A last block that is cut to its very end, or to the object's, goes as a whole.
        let last = if end == head.size { end.div_ceil(BLOCK_BYTES) } else { end / BLOCK_BYTES };
        if first >= last {
            // Within one block.
            return self.zero_part(head, object, first, skew, (end - first * BLOCK_BYTES) as usize);
        }
        let mut whole = first;
        if skew != 0 {
            self.zero_part(head, object, first, skew, BLOCK)?;
            whole += 1;
        }
        if whole < last {
            self.unmap(head.nid, whole, last - whole)?;
        }
        let rest = end.saturating_sub(last * BLOCK_BYTES) as usize;
        if rest > 0 {
            self.zero_part(head, object, last, 0, rest)?;
        }
        Ok(())
    }

    fn zero_part(
        &mut self,
        head: &Head,
        object: &ObjectId,
        block: u64,
        from: usize,
        to: usize,
    ) -> Result<(), PlanError> {
        if self.slot(head.nid, block)?.is_hole() {
            return Ok(());
        }
        self.write_part(head, object, block, from, &Bytes::from(vec![0; to - from]))
    }

    /// Changes a part of one block.
    fn write_part(
        &mut self,
        head: &Head,
        object: &ObjectId,
        block: u64,
        skew: usize,
        part: &Bytes,
    ) -> Result<(), PlanError> {
        let mut old = self.read(head, object, block);
        if self.state.keeps_damage && damage_in(&old).is_some() {
            // It may have gone wrong on its way from the device.
            old = self.read(head, object, block);
            let slot = self.slot(head.nid, block)?;
            if let (Err(PlanError::Refused(error)), Some(found)) = (&old, damage_in(&old))
                && self.is_own(slot)?
            {
                tracing::error!(%object, %error, "a part of a damaged block is not changed");
                return self.spoil(head.nid, block, slot, found);
            }
        }
        let old = old?;
        let mut merged = BytesMut::from(&old[..]);
        merged[skew..skew + part.len()].copy_from_slice(part);
        let merged = merged.freeze();
        let crc = crc32fast::hash(&merged);
        self.write_blocks(head.nid, block, &merged, &[crc])
    }

    /// A damaged block of this object alone stays damaged, whatever the device gives for it from now on: what was there before would
    /// be right by its checksum, and lack the change that was left out.
    fn spoil(&mut self, nid: u64, block: u64, slot: Slot, found: u32) -> Result<(), PlanError> {
        let next = slot.crc.wrapping_add(1);
        let crc = if next == found { next.wrapping_add(1) } else { next };
        if !self.is_last_write {
            self.set_slot(nid, block, Slot { crc, shared: false, ..slot })?;
        }
        self.push(Mutation::Map {
            nid,
            block,
            unit: slot.unit,
            crcs: Sums::from_slice(&[crc]),
            payload: None,
        });
        Ok(())
    }

    /// The content of a block as this transaction sees it.
    fn read(&mut self, head: &Head, object: &ObjectId, block: u64) -> Result<Bytes, PlanError> {
        let slot = self.slot(head.nid, block)?;
        if let Some(data) = self.blocks.get(&slot.unit) {
            return Ok(data.clone());
        }
        let read = self.state.read_block(slot, || (object.to_string().into(), block * BLOCK_BYTES));
        Ok(read.map_err(|error: ReadError| TransactionError::Read(error))?)
    }

    fn slot(&mut self, nid: u64, block: u64) -> Result<Slot, StoreError> {
        let (number, place) = shard_of(block);
        match self.shards.get(&(nid, number)) {
            Some(shard) => Ok(shard.slots[place]),
            None => self.state.slot(nid, block),
        }
    }

    fn set_slot(&mut self, nid: u64, block: u64, slot: Slot) -> Result<(), StoreError> {
        let (number, place) = shard_of(block);
        if !self.shards.contains_key(&(nid, number)) {
            let shard = self.state.shard(nid, number)?.map_or_else(Shard::default, |shard| (*shard).clone());
            self.shards.insert((nid, number), Box::new(shard));
        }
        if let Some(shard) = self.shards.get_mut(&(nid, number)) {
            shard.slots[place] = slot;
        }
        Ok(())
    }

    fn refs(&self, unit: u64) -> Result<u32, StoreError> {
        match self.refs.get(&unit) {
            Some(count) => Ok(*count),
            None => self.state.refs(unit),
        }
    }

    /// Whether nobody else's block is in the slot's unit.
    fn is_own(&self, slot: Slot) -> Result<bool, StoreError> {
        Ok(!slot.is_hole() && (!slot.shared || self.refs(slot.unit)? <= 1))
    }

    /// Forgets, for this transaction's sight, one reference to a unit.
    fn let_go(&mut self, slot: Slot) -> Result<(), StoreError> {
        if !slot.is_hole() && slot.shared {
            let count = self.refs(slot.unit)?;
            self.refs.insert(slot.unit, count.saturating_sub(1).max(1));
        }
        Ok(())
    }

    /// Forgets what neighbouring blocks refer to, but for those that are in these neighbouring units already.
    fn let_go_run(&mut self, nid: u64, block: u64, count: usize, unit: u64) -> Result<(), StoreError> {
        let mut done = 0;
        while done < count {
            let (number, first) = shard_of(block + done as u64);
            let here = (SHARD_BLOCKS - first).min(count - done);
            let slots = first..first + here;
            let is_shared = |shard: &Shard| shard.slots[slots.clone()].iter().any(|slot| slot.shared);
            let any = match self.shards.get(&(nid, number)) {
                Some(shard) => is_shared(shard),
                None => self.state.shard(nid, number)?.is_some_and(|shard| is_shared(&shard)),
            };
            // Only those that are shared count.
            for at in done..if any { done + here } else { done } {
                let old = self.slot(nid, block + at as u64)?;
                if old.unit != unit + at as u64 {
                    self.let_go(old)?;
                }
            }
            done += here;
        }
        Ok(())
    }

    /// Writes whole blocks: long spans to fresh blocks ahead of the record, short ones through it, over
    /// the blocks that are the object's own and into fresh ones elsewhere.
    fn write_blocks(&mut self, nid: u64, first: u64, data: &Bytes, crcs: &[u32]) -> Result<(), PlanError> {
        let direct = data.len() >= DIRECT_BYTES_MIN;
        let mut at = 0;
        while at < crcs.len() {
            let old = self.slot(nid, first + at as u64)?;
            let (unit, count) = if !direct && self.is_own(old)? {
                // As many as follow each other in place.
                let mut count = 1;
                while at + count < crcs.len() {
                    let next = self.slot(nid, first + (at + count) as u64)?;
                    if next.unit != old.unit + count as u64 || !self.is_own(next)? {
                        break;
                    }
                    count += 1;
                }
                (old.unit, count)
            } else {
                let mut wanted = crcs.len() - at;
                if !direct {
                    // Up to the next block that can be written over.
                    wanted = 1;
                    while at + wanted < crcs.len() && !self.is_own_at(nid, first + (at + wanted) as u64)? {
                        wanted += 1;
                    }
                }
                self.reserve(wanted as u64)?
            };
            let span = data.slice(at * BLOCK..(at + count) * BLOCK);
            self.let_go_run(nid, first + at as u64, count, unit)?;
            // A write changes no block twice, so it does not ask for its own either.
            for step in 0..if self.is_last_write { 0 } else { count } {
                let (block, unit) = (first + (at + step) as u64, unit + step as u64);
                self.set_slot(nid, block, Slot { unit, crc: crcs[at + step], shared: false })?;
                self.blocks.insert(unit, span.slice(step * BLOCK..(step + 1) * BLOCK));
            }
            let payload = if direct {
                self.plan.direct.push((unit, span));
                None
            } else {
                Some(span)
            };
            let block = first + at as u64;
            self.push(Mutation::Map {
                nid,
                block,
                unit,
                crcs: Sums::from_slice(&crcs[at..at + count]),
                payload,
            });
            at += count;
        }
        Ok(())
    }

    fn is_own_at(&mut self, nid: u64, block: u64) -> Result<bool, StoreError> {
        let slot = self.slot(nid, block)?;
        self.is_own(slot)
    }

    fn reserve(&mut self, wanted: u64) -> Result<(u64, usize), PlanError> {
        let alloc = &mut self.state.alloc;
        let keep = if self.removes { 0 } else { RESERVE_BLOCKS };
        let run = if alloc.free_blocks() > keep {
            alloc.reserve(wanted.min(alloc.free_blocks() - keep))
        } else {
            None
        };
        match run {
            Some(run) => {
                self.plan.reserved.push(run);
                Ok((run.unit, run.count as usize))
            }
            None => {
                // What this very plan holds is busy and not used yet, but no checkpoint gives it back.
                let own: u64 = self.plan.reserved.iter().map(|run| run.count).sum();
                let free = (own + alloc.free_blocks().saturating_sub(keep)) * BLOCK_BYTES;
                let error = TransactionError::NoSpace { wanted: (own + wanted) * BLOCK_BYTES, free };
                Err(if alloc.waiting_blocks() > own {
                    PlanError::AfterCheckpoint
                } else {
                    PlanError::Refused(error)
                })
            }
        }
    }

    /// Blocks become holes.
    pub(super) fn unmap(&mut self, nid: u64, block: u64, count: u64) -> Result<(), PlanError> {
        let mut found = false;
        for block in block..block + count {
            let old = self.slot(nid, block)?;
            if !old.is_hole() {
                found = true;
                self.let_go(old)?;
                self.set_slot(nid, block, Slot::HOLE)?;
            }
        }
        if found {
            self.push(Mutation::Unmap { nid, block, count });
        }
        Ok(())
    }

    /// Blocks of one object become the same as another's.
    pub(super) fn share(&mut self, from: (u64, u64), to: (u64, u64), count: u64) -> Result<(), PlanError> {
        if count == 0 {
            return Ok(());
        }
        let mut slots = Vec::with_capacity(count as usize);
        for at in 0..count {
            let slot = self.slot(from.0, from.1 + at)?;
            slots.push(Slot { shared: !slot.is_hole(), ..slot });
        }
        let mut changes = false;
        for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| !slot.is_hole()) {
            let count = self.refs(slot.unit)?;
            self.refs.insert(slot.unit, count + 1);
            self.set_slot(from.0, from.1 + at as u64, *slot)?;
        }
        for (at, slot) in slots.iter().enumerate() {
            let block = to.1 + at as u64;
            let old = self.slot(to.0, block)?;
            changes |= !old.is_hole() || !slot.is_hole();
            self.let_go(old)?;
            self.set_slot(to.0, block, *slot)?;
        }
        if changes {
            self.push(Mutation::Share {
                from_nid: from.0,
                from_block: from.1,
                nid: to.0,
                block: to.1,
                count,
            });
        }
        Ok(())
    }

    /// Copies a range, sharing whole blocks where both sides are aligned alike.
    pub(super) fn clone_range(
        &mut self,
        (from, source, source_offset): (&Head, &ObjectId, u64),
        (to, target, target_offset): (&Head, &ObjectId, u64),
        len: u64,
    ) -> Result<(), PlanError> {
        let skew = source_offset % BLOCK_BYTES;
        let whole_from = source_offset.next_multiple_of(BLOCK_BYTES);
        let end = source_offset + len;
        // A source's last block may be shared to its end where nothing of the target stands behind it.
        let to_its_end = end >= from.size && target_offset + len >= to.size;
        let whole_end = if to_its_end { end.next_multiple_of(BLOCK_BYTES) } else { end - end % BLOCK_BYTES };
        if skew != target_offset % BLOCK_BYTES || whole_from >= whole_end {
            let copy = self.read_range(from, source, source_offset, len)?;
            return self.write(to, target, target_offset, &copy, None);
        }
        // Taken before anything is written: source and target may be one object.
        let before = self.read_range(from, source, source_offset, whole_from - source_offset)?;
        let after = self.read_range(from, source, whole_end.min(end), end.saturating_sub(whole_end))?;
        let blocks = (whole_end - whole_from) / BLOCK_BYTES;
        let place = (target_offset + (whole_from - source_offset)) / BLOCK_BYTES;
        self.share((from.nid, whole_from / BLOCK_BYTES), (to.nid, place), blocks)?;
        self.write(to, target, target_offset, &before, None)?;
        self.write(to, target, target_offset + (whole_end.min(end) - source_offset), &after, None)
    }

    /// Bytes of a range; zeros beyond the object's size.
    fn read_range(
        &mut self,
        head: &Head,
        object: &ObjectId,
        offset: u64,
        len: u64,
    ) -> Result<Bytes, PlanError> {
        let mut out = BytesMut::with_capacity(len as usize);
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let (block, skew) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let count = (BLOCK - skew).min((end - at) as usize);
            let content = self.read(head, object, block)?;
            out.extend_from_slice(&content[skew..skew + count]);
            at += count as u64;
        }
        Ok(out.freeze())
    }
}
