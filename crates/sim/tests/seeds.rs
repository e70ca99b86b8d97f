//! Seeds that must hold, and that a seed is one story.

use sim::run::{Options, plan_of, run, run_plan};
use sim::shape::Profile;
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// See `docs/reliability.md`.
const ONCE_FAILED: [(Profile, u64); 10] = [
    (Profile::Heavy, 11),
    (Profile::Heavy, 33),
    (Profile::Heavy, 100),
    (Profile::Heavy, 487),
    (Profile::Heavy, 100_261),
    (Profile::Narrow, 2),
    (Profile::Images, 7),
    (Profile::Images, 97),
    (Profile::Monitors, 329),
    (Profile::Monitors, 563),
];

const LIGHT: Options = Options { profile: Profile::Light, canary: None };

fn log_of(seed: u64) -> (String, u64) {
    let log: Rc<RefCell<String>> = Rc::default();
    let kept = log.clone();
    let listener = Box::new(move |line: &str| {
        let mut log = kept.borrow_mut();
        log.push_str(line);
        log.push('\n');
    });
    let outcome = run_plan(seed, LIGHT, plan_of(seed, LIGHT), Some(listener));
    (log.take(), outcome.figures.digest)
}

#[test]
fn the_same_seed_gives_the_same_log_to_the_byte() {
    let (first, second) = (log_of(8), log_of(8));
    assert!(first.0.lines().count() > 10_000, "something has to happen");
    assert!(first == second);
    assert_ne!(log_of(9).1, first.1);
    // Listening changes nothing.
    assert_eq!(run(8, LIGHT).figures.digest, first.1);
}

/// Runs seeds until one fails.
fn hold(seeds: RangeInclusive<u64>, profile: Profile) {
    let (mut operations, mut faults) = (0, 0);
    for seed in seeds.clone() {
        let outcome = run(seed, Options { profile, canary: None });
        if let Some(failure) = outcome.failure {
            panic!("cargo run --release -p sim -- --profile {profile} --seed {seed}: {failure}");
        }
        operations += outcome.figures.operations;
        faults += outcome.figures.faults.values().sum::<u64>();
    }
    let count = seeds.end() - seeds.start() + 1;
    if count < 50 {
        return;
    }
    assert!(
        operations > 100 * count,
        "{operations} operations in {count} seeds are too few to tell anything"
    );
    assert!(faults > count, "{faults} faults in {count} seeds are too few to tell anything");
}

#[test]
fn light_seeds_hold() {
    hold(1..=100, Profile::Light);
}

/// Monitors that come, go and die between two messages.
#[test]
fn seeds_of_monitors_hold() {
    hold(1..=150, Profile::Monitors);
}

#[test]
fn image_seeds_hold() {
    hold(1..=60, Profile::Images);
}

/// Stores that get full, and copies that have less room than their primary.
#[test]
fn full_seeds_hold() {
    hold(1..=60, Profile::Full);
}

/// 500 seeds of the heavy profile, in parts that run side by side.
macro_rules! heavy {
    ($($name:ident: $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() {
                hold($seeds, Profile::Heavy);
            }
        )*
    };
}

heavy! {
    heavy_seeds_hold_to_125: 1..=125;
    heavy_seeds_hold_to_250: 126..=250;
    heavy_seeds_hold_to_375: 251..=375;
    heavy_seeds_hold_to_500: 376..=500;
}

/// Seeds of before that showed a bug; `docs/reliability.md` says which.
#[test]
fn seeds_that_once_failed_hold() {
    for (profile, seed) in ONCE_FAILED {
        hold(seed..=seed, profile);
    }
}
