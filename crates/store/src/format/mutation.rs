//! What a transaction does, as the log has it: objects by key or number, blocks by their place.

use super::codec::{Malformed, Put, Reader};
use super::values::Head;
use crate::limits::{
    BLOCK_BYTES, NAME_BYTES_MAX, OBJECT_BYTES_MAX, OMAP_KEY_BYTES_MAX, OMAP_VALUE_BYTES_MAX, UNITS_MAX,
};
use crate::txn::Sums;
use bytes::Bytes;
use cairn_types::{PgId, PoolId};
use std::sync::Arc;

/// Longest encoded key: a name whose every byte is escaped, and the fixed parts.
pub const KEY_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 64;
/// Most blocks of an object.
const BLOCKS_MAX: u64 = OBJECT_BYTES_MAX / BLOCK_BYTES;

/// One step. Applying the same steps to the same state gives the same state.
#[derive(Clone, PartialEq, Debug)]
pub enum Mutation {
    /// The collection exists from here on.
    PutCollection(PgId),
    /// It does not any more.
    DropCollection(PgId),
    /// The object's head.
    PutHead {
        /// Its key.
        key: Bytes,
        /// All of it. Shared: the state keeps it as it is.
        head: Arc<Head>,
    },
    /// The name is gone. What its number held goes by `Unmap` and `DropOmap`, unless another name has it.
    DropHead {
        /// Its key.
        key: Bytes,
    },
    /// Blocks of an object are in these units, which nobody else holds.
    Map {
        /// The object's number.
        nid: u64,
        /// First block.
        block: u64,
        /// Unit of the first block; the others follow it.
        unit: u64,
        /// One per block.
        crcs: Sums,
        /// Content of all blocks, where it is in the log; otherwise it was durable before the record.
        payload: Option<Bytes>,
    },
    /// Blocks of an object are holes.
    Unmap {
        /// The object's number.
        nid: u64,
        /// First block.
        block: u64,
        /// How many.
        count: u64,
    },
    /// Blocks of one object are the same units as another's.
    Share {
        /// Number of the object they are taken from.
        from_nid: u64,
        /// First block there.
        from_block: u64,
        /// Number of the object that gets them.
        nid: u64,
        /// First block there.
        block: u64,
        /// How many.
        count: u64,
    },
    /// An omap entry.
    PutOmap {
        /// The omap's number.
        omap: u64,
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// No omap entry.
    DropOmapKey {
        /// The omap's number.
        omap: u64,
        /// Key.
        key: Bytes,
    },
    /// A whole omap goes.
    DropOmap {
        /// Its number.
        omap: u64,
    },
}

impl Mutation {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Mutation::PutCollection(pg) => put_pg(out, 1, pg),
            Mutation::DropCollection(pg) => put_pg(out, 2, pg),
            Mutation::PutHead { key, head } => {
                out.put_u8(3);
                out.put_bytes(key);
                head.encode_with_len(out);
            }
            Mutation::DropHead { key } => {
                out.put_u8(4);
                out.put_bytes(key);
            }
            Mutation::Map { nid, block, unit, crcs, payload } => {
                out.put_u8(if payload.is_some() { 5 } else { 6 });
                out.put_u64(*nid);
                out.put_u64(*block);
                out.put_u64(*unit);
                out.put_u32(crcs.len() as u32);
                crcs.iter().for_each(|crc| out.put_u32(*crc));
                if let Some(payload) = payload {
                    out.extend_from_slice(payload);
                }
            }
            Mutation::Unmap { nid, block, count } => {
                out.put_u8(7);
                [*nid, *block, *count].into_iter().for_each(|field| out.put_u64(field));
            }
            Mutation::Share { from_nid, from_block, nid, block, count } => {
                out.put_u8(8);
                [*from_nid, *from_block, *nid, *block, *count]
                    .into_iter()
                    .for_each(|field| out.put_u64(field));
            }
            Mutation::PutOmap { omap, key, value } => {
                out.put_u8(9);
                out.put_u64(*omap);
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Mutation::DropOmapKey { omap, key } => {
                out.put_u8(10);
                out.put_u64(*omap);
                out.put_bytes(key);
            }
            Mutation::DropOmap { omap } => {
                out.put_u8(11);
                out.put_u64(*omap);
            }
        }
    }

    /// Takes one.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            1 => Mutation::PutCollection(take_pg(reader)?),
            2 => Mutation::DropCollection(take_pg(reader)?),
            3 => {
                let key = reader.bytes(KEY_BYTES_MAX)?;
                Mutation::PutHead { key, head: Arc::new(Head::decode(reader.bytes(usize::MAX)?)?) }
            }
            4 => Mutation::DropHead { key: reader.bytes(KEY_BYTES_MAX)? },
            kind @ (5 | 6) => {
                let (nid, block, unit) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let count = reader.u32()? as usize;
                check_blocks(block, count as u64)?;
                let is_placed =
                    unit > 0 && unit.checked_add(count as u64).is_some_and(|end| end <= UNITS_MAX);
                if count * 4 > reader.left() || !is_placed {
                    return Err(Malformed);
                }
                let crcs = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
                let payload = match kind {
                    5 => Some(reader.take(count * BLOCK_BYTES as usize)?),
                    _ => None,
                };
                Mutation::Map { nid, block, unit, crcs, payload }
            }
            7 => {
                let (nid, block, count) = (reader.u64()?, reader.u64()?, reader.u64()?);
                check_blocks(block, count)?;
                Mutation::Unmap { nid, block, count }
            }
            8 => {
                let (from_nid, from_block) = (reader.u64()?, reader.u64()?);
                let (nid, block, count) = (reader.u64()?, reader.u64()?, reader.u64()?);
                check_blocks(from_block, count)?;
                check_blocks(block, count)?;
                Mutation::Share { from_nid, from_block, nid, block, count }
            }
            9 => Mutation::PutOmap {
                omap: reader.u64()?,
                key: reader.bytes(OMAP_KEY_BYTES_MAX)?,
                value: reader.bytes(OMAP_VALUE_BYTES_MAX)?,
            },
            10 => Mutation::DropOmapKey { omap: reader.u64()?, key: reader.bytes(OMAP_KEY_BYTES_MAX)? },
            11 => Mutation::DropOmap { omap: reader.u64()? },
            _ => return Err(Malformed),
        })
    }
}

fn check_blocks(block: u64, count: u64) -> Result<(), Malformed> {
    if count > 0 && block.checked_add(count).is_some_and(|end| end <= BLOCKS_MAX) {
        Ok(())
    } else {
        Err(Malformed)
    }
}

fn put_pg(out: &mut Vec<u8>, kind: u8, pg: &PgId) {
    out.put_u8(kind);
    out.put_u64(pg.pool.0 as u64);
    out.put_u32(pg.seed);
}

fn take_pg(reader: &mut Reader) -> Result<PgId, Malformed> {
    Ok(PgId { pool: PoolId(reader.u64()? as i64), seed: reader.u32()? })
}
