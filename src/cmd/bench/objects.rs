//! `cairn bench write` and `read`.

use super::{Load, report};
use crate::cmd::pool_client::pool;
use crate::cmd::progress::bar;
use crate::cmd::session::block_on;
use crate::cmd::{Context, text};
use cairn_client::bench::{self, BenchOptions, Progress, Work};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{interval, sleep};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// Load on the objects of a pool.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the pool
    pool: String,
    #[command(flatten)]
    load: Load,
    /// Blocks at random instead of one after the other
    #[arg(long)]
    random: bool,
    /// Objects that are written and read
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), default_value = "64")]
    objects: u64,
    /// Bytes of each object
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size, default_value = "4MiB")]
    object_size: u64,
    /// The objects' names begin so
    #[arg(long, value_name = "TEXT", default_value = "cairn-bench.")]
    prefix: String,
    /// Leave the objects in the pool, for `bench read`
    #[arg(long)]
    keep: bool,
}

impl Args {
    fn options(&self, work: Work) -> BenchOptions {
        BenchOptions {
            work,
            block_len: self.load.block_size,
            object_len: self.object_size,
            objects: self.objects,
            depth: self.load.depth.into(),
            duration: self.load.duration,
            ops_max: self.load.ops,
            prefix: self.prefix.clone(),
            seed: self.load.seed(),
        }
    }
}

pub fn write(context: &Context, args: &Args) -> anyhow::Result<()> {
    run(context, args, if args.random { Work::RandomWrite } else { Work::Write })
}

pub fn read(context: &Context, args: &Args) -> anyhow::Result<()> {
    run(context, args, if args.random { Work::RandomRead } else { Work::Read })
}

fn run(context: &Context, args: &Args, work: Work) -> anyhow::Result<()> {
    let options = args.options(work);
    let result = block_on(async {
        let pool = pool(context, &args.pool).await?;
        let progress = Arc::new(Progress::default());
        let done = progress.clone();
        let run = bench::run(&pool, &options, progress);
        let result = with_bar(args.load.duration, || done.ops.load(Relaxed), run).await;
        let is_write = matches!(work, Work::Write | Work::RandomWrite);
        if is_write && !args.keep {
            bench::clean_up(&pool, &options).await?;
        }
        Ok(result?)
    })?;
    report::show(context.format, &result, &report::Row::of(&result))
}

/// Shows how far a run is while it lasts.
pub async fn with_bar<T>(duration: Duration, ops: impl Fn() -> u64, run: impl Future<Output = T>) -> T {
    let bar = bar("measuring", "ms");
    bar.set_length(duration.as_millis() as u64);
    let mut run = std::pin::pin!(run);
    let mut tick = interval(TICK);
    let mut end = std::pin::pin!(sleep(duration));
    let mut is_over = false;
    let result = loop {
        tokio::select! {
            result = &mut run => break result,
            _ = tick.tick() => {
                bar.set_position(bar.elapsed().as_millis() as u64);
                bar.set_message(format!("{} operations", ops()));
            }
            () = &mut end, if !is_over => {
                is_over = true;
                bar.set_message("waiting for the last answers");
            }
        }
    };
    bar.finish_and_clear();
    result
}
