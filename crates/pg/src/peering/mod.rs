//! Peering: from a new interval to an agreed log on every copy.
//!
//! This file holds intervals and the primary's side up to the agreed log; `activate.rs` takes it
//! from there to every member.

mod activate;
mod choose;
mod prior;

use crate::config::Canary as Bug;
use crate::effect::{Effect, LogChange, MonitorRequest};
use crate::event::Timer;
use crate::info::PgInfo;
use crate::interval::PgMap;
use crate::log::{LogSegment, Merge, ObjectFate, PgLog, TRIM_STEP, in_steps, object_fates};
use crate::message::{Body, LeaseBound};
use crate::missing::{MissingItem, MissingSet};
use crate::state::State;
use crate::version::{ObjectKey, Position, Time};
use crate::{Draft, Pg, StoreChange};
use cairn_types::{Epoch, OsdId};
pub(crate) use choose::unsettled;
use choose::{Choice, choose, same_members};
use prior::{PriorSet, awaits_someone, has_seen_all, without_witness};
use std::collections::{BTreeMap, BTreeSet};

/// What the primary knows in this interval.
#[derive(Debug, Default)]
pub(crate) struct Peering {
    prior: PriorSet,
    /// Whoever sent an info in this interval, with the incarnation that sent it.
    infos: BTreeMap<OsdId, (Epoch, PgInfo)>,
    awaiting: BTreeSet<OsdId>,
    choice: Option<Choice>,
    /// Who has taken part in everything that may have been served since the newest activation it took part in: what it takes back,
    /// or took back, nobody has seen the group without.
    unbroken: BTreeSet<OsdId>,
    wish: Option<MonitorRequest>,
    /// Leases heard of from others, by this clock.
    heard: Vec<(Option<OsdId>, Time)>,
    /// Members whose activation is not durable yet.
    activating: BTreeSet<OsdId>,
    /// Epoch of this activation, if there are copies enough to serve.
    started: Option<Epoch>,
    /// The other copies that take part: acting members and backfill targets.
    pub peers: BTreeMap<OsdId, Peer>,
    /// Nothing is served before: someone else may be answering reads.
    pub serve_after: Time,
    pub marked_clean: bool,
}

/// Another copy that takes part, as its primary knows it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub missing: MissingSet,
    /// Durable there.
    pub last_backfill: Position,
    /// Changes to objects within are sent with their payload, and waited for.
    pub sent_through: Position,
}

impl Peering {
    pub fn backfill_targets(&self) -> Vec<OsdId> {
        let unfinished = |(osd, peer): (&OsdId, &Peer)| (peer.last_backfill != Position::Max).then_some(*osd);
        self.peers.iter().filter_map(unfinished).collect()
    }

    pub fn has_backfill_targets(&self) -> bool {
        self.peers.values().any(|peer| peer.last_backfill != Position::Max)
    }

    pub fn blocked_by(&self) -> Vec<OsdId> {
        self.prior.blocked_by.iter().copied().collect()
    }

    /// Infos of copies that do not take part.
    pub fn strays(&self) -> impl Iterator<Item = (OsdId, &PgInfo)> {
        let others = self.infos.iter().filter(|(osd, _)| !self.peers.contains_key(osd));
        others.map(|(osd, (_, info))| (*osd, info))
    }

    /// Whether this activation has copies enough to serve.
    pub fn is_started(&self) -> bool {
        self.started.is_some()
    }

    pub fn forget_stray(&mut self, osd: OsdId) {
        self.infos.remove(&osd);
    }
}

impl Pg {
    pub(crate) fn on_map(&mut self, map: PgMap) {
        if map.epoch <= self.epoch() {
            return;
        }
        let created = self.info.history.epoch_created;
        let forget = self.config.canary(Bug::ForgetUpThru);
        let first_map = self.map.is_none();
        let new_interval = self.past.advance(self.map.as_ref(), &map, created, forget);
        if new_interval {
            self.begin_interval(map.epoch);
        } else if first_map && let Some(current) = &self.past.current {
            self.info.history.same_interval_since = current.first;
        }
        self.map = Some(map);
    }

    fn begin_interval(&mut self, first: Epoch) {
        self.past_dirty = true;
        self.info.history.same_interval_since = first;
        self.set_state(State::Reset);
        self.reset_ops();
        self.reset_backfill();
        self.recovery.reset();
        self.replication = Default::default();
        self.peering = Peering::default();
        self.leases.reset();
        self.out.push(Effect::NewInterval);
    }

