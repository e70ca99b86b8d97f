//! The metadata index: the state as of the last checkpoint, in an embedded key-value library on a region
//! of the device. Never on the path of a write.

mod batch;

pub use batch::Batch;

use crate::device::BlockingDevice;
use crate::device::checked::CheckedRegion;
use crate::error::{Damage, IndexError, StoreError};
use crate::format::values::{Checkpoint, Head, Shard};
use crate::key::{pg_key, pg_of};
use bytes::Bytes;
use cairn_types::PgId;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
const COLLECTIONS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("collections");
const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
const SHARDS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("shards");
const OMAP: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("omap");
const REFS: TableDefinition<'_, u64, u32> = TableDefinition::new("refs");
const BITMAP: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("bitmap");

/// Key of the checkpoint in `META`.
const CHECKPOINT: u8 = 0;

/// The open index.
#[derive(Debug)]
pub struct Index {
    db: Database,
    capacity_bytes: u64,
    panicked: Panicked,
}

/// The first panic of the library: it is not called again after it.
type Panicked = Arc<OnceLock<StoreError>>;

/// The state of the last checkpoint, held fast while it is read.
pub struct Snapshot {
    heads: ReadOnlyTable<&'static [u8], &'static [u8]>,
    shards: ReadOnlyTable<(u64, u32), &'static [u8]>,
    omap: ReadOnlyTable<(u64, &'static [u8]), &'static [u8]>,
    refs: ReadOnlyTable<u64, u32>,
    panicked: Panicked,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Index {
    /// Makes an empty index with its first checkpoint.
    pub fn create(
        device: Arc<dyn BlockingDevice>,
        (offset, len): (u64, u64),
        checkpoint: Checkpoint,
    ) -> Result<(), StoreError> {
        let panicked = Panicked::default();
        guarded(&panicked.clone(), || {
            let region =
                CheckedRegion::create(device, offset, len).map_err(device_error("make the index", offset))?;
            let db = Database::builder().create_with_backend(region).map_err(IndexError)?;
            let index = Index { db, capacity_bytes: CheckedRegion::capacity_bytes(len), panicked };
            index.commit(&Batch { checkpoint, ..Batch::default() }).map(drop)
        })
    }

    /// Opens it, with a page cache of so many bytes.
    pub fn open(
        device: Arc<dyn BlockingDevice>,
        (offset, len): (u64, u64),
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let panicked = Panicked::default();
        guarded(&panicked.clone(), || {
            let region =
                CheckedRegion::open(device, offset, len).map_err(device_error("open the index", offset))?;
            let db = Database::builder()
                .set_cache_size(cache_bytes)
                .create_with_backend(region)
                .map_err(IndexError)?;
            Ok(Index { db, capacity_bytes: CheckedRegion::capacity_bytes(len), panicked })
        })
    }

    /// Bytes of keys and values it can hold; see [`crate::limits::INDEX_FILL_SHARE`].
    pub fn entry_bytes_max(&self) -> u64 {
        self.capacity_bytes / crate::limits::INDEX_FILL_SHARE
    }

    /// The library's panic, if it ever did: the store must stop then, whoever met it.
    pub fn panicked(&self) -> Option<&StoreError> {
        self.panicked.get()
    }

    /// The last checkpoint, to be read while another is written.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        guarded(&self.panicked, || {
            let txn = self.db.begin_read().map_err(IndexError)?;
            Ok(Snapshot {
                heads: txn.open_table(HEADS).map_err(IndexError)?,
                shards: txn.open_table(SHARDS).map_err(IndexError)?,
                omap: txn.open_table(OMAP).map_err(IndexError)?,
                refs: txn.open_table(REFS).map_err(IndexError)?,
                panicked: Arc::clone(&self.panicked),
            })
        })
    }

    /// What is read once, at open: the checkpoint, the collections and the free map.
    pub fn load(
        &self,
        mut chunk: impl FnMut(u32, &[u8]) -> bool,
    ) -> Result<(Checkpoint, BTreeSet<PgId>), StoreError> {
        guarded(&self.panicked, || {
            let txn = self.db.begin_read().map_err(IndexError)?;
            let meta = txn.open_table(META).map_err(IndexError)?;
            let value = meta.get(CHECKPOINT).map_err(IndexError)?.ok_or(Damage::NoCheckpoint)?;
            let checkpoint = Checkpoint::decode(Bytes::copy_from_slice(value.value()))
                .map_err(|_| Damage::Entry { table: "meta", key: "checkpoint".into() })?;
            let mut collections = BTreeSet::new();
            for entry in txn.open_table(COLLECTIONS).map_err(IndexError)?.iter().map_err(IndexError)? {
                let (key, ()) = entry.map(|(key, _)| (key, ())).map_err(IndexError)?;
                let pg = pg_of(key.value()).filter(|_| {
                    key.value().len() == pg_key(PgId { pool: cairn_types::PoolId(0), seed: 0 }).len()
                });
                collections.insert(pg.ok_or_else(|| Damage::Entry {
                    table: "collections",
                    key: format!("{:02x?}", key.value()),
                })?);
            }
            for entry in txn.open_table(BITMAP).map_err(IndexError)?.iter().map_err(IndexError)? {
                let (key, value) = entry.map_err(IndexError)?;
                if !chunk(key.value(), value.value()) {
                    return Err(Damage::Entry { table: "bitmap", key: key.value().to_string() }.into());
                }
            }
            Ok((checkpoint, collections))
        })
    }
}

