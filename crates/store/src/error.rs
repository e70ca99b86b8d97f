//! What can go wrong, one type per boundary.

use crate::device::file::OpenError;
use crate::format::features::FeatureBits;
use cairn_types::{ObjectId, PgId};
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// A store cannot be made, opened or go on.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The file or block device cannot be opened.
    #[error(transparent)]
    Open(#[from] Arc<OpenError>),
    /// The device failed.
    #[error("cannot {action} at device offset {offset}: {source}")]
    Device {
        /// What was being done.
        action: &'static str,
        /// Byte position on the device.
        offset: u64,
        /// The device's word.
        source: Arc<io::Error>,
    },
    /// The device may not keep what was written.
    #[error("cannot flush the device: {0}")]
    Flush(Arc<io::Error>),
    /// Neither superblock is one.
    #[error("this is not a cairn store: no superblock found (make one with `cairn store create`)")]
    NotAStore,
    /// There is one already.
    #[error("this already is the store of osd.{osd}; remove it first, or say --force to lose what it holds")]
    AlreadyAStore {
        /// Whose.
        osd: i32,
    },
    /// Made by another version.
    #[error("the store has format version {found}; this cairn knows {known}: use the version that wrote it")]
    Version {
        /// In the superblock.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Uses something without which it cannot be read.
    #[error(
        "the store cannot be read: it uses incompat feature {0}, unknown to this cairn; use the version that wrote it"
    )]
    IncompatFeatures(FeatureBits),
    /// Uses something that a writer must know.
    #[error(
        "the store can be looked at (`cairn store info`, `fsck`, `dump`) but not written: it uses ro_compat feature {0}, unknown to this cairn; use the version that wrote it"
    )]
    ReadOnlyFeatures(FeatureBits),
    /// The device shrank.
    #[error(
        "the store was made on {wanted} bytes but the device has {found}: it was truncated, or this is not its device"
    )]
    Truncated {
        /// By the superblock.
        wanted: u64,
        /// By the device.
        found: u64,
    },
    /// The device tears less finely than the one the store was made on.
    #[error(
        "the store was made for sectors of {made} bytes and this device has {found}: a record could tear the one before it; use a device of such sectors, or make the OSD anew"
    )]
    Sector {
        /// By the superblock.
        made: u32,
        /// By the device.
        found: u32,
    },
    /// Belongs to another cluster.
    #[error("the store belongs to cluster {found}, not to {wanted}")]
    OtherCluster {
        /// By the superblock.
        found: String,
        /// Asked for.
        wanted: String,
    },
    /// The device is too small, or a region does not fit.
    #[error("{what}: {given} bytes given, at least {least} needed")]
    TooSmall {
        /// What does not fit.
        what: &'static str,
        /// Bytes there are.
        given: u64,
        /// Bytes there must be.
        least: u64,
    },
    /// What is stored makes no sense.
    #[error(
        "the store is damaged: {0}; check it with `cairn store fsck`, or destroy the OSD and let it be filled again"
    )]
    Damaged(Damage),
    /// The index library reports an error.
    #[error("the index failed: {0}")]
    Index(Arc<redb::Error>),
    /// A part of the program gave up on what it met: a page of the index with a right checksum and a content
    /// that cannot be, or a bug.
    #[error("a panic in the store: {0}; check it with `cairn store fsck`")]
    Panicked(Arc<str>),
    /// A write, flush or index error happened before; nothing is written since.
    #[error("the store stopped after an error and must be opened anew: {0}")]
    Poisoned(Arc<StoreError>),
    /// A transaction was refused, and what comes after it may build on it.
    #[error("a change was refused: {0}")]
    Refused(Arc<TransactionError>),
    /// The thread that owns the store is gone.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Of what `catch_unwind` caught.
    pub(crate) fn of_panic(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        StoreError::Panicked(text.unwrap_or("without a word").into())
    }
}

