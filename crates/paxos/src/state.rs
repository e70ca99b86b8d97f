//! What a monitor keeps on disk, as plain data, and the one way it changes: record by record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cairn_types::MonId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ballot::{Ballot, Slot};
use crate::command::{Change, Command, Payload, Proposal, ProposalId, Request};
use crate::hash::Fnv;
use crate::limits::{ALPHA_DEFAULT, ALPHA_MAX, WINDOW_DEFAULT};
use crate::membership::{ChangeRefused, Configs, Membership};

/// Constants of one log, set when it is made and the same at every monitor because they travel
/// with the state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Params {
    /// Slots that may be open at once; a membership change decided in slot i votes from i + alpha.
    /// 1 to [`ALPHA_MAX`].
    pub alpha: u64,
    /// Slots for which ids are remembered, and after which an undecided proposal is void. At least 1.
    pub window: u64,
}

impl Default for Params {
    fn default() -> Self {
        Params { alpha: ALPHA_DEFAULT, window: WINDOW_DEFAULT }
    }
}

/// A command in a slot with the ballot it was accepted in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// Where.
    pub slot: Slot,
    /// Under which ballot.
    pub ballot: Ballot,
    /// What.
    pub command: Command,
}

/// A proposal that was decided lately.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Recent {
    /// Where.
    pub slot: Slot,
    /// Which.
    pub id: ProposalId,
    /// Set if it was a membership change that could not be made.
    pub refused: Option<ChangeRefused>,
}

/// What the log knows after a prefix of its slots, apart from the application's state. A function of
/// the prefix alone: equal at every monitor that stands at the same slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// The last slot of the prefix.
    pub slot: Slot,
    /// Hash over the prefix.
    pub hash: u64,
    /// The constants of the log.
    pub params: Params,
    /// Who votes on the slots above.
    pub configs: Configs,
    /// The proposals of the last window, oldest first.
    pub recent: VecDeque<Recent>,
}

/// What a decided slot means to the application.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Applied {
    /// Nothing to do.
    Noop,
    /// Apply this command, now, once.
    Command {
        /// The proposal.
        id: ProposalId,
        /// Its bytes.
        payload: Payload,
    },
    /// The membership changed.
    Changed {
        /// The proposal.
        id: ProposalId,
        /// What changes.
        change: Change,
        /// First slot the new membership votes on.
        from: Slot,
        /// The new membership.
        membership: Membership,
    },
    /// A membership change that did nothing.
    ChangeRefused {
        /// The proposal.
        id: ProposalId,
        /// Why.
        reason: ChangeRefused,
    },
    /// The proposal was already decided in an earlier slot: nothing to do.
    Repeat {
        /// The proposal.
        id: ProposalId,
        /// Where it counts.
        first: Slot,
    },
    /// The proposal came too late and is void: nothing to do.
    Expired {
        /// The proposal.
        id: ProposalId,
    },
}

impl Ledger {
    fn new(configs: Configs, params: Params) -> Self {
        Ledger { slot: Slot::ZERO, hash: Fnv::new().finish(), params, configs, recent: VecDeque::new() }
    }

    /// Where `id` was decided, if that was within the window.
    #[must_use]
    pub fn find(&self, id: ProposalId) -> Option<&Recent> {
        self.recent.iter().find(|recent| recent.id == id)
    }

    /// Whether a proposal born at `born` would be void in the next slot, and so for ever.
    #[must_use]
    pub fn expired(&self, born: Slot) -> bool {
        self.slot.next() > born.plus(self.params.window)
    }

    /// Takes the command of the next slot. `repeat_allowed` is the test switch that breaks the
    /// promise to apply once.
    pub(crate) fn advance(&mut self, command: &Command, repeat_allowed: bool) -> Applied {
        let slot = self.slot.next();
        self.hash = command.fold(Fnv::new().number(self.hash).number(slot.0)).finish();
        let applied = match command {
            Command::Noop => Applied::Noop,
            Command::Proposal(proposal) => self.settle(slot, proposal, repeat_allowed),
        };
        self.slot = slot;
        // A proposal born at b is void above b + window, and its first copy stands above b: an id
        // that is older than the window cannot come again.
        while self.recent.front().is_some_and(|recent| recent.slot.plus(self.params.window) <= slot) {
            self.recent.pop_front();
        }
        self.configs.forget_before(slot);
        applied
    }

