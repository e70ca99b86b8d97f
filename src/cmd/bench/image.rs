//! `cairn bench image`.

use super::objects::with_bar;
use super::{Load, report};
use crate::cmd::Context;
use crate::cmd::image::ImageName;
use crate::cmd::pool_client::pool;
use crate::cmd::session::block_on;
use anyhow::bail;
use bytes::Bytes;
use cairn_client::Pool;
use cairn_client::bench::{Latency, Work};
use cairn_client::image::{Image, LockPolicy, OpenMode};
use hdrhistogram::Histogram;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::task::JoinSet;

/// Three digits of a latency are kept, up to an hour.
const LATENCY_DIGITS: u8 = 3;
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Write or read an image
///
/// Writing loses what the image holds.
#[derive(clap::Args)]
pub struct Args {
    /// Pool and name of the image, such as vms/disk1
    #[arg(value_name = "POOL/NAME")]
    name: ImageName,
    /// What to do
    #[arg(long, value_enum, default_value_t = Kind::Randread)]
    workload: Kind,
    #[command(flatten)]
    load: Load,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    /// Blocks one after the other
    Write,
    /// Blocks one after the other
    Read,
    /// Blocks at random
    Randwrite,
    /// Blocks at random
    Randread,
}

impl Kind {
    fn work(self) -> Work {
        match self {
            Kind::Write => Work::Write,
            Kind::Read => Work::Read,
            Kind::Randwrite => Work::RandomWrite,
            Kind::Randread => Work::RandomRead,
        }
    }

    fn is_write(self) -> bool {
        matches!(self, Kind::Write | Kind::Randwrite)
    }
}

/// What the workers share.
struct Job {
    image: Image<Pool>,
    kind: Kind,
    block_len: u64,
    blocks: u64,
    seed: u64,
    data: Bytes,
    ops_max: u64,
    until: Instant,
    next: AtomicU64,
    done: AtomicU64,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (name, load) = (&args.name, &args.load);
    let (latencies, seconds) = block_on(async {
        let pool = pool(context, &name.pool).await?;
        let mode = match args.workload.is_write() {
            true => OpenMode::ReadWrite(LockPolicy::Keep),
            false => OpenMode::ReadOnly,
        };
        let image = Image::open(&pool, &name.image, mode).await?;
        let measured = measure(args, &image).await;
        let closed = image.close().await;
        let measured = measured?;
        closed?;
        Ok(measured)
    })?;
    let at = |quantile| latencies.value_at_quantile(quantile);
    let latency = Latency {
        mean_us: latencies.mean(),
        min_us: if latencies.is_empty() { 0 } else { latencies.min() },
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: latencies.max(),
    };
    let ops = latencies.len();
    let row = report::Row {
        work: report::name(args.workload.work()),
        block_len: load.block_size,
        depth: load.depth.into(),
        ops,
        seconds,
        bytes: ops * load.block_size,
        latency,
    };
    let document = json!({
        "image": name.to_string(),
        "workload": row.work,
        "block_len": row.block_len,
        "depth": row.depth,
        "ops": ops,
        "bytes": row.bytes,
        "elapsed_ms": seconds * 1e3,
        "ops_per_s": ops as f64 / seconds,
        "mib_per_s": row.bytes as f64 / f64::from(1 << 20) / seconds,
        "latency": latency,
    });
    report::show(context.format, &document, &row)
}

async fn measure(args: &Args, image: &Image<Pool>) -> anyhow::Result<(Histogram<u64>, f64)> {
    let load = &args.load;
    let block_len = load.block_size;
    if block_len == 0 || block_len > image.size() {
        bail!(
            "blocks of {block_len} bytes do not fit into image {}, which has {} bytes",
            args.name,
            image.size()
        );
    }
    let seed = load.seed();
    let began = Instant::now();
    let job = Arc::new(Job {
        image: image.clone(),
        kind: args.workload,
        block_len,
        blocks: image.size() / block_len,
        seed,
        data: noise(seed, block_len as usize),
        ops_max: load.ops.unwrap_or(u64::MAX),
        until: began + load.duration,
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
    });
    let all = async {
        let mut workers = JoinSet::new();
        for _ in 0..load.depth {
            workers.spawn(work(job.clone()));
        }
        let mut latencies = histogram();
        while let Some(worker) = workers.join_next().await {
            latencies.add(&worker??)?;
        }
        anyhow::Ok(latencies)
    };
    let latencies = with_bar(load.duration, || job.done.load(Relaxed), all).await?;
    Ok((latencies, began.elapsed().as_secs_f64()))
}

async fn work(job: Arc<Job>) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = histogram();
    while Instant::now() < job.until {
        let n = job.next.fetch_add(1, Relaxed);
        if n >= job.ops_max {
            break;
        }
        let block = match job.kind {
            Kind::Write | Kind::Read => n,
            Kind::Randwrite | Kind::Randread => scramble(job.seed.wrapping_add(n)),
        };
        let offset = block % job.blocks * job.block_len;
        let began = Instant::now();
        match job.kind.is_write() {
            true => job.image.write(offset, job.data.clone()).await?,
            false => drop(job.image.read(offset, job.block_len).await?),
        }
        latencies.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
        job.done.fetch_add(1, Relaxed);
    }
    Ok(latencies)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS).expect("the bounds are in order")
}

/// SplitMix64 (Steele, Lea, Flood 2014): a fixed number for each number, without visible order.
fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Bytes {
    let words = (0..len.div_ceil(8) as u64).flat_map(|n| scramble(seed.wrapping_add(n)).to_le_bytes());
    words.take(len).collect::<Vec<u8>>().into()
}
