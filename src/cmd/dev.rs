//! `cairn dev`: single daemons of a cluster on this machine, to see what happens.

use super::{Context, print_line};
use crate::local::{self, DEFAULT_DIR, start, stop};
use anyhow::bail;
use cairn_conf::{Held, Layout, running};
use cairn_types::EntityName;
use rustix::process::Signal;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// How long a daemon is looked at after its start: what is wrong with its files or ports shows at once.
const GRACE: Duration = Duration::from_millis(300);

/// Subcommands of `cairn dev`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Start a daemon
    Start(Args),
    /// Stop a daemon in good order
    Stop(Args),
    /// Kill a daemon without a word (SIGKILL)
    Kill(Args),
    /// Hold a daemon as if its machine hung (SIGSTOP)
    Pause(Args),
    /// Let a paused daemon go on (SIGCONT)
    Resume(Args),
}

/// Which.
#[derive(clap::Args)]
pub struct Args {
    /// Its name: mon.a, mgr.a, osd.0
    name: EntityName,
    /// Directory of the cluster
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

/// Does it, and tells what the daemon is now, and its process.
type Act = fn(&Layout, &EntityName) -> anyhow::Result<(&'static str, i32)>;

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    let (args, act): (Args, Act) = match command {
        Command::Start(args) => (args, start_one),
        Command::Stop(args) => (args, stop_one),
        Command::Kill(args) => (args, kill_one),
        Command::Pause(args) => (args, |layout, name| signal(layout, name, Signal::STOP, "paused")),
        Command::Resume(args) => (args, |layout, name| signal(layout, name, Signal::CONT, "going on")),
    };
    let layout = local::open(&args.dir)?;
    local::check_known(&layout, &args.name)?;
    let (state, pid) = act(&layout, &args.name)?;
    let line = format!("{} is {state} (process {pid}).", args.name);
    print_line(context.format, &line, &json!({"name": args.name, "state": state, "pid": pid}))?;
    Ok(ExitCode::SUCCESS)
}

fn start_one(layout: &Layout, name: &EntityName) -> anyhow::Result<(&'static str, i32)> {
    if let Some(held) = running(&layout.pid_file(name))? {
        bail!("{name} is running already, as process {}", held.pid);
    }
    // Under a `cairn up` in the foreground it ends with that one, like the others.
    let up = running(&local::up_pid_file(layout))?;
    let mut started = start::spawn(layout, name, up.map(|held| held.pid.unsigned_abs()))?;
    started.wait_until_known(layout)?;
    sleep(GRACE);
    started.check(layout)?;
    Ok(("running", started.child.id() as i32))
}

fn stop_one(layout: &Layout, name: &EntityName) -> anyhow::Result<(&'static str, i32)> {
    let held = running_one(layout, name)?;
    let pid = held.pid;
    match stop::stop(vec![(name.clone(), held)])?.first() {
        Some((_, stop::Ended::Killed)) => Ok(("killed, for it did not stop", pid)),
        _ => Ok(("stopped", pid)),
    }
}

fn kill_one(layout: &Layout, name: &EntityName) -> anyhow::Result<(&'static str, i32)> {
    let held = running_one(layout, name)?;
    stop::kill(name, &held)?;
    Ok(("killed", held.pid))
}

fn signal(
    layout: &Layout,
    name: &EntityName,
    signal: Signal,
    state: &'static str,
) -> anyhow::Result<(&'static str, i32)> {
    let held = running_one(layout, name)?;
    stop::send(name, &held, signal)?;
    Ok((state, held.pid))
}

fn running_one(layout: &Layout, name: &EntityName) -> anyhow::Result<Held> {
    match running(&layout.pid_file(name))? {
        Some(held) => Ok(held),
        None => bail!("{name} is not running: `cairn dev start {name}` starts it"),
    }
}
