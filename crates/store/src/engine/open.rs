//! Making a store, and opening one: superblock, index, then the log.

use super::checkpoint::Checkpointing;
use super::commit::Commit;
use super::discard::Discards;
use super::log::Log;
use super::read::Reads;
use super::runner::IndexRunner;
use super::{Counters, Engine};
use crate::alloc::Allocator;
use crate::device::{BlockingDevice, BufferPool, Device};
use crate::error::{Damage, StoreError};
use crate::format::codec::{Malformed, Reader};
use crate::format::features::Features;
use crate::format::mutation::Mutation;
use crate::format::superblock::{Reserved, SUPERBLOCK_BYTES, Superblock, log_lengths, second_places};
use crate::format::values::Checkpoint;
use crate::index::Index;
use crate::limits::BLOCK_BYTES;
use crate::state::{Misfit, State};
use bytes::Bytes;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Log ring of a large device. At a record of 4.5 KiB this is 57,000 small writes between checkpoints, and
/// is read back in a fraction of a second.
const LOG_BYTES_DEFAULT: u64 = 256 << 20;
/// The log is at most this share (1 / n) of the device.
const LOG_SHARE: u64 = 16;
/// The index region is this share (1 / n) of the device. An object of 4 MiB whose every block stands alone
/// takes 14 KiB of entries, 0.35 %; see [`crate::limits::INDEX_FILL_SHARE`] for the rest.
const INDEX_SHARE: u64 = 32;
/// On a small device the index region is this share, up to [`INDEX_BYTES_SMALL`]: entries that do not grow with the
/// device, such as the logs of its groups, need room there too.
const INDEX_SHARE_SMALL: u64 = 8;
/// See [`INDEX_SHARE_SMALL`].
const INDEX_BYTES_SMALL: u64 = 256 << 20;
/// Least index region where none is asked for.
const INDEX_BYTES_MIN: u64 = 4 << 20;
/// Least index region at all: the index library begins with more than 1 MiB.
const INDEX_BYTES_LEAST: u64 = 2 << 20;
/// Least data region.
const DATA_BYTES_MIN: u64 = 1 << 20;

/// How to make a store.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The cluster's number; zero if it is not known yet.
    pub cluster: [u8; 16],
    /// The OSD's number; −1 if it is not known yet.
    pub osd: i32,
    /// A random number of its own.
    pub store: [u8; 16],
    /// Bytes of the log ring; a power of two from 128 KiB to 4 GiB.
    pub log_bytes: Option<u64>,
    /// Bytes of the index region.
    pub index_bytes: Option<u64>,
    /// Lose what store there is.
    pub force: bool,
}

/// How to open one.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Memory for index entries, decoded.
    pub cache_bytes: usize,
    /// Memory of the index library for its pages.
    pub page_cache_bytes: usize,
    /// Memory for buffers.
    pub buffer_bytes: usize,
    /// Refuse the store of another cluster.
    pub cluster: Option<[u8; 16]>,
    /// Stop when a transaction is refused, so that nothing that was submitted after it is kept: for those whose
    /// transactions build on each other.
    pub stops_at_refusal: bool,
    /// A change of a part of a block that is damaged leaves the block damaged, and is not refused, unless several objects share
    /// the block: for those who have copies elsewhere, and fetch one when they read it.
    pub keeps_damage: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            cache_bytes: 96 << 20,
            page_cache_bytes: 32 << 20,
            buffer_bytes: 64 << 20,
            cluster: None,
            stops_at_refusal: false,
            keeps_damage: false,
        }
    }
}

