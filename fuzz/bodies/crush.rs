//! What the CRUSH fuzz targets do with one input. Shared with `crates/crush/tests/fuzz_smoke.rs`.

// Each target uses one of the two.
#![allow(dead_code)]

use cairn_crush::{CrushMap, Placer, Scratch, Step, binary, text};
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

/// Two mappings of some rules of a map whose hierarchy holds.
fn mappings_end(map: &CrushMap) {
    let Ok(placer) = Placer::new(&tamed(map)) else { return };
    let weights = vec![Weight::ONE; usize::try_from(map.max_devices).unwrap_or(0)];
    let mut scratch = Scratch::new();
    for rule in 0..map.rules.len() {
        for x in 0..2 {
            let result = placer.place(rule, x, 3, &weights, placer.choose_args(0), &mut scratch);
            assert!(result.len() <= 3);
        }
    }
}

/// The map with few tries, choices, steps and rules. A mapping ends because each of these is finite, but a map may ask
/// for 2^31 of them and nest them; the fuzzer has no such patience.
fn tamed(map: &CrushMap) -> CrushMap {
    const TRIES: u32 = 3;
    let mut map = map.clone();
    let tunables = &mut map.tunables;
    for tries in [
        &mut tunables.choose_local_tries,
        &mut tunables.choose_local_fallback_tries,
        &mut tunables.choose_total_tries,
    ] {
        *tries = (*tries).min(TRIES);
    }
    map.rules.truncate(3);
    for rule in map.rules.iter_mut().flatten() {
        rule.steps.truncate(12);
        for step in &mut rule.steps {
            match step {
                Step::SetChooseTries(value)
                | Step::SetChooseleafTries(value)
                | Step::SetChooseLocalTries(value)
                | Step::SetChooseLocalFallbackTries(value) => *value = (*value).min(TRIES as i32),
                Step::ChooseFirstn { num, .. }
                | Step::ChooseIndep { num, .. }
                | Step::ChooseleafFirstn { num, .. }
                | Step::ChooseleafIndep { num, .. } => *num = (*num).min(4),
                Step::Noop
                | Step::Take(_)
                | Step::Emit
                | Step::SetChooseleafVaryR(_)
                | Step::SetChooseleafStable(_) => {}
            }
        }
    }
    map
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
