//! `cairn store` as an operator runs it: output, exit codes, files that are damaged, in use or no store at all.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use cairn_store::device::checked::CheckedRegion;
use cairn_store::device::file::{Access, FileMedium};
use redb::ReadableTable;
use serde_json::Value;

const FSID: &str = "0d5f3a51-6f0e-4b36-8a36-3f2f6d1c9e70";

fn cairn(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cairn")).arg("store").args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap()
}

/// Fails with an exit code and one sentence that says this.
#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.starts_with("cairn: ") && error.lines().count() == 1 && error.contains(says), "{error}");
    assert!(output.stdout.is_empty());
}

/// The verdict of a check: its exit code is the one given and stands in its report, which is returned.
#[track_caller]
fn fsck(dir: &Path, options: &[&str], code: i32) -> Value {
    let output = cairn(dir, &[&["fsck", "disk", "--format", "json"], options].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(code), "{report}");
    assert_eq!(report["exit_code"], code, "{report}");
    assert_eq!(report["clean"], code < 4, "{report}");
    assert!(output.stderr.is_empty(), "a progress bar where there is no terminal");
    // The same for people.
    if !options.contains(&"--repair") {
        assert_eq!(cairn(dir, &[&["fsck", "disk"], options].concat()).status.code(), Some(code));
    }
    report
}

/// A directory with a store of 64 MiB, `disk`.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    stdout(&cairn(dir.path(), &["create", "disk", "--size", "64MiB"]));
    dir
}

/// The same with some objects of 4 MiB in it.
fn used() -> tempfile::TempDir {
    let dir = made();
    let load = ["--workload", "randwrite", "--depth", "8", "--objects", "3", "--runtime", "50ms", "--keep"];
    stdout(&cairn(dir.path(), &[&["bench", "disk"], &load[..]].concat()));
    dir
}

fn disk(dir: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(dir.join("disk")).unwrap()
}

#[test]
fn create_makes_what_info_tells() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--osd", "7", "--fsid", FSID, "--log-size", "3MiB", "--index-size", "8MiB"];
    let create = [&["create", "disk", "--size", "64MiB", "--format", "json"], &options[..]].concat();
    let made = json(&cairn(dir.path(), &create));
    assert_eq!(std::fs::metadata(dir.path().join("disk")).unwrap().len(), 64 << 20);
    assert_eq!((&made["osd"], &made["fsid"], &made["device"]), (&7.into(), &FSID.into(), &"disk".into()));
    assert_eq!(made["log_bytes"], 4 << 20, "the next power of two");
    assert_eq!((&made["index_bytes"], &made["device_bytes"]), (&(8 << 20).into(), &(64 << 20).into()));
    let data_bytes = made["data_bytes"].as_u64().unwrap();
    assert!(data_bytes > 51 << 20 && data_bytes < 52 << 20, "{made}");

    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    let superblock = &info["superblock"];
    assert_eq!((&superblock["osd"], &superblock["cluster"]), (&7.into(), &FSID.replace('-', "").into()));
    assert_eq!(superblock["store"], made["store"].as_str().unwrap().replace('-', ""));
    assert_eq!((&info["space"]["data_bytes"], &info["space"]["used_bytes"]), (&data_bytes.into(), &0.into()));
    assert_eq!((&info["objects"], &info["collections"]), (&0.into(), &0.into()));
    assert_eq!((&info["log"]["bytes"], &info["log"]["records"]), (&(4 << 20).into(), &0.into()));
    let output = cairn(dir.path(), &["info", "disk"]);
    for part in ["osd.7", FSID, "64 MiB", "0 objects", "features  none"] {
        assert!(stdout(&output).contains(part), "no {part} in\n{}", stdout(&output));
    }
    // Without a number and a cluster, and two are never the same.
    let other = json(&cairn(dir.path(), &["create", "other", "--size", "64MiB", "--format", "json"]));
    assert!(other["osd"].is_null() && other["fsid"].is_null() && other["store"] != made["store"], "{other}");
    assert!(stdout(&cairn(dir.path(), &["info", "other"])).contains("cluster   not known yet"));
}

