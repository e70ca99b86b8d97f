//! A store on a damaged image: opened, read, written to, checked, repaired, dumped. Shared with
//! `crates/store/tests/fuzz_smoke.rs`.
//!
//! The image is made once: a history of transactions, two checkpoints in it, the last of them only in the log.
//! The input damages it in steps of eight bytes, then everything is done to it that can be.
//!
//! What holds, whatever the damage: nothing panics (the index library's panics are errors), everything ends
//! within a bound of steps, and what a question takes is bounded by its own size.
//!
//! What else holds when the damage has no right checksums (no *sealed* step): there is one state of the history
//! that every answer given without an error fits, and it is not older than the checkpoint before the last. All
//! states up to the newest are allowed, because an image alone cannot tell a record that rotted at the end of the
//! log from one that a power cut tore, nor a lost write of the index's first block from a power cut before
//! it. Whatever is written then is added to that state; a repair takes nothing from it; and what a deep check
//! finds clean can be read without an error. A sealed step is a forger at work: what is read then is not looked at.

#[path = "../../crates/store/tests/support/model.rs"]
mod model;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cairn_store::device::checked::CheckedRegion;
use cairn_store::device::sim::{Cut, Image, SimDevice, SimHandle, SimOptions};
use cairn_store::device::{BlockingDevice, Wait};
use cairn_store::dump::Dump;
use cairn_store::engine::runner::Inline;
use cairn_store::format::record::{HEADER_BYTES, Header};
use cairn_store::format::superblock::Superblock;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{CreateOptions, Engine, Event, Op, OpenOptions, ReadRequest, StoreError, Transaction};
use cairn_types::{ObjectId, PgId};
use model::{Generator, MARKER, Object, Shape, State, object, pg};
use redb::{Database, ReadableTable, TableDefinition};

const BLOCK: u64 = 4096;
const STORE: [u8; 16] = [8; 16];
const LOG_BYTES: u64 = 256 << 10;
const INDEX_BYTES: u64 = 2 << 20;
const DATA_BYTES: u64 = 2 << 20;
const SHAPE: Shape =
    Shape { object_bytes: 300 << 10, objects: 3, large_blocks: 10, odd_clones: true, logged_bytes: u64::MAX };
const TRANSACTIONS: usize = 36;
/// Checkpoints are made after these.
const CHECKPOINTS: [usize; 2] = [14, 26];
const STEP_BYTES: usize = 8;
const STEPS_MAX: usize = 24;
/// Polls after which a store is stuck.
const POLLS_MAX: usize = 20_000;
/// Names asked for from each collection, and how much of each object.
const LIST_MAX: usize = 100;
const READ_BYTES_MAX: u64 = 1 << 20;

struct Seed {
    image: Image,
    /// As it was between the two checkpoints.
    older: Image,
    superblock: Superblock,
    /// Device offset and length of the records in the log, header included.
    records: Vec<(u64, usize)>,
    /// The content after each transaction, from the checkpoint before the last on.
    states: Vec<State>,
}

/// Damages the image as the input says and uses it.
pub fn torture(input: &[u8]) {
    static SEED: OnceLock<Seed> = OnceLock::new();
    let seed = SEED.get_or_init(make);
    let (image, is_sealed) = damaged(seed, input);
    // A forged store may hold anything.
    let mut history = (!is_sealed).then(|| seed.states.clone());
    let device = sim(image.clone());
    dump(&device);
    let is_clean = check(&device, false);
    let found = visit(image.clone(), &mut history, true);
    if is_clean && history.is_some() {
        assert!(found.is_ok(), "clean by the check, but {}", found.err().unwrap_or_default());
    }
    // Written to, it is closed and opened again, or not closed.
    if let Ok(image) = found {
        let _ = visit(image, &mut history, false);
    }
    // A repair of the damaged image loses nothing that could be read.
    let mut history = (!is_sealed).then(|| seed.states.clone());
    let device = sim(image);
    if check(&device, true) && history.is_some() {
        let found = visit(device.image(), &mut history, true);
        assert!(found.is_ok(), "clean after a repair, but {}", found.err().unwrap_or_default());
    } else {
        let _ = visit(device.image(), &mut history, true);
    }
}

