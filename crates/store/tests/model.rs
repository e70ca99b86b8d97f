//! Random histories against a plain in-memory model: many transactions under way at once, reads between them,
//! a store so small that it fills up, closing and power cuts in between. Every answer is compared.
//!
//! `CAIRN_MODEL_SEED` runs one seed, `CAIRN_MODEL_STEPS` sets the number of steps of each.

#[path = "support/model.rs"]
mod model;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use cairn_store::device::Wait;
use cairn_store::device::sim::{
    Cut, Fault, FaultRule, Image, OpKind, SimDevice, SimHandle, SimOptions, SplitMix64,
};
use cairn_store::engine::runner::Inline;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{
    CreateOptions, Engine, Event, Op, OpenOptions, ReadData, ReadError, ReadRequest, Transaction,
    TransactionError,
};
use cairn_types::{ObjectId, PgId};
use model::{Generator, MARKER, Object, Refusal, Shape, State, marker, object, pg};

const BLOCK: u64 = 4096;
const LOG_BYTES: u64 = 512 << 10;
const INDEX_BYTES: u64 = 2 << 20;
/// Of data: less than the objects want together, so that the store is full now and then.
const DATA_BYTES: u64 = 3 << 20;
/// Over an entry of the index, which has 1 MiB of an object.
const SHAPE: Shape = Shape {
    object_bytes: 1100 << 10,
    objects: 6,
    large_blocks: 80,
    odd_clones: true,
    logged_bytes: u64::MAX,
};
/// Blocks that only transactions that free space may take, see `docs/format/store.md`; refused for them is right.
const RESERVE_BLOCKS: u64 = 16;
/// Under way at once.
const FLIGHT_MAX: usize = 48;
/// Polls after which what still is not finished is stuck.
const POLLS_MAX: usize = 20_000;
/// Tokens of reads begin here.
const READS: u64 = 1 << 32;

/// A transaction that is not known to be durable, nor refused with all before it decided.
struct Flight {
    token: u64,
    transaction: Transaction,
    result: Option<Result<(), TransactionError>>,
}

/// A read under way.
struct Reading {
    request: ReadRequest,
    /// Everything up to this version was acknowledged before it began.
    since: u64,
}

struct World {
    rng: SplitMix64,
    generator: Generator,
    device: SimHandle,
    engine: Engine<SimDevice>,
    events: Vec<Event>,
    next_token: u64,
    next_read: u64,
    /// Everything acknowledged, and its number.
    confirmed: State,
    version: u64,
    flights: VecDeque<Flight>,
    /// What there is if none of those is refused for want of space.
    presumed: State,
    /// Acknowledged states that a read under way may still see, by number.
    versions: BTreeMap<u64, State>,
    reads: BTreeMap<u64, Reading>,
    seen: Seen,
}

/// What happened, so that a run that never got anywhere is noticed.
#[derive(Default, Debug)]
struct Seen {
    commits: u64,
    refusals: u64,
    full: u64,
    reads: u64,
    cuts: u64,
    closings: u64,
    checks: u64,
}

