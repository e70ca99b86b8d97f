//! Text and binary maps against those of `crushtool` 16.2.15, byte for byte: recorded ones always, and
//! fresh random ones where the tool is installed.

#[path = "support/crushtool.rs"]
mod crushtool;
#[path = "support/random_text.rs"]
mod random_text;

use cairn_crush::{binary, text};
use crushtool::CrushTool;
use random_text::random_text;

/// Fresh maps in one run of the test; `CAIRN_CRUSH_MAPS` sets another number.
const FRESH_MAPS: u64 = 150;

/// `text` compiles to `bytes`, which decompile to `decompiled`; both are crushtool's.
fn check(name: &str, source: &str, bytes: &[u8], decompiled: &str) {
    let map = text::compile(source).unwrap_or_else(|error| panic!("{name}: {error}"));
    let ours = binary::encode(&map).unwrap();
    assert!(ours == bytes, "{name}: the compiled maps differ");
    let read = binary::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read == map, "{name}: the map read back differs");
    let again = text::decompile(&map).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(again, decompiled, "{name}: the decompiled maps differ");
    // Three decimals lose weights; with all of them the text must compile to this very map, which is checked there.
    text::decompile_exact(&map).unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn recorded_maps_are_the_same_byte_for_byte() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/text");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let bytes = std::fs::read(path.with_extension("bin")).unwrap();
        let decompiled = std::fs::read_to_string(path.with_extension("decompiled")).unwrap();
        check(&path.display().to_string(), &source, &bytes, &decompiled);
        count += 1;
    }
    assert!(count >= 20, "only {count} recorded maps");
}

#[test]
fn fresh_random_maps_are_the_same_byte_for_byte() {
    let Some(tool) = CrushTool::find() else { return };
    let maps = std::env::var("CAIRN_CRUSH_MAPS").map_or(FRESH_MAPS, |maps| maps.parse().unwrap());
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seeds from {start}");
    for seed in start..start.wrapping_add(maps) {
        let source = random_text(seed);
        let bytes = tool.compile(&source).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        check(&format!("seed {seed}"), &source, &bytes, &tool.decompile(&bytes));
    }
}
