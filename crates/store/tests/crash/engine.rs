//! The store itself under the harness.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_store::device::sim::SimDevice;
use cairn_store::device::{BlockingDevice, Wait};
use cairn_store::engine::runner::Late;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{Canary, CreateOptions, Engine, Event, Op, OpenOptions, ReadRequest, Transaction};
use cairn_types::PgId;

use crate::harness::Subject;
use crate::model::{Object, State, object, pg};

const LEN: u64 = 6 << 20;
/// A transaction may take a quarter of it, and a workload goes around it.
const LOG_BYTES: u64 = 512 << 10;
/// What one record of [`Store::settle`] takes of it.
const FILLER_RECORD_BYTES: u64 = 64 << 10;
const INDEX_BYTES: u64 = 2 << 20;
/// A checkpoint is asked for after every so many transactions.
const CHECKPOINT_EVERY: u64 = 5;
/// Every so many it takes a pause for the end of the load, and puts in place what lies in the log.
const REST_EVERY: u64 = 3;

/// Looks for the end of a commit until it comes, at most.
const COMMIT_LOOKS: u64 = 48;
/// So many that the log goes around before.
const COMMIT_LOOKS_LONG: u64 = 1000;

/// The store, with one protection left out or none.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    canary: Option<Canary>,
    commit_looks: u64,
}

impl Store {
    pub fn sound() -> Self {
        Store { canary: None, commit_looks: COMMIT_LOOKS }
    }

    pub fn broken(canary: Canary) -> Self {
        let commit_looks = match canary {
            Canary::EarlyTrim => COMMIT_LOOKS_LONG,
            // At once, before what it speaks of gets in place after all.
            Canary::CheckpointBeforeData => 1,
            _ => COMMIT_LOOKS,
        };
        Store { canary: Some(canary), commit_looks }
    }
}

pub struct Open {
    engine: Engine<SimDevice>,
    events: Vec<Event>,
}

impl Open {
    fn poll(&mut self) -> Result<(), String> {
        self.engine.poll(Wait::Event, &mut self.events).map_err(|error| error.to_string())
    }

    fn read(&mut self, request: ReadRequest) -> Result<Bytes, String> {
        self.engine.read(u64::MAX, request).map_err(|error| error.to_string())?;
        for _ in 0..1000 {
            self.poll()?;
            for event in self.events.drain(..) {
                if let Event::Read { token: u64::MAX, result } = event {
                    let read = result.map_err(|error| error.to_string())?;
                    let blocks = read.data.chunks(4096);
                    if read.checksums.len() != blocks.len() {
                        return Err(format!(
                            "{} checksums for {} bytes",
                            read.checksums.len(),
                            read.data.len()
                        ));
                    }
                    for (block, checksum) in blocks.zip(&read.checksums) {
                        let mut hasher = crc32fast::Hasher::new();
                        hasher.update(block);
                        hasher.update(&[0; 4096][block.len()..]);
                        if hasher.finalize() != *checksum {
                            return Err("data and checksum differ".into());
                        }
                    }
                    return Ok(read.data);
                }
            }
        }
        Err("a read is stuck".into())
    }

    fn object(&mut self, pg: PgId, id: &cairn_types::ObjectId) -> Result<Object, String> {
        let stat = self.engine.stat(pg, id).map_err(|error| error.to_string())?;
        let data = self.read(ReadRequest { pg, object: id.clone(), offset: 0, len: u64::MAX })?.to_vec();
        if data.len() as u64 != stat.size {
            return Err(format!("{id} has {} bytes, {} could be read", stat.size, data.len()));
        }
        let omap = self.engine.omap_list(pg, id, None, 1000).map_err(|error| error.to_string())?;
        Ok(Object { data, xattrs: stat.xattrs, omap: omap.into_iter().collect(), header: stat.omap_header })
    }
}

impl Subject for Store {
    type Store = Open;

    fn len_bytes(&self) -> u64 {
        LEN
    }

