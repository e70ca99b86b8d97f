//! The store on a file, from many threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{Access, FileMedium, QueueKind};
use cairn_store::device::sim::SimDevice;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{
    CreateOptions, Engine, Op, OpenOptions, ReadRequest, Store, StoreError, SubmitError, Transaction,
};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

const BLOCK: u64 = 4096;
const PG: PgId = PgId { pool: PoolId(1), seed: 0 };
const KINDS: [QueueKind; 2] = [QueueKind::Auto, QueueKind::Threads];

fn object(name: &str) -> ObjectId {
    ObjectId {
        pool: PoolId(1),
        hash: crc32fast::hash(name.as_bytes()),
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

fn made(dir: &tempfile::TempDir, len_bytes: u64) -> PathBuf {
    let path = dir.path().join("store");
    let medium: Arc<dyn BlockingDevice> = FileMedium::create(&path, len_bytes).unwrap();
    let options = CreateOptions { store: [3; 16], log_bytes: Some(1 << 20), ..CreateOptions::default() };
    Engine::<SimDevice>::create(medium, &options).unwrap();
    path
}

fn open(path: &Path, kind: QueueKind) -> Store {
    Store::open(path, &OpenOptions::default(), kind).unwrap()
}

fn write(name: &str, offset: u64, data: impl Into<Bytes>) -> Transaction {
    let (object, data) = (object(name), data.into());
    Transaction { ops: vec![Op::Write { pg: PG, object, offset, data, checksums: None }] }
}

fn make_collection(store: &Store) {
    store.commit(Transaction { ops: vec![Op::CreateCollection(PG)] }).unwrap();
}

fn content(store: &Store, name: &str) -> Bytes {
    let request = ReadRequest { pg: PG, object: object(name), offset: 0, len: u64::MAX };
    store.fetch(request).unwrap().data
}

fn assert_clean(path: &Path) {
    let medium: Arc<dyn BlockingDevice> = FileMedium::open(path, Access::ReadOnly).unwrap();
    let options = FsckOptions { deep: true, repair: false };
    let report = fsck::check(&medium, &options, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_store_that_is_left_alone_puts_in_place_what_lies_in_its_log() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&made(&dir, 64 << 20), kind);
        make_collection(&store);
        store.commit(write("object", 0, vec![1; BLOCK as usize])).unwrap();
        let is_in_place = || {
            let (done, answer) = channel();
            store
                .query(|engine| engine.counters().writeback_bytes, move |bytes| drop(done.send(bytes)))
                .unwrap();
            answer.recv().unwrap().unwrap() == BLOCK
        };
        // Each question is a disturbance, so they are far apart.
        let mut looks = 0;
        while !is_in_place() {
            looks += 1;
            assert!(looks < 40, "{kind:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(content(&store, "object"), vec![1; BLOCK as usize]);
    }
}

#[test]
fn writers_and_readers_share_a_store_and_it_opens_again() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let path = made(&dir, 64 << 20);
        let store = open(&path, kind);
        make_collection(&store);
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let store = store.clone();
                scope.spawn(move || {
                    let name = format!("object-{writer}");
                    for round in 0..60_u8 {
                        let byte = writer * 60 + round;
                        // Small ones, and some that go to fresh extents.
                        let len = if round % 10 == 9 { 32 * BLOCK } else { 2 * BLOCK };
                        store.commit(write(&name, 0, vec![byte; len as usize])).unwrap();
                        let read = content(&store, &name);
                        assert!(read[..len as usize].iter().all(|found| *found == byte), "{kind:?} {name}");
                    }
                });
            }
            for _ in 0..2 {
                let store = store.clone();
                scope.spawn(move || {
                    for round in 0..200 {
                        let name = format!("object-{}", round % 4);
                        let request =
                            ReadRequest { pg: PG, object: object(&name), offset: 0, len: 2 * BLOCK };
                        // Never a part of one write and a part of another.
                        if let Ok(read) = store.fetch(request) {
                            assert!(read.data.iter().all(|byte| *byte == read.data[0]));
                        }
                    }
                });
            }
        });
        assert_eq!(store.counters().unwrap().transactions, 241);
        let before: BTreeMap<u8, Bytes> =
            (0..4).map(|writer| (writer, content(&store, &format!("object-{writer}")))).collect();
        store.close().unwrap();
        assert!(matches!(store.usage(), Err(StoreError::Closed)));
        assert_clean(&path);

        let store = open(&path, kind);
        assert_eq!(store.collections().unwrap(), [PG]);
        assert_eq!(store.list(PG, None, 10).unwrap().len(), 4);
        assert_eq!(store.usage().unwrap().log_used_bytes, 0, "closing makes a checkpoint");
        for (writer, data) in before {
            assert_eq!(content(&store, &format!("object-{writer}")), data);
        }
    }
}

