//! One module per command of the first level, and what they share.

pub mod bench;
pub mod crush;
pub mod daemon;
pub mod dev;
pub mod down;
pub mod health;
pub mod image;
pub mod mon;
pub mod nbd;
pub mod object;
pub mod osd;
pub mod pg;
pub mod pool;
pub mod status;
pub mod store;
pub mod up;
pub mod watch;

mod output;
mod pool_client;
mod progress;
mod session;
mod text;

use output::{Format, ignore_broken_pipe, print, print_json, print_line, table};
use std::path::PathBuf;
use std::process::ExitCode;

/// What every command is given.
#[derive(clap::Args)]
pub struct Context {
    /// Form of the output
    #[arg(long, value_enum, global = true, default_value_t)]
    format: Format,
    /// Configuration of the cluster [default: CAIRN_CONF, .cairn/cairn.toml, /etc/cairn/cairn.toml]
    #[arg(long, value_name = "FILE", global = true)]
    conf: Option<PathBuf>,
}

/// The exit code of a command that has done its work or has not.
pub fn done(outcome: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Says what went wrong. Whoever read the output has seen enough: that is nothing wrong.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if output::is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("cairn: {}", sentence(error));
    ExitCode::FAILURE
}

/// An error and what it comes from. Many of ours say their cause themselves; it is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn a_cause_is_said_once() {
        let refused = || anyhow!("address in use");
        let error = Err::<(), _>(refused()).context("cannot listen").unwrap_err();
        assert_eq!(sentence(&error), "cannot listen: address in use");
        let error = Err::<(), _>(refused()).context("cannot listen: address in use; stop it").unwrap_err();
        assert_eq!(sentence(&error), "cannot listen: address in use; stop it");
    }
}
