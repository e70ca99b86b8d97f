//! The store through its handle, on a file: durable overwrites and reads, small and large.
//! `CAIRN_BENCH_DIR` names a directory on the disk to measure. `cairn store bench` has percentiles, CPU
//! time, write amplification and fio beside it; this is for seeing whether a change made a difference.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_store::device::file::QueueKind;
use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, OpenOptions, ReadRequest, Store, Transaction};
use common::{PG, object};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SMALL: u64 = 4 << 10;
const LARGE: u64 = 4 << 20;
const OBJECTS: u64 = 64;
const DISK_BYTES: u64 = 1 << 30;

/// What is measured.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    is_write: bool,
    bytes: u64,
    depth: u64,
}

const LOADS: [Load; 5] = [
    Load { name: "durable overwrite", is_write: true, bytes: SMALL, depth: 1 },
    Load { name: "durable overwrite", is_write: true, bytes: SMALL, depth: 32 },
    Load { name: "read", is_write: false, bytes: SMALL, depth: 32 },
    Load { name: "durable overwrite", is_write: true, bytes: LARGE, depth: 4 },
    Load { name: "read", is_write: false, bytes: LARGE, depth: 4 },
];

/// Requests of one kind, each made in the completion of the one before, on the store's thread: waking
/// another thread for each would be a good part of what is measured.
struct Run {
    store: Store,
    load: Load,
    data: Bytes,
    /// Requests still to make.
    left: AtomicU64,
    seed: AtomicU64,
}

impl Run {
    /// Makes a request, or tells that there is none left to make: so many times as the depth.
    fn next(self: &Arc<Self>, done: Sender<()>) {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return done.send(()).expect("somebody waits");
        }
        let mut rng = SplitMix64::new(self.seed.fetch_add(1, Ordering::Relaxed));
        let object = object(rng.below(OBJECTS));
        let (run, len) = (Arc::clone(self), self.load.bytes);
        let offset = rng.below(LARGE / len) * len;
        let taken = if self.load.is_write {
            let data = self.data.slice(..len as usize);
            let ops = vec![Op::Write { pg: PG, object, offset, data, checksums: None }];
            self.store.submit(Transaction { ops }, move |result| {
                result.expect("a write");
                run.next(done);
            })
        } else {
            self.store.read(ReadRequest { pg: PG, object, offset, len }, move |result| {
                assert_eq!(result.expect("a read").data.len() as u64, len);
                run.next(done);
            })
        };
        taken.expect("an open store");
    }
}

/// Brings everything in place.
fn settle(store: &Store) {
    store.request_checkpoint().expect("an open store");
    while store.is_checkpointing().expect("an open store") {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn bench(criterion: &mut Criterion) {
    let (path, _dir) = common::made(DISK_BYTES);
    let store = Store::open(&path, &OpenOptions::default(), QueueKind::Auto).expect("open");
    let mut rng = SplitMix64::new(0);
    let data: Bytes = (0..LARGE / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect::<Vec<u8>>().into();
    store.commit(Transaction { ops: vec![Op::CreateCollection(PG)] }).expect("collection");
    // Overwrites and reads of what is there, not of holes.
    for number in 0..OBJECTS {
        let (object, data) = (object(number), data.clone());
        let ops = vec![Op::Write { pg: PG, object, offset: 0, data, checksums: None }];
        store.commit(Transaction { ops }).expect("object");
    }

    let mut group = criterion.benchmark_group("store");
    for load in LOADS {
        let size = if load.bytes == SMALL { "4 KiB" } else { "4 MiB" };
        group.throughput(Throughput::Bytes(load.bytes));
        let id = BenchmarkId::new(format!("{} {size}", load.name), format!("depth {}", load.depth));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|requests| {
                settle(&store);
                let run = Arc::new(Run {
                    store: store.clone(),
                    load,
                    data: data.clone(),
                    left: AtomicU64::new(requests),
                    seed: AtomicU64::new(rng.next_u64()),
                });
                let (done, over) = channel();
                let start = Instant::now();
                (0..load.depth).for_each(|_| run.next(done.clone()));
                (0..load.depth).for_each(|_| over.recv().expect("the store goes on"));
                start.elapsed()
            });
        });
    }
    group.finish();
    store.close().expect("nothing failed");
}

criterion_group!(benches, bench);
criterion_main!(benches);
