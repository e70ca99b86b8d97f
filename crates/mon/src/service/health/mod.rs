//! Health: what is not as it should be, under the codes operators know, each with the next step to take.

mod daemons;
mod data;
mod pools;

use super::ClusterState;
use super::limits::MAX_DETAIL_LINES;
use cairn_types::{Digest, Health, HealthCheck, HealthCode, Severity, Timestamp};
use serde::{Deserialize, Serialize};

/// Which monitors agree at the moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quorum {
    /// Name of the leader, if there is one.
    pub leader: Option<String>,
    /// Names of the monitors that take part.
    pub members: Vec<String>,
}

/// What health is read from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the monitors agree on.
    pub state: &'a ClusterState,
    /// Who agrees.
    pub quorum: &'a Quorum,
    /// The mgr's statistics, if they are fresh.
    pub digest: Option<&'a Digest>,
    /// The time.
    pub now: Timestamp,
}

/// All checks.
pub fn health(view: View<'_>) -> Health {
    let mut health = Health::default();
    daemons::check(view, &mut health);
    data::check(view, &mut health);
    pools::check(view, &mut health);
    health
}

/// Adds a check over `detail`, one line per thing, unless there is none.
fn add(
    health: &mut Health,
    code: HealthCode,
    severity: Severity,
    summary: String,
    detail: Vec<String>,
    next_step: &str,
) {
    if !detail.is_empty() {
        let count = detail.len() as u64;
        add_counted(health, code, severity, summary, count, detail, next_step);
    }
}

fn add_counted(
    health: &mut Health,
    code: HealthCode,
    severity: Severity,
    summary: String,
    count: u64,
    mut detail: Vec<String>,
    next_step: &str,
) {
    if detail.len() > MAX_DETAIL_LINES {
        let left = detail.len() - MAX_DETAIL_LINES;
        detail.truncate(MAX_DETAIL_LINES);
        detail.push(format!("and {left} more"));
    }
    health.add(code, HealthCheck { severity, summary, count, detail, next_step: next_step.to_owned() });
}

/// `1 pool`, `2 pools`.
fn count_of(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
