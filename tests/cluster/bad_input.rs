//! What cannot be done is refused with one sentence and an exit code, and nothing that is there suffers.

use crate::harness::load::{BLOCK_LEN, Blocks, Load};
use crate::harness::nbd::{Command, Nbd};
use crate::harness::served::Served;
use crate::harness::{Cluster, SOON, soon};
use cairn_conf::{ClientConf, ClusterPlan, CreateError, DaemonConf, Layout, create_cluster};
use cairn_net::{Config, Endpoint};
use cairn_types::Fsid;
use cairn_wire::handshake::RefusalCode;
use std::path::Path;
use std::time::SystemTime;

/// What NBD says of a full disk.
const NBD_ENOSPC: u32 = 28;

/// As small as a cluster can be.
fn small(osd_size: &str) -> Cluster {
    let cluster = Cluster::new();
    // One copy is not well, and that is meant.
    let arguments = ["up", "--detach", "--mons", "1", "--osds", "1", "--osd-size", osd_size];
    cluster.run(&arguments);
    cluster.wait_until_clean(SOON);
    cluster
}

#[test]
fn names_and_sizes_that_cannot_be_meant_change_nothing() {
    let cluster = small("1GiB");
    std::fs::write(cluster.path("data"), vec![7; 1_000_000]).unwrap();
    cluster.ok(&["object", "put", "vms", "it", "data"]);
    cluster.ok(&["image", "import", "data", "vms/disk"]);

    let refusals: [(&[&str], &str); 39] = [
        (&["image", "ls", "none"], "pool 'none'"),
        (&["image", "info", "none/disk"], "pool 'none'"),
        (&["image", "create", "none/disk", "--size", "1GiB"], "pool 'none'"),
        (&["image", "import", "data", "none/disk"], "pool 'none'"),
        (&["image", "export", "none/disk", "copy"], "pool 'none'"),
        (&["image", "resize", "none/disk", "--size", "1GiB"], "pool 'none'"),
        (&["image", "rm", "none/disk"], "pool 'none'"),
        (&["nbd", "serve", "none/disk", "--socket", "s"], "pool 'none'"),
        (&["object", "put", "none", "it", "data"], "pool 'none'"),
        (&["object", "get", "none", "it", "copy"], "pool 'none'"),
        (&["object", "stat", "none", "it"], "pool 'none'"),
        (&["object", "ls", "none"], "pool 'none'"),
        (&["object", "rm", "none", "it"], "pool 'none'"),
        (&["bench", "write", "none"], "pool 'none'"),
        (&["bench", "image", "none/disk"], "pool 'none'"),
        (&["pool", "show", "none"], "pool 'none'"),
        (&["pool", "set", "none", "size", "2"], "pool 'none'"),
        (&["pool", "rm", "none", "--confirm", "none"], "pool 'none'"),
        (&["pg", "ls", "--pool", "none"], "pool 'none'"),
        (&["image", "info", "vms/none"], "no image 'vms/none'"),
        (&["image", "export", "vms/none", "copy"], "no image 'vms/none'"),
        (&["image", "resize", "vms/none", "--size", "1GiB"], "no image 'vms/none'"),
        (&["image", "rm", "vms/none"], "no image 'vms/none'"),
        (&["nbd", "serve", "vms/none", "--socket", "s"], "no image 'vms/none'"),
        (&["bench", "image", "vms/none"], "no image 'vms/none'"),
        (&["object", "get", "vms", "none", "copy"], "'none'"),
        (&["osd", "out", "7"], "osd.7"),
        (&["pg", "show", "1.ffff"], "1.ffff"),
        (&["mon", "rm", "z"], "mon.z"),
        (&["image", "create", "vms/new", "--size", "0"], "0"),
        (&["image", "create", "vms/new", "--size", "15000000TiB"], "is not possible"),
        (&["image", "create", "vms/disk", "--size", "1GiB"], "exists"),
        (&["image", "import", "data", "vms/disk"], "exists"),
        (&["image", "import", "data", "vms/new", "--size", "512KiB"], "data has 1000000 bytes"),
        (&["image", "import", "nothing", "vms/new"], "cannot read nothing"),
        (&["image", "resize", "vms/disk", "--size", "512"], "--allow-shrink"),
        (&["image", "export", "vms/disk", "data"], "cannot make data"),
        (&["pool", "set", "vms", "size", "0"], "size"),
        (&["osd", "create", "--id", "0"], "osd.0 exists already"),
    ];
    let refusals = refusals.map(|(arguments, says)| (arguments, says, cluster.refusal(arguments, says)));
    let wrong: Vec<_> = refusals.iter().filter(|(_, _, said)| said.is_err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    // All is as it was.
    assert_eq!(cluster.json(&["image", "ls", "vms"]).as_array().map(Vec::len), Some(1));
    assert!(!cluster.path("s").exists() && !cluster.path("copy").exists());
    cluster.ok(&["object", "get", "vms", "it", "back"]);
    cluster.ok(&["image", "export", "vms/disk", "disk"]);
    let data = std::fs::read(cluster.path("data")).unwrap();
    assert!(data == std::fs::read(cluster.path("back")).unwrap());
    assert!(data == std::fs::read(cluster.path("disk")).unwrap()[..data.len()]);
}

#[test]
fn a_daemon_whose_configuration_does_not_parse_says_where_and_starts_once_it_does() {
    let cluster = small("1GiB");
    std::fs::write(cluster.path("data"), vec![7; 100_000]).unwrap();
    cluster.ok(&["object", "put", "vms", "it", "data"]);
    cluster.ok(&["down"]);
    for name in ["osd.0", "mon.a", "mgr.a"] {
        let path = cluster.path(&format!(".cairn/{name}/daemon.toml"));
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{good}\n[colours]\nred = 1\n")).unwrap();
        cluster.refused(&["up", "--detach"], "daemon.toml, line");
        assert!(cluster.alive().is_empty(), "{:?}", cluster.alive());
        std::fs::write(&path, good).unwrap();
    }
    cluster.run(&["up", "--detach"]);
    cluster.wait_until_clean(SOON);
    cluster.ok(&["object", "get", "vms", "it", "back"]);
    assert!(std::fs::read(cluster.path("back")).unwrap() == vec![7; 100_000]);
}

/// The directory of another cluster, which never runs, with the monitors of this one in its configuration.
fn stranger(cluster: &Cluster) -> (Layout, ClientConf) {
    let layout = Layout::new(cluster.path("stranger"));
    let now = SystemTime::now();
    let plan = ClusterPlan { fsid: Fsid([9; 16]), now, mons: 1, osds: 0, osd_bytes: 0, seed: 11 };
    create_cluster(&layout, &plan, |_| Ok::<_, CreateError>(())).unwrap();
    let ours = ClientConf::load(&cluster.path(".cairn/cairn.toml")).unwrap();
    layout.set_monitors(&ours.monitors).unwrap();
    (layout, ours)
}

#[test]
fn a_certificate_of_another_cluster_opens_nothing() {
    let cluster = small("1GiB");
    let (theirs, ours) = stranger(&cluster);
    // Both their id and their certificate: the monitors refuse it, and it refuses them.
    let conf = theirs.client_conf();
    let conf = conf.to_str().unwrap();
    cluster.refused(&["status", "--conf", conf], "its certificate is of cluster");
    cluster.refused(&["image", "ls", "vms", "--conf", conf], "its certificate is of cluster");
    // Our id with their certificate: seen before anything is sent.
    let text = std::fs::read_to_string(conf).unwrap();
    let text = text.replace(&Fsid([9; 16]).to_string(), &ours.fsid.to_string());
    std::fs::write(conf, text).unwrap();
    cluster.refused(&["status", "--conf", conf], "cluster");
    cluster.ok(&["status"]);

    // An OSD that shows one.
    cluster.ok(&["down"]);
    for file in ["cert.pem", "key.pem"] {
        let theirs = theirs.dir().join("mgr.a").join(file);
        std::fs::copy(theirs, cluster.path(&format!(".cairn/mgr.a/{file}"))).unwrap();
    }
    cluster.refused(&["up", "--detach"], "mgr.a did not start");
    assert!(cluster.alive().is_empty());
}

/// A monitor of a later release, at the address of the one in this directory: it speaks no protocol of today.
async fn later_release(dir: &Path) {
    let conf = DaemonConf::load(&dir.join("mon.a/daemon.toml")).unwrap();
    let config = Config::new(conf.load_identity().unwrap(), Some(conf.listen));
    let endpoint = Endpoint::bind(config).await.unwrap();
    while let Some(incoming) = endpoint.accept().await {
        let why = "mon.a speaks protocol versions 2 to 3, client.admin speaks 1 to 1: upgrade client.admin";
        incoming.refuse(RefusalCode::VERSION, why).await;
    }
}

#[test]
fn a_client_that_is_too_old_is_told_to_be_upgraded() {
    let cluster = small("1GiB");
    cluster.ok(&["down"]);
    let dir = cluster.path(".cairn");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(later_release(&dir));
    });
    let says = "cannot work together: 127.0.0.1:";
    cluster.refused(&["status"], says);
    cluster.refused(&["image", "ls", "vms"], "speaks 1 to 1: upgrade client.admin");
}

