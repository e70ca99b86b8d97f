//! One monitor: the replicated log, the services over it, its callers and subscribers, as one state machine.
//! `docs/monitors.md` has the duties of a driver.
//!
//! | behaviour | module |
//! |---|---|
//! | what goes in and comes out | `event` |
//! | the order of things within one event | here |
//! | calls of clients, from arrival to answer | `calls` |
//! | what the leader does: draft, propose, watch, change members | `lead` |
//! | where the others are | `greet` |
//! | reads | `query` |
//! | maps to subscribers | `publish` |
//! | the bytes of log entries and states | `format` |

mod calls;
mod event;
mod format;
mod greet;
mod lead;
mod publish;
mod query;

pub use calls::{CALL_TIMEOUT_MS, MAX_CALLS};
pub use event::{
    Answer, Call, CallTag, Checkpoint, DaemonNews, Effects, Event, Fault, Notice, Now, PeerMessage,
    Publication, Subscriber, Subscription,
};
pub use format::{Entry, FormatError, Origin, decode_entry, decode_state, encode_entry, encode_state};
pub use lead::{MAX_CALLS_PER_ENTRY, MAX_QUEUED};
pub use publish::{MAX_SUBSCRIBERS, MAX_UNACKNOWLEDGED_EPOCHS};
pub use query::{Query, Reading};

use crate::service::timing::DIGEST_LIFETIME_MS;
use crate::service::{ApplyError, ClusterState, Genesis};
use cairn_paxos::{
    Applied, Apply, DurableState, Event as LogEvent, Message, MonId, Node, Outcome, Params, Payload,
    ProposalId, Slot, StateError, Timing,
};
use cairn_types::{Digest, MonMap, Timestamp};
use calls::Calls;
use greet::Acquaintance;
use lead::Lead;
use publish::Subscribers;
use std::collections::BTreeMap;
use thiserror::Error;

/// Slots between two checkpoints of the state. The log is replayed from the last one at a start, which
/// takes milliseconds; writing one costs a few times the size of the OSD map.
pub const CHECKPOINT_EVERY_SLOTS: u64 = 256;

/// Slots kept below a checkpoint, so that a monitor that was away for a moment catches up by entries and not
/// by the whole state.
pub const SLOTS_KEPT: u64 = 512;

/// Why a monitor cannot start.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The log.
    #[error(transparent)]
    Log(#[from] StateError),
    /// The state.
    #[error("the checkpoint at {slot} cannot be read: {error}; remove this monitor and add a new one")]
    State {
        /// Where it stands.
        slot: Slot,
        /// What is wrong.
        error: FormatError,
    },
}

/// What a monitor is made of at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its number.
    pub id: MonId,
    /// A number that is never used again by any start of any monitor: drawn at random.
    pub run: u64,
    /// The durations of the log.
    pub timing: Timing,
    /// The log as it is on disk.
    pub log: DurableState,
    /// The newest state on disk; `None` for a monitor that joins and has none yet.
    pub checkpoint: Option<Checkpoint>,
    /// The monitor map that it was made from.
    pub mon_map: MonMap,
}

impl Setup {
    /// The first start of a founding monitor.
    pub fn founding(id: MonId, run: u64, timing: Timing, genesis: Genesis) -> Result<Setup, RestoreError> {
        let state = ClusterState::new(genesis);
        let members = state.mon_map().mons.values().map(|mon| mon.id).collect();
        let log = DurableState::bootstrap(members, Params::default())?;
        let checkpoint = Checkpoint { slot: Slot::ZERO, state: encode_state(&state) };
        let mon_map = state.mon_map().clone();
        Ok(Setup { id, run, timing, log, checkpoint: Some(checkpoint), mon_map })
    }

    /// The first start of a monitor that joins a running cluster under this number, which the map has for it.
    pub fn joining(id: MonId, run: u64, timing: Timing, mon_map: MonMap) -> Setup {
        Setup { id, run, timing, log: DurableState::joining(), checkpoint: None, mon_map }
    }
}

