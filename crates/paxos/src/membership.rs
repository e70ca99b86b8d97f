//! Who votes, slot by slot.

use std::collections::BTreeSet;

use cairn_types::MonId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ballot::Slot;
use crate::command::Change;

/// The monitors that vote on a range of slots.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Their numbers. Rank is the place in this order.
    pub members: BTreeSet<MonId>,
}

impl Membership {
    /// How many make a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether `mon` votes.
    #[must_use]
    pub fn contains(&self, mon: MonId) -> bool {
        self.members.contains(&mon)
    }

    pub(crate) fn rank(&self, mon: MonId) -> Option<u32> {
        self.members.iter().position(|member| *member == mon).map(|rank| rank as u32)
    }

    /// The largest value that a majority has reached, by each member's own value. `None` while fewer
    /// than a majority have one.
    pub(crate) fn reached_by_majority<T: Ord + Copy>(&self, value: impl Fn(MonId) -> Option<T>) -> Option<T> {
        let mut values: Vec<T> = self.members.iter().filter_map(|member| value(*member)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(self.majority().checked_sub(1)?).copied()
    }
}

/// Why a decided membership change did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error, Serialize, Deserialize)]
pub enum ChangeRefused {
    /// One change at a time: an earlier one has not taken effect.
    #[error("another membership change is still under way; try again when it has taken effect")]
    Pending,
    /// The number was used before.
    #[error("this monitor number was used before; give the new monitor a number above all earlier ones")]
    NumberUsed,
    /// Not a member.
    #[error("this monitor is not a member")]
    NotAMember,
    /// The last one stays.
    #[error("the last monitor cannot be removed")]
    LastMember,
}

/// The memberships that matter from some slot on, oldest first, each with the first slot it votes on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Configs {
    /// Ascending by slot; empty only at a monitor that has not joined yet.
    pub eras: Vec<(Slot, Membership)>,
    /// The highest monitor number ever a member.
    pub highest: MonId,
}

impl Configs {
    pub(crate) fn initial(members: BTreeSet<MonId>) -> Self {
        let highest = members.last().copied().unwrap_or_default();
        Configs { eras: vec![(Slot(1), Membership { members })], highest }
    }

    /// The members that vote on `slot`; `None` if this monitor has not joined or the slot is long past.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&Membership> {
        self.eras.iter().rev().find(|(from, _)| *from <= slot).map(|(_, membership)| membership)
    }

    /// The newest membership and the first slot it votes on.
    #[must_use]
    pub fn newest(&self) -> Option<(Slot, &Membership)> {
        self.eras.last().map(|(from, membership)| (*from, membership))
    }

    /// Everyone who votes on any slot from here on: whom a leader talks to.
    pub(crate) fn everyone(&self) -> BTreeSet<MonId> {
        self.eras.iter().flat_map(|(_, membership)| membership.members.iter().copied()).collect()
    }

    /// Decides what `change`, decided in `slot`, does. On success the new membership votes from
    /// `slot + alpha`, which is returned.
    pub(crate) fn change(&mut self, slot: Slot, alpha: u64, change: Change) -> Result<Slot, ChangeRefused> {
        let Some((from, newest)) = self.newest() else { return Err(ChangeRefused::NotAMember) };
        if from > slot {
            return Err(ChangeRefused::Pending);
        }
        let mut members = newest.members.clone();
        match change {
            Change::Add(mon) => {
                if mon <= self.highest {
                    return Err(ChangeRefused::NumberUsed);
                }
                members.insert(mon);
                self.highest = mon;
            }
            Change::Remove(mon) => {
                if members.len() == 1 && members.contains(&mon) {
                    return Err(ChangeRefused::LastMember);
                }
                if !members.remove(&mon) {
                    // Its number is used up: an addition of it that is still under way does nothing any more.
                    self.highest = self.highest.max(mon);
                    return Err(ChangeRefused::NotAMember);
                }
            }
        }
        let from = slot.plus(alpha);
        self.eras.push((from, Membership { members }));
        Ok(from)
    }

    /// Forgets memberships that vote on no slot above `decided`.
    pub(crate) fn forget_before(&mut self, decided: Slot) {
        let next = decided.next();
        let past = self.eras.iter().skip(1).take_while(|(from, _)| *from <= next).count();
        self.eras.drain(..past);
    }
}

/// What a monitor is to the log it follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// Has no state yet; waits for a leader to find it.
    Joining,
    /// Has state but does not vote yet.
    Learner,
    /// Votes on the next slot.
    Voter,
    /// Was removed, but the others may still need its answers about old slots.
    Leaving,
    /// Was removed and is not needed any more: the driver stops it.
    Retired,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[u32]) -> BTreeSet<MonId> {
        ids.iter().map(|id| MonId(*id)).collect()
    }

    #[test]
    fn a_change_takes_effect_alpha_slots_later() {
        let mut configs = Configs::initial(members(&[1]));
        assert_eq!(configs.change(Slot(5), 4, Change::Add(MonId(2))), Ok(Slot(9)));
        assert_eq!(configs.at(Slot(8)).map(|m| m.members.clone()), Some(members(&[1])));
        assert_eq!(configs.at(Slot(9)).map(|m| m.members.clone()), Some(members(&[1, 2])));
        configs.forget_before(Slot(7));
        assert_eq!(configs.eras.len(), 2);
        configs.forget_before(Slot(8));
        assert_eq!(configs.eras.len(), 1);
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let mut configs = Configs::initial(members(&[1, 3]));
        assert_eq!(configs.change(Slot(1), 4, Change::Add(MonId(2))), Err(ChangeRefused::NumberUsed));
        assert_eq!(configs.change(Slot(1), 4, Change::Remove(MonId(2))), Err(ChangeRefused::NotAMember));
        assert_eq!(configs.change(Slot(1), 4, Change::Remove(MonId(1))), Ok(Slot(5)));
        assert_eq!(configs.change(Slot(4), 4, Change::Add(MonId(4))), Err(ChangeRefused::Pending));
        assert_eq!(configs.change(Slot(5), 4, Change::Remove(MonId(3))), Err(ChangeRefused::LastMember));
    }

    #[test]
    fn a_number_that_was_taken_back_is_never_added() {
        let mut configs = Configs::initial(members(&[1, 2]));
        assert_eq!(configs.change(Slot(1), 4, Change::Remove(MonId(3))), Err(ChangeRefused::NotAMember));
        assert_eq!(configs.change(Slot(2), 4, Change::Add(MonId(3))), Err(ChangeRefused::NumberUsed));
        assert_eq!(configs.newest(), Some((Slot(1), &Membership { members: members(&[1, 2]) })));
        assert_eq!(configs.change(Slot(3), 4, Change::Add(MonId(4))), Ok(Slot(7)));
    }

    #[test]
    fn a_majority_counts_members_only() {
        let config = Membership { members: members(&[1, 2, 3]) };
        let votes =
            |mon: MonId| [(2, 7), (3, 5), (9, 99)].iter().find(|(id, _)| MonId(*id) == mon).map(|v| v.1);
        assert_eq!(config.reached_by_majority(votes), Some(5));
        assert_eq!(config.reached_by_majority(|mon| (mon == MonId(1)).then_some(1)), None);
        assert_eq!(Membership::default().reached_by_majority(|_| Some(1)), None);
    }
}
