//! The store of an OSD: the real engine on a simulated device, and what an OSD keeps in it.

use super::osd::OsdProc;
use super::{Ev, Kind, World};
use crate::canary::Canary;
use crate::plan::{DiskFault, Proc};
use crate::rng::Rng;
use crate::shape::Shape;
use cairn_osd::core::{Event as OsdEvent, Query, QueryToken, Superblock, Usage};
use cairn_osd::object::BadChange;
use cairn_osd::persist::{
    Answering, GroupWriter, Host, MapsKept, PersistError, Reading, Step, begin_removal, create_host,
    load_host, look, maps_transaction, superblock_op, sweep,
};
use cairn_pg::{PersistToken, PgTransaction};
use cairn_store::device::Wait;
use cairn_store::device::sim::{Cut, Fault, FaultRule, Image, OpKind, SimDevice, SimHandle, SimOptions};
use cairn_store::engine::runner::Inline;
use cairn_store::format::superblock::Superblock as StoreSuperblock;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{
    CreateOptions, Engine, Event, OpenOptions, ReadData, ReadError, StoreError, SubmitError, Transaction,
};
use cairn_types::{Epoch, OsdId, OsdMap, OsdMapIncremental, PgId};
use std::collections::{BTreeMap, VecDeque};

const INDEX_BYTES: u64 = 8 << 20;

/// `EIO`.
const EIO: i32 = 5;

/// What is said when a transaction is durable.
#[derive(Clone, Debug)]
enum Job {
    Group(PgId, PersistToken),
    Kept,
    /// A part of a group that is gone has been swept out.
    Swept(PgId),
}

struct Gathering {
    token: QueryToken,
    reading: Reading,
    got: Vec<Option<Result<ReadData, ReadError>>>,
}

/// The store of an OSD.
pub(super) struct Disk {
    medium: SimHandle,
    engine: Option<Engine<SimDevice>>,
    writers: BTreeMap<PgId, GroupWriter>,
    kept: MapsKept,
    next_token: u64,
    jobs: BTreeMap<u64, Job>,
    /// For when the store has room, in order.
    waiting: VecDeque<(u64, Transaction)>,
    gatherings: BTreeMap<u64, Gathering>,
    /// Of a read: whose it is, and which.
    reads: BTreeMap<u64, (u64, usize)>,
    /// A poll is coming.
    pub polls: bool,
    /// Polls that found nothing to do.
    idle: u32,
    /// Added to each latency.
    pub slow_us: u64,
}

fn options(shuffle: u64) -> SimOptions {
    SimOptions { shuffle: Some(shuffle), ..SimOptions::default() }
}

fn open_options() -> OpenOptions {
    OpenOptions {
        cache_bytes: 1 << 20,
        page_cache_bytes: 1 << 20,
        buffer_bytes: 8 << 20,
        stops_at_refusal: true,
        keeps_damage: true,
        ..OpenOptions::default()
    }
}

impl Disk {
    /// A new store of an OSD.
    pub fn create(superblock: &Superblock, shape: &Shape, shuffle: u64) -> Result<Disk, String> {
        // Sparse in memory.
        let data_bytes = shape.data_bytes - shape.uneven_bytes * superblock.whoami.0.unsigned_abs() as u64;
        let device = SimDevice::new(shape.log_bytes + INDEX_BYTES + data_bytes, options(shuffle));
        let medium = device.handle();
        let create = CreateOptions {
            cluster: superblock.fsid.0,
            osd: superblock.whoami.0,
            store: superblock.uuid.0,
            log_bytes: Some(shape.log_bytes),
            index_bytes: Some(INDEX_BYTES),
            force: false,
        };
        Engine::<SimDevice>::create(medium.blocking(), &create).map_err(|error| error.to_string())?;
        let mut engine = open(device).map_err(|error| error.to_string())?;
        engine.submit(0, create_host(superblock)).map_err(|error| error.to_string())?;
        let mut events = Vec::new();
        while engine.unfinished() > 0 {
            engine.poll(Wait::Event, &mut events).map_err(|error| error.to_string())?;
        }
        drop(engine);
        let (writers, kept) = Default::default();
        Ok(Disk {
            medium,
            engine: None,
            writers,
            kept,
            next_token: 1,
            jobs: BTreeMap::new(),
            waiting: VecDeque::new(),
            gatherings: BTreeMap::new(),
            reads: BTreeMap::new(),
            polls: false,
            idle: 0,
            slow_us: 0,
        })
    }

