//! One seed from start to verdict.

use crate::canary::Canary;
use crate::plan::{self, Planned};
use crate::shape::{Profile, Shape};
use crate::shrink::shrink;
use crate::timeline::Instant;
use crate::watch::{Beat, PATIENCE, Pulse, watch};
use crate::world::{Failure, Figures, Kind, Listener, World};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much is asked of it.
    pub profile: Profile,
    /// A deliberate bug.
    pub canary: Option<Canary>,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Figures; empty when a core panicked.
    pub figures: Figures,
}

/// Runs a seed with the plan that is drawn from it.
pub fn run(seed: u64, options: Options) -> Outcome {
    run_watched(seed, options, plan_of(seed, options))
}

/// Runs a seed with another plan, and does not wait for what never ends.
fn run_watched(seed: u64, options: Options, plan: Vec<Planned>) -> Outcome {
    let shape = Shape::draw(seed, options.profile);
    let world = move |pulse| run_world(seed, shape, plan, options.canary, None, pulse);
    watch(PATIENCE, world).unwrap_or_else(|Beat { at, who, events }| {
        let who = who.map_or_else(|| "the world".to_owned(), |who| who.to_string());
        let what = format!("{who} spins within event {events}");
        let failure = Failure { kind: Kind::Crash, at, what };
        Outcome { failure: Some(failure), figures: Figures::default() }
    })
}

/// The plan of a seed.
pub fn plan_of(seed: u64, options: Options) -> Vec<Planned> {
    plan::draw(seed, options.profile, &Shape::draw(seed, options.profile))
}

/// Runs a seed with another plan.
pub fn run_plan(seed: u64, options: Options, plan: Vec<Planned>, listener: Option<Listener>) -> Outcome {
    run_story(seed, Shape::draw(seed, options.profile), plan, options.canary, listener)
}

/// Runs a cluster of a given shape with a given plan.
pub fn run_story(
    seed: u64,
    shape: Shape,
    plan: Vec<Planned>,
    canary: Option<Canary>,
    listener: Option<Listener>,
) -> Outcome {
    run_world(seed, shape, plan, canary, listener, Pulse::default())
}

fn run_world(
    seed: u64,
    shape: Shape,
    plan: Vec<Planned>,
    canary: Option<Canary>,
    listener: Option<Listener>,
    pulse: Pulse,
) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, shape, plan, canary, listener);
        world.watched_by(pulse);
        world.run();
        Outcome { failure: world.failure().cloned(), figures: world.figures() }
    }));
    ran.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = format!("a panic: {}", what.unwrap_or_else(|| "of no words".to_owned()));
        let failure = Failure { kind: Kind::Crash, at: Instant(0), what };
        Outcome { failure: Some(failure), figures: Figures::default() }
    })
}

/// The shortest part of a failing seed's plan with which it still fails in the same way.
pub fn shorten(seed: u64, options: Options, failure: &Failure, tries_max: usize) -> Vec<Planned> {
    shrink(&plan_of(seed, options), tries_max, |plan| {
        let again = run_watched(seed, options, plan.to_vec()).failure;
        again.is_some_and(|again| again.kind == failure.kind)
    })
}

/// Lines with their numbers, by process.
type Lines = BTreeMap<String, VecDeque<(u64, String)>>;

/// What each process did last, and what happened to the world as a whole.
pub fn last_lines(seed: u64, options: Options, plan: Vec<Planned>, each: usize) -> Vec<String> {
    let lines: Rc<RefCell<Lines>> = Rc::default();
    let (kept, mut number) = (lines.clone(), 0);
    let listener: Listener = Box::new(move |line| {
        number += 1;
        let who = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut kept = kept.borrow_mut();
        let own = kept.entry(who).or_default();
        if own.len() == each {
            own.pop_front();
        }
        own.push_back((number, line.chars().take(400).collect()));
    });
    run_plan(seed, options, plan, Some(listener));
    let mut all: Vec<(u64, String)> = lines.take().into_values().flatten().collect();
    all.sort();
    all.into_iter().map(|(_, line)| line).collect()
}
