//! The core stays a core: its sources touch no clock, no chance, no hash order, no I/O.

use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_sources_touch_no_clock_and_no_hash_order() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for pure in ["service", "monitor"] {
        sources(&root.join(pure), &mut found);
    }
    for path in &found {
        let text = std::fs::read_to_string(path).expect("a source file");
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
        ] {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
    assert!(found.len() > 30);
}