/// One monitor.
#[derive(Debug)]
pub struct Monitor {
    run: u64,
    now: Now,
    node: Node,
    /// `None` at a monitor that joins, until it has fetched it.
    state: Option<ClusterState>,
    applied: Slot,
    next_proposal: u64,
    calls: Calls,
    lead: Option<Lead>,
    subscribers: Subscribers,
    acquaintance: Acquaintance,
    /// The mgr's statistics and when they came, by this monitor's steady clock.
    digest: Option<(Digest, u64)>,
    /// Slot of the newest checkpoint, durable or on its way.
    checkpointed: Slot,
    /// The checkpoint that is on its way, and its batch.
    checkpoint_under_way: Option<(u64, Slot)>,
    /// The log was handed something and is to be asked for effects again.
    touched: bool,
    fault: Option<Fault>,
    void_entries: u64,
}

impl Monitor {
    /// Brings up a monitor. Hand in [`Event::Tick`] at once: it applies what the log has beyond the
    /// checkpoint.
    pub fn start(setup: Setup, now: Now) -> Result<Monitor, RestoreError> {
        let Setup { id, run, timing, log, checkpoint, mon_map } = setup;
        let (applied, state) = match checkpoint {
            None => (log.base.slot, None),
            Some(Checkpoint { slot, state }) => {
                let state = decode_state(&state).map_err(|error| RestoreError::State { slot, error })?;
                (slot, Some(state))
            }
        };
        // Spreads election timers; any number that differs between monitors and starts will do.
        let node =
            Node::restore(id, timing, log, applied, run ^ u64::from(id.0).rotate_left(32), now.steady)?;
        Ok(Monitor {
            run,
            now,
            node,
            state,
            applied,
            next_proposal: 0,
            calls: Calls::default(),
            lead: None,
            subscribers: Subscribers::default(),
            acquaintance: Acquaintance::new(mon_map, now.steady),
            digest: None,
            checkpointed: applied,
            checkpoint_under_way: None,
            touched: false,
            fault: None,
            void_entries: 0,
        })
    }

    /// Takes one event at `now`, which must have been read from the clocks after the event came in.
    pub fn handle(&mut self, now: Now, event: Event) -> Effects {
        self.now = Now { wall: now.wall, steady: now.steady.max(self.now.steady) };
        let mut out = Effects::default();
        self.take_in(event, &mut out);
        loop {
            self.drain_log(&mut out);
            self.tick_calls(&mut out);
            self.lead_on(&mut out);
            if !std::mem::take(&mut self.touched) {
                break;
            }
        }
        self.greet(&mut out);
        self.checkpoint(&mut out);
        self.publish(&mut out);
        let own = [self.calls.wake_at(), self.lead_wake_at(), Some(self.acquaintance.wake_at())];
        out.timer = own.into_iter().chain([out.timer]).flatten().min();
        out
    }

    fn take_in(&mut self, event: Event, out: &mut Effects) {
        match event {
            // The timers of calls, leader and log are all looked at below.
            Event::Tick => self.tell_log(LogEvent::Tick),
            Event::Peer { from, message } => self.take_peer_message(from, message, out),
            Event::Persisted { batch } => {
                self.tell_log(LogEvent::Persisted { batch });
                if let Some((at, slot)) = self.checkpoint_under_way
                    && at <= batch
                {
                    self.checkpoint_under_way = None;
                    let upto = Slot(slot.0.saturating_sub(SLOTS_KEPT));
                    self.tell_log(LogEvent::Trim { upto });
                }
            }
            Event::StorageFailed => self.tell_log(LogEvent::StorageFailed),
            Event::Call { tag, call } => self.take_call(tag, call, out),
            Event::News(news) => self.take_own_news(news, out),
            Event::Subscribe { subscriber, wants } => self.subscribers.set(subscriber, wants, out),
            Event::Unsubscribe { subscriber } => self.subscribers.remove(subscriber),
            Event::MonMap(map) => self.take_mon_map(map),
            Event::Resign => self.tell_log(LogEvent::Resign),
        }
    }

