//! Disk images by the tools that operators use: qemu-img, libnbd's, fio.

use crate::harness::Cluster;
use crate::harness::served::Served;
use crate::harness::tools::{run, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const GIB: u64 = 1 << 30;

/// A file system of real files, of 1 GiB, as a qcow2 image: this repository, and the program under test.
fn real_image(cluster: &Cluster) -> PathBuf {
    let files = cluster.path("files");
    std::fs::create_dir(&files).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["crates", "docs", "src", "tests", "Cargo.lock"] {
        copy(&root.join(name), &files);
    }
    copy(Path::new(env!("CARGO_BIN_EXE_cairn")), &files);
    let (raw, qcow2) = (cluster.path("real.raw"), cluster.path("real.qcow2"));
    let (raw, path) = (raw.to_str().unwrap(), qcow2.to_str().unwrap());
    succeed("qemu-img", &["create", "-q", "-f", "raw", raw, "1G"]);
    succeed("mkfs.ext4", &["-q", "-F", "-d", files.to_str().unwrap(), raw]);
    succeed("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw, path]);
    qcow2
}

fn copy(from: &Path, into: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(into).status().unwrap();
    assert!(done.success(), "cp {}", from.display());
}

#[test]
fn a_real_disk_image_comes_back_identical() {
    let cluster = Cluster::up("4GiB");
    let original = real_image(&cluster);
    let original = original.to_str().unwrap();
    cluster.ok(&["image", "create", "vms/real", "--size", "1GiB"]);
    let mut served = Served::start(&cluster, "vms/real");
    let uri = served.uri();

    // In, by QEMU; out again, by QEMU.
    succeed("qemu-img", &["convert", "-n", "-W", "-m", "16", "-f", "qcow2", "-O", "raw", original, &uri]);
    let identical = |other: &str, format: &str| {
        let said = succeed("qemu-img", &["compare", "-f", "qcow2", "-F", format, original, other]);
        assert!(said.contains("Images are identical."), "{said}");
    };
    identical(&uri, "raw");
    let back = cluster.path("back.qcow2");
    let back = back.to_str().unwrap();
    succeed("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, back]);
    identical(back, "qcow2");

    // What libnbd's tools see of it, and take out of it.
    let seen: Value = serde_json::from_str(&succeed("nbdinfo", &["--json", &uri])).unwrap();
    let export = &seen["exports"][0];
    assert_eq!((&export["export-name"], &export["export-size"]), (&"real".into(), &GIB.into()));
    for can in ["flush", "fua", "trim", "zero", "multi_conn"] {
        assert_eq!(export[format!("can_{can}")], true, "{can} of {export}");
    }
    let map: Value = serde_json::from_str(&succeed("nbdinfo", &["--map", "--json", &uri])).unwrap();
    let parts = map.as_array().unwrap();
    let bytes = |parts: &[Value]| parts.iter().map(|part| part["length"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(bytes(parts), GIB);
    assert!(parts.iter().any(|part| part["description"] == "hole,zero"), "holes stay holes: {map}");
    let out = cluster.path("out");
    succeed("nbdcopy", &["--connections=4", "--requests=64", &uri, out.to_str().unwrap()]);
    identical(out.to_str().unwrap(), "raw");

    // And what cairn itself takes out, once the disk is free again.
    assert!(served.stop().success());
    let exported = cluster.path("exported");
    let exported = exported.to_str().unwrap();
    cluster.ok(&["image", "export", "vms/real", exported]);
    identical(exported, "raw");
    succeed("e2fsck", &["-f", "-n", exported]);

    // One that is too large for its place is refused, and the place stays as it was.
    cluster.ok(&["image", "create", "vms/small", "--size", "512MiB"]);
    let small = Served::start(&cluster, "vms/small");
    let refused = run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", original, &small.uri()]);
    assert_eq!(refused.status.code(), Some(1));
    let map: Value = serde_json::from_str(&succeed("nbdinfo", &["--map", "--json", &small.uri()])).unwrap();
    assert!(map.as_array().unwrap().iter().all(|part| part["description"] == "hole,zero"), "{map}");
}

#[test]
fn fio_verifies_every_block_it_wrote() {
    let cluster = Cluster::up("2GiB");
    cluster.ok(&["image", "create", "vms/fio", "--size", "256MiB"]);
    let served = Served::start(&cluster, "vms/fio");
    let printed = succeed(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &format!("--uri={}", served.uri()),
            "--rw=randwrite",
            "--bssplit=4k/60:16k/20:128k/15:1m/5",
            "--iodepth=16",
            "--size=192m",
            "--fsync=64",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--verify_fatal=1",
            "--output-format=json",
        ],
    );
    let start = printed.find('{').expect("fio prints JSON");
    let job = &serde_json::from_str::<Value>(&printed[start..]).unwrap()["jobs"][0];
    assert_eq!(job["error"], 0);
    assert!(job["write"]["io_bytes"].as_u64().unwrap() >= 190 << 20, "{job}");
    assert!(job["read"]["io_bytes"].as_u64().unwrap() > 0, "it was verified");
}