fn open(image: Image, rng: &mut SplitMix64) -> (SimHandle, Engine<SimDevice>) {
    let shuffle = (!rng.one_in(4)).then(|| rng.next_u64());
    let device = SimDevice::from_image(image, SimOptions { shuffle, ..SimOptions::default() });
    let options = OpenOptions {
        // So little that entries are dropped and read again all the time.
        cache_bytes: if rng.one_in(2) { 16 << 10 } else { 1 << 20 },
        page_cache_bytes: 1 << 20,
        buffer_bytes: 4 << 20,
        ..OpenOptions::default()
    };
    let handle = device.handle();
    if rng.one_in(2) {
        // So that much happens while a read is under way.
        let fault = Fault::Slow(1 + rng.below(12) as u32);
        handle.inject(FaultRule::every(OpKind::Read, fault));
    }
    let engine = Engine::open(device, &options, Box::new(Inline::default())).expect("open");
    (handle, engine)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let len_bytes = 2 * BLOCK + LOG_BYTES + INDEX_BYTES + DATA_BYTES;
        let made = SimDevice::new(len_bytes, SimOptions::default()).handle();
        let options = CreateOptions {
            store: [5; 16],
            log_bytes: Some(LOG_BYTES),
            index_bytes: Some(INDEX_BYTES),
            ..CreateOptions::default()
        };
        Engine::<SimDevice>::create(made.blocking(), &options).expect("create");
        let (device, engine) = open(made.image(), &mut rng);
        let mut world = World {
            generator: Generator::new(seed, SHAPE),
            rng,
            device,
            engine,
            events: Vec::new(),
            next_token: 1,
            next_read: READS,
            confirmed: State::default(),
            version: 0,
            flights: VecDeque::new(),
            presumed: State::default(),
            versions: BTreeMap::new(),
            reads: BTreeMap::new(),
            seen: Seen::default(),
        };
        world.versions.insert(0, State::default());
        world.submit(vec![Op::CreateCollection(pg(0)), Op::CreateCollection(pg(1))]);
        world.settle();
        world
    }

    /// What may happen in one step, by how often.
    fn step(&mut self) {
        match self.rng.below(1000) {
            0..400 => self.submit_some(),
            400..700 => (0..self.rng.below(4)).for_each(|_| self.poll()),
            700..850 => self.start_read(),
            850..940 => self.query(),
            940..950 => self.engine.request_checkpoint(),
            950..958 => self.engine.rest(),
            958..970 => self.submit_alone(),
            970..980 => {
                self.settle();
                self.compare_all();
            }
            980..984 => self.close(),
            984..990 => self.cut(),
            990..993 => self.check(),
            // So that it does not stay full.
            993..997 => self.make_room(),
            _ => self.settle(),
        }
    }

    fn submit_some(&mut self) {
        let burst = if self.rng.one_in(20) { 24 } else { 1 };
        for _ in 0..burst {
            let ops = if self.rng.one_in(10) { self.wrong() } else { self.right() };
            self.submit(ops);
        }
    }

    /// Valid if nothing under way is refused.
    fn right(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut state = self.presumed.clone();
        for _ in 0..1 + self.rng.below(5) {
            let op = match self.rng.below(60) {
                0 => self.collection_op(&state),
                1 => {
                    // Enough to fill the index sometime.
                    let entries = (0..4 + self.rng.below(12)).map(|number| {
                        let value = vec![number as u8; self.rng.below(1500) as usize];
                        (Bytes::from(format!("large-{number}-{}", self.rng.below(4))), value.into())
                    });
                    Op::OmapSet(pg(1), object("object-0"), entries.collect())
                }
                _ => self.generator.op(&state),
            };
            // An operation on collections may have made the rest of its kind impossible.
            if let Ok(after) = state.after(&Transaction { ops: vec![op.clone()] }) {
                state = after;
                ops.push(op);
            }
        }
        ops
    }

    fn collection_op(&mut self, state: &State) -> Op {
        let seed = 2 + self.rng.below(3) as u32;
        match state.collections.get(&seed) {
            None => Op::CreateCollection(pg(seed)),
            Some(objects) if objects.is_empty() => match self.rng.below(2) {
                0 => Op::RemoveCollection(pg(seed)),
                _ => Op::Write {
                    pg: pg(seed),
                    object: object("guest"),
                    offset: self.rng.below(10_000),
                    data: vec![seed as u8; 5000].into(),
                    checksums: None,
                },
            },
            Some(_) => Op::Remove(pg(seed), object("guest")),
        }
    }

    /// Begins well and ends with what must be refused.
    fn wrong(&mut self) -> Vec<Op> {
        let mut ops = self.right();
        let (nowhere, nothing) = (pg(77), object("nothing"));
        let data = Bytes::from(vec![1; 2 * BLOCK as usize]);
        let write = |offset, checksums: &[u32]| Op::Write {
            pg: pg(0),
            object: object("object-1"),
            offset,
            data: data.clone(),
            checksums: Some(checksums.into()),
        };
        let right = crc32fast::hash(&data[..BLOCK as usize]);
        let some = self.rng.below(SHAPE.objects);
        ops.push(match self.rng.below(15) {
            0 => Op::CreateCollection(pg(0)),
            1 => Op::RemoveCollection(nowhere),
            2 => Op::RemoveCollection(pg(0)),
            3 => Op::Touch(nowhere, nothing),
            4 => Op::Remove(pg(0), nothing),
            5 => Op::Clone { pg: pg(0), source: nothing, target: object("object-0") },
            6 => write(BLOCK, &[right, right ^ 1]),
            7 => write(BLOCK, &[right]),
            8 => write(17, &[right, right]),
            9 => Op::Truncate { pg: pg(0), object: object("object-0"), size: (4 << 30) + 1 },
            10 => Op::Zero { pg: pg(0), object: object("object-0"), offset: u64::MAX, len: 2 },
            11 => Op::Touch(pg(1), object(&"n".repeat(4097))),
            12 => Op::OmapRemove(pg(1), nothing, vec!["key".into()]),
            13 => Op::Rename { pg: pg(0), object: object(MARKER), target_pg: pg(0), target: object(MARKER) },
            _ => Op::CloneRange {
                pg: pg(0),
                source: nothing,
                target: object(&format!("object-{some}")),
                source_offset: 0,
                len: 1,
                target_offset: 0,
            },
        });
        ops
    }

    fn submit(&mut self, mut ops: Vec<Op>) {
        while self.flights.len() >= FLIGHT_MAX {
            self.poll();
        }
        let token = self.next_token;
        self.next_token += 1;
        ops.push(marker(token as usize));
        let transaction = Transaction { ops };
        if let Ok(after) = self.presumed.after(&transaction) {
            self.presumed = after;
        }
        self.engine.submit(token, transaction.clone()).expect("room in the queue");
        self.flights.push_back(Flight { token, transaction, result: None });
    }

    fn poll(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.engine.poll(Wait::Event, &mut events).expect("a healthy store");
        for event in events.drain(..) {
            match event {
                Event::Committed { token, result } => self.committed(token, result),
                Event::Read { token, result } => {
                    let reading = self.reads.remove(&token).expect("a read under way");
                    self.answered(&reading, result);
                }
            }
        }
        self.events = events;
    }

    fn committed(&mut self, token: u64, result: Result<(), TransactionError>) {
        let flight = self.flights.iter_mut().find(|flight| flight.token == token);
        flight.expect("a transaction under way").result = Some(result);
        let mut is_refused_for_space = false;
        // In the order given, whatever the order of refusals.
        while let Some(Flight { result: Some(result), .. }) = self.flights.front() {
            let result = result.clone();
            let Some(Flight { token, transaction, .. }) = self.flights.pop_front() else { return };
            is_refused_for_space |= self.decided(token, &transaction, result);
        }
        if is_refused_for_space {
            self.presume();
        }
    }

    /// A transaction's fate is known, and that of all before it. Whether it was refused for want of space.
    fn decided(
        &mut self,
        token: u64,
        transaction: &Transaction,
        result: Result<(), TransactionError>,
    ) -> bool {
        match (self.confirmed.after(transaction), result) {
            (Ok(after), Ok(())) => {
                self.seen.commits += 1;
                self.confirmed = after;
                self.version += 1;
                self.versions.insert(self.version, self.confirmed.clone());
                let oldest = self.reads.values().map(|reading| reading.since).min().unwrap_or(self.version);
                self.versions = self.versions.split_off(&oldest);
                false
            }
            // Space may be wanting before what is wrong is seen, too.
            (_, Err(TransactionError::NoSpace { .. } | TransactionError::IndexFull)) => {
                self.seen.full += 1;
                true
            }
            (Ok(_), Err(TransactionError::TooLarge { what: "a transaction's record", .. })) => true,
            (Err(expected), Err(error)) => {
                self.seen.refusals += 1;
                let is_long =
                    matches!(error, TransactionError::TooLarge { what: "a transaction's record", .. });
                assert!(
                    Refusal::of(&error) == Some(expected) || is_long,
                    "transaction {token} was refused as {error}, not as {expected:?}: {transaction:?}"
                );
                false
            }
            (Ok(_), Err(error)) => panic!("transaction {token} was refused: {error}: {transaction:?}"),
            (Err(expected), Ok(())) => {
                panic!("transaction {token} should have been refused as {expected:?}: {transaction:?}")
            }
        }
    }

    fn presume(&mut self) {
        self.presumed = self.candidates().pop().expect("one at least");
    }

    /// The acknowledged state, and each that follows it from what is under way.
    fn candidates(&self) -> Vec<State> {
        let mut states = vec![self.confirmed.clone()];
        for flight in self.flights.iter().filter(|flight| !matches!(flight.result, Some(Err(_)))) {
            let last = states.last().expect("one at least");
            if let Ok(after) = last.after(&flight.transaction) {
                states.push(after);
            }
        }
        states
    }

    /// Nothing is under way any more.
    fn settle(&mut self) {
        for _ in 0..POLLS_MAX {
            if self.flights.is_empty() && self.reads.is_empty() && !self.engine.is_checkpointing() {
                assert_eq!(self.engine.unfinished(), 0);
                return;
            }
            self.poll();
        }
        panic!("stuck with {} transactions and {} reads", self.flights.len(), self.reads.len());
    }

    fn checkpoint(&mut self) {
        self.engine.request_checkpoint();
        self.settle();
    }

    fn start_read(&mut self) {
        if self.reads.len() >= 8 {
            return self.poll();
        }
        let (offset, len) = self.range();
        let object = object(&self.some_name());
        let request = ReadRequest { pg: self.some_pg(), object, offset, len };
        let token = self.next_read;
        self.next_read += 1;
        self.engine.read(token, request.clone()).expect("room for a read");
        self.reads.insert(token, Reading { request, since: self.version });
    }

    fn range(&mut self) -> (u64, u64) {
        let offset = match self.rng.below(3) {
            0 => 0,
            1 => self.rng.below(SHAPE.object_bytes / BLOCK) * BLOCK,
            _ => self.rng.below(SHAPE.object_bytes),
        };
        let len = match self.rng.below(4) {
            0 => u64::MAX,
            1 => BLOCK * (1 + self.rng.below(20)),
            _ => self.rng.below(200_000),
        };
        (offset, len)
    }

    fn some_pg(&mut self) -> PgId {
        pg(if self.rng.one_in(8) { 2 } else { self.rng.below(2) as u32 })
    }

    fn some_name(&mut self) -> String {
        match self.rng.below(20) {
            0 => MARKER.to_owned(),
            1 => "guest".to_owned(),
            _ => format!("object-{}", self.rng.below(SHAPE.objects)),
        }
    }

    /// A read sees all that was acknowledged before it began, nothing that is not acknowledged when it ends, and
    /// the whole range in one state.
    fn answered(&mut self, reading: &Reading, result: Result<ReadData, ReadError>) {
        self.seen.reads += 1;
        let Reading { request: ReadRequest { pg, object, offset, len }, since } = reading;
        let fits = |state: &State| match (state.get(*pg, object), &result) {
            (None, Err(ReadError::NoObject { .. })) => true,
            (Some(found), Ok(read)) => {
                let from = (*offset as usize).min(found.data.len());
                let to = offset.saturating_add(*len).min(found.data.len() as u64) as usize;
                read.data == found.data[from..to.max(from)]
            }
            _ => false,
        };
        assert!(
            self.versions.range(since..).any(|(_, state)| fits(state)),
            "a read of {object} in {pg} at {offset} of {len} bytes, begun at version {since} of {}, fits none: {}",
            self.version,
            match &result {
                Ok(read) => format!("{} bytes", read.data.len()),
                Err(error) => error.to_string(),
            },
        );
        let Ok(ReadData { data, checksums }) = result else { return };
        if offset.is_multiple_of(BLOCK) {
            assert_eq!(checksums.len(), data.chunks(BLOCK as usize).len());
            let whole = data.chunks_exact(BLOCK as usize);
            assert!(whole.zip(&checksums).all(|(block, sum)| crc32fast::hash(block) == *sum));
        } else {
            assert!(checksums.is_empty());
        }
    }

    /// Questions answered at once see what is sequenced: some state from what is acknowledged on.
    fn query(&mut self) {
        let candidates = self.candidates();
        let (at, name) = (self.some_pg(), object(&self.some_name()));
        let (offset, len) = self.range();
        let any = |what: &str, fits: &dyn Fn(&State) -> bool| {
            assert!(candidates.iter().any(fits), "{what} of {name} in {at} fits no state");
        };
        match self.rng.below(4) {
            0 => {
                let stat = self.engine.stat(at, &name).ok();
                any("stat", &|state| match (state.get(at, &name), &stat) {
                    (None, None) => true,
                    (Some(found), Some(stat)) => {
                        stat.size == found.data.len() as u64
                            && stat.xattrs == found.xattrs
                            && stat.omap_header == found.header
                    }
                    _ => false,
                });
            }
            1 => {
                let after = (!self.rng.one_in(3)).then(|| object(&format!("object-{}", self.rng.below(6))));
                let limit = 1 + self.rng.below(8) as usize;
                let listed = self.engine.list(at, after.as_ref(), limit).expect("list");
                any("listing", &|state| state.list(at, after.as_ref(), limit) == listed);
            }
            2 => {
                let limit = 1 + self.rng.below(8) as usize;
                let after = (!self.rng.one_in(3)).then(|| format!("key-{}", self.rng.below(6)));
                let after = after.as_deref().map(str::as_bytes);
                let keys: Vec<Bytes> = (0..3).map(|key| format!("key-{key}").into()).collect();
                let listed = self.engine.omap_list(at, &name, after, limit).ok();
                let got = self.engine.omap_get(at, &name, &keys).ok();
                any("omap", &|state| match (state.get(at, &name), &listed, &got) {
                    (None, None, None) => true,
                    (Some(found), Some(listed), Some(got)) => {
                        let is_after = |key: &Bytes| after.is_none_or(|after| &key[..] > after);
                        let expected = found.omap.iter().filter(|(key, _)| is_after(key)).take(limit);
                        let of_keys = keys.iter().filter_map(|key| found.omap.get_key_value(key));
                        let pairs = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
                        *listed == expected.map(pairs).collect::<Vec<_>>()
                            && *got == of_keys.map(pairs).collect::<Vec<_>>()
                    }
                    _ => false,
                });
            }
            _ => {
                let extents = self.engine.extents(at, &name, offset, len).ok();
                any("extents", &|state| match (state.get(at, &name), &extents) {
                    (None, None) => true,
                    (Some(found), Some(extents)) => cover(&found.data, offset, len, extents),
                    _ => false,
                });
            }
        }
    }

    /// With everything at rest and all space given back: a refusal for want of space has to be true.
    fn submit_alone(&mut self) {
        self.settle();
        self.checkpoint();
        let usage = self.engine.usage();
        let ops = self.right();
        let full = self.seen.full;
        let need: u64 = ops.iter().map(|op| blocks_wanted(&self.confirmed, op)).sum();
        let entries = ops.iter().map(entry_bytes).sum::<u64>() + 64 * need;
        self.submit(ops);
        self.settle();
        if self.seen.full > full {
            let is_full = need + RESERVE_BLOCKS > usage.free_bytes / BLOCK
                || usage.index_used_bytes + entries > usage.index_bytes - usage.index_bytes / 8;
            assert!(is_full, "refused for want of space, with {usage:?} for {need} blocks, {entries} bytes");
        }
    }

    /// Deletion always goes on, however full it is.
    fn make_room(&mut self) {
        self.settle();
        let mut gone: Vec<Op> = Vec::new();
        for (seed, objects) in &self.confirmed.collections {
            let names = objects.keys().filter(|name| *name != MARKER);
            gone.extend(names.map(|name| Op::Remove(pg(*seed), object(name))));
        }
        gone.truncate(1 + self.rng.below(8) as usize);
        // Without the marker, which is no removal.
        let transaction = Transaction { ops: gone };
        self.presumed = self.confirmed.after(&transaction).expect("they are there");
        let token = self.next_token;
        self.next_token += 1;
        self.engine.submit(token, transaction.clone()).expect("room in the queue");
        self.flights.push_back(Flight { token, transaction, result: None });
        let (full, version) = (self.seen.full, self.version);
        self.settle();
        assert_eq!((self.seen.full, self.version), (full, version + 1), "a removal was refused");
        // A cut may come before the next marker: then this one says that the removal happened.
        self.submit(Vec::new());
        self.settle();
        assert_eq!(self.seen.full, full, "there is no room for an attribute after removals");
    }

    fn compare_all(&mut self) {
        self.seen.checks += 1;
        let found = self.content();
        assert!(found == self.confirmed, "{}", self.confirmed.difference(&found));
        let usage = self.engine.usage();
        let objects: usize = self.confirmed.collections.values().map(BTreeMap::len).sum();
        assert_eq!(usage.objects, objects as u64);
    }

    fn content(&mut self) -> State {
        let mut state = State::default();
        for pg in self.engine.collections() {
            let ids = self.engine.list(pg, None, 1000).expect("list");
            let objects = ids.into_iter().map(|id| (id.name.clone(), Arc::new(self.whole(pg, id))));
            state.collections.insert(pg.seed, objects.collect());
        }
        state
    }

    fn whole(&mut self, pg: PgId, id: ObjectId) -> Object {
        let stat = self.engine.stat(pg, &id).expect("stat");
        let omap = self.engine.omap_list(pg, &id, None, 1000).expect("omap");
        let request = ReadRequest { pg, object: id, offset: 0, len: u64::MAX };
        self.engine.read(u64::MAX, request).expect("room for a read");
        for _ in 0..POLLS_MAX {
            let mut events = Vec::new();
            self.engine.poll(Wait::Event, &mut events).expect("a healthy store");
            if let Some(Event::Read { result, .. }) = events.pop() {
                let data = result.expect("read").data.to_vec();
                assert_eq!(data.len() as u64, stat.size);
                let omap = omap.into_iter().collect();
                return Object { data, xattrs: stat.xattrs, omap, header: stat.omap_header };
            }
        }
        panic!("a read is stuck");
    }

    fn close(&mut self) {
        self.seen.closings += 1;
        self.settle();
        if self.rng.one_in(2) {
            self.checkpoint();
        }
        self.reopen(self.device.image());
        self.compare_all();
    }

    /// The power goes, with everything under way.
    fn cut(&mut self) {
        self.seen.cuts += 1;
        let unstable = self.device.unstable() as u64;
        let cut = match self.rng.below(6) {
            0 => Cut::KeepAll,
            1 => Cut::LoseAll,
            2 => Cut::Subset(self.rng.next_u64()),
            3 if unstable > 0 => Cut::KeepFirst(self.rng.below(unstable + 1) as usize),
            _ => Cut::Sectors(self.rng.next_u64()),
        };
        let image = self.device.power_cut(&cut);
        // What was refused is known; whatever else was under way is there up to some transaction.
        let under_way: Vec<Flight> =
            self.flights.drain(..).filter(|flight| !matches!(flight.result, Some(Err(_)))).collect();
        self.reads.clear();
        self.reopen(image);
        let found = self.content();
        let last = found.sequence().expect("a marker") as u64;
        for Flight { token, transaction, result } in under_way {
            if token > last {
                assert!(result.is_none(), "transaction {token} was acknowledged and is gone, {cut:?}");
                continue;
            }
            match self.confirmed.after(&transaction) {
                Ok(after) => self.confirmed = after,
                Err(refusal) => panic!("transaction {token} happened, against {refusal:?}"),
            }
        }
        self.version += 1;
        self.versions = BTreeMap::from([(self.version, self.confirmed.clone())]);
        self.presumed = self.confirmed.clone();
        assert!(found == self.confirmed, "{cut:?}, up to {last}: {}", self.confirmed.difference(&found));
    }

    fn reopen(&mut self, image: Image) {
        if self.rng.one_in(3) {
            check(&SimDevice::from_image(image.clone(), SimOptions::default()).handle());
        }
        (self.device, self.engine) = open(image, &mut self.rng);
    }

    /// Offline, on what a reader would see now.
    fn check(&mut self) {
        self.settle();
        if self.rng.one_in(2) {
            self.checkpoint();
        }
        check(&self.device);
        self.seen.checks += 1;
    }
}

