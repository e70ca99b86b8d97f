//! A range of a device under a checksum per 4 KiB, in the form the index library wants its storage.
//!
//! The library keeps checksums of its own but trusts what it reads while it runs: a rotten page is
//! a wrong answer or a panic. Here every block is verified on every read, so that it is an error.
//!
//! ```text
//! head block | table blocks, one for 1016 data blocks | data blocks
//! ```
//!
//! **Head** (little-endian): magic `cairnidx`, version u32, 0 u32, logical length u64, the two
//! checksums that data block 0 may have u32 × 2, CRC-32 of all this u32. **Table**: in every sector
//! of 512 bytes 127 entries and the CRC-32 of them and of the sector's number in the table (u32). An
//! entry is the CRC-32 (IEEE) of its block, with 1 for 0; 0 means never written. The library never
//! reads such a block (it writes whole pages before it reads them), so that is an error: else a
//! lost write of the table would make pages of zeros.
//!
//! Why this survives a power cut: the library never writes a block that the last committed state
//! refers to, except block 0, so an entry that is lost, torn (a sector of the table is old or new,
//! and an entry lies within one) or ahead of its block belongs to a block nobody reads. It must commit
//! in two phases (`set_quick_repair`), else it looks at uncommitted blocks after a cut and meets an
//! error where it wants to see a bad checksum of its own. Block 0 is written in place, its meaning
//! within its first sector: it is held back until the head with its new checksum beside the old one is
//! stable, and after a cut it has one or the other.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BlockingDevice;
use bytes::Bytes;

/// The unit of a checksum: the index library's page.
const BLOCK: u64 = 4096;
/// What a power cut does not tear on any device.
const SECTOR: u64 = 512;
/// The rest of a sector of the table is its own checksum.
const ENTRIES_PER_SECTOR: u64 = SECTOR / 4 - 1;
const ENTRIES_PER_BLOCK: u64 = BLOCK / SECTOR * ENTRIES_PER_SECTOR;
/// Written blocks kept back to be written together, several at once and neighbours as one.
const HELD_BLOCKS_MAX: usize = 2048;
/// Longest write that neighbours are joined to.
const JOINED_BYTES_MAX: usize = 256 << 10;
const MAGIC: &[u8; 8] = b"cairnidx";
const VERSION: u32 = 1;
/// Bytes of the head that mean something; all within one sector.
const HEAD_BYTES: usize = 36;

/// The region. Implements [`redb::StorageBackend`].
#[derive(Debug)]
pub struct CheckedRegion {
    device: Arc<dyn BlockingDevice>,
    /// Byte position of the head on the device.
    start: u64,
    table_blocks: u64,
    data_blocks: u64,
    state: Mutex<State>,
    /// Held by whoever brings it to the medium.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    len_bytes: u64,
    table: Vec<u32>,
    /// Blocks of the table that are ahead of the device.
    dirty: Vec<bool>,
    /// Blocks but 0 that the device does not have yet. It gets them before a sync ends.
    held: BTreeMap<u64, Bytes>,
    /// Block 0 as last written, when the device does not have it yet.
    first: Option<Box<[u8; BLOCK as usize]>>,
    /// Checksum of block 0 on the device.
    first_stable: u32,
}

impl CheckedRegion {
    /// Most bytes the library can use in a region of `len_bytes`.
    pub fn capacity_bytes(len_bytes: u64) -> u64 {
        layout(len_bytes).1 * BLOCK
    }

    /// Makes an empty region in `len_bytes` from `start`, both multiples of 4 KiB, and opens it.
    ///
    /// # Errors
    /// The device's.
    pub fn create(device: Arc<dyn BlockingDevice>, start: u64, len_bytes: u64) -> io::Result<Self> {
        let (table_blocks, data_blocks) = layout(len_bytes);
        for block in 0..table_blocks {
            device.write_at(start + (1 + block) * BLOCK, &table_block(block, &[]))?;
        }
        // Block 0: what it has beyond its first sector never changes.
        device.write_at(start + (1 + table_blocks) * BLOCK, &[0; BLOCK as usize])?;
        let region = CheckedRegion {
            device,
            start,
            table_blocks,
            data_blocks,
            state: Mutex::new(State {
                len_bytes: 0,
                table: vec![0; data_blocks as usize],
                dirty: vec![false; table_blocks as usize],
                held: BTreeMap::new(),
                first: None,
                first_stable: 0,
            }),
            syncing: Mutex::new(()),
        };
        region.device.write_at(start, &head(0, 0, 0))?;
        region.device.sync()?;
        Ok(region)
    }

