//! Ceph's own tools, where they are installed.

// Each test uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own and the tool.
pub struct CrushTool {
    dir: tempfile::TempDir,
}

impl CrushTool {
    /// The installed tool, or a word on stderr that the comparison is left out.
    pub fn find() -> Option<Self> {
        if Command::new("crushtool").arg("--help").output().is_err() {
            eprintln!("left out: crushtool is not installed (Debian package ceph-base)");
            return None;
        }
        Some(CrushTool { dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the tool in the directory.
    pub fn run(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        Command::new("crushtool").args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    /// Writes a file of the directory.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Reads a file of the directory.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        read(&self.path(name))
    }

    /// What `crushtool -c` makes of a text, or what it says against it.
    pub fn compile(&self, text: &str) -> Result<Vec<u8>, String> {
        self.write("map.txt", text.as_bytes());
        let _ = std::fs::remove_file(self.path("map.bin"));
        let output = self.run(&["-c", "map.txt", "-o", "map.bin"]);
        read(&self.path("map.bin")).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What `crushtool -d` makes of a binary map.
    pub fn decompile(&self, bytes: &[u8]) -> String {
        self.write("map.bin", bytes);
        let output = self.run(&["-d", "map.bin"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}
