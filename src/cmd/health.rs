//! `cairn health`.

use super::session::{Session, block_on};
use super::{Context, Format, print, print_json};
use cairn_mon::service::render;
use cairn_types::HealthStatus;
use std::process::ExitCode;

/// Exit code of HEALTH_WARN; 1 and 2 mean that the question was not answered.
const EXIT_WARN: u8 = 3;
/// Exit code of HEALTH_ERR.
const EXIT_ERR: u8 = 4;

/// Tells what is not as it should be, and what to do about it.
pub fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let health = block_on(async { Session::open(context).await?.health().await })?;
    match context.format {
        Format::Json => print_json(&health)?,
        Format::Text => print(&render::health(&health))?,
    }
    Ok(match health.status {
        HealthStatus::Ok => ExitCode::SUCCESS,
        HealthStatus::Warning => ExitCode::from(EXIT_WARN),
        HealthStatus::Error => ExitCode::from(EXIT_ERR),
    })
}
