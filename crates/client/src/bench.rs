//! Load on a pool, and what came of it: many operations at once, each measured from call to answer.

use crate::io::{ObjectIo, OpError};
use bytes::Bytes;
use cairn_wire::Payload;
use cairn_wire::op::{OBJECT_LEN_MAX, OpFlags, OpKind};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Most operations at once.
pub const DEPTH_MAX: usize = 1024;
/// Latencies are kept up to an hour; a longer one counts as that.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Three digits of a latency are kept.
const LATENCY_DIGITS: u8 = 3;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Fills blocks in order, then again from the first.
    Write,
    /// Reads blocks that [`Work::Write`] filled, in order.
    Read,
    /// Writes blocks at random.
    RandomWrite,
    /// Reads blocks at random.
    RandomRead,
}

impl Work {
    fn is_read(self) -> bool {
        matches!(self, Work::Read | Work::RandomRead)
    }
}

/// How to do it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchOptions {
    /// What.
    pub work: Work,
    /// Bytes of each operation, from 1 to `object_len`.
    pub block_len: u64,
    /// Bytes of each object, at most [`OBJECT_LEN_MAX`].
    pub object_len: u64,
    /// Objects, named by prefix and number.
    pub objects: u64,
    /// Operations at once, from 1 to [`DEPTH_MAX`].
    pub depth: usize,
    /// No operation begins after this.
    #[serde(rename = "duration_ms", serialize_with = "as_ms")]
    pub duration: Duration,
    /// At most so many operations; `None`: as many as there is time for.
    pub ops_max: Option<u64>,
    /// The objects' names begin so.
    pub prefix: String,
    /// Where the random work begins.
    pub seed: u64,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

/// Why there was no measurement.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BenchError {
    /// A block that is none.
    #[error("blocks of {block_len} bytes do not fit into objects of {object_len}; from 1 to {object_len} do")]
    BlockLen {
        /// As given.
        block_len: u64,
        /// As given.
        object_len: u64,
    },
    /// Objects that cannot be.
    #[error("objects of {object_len} bytes; at most {OBJECT_LEN_MAX} are possible")]
    ObjectLen {
        /// As given.
        object_len: u64,
    },
    /// No object.
    #[error("at least one object is needed")]
    NoObjects,
    /// A depth that cannot be.
    #[error("{depth} operations at once; from 1 to {DEPTH_MAX} are possible")]
    Depth {
        /// As given.
        depth: usize,
    },
    /// There is nothing to read.
    #[error(
        "{object} is not there or shorter than it was written: run the write benchmark with the same sizes first"
    )]
    NothingThere {
        /// The object.
        object: String,
    },
    /// The cluster.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Latencies from call to answer, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean_us: f64,
    /// The fastest.
    pub min_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 90 of 100 were at least as fast.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// What was asked for.
    pub options: BenchOptions,
    /// Operations that were answered.
    pub ops: u64,
    /// Bytes that were moved.
    pub bytes: u64,
    /// From the first call to the last answer, in milliseconds.
    pub elapsed_ms: f64,
    /// Operations per second.
    pub ops_per_s: f64,
    /// MiB per second.
    pub mib_per_s: f64,
    /// How long each took.
    pub latency: Latency,
}

/// How far it is, for who wants to show it. Counts while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Operations that were answered.
    pub ops: AtomicU64,
    /// Bytes that were moved.
    pub bytes: AtomicU64,
}

/// What the workers share.
struct Job<I> {
    io: I,
    options: BenchOptions,
    blocks_per_object: u64,
    data: Bytes,
    next: AtomicU64,
    until: Instant,
    progress: std::sync::Arc<Progress>,
}

/// Runs a benchmark to its end. The first operation that fails ends it.
pub async fn run<I: ObjectIo>(
    io: &I,
    options: &BenchOptions,
    progress: std::sync::Arc<Progress>,
) -> Result<BenchResult, BenchError> {
    check(options)?;
    let started = Instant::now();
    let job = std::sync::Arc::new(Job {
        io: io.clone(),
        options: options.clone(),
        blocks_per_object: options.object_len / options.block_len,
        data: noise(options.seed, options.block_len as usize),
        next: AtomicU64::new(0),
        until: started + options.duration,
        progress,
    });
    let mut workers = JoinSet::new();
    for _ in 0..options.depth {
        let job = job.clone();
        workers.spawn(async move { job.work().await });
    }
    let mut latencies = histogram();
    while let Some(worker) = workers.join_next().await {
        // On an error the others end with the set.
        let measured = worker.unwrap_or(Err(BenchError::Op(OpError::Closed)))?;
        latencies.add(&measured).expect("of the same bounds");
    }
    Ok(result(options, &latencies, started.elapsed()))
}

