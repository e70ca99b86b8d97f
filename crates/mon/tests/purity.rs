//! The cores stay cores: their sources touch no clock, no chance, no hash order, no I/O. Only the drivers do: `daemon`
//! (but not its door), `session/client.rs` and `clock.rs`.

use std::path::{Path, PathBuf};

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    for entry in std::fs::read_dir(path).expect("a folder") {
        sources(&entry.expect("an entry").path(), found);
    }
}

#[test]
fn the_sources_touch_no_clock_and_no_hash_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for pure in ["service", "monitor", "session/core", "session/mod.rs", "message.rs", "daemon/door.rs"] {
        sources(&root.join(pure), &mut found);
    }
    for path in &found {
        // An address is plain data.
        let text = std::fs::read_to_string(path).expect("a source file").replace("std::net::SocketAddr", "");
        for word in [
            "HashMap",
            "HashSet",
            "SystemTime",
            "Instant",
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "tokio",
            "cairn_net",
            "crate::clock",
        ] {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
    assert!(found.len() > 35);
}
