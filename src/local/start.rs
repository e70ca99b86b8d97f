//! Starting a daemon as a process of its own.

use anyhow::{Context, bail};
use cairn_conf::{Layout, running};
use cairn_types::EntityName;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a daemon may take until it says which process it is.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked at in that time.
const START_INTERVAL: Duration = Duration::from_millis(5);
/// Most of the end of a log that is searched for the reason of an end.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// What mimalloc is told, unless the environment has it already. For how long memory that nobody uses is kept before it is given back, in
/// milliseconds: in the 10 ms that it would take by itself, or in one second, a daemon under load needs it again, and pays for each page.
/// No huge pages: the kernel clears 2 MiB for the first byte of each. Figures: `docs/benchmarks/cluster.md`.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "10000"), ("MIMALLOC_ALLOW_THP", "0")];

/// A daemon that was started by this process.
#[derive(Debug)]
pub struct Started {
    /// Who.
    pub name: EntityName,
    /// Its process.
    pub child: Child,
    /// Where in its log this run begins.
    log_from: u64,
}

/// Starts a daemon. It ends with process `follow`, if one is given. Does not wait for it.
pub fn spawn(layout: &Layout, name: &EntityName, follow: Option<u32>) -> anyhow::Result<Started> {
    let dir = std::path::absolute(layout.entity_dir(name)).context("cannot tell the current directory")?;
    let path = layout.log_file(name);
    let log = File::options().append(true).create(true).open(&path);
    let log = log.with_context(|| format!("cannot open {}", path.display()))?;
    let log_from = log.metadata().map_or(0, |metadata| metadata.len());
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let mut command = Command::new(program);
    command.arg("daemon").arg(name.kind().as_str()).arg("--dir").arg(dir);
    if let Some(pid) = follow {
        command.arg("--follow").arg(pid.to_string());
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    for (name, value) in ALLOCATOR {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // Ctrl-C in the terminal is for the one who looks after it.
    command.process_group(0);
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    Ok(Started { name: name.clone(), child, log_from })
}

impl Started {
    /// Waits until the daemon has said which process it is, so that it can be found by its pid file.
    pub fn wait_until_known(&mut self, layout: &Layout) -> anyhow::Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        let path = layout.pid_file(&self.name);
        loop {
            self.check(layout)?;
            if running(&path)?.is_some_and(|held| held.pid.unsigned_abs() == self.child.id()) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{} does not come up: see {}", self.name, layout.log_file(&self.name).display());
            }
            sleep(START_INTERVAL);
        }
    }

    /// Whether it runs still; if not, the reason that its log gives is the error.
    pub fn check(&mut self, layout: &Layout) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot look at {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{}", self.why_ended(layout, status)),
        }
    }

    /// What to say of a daemon that has ended.
    pub fn why_ended(&self, layout: &Layout, status: ExitStatus) -> String {
        let (name, log) = (&self.name, layout.log_file(&self.name));
        match (status.signal(), last_error(&log, self.log_from)) {
            (Some(signal), _) => format!("{name} was ended by signal {signal}"),
            (None, Some(why)) if !status.success() => format!("{name} did not start: {why}"),
            (None, _) if status.success() => format!("{name} has stopped"),
            (None, _) => format!("{name} has ended ({status}): see {}", log.display()),
        }
    }
}

/// The last error of a run, by its log: what `main` prints of it.
fn last_error(path: &Path, from: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(LOG_TAIL_BYTES)))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("cairn: "));
    line.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_the_last_error_of_this_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("osd.0.log");
        let before = "cairn: an earlier run's\n";
        std::fs::write(&path, format!("{before}2026 INFO starting\ncairn: cannot listen\nmore\n")).unwrap();
        assert_eq!(last_error(&path, before.len() as u64).as_deref(), Some("cannot listen"));
        std::fs::write(&path, before).unwrap();
        assert_eq!(last_error(&path, before.len() as u64), None);
        assert_eq!(last_error(&dir.path().join("none"), 0), None);
    }
}