    fn settle(&mut self, slot: Slot, proposal: &Proposal, repeat_allowed: bool) -> Applied {
        let id = proposal.id;
        if let Some(first) = self.find(id)
            && !repeat_allowed
        {
            return Applied::Repeat { id, first: first.slot };
        }
        // A proposal cannot be born later than it is decided; if one says so it is as void as an old one.
        if self.expired(proposal.born) || proposal.born >= slot {
            return Applied::Expired { id };
        }
        let (refused, applied) = match &proposal.request {
            Request::App(payload) => (None, Applied::Command { id, payload: payload.clone() }),
            Request::Change(change) => match self.configs.change(slot, self.params.alpha, *change) {
                Ok(from) => {
                    let membership = self.configs.at(from).cloned().unwrap_or_default();
                    (None, Applied::Changed { id, change: *change, from, membership })
                }
                Err(reason) => (Some(reason), Applied::ChangeRefused { id, reason }),
            },
        };
        self.recent.push_back(Recent { slot, id, refused });
        applied
    }
}

/// One durable change. Records of a batch become durable together or not at all, and batches in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The promised ballot rises.
    Promise(Ballot),
    /// A slot's accepted value is set or replaced.
    Accept(Accepted),
    /// Everything up to here is decided, and the accepted values up to here are the decided ones.
    Decide(Slot),
    /// Entries up to the ledger's slot are dropped.
    Trim(Box<Ledger>),
    /// The state of the application is replaced as a whole. The driver makes `state` durable in the
    /// same batch.
    Install {
        /// What the log knows there.
        ledger: Box<Ledger>,
        /// The application's state there.
        state: Payload,
    },
}

/// The durable state of a monitor: the fold of its records.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DurableState {
    /// No lower ballot is promised or accepted.
    pub promised: Ballot,
    /// Accepted values above the base.
    pub accepted: BTreeMap<Slot, Accepted>,
    /// Everything up to here is decided.
    pub decided: Slot,
    /// The prefix that is no longer held as entries.
    pub base: Ledger,
}

/// Why a durable state cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StateError {
    /// Decided ends before the base.
    #[error(
        "the log is trimmed to {base} but decided only to {decided}; restore this monitor's disk or replace the monitor"
    )]
    DecidedBelowBase {
        /// End of the trimmed prefix.
        base: Slot,
        /// End of the decided prefix.
        decided: Slot,
    },
    /// A decided entry is missing.
    #[error("the log says {decided} is decided but holds no entry for {missing}; replace the monitor")]
    Gap {
        /// End of the decided prefix.
        decided: Slot,
        /// The hole.
        missing: Slot,
    },
    /// An entry that should be trimmed or was never promised, or under the wrong key.
    #[error("the log's entry at {slot} does not belong there; replace the monitor")]
    StrayEntry {
        /// Where.
        slot: Slot,
    },
    /// The application stands where the log cannot bring it forward from.
    #[error("the application's state stands at {applied}, outside {base} to {decided} of the log")]
    AppliedOutside {
        /// Where the application stands.
        applied: Slot,
        /// First slot it could stand at.
        base: Slot,
        /// Last slot it could stand at.
        decided: Slot,
    },
    /// Constants out of range.
    #[error("alpha must be 1 to {ALPHA_MAX} and the window at least 1")]
    Params,
    /// A new log with no members.
    #[error("a new log needs at least one member")]
    NoMembers,
}

impl DurableState {
    /// The first state of a new log; the same at every founding member.
    pub fn bootstrap(members: BTreeSet<MonId>, params: Params) -> Result<Self, StateError> {
        if members.is_empty() {
            return Err(StateError::NoMembers);
        }
        if params.alpha == 0 || params.alpha > ALPHA_MAX || params.window == 0 {
            return Err(StateError::Params);
        }
        Ok(Self::with_base(Ledger::new(Configs::initial(members), params)))
    }

    /// The state of a monitor that will be added to a running log.
    #[must_use]
    pub fn joining() -> Self {
        Self::with_base(Ledger::new(Configs::default(), Params::default()))
    }

    fn with_base(base: Ledger) -> Self {
        DurableState { promised: Ballot::default(), accepted: BTreeMap::new(), decided: Slot::ZERO, base }
    }

    /// Applies one record: what a driver does with the records it finds on disk, in their order.
    pub fn absorb(&mut self, record: &Record) {
        match record {
            Record::Promise(ballot) => self.promised = (*ballot).max(self.promised),
            Record::Accept(accepted) => {
                self.accepted.insert(accepted.slot, accepted.clone());
            }
            Record::Decide(slot) => self.decided = (*slot).max(self.decided),
            Record::Trim(ledger) => self.rebase(ledger),
            Record::Install { ledger, .. } => {
                self.decided = self.decided.max(ledger.slot);
                self.rebase(ledger);
            }
        }
    }

