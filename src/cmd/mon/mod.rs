//! `cairn mon`: the monitors.

mod add;
mod ls;
mod rm;

use super::Context;
use cairn_types::{EntityKind, EntityName};
use std::process::ExitCode;

/// Subcommands of `cairn mon`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List the monitors: where they are, which agree, which leads
    Ls,
    /// Add a monitor to a cluster on this machine, and start it
    Add(add::Args),
    /// Take a monitor out of the cluster
    Rm(rm::Args),
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls => ls::run(context)?,
        Command::Add(args) => add::run(context, &args)?,
        Command::Rm(args) => rm::run(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `a` of `a` or `mon.a`.
fn parse_name(text: &str) -> Result<String, String> {
    let id = text.strip_prefix("mon.").unwrap_or(text);
    match EntityName::new(EntityKind::Mon, id) {
        Ok(name) => Ok(name.id().to_owned()),
        Err(_) => {
            Err(format!("'{text}' is no name of a monitor: write letters, digits, '-' or '_', such as d"))
        }
    }
}
