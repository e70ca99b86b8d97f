//! Proposals from caller to outcome. The monitor where a proposal was made tracks it until the log
//! tells what became of it; the leader only gives it a slot.

use std::collections::BTreeMap;

use cairn_types::MonId;

use crate::ballot::Slot;
use crate::canary_on;
use crate::command::{Proposal, ProposalId, Request};
use crate::effects::{Outcome, Refused};
use crate::limits::{
    FORWARD_HOPS_MAX, PAYLOAD_BYTES_MAX, PENDING_BYTES_MAX, PENDING_ENTRIES_MAX, QUEUE_BYTES_MAX,
    QUEUE_ENTRIES_MAX,
};
use crate::membership::Standing;
use crate::message::Message;
use crate::node::{Node, Role};
use crate::timers::Moment;

/// Proposals made here that have no outcome yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Pending {
    entries: BTreeMap<ProposalId, Tracked>,
    bytes: usize,
    /// Until then the leader is taken to be busy.
    busy_until: Moment,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Tracked {
    proposal: Proposal,
    deadline: Moment,
    retry_at: Moment,
}

impl Pending {
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.entries.values().map(|tracked| tracked.retry_at.min(tracked.deadline)).min()
    }

    pub(crate) fn drain(&mut self) -> Vec<ProposalId> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_keys().collect()
    }

    fn remove(&mut self, id: ProposalId) -> bool {
        let Some(tracked) = self.entries.remove(&id) else { return false };
        self.bytes -= tracked.proposal.request.bytes();
        true
    }
}

impl Node {
    pub(crate) fn outcome(&mut self, id: ProposalId, outcome: Outcome) {
        self.fx.outcomes.push((id, outcome));
    }

    /// The log tells what became of `id`; the caller hears it if it asked here.
    pub(crate) fn settle(&mut self, id: ProposalId, outcome: Outcome) {
        if self.pending.remove(id) {
            self.outcome(id, outcome);
        }
    }

    pub(crate) fn on_propose(&mut self, id: ProposalId, born: Slot, request: Request) {
        if let Some(outcome) = self.known_outcome(id, born) {
            self.outcome(id, outcome);
            return;
        }
        if self.pending.entries.contains_key(&id) {
            return;
        }
        let refused = if !matches!(self.standing(), Standing::Voter | Standing::Learner) {
            Some(Refused::NotServing)
        } else if request.bytes() > PAYLOAD_BYTES_MAX {
            Some(Refused::TooLarge)
        } else if born > self.state.decided {
            Some(Refused::BornInFuture)
        } else if self.pending.entries.len() >= PENDING_ENTRIES_MAX
            || self.pending.bytes + request.bytes() > PENDING_BYTES_MAX
            || self.now < self.pending.busy_until
            || !self.queue_has_room(request.bytes())
        {
            Some(Refused::Busy)
        } else {
            None
        };
        if let Some(refused) = refused {
            self.outcome(id, Outcome::Refused(refused));
            return;
        }
        let proposal = Proposal { id, born, request };
        if canary_on!(self, DropProposals) {
            self.submit(proposal);
            return;
        }
        self.pending.bytes += proposal.request.bytes();
        let deadline = self.now + self.timing.proposal;
        let retry_at = self.now + self.timing.forward_retry;
        self.pending.entries.insert(id, Tracked { proposal: proposal.clone(), deadline, retry_at });
        self.submit(proposal);
    }

    /// The outcome of a proposal as far as the ledger tells.
    fn known_outcome(&self, id: ProposalId, born: Slot) -> Option<Outcome> {
        if let Some(recent) = self.ledger.find(id) {
            let slot = recent.slot;
            return Some(match recent.refused {
                Some(reason) => Outcome::ChangeRefused { slot, reason },
                None => Outcome::Decided { slot },
            });
        }
        if !self.ledger.expired(born) {
            return None;
        }
        // The ids of all slots in which it could stand are still there only for one slot after its window.
        let all_known = self.ledger.slot <= born.plus(self.ledger.params.window);
        Some(if all_known { Outcome::Lost } else { Outcome::Forgotten })
    }

    fn queue_has_room(&self, bytes: usize) -> bool {
        match &self.role {
            Role::Leader(lead) => {
                lead.queue.len() < QUEUE_ENTRIES_MAX && lead.queue_bytes + bytes <= QUEUE_BYTES_MAX
            }
            _ => true,
        }
    }