    /// Opens the store and reads what a start needs.
    pub fn start(&mut self, canary: Option<Canary>) -> Result<Host, PersistError> {
        let mut engine = open(self.medium.reopen())?;
        if let Some(Canary::Store(canary)) = canary {
            engine.set_canary(Some(canary));
        }
        let mut host = load_host(&mut engine)?;
        self.writers = host.groups.iter().map(|group| (group.info.pgid, GroupWriter::of(group))).collect();
        self.kept = std::mem::take(&mut host.kept);
        self.engine = Some(engine);
        self.jobs.clear();
        self.waiting.clear();
        self.gatherings.clear();
        self.reads.clear();
        self.polls = false;
        Ok(host)
    }

    /// Something goes wrong with the device.
    pub fn hurt(&mut self, fault: DiskFault, [drawn, more]: [u64; 2]) {
        match fault {
            DiskFault::WriteError => {
                self.medium.inject(FaultRule::nth(OpKind::Write, drawn % 8, Fault::Error(EIO)))
            }
            DiskFault::ReadError => {
                self.medium.inject(FaultRule::nth(OpKind::Read, drawn % 4, Fault::Error(EIO)))
            }
            DiskFault::Lie => {
                self.medium.inject(FaultRule::every(OpKind::Flush, Fault::Lie));
                self.medium.inject(FaultRule::every(OpKind::Write, Fault::Volatile));
            }
            DiskFault::BitRot => {
                // Half of the data, or some block of the index. Not the log: a record that rots before its checkpoint ends the log, as
                // a torn one does. What that means for a cluster is a scenario of its own.
                let image = self.medium.image();
                let mut page = [0; 4_096];
                let mut rng = Rng::new(more);
                let Ok(superblock) = StoreSuperblock::read(&*self.medium.blocking()) else { return };
                if rng.permille(300) {
                    let blocks = (superblock.index_offset / 4_096, superblock.data_offset / 4_096 - 1);
                    let offset = rng.between(blocks.0, blocks.1) * 4_096;
                    self.medium.rot(offset + drawn % 4_096, (drawn >> 32) as u32 % 8);
                    return;
                }
                for block in 0..superblock.data_blocks {
                    let offset = superblock.data_offset + block * 4_096;
                    image.read(offset, &mut page);
                    if page.iter().any(|byte| *byte != 0) && rng.permille(500) {
                        self.medium.rot(offset + rng.below(4_096), (drawn >> 32) as u32 % 8);
                    }
                }
            }
            DiskFault::Slow(us) => self.slow_us = us,
        }
    }

    /// No more faults strike; what has happened has happened.
    pub fn heal(&mut self) {
        self.medium.clear_faults();
    }

    /// What is wrong with the store, as the offline check finds it: above all, space that nobody uses and nobody has.
    pub fn findings(&self) -> Result<Vec<String>, String> {
        let image = self.medium.power_cut(&Cut::KeepAll);
        let device = SimDevice::from_image(image, SimOptions::default()).handle().blocking();
        let report = fsck::check(&device, &FsckOptions::default(), &mut |_, _| {});
        let report = report.map_err(|error| error.to_string())?;
        Ok(report.findings.iter().map(|finding| format!("{finding:?}")).collect())
    }

    /// The process is gone: what it had queued still happens.
    pub fn kill(&mut self, shuffle: u64) {
        let image = self.medium.power_cut(&Cut::KeepAll);
        self.engine = None;
        self.medium = SimDevice::from_image(image, options(shuffle)).handle();
    }

    /// Power is gone: what was not flushed is lost, torn or kept.
    pub fn power_cut(&mut self, drawn: u64, shuffle: u64) {
        let unstable = self.medium.unstable().max(1) as u64;
        let index = (drawn >> 8) % unstable;
        let cut = match drawn % 8 {
            0 => Cut::KeepAll,
            1 => Cut::LoseAll,
            2 => Cut::KeepFirst(index as usize),
            3 => Cut::LoseOnly(index as usize),
            4 => Cut::KeepOnly(index as usize),
            5 => Cut::TearOnly { index: index as usize, sectors: (drawn >> 40) % 8 },
            6 => Cut::Subset(drawn),
            _ => Cut::Sectors(drawn),
        };
        let image: Image = self.medium.power_cut(&cut);
        // An index that closes in good order writes; that is not to be seen.
        self.engine = None;
        self.medium = SimDevice::from_image(image, options(shuffle)).handle();
    }

    /// How full it is.
    pub fn usage(&mut self) -> Option<Usage> {
        let mut usage = look(self.engine.as_mut()?);
        // What the store has not been given yet counts as what it has taken in.
        for (_, transaction) in &self.waiting {
            let (data, index) = transaction.takes_at_most();
            usage.data.used_at_most_bytes += data;
            usage.index.used_at_most_bytes += index;
        }
        Some(usage)
    }