    fn rebase(&mut self, ledger: &Ledger) {
        self.base = ledger.clone();
        self.accepted = self.accepted.split_off(&ledger.slot.next());
    }

    /// The ledger at `slot`, which must be between base and decided; `None` otherwise.
    pub(crate) fn ledger_at(&self, slot: Slot) -> Option<Ledger> {
        if slot < self.base.slot || slot > self.decided {
            return None;
        }
        let mut ledger = self.base.clone();
        while ledger.slot < slot {
            let next = self.accepted.get(&ledger.slot.next())?;
            ledger.advance(&next.command, false);
        }
        Some(ledger)
    }

    /// Checks what must hold of every state that the records of this crate can make.
    pub fn check(&self) -> Result<(), StateError> {
        let params = self.base.params;
        if params.alpha == 0 || params.alpha > ALPHA_MAX || params.window == 0 {
            return Err(StateError::Params);
        }
        if self.decided < self.base.slot {
            return Err(StateError::DecidedBelowBase { base: self.base.slot, decided: self.decided });
        }
        for (slot, accepted) in &self.accepted {
            if *slot != accepted.slot || *slot <= self.base.slot {
                return Err(StateError::StrayEntry { slot: *slot });
            }
        }
        let mut expected = self.base.slot;
        for slot in self.accepted.range(..=self.decided).map(|(slot, _)| *slot) {
            expected = expected.next();
            if slot != expected {
                return Err(StateError::Gap { decided: self.decided, missing: expected });
            }
        }
        if expected != self.decided {
            return Err(StateError::Gap { decided: self.decided, missing: expected.next() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> DurableState {
        let params = Params { alpha: 4, window: 3 };
        DurableState::bootstrap([MonId(1)].into(), params).expect("a sound bootstrap")
    }

    fn proposal(seq: u64, born: u64) -> Command {
        let id = ProposalId { session: 1, seq };
        Command::Proposal(Proposal { id, born: Slot(born), request: Request::App(Payload::from(&b"x"[..])) })
    }

    fn accept(state: &mut DurableState, slot: u64, command: Command) {
        let ballot = Ballot { round: 1, leader: MonId(1) };
        state.absorb(&Record::Accept(Accepted { slot: Slot(slot), ballot, command }));
    }

    #[test]
    fn an_id_counts_once_and_not_after_its_window() {
        let mut ledger = state().base;
        let id = ProposalId { session: 1, seq: 1 };
        assert!(matches!(ledger.advance(&proposal(1, 0), false), Applied::Command { .. }));
        assert_eq!(ledger.advance(&proposal(1, 0), false), Applied::Repeat { id, first: Slot(1) });
        assert_eq!(ledger.advance(&Command::Noop, false), Applied::Noop);
        // Still remembered one slot after its window, and void from there on.
        assert_eq!(ledger.advance(&proposal(1, 0), false), Applied::Repeat { id, first: Slot(1) });
        assert_eq!(ledger.advance(&proposal(1, 0), false), Applied::Expired { id });
        assert!(ledger.recent.is_empty());
        let future = ProposalId { session: 1, seq: 2 };
        assert_eq!(ledger.advance(&proposal(2, 9), false), Applied::Expired { id: future });
    }

    #[test]
    fn a_state_with_a_hole_is_refused() {
        let mut state = state();
        accept(&mut state, 1, Command::Noop);
        accept(&mut state, 3, Command::Noop);
        state.absorb(&Record::Decide(Slot(3)));
        assert_eq!(state.check(), Err(StateError::Gap { decided: Slot(3), missing: Slot(2) }));
        accept(&mut state, 2, Command::Noop);
        assert_eq!(state.check(), Ok(()));
        state.absorb(&Record::Decide(Slot(4)));
        assert_eq!(state.check(), Err(StateError::Gap { decided: Slot(4), missing: Slot(4) }));
    }

    #[test]
    fn trimming_keeps_the_hash_and_the_rest() {
        let mut state = state();
        for slot in 1..=4 {
            accept(&mut state, slot, proposal(slot, slot - 1));
        }
        state.absorb(&Record::Decide(Slot(4)));
        let whole = state.ledger_at(Slot(4)).expect("decided");
        let at_two = state.ledger_at(Slot(2)).expect("decided");
        state.absorb(&Record::Trim(Box::new(at_two)));
        assert_eq!(state.check(), Ok(()));
        assert_eq!(state.accepted.len(), 2);
        assert_eq!(state.ledger_at(Slot(4)), Some(whole));
        assert_eq!(state.ledger_at(Slot(1)), None);
    }
}