/// Where everything goes on a device.
fn layout(device: &dyn BlockingDevice, options: &CreateOptions) -> Result<Superblock, StoreError> {
    let geometry = device.geometry();
    let device_bytes = geometry.len_bytes / BLOCK_BYTES * BLOCK_BYTES;
    let too_small = |what, given, least| StoreError::TooSmall { what, given, least };
    let log_bytes = match options.log_bytes {
        Some(wanted) => log_lengths()
            .find(|len| *len >= wanted)
            .ok_or_else(|| too_small("the log is too large", wanted, wanted))?,
        None => {
            let share = (device_bytes / LOG_SHARE).min(LOG_BYTES_DEFAULT);
            log_lengths().rfind(|len| *len <= share).or(log_lengths().next()).unwrap_or(LOG_BYTES_DEFAULT)
        }
    };
    let index_bytes = options.index_bytes.unwrap_or(
        (device_bytes / INDEX_SHARE)
            .max((device_bytes / INDEX_SHARE_SMALL).min(INDEX_BYTES_SMALL))
            .max(INDEX_BYTES_MIN),
    );
    let index_bytes = index_bytes.next_multiple_of(BLOCK_BYTES);
    if index_bytes < INDEX_BYTES_LEAST {
        return Err(too_small("the index region is too small", index_bytes, INDEX_BYTES_LEAST));
    }
    let index_offset = 2 * SUPERBLOCK_BYTES + log_bytes;
    let data_offset = index_offset + index_bytes;
    let least = data_offset + DATA_BYTES_MIN;
    if device_bytes < least {
        return Err(too_small("the device is too small for a store", device_bytes, least));
    }
    Ok(Superblock {
        features: Features::default(),
        store: options.store,
        cluster: options.cluster,
        osd: options.osd,
        device_bytes,
        log_unit_bytes: geometry.sector_bytes,
        log_offset: SUPERBLOCK_BYTES,
        log_bytes,
        index_offset,
        index_bytes,
        data_offset,
        data_blocks: (device_bytes - data_offset) / BLOCK_BYTES,
        reserved: Reserved::default(),
    })
}

impl<D: Device> Engine<D> {
    /// Makes an empty store. The superblocks are written last: half a store is none.
    ///
    /// # Errors
    /// [`StoreError::AlreadyAStore`] unless forced, [`StoreError::TooSmall`], the device's.
    pub fn create(
        device: Arc<dyn BlockingDevice>,
        options: &CreateOptions,
    ) -> Result<Superblock, StoreError> {
        match Superblock::read(&*device) {
            Err(StoreError::NotAStore) => {}
            _ if options.force => {}
            Ok(found) => return Err(StoreError::AlreadyAStore { osd: found.osd }),
            Err(StoreError::Truncated { .. }) => return Err(StoreError::AlreadyAStore { osd: -1 }),
            Err(error) => return Err(error),
        }
        let flush_failed = |source| StoreError::Flush(Arc::new(source));
        let superblock = layout(&*device, options)?;
        let failed =
            |action, offset| move |source| StoreError::Device { action, offset, source: Arc::new(source) };
        // Neither copy of an old superblock may come back to life over new content, wherever the old log ended.
        let zeros = vec![0; 1 << 20];
        for place in std::iter::once(0).chain(second_places(superblock.device_bytes)) {
            device
                .write_at(place, &zeros[..SUPERBLOCK_BYTES as usize])
                .map_err(failed("write the superblock", place))?;
        }
        device.sync().map_err(flush_failed)?;
        // Written, not only reserved: on a file no block is to be allocated on the path of a write.
        let mut at = superblock.log_offset;
        let end = at + superblock.log_bytes;
        while at < end {
            let len = (end - at).min(zeros.len() as u64);
            device.write_at(at, &zeros[..len as usize]).map_err(failed("write the log", at))?;
            at += len;
        }
        let checkpoint = Checkpoint { next_seq: 1, next_nid: 1, ..Checkpoint::default() };
        Index::create(Arc::clone(&device), (superblock.index_offset, superblock.index_bytes), checkpoint)?;
        device.sync().map_err(flush_failed)?;
        for place in superblock.places().into_iter().rev() {
            device.write_at(place, &superblock.encode()).map_err(failed("write the superblock", place))?;
            device.sync().map_err(flush_failed)?;
        }
        Ok(superblock)
    }

