//! `cairn bench`: load from the client library, and what came of it.

mod image;
mod objects;
mod report;

use super::{Context, text};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Subcommands of `cairn bench`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Write objects of a pool
    Write(objects::Args),
    /// Read objects that `bench write --keep` has written with the same sizes
    Read(objects::Args),
    /// Write or read an image; what it holds is lost by writing
    Image(image::Args),
}

/// How much at once, and for how long.
#[derive(clap::Args)]
pub struct Load {
    /// Bytes of each operation
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size, default_value = "4KiB")]
    block_size: u64,
    /// Operations at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), default_value = "32")]
    depth: u16,
    /// No operation begins after this
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration, default_value = "10s")]
    duration: Duration,
    /// At most so many operations
    #[arg(long, value_name = "N")]
    ops: Option<u64>,
    /// Where random work begins [default: by the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Load {
    fn seed(&self) -> u64 {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        self.seed.unwrap_or_else(now)
    }
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Write(args) => objects::write(context, &args)?,
        Command::Read(args) => objects::read(context, &args)?,
        Command::Image(args) => image::run(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
