//! When a process is asked to stop.

use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Ends when the process is asked to stop, by SIGTERM or Ctrl-C. From this call on these do not end it by force.
pub fn asked_to() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
