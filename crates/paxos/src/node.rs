//! One monitor: its state, its events, its timers.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use cairn_types::MonId;

use crate::ballot::{Ballot, Slot};
#[cfg(any(test, feature = "canary"))]
use crate::canary::Canary;
use crate::canary_on;
use crate::catchup::{Incoming, Outgoing};
use crate::effects::{Apply, Effects, Event, Notice, Outcome, Poison, Send};
use crate::election::{Campaign, PreVoting};
use crate::learn::Asked;
use crate::lease::Grants;
use crate::membership::{Configs, Standing};
use crate::message::Message;
use crate::proposals::Pending;
use crate::replicate::Leadership;
use crate::state::{Applied, DurableState, Ledger, Record, StateError};
use crate::timers::{Moment, SplitMix, Timing};

/// The part a monitor plays at the moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Follower,
    PreVoting(PreVoting),
    Candidate(Campaign),
    Leader(Leadership),
}

/// The part a monitor plays, for status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleName {
    /// Follows a leader, or looks for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// A vote of this monitor for itself: it counts when the batch that carries it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum OwnVote {
    Promise(Ballot, Slot),
    Accept(Ballot, Slot),
}

/// One monitor's part of the replicated log. Pure: all time, chance and I/O are the driver's.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub(crate) id: MonId,
    pub(crate) timing: Timing,
    pub(crate) rng: SplitMix,
    /// The latest time handed in; never goes back.
    pub(crate) now: Moment,
    /// The fold of all records emitted so far, durable or not yet.
    pub(crate) state: DurableState,
    /// At `state.decided`.
    pub(crate) ledger: Ledger,
    pub(crate) role: Role,
    /// The leader whose accepts we follow, and its ballot.
    pub(crate) following: Option<Ballot>,
    /// When that leader was last heard.
    pub(crate) heard_at: Moment,
    /// The last ballot that its leader laid down: what still arrives under it is news, not leadership.
    pub(crate) resigned: Ballot,
    /// Someone who hears a leader that we do not hear: proposals go through it.
    pub(crate) relay: Option<MonId>,
    pub(crate) grants: Grants,
    /// When a monitor without news acts: election, or a question for news.
    pub(crate) election_at: Moment,
    pub(crate) attempt: u64,
    /// The highest round seen anywhere.
    pub(crate) round_seen: u64,
    pub(crate) pending: Pending,
    pub(crate) asked: Option<Asked>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) outgoing: Option<Outgoing>,
    /// Who waits for a state that the application was asked for.
    pub(crate) snapshot_waiters: BTreeSet<MonId>,
    pub(crate) own_votes: VecDeque<(u64, OwnVote)>,
    pub(crate) batch: u64,
    pub(crate) fx: Effects,
    pub(crate) poison: Option<Poison>,
    retired: bool,
    #[cfg(any(test, feature = "canary"))]
    pub(crate) canary: Option<Canary>,
}

impl Node {
    /// Brings up a monitor from what it has on disk. `applied` is the slot at which the application's
    /// own durable state stands; what was decided after it is handed out again. `seed` spreads the
    /// election timers and should differ between monitors and restarts.
    pub fn restore(
        id: MonId,
        timing: Timing,
        state: DurableState,
        applied: Slot,
        seed: u64,
        now: Moment,
    ) -> Result<Node, StateError> {
        state.check()?;
        let (base, decided) = (state.base.slot, state.decided);
        if applied < base || applied > decided {
            return Err(StateError::AppliedOutside { applied, base, decided });
        }
        // Without a promise this monitor has granted no lease before this start.
        let boot_until =
            if state.promised == Ballot::default() { Moment::default() } else { now + timing.lease };
        let round_seen = state.promised.round;
        let mut node = Node {
            id,
            timing,
            rng: SplitMix(seed),
            now,
            ledger: state.base.clone(),
            state,
            role: Role::Follower,
            following: None,
            heard_at: now,
            resigned: Ballot::default(),
            relay: None,
            grants: Grants::blocked_until(boot_until),
            election_at: now,
            attempt: 0,
            round_seen,
            pending: Pending::default(),
            asked: None,
            incoming: None,
            outgoing: None,
            snapshot_waiters: BTreeSet::new(),
            own_votes: VecDeque::new(),
            batch: 0,
            fx: Effects::default(),
            poison: None,
            retired: false,
            #[cfg(any(test, feature = "canary"))]
            canary: None,
        };
        while node.ledger.slot < decided {
            let slot = node.ledger.slot.next();
            let Some(accepted) = node.state.accepted.get(&slot) else {
                return Err(StateError::Gap { decided, missing: slot });
            };
            let applied_here = node.ledger.advance(&accepted.command, false);
            if slot > applied {
                node.fx.apply.push(Apply::Slot { slot, applied: applied_here });
            }
        }
        node.wait_for_leader();
        // A founding or only member need not be patient: there is nobody to hear from yet.
        if node.ledger.configs.everyone().len() == 1 {
            node.election_at = boot_until.max(now);
        }
        node.notice_retirement();
        Ok(node)
    }

