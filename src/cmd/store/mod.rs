//! `cairn store`: one OSD's store, offline.

mod bench;
mod create;
mod dump;
mod fsck;
mod info;

pub use create::random_uuid;

use super::{Format, ignore_broken_pipe, print, print_json, table, text};
use anyhow::anyhow;
use cairn_store::StoreError;
use cairn_store::device::file::{Access, FileMedium, OpenError};
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