    pub(crate) fn on_act_on_map(&mut self) {
        let Some(map) = self.map.as_ref() else { return };
        if !map.osd(self.whoami).up {
            self.waiting_for_map.clear();
            return;
        }
        match self.state {
            State::Reset => self.start_interval(),
            State::Down | State::Incomplete | State::GetInfo | State::GetLog | State::WaitActingChange => {
                self.restart_if_affected();
            }
            State::WaitUpThru => {
                if !self.restart_if_affected() {
                    self.wait_up_thru();
                }
            }
            State::Active => {
                self.forget_gone_strays();
                self.retry_pulls();
            }
            State::GetMissing | State::Stray | State::ReplicaActive | State::Removed => {}
        }
        self.notify_primary();
        self.deliver_waiting();
        self.work();
    }

    fn start_interval(&mut self) {
        // Past intervals, and where this one began, are durable before anyone hears from us in it.
        self.persist(Draft::default());
        if self.is_primary() {
            self.get_info();
        } else {
            self.set_state(State::Stray);
        }
    }

    /// A stray makes itself known: its copy may be needed, or be in the way.
    fn notify_primary(&mut self) {
        let Some(map) = &self.map else { return };
        let (Some(primary), State::Stray) = (map.primary, self.state) else { return };
        let this = (self.interval(), map.osd(self.whoami).up_from);
        let member = map.acting.contains(&self.whoami) || map.up.contains(&self.whoami);
        if !member && self.notified != Some(this) {
            self.notified = Some(this);
            self.send_info(primary);
        }
    }

    pub(crate) fn send_info(&mut self, to: OsdId) {
        let leases = self.leases.bounds(self.now);
        self.info.last_update = self.log.head();
        self.send_when_durable(to, Body::Info { info: self.info.clone(), leases });
    }

    /// Drops infos of those who went down or came up again since.
    fn forget_gone_strays(&mut self) -> bool {
        let Some(map) = &self.map else { return false };
        let before = self.peering.infos.len();
        self.peering.infos.retain(|osd, (up_from, _)| map.osd(*osd).up && map.osd(*osd).up_from == *up_from);
        before != self.peering.infos.len()
    }

    fn prior_set(&self, map: &PgMap) -> PriorSet {
        PriorSet::build(&self.past, self.info.history.last_epoch_started, map, self.whoami)
    }

    /// Starts over if the map changed whom to ask.
    fn restart_if_affected(&mut self) -> bool {
        let gone = self.forget_gone_strays();
        let Some(map) = &self.map else { return false };
        let affected = gone || self.prior_set(map) != self.peering.prior;
        if affected {
            self.get_info();
        }
        affected
    }

    fn get_info(&mut self) {
        let Some(map) = &self.map else { return };
        self.peering.prior = self.prior_set(map);
        self.peering.choice = None;
        self.peering.wish = None;
        self.set_state(State::GetInfo);
        self.ask_for_infos(true);
        self.check_infos();
    }

    fn ask_for_infos(&mut self, again: bool) {
        let Peering { prior, infos, awaiting, .. } = &mut self.peering;
        let need: BTreeSet<OsdId> =
            prior.probe.iter().filter(|osd| !infos.contains_key(osd)).copied().collect();
        let ask: Vec<OsdId> = need.iter().filter(|osd| again || !awaiting.contains(osd)).copied().collect();
        *awaiting = need;
        for osd in ask {
            self.send(osd, Body::QueryInfo);
        }
    }

    pub(crate) fn on_info(&mut self, from: OsdId, info: PgInfo, leases: &[LeaseBound]) {
        let Some(map) = &self.map else { return };
        let heard = leases.iter().map(|bound| (bound.holder, self.now.plus_ms(bound.remaining_ms)));
        self.peering.heard.extend(heard);
        let up_from = map.osd(from).up_from;
        let news = self.merge_history(&info.history);
        self.peering.infos.insert(from, (up_from, info));
        match self.state {
            State::GetInfo => {
                self.peering.awaiting.remove(&from);
                if news && let Some(map) = &self.map {
                    // A newer activation makes older intervals irrelevant.
                    self.peering.prior = self.prior_set(map);
                    self.ask_for_infos(false);
                }
                self.check_infos();
            }
            State::Down | State::Incomplete => self.get_info(),
            State::Active => self.retry_unfound(),
            _ => {}
        }
    }