    /// Switches a deliberate bug on.
    #[cfg(any(test, feature = "canary"))]
    pub fn set_canary(&mut self, canary: Option<Canary>) {
        self.canary = canary;
        if canary_on!(self, LeaseForgottenAtBoot) {
            self.grants = Grants::default();
        }
        if canary_on!(self, ForgetPromise) {
            self.state.promised = Ballot::default();
        }
    }

    /// Numbers batches from 0 again once all are durable, so that a model checker recognises states
    /// that differ in nothing else.
    #[cfg(any(test, feature = "canary"))]
    pub fn renumber_batches(&mut self) {
        if self.own_votes.is_empty() {
            self.batch = 0;
        }
    }

    /// Takes one event at `now`, which must have been read from the clock after the event came in.
    /// What is to be done gathers until [`Node::take_into`].
    pub fn handle(&mut self, now: Moment, event: Event) {
        self.now = now.max(self.now);
        if self.poison.is_some() {
            if let Event::Propose { id, .. } = event {
                self.outcome(id, Outcome::Refused(crate::Refused::NotServing));
            }
            return;
        }
        match event {
            Event::Tick => self.on_tick(),
            Event::Message { from, message } if from != self.id => self.on_message(from, message),
            Event::Message { .. } => {}
            Event::Persisted { batch } => self.on_persisted(batch),
            Event::StorageFailed => self.poison(Poison::Storage),
            Event::Propose { id, born, request } => self.on_propose(id, born, request),
            Event::Snapshot { slot, state } => self.on_snapshot(slot, state),
            Event::Trim { upto } => self.on_trim(upto),
            Event::Resign => self.resign(),
        }
    }

    /// Closes the batch and hands out what it wants done, into a buffer that is overwritten.
    pub fn take_into(&mut self, effects: &mut Effects) {
        if self.poison.is_none() {
            self.broadcast();
        }
        self.fx.batch = self.batch;
        self.fx.timer = self.deadline();
        effects.clear();
        mem::swap(effects, &mut self.fx);
        self.batch += 1;
    }

    /// As [`Node::take_into`], into a new buffer.
    #[must_use]
    pub fn take(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.take_into(&mut effects);
        effects
    }

    /// This monitor's number.
    #[must_use]
    pub fn id(&self) -> MonId {
        self.id
    }

    /// Everything up to here is decided and handed out.
    #[must_use]
    pub fn decided(&self) -> Slot {
        self.state.decided
    }

    /// Entries up to here are dropped.
    #[must_use]
    pub fn trimmed(&self) -> Slot {
        self.state.base.slot
    }