#[test]
fn a_full_cluster_says_so_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let cluster = Cluster::up("1GiB");
    std::fs::write(cluster.path("data"), vec![7; 1_000_000]).unwrap();
    cluster.ok(&["object", "put", "vms", "it", "data"]);
    cluster.ok(&["image", "create", "vms/disk", "--size", "64MiB"]);
    let served = Served::start(&cluster, "vms/disk");
    let load = Load::start(&served.socket, Blocks::zeros(1024));
    load.wait_for_answers(1000, SOON);
    let mut blocks = load.stop().blocks;

    // Noise, so that nothing is saved by holes.
    let mut noise = vec![0_u8; 1100 << 20];
    for (n, word) in noise.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    std::fs::write(cluster.path("noise"), &noise).unwrap();
    drop(noise);
    cluster.ok(&["image", "create", "vms/ballast", "--size", "2GiB"]);
    let mut ballast = Served::start(&cluster, "vms/ballast");
    let noise = cluster.path("noise");
    let copied = crate::harness::tools::run("nbdcopy", &[noise.to_str().unwrap(), &ballast.uri()]);
    assert!(!copied.status.success());
    let said = String::from_utf8_lossy(&copied.stderr);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(ballast.stop().success());

    cluster
        .wait_for("it is said to be full", SOON, |status| status["health"]["checks"]["OSD_FULL"].is_object());

    // The disk in use can write no more, and says why. What it has can be read.
    let mut nbd = Nbd::connect(&served.socket).unwrap();
    // One OSD is full a moment before the others are, and before the monitors have told all.
    soon("a write finds the disk full", || {
        nbd.send(1, Command::Write { offset: 32 << 20, data: &[1; BLOCK_LEN] }).unwrap();
        nbd.reply().unwrap() == (1, NBD_ENOSPC)
    });
    blocks.verify(&served.socket);
    let full = "no space left";
    cluster.refused(&["object", "put", "vms", "more", "data"], full);
    cluster.refused(&["image", "import", "data", "vms/more"], full);

    // Room is made by taking away.
    cluster.ok(&["image", "rm", "vms/ballast"]);
    cluster.wait_for("room again", SOON, |status| status["health"]["status"] == "HEALTH_OK");
    let load = Load::start(&served.socket, blocks);
    load.wait_for_answers(1000, SOON);
    load.stop().blocks.verify(&served.socket);
    cluster.ok(&["image", "import", "data", "vms/more"]);
    cluster.ok(&["object", "get", "vms", "it", "back"]);
    assert!(std::fs::read(cluster.path("back")).unwrap() == vec![7; 1_000_000]);
}