    /// Takes over what is newer and drops past intervals that no longer matter.
    pub(crate) fn merge_history(&mut self, history: &crate::info::History) -> bool {
        let news = self.info.history.merge(history);
        if self.past.trim(self.info.history.last_epoch_clean) {
            self.past_dirty = true;
        }
        news
    }

    fn check_infos(&mut self) {
        if !self.peering.awaiting.is_empty() {
            return;
        }
        if !self.peering.prior.blocked_by.is_empty() {
            self.set_state(State::Down);
            return;
        }
        let Some(map) = &self.map else { return };
        let mut infos: BTreeMap<OsdId, &PgInfo> =
            self.peering.infos.iter().map(|(osd, (_, info))| (*osd, info)).collect();
        infos.insert(self.whoami, &self.info);
        let started = self.info.history.last_epoch_started;
        let choice = match without_witness(&self.past, started, map, &infos) {
            Some(_) => None,
            None => choose(&infos, map, &self.config),
        };
        // What nobody here has may be on a disk that is down; when there is none left to wait for, it is gone.
        let choice = choice.filter(|choice| !choice.falls_short || !awaits_someone(&self.past, started, map));
        let Some(choice) = choice else {
            self.set_state(State::Incomplete);
            return;
        };

        let wanted_primary = choice.acting.first().copied();
        if !same_members(&choice.acting, wanted_primary, &map.acting, map.primary) {
            let as_up = same_members(&choice.acting, wanted_primary, &map.up, map.up_primary);
            let acting = if as_up { Vec::new() } else { choice.acting.clone() };
            self.set_state(State::WaitActingChange);
            self.wish(MonitorRequest::PgTemp(acting));
            return;
        }
        let max_started = choice.max_started;
        let unbroken = infos.iter().filter(|(osd, info)| has_seen_all(&self.past, max_started, **osd, info));
        let unbroken = unbroken.map(|(osd, _)| *osd).collect();
        let auth = choice.auth;
        let members = choice.acting.iter().chain(&choice.backfill).chain([&self.whoami]);
        // Those too far behind for the log are backfilled and need none of it.
        let tail = infos.get(&auth).map(|info| info.log_tail).unwrap_or_default();
        let joining = members.filter_map(|osd| infos.get(osd)).filter(|info| info.last_update >= tail);
        let since = joining.map(|info| info.agreed_up_to().max(tail)).min().unwrap_or(tail);
        self.peering.unbroken = unbroken;
        self.peering.choice = Some(choice);
        if auth == self.whoami {
            self.wait_up_thru();
        } else {
            self.set_state(State::GetLog);
            self.send(auth, Body::QueryLog { since });
        }
    }

    pub(crate) fn on_log(&mut self, from: OsdId, info: PgInfo, segment: &LogSegment) {
        let expected = self.peering.choice.as_ref().is_some_and(|choice| choice.auth == from);
        if self.state != State::GetLog || !expected {
            return;
        }
        self.merge_history(&info.history);
        if !self.log.overlaps(segment) {
            self.set_state(State::Incomplete);
            return;
        }
        let keeps_undone = self.peering.unbroken.contains(&self.whoami);
        let draft = self.merge_log(segment, keeps_undone);
        self.persist(draft);
        self.wait_up_thru();
    }

    /// Makes this log equal to the authoritative one and the missing set fit it, in as many transactions as the store needs
    /// for it: the last one is returned. What is taken back is remembered only with `keeps_undone`.
    pub(crate) fn merge_log(&mut self, segment: &LogSegment, keeps_undone: bool) -> Draft {
        let merge = self.log.plan_merge(segment);
        let divergent: BTreeSet<_> = merge.divergent.iter().map(|entry| entry.object.clone()).collect();
        let mut draft = Draft::default();
        for (n, step) in merge.in_steps(self.config.log_step_bytes).into_iter().enumerate() {
            if n > 0 {
                self.persist(std::mem::take(&mut draft));
            }
            self.merge_step(step, &divergent, keeps_undone, &mut draft);
        }
        draft
    }

