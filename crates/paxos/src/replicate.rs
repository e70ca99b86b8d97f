//! Phase 2: a leader gets slots decided, followers accept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cairn_types::MonId;

use crate::ballot::{Ballot, Slot};
use crate::canary_on;
use crate::command::{Command, Proposal, ProposalId};
use crate::effects::{Notice, Poison};
use crate::election::Campaign;
use crate::message::Message;
use crate::node::{Node, OwnVote, Role};
use crate::state::{Accepted, Record};
use crate::timers::Moment;

/// What a leader knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leadership {
    pub(crate) ballot: Ballot,
    /// Who promised, and the slot above which the promise speaks.
    pub(crate) promises: BTreeMap<MonId, Slot>,
    /// Values found in promises that are not proposed again yet.
    pub(crate) recovered: BTreeMap<Slot, (Ballot, Command)>,
    /// The last slot in which a value was found: no reads before it is decided.
    pub(crate) recovered_upto: Slot,
    pub(crate) next_slot: Slot,
    /// Slots proposed and not decided.
    pub(crate) open: BTreeMap<Slot, Open>,
    /// Proposals without a slot.
    pub(crate) queue: VecDeque<Proposal>,
    pub(crate) queued: BTreeSet<ProposalId>,
    pub(crate) queue_bytes: usize,
    /// Per member, when the latest message it answered was sent.
    pub(crate) heard: BTreeMap<MonId, Moment>,
    /// Since when it leads.
    since: Moment,
    pub(crate) beat_at: Moment,
    /// A sign of life is due, with resends.
    beat_due: bool,
    /// First slot not sent to anyone yet.
    unsent: Slot,
    /// The decided slot that was last told.
    told: Slot,
}

/// A slot under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Open {
    pub(crate) voters: BTreeSet<MonId>,
    /// For the canary that counts answers instead of members.
    #[cfg(any(test, feature = "canary"))]
    pub(crate) answers: usize,
    sent_at: Moment,
}

impl Leadership {
    /// Takes the next proposal from the queue. Void ones are left out: their origins see the log pass
    /// their window.
    fn next_queued(&mut self, void: impl Fn(&Proposal) -> bool) -> Option<Proposal> {
        loop {
            let proposal = self.queue.pop_front()?;
            self.queued.remove(&proposal.id);
            self.queue_bytes -= proposal.request.bytes();
            if !void(&proposal) {
                return Some(proposal);
            }
        }
    }
}

impl Node {
    /// Phase 1 is won.
    pub(crate) fn lead(&mut self, mut campaign: Campaign) {
        let decided = self.state.decided;
        campaign.recovered = campaign.recovered.split_off(&decided.next());
        let recovered_upto = campaign.recovered.keys().next_back().copied().unwrap_or_default();
        if canary_on!(self, IgnoreRecovered) {
            campaign.recovered.clear();
        }
        let ballot = campaign.ballot;
        self.role = Role::Leader(Leadership {
            ballot,
            promises: campaign.promises,
            recovered: campaign.recovered,
            recovered_upto,
            next_slot: decided.next(),
            open: BTreeMap::new(),
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            queue_bytes: 0,
            heard: BTreeMap::new(),
            since: self.now,
            beat_at: self.now + self.timing.heartbeat,
            beat_due: true,
            unsent: decided.next(),
            told: decided,
        });
        self.following = None;
        self.relay = None;
        self.fx.notices.push(Notice::BecameLeader { ballot });
        self.resubmit_pending();
        self.pump();
    }

    /// Whether slot may be proposed: it is within the pipeline, we vote on it, and enough members
    /// promised for it.
    pub(crate) fn may_propose_at(&self, lead: &Leadership, slot: Slot) -> bool {
        slot <= self.state.decided.plus(self.ledger.params.alpha)
            && self.ledger.configs.at(slot).is_some_and(|config| config.contains(self.id))
            && self.majority_promised(&lead.promises, slot)
    }

    /// Puts commands into slots while it may.
    pub(crate) fn pump(&mut self) {
        loop {
            let fill_to = self.fill_to();
            let Role::Leader(lead) = &self.role else { return };
            let slot = lead.next_slot;
            if !self.may_propose_at(lead, slot) {
                return;
            }
            let Role::Leader(lead) = &mut self.role else { return };
            let command = if let Some((_, command)) = lead.recovered.remove(&slot) {
                command
            } else if lead.recovered.keys().next_back().is_some_and(|last| *last > slot) {
                Command::Noop
            } else if let Some(proposal) = lead.next_queued(|proposal| self.ledger.expired(proposal.born)) {
                Command::Proposal(proposal)
            } else if slot <= fill_to {
                Command::Noop
            } else {
                return;
            };
            lead.next_slot = slot.next();
            let open = Open {
                voters: BTreeSet::new(),
                #[cfg(any(test, feature = "canary"))]
                answers: 0,
                sent_at: self.now,
            };
            lead.open.insert(slot, open);
            let ballot = lead.ballot;
            self.record(Record::Accept(Accepted { slot, ballot, command }));
            self.own_vote(OwnVote::Accept(ballot, slot));
        }
    }

