//! What the store holds, after every transaction sequenced so far: the index of the last checkpoint with
//! everything since laid over it. Changed by [`Mutation`](crate::format::mutation::Mutation)s only, the same way live and at replay.

mod apply;
mod blocks;
mod cache;
pub mod pending;
mod plan;
mod walk;

pub use apply::{Freed, Misfit};
pub use plan::{PlanError, RESERVE_BLOCKS};

use crate::alloc::{Allocator, Run};
use crate::device::BlockingDevice;
use crate::error::{ReadError, StoreError};
use crate::format::values::{Checkpoint, Head, Shard, Slot};
use crate::index::{Batch, Index, Snapshot};
use crate::limits::{BLOCK_BYTES, SHARD_BLOCKS};
use bytes::Bytes;
use cache::Cache;
use cairn_types::PgId;
use pending::Pending;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

/// Entries of omaps as they were last changed; without a value: removed.
pub type OmapEntries = BTreeMap<(u64, Bytes), Option<Bytes>>;

/// Entries that are let go for each one that comes in.
const SPENT_STEP: usize = 4;

/// The state.
#[derive(Debug)]
pub struct State {
    index: Arc<Index>,
    snapshot: Snapshot,
    device: Arc<dyn BlockingDevice>,
    collections: BTreeSet<PgId>,
    collection_changes: Vec<(PgId, bool)>,
    heads: Cache<Bytes, Head>,
    shards: Cache<(u64, u32), Shard>,
    /// Changed since the last batch was taken.
    omap: OmapEntries,
    /// In the batch that is being committed: the index does not say it yet.
    committing_omap: Arc<OmapEntries>,
    /// In the index by now, and freed bit by bit: a whole batch at once would be milliseconds.
    spent_omap: btree_map::IntoIter<(u64, Bytes), Option<Bytes>>,
    dropped_omaps: Vec<u64>,
    /// How many slots refer to a shared unit, where the index does not say it yet.
    refs: BTreeMap<u64, (u32, u64)>,
    /// Entries of it that carry the current generation.
    refs_dirty: usize,
    /// The free map.
    pub alloc: Allocator,
    /// Blocks on their way to their place.
    pub pending: Pending,
    /// Data being written to fresh blocks, by the first of them: not yet readable from the device.
    pub arriving: BTreeMap<u64, Bytes>,
    freed: Vec<Freed>,
    /// What is applied comes from the log, at open.
    is_replaying: bool,
    /// See [`crate::OpenOptions::keeps_damage`].
    pub keeps_damage: bool,
    next_nid: u64,
    objects: u64,
    /// Bytes of entries in the index, as of the last checkpoint.
    index_bytes: u64,
    /// What has been added since, at most.
    added_bytes: u64,
    committing_bytes: u64,
    /// Counts the batches taken; entries changed since the last one carry it. From 1.
    generation: u64,
}

impl State {
    /// The state of the last checkpoint.
    pub fn open(
        index: Arc<Index>,
        device: Arc<dyn BlockingDevice>,
        mut alloc: Allocator,
        cache_bytes: usize,
    ) -> Result<(Self, Checkpoint), StoreError> {
        let (checkpoint, collections) = index.load(|chunk, bitmap| alloc.load_chunk(chunk, bitmap))?;
        let state = State {
            snapshot: index.snapshot()?,
            index,
            device,
            collections,
            collection_changes: Vec::new(),
            heads: Cache::new(cache_bytes / 4, |key, head: Option<&Head>| {
                let xattrs =
                    head.map_or(0, |head| head.xattrs.iter().map(|(k, v)| k.len() + v.len() + 96).sum());
                key.len() + size_of::<Head>() + 160 + xattrs + head.map_or(0, |head| head.omap_header.len())
            }),
            shards: Cache::new(cache_bytes - cache_bytes / 4, |_, shard: Option<&Shard>| {
                128 + shard.map_or(0, |_| size_of::<Shard>())
            }),
            omap: BTreeMap::new(),
            committing_omap: Arc::default(),
            spent_omap: btree_map::IntoIter::default(),
            dropped_omaps: Vec::new(),
            refs: BTreeMap::new(),
            refs_dirty: 0,
            alloc,
            pending: Pending::default(),
            arriving: BTreeMap::new(),
            freed: Vec::new(),
            is_replaying: true,
            keeps_damage: false,
            next_nid: checkpoint.next_nid,
            objects: checkpoint.objects,
            index_bytes: checkpoint.index_bytes,
            added_bytes: 0,
            committing_bytes: 0,
            generation: 1,
        };
        Ok((state, checkpoint))
    }

    /// All of the log was applied.
    pub fn replayed(&mut self) {
        self.is_replaying = false;
    }

    /// Collections, in order.
    pub fn collections(&self) -> &BTreeSet<PgId> {
        &self.collections
    }

    /// Objects in all collections.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// An object's head.
    pub fn head(&mut self, key: &Bytes) -> Result<Option<Arc<Head>>, StoreError> {
        let snapshot = &self.snapshot;
        self.heads.get(key, || snapshot.head(key))
    }

