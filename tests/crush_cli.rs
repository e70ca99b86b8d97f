//! `cairn crush` as an operator runs it: output, exit codes, and Ceph's own tools beside it where they are installed.

use std::path::Path;
use std::process::{Command, Output};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/crush/tests/data/text");

/// Two hosts with three OSDs, and one rule over hosts.
const SMALL: &str = "\
tunable choose_total_tries 50
tunable chooseleaf_descend_once 1
tunable chooseleaf_vary_r 1
tunable chooseleaf_stable 1
device 0 osd.0
device 1 osd.1
device 2 osd.2
type 0 osd
type 1 host
type 2 root
host h1 { id -2 alg straw2 hash 0 item osd.0 weight 1 item osd.1 weight 2 }
host h2 { id -3 alg straw2 hash 0 item osd.2 weight 1 }
root default { id -1 alg straw2 hash 0 item h1 item h2 }
rule by-host { id 0 type replicated min_size 1 max_size 3 step take default step chooseleaf firstn 0 type host step emit }
";

fn cairn(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cairn")).arg("crush").args(arguments).current_dir(dir).output().unwrap()
}

/// A tool of Ceph's, or `None` with a word on stderr.
fn ceph(dir: &Path, tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).current_dir(dir).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("left out: {tool} is not installed (Debian package ceph-base)");
            None
        }
    }
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

fn small() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("map.txt"), SMALL).unwrap();
    stdout(&cairn(dir.path(), &["compile", "map.txt", "-o", "map.bin"]));
    dir
}

#[test]
fn compile_and_decompile_give_crushtools_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 1..=5 {
        let path = |extension: &str| format!("{RECORDED}/random-{seed}.{extension}");
        stdout(&cairn(dir.path(), &["compile", &path("txt"), "-o", "out.bin"]));
        let compiled = std::fs::read(dir.path().join("out.bin")).unwrap();
        assert!(compiled == std::fs::read(path("bin")).unwrap(), "seed {seed}");
        let decompiled = cairn(dir.path(), &["decompile", &path("bin")]);
        assert_eq!(stdout(&decompiled), std::fs::read_to_string(path("decompiled")).unwrap());
        stdout(&cairn(dir.path(), &["decompile", "--exact", "out.bin", "-o", "exact.txt"]));
        stdout(&cairn(dir.path(), &["compile", "exact.txt", "-o", "again.bin"]));
        assert!(std::fs::read(dir.path().join("again.bin")).unwrap() == compiled, "seed {seed}");
    }
}

#[test]
fn a_bad_map_is_refused_with_its_place_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.txt"), "device 0 osd.0\ndevice 0 osd.1\n").unwrap();
    let output = cairn(dir.path(), &["compile", "bad.txt", "-o", "out.bin"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "cairn: bad.txt:2:8: the device 0 is already taken by 'osd.0'\n");
    assert!(!dir.path().join("out.bin").exists());
    assert_eq!(cairn(dir.path(), &["test", "-i", "bad.txt"]).status.code(), Some(2), "nothing to show");
    assert_eq!(cairn(dir.path(), &["decompile", "absent"]).status.code(), Some(1));
}

#[test]
fn test_prints_what_crushtool_prints() {
    let dir = small();
    let sets: [&[&str]; 6] = [
        &["--show-mappings", "--min-x", "0", "--max-x", "200"],
        &["--show-mappings", "--max-x", "5", "--num-rep", "2"],
        &["--show-mappings", "--x", "7", "--pool-id", "4"],
        &["--show-statistics", "--show-bad-mappings", "--num-rep", "3", "--rule", "0"],
        &["--show-utilization", "--weight", "1", "0.5", "--weight", "0", "0"],
        &["--show-utilization-all", "--num-rep", "2"],
    ];
    for options in sets {
        let ours = cairn(dir.path(), &[&["test", "-i", "map.txt"], options].concat());
        let Some(theirs) = ceph(dir.path(), "crushtool", &[&["-i", "map.bin", "--test"], options].concat())
        else {
            return;
        };
        assert_eq!(stdout(&ours), stdout(&theirs), "{options:?}");
        assert_eq!(ours.stderr, theirs.stderr, "{options:?}");
    }
}

#[test]
fn map_object_agrees_with_osdmaptool() {
    let dir = small();
    let create = ["--createsimple", "3", "osdmap", "--with-default-pool", "--pg-bits", "5"];
    if ceph(dir.path(), "osdmaptool", &create).is_none() {
        return;
    }
    ceph(dir.path(), "osdmaptool", &["osdmap", "--import-crush", "map.bin"]);
    // Three OSDs with five bits of groups each, in a pool 1 of three replicas.
    let pool = ["--crush", "map.bin", "--pg-num", "96", "--pool-id", "1", "--size", "3"];
    for name in ["foo", "a b", "rbd_data.10226b8b4567.0000000000000000", "x"] {
        let ours = cairn(dir.path(), &[&["map-object", name], &pool[..]].concat());
        let arguments = ["osdmap", "--mark-up-in", "--test-map-object", name, "--pool", "1"];
        let theirs = ceph(dir.path(), "osdmaptool", &arguments).unwrap();
        assert_eq!(Some(stdout(&ours).trim_end()), stdout(&theirs).lines().last());
    }
}

#[test]
fn whatif_tells_what_moves() {
    let dir = small();
    let pool = ["--pg-num", "64", "--size", "2", "--bytes", "6400"];
    let plan = |plan: &[&str]| -> serde_json::Value {
        let arguments = [&["whatif", "--crush", "map.bin", "--format", "json"], plan, &pool[..]].concat();
        serde_json::from_str(stdout(&cairn(dir.path(), &arguments))).unwrap()
    };
    let same = plan(&["--to", "map.txt"]);
    assert_eq!((&same["moved_bytes"], &same["placed_bytes"]), (&0.into(), &12800.into()));
    // With one host of two gone, each group keeps one replica, where it was; nothing can move.
    let lost = plan(&["--lose", "h2"]);
    assert_eq!((&lost["moved_bytes"], &lost["missing_replicas"]), (&0.into(), &64.into()));
    // Out of the OSD that is lost, all that it held goes to its neighbour.
    let lost = plan(&["--lose", "osd.0"]);
    assert_eq!(lost["moved_bytes"], lost["osds"][0]["bytes_before"]);
    assert_eq!(lost["osds"][0]["bytes_after"], 0);
    assert_eq!(lost["osds"][1]["bytes_after"], 6400);
    // A disk as large as its only neighbour takes about half of the host's data.
    let added = plan(&["--add", "osd.3=1@h2"]);
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert!((2000..4400).contains(&number(&added["osds"][3]["bytes_after"])), "{added}");
    assert!(number(&added["least_bytes"]) <= number(&added["moved_bytes"]), "{added}");
    let lighter = plan(&["--crush-weight", "osd.1=0"]);
    assert_eq!(lighter["osds"][0]["bytes_after"], 6400);
    let unknown = cairn(dir.path(), &[&["whatif", "--crush", "map.bin", "--lose", "h9"], &pool[..]].concat());
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("no OSD or bucket 'h9'"));
}
