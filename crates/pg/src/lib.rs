//! One placement group on one OSD, as a pure state machine.
//!
//! [`Pg::handle`] takes the time and an [`Event`] and yields [`Effect`]s. Nothing here reads a
//! clock, draws entropy, waits or opens anything, and nothing depends on hash order, so that the
//! same inputs always give the same outputs. `docs/pg.md` has the vocabulary, the states, the
//! messages, the invariants and what a driver must do.

mod backfill;
mod blob;
mod config;
mod effect;
mod event;
mod info;
mod interval;
mod log;
mod message;
mod missing;
mod ops;
mod peering;
mod read_lease;
mod recovery;
mod redo;
mod replicate;
mod state;
mod stats;
mod version;

pub use blob::Blob;
#[cfg(feature = "canaries")]
pub use config::Canary;
pub use config::Config;
pub use effect::{Effect, LogChange, MonitorRequest, PersistedPg, PgTransaction, Reply, StoreChange};
pub use event::{
    ClientOp, Event, ListRange, ObjectChange, OpId, OpKind, Outcome, PersistToken, ReadToken, Reservation,
    Timer,
};
pub use info::{History, PgInfo};
pub use interval::{CurrentInterval, Interval, OsdState, PastIntervals, PgMap};
pub use log::{EntryKind, LogEntry, LogSegment, PgLog, RequestId};
pub use message::{Activation, Body, LeaseBound, Message};
pub use missing::{MissingItem, MissingSet};
pub use state::State;
pub use stats::{PgStats, StateFlags};
pub use version::{ObjectKey, Position, Time, Version};

use backfill::Backfill;
use cairn_types::{Epoch, OsdId, PgId};
use ops::Ops;
use peering::{Peering, unsettled};
use read_lease::Leases;
use recovery::Recovery;
use replicate::Replication;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// One placement group on one OSD.
#[derive(Debug)]
pub struct Pg {
    whoami: OsdId,
    config: Config,
    now: Time,
    map: Option<PgMap>,
    state: State,
    info: PgInfo,
    log: PgLog,
    missing: MissingSet,
    past: PastIntervals,
    past_dirty: bool,
    leases: Leases,
    /// Newest activation this process was primary of.
    lease_authority: Option<Epoch>,
    /// What is known as primary, for this interval.
    peering: Peering,
    replication: Replication,
    ops: Ops,
    recovery: Recovery,
    backfill: Backfill,
    /// Primary and incarnation this copy last reported itself to.
    notified: Option<(Epoch, Epoch)>,
    waiting_for_map: VecDeque<(OsdId, Message)>,
    next_token: u64,
    after_persist: BTreeMap<PersistToken, After>,
    told: Option<Told>,
    out: Vec<Effect>,
}

/// What the last report rested on.
#[derive(PartialEq, Eq, Debug)]
struct Told {
    epoch: Epoch,
    flags: StateFlags,
    missing: usize,
    degraded: usize,
    unfound: usize,
}

/// What waits for a transaction, and the interval it belongs to: in a later one it is void.
#[derive(Debug, Default)]
struct After {
    interval: Epoch,
    then: SmallVec<[Then; 2]>,
}

/// What happens when a transaction is durable.
#[derive(Debug)]
enum Then {
    Send(OsdId, Body),
    /// The primary's own copy is durable up to this version.
    Committed(Version),
    /// The primary's activation is durable: activate the others.
    Activated,
    /// A pulled object is durable here.
    Recovered(ObjectKey),
}

/// A transaction being put together.
#[derive(Debug, Default)]
struct Draft {
    objects: Vec<StoreChange>,
    log: LogChange,
    clear_missing: bool,
    missing: Vec<(ObjectKey, Option<MissingItem>)>,
    then: SmallVec<[Then; 2]>,
}

impl Pg {
    /// A group this OSD has nothing of yet. `epoch_created` is the pool's (or group's) first epoch
    /// and `born` the newest epoch there was when this OSD's disk was made. Give it every map from
    /// `epoch_created` on, or from the oldest there is.
    pub fn new(whoami: OsdId, pgid: PgId, epoch_created: Epoch, born: Epoch, config: Config) -> Pg {
        let persisted = PersistedPg::new(PgInfo::new(pgid, epoch_created, born));
        Pg::load(Time::default(), whoami, persisted, config)
    }

