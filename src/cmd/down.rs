//! `cairn down`.

use super::{Context, Format, print, print_json};
use crate::local::{self, DEFAULT_DIR, stop::Ended, stop::stop_all};
use serde_json::json;
use std::path::PathBuf;

/// Stop the daemons of a cluster on this machine
///
/// Nothing is lost: `cairn up` starts them again.
#[derive(clap::Args)]
pub struct Args {
    /// Directory of the cluster
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

/// Stops.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let layout = local::open(&args.dir)?;
    let ended = stop_all(&layout)?;
    let killed: Vec<String> =
        ended.iter().filter(|(_, how)| *how == Ended::Killed).map(|(name, _)| name.to_string()).collect();
    if context.format == Format::Json {
        let stopped: Vec<String> = ended.iter().map(|(name, _)| name.to_string()).collect();
        return print_json(&json!({"dir": args.dir, "stopped": stopped, "killed": killed}));
    }
    let dir = args.dir.display();
    match ended.len() {
        0 => print(&format!("No daemon of {dir} was running.\n"))?,
        count => print(&format!("Stopped {count} daemons of {dir}; `cairn up` starts them again.\n"))?,
    }
    if !killed.is_empty() {
        print(&format!("{} did not stop in time and had to be killed.\n", killed.join(", ")))?;
    }
    Ok(())
}
