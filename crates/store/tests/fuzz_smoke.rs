//! A bounded run of the fuzz targets' bodies, for every test run. The long runs are `fuzz/`'s.

#[path = "../../../fuzz/bodies/index_region.rs"]
mod index_region;

use cairn_store::device::sim::SplitMix64;

/// Inputs of each target in one run. `CAIRN_FUZZ_ITERATIONS` sets another number.
const ITERATIONS: u64 = 5_000;

fn iterations() -> u64 {
    match std::env::var("CAIRN_FUZZ_ITERATIONS") {
        Ok(text) => text.parse().expect("CAIRN_FUZZ_ITERATIONS is a number"),
        Err(_) => ITERATIONS,
    }
}

#[test]
fn a_damaged_index_is_an_error_or_right() {
    for seed in 0..iterations() {
        let mut rng = SplitMix64::new(seed);
        let mut input: Vec<u8> = (0..6 * (1 + rng.below(4))).map(|_| rng.next_u64() as u8).collect();
        // One kind in eight by chance would be a rotten bit nearly always.
        input.iter_mut().step_by(6).for_each(|kind| *kind &= 0xc7);
        if rng.one_in(50) {
            input.push(0);
        }
        let result = std::panic::catch_unwind(|| index_region::damage(&input));
        assert!(result.is_ok(), "input {seed}: {input:02x?}");
    }
}
