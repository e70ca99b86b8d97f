//! The core stays a core: its sources touch no clock, no chance, no hash order, no runtime, no I/O.

use std::path::{Path, PathBuf};

const FOREIGN: [&str; 8] =
    ["HashMap", "HashSet", "SystemTime", "Instant", "std::fs", "std::thread", "cairn_net", "tokio"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).chain(below).collect()
}

#[test]
fn the_sources_touch_nothing_outside() {
    for folder in ["src/core", "src/object"] {
        let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        assert!(sources.len() >= 8, "{sources:?}");
        for path in sources {
            let text = std::fs::read_to_string(&path).expect("text");
            for word in FOREIGN {
                assert!(!text.contains(word), "{} mentions {word}", path.display());
            }
        }
    }
}
