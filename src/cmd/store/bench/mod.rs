//! `cairn store bench`.

mod fill;
mod fio;
mod load;
mod report;
mod sparse;
mod workload;

use super::{Format, about, create, open, print, print_json, text};
use anyhow::{Context, bail};
use cairn_store::device::file::{Access, FileDevice, QueueKind};
use cairn_store::device::sim::SplitMix64;
use cairn_store::device::{AlignedBuf, BlockingDevice};
use cairn_store::format::superblock::Superblock;
use cairn_store::limits::BLOCK_BYTES;
use cairn_store::{CreateOptions, OpenOptions, Store};
use cairn_types::{ObjectId, PgId};
use fio::Fio;
use load::{Content, OBJECT_BYTES, Outcome, SMALL_BYTES, settle};
use report::{Ratio, Row, Who, Written};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workload::{Kind, TABLE, Workload};

/// Objects that are measured, unless there is less room: 4 GiB.
const OBJECTS_DEFAULT: u64 = 1024;
/// Requests at once: no more than the store takes in.
const DEPTH_MAX: i64 = 1024;

/// Measure a store, and the raw disk beside it
///
/// Works on objects of 4 MiB in a pool of its own, written from end to end first and removed at the end; what
/// else the store holds is left alone. The rows are: IOPS, MB/s, latency, CPU time per operation of all
/// threads, kernel and user, and bytes written to the device for a byte of payload, with the checkpoint that
/// ends the run.
#[derive(clap::Args)]
pub struct Args {
    /// File or block device with a store
    device: PathBuf,
    /// Make the store first, of --size
    #[arg(long)]
    create: bool,
    /// Size of the file to make, such as 16GiB
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size, requires = "create")]
    size: Option<u64>,
    /// Lose whatever the device holds
    #[arg(long, requires = "create")]
    force: bool,
    /// What to measure; may be repeated [default: randwrite 4KiB at depth 1 and 32, seqwrite and seqread 4MiB
    /// at 4, randread 4KiB at 32]
    #[arg(long, value_enum)]
    workload: Vec<Kind>,
    /// Time of each run, such as 10s or 500ms
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration, default_value = "10s")]
    runtime: Duration,
    /// Runs of each, interleaved with fio's [default: 1, with --beside-fio 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Bytes of each operation, a power of two from 4KiB to 4MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_block)]
    block_size: Option<u64>,
    /// Operations at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX as u64))]
    depth: Option<u64>,
    /// Objects of 4 MiB that are written and read [default: 1024, or half of the room there is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    objects: Option<u64>,
    /// Fill the store to so many percent and fragment it first
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=95))]
    fill: Option<u64>,
    /// Run the same by fio on a file of the same size beside the store's, in turn
    #[arg(long)]
    beside_fio: bool,
    /// Instead: make so many objects of 4 MiB with one block each, and tell the memory that takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["workload", "fill", "beside_fio", "objects"])]
    sparse_objects: Option<u64>,
    /// How the store talks to the device
    #[arg(long, value_enum, default_value_t = Queue::Auto)]
    queue: Queue,
    /// Leave the objects in the store
    #[arg(long)]
    keep: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// [`QueueKind`], as an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Queue {
    /// io_uring, or threads where it is not to be had
    Auto,
    /// io_uring
    Uring,
    /// Plain threads
    Threads,
}

fn parse_block(words: &str) -> Result<u64, String> {
    let bytes = text::parse_size(words)?;
    if bytes.is_power_of_two() && (SMALL_BYTES..=OBJECT_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a power of two from 4KiB to 4MiB is wanted".to_owned())
    }
}