fn sim(image: Image) -> SimHandle {
    SimDevice::from_image(image, SimOptions::default()).handle()
}

/// Applies the steps of an input. Whether one of them made checksums right.
fn damaged(seed: &Seed, input: &[u8]) -> (Image, bool) {
    let mut device = sim(seed.image.clone());
    let mut is_sealed = false;
    for step in input.chunks_exact(STEP_BYTES).take(STEPS_MAX) {
        let [kind, region, a, b, c, d, more, value] = *step else { break };
        let end = device.image().len_bytes();
        let place = u64::from(u32::from_le_bytes([a, b, c, d]));
        let offset = region_offset(seed, region, place) % end;
        let block = offset / BLOCK * BLOCK;
        match kind % 12 {
            0 => device.rot(offset, value.into()),
            1 => device.scribble(block, &[value; BLOCK as usize]),
            2 => copy(&seed.older, block, &device, block),
            3 => copy(&seed.image, region_offset(seed, more, place ^ u64::from(value)), &device, block),
            4 => device.scribble(offset / 4 * 4, &u32::from_le_bytes([value; 4]).to_le_bytes()),
            5 => {
                // Many neighbouring blocks at once, gone or as they were.
                for at in (block..end).step_by(BLOCK as usize).take(1 + usize::from(more)) {
                    match value % 2 {
                        0 => device.scribble(at, &[0; BLOCK as usize]),
                        _ => copy(&seed.older, at, &device, at),
                    }
                }
            }
            6 => {
                let sector = offset / 512 * 512;
                let mut bytes = [0; 512];
                seed.older.read(sector, &mut bytes);
                device.scribble(sector, &bytes);
            }
            7 if more == 0 => device = sim(device.image().resized(block.max(BLOCK))),
            7 => device.scribble(offset, &[value]),
            8 => {
                is_sealed = true;
                forge_superblock(seed, &device, region, place, value);
            }
            9 | 10 => {
                is_sealed = true;
                forge_record(seed, &device, [region, a, b, c, d, more, value]);
            }
            _ => {
                is_sealed = true;
                // What cannot be opened any more cannot be forged.
                let _ = forge_entry(seed, &device, region, place, more, value);
            }
        }
    }
    (device.image(), is_sealed)
}

/// A place within a part of the device, those that mean much more often than their length says.
fn region_offset(seed: &Seed, region: u8, place: u64) -> u64 {
    let Superblock { log_offset, log_bytes, index_offset, index_bytes, data_offset, data_blocks, .. } =
        seed.superblock;
    let (start, len) = match region % 8 {
        0 => (0, BLOCK),
        1 => (log_offset + log_bytes, BLOCK),
        2 => {
            let (first, (last, len)) = (seed.records[0].0, seed.records[seed.records.len() - 1]);
            if first < last { (first, last + len as u64 - first) } else { (log_offset, log_bytes) }
        }
        3 => (log_offset, log_bytes),
        4 => (index_offset, 3 * BLOCK),
        5 | 6 => (index_offset, index_bytes),
        _ => (data_offset, data_blocks * BLOCK),
    };
    start + place % len
}

fn copy(from: &Image, offset: u64, to: &SimHandle, target: u64) {
    let mut block = [0; BLOCK as usize];
    from.read(offset / BLOCK * BLOCK, &mut block);
    to.scribble(target, &block);
}

