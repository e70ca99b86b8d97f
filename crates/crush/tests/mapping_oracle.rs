//! Mappings against `crushtool --test --show-mappings`, over fresh random maps.
//!
//! `CAIRN_CRUSH_SEED=N` replays a run, which starts from the clock otherwise. `CAIRN_CRUSH_MAPPINGS=N` compares so many
//! mappings instead of [`MAPPINGS`]: the long mode is `CAIRN_CRUSH_MAPPINGS=100000000`.

#[path = "support/crushtool.rs"]
mod crushtool;
#[path = "support/mappings.rs"]
mod mappings;
#[path = "support/random_mapping.rs"]
#[allow(dead_code)]
mod random_mapping;
#[path = "support/random_text.rs"]
#[allow(dead_code)]
mod random_text;

use cairn_crush::{Placer, Scratch, binary};
use crushtool::CrushTool;
use random_mapping::random_job;

/// Mappings compared in one run, at least.
const MAPPINGS: u64 = 100_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

#[test]
fn mappings_are_crushtools() {
    let Some(tool) = CrushTool::find() else { return };
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let first_seed = number("CAIRN_CRUSH_SEED").unwrap_or(clock);
    let wanted = number("CAIRN_CRUSH_MAPPINGS").unwrap_or(MAPPINGS);
    println!("CAIRN_CRUSH_SEED={first_seed}");
    let (mut seed, mut compared) = (first_seed, 0);
    let mut scratch = Scratch::new();
    while compared < wanted {
        let job = random_job(seed, 2000);
        let bytes = tool.compile(&job.text).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let map = binary::decode(&bytes).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let placer = Placer::new(&map).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let output = tool.run(&job.arguments("map.bin"));
        assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).unwrap();
        let ours = mappings::report(&map, &placer, &job.options(), &mut scratch);
        if let Some(difference) = mappings::first_difference(&ours, &theirs) {
            panic!("CAIRN_CRUSH_SEED={seed} (ours, crushtool's): {difference:?}\n{}", job.text);
        }
        compared += theirs.lines().count() as u64;
        seed = seed.wrapping_add(1);
    }
    println!("{compared} mappings over {} maps", seed.wrapping_sub(first_seed));
}
