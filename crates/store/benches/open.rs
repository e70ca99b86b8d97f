//! Opening a large store whose log is full, as after a power cut at the worst moment: a sparse file of 1 TiB
//! with 100,000 objects in the index and small overwrites of them, all over, in the whole of the ring.
//! `CAIRN_BENCH_DIR` names a directory on the disk to measure.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_store::device::file::{Access, FileDevice, FileMedium, QueueKind};
use cairn_store::device::sim::SplitMix64;
use cairn_store::device::{Device, Wait};
use cairn_store::engine::runner::{IndexRunner, Late, Threaded};
use cairn_store::{Engine, Event, Op, OpenOptions, Transaction};
use common::{PG, object};
use criterion::{Criterion, criterion_group, criterion_main};

const DISK_BYTES: u64 = 1 << 40;
const OBJECTS: u64 = 100_000;
const BLOCK: u64 = 4096;
const DEPTH: usize = 32;
/// Looks at a store that does not go on until its log is taken to be full.
const LOOKS: u32 = 2_000;

fn open(path: &Path, runner: impl FnOnce(&FileDevice) -> Box<dyn IndexRunner>) -> Engine<FileDevice> {
    let medium = FileMedium::open(path, Access::ReadWrite).expect("open the file");
    let device = FileDevice::new(medium, QueueKind::Auto).expect("a queue");
    let runner = runner(&device);
    Engine::open(device, &OpenOptions::default(), runner).expect("open the store")
}

fn threaded(device: &FileDevice) -> Box<dyn IndexRunner> {
    Box::new(Threaded::new(device.waker()).expect("a thread"))
}

/// Commits no checkpoint while anybody waits for one.
fn never(_: &FileDevice) -> Box<dyn IndexRunner> {
    Box::new(Late::new(1, u64::MAX))
}

/// Makes transactions at a depth until there are no more, or the store does not go on. Says how many ended.
fn run(engine: &mut Engine<FileDevice>, mut next: impl FnMut() -> Option<Transaction>) -> u64 {
    let (mut ended, mut looks, mut more) = (0, 0, true);
    let mut events = Vec::new();
    while more || engine.unfinished() > 0 {
        while more && engine.unfinished() < DEPTH {
            match next() {
                Some(transaction) => engine.submit(0, transaction).expect("room for it"),
                None => more = false,
            }
        }
        engine.poll(Wait::No, &mut events).expect("the store goes on");
        looks = if events.is_empty() { looks + 1 } else { 0 };
        if looks == LOOKS {
            return ended;
        }
        if looks > LOOKS / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for event in events.drain(..) {
            if let Event::Committed { result, .. } = event {
                result.expect("a transaction");
                ended += 1;
            }
        }
    }
    ended
}

fn bench(criterion: &mut Criterion) {
    let (path, _dir) = common::made(DISK_BYTES);

    let data = Bytes::from(vec![7; BLOCK as usize]);
    let write = |number, offset| {
        let (object, data) = (object(number), data.clone());
        Transaction { ops: vec![Op::Write { pg: PG, object, offset, data, checksums: None }] }
    };
    let mut engine = open(&path, threaded);
    let first = Transaction { ops: vec![Op::CreateCollection(PG)] };
    let mut all = std::iter::once(first).chain((0..OBJECTS).map(|number| write(number, 0)));
    run(&mut engine, || all.next());
    engine.request_checkpoint();
    while engine.is_checkpointing() {
        engine.poll(Wait::Event, &mut Vec::new()).expect("the store goes on");
    }
    drop(engine);

    let mut engine = open(&path, never);
    let mut rng = SplitMix64::new(0);
    let written = run(&mut engine, || Some(write(rng.below(OBJECTS), rng.below(1024) * BLOCK)));
    let usage = engine.usage();
    drop(engine);
    println!(
        "{written} transactions in {} of {} MiB of the log",
        usage.log_used_bytes >> 20,
        usage.log_bytes >> 20
    );

    let mut group = criterion.benchmark_group("store");
    group.sample_size(10);
    group.bench_function("open 1 TiB with a full log", |bencher| {
        bencher.iter_custom(|times| {
            (0..times)
                .map(|_| {
                    let start = Instant::now();
                    let engine = open(&path, never);
                    let took = start.elapsed();
                    drop(engine);
                    took
                })
                .sum()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