/// Measures.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.create {
        let options = CreateOptions {
            osd: -1,
            store: create::random_uuid()?,
            force: args.force,
            ..CreateOptions::default()
        };
        let superblock = create::make(&args.device, args.size, &options)?;
        if args.beside_fio {
            lay_out(args, &superblock)?;
        }
    }
    let is_uring = is_uring(args)?;
    // Settled here, so that the report is of what was used.
    let queue = if is_uring { QueueKind::Uring } else { QueueKind::Threads };
    let mut store = Store::open(&args.device, &OpenOptions::default(), queue).map_err(about(&args.device))?;
    load::make_groups(&store).map_err(in_store(args))?;
    let mut result = serde_json::json!({
        "device": args.device.display().to_string(),
        "queue": if is_uring { "io_uring" } else { "threads" },
    });
    if let Some(count) = args.sparse_objects {
        let mut memory = Vec::new();
        store = sparse::measure(&args.device, store, queue, count, |row| {
            show(args, &row.as_text())?;
            memory.push(row);
            Ok(())
        })
        .map_err(in_store(args))?;
        result["memory"] = serde_json::to_value(memory)?;
    } else {
        let bench = Bench::prepare(args, &store, is_uring)?;
        let rows = bench.rows()?;
        let ratios: Vec<Ratio> =
            bench.workloads.iter().filter_map(|workload| Ratio::of(workload, &rows)).collect();
        ratios.iter().try_for_each(|ratio| show(args, &ratio.as_text()))?;
        result["objects"] = (bench.objects.len() as u64).into();
        result["object_bytes"] = OBJECT_BYTES.into();
        result["fill_percent"] = args.fill.into();
        result["rows"] = serde_json::to_value(rows)?;
        result["ratios"] = serde_json::to_value(ratios)?;
    }
    if !args.keep {
        load::remove_groups(&store).map_err(in_store(args))?;
    }
    store.close().map_err(about(&args.device))?;
    match args.format {
        Format::Json => print_json(&result),
        Format::Text => Ok(()),
    }
}

/// Writes all the space for data once, as fio does with its file: the file system is to allocate no block for
/// either while it is measured.
fn lay_out(args: &Args, superblock: &Superblock) -> anyhow::Result<()> {
    let device = open(&args.device, Access::ReadWrite)?;
    let zeros = AlignedBuf::new(OBJECT_BYTES as usize);
    let end = superblock.data_offset + superblock.data_blocks * BLOCK_BYTES;
    for offset in (superblock.data_offset..end).step_by(zeros.len()) {
        let len = (end - offset).min(zeros.len() as u64) as usize;
        device
            .write_at(offset, &zeros[..len])
            .with_context(|| format!("cannot lay out {}", args.device.display()))?;
    }
    device.sync().with_context(|| format!("cannot lay out {}", args.device.display()))
}

/// Prints a part of the report, as soon as it is there.
fn show(args: &Args, words: &str) -> anyhow::Result<()> {
    if args.format == Format::Text { print(words) } else { Ok(()) }
}

fn in_store(args: &Args) -> impl Fn(anyhow::Error) -> anyhow::Error + '_ {
    |error| error.context(args.device.display().to_string())
}

/// Whether the store will have io_uring.
fn is_uring(args: &Args) -> anyhow::Result<bool> {
    let kind = match args.queue {
        Queue::Auto => QueueKind::Auto,
        Queue::Uring => QueueKind::Uring,
        Queue::Threads => QueueKind::Threads,
    };
    Ok(FileDevice::new(open(&args.device, Access::ReadWrite)?, kind)?.is_uring())
}

/// A store made ready.
struct Bench<'a> {
    args: &'a Args,
    store: &'a Store,
    workloads: Vec<Workload>,
    objects: Arc<[(PgId, ObjectId)]>,
    content: Arc<Content>,
    queue_name: &'static str,
    fio: Option<Fio>,
}

impl<'a> Bench<'a> {
    fn prepare(args: &'a Args, store: &'a Store, is_uring: bool) -> anyhow::Result<Self> {
        let start = Instant::now();
        let note = |words: &str| eprintln!("[{:7.1} s] {words}", start.elapsed().as_secs_f64());
        let mut rng = SplitMix64::new(0);
        let content = Arc::new(Content::new(&mut rng));
        let room = store.usage()?.free_bytes / OBJECT_BYTES;
        let count = args.objects.unwrap_or((room / 2).clamp(1, OBJECTS_DEFAULT));
        // A whole overwrite has the old and the new of what is under way at once.
        if count >= room {
            bail!(
                "{}: room for {room} objects, not for {count}: say fewer with --objects",
                args.device.display()
            );
        }
        let objects: Arc<[_]> = (0..count).map(|number| load::object("bench", number)).collect();
        let whole = objects.to_vec();
        fill::write_whole(store, whole.into_iter(), &content, &mut rng).map_err(in_store(args))?;
        note(&format!("wrote {count} objects of 4 MiB"));
        if let Some(percent) = args.fill {
            fill::fill(store, percent, &content, &mut rng, &note).map_err(in_store(args))?;
            // Into what room is left, in its pieces.
            let whole = objects.to_vec();
            fill::write_whole(store, whole.into_iter(), &content, &mut rng).map_err(in_store(args))?;
            let usage = store.usage()?;
            note(&format!(
                "wrote the {count} objects again: {:.1} % of the store is in use",
                100.0 * usage.used_bytes as f64 / usage.data_bytes as f64
            ));
        }
        let fio =
            args.beside_fio.then(|| Fio::new(&args.device, count * OBJECT_BYTES, is_uring)).transpose()?;
        if fio.is_some() {
            note("laid out fio's file");
        }
        let queue_name = if is_uring { "io_uring" } else { "threads" };
        Ok(Bench { args, store, workloads: workloads(args), objects, content, queue_name, fio })
    }