    /// An object's head by the bytes of its key, with the key.
    pub fn find_head(&mut self, key: &[u8]) -> Result<(Bytes, Option<Arc<Head>>), StoreError> {
        if let Some((key, head)) = self.heads.find(key) {
            return Ok((key.clone(), head.cloned()));
        }
        let key = Bytes::copy_from_slice(key);
        let head = self.head(&key)?;
        Ok((key, head))
    }

    /// A shard of an object; none if it has no blocks there.
    pub fn shard(&mut self, nid: u64, number: u32) -> Result<Option<Arc<Shard>>, StoreError> {
        let snapshot = &self.snapshot;
        self.shards.get(&(nid, number), || snapshot.shard(nid, number))
    }

    /// Where a block of an object is.
    pub fn slot(&mut self, nid: u64, block: u64) -> Result<Slot, StoreError> {
        let (number, place) = shard_of(block);
        Ok(self.shard(nid, number)?.map_or(Slot::HOLE, |shard| shard.slots[place]))
    }

    /// How many slots refer to a unit that may be shared.
    pub fn refs(&self, unit: u64) -> Result<u32, StoreError> {
        match self.refs.get(&unit) {
            Some((count, _)) => Ok((*count).max(1)),
            None => Ok(self.snapshot.refs(unit)?.unwrap_or(1)),
        }
    }

    /// One omap value.
    pub fn omap(&self, omap: u64, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let entry = (omap, key.clone());
        match self.omap.get(&entry).or_else(|| self.committing_omap.get(&entry)) {
            Some(value) => Ok(value.clone()),
            None if omap == 0 => Ok(None),
            None => self.snapshot.omap(omap, key),
        }
    }

