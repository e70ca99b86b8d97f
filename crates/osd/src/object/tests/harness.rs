//! A store with one group, and the loop that a driver runs.

use crate::object::{Executed, Fault, ObjectState, Sender, Stamp, Supplied, View, apply, execute};
use bytes::Bytes;
use cairn_pg::{Blob, Version};
use cairn_store::device::file::{FileDevice, FileMedium, QueueKind};
use cairn_store::{CreateOptions, Engine, Op as StoreOp, OpenOptions, ReadRequest, Store, Transaction};
use cairn_types::{EntityAddr, EntityKind, EntityName, Epoch, ObjectId, PgId, PoolId, SnapId, Timestamp};
use cairn_wire::op::{Op, OpFlags, OpKind, OpOutput, OpRequest, OpResult, SnapContext};
use cairn_wire::{ErrorCode, Payload, RequestId, Segment};

pub const PG: PgId = PgId { pool: PoolId(1), seed: 0 };
pub const NOW: Timestamp = Timestamp(1_800_000_000_250);

pub fn object(name: &str) -> ObjectId {
    let (namespace, key) = (String::new(), String::new());
    ObjectId { pool: PG.pool, hash: 7, namespace, key, name: name.to_owned(), snap: SnapId::HEAD }
}

pub fn sender(client: u64) -> Sender {
    let addr = EntityAddr { socket: "10.1.2.3:0".parse().unwrap(), nonce: 0x0102_0304_0506_0708 };
    Sender { client, addr, entity: EntityName::new(EntityKind::Client, "admin").unwrap() }
}

pub fn request(object: &ObjectId, ops: Vec<Op>) -> OpRequest {
    OpRequest {
        request: RequestId { client: 1, incarnation: 1, tid: 1 },
        epoch: Epoch(1),
        pg: PG,
        object: object.clone(),
        snaps: SnapContext::default(),
        mtime: Timestamp(1_700_000_000_000),
        flags: OpFlags::default(),
        ops: ops.into(),
    }
}

/// What a vector came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    pub code: ErrorCode,
    pub results: Vec<OpResult>,
    pub data: Payload,
    pub change: Option<Blob>,
    pub watch: Vec<crate::object::WatchChange>,
    pub user_version: u64,
    /// How often faults came back.
    pub rounds: usize,
}

