//! Ceph's `osdmaptool`, where it is installed.

use cairn_types::PgId;
use std::collections::BTreeMap;
use std::process::Command;

/// A directory of its own and the tool.
pub struct OsdMapTool {
    dir: tempfile::TempDir,
}

impl OsdMapTool {
    /// The installed tool, or a word on stderr that the comparison is left out.
    pub fn find() -> Option<Self> {
        if Command::new("osdmaptool").arg("--help").output().is_err() {
            eprintln!("left out: osdmaptool is not installed (Debian package ceph-base)");
            return None;
        }
        Some(OsdMapTool { dir: tempfile::tempdir().unwrap() })
    }

    /// Writes a file of the directory.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    /// Runs the tool in the directory; returns what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("osdmaptool").args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The pairs of `ceph osd pg-upmap-items PG FROM TO [FROM TO]...` commands.
pub fn upmap_items(commands: &str) -> BTreeMap<PgId, Vec<(i32, i32)>> {
    let mut items = BTreeMap::new();
    for line in commands.lines() {
        let Some(rest) = line.strip_prefix("ceph osd pg-upmap-items ") else { continue };
        let (pg, osds) = rest.split_once(' ').unwrap();
        let osds: Vec<i32> = osds.split_whitespace().map(|osd| osd.parse().unwrap()).collect();
        items.insert(pg.parse().unwrap(), osds.chunks(2).map(|pair| (pair[0], pair[1])).collect());
    }
    items
}