    /// Opens the region made with the same `start` and `len_bytes`.
    ///
    /// # Errors
    /// The device's; `InvalidData` when the head or block 0 is damaged.
    pub fn open(device: Arc<dyn BlockingDevice>, start: u64, len_bytes: u64) -> io::Result<Self> {
        let (table_blocks, data_blocks) = layout(len_bytes);
        let mut bytes = vec![0; BLOCK as usize];
        device.read_at(start, &mut bytes)?;
        let damaged = || invalid(format!("the head of the index region at {start} is damaged"));
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if &bytes[..8] != MAGIC || field(32) != crc32fast::hash(&bytes[..32]) {
            return Err(damaged());
        }
        if field(8) != VERSION {
            return Err(invalid(format!(
                "the index region at {start} has version {}; {VERSION} is known",
                field(8)
            )));
        }
        let len = u64::from(field(16)) | u64::from(field(20)) << 32;
        if len > data_blocks * BLOCK || field(12) != 0 {
            return Err(damaged());
        }
        let allowed = [field(24), field(28)];
        let mut sectors = vec![0u8; (table_blocks * BLOCK) as usize];
        device.read_at(start + BLOCK, &mut sectors)?;
        let mut table = Vec::with_capacity((table_blocks * ENTRIES_PER_BLOCK) as usize);
        for (number, sector) in sectors.chunks_exact(SECTOR as usize).enumerate() {
            let mut words =
                sector.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            table.extend(words.by_ref().take(ENTRIES_PER_SECTOR as usize));
            if words.next() != Some(sector_checksum(number as u64, sector)) {
                let position = start + BLOCK + number as u64 * SECTOR;
                return Err(invalid(format!(
                    "the index's checksum table is damaged at device offset {position}"
                )));
            }
        }
        table.truncate(data_blocks as usize);
        let mut first_stable = 0;
        if allowed != [0, 0] {
            device.read_at(start + (1 + table_blocks) * BLOCK, &mut bytes)?;
            first_stable = checksum(&bytes);
            // Announced but not written when the power went.
            let unwritten = allowed[0] == 0 && bytes.iter().all(|byte| *byte == 0);
            if unwritten {
                first_stable = 0;
            } else if !allowed.contains(&first_stable) {
                return Err(invalid(format!("block 0 of the index region at {start} is damaged")));
            }
        }
        table[0] = first_stable;
        let state = State {
            len_bytes: len,
            table,
            dirty: vec![false; table_blocks as usize],
            held: BTreeMap::new(),
            first: None,
            first_stable,
        };
        Ok(CheckedRegion {
            device,
            start,
            table_blocks,
            data_blocks,
            state: Mutex::new(state),
            syncing: Mutex::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, block: u64) -> u64 {
        self.start + (1 + self.table_blocks + block) * BLOCK
    }

    /// Reads whole blocks and verifies them.
    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let count = out.len() as u64 / BLOCK;
        let state = self.lock();
        let mut expected = state.table[first as usize..(first + count) as usize].to_vec();
        let held_first = if first == 0 { state.first.clone() } else { None };
        let held: Vec<(u64, Bytes)> =
            state.held.range(first..first + count).map(|(block, bytes)| (*block, bytes.clone())).collect();
        drop(state);
        if (held.len() as u64) < count {
            self.device.read_at(self.position(first), out)?;
        }
        if let Some(held) = held_first {
            out[..BLOCK as usize].copy_from_slice(&held[..]);
            expected[0] = checksum(&held[..]);
        }
        for (block, bytes) in held {
            let at = ((block - first) * BLOCK) as usize;
            out[at..at + BLOCK as usize].copy_from_slice(&bytes);
        }
        for (index, (bytes, expected)) in out.chunks_exact(BLOCK as usize).zip(&expected).enumerate() {
            let found = checksum(bytes);
            if found != *expected {
                let block = first + index as u64;
                return Err(invalid(format!(
                    "index block {block} at device offset {} has checksum {found:08x}, expected {expected:08x}",
                    self.position(block)
                )));
            }
        }
        Ok(())
    }

    /// Brings what is held back, the table and the head, then block 0 to the medium.
    fn write_out(
        &self,
        indices: &[usize],
        blocks: Vec<Vec<u8>>,
        head: Vec<u8>,
        first: Option<&[u8; BLOCK as usize]>,
    ) -> io::Result<()> {
        let places = indices.iter().map(|index| self.start + (1 + *index as u64) * BLOCK);
        let mut pieces: Vec<(u64, Vec<u8>)> = places.zip(blocks).collect();
        pieces.push((self.start, head));
        self.write_held(pieces)?;
        self.device.sync()?;
        if let Some(first) = first {
            self.device.write_at(self.position(0), first)?;
            self.device.sync()?;
        }
        Ok(())
    }

    /// Writes what is held back, and other pieces with it. By whoever holds `syncing`.
    fn write_held(&self, mut pieces: Vec<(u64, Vec<u8>)>) -> io::Result<()> {
        let held: Vec<(u64, Bytes)> =
            self.lock().held.iter().map(|(block, bytes)| (*block, bytes.clone())).collect();
        let mut next = None;
        for (block, bytes) in &held {
            match pieces.last_mut() {
                Some((_, joined)) if next == Some(*block) && joined.len() < JOINED_BYTES_MAX => {
                    joined.extend_from_slice(bytes);
                }
                _ => pieces.push((self.position(*block), bytes.to_vec())),
            }
            next = Some(block + 1);
        }
        self.device.write_each(&pieces)?;
        let mut state = self.lock();
        for (block, bytes) in held {
            // Unless it was written anew meanwhile.
            if state.held.get(&block).is_some_and(|now| now.as_ptr() == bytes.as_ptr()) {
                state.held.remove(&block);
            }
        }
        Ok(())
    }

    fn is_written(&self, block: u64) -> bool {
        self.lock().table[block as usize] != 0
    }

    fn check(&self, offset: u64, len: u64, within: u64, past_end: io::ErrorKind) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= within => Ok(()),
            _ => Err(past_end.into()),
        }
    }

    fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        for (index, bytes) in data.chunks_exact(BLOCK as usize).enumerate() {
            let block = first + index as u64;
            state.table[block as usize] = checksum(bytes);
            state.dirty[(block / ENTRIES_PER_BLOCK) as usize] = true;
        }
        let (first, data) = if first == 0 {
            let mut held = Box::new([0; BLOCK as usize]);
            held.copy_from_slice(&data[..BLOCK as usize]);
            state.first = Some(held);
            (1, &data[BLOCK as usize..])
        } else {
            (first, data)
        };
        for (block, bytes) in (first..).zip(data.chunks_exact(BLOCK as usize)) {
            state.held.insert(block, Bytes::copy_from_slice(bytes));
        }
        let is_full = state.held.len() >= HELD_BLOCKS_MAX;
        drop(state);
        if !is_full {
            return Ok(());
        }
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_held(Vec::new())
    }
}

