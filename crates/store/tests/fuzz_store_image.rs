//! A bounded run of the fuzz target `store_image`'s body, for every test run. The long runs are `fuzz/`'s.

#[path = "../../../fuzz/bodies/store_image.rs"]
mod store_image;

use cairn_store::device::sim::SplitMix64;

/// Inputs in one run. `CAIRN_FUZZ_IMAGES` sets another number, `CAIRN_FUZZ_FIRST` where to begin.
const IMAGES: u64 = 1_500;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Half of the inputs have damage only that no checksum covers up; the rest have forged superblocks and records
/// too. Forged entries of the index are left to the long runs: a commit of the index each.
#[test]
fn a_damaged_image_is_an_error_or_a_state_of_its_history() {
    let first = setting("CAIRN_FUZZ_FIRST", 0);
    let mut failed = Vec::new();
    for seed in first..first + setting("CAIRN_FUZZ_IMAGES", IMAGES) {
        let mut rng = SplitMix64::new(seed);
        let most = if rng.one_in(4) { 12 } else { 2 };
        let steps = 1 + rng.below(most);
        let mut input: Vec<u8> = (0..8 * steps).map(|_| rng.next_u64() as u8).collect();
        let kinds = if seed.is_multiple_of(2) { 8 } else { 12 };
        input.iter_mut().step_by(8).for_each(|kind| *kind %= kinds);
        if std::panic::catch_unwind(|| store_image::torture(&input)).is_err() {
            eprintln!("input {seed}: {input:02x?}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
