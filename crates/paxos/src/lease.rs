//! Leases: a follower's undertaking to help nobody else to lead for a while, and what a leader may
//! conclude from it. See `docs/paxos.md` for the argument.

use std::collections::BTreeMap;

use cairn_types::MonId;

use crate::ballot::Ballot;
use crate::canary_on;
use crate::node::{Node, Role};
use crate::timers::Moment;

/// What this monitor has undertaken, by its own clock.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Grants {
    /// Before the last restart anything may have been granted to anyone: nobody is helped before this.
    boot_until: Moment,
    /// Kept per holder: hearing a new leader must not shorten what an older one relies on.
    holders: BTreeMap<MonId, (Ballot, Moment)>,
}

impl Grants {
    pub(crate) fn blocked_until(moment: Moment) -> Self {
        Grants { boot_until: moment, holders: BTreeMap::new() }
    }

    pub(crate) fn grant(&mut self, now: Moment, ballot: Ballot, until: Moment) {
        self.holders.retain(|_, (_, until)| *until > now);
        let held = self.holders.entry(ballot.leader).or_insert((ballot, until));
        *held = (held.0.max(ballot), held.1.max(until));
    }

    pub(crate) fn release(&mut self, ballot: Ballot) {
        if self.holders.get(&ballot.leader).is_some_and(|(held, _)| *held <= ballot) {
            self.holders.remove(&ballot.leader);
        }
    }

    /// Whether something undertaken forbids a promise to `candidate`. A leader may always be promised
    /// to again: it does not read while it campaigns.
    pub(crate) fn forbids(&self, now: Moment, candidate: MonId) -> bool {
        now < self.boot_until || self.lessee(now, candidate).is_some()
    }

    /// Someone other than `candidate` whose lease runs.
    pub(crate) fn lessee(&self, now: Moment, candidate: MonId) -> Option<MonId> {
        self.holders
            .iter()
            .find(|(holder, (_, until))| **holder != candidate && *until > now)
            .map(|(holder, _)| *holder)
    }
}

impl Node {
    /// Whether a lease in force forbids to help `candidate`.
    pub(crate) fn lease_forbids(&self, candidate: MonId) -> bool {
        !canary_on!(self, LeaseNotWaitedOut) && self.grants.forbids(self.now, candidate)
    }

    /// Until when, by this monitor's clock, it may answer reads from its own state without asking
    /// anyone. `None`: not at all. The application must have applied everything handed to it.
    #[must_use]
    pub fn lease_until(&self) -> Option<Moment> {
        let Role::Leader(lead) = &self.role else { return None };
        let next = self.state.decided.next();
        // A write that was acknowledged and is not in our state would stand in the next slot. Earlier
        // ballots cannot have decided it there: a majority that votes on it promised to us and told
        // what it had accepted, and all of that is decided. Later ballots need a majority that
        // includes one of those whose undertaking we count here.
        if self.state.decided < lead.recovered_upto && !canary_on!(self, ReadBeforeRecovery) {
            return None;
        }
        if !self.may_propose_at(lead, next) {
            return None;
        }
        if canary_on!(self, ReadWithoutLease) {
            return Some(Moment(u64::MAX));
        }
        let heard = self.ledger.configs.at(next)?.reached_by_majority(|mon| lead.heard.get(&mon).copied())?;
        let lease =
            if canary_on!(self, DriftIgnored) { self.timing.lease } else { self.timing.leader_lease() };
        Some(heard + lease)
    }

    /// Whether a read may be answered at `now`, which must have been read from the clock after the
    /// read was received.
    #[must_use]
    pub fn can_read(&self, now: Moment) -> bool {
        self.lease_until().is_some_and(|until| now.max(self.now) < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, leader: u32) -> Ballot {
        Ballot { round, leader: MonId(leader) }
    }

    #[test]
    fn an_older_lease_is_honoured_beside_a_newer_one() {
        let mut grants = Grants::default();
        grants.grant(Moment(0), ballot(1, 1), Moment(10));
        grants.grant(Moment(5), ballot(2, 2), Moment(15));
        assert_eq!(grants.lessee(Moment(9), MonId(2)), Some(MonId(1)));
        assert!(!grants.forbids(Moment(10), MonId(2)));
        assert!(grants.forbids(Moment(10), MonId(3)));
    }

    #[test]
    fn a_late_resignation_does_not_end_a_newer_lease() {
        let mut grants = Grants::default();
        grants.grant(Moment(0), ballot(3, 1), Moment(10));
        grants.release(ballot(2, 1));
        assert!(grants.forbids(Moment(1), MonId(2)));
        grants.release(ballot(3, 1));
        assert!(!grants.forbids(Moment(1), MonId(2)));
    }
}
