//! Who leads: pre-vote, prepare, promise.

use std::collections::{BTreeMap, BTreeSet};

use cairn_types::MonId;

use crate::ballot::{Ballot, Slot};
use crate::canary_on;
use crate::command::Command;
use crate::effects::Notice;
use crate::membership::Standing;
use crate::message::Message;
use crate::node::{Node, OwnVote, Role};
use crate::state::{Accepted, Record};

/// Asking around before disturbing anyone.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PreVoting {
    granted: BTreeSet<MonId>,
    /// The furthest that anyone who granted has decided.
    furthest: Slot,
}

/// Phase 1 of a ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Campaign {
    pub(crate) ballot: Ballot,
    /// Who promised, and the slot above which the promise speaks.
    pub(crate) promises: BTreeMap<MonId, Slot>,
    /// The values found, each with the highest ballot it was found under.
    pub(crate) recovered: BTreeMap<Slot, (Ballot, Command)>,
    asked: BTreeSet<MonId>,
}

impl Node {
    /// Goes back to waiting: a leader has an election timeout from now to be heard.
    pub(crate) fn wait_for_leader(&mut self) {
        let next = self.state.decided.next();
        let rank = self.ledger.configs.at(next).and_then(|config| config.rank(self.id)).unwrap_or(0);
        let jitter = self.rng.below(self.timing.jitter);
        self.election_at = self.now + self.timing.election + self.timing.rank_step * rank + jitter;
    }

    /// Leaves whatever part it played.
    pub(crate) fn step_down(&mut self, following: Option<Ballot>) {
        let led = matches!(self.role, Role::Leader(_));
        let news = led || self.following.map(|b| b.leader) != following.map(|b| b.leader);
        self.role = Role::Follower;
        self.following = following;
        if news {
            self.relay = None;
            let leader = following.map(|ballot| ballot.leader);
            self.fx.notices.push(Notice::BecameFollower { leader });
            self.resubmit_pending();
        }
    }

    /// Whether a leader is heard here: the reason to refuse a pre-vote.
    fn hears_leader(&self) -> bool {
        match &self.role {
            _ if canary_on!(self, LeaseNotWaitedOut) => false,
            Role::Leader(_) => true,
            _ => self.following.is_some() && self.now.since(self.heard_at) < self.timing.election,
        }
    }

    /// The election timer has run out.
    pub(crate) fn election_tick(&mut self) {
        if self.following.is_some() || !matches!(self.role, Role::Follower) {
            self.step_down(None);
        }
        self.wait_for_leader();
        if self.standing() != Standing::Voter {
            // No vote, but news is wanted: of having been added, or of not being needed any more.
            self.ask_everyone_for_news();
            return;
        }
        self.attempt += 1;
        let mut voting = PreVoting::default();
        if !self.lease_forbids(self.id) {
            voting.granted.insert(self.id);
        }
        self.role = Role::PreVoting(voting);
        for peer in self.peers() {
            self.early(peer, Message::PreVote { attempt: self.attempt, decided: self.state.decided });
        }
        self.try_campaign();
    }

    /// Whether `mon` may stand: it votes on our next slot or will vote later, or we know no better.
    fn may_stand(&self, mon: MonId) -> bool {
        let configs = &self.ledger.configs;
        configs.newest().is_none() || configs.everyone().contains(&mon)
    }

    pub(crate) fn on_pre_vote(&mut self, from: MonId, attempt: u64, _decided: Slot) {
        let granted = !self.hears_leader() && !self.lease_forbids(from) && self.may_stand(from);
        let leader = if self.hears_leader() { self.leader() } else { None };
        let (promised, decided) = (self.state.promised, self.state.decided);
        self.early(from, Message::PreVoteReply { attempt, granted, promised, decided, leader });
    }

