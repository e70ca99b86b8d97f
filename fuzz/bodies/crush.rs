//! What the CRUSH fuzz targets do with one input. Shared with `crates/crush/tests/fuzz_smoke.rs`.

// Each target uses one of the two.
#![allow(dead_code)]

use cairn_crush::{CrushMap, binary, text};

/// A text that compiles must survive encoding, and its decompiled form must be a text for the same hierarchy.
pub fn text(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(map) = text::compile(source) else { return };
    let encoded = binary::encode(&map).expect("a compiled map can be encoded");
    assert_eq!(binary::decode(&encoded).as_ref(), Ok(&fitted(&map)), "a compiled map reads back as it was");
    let decompiled = text::decompile(&map).expect("a compiled map can be decompiled");
    let again = text::compile(&decompiled).expect("a decompiled map compiles");
    assert_eq!(again.item_names, map.item_names);
    assert_eq!(again.rules, map.rules);
    let items =
        |map: &CrushMap| map.buckets.iter().flatten().map(|bucket| bucket.items.clone()).collect::<Vec<_>>();
    assert_eq!(items(&again), items(&map));
}

/// Bytes that decode must encode to a form that decodes to the same map.
pub fn binary(bytes: &[u8]) {
    let Ok(map) = binary::decode(bytes) else { return };
    let encoded = binary::encode(&map).expect("a decoded map can be encoded");
    assert_eq!(binary::decode(&encoded).as_ref(), Ok(&map), "a decoded map reads back as it was");
    // Maps that make no sense are refused with an error, not a panic.
    let _ = text::decompile(&map);
}

/// The map as the decoder gives it: choose-args of buckets that are not straw2 are dropped.
fn fitted(map: &CrushMap) -> CrushMap {
    let mut map = map.clone();
    for args in map.choose_args.values_mut() {
        args.retain(|id, _| {
            let bucket = map.buckets[(-1 - id) as usize].as_ref();
            bucket.is_some_and(|bucket| bucket.algorithm == cairn_crush::Algorithm::Straw2)
        });
    }
    map
}
