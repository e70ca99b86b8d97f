//! Every bound and unit of the store, with its reason.

/// Unit of allocation and of checksums.
pub const BLOCK_BYTES: u64 = 4096;

/// Blocks under one entry of the index: 1 MiB. Small enough that a random overwrite rewrites about a
/// kilobyte of index at a checkpoint, large enough that an object of 4 MiB has four.
pub const SHARD_BLOCKS: usize = 256;

/// Largest object. RADOS stops at 128 MiB by default; image objects have 4 MiB.
pub const OBJECT_BYTES_MAX: u64 = 4 << 30;

/// Largest number of a transaction, an object or an omap. At 10^9 a second it is reached after 292 years; a
/// larger one is damage, and one more can be added to any of them.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Device blocks are numbered below this: the byte position of each is a `u64`.
pub const UNITS_MAX: u64 = 1 << 52;

/// Bytes of an object's encoded name, all parts together.
pub const NAME_BYTES_MAX: usize = 4096;

/// Bytes of the name of an extended attribute.
pub const XATTR_NAME_BYTES_MAX: usize = 256;

/// Bytes of the values and names of an object's extended attributes together: they live in its head.
pub const XATTRS_BYTES_MAX: usize = 64 << 10;

/// Bytes of an omap key.
pub const OMAP_KEY_BYTES_MAX: usize = 4096;

/// Bytes of an omap value or header.
pub const OMAP_VALUE_BYTES_MAX: usize = 1 << 20;

/// Aligned spans at least this long go to fresh extents before their record; shorter ones ride in the
/// record. At 64 KiB the second flush that fresh extents need (40-95 µs) costs about what writing the
/// payload twice does.
pub const DIRECT_BYTES_MIN: usize = 64 << 10;

/// Longest single write to the device: keeps the queue fair.
pub const IO_BYTES_MAX: usize = 1 << 20;

/// Longest single read of the device: an object's usual size, so that one that lies in one piece is answered
/// without a copy.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// Transactions accepted and not yet durable. One more is refused as busy.
pub const QUEUE_TRANSACTIONS_MAX: usize = 4096;

/// Payload bytes of those.
pub const QUEUE_BYTES_MAX: usize = 256 << 20;

/// Payload bytes in one log record: what one group commit makes durable together.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// Logged payload not yet in place, above which write-back works without being asked by a checkpoint. Beside it a
/// write takes several times as long, so that a burst of some seconds is to end before; memory is what bounds it.
pub const DIRTY_BYTES_START: usize = 32 << 20;

/// Writes to their place under way at once.
pub const WRITEBACK_DEPTH: usize = 32;

/// Longest write of neighbouring blocks to their place.
pub const WRITEBACK_BYTES_MAX: usize = 128 << 10;

/// Share of the log ring (1 / n) whose use starts a checkpoint.
pub const CHECKPOINT_LOG_SHARE: u64 = 2;

/// Index entries changed since the last checkpoint that start one. A checkpoint of random small writes rewrites most of
/// the index however few there were; memory is what bounds it, at some 300 bytes an entry.
pub const CHECKPOINT_ENTRIES: usize = 32 << 10;

/// Of the index region's capacity, the share (1 / n) that entries may come to, by the bytes of their
/// keys and values. The rest is what a copy-on-write tree needs: half-empty pages, the pages of the
/// previous state, and the doubling by which the index library grows its file.
pub const INDEX_FILL_SHARE: u64 = 6;

/// Of that share, what is kept for transactions that only remove (1 / n).
pub const INDEX_RESERVE_SHARE: u64 = 8;

/// Runs of freed blocks at least this long are given back to the medium, when an object was removed,
/// zeroed or truncated.
pub const DISCARD_BYTES_MIN: u64 = 64 << 10;

/// Longest one of them: a file takes no write meanwhile, and the space returns piece by piece.
pub const DISCARD_BYTES_MAX: u64 = 16 << 20;