    fn take_peer_message(&mut self, from: MonId, message: PeerMessage, out: &mut Effects) {
        match message {
            PeerMessage::Log(message) => {
                if let (Some(lead), Message::LearnRequest { from: first }) = (&mut self.lead, &message)
                    && *first > Slot::ZERO
                {
                    lead.wants_news(from, self.now);
                }
                self.tell_log(LogEvent::Message { from, message });
            }
            PeerMessage::MonMap(map) => self.take_mon_map(*map),
            PeerMessage::Call { run, tag, call } => {
                self.take_forwarded(Origin { mon: from, run, tag }, call, out);
            }
            PeerMessage::Answer { run, tag, answer } => {
                if run == self.run {
                    self.answer_own(tag, answer, out);
                }
            }
            PeerMessage::News(news) => self.take_news(news),
        }
    }

    /// News from a daemon that is connected here: to the leader, and statistics to everyone, so that the next
    /// leader has them too.
    fn take_own_news(&mut self, news: DaemonNews, out: &mut Effects) {
        if let DaemonNews::Digest { .. } = news {
            for peer in self.peers() {
                out.early.push((peer, PeerMessage::News(news.clone())));
            }
            self.take_news(news);
        } else if self.lead.is_some() {
            self.take_news(news);
        } else if let Some(leader) = self.node.leader() {
            // Without a leader it is dropped: daemons repeat what still holds.
            out.early.push((leader, PeerMessage::News(news)));
        }
    }

    fn take_news(&mut self, news: DaemonNews) {
        let Some(state) = &self.state else { return };
        if let DaemonNews::Digest { mgr, digest } = news {
            if state.mgr_map().active.as_ref().is_some_and(|(active, _)| *active == mgr) {
                self.digest = Some((*digest, self.now.steady_ms()));
                if let Some(lead) = &mut self.lead {
                    lead.look_again();
                }
            }
        } else if let Some(lead) = &mut self.lead {
            lead.take_news(news, state, self.now);
        }
    }

    fn tell_log(&mut self, event: LogEvent) {
        self.node.handle(self.now.steady, event);
        self.touched = true;
    }

    /// Takes what the log wants done, and applies what it has decided.
    fn drain_log(&mut self, out: &mut Effects) {
        let effects = self.node.take();
        out.must_flush |= effects.must_flush();
        out.batch = effects.batch;
        let wrap = |send: cairn_paxos::Send| (send.to, PeerMessage::Log(send.message));
        out.early.extend(effects.early.into_iter().map(wrap));
        out.after.extend(effects.after.into_iter().map(wrap));
        out.persist.extend(effects.persist);
        out.timer = effects.timer;
        for work in effects.apply {
            self.apply(work, out);
        }
        for (id, outcome) in effects.outcomes {
            self.take_outcome(id, outcome);
        }
        for notice in effects.notices {
            self.take_notice(notice, out);
        }
    }

    fn take_notice(&mut self, notice: cairn_paxos::Notice, out: &mut Effects) {
        match notice {
            cairn_paxos::Notice::BecameLeader { .. } => {
                if let Some(state) = &self.state {
                    self.lead = Some(Lead::new(state, self.now));
                }
                self.calls.retry_now(self.now);
                out.notices.push(Notice::Leads);
            }
            cairn_paxos::Notice::BecameFollower { leader } => {
                self.lead = None;
                if leader.is_some() {
                    self.calls.retry_now(self.now);
                }
                out.notices.push(Notice::Follows { leader });
            }
            cairn_paxos::Notice::NeedSnapshot => {
                if let Some(state) = &self.state {
                    let (slot, state) = (self.applied, encode_state(state));
                    self.tell_log(LogEvent::Snapshot { slot, state });
                }
            }
            cairn_paxos::Notice::Retired => out.notices.push(Notice::Retired),
            cairn_paxos::Notice::Poisoned(poison) => {
                self.lead = None;
                let fault = *self.fault.get_or_insert(Fault::Log(poison));
                out.notices.push(Notice::Stopped(fault));
            }
        }
    }

    fn apply(&mut self, work: Apply, out: &mut Effects) {
        if self.fault.is_some() {
            return;
        }
        match work {
            Apply::Slot { slot, applied } => {
                self.applied = slot;
                if let Applied::Command { id, payload } = applied {
                    self.apply_entry(id, slot, &payload, out);
                }
            }
            Apply::Install { slot, state } => match decode_state(&state) {
                Ok(new) => {
                    self.state = Some(new);
                    self.applied = slot;
                    // The log's own record of this goes into the same batch.
                    out.checkpoint = Some(Checkpoint { slot, state });
                }
                Err(_) => self.stop(Fault::Unreadable { slot }),
            },
        }
    }