    pub fn engine(&mut self) -> Option<&mut Engine<SimDevice>> {
        self.engine.as_mut()
    }

    pub fn persist(&mut self, pgid: PgId, txn: &PgTransaction) -> Result<(), BadChange> {
        let writer = self.writers.entry(pgid).or_insert_with(|| GroupWriter::new(pgid));
        let out = writer.transaction(txn)?;
        self.commit(out, Job::Group(pgid, txn.token));
        Ok(())
    }

    pub fn save_superblock(&mut self, superblock: &Superblock) {
        self.commit(Transaction { ops: vec![superblock_op(superblock)] }, Job::Kept);
    }

    pub fn keep_maps(
        &mut self,
        full: Option<&OsdMap>,
        increments: &[OsdMapIncremental],
        before: Option<Epoch>,
    ) {
        let out = maps_transaction(&mut self.kept, full, increments, before);
        if !out.ops.is_empty() {
            self.commit(out, Job::Kept);
        }
    }

    /// Makes a group gone. False when nothing of it is stored.
    pub fn remove_group(&mut self, pgid: PgId) -> bool {
        let is_stored = self.writers.remove(&pgid).is_some();
        if is_stored {
            self.commit(begin_removal(pgid), Job::Swept(pgid));
        }
        is_stored
    }

    fn commit(&mut self, transaction: Transaction, job: Job) {
        let token = self.next_token;
        self.next_token += 1;
        self.jobs.insert(token, job);
        self.waiting.push_back((token, transaction));
        self.give();
    }

    fn give(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        while let Some((token, transaction)) = self.waiting.pop_front() {
            match engine.submit(token, transaction.clone()) {
                Ok(()) => {}
                Err(SubmitError::Busy) => return self.waiting.push_front((token, transaction)),
                // It has stopped: the next poll says so.
                Err(_) => return,
            }
        }
    }

    fn is_busy(&self) -> bool {
        let works = |engine: &Engine<SimDevice>| engine.unfinished() > 0 || engine.is_busy();
        !self.waiting.is_empty() || self.engine.as_ref().is_some_and(works)
    }
}

fn open(device: SimDevice) -> Result<Engine<SimDevice>, StoreError> {
    Engine::open(device, &open_options(), Box::new(Inline::default()))
}

impl World {
    /// The store has something to do: it goes on in a moment.
    pub(super) fn wake_store(&mut self, osd: OsdId) {
        let Some(node) = self.osds.get(&osd) else { return };
        if node.disk.polls || node.core.is_none() {
            return;
        }
        let (life, slow_us) = (node.life, node.disk.slow_us);
        let latency_us = match self.rng_disk.below(40) {
            0 => self.rng_disk.between(1_000, 20_000),
            _ => self.rng_disk.between(20, 250),
        };
        if let Some(node) = self.osds.get_mut(&osd) {
            node.disk.polls = true;
        }
        self.line.after_us(latency_us + slow_us, Ev::StorePoll { osd, life });
    }

    fn living_osd(&mut self, osd: OsdId, life: u64) -> Option<&mut OsdProc> {
        self.osds.get_mut(&osd).filter(|node| node.life == life && node.core.is_some())
    }