    /// A group as it was stored. Give it every map from [`Pg::first_map_needed`] on.
    pub fn load(now: Time, whoami: OsdId, persisted: PersistedPg, config: Config) -> Pg {
        let PersistedPg { info, log, missing, past_intervals } = persisted;
        // Promises made before the restart are not remembered. A copy that never took part in an
        // activation made none.
        let leases = if info.last_epoch_started == Epoch(0) {
            Leases::default()
        } else {
            Leases::unknown(now.plus_ms(config.lease_bound_ms()))
        };
        Pg {
            whoami,
            recovery: Recovery::new(config.recovery_limit),
            config,
            now,
            map: None,
            state: State::Reset,
            info,
            log,
            missing,
            past: past_intervals,
            past_dirty: false,
            leases,
            lease_authority: None,
            peering: Peering::default(),
            replication: Replication::default(),
            ops: Ops::default(),
            backfill: Backfill::default(),
            notified: None,
            waiting_for_map: VecDeque::new(),
            next_token: 0,
            after_persist: BTreeMap::new(),
            told: None,
            out: Vec::new(),
        }
    }

    /// The first map this copy wants to see after [`Pg::load`]: the one its last known interval
    /// began with. If it is not to be had any more, begin with the oldest there is.
    pub fn first_map_needed(&self) -> Epoch {
        self.past.current.as_ref().map_or(self.info.history.epoch_created, |current| current.first)
    }

    /// Changes how long the log may be, and how much of it goes into one transaction, as the store's room asks: takes effect with
    /// the next change.
    pub fn bound_log(&mut self, min_entries: usize, max_entries: usize, step_bytes: usize) {
        self.config.log_step_bytes = step_bytes;
        self.config.log_min_entries = min_entries;
        self.config.log_max_entries = max_entries;
    }

    /// Which group.
    pub fn pgid(&self) -> PgId {
        self.info.pgid
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// This copy's info.
    pub fn info(&self) -> &PgInfo {
        &self.info
    }

    /// This copy's log.
    pub fn log(&self) -> &PgLog {
        &self.log
    }

    /// This copy's missing set.
    pub fn missing(&self) -> &MissingSet {
        &self.missing
    }

    /// The intervals since the group was last clean.
    pub fn past_intervals(&self) -> &PastIntervals {
        &self.past
    }

    /// Takes an event; the effects are to be carried out in order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.handle_into(now, event, &mut effects);
        effects
    }

    /// As [`Pg::handle`], into a list the caller keeps.
    pub fn handle_into(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        if self.state == State::Removed {
            return;
        }
        std::mem::swap(&mut self.out, effects);
        match event {
            Event::Map(map) => self.on_map(map),
            Event::ActOnMap => self.on_act_on_map(),
            Event::Message { from, message } => self.on_message(from, message),
            Event::Op(op) => self.on_op(op),
            Event::Executed { op, outcome } => self.on_executed(op, outcome),
            Event::Persisted(token) => self.on_persisted(token),
            Event::ObjectRead { token, object } => self.on_object_read(token, object),
            Event::Listed { token, objects } => self.on_listed(token, objects),
            Event::Reserved(reservation) => self.on_reserved(reservation),
            Event::Timer(timer) => self.on_timer(timer),
            Event::SetRecoveryLimit(limit) => {
                self.recovery.limit = limit.max(1);
                self.work();
            }
        }
        self.report();
        std::mem::swap(&mut self.out, effects);
    }

    fn epoch(&self) -> Epoch {
        self.map.as_ref().map_or(Epoch(0), |map| map.epoch)
    }

    fn interval(&self) -> Epoch {
        self.info.history.same_interval_since
    }

    fn acting(&self) -> &[OsdId] {
        self.map.as_ref().map_or(&[], |map| &map.acting)
    }

    fn primary(&self) -> Option<OsdId> {
        self.map.as_ref().and_then(|map| map.primary)
    }

    fn is_primary(&self) -> bool {
        self.primary() == Some(self.whoami)
    }

    /// Whether there are copies enough to serve.
    fn has_min_size(&self) -> bool {
        self.map.as_ref().is_some_and(|map| map.acting.len() >= map.min_size.max(1))
    }

    fn set_state(&mut self, state: State) {
        assert!(self.state.may_become(state), "{}: {:?} to {state:?}", self.info.pgid, self.state);
        self.state = state;
    }

    fn send(&mut self, to: OsdId, body: Body) {
        let message = Message { epoch: self.epoch(), body };
        self.out.push(Effect::Send { to, message });
    }

