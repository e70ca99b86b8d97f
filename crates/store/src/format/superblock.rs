//! The superblock, twice: at the start of the device and behind the log.

use super::codec::{Malformed, Put, Reader};
use super::features::Features;
use crate::device::BlockingDevice;
use crate::error::StoreError;
use crate::limits::BLOCK_BYTES;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// First bytes of a superblock. They, the version behind them and the checksum at the sector's end are
/// where they are in every version, so that each can tell that a store is of another.
pub const MAGIC: &[u8; 8] = b"cairnosd";
/// Version of the whole format.
pub const VERSION: u32 = 1;
/// A superblock's place.
pub const SUPERBLOCK_BYTES: u64 = BLOCK_BYTES;
/// Bytes of it that mean something: the least that any device writes as a whole.
const SECTOR: usize = 512;
/// Where the CRC-32 of everything before it in the sector is.
const CRC_AT: usize = SECTOR - 4;
/// Where fields end.
const FIELDS_END: usize = 132;

/// Who a store is and where its parts are. Written when it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// What it uses beyond this version.
    pub features: Features,
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
    /// What features not known to this version keep here.
    pub reserved: Reserved,
}

/// The part of a superblock that is zero in this version. Written back as it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Reserved([u8; CRC_AT - FIELDS_END]);

impl Default for Reserved {
    fn default() -> Self {
        Reserved([0; CRC_AT - FIELDS_END])
    }
}

impl fmt::Debug for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Reserved::default() { "zeros" } else { "in use" })
    }
}

impl Superblock {
    /// Where the copies are: the first block, and the one before the index.
    pub fn places(&self) -> [u64; 2] {
        [0, self.log_offset + self.log_bytes]
    }