    /// Entries of an omap from a bound on, in order, at most `limit`.
    pub fn omap_range(
        &self,
        omap: u64,
        from: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = Vec::new();
        if omap == 0 {
            return Ok(found);
        }
        let start = match from {
            Bound::Included(key) => Bound::Included((omap, Bytes::copy_from_slice(key))),
            Bound::Excluded(key) => Bound::Excluded((omap, Bytes::copy_from_slice(key))),
            Bound::Unbounded => Bound::Included((omap, Bytes::new())),
        };
        let mut overlay = self.omap_overlay(omap, start).peekable();
        // The newer entry of a key wins; removed ones are passed over.
        self.snapshot.each_omap(omap, from, |key, value| {
            while let Some((own, own_value)) = overlay.next_if(|(own, _)| &own[..] < key) {
                found.extend(own_value.clone().map(|value| (own.clone(), value)));
            }
            match overlay.next_if(|(own, _)| &own[..] == key) {
                Some((own, own_value)) => found.extend(own_value.clone().map(|value| (own.clone(), value))),
                None => found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
            }
            found.len() < limit
        })?;
        for (own, own_value) in overlay {
            if found.len() >= limit {
                break;
            }
            found.extend(own_value.clone().map(|value| (own.clone(), value)));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// What the index does not say yet of an omap, from a bound on, in order, the newer entry of each key.
    fn omap_overlay(
        &self,
        omap: u64,
        start: Bound<(u64, Bytes)>,
    ) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        let range = (start, Bound::Unbounded);
        let older = self.committing_omap.range(range.clone());
        let mut older = older.take_while(move |((number, _), _)| *number == omap).peekable();
        let newer = self.omap.range(range);
        let mut newer = newer.take_while(move |((number, _), _)| *number == omap).peekable();
        std::iter::from_fn(move || {
            let order = match (newer.peek(), older.peek()) {
                (Some((new, _)), Some((old, _))) => new.cmp(old),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if order == Ordering::Equal {
                older.next();
            }
            let ((_, key), value) = if order.is_le() { newer.next() } else { older.next() }?;
            Some((key, value))
        })
    }

    /// Keys of objects that start with a prefix, from a bound on, in order, at most `limit`.
    pub fn head_keys(
        &self,
        prefix: &[u8],
        from: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let from = match from {
            Bound::Unbounded => Bound::Included(prefix),
            bound => bound,
        };
        let mut found: Vec<Bytes> = Vec::new();
        let owned = from.map(Bytes::copy_from_slice);
        let mut overlay =
            self.heads.pinned(owned.as_ref()).take_while(|(key, _)| key.starts_with(prefix)).peekable();
        self.snapshot.each_head(from, |key| {
            if !key.starts_with(prefix) {
                return false;
            }
            while let Some((own, head)) = overlay.next_if(|(own, _)| &own[..] < key) {
                found.extend(head.map(|_| own.clone()));
            }
            match overlay.next_if(|(own, _)| &own[..] == key) {
                Some((own, head)) => found.extend(head.map(|_| own.clone())),
                None => found.push(Bytes::copy_from_slice(key)),
            }
            found.len() < limit
        })?;
        for (own, head) in overlay {
            if found.len() >= limit {
                break;
            }
            found.extend(head.map(|_| own.clone()));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Content of a block, from memory or, blocking, from the device; verified.
    pub fn read_block(&self, slot: Slot, what: impl FnOnce() -> (Box<str>, u64)) -> Result<Bytes, ReadError> {
        if slot.is_hole() {
            return Ok(Bytes::from_static(&[0; BLOCK_BYTES as usize]));
        }
        if let Some(data) = self.pending.get(slot.unit) {
            return Ok(data.clone());
        }
        if let Some((first, data)) = self.arriving.range(..=slot.unit).next_back() {
            let at = ((slot.unit - first) * BLOCK_BYTES) as usize;
            if at < data.len() {
                return Ok(data.slice(at..at + BLOCK_BYTES as usize));
            }
        }
        let mut block = vec![0; BLOCK_BYTES as usize];
        let device_offset = slot.unit * BLOCK_BYTES;
        if let Err(source) = self.device.read_at(device_offset, &mut block) {
            let (object, offset) = what();
            return Err(ReadError::Device { object, offset, device_offset, source: Arc::new(source) });
        }
        let found = crc32fast::hash(&block);
        if found != slot.crc {
            let (object, offset) = what();
            return Err(ReadError::Corrupt { object, offset, device_offset, expected: slot.crc, found });
        }
        Ok(block.into())
    }

    /// Whether the index has room for what a transaction adds; `removes` may use the reserve.
    pub fn index_has_room(&self, bytes: u64, removes: bool) -> bool {
        let most = self.index.entry_bytes_max();
        let most = if removes { most } else { most - most / crate::limits::INDEX_RESERVE_SHARE };
        self.index_bytes + self.committing_bytes + self.added_bytes + bytes <= most
    }

    /// Bytes of index entries, and how many it can have.
    pub fn index_usage(&self) -> (u64, u64) {
        (self.index_bytes + self.committing_bytes + self.added_bytes, self.index.entry_bytes_max())
    }

    /// Bytes of index entries as of the last checkpoint.
    pub fn index_settled_bytes(&self) -> u64 {
        self.index_bytes
    }

    /// Entries changed since the last batch.
    pub fn dirty_entries(&self) -> usize {
        self.heads.dirty_len() + self.shards.dirty_len() + self.omap.len() + self.refs_dirty
    }

    /// Memory of cached index entries.
    pub fn cached_bytes(&self) -> usize {
        self.heads.bytes() + self.shards.bytes()
    }

    /// Everything changed since the last batch, as a batch whose log starts at `log_position` with
    /// `next_seq`; and the blocks freed in it, which can be given out once it is committed.
    pub fn take_batch(&mut self, next_seq: u64, log_position: u64) -> (Batch, Vec<Freed>) {
        let current = self.generation;
        self.refs_dirty = 0;
        self.committing_omap = Arc::new(mem::take(&mut self.omap));
        let refs = self.refs.iter().filter(|(_, (_, changed))| *changed == current);
        let batch = Batch {
            collections: mem::take(&mut self.collection_changes),
            heads: self.heads.take_dirty(),
            shards: self.shards.take_dirty(),
            dropped_omaps: mem::take(&mut self.dropped_omaps),
            omap: Arc::clone(&self.committing_omap),
            refs: refs.map(|(unit, (count, _))| (*unit, *count)).collect(),
            bitmap: self.alloc.take_dirty_chunks().into_iter().map(|c| (c, self.alloc.chunk(c))).collect(),
            checkpoint: Checkpoint {
                next_seq,
                log_position,
                next_nid: self.next_nid,
                objects: self.objects,
                index_bytes: self.index_bytes,
            },
        };
        self.committing_bytes = mem::take(&mut self.added_bytes);
        self.generation += 1;
        (batch, mem::take(&mut self.freed))
    }

    /// The last batch is in the index, whose entries now come to so many bytes.
    pub fn committed(&mut self, index_bytes: u64) -> Result<(), StoreError> {
        self.snapshot = self.index.snapshot()?;
        let generation = self.generation - 1;
        self.heads.committed(generation);
        self.shards.committed(generation);
        // Whoever committed it has let go of it.
        self.spent_omap = Arc::unwrap_or_clone(mem::take(&mut self.committing_omap)).into_iter();
        self.refs.retain(|_, (_, changed)| *changed > generation);
        self.index_bytes = index_bytes;
        self.committing_bytes = 0;
        Ok(())
    }

    /// Blocks freed since the last batch.
    pub fn freed_blocks(&self) -> u64 {
        self.freed.len() as u64
    }

    /// Gives freed blocks out at once: a deliberate bug.
    pub fn release_freed(&mut self) {
        for freed in mem::take(&mut self.freed) {
            self.alloc.release(Run { unit: freed.unit, count: 1 });
        }
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }
}

/// Shard number and place in it.
pub fn shard_of(block: u64) -> (u32, usize) {
    ((block / SHARD_BLOCKS as u64) as u32, (block % SHARD_BLOCKS as u64) as usize)
}
