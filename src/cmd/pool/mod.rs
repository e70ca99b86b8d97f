//! `cairn pool`: pools.

mod create;
mod rm;
mod set;
mod show;

use super::Context;
use anyhow::anyhow;
use cairn_types::{OsdMap, Pool, PoolId};
use std::process::ExitCode;

/// Subcommands of `cairn pool`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a pool
    Create(create::Args),
    /// List the pools
    Ls,
    /// Tell all about a pool
    Show(show::Args),
    /// Change a setting of a pool
    Set(set::Args),
    /// Remove a pool and all that is in it
    Rm(rm::Args),
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create::run(context, &args)?,
        Command::Ls => show::list(context)?,
        Command::Show(args) => show::run(context, &args)?,
        Command::Set(args) => set::run(context, &args)?,
        Command::Rm(args) => rm::run(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A pool of a map by its name.
pub fn find<'a>(map: &'a OsdMap, name: &str) -> anyhow::Result<(PoolId, &'a Pool)> {
    map.pool_by_name(name)
        .ok_or_else(|| anyhow!("pool '{name}' does not exist; `cairn pool ls` lists those that do"))
}
