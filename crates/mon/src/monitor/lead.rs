//! What the leader does: drafts what was asked into one entry at a time, watches daemons, and keeps the
//! members of the log in step with the monitor map.
//!
//! One entry is under way at a time. What is asked meanwhile waits and goes into the next one together: a
//! burst costs two rounds, not one each. Everything is drafted under the lease, over all that is decided; so
//! a refusal, or the news that nothing needs to change, is as good as a read.

use super::{Answer, Call, DaemonNews, Effects, Entry, Monitor, Now, Origin, Query, encode_entry};
use crate::service::watch::{self, Watch};
use crate::service::{ApplyError, ClusterState, Draft, LeaderCommand, Once, Refusal, Request};
use cairn_paxos::{
    Change, Event as LogEvent, Moment, Outcome, Payload, ProposalId, Request as LogRequest, Slot,
};
use cairn_types::{MonId, MonStep};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Calls that wait at the leader.
pub const MAX_QUEUED: usize = 8192;

/// Calls in one entry.
pub const MAX_CALLS_PER_ENTRY: usize = 256;

/// Refusals the leader remembers, to answer late copies of the calls with.
const MAX_TOLD: usize = 1024;

/// For how long a monitor that asked for news counts as running: it asks several times in this time.
const LEARNER_LIFETIME: Duration = Duration::from_secs(2);

/// Before the leader tries the log again after it would not take an entry.
const RETRY: Duration = Duration::from_millis(100);

/// A change that waits or is under way; without an origin it is the leader's own.
#[derive(Clone, Debug)]
struct Item {
    origin: Option<Origin>,
    once: Option<Once>,
    request: Request,
}

/// The entry that is under way.
#[derive(Clone, Debug)]
struct Flight {
    id: ProposalId,
    born: Slot,
    payload: Payload,
    items: Vec<Item>,
    /// What is told when it has landed: these refusals were judged by a state that includes it.
    refused: Vec<(Origin, Answer)>,
}

/// The leader's part of a monitor. It ends with the leadership; whoever called, calls again.
#[derive(Debug)]
pub(super) struct Lead {
    watch: Watch,
    /// Something changed that deadlines or verdicts may depend on.
    look: bool,
    /// The watch's next deadline.
    look_at_ms: Option<u64>,
    queue: VecDeque<Item>,
    reads: Vec<(Origin, Query)>,
    /// Calls that are queued, to be read, or under way.
    known: BTreeSet<Origin>,
    flight: Option<Flight>,
    /// Calls that were refused lately: a copy that comes late must not be carried out after all.
    told: BTreeMap<Origin, Answer>,
    told_order: VecDeque<Origin>,
    /// How many calls to take at once: fewer after an entry was too large.
    batch: usize,
    change: Option<ProposalId>,
    /// Who has the state and asked for what is new, and when: one that joins does.
    learner: Option<(MonId, Moment)>,
    retry_at: Option<Moment>,
}

impl Lead {
    pub fn new(state: &ClusterState, now: Now) -> Self {
        Lead {
            watch: Watch::new(state, steady(now)),
            look: true,
            look_at_ms: None,
            queue: VecDeque::new(),
            reads: Vec::new(),
            known: BTreeSet::new(),
            flight: None,
            told: BTreeMap::new(),
            told_order: VecDeque::new(),
            batch: MAX_CALLS_PER_ENTRY,
            change: None,
            learner: None,
            retry_at: None,
        }
    }

    pub fn observe(&mut self, state: &ClusterState, now: Now) {
        self.watch.observe(state, steady(now));
        self.look = true;
    }

    pub fn backlog(&self) -> usize {
        self.known.len()
    }

    pub fn look_again(&mut self) {
        self.look = true;
    }

    fn wake_at(&self) -> Option<Moment> {
        let look = self.look_at_ms.map(|ms| Moment(ms.saturating_mul(1_000)));
        [look, self.retry_at].into_iter().flatten().min()
    }

    /// Takes a call, unless it is here already. An answer, if it has one: it was refused, or there is no room.
    pub fn enqueue(&mut self, origin: Origin, call: Call) -> Option<Answer> {
        if let Some(answer) = self.told.get(&origin) {
            return Some(answer.clone());
        }
        if self.known.contains(&origin) {
            return None;
        }
        if self.known.len() >= MAX_QUEUED {
            return Some(Answer::Busy);
        }
        self.known.insert(origin);
        match call {
            Call::Read(query) => self.reads.push((origin, query)),
            Call::Change { once, request } => {
                self.queue.push_back(Item { origin: Some(origin), once, request });
            }
        }
        None
    }

    fn remember_refusals(&mut self, refused: &[(Origin, Answer)]) {
        for (origin, answer) in refused {
            self.told.insert(*origin, answer.clone());
            self.told_order.push_back(*origin);
        }
        let excess = self.told_order.len().saturating_sub(MAX_TOLD);
        for origin in self.told_order.drain(..excess) {
            self.told.remove(&origin);
        }
    }