    pub(crate) fn on_pre_vote_reply(
        &mut self,
        from: MonId,
        attempt: u64,
        granted: bool,
        promised: Ballot,
        decided: Slot,
        leader: Option<MonId>,
    ) {
        self.round_seen = self.round_seen.max(promised.round);
        if attempt != self.attempt {
            return;
        }
        let Role::PreVoting(voting) = &mut self.role else { return };
        if granted {
            voting.granted.insert(from);
            voting.furthest = voting.furthest.max(decided);
        } else if leader.is_some() && leader != Some(self.id) && self.relay != Some(from) {
            // A leader lives that we do not hear: news and proposals go through the one that does.
            self.relay = Some(from);
            self.resubmit_pending();
        }
        if decided > self.state.decided {
            self.ask_for_entries(from);
        }
        self.try_campaign();
    }

    /// Campaigns once a majority would promise and nobody in it is ahead of us.
    pub(crate) fn try_campaign(&mut self) {
        let Role::PreVoting(voting) = &self.role else { return };
        let Some(config) = self.ledger.configs.at(self.state.decided.next()) else { return };
        let granted = config.members.intersection(&voting.granted).count();
        let behind = voting.furthest > self.state.decided && !canary_on!(self, PromiseSpeaksForDecided);
        if granted >= config.majority() && !behind {
            self.campaign();
        }
    }

    /// Opens a new ballot. The prepare leaves once the ballot is durable: a ballot used twice by a
    /// monitor that forgot it would mix the promises of two campaigns.
    pub(crate) fn campaign(&mut self) {
        if self.lease_forbids(self.id) {
            self.step_down(None);
            return;
        }
        let round = self.round_seen.max(self.state.promised.round) + 1;
        let ballot = Ballot { round, leader: self.id };
        self.round_seen = round;
        self.step_down(None);
        self.wait_for_leader();
        self.record(Record::Promise(ballot));
        let decided = self.state.decided;
        self.own_vote(OwnVote::Promise(ballot, decided));
        let recovered = self
            .state
            .accepted
            .range(decided.next()..)
            .map(|(slot, accepted)| (*slot, (accepted.ballot, accepted.command.clone())))
            .collect();
        self.role = Role::Candidate(Campaign {
            ballot,
            promises: BTreeMap::new(),
            recovered,
            asked: BTreeSet::new(),
        });
        self.ask_for_promises();
    }

    /// Sends the prepare to every member that was not asked yet.
    fn ask_for_promises(&mut self) {
        let peers = self.peers();
        let decided = self.state.decided;
        let Role::Candidate(campaign) = &mut self.role else { return };
        let ballot = campaign.ballot;
        let new: Vec<MonId> = peers.into_iter().filter(|peer| campaign.asked.insert(*peer)).collect();
        for peer in new {
            self.after(peer, Message::Prepare { ballot, decided });
        }
    }

    pub(crate) fn on_prepare(&mut self, from: MonId, ballot: Ballot, decided: Slot) {
        self.round_seen = self.round_seen.max(ballot.round);
        if ballot.leader != from {
            return;
        }
        let lessee = self.grants.lessee(self.now, from);
        if ballot < self.state.promised || self.lease_forbids(from) || !self.may_stand(from) {
            let promised = self.state.promised;
            self.early(from, Message::Reject { ballot, promised, lessee });
            return;
        }
        if ballot > self.state.promised {
            self.record(Record::Promise(ballot));
            self.step_down(None);
        }
        if self.following != Some(ballot) {
            // Time for the candidate to win before we try ourselves.
            self.wait_for_leader();
        }
        let accepted: Vec<Accepted> = if canary_on!(self, PromiseWithoutAccepted) {
            Vec::new()
        } else {
            self.state
                .accepted
                .range(self.state.decided.next()..)
                .map(|(_, accepted)| accepted.clone())
                .collect()
        };
        self.after(from, Message::Promise { ballot, decided: self.state.decided, accepted });
        if decided > self.state.decided {
            self.ask_for_entries(from);
        }
    }

    pub(crate) fn on_promise(&mut self, from: MonId, ballot: Ballot, decided: Slot, accepted: Vec<Accepted>) {
        self.count_promise(from, ballot, decided, accepted);
        if decided > self.state.decided {
            self.ask_for_entries(from);
        }
    }

