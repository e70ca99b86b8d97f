//! `cairn store`: one OSD's store, offline.

mod bench;
mod create;
mod dump;
mod fsck;
mod info;
mod text;

use super::{ignore_broken_pipe, print};
use anyhow::anyhow;
use cairn_store::StoreError;
use cairn_store::device::file::{Access, FileMedium, OpenError};
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Subcommands of `cairn store`.
#[derive(clap::Subcommand)]
pub enum Command {
    Create(create::Args),
    Info(info::Args),
    Fsck(fsck::Args),
    Dump(dump::Args),
    Bench(bench::Args),
}

/// Form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document; sizes in bytes
    Json,
}

/// Runs one.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let outcome = match command {
        Command::Create(args) => create::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Fsck(args) => return fsck::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    outcome.or_else(ignore_broken_pipe)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a value as one JSON document.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Lines of a name and what is said about it, the latter in one column.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<width$}{value}");
    }
    out
}

/// Opens a file or block device that should hold a store.
fn open(path: &Path, access: Access) -> anyhow::Result<Arc<FileMedium>> {
    FileMedium::open(path, access).map_err(|error| match &error {
        OpenError::System { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            anyhow!("{} does not exist: make a store there with `cairn store create`", path.display())
        }
        _ => error.into(),
    })
}

/// Says which device an error is about, unless the error does.
fn about(path: &Path) -> impl Fn(StoreError) -> anyhow::Error + '_ {
    |error| match error {
        StoreError::Open(_) => error.into(),
        error => anyhow!("{}: {error}", path.display()),
    }
}
