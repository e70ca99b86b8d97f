//! Going over everything a store refers to and comparing it with what the store believes.

use super::{Finding, Findings};
use crate::alloc::{Allocator, CHUNK_BLOCKS};
use crate::device::BlockingDevice;
use crate::error::{Damage, ReadError, StoreError};
use crate::format::superblock::Superblock;
use crate::format::values::{Head, Slot};
use crate::key::{object_of, pg_of};
use crate::limits::{BLOCK_BYTES, IO_BYTES_MAX, SHARD_BLOCKS};
use crate::state::State;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Objects looked up at a time.
const PAGE_OBJECTS: usize = 1024;

/// A unit with several users, or with one that says it may have.
struct Sharing {
    count: u32,
    crc: u32,
    /// Every user says that it is shared.
    is_marked: bool,
}

/// What was found on the way: what the index should say.
pub(super) struct Walk {
    pub objects: u64,
    pub blocks: u64,
    pub deep_bytes: u64,
    /// Highest number in use.
    pub last_number: u64,
    /// The free map as it should be.
    pub alloc: Allocator,
    /// Chunks of the free map that are wrong.
    pub chunks: BTreeSet<u32>,
    /// Counts of shared units that are wrong, as they should be.
    pub refs: Vec<(u64, u32)>,
    pub orphan_shards: Vec<(u64, u32)>,
    pub orphan_omaps: Vec<u64>,
}

struct Walker<'a> {
    state: &'a mut State,
    device: &'a dyn BlockingDevice,
    findings: &'a mut Findings,
    progress: &'a mut dyn FnMut(u64, u64),
    deep: bool,
    done: u64,
    total: u64,
    walk: Walk,
    sharing: BTreeMap<u64, Sharing>,
    nids: BTreeSet<u64>,
    omaps: BTreeSet<u64>,
    buf: Vec<u8>,
}

/// Neighbouring blocks of an object, by place: (byte of the object, slot).
type Run = Vec<(u64, Slot)>;

/// Goes over everything. An error of the index ends it early, as a finding.
pub(super) fn walk(
    state: &mut State,
    superblock: &Superblock,
    device: &dyn BlockingDevice,
    deep: bool,
    findings: &mut Findings,
    progress: &mut dyn FnMut(u64, u64),
) -> Walk {
    let alloc = Allocator::new(superblock.data_offset / BLOCK_BYTES, superblock.data_blocks);
    let total = if deep { state.alloc.used_blocks() } else { state.objects() };
    let mut walker = Walker {
        state,
        device,
        findings,
        progress,
        deep,
        done: 0,
        total,
        walk: Walk {
            objects: 0,
            blocks: 0,
            deep_bytes: 0,
            last_number: 0,
            alloc,
            chunks: BTreeSet::new(),
            refs: Vec::new(),
            orphan_shards: Vec::new(),
            orphan_omaps: Vec::new(),
        },
        sharing: BTreeMap::new(),
        nids: BTreeSet::new(),
        omaps: BTreeSet::new(),
        buf: Vec::new(),
    };
    if let Err(error) = walker.everything() {
        walker.findings.add(Finding::Index(error));
    }
    (walker.progress)(walker.total, walker.total);
    walker.walk
}