/// Removes the objects of a benchmark. Those that are not there are no error.
pub async fn clean_up(io: &impl ObjectIo, options: &BenchOptions) -> Result<(), OpError> {
    for n in 0..options.objects {
        let ops = vec![OpKind::Delete.into()];
        match io.operate(&options.object(n), ops, Payload::default(), OpFlags::FULL_TRY).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn check(options: &BenchOptions) -> Result<(), BenchError> {
    let &BenchOptions { block_len, object_len, depth, .. } = options;
    if object_len > OBJECT_LEN_MAX {
        return Err(BenchError::ObjectLen { object_len });
    }
    if block_len == 0 || block_len > object_len {
        return Err(BenchError::BlockLen { block_len, object_len });
    }
    if options.objects == 0 {
        return Err(BenchError::NoObjects);
    }
    if depth == 0 || depth > DEPTH_MAX {
        return Err(BenchError::Depth { depth });
    }
    Ok(())
}

impl BenchOptions {
    fn object(&self, n: u64) -> String {
        format!("{}{n:012x}", self.prefix)
    }
}

impl<I: ObjectIo> Job<I> {
    async fn work(&self) -> Result<Histogram<u64>, BenchError> {
        let mut latencies = histogram();
        let BenchOptions { work, block_len, ops_max, .. } = self.options;
        while Instant::now() < self.until {
            let n = self.next.fetch_add(1, Relaxed);
            if ops_max.is_some_and(|most| n >= most) {
                break;
            }
            let (object, offset) = self.block(n);
            let began = Instant::now();
            if work.is_read() {
                self.read(object, offset).await?;
            } else {
                let ops = vec![OpKind::Write { offset, len: block_len }.into()];
                let data = Payload::of(offset, self.data.clone());
                self.io.operate(&object, ops, data, OpFlags::default()).await?;
            }
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            latencies.saturating_record(took_us.max(1));
            self.progress.ops.fetch_add(1, Relaxed);
            self.progress.bytes.fetch_add(block_len, Relaxed);
        }
        Ok(latencies)
    }

    async fn read(&self, object: String, offset: u64) -> Result<(), BenchError> {
        let len = self.options.block_len;
        let ops = vec![OpKind::Read { offset, len }.into()];
        match self.io.operate(&object, ops, Payload::default(), OpFlags::default()).await {
            Ok(answer) if answer.data.len() as u64 == len => Ok(()),
            Ok(_) => Err(BenchError::NothingThere { object }),
            Err(error) if error.is_not_found() => Err(BenchError::NothingThere { object }),
            Err(error) => Err(error.into()),
        }
    }

    /// Object and offset of an operation.
    fn block(&self, n: u64) -> (String, u64) {
        let BenchOptions { work, objects, block_len, seed, .. } = self.options;
        let blocks = objects.saturating_mul(self.blocks_per_object);
        let block = match work {
            Work::Write | Work::Read => n % blocks,
            Work::RandomWrite | Work::RandomRead => scramble(seed.wrapping_add(n)) % blocks,
        };
        let object = self.options.object(block / self.blocks_per_object);
        (object, block % self.blocks_per_object * block_len)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a fixed number for each number, without visible order.
fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Bytes {
    let words = (0..len.div_ceil(8) as u64).flat_map(|n| scramble(seed ^ n << 32 ^ n).to_le_bytes());
    words.take(len).collect::<Vec<u8>>().into()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS).expect("the bounds are in order")
}

fn result(options: &BenchOptions, latencies: &Histogram<u64>, elapsed: Duration) -> BenchResult {
    let ops = latencies.len();
    let bytes = ops * options.block_len;
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let at = |quantile| latencies.value_at_quantile(quantile);
    BenchResult {
        options: options.clone(),
        ops,
        bytes,
        elapsed_ms: elapsed.as_secs_f64() * 1e3,
        ops_per_s: ops as f64 / seconds,
        mib_per_s: bytes as f64 / f64::from(1 << 20) / seconds,
        latency: Latency {
            mean_us: latencies.mean(),
            min_us: if ops == 0 { 0 } else { latencies.min() },
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max(),
        },
    }
}
