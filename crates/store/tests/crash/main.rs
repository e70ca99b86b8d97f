//! Power cuts at every write and flush boundary of random workloads, and proof that the test sees
//! what it should: each protection left out is caught.

mod engine;
mod harness;
mod journal;
#[path = "../support/model.rs"]
mod model;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_store::Canary;
use engine::Store;
use harness::{Effort, Failure, Subject, torture};
use journal::{Flaw, Journal};

const EFFORT: Effort = Effort { transactions: 16, fsck_one_in: 4, again_one_in: 200 };
/// Enough of them to go around the log.
const LONG: Effort = Effort { transactions: 96, ..EFFORT };

/// Runs workloads, a seed each, on every processor until so many crash points were opened.
fn crash_points<S: Subject>(
    subject: &S,
    wanted: u64,
    first_seed: u64,
    effort: Effort,
) -> Result<u64, Failure> {
    let (points, next_seed, stop) = (AtomicU64::new(0), AtomicU64::new(first_seed), AtomicBool::new(false));
    let work = || {
        while points.load(Ordering::Relaxed) < wanted && !stop.load(Ordering::Relaxed) {
            let seed = next_seed.fetch_add(1, Ordering::Relaxed);
            let result = torture(subject, seed, effort, &points);
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
                return result;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(work))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("worker"))
    })?;
    Ok(points.into_inner())
}

#[test]
fn a_journal_that_is_right_passes() {
    let points = crash_points(&Journal::new(Flaw::None), 5_000, 1, EFFORT)
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(points >= 5_000);
}

#[test]
fn a_journal_without_any_one_protection_is_caught() {
    for flaw in [
        Flaw::FlushLeftOut,
        Flaw::RecordBeforeData,
        Flaw::NoChecksum,
        Flaw::EarlyAcknowledgement,
        Flaw::LyingFlush,
    ] {
        let failure = crash_points(&Journal::new(flaw), 5_000, 1, EFFORT).expect_err("caught");
        eprintln!("{flaw:?}: {failure}");
    }
}

/// Crash points of one run; `CAIRN_CRASH_POINTS` sets another number (the long mode is 10^7), and
/// `CAIRN_CRASH_SEED` the first seed.
const CRASH_POINTS: u64 = 100_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn a_power_cut_at_any_boundary_leaves_a_prefix_with_everything_acknowledged() {
    let wanted = setting("CAIRN_CRASH_POINTS", CRASH_POINTS);
    let points = crash_points(&Store::sound(), wanted, setting("CAIRN_CRASH_SEED", 1), EFFORT)
        .unwrap_or_else(|failure| panic!("{failure}"));
    println!("{points} crash points");
}

#[test]
fn a_store_without_any_one_protection_is_caught() {
    for canary in [
        Canary::FlushLeftOut,
        Canary::RecordBeforeData,
        Canary::EarlyAcknowledgement,
        Canary::RecordNotDurable,
        Canary::EarlyReuse,
        Canary::CheckpointBeforeData,
        Canary::EarlyTrim,
        Canary::EarlyWriteBack,
    ] {
        let effort = if canary == Canary::EarlyTrim { LONG } else { EFFORT };
        let found = crash_points(&Store::broken(canary), CRASH_POINTS, 1, effort);
        let failure = found.err().unwrap_or_else(|| panic!("{canary:?} was not caught"));
        eprintln!("{canary:?}: {failure}");
    }
}
