//! Stopping daemons: asked first, then forced.

use super::all_running;
use anyhow::{Context, bail};
use cairn_conf::{Held, Layout};
use cairn_types::{EntityKind, EntityName};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a daemon may take to stop in good order: an OSD says goodbye to the monitors and writes a checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to vanish once it is killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How a daemon ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// In good order.
    Stopped,
    /// It did not stop when it was asked to.
    Killed,
}

/// Stops all daemons that run: mgrs and OSDs first, while there are monitors to hear it, then the monitors.
pub fn stop_all(layout: &Layout) -> anyhow::Result<Vec<(EntityName, Ended)>> {
    let (mons, others): (Vec<_>, Vec<_>) =
        all_running(layout)?.into_iter().partition(|(name, _)| name.kind() == EntityKind::Mon);
    let mut ended = stop(others)?;
    ended.extend(stop(mons)?);
    Ok(ended)
}

/// Stops some at once.
pub fn stop(daemons: Vec<(EntityName, Held)>) -> anyhow::Result<Vec<(EntityName, Ended)>> {
    for (name, held) in &daemons {
        send(name, held, Signal::TERM)?;
        // One that is paused could not hear it.
        send(name, held, Signal::CONT)?;
    }
    let until = Instant::now() + STOP_TIMEOUT;
    let mut ended = Vec::new();
    for (name, held) in daemons {
        let left = until.saturating_duration_since(Instant::now());
        let how = if wait(&name, &held, left)? {
            Ended::Stopped
        } else {
            kill(&name, &held)?;
            Ended::Killed
        };
        ended.push((name, how));
    }
    Ok(ended)
}

/// Ends one at once, and waits until it is gone.
pub fn kill(name: &EntityName, held: &Held) -> anyhow::Result<()> {
    send(name, held, Signal::KILL)?;
    if !wait(name, held, KILL_TIMEOUT)? {
        bail!("{name} (process {}) was killed and is not gone: its disk may hang", held.pid);
    }
    Ok(())
}

/// Sends a signal.
pub fn send(name: &EntityName, held: &Held, signal: Signal) -> anyhow::Result<()> {
    held.signal(signal).with_context(|| format!("cannot signal {name} (process {})", held.pid))
}

fn wait(name: &EntityName, held: &Held, timeout: Duration) -> anyhow::Result<bool> {
    held.wait(timeout).with_context(|| format!("cannot wait for {name} (process {})", held.pid))
}
