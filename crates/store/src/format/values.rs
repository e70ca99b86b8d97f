//! Values of the index: heads, shards, the checkpoint.

use super::codec::{Malformed, Put, Reader};
use crate::limits::{
    OBJECT_BYTES_MAX, OMAP_VALUE_BYTES_MAX, SHARD_BLOCKS, UNITS_MAX, XATTR_NAME_BYTES_MAX, XATTRS_BYTES_MAX,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// First byte of a value: its version.
const VERSION: u8 = 1;

/// What is known of an object besides its blocks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The object's number in this store, for ever its own.
    pub nid: u64,
    /// Bytes.
    pub size: u64,
    /// Under which number its omap is kept; 0 while it has none.
    pub omap: u64,
    /// The omap's header.
    pub omap_header: Bytes,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Bytes>,
}

impl Head {
    /// As a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.put(&mut out);
        out
    }

    /// Appends its length and the value, as [`Put::put_bytes`] would.
    pub fn encode_with_len(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.put_u32(0);
        self.put(out);
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u64(self.nid);
        out.put_u64(self.size);
        out.put_u64(self.omap);
        out.put_bytes(&self.omap_header);
        out.put_u32(self.xattrs.len() as u32);
        for (name, value) in &self.xattrs {
            out.put_bytes(name.as_bytes());
            out.put_bytes(value);
        }
    }

    /// From a value.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let head = Self::take(&mut reader)?;
        reader.end()?;
        Ok(head)
    }

    fn take(reader: &mut Reader) -> Result<Self, Malformed> {
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let mut head = Head {
            nid: reader.number()?,
            size: reader.u64()?,
            omap: reader.number()?,
            omap_header: reader.bytes(OMAP_VALUE_BYTES_MAX)?,
            xattrs: BTreeMap::new(),
        };
        let mut room = XATTRS_BYTES_MAX;
        for _ in 0..reader.u32()? {
            let name = reader.string(XATTR_NAME_BYTES_MAX)?;
            let value = reader.bytes(XATTRS_BYTES_MAX)?;
            room = room.checked_sub(name.len() + value.len()).ok_or(Malformed)?;
            if head.xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(Malformed);
            }
            head.xattrs.insert(name, value);
        }
        if head.size <= OBJECT_BYTES_MAX { Ok(head) } else { Err(Malformed) }
    }
}

/// Where one block is. Unit 0 never holds data: it stands for a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// Device block: byte position divided by 4096; 0 for a hole.
    pub unit: u64,
    /// CRC-32 of the block; 0 for a hole.
    pub crc: u32,
    /// Another slot may refer to the same unit: look at its count before writing or freeing.
    pub shared: bool,
}

impl Slot {
    /// Reads as zeros.
    pub const HOLE: Slot = Slot { unit: 0, crc: 0, shared: false };

    /// Whether it reads as zeros.
    pub fn is_hole(&self) -> bool {
        self.unit == 0
    }
}

/// The blocks of one MiB of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shard {
    /// By block.
    pub slots: [Slot; SHARD_BLOCKS],
}

impl Default for Shard {
    fn default() -> Self {
        Shard { slots: [Slot::HOLE; SHARD_BLOCKS] }
    }
}

impl Shard {
    /// Whether it holds nothing, so that it need not be kept.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Slot::is_hole)
    }

    /// Runs of neighbours: (first block, count, unit, shared), then the checksums of all in order.
    pub fn encode(&self) -> Vec<u8> {
        let mut runs: Vec<(u8, u8, u64, bool)> = Vec::new();
        for (block, slot) in self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_hole()) {
            match runs.last_mut() {
                // A count is kept less one, so that a run may have all 256.
                Some((first, more, unit, shared))
                    if usize::from(*first) + usize::from(*more) + 1 == block
                        && *unit + u64::from(*more) + 1 == slot.unit
                        && *shared == slot.shared =>
                {
                    *more += 1;
                }
                _ => runs.push((block as u8, 0, slot.unit, slot.shared)),
            }
        }
        let mut out = Vec::with_capacity(5 + runs.len() * 10 + SHARD_BLOCKS * 4);
        out.put_u8(VERSION);
        out.put_u32(runs.len() as u32);
        for (first, more, unit, shared) in runs {
            out.put_u8(first);
            out.put_u8(more);
            out.put_u64(unit << 1 | u64::from(shared));
        }
        for slot in self.slots.iter().filter(|slot| !slot.is_hole()) {
            out.put_u32(slot.crc);
        }
        out
    }

    /// From a value.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let count = reader.u32()? as usize;
        if count > SHARD_BLOCKS {
            return Err(Malformed);
        }
        let mut shard = Shard::default();
        let mut next = 0;
        // What would go on from the run before in every way.
        let mut joined = None;
        for _ in 0..count {
            let first = usize::from(reader.u8()?);
            let len = usize::from(reader.u8()?) + 1;
            let word = reader.u64()?;
            let (unit, shared) = (word >> 1, word & 1 == 1);
            let end = unit + len as u64;
            if first < next || first + len > SHARD_BLOCKS || unit == 0 || end > UNITS_MAX {
                return Err(Malformed);
            }
            // One state has one form.
            if joined == Some((first, unit, shared)) {
                return Err(Malformed);
            }
            joined = Some((first + len, end, shared));
            for (step, slot) in shard.slots[first..first + len].iter_mut().enumerate() {
                *slot = Slot { unit: unit + step as u64, crc: 0, shared };
            }
            next = first + len;
        }
        for slot in shard.slots.iter_mut().filter(|slot| !slot.is_hole()) {
            slot.crc = reader.u32()?;
        }
        reader.end()?;
        Ok(shard)
    }
}

/// Up to where the index holds everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// The first transaction that is only in the log.
    pub next_seq: u64,
    /// Where its record starts, as an offset in the ring.
    pub log_position: u64,
    /// The next object number to give.
    pub next_nid: u64,
    /// Objects in all collections.
    pub objects: u64,
    /// Bytes of keys and values in the index.
    pub index_bytes: u64,
}

impl Checkpoint {
    /// As a value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for field in [self.next_seq, self.log_position, self.next_nid, self.objects, self.index_bytes] {
            out.put_u64(field);
        }
        out
    }

    /// From a value.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let checkpoint = Checkpoint {
            next_seq: reader.number()?,
            log_position: reader.u64()?,
            next_nid: reader.number()?,
            objects: reader.u64()?,
            index_bytes: reader.u64()?,
        };
        reader.end()?;
        // Both count from 1.
        if checkpoint.next_seq > 0 && checkpoint.next_nid > 0 { Ok(checkpoint) } else { Err(Malformed) }
    }
}
