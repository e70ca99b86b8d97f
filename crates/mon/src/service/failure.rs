//! Failure reports: when what OSDs say of each other marks one down.
//!
//! A report counts when its evidence does: a refused connection at once, silence from the grace on. It names
//! the run it means (`up_from`), so that one about the last run cannot hurt the next. Reporters count
//! by host: [`REPORTER_HOSTS`] of them are needed, or one where only one host besides the target's has an OSD up.

use super::crush::Topology;
use super::limits::MAX_REPORTERS;
use super::timing::{REPORT_LIFETIME_MS, REPORTER_HOSTS};
use cairn_types::{Epoch, OsdFlag, OsdId, OsdMap};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a reporter has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Evidence {
    /// Nothing is heard.
    Silence {
        /// For how long.
        for_ms: u64,
    },
    /// The host answers that nobody listens there: the process is dead.
    Refused,
    /// It is heard again: the report is taken back.
    Alive,
}

/// One OSD on another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureReport {
    /// Who reports.
    pub reporter: OsdId,
    /// On whom.
    pub target: OsdId,
    /// Which run of it: its `up_from` in the reporter's map.
    pub up_from: Epoch,
    /// What was seen.
    pub evidence: Evidence,
}

/// What the reports on an OSD come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is to be marked down.
    Dead,
    /// More reporters are needed.
    Waiting {
        /// Hosts that report it.
        hosts: usize,
        /// Hosts that must.
        needed: usize,
    },
    /// The report says nothing: about another run, by one who is not up, of too short a silence.
    Ignored,
    /// Enough report it, but flag `nodown` or the share of OSDs left up forbids it.
    Held,
}

/// By what reports are judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub map: &'a OsdMap,
    pub topology: &'a Topology,
    pub grace_ms: u64,
    /// Whether the share of OSDs that are up allows another death.
    pub may_lose_one: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Case {
    up_from: Epoch,
    /// Reporter → the leader's time at which the report ceases to count.
    reporters: BTreeMap<OsdId, u64>,
}

/// The reports that stand, by target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reports {
    cases: BTreeMap<OsdId, Case>,
}

impl Reports {
    /// Takes a report and judges its target.
    pub fn take(&mut self, report: &FailureReport, rules: Rules<'_>, at_ms: u64) -> Verdict {
        let FailureReport { reporter, target, up_from, evidence } = *report;
        let meant = rules.map.osds.get(&target).is_some_and(|info| info.up && info.up_from == up_from);
        if !meant || reporter == target || !rules.map.is_up(reporter) {
            return Verdict::Ignored;
        }
        match evidence {
            Evidence::Alive => {
                if let Some(case) = self.cases.get_mut(&target) {
                    case.reporters.remove(&reporter);
                }
                return Verdict::Ignored;
            }
            Evidence::Silence { for_ms } if for_ms < rules.grace_ms => return Verdict::Ignored,
            Evidence::Silence { .. } | Evidence::Refused => {}
        }
        let case = self.cases.entry(target).or_insert(Case { up_from, reporters: BTreeMap::new() });
        if case.up_from != up_from {
            *case = Case { up_from, reporters: BTreeMap::new() };
        }
        if case.reporters.len() < MAX_REPORTERS || case.reporters.contains_key(&reporter) {
            case.reporters.insert(reporter, at_ms + REPORT_LIFETIME_MS);
        }
        self.judge(target, rules, at_ms)
    }

    /// Judges a target by the reports that stand.
    fn judge(&self, target: OsdId, rules: Rules<'_>, at_ms: u64) -> Verdict {
        let Some(case) = self.cases.get(&target) else { return Verdict::Ignored };
        let Rules { map, topology, may_lose_one, .. } = rules;
        let hosts: BTreeSet<String> = case
            .reporters
            .iter()
            .filter(|(reporter, until)| **until > at_ms && map.is_up(**reporter))
            .map(|(reporter, _)| topology.host(*reporter))
            .collect();
        let needed = hosts_needed(target, map, topology);
        if hosts.len() < needed {
            return Verdict::Waiting { hosts: hosts.len(), needed };
        }
        if map.flags.has(OsdFlag::NoDown) || !may_lose_one {
            return Verdict::Held;
        }
        Verdict::Dead
    }

    /// Forgets what has run out or concerns a run that is over; returns the targets that are dead by what
    /// is left: a map may have changed how many reporters are needed.
    pub fn sweep(&mut self, rules: Rules<'_>, at_ms: u64) -> Vec<OsdId> {
        self.cases.retain(|target, case| {
            case.reporters.retain(|_, until| *until > at_ms);
            let info = rules.map.osds.get(target);
            !case.reporters.is_empty() && info.is_some_and(|info| info.up && info.up_from == case.up_from)
        });
        let targets = self.cases.keys().copied();
        targets.filter(|target| self.judge(*target, rules, at_ms) == Verdict::Dead).collect()
    }

    /// When the next report runs out.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.cases.values().flat_map(|case| case.reporters.values()).min().copied()
    }
}

/// Hosts that must report: two, or one where only one besides the target's has an OSD up, or none has.
fn hosts_needed(target: OsdId, map: &OsdMap, topology: &Topology) -> usize {
    let own = topology.host(target);
    let up = map.osds.iter().filter(|(_, info)| info.up);
    let others: BTreeSet<String> =
        up.map(|(osd, _)| topology.host(*osd)).filter(|host| *host != own).collect();
    others.len().clamp(1, REPORTER_HOSTS)
}