    /// Opens the store on a device: the state of the last checkpoint, then every record of the log that
    /// counts. Nothing is written, but by the index library that it is open.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(device: D, options: &OpenOptions, runner: Box<dyn IndexRunner>) -> Result<Self, StoreError> {
        let blocking = device.blocking();
        let superblock = Superblock::read(&*blocking)?;
        superblock.check_writable()?;
        if let Some(wanted) = options.cluster.filter(|wanted| *wanted != superblock.cluster) {
            let (found, wanted) = (hex(&superblock.cluster), hex(&wanted));
            return Err(StoreError::OtherCluster { found, wanted });
        }
        let sector_bytes = blocking.geometry().sector_bytes;
        if sector_bytes > superblock.log_unit_bytes {
            return Err(StoreError::Sector { made: superblock.log_unit_bytes, found: sector_bytes });
        }
        let (mut state, log, last_seq) = load(&blocking, &superblock, options)?;
        state.keeps_damage = options.keeps_damage;
        if log.usage().0 > 0 {
            // A record that was read may be in the device's cache only, left there by a process that was killed.
            // Nobody may see what it did, or write over a block, before it is durable. (The index library flushes
            // when it opens; but that is its inside.)
            let failed = |source| StoreError::Flush(Arc::new(source));
            blocking.sync().map_err(failed)?;
        }
        Ok(Engine {
            device,
            superblock,
            state,
            log,
            pool: BufferPool::new(options.buffer_bytes),
            runner,
            queue: VecDeque::new(),
            queue_bytes: 0,
            staged: VecDeque::new(),
            staged_bytes: 0,
            arriving_bytes: 0,
            commit: Commit::default(),
            last_seq,
            durable_seq: last_seq,
            unstable: BTreeMap::new(),
            checkpointing: Checkpointing::default(),
            starved: false,
            writebacks: 0,
            discards: Discards::default(),
            is_writing_back: false,
            is_resting: false,
            reads: Reads::default(),
            purposes: Slab::new(),
            queued_ios: 0,
            backlog: VecDeque::new(),
            completions: Vec::new(),
            events: Vec::new(),
            failure: None,
            stops_at_refusal: options.stops_at_refusal,
            counters: Counters::default(),
            canary: None,
        })
    }
}

/// The state of a store after its log, and the last transaction in it.
pub(crate) fn load(
    device: &Arc<dyn BlockingDevice>,
    superblock: &Superblock,
    options: &OpenOptions,
) -> Result<(State, Log, u64), StoreError> {
    let region = (superblock.index_offset, superblock.index_bytes);
    let index = Arc::new(Index::open(Arc::clone(device), region, options.page_cache_bytes)?);
    let alloc = Allocator::new(superblock.data_offset / BLOCK_BYTES, superblock.data_blocks);
    let (mut state, checkpoint) = State::open(index, Arc::clone(device), alloc, options.cache_bytes)?;
    let position = checkpoint.log_position;
    if position >= superblock.log_bytes || !position.is_multiple_of(superblock.log_unit_bytes.into()) {
        return Err(Damage::Entry { table: "meta", key: "checkpoint".into() }.into());
    }
    let mut log = Log::new(superblock, position);
    let mut next_seq = checkpoint.next_seq;
    let mut exact = false;
    while let Some((header, offset, body)) = log.read_next(&**device, next_seq, exact)? {
        exact = true;
        let damaged = |why| StoreError::from(Damage::Record { seq: header.seq, offset, why });
        let mut reader = Reader::new(body);
        for seq in header.seq..header.seq + u64::from(header.count) {
            let transaction =
                take_transaction(&mut reader).map_err(|Malformed| damaged("it does not decode"))?;
            // The checkpoint may have been made of the first part of a record.
            if seq < next_seq {
                continue;
            }
            replay(&mut state, transaction, seq).map_err(|misfit| match misfit {
                None => damaged("it does not decode"),
                Some(Misfit::Contradiction(why)) => damaged(why),
                Some(Misfit::Store(error)) => error,
            })?;
        }
        reader.end().map_err(|Malformed| damaged("it does not decode"))?;
        next_seq = header.seq + u64::from(header.count);
    }
    if log.find_later(&**device, next_seq)?.is_some() {
        let why = "it was complete once, for a later record is there, and is damaged now";
        return Err(Damage::Record { seq: next_seq, offset: log.head_offset(), why }.into());
    }
    state.replayed();
    Ok((state, log, next_seq - 1))
}