    /// Queues a change of the leader's own; false if it is here already.
    fn want(&mut self, request: Request) -> bool {
        let under_way = self.flight.iter().flat_map(|flight| &flight.items);
        let own = self.queue.iter().chain(under_way).filter(|item| item.origin.is_none());
        let is_new = !own.into_iter().any(|item| item.request == request);
        if is_new {
            self.queue.push_back(Item { origin: None, once: None, request });
        }
        is_new
    }

    /// A monitor that has the state asks for what is new.
    pub fn wants_news(&mut self, mon: MonId, now: Now) {
        self.learner = Some((mon, now.steady));
    }

    /// Whether a monitor that joins runs and has the state, so that it can vote at once.
    fn can_vote(&self, mon: MonId, now: Now) -> bool {
        self.learner.is_some_and(|(learner, at)| learner == mon && now.steady.since(at) < LEARNER_LIFETIME)
    }

    pub fn take_news(&mut self, news: DaemonNews, state: &ClusterState, now: Now) {
        let now = steady(now);
        let wanted = match news {
            DaemonNews::Failure(report) => {
                self.look = true;
                self.watch.report(state, &report, now).1
            }
            DaemonNews::OsdBeacon { osd, up_from } => {
                self.watch.beacon(osd, up_from, now);
                None
            }
            DaemonNews::MgrBeacon { name, addr } => self.watch.mgr_beacon(&name, addr, now),
            DaemonNews::Digest { .. } => None,
        };
        if let Some(request) = wanted {
            self.want(request);
        }
    }

    /// An entry was decided. If it is the one under way: the answers that waited for it, or, if it was made
    /// over a state that had changed, its requests are drafted again.
    pub fn landed(
        &mut self,
        id: ProposalId,
        result: &Result<(), ApplyError>,
        version: u64,
    ) -> Vec<(Origin, Answer)> {
        if self.flight.as_ref().is_none_or(|flight| flight.id != id) {
            return Vec::new();
        }
        let Some(flight) = self.flight.take() else { return Vec::new() };
        match result {
            Ok(()) => {
                for origin in flight.items.iter().filter_map(|item| item.origin) {
                    self.known.remove(&origin);
                }
                self.remember_refusals(&flight.refused);
                flight.refused
            }
            Err(ApplyError::Stale { .. }) => {
                self.put_back(flight.items);
                Vec::new()
            }
            Err(error) => {
                let why = format!("the change does not apply at version {version}: {error}");
                let answer = Answer::Refused { code: cairn_wire::ErrorCode::INVAL, why };
                let origins: Vec<Origin> = flight.items.iter().filter_map(|item| item.origin).collect();
                for origin in &origins {
                    self.known.remove(origin);
                }
                origins.into_iter().map(|origin| (origin, answer.clone())).collect()
            }
        }
    }

    fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    /// What the log says of a proposal; a request to make again under the same name, if it cannot tell.
    pub fn take_outcome(&mut self, id: ProposalId, outcome: Outcome, now: Now) -> Option<(Slot, LogRequest)> {
        if self.change == Some(id) {
            // Whatever became of it: the members are compared with the map again.
            self.change = None;
            if let Outcome::Refused(_) | Outcome::ChangeRefused { .. } = outcome {
                self.retry_at = Some(now.steady + RETRY);
            }
            return None;
        }
        let flight = self.flight.take_if(|flight| flight.id == id)?;
        match outcome {
            // Applied before the outcome was told, so that was another copy of it: look what it did.
            Outcome::Decided { .. } | Outcome::ChangeRefused { .. } | Outcome::Lost | Outcome::Forgotten => {
                self.put_back(flight.items);
                None
            }
            Outcome::Refused(_) => {
                self.put_back(flight.items);
                self.retry_at = Some(now.steady + RETRY);
                None
            }
            Outcome::Uncertain => {
                let again = (flight.born, LogRequest::App(flight.payload.clone()));
                self.flight = Some(flight);
                Some(again)
            }
        }
    }
}

fn steady(now: Now) -> watch::Now {
    watch::Now { steady_ms: now.steady_ms() }
}

impl Monitor {
    /// Whether this monitor leads and may answer from its own state.
    fn may_lead(&self) -> bool {
        self.fault.is_none() && self.node.can_read(self.now.steady) && self.applied == self.node.decided()
    }

    /// When the leader has something to do. While it may not, the log's own timer brings it on.
    pub(super) fn lead_wake_at(&self) -> Option<Moment> {
        self.lead.as_ref().filter(|_| self.may_lead()).and_then(Lead::wake_at)
    }

