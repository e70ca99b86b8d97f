//! `cairn`: the one binary. Thin: every command lives in `cmd`, every behaviour in a crate.

mod cmd;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Distributed block storage for hypervisors.
#[derive(Parser)]
#[command(name = "cairn", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile, decompile, test and plan CRUSH maps
    #[command(subcommand)]
    Crush(cmd::crush::Command),
    /// Make, inspect and check one OSD's store, offline
    #[command(subcommand)]
    Store(cmd::store::Command),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Crush(command) => cmd::crush::run(command),
        Command::Store(command) => cmd::store::run(command),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cairn: {error:#}");
            ExitCode::FAILURE
        }
    }
}
