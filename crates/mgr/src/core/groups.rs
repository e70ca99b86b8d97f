//! Placement groups as their primaries report them, and their sums.

use super::REPORT_LIFETIME_MS;
use cairn_types::{Digest, Epoch, OsdId, OsdMap, PgId, PgProblem, PgReport, PgState, PoolId, PoolStat};
use std::collections::BTreeMap;

/// Most groups that are named in a digest; the counts are of all.
pub const PROBLEMS_MAX: usize = 100;

#[derive(Clone, PartialEq, Debug)]
struct Group {
    from: OsdId,
    /// When it was last reported.
    at_ms: u64,
    /// Since when it is in this state.
    since_ms: u64,
    report: PgReport,
}

impl Group {
    /// The state that counts now: what nobody has confirmed for a while, or came from an OSD that is down, is stale.
    fn state(&self, now_ms: u64, map: &OsdMap) -> PgState {
        match now_ms > self.at_ms + REPORT_LIFETIME_MS || !map.is_up(self.from) {
            true => self.report.state | PgState::STALE,
            false => self.report.state,
        }
    }
}

/// The groups that have been reported.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Groups(BTreeMap<PgId, Group>);

fn exists(pg: PgId, map: &OsdMap) -> bool {
    map.pools.get(&pg.pool).is_some_and(|pool| pg.seed < pool.pg_num)
}

impl Groups {
    /// Takes what an OSD says of the groups it leads. Of two that lead one, the one with the newer map is right.
    pub(super) fn take(&mut self, at_ms: u64, from: OsdId, reports: Vec<PgReport>, map: Option<&OsdMap>) {
        for report in reports {
            // A group of a pool that only the OSD knows of yet is taken with its next report.
            if !map.is_some_and(|map| exists(report.pg, map)) {
                continue;
            }
            let known = self.0.get(&report.pg);
            if known.is_some_and(|known| known.from != from && known.report.epoch > report.epoch) {
                continue;
            }
            let since_ms = match known {
                Some(known) if known.report.state == report.state => known.since_ms,
                _ => at_ms,
            };
            self.0.insert(report.pg, Group { from, at_ms, since_ms, report });
        }
    }

    /// Groups by pool and state, as of now.
    pub(super) fn by_pool(&self, now_ms: u64, map: &OsdMap) -> BTreeMap<PoolId, BTreeMap<PgState, u64>> {
        let mut pools: BTreeMap<PoolId, BTreeMap<PgState, u64>> = BTreeMap::new();
        for (pg, group) in &self.0 {
            *pools.entry(pg.pool).or_default().entry(group.state(now_ms, map)).or_default() += 1;
        }
        pools
    }

    /// Forgets groups that are not in the map.
    pub(super) fn retain(&mut self, map: &OsdMap) {
        self.0.retain(|pg, _| exists(*pg, map));
    }

    pub(super) fn sum_up(&self, now_ms: u64, map: &OsdMap, digest: &mut Digest) {
        let mut pools: BTreeMap<PoolId, PoolStat> =
            map.pools.keys().map(|pool| (*pool, PoolStat::default())).collect();
        let mut clean_min: Option<Epoch> = None;
        let mut problems = Vec::new();
        for (pg, group) in &self.0 {
            let state = group.state(now_ms, map);
            *digest.pg_states.entry(state).or_default() += 1;
            let report = &group.report;
            clean_min =
                Some(clean_min.map_or(report.last_epoch_clean, |min| min.min(report.last_epoch_clean)));
            let pool = pools.entry(pg.pool).or_default();
            pool.objects += report.objects;
            pool.stored_bytes += report.stored_bytes;
            // As far as a group can know: every copy of the acting set takes what clients stored.
            pool.used_bytes += report.stored_bytes * report.acting.len() as u64;
            pool.counts.copies += report.counts.copies;
            pool.counts.degraded += report.counts.degraded;
            pool.counts.misplaced += report.counts.misplaced;
            pool.counts.unfound += report.counts.unfound;
            if !is_well(state) {
                let since_ms = match state.has(PgState::STALE) && !report.state.has(PgState::STALE) {
                    true => group.at_ms,
                    false => group.since_ms,
                };
                let for_ms = now_ms.saturating_sub(since_ms);
                problems.push(PgProblem { pg: *pg, state, acting: report.acting.clone(), for_ms });
            }
        }
        let wanted: u64 = map.pools.values().map(|pool| u64::from(pool.pg_num)).sum();
        // A group nobody has reported may need any old map.
        digest.last_epoch_clean_min = clean_min.filter(|_| self.0.len() as u64 == wanted);
        problems.sort_by_key(|problem| (rank(problem.state), u64::MAX - problem.for_ms, problem.pg));
        problems.truncate(PROBLEMS_MAX);
        digest.problems = problems;
        digest.pools = pools;
    }
}

/// Nothing is to be done about it: `active+clean`, scrubbed or not.
fn is_well(state: PgState) -> bool {
    let harmless = PgState::SCRUBBING | PgState::DEEP | PgState::SNAPTRIM;
    let wanted = PgState::ACTIVE | PgState::CLEAN;
    state.has(wanted) && state.0 & !(wanted | harmless).0 == 0
}

/// How bad a state is, the worst first: data may be lost, data cannot be reached, data is less safe, the rest.
fn rank(state: PgState) -> u8 {
    let lost = PgState::UNFOUND | PgState::INCOMPLETE | PgState::DOWN | PgState::INCONSISTENT;
    if state.has_any(lost) {
        0
    } else if state.has(PgState::STALE) || !state.has(PgState::ACTIVE) {
        1
    } else if state.has_any(PgState::UNDERSIZED | PgState::DEGRADED) {
        2
    } else {
        3
    }
}