#[test]
fn create_loses_nothing_unless_forced() {
    let dir = made();
    let create = |arguments: &[&str]| cairn(dir.path(), &[&["create"], arguments].concat());
    let path = |name: &str| dir.path().join(name);
    let before = std::fs::read(path("disk")).unwrap();
    refused(&create(&["disk"]), 1, "holds a store already");
    refused(&create(&["disk", "--size", "64MiB"]), 1, "--force");
    refused(&create(&["disk", "--size", "128MiB"]), 1, "holds a store already");
    assert!(std::fs::read(path("disk")).unwrap() == before);
    let store = |output: &Output| json(output)["store"].clone();
    let old = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]))["superblock"]["store"].clone();
    let forced = store(&create(&["disk", "--force", "--size", "96MiB", "--format", "json"]));
    assert!(forced.as_str().unwrap().replace('-', "") != old);
    assert_eq!(std::fs::metadata(path("disk")).unwrap().len(), 96 << 20);

    let mut letters = vec![0; 32 << 20];
    letters[70_000] = b'x';
    std::fs::write(path("letters"), &letters).unwrap();
    refused(&create(&["letters"]), 1, "letters is not empty (byte 70000 is not zero)");
    assert!(std::fs::read(path("letters")).unwrap() == letters);
    stdout(&create(&["letters", "--force"]));

    File::create(path("empty")).unwrap();
    refused(&create(&["empty"]), 1, "say --size");
    stdout(&create(&["empty", "--size", "32MiB"]));
    File::create(path("holes")).unwrap().set_len(32 << 20).unwrap();
    refused(&create(&["holes", "--size", "64MiB"]), 1, "leave --size out");
    stdout(&create(&["holes"]));

    // What could not be made leaves nothing behind.
    refused(&create(&["none"]), 1, "none does not exist: say --size");
    refused(&create(&["none", "--size", "1MiB"]), 1, "none: the device is too small for a store");
    refused(&create(&["none", "--size", "64MiB", "--log-size", "8GiB"]), 1, "none: the log is too large");
    assert!(!path("none").exists());
    refused(&create(&["no/such/place", "--size", "64MiB"]), 1, "no/such/place");
    refused(&create(&[".", "--force"]), 1, "neither a regular file nor a block device");
    for bad in [["--size", "64MB"], ["--fsid", "abc"], ["--osd", "-1"]] {
        assert_eq!(create(&[&["none"], &bad[..]].concat()).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_bench_tells_its_figures_and_leaves_a_clean_store() {
    let dir = made();
    let run = ["bench", "disk", "--runtime", "60ms", "--objects", "2", "--format", "json"];
    let report = json(&cairn(dir.path(), &run));
    let rows = report["rows"].as_array().unwrap();
    let load = |row: &Value| {
        let field = |name: &str| row[name].as_u64().unwrap();
        (row["workload"].as_str().unwrap().to_owned(), field("block_bytes"), field("depth"))
    };
    let expected = [
        ("randwrite", 4 << 10, 1),
        ("randwrite", 4 << 10, 32),
        ("seqwrite", 4 << 20, 4),
        ("seqread", 4 << 20, 4),
        ("randread", 4 << 10, 32),
    ];
    assert_eq!(
        rows.iter().map(load).collect::<Vec<_>>(),
        expected.map(|(name, block, depth)| (name.to_owned(), block, depth))
    );
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"));
        assert_eq!(row["who"], "store");
        assert!(number("ops") >= 1.0 && number("seconds") >= 0.06, "{row}");
        assert!((number("iops") - number("ops") / number("seconds")).abs() < 1.0, "{row}");
        let mb_per_s = number("iops") * number("block_bytes") / 1e6;
        assert!((number("mb_per_s") / mb_per_s - 1.0).abs() < 0.001, "{row}");
        let order = ["p50_us", "p99_us", "p999_us", "max_us"].map(number);
        assert!(order[0] > 0.0 && order.is_sorted() && number("mean_us") <= order[3], "{row}");
        assert!(number("cpu_us_per_op") > 0.0, "{row}");
        if row["workload"].as_str().unwrap().ends_with("write") {
            let written = &row["written"];
            let bytes = |name: &str| written[name].as_u64().unwrap();
            assert_eq!(bytes("payload_bytes"), row["ops"].as_u64().unwrap() * bytes_of(row));
            assert!(bytes("records") > 0 && bytes("checkpoints") > 0, "{row}");
            // File systems that do not count (tmpfs) leave the device's bytes at 0.
            let amplification = number("write_amplification");
            assert!(amplification == 0.0 || amplification >= 1.0, "{row}");
        } else {
            assert!(row["write_amplification"].is_null(), "{row}");
        }
    }
    // What it made is gone.
    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    assert_eq!(
        (&info["objects"], &info["collections"], &info["space"]["used_bytes"]),
        (&0.into(), &0.into(), &0.into())
    );
    fsck(dir.path(), &["--deep"], 0);

    let output = cairn(dir.path(), &["bench", "disk", "--objects", "15"]);
    refused(&output, 1, "say fewer with --objects");
    for bad in [["--block-size", "3KiB"], ["--depth", "0"], ["--fill", "100"], ["--size", "1GiB"]] {
        assert_eq!(
            cairn(dir.path(), &[&["bench", "disk"], &bad[..]].concat()).status.code(),
            Some(2),
            "{bad:?}"
        );
    }
}

fn bytes_of(row: &Value) -> u64 {
    row["block_bytes"].as_u64().unwrap()
}

#[test]
fn a_bench_ages_the_store_it_makes() {
    let dir = tempfile::tempdir().unwrap();
    let load = ["--fill", "85", "--objects", "2", "--workload", "randread", "--runtime", "20ms", "--keep"];
    let output = cairn(dir.path(), &[&["bench", "disk", "--create", "--size", "160MiB"], &load[..]].concat());
    assert!(stdout(&output).lines().any(|line| line.starts_with("randread")), "{}", stdout(&output));
    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    let space = |name: &str| info["space"][name].as_f64().unwrap();
    let used = space("used_bytes") / space("data_bytes");
    assert!((0.80..0.88).contains(&used), "{used} of it is used");
    assert!(space("fragmentation") > 0.01, "{info}");
    fsck(dir.path(), &["--deep"], 0);
    // By threads as well.
    stdout(&cairn(
        dir.path(),
        &["bench", "disk", "--queue", "threads", "--objects", "1", "--runtime", "20ms"],
    ));
}

#[test]
fn a_bench_tells_the_memory_of_many_objects() {
    let dir = made();
    let report =
        json(&cairn(dir.path(), &["bench", "disk", "--sparse-objects", "300", "--keep", "--format", "json"]));
    let memory = report["memory"].as_array().unwrap();
    assert!(memory.len() >= 5, "{report}");
    for row in memory {
        let bytes = |name: &str| row[name].as_u64().unwrap();
        assert!(bytes("resident_bytes") > 1 << 20 && bytes("peak_bytes") >= bytes("resident_bytes"), "{row}");
    }
    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    assert_eq!((&info["objects"], &info["space"]["used_bytes"]), (&300.into(), &(300 * 4096).into()));
}

#[test]
fn a_bench_runs_fio_in_turn() {
    assert!(
        Command::new("fio").arg("--version").output().is_ok(),
        "fio is not installed: apt-get install fio"
    );
    let dir = made();
    let load =
        ["--workload", "randwrite", "--depth", "32", "--objects", "2", "--runtime", "100ms", "--rounds", "2"];
    let output =
        cairn(dir.path(), &[&["bench", "disk", "--beside-fio", "--format", "json"], &load[..]].concat());
    let report = json(&output);
    let rows = report["rows"].as_array().unwrap();
    let who: Vec<&str> = rows.iter().map(|row| row["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["store", "fio", "fio", "store", "fio", "fio"]);
    assert!(rows.iter().all(|row| row["iops"].as_f64().unwrap() > 0.0), "{report}");
    let [ratio] = &report["ratios"].as_array().unwrap()[..] else { panic!("{report}") };
    let number = |name: &str| ratio[name].as_f64().unwrap();
    assert!((number("ratio") - number("store") / number("fio")).abs() < 1e-9, "{ratio}");
    assert_eq!(number("goal"), 0.6);
    assert_eq!(ratio["is_reached"], number("ratio") >= 0.6);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["disk"], "fio's file is gone");
}

#[test]
fn dump_tells_where_everything_is() {
    let dir = used();
    let dump = json(&cairn(dir.path(), &["dump", "disk", "--format", "json"]));
    let objects = dump["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 3);
    assert!(objects.iter().all(|object| object["blocks"] == 1024 && object["size"] == 4 << 20), "{dump}");
    assert_eq!(dump["collections"].as_array().unwrap().len(), 32);
    assert_eq!(dump["superblock"]["device_bytes"], 64 << 20);
    assert_eq!(dump["checkpoint"]["objects"], 3);
    assert!(dump["log"].as_array().unwrap().is_empty(), "closed with a checkpoint");
    let free = &dump["free_space"];
    assert_eq!(free["blocks"].as_u64().unwrap() - free["free_blocks"].as_u64().unwrap(), 3 * 1024);

    let (full, short) = (objects[0]["object"].as_str().unwrap(), "rbd_data.bench.0000000000000001");
    let one =
        json(&cairn(dir.path(), &["dump", "disk", "--object", full, "--object", short, "--format", "json"]));
    let [first, second] = &one["objects"].as_array().unwrap()[..] else { panic!("{one}") };
    assert_eq!((&first["object"], &first["pg"]), (&objects[0]["object"], &objects[0]["pg"]));
    assert!(second["object"].as_str().unwrap().ends_with(short), "{second}");
    let extents = second["extents"].as_array().unwrap();
    assert_eq!(extents.iter().map(|extent| extent["crcs"].as_array().unwrap().len()).sum::<usize>(), 1024);

    let text = cairn(dir.path(), &["dump", "disk"]);
    for part in ["superblock", "checkpoint", "log since", "collection -1.", full, "free space: "] {
        assert!(stdout(&text).contains(part), "no {part} in\n{}", stdout(&text));
    }
    assert!(stdout(&cairn(dir.path(), &["dump", "disk", "--object", short])).contains("1024 blocks in"));
    refused(&cairn(dir.path(), &["dump", "disk", "--object", "nix"]), 1, "disk has no object 'nix'");
}

#[test]
fn a_damaged_block_is_found_by_a_deep_check() {
    let dir = used();
    let report = fsck(dir.path(), &["--deep"], 0);
    assert_eq!((&report["objects"], &report["used_bytes"]), (&3.into(), &(12 << 20).into()));
    assert_eq!(report["verified_bytes"], 12 << 20);
    let name = "rbd_data.bench.0000000000000002";
    let object = json(&cairn(dir.path(), &["dump", "disk", "--object", name, "--format", "json"]));
    let extent = &object["objects"][0]["extents"][0];
    let place = extent["device_offset"].as_u64().unwrap() + 4096 + 17;
    let mut byte = [0];
    disk(dir.path()).read_exact_at(&mut byte, place).unwrap();
    disk(dir.path()).write_all_at(&[byte[0] ^ 1], place).unwrap();

    assert_eq!(fsck(dir.path(), &[], 0)["verified_bytes"], 0, "data is not read unless asked for");
    // Not mended either: only another OSD has what it was.
    for options in [&["--deep"][..], &["--deep", "--repair"]] {
        let report = fsck(dir.path(), options, 4);
        let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("{report}") };
        let said = finding["text"].as_str().unwrap();
        let offset = extent["offset"].as_u64().unwrap() + 4096;
        let parts = [name, &format!("byte {offset}"), &format!("device offset {}", place - 17)];
        assert!(parts.iter().all(|part| said.contains(part)), "{said:?} does not say {parts:?}");
        assert_eq!((&finding["repairable"], &report["repaired"]), (&false.into(), &Value::Array(Vec::new())));
    }
    let text = cairn(dir.path(), &["fsck", "disk", "--deep"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(name) && text.contains("1 ERRORS LEFT"), "{text}");
}

#[test]
fn a_repair_mends_what_can_be_mended_and_says_so_once() {
    let dir = used();
    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    for copy in info["superblock"]["copies"].as_array().unwrap() {
        let offset = copy.as_u64().unwrap();
        disk(dir.path()).write_all_at(&[0x5a; 4096], offset).unwrap();
        let report = fsck(dir.path(), &[], 4);
        let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("{report}") };
        assert!(finding["text"].as_str().unwrap().contains("superblock"), "{finding}");
        assert_eq!(finding["repairable"], true);
        let again = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
        assert_eq!(again["superblock"], info["superblock"], "the other copy serves");
        assert_eq!(fsck(dir.path(), &["--repair"], 1)["repaired"].as_array().unwrap().len(), 1);
        fsck(dir.path(), &["--deep", "--repair"], 0);
    }
}

/// Changes the free map in the index: a set bit is a block in use, by `docs/format/store.md`.
fn change_free_map(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    const BITMAP: redb::TableDefinition<'_, u32, &[u8]> = redb::TableDefinition::new("bitmap");
    let info = json(&cairn(dir, &["info", "disk", "--format", "json"]));
    let field = |name: &str| info["superblock"][name].as_u64().unwrap();
    let medium = FileMedium::open(&dir.join("disk"), Access::ReadWrite).unwrap();
    let region = CheckedRegion::open(medium, field("index_offset"), field("index_bytes")).unwrap();
    let index = redb::Database::builder().create_with_backend(region).unwrap();
    let transaction = index.begin_write().unwrap();
    {
        let mut table = transaction.open_table(BITMAP).unwrap();
        let mut first = table.get(0).unwrap().unwrap().value().to_vec();
        change(&mut first);
        table.insert(0, &first[..]).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_wrong_free_map_is_found_and_mended() {
    let dir = used();
    let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
    let data_offset = info["superblock"]["data_offset"].as_u64().unwrap();
    let used_bytes = info["space"]["used_bytes"].clone();
    let dump = json(&cairn(
        dir.path(),
        &["dump", "disk", "--object", "rbd_data.bench.0000000000000000", "--format", "json"],
    ));
    let used_offset = dump["objects"][0]["extents"][0]["device_offset"].as_u64().unwrap();
    let unit = (used_offset - data_offset) / 4096;
    // Three objects take 3072 blocks from the start: block 12000 and the three behind it are free.
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let leak = |map: &mut Vec<u8>| map[1500] |= 0x0f;
    let lose = |map: &mut Vec<u8>| map[(unit / 8) as usize] &= !(1 << (unit % 8));
    let leaked = format!("4 block(s) at device offset {} are marked as used", data_offset + 12000 * 4096);
    let lost =
        format!("has 1 block(s) from byte 0 at device offset {used_offset} that the free map has as free");
    let cases: [(Change, String); 2] = [(&leak, leaked), (&lose, lost)];
    for (change, says) in cases {
        change_free_map(dir.path(), change);
        let report = fsck(dir.path(), &[], 4);
        let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("{report}") };
        assert!(finding["text"].as_str().unwrap().contains(&says), "{finding} does not say {says:?}");
        assert_eq!(finding["repairable"], true);
        let text = String::from_utf8(cairn(dir.path(), &["fsck", "disk"]).stdout).unwrap();
        assert!(text.contains("(--repair mends it)"), "{text}");
        let report = fsck(dir.path(), &["--repair"], 1);
        assert!(report["repaired"][0].as_str().unwrap().contains(&says), "{report}");
        fsck(dir.path(), &["--deep"], 0);
        let info = json(&cairn(dir.path(), &["info", "disk", "--format", "json"]));
        assert_eq!(info["space"]["used_bytes"], used_bytes);
    }
}

#[test]
fn what_another_has_open_is_left_alone() {
    let dir = used();
    let all = |code_of_info: i32, says: &str| {
        for (arguments, code) in [
            (&["info", "disk"][..], code_of_info),
            (&["dump", "disk"], code_of_info),
            (&["fsck", "disk"], if code_of_info == 0 { 0 } else { 8 }),
            (&["fsck", "disk", "--repair"], 8),
            (&["bench", "disk"], 1),
            (&["create", "disk", "--force"], 1),
        ] {
            let output = cairn(dir.path(), arguments);
            match code {
                0 => drop(stdout(&output)),
                code => refused(&output, code, says),
            }
        }
    };
    let owner = FileMedium::open(&dir.path().join("disk"), Access::ReadWrite).unwrap();
    all(1, "disk is in use by another process; stop that process first");
    drop(owner);
    let reader = FileMedium::open(&dir.path().join("disk"), Access::ReadOnly).unwrap();
    all(0, "disk is in use by another process; stop that process first");
    drop(reader);
    fsck(dir.path(), &["--deep"], 0);
}

#[test]
fn what_is_no_store_is_told_from_what_is_a_part_of_one() {
    let dir = used();
    let all = |says: &str| {
        for (arguments, code) in [
            (&["info", "disk"][..], 1),
            (&["dump", "disk"], 1),
            (&["fsck", "disk"], 8),
            (&["bench", "disk"], 1),
        ] {
            refused(&cairn(dir.path(), arguments), code, says);
        }
    };
    disk(dir.path()).set_len(32 << 20).unwrap();
    all("disk: the store was made on 67108864 bytes but the device has 33554432: it was truncated");
    refused(&cairn(dir.path(), &["create", "disk"]), 1, "--force");
    std::fs::write(dir.path().join("disk"), vec![b'x'; 1 << 20]).unwrap();
    all("disk: this is not a cairn store");
    File::create(dir.path().join("disk")).unwrap();
    all("disk: this is not a cairn store");
    std::fs::remove_file(dir.path().join("disk")).unwrap();
    all("disk does not exist: make a store there with `cairn store create`");
}