    pub(super) fn store_poll(&mut self, osd: OsdId, life: u64) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let disk = &mut node.disk;
        disk.polls = false;
        let Some(engine) = &mut disk.engine else { return };
        let mut events = Vec::new();
        let result = engine.poll(Wait::No, &mut events);
        disk.give();
        disk.idle = if disk.is_busy() || !events.is_empty() { 0 } else { disk.idle + 1 };
        // What it does behind the scenes takes a few polls more.
        let again = disk.is_busy() || disk.idle < 8;
        let rests = !again && disk.engine.as_ref().is_some_and(Engine::wants_rest);
        let asked = disk.next_token;
        if let Err(error) = result {
            return self.store_failed(osd, &error.to_string());
        }
        for event in events {
            match event {
                Event::Committed { token, result } => {
                    self.committed(osd, life, token, result.map_err(|e| e.to_string()))
                }
                Event::Read { token, result } => self.gathered(osd, life, token, result),
            }
        }
        if again {
            self.wake_store(osd);
        }
        if rests {
            // The daemon waits for 250 ms; often less here, for pauses are short.
            let after_us = self.rng_disk.between(5_000, 250_000);
            self.line.after_us(after_us, Ev::StoreRest { osd, life, asked });
        }
    }

    /// Nobody may have asked for anything for a while.
    pub(super) fn store_rest(&mut self, osd: OsdId, life: u64, asked: u64) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let disk = &mut node.disk;
        let is_quiet = disk.next_token == asked && !disk.is_busy();
        let Some(engine) = disk.engine.as_mut().filter(|engine| is_quiet && engine.wants_rest()) else {
            return;
        };
        engine.rest();
        disk.idle = 0;
        self.wake_store(osd);
    }

    pub(super) fn store_failed(&mut self, osd: OsdId, why: &str) {
        let hurt = self.osds.get(&osd).is_some_and(|node| node.hurt);
        if !hurt {
            self.fail(Kind::Crash, format!("the store of {osd} has stopped: {why}"));
        }
        self.tell_osd(osd, OsdEvent::StoreFailed);
    }

    fn committed(&mut self, osd: OsdId, life: u64, token: u64, result: Result<(), String>) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let Some(job) = node.disk.jobs.remove(&token) else { return };
        if let Err(error) = result {
            return self.store_failed(osd, &format!("{job:?}: {error}"));
        }
        match job {
            Job::Group(pgid, token) => self.tell_osd(osd, OsdEvent::Persisted { pgid, token }),
            Job::Kept => {}
            Job::Swept(pgid) => {
                self.line.after_us(100, Ev::StoreSweep { osd, life, pgid });
            }
        }
    }

    pub(super) fn store_sweep(&mut self, osd: OsdId, life: u64, pgid: PgId) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let Some(engine) = node.disk.engine() else { return };
        match sweep(engine, pgid) {
            Ok(Some(transaction)) => {
                node.disk.commit(transaction, Job::Swept(pgid));
                self.wake_store(osd);
            }
            Ok(None) => self.tell_osd(osd, OsdEvent::GroupRemoved { pgid }),
            Err(error) => self.store_failed(osd, &error.to_string()),
        }
    }

    pub(super) fn ask_store(&mut self, osd: OsdId, token: QueryToken, pgid: PgId, query: Query) {
        let Some(life) = self.life(Proc::Osd(osd)) else { return };
        let latency_us = self.rng_disk.between(10, 200);
        let answering = Answering::new(pgid, query);
        self.line.after_us(latency_us, Ev::StoreQuery { osd, life, token, answering });
    }

    pub(super) fn store_query(&mut self, osd: OsdId, life: u64, token: QueryToken, answering: Answering) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let Some(engine) = node.disk.engine() else { return };
        match answering.step(engine) {
            Ok(Step::Done(answer)) => self.tell_osd(osd, OsdEvent::Queried { token, answer }),
            Ok(Step::Again(answering)) => {
                self.line.after_us(50, Ev::StoreQuery { osd, life, token, answering });
            }
            Ok(Step::Read(requests, reading)) => {
                let disk = &mut node.disk;
                let gathering = disk.next_token;
                let got = requests.iter().map(|_| None).collect();
                disk.gatherings.insert(gathering, Gathering { token, reading, got });
                disk.next_token += 1;
                let mut refused = None;
                for (at, request) in requests.into_iter().enumerate() {
                    let read = disk.next_token;
                    disk.next_token += 1;
                    disk.reads.insert(read, (gathering, at));
                    let Some(engine) = &mut disk.engine else { return };
                    if let Err(error) = engine.read(read, request) {
                        refused = Some(error.to_string());
                    }
                }
                match refused {
                    Some(why) => self.store_failed(osd, &why),
                    None => self.wake_store(osd),
                }
            }
            Err(error) => self.store_failed(osd, &error.to_string()),
        }
    }

    fn gathered(&mut self, osd: OsdId, life: u64, read: u64, result: Result<ReadData, ReadError>) {
        let Some(node) = self.living_osd(osd, life) else { return };
        let disk = &mut node.disk;
        let Some((key, at)) = disk.reads.remove(&read) else { return };
        let Some(gathering) = disk.gatherings.get_mut(&key) else { return };
        gathering.got[at] = Some(result);
        if gathering.got.iter().any(Option::is_none) {
            return;
        }
        let Some(Gathering { token, reading, got }) = disk.gatherings.remove(&key) else { return };
        match reading.finish(got.into_iter().flatten().collect()) {
            Ok(answer) => self.tell_osd(osd, OsdEvent::Queried { token, answer }),
            Err(error) => self.store_failed(osd, &error.to_string()),
        }
    }

    pub(super) fn store_usage(&mut self, osd: OsdId, life: u64) {
        let Some(node) = self.living_osd(osd, life) else { return };
        if let Some(usage) = node.disk.usage() {
            // It may have been asked to settle something.
            self.wake_store(osd);
            self.tell_osd(osd, OsdEvent::Usage(usage));
        }
    }
}