#[test]
fn completions_come_in_order_and_may_submit_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, 64 << 20);
    let store = open(&path, QueueKind::Auto);
    make_collection(&store);
    let order = Arc::new(Mutex::new(Vec::new()));
    let (done, finished) = channel();
    for number in 0..300_u64 {
        let (order, done, again) = (Arc::clone(&order), done.clone(), store.clone());
        store
            .submit(write("object", number * BLOCK, vec![1; BLOCK as usize]), move |result| {
                result.unwrap();
                order.lock().unwrap().push(number);
                again
                    .submit(write("second", number * 16, vec![2; 16]), move |result| {
                        done.send(result.is_ok()).unwrap();
                    })
                    .unwrap();
            })
            .unwrap();
    }
    drop(done);
    assert_eq!(finished.iter().filter(|is_ok| *is_ok).count(), 300);
    assert!(order.lock().unwrap().is_sorted());
    let counters = store.counters().unwrap();
    assert!(counters.records < counters.transactions, "what waits shares records: {counters:?}");
    let refused = store.commit(Transaction { ops: vec![Op::Remove(PG, object("none"))] }).unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
}

#[test]
fn a_question_is_answered_on_the_stores_thread_and_hears_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&made(&dir, 16 << 20), QueueKind::Auto);
    make_collection(&store);
    store.commit(write("a", 0, "content")).unwrap();
    let (answers, received) = channel();
    let reads = answers.clone();
    let clone = store.clone();
    let question = |engine: &mut Engine<_>| engine.stat(PG, &object("a")).unwrap().size;
    store
        .query(question, move |size| {
            let request = ReadRequest { pg: PG, object: object("a"), offset: 0, len: size.unwrap() };
            clone.read(request, move |read| reads.send(read.unwrap().data).unwrap()).unwrap();
        })
        .unwrap();
    assert_eq!(received.recv().unwrap(), "content");
    store.close().unwrap();
    let refused = store.query(
        |engine| engine.usage(),
        move |usage| {
            answers.send(Bytes::from(usage.unwrap_err().to_string())).unwrap();
        },
    );
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert_eq!(received.recv().unwrap(), "the store is closed");
}

#[test]
fn a_full_queue_says_so_or_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, 64 << 20);
    let store = open(&path, QueueKind::Auto);
    make_collection(&store);
    // A completion that holds the thread, so that the queue fills.
    let (go, gate) = sync_channel::<()>(0);
    let (entered, held) = sync_channel(1);
    store
        .submit(write("object", 0, vec![1; 16]), move |_| {
            entered.send(()).unwrap();
            gate.recv().unwrap();
        })
        .unwrap();
    held.recv().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let mut taken = 0;
    let rejected = loop {
        let answered = Arc::clone(&answered);
        match store.try_submit(write("object", 0, vec![2; 16]), move |result| {
            result.unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
        }) {
            Ok(()) => taken += 1,
            Err(rejected) => break *rejected,
        }
        assert!(taken < 100_000, "the queue has no bound");
    };
    assert!(matches!(rejected.error, SubmitError::Busy) && taken > 1000, "{taken} taken");
    let is_through = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Waits until there is room.
            store.commit(rejected.request).unwrap();
            is_through.store(true, Ordering::SeqCst);
        });
        while !is_waiting(&store) {
            std::thread::yield_now();
        }
        assert!(!is_through.load(Ordering::SeqCst));
        go.send(()).unwrap();
    });
    // The last transaction is durable, so are those before it.
    assert_eq!(answered.load(Ordering::SeqCst), taken);
}

/// Whether the queue is still full: the thread is held, so nobody can have come in.
fn is_waiting(store: &Store) -> bool {
    let request = ReadRequest { pg: PG, object: object("object"), offset: 0, len: 1 };
    matches!(store.try_read(request, |_| {}), Err(rejected) if matches!(rejected.error, SubmitError::Busy))
}