    /// Brings a proposal one step nearer to the log, if there is a way.
    fn submit(&mut self, proposal: Proposal) {
        if matches!(self.role, Role::Leader(_)) {
            self.enqueue(proposal);
        } else if let Some(to) = self.following.map(|ballot| ballot.leader).or(self.relay) {
            self.early(to, Message::Forward { origin: self.id, hops: 0, proposal });
        }
    }

    /// Queues a proposal at the leader; `false` if there is no room.
    fn enqueue(&mut self, proposal: Proposal) -> bool {
        let id = proposal.id;
        let known = self.ledger.find(id).is_some() || self.ledger.expired(proposal.born);
        let open = self.state.accepted.range(self.state.decided.next()..);
        let open = open.map(|(_, accepted)| accepted.command.id()).any(|held| held == Some(id));
        let room = self.queue_has_room(proposal.request.bytes());
        let Role::Leader(lead) = &mut self.role else { return true };
        if known || open || lead.queued.contains(&id) {
            // Whoever asks hears from the log.
            return true;
        }
        if !room {
            return false;
        }
        lead.queued.insert(id);
        lead.queue_bytes += proposal.request.bytes();
        lead.queue.push_back(proposal);
        self.pump();
        true
    }

    pub(crate) fn on_forward(&mut self, origin: MonId, hops: u8, proposal: Proposal) {
        // Bounds were checked where it was made, by a monitor that may be mistaken.
        if proposal.request.bytes() > PAYLOAD_BYTES_MAX {
            return;
        }
        let id = proposal.id;
        match (&self.role, self.following) {
            (Role::Leader(_), _) => {
                let taken = self.enqueue(proposal);
                if !taken {
                    self.early(origin, Message::Busy { id });
                }
            }
            (Role::Follower, Some(ballot)) if hops < FORWARD_HOPS_MAX => {
                self.early(ballot.leader, Message::Forward { origin, hops: hops + 1, proposal });
            }
            // No way from here: the origin tracks it and tries again.
            _ => {}
        }
    }

    pub(crate) fn on_busy(&mut self, id: ProposalId) {
        if let Some(tracked) = self.pending.entries.get_mut(&id) {
            tracked.retry_at = self.now + self.timing.forward_retry;
            self.pending.busy_until = self.now + self.timing.heartbeat;
        }
    }

    /// The way to the leader changed: everything that waits takes the new one at once.
    pub(crate) fn resubmit_pending(&mut self) {
        if self.following.is_none() && self.relay.is_none() && !matches!(self.role, Role::Leader(_)) {
            return;
        }
        let retry_at = self.now + self.timing.forward_retry;
        let again: Vec<Proposal> = self
            .pending
            .entries
            .values_mut()
            .map(|tracked| {
                tracked.retry_at = retry_at;
                tracked.proposal.clone()
            })
            .collect();
        for proposal in again {
            self.submit(proposal);
        }
    }

    pub(crate) fn pending_tick(&mut self) {
        let now = self.now;
        let over: Vec<ProposalId> = self
            .pending
            .entries
            .iter()
            .filter(|(_, tracked)| tracked.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.settle(id, Outcome::Uncertain);
        }
        let retry_at = now + self.timing.forward_retry;
        let mut again = Vec::new();
        for tracked in self.pending.entries.values_mut().filter(|tracked| tracked.retry_at <= now) {
            tracked.retry_at = retry_at;
            again.push(tracked.proposal.clone());
        }
        for proposal in again {
            self.submit(proposal);
        }
    }

    /// After the decided slot moved entry by entry: proposals whose window the log has passed are lost
    /// for certain, since each decided one got its outcome on the way.
    pub(crate) fn expire_pending(&mut self) {
        let ledger = &self.ledger;
        let lost = |tracked: &Tracked| ledger.expired(tracked.proposal.born);
        let over: Vec<ProposalId> =
            self.pending.entries.iter().filter(|(_, tracked)| lost(tracked)).map(|(id, _)| *id).collect();
        for id in over {
            self.settle(id, Outcome::Lost);
        }
    }

    /// After a full state was installed: slots we never saw may hold proposals made here.
    pub(crate) fn settle_by_recent(&mut self) {
        let settled: Vec<(ProposalId, Outcome)> = self
            .pending
            .entries
            .values()
            .filter_map(|tracked| {
                Some((tracked.proposal.id, self.known_outcome(tracked.proposal.id, tracked.proposal.born)?))
            })
            .collect();
        for (id, outcome) in settled {
            self.settle(id, outcome);
        }
    }
}