pub(crate) fn take_transaction(reader: &mut Reader) -> Result<Bytes, Malformed> {
    let len = reader.u32()? as usize;
    reader.take(len)
}

fn replay(state: &mut State, transaction: Bytes, seq: u64) -> Result<(), Option<Misfit>> {
    let mut reader = Reader::new(transaction);
    while reader.left() > 0 {
        let mutation = Mutation::decode(&mut reader).map_err(|Malformed| None)?;
        state.apply(&mutation, seq).map_err(Some)?;
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::Canary;
    use crate::device::Wait;
    use crate::device::sim::{Cut, SimDevice, SimOptions};
    use crate::engine::runner::Inline;
    use crate::{Op, Transaction};
    use cairn_types::{PgId, PoolId};

    fn open(device: SimDevice) -> Engine<SimDevice> {
        Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap()
    }

    #[test]
    fn a_device_whose_sectors_are_larger_than_those_it_was_made_on_is_refused() {
        let device = SimDevice::new(16 << 20, SimOptions::default());
        let handle = device.handle();
        Engine::<SimDevice>::create(handle.blocking(), &CreateOptions::default()).unwrap();
        let larger = SimOptions { sector_bytes: 4096, ..SimOptions::default() };
        let device = SimDevice::from_image(handle.image(), larger);
        let error = Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap_err();
        assert!(matches!(error, StoreError::Sector { made: 512, found: 4096 }), "{error}");
    }

    #[test]
    fn a_checkpoint_that_speaks_of_no_place_in_the_log_is_damage() {
        for log_position in [100, 128 << 10, u64::MAX] {
            let device = SimDevice::new(16 << 20, SimOptions::default());
            let blocking = device.handle().blocking();
            let options = CreateOptions { log_bytes: Some(128 << 10), ..CreateOptions::default() };
            let superblock = Engine::<SimDevice>::create(Arc::clone(&blocking), &options).unwrap();
            let region = (superblock.index_offset, superblock.index_bytes);
            let checkpoint = Checkpoint { next_seq: 1, next_nid: 1, log_position, ..Checkpoint::default() };
            Index::create(blocking, region, checkpoint).unwrap();
            let error =
                Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(Damage::Entry { table: "meta", .. })), "{error}");
        }
    }

    #[test]
    fn a_record_that_a_killed_process_left_unflushed_is_stable_before_it_counts() {
        let device = SimDevice::new(16 << 20, SimOptions::default());
        let handle = device.handle();
        Engine::<SimDevice>::create(handle.blocking(), &CreateOptions::default()).unwrap();
        let pg = PgId { pool: PoolId(1), seed: 0 };
        let mut engine = open(device);
        // Killed between the record's write and its flush.
        engine.set_canary(Some(Canary::RecordNotDurable));
        engine.submit(1, Transaction { ops: vec![Op::CreateCollection(pg)] }).unwrap();
        while engine.unfinished() > 0 {
            engine.poll(Wait::Event, &mut Vec::new()).unwrap();
        }
        assert!(handle.unstable() > 0);
        std::mem::forget(engine);
        // It is replayed: readers see it, and its blocks may be written over.
        assert!(open(handle.reopen()).collections().contains(&pg));
        let after = SimDevice::from_image(handle.power_cut(&Cut::LoseAll), SimOptions::default());
        assert!(open(after).collections().contains(&pg));
    }
}
