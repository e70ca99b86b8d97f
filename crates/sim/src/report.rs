//! What is told of a failure, and of many runs.

use crate::plan::Planned;
use crate::run::{Options, last_lines, plan_of, shorten};
use crate::world::{Failure, Figures, Kind};
use std::collections::BTreeMap;
use std::fmt;

/// Tries to shorten the plan of a seed that fails.
const SHRINK_TRIES_MAX: usize = 200;
/// Lines of each process that are shown of a failure.
const LAST_LINES: usize = 12;

/// The commit of the sources that this was built from, and whether they differed from it.
pub const COMMIT: &str = env!("SIM_COMMIT");

/// A failure, with what it takes to understand it and to see it again.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of this seed.
    pub seed: u64,
    /// Run like this.
    pub options: Options,
    /// At this commit.
    pub commit: &'static str,
    /// What the seed's own plan led to.
    pub failure: Failure,
    /// Steps of that plan.
    pub planned: usize,
    /// Those that it takes to fail in the same way.
    pub plan: Vec<Planned>,
    /// What each process did last when these were all there was.
    pub last: Vec<String>,
}

impl Report {
    /// Looks for the shortest plan that still fails.
    pub fn of(seed: u64, options: Options, failure: Failure) -> Report {
        let plan = shorten(seed, options, &failure, SHRINK_TRIES_MAX);
        let last = last_lines(seed, options, plan.clone(), LAST_LINES);
        let planned = plan_of(seed, options).len();
        Report { seed, options, commit: COMMIT, failure, planned, plan, last }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { profile, canary } = self.options;
        writeln!(f, "seed {} of profile {profile} at commit {}: {}", self.seed, self.commit, self.failure)?;
        writeln!(f, "The faults that it takes ({} of {}):", self.plan.len(), self.planned)?;
        for planned in &self.plan {
            writeln!(f, "  {planned}")?;
        }
        writeln!(f, "What each process did last:")?;
        for line in &self.last {
            writeln!(f, "  {line}")?;
        }
        write!(f, "Again: cargo run --release -p sim -- --profile {profile} --seed {} [--trace]", self.seed)?;
        match canary.and_then(|canary| canary.name()) {
            Some(name) => write!(f, " --canary {name}"),
            None => Ok(()),
        }
    }
}

/// Figures of many runs.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Sums.
    pub figures: Figures,
    /// Failures by seed.
    pub failures: BTreeMap<u64, Failure>,
}

impl Totals {
    /// One more run.
    pub fn add(&mut self, seed: u64, figures: &Figures, failure: Option<Failure>) {
        self.seeds += 1;
        self.figures.virtual_us += figures.virtual_us;
        self.figures.events += figures.events;
        self.figures.operations += figures.operations;
        self.figures.refused_full += figures.refused_full;
        for (kind, count) in &figures.faults {
            *self.figures.faults.entry(kind).or_default() += count;
        }
        self.failures.extend(failure.map(|failure| (seed, failure)));
    }

    /// Virtual hours.
    pub fn hours(&self) -> f64 {
        self.figures.virtual_us as f64 / 3.6e9
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.figures.faults.values().sum()
    }

    /// Failures of each kind.
    pub fn by_kind(&self) -> String {
        let count = |kind| self.failures.values().filter(|failure| failure.kind == kind).count();
        format!(
            "{} of safety, {} of liveness, {} crashes",
            count(Kind::Safety),
            count(Kind::Liveness),
            count(Kind::Crash)
        )
    }

    /// The figures that `docs/reliability.md` has, as its table.
    pub fn table(&self, options: Options, commit: &str, wall_s: f64) -> String {
        let mut rows = vec![
            (format!("profile {} at", options.profile), commit.to_owned()),
            ("seeds".to_owned(), self.seeds.to_string()),
            ("virtual hours".to_owned(), format!("{:.1}", self.hours())),
            ("hours of computing".to_owned(), format!("{:.2}", wall_s / 3_600.0)),
            ("events".to_owned(), self.figures.events.to_string()),
            ("operations checked".to_owned(), self.figures.operations.to_string()),
            ("failures".to_owned(), self.by_kind()),
            ("faults".to_owned(), self.faults().to_string()),
        ];
        let by_kind = self.figures.faults.iter();
        rows.extend(by_kind.map(|(kind, count)| (format!("of these: {kind}"), count.to_string())));
        let failed = self.failures.iter();
        rows.extend(failed.map(|(seed, failure)| (format!("seed {seed}"), failure.to_string())));
        let mut table = "| what | how much |\n|---|---|\n".to_owned();
        for (what, how_much) in rows {
            table += &format!("| {what} | {} |\n", how_much.replace('|', "\\|").replace('\n', " "));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Profile;
    use crate::timeline::Instant;

    #[test]
    fn figures_are_summed_and_failures_told_apart() {
        let figures = Figures {
            virtual_us: 1_800_000_000,
            events: 10,
            operations: 7,
            monitors: 3,
            refused_full: 0,
            faults: [("kill", 2), ("cut", 1)].into(),
            digest: 1,
        };
        let mut totals = Totals::default();
        totals.add(1, &figures, None);
        let failure = |kind| Some(Failure { kind, at: Instant(5), what: "a|b".to_owned() });
        totals.add(2, &figures, failure(Kind::Safety));
        totals.add(3, &figures, failure(Kind::Crash));
        let table = totals.table(Options { profile: Profile::Heavy, canary: None }, "abc", 3_600.0);
        for row in [
            "| profile heavy at | abc |",
            "| seeds | 3 |",
            "| virtual hours | 1.5 |",
            "| hours of computing | 1.00 |",
            "| events | 30 |",
            "| operations checked | 21 |",
            "| failures | 1 of safety, 0 of liveness, 1 crashes |",
            "| faults | 9 |",
            "| of these: cut | 3 |",
            "| of these: kill | 6 |",
            "| seed 2 | safety at    0.000005: a\\|b |",
        ] {
            assert!(table.lines().any(|line| line == row), "{row} in\n{table}");
        }
    }
}