    fn merge_step(
        &mut self,
        merge: Merge,
        divergent: &BTreeSet<ObjectKey>,
        keeps_undone: bool,
        draft: &mut Draft,
    ) {
        self.log.apply_merge(&merge);
        let mut fates = object_fates(&merge, &self.log, &self.missing, &self.info.last_backfill);
        if self.config.canary(Bug::SkipDivergentRollback) {
            fates.retain(|object, _| !divergent.contains(object));
        }
        let undone_bytes: usize = self.missing.iter().map(|(_, item)| item.undone_bytes()).sum();
        let mut room = self.config.undone_bytes_max.saturating_sub(undone_bytes);
        for (object, mut fate) in fates {
            if let ObjectFate::Missing(item) = &mut fate {
                match room.checked_sub(item.undone_bytes()) {
                    Some(left) if keeps_undone => room = left,
                    _ => item.undone.clear(),
                }
            }
            let item = match fate {
                ObjectFate::Missing(item) if !self.config.canary(Bug::ForgetMissingObject) => Some(item),
                ObjectFate::Missing(_) | ObjectFate::Present => None,
                ObjectFate::Remove => {
                    draft.objects.push(StoreChange::Remove(object.clone()));
                    None
                }
            };
            if item.is_some() || self.missing.contains(&object) {
                self.missing.set(&object, item.clone());
                draft.missing.push((object, item));
            }
        }
        draft.log.rewind_to = (!merge.divergent.is_empty()).then_some(merge.rewind_to);
        draft.log.prepend = (!merge.older.is_empty()).then_some((merge.tail, merge.older));
        draft.log.append = merge.added;
    }

    /// The group may have been seen without what this copy has taken back: it cannot be made again.
    pub(crate) fn forget_undone(&mut self, draft: &mut Draft) {
        let has_undone =
            |(object, item): (&ObjectKey, &MissingItem)| (!item.undone.is_empty()).then(|| object.clone());
        let objects: Vec<ObjectKey> = self.missing.iter().filter_map(has_undone).collect();
        for object in objects {
            self.missing.forget_undone(&object);
            draft.missing.push((object.clone(), self.missing.get(&object).cloned()));
        }
    }

    /// Throws this log away for the authoritative one, as [`Pg::merge_log`] does: the entries it has go a few at a time, too.
    pub(crate) fn replace_log(&mut self, segment: &LogSegment) -> Draft {
        while self.log.len() > TRIM_STEP {
            let Some(to) = self.log.excess(0, 0) else { break };
            self.log.trim(to);
            let log = LogChange { trim_to: Some(to), ..LogChange::default() };
            self.persist(Draft { log, ..Draft::default() });
        }
        self.log = PgLog::from_parts(segment.tail, []);
        self.missing = MissingSet::default();
        self.info.last_backfill = Position::Min;
        let mut draft = Draft { clear_missing: true, ..Draft::default() };
        draft.log.reset_to = Some(segment.tail);
        for (n, step) in in_steps(segment.entries.clone(), self.config.log_step_bytes).into_iter().enumerate()
        {
            if n > 0 {
                self.persist(std::mem::take(&mut draft));
            }
            step.iter().for_each(|entry| self.log.append(entry.clone()));
            draft.log.append = step;
        }
        draft
    }

    /// A later interval must be able to see in the map that this one may have gone active.
    fn wait_up_thru(&mut self) {
        let Some(map) = &self.map else { return };
        let recorded = map.osd(self.whoami).up_thru >= self.interval();
        let epoch = map.epoch;
        if self.state != State::WaitUpThru {
            self.set_state(State::WaitUpThru);
        }
        if recorded || !self.has_min_size() || self.config.canary(Bug::ActivateWithoutUpThru) {
            self.peering.wish = None;
            self.activate();
        } else if self.peering.wish.is_none() {
            self.wish(MonitorRequest::UpThru(epoch));
        }
    }

    /// Asks the monitors, and again until it has come true.
    pub(crate) fn wish(&mut self, wish: MonitorRequest) {
        self.peering.wish = Some(wish);
        self.ask_monitors_again();
    }

    pub(crate) fn has_wish(&self) -> bool {
        self.peering.wish.is_some()
    }

    pub(crate) fn ask_monitors_again(&mut self) {
        if let Some(wish) = self.peering.wish.clone() {
            self.out.push(Effect::Monitor(wish));
            let at = self.now.plus_ms(self.config.monitor_retry_ms);
            self.out.push(Effect::ArmTimer { timer: Timer::Monitor, at });
        }
    }
}
