//! What the CRUSH fuzz targets do with one input. Shared with `crates/crush/tests/fuzz_smoke.rs`.

// Each target uses one of the two.
#![allow(dead_code)]

use cairn_crush::{CrushMap, NO_ITEM, Placer, Scratch, binary, text};
use cairn_types::Weight;

/// A text that compiles must survive encoding, and its decompiled form must be a text for the same hierarchy.
pub fn text(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(map) = text::compile(source) else { return };
    let encoded = binary::encode(&map).expect("a compiled map can be encoded");
    assert_eq!(binary::decode(&encoded).as_ref(), Ok(&fitted(&map)), "a compiled map reads back as it was");
    let decompiled = text::decompile(&map).expect("a compiled map can be decompiled");
    let again = match text::compile(&decompiled) {
        Ok(again) => again,
        // crushtool prints weights from 32768 on as negative numbers, and so do we.
        Err(error) => {
            assert!(matches!(error.reason, text::Reason::NegativeWeight(_)), "{error}");
            return;
        }
    };
    assert_eq!(again.item_names, map.item_names);
    assert_eq!(again.rules, map.rules);
    let items =
        |map: &CrushMap| map.buckets.iter().flatten().map(|bucket| bucket.items.clone()).collect::<Vec<_>>();
    assert_eq!(items(&again), items(&map));
    map.validate().expect("the compiler refuses what validation refuses");
    mappings_end(&map);
}

/// Bytes that decode must encode to a form that decodes to the same map.
pub fn binary(bytes: &[u8]) {
    let Ok(map) = binary::decode(bytes) else { return };
    let encoded = binary::encode(&map).expect("a decoded map can be encoded");
    assert_eq!(binary::decode(&encoded).as_ref(), Ok(&map), "a decoded map reads back as it was");
    // Maps that make no sense are refused with an error, not a panic.
    let _ = text::decompile(&map);
    mappings_end(&map);
}

/// Items a fuzzed mapping may look at. A map may ask for 2^31 tries and nest them; the fuzzer has no such patience.
const MAX_DRAWS: u32 = 20_000;

/// Two mappings by some rules of a map whose hierarchy holds, with and without choose-args.
fn mappings_end(map: &CrushMap) {
    let Ok(placer) = Placer::new(map) else { return };
    let placer = placer.with_max_draws(MAX_DRAWS);
    let weights = vec![Weight::ONE; usize::try_from(map.max_devices).unwrap_or(0)];
    let mut scratch = Scratch::new();
    let set = map.choose_args.keys().next().copied().unwrap_or(0);
    let rules = (0..map.rules.len()).filter(|&rule| map.rules[rule].is_some());
    for rule in rules.take(4) {
        for (x, choose_args) in [(0, None), (-1, placer.choose_args(set))] {
            let result = placer.place(rule, x, 3, &weights, choose_args, &mut scratch);
            assert!(result.len() <= 3);
            // A rule may emit buckets.
            assert!(result.iter().all(|&item| item == NO_ITEM || item < map.max_devices));
        }
    }
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