    /// Sends once everything handed to the store so far is durable: what a peer is told of this
    /// copy must survive this OSD.
    fn send_when_durable(&mut self, to: OsdId, body: Body) {
        let interval = self.interval();
        match self.after_persist.last_entry() {
            Some(mut last) if last.get().interval == interval => {
                last.get_mut().then.push(Then::Send(to, body))
            }
            Some(_) => {
                self.persist(Draft { then: SmallVec::from_iter([Then::Send(to, body)]), ..Draft::default() })
            }
            None => self.send(to, body),
        }
    }

    /// Hands a transaction to the store, with the info as it is now.
    fn persist(&mut self, draft: Draft) {
        let Draft { objects, log, clear_missing, missing, then } = draft;
        self.info.last_update = self.log.head();
        self.info.log_tail = self.log.tail();
        self.info.last_complete = match self.missing.oldest_need() {
            None => self.log.head(),
            Some(need) => self.log.before(need),
        };
        self.next_token += 1;
        let token = PersistToken(self.next_token);
        self.after_persist.insert(token, After { interval: self.interval(), then });
        let past_intervals = std::mem::take(&mut self.past_dirty).then(|| self.past.clone());
        let info = self.info.clone();
        self.out.push(Effect::Persist(PgTransaction {
            token,
            objects,
            log,
            clear_missing,
            missing,
            info,
            past_intervals,
        }));
    }