fn check(device: &SimHandle) {
    let options = FsckOptions { deep: true, repair: false };
    let report = fsck::check(&device.blocking(), &options, &mut |_, _| {}).expect("fsck");
    assert!(report.is_clean(), "{report}");
}

/// Extents lie within the range, in order, apart, and what they leave out reads as zeros.
fn cover(data: &[u8], offset: u64, len: u64, extents: &[(u64, u64)]) -> bool {
    let end = offset.saturating_add(len).min(data.len() as u64);
    let mut at = offset.min(end);
    for &(start, len) in extents {
        if start < at || len == 0 || start + len > end || (start == at && at != offset) {
            return false;
        }
        if data[at as usize..start as usize].iter().any(|byte| *byte != 0) {
            return false;
        }
        at = start + len;
    }
    data[at as usize..end as usize].iter().all(|byte| *byte == 0)
}

/// New blocks that an operation may take, at most.
fn blocks_wanted(state: &State, op: &Op) -> u64 {
    match op {
        Op::Write { data, .. } => data.len() as u64 / BLOCK + 2,
        // What is not aligned alike is copied.
        Op::CloneRange { len, .. } => len / BLOCK + 2,
        Op::Zero { .. } | Op::Truncate { .. } => 2,
        Op::Clone { .. } => state.collections.len() as u64,
        _ => 0,
    }
}

