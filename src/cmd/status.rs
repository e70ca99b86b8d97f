//! `cairn status`.

use super::session::{Session, block_on};
use super::{Context, Format, print, print_json};
use cairn_mon::service::render;

/// Tells how the cluster is, at a glance.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let status = block_on(async { Session::open(context).await?.status().await })?;
    match context.format {
        Format::Json => print_json(&status),
        Format::Text => print(&render::status(&status)),
    }
}
