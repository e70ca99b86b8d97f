//! A store on a simulated device, driven on the test's own thread: for the tests of the engine's parts.

use super::runner::Inline;
use super::{CreateOptions, Engine, Event, OpenOptions};
use crate::device::Wait;
use crate::device::sim::{SimDevice, SimHandle, SimOptions};
use crate::txn::{Op, Transaction};
use bytes::Bytes;
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

/// Its one collection.
pub const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

pub fn object(name: &str) -> ObjectId {
    ObjectId {
        pool: PG.pool,
        hash: 0,
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

pub fn write(name: &str, offset: u64, data: impl Into<Bytes>) -> Op {
    Op::Write { pg: PG, object: object(name), offset, data: data.into(), checksums: None }
}

/// A new store with the collection.
pub fn store(len_bytes: u64) -> (Engine<SimDevice>, SimHandle) {
    let device = SimDevice::new(len_bytes, SimOptions::default());
    let medium = device.handle();
    Engine::<SimDevice>::create(medium.blocking(), &CreateOptions::default()).unwrap();
    let mut engine = Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap();
    commit(&mut engine, vec![Op::CreateCollection(PG)]);
    (engine, medium)
}

/// Carries a transaction out.
pub fn commit(engine: &mut Engine<SimDevice>, ops: Vec<Op>) {
    engine.submit(0, Transaction { ops }).unwrap();
    let mut events = Vec::new();
    while engine.unfinished() > 0 {
        engine.poll(Wait::Event, &mut events).unwrap();
    }
    assert!(matches!(&events[..], [Event::Committed { result: Ok(()), .. }]), "{events:?}");
}

/// Makes a checkpoint, and waits until all that it freed is given back.
pub fn checkpoint(engine: &mut Engine<SimDevice>) {
    engine.request_checkpoint();
    let mut events = Vec::new();
    while engine.is_checkpointing() {
        engine.poll(Wait::Event, &mut events).unwrap();
    }
    assert!(events.is_empty(), "{events:?}");
}