/// Where stored data contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Damage {
    /// A value of the index does not decode.
    #[error("the {table} entry {key} does not decode")]
    Entry {
        /// Which table.
        table: &'static str,
        /// Its key, readable.
        key: String,
    },
    /// The index has no checkpoint.
    #[error("the index has no checkpoint")]
    NoCheckpoint,
    /// A record that counts does not decode, or does not fit the state before it.
    #[error("log record {seq} at device offset {offset} does not apply: {why}")]
    Record {
        /// First transaction in it.
        seq: u64,
        /// Where.
        offset: u64,
        /// Why.
        why: &'static str,
    },
}

impl From<Damage> for StoreError {
    fn from(damage: Damage) -> Self {
        StoreError::Damaged(damage)
    }
}

impl<E: Into<redb::Error>> From<IndexError<E>> for StoreError {
    fn from(error: IndexError<E>) -> Self {
        StoreError::Index(Arc::new(error.0.into()))
    }
}

/// Carries any error of the index library to [`StoreError::Index`].
pub(crate) struct IndexError<E>(pub E);

/// Why one transaction was refused. Nothing of it happened.
#[derive(Clone, Debug, Error)]
pub enum TransactionError {
    /// No such collection.
    #[error("placement group {0} is not in this store")]
    NoCollection(PgId),
    /// It exists.
    #[error("placement group {0} is in this store already")]
    CollectionExists(PgId),
    /// It has objects.
    #[error("placement group {0} still has objects")]
    CollectionNotEmpty(PgId),
    /// No such object.
    #[error("object {object} does not exist in {pg}")]
    NoObject {
        /// Collection.
        pg: PgId,
        /// Object.
        object: Box<ObjectId>,
    },
    /// It exists.
    #[error("object {object} exists in {pg} already")]
    ObjectExists {
        /// Collection.
        pg: PgId,
        /// Object.
        object: Box<ObjectId>,
    },
    /// A limit of the store.
    #[error("{what} of {given} is above the limit of {limit}")]
    TooLarge {
        /// What is limited.
        what: &'static str,
        /// What was asked.
        given: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Checksums that do not fit the data.
    #[error(
        "{given} checksums for a write of {len} bytes at {offset}: one per 4 KiB block is wanted, of whole blocks"
    )]
    Checksums {
        /// How many came.
        given: usize,
        /// Offset of the write.
        offset: u64,
        /// Length of the write.
        len: u64,
    },
    /// Data and the checksum that came with it differ.
    #[error(
        "block {block} of the data came with checksum {given:08x} but has {found:08x}: it was damaged on its way here"
    )]
    ChecksumMismatch {
        /// Block within the write.
        block: usize,
        /// Given.
        given: u32,
        /// Computed.
        found: u32,
    },
    /// No room.
    #[error("the store is full: {wanted} bytes wanted, {free} free; remove objects or add disks")]
    NoSpace {
        /// Bytes of new blocks.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// No room for another name.
    #[error("the index of the store is full: remove objects")]
    IndexFull,
    /// A block that is to be changed in part cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store stopped.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a read was not answered.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// No such object.
    #[error("object {object} does not exist in {pg}")]
    NoObject {
        /// Collection.
        pg: PgId,
        /// Object.
        object: Box<ObjectId>,
    },
    /// What the device gave is not what was written.
    #[error(
        "object {object} is damaged at byte {offset}: the block at device offset {device_offset} has checksum {found:08x}, expected {expected:08x}"
    )]
    Corrupt {
        /// Object.
        object: Box<str>,
        /// Byte of the object at which the block starts.
        offset: u64,
        /// Where the block is.
        device_offset: u64,
        /// By the index.
        expected: u32,
        /// By the data.
        found: u32,
    },
    /// The device refused.
    #[error("object {object} cannot be read at byte {offset} (device offset {device_offset}): {source}")]
    Device {
        /// Object.
        object: Box<str>,
        /// Byte of the object.
        offset: u64,
        /// Where on the device.
        device_offset: u64,
        /// The device's word.
        source: Arc<io::Error>,
    },
    /// The store stopped.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a request was not taken in.
#[derive(Clone, Debug, Error)]
pub enum SubmitError {
    /// The queue is full: wait for completions and try again.
    #[error("the store's queue is full")]
    Busy,
    /// The store stopped.
    #[error(transparent)]
    Store(#[from] StoreError),
}
