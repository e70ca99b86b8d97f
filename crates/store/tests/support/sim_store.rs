//! A store on a simulated device, driven on the test's own thread.
#![allow(dead_code, reason = "each test uses its part of it")]

use bytes::Bytes;
use cairn_store::device::Wait;
use cairn_store::device::sim::{Image, SimDevice, SimHandle, SimOptions};
use cairn_store::engine::runner::Inline;
use cairn_store::fsck::{self, FsckOptions, FsckReport};
use cairn_store::{
    CreateOptions, Engine, Event, Op, OpenOptions, ReadError, ReadRequest, StoreError, Transaction,
    TransactionError,
};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

pub const BLOCK: u64 = 4096;
pub const PG: PgId = PgId { pool: PoolId(1), seed: 0 };
/// Polls after which what still is not finished is stuck.
const POLLS_MAX: usize = 100_000;

/// An open store and its medium.
pub struct Sim {
    pub device: SimHandle,
    pub engine: Engine<SimDevice>,
    next_token: u64,
}

/// Results of transactions under way, by their order.
pub type Results = Vec<Result<(), TransactionError>>;

pub fn object(name: &str) -> ObjectId {
    ObjectId {
        pool: PoolId(1),
        hash: crc32fast::hash(name.as_bytes()),
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

pub fn write(name: &str, offset: u64, data: impl Into<Bytes>) -> Op {
    Op::Write { pg: PG, object: object(name), offset, data: data.into(), checksums: None }
}

/// Blocks of one byte.
pub fn blocks(byte: u8, count: u64) -> Bytes {
    vec![byte; (count * BLOCK) as usize].into()
}

/// The image of a new store with one empty collection.
pub fn image(options: &CreateOptions, data_bytes: u64) -> Image {
    let parts = options.log_bytes.expect("a length") + options.index_bytes.expect("a length");
    let device = SimDevice::new(2 * BLOCK + parts + data_bytes, SimOptions::default());
    let handle = device.handle();
    Engine::<SimDevice>::create(handle.blocking(), options).expect("create");
    let mut store = Sim::on(handle.image());
    store.run(vec![Op::CreateCollection(PG)]).expect("a collection");
    store.checkpoint();
    store.device.image()
}

pub fn options() -> CreateOptions {
    CreateOptions {
        store: [9; 16],
        cluster: [4; 16],
        osd: 7,
        log_bytes: Some(512 << 10),
        index_bytes: Some(2 << 20),
        ..CreateOptions::default()
    }
}

pub fn open(image: Image) -> Result<Sim, StoreError> {
    open_with(image, &OpenOptions::default())
}

pub fn open_with(image: Image, options: &OpenOptions) -> Result<Sim, StoreError> {
    let device = SimDevice::from_image(image, SimOptions::default());
    let handle = device.handle();
    let engine = Engine::open(device, options, Box::new(Inline::default()))?;
    Ok(Sim { device: handle, engine, next_token: 0 })
}

pub fn fsck(image: Image) -> Result<FsckReport, StoreError> {
    let device = SimDevice::from_image(image, SimOptions::default()).handle();
    fsck::check(&device.blocking(), &FsckOptions { deep: true, repair: false }, &mut |_, _| {})
}

impl Sim {
    pub fn on(image: Image) -> Self {
        open(image).unwrap_or_else(|error| panic!("open: {error}"))
    }

    /// Submits, without waiting.
    pub fn submit(&mut self, ops: Vec<Op>) -> u64 {
        self.next_token += 1;
        self.engine.submit(self.next_token, Transaction { ops }).expect("room in the queue");
        self.next_token
    }

    /// Waits for everything submitted; results in the order of submission, of those that were not told before.
    pub fn finish(&mut self) -> Results {
        let mut results = std::collections::BTreeMap::new();
        let mut events = Vec::new();
        for _ in 0..POLLS_MAX {
            let is_over = self.engine.poll(Wait::Event, &mut events).is_err();
            for event in events.drain(..) {
                if let Event::Committed { token, result } = event {
                    results.insert(token, result);
                }
            }
            if is_over || (self.engine.unfinished() == 0 && !self.engine.is_checkpointing()) {
                return results.into_values().collect();
            }
        }
        panic!("the store is stuck");
    }

    /// One transaction alone.
    pub fn run(&mut self, ops: Vec<Op>) -> Result<(), TransactionError> {
        self.submit(ops);
        self.finish().pop().expect("a result")
    }

    pub fn checkpoint(&mut self) {
        self.engine.request_checkpoint();
        self.finish();
    }

    pub fn read(&mut self, name: &str, offset: u64, len: u64) -> Result<Bytes, ReadError> {
        self.fetch(ReadRequest { pg: PG, object: object(name), offset, len })
    }

    /// All of an object of any collection.
    pub fn read_in(&mut self, pg: PgId, name: &str) -> Result<Bytes, ReadError> {
        self.fetch(ReadRequest { pg, object: object(name), offset: 0, len: u64::MAX })
    }

    pub fn fetch(&mut self, request: ReadRequest) -> Result<Bytes, ReadError> {
        if let Err(error) = self.engine.read(0, request) {
            match error {
                cairn_store::SubmitError::Store(error) => return Err(error.into()),
                busy => panic!("{busy}"),
            }
        }
        let mut events = Vec::new();
        for _ in 0..POLLS_MAX {
            // What stops the store is in the event, too.
            let _ = self.engine.poll(Wait::Event, &mut events);
            for event in events.drain(..) {
                if let Event::Read { result, .. } = event {
                    return result.map(|read| read.data);
                }
            }
        }
        panic!("a read is stuck");
    }
}
