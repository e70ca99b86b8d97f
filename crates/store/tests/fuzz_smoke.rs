//! A bounded run of the fuzz targets' bodies, for every test run. The long runs are `fuzz/`'s.

#[path = "../../../fuzz/bodies/index_region.rs"]
mod index_region;
#[path = "../../../fuzz/bodies/store_format.rs"]
mod store_format;

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

#[test]
fn what_is_decoded_of_the_format_has_one_form() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/store_format");
    let mut paths: Vec<_> = std::fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for number in 0..10 * iterations() {
        let mut rng = SplitMix64::new(number);
        let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
        for _ in 0..rng.below(6) {
            let at = rng.below(input.len() as u64) as usize;
            match rng.below(5) {
                0 => input[at] ^= 1 << rng.below(8),
                1 => input[at] = [0, 1, 0x7f, 0xff][rng.below(4) as usize],
                2 => input.truncate(at + 1),
                3 => input.insert(at, rng.next_u64() as u8),
                _ => input.extend_from_slice(&seeds[rng.below(seeds.len() as u64) as usize]),
            }
        }
        let result = std::panic::catch_unwind(|| store_format::decode(&input));
        assert!(result.is_ok(), "input {number}: {input:02x?}");
    }
}
