//! The commands that need a cluster, without one or with one that makes no sense: one sentence with what to do,
//! and an exit code that scripts can trust.

use std::path::Path;
use std::process::{Command, Output};

fn cairn(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.args(arguments).current_dir(dir).env_remove("CAIRN_CONF").output().unwrap()
}

/// Fails with exit code 1 and one sentence that says this.
#[track_caller]
fn refused(output: &Output, says: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("cairn: ") && error.lines().count() == 1 && error.contains(says), "{error}");
    assert!(output.stdout.is_empty());
}

/// Every command that asks the monitors.
const ASKING: [&[&str]; 34] = [
    &["status"],
    &["health"],
    &["watch"],
    &["mon", "ls"],
    &["mon", "rm", "a"],
    &["osd", "ls"],
    &["osd", "tree"],
    &["osd", "df"],
    &["osd", "out", "0"],
    &["osd", "in", "osd.0"],
    &["osd", "down", "0", "1"],
    &["osd", "destroy", "0", "--yes"],
    &["osd", "reweight", "0", "0.5"],
    &["pg", "ls"],
    &["pg", "show", "1.0"],
    &["pool", "create", "p"],
    &["pool", "ls"],
    &["pool", "show", "p"],
    &["pool", "set", "p", "size", "3"],
    &["pool", "rm", "p", "--confirm", "p"],
    &["--format", "json", "status"],
    &["image", "create", "vms/a", "--size", "1GiB"],
    &["image", "ls", "vms"],
    &["image", "info", "vms/a"],
    &["image", "resize", "vms/a", "--size", "2GiB"],
    &["image", "rm", "vms/a"],
    &["image", "export", "vms/a", "copy"],
    &["object", "get", "vms", "a"],
    &["object", "stat", "vms", "a"],
    &["object", "ls", "vms"],
    &["object", "rm", "vms", "a"],
    &["nbd", "serve", "vms/a", "--socket", "s"],
    &["bench", "write", "vms"],
    &["bench", "image", "vms/a"],
];

#[test]
fn without_a_cluster_every_command_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in ASKING {
        refused(&cairn(dir.path(), arguments), "neither .cairn/cairn.toml nor /etc/cairn/cairn.toml exists");
    }
}

#[test]
fn a_configuration_that_does_not_parse_is_named_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "version = 1\nfsid = 7\n").unwrap();
    for arguments in ASKING {
        let output = cairn(dir.path(), &[arguments, &["--conf", "c.toml"]].concat());
        refused(&output, "c.toml, line 2, column 8: ");
    }
    refused(&cairn(dir.path(), &["status", "--conf", "none.toml"]), "none.toml does not exist");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["osd", "out"][..],
        &["osd", "out", "first"],
        &["osd", "reweight", "0", "1.5"],
        &["pg", "show", "one"],
        &["mon", "rm", "a b"],
        &["status", "--format", "xml"],
        &["dev", "kill", "first"],
        &["frobnicate"],
        &["image", "create", "disk1", "--size", "1GiB"],
        &["image", "create", "vms/a"],
        &["image", "create", "vms/a", "--size", "much"],
        &["nbd", "serve", "vms/a"],
        &["nbd", "serve", "vms/a", "--socket", "s", "--listen", "127.0.0.1:1"],
        &["bench", "write", "vms", "--depth", "0"],
        &["up", "--mons", "0"],
    ] {
        let output = cairn(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    refused(&cairn(dir.path(), &["osd", "destroy", "0"]), "say --yes if that is meant");
    refused(&cairn(dir.path(), &["pool", "rm", "vms"]), "say --confirm vms if that is meant");
    refused(&cairn(dir.path(), &["pool", "set", "vms", "colour", "red"]), "no setting 'colour'");
}

#[test]
fn up_makes_nothing_where_something_else_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("full")).unwrap();
    std::fs::write(dir.path().join("full/file"), "mine").unwrap();
    refused(&cairn(dir.path(), &["up", "--dir", "full"]), "full is not empty and holds no cluster");
    std::fs::create_dir(dir.path().join(".cairn.new")).unwrap();
    refused(&cairn(dir.path(), &["up"]), ".cairn.new is half made: its creation was interrupted");
    refused(&cairn(dir.path(), &["up", "--dir", "none/cluster"]), "cannot make none/cluster.new");
    assert!(!dir.path().join(".cairn").exists());
}

#[test]
fn processes_of_a_directory_without_a_cluster_are_not_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    refused(&cairn(dir.path(), &["down"]), ".cairn holds no cluster: start one with `cairn up`");
    for what in ["start", "stop", "kill", "pause", "resume"] {
        refused(&cairn(dir.path(), &["dev", what, "osd.0", "--dir", "x"]), "x holds no cluster");
    }
}
