//! `cairn crush`.

use std::process::ExitCode;

/// Subcommands of `cairn crush`.
#[derive(clap::Subcommand)]
pub enum Command {}

/// Runs one.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {}
}
