//! `cairn`: the one binary. Thin: every command lives in `cmd`, every behaviour in a crate.

mod cmd;
mod local;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An operation allocates some tens of times for its messages, keys and records; with the system's allocator that was a
/// seventh of an OSD's time at depth 32 (`docs/decisions/store-thread.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Distributed block storage for hypervisors.
#[derive(Parser)]
#[command(name = "cairn", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    context: cmd::Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(cmd::up::Args),
    Down(cmd::down::Args),
    /// Start, stop, kill, pause and resume single daemons of a cluster on this machine
    #[command(subcommand)]
    Dev(cmd::dev::Command),
    /// Tell how the cluster is, at a glance
    Status,
    /// Tell what is not as it should be, and what to do about it; exit code 3 for HEALTH_WARN, 4 for HEALTH_ERR
    Health,
    /// Tell what changes in the cluster, as it changes, until it is stopped
    Watch,
    /// List, add and remove monitors
    #[command(subcommand)]
    Mon(cmd::mon::Command),
    /// List, take out and in, destroy and weigh OSDs
    #[command(subcommand)]
    Osd(cmd::osd::Command),
    /// Look at placement groups
    #[command(subcommand)]
    Pg(cmd::pg::Command),
    /// Make, look at, change and remove pools
    #[command(subcommand)]
    Pool(cmd::pool::Command),
    /// Make, list, change, remove, import and export disk images
    #[command(subcommand)]
    Image(cmd::image::Command),
    /// Store, fetch, list and remove plain objects
    #[command(subcommand)]
    Object(cmd::object::Command),
    /// Serve images as network block devices
    #[command(subcommand)]
    Nbd(cmd::nbd::Command),
    /// Measure a cluster
    #[command(subcommand)]
    Bench(cmd::bench::Command),
    #[command(hide = true)]
    Daemon(cmd::daemon::Args),
    /// Compile, decompile, test and plan CRUSH maps
    #[command(subcommand)]
    Crush(cmd::crush::Command),
    /// Make, inspect and check one OSD's store, offline
    #[command(subcommand)]
    Store(cmd::store::Command),
}

fn run(Cli { context, command }: Cli) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => cmd::up::run(&context, &args),
        Command::Daemon(args) => cmd::done(cmd::daemon::run(&args)),
        Command::Down(args) => cmd::done(cmd::down::run(&context, &args)),
        Command::Dev(command) => cmd::dev::run(&context, command),
        Command::Status => cmd::done(cmd::status::run(&context)),
        Command::Health => cmd::health::run(&context),
        Command::Watch => cmd::done(cmd::watch::run(&context)),
        Command::Mon(command) => cmd::mon::run(&context, command),
        Command::Osd(command) => cmd::osd::run(&context, command),
        Command::Pg(command) => cmd::pg::run(&context, command),
        Command::Pool(command) => cmd::pool::run(&context, command),
        Command::Image(command) => cmd::image::run(&context, command),
        Command::Object(command) => cmd::object::run(&context, command),
        Command::Nbd(command) => cmd::nbd::run(&context, command),
        Command::Bench(command) => cmd::bench::run(&context, command),
        Command::Crush(command) => cmd::crush::run(command),
        Command::Store(command) => cmd::store::run(command),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => cmd::failed(&error),
    }
}
