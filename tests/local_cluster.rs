//! `cairn up` and its fellows with real processes: a cluster is made, serves, loses all its processes at once, comes back
//! with what was stored, and leaves nothing behind when it is stopped or killed.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long something that happens soon may take on a machine with much else to do.
const SOON: Duration = Duration::from_secs(60);

/// A cluster of this test's own. Dropped, its processes are gone.
struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        Cluster { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.args(arguments).current_dir(self.dir.path()).env_remove("CAIRN_CONF");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], says: &str) {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(
            error.starts_with("cairn: ") && error.lines().count() == 1 && error.contains(says),
            "{error}"
        );
    }

    /// Name and process of the daemons with a pid file.
    fn pids(&self) -> Vec<(String, u32)> {
        let Ok(entries) = std::fs::read_dir(self.path(".cairn/run")) else { return Vec::new() };
        let pid = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let found = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_stem()?.to_str()?.to_owned(), pid(&path)?))
        });
        found.collect()
    }

    /// Those of them that run and are this cluster's.
    fn alive(&self) -> Vec<(String, u32)> {
        let dir = self.path(".cairn");
        let is_ours = |pid: u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(dir.to_str().unwrap()))
        };
        self.pids().into_iter().filter(|(_, pid)| is_ours(*pid)).collect()
    }

    fn kill_all(&self) {
        for (_, pid) in self.alive() {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}

#[track_caller]
fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !test() {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

const UP: [&str; 5] = ["up", "--detach", "--osd-size", "1GiB", "--timeout=60s"];

#[test]
fn what_was_stored_is_there_after_all_processes_were_killed_at_once() {
    let cluster = Cluster::new();
    let up = cluster.json(&UP);
    assert_eq!(up["health"], "HEALTH_OK", "{up}");
    assert_eq!(up["daemons"].as_array().unwrap().len(), 9);

    let status = cluster.json(&["status"]);
    assert_eq!(status["fsid"], up["fsid"]);
    assert_eq!(status["health"]["status"], "HEALTH_OK");
    assert_eq!(status["mon"]["quorum"], serde_json::json!(["a", "b", "c"]));
    assert!(["a", "b", "c"].contains(&status["mon"]["leader"].as_str().unwrap()));
    for (what, count) in [("total", 3), ("up", 3), ("in", 3)] {
        assert_eq!(status["osd"][what], count, "{what}");
    }
    assert!(status["osd"]["epoch"].as_u64().unwrap() > 1);
    assert_eq!(status["pg"]["total"], 32);
    assert_eq!(status["pg"]["states"], serde_json::json!({"active+clean": 32}));
    assert!(status["usage"]["total_bytes"].as_u64().unwrap() > 0 && status["io"].is_object());
    let pool = cluster.json(&["pool", "show", "vms"]);
    assert_eq!((&pool["size"], &pool["min_size"]), (&3.into(), &2.into()));

    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(cluster.path("data"), &data).unwrap();
    cluster.ok(&["object", "put", "vms", "it", "data"]);
    cluster.ok(&["image", "import", "data", "vms/disk"]);

    cluster.kill_all();
    cluster.refused(&["status"], "no monitor answers at");
    assert_eq!(cluster.json(&UP[..2])["health"], "HEALTH_OK");
    assert_eq!(cluster.json(&["status"])["fsid"], up["fsid"]);
    cluster.ok(&["object", "get", "vms", "it", "back"]);
    assert!(std::fs::read(cluster.path("back")).unwrap() == data);
    cluster.ok(&["image", "export", "vms/disk", "copy"]);
    let copy = std::fs::read(cluster.path("copy")).unwrap();
    assert!(copy[..data.len()] == data && copy[data.len()..].iter().all(|byte| *byte == 0));

    // A wrong name is a sentence, and a second `up` finds everything there.
    cluster.refused(&["image", "info", "vms/other"], "there is no image 'vms/other'");
    cluster.refused(&["image", "ls", "other"], "there is no pool 'other'");
    cluster.refused(&["up"], "is running already");
    cluster.refused(&["up", "--detach", "--osds", "4"], "holds a cluster with 3 OSDs already");

    let down = cluster.json(&["down"]);
    assert_eq!(down["stopped"].as_array().unwrap().len(), 9, "{down}");
    assert_eq!(down["killed"], serde_json::json!([]));
    assert!(cluster.pids().is_empty(), "{:?}", cluster.pids());
}

/// `cairn up` in the foreground, when it has said what to do next.
fn foreground(cluster: &Cluster) -> Child {
    let out = std::fs::File::create(cluster.path("out")).unwrap();
    let mut child = cluster
        .command(&["up", "--mons", "1", "--osds", "1", "--osd-size", "1GiB"])
        .stdout(out)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    soon("up", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::fs::read_to_string(cluster.path("out")).unwrap().contains("Ctrl-C stops it.")
    });
    child
}

#[test]
fn daemons_in_the_foreground_end_with_their_up() {
    let cluster = Cluster::new();
    let mut child = foreground(&cluster);
    assert_eq!(cluster.alive().len(), 3, "{:?}", cluster.alive());
    // One that was killed and started by hand belongs to it like the others.
    cluster.ok(&["dev", "kill", "osd.0"]);
    cluster.refused(&["dev", "kill", "osd.0"], "osd.0 is not running");
    cluster.ok(&["dev", "start", "osd.0"]);
    cluster.refused(&["dev", "start", "osd.0"], "osd.0 is running already");
    child.kill().unwrap();
    child.wait().unwrap();
    soon("the daemons end", || cluster.alive().is_empty());

    // And Ctrl-C stops it in good order.
    let mut child = foreground(&cluster);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(cluster.pids().is_empty(), "{:?}", cluster.pids());
}

#[test]
fn a_port_in_use_is_one_sentence_and_nothing_is_left_running() {
    let cluster = Cluster::new();
    let one = ["up", "--detach", "--mons", "1", "--osds", "1", "--osd-size", "1GiB", "--timeout", "20s"];
    cluster.run(&one);
    cluster.ok(&["down"]);
    let conf = std::fs::read_to_string(cluster.path(".cairn/mon.a/daemon.toml")).unwrap();
    let listen = conf.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap().trim_matches('"');
    let _taken = std::net::TcpListener::bind(listen).unwrap();
    cluster.refused(&one, &format!("mon.a did not start: cannot listen on {listen}"));
    assert!(cluster.alive().is_empty());
}
