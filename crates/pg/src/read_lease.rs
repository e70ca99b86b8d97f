//! Read leases: until when a primary may answer reads, and until when another may.
//!
//! A primary asks the acting set; each member promises that no later interval will write before
//! the lease is over. The primary counts from when it *asked*, the member from when it was
//! *asked*, longer by the drift bound: so the member's bound is never shorter, without any
//! synchronised clock. Whoever becomes primary hears the bounds of those it peers with, of which
//! at least one was a member of every interval that may have had a lease, and waits them out.

use crate::message::LeaseBound;
use crate::version::Time;
use cairn_types::OsdId;
use std::collections::{BTreeMap, BTreeSet};

/// Leases as one OSD knows them for one group.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Promises made or heard of: who may still be answering reads, until when (by this clock).
    promised: BTreeMap<Option<OsdId>, Time>,
    /// Own lease, as primary.
    readable_until: Time,
    seq: u64,
    asked: Option<Asked>,
    /// Whether someone read since the lease was last asked for: an idle group is silent.
    pub wanted: bool,
}

#[derive(Debug)]
struct Asked {
    seq: u64,
    at: Time,
    waiting: BTreeSet<OsdId>,
}

impl Leases {
    /// After a start: whatever was promised before is forgotten, and may be a full lease.
    pub fn unknown(until: Time) -> Leases {
        Leases { promised: BTreeMap::from([(None, until)]), ..Leases::default() }
    }

    pub fn promise(&mut self, holder: Option<OsdId>, until: Time) {
        let bound = self.promised.entry(holder).or_default();
        *bound = (*bound).max(until);
    }

    /// What to tell a primary.
    pub fn bounds(&mut self, now: Time) -> Vec<LeaseBound> {
        self.promised.retain(|_, until| *until > now);
        let bound = |(holder, until): (&Option<OsdId>, &Time)| LeaseBound {
            holder: *holder,
            remaining_ms: until.remaining_ms(now),
        };
        self.promised.iter().map(bound).collect()
    }

    /// Until when someone other than `me` may be answering reads.
    pub fn others_until(&self, me: OsdId) -> Time {
        let others = self.promised.iter().filter(|(holder, _)| **holder != Some(me));
        others.map(|(_, until)| *until).max().unwrap_or_default()
    }

    /// Begins to ask `others`. With none to ask the lease is granted at once.
    pub fn ask(&mut self, now: Time, others: BTreeSet<OsdId>, lease_ms: u64) -> Option<u64> {
        self.wanted = false;
        if others.is_empty() {
            self.readable_until = now.plus_ms(lease_ms);
            return None;
        }
        self.seq += 1;
        self.asked = Some(Asked { seq: self.seq, at: now, waiting: others });
        Some(self.seq)
    }

    pub fn is_asking(&self, now: Time, lease_ms: u64) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.at.plus_ms(lease_ms) > now)
    }

    /// A member granted. True when all have and reads may go on.
    pub fn granted(&mut self, from: OsdId, seq: u64, lease_ms: u64) -> bool {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.seq == seq) else { return false };
        asked.waiting.remove(&from);
        if !asked.waiting.is_empty() {
            return false;
        }
        self.readable_until = self.readable_until.max(asked.at.plus_ms(lease_ms));
        self.asked = None;
        true
    }

    pub fn is_readable(&self, now: Time) -> bool {
        now < self.readable_until
    }

    /// A new interval: an own lease of the old one is void.
    pub fn reset(&mut self) {
        self.readable_until = Time::default();
        self.asked = None;
        self.wanted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_question_and_needs_everyone() {
        let mut leases = Leases::default();
        let seq = leases.ask(Time(100), [OsdId(1), OsdId(2)].into(), 50).unwrap();
        assert!(!leases.granted(OsdId(1), seq, 50));
        assert!(!leases.is_readable(Time(101)));
        assert!(leases.granted(OsdId(2), seq, 50));
        assert!(leases.is_readable(Time(149)) && !leases.is_readable(Time(150)));
    }

    #[test]
    fn a_grant_of_an_older_question_counts_for_nothing() {
        let mut leases = Leases::default();
        let old = leases.ask(Time(0), [OsdId(1)].into(), 50).unwrap();
        leases.reset();
        leases.ask(Time(10), [OsdId(1)].into(), 50).unwrap();
        assert!(!leases.granted(OsdId(1), old, 50));
    }

    #[test]
    fn own_promises_to_oneself_are_not_waited_for() {
        let mut leases = Leases::default();
        leases.promise(Some(OsdId(3)), Time(90));
        leases.promise(None, Time(40));
        assert_eq!(leases.others_until(OsdId(3)), Time(40));
        assert_eq!(leases.others_until(OsdId(1)), Time(90));
        assert_eq!(leases.bounds(Time(50)).len(), 1);
    }
}