    /// A membership change is complete when the slots up to here are decided: those before its start
    /// by the old members, and alpha more so that a removed member knows that it is not needed. A
    /// quiet leader fills them with no-ops.
    pub(crate) fn fill_to(&self) -> Slot {
        match self.ledger.configs.newest() {
            Some((from, _)) if from > Slot(1) => Slot(from.0 - 1 + self.ledger.params.alpha),
            _ => Slot::ZERO,
        }
    }

    pub(crate) fn leader_tick(&mut self) {
        let election = self.timing.election;
        let config = self.ledger.configs.at(self.state.decided.next());
        let Role::Leader(lead) = &mut self.role else { return };
        if self.now < lead.beat_at {
            return;
        }
        let heard = config.and_then(|config| config.reached_by_majority(|mon| lead.heard.get(&mon).copied()));
        if self.now.since(heard.unwrap_or_default().max(lead.since)) > election {
            // Nobody could tell that we still lead: let the others elect someone they hear.
            let alone = config.is_some_and(|config| config.members.len() == 1);
            if !alone {
                self.step_down(None);
                self.wait_for_leader();
                return;
            }
        }
        let Role::Leader(lead) = &mut self.role else { return };
        lead.beat_at = self.now + self.timing.heartbeat;
        lead.beat_due = true;
        let (ballot, decided) = (lead.ballot, self.state.decided);
        let silent: Vec<MonId> = self.peers().into_iter().filter(|peer| !self.has_promised(*peer)).collect();
        for peer in silent {
            // New members have not promised yet, and old ones may have missed the prepare.
            self.early(peer, Message::Prepare { ballot, decided });
        }
    }

    fn has_promised(&self, peer: MonId) -> bool {
        matches!(&self.role, Role::Leader(lead) if lead.promises.contains_key(&peer))
    }

    /// Sends what gathered since the last time, once per member however many events it was.
    pub(crate) fn broadcast(&mut self) {
        let (decided, hash, now, resend) =
            (self.state.decided, self.ledger.hash, self.now, self.timing.heartbeat);
        let peers = self.peers();
        let Role::Leader(lead) = &mut self.role else { return };
        let fresh = lead.unsent..lead.next_slot;
        if !lead.beat_due && fresh.is_empty() && lead.told == decided {
            return;
        }
        let beat = std::mem::take(&mut lead.beat_due);
        lead.unsent = lead.next_slot;
        lead.told = decided;
        let due = |open: &Open| beat && now.since(open.sent_at) >= resend;
        for peer in peers {
            let entries = lead
                .open
                .iter()
                .filter(|(slot, open)| fresh.contains(slot) || (due(open) && !open.voters.contains(&peer)))
                .filter_map(|(slot, _)| Some((*slot, self.state.accepted.get(slot)?.command.clone())))
                .collect();
            let message = Message::Accept { ballot: lead.ballot, stamp: now, decided, hash, entries };
            self.fx.early.push(crate::Send { to: peer, message });
        }
        for open in lead.open.values_mut().filter(|open| due(open)) {
            open.sent_at = now;
        }
        // The leader's own undertaking, which counts like any other.
        lead.heard.insert(self.id, now);
        self.grants.grant(now, lead.ballot, now + self.timing.lease);
    }

    pub(crate) fn on_accept(
        &mut self,
        from: MonId,
        ballot: Ballot,
        stamp: Moment,
        decided: Slot,
        hash: u64,
        entries: Vec<(Slot, Command)>,
    ) {
        self.round_seen = self.round_seen.max(ballot.round);
        if ballot.leader != from {
            return;
        }
        if ballot < self.state.promised && !canary_on!(self, AcceptOldBallot) {
            let promised = self.state.promised;
            let lessee = self.grants.lessee(self.now, from);
            self.early(from, Message::Reject { ballot, promised, lessee });
            return;
        }
        if ballot == self.resigned {
            self.decide_by_leader(ballot, decided);
            return;
        }
        if ballot > self.state.promised {
            self.record(Record::Promise(ballot));
        }
        if self.following != Some(ballot) || !matches!(self.role, Role::Follower) {
            self.step_down(Some(ballot));
        }
        self.heard_at = self.now;
        self.wait_for_leader();
        self.grants.grant(self.now, ballot, self.now + self.timing.lease);
        self.decide_by_leader(ballot, decided);
        let mut slots = Vec::with_capacity(entries.len());
        for (slot, command) in entries {
            // Decided slots need no vote: the leader learns them from us. Slots beyond alpha would
            // break the rule that lets a removed member go; the leader sends them again.
            if slot <= self.state.decided || slot > self.state.decided.plus(self.ledger.params.alpha) {
                continue;
            }
            if self.state.accepted.get(&slot).is_none_or(|held| held.ballot != ballot) {
                self.record(Record::Accept(Accepted { slot, ballot, command }));
            }
            slots.push(slot);
        }
        self.decide_by_leader(ballot, decided);
        let reply = Message::Accepted { ballot, stamp, decided: self.state.decided, slots };
        if canary_on!(self, AckBeforePersist) {
            self.early(from, reply);
        } else {
            self.after(from, reply);
        }
        if decided > self.state.decided {
            self.ask_for_entries(from);
        } else if decided == self.state.decided && hash != self.ledger.hash {
            self.poison(Poison::Diverged(decided));
        }
    }

