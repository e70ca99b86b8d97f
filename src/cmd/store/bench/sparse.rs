//! What a great many objects cost in memory.

use super::load::{Content, OBJECT_BYTES, Request, SMALL_BYTES, numbers_in, object, run, settle};
use crate::cmd::store::text;
use cairn_store::device::file::QueueKind;
use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, OpenOptions, ReadRequest, Store, Transaction};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const KIND: &str = "sparse";
const DEPTH: usize = 64;
/// Random reads of a look around; at most as many as there are objects.
const READS: u64 = 100_000;

/// Resident memory after something.
#[derive(Debug, Serialize)]
pub struct Memory {
    pub after: String,
    pub seconds: f64,
    /// Now.
    pub resident_bytes: u64,
    /// The most so far.
    pub peak_bytes: u64,
    /// Decoded index entries that the store holds.
    pub cached_bytes: u64,
}

impl Memory {
    /// One line.
    pub fn as_text(&self) -> String {
        format!(
            "{:<28} {:>8.1} s   resident {:>11}   peak {:>11}   entry cache {:>11}\n",
            self.after,
            self.seconds,
            text::size(self.resident_bytes),
            text::size(self.peak_bytes),
            text::size(self.cached_bytes),
        )
    }
}

/// Makes `count` objects of 4 MiB with one block each, looks at them before and after the store is opened anew,
/// and tells each time what memory that takes. Gives back the store as it is open then.
pub fn measure(
    path: &Path,
    store: Store,
    queue: QueueKind,
    count: u64,
    mut tell: impl FnMut(Memory) -> anyhow::Result<()>,
) -> anyhow::Result<Store> {
    let mut rng = SplitMix64::new(1);
    let content = Arc::new(Content::new(&mut rng));
    let mut phase = Instant::now();
    let mut after = |what: String, store: &Store| {
        let [resident_kib, peak_kib] = numbers_in("/proc/self/status", ["VmRSS:", "VmHWM:"])?;
        let memory = Memory {
            after: what,
            seconds: phase.elapsed().as_secs_f64(),
            resident_bytes: resident_kib << 10,
            peak_bytes: peak_kib << 10,
            cached_bytes: store.usage()?.cached_bytes,
        };
        phase = Instant::now();
        tell(memory)
    };
    after("open, empty".to_owned(), &store)?;
    let (mut number, mut places) = (0, SplitMix64::new(2));
    run(&store, DEPTH, move || {
        if number == count {
            return None;
        }
        let (pg, object) = object(KIND, number);
        number += 1;
        let offset = places.below(OBJECT_BYTES / SMALL_BYTES) * SMALL_BYTES;
        let data = content.some(SMALL_BYTES, &mut places);
        let write = Op::Write { pg, object: object.clone(), offset, data, checksums: None };
        let ops = vec![write, Op::Truncate { pg, object, size: OBJECT_BYTES }];
        Some(Request::Write(SMALL_BYTES, Transaction { ops }))
    })?;
    after(format!("{count} objects made"), &store)?;
    settle(&store)?;
    after("checkpoint".to_owned(), &store)?;
    let reads = READS.min(count);
    look_around(&store, count, reads, &mut rng)?;
    after(format!("{reads} random reads"), &store)?;
    store.close()?;
    drop(store);
    let store = Store::open(path, &OpenOptions::default(), queue)?;
    after("opened anew".to_owned(), &store)?;
    look_around(&store, count, reads, &mut rng)?;
    after(format!("{reads} random reads"), &store)?;
    Ok(store)
}

fn look_around(store: &Store, count: u64, reads: u64, rng: &mut SplitMix64) -> anyhow::Result<()> {
    let (mut left, mut rng) = (reads, SplitMix64::new(rng.next_u64()));
    run(store, DEPTH, move || {
        left = left.checked_sub(1)?;
        let (pg, object) = object(KIND, rng.below(count));
        let offset = rng.below(OBJECT_BYTES / SMALL_BYTES) * SMALL_BYTES;
        Some(Request::Read(ReadRequest { pg, object, offset, len: SMALL_BYTES }))
    })?;
    Ok(())
}
