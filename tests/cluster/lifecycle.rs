//! `cairn up` and its fellows with real processes: a cluster is made, serves, loses all its processes at once, comes back
//! with what was stored, and leaves nothing behind when it is stopped or killed.

use crate::harness::{Cluster, soon};
use std::process::{Child, Stdio};

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

/// A killed process keeps its files until its last write is done, and looks as if it ran for that long.
#[test]
fn a_daemon_that_ends_after_up_found_it_running_is_started() {
    let cluster = Cluster::new();
    cluster.json(&UP);
    cluster.ok(&["dev", "pause", "mon.a"]);
    let pid_of = |name: &str| cluster.alive().into_iter().find(|(is, _)| is == name).map(|(_, pid)| pid);
    let paused = pid_of("mon.a").unwrap();
    let mut up = cluster.command(&UP[..2]).stdout(Stdio::null()).spawn().unwrap();
    soon("up is at work", || cluster.path(".cairn/run/up.pid").exists());
    // It has looked when it waits for the monitors.
    std::thread::sleep(std::time::Duration::from_secs(1));
    rustix::process::kill_process(paused, rustix::process::Signal::KILL).unwrap();
    assert!(up.wait().unwrap().success());
    assert!(pid_of("mon.a").is_some_and(|pid| pid != paused));
    cluster.ok(&["down"]);
}

#[test]
fn monitors_that_are_added_at_once_come_one_after_the_other() {
    let cluster = Cluster::new();
    cluster.ok(&["up", "--detach", "--mons", "1", "--osds", "1", "--osd-size", "1GiB", "--timeout=60s"]);
    let add = |name| cluster.command(&["mon", "add", name]).stderr(Stdio::piped()).spawn().unwrap();
    let both = [add("x"), add("y")].map(|child| child.wait_with_output().unwrap());
    let refused = both.iter().filter(|output| !output.status.success()).collect::<Vec<_>>();
    for output in &refused {
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("one monitor changes at a time") && why.lines().count() == 1, "{why}");
    }
    assert!(refused.len() < 2);
    for name in ["x", "y"] {
        if !cluster.path(&format!(".cairn/mon.{name}")).exists() {
            cluster.ok(&["mon", "add", name]);
        }
    }
    let mons = cluster.json(&["mon", "ls"]);
    // In the order of their numbers.
    let quorum = mons["quorum"].as_array().unwrap();
    assert!(
        quorum.len() == 3 && ["a", "x", "y"].iter().all(|name| quorum.contains(&(*name).into())),
        "{mons}"
    );
    assert!(mons["change"].is_null(), "{mons}");
    cluster.refused(&["mon", "add", "x"], "mon.x exists already");
    // The leader of before goes, and the one that has its data goes with it.
    cluster.ok(&["mon", "rm", "a"]);
    cluster.ok(&["mon", "rm", "x"]);
    assert_eq!(cluster.json(&["mon", "ls"])["quorum"], serde_json::json!(["y"]));
    assert!(!cluster.path(".cairn/mon.a").exists() && !cluster.path(".cairn/mon.x").exists());
    cluster.refused(&["mon", "rm", "y"], "is the last monitor");
    cluster.ok(&["down"]);
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
