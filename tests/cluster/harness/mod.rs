//! What the tests of whole clusters share.
//!
//! | part | module |
//! |---|---|
//! | a cluster of real processes in a directory of its own, gone when it is dropped | here |
//! | an image attached by `cairn nbd serve` | `served` |
//! | a client of the NBD protocol that hides nothing | `nbd` |
//! | a load that knows what every block must hold, and when each request was answered | `load` |
//! | what the mgr publishes | `metrics` |
//! | tools of Debian | `tools` |
//! | guests under QEMU | `guest`, `cpio` |

pub mod cpio;
pub mod guest;
pub mod load;
pub mod metrics;
pub mod nbd;
pub mod served;
pub mod tools;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long something that happens soon may take on a machine with much else to do.
pub const SOON: Duration = Duration::from_secs(60);

/// One cluster at a time: under `cargo test` the tests of a binary are threads of one process. nextest has a process
/// for each, and its own rule (`.config/nextest.toml`).
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A cluster of a test's own. Dropped, its processes and its directory are gone.
pub struct Cluster {
    dir: tempfile::TempDir,
    guard: Child,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// A directory for one; nothing runs.
    pub fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let guard = spawn_guard(dir.path());
        Cluster { dir, guard, _alone: alone }
    }

    /// Three monitors, three OSDs of this size, three mgrs, HEALTH_OK.
    pub fn up(osd_size: &str) -> Self {
        let cluster = Cluster::new();
        cluster.ok(&["up", "--detach", "--osd-size", osd_size]);
        cluster
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `cairn` in its directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.args(arguments).current_dir(self.dir.path()).env_remove("CAIRN_CONF");
        command
    }

    /// Runs `cairn` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `cairn`, which must do it; gives what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    /// Runs `cairn`, which must not do it and say why in one sentence.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], says: &str) {
        if let Err(said) = self.refusal(arguments, says) {
            panic!("{arguments:?}: {said}");
        }
    }

    /// The same; what it says instead is the error.
    pub fn refusal(&self, arguments: &[&str], says: &str) -> Result<(), String> {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let is_one = said.starts_with("cairn: ") && said.lines().count() == 1;
        match is_one && said.contains(says) && output.status.code() == Some(1) {
            true => Ok(()),
            false => Err(format!("{}: {said}", output.status)),
        }
    }

    /// Name and process of the daemons with a pid file.
    pub fn pids(&self) -> Vec<(String, Pid)> {
        let Ok(entries) = std::fs::read_dir(self.path(".cairn/run")) else { return Vec::new() };
        let pid = |path: &Path| Pid::from_raw(std::fs::read_to_string(path).ok()?.trim().parse().ok()?);
        let found = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_stem()?.to_str()?.to_owned(), pid(&path)?))
        });
        found.collect()
    }

    /// Those of them that run and are this cluster's.
    pub fn alive(&self) -> Vec<(String, Pid)> {
        let dir = self.path(".cairn");
        let is_ours = |pid: Pid| {
            std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(dir.to_str().unwrap()))
        };
        self.pids().into_iter().filter(|(_, pid)| is_ours(*pid)).collect()
    }

    /// SIGKILL for every daemon at once.
    pub fn kill_all(&self) {
        for (_, pid) in self.alive() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// What `cairn status` tells; none while no majority of the monitors answers.
    pub fn status(&self) -> Option<Value> {
        let output = self.run(&["status", "--format", "json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the status is as `test` wants it, and gives it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, within: Duration, test: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + within;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| test(status)) {
                return status.clone();
            }
            assert!(Instant::now() < until, "not within {within:?}: {what}: {status:#?}");
            sleep(Duration::from_millis(200));
        }
    }

    /// Waits until every OSD is up and every group `active+clean`.
    #[track_caller]
    pub fn wait_until_clean(&self, within: Duration) -> Value {
        self.wait_for("all groups active+clean", within, is_clean)
    }
}

/// Every OSD up, every group `active+clean`, by figures of now.
pub fn is_clean(status: &Value) -> bool {
    let states = status["pg"]["states"].as_object().unwrap();
    status["osd"]["up"] == status["osd"]["total"]
        && status["pg"]["total"].as_u64() > Some(0)
        && states.len() == 1
        && states.get("active+clean") == Some(&status["pg"]["total"])
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        self.kill_all();
        // Its input ends: it has nothing left to stop.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

impl Cluster {
    /// Where a test failed, the end of every daemon's log tells most.
    fn keep_logs(&self) {
        let Ok(logs) = std::fs::read_dir(self.path(".cairn/log")) else { return };
        let mut logs: Vec<PathBuf> = logs.filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.sort();
        for log in logs {
            let text = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", log.display());
            lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A process that outlives a test which is ended by force, and then stops its cluster and removes its directory.
fn spawn_guard(dir: &Path) -> Child {
    let script = "cat >/dev/null; \"$0\" down --dir \"$1/.cairn\"; rm -rf \"$1\"";
    Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_cairn")])
        .arg(dir)
        // The runner ends the whole group of a test that hangs.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for what happens soon.
#[track_caller]
pub fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !test() {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}
