//! The core stays a core: its manifest names no runtime, no source of chance, no I/O.

/// All that the library may depend on.
const ALLOWED: [&str; 3] = ["cairn-types", "serde", "thiserror"];

#[test]
fn the_manifest_lists_nothing_impure() {
    let manifest = include_str!("../Cargo.toml");
    let mut section = "";
    let mut seen = 0;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            let other = section.contains("dependencies")
                && section != "[dependencies]"
                && section != "[dev-dependencies]";
            assert!(!other, "dependencies in a table this test does not know: {section}");
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', ' ', '=']).next().unwrap_or(line);
            assert!(ALLOWED.contains(&name), "a pure core must not depend on {name}");
            seen += 1;
        }
    }
    assert_eq!(seen, ALLOWED.len(), "the manifest was not read as meant");
}

#[test]
fn the_sources_touch_no_clock_and_no_hash_order() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut read = 0;
    for entry in std::fs::read_dir(&sources).expect("the sources") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a source file");
        for word in
            ["HashMap", "HashSet", "SystemTime", "Instant", "std::fs", "std::net", "std::thread", "std::env"]
        {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
        read += 1;
    }
    assert!(read > 10);
}
