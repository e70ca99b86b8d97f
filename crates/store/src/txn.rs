//! What a caller asks the store to change, atomically.

use crate::limits::BLOCK_BYTES;
use bytes::Bytes;
use cairn_types::{ObjectId, PgId};
use smallvec::SmallVec;

/// Checksums of consecutive blocks; those of a small write lie in place.
pub type Sums = SmallVec<[u32; 4]>;

/// Of the index, what an object's name and attributes take, or a run of its blocks: reckoned high.
const INDEX_ENTRY_BYTES: u64 = 256;

/// One change within a [`Transaction`].
///
/// Objects live in collections, one per placement group. An operation on an object that does not
/// exist creates it, except for `Remove` and a clone's source, where its absence fails the
/// transaction before anything is logged.
#[derive(Clone, Debug)]
pub enum Op {
    /// Make a collection. It must not exist.
    CreateCollection(PgId),
    /// Remove a collection. It must exist and be empty.
    RemoveCollection(PgId),
    /// Make the object exist, empty, if it does not.
    Touch(PgId, ObjectId),
    /// Write bytes, growing the object where needed. `checksums` has one CRC-32 (IEEE) per 4 KiB
    /// block when offset and length are multiples of 4 KiB and the caller has them; they are what
    /// is stored and verified on read. Otherwise the store computes them.
    Write {
        /// Collection.
        pg: PgId,
        /// Object.
        object: ObjectId,
        /// Byte offset in the object.
        offset: u64,
        /// Bytes; never copied before the log record is built.
        data: Bytes,
        /// One per 4 KiB block, or `None`.
        checksums: Option<Sums>,
    },
    /// Make a range read as zeros and free what it held; grows the object to `offset + len`.
    Zero {
        /// Collection.
        pg: PgId,
        /// Object.
        object: ObjectId,
        /// Byte offset in the object.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Set the size; growth reads as zeros.
    Truncate {
        /// Collection.
        pg: PgId,
        /// Object.
        object: ObjectId,
        /// New size in bytes.
        size: u64,
    },
    /// Remove the object with its xattrs and omap.
    Remove(PgId, ObjectId),
    /// Make a range of `target` hold what the range of `source` holds, sharing whole blocks until
    /// either side writes them.
    CloneRange {
        /// Collection of both.
        pg: PgId,
        /// Object read.
        source: ObjectId,
        /// Object written.
        target: ObjectId,
        /// Byte offset in the source.
        source_offset: u64,
        /// Bytes.
        len: u64,
        /// Byte offset in the target.
        target_offset: u64,
    },
    /// Replace `target` by a copy of `source`: bytes (shared), xattrs and omap.
    Clone {
        /// Collection of both.
        pg: PgId,
        /// Object read.
        source: ObjectId,
        /// Object replaced.
        target: ObjectId,
    },
    /// Move an object to another name in the same or another collection; the target must not exist.
    Rename {
        /// Collection it is in.
        pg: PgId,
        /// Its name.
        object: ObjectId,
        /// Collection it goes to.
        target_pg: PgId,
        /// Its new name.
        target: ObjectId,
    },
    /// Set extended attributes.
    SetXattrs(PgId, ObjectId, Vec<(String, Bytes)>),
    /// Remove one extended attribute, if it is there.
    RemoveXattr(PgId, ObjectId, String),
    /// Set omap entries.
    OmapSet(PgId, ObjectId, Vec<(Bytes, Bytes)>),
    /// Remove omap entries, those that are there.
    OmapRemove(PgId, ObjectId, Vec<Bytes>),
    /// Remove the omap entries with `first <= key < end`.
    OmapRemoveRange {
        /// Collection.
        pg: PgId,
        /// Object.
        object: ObjectId,
        /// First key removed.
        first: Bytes,
        /// First key kept.
        end: Bytes,
    },
    /// Remove all omap entries and the header.
    OmapClear(PgId, ObjectId),
    /// Set the omap header.
    OmapSetHeader(PgId, ObjectId, Bytes),
}

/// Changes that happen together or not at all, in the order given. A later operation sees the
/// effect of an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The changes.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// Bytes of data and of the index that it may take beside what objects take before it, at most: as long as it has not
    /// been looked at, it is not known what of it is written over. What a whole clone takes of the index is not known, either.
    pub fn takes_at_most(&self) -> (u64, u64) {
        let mut takes = (0, 0);
        for op in &self.ops {
            let (data, index) = match op {
                Op::Write { offset, data, .. } => {
                    let blocks = (offset % BLOCK_BYTES + data.len() as u64).div_ceil(BLOCK_BYTES);
                    (blocks * BLOCK_BYTES, INDEX_ENTRY_BYTES + 16 * blocks)
                }
                Op::SetXattrs(_, _, xattrs) => {
                    let bytes =
                        xattrs.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
                    (0, INDEX_ENTRY_BYTES + bytes as u64)
                }
                Op::OmapSet(_, _, entries) => {
                    let bytes =
                        entries.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>();
                    (0, INDEX_ENTRY_BYTES + bytes as u64)
                }
                Op::OmapSetHeader(_, _, header) => (0, INDEX_ENTRY_BYTES + header.len() as u64),
                Op::CloneRange { len, .. } => {
                    let blocks = len.div_ceil(BLOCK_BYTES) + 1;
                    (blocks * BLOCK_BYTES, INDEX_ENTRY_BYTES + 24 * blocks)
                }
                Op::Touch(..) => (0, INDEX_ENTRY_BYTES),
                _ => (0, 0),
            };
            takes = (takes.0 + data, takes.1 + index);
        }
        takes
    }
}