    fn format(&self, device: Arc<dyn BlockingDevice>) -> Result<(), String> {
        let options = CreateOptions {
            store: [7; 16],
            log_bytes: Some(LOG_BYTES),
            index_bytes: Some(INDEX_BYTES),
            ..CreateOptions::default()
        };
        Engine::<SimDevice>::create(device, &options).map(drop).map_err(|error| error.to_string())
    }

    /// Moves the log's head to near the ring's end, so that workloads go around it.
    fn settle(&self, device: SimDevice) -> Result<(), String> {
        let mut open = self.open(device)?;
        let filler = Bytes::from(vec![1; 60 << 10]);
        let mut ops = vec![Op::CreateCollection(pg(9))];
        for round in 1..LOG_BYTES / FILLER_RECORD_BYTES {
            let name = vec![("filler".to_owned(), filler.clone())];
            ops.push(Op::SetXattrs(pg(9), object("filler"), name));
            open.engine
                .submit(round, Transaction { ops: std::mem::take(&mut ops) })
                .map_err(|e| e.to_string())?;
            open.engine.request_checkpoint();
            while open.engine.unfinished() > 0 || open.engine.is_checkpointing() {
                open.poll()?;
            }
        }
        let ops = vec![Op::Remove(pg(9), object("filler")), Op::RemoveCollection(pg(9))];
        open.engine.submit(99, Transaction { ops }).map_err(|e| e.to_string())?;
        open.engine.request_checkpoint();
        while open.engine.unfinished() > 0 || open.engine.is_checkpointing() {
            open.poll()?;
        }
        Ok(())
    }

    fn open(&self, device: SimDevice) -> Result<Open, String> {
        let options = OpenOptions {
            cache_bytes: 256 << 10,
            page_cache_bytes: 1 << 20,
            buffer_bytes: 4 << 20,
            ..OpenOptions::default()
        };
        let runner = Late::new(device.handle().event_count(), self.commit_looks);
        let mut engine =
            Engine::open(device, &options, Box::new(runner)).map_err(|error| error.to_string())?;
        engine.set_canary(self.canary);
        Ok(Open { engine, events: Vec::new() })
    }

    fn submit(&self, store: &mut Open, token: u64, transaction: Transaction) -> Result<(), String> {
        store.engine.submit(token, transaction).map_err(|error| error.to_string())?;
        if token.is_multiple_of(CHECKPOINT_EVERY) {
            store.engine.request_checkpoint();
        } else if token.is_multiple_of(REST_EVERY) {
            store.engine.rest();
        }
        Ok(())
    }

    fn poll(&self, store: &mut Open, committed: &mut Vec<u64>) -> Result<(), String> {
        store.poll()?;
        for event in store.events.drain(..) {
            if let Event::Committed { token, result } = event {
                result.map_err(|error| format!("transaction {token}: {error}"))?;
                committed.push(token);
            }
        }
        Ok(())
    }

    fn dump(&self, store: &mut Open) -> Result<State, String> {
        let mut state = State::default();
        for pg in store.engine.collections() {
            let mut objects = BTreeMap::new();
            let mut after = None;
            loop {
                // In small steps, so that listing goes on from where it stopped.
                let ids = store.engine.list(pg, after.as_ref(), 2).map_err(|error| error.to_string())?;
                let Some(last) = ids.last() else { break };
                after = Some(last.clone());
                for id in &ids {
                    objects.insert(id.name.clone(), Arc::new(store.object(pg, id)?));
                }
            }
            state.collections.insert(pg.seed, objects);
        }
        Ok(state)
    }

    fn fsck(&self, device: Arc<dyn BlockingDevice>) -> Result<(), String> {
        let report = fsck::check(&device, &FsckOptions { deep: true, repair: false }, &mut |_, _| {})
            .map_err(|error| error.to_string())?;
        if report.is_clean() { Ok(()) } else { Err(report.to_string()) }
    }
}