/// Writes superblocks with another field in them.
fn forge_superblock(seed: &Seed, device: &SimHandle, field: u8, place: u64, value: u8) {
    let mut forged = seed.superblock.clone();
    let changed = |old: u64| match value % 6 {
        0 => old ^ 1 << (place % 64),
        1 => old.wrapping_add(BLOCK),
        2 => old.wrapping_sub(BLOCK),
        3 => place / BLOCK * BLOCK,
        4 => u64::MAX - place,
        _ => 0,
    };
    match field % 10 {
        0 => forged.store[usize::from(value) % 16] ^= 1,
        1 => forged.log_unit_bytes = if place.is_multiple_of(2) { 4096 } else { changed(512) as u32 },
        2 => forged.device_bytes = changed(forged.device_bytes),
        3 => forged.log_offset = changed(forged.log_offset),
        4 => forged.log_bytes = changed(forged.log_bytes),
        5 => forged.index_offset = changed(forged.index_offset),
        6 => forged.index_bytes = changed(forged.index_bytes),
        7 => forged.data_offset = changed(forged.data_offset),
        8 => forged.data_blocks = changed(forged.data_blocks),
        _ => forged.osd = place as i32,
    }
    let end = device.image().len_bytes();
    let second = seed.superblock.places()[1];
    for at in [0, second].into_iter().filter(|at| at + BLOCK <= end) {
        device.scribble(at, &forged.encode());
    }
}

/// Changes a record of the log and makes its checksums right.
fn forge_record(seed: &Seed, device: &SimHandle, [which, a, b, c, d, more, value]: [u8; 7]) {
    let (offset, len) = seed.records[usize::from(which) % seed.records.len()];
    if offset + len as u64 > device.image().len_bytes() {
        return;
    }
    let mut record = vec![0; len];
    device.image().read(offset, &mut record);
    let Some(mut header) = Header::decode(&record, &STORE) else { return };
    let place = u32::from_le_bytes([a, b, c, d]);
    let body = &mut record[HEADER_BYTES..];
    // The payload of a write says nothing; most of what has a meaning is in the first bytes and the last.
    let at = match more % 4 {
        0 => place as usize % body.len(),
        1 => place as usize % body.len().min(64),
        2 => place as usize % body.len().min(400),
        _ => body.len() - 1 - place as usize % body.len().min(120),
    };
    match more / 4 % 8 {
        0..4 => body[at] = value,
        4 => body[at..].iter_mut().take(8).for_each(|byte| *byte = value),
        5 => header.seq = header.seq.wrapping_add(u64::from(place) << (value % 40)),
        6 => header.count = place,
        _ => header.body_bytes = (header.body_bytes ^ place) % (len - HEADER_BYTES + 1) as u32,
    }
    // It may be that of another record by now.
    header.body_bytes = header.body_bytes.min((len - HEADER_BYTES) as u32);
    header.body_crc = crc32fast::hash(&record[HEADER_BYTES..][..header.body_bytes as usize]);
    record[..HEADER_BYTES].copy_from_slice(&header.encode(&STORE));
    device.scribble(offset, &record);
}