impl Snapshot {
    /// An object's head.
    pub fn head(&self, key: &[u8]) -> Result<Option<Head>, StoreError> {
        guarded(&self.panicked, || {
            let Some(value) = self.heads.get(key).map_err(IndexError)? else { return Ok(None) };
            let head = Head::decode(Bytes::copy_from_slice(value.value()));
            Ok(Some(head.map_err(|_| Damage::Entry {
                table: "heads",
                key: format!("{:?}", crate::key::object_of(key)),
            })?))
        })
    }

    /// A shard.
    pub fn shard(&self, nid: u64, number: u32) -> Result<Option<Shard>, StoreError> {
        guarded(&self.panicked, || {
            let Some(value) = self.shards.get((nid, number)).map_err(IndexError)? else { return Ok(None) };
            let shard = Shard::decode(Bytes::copy_from_slice(value.value()));
            Ok(Some(shard.map_err(|_| Damage::Entry { table: "shards", key: format!("{nid}.{number}") })?))
        })
    }

    /// Numbers of the shards that an object has, from `first` up.
    pub fn shard_numbers(&self, nid: u64, first: u32) -> Result<Vec<u32>, StoreError> {
        guarded(&self.panicked, || {
            let range = self.shards.range((nid, first)..=(nid, u32::MAX)).map_err(IndexError)?;
            range.map(|entry| Ok(entry.map_err(IndexError)?.0.value().1)).collect()
        })
    }

    /// All shards, in order.
    pub fn each_shard(
        &self,
        mut visit: impl FnMut(u64, u32) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        guarded(&self.panicked, || {
            for entry in self.shards.iter().map_err(IndexError)? {
                let key = entry.map_err(IndexError)?.0.value();
                visit(key.0, key.1)?;
            }
            Ok(())
        })
    }

    /// How many slots refer to a shared unit; `None` for one.
    pub fn refs(&self, unit: u64) -> Result<Option<u32>, StoreError> {
        guarded(&self.panicked, || Ok(self.refs.get(unit).map_err(IndexError)?.map(|value| value.value())))
    }

    /// All counts, in order.
    pub fn each_refs(&self, mut visit: impl FnMut(u64, u32)) -> Result<(), StoreError> {
        guarded(&self.panicked, || {
            for entry in self.refs.iter().map_err(IndexError)? {
                let (unit, count) = entry.map_err(IndexError)?;
                visit(unit.value(), count.value());
            }
            Ok(())
        })
    }

    /// Keys of objects after (or from) a key, in order, as long as `more` says so.
    pub fn each_head(
        &self,
        from: Bound<&[u8]>,
        mut more: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        guarded(&self.panicked, || {
            for entry in self.heads.range::<&[u8]>((from, Bound::Unbounded)).map_err(IndexError)? {
                if !more(entry.map_err(IndexError)?.0.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// One omap value.
    pub fn omap(&self, omap: u64, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded(&self.panicked, || {
            let value = self.omap.get((omap, key)).map_err(IndexError)?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    /// Entries of an omap from a bound on, in order, as long as `more` says so.
    pub fn each_omap(
        &self,
        omap: u64,
        from: Bound<&[u8]>,
        mut more: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        guarded(&self.panicked, || {
            let start = match from {
                Bound::Included(key) => Bound::Included((omap, key)),
                Bound::Excluded(key) => Bound::Excluded((omap, key)),
                Bound::Unbounded => Bound::Included((omap, &[][..])),
            };
            for entry in self.omap.range::<(u64, &[u8])>((start, Bound::Unbounded)).map_err(IndexError)? {
                let (key, value) = entry.map_err(IndexError)?;
                let (number, key) = key.value();
                if number != omap || !more(key, value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Numbers of all omaps that have entries.
    pub fn omap_numbers(&self) -> Result<BTreeSet<u64>, StoreError> {
        guarded(&self.panicked, || {
            let mut numbers = BTreeSet::new();
            for entry in self.omap.iter().map_err(IndexError)? {
                numbers.insert(entry.map_err(IndexError)?.0.value().0);
            }
            Ok(numbers)
        })
    }
}

fn device_error(action: &'static str, offset: u64) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Device { action, offset, source: Arc::new(source) }
}

/// The library verifies checksums, but a page that was written wrong, with a right checksum, makes it panic:
/// that is an error like any other, and the last thing it is asked for.
fn guarded<T>(panicked: &Panicked, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    if let Some(error) = panicked.get() {
        return Err(error.clone());
    }
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(panicked.get_or_init(|| StoreError::of_panic(&*payload)).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_library_is_an_error_and_the_last_call() {
        let panicked = Panicked::default();
        assert!(guarded(&panicked, || Ok(1)).is_ok());
        let mut calls = 0;
        for _ in 0..2 {
            let error = guarded::<()>(&panicked, || {
                calls += 1;
                panic!("page {} is of no kind", 7)
            })
            .unwrap_err();
            assert!(error.to_string().contains("page 7 is of no kind"), "{error}");
        }
        assert_eq!(calls, 1);
    }
}
