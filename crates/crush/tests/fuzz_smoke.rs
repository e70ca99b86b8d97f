//! A bounded run of the fuzz targets' bodies over mutated seeds, for every test run. The long runs are
//! `fuzz/`'s.

#[path = "../../../fuzz/bodies/crush.rs"]
mod crush;
#[path = "support/random_text.rs"]
mod random_text;

use random_text::{Random, random_text};
use std::path::Path;

/// Mutants of each target in one run. `CAIRN_FUZZ_ITERATIONS` sets another number.
const ITERATIONS: u64 = 30_000;

/// Maps are kept small, so that an iteration takes microseconds.
const MAX_MUTANT_BYTES: usize = 16 << 10;

fn seeds(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| extension.is_empty() || path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One to eight changes: bytes and words replaced, pieces cut, copied and taken from another seed.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + random.below(8) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len() as u64) as usize;
        let end = (at + 1 + random.below(32) as usize).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => {
                let word = [0_u32, 1, 0xff, 0xffff, 0x10000, 0x7fff_ffff, u32::MAX][random.below(7) as usize];
                for (byte, value) in bytes[at..].iter_mut().zip(word.to_le_bytes()) {
                    *byte = value;
                }
            }
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                let target = random.below(bytes.len() as u64) as usize;
                bytes.splice(target..target, piece);
            }
            5 if !other.is_empty() => {
                let from = random.below(other.len() as u64) as usize;
                let piece = other[from..(from + 32).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at + 1),
        }
    }
    bytes.truncate(MAX_MUTANT_BYTES);
}

fn run(seed: u64, seeds: &[Vec<u8>], body: impl Fn(&[u8])) {
    let iterations =
        std::env::var("CAIRN_FUZZ_ITERATIONS").map_or(ITERATIONS, |number| number.parse().unwrap());
    println!("seed {seed}, {iterations} iterations over {} seeds", seeds.len());
    let mut random = Random(seed);
    for original in seeds {
        body(original);
    }
    for iteration in 0..iterations {
        let pick = |random: &mut Random| &seeds[random.below(seeds.len() as u64) as usize];
        let mut bytes = pick(&mut random).clone();
        let other = pick(&mut random).clone();
        mutate(&mut random, &mut bytes, &other);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&bytes)));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}, iteration {iteration}: {}", bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn mutated_text_maps_do_no_harm() {
    let mut texts = seeds("tests/data/text", "txt");
    texts.extend(seeds("../../fuzz/seeds/crush_text", ""));
    texts.extend((100..110).map(|seed| random_text(seed).into_bytes()));
    run(0x7e87, &texts, crush::text);
}

#[test]
fn mutated_binary_maps_do_no_harm() {
    let mut maps = seeds("tests/data/text", "bin");
    maps.extend(seeds("tests/data/binary", "bin"));
    maps.extend(seeds("../../fuzz/seeds/crush_binary", ""));
    run(0xb17, &maps, crush::binary);
}