    /// Hash of the decided history.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.ledger.hash
    }

    /// Who votes on which slot from here on.
    #[must_use]
    pub fn configs(&self) -> &Configs {
        &self.ledger.configs
    }

    /// The ballot promised to.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.state.promised
    }

    /// The ballot under which this monitor leads, if it does.
    #[must_use]
    pub fn leading(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(lead) => Some(lead.ballot),
            _ => None,
        }
    }

    /// The leader as far as known: itself or the one it follows.
    #[must_use]
    pub fn leader(&self) -> Option<MonId> {
        self.leading().or(self.following).map(|ballot| ballot.leader)
    }

    /// The part it plays.
    #[must_use]
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Follower | Role::PreVoting(_) => RoleName::Follower,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Members that answered this leader within an election timeout, itself included: the quorum
    /// that status shows. Empty unless leading.
    #[must_use]
    pub fn responsive(&self) -> BTreeSet<MonId> {
        let Role::Leader(lead) = &self.role else { return BTreeSet::new() };
        let recent = |stamp: &Moment| self.now.since(*stamp) <= self.timing.election;
        lead.heard.iter().filter(|(_, stamp)| recent(stamp)).map(|(mon, _)| *mon).collect()
    }

    /// What this monitor is to the log.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let configs = &self.ledger.configs;
        let Some((from, _)) = configs.newest() else { return Standing::Joining };
        let next = self.state.decided.next();
        if configs.at(next).is_some_and(|membership| membership.contains(self.id)) {
            return Standing::Voter;
        }
        if configs.everyone().contains(&self.id) || self.id > configs.highest {
            return Standing::Learner;
        }
        // Once slot from − 1 + alpha is decided, a majority of the members without us has the slots
        // before `from` as decided: nobody accepts a slot more than alpha above what it has decided.
        if next < from.plus(self.ledger.params.alpha) { Standing::Leaving } else { Standing::Retired }
    }

    /// Whether a change of members is under way, as far as this monitor knows: one that was removed by it must go on
    /// answering. See [`Standing::Leaving`].
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.state.decided < self.fill_to()
    }

    /// Why it stopped answering, if it did.
    #[must_use]
    pub fn poisoned(&self) -> Option<Poison> {
        self.poison
    }

    fn on_message(&mut self, from: MonId, message: Message) {
        match message {
            Message::PreVote { attempt, decided } => self.on_pre_vote(from, attempt, decided),
            Message::PreVoteReply { attempt, granted, promised, decided, leader } => {
                self.on_pre_vote_reply(from, attempt, granted, promised, decided, leader);
            }
            Message::Prepare { ballot, decided } => self.on_prepare(from, ballot, decided),
            Message::Promise { ballot, decided, accepted } => {
                self.on_promise(from, ballot, decided, accepted)
            }
            Message::Accept { ballot, stamp, decided, hash, entries } => {
                self.on_accept(from, ballot, stamp, decided, hash, entries);
            }
            Message::Accepted { ballot, stamp, decided, slots } => {
                self.on_accepted(from, ballot, stamp, decided, &slots);
            }
            Message::Reject { ballot, promised, lessee } => self.on_reject(from, ballot, promised, lessee),
            Message::Resign { ballot } => self.on_resign(from, ballot),
            Message::LearnRequest { from: slot } => self.on_learn_request(from, slot),
            Message::Learn { entries, decided } => self.on_learn(from, entries, decided),
            Message::SnapshotRequest { slot, offset } => self.on_snapshot_request(from, slot, offset),
            Message::SnapshotChunk { slot, offset, len, hash, ledger, bytes } => {
                self.on_snapshot_chunk(from, slot, offset, len, hash, ledger, &bytes);
            }
            Message::Forward { origin, hops, proposal } => self.on_forward(origin, hops, proposal),
            Message::Busy { id } => self.on_busy(id),
        }
    }

    fn on_tick(&mut self) {
        if matches!(self.role, Role::Leader(_)) {
            self.leader_tick();
        } else if self.timed() && self.now >= self.election_at {
            self.election_tick();
        }
        self.pending_tick();
        self.drop_idle_snapshot();
    }

    /// Whether silence makes this monitor act: one that is only waiting to be found has no timer.
    fn timed(&self) -> bool {
        !matches!(self.standing(), Standing::Joining | Standing::Retired)
    }

    fn deadline(&self) -> Option<Moment> {
        if self.poison.is_some() {
            return None;
        }
        let role = match &self.role {
            Role::Leader(lead) => Some(lead.beat_at),
            _ if self.timed() => Some(self.election_at),
            _ => None,
        };
        [role, self.pending.wake_at(), self.snapshot_deadline()].into_iter().flatten().min()
    }

    fn on_persisted(&mut self, batch: u64) {
        while let Some((_, vote)) = self.own_votes.pop_front_if(|(at, _)| *at <= batch) {
            match vote {
                OwnVote::Promise(ballot, decided) => self.count_promise(self.id, ballot, decided, Vec::new()),
                OwnVote::Accept(ballot, slot) => self.count_votes(self.id, ballot, &[slot]),
            }
        }
    }

    pub(crate) fn own_vote(&mut self, vote: OwnVote) {
        self.fx.votes = true;
        self.own_votes.push_back((self.batch, vote));
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.state.absorb(&record);
        if let (Record::Decide(slot), Some(Record::Decide(last))) = (&record, self.fx.persist.last_mut()) {
            *last = *slot;
            return;
        }
        self.fx.persist.push(record);
    }

    pub(crate) fn early(&mut self, to: MonId, message: Message) {
        self.fx.early.push(Send { to, message });
    }

    pub(crate) fn after(&mut self, to: MonId, message: Message) {
        self.fx.after.push(Send { to, message });
    }

    pub(crate) fn peers(&self) -> BTreeSet<MonId> {
        let mut peers = self.ledger.configs.everyone();
        peers.remove(&self.id);
        peers
    }

    /// The value accepted in the next slot is decided.
    pub(crate) fn decide_next(&mut self) {
        let slot = self.state.decided.next();
        let Some(accepted) = self.state.accepted.get(&slot) else {
            debug_assert!(false, "{slot} decided without a value");
            return;
        };
        let id = accepted.command.id();
        let applied = self.ledger.advance(&accepted.command, canary_on!(self, ApplyTwice));
        self.record(Record::Decide(slot));
        if let Some(id) = id {
            let outcome = match &applied {
                Applied::ChangeRefused { reason, .. } => Outcome::ChangeRefused { slot, reason: *reason },
                Applied::Expired { .. } => Outcome::Lost,
                // The first copy gave the outcome when it was decided, or did so before we tracked it.
                Applied::Repeat { first, .. } => Outcome::Decided { slot: *first },
                _ => Outcome::Decided { slot },
            };
            self.settle(id, outcome);
        }
        self.fx.apply.push(Apply::Slot { slot, applied });
    }

    /// To be called after the decided slot moved, whoever moved it.
    pub(crate) fn after_progress(&mut self) {
        self.expire_pending();
        match &mut self.role {
            Role::Leader(_) => self.leader_progress(),
            Role::Candidate(_) => self.try_lead(),
            Role::PreVoting(_) => self.try_campaign(),
            Role::Follower => {}
        }
        self.notice_retirement();
    }

    pub(crate) fn notice_retirement(&mut self) {
        if !self.retired && self.standing() == Standing::Retired {
            self.retired = true;
            for id in self.pending.drain() {
                self.outcome(id, Outcome::Uncertain);
            }
            self.fx.notices.push(Notice::Retired);
        }
    }

    pub(crate) fn poison(&mut self, poison: Poison) {
        self.poison = Some(poison);
        self.role = Role::Follower;
        self.following = None;
        self.own_votes.clear();
        self.fx.early.clear();
        self.fx.persist.clear();
        self.fx.after.clear();
        self.fx.votes = false;
        for id in self.pending.drain() {
            self.outcome(id, Outcome::Uncertain);
        }
        self.fx.notices.push(Notice::Poisoned(poison));
    }

    /// Drops entries up to `upto`; entries that are not decided stay.
    fn on_trim(&mut self, upto: Slot) {
        if canary_on!(self, TrimTooFar) {
            // Forgets accepted entries that the others may still decide by.
            self.state.accepted.split_off(&self.state.decided.next());
        }
        let upto = upto.min(self.state.decided);
        if upto <= self.state.base.slot {
            return;
        }
        if let Some(ledger) = self.state.ledger_at(upto) {
            self.record(Record::Trim(Box::new(ledger)));
        }
    }
}