    fn on_persisted(&mut self, token: PersistToken) {
        // Transactions become durable in order, so everything older is durable too.
        while let Some(first) = self.after_persist.first_entry().filter(|first| *first.key() <= token) {
            let After { interval, then } = first.remove();
            if interval != self.interval() {
                continue;
            }
            for then in then {
                match then {
                    Then::Send(to, body) => self.send(to, body),
                    Then::Committed(version) => self.committed(self.whoami, version),
                    Then::Activated => self.activate_peers(),
                    Then::Recovered(object) => self.recovered_here(&object),
                }
            }
        }
        self.work();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Lease => {
                if self.leases.wanted {
                    self.ask_for_lease();
                }
            }
            Timer::PriorLease => self.work(),
            Timer::Monitor => self.ask_monitors_again(),
        }
    }

    fn on_message(&mut self, from: OsdId, message: Message) {
        // Once one waits, all of its sender's do: the order on a connection is kept.
        let behind = self.waiting_for_map.iter().any(|(sender, _)| *sender == from);
        if message.epoch > self.epoch() || self.state == State::Reset || behind {
            self.waiting_for_map.push_back((from, message));
            return;
        }
        self.deliver(from, message);
    }

    /// Messages that were ahead of the map, now that it has caught up.
    fn deliver_waiting(&mut self) {
        for (from, message) in std::mem::take(&mut self.waiting_for_map) {
            self.on_message(from, message);
        }
    }

    fn deliver(&mut self, from: OsdId, Message { epoch, body }: Message) {
        // Said in an interval that is over, or by someone this map knows to be gone.
        if epoch < self.interval() || self.state == State::Removed {
            return;
        }
        let from_primary = self.primary() == Some(from) && !self.is_primary();
        if self.is_primary() {
            match body {
                Body::Info { info, leases } => self.on_info(from, info, &leases),
                Body::Log { info, segment } => self.on_log(from, info, &segment),
                Body::Activated { last_update, missing } => self.on_activated(from, last_update, missing),
                Body::RepOpReply { version } => self.committed(from, version),
                Body::PullFailed { object, need } => self.on_pull_failed(from, &object, need),
                Body::Push { object, version, data } => self.on_pulled(from, object, version, data),
                Body::PushReply { object, version } => self.on_push_reply(from, &object, version),
                Body::BackfillGranted => self.on_backfill_granted(from),
                Body::BackfillObjects { begin, end, objects } => {
                    self.on_backfill_objects(from, &begin, &end, objects);
                }
                Body::BackfillAck { through } => self.on_backfill_ack(from, &through),
                Body::LeaseGrant { seq } => self.on_lease_grant(from, seq),
                _ => {}
            }
        } else if from_primary {
            match body {
                Body::QueryInfo => self.send_info(from),
                Body::QueryLog { since } => {
                    let body = Body::Log { info: self.info.clone(), segment: self.log.segment(since) };
                    self.send_when_durable(from, body);
                }
                Body::Activate(activation) => self.on_activate(from, &activation),
                Body::Share { history, committed_to } => self.on_share(&history, committed_to),
                // What does not follow is a repetition, or a connection that lost something: it must
                // not be answered for.
                Body::RepOp { follows, entries, payload, trim_to, committed_to }
                    if follows == self.log.head() =>
                {
                    self.on_rep_op(from, entries, payload, trim_to, committed_to);
                }
                Body::Redo { follows, entries, data, trim_to, committed_to }
                    if follows == self.log.head() =>
                {
                    self.on_redo(from, entries, data, trim_to, committed_to);
                }
                Body::Pull { object, need } => self.read_for_pull(from, object, need),
                Body::Push { object, version, data } => self.on_push(from, object, version, data),
                Body::BackfillReserve => self.on_backfill_reserve(),
                Body::BackfillRelease => self.on_backfill_release(),
                Body::BackfillScan { begin, end } => self.on_backfill_scan(begin, end),
                Body::BackfillProgress { through, remove } => {
                    self.on_backfill_progress(from, through, remove)
                }
                Body::LeaseRequest { seq } => self.on_lease_request(from, seq),
                Body::RemoveCopy => self.on_remove_copy(),
                _ => {}
            }
        }
        self.work();
    }

    /// Whatever can go on, goes on.
    fn work(&mut self) {
        if self.state != State::Active {
            return;
        }
        self.pump_ops();
        self.recover();
        self.continue_backfill();
        self.finish_recovery();
    }

    fn report(&mut self) {
        if !self.is_primary() {
            self.told = None;
            return;
        }
        // The version and the queue alone are not worth a report; they ride on the next one.
        let now = self.flags().map(|flags| Told {
            epoch: self.epoch(),
            flags,
            missing: self.missing.len(),
            degraded: self.degraded_copies(),
            unfound: self.recovery.unfound.len(),
        });
        if now != self.told {
            self.told = now;
            if let Some(stats) = self.stats() {
                self.out.push(Effect::Stats(stats));
            }
        }
    }

    fn flags(&self) -> Option<StateFlags> {
        let map = self.map.as_ref()?;
        let degraded = self.degraded_copies() + self.missing.len();
        let serving_state = self.state == State::Active;
        let backfill = serving_state && self.peering.has_backfill_targets();
        let active = serving_state && self.has_min_size();
        let undersized = serving_state && map.acting.len() < map.size;
        let unfound = !self.recovery.unfound.is_empty();
        Some(StateFlags {
            active,
            peered: serving_state && !active,
            peering: self.state.is_peering() && !matches!(self.state, State::Down | State::Incomplete),
            down: self.state == State::Down,
            incomplete: self.state == State::Incomplete,
            clean: active && degraded == 0 && !backfill && !undersized && unsettled(map).is_none(),
            undersized,
            degraded: undersized || degraded > 0,
            remapped: map.acting != map.up,
            recovering: serving_state && degraded > 0 && (!unfound || !self.recovery.is_idle()),
            recovery_unfound: unfound,
            backfill_wait: backfill && !self.backfill.is_moving(),
            backfilling: self.backfill.is_moving(),
        })
    }

    /// What the primary has to tell, `None` before the first map.
    pub fn stats(&self) -> Option<PgStats> {
        let map = self.map.as_ref()?;
        Some(PgStats {
            pgid: self.info.pgid,
            epoch: map.epoch,
            state: self.flags()?,
            up: map.up.clone(),
            acting: map.acting.clone(),
            last_update: self.log.head(),
            missing_on_primary: self.missing.len(),
            degraded_copies: self.degraded_copies() + self.missing.len(),
            unfound: self.recovery.unfound.len(),
            backfill_targets: self.peering.backfill_targets(),
            blocked_by: self.peering.blocked_by(),
            ops_waiting: self.ops.waiting(),
        })
    }

    /// Checks what must always hold between log, missing set and info; says what does not.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let mut last = self.log.tail();
        for entry in self.log.iter() {
            if entry.version <= last {
                return Err(Inconsistency::LogOrder { at: entry.version });
            }
            last = entry.version;
        }
        if self.log.head() != last {
            return Err(Inconsistency::LogOrder { at: self.log.head() });
        }
        for (object, item) in self.missing.iter() {
            let by_log = self.log.object_version(object);
            let right = by_log.map_or(item.need <= self.log.tail(), |version| version == item.need);
            if !right || item.need == item.have || !item.is_right() {
                return Err(Inconsistency::Missing { object: object.clone(), need: item.need });
            }
        }
        Ok(())
    }
}

/// A broken invariant of one copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inconsistency {
    /// Entries are not in order.
    LogOrder {
        /// Where.
        at: Version,
    },
    /// A missing object is not what the log asks for.
    Missing {
        /// Which.
        object: ObjectKey,
        /// Version it is said to need.
        need: Version,
    },
}
