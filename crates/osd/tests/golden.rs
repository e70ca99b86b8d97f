//! The recorded bytes of every kind of message between OSDs.
//!
//! A message's form may only change with its version. `CAIRN_GOLDEN=write` records what is missing; it
//! never overwrites: a recorded form is what released code speaks.

use cairn_osd::message::KINDS;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// 16 bytes a line, so that a change shows as a small diff.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let line: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "{}", line.join(" ")).unwrap();
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

fn compare(name: &str, bytes: &[u8]) {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var("CAIRN_GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; record a new form with CAIRN_GOLDEN=write", path.display())
    });
    assert_eq!(hex(bytes), recorded, "{name} does not encode as recorded: raise its version instead");
}

#[test]
fn every_kind_encodes_as_recorded() {
    for entry in KINDS {
        let bytes = (entry.sample)();
        assert_eq!(bytes[..2], [entry.version, entry.oldest_reader], "{}", entry.name);
        compare(&format!("message-{:05}-{}.v{}", entry.kind.0, entry.name, entry.version), &bytes);
    }
}

/// What was ever recorded can still be read, unless its reader was dropped on purpose (the file goes with it).
#[test]
fn every_recorded_form_is_read() {
    let mut kinds = BTreeSet::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let Some(number) = stem.strip_prefix("message-").and_then(|s| s.get(..5)) else { continue };
        let number: u16 = number.parse().unwrap();
        let entry = KINDS.iter().find(|e| e.kind.0 == number).unwrap_or_else(|| {
            panic!("{stem} is recorded but kind {number} is not in the registry; numbers are never dropped")
        });
        let bytes = unhex(&std::fs::read_to_string(&path).unwrap());
        (entry.round_trip)(&bytes).unwrap_or_else(|error| panic!("{stem}: {error}"));
        kinds.insert(number);
    }
    assert_eq!(kinds.len(), KINDS.len(), "every kind has a recorded form");
}