    /// Does what a leader has to do, if this monitor leads and may.
    pub(super) fn lead_on(&mut self, out: &mut Effects) {
        if !self.may_lead() {
            return;
        }
        let now = self.now;
        let digest = self.fresh_digest().cloned();
        let (Some(lead), Some(state)) = (&mut self.lead, &self.state) else { return };
        if lead.look || lead.look_at_ms.is_some_and(|at| at <= now.steady_ms()) {
            lead.look = false;
            let due = lead.watch.tick(state, digest.as_ref(), steady(now));
            lead.look_at_ms = due.next_ms;
            for request in due.requests {
                lead.want(request);
            }
        }
        let reads = std::mem::take(&mut lead.reads);
        for (origin, _) in &reads {
            lead.known.remove(origin);
        }
        self.answer_reads(reads, out);
        let Some(lead) = &mut self.lead else { return };
        if lead.retry_at.is_some_and(|at| at > now.steady) {
            return;
        }
        lead.retry_at = None;
        self.draft(out);
        self.change_members();
    }

    /// Drafts what waits into an entry and proposes it, unless one is under way.
    fn draft(&mut self, out: &mut Effects) {
        let (Some(lead), Some(state)) = (&mut self.lead, &self.state) else { return };
        if lead.flight.is_some() || lead.queue.is_empty() {
            return;
        }
        let count = lead.queue.len().min(lead.batch);
        let items: Vec<Item> = lead.queue.drain(..count).collect();
        let mut draft = Draft::new(state, self.now.wall);
        let (mut answers, mut refused) = (Vec::new(), Vec::new());
        for item in &items {
            let result = match item.once {
                Some(once) => draft.run_once(once, &item.request),
                None => draft.run(&item.request),
            };
            match (item.origin, result) {
                (Some(origin), Ok(reply)) => answers.push((origin, reply)),
                (Some(origin), Err(refusal)) => refused.push((origin, Answer::refused(&refusal))),
                (None, _) => {}
            }
        }
        let Some(transaction) = draft.finish() else {
            let version = state.version();
            for origin in items.iter().filter_map(|item| item.origin) {
                lead.known.remove(&origin);
            }
            lead.remember_refusals(&refused);
            let done = answers.into_iter().map(|(origin, reply)| (origin, Answer::Done { reply, version }));
            for (origin, answer) in done.chain(refused) {
                self.deliver(origin, answer, out);
            }
            // There may be more than one draft's worth.
            self.touched |= self.lead.as_ref().is_some_and(|lead| !lead.queue.is_empty());
            return;
        };
        match encode_entry(&Entry { transaction, answers }) {
            Ok(payload) => {
                lead.batch = MAX_CALLS_PER_ENTRY;
                let (id, born) =
                    (ProposalId { session: self.run, seq: self.next_proposal }, self.node.decided());
                self.next_proposal += 1;
                lead.flight = Some(Flight { id, born, payload: payload.clone(), items, refused });
                self.tell_log(LogEvent::Propose { id, born, request: LogRequest::App(payload) });
            }
            Err(too_large) => self.shrink(items, &too_large, out),
        }
    }

    /// An entry was too large: fewer calls in the next one. A call that is too large alone is refused.
    fn shrink(&mut self, items: Vec<Item>, too_large: &Refusal, out: &mut Effects) {
        let Some(lead) = &mut self.lead else { return };
        self.touched = true;
        if items.len() > 1 {
            lead.batch = items.len() / 2;
            return lead.put_back(items);
        }
        lead.batch = MAX_CALLS_PER_ENTRY;
        for origin in items.into_iter().filter_map(|item| item.origin) {
            if let Some(lead) = &mut self.lead {
                lead.known.remove(&origin);
            }
            self.deliver(origin, Answer::refused(too_large), out);
        }
    }

    /// The members of the log follow the monitor map. One that joins votes once it has the state: the others may need it
    /// for a majority from that moment on. When the log has changed for good, the map is told.
    fn change_members(&mut self) {
        let (Some(lead), Some(state)) = (&mut self.lead, &self.state) else { return };
        let Some(change) = &state.mon_map().change else { return };
        let configs = self.node.configs();
        let Some((from, newest)) = configs.newest() else { return };
        // A change that was decided but does not vote yet: the next one would be refused.
        if lead.change.is_some() || from > self.node.decided().next() {
            return;
        }
        let mon = change.mon.id;
        let wanted = match change.step {
            MonStep::Joins if newest.contains(mon) => None,
            MonStep::Joins if lead.can_vote(mon, self.now) => Some(Change::Add(mon)),
            MonStep::Joins => return,
            // One that was taken back, too: an addition of it may still be under way somewhere.
            MonStep::Leaves if newest.contains(mon) || configs.highest < mon => Some(Change::Remove(mon)),
            MonStep::Leaves => None,
        };
        let Some(wanted) = wanted else {
            if !self.node.is_changing() {
                let done = LeaderCommand::MonChanged { change: change.clone() };
                self.touched |= lead.want(Request::Leader(done));
            }
            return;
        };
        let (id, born) = (ProposalId { session: self.run, seq: self.next_proposal }, self.node.decided());
        self.next_proposal += 1;
        lead.change = Some(id);
        self.tell_log(LogEvent::Propose { id, born, request: LogRequest::Change(wanted) });
    }
}