/// Changes an entry of the index through its own library.
fn forge_entry(
    seed: &Seed,
    device: &SimHandle,
    table: u8,
    place: u64,
    more: u8,
    value: u8,
) -> Result<(), redb::Error> {
    const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");
    const COLLECTIONS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("collections");
    const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
    const SHARDS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("shards");
    const OMAP: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("omap");
    const REFS: TableDefinition<'_, u64, u32> = TableDefinition::new("refs");
    const BITMAP: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("bitmap");

    let region =
        CheckedRegion::open(device.blocking(), seed.superblock.index_offset, seed.superblock.index_bytes)?;
    let database = Database::builder().set_cache_size(1 << 20).create_with_backend(region)?;
    // Of an entry, by chance of the input: where in its value, and what stands there then.
    let change = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if bytes.is_empty() || more >= 240 {
            bytes.push(value);
        } else if more >= 220 {
            bytes.truncate(place as usize % bytes.len());
        } else {
            let at = usize::from(more) % bytes.len().min(96);
            let count = if value.is_multiple_of(3) { 8 } else { 1 };
            bytes[at..].iter_mut().take(count).for_each(|byte| *byte = value);
        }
        bytes
    };
    let pick = |count: u64| place % count.max(1);
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    macro_rules! change_entry {
        ($definition:expr, $to_owned:expr, $as_key:expr) => {{
            let mut table = transaction.open_table($definition)?;
            let count = table.iter()?.count() as u64;
            let mut found = None;
            if let Some(entry) = table.iter()?.nth(pick(count) as usize) {
                let (key, bytes) = entry?;
                found = Some(($to_owned(key.value()), change(bytes.value())));
            }
            if let Some((key, bytes)) = found {
                if value == u8::MAX {
                    table.remove($as_key(&key))?;
                } else {
                    table.insert($as_key(&key), &bytes[..])?;
                }
            }
        }};
    }
    match table % 8 {
        0 => change_entry!(META, |key: u8| key, u8::clone),
        1 | 2 => change_entry!(HEADS, <[u8]>::to_vec, Vec::as_slice),
        3 | 4 => change_entry!(SHARDS, |key: (u64, u32)| key, <(u64, u32)>::clone),
        5 => change_entry!(BITMAP, |key: u32| key, u32::clone),
        6 => {
            let mut table = transaction.open_table(REFS)?;
            let units: Vec<u64> = table.iter()?.flatten().map(|(unit, _)| unit.value()).collect();
            let unit = units.get(pick(units.len() as u64) as usize).copied().unwrap_or(place);
            let unit = if more.is_multiple_of(5) { place } else { unit };
            table.insert(
                unit,
                if value.is_multiple_of(2) { u32::from(value) } else { u32::MAX - u32::from(value) },
            )?;
        }
        _ if more.is_multiple_of(2) => {
            let mut table = transaction.open_table(COLLECTIONS)?;
            let key = [value; 13];
            table.insert(&key[..usize::from(more) % 14], ())?;
        }
        _ => {
            let mut table = transaction.open_table(OMAP)?;
            table.insert((place, &[value; 3][..]), &[value][..])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Everything that looks and does not change.
fn dump(device: &SimHandle) {
    let writes = device.stats().writes;
    let Ok(mut dump) = Dump::open(&device.blocking()) else { return };
    let _ = (dump.checkpoint(), dump.free_space());
    let _ = dump.each_record(|_| {});
    for seed in 0..4 {
        let _ = dump.each_object(pg(seed), |_| {});
        for name in 0..SHAPE.objects {
            let _ = dump.object(pg(seed), &object(&format!("object-{name}")));
        }
    }
    let _ = dump.collections();
    assert_eq!(device.stats().writes, writes, "a dump writes nothing");
}

/// Whether a deep check finds nothing wrong, any more.
fn check(device: &SimHandle, repair: bool) -> bool {
    let writes = device.stats().writes;
    let options = FsckOptions { deep: true, repair };
    let report = fsck::check(&device.blocking(), &options, &mut |done, total| assert!(done <= total));
    assert!(repair || device.stats().writes == writes, "a check writes nothing");
    report.is_ok_and(|report| report.is_clean())
}

/// Opens, reads, writes, reads. The history is left with what fits; the image is what a kill leaves. An error is
/// any that was met.
fn visit(image: Image, history: &mut Option<Vec<State>>, may_close: bool) -> Result<Image, String> {
    let device = SimDevice::from_image(image, SimOptions::default());
    let handle = device.handle();
    let options = OpenOptions {
        cache_bytes: 256 << 10,
        page_cache_bytes: 1 << 20,
        buffer_bytes: 4 << 20,
        ..OpenOptions::default()
    };
    let mut visit = Visit {
        engine: Engine::open(device, &options, Box::new(Inline::default()))
            .map_err(|error| error.to_string())?,
        error: None,
        token: 0,
    };
    visit.read_all(history);
    visit.write(history);
    visit.read_all(history);
    if may_close {
        visit.engine.request_checkpoint();
        visit.finish();
        visit.read_all(history);
    }
    match visit.error {
        None => Ok(handle.power_cut(&Cut::LoseAll)),
        Some(error) => Err(error),
    }
}

struct Visit {
    engine: Engine<SimDevice>,
    error: Option<String>,
    token: u64,
}

impl Visit {
    /// An answer, or nothing where there was an error.
    fn answer<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.error = Some(error.to_string())).ok()
    }

    fn read_all(&mut self, history: &mut Option<Vec<State>>) {
        let collections = self.engine.collections();
        keep(history, "collections", |state| {
            state.collections.keys().copied().eq(collections.iter().map(|pg| pg.seed))
        });
        for at in collections.into_iter().take(8) {
            let listed = self.engine.list(at, None, LIST_MAX);
            let Some(ids) = self.answer(listed) else { continue };
            keep(history, "a listing", |state| state.list(at, None, LIST_MAX) == ids);
            ids.iter().for_each(|id| self.read_object(at, id, history));
        }
    }

    fn read_object(&mut self, at: PgId, id: &ObjectId, history: &mut Option<Vec<State>>) {
        let fits = |state: &State, fits: &dyn Fn(&Object) -> bool| state.get(at, id).is_some_and(fits);
        let stat = self.engine.stat(at, id);
        if let Some(stat) = self.answer(stat) {
            keep(history, "an object's head", |state| {
                fits(state, &|object| {
                    stat.size == object.data.len() as u64
                        && stat.xattrs == object.xattrs
                        && stat.omap_header == object.header
                })
            });
        }
        let omap = self.engine.omap_list(at, id, None, LIST_MAX);
        if let Some(omap) = self.answer(omap) {
            keep(history, "an omap", |state| {
                fits(state, &|object| {
                    omap.iter().map(|(key, value)| (key, value)).eq(object.omap.iter().take(LIST_MAX))
                })
            });
        }
        let extents = self.engine.extents(at, id, 0, READ_BYTES_MAX);
        self.answer(extents);
        // As a whole, and where that fails in parts.
        if !self.read(at, id, 0, READ_BYTES_MAX, history) {
            for offset in (0..SHAPE.object_bytes).step_by(16 << 10) {
                self.read(at, id, offset, 16 << 10, history);
            }
        }
    }

    fn read(
        &mut self,
        pg: PgId,
        id: &ObjectId,
        offset: u64,
        len: u64,
        history: &mut Option<Vec<State>>,
    ) -> bool {
        let request = ReadRequest { pg, object: id.clone(), offset, len };
        if let Err(error) = self.engine.read(u64::MAX, request) {
            self.error = Some(error.to_string());
            return false;
        }
        let mut events = Vec::new();
        for _ in 0..POLLS_MAX {
            // What stops the store is in the event, too.
            let _ = self.engine.poll(Wait::Event, &mut events);
            let Some(Event::Read { result, .. }) = events.pop() else { continue };
            let Some(read) = self.answer(result) else { return false };
            keep(history, "data", |state| {
                state.get(pg, id).is_some_and(|object| {
                    let end = object.data.len().min((offset + len) as usize);
                    read.data == object.data[(offset as usize).min(end)..end]
                })
            });
            return true;
        }
        panic!("a read is stuck");
    }

    /// Changes what is there, in small and in large, and adds.
    fn write(&mut self, history: &mut Option<Vec<State>>) {
        let data = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        let write = |name: &str, offset: u64, data: Bytes| Op::Write {
            pg: pg(0),
            object: object(name),
            offset,
            data,
            checksums: None,
        };
        let (first, second) = (object("object-0"), object("object-1"));
        let transactions = [
            vec![write("object-0", 5000, data(1, 3000))],
            vec![write("object-1", 0, data(2, 80 << 10)), write("new", 0, data(3, 4096))],
            vec![Op::OmapSet(pg(1), object("object-2"), vec![("new".into(), data(4, 20))])],
            vec![Op::Clone { pg: pg(0), source: first.clone(), target: second.clone() }],
            vec![Op::Zero { pg: pg(0), object: first, offset: 100, len: 50_000 }],
            vec![Op::Remove(pg(1), object("object-0"))],
            vec![Op::Truncate { pg: pg(0), object: second, size: 10_001 }],
        ];
        for ops in transactions {
            self.token += 1;
            let transaction = Transaction { ops };
            if self.engine.submit(self.token, transaction.clone()).is_err() {
                return;
            }
            if !matches!(self.finish().as_slice(), [Ok(())]) {
                // Refused, for what is not there or cannot be read.
                continue;
            }
            if let Some(states) = history {
                // It was done, so it could be.
                *states = states.iter().filter_map(|state| state.after(&transaction).ok()).collect();
                assert!(!states.is_empty(), "a transaction happened that fits no state: {transaction:?}");
            }
        }
    }

    fn finish(&mut self) -> Vec<Result<(), String>> {
        let mut events = Vec::new();
        for _ in 0..POLLS_MAX {
            let polled = self.engine.poll(Wait::Event, &mut events);
            let is_over = self.engine.unfinished() == 0 && !self.engine.is_checkpointing();
            if let Err(error) = &polled {
                self.error = Some(error.to_string());
            }
            if is_over || polled.is_err() {
                let results = events.into_iter().filter_map(|event| match event {
                    Event::Committed { result, .. } => Some(result.map_err(|error| error.to_string())),
                    Event::Read { .. } => None,
                });
                return results.collect();
            }
        }
        panic!("the store is stuck");
    }
}

