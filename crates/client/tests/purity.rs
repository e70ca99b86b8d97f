//! The core stays a core: its sources touch no clock, no chance, no hash order, no runtime, no I/O.

use std::path::Path;

const FOREIGN: [&str; 9] = [
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::thread",
    "cairn_net",
    "tokio",
];

#[test]
fn the_sources_of_the_core_touch_nothing_outside() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "rs")).collect();
    assert!(sources.len() >= 8, "{sources:?}");
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in FOREIGN {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
}