impl redb::StorageBackend for CheckedRegion {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len_bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let len_bytes = self.lock().len_bytes;
        self.check(offset, out.len() as u64, len_bytes, io::ErrorKind::UnexpectedEof)?;
        let first = offset / BLOCK;
        let end = (offset + out.len() as u64).next_multiple_of(BLOCK);
        if offset.is_multiple_of(BLOCK) && (out.len() as u64).is_multiple_of(BLOCK) {
            return self.read_blocks(first, out);
        }
        let mut blocks = vec![0; (end - first * BLOCK) as usize];
        self.read_blocks(first, &mut blocks)?;
        let skip = (offset - first * BLOCK) as usize;
        out.copy_from_slice(&blocks[skip..skip + out.len()]);
        Ok(())
    }

    /// Beyond the region's capacity this is `StorageFull`.
    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.data_blocks * BLOCK {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut state = self.lock();
        // What is cut off reads as zeros when it comes back.
        let (from, to) = (len.div_ceil(BLOCK), state.len_bytes.div_ceil(BLOCK));
        for block in from..to {
            state.table[block as usize] = 0;
            state.dirty[(block / ENTRIES_PER_BLOCK) as usize] = true;
            state.held.remove(&block);
        }
        state.len_bytes = len;
        Ok(())
    }

    /// Readers go on meanwhile: `state` is not locked while the device works.
    fn sync_data(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        let indices: Vec<usize> = (0..state.dirty.len()).filter(|index| state.dirty[*index]).collect();
        let mut blocks = Vec::with_capacity(indices.len());
        for &index in &indices {
            let from = index * ENTRIES_PER_BLOCK as usize;
            let to = (from + ENTRIES_PER_BLOCK as usize).min(state.table.len());
            blocks.push(table_block(index as u64, &state.table[from..to]));
            state.dirty[index] = false;
        }
        let first = state.table[0];
        let head = head(state.len_bytes, state.first_stable, first);
        let held = state.first.clone();
        drop(state);
        let result = self.write_out(&indices, blocks, head, held.as_deref());
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.first_stable = first;
                if state.table[0] == first {
                    state.first = None;
                }
            }
            Err(_) => indices.into_iter().for_each(|index| state.dirty[index] = true),
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let len_bytes = self.lock().len_bytes;
        self.check(offset, data.len() as u64, len_bytes, io::ErrorKind::WriteZero)?;
        let first = offset / BLOCK;
        if offset.is_multiple_of(BLOCK) && (data.len() as u64).is_multiple_of(BLOCK) {
            return if data.is_empty() { Ok(()) } else { self.write_blocks(first, data) };
        }
        let end = (offset + data.len() as u64).next_multiple_of(BLOCK);
        let mut blocks = vec![0; (end - first * BLOCK) as usize];
        for (block, bytes) in (first..).zip(blocks.chunks_exact_mut(BLOCK as usize)) {
            if self.is_written(block) {
                self.read_blocks(block, bytes)?;
            }
        }
        let skip = (offset - first * BLOCK) as usize;
        blocks[skip..skip + data.len()].copy_from_slice(data);
        self.write_blocks(first, &blocks)
    }
}