    pub(crate) fn count_promise(
        &mut self,
        from: MonId,
        ballot: Ballot,
        decided: Slot,
        accepted: Vec<Accepted>,
    ) {
        let own_decided = self.state.decided;
        let lowest_wins = canary_on!(self, LowestBallotWins);
        let speaks_for_all = canary_on!(self, PromiseSpeaksForDecided);
        let (promises, recovered, first_open) = match &mut self.role {
            Role::Candidate(campaign) if campaign.ballot == ballot => {
                (&mut campaign.promises, &mut campaign.recovered, own_decided.next())
            }
            // A late promise counts for the slots not proposed yet.
            Role::Leader(lead) if lead.ballot == ballot => {
                (&mut lead.promises, &mut lead.recovered, lead.next_slot)
            }
            _ => return,
        };
        for found in accepted {
            if found.slot < first_open {
                continue;
            }
            let better = recovered.get(&found.slot).is_none_or(|(known, _)| {
                if lowest_wins { *known > found.ballot } else { *known < found.ballot }
            });
            if better {
                recovered.insert(found.slot, (found.ballot, found.command));
            }
        }
        // The same promise may come twice with the voter further on; the first one speaks for more.
        let speaks_above = if speaks_for_all { Slot::ZERO } else { decided };
        promises.entry(from).or_insert(speaks_above);
        match &mut self.role {
            Role::Leader(lead) => {
                let last = lead.recovered.keys().next_back().copied().unwrap_or_default();
                lead.recovered_upto = lead.recovered_upto.max(last);
                self.pump();
            }
            _ => self.try_lead(),
        }
    }

    /// Leads once a majority that votes on the next slot has promised for it.
    pub(crate) fn try_lead(&mut self) {
        if self.standing() != Standing::Voter {
            // Removed by what it learnt since it stood up.
            self.step_down(None);
            self.wait_for_leader();
            return;
        }
        self.ask_for_promises();
        let next = self.state.decided.next();
        let Role::Candidate(campaign) = &self.role else { return };
        if !self.majority_promised(&campaign.promises, next) {
            return;
        }
        let Role::Candidate(campaign) = std::mem::replace(&mut self.role, Role::Follower) else { return };
        self.lead(campaign);
    }

    /// Whether a majority of those who vote on `slot` promised, in promises that speak for it.
    pub(crate) fn majority_promised(&self, promises: &BTreeMap<MonId, Slot>, slot: Slot) -> bool {
        let Some(config) = self.ledger.configs.at(slot) else { return false };
        let count =
            config.members.iter().filter(|mon| promises.get(mon).is_some_and(|above| *above < slot)).count();
        count >= config.majority()
    }

    pub(crate) fn on_reject(&mut self, from: MonId, ballot: Ballot, promised: Ballot, lessee: Option<MonId>) {
        self.round_seen = self.round_seen.max(promised.round);
        let current = match &self.role {
            Role::Leader(lead) => lead.ballot,
            Role::Candidate(campaign) => campaign.ballot,
            _ => return,
        };
        if current != ballot {
            return;
        }
        let leads = matches!(self.role, Role::Leader(_));
        if promised > ballot && leads {
            if canary_on!(self, NeverPrepareAgain) {
                return;
            }
            if lessee.is_some() {
                // Someone else leads that voter: let the timers sort it out.
                self.step_down(None);
                self.wait_for_leader();
            } else {
                // A candidate got a promise and did not win: only a higher ballot reaches that voter again.
                self.campaign();
            }
        } else if promised > ballot {
            // Two candidates: the random timer decides who tries next.
            self.step_down(None);
            self.wait_for_leader();
        } else if !leads && lessee.is_none() {
            // Refused because the voter has just started, or does not know us as a member yet (or any
            // more): ask it for news and try again by timer.
            self.ask_for_entries_from(from);
        }
    }

    pub(crate) fn on_resign(&mut self, from: MonId, ballot: Ballot) {
        if ballot.leader != from {
            return;
        }
        self.grants.release(ballot);
        self.resigned = self.resigned.max(ballot);
        if self.following == Some(ballot) {
            self.step_down(None);
            let next = self.state.decided.next();
            let rank = self.ledger.configs.at(next).and_then(|config| config.rank(self.id)).unwrap_or(0);
            let jitter = self.rng.below(self.timing.rank_step);
            self.election_at = self.now + self.timing.rank_step * rank + jitter;
        }
    }
}
