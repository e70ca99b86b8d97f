//! Questions that need no data: answered at once, from memory or the index.
//!
//! They see what is sequenced; a caller that must not see what is not durable yet asks after the
//! acknowledgements it depends on.

use super::Engine;
use crate::device::Device;
use crate::error::{ReadError, StoreError};
use crate::format::values::Head;
use crate::key::{object_key, object_of, pg_key};
use crate::limits::{BLOCK_BYTES, INDEX_RESERVE_SHARE};
use crate::state::RESERVE_BLOCKS;
use bytes::Bytes;
use cairn_types::{ObjectId, PgId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What an object is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Bytes>,
    /// Header of its omap.
    pub omap_header: Bytes,
}

/// How full the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes of the data region.
    pub data_bytes: u64,
    /// Bytes that objects take of it.
    pub used_bytes: u64,
    /// Bytes that can be written now; what was freed lately comes back at the next checkpoint.
    pub free_bytes: u64,
    /// Bytes of the data region that only removals may take.
    pub reserve_bytes: u64,
    /// Bytes that transactions which wait to be looked at may take beside what objects take, at most.
    pub queued_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of index entries; of those since the last checkpoint, and of those that wait, an estimate from above.
    pub index_used_bytes: u64,
    /// Bytes of index entries as of the last checkpoint.
    pub index_settled_bytes: u64,
    /// Bytes of index entries there can be.
    pub index_bytes: u64,
    /// Bytes of those that only removals may take.
    pub index_reserve_bytes: u64,
    /// Bytes of the log in use.
    pub log_used_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Memory of cached index entries.
    pub cached_bytes: u64,
    /// Memory of data that is not in place yet.
    pub dirty_bytes: u64,
}

impl<D: Device> Engine<D> {
    /// How full it is.
    pub fn usage(&self) -> Usage {
        let alloc = &self.state.alloc;
        let (index_used_bytes, index_bytes) = self.state.index_usage();
        let (log_used_bytes, log_bytes) = self.log.usage();
        let queued = self.queue.iter().map(|(_, transaction)| transaction.takes_at_most());
        let (queued_bytes, queued_index_bytes) =
            queued.fold((0, 0), |(data, index), takes| (data + takes.0, index + takes.1));
        Usage {
            data_bytes: alloc.blocks() * BLOCK_BYTES,
            used_bytes: alloc.used_blocks() * BLOCK_BYTES,
            free_bytes: alloc.free_blocks() * BLOCK_BYTES,
            reserve_bytes: RESERVE_BLOCKS * BLOCK_BYTES,
            queued_bytes,
            objects: self.state.objects(),
            index_used_bytes: index_used_bytes + queued_index_bytes,
            index_settled_bytes: self.state.index_settled_bytes(),
            index_bytes,
            index_reserve_bytes: index_bytes / INDEX_RESERVE_SHARE,
            log_used_bytes,
            log_bytes,
            cached_bytes: self.state.cached_bytes() as u64,
            dirty_bytes: self.state.pending.bytes() as u64,
        }
    }

    /// Collections, in order.
    pub fn collections(&self) -> Vec<PgId> {
        self.state.collections().iter().copied().collect()
    }

    /// What an object is.
    ///
    /// # Errors
    /// [`ReadError::NoObject`].
    pub fn stat(&mut self, pg: PgId, object: &ObjectId) -> Result<Stat, ReadError> {
        let head = self.head(pg, object)?;
        Ok(Stat { size: head.size, xattrs: head.xattrs.clone(), omap_header: head.omap_header.clone() })
    }

    fn head(&mut self, pg: PgId, object: &ObjectId) -> Result<Arc<Head>, ReadError> {
        self.check()?;
        let head = self.state.head(&object_key(pg, object))?;
        head.ok_or_else(|| ReadError::NoObject { pg, object: Box::new(object.clone()) })
    }

    /// Objects of a collection in the order of their keys (hash with its bits reversed first), at most
    /// `limit`, after the one given.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(
        &mut self,
        pg: PgId,
        after: Option<&ObjectId>,
        limit: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        self.check()?;
        let after = after.map(|object| object_key(pg, object));
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.state.head_keys(&pg_key(pg), from, limit)?;
        keys.iter()
            .map(|key| {
                object_of(key).map(|(_, object)| object).ok_or_else(|| {
                    crate::error::Damage::Entry { table: "heads", key: format!("{key:02x?}") }.into()
                })
            })
            .collect()
    }

    /// Ranges of an object that hold data: (offset, length), within a range. The rest reads as zeros.
    ///
    /// # Errors
    /// [`ReadError::NoObject`].
    pub fn extents(
        &mut self,
        pg: PgId,
        object: &ObjectId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<(u64, u64)>, ReadError> {
        let head = self.head(pg, object)?;
        let end = offset.saturating_add(len).min(head.size);
        let mut extents: Vec<(u64, u64)> = Vec::new();
        let mut block = offset / BLOCK_BYTES;
        while block * BLOCK_BYTES < end {
            if !self.state.slot(head.nid, block)?.is_hole() {
                let from = (block * BLOCK_BYTES).max(offset);
                let to = ((block + 1) * BLOCK_BYTES).min(end);
                match extents.last_mut() {
                    Some((start, len)) if *start + *len == from => *len = to - *start,
                    _ => extents.push((from, to - from)),
                }
            }
            block += 1;
        }
        Ok(extents)
    }

    /// Values of omap keys, of those that there are.
    ///
    /// # Errors
    /// [`ReadError::NoObject`].
    pub fn omap_get(
        &mut self,
        pg: PgId,
        object: &ObjectId,
        keys: &[Bytes],
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let head = self.head(pg, object)?;
        let mut found = Vec::new();
        for key in keys {
            found.extend(self.state.omap(head.omap, key)?.map(|value| (key.clone(), value)));
        }
        Ok(found)
    }

    /// Omap entries after a key, in order, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError::NoObject`].
    pub fn omap_list(
        &mut self,
        pg: PgId,
        object: &ObjectId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let head = self.head(pg, object)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.state.omap_range(head.omap, from, limit)?)
    }
}
