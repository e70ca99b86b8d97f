//! What a checkpoint writes.

use super::{BITMAP, CHECKPOINT, COLLECTIONS, HEADS, Index, META, OMAP, REFS, SHARDS};
use crate::error::{IndexError, StoreError};
use crate::format::values::{Checkpoint, Head, Shard};
use crate::key::pg_key;
use crate::state::OmapEntries;
use bytes::Bytes;
use cairn_types::PgId;
use std::sync::Arc;

/// An object's number, and which of its shards.
pub type ShardKey = (u64, u32);

/// Everything that changed between two checkpoints, in its last form. Cheap to make: values are shared
/// with the running state and encoded by whoever commits.
#[derive(Debug, Default)]
pub struct Batch {
    /// Made and removed collections.
    pub collections: Vec<(PgId, bool)>,
    /// Heads; `None` for names that are gone.
    pub heads: Vec<(Bytes, Option<Arc<Head>>)>,
    /// Shards by object and number; `None` for empty ones.
    pub shards: Vec<(ShardKey, Option<Arc<Shard>>)>,
    /// Omaps that go as a whole.
    pub dropped_omaps: Vec<u64>,
    /// Omap entries; `None` for those that are gone.
    pub omap: Arc<OmapEntries>,
    /// Counts of shared units; below 2 they need none.
    pub refs: Vec<(u64, u32)>,
    /// Pieces of the free map.
    pub bitmap: Vec<(u32, Vec<u8>)>,
    /// Up to where all this holds. Its `index_bytes` is computed by the commit.
    pub checkpoint: Checkpoint,
}

impl Index {
    /// Makes a batch durable, all or nothing, and returns the bytes of entries there are then.
    pub fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        super::guarded(&self.panicked, || self.commit_unguarded(batch))
    }

    fn commit_unguarded(&self, batch: &Batch) -> Result<u64, StoreError> {
        let mut txn = self.db.begin_write().map_err(IndexError)?;
        // Two phases, and the free pages kept: opening after a crash does not walk the index, and never
        // looks at a page of a commit that did not end.
        txn.set_quick_repair(true);
        let mut tally = Tally(batch.checkpoint.index_bytes);
        {
            let mut table = txn.open_table(COLLECTIONS).map_err(IndexError)?;
            for (pg, exists) in &batch.collections {
                let key = pg_key(*pg);
                if *exists {
                    table.insert(&key[..], ()).map_err(IndexError)?;
                } else {
                    table.remove(&key[..]).map_err(IndexError)?;
                }
            }
            let mut table = txn.open_table(HEADS).map_err(IndexError)?;
            for (key, head) in &batch.heads {
                let (value, old);
                if let Some(head) = head {
                    value = head.encode();
                    old = table.insert(&key[..], &value[..]).map_err(IndexError)?;
                    tally.add(key.len() + value.len());
                } else {
                    old = table.remove(&key[..]).map_err(IndexError)?;
                }
                tally.sub(old.map(|old| key.len() + old.value().len()));
            }
            let mut table = txn.open_table(SHARDS).map_err(IndexError)?;
            for (key, shard) in &batch.shards {
                let (value, old);
                if let Some(shard) = shard {
                    value = shard.encode();
                    old = table.insert(*key, &value[..]).map_err(IndexError)?;
                    tally.add(12 + value.len());
                } else {
                    old = table.remove(*key).map_err(IndexError)?;
                }
                tally.sub(old.map(|old| 12 + old.value().len()));
            }
            let mut table = txn.open_table(OMAP).map_err(IndexError)?;
            for &omap in &batch.dropped_omaps {
                let end = omap.saturating_add(1);
                let range = (omap, &[][..])..(end, &[][..]);
                for entry in
                    table.extract_from_if::<(u64, &[u8]), _>(range, |_, _| true).map_err(IndexError)?
                {
                    let (key, value) = entry.map_err(IndexError)?;
                    tally.sub(Some(8 + key.value().1.len() + value.value().len()));
                }
            }
            for ((omap, key), value) in &*batch.omap {
                let old = if let Some(value) = value {
                    tally.add(8 + key.len() + value.len());
                    table.insert((*omap, &key[..]), &value[..]).map_err(IndexError)?
                } else {
                    table.remove((*omap, &key[..])).map_err(IndexError)?
                };
                tally.sub(old.map(|old| 8 + key.len() + old.value().len()));
            }
            let mut table = txn.open_table(REFS).map_err(IndexError)?;
            for &(unit, count) in &batch.refs {
                let old = if count >= 2 {
                    tally.add(12);
                    table.insert(unit, count).map_err(IndexError)?
                } else {
                    table.remove(unit).map_err(IndexError)?
                };
                tally.sub(old.map(|_| 12));
            }
            let mut table = txn.open_table(BITMAP).map_err(IndexError)?;
            for (chunk, bitmap) in &batch.bitmap {
                let old = if bitmap.iter().any(|byte| *byte != 0) {
                    tally.add(4 + bitmap.len());
                    table.insert(*chunk, &bitmap[..]).map_err(IndexError)?
                } else {
                    table.remove(*chunk).map_err(IndexError)?
                };
                tally.sub(old.map(|old| 4 + old.value().len()));
            }
            let checkpoint = Checkpoint { index_bytes: tally.0, ..batch.checkpoint };
            let mut table = txn.open_table(META).map_err(IndexError)?;
            table.insert(CHECKPOINT, &checkpoint.encode()[..]).map_err(IndexError)?;
        }
        txn.commit().map_err(IndexError)?;
        Ok(tally.0)
    }
}

/// Bytes of keys and values.
struct Tally(u64);

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.0 += bytes as u64;
    }

    fn sub(&mut self, bytes: Option<usize>) {
        self.0 = self.0.saturating_sub(bytes.unwrap_or(0) as u64);
    }
}