    /// Whether this version may write to the store.
    ///
    /// # Errors
    /// [`StoreError::ReadOnlyFeatures`] when it must not.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.features.unknown_ro_compat().map_or(Ok(()), |bits| Err(StoreError::ReadOnlyFeatures(bits)))
    }

    /// One block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.log_unit_bytes);
        out.put_u64(self.features.compat);
        out.put_u64(self.features.ro_compat);
        out.put_u64(self.features.incompat);
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.cluster);
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
        out.put_u32(self.osd as u32);
        debug_assert_eq!(out.len(), FIELDS_END);
        out.extend_from_slice(&self.reserved.0);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        out.resize(SUPERBLOCK_BYTES as usize, 0);
        out
    }

    /// `None` where no superblock is, or a damaged one.
    ///
    /// # Errors
    /// One that this version cannot read.
    pub fn decode(block: &[u8]) -> Result<Option<Self>, StoreError> {
        let Some((sector, _)) = block.split_first_chunk::<SECTOR>() else { return Ok(None) };
        let mut reader = Reader::new(Bytes::copy_from_slice(sector));
        let crc = crc32fast::hash(&sector[..CRC_AT]).to_le_bytes();
        if !sector.starts_with(MAGIC) || sector[CRC_AT..] != crc {
            return Ok(None);
        }
        match Self::take(&mut reader) {
            Ok((VERSION, superblock)) => match superblock.features.unknown_incompat() {
                Some(bits) => Err(StoreError::IncompatFeatures(bits)),
                None => Ok(superblock.is_sound().then_some(superblock)),
            },
            Ok((found, _)) => Err(StoreError::Version { found, known: VERSION }),
            Err(Malformed) => Ok(None),
        }
    }

    fn take(reader: &mut Reader) -> Result<(u32, Self), Malformed> {
        reader.array::<8>()?;
        let version = reader.u32()?;
        let log_unit_bytes = reader.u32()?;
        let features = Features { compat: reader.u64()?, ro_compat: reader.u64()?, incompat: reader.u64()? };
        let (store, cluster) = (reader.array()?, reader.array()?);
        let superblock = Superblock {
            features,
            store,
            cluster,
            log_unit_bytes,
            device_bytes: reader.u64()?,
            log_offset: reader.u64()?,
            log_bytes: reader.u64()?,
            index_offset: reader.u64()?,
            index_bytes: reader.u64()?,
            data_offset: reader.u64()?,
            data_blocks: reader.u64()?,
            osd: reader.u32()? as i32,
            reserved: Reserved(reader.array()?),
        };
        Ok((version, superblock))
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

    /// Reads the first copy, or the second where the first is damaged or cannot be read.
    ///
    /// # Errors
    /// [`StoreError::NotAStore`], a version or feature that is not known, a device that shrank; the device's,
    /// when it refused to read the first copy and there is no second.
    pub fn read(device: &dyn BlockingDevice) -> Result<Self, StoreError> {
        let found_bytes = device.geometry().len_bytes;
        let mut block = vec![0; SUPERBLOCK_BYTES as usize];
        let mut refused = None;
        let mut found = None;
        // The second copy's place is told by the first; where that is lost it is found by looking.
        for place in std::iter::once(0).chain(second_places(found_bytes)) {
            if place + SUPERBLOCK_BYTES > found_bytes {
                break;
            }
            if let Err(source) = device.read_at(place, &mut block) {
                let source = Arc::new(source);
                let action = "read the superblock";
                refused.get_or_insert(StoreError::Device { action, offset: place, source });
                continue;
            }
            found = Superblock::decode(&block)?.filter(|superblock| superblock.places().contains(&place));
            if found.is_some() {
                break;
            }
        }
        let superblock = found.ok_or_else(|| refused.unwrap_or(StoreError::NotAStore))?;
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

/// Where the second copy may be.
pub fn second_places(device_bytes: u64) -> impl Iterator<Item = u64> {
    log_lengths()
        .map(|len| SUPERBLOCK_BYTES + len)
        .filter(move |place| place + SUPERBLOCK_BYTES <= device_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::{Fault, FaultRule, OpKind, SimDevice, SimHandle, SimOptions};
    use crate::dump::Dump;
    use crate::engine::runner::Inline;
    use crate::fsck::{self, FsckOptions};
    use crate::{CreateOptions, Engine, OpenOptions};

    const LOG_BYTES: u64 = 1 << 20;

    fn options() -> CreateOptions {
        CreateOptions { store: [7; 16], log_bytes: Some(LOG_BYTES), ..CreateOptions::default() }
    }

    fn store() -> (SimDevice, Arc<dyn BlockingDevice>) {
        let device = SimDevice::new(16 << 20, SimOptions::default());
        let blocking = device.handle().blocking();
        Engine::<SimDevice>::create(Arc::clone(&blocking), &options()).unwrap();
        (device, blocking)
    }

    /// A store as a later version would leave it, with something of its own in the reserved part.
    fn store_with(features: Features) -> (SimDevice, Arc<dyn BlockingDevice>, Superblock) {
        let (device, blocking) = store();
        let mut superblock = Superblock::read(&*blocking).unwrap();
        superblock.features = features;
        superblock.reserved.0[300] = 0x5a;
        for place in superblock.places() {
            blocking.write_at(place, &superblock.encode()).unwrap();
        }
        (device, blocking, superblock)
    }

    fn open(device: SimDevice) -> Result<Engine<SimDevice>, StoreError> {
        Engine::open(device, &OpenOptions::default(), Box::new(Inline::default()))
    }

    fn check(blocking: &Arc<dyn BlockingDevice>, repair: bool) -> Result<fsck::FsckReport, StoreError> {
        fsck::check(blocking, &FsckOptions { deep: true, repair }, &mut |_, _| {})
    }

    #[test]
    fn an_unknown_compat_feature_is_ignored_and_outlives_a_repair() {
        let features = Features { compat: 1 << 63 | 1, ..Features::default() };
        let (device, blocking, superblock) = store_with(features);
        assert!(check(&blocking, false).unwrap().is_clean());
        blocking.write_at(superblock.places()[1], &[0; 512]).unwrap();
        assert_eq!(check(&blocking, true).unwrap().repaired.len(), 1);
        let mut block = vec![0; SUPERBLOCK_BYTES as usize];
        blocking.read_at(superblock.places()[1], &mut block).unwrap();
        assert_eq!(Superblock::decode(&block).unwrap(), Some(superblock));
        open(device).unwrap();
    }

    #[test]
    fn an_unknown_ro_compat_feature_lets_read_but_not_write() {
        let features = Features { ro_compat: 1 << 3 | 1 << 40, ..Features::default() };
        let (device, blocking, _) = store_with(features);
        assert!(check(&blocking, false).unwrap().is_clean());
        assert_eq!(Dump::open(&blocking).unwrap().superblock().ro_compat_features, features.ro_compat);
        let handle = device.handle();
        let before = handle.event_count();
        for error in [check(&blocking, true).unwrap_err(), open(device).unwrap_err()] {
            assert!(matches!(error, StoreError::ReadOnlyFeatures(bits) if bits.mask() == features.ro_compat));
            assert!(error.to_string().contains("ro_compat feature bits 3, 40,"), "{error}");
        }
        assert_eq!(handle.event_count(), before, "nothing was written");
    }

    #[test]
    fn an_unknown_incompat_feature_is_refused() {
        let features = Features { incompat: 1 << 17, ..Features::default() };
        let (device, blocking, _) = store_with(features);
        let refusals = [
            check(&blocking, false).unwrap_err(),
            Dump::open(&blocking).unwrap_err(),
            Engine::<SimDevice>::create(Arc::clone(&blocking), &options()).unwrap_err(),
            open(device).unwrap_err(),
        ];
        for error in refusals {
            assert!(matches!(error, StoreError::IncompatFeatures(bits) if bits.mask() == 1 << 17), "{error}");
            assert!(error.to_string().contains("incompat feature bit 17,"), "{error}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number_whatever_else_it_has() {
        let (device, blocking) = store();
        let mut block = vec![0xff; SUPERBLOCK_BYTES as usize];
        block[..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = crc32fast::hash(&block[..508]);
        block[508..512].copy_from_slice(&crc.to_le_bytes());
        blocking.write_at(0, &block).unwrap();
        let error = open(device).unwrap_err();
        assert!(matches!(error, StoreError::Version { found: 2, known: 1 }), "{error}");
    }

    fn unreadable(handle: &SimHandle, start: u64) {
        let (kind, range) = (OpKind::Read, start..start + SUPERBLOCK_BYTES);
        let fault = Fault::Error(libc::EIO);
        handle.inject(FaultRule { kind, range, skip: 0, count: u64::MAX, fault });
    }

    #[test]
    fn a_copy_that_cannot_be_read_is_as_bad_as_one_that_is_wrong() {
        let (device, blocking) = store();
        let superblock = Superblock::read(&*blocking).unwrap();
        unreadable(&device.handle(), 0);
        assert_eq!(Superblock::read(&*blocking).unwrap(), superblock);
        unreadable(&device.handle(), superblock.places()[1]);
        let error = Superblock::read(&*blocking).unwrap_err();
        assert!(matches!(error, StoreError::Device { offset: 0, .. }), "not `no store`: {error}");
    }

    #[test]
    fn a_store_made_over_another_leaves_no_superblock_of_it() {
        let (_device, blocking) = store();
        let shorter = CreateOptions { log_bytes: Some(128 << 10), force: true, ..options() };
        let superblock = Engine::<SimDevice>::create(Arc::clone(&blocking), &shorter).unwrap();
        for place in superblock.places() {
            blocking.write_at(place, &[0; 512]).unwrap();
        }
        let error = Superblock::read(&*blocking).unwrap_err();
        assert!(matches!(error, StoreError::NotAStore), "{error}");
    }
}
