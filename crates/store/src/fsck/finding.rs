//! What can be wrong with a store, for people.

use crate::error::{Damage, ReadError, StoreError};
use cairn_types::PgId;
use thiserror::Error;

/// One thing that is wrong.
#[derive(Clone, Debug, Error)]
pub enum Finding {
    /// One copy of the superblock; the other is good.
    #[error("the superblock copy at device offset {offset} is damaged or differs from the other")]
    Superblock {
        /// Where.
        offset: u64,
    },
    /// From here on nothing more of the index could be read; what was not reached is not checked.
    #[error("the index cannot be read, what it holds was checked in part only: {0}")]
    Index(StoreError),
    /// An entry of the index that does not decode.
    #[error("{0}")]
    Entry(Damage),
    /// An object outside of any collection.
    #[error("object {object} is in placement group {pg}, which the store does not have")]
    NoCollection {
        /// Object.
        object: Box<str>,
        /// Its group.
        pg: PgId,
    },
    /// Two objects with the same blocks, or the same omap.
    #[error("object {object} has number {number}, which another object has too")]
    NumberTwice {
        /// The second of them.
        object: Box<str>,
        /// Number.
        number: u64,
    },
    /// A block that is none.
    #[error(
        "object {object} has byte {offset} at device offset {device_offset}, which is not in the data region"
    )]
    OutOfRange {
        /// Object.
        object: Box<str>,
        /// Byte of the object.
        offset: u64,
        /// Byte of the device.
        device_offset: u64,
    },
    /// A block behind the end of its object.
    #[error("object {object} of {size} bytes has a block at byte {offset} (device offset {device_offset})")]
    BeyondEnd {
        /// Object.
        object: Box<str>,
        /// Its size in bytes.
        size: u64,
        /// Byte of the object.
        offset: u64,
        /// Byte of the device.
        device_offset: u64,
    },
    /// A block that two slots refer to and that is not marked as shared in both.
    #[error(
        "object {object} has byte {offset} at device offset {device_offset}, which something else uses too, not marked as shared"
    )]
    CrossLinked {
        /// The second user.
        object: Box<str>,
        /// Byte of the object.
        offset: u64,
        /// Byte of the device.
        device_offset: u64,
    },
    /// A shared block under two checksums.
    #[error(
        "object {object} has checksum {expected:08x} for byte {offset}, the sharer of its block at device offset {device_offset} has {other:08x}"
    )]
    ChecksumsDiffer {
        /// The second user.
        object: Box<str>,
        /// Byte of the object.
        offset: u64,
        /// Byte of the device.
        device_offset: u64,
        /// This object's.
        expected: u32,
        /// The first user's.
        other: u32,
    },
    /// A count of sharers that is wrong.
    #[error("the block at device offset {device_offset} is used {counted} times, the index says {found}")]
    WrongRefs {
        /// Byte of the device.
        device_offset: u64,
        /// What there is.
        counted: u32,
        /// What the index says; 1 where it says nothing.
        found: u32,
    },
    /// Blocks that an object uses and the free map would give out again.
    #[error(
        "object {object} has {blocks} block(s) from byte {offset} at device offset {device_offset} that the free map has as free"
    )]
    UsedButFree {
        /// Object.
        object: Box<str>,
        /// First byte of the object.
        offset: u64,
        /// First byte of the device.
        device_offset: u64,
        /// How many blocks.
        blocks: u64,
    },
    /// Blocks that nothing uses and the free map has as used.
    #[error("{blocks} block(s) at device offset {device_offset} are marked as used, but nothing uses them")]
    Leaked {
        /// First byte of the device.
        device_offset: u64,
        /// How many blocks.
        blocks: u64,
    },
    /// Blocks of an object that is not there.
    #[error("part {shard} (of 1 MiB) of number {nid} belongs to no object")]
    OrphanShard {
        /// Number of the object that should be.
        nid: u64,
        /// Which part.
        shard: u32,
    },
    /// An omap of an object that is not there.
    #[error("omap {0} belongs to no object")]
    OrphanOmap(u64),
    /// A wrong counter.
    #[error("there are {counted} objects, the index says {found}")]
    ObjectCount {
        /// What there is.
        counted: u64,
        /// What the index says.
        found: u64,
    },
    /// A counter that would give a number again.
    #[error("number {used} is in use, the index would give {next} next")]
    NextNumber {
        /// Highest in use.
        used: u64,
        /// By the index.
        next: u64,
    },
    /// A block whose content is not what was written, or that cannot be read.
    #[error("{0}")]
    Data(ReadError),
}

impl Finding {
    /// Whether `repair` can mend it without losing anything that an object refers to.
    pub fn is_repairable(&self) -> bool {
        match self {
            Finding::Superblock { .. }
            | Finding::WrongRefs { .. }
            | Finding::UsedButFree { .. }
            | Finding::Leaked { .. }
            | Finding::OrphanShard { .. }
            | Finding::OrphanOmap(_)
            | Finding::ObjectCount { .. }
            | Finding::NextNumber { .. } => true,
            Finding::Index(_)
            | Finding::Entry(_)
            | Finding::NoCollection { .. }
            | Finding::NumberTwice { .. }
            | Finding::OutOfRange { .. }
            | Finding::BeyondEnd { .. }
            | Finding::CrossLinked { .. }
            | Finding::ChecksumsDiffer { .. }
            | Finding::Data(_) => false,
        }
    }

    /// Whether it hides a part of what the store refers to, so that what seems unused may be used.
    pub(super) fn hides_references(&self) -> bool {
        matches!(self, Finding::Index(_) | Finding::Entry(_))
    }
}