/// Bytes that an operation may add to the index besides those of its blocks, at most.
fn entry_bytes(op: &Op) -> u64 {
    match op {
        Op::OmapSet(_, _, entries) => {
            entries.iter().map(|(key, value)| (key.len() + value.len() + 16) as u64).sum::<u64>() + 2048
        }
        // Attributes and omap of the source.
        Op::Clone { .. } => 120_000,
        Op::CloneRange { len, .. } => 2048 + 24 * (len / BLOCK),
        _ => 2048,
    }
}

fn run(seed: u64, steps: u64) -> Seen {
    let mut world = World::new(seed);
    for step in 0..steps {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
        if let Err(panic) = result {
            eprintln!("CAIRN_MODEL_SEED={seed} failed at step {step}, after {:?}", world.seen);
            std::panic::resume_unwind(panic);
        }
    }
    world.settle();
    world.compare_all();
    world.check();
    world.seen
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Of each seed, and how many of them.
const STEPS: u64 = 2_500;
const SEEDS: u64 = 4;

#[test]
fn a_store_does_what_the_model_says() {
    let steps = setting("CAIRN_MODEL_STEPS").unwrap_or(STEPS);
    let seeds = setting("CAIRN_MODEL_SEED").map_or(1..=SEEDS, |seed| seed..=seed);
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = seeds.map(|seed| (seed, scope.spawn(move || run(seed, steps)))).collect();
        runs.into_iter().map(|(seed, run)| (seed, run.join())).collect()
    });
    for (seed, result) in results {
        let seen = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("seed {seed}: {seen:?}");
        if steps >= STEPS {
            let Seen { commits, refusals, full, reads, cuts, closings, checks } = seen;
            let all = [commits, refusals, full, reads, cuts, closings, checks];
            assert!(all.iter().all(|count| *count > 0), "seed {seed} left something out: {all:?}");
        }
    }
}
