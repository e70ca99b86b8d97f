//! Deliberate bugs, each of which the simulation must find. One that is not found means that the
//! simulation or its checkers are blind there.

mod harness;
mod plan;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cairn_paxos::Canary;

/// Seeds within which each canary must be found.
const SEEDS: u64 = 2000;

#[test]
fn the_simulation_finds_every_canary() {
    // A canary may also trip an assertion of the core: that is found, too, and needs no noise.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        let found = (1..=SEEDS).find_map(|seed| {
            let run = catch_unwind(AssertUnwindSafe(|| plan::run(seed, Some(canary), false).failure));
            run.unwrap_or_else(|_| Some("an assertion of the core".into())).map(|what| (seed, what))
        });
        match found {
            Some((seed, what)) => {
                let what: String = what.chars().take(140).collect();
                eprintln!("{canary:?}: seed {seed}: {what}");
            }
            None => missed.push(canary),
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
