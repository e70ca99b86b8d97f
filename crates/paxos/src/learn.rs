//! Decided entries for a monitor that lags.

use cairn_types::MonId;

use crate::ballot::Slot;
use crate::canary_on;
use crate::effects::Poison;
use crate::limits::{LEARN_BYTES_MAX, LEARN_ENTRIES_MAX};
use crate::membership::Standing;
use crate::message::Message;
use crate::node::{Node, Role};
use crate::state::{Accepted, Record};
use crate::timers::Moment;

/// A question under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Asked {
    whom: MonId,
    first: Slot,
    until: Moment,
}

impl Node {
    /// Asks `whom`, which knows more, unless a question is under way.
    pub(crate) fn ask_for_entries(&mut self, whom: MonId) {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.alive(self.now, self.timing.learn_retry)) {
            return;
        }
        let first = self.first_wanted();
        if self.asked.as_ref().is_some_and(|asked| asked.first == first && self.now < asked.until) {
            return;
        }
        self.ask_for_entries_from(whom);
    }

    pub(crate) fn ask_for_entries_from(&mut self, whom: MonId) {
        let first = self.first_wanted();
        self.asked = Some(Asked { whom, first, until: self.now + self.timing.learn_retry });
        self.early(whom, Message::LearnRequest { from: first });
    }

    pub(crate) fn ask_everyone_for_news(&mut self) {
        let first = self.first_wanted();
        for peer in self.peers() {
            self.early(peer, Message::LearnRequest { from: first });
        }
    }

    /// The next slot; slot 0, the full state, for a monitor that has none.
    fn first_wanted(&self) -> Slot {
        if self.standing() == Standing::Joining { Slot::ZERO } else { self.state.decided.next() }
    }

    pub(crate) fn on_learn_request(&mut self, from: MonId, first: Slot) {
        if self.standing() == Standing::Joining {
            return;
        }
        if first <= self.state.base.slot {
            self.offer_snapshot(from);
            return;
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        let decided = self.state.decided;
        if first <= decided {
            for accepted in self.state.accepted.range(first..=decided).map(|(_, accepted)| accepted) {
                if entries.len() >= LEARN_ENTRIES_MAX || bytes >= LEARN_BYTES_MAX {
                    break;
                }
                bytes += accepted.command.bytes();
                entries.push(accepted.clone());
            }
        }
        self.early(from, Message::Learn { entries, decided });
    }

    pub(crate) fn on_learn(&mut self, from: MonId, entries: Vec<Accepted>, decided: Slot) {
        if self.standing() == Standing::Joining {
            return;
        }
        let before = self.state.decided;
        for entry in entries {
            let next = self.state.decided.next();
            if entry.slot != next || entry.slot > decided {
                continue;
            }
            // A newer ballot decided a slot that we may have proposed something else in. Going on to lead
            // would tell followers that what they hold of our ballot is decided.
            let newer = matches!(&self.role, Role::Leader(lead) if lead.ballot < entry.ballot);
            if newer && !canary_on!(self, LeadPastNewerDecision) {
                self.step_down(None);
                self.wait_for_leader();
            }
            match self.state.accepted.get(&next) {
                // A value accepted in a ballot at or above the one it was decided in is the decided one.
                Some(held) if held.ballot >= entry.ballot => {
                    if held.command != entry.command {
                        self.poison(Poison::Diverged(next));
                        return;
                    }
                }
                // Durable together with the decision, so it never counts as a vote.
                _ => self.record(Record::Accept(entry)),
            }
            self.decide_next();
        }
        if self.state.decided > before {
            self.asked = None;
            self.after_progress();
            if decided > self.state.decided {
                self.ask_for_entries(from);
            }
        }
    }
}
