//! `cairn pg`: placement groups.

mod ls;
mod placed;
mod show;

use super::Context;
use cairn_types::PgId;
use std::process::ExitCode;

/// Subcommands of `cairn pg`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List placement groups with their OSDs
    Ls(ls::Args),
    /// Tell where a placement group is and how it is
    Show(show::Args),
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(args) => ls::run(context, &args)?,
        Command::Show(args) => show::run(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_pg(text: &str) -> Result<PgId, String> {
    text.parse::<PgId>().map_err(|error| format!("'{text}': {error}"))
}
