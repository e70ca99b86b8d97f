//! More dies at once than the cluster can do without: everything, two of three OSDs, a disk for good. Nothing that was
//! answered is lost, and nothing is answered that could be lost.

use crate::harness::load::{BLOCK_LEN, Blocks, Ended, Load};
use crate::harness::served::Served;
use crate::harness::{Cluster, SOON, is_clean};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LOADED_LEN: usize = 32 * MIB;
/// Room for a whole object is filled, so that there is something to be copied: 4 MiB and 8 objects.
const COUNT: usize = LOADED_LEN / BLOCK_LEN;

/// How long `cairn nbd serve` may take to stop: 5 s for its lock, and what a machine with much else to do adds.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A cluster with a disk.
fn cluster() -> Cluster {
    let cluster = Cluster::up("2GiB");
    cluster.ok(&["image", "create", "vms/disk", "--size", "64MiB"]);
    cluster
}

fn load(served: &Served, blocks: Blocks) -> Load {
    let load = Load::start(&served.socket, blocks);
    load.wait_for_answers(3000, SOON);
    load
}

/// Every store is in order, by the offline check; the cluster is down then.
fn check_stores(cluster: &Cluster) {
    cluster.ok(&["down"]);
    for osd in 0..3 {
        cluster.ok(&["store", "fsck", &format!(".cairn/osd.{osd}/store")]);
    }
}

#[test]
fn everything_is_killed_at_once_under_load_and_what_was_answered_is_there() {
    let cluster = cluster();

    // The gateway of the hypervisor's machine outlives the cluster, and its disk only waits.
    let mut served = Served::start(&cluster, "vms/disk");
    let under_load = load(&served, Blocks::zeros(COUNT));
    cluster.kill_all();
    assert_eq!(cluster.json(&["up", "--detach"])["health"], "HEALTH_OK");
    under_load.wait_for_answers(1000, SOON);
    let Ended { mut blocks, is_cut_off } = under_load.stop();
    assert!(!is_cut_off);
    blocks.verify(&served.socket);

    // The gateway dies, too. Another one takes over its lock, once its watch has run out.
    let under_load = load(&served, blocks);
    cluster.kill_all();
    served.kill();
    let Ended { mut blocks, is_cut_off } = under_load.stop();
    assert!(is_cut_off);
    assert_eq!(cluster.json(&["up", "--detach"])["health"], "HEALTH_OK");
    served = Served::start(&cluster, "vms/disk");
    blocks.verify(&served.socket);

    // It stops when it is asked to, whether or not there is a cluster to give the lock back to.
    cluster.kill_all();
    let begun = Instant::now();
    assert_eq!(served.stop().code(), Some(1));
    assert!(begun.elapsed() < STOP_MAX, "{:?}", begun.elapsed());
    check_stores(&cluster);
}

#[test]
fn without_min_size_writes_wait_until_an_osd_is_back() {
    let cluster = cluster();
    let mut served = Served::start(&cluster, "vms/disk");
    let load = load(&served, Blocks::zeros(COUNT));
    cluster.ok(&["dev", "kill", "osd.1"]);
    cluster.ok(&["dev", "kill", "osd.2"]);
    // What was durable on all copies in time is answered; then nothing more.
    sleep(Duration::from_secs(2));
    let writes = load.writes();
    cluster.wait_for("two OSDs are missed", SOON, |status| status["osd"]["up"] == 1);
    sleep(Duration::from_secs(5));
    assert_eq!(load.writes(), writes, "a write was answered that one copy has");
    let health = &cluster.status().unwrap()["health"];
    assert!(health["checks"]["PG_AVAILABILITY"].is_object(), "{health:#}");

    cluster.ok(&["dev", "start", "osd.1"]);
    load.wait_for_answers(1000, SOON);
    assert!(load.writes() > writes);
    let status = cluster.status().unwrap();
    assert_eq!(status["osd"]["up"], 2);

    cluster.ok(&["dev", "start", "osd.2"]);
    cluster.wait_until_clean(SOON);
    let Ended { mut blocks, is_cut_off } = load.stop();
    assert!(!is_cut_off);
    blocks.verify(&served.socket);
    assert!(served.stop().success());
    check_stores(&cluster);
}

#[test]
fn a_destroyed_osd_is_replaced_and_filled_again() {
    let cluster = cluster();
    let mut served = Served::start(&cluster, "vms/disk");
    let under_load = load(&served, Blocks::zeros(COUNT));
    cluster.ok(&["dev", "kill", "osd.1"]);
    std::fs::remove_file(cluster.path(".cairn/osd.1/store")).unwrap();
    cluster.wait_for("the OSD is missed", SOON, |status| status["osd"]["up"] == 2);
    // Without its disk it does not start; what to do is said.
    let output = cluster.run(&["dev", "start", "osd.1"]);
    assert_eq!(output.status.code(), Some(1));
    cluster.ok(&["osd", "destroy", "1", "--yes"]);
    cluster.ok(&["osd", "create", "--id", "1", "--size", "2GiB"]);
    let status = cluster.wait_until_clean(SOON);
    assert_eq!(status["osd"]["total"], 3);
    under_load.wait_for_answers(1000, SOON);

    // The new copy is a whole one: it serves where the others are gone in turn.
    for other in ["osd.0", "osd.2"] {
        cluster.wait_until_clean(SOON);
        cluster.ok(&["dev", "kill", other]);
        cluster.wait_for("the OSD is missed", SOON, |status| status["osd"]["up"] == 2);
        under_load.wait_for_answers(1000, SOON);
        cluster.ok(&["dev", "start", other]);
    }
    cluster.wait_for("all is well", SOON, |status| {
        is_clean(status) && status["health"]["status"] == "HEALTH_OK"
    });
    let Ended { mut blocks, is_cut_off } = under_load.stop();
    assert!(!is_cut_off);
    blocks.verify(&served.socket);
    assert!(served.stop().success());
    check_stores(&cluster);
}
