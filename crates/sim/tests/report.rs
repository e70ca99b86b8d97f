//! What is told of a failure: a seed, a commit, the faults that it takes and no others, and what each process did last.

use sim::canary::Canary;
use sim::report::{COMMIT, Report};
use sim::run::{Options, plan_of, run, run_plan};
use sim::world::Kind;
use std::collections::BTreeSet;

/// The first failure of a deliberate bug whose plan has enough in it to leave something out.
fn first_failure(name: &str) -> Report {
    let canary: Canary = name.parse().expect("a name of a canary");
    let options = Options { profile: canary.profile(), canary: Some(canary) };
    let found = (1..=2_000).find_map(|seed| {
        let failure = run(seed, options).failure?;
        (plan_of(seed, options).len() >= 8).then(|| Report::of(seed, options, failure))
    });
    found.expect("a seed that fails")
}

fn is_shrunk_and_told(name: &str) -> Report {
    let report = first_failure(name);
    let Report { seed, options, ref failure, planned, ref plan, ref last, .. } = report;
    assert!(!plan.is_empty() && 2 * plan.len() <= planned, "{} of {planned} steps are left", plan.len());
    // It is a part of the seed's own plan, and no part of it can go.
    let whole = plan_of(seed, options);
    assert!(plan.iter().all(|step| whole.contains(step)));
    let kind_of = |plan| run_plan(seed, options, plan, None).failure.map(|failure| failure.kind);
    assert_eq!(kind_of(plan.clone()), Some(failure.kind));
    for at in 0..plan.len() {
        let mut without = plan.clone();
        without.remove(at);
        assert_ne!(kind_of(without), Some(failure.kind), "step {at} is needed");
    }
    // Monitors, OSDs and clients have had their last words, of which the verdict is the very last.
    let who: BTreeSet<&str> = last.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    for kind in ["mon.0", "osd.0", "osd.1", "osd.2", "client.0", "world"] {
        assert!(who.contains(kind), "{kind} is not among {who:?}");
    }
    assert!(last.last().is_some_and(|line| line.contains("FAILED")), "{last:?}");
    let text = report.to_string();
    for said in [
        format!("seed {seed} of profile {} at commit {}: {failure}", options.profile, COMMIT),
        format!("The faults that it takes ({} of {planned})", plan.len()),
        plan[0].to_string(),
        format!("--profile {} --seed {seed} [--trace] --canary {name}", options.profile),
    ] {
        assert!(text.contains(&said), "{said} is not in\n{text}");
    }
    report
}

#[test]
fn a_stale_read_is_shrunk_to_what_it_takes() {
    assert_eq!(is_shrunk_and_told("read-without-lease").failure.kind, Kind::Safety);
}

#[test]
fn monitors_that_differ_are_shrunk_to_what_it_takes() {
    is_shrunk_and_told("accept-old-ballot");
}

/// Time that does not go on is a verdict, not a run that never ends; no fault is needed for it.
#[test]
fn an_osd_that_spins_at_one_moment_is_a_failure_of_liveness() {
    let options = Options { profile: Canary::Spin.profile(), canary: Some(Canary::Spin) };
    let failure = run(1, options).failure.expect("a verdict");
    assert_eq!(failure.kind, Kind::Liveness);
    assert!(failure.what.contains("osd.") && failure.what.contains("spins"), "{failure}");
    assert!(Report::of(1, options, failure).plan.is_empty());
}
