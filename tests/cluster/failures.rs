//! One daemon after the other is killed or paused under a load that verifies. The disk's user meets no error and waits
//! only for a moment; when the daemon is back, only what changed meanwhile is copied.

use crate::harness::load::{BLOCK_LEN, Blocks, Ended, Load};
use crate::harness::served::Served;
use crate::harness::{Cluster, SOON, is_clean, soon};
use serde_json::Value;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// What the load writes to; the rest of the disk holds data that nothing changes.
const LOADED_LEN: usize = 16 * MIB;
const DISK_LEN: usize = 256 * MIB;
/// The disk's objects have 4 MiB. What the load can change: its part of the disk, the disk's header, and the objects that
/// list the pool's images. Each may be sent twice, where it is changed again on the way.
const CHANGED_OBJECTS_MAX: f64 = 2.0 * (LOADED_LEN / (4 * MIB) + 3) as f64;

/// The longest time without an answer that a disk's user may meet.
const GAP_KILLED: Duration = Duration::from_secs(2);
/// The same where a process hangs: that it is dead has to be found out by its silence.
const GAP_PAUSED: Duration = Duration::from_secs(5);

/// A cluster with a disk that is in use.
struct Scene {
    cluster: Cluster,
    _served: Served,
    load: Load,
    data: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::up("2GiB");
        let mut data = vec![0; DISK_LEN];
        for (n, word) in data[LOADED_LEN..].chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        }
        std::fs::write(cluster.path("data"), &data).unwrap();
        cluster.ok(&["image", "import", "data", "vms/disk"]);
        let served = Served::start(&cluster, "vms/disk");
        let load = Load::start(&served.socket, Blocks::zeros(LOADED_LEN / BLOCK_LEN));
        load.wait_for_answers(1000, SOON);
        Scene { cluster, _served: served, load, data }
    }

    /// Does it to a daemon, waits until the cluster goes on without it and then with it again.
    #[track_caller]
    fn survive(&self, name: &str, act: &str, undo: &str, gap_max: Duration) {
        let before = self.recovered();
        self.load.longest_gap();
        let begun = Instant::now();
        self.cluster.ok(&["dev", act, name]);
        self.cluster.wait_for(&format!("{name} is missed"), SOON, |status| is_missed(status, name));
        let missed = begun.elapsed();
        self.load.wait_for_answers(300, SOON);
        let out = self.load.longest_gap();

        let begun = Instant::now();
        self.cluster.ok(&["dev", undo, name]);
        self.cluster.wait_for(&format!("{name} is back"), SOON, is_whole);
        let back = begun.elapsed();
        self.load.wait_for_answers(300, SOON);
        let again = self.load.longest_gap();
        let copied = self.copied_since(&before, name.starts_with("osd."));
        eprintln!(
            "{act} {name}: missed after {missed:.1?}, longest gap {out:.0?}; whole {back:.1?} after its return, \
             longest gap {again:.0?}, {copied} objects copied"
        );
        assert!(out.max(again) < gap_max, "{act} {name}: gaps of {out:?} and {again:?}");
        assert!(copied <= CHANGED_OBJECTS_MAX, "{copied} objects were copied");
    }

    /// Objects that each OSD has recovered since it started, from when the mgr has heard of all.
    fn recovered(&self) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        soon("all OSDs report", || {
            found = self.cluster.of_osds("cairn_osd_recovery_ops_total");
            found.len() == 3
        });
        found
    }

    /// What was recovered since, when the figures have come to rest.
    fn copied_since(&self, before: &BTreeMap<String, f64>, is_some: bool) -> f64 {
        let until = Instant::now() + SOON;
        let mut last = None;
        loop {
            let copied: f64 = self
                .recovered()
                .iter()
                .map(|(osd, now)| {
                    // A process that was started anew counts from zero.
                    let before = before.get(osd).copied().unwrap_or_default();
                    if *now < before { *now } else { now - before }
                })
                .sum();
            if last == Some(copied) && (copied > 0.0 || !is_some) {
                return copied;
            }
            assert!(Instant::now() < until, "nothing was recovered, but much was written");
            last = Some(copied);
            sleep(Duration::from_secs(2));
        }
    }

    /// Ends the load; everything must be there.
    fn finish(self) {
        let Scene { cluster, _served: mut served, load, data } = self;
        let Ended { mut blocks, is_cut_off } = load.stop();
        assert!(!is_cut_off, "the connection was lost");
        blocks.verify(&served.socket);
        assert!(served.stop().success());
        cluster.ok(&["image", "export", "vms/disk", "back"]);
        let back = std::fs::read(cluster.path("back")).unwrap();
        assert!(back[LOADED_LEN..] == data[LOADED_LEN..], "what nobody wrote to has changed");
    }
}

/// The cluster goes on without this daemon.
fn is_missed(status: &Value, name: &str) -> bool {
    let (kind, id) = name.split_once('.').unwrap();
    match kind {
        "mon" => !status["mon"]["quorum"].as_array().unwrap().contains(&id.into()),
        "mgr" => status["mgr"]["active"].as_str().is_some_and(|active| active != id),
        // The groups' states are as old as the last report: from then on they count.
        _ => status["osd"]["up"] == 2 && status["pg"]["states"]["active+clean"].is_null(),
    }
}

/// All daemons work together.
fn is_whole(status: &Value) -> bool {
    let standbys = status["mgr"]["standbys"].as_array().map(Vec::len);
    is_clean(status) && status["mon"]["quorum"].as_array().map(Vec::len) == Some(3) && standbys == Some(2)
}

/// The monitor that leads, and one that follows.
fn monitors(cluster: &Cluster) -> (String, String) {
    let status = cluster.status().unwrap();
    let leader = status["mon"]["leader"].as_str().unwrap().to_owned();
    let follower = ["a", "b", "c"].into_iter().find(|mon| *mon != leader).unwrap();
    (format!("mon.{leader}"), format!("mon.{follower}"))
}

fn active_mgr(cluster: &Cluster) -> String {
    format!("mgr.{}", cluster.status().unwrap()["mgr"]["active"].as_str().unwrap())
}

#[test]
fn any_daemon_is_killed_and_the_disk_goes_on() {
    let scene = Scene::new();
    let (leader, follower) = monitors(&scene.cluster);
    let mgr = active_mgr(&scene.cluster);
    for name in [&leader, &follower, &mgr, "osd.0", "osd.1", "osd.2"] {
        scene.survive(name, "kill", "start", GAP_KILLED);
    }
    scene.finish();
}

#[test]
fn a_process_hangs_and_the_disk_goes_on() {
    let scene = Scene::new();
    let (leader, _) = monitors(&scene.cluster);
    let mgr = active_mgr(&scene.cluster);
    for name in ["osd.1", &leader, &mgr] {
        scene.survive(name, "pause", "resume", GAP_PAUSED);
    }
    scene.finish();
}
