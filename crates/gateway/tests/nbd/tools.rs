//! The clients that operators use, against a disk in memory: libnbd, QEMU and fio.

use crate::support::{Memory, Served, UNIT, run, succeed};
use cairn_gateway::nbd::Listener;
use cairn_net::{ClusterCa, Expect, Identity, Validity};
use cairn_types::{EntityKind, EntityName, Fsid};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

const MIB: u64 = 1 << 20;

/// A file with data here and holes there.
fn sparse_image(path: &Path, size_bytes: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).unwrap();
    file.set_len(size_bytes).unwrap();
    let mut state = 1u64;
    for start in (0..size_bytes - MIB).step_by(3 * MIB as usize) {
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .take(700_001)
        .collect();
        file.write_all_at(&data, start + 513).unwrap();
    }
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    let served = Served::unix(Memory::new(64 * MIB + 512));
    let json: serde_json::Value =
        serde_json::from_str(&succeed("nbdinfo", &["--json", &served.uri()])).unwrap();
    assert_eq!(json["protocol"], "newstyle-fixed");
    assert_eq!(json["TLS"], false);
    assert_eq!(json["structured"], true);
    let export = &json["exports"][0];
    assert_eq!(export["export-name"], "vms/disk");
    assert_eq!(export["description"], "a test disk");
    assert_eq!(export["export-size"], 64 * MIB + 512);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    for can in ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"] {
        assert_eq!(export[format!("can_{can}")], true, "{can} of {export}");
    }
    assert_eq!(export["is_read_only"], false);
    assert_eq!(export["block_size_minimum"], 1, "{export}");
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 * MIB);

    let socket = format!("nbd+unix:///?socket={}", served.socket().display());
    let listed: serde_json::Value =
        serde_json::from_str(&succeed("nbdinfo", &["--list", "--json", &socket])).unwrap();
    assert_eq!(listed["exports"][0]["export-name"], "vms/disk");

    let unknown = format!("nbd+unix:///vms%2Fother?socket={}", served.socket().display());
    let output = run("nbdinfo", &[&unknown]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("No such file or directory"), "{said}");
}

#[test]
fn nbdcopy_brings_an_image_in_and_out_over_several_connections() {
    let size = 60 * MIB;
    let served = Served::unix(Memory::new(size));
    let original = served.dir.path().join("original");
    let copy = served.dir.path().join("copy");
    sparse_image(&original, size);
    let connections = ["--connections=4", "--requests=64", "--flush"];
    succeed("nbdcopy", &[&connections[..], &[original.to_str().unwrap(), &served.uri()]].concat());
    assert!(served.device.flushes.load(Ordering::SeqCst) > 0);
    assert!(served.device.stored_bytes() < size / 2, "holes stay holes");
    succeed("nbdcopy", &[&connections[..], &[&served.uri(), copy.to_str().unwrap()]].concat());
    assert!(std::fs::read(&original).unwrap() == std::fs::read(&copy).unwrap());

    let map: serde_json::Value =
        serde_json::from_str(&succeed("nbdinfo", &["--map", "--json", &served.uri()])).unwrap();
    let extents = map.as_array().unwrap();
    assert!(extents.len() > 20, "{map}");
    let total: u64 = extents.iter().map(|extent| extent["length"].as_u64().unwrap()).sum();
    assert_eq!(total, size);
    let stored: u64 = extents
        .iter()
        .filter(|extent| extent["type"] == 0)
        .map(|extent| extent["length"].as_u64().unwrap())
        .sum();
    assert_eq!(stored, served.device.stored_bytes());
}

#[test]
fn qemu_img_converts_and_compares() {
    let size = 64 * MIB;
    let served = Served::unix(Memory::new(size));
    let original = served.dir.path().join("original.qcow2");
    let raw = served.dir.path().join("raw");
    sparse_image(&raw, size);
    let (raw, original) = (raw.to_str().unwrap(), original.to_str().unwrap());
    succeed("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw, original]);
    let uri = served.uri();
    succeed("qemu-img", &["convert", "-n", "-W", "-m", "16", "-f", "qcow2", "-O", "raw", original, &uri]);
    let compared = succeed("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", original, &uri]);
    assert!(compared.contains("identical"), "{compared}");
    assert!(served.device.stored_bytes() < size / 2, "holes stay holes");
}