impl Walker<'_> {
    fn everything(&mut self) -> Result<(), StoreError> {
        let mut after: Option<Bytes> = None;
        loop {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let keys = self.state.head_keys(&[], from, PAGE_OBJECTS)?;
            let Some(last) = keys.last() else { break };
            after = Some(last.clone());
            for key in &keys {
                self.object(key)?;
            }
        }
        self.orphans()?;
        self.refs()?;
        self.free_map();
        let found = self.state.objects();
        if self.walk.objects != found {
            self.findings.add(Finding::ObjectCount { counted: self.walk.objects, found });
        }
        let next = self.state.next_nid();
        if self.walk.last_number >= next {
            self.findings.add(Finding::NextNumber { used: self.walk.last_number, next });
        }
        Ok(())
    }

    fn advance(&mut self, by: u64) {
        self.done = (self.done + by).min(self.total);
        (self.progress)(self.done, self.total);
    }

    fn object(&mut self, key: &Bytes) -> Result<(), StoreError> {
        self.walk.objects += 1;
        if !self.deep && self.walk.objects.is_multiple_of(PAGE_OBJECTS as u64) {
            self.advance(PAGE_OBJECTS as u64);
        }
        let named = object_of(key);
        let object: Box<str> = match &named {
            Some((pg, object)) => format!("{object} of {pg}").into(),
            None => {
                let key = format!("{key:02x?}");
                self.findings.add(Finding::Entry(Damage::Entry { table: "heads", key: key.clone() }));
                key.into()
            }
        };
        if let Some(pg) = pg_of(key).filter(|pg| !self.state.collections().contains(pg)) {
            self.findings.add(Finding::NoCollection { object: object.clone(), pg });
        }
        let head = match self.state.head(key) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(error) => return self.findings.entry(error),
        };
        self.walk.last_number = self.walk.last_number.max(head.nid).max(head.omap);
        if head.omap != 0 && !self.omaps.insert(head.omap) {
            self.findings.add(Finding::NumberTwice { object: object.clone(), number: head.omap });
        }
        if !self.nids.insert(head.nid) {
            self.findings.add(Finding::NumberTwice { object, number: head.nid });
            return Ok(());
        }
        self.blocks(&object, &head)
    }

    fn blocks(&mut self, object: &str, head: &Head) -> Result<(), StoreError> {
        let mut run = Run::new();
        let mut unmarked: Option<(u64, u64, u64)> = None;
        for number in self.state.shards_of(head.nid)? {
            let shard = match self.state.shard(head.nid, number) {
                Ok(Some(shard)) => shard,
                Ok(None) => continue,
                Err(error) => {
                    self.findings.entry(error)?;
                    continue;
                }
            };
            for (place, slot) in shard.slots.iter().enumerate().filter(|(_, slot)| !slot.is_hole()) {
                let offset = (u64::from(number) * SHARD_BLOCKS as u64 + place as u64) * BLOCK_BYTES;
                let Some(device_offset) =
                    slot.unit.checked_mul(BLOCK_BYTES).filter(|_| self.state.alloc.contains(slot.unit))
                else {
                    let device_offset = slot.unit.saturating_mul(BLOCK_BYTES);
                    self.findings.add(Finding::OutOfRange { object: object.into(), offset, device_offset });
                    continue;
                };
                if offset >= head.size {
                    let (object, size) = (object.into(), head.size);
                    self.findings.add(Finding::BeyondEnd { object, size, offset, device_offset });
                }
                if !self.state.alloc.is_used(slot.unit) {
                    unmarked = match unmarked {
                        Some((from, unit, count))
                            if unit + count == slot.unit && from + count * BLOCK_BYTES == offset =>
                        {
                            Some((from, unit, count + 1))
                        }
                        other => {
                            self.used_but_free(object, other);
                            Some((offset, slot.unit, 1))
                        }
                    };
                }
                if !self.refer(object, offset, *slot) || !self.deep {
                    continue;
                }
                if run.last().is_some_and(|(_, last)| last.unit + 1 != slot.unit)
                    || run.len() == IO_BYTES_MAX / BLOCK
                {
                    self.verify(object, &run);
                    run.clear();
                }
                run.push((offset, *slot));
            }
        }
        self.used_but_free(object, unmarked);
        self.verify(object, &run);
        Ok(())
    }

    fn used_but_free(&mut self, object: &str, run: Option<(u64, u64, u64)>) {
        if let Some((offset, unit, blocks)) = run {
            let device_offset = unit * BLOCK_BYTES;
            let object = object.into();
            self.findings.add(Finding::UsedButFree { object, offset, device_offset, blocks });
        }
    }

    /// Counts a use of a unit. Whether it is the first with this checksum.
    fn refer(&mut self, object: &str, offset: u64, slot: Slot) -> bool {
        let device_offset = slot.unit * BLOCK_BYTES;
        let is_first = self.walk.alloc.mark_used(slot.unit);
        if is_first {
            self.walk.blocks += 1;
            if slot.shared {
                let sharing = Sharing { count: 1, crc: slot.crc, is_marked: true };
                self.sharing.insert(slot.unit, sharing);
            }
            return true;
        }
        let object = object.into();
        let Some(sharing) = self.sharing.get_mut(&slot.unit) else {
            // The first user did not mark it.
            self.sharing.insert(slot.unit, Sharing { count: 2, crc: slot.crc, is_marked: false });
            self.findings.add(Finding::CrossLinked { object, offset, device_offset });
            return true;
        };
        sharing.count += 1;
        let other = sharing.crc;
        if !slot.shared {
            sharing.is_marked = false;
            self.findings.add(Finding::CrossLinked { object, offset, device_offset });
        } else if other != slot.crc {
            let expected = slot.crc;
            self.findings.add(Finding::ChecksumsDiffer { object, offset, device_offset, expected, other });
        }
        other != slot.crc
    }

    /// Reads neighbouring blocks and compares their checksums.
    fn verify(&mut self, object: &str, run: &Run) {
        let Some((_, first)) = run.first() else { return };
        let first = first.unit;
        self.advance(run.len() as u64);
        self.walk.deep_bytes += (run.len() * BLOCK) as u64;
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(run.len() * BLOCK, 0);
        let is_whole = self.device.read_at(first * BLOCK_BYTES, &mut buf).is_ok();
        for ((offset, slot), content) in run.iter().zip(buf.chunks_exact_mut(BLOCK)) {
            let (offset, device_offset) = (*offset, slot.unit * BLOCK_BYTES);
            // What is in the log counts, not the place it will go to.
            let found = match self.state.pending.get(slot.unit) {
                Some(data) => crc32fast::hash(data),
                None => {
                    // One bad sector spoils the whole read: each block for itself then.
                    let read = if is_whole { Ok(()) } else { self.device.read_at(device_offset, content) };
                    if let Err(source) = read {
                        let (object, source) = (object.into(), Arc::new(source));
                        let error = ReadError::Device { object, offset, device_offset, source };
                        self.findings.add(Finding::Data(error));
                        continue;
                    }
                    crc32fast::hash(content)
                }
            };
            if found != slot.crc {
                let (object, expected) = (object.into(), slot.crc);
                let error = ReadError::Corrupt { object, offset, device_offset, expected, found };
                self.findings.add(Finding::Data(error));
            }
        }
        self.buf = buf;
    }

    fn orphans(&mut self) -> Result<(), StoreError> {
        let (nids, orphans) = (&self.nids, &mut self.walk.orphan_shards);
        self.state.each_shard(|nid, shard| {
            if !nids.contains(&nid) {
                orphans.push((nid, shard));
            }
        })?;
        for &(nid, shard) in &self.walk.orphan_shards {
            self.findings.add(Finding::OrphanShard { nid, shard });
            self.walk.last_number = self.walk.last_number.max(nid);
        }
        for omap in self.state.omap_numbers()? {
            if !self.omaps.contains(&omap) {
                self.findings.add(Finding::OrphanOmap(omap));
                self.walk.orphan_omaps.push(omap);
                self.walk.last_number = self.walk.last_number.max(omap);
            }
        }
        Ok(())
    }

    fn refs(&mut self) -> Result<(), StoreError> {
        let mut said = self.state.all_refs()?;
        for (&unit, sharing) in &self.sharing {
            let found = said.remove(&unit).unwrap_or(1);
            // Where not all users know of each other no count is right; that was said before.
            if sharing.is_marked && sharing.count != found {
                let (device_offset, counted) = (unit * BLOCK_BYTES, sharing.count);
                self.findings.add(Finding::WrongRefs { device_offset, counted, found });
                self.walk.refs.push((unit, counted));
            }
        }
        for (unit, found) in said {
            let counted = u32::from(self.walk.alloc.contains(unit) && self.walk.alloc.is_used(unit));
            let device_offset = unit.saturating_mul(BLOCK_BYTES);
            self.findings.add(Finding::WrongRefs { device_offset, counted, found });
            self.walk.refs.push((unit, counted));
        }
        Ok(())
    }

    fn free_map(&mut self) {
        let base = self.walk.alloc.base();
        let mut leak: Option<(u64, u64)> = None;
        for chunk in 0..self.walk.alloc.blocks().div_ceil(CHUNK_BLOCKS) as u32 {
            let (is, should) = (self.state.alloc.chunk(chunk), self.walk.alloc.chunk(chunk));
            if is == should {
                continue;
            }
            self.walk.chunks.insert(chunk);
            for (byte, (is, should)) in is.iter().zip(&should).enumerate() {
                let wrong = is & !should;
                for bit in (0..8).filter(|bit| wrong >> bit & 1 == 1) {
                    let unit = base + u64::from(chunk) * CHUNK_BLOCKS + byte as u64 * 8 + bit;
                    leak = match leak {
                        Some((first, count)) if first + count == unit => Some((first, count + 1)),
                        other => {
                            self.leaked(other);
                            Some((unit, 1))
                        }
                    };
                }
            }
        }
        self.leaked(leak);
    }

    fn leaked(&mut self, run: Option<(u64, u64)>) {
        if let Some((unit, blocks)) = run {
            self.findings.add(Finding::Leaked { device_offset: unit * BLOCK_BYTES, blocks });
        }
    }
}
