//! What a group's own state costs the store beside the data: 4 KiB writes alone, and with the log entry, the info and
//! the trimming that an OSD adds to each. `cargo run --release -p cairn-osd --example group_write -- FILE`.

use cairn_osd::persist::GroupWriter;
use cairn_pg::{
    EntryKind, LogChange, LogEntry, ObjectKey, PersistToken, PgInfo, PgTransaction, RequestId, Version,
};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{FileDevice, FileMedium, QueueKind};
use cairn_store::{CreateOptions, Engine, Op, OpenOptions, Store, Transaction};
use cairn_types::{Epoch, ObjectId, PgId, PoolId, SnapId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

const WRITES: u64 = 50_000;
const DEPTH: usize = 32;
/// As a group keeps them when all copies are well.
const LOG_ENTRIES: usize = 3_000;
const OBJECTS: u64 = 64;

fn pg(seed: u32) -> PgId {
    PgId { pool: PoolId(1), seed }
}

fn object(n: u64) -> ObjectId {
    ObjectId {
        pool: PoolId(1),
        hash: n as u32,
        namespace: String::new(),
        key: String::new(),
        name: format!("rbd_data.1f2e3d4c.{n:016x}"),
        snap: SnapId::HEAD,
    }
}

/// Writes 4 KiB all over some objects, `DEPTH` at once; microseconds per transaction.
fn run(store: &Store, seed: u32, mut extend: impl FnMut(u64, &ObjectId, &mut Transaction)) -> f64 {
    let data = bytes::Bytes::from(vec![7; 4096]);
    let (done, wait) = sync_channel(DEPTH);
    let started = Instant::now();
    for n in 0..WRITES {
        if n >= DEPTH as u64 {
            wait.recv().expect("a completion");
        }
        let object = object(n % OBJECTS);
        let offset = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1024 * 4096;
        let mut out = Transaction::default();
        out.ops.push(Op::Write {
            pg: pg(seed),
            object: object.clone(),
            offset,
            data: data.clone(),
            checksums: None,
        });
        extend(n, &object, &mut out);
        let done = done.clone();
        store
            .submit(out, move |result| {
                result.expect("it is written");
                done.send(()).expect("waited for");
            })
            .expect("open");
    }
    for _ in 0..DEPTH {
        wait.recv().expect("a completion");
    }
    started.elapsed().as_secs_f64() * 1e6 / WRITES as f64
}

fn main() {
    let path = std::env::args().nth(1).expect("the path of a file to make");
    let medium: Arc<dyn BlockingDevice> = FileMedium::create(path.as_ref(), 2 << 30).expect("a file");
    Engine::<FileDevice>::create(medium, &CreateOptions::default()).expect("a store");
    let store = Store::open(path.as_ref(), &OpenOptions::default(), QueueKind::Auto).expect("a store");
    store.commit(Transaction { ops: vec![Op::CreateCollection(pg(0))] }).expect("a collection");
    let bare = run(&store, 0, |_, _, _| {});

    let mut writer = GroupWriter::new(pg(1));
    let mut first = Transaction::default();
    writer.begin(&mut first);
    store.commit(first).expect("a collection");
    let mut info = PgInfo::new(pg(1), Epoch(1), Epoch(1));
    let mut kept: VecDeque<Version> = VecDeque::new();
    let whole = run(&store, 1, |n, object, out| {
        let version = Version { epoch: Epoch(1), version: n + 1 };
        let entry = LogEntry {
            version,
            prior_version: Version { epoch: Epoch(1), version: n.saturating_sub(OBJECTS) },
            object: ObjectKey::new(object.clone()),
            kind: EntryKind::Modify,
            request: Some(RequestId { client: 4100, incarnation: 0, tid: n }),
            result: bytes::Bytes::from_static(&[0; 24]),
        };
        kept.push_back(version);
        let trim_to = if kept.len() > LOG_ENTRIES { kept.pop_front() } else { None };
        info.last_update = version;
        info.log_tail = trim_to.unwrap_or(info.log_tail);
        let txn = PgTransaction {
            token: PersistToken(n),
            objects: Vec::new(),
            log: LogChange { append: vec![entry], trim_to, ..LogChange::default() },
            clear_missing: false,
            missing: Vec::new(),
            info: info.clone(),
            past_intervals: None,
        };
        writer.write(&txn, out);
    });
    println!("4 KiB writes, {DEPTH} at once: {bare:.1} us alone, {whole:.1} us with a group's state");
    store.close().expect("closed");
}
