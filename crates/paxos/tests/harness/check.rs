//! What must be true at every moment.

use std::collections::{BTreeMap, BTreeSet};

use cairn_paxos::{
    Applied, Apply, Ballot, Command, DurableState, Membership, MonId, Outcome, ProposalId, Slot,
};

use super::app::App;

pub type Check = Result<(), String>;

#[derive(Default)]
pub struct Checker {
    /// The log as first seen, from slot 1, with the application's state after each slot.
    pub log: Vec<(Applied, App)>,
    /// Who votes from which slot.
    pub eras: Vec<(Slot, Membership)>,
    applied_ids: BTreeMap<ProposalId, Slot>,
    ballots: BTreeMap<Ballot, (MonId, u64)>,
    outcomes: BTreeMap<ProposalId, Outcome>,
    never: BTreeSet<ProposalId>,
    pub reads: u64,
}

impl Checker {
    pub fn new(founders: BTreeSet<MonId>) -> Self {
        Checker { eras: vec![(Slot(1), Membership { members: founders })], ..Checker::default() }
    }

    pub fn last(&self) -> Slot {
        Slot(self.log.len() as u64)
    }

    pub fn config(&self, slot: Slot) -> &Membership {
        &self.eras.iter().rev().find(|(from, _)| *from <= slot).expect("an era from slot 1").1
    }

    pub fn newest(&self) -> &Membership {
        &self.eras.last().expect("an era").1
    }

    /// `mon` hands `apply` to its application, which then is `after`.
    pub fn applied<'a>(
        &mut self,
        mon: MonId,
        apply: &Apply,
        after: &App,
        disks: impl Iterator<Item = (MonId, &'a DurableState)>,
    ) -> Check {
        let (slot, applied) = match apply {
            Apply::Slot { slot, applied } => (*slot, Some(applied)),
            Apply::Install { slot, .. } => (*slot, None),
        };
        if let Some((known, app)) = self.log.get(slot.0 as usize - 1) {
            if applied.is_some_and(|applied| applied != known) {
                return Err(format!("{slot} was {known:?}, at {mon} it is {applied:?}"));
            }
            return if app == after {
                Ok(())
            } else {
                Err(format!("{mon} at {slot} has {after:?}, not {app:?}"))
            };
        }
        let Some(applied) = applied else {
            return Err(format!("{mon} installs {slot}, which nobody decided"));
        };
        if slot != self.last().next() {
            return Err(format!("{mon} decides {slot} after {}", self.last()));
        }
        self.durable_at_majority(slot, applied, disks)?;
        match applied {
            Applied::Command { id, .. } | Applied::Changed { id, .. } => {
                if let Some(first) = self.applied_ids.insert(*id, slot) {
                    return Err(format!("{id:?} applied at {first} and at {slot}"));
                }
                if self.never.contains(id) {
                    return Err(format!("{id:?} was said to be lost or refused and is applied at {slot}"));
                }
            }
            _ => {}
        }
        if let Applied::Changed { from, membership, .. } = applied {
            self.eras.push((*from, membership.clone()));
        }
        self.log.push((applied.clone(), after.clone()));
        Ok(())
    }

    /// A decided value is on the disks of a majority of those who vote on it.
    fn durable_at_majority<'a>(
        &self,
        slot: Slot,
        applied: &Applied,
        disks: impl Iterator<Item = (MonId, &'a DurableState)>,
    ) -> Check {
        let id = match applied {
            Applied::Noop => None,
            Applied::Command { id, .. }
            | Applied::Changed { id, .. }
            | Applied::ChangeRefused { id, .. }
            | Applied::Repeat { id, .. }
            | Applied::Expired { id } => Some(*id),
        };
        let holds = |state: &DurableState| {
            state.base.slot >= slot
                || state.accepted.get(&slot).is_some_and(|held| match &held.command {
                    Command::Noop => id.is_none(),
                    Command::Proposal(proposal) => Some(proposal.id) == id,
                })
        };
        let config = self.config(slot);
        let count = disks.filter(|(mon, state)| config.contains(*mon) && holds(state)).count();
        if count < config.majority() {
            return Err(format!("{slot} is decided but durable at {count} of {config:?}"));
        }
        Ok(())
    }

    pub fn leads(&mut self, mon: MonId, incarnation: u64, ballot: Ballot) -> Check {
        if ballot.leader != mon {
            return Err(format!("{mon} leads under the ballot {ballot}"));
        }
        match self.ballots.insert(ballot, (mon, incarnation)) {
            Some(before) => Err(format!("{ballot} is led by {mon} (start {incarnation}) and by {before:?}")),
            None => Ok(()),
        }
    }

    pub fn outcome(&mut self, id: ProposalId, outcome: Outcome) -> Check {
        match outcome {
            Outcome::Decided { slot } | Outcome::ChangeRefused { slot, .. } => {
                let held = self.log.get((slot.0 as usize).wrapping_sub(1)).map(|(applied, _)| applied);
                let there = match held {
                    Some(Applied::Command { id: held, .. } | Applied::Changed { id: held, .. }) => {
                        *held == id && matches!(outcome, Outcome::Decided { .. })
                    }
                    Some(Applied::ChangeRefused { id: held, .. }) => {
                        *held == id && matches!(outcome, Outcome::ChangeRefused { .. })
                    }
                    _ => false,
                };
                if !there {
                    return Err(format!("{id:?} has the outcome {outcome:?} but there is {held:?}"));
                }
            }
            Outcome::Lost => {
                if let Some(slot) = self.applied_ids.get(&id) {
                    return Err(format!("{id:?} is said to be lost and was applied at {slot}"));
                }
                self.never.insert(id);
            }
            // A refusal says that this call did nothing; an earlier call may have.
            Outcome::Refused(_) | Outcome::Uncertain | Outcome::Forgotten => {}
        }
        self.outcomes.insert(id, outcome);
        Ok(())
    }

    pub fn outcome_of(&self, id: ProposalId) -> Option<Outcome> {
        self.outcomes.get(&id).copied()
    }

    pub fn forget_outcome(&mut self, id: ProposalId) {
        self.outcomes.remove(&id);
    }

    /// `mon` answers a read from a state at `slot`: nothing newer may be known to anyone.
    pub fn read(&mut self, mon: MonId, slot: Slot) -> Check {
        self.reads += 1;
        if slot < self.last() {
            return Err(format!("{mon} reads at {slot} by its lease while {} is decided", self.last()));
        }
        Ok(())
    }
}