/// States that an answer does not fit are not what the store holds. One has to be left.
fn keep(history: &mut Option<Vec<State>>, what: &str, fits: impl Fn(&State) -> bool) {
    if let Some(states) = history {
        states.retain(fits);
        assert!(!states.is_empty(), "{what} fits no state that the other answers fit");
    }
}

fn make() -> Seed {
    let device = SimDevice::new(2 * BLOCK + LOG_BYTES + INDEX_BYTES + DATA_BYTES, SimOptions::default());
    let handle = device.handle();
    let options = CreateOptions {
        store: STORE,
        log_bytes: Some(LOG_BYTES),
        index_bytes: Some(INDEX_BYTES),
        ..CreateOptions::default()
    };
    let superblock = Engine::<SimDevice>::create(handle.blocking(), &options).expect("create");
    let mut engine =
        Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).expect("open");
    let mut generator = Generator::new(4, SHAPE);
    let mut states = vec![State::default()];
    let mut older = handle.image();
    let finish = |engine: &mut Engine<SimDevice>| {
        let mut events = Vec::new();
        while engine.unfinished() > 0 || engine.is_checkpointing() {
            engine.poll(Wait::Event, &mut events).expect("a healthy store");
        }
        for event in events {
            if let Event::Committed { result, .. } = event {
                result.expect("room");
            }
        }
    };
    for sequence in 1..=TRANSACTIONS {
        let last = states.last().expect("one at least");
        let transaction = generator.next(last, sequence);
        let next = last.after(&transaction).expect("a valid one");
        states.push(next);
        engine.submit(sequence as u64, transaction).expect("room");
        finish(&mut engine);
        if CHECKPOINTS.contains(&sequence) {
            engine.request_checkpoint();
            finish(&mut engine);
            if sequence == CHECKPOINTS[0] {
                older = handle.power_cut(&Cut::LoseAll);
            }
        }
    }
    let image = handle.power_cut(&Cut::LoseAll);
    drop(engine);
    let mut records = Vec::new();
    let blocking: Arc<dyn BlockingDevice> = sim(image.clone()).blocking();
    let dump: Result<Dump, StoreError> = Dump::open(&blocking);
    dump.expect("a healthy store")
        .each_record(|record| {
            records.push((record.device_offset, HEADER_BYTES + record.body_bytes as usize));
        })
        .expect("a healthy log");
    assert!(records.len() > 4 && states[TRANSACTIONS].get(pg(0), &object(MARKER)).is_some());
    let seed = Seed { image, older, superblock, records, states: states.split_off(CHECKPOINTS[0]) };
    // Undamaged it is the last state, and nothing is wrong with it.
    let mut history = Some(vec![seed.states[seed.states.len() - 1].clone()]);
    visit(seed.image.clone(), &mut history, true).expect("a healthy image");
    seed
}
