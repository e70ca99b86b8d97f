//! The superblock, twice: at the start of the device and behind the log.

use super::codec::{Malformed, Put, Reader};
use crate::device::BlockingDevice;
use crate::error::StoreError;
use crate::limits::BLOCK_BYTES;
use bytes::Bytes;
use std::sync::Arc;

/// First bytes of a superblock.
pub const MAGIC: &[u8; 8] = b"cairnosd";
/// Version of the whole format.
pub const VERSION: u32 = 1;
/// Features this version knows that make a store unreadable to those who do not.
pub const FEATURES_KNOWN: u64 = 0;
/// A superblock's place.
pub const SUPERBLOCK_BYTES: u64 = BLOCK_BYTES;

/// Who a store is and where its parts are. Written when it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Features a reader must know.
    pub features: u64,
    /// The store's own random number.
    pub store: [u8; 16],
    /// The cluster's number; zero before it is known.
    pub cluster: [u8; 16],
    /// The OSD's number; −1 before it is known.
    pub osd: i32,
    /// Bytes of the device that are used.
    pub device_bytes: u64,
    /// Unit of log writes: the sector of the device it was made on.
    pub log_unit_bytes: u32,
    /// Where the log ring starts.
    pub log_offset: u64,
    /// Its length.
    pub log_bytes: u64,
    /// Where the index region starts.
    pub index_offset: u64,
    /// Its length.
    pub index_bytes: u64,
    /// Where data starts.
    pub data_offset: u64,
    /// How many blocks of 4 KiB it has.
    pub data_blocks: u64,
}

impl Superblock {
    /// Where the copies are: the first block, and the one before the index.
    pub fn places(&self) -> [u64; 2] {
        [0, self.log_offset + self.log_bytes]
    }

    /// One block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.log_unit_bytes);
        out.put_u64(self.features);
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.cluster);
        out.put_u32(self.osd as u32);
        out.put_u32(0);
        for field in [
            self.device_bytes,
            self.log_offset,
            self.log_bytes,
            self.index_offset,
            self.index_bytes,
            self.data_offset,
            self.data_blocks,
        ] {
            out.put_u64(field);
        }
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.resize(SUPERBLOCK_BYTES as usize, 0);
        out
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Option<Self>, StoreError> {
        const FIELDS: usize = 8 + 4 + 4 + 8 + 16 + 16 + 4 + 4 + 7 * 8;
        let Some(fields) = block.get(..FIELDS) else { return Ok(None) };
        if &fields[..8] != MAGIC {
            return Ok(None);
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(&block[8..FIELDS + 4]));
        let parsed = (|| {
            let version = reader.u32()?;
            let log_unit_bytes = reader.u32()?;
            let features = reader.u64()?;
            let store = reader.take(16)?;
            let cluster = reader.take(16)?;
            let osd = reader.u32()? as i32;
            reader.u32()?;
            let mut next = || reader.u64();
            let superblock = Superblock {
                features,
                store: store.as_ref().try_into().map_err(|_| Malformed)?,
                cluster: cluster.as_ref().try_into().map_err(|_| Malformed)?,
                osd,
                log_unit_bytes,
                device_bytes: next()?,
                log_offset: next()?,
                log_bytes: next()?,
                index_offset: next()?,
                index_bytes: next()?,
                data_offset: next()?,
                data_blocks: next()?,
            };
            Ok::<_, Malformed>((version, superblock, reader.u32()?))
        })();
        let Ok((version, superblock, crc)) = parsed else { return Ok(None) };
        if crc != crc32fast::hash(fields) {
            return Ok(None);
        }
        if version != VERSION {
            return Err(StoreError::Version { found: version, known: VERSION });
        }
        if superblock.features & !FEATURES_KNOWN != 0 {
            return Err(StoreError::Features(superblock.features & !FEATURES_KNOWN));
        }
        Ok(superblock.is_sound().then_some(superblock))
    }

    /// The parts lie one after the other, aligned, within the device.
    fn is_sound(&self) -> bool {
        let aligned =
            [self.log_offset, self.log_bytes, self.index_offset, self.index_bytes, self.data_offset]
                .iter()
                .all(|field| field % BLOCK_BYTES == 0);
        let behind = |start: u64, len: u64, next: u64| start.checked_add(len).is_some_and(|end| end <= next);
        aligned
            && matches!(self.log_unit_bytes, 512 | 4096)
            && self.log_offset >= SUPERBLOCK_BYTES
            && self.log_bytes >= 16 * BLOCK_BYTES
            && behind(self.log_offset, self.log_bytes.saturating_add(SUPERBLOCK_BYTES), self.index_offset)
            && behind(self.index_offset, self.index_bytes, self.data_offset)
            && self
                .data_blocks
                .checked_mul(BLOCK_BYTES)
                .is_some_and(|len| behind(self.data_offset, len, self.device_bytes))
    }

    /// Reads the first copy, or the second where the first is damaged.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], a version or feature that is not known, a device that shrank.
    pub fn read(device: &dyn BlockingDevice) -> Result<Self, StoreError> {
        let found_bytes = device.geometry().len_bytes;
        let mut block = vec![0; SUPERBLOCK_BYTES as usize];
        let mut read = |offset: u64| {
            if offset + SUPERBLOCK_BYTES > found_bytes {
                return Ok(None);
            }
            device.read_at(offset, &mut block).map_err(|source| StoreError::Device {
                action: "read the superblock",
                offset,
                source: Arc::new(source),
            })?;
            Superblock::decode(&block)
        };
        // The second copy's place is told by the first; where that is lost it is found by looking: the log
        // is a whole number of these long, see `layout`.
        let found = match read(0)? {
            Some(found) => Some(found),
            None => {
                let mut found = None;
                for place in second_places(found_bytes) {
                    found = read(place)?.filter(|superblock| superblock.places()[1] == place);
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        let superblock = found.ok_or(StoreError::NotAStore)?;
        if superblock.device_bytes > found_bytes {
            return Err(StoreError::Truncated { wanted: superblock.device_bytes, found: found_bytes });
        }
        Ok(superblock)
    }
}

/// Lengths a log ring may have: powers of two from 128 KiB to 4 GiB, so that the second superblock can
/// be found when the first is lost.
pub fn log_lengths() -> impl DoubleEndedIterator<Item = u64> {
    (17..=32).map(|power| 1_u64 << power)
}

fn second_places(device_bytes: u64) -> impl Iterator<Item = u64> {
    log_lengths()
        .map(|len| SUPERBLOCK_BYTES + len)
        .filter(move |place| place + SUPERBLOCK_BYTES <= device_bytes)
}