#[test]
fn closing_finishes_what_was_given_and_frees_the_device() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let path = made(&dir, 64 << 20);
        let store = open(&path, kind);
        make_collection(&store);
        assert!(Store::open(&path, &OpenOptions::default(), kind).is_err(), "it is open");
        let answered = Arc::new(AtomicUsize::new(0));
        for number in 0..500 {
            let answered = Arc::clone(&answered);
            store
                .submit(write("object", number * BLOCK, vec![7; BLOCK as usize]), move |result| {
                    result.unwrap();
                    answered.fetch_add(1, Ordering::SeqCst);
                })
                .unwrap();
        }
        store.close().unwrap();
        store.close().unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), 500);
        assert!(matches!(store.submit(Transaction::default(), |_| {}), Err(StoreError::Closed)));
        // While the old handle is still there.
        let second = open(&path, kind);
        assert_eq!(content(&second, "object"), vec![7; 500 * BLOCK as usize]);
        drop(second);
        drop(open(&path, kind));
        assert_clean(&path);
    }
}

#[test]
fn a_panic_on_its_thread_stops_the_store_and_everybody_hears_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, 64 << 20);
    let store = open(&path, QueueKind::Auto);
    make_collection(&store);
    let (go, gate) = sync_channel::<()>(0);
    store
        .submit(write("object", 0, vec![1; 16]), move |_| {
            gate.recv().unwrap();
            panic!("a completion that is wrong");
        })
        .unwrap();
    let (done, answers) = channel();
    for number in 0..20 {
        let done = done.clone();
        store.submit(write("object", number, vec![2; 16]), move |result| done.send(result).unwrap()).unwrap();
    }
    drop(done);
    go.send(()).unwrap();
    // A record may have been under way, acknowledged in the same breath; what is refused says why.
    let answers: Vec<_> = answers.iter().collect();
    assert_eq!(answers.len(), 20);
    for error in answers.into_iter().filter_map(Result::err) {
        assert!(error.to_string().contains("a completion that is wrong"), "{error}");
    }
    for _ in 0..2 {
        let error = store.commit(write("object", 0, vec![3; 16])).unwrap_err();
        assert!(error.to_string().contains("a completion that is wrong"), "{error}");
    }
    assert!(matches!(store.usage(), Err(StoreError::Poisoned(_))));
    assert!(matches!(store.close(), Err(StoreError::Poisoned(_))));
    // What was under way may have become durable; what came later has not.
    let first = content(&open(&path, QueueKind::Auto), "object")[0];
    assert!(first == 1 || first == 2, "{first}");
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let failure = |path: &Path| Store::open(path, &OpenOptions::default(), QueueKind::Auto).unwrap_err();
    assert!(failure(&path).to_string().contains("none"));
    std::fs::write(&path, vec![0; 8 << 20]).unwrap();
    assert!(matches!(failure(&path), StoreError::NotAStore));
}

#[test]
fn an_object_with_more_omap_entries_than_fit_in_a_transaction_is_cleared_and_removed() {
    const ENTRIES: u32 = 80_000;
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir, 512 << 20);
    let store = open(&path, QueueKind::Auto);
    make_collection(&store);
    let fill = || {
        for first in (0..ENTRIES).step_by(1000) {
            let entries = (first..first + 1000)
                .map(|key| (Bytes::copy_from_slice(&key.to_be_bytes()), Bytes::from_static(b"value")))
                .collect();
            store.commit(Transaction { ops: vec![Op::OmapSet(PG, object("index"), entries)] }).unwrap();
        }
    };
    let listed = || store.omap_list(PG, &object("index"), None, usize::MAX).map(|all| all.len());
    fill();
    assert_eq!(listed().unwrap(), ENTRIES as usize);
    store.commit(Transaction { ops: vec![Op::OmapClear(PG, object("index"))] }).unwrap();
    assert_eq!(listed().unwrap(), 0);
    fill();
    store.commit(Transaction { ops: vec![Op::Remove(PG, object("index"))] }).unwrap();
    assert!(listed().is_err(), "it is gone");
    store.close().unwrap();
    assert_clean(&path);
    let index_bytes = open(&path, QueueKind::Auto).usage().unwrap().index_used_bytes;
    assert!(index_bytes < 4096, "{index_bytes} bytes of entries are left");
}