    fn apply_entry(&mut self, id: ProposalId, slot: Slot, payload: &Payload, out: &mut Effects) {
        let (Ok(entry), Some(state)) = (decode_entry(payload), &mut self.state) else {
            // The others may be able to read it: going on would make this monitor differ from them.
            return self.stop(Fault::Unreadable { slot });
        };
        let result = state.apply(&entry.transaction);
        let version = state.version();
        if let Some(lead) = &mut self.lead {
            if result.is_ok() {
                lead.observe(state, self.now);
            }
            let answers = lead.landed(id, &result, version);
            for (origin, answer) in answers {
                self.deliver(origin, answer, out);
            }
        }
        match result {
            Ok(()) => {
                for (origin, reply) in entry.answers {
                    if (origin.mon, origin.run) == (self.node.id(), self.run) {
                        self.answer_own(origin.tag, Answer::Done { reply, version }, out);
                    }
                }
            }
            // Made over another state by a leader that had been replaced; its requests are drafted again.
            Err(ApplyError::Stale { .. }) => self.void_entries += 1,
            Err(error) => debug_assert!(false, "a draft makes only transactions that apply: {error}"),
        }
    }

    fn take_outcome(&mut self, id: ProposalId, outcome: Outcome) {
        if let Some(lead) = &mut self.lead
            && let Some((born, request)) = lead.take_outcome(id, outcome, self.now)
        {
            self.tell_log(LogEvent::Propose { id, born, request });
        }
    }

    fn stop(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.tell_log(LogEvent::StorageFailed);
    }

    /// Writes a checkpoint when it is time.
    fn checkpoint(&mut self, out: &mut Effects) {
        let due = self.applied.0 >= self.checkpointed.0 + CHECKPOINT_EVERY_SLOTS;
        if due && self.checkpoint_under_way.is_none() && out.checkpoint.is_none() {
            let slot = self.applied;
            out.checkpoint = self.state.as_ref().map(|state| Checkpoint { slot, state: encode_state(state) });
        }
        if self.fault.is_some() {
            out.checkpoint = None;
        }
        if let Some(checkpoint) = &out.checkpoint {
            self.checkpointed = checkpoint.slot;
            self.checkpoint_under_way = Some((out.batch, checkpoint.slot));
        }
    }

    /// The state; `None` while a monitor that joins has not fetched it.
    pub fn state(&self) -> Option<&ClusterState> {
        self.state.as_ref()
    }

    /// Switches a deliberate bug of the log on.
    #[cfg(feature = "canary")]
    pub fn set_canary(&mut self, canary: Option<cairn_paxos::Canary>) {
        self.node.set_canary(canary);
    }

    /// The log.
    pub fn log(&self) -> &Node {
        &self.node
    }

    /// The last slot of the log that the state includes.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// Entries since the start that were void because the leader that made them had been replaced.
    pub fn void_entries(&self) -> u64 {
        self.void_entries
    }

    /// Calls that wait for an answer here, and those this monitor has taken up as the leader.
    pub fn backlog(&self) -> usize {
        self.calls.len() + self.lead.as_ref().map_or(0, Lead::backlog)
    }

    /// Why it stopped, if it did.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The statistics, unless they are too old to be shown as the present.
    fn fresh_digest(&self) -> Option<&Digest> {
        let fresh = |at: u64| self.now.steady_ms().saturating_sub(at) < DIGEST_LIFETIME_MS;
        self.digest.as_ref().filter(|(_, at)| fresh(*at)).map(|(digest, _)| digest)
    }

    fn wall(&self) -> Timestamp {
        self.now.wall
    }

    /// The names of monitors by number.
    fn names(&self) -> BTreeMap<MonId, &str> {
        let map = self.state.as_ref().map(ClusterState::mon_map);
        map.into_iter().flat_map(|map| map.peers().map(|(name, mon)| (mon.id, name))).collect()
    }
}