#[test]
fn qemu_io_writes_forces_discards_and_reads_back() {
    let served = Served::unix(Memory::new(16 * MIB));
    let uri = served.uri();
    succeed(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -f -P 0x5a 1M 2M",
            "-c",
            "write -z -u 1M 64k",
            "-c",
            "discard 2M 512k",
            "-c",
            "read -P 0 1M 64k",
            "-c",
            "read -P 0x5a 1114112 512k",
            "-c",
            "flush",
            &uri,
        ],
    );
    assert!(served.device.forced.load(Ordering::SeqCst) > 0, "FUA reaches the device");
    assert_eq!(served.device.stored_bytes(), 2 * MIB - (64 << 10) - (512 << 10));
    let past = run("qemu-io", &["-f", "raw", "-c", "write 16M 4k", &uri]);
    assert!(String::from_utf8_lossy(&past.stdout).contains("Input/output error") || !past.status.success());
}

#[test]
fn a_read_only_export_is_offered_as_such() {
    let served = Served::unix(Memory { read_only: true, ..Memory::new(MIB) });
    let json: serde_json::Value =
        serde_json::from_str(&succeed("nbdinfo", &["--json", &served.uri()])).unwrap();
    let export = &json["exports"][0];
    assert_eq!((&export["is_read_only"], &export["can_trim"]), (&true.into(), &false.into()));
    let output = run("nbdcopy", &["/bin/true", &served.uri()]);
    assert!(!output.status.success());
}

#[test]
fn fio_verifies_every_block_at_depth_over_several_jobs() {
    let served = Served::unix(Memory::new(64 * MIB));
    let uri = format!("--uri=nbd+unix:///vms%2Fdisk?socket={}", served.socket().display());
    let printed = succeed(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bssplit=512/10:4k/50:12k/20:128k/15:1m/5",
            "--bs_unaligned=0",
            "--iodepth=32",
            "--size=48m",
            "--fsync=64",
            "--verify=crc32c",
            "--verify_state_save=0",
            "--verify_fatal=1",
            "--randrepeat=1",
            "--output-format=json",
        ],
    );
    let start = printed.find('{').expect("fio prints JSON");
    let json: serde_json::Value = serde_json::from_str(&printed[start..]).unwrap();
    let job = &json["jobs"][0];
    assert_eq!(job["error"], 0);
    assert!(job["write"]["io_bytes"].as_u64().unwrap() >= 48 * MIB);
    assert!(job["read"]["io_bytes"].as_u64().unwrap() > 0, "it was verified");
    assert!(served.device.inside_max.load(Ordering::SeqCst) > 8, "many requests are in flight");
    assert!(served.device.stored_bytes().is_multiple_of(UNIT));
}

#[test]
fn over_tcp_only_clients_with_a_certificate_of_the_cluster_get_in() {
    let now = SystemTime::now();
    let ca = ClusterCa::create(Fsid([7; 16]), now).unwrap();
    let stranger = ClusterCa::create(Fsid([8; 16]), now).unwrap();
    let client = EntityName::new(EntityKind::Client, "admin").unwrap();
    let server = ca.issue(&client, Validity::from_now(now)).unwrap();
    let identity = Identity::try_from(&server).unwrap();
    let (served, addr) = Served::on(Memory::new(8 * MIB), move |_| {
        let addr = "127.0.0.1:0".parse().unwrap();
        Listener::tcp(addr, identity, Expect::Kind(EntityKind::Client)).unwrap()
    });
    let port = addr.unwrap().port();

    let info = |credentials: &cairn_net::Credentials, folder: &str| {
        let dir = served.dir.path().join(folder);
        std::fs::create_dir(&dir).unwrap();
        for (name, text) in [
            // QEMU checks the server against its own CA file.
            ("ca-cert.pem", &server.ca_pem),
            ("client-cert.pem", &credentials.cert_pem),
            ("client-key.pem", &credentials.key_pem),
        ] {
            File::create(dir.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let tls = format!("tls-creds-x509,id=tls0,endpoint=client,sanity-check=off,dir={}", dir.display());
        let image = format!(
            "driver=nbd,host=127.0.0.1,port={port},export=vms/disk,tls-creds=tls0,tls-hostname=client.admin"
        );
        run("qemu-img", &["info", "--object", &tls, "--image-opts", &image])
    };
    let ours = ca.issue(&client, Validity::from_now(now)).unwrap();
    let output = info(&ours, "ours");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("8 MiB"), "{said}");

    let theirs = stranger.issue(&client, Validity::from_now(now)).unwrap();
    assert!(!info(&theirs, "theirs").status.success());
    let osd = EntityName::new(EntityKind::Osd, "0").unwrap();
    assert!(!info(&ca.issue(&osd, Validity::from_now(now)).unwrap(), "osd").status.success());

    let plain = run("nbdinfo", &[&format!("nbd://127.0.0.1:{port}/vms%2Fdisk")]);
    assert!(!plain.status.success(), "without TLS nothing is told");
}
