//! Looking after the daemons of a cluster in the foreground.

use super::bring_up::Daemons;
use anyhow::Context;
use cairn_conf::Layout;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Tells of daemons that end, until this process is asked to stop. They are not started again: whoever ends one wants to
/// see what happens.
pub async fn attend(
    layout: &Layout,
    mut daemons: Daemons,
    mut asked_to_stop: impl Future<Output = ()> + Unpin,
) -> anyhow::Result<()> {
    let mut child = signal(SignalKind::child()).context("cannot listen for ended daemons")?;
    loop {
        // Before the first wait: one may have ended while nobody listened.
        daemons.started.retain_mut(|started| match started.child.try_wait() {
            Ok(Some(status)) => {
                let why = started.why_ended(layout, status);
                eprintln!("{why}: `cairn dev start {}` starts it again.", started.name);
                false
            }
            _ => true,
        });
        tokio::select! {
            _ = child.recv() => {}
            () = &mut asked_to_stop => return Ok(()),
        }
    }
}