/// Blocks of table and of data in a region.
fn layout(len_bytes: u64) -> (u64, u64) {
    let blocks = (len_bytes / BLOCK).saturating_sub(1);
    let table_blocks = blocks.div_ceil(ENTRIES_PER_BLOCK + 1);
    (table_blocks, blocks - table_blocks)
}

pub(crate) fn head(len_bytes: u64, old_first: u32, new_first: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK as usize);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&len_bytes.to_le_bytes());
    bytes.extend_from_slice(&old_first.to_le_bytes());
    bytes.extend_from_slice(&new_first.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    debug_assert_eq!(bytes.len(), HEAD_BYTES);
    bytes.resize(BLOCK as usize, 0);
    bytes
}

/// One block of the table, which may have fewer entries than there is room for.
pub(crate) fn table_block(block: u64, entries: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    let mut entries = entries.iter();
    for (index, sector) in bytes.chunks_exact_mut(SECTOR as usize).enumerate() {
        for (word, entry) in
            sector.chunks_exact_mut(4).zip(entries.by_ref().take(ENTRIES_PER_SECTOR as usize))
        {
            word.copy_from_slice(&entry.to_le_bytes());
        }
        let number = block * (BLOCK / SECTOR) + index as u64;
        let crc = sector_checksum(number, sector);
        sector[SECTOR as usize - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

fn sector_checksum(number: u64, sector: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sector[..SECTOR as usize - 4]);
    hasher.update(&(number as u32).to_le_bytes());
    hasher.finalize()
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes).max(1)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

    use super::*;
    use crate::device::sim::{
        Cut, Fault, FaultRule, Image, OpKind, SimDevice, SimHandle, SimOptions, SplitMix64, Walker,
    };

    const START: u64 = 8192;
    const LEN: u64 = 3 << 20;
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

    fn device(image: Image, record: bool) -> SimHandle {
        SimDevice::from_image(image, SimOptions { record, ..SimOptions::default() }).handle()
    }

    fn database(handle: &SimHandle) -> Result<Database, String> {
        let region = CheckedRegion::open(handle.blocking(), START, LEN).map_err(|error| error.to_string())?;
        Database::builder()
            .set_cache_size(1 << 20)
            .create_with_backend(region)
            .map_err(|error| error.to_string())
    }

    fn commit(
        database: &Database,
        model: &mut BTreeMap<u64, Vec<u8>>,
        rng: &mut SplitMix64,
    ) -> Result<(), String> {
        let text = |error: redb::Error| error.to_string();
        let mut transaction = database.begin_write().map_err(|error| text(error.into()))?;
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(TABLE).map_err(|error| text(error.into()))?;
            for _ in 0..20 {
                let key = rng.below(200);
                if rng.one_in(4) {
                    table.remove(key).map_err(|error| text(error.into()))?;
                    model.remove(&key);
                } else {
                    let value = vec![rng.next_u64() as u8; rng.below(700) as usize];
                    table.insert(key, value.as_slice()).map_err(|error| text(error.into()))?;
                    model.insert(key, value);
                }
            }
        }
        transaction.commit().map_err(|error| text(error.into()))
    }

    fn content(database: &Database) -> Result<BTreeMap<u64, Vec<u8>>, String> {
        let text = |error: redb::Error| error.to_string();
        let transaction = database.begin_read().map_err(|error| text(error.into()))?;
        let table = match transaction.open_table(TABLE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            table => table.map_err(|error| text(error.into()))?,
        };
        let mut content = BTreeMap::new();
        for entry in table.iter().map_err(|error| text(error.into()))? {
            let (key, value) = entry.map_err(|error| text(error.into()))?;
            content.insert(key.value(), value.value().to_vec());
        }
        Ok(content)
    }

    fn fresh(record: bool) -> SimHandle {
        let handle = device(Image::zeroed(START + LEN), false);
        // Whatever was there before: the region must not depend on zeros.
        handle.scribble(0, &vec![0xa5; (START + LEN) as usize]);
        CheckedRegion::create(handle.blocking(), START, LEN).expect("create");
        device(handle.power_cut(&Cut::LoseAll), record)
    }

    #[test]
    fn any_range_reads_back_as_written() {
        let handle = fresh(false);
        let region = CheckedRegion::open(handle.blocking(), START, LEN).expect("open");
        let capacity = CheckedRegion::capacity_bytes(LEN);
        assert_eq!(region.set_len(capacity + 1).expect_err("too long").kind(), io::ErrorKind::StorageFull);
        region.set_len(capacity).expect("set_len");
        let mut out = [0; 10];
        assert!(region.read(4096, &mut out).is_err(), "never written");
        let mut model = vec![7u8; capacity as usize];
        region.write(0, &model).expect("write");
        let mut rng = SplitMix64::new(2);
        for step in 0..300u64 {
            let offset = rng.below(capacity) as usize;
            let len = (rng.below(20_000) as usize).min(model.len() - offset);
            if step % 2 == 0 {
                model[offset..offset + len].fill(step as u8);
                region.write(offset as u64, &model[offset..offset + len]).expect("write");
            }
            let mut out = vec![1; len];
            region.read(offset as u64, &mut out).expect("read");
            assert!(out == model[offset..offset + len], "step {step}");
        }
        region.set_len(1 << 20).expect("shrink");
        model.truncate(1 << 20);
        region.sync_data().expect("sync");
        let region = CheckedRegion::open(handle.blocking(), START, LEN).expect("open again");
        assert_eq!(region.len().expect("length"), 1 << 20);
        let mut out = vec![1; model.len()];
        region.read(0, &mut out).expect("read");
        assert!(out == model);
        region.set_len(capacity).expect("grow");
        assert!(region.read(1 << 20, &mut [0; 10]).is_err(), "cut off");
    }

    #[test]
    fn written_blocks_are_held_back_joined_and_read_from_memory() {
        let handle = fresh(false);
        let region = CheckedRegion::open(handle.blocking(), START, LEN).expect("open");
        region.set_len(CheckedRegion::capacity_bytes(LEN)).expect("set_len");
        let before = handle.stats();
        for block in 1..=128_u64 {
            region.write(block * BLOCK, &[block as u8; BLOCK as usize]).expect("write");
        }
        let mut out = [0; BLOCK as usize];
        region.read(77 * BLOCK, &mut out).expect("read");
        assert!(out == [77; BLOCK as usize]);
        let now = handle.stats();
        assert_eq!((now.writes, now.reads), (before.writes, before.reads), "all in memory");
        handle.inject(FaultRule::nth(OpKind::Write, 1, Fault::Error(libc::EIO)));
        region.sync_data().expect_err("a write fails");
        region.read(77 * BLOCK, &mut out).expect("what is not written is kept");
        region.sync_data().expect("sync");
        // A table block and the head, 128 neighbours in two, block 0 not at all.
        assert!(handle.stats().writes - now.writes <= 8, "{:?}", handle.stats());
        region.read(77 * BLOCK, &mut out).expect("read");
        assert!(out == [77; BLOCK as usize] && handle.stats().reads > now.reads);
    }

    /// After a power cut at any boundary of any commit the database is the one before or after it.
    #[test]
    fn a_power_cut_leaves_the_old_or_the_new_commit() {
        let mut points = 0;
        for seed in 0..6 {
            let handle = fresh(true);
            let mut rng = SplitMix64::new(seed);
            let mut states = vec![BTreeMap::new()];
            let database_open = database(&handle).expect("open");
            // Making a database is part of formatting a store, which is not atomic.
            let made = handle.event_count();
            let mut committed = vec![(made, 0)];
            for _ in 0..6 {
                let mut next = states.last().expect("one").clone();
                commit(&database_open, &mut next, &mut rng).expect("commit");
                states.push(next);
                committed.push((handle.event_count(), states.len() - 1));
            }
            let recording = handle.recording();
            let mut walker = Walker::new(&recording);
            while (walker.position() as u64) < made {
                walker.step().expect("recorded");
            }
            loop {
                let position = walker.position() as u64;
                let least =
                    committed.iter().filter(|mark| mark.0 <= position).map(|mark| mark.1).max().unwrap_or(0);
                for cut in [
                    Cut::KeepAll,
                    Cut::LoseAll,
                    Cut::Sectors(rng.next_u64()),
                    Cut::Sectors(rng.next_u64()),
                    Cut::Subset(rng.next_u64()),
                ] {
                    let place =
                        format!("seed {seed}, event {position} of {}, {cut:?}", recording.events.len());
                    let database = database(&device(walker.medium().cut(&cut), false))
                        .unwrap_or_else(|error| panic!("{place}: {error}"));
                    let found = content(&database).unwrap_or_else(|error| panic!("{place}: {error}"));
                    let near = &states[least..(least + 2).min(states.len())];
                    assert!(near.contains(&found), "{place}: neither before nor after");
                    points += 1;
                }
                if walker.step().is_none() {
                    break;
                }
            }
        }
        assert!(points > 2_000, "{points} crash points");
    }

    /// The database grows to the region's end, fails there, and is whole afterwards.
    #[test]
    fn a_full_region_is_an_error_and_loses_nothing() {
        let handle = fresh(false);
        let mut rng = SplitMix64::new(4);
        let mut model = BTreeMap::new();
        let open = database(&handle).expect("open");
        let mut next = 0;
        let error = loop {
            let mut transaction = open.begin_write().expect("begin");
            transaction.set_quick_repair(true);
            let mut added = BTreeMap::new();
            let result = (|| -> Result<(), redb::Error> {
                let mut table = transaction.open_table(TABLE)?;
                for key in next..next + 40 {
                    let value = vec![rng.next_u64() as u8; rng.below(3000) as usize];
                    table.insert(key, value.as_slice())?;
                    added.insert(key, value);
                }
                Ok(())
            })();
            if let Err(error) = result.and_then(|()| Ok(transaction.commit()?)) {
                break error;
            }
            model.append(&mut added);
            next += 40;
        };
        assert!(next > 400, "{next} keys, then {error}");
        drop(open);
        let open = database(&handle).expect("open again");
        assert!(content(&open).expect("read") == model);
    }

    /// Damage anywhere is an error or has no effect; never a panic, never another answer.
    #[test]
    fn damage_is_an_error_or_without_effect() {
        let handle = fresh(false);
        let mut rng = SplitMix64::new(1);
        let mut model = BTreeMap::new();
        let database_open = database(&handle).expect("open");
        for _ in 0..10 {
            commit(&database_open, &mut model, &mut rng).expect("commit");
        }
        let image = handle.power_cut(&Cut::LoseAll);
        let (mut errors, mut whole) = (0, 0);
        for round in 0..3_000u64 {
            let handle = device(image.clone(), false);
            let written = (1 << 20).min(LEN);
            for _ in 0..1 + rng.below(3) {
                let offset = START + rng.below(if round % 2 == 0 { 16_384 } else { written });
                handle.rot(offset, rng.below(8) as u32);
            }
            match database(&handle).and_then(|database| content(&database)) {
                Err(_) => errors += 1,
                Ok(found) => {
                    assert!(found == model, "round {round}");
                    whole += 1;
                }
            }
        }
        assert!(errors > 300 && whole > 300, "{errors} errors, {whole} without effect");
    }
}