    /// A leader says that everything up to `decided` is decided. What we accepted in its own ballot is
    /// then the decided value; what we accepted in an older one may not be.
    fn decide_by_leader(&mut self, ballot: Ballot, decided: Slot) {
        let before = self.state.decided;
        while self.state.decided < decided {
            let next = self.state.decided.next();
            let Some(held) = self.state.accepted.get(&next) else { break };
            if held.ballot != ballot && !canary_on!(self, DecideByIndex) {
                break;
            }
            self.decide_next();
        }
        if self.state.decided > before {
            self.after_progress();
        }
    }

    pub(crate) fn on_accepted(
        &mut self,
        from: MonId,
        ballot: Ballot,
        stamp: Moment,
        decided: Slot,
        slots: &[Slot],
    ) {
        let Role::Leader(lead) = &mut self.role else { return };
        // A stamp from the future is not ours.
        if lead.ballot != ballot || stamp > self.now {
            return;
        }
        #[cfg(any(test, feature = "canary"))]
        let stamp = if self.canary == Some(crate::Canary::LeaseFromArrival) { self.now } else { stamp };
        let heard = lead.heard.entry(from).or_default();
        *heard = stamp.max(*heard);
        self.count_votes(from, ballot, slots);
        if decided > self.state.decided {
            self.ask_for_entries(from);
        }
    }

    pub(crate) fn count_votes(&mut self, from: MonId, ballot: Ballot, slots: &[Slot]) {
        let Role::Leader(lead) = &mut self.role else { return };
        if lead.ballot != ballot {
            return;
        }
        for slot in slots {
            if let Some(open) = lead.open.get_mut(slot) {
                open.voters.insert(from);
                #[cfg(any(test, feature = "canary"))]
                {
                    open.answers += 1;
                }
            }
        }
        self.tally();
    }

    /// Decides the next slots while a majority of those who vote on them has accepted.
    fn tally(&mut self) {
        let before = self.state.decided;
        loop {
            let next = self.state.decided.next();
            let Role::Leader(lead) = &self.role else { break };
            let Some(open) = lead.open.get(&next) else { break };
            let mut config = self.ledger.configs.at(next);
            if canary_on!(self, NewestMembershipCounts) {
                config = self.ledger.configs.newest().map(|(_, newest)| newest);
            }
            let Some(config) = config else { break };
            #[cfg_attr(not(any(test, feature = "canary")), allow(unused_mut))]
            let mut count = config.members.intersection(&open.voters).count();
            #[cfg(any(test, feature = "canary"))]
            if self.canary == Some(crate::Canary::CountMemberTwice) {
                count = open.answers;
            }
            if count < config.majority() {
                break;
            }
            self.decide_next();
        }
        if self.state.decided > before {
            self.after_progress();
        }
    }

    /// The decided slot moved while we lead, by votes or because someone else knew more.
    pub(crate) fn leader_progress(&mut self) {
        let decided = self.state.decided;
        let votes = self.ledger.configs.at(decided.next()).is_some_and(|config| config.contains(self.id));
        let Role::Leader(lead) = &mut self.role else { return };
        lead.open = lead.open.split_off(&decided.next());
        lead.recovered = lead.recovered.split_off(&decided.next());
        lead.next_slot = lead.next_slot.max(decided.next());
        lead.unsent = lead.unsent.max(decided.next()).min(lead.next_slot);
        if votes {
            self.pump();
        } else {
            // We were removed and have led the log to the end of our time.
            self.resign();
        }
    }

    /// Lays down the ballot, so that nobody has to wait for the lease.
    pub(crate) fn resign(&mut self) {
        let Role::Leader(lead) = &self.role else { return };
        let (ballot, stamp) = (lead.ballot, self.now);
        let (decided, hash) = (self.state.decided, self.ledger.hash);
        for peer in self.peers() {
            self.early(peer, Message::Accept { ballot, stamp, decided, hash, entries: Vec::new() });
            self.early(peer, Message::Resign { ballot });
        }
        self.step_down(None);
        self.grants.release(ballot);
        self.wait_for_leader();
    }
}