    /// Every run, as it ends.
    fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let rounds = self.args.rounds.unwrap_or(if self.fio.is_some() { 3 } else { 1 });
        let mut rows = Vec::new();
        show(self.args, &report::header())?;
        for workload in &self.workloads {
            for round in 1..=rounds {
                let mut add = |row: Row| {
                    let row = Row { round, ..row };
                    show(self.args, &row.as_text())?;
                    rows.push(row);
                    Ok::<_, anyhow::Error>(())
                };
                add(self.measure(workload, u64::from(round)).map_err(in_store(self.args))?)?;
                if let Some(fio) = &self.fio {
                    for way in fio.ways(workload) {
                        if workload.is_read_through_first() {
                            fio.read_whole()?;
                        }
                        add(fio.run(workload, &way, self.args.runtime)?)?;
                    }
                }
            }
        }
        Ok(rows)
    }

    /// One run of the store.
    fn measure(&self, workload: &Workload, seed: u64) -> anyhow::Result<Row> {
        settle(self.store)?;
        if workload.is_read_through_first() {
            fill::read_whole(self.store, &self.objects)?;
        }
        let (counters, device_bytes) = (self.store.counters()?, load::written_bytes()?);
        let (objects, content) = (Arc::clone(&self.objects), Arc::clone(&self.content));
        let requests = workload.requests(objects, content, SplitMix64::new(seed), self.args.runtime);
        let outcome = load::run(self.store, workload.depth, requests)?;
        settle(self.store)?;
        let device_bytes = load::written_bytes()? - device_bytes;
        let written = Written::between(counters, self.store.counters()?, outcome.bytes, device_bytes);
        let Outcome { ops, bytes, elapsed, cpu, latency } = outcome;
        let us = |value_ns: u64| value_ns as f64 / 1e3;
        let seconds = elapsed.as_secs_f64();
        let is_write = workload.kind.is_write();
        Ok(Row {
            workload: workload.kind.name(),
            block_bytes: workload.block_bytes,
            depth: workload.depth,
            who: Who::Store,
            way: self.queue_name.to_owned(),
            round: 0,
            ops,
            seconds,
            iops: ops as f64 / seconds,
            mb_per_s: bytes as f64 / seconds / 1e6,
            mean_us: latency.mean() / 1e3,
            p50_us: us(latency.value_at_quantile(0.5)),
            p99_us: us(latency.value_at_quantile(0.99)),
            p999_us: us(latency.value_at_quantile(0.999)),
            max_us: us(latency.max()),
            cpu_us_per_op: cpu.as_secs_f64() * 1e6 / ops as f64,
            write_amplification: is_write.then(|| device_bytes as f64 / bytes as f64),
            written: is_write.then_some(written),
        })
    }
}

/// What was asked for, or all.
fn workloads(args: &Args) -> Vec<Workload> {
    let mut chosen: Vec<Workload> = Vec::new();
    let wanted = TABLE.iter().filter(|row| args.workload.is_empty() || args.workload.contains(&row.kind));
    for row in wanted {
        let block_bytes = args.block_size.unwrap_or(row.block_bytes);
        let depth = args.depth.map_or(row.depth, |depth| depth as usize);
        let workload = Workload { block_bytes, depth, ..*row };
        if !chosen.contains(&workload) {
            chosen.push(workload);
        }
    }
    chosen
}