impl Outcome {
    /// The output of an operation that gives bytes.
    pub fn bytes(&self, op: usize) -> Bytes {
        match &self.results[op].output {
            OpOutput::Bytes(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }
}

pub struct Cluster {
    pub store: Store,
    _dir: tempfile::TempDir,
    pub version: u64,
    pub client: u64,
    pub now: Timestamp,
}

impl Cluster {
    pub fn new() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let medium = FileMedium::create(&path, 64 << 20).unwrap();
        let options = CreateOptions { store: [3; 16], log_bytes: Some(1 << 20), ..CreateOptions::default() };
        Engine::<FileDevice>::create(medium, &options).unwrap();
        let store = Store::open(&path, &OpenOptions::default(), QueueKind::Threads).unwrap();
        store.commit(Transaction { ops: vec![StoreOp::CreateCollection(PG)] }).unwrap();
        Cluster { store, _dir: dir, version: 100, client: 4100, now: NOW }
    }

    pub fn state(&self, object: &ObjectId) -> ObjectState {
        ObjectState::from_stored(self.store.stat(PG, object).ok()).unwrap()
    }

    /// What a driver answers.
    pub fn supply(&self, object: &ObjectId, fault: &Fault) -> Supplied {
        match fault {
            Fault::Attrs => Supplied::Attrs(self.state(object)),
            &Fault::Data { offset, len } => {
                let object = object.clone();
                Supplied::Data(self.store.fetch(ReadRequest { pg: PG, object, offset, len }).unwrap())
            }
            &Fault::Extents { offset, len } => {
                Supplied::Extents(self.store.extents(PG, object, offset, len).unwrap())
            }
            Fault::OmapKeys(keys) => {
                Supplied::OmapKeys(self.store.omap_get(PG, object, keys.clone()).unwrap())
            }
            Fault::OmapRange { after, prefix, max } => {
                let all = self.omap(object).into_iter();
                let mut entries: Vec<_> =
                    all.filter(|(key, _)| key > after && key.starts_with(prefix)).collect();
                let more = entries.len() > *max as usize;
                entries.truncate(*max as usize);
                Supplied::OmapRange { entries, more }
            }
        }
    }

    pub fn omap(&self, object: &ObjectId) -> Vec<(Bytes, Bytes)> {
        self.store.omap_list(PG, object, None, 1 << 20).unwrap_or_default()
    }

    pub fn content(&self, object: &ObjectId) -> Bytes {
        let (pg, object) = (PG, object.clone());
        let read = self.store.fetch(ReadRequest { pg, object, offset: 0, len: u64::MAX >> 1 });
        read.map(|read| read.data).unwrap_or_default()
    }

    /// Runs a vector to its end; what it changes is committed, and must be what it said.
    pub fn run(&mut self, object: &ObjectId, ops: Vec<Op>, payload: Payload) -> Outcome {
        let request = request(object, ops);
        let sender = sender(self.client);
        self.version += 1;
        let stamp = Stamp { now: self.now, user_version: self.version };
        let mut view = View::new();
        let mut rounds = 0;
        loop {
            match execute(&request, &payload, &sender, &view, &stamp) {
                Executed::Faults(faults) => {
                    assert!(!faults.is_empty());
                    rounds += 1;
                    assert!(rounds < 200, "{request:?} never has enough: {faults:?}");
                    for fault in faults {
                        let supplied = self.supply(object, &fault);
                        view.supply(&fault, supplied);
                    }
                }
                Executed::Read { results, data, code, user_version, watch } => {
                    return Outcome { code, results, data, change: None, watch, user_version, rounds };
                }
                Executed::Write { change, results, code, deletes, after, user_version, watch } => {
                    let version = Version { epoch: Epoch(3), version: self.version };
                    let mut transaction = Transaction::default();
                    apply(&change, PG, object, (!deletes).then_some(version), &mut transaction).unwrap();
                    self.store.commit(transaction).unwrap();
                    let stored = self.state(object);
                    assert_eq!(stored.exists(), !deletes);
                    if !deletes {
                        assert_eq!(stored.stored_version(), version);
                        assert_eq!(stored.info().user_version, user_version);
                    }
                    assert_eq!(stored, ObjectState { version: stored.version, ..after });
                    let (change, data) = (Some(change), Payload::none());
                    return Outcome { code, results, data, change, watch, user_version, rounds };
                }
            }
        }
    }

    /// One operation without data.
    pub fn one(&mut self, object: &ObjectId, kind: OpKind) -> Outcome {
        self.run(object, vec![kind.into()], Payload::none())
    }

    /// One operation that must succeed.
    pub fn ok(&mut self, object: &ObjectId, kind: OpKind) -> Outcome {
        let outcome = self.one(object, kind.clone());
        assert_eq!(outcome.code, ErrorCode::OK, "{kind:?}");
        outcome
    }

    pub fn write(&mut self, object: &ObjectId, offset: u64, data: impl Into<Bytes>) -> Outcome {
        let data = data.into();
        let op = OpKind::Write { offset, len: data.len() as u64 };
        let segment = Segment::new(offset, data).unwrap();
        self.run(object, vec![op.into()], segment.into())
    }

    /// Calls a method.
    pub fn call(&mut self, object: &ObjectId, name: &str, input: impl Into<Bytes>) -> Outcome {
        let (class, method) = name.split_once('.').unwrap();
        let (class, method) = (class.to_owned(), method.to_owned());
        self.one(object, OpKind::Call { class, method, input: input.into() })
    }

    /// Calls a method that must succeed; what it answers.
    pub fn answer(&mut self, object: &ObjectId, name: &str, input: impl Into<Bytes>) -> Bytes {
        let outcome = self.call(object, name, input);
        assert_eq!(outcome.code, ErrorCode::OK, "{name}");
        outcome.bytes(0)
    }
}

/// Bytes from digits; blanks are left out.
pub fn hex(digits: &str) -> Bytes {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
}
