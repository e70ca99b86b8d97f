//! Log-based recovery: missing objects are pulled to the primary, then pushed to the copies that
//! miss them. An operation that waits for an object brings it to the front.

use crate::blob::Blob;
use crate::effect::{Effect, MonitorRequest};
use crate::event::{ListRange, ReadToken};
use crate::message::Body;
use crate::missing::MissingItem;
use crate::peering::unsettled;
use crate::version::{ObjectKey, Position, Version};
use crate::{Draft, Pg, State, StoreChange, Then};
use cairn_types::OsdId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Recovery of the primary, and reads outstanding at the driver.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Objects recovered at once, beyond those an operation waits for.
    pub limit: usize,
    /// Objects under way.
    pub moving: BTreeMap<ObjectKey, Moving>,
    /// Objects an operation waits for.
    urgent: BTreeSet<ObjectKey>,
    /// Objects no known copy has.
    pub unfound: BTreeSet<ObjectKey>,
    /// Copies that said they do not have the object.
    tried: BTreeMap<ObjectKey, BTreeSet<OsdId>>,
    reads: BTreeMap<ReadToken, Purpose>,
    next_read: u64,
}

/// How far an object is.
#[derive(Debug)]
pub(crate) enum Moving {
    /// Asked `from` for it.
    Pulling { from: OsdId, need: Version },
    /// Asked `from` for what it has taken back: this version.
    Redoing { from: OsdId, version: Version },
    /// Arrived, not yet durable.
    Storing,
    /// Being read here, for these copies.
    Reading { targets: BTreeSet<OsdId>, version: Version },
    /// Sent; these have not said that it is durable.
    Pushing { waiting: BTreeSet<OsdId>, version: Version },
}

/// What something is read for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// To push it.
    Push(ObjectKey),
    /// To answer a pull.
    Pull { to: OsdId, object: ObjectKey, need: Version },
    /// To make changes again that were taken back here.
    Redo(ObjectKey),
    /// To find the end of the next step of the backfill.
    BackfillNext,
    /// The primary's side of the comparison.
    BackfillMine,
    /// The target's side of the comparison.
    BackfillScan { to: OsdId, begin: Position, end: Position },
}

impl Recovery {
    pub fn new(limit: usize) -> Recovery {
        Recovery {
            limit: limit.max(1),
            moving: BTreeMap::new(),
            urgent: BTreeSet::new(),
            unfound: BTreeSet::new(),
            tried: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 0,
        }
    }

    /// A new interval. Tokens go on counting: answers to old ones are told apart.
    pub fn reset(&mut self) {
        *self = Recovery { next_read: self.next_read, ..Recovery::new(self.limit) };
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.moving.is_empty()
    }

    pub fn token(&mut self, purpose: Purpose) -> ReadToken {
        self.next_read += 1;
        let token = ReadToken(self.next_read);
        self.reads.insert(token, purpose);
        token
    }
}

impl Pg {
    /// Copies of objects that the other members miss, or that are not durable yet: objects on their way into the own store,
    /// and changes that are made again because nothing else was left of an object.
    pub(crate) fn degraded_copies(&self) -> usize {
        let missing: usize = self.peering.peers.values().map(|peer| peer.missing.len()).sum();
        let moving = self.recovery.moving.values();
        missing
            + moving.filter(|moving| matches!(moving, Moving::Storing)).count()
            + self.replication.redone()
    }

    /// Whether some copy that should have the object misses it.
    pub(crate) fn is_degraded(&self, object: &ObjectKey) -> bool {
        self.missing.contains(object) || self.peering.peers.values().any(|peer| peer.missing.contains(object))
    }

    /// Whether a copy of the object is under way, so that it must not change.
    pub(crate) fn is_moving(&self, object: &ObjectKey) -> bool {
        self.recovery.moving.contains_key(object)
    }

    /// Whether the object was pulled and is not durable here yet.
    pub(crate) fn is_arriving(&self, object: &ObjectKey) -> bool {
        matches!(self.recovery.moving.get(object), Some(Moving::Storing))
    }

    /// Whether nothing is missing anywhere.
    pub(crate) fn is_recovered(&self) -> bool {
        self.missing.is_empty() && self.degraded_copies() == 0 && self.recovery.moving.is_empty()
    }

    pub(crate) fn recover_first(&mut self, object: &ObjectKey) {
        if !self.is_moving(object) {
            self.recovery.urgent.insert(object.clone());
        }
    }

    /// Starts as much as may be under way.
    pub(crate) fn recover(&mut self) {
        if self.state != State::Active {
            return;
        }
        while let Some(object) = self.recovery.urgent.pop_first() {
            self.start_recovery(&object);
        }
        while self.recovery.moving.len() < self.recovery.limit {
            let idle = |object: &&ObjectKey| {
                !self.recovery.moving.contains_key(object) && !self.recovery.unfound.contains(object)
            };
            let own = self.missing.oldest_first().find(idle);
            let next = own.or_else(|| {
                self.peering.peers.values().find_map(|peer| peer.missing.oldest_first().find(idle))
            });
            let Some(next) = next.cloned() else { break };
            self.start_recovery(&next);
        }
    }

    pub(crate) fn start_recovery(&mut self, object: &ObjectKey) {
        if self.is_moving(object) || self.recovery.unfound.contains(object) {
            return;
        }
        if let Some(need) = self.missing.get(object).map(|item| item.need) {
            match self.find_source(object) {
                Some(from) => {
                    self.recovery.moving.insert(object.clone(), Moving::Pulling { from, need });
                    self.send(from, Body::Pull { object: object.clone(), need });
                }
                None if self.begin_redo(object) => {}
                None => {
                    self.recovery.unfound.insert(object.clone());
                }
            }
            return;
        }
        let missing = |(osd, peer): (&OsdId, &crate::peering::Peer)| {
            peer.missing.get(object).map(|item| (*osd, item.need))
        };
        let missing: Vec<(OsdId, Version)> = self.peering.peers.iter().filter_map(missing).collect();
        if let Some((_, version)) = missing.first().copied() {
            self.read_to_push(object.clone(), version, missing.into_iter().map(|(osd, _)| osd).collect());
        }
    }

    /// A copy that should have it, members first, then strays; what it really has, it will say.
    pub(crate) fn find_source(&self, object: &ObjectKey) -> Option<OsdId> {
        let tried = self.recovery.tried.get(object);
        let untried = |osd: &OsdId| !tried.is_some_and(|tried| tried.contains(osd));
        let members = self.peering.peers.iter();
        let member = members
            .filter(|(_, peer)| !peer.missing.contains(object) && peer.last_backfill.covers(object))
            .map(|(osd, _)| *osd)
            .find(untried);
        let mut strays = self.peering.strays().filter(|(_, info)| info.last_backfill.covers(object));
        member.or_else(|| strays.find_map(|(osd, _)| Some(osd).filter(untried)))
    }

    pub(crate) fn read_to_push(&mut self, object: ObjectKey, version: Version, targets: BTreeSet<OsdId>) {
        self.recovery.moving.insert(object.clone(), Moving::Reading { targets, version });
        let token = self.recovery.token(Purpose::Push(object.clone()));
        self.out.push(Effect::ReadObject { token, object });
    }

    pub(crate) fn read_for_pull(&mut self, to: OsdId, object: ObjectKey, need: Version) {
        // What was taken back is good for that.
        let is_undone = |item: &MissingItem| !item.undone.is_empty() && item.have == need;
        if self.missing.get(&object).is_some_and(|item| !is_undone(item)) {
            self.send(to, Body::PullFailed { object, need });
            return;
        }
        let token = self.recovery.token(Purpose::Pull { to, object: object.clone(), need });
        self.out.push(Effect::ReadObject { token, object });
    }

    /// The primary hears of it when this copy will know of it after a restart: then the object is pushed here, too.
    fn pull_failed(&mut self, to: OsdId, object: ObjectKey, need: Version) {
        let is_member = self.state == State::ReplicaActive && self.info.last_backfill.covers(&object);
        let is_current = self.log.object_version(&object).is_none_or(|version| version == need);
        let failed = Body::PullFailed { object: object.clone(), need };
        if is_member && is_current && !self.missing.contains(&object) {
            let draft = Draft { then: SmallVec::from_iter([Then::Send(to, failed)]), ..Draft::default() };
            self.lost_here(object, need, draft);
        } else {
            self.send(to, failed);
        }
    }

    pub(crate) fn list(&mut self, purpose: Purpose, begin: Position, end: Position, limit: Option<usize>) {
        let token = self.recovery.token(purpose);
        self.out.push(Effect::List { token, range: ListRange { begin, end, limit } });
    }

    pub(crate) fn on_object_read(&mut self, token: ReadToken, found: Option<(Version, Blob)>) {
        match self.recovery.reads.remove(&token) {
            Some(Purpose::Push(object)) => self.push(object, found),
            Some(Purpose::Redo(object)) => self.redo_read(&object, found),
            Some(Purpose::Pull { to, object, need }) => match found {
                Some((version, data)) if version == need => {
                    self.send(to, Body::Push { object, version, data })
                }
                _ => self.pull_failed(to, object, need),
            },
            _ => {}
        }
        self.work();
    }

    pub(crate) fn on_listed(&mut self, token: ReadToken, objects: Vec<(ObjectKey, Version)>) {
        if let Some(purpose) = self.recovery.reads.remove(&token) {
            self.backfill_listed(purpose, objects);
        }
        self.work();
    }

    fn push(&mut self, object: ObjectKey, found: Option<(Version, Blob)>) {
        let Some(Moving::Reading { targets, version }) = self.recovery.moving.remove(&object) else { return };
        match found {
            Some((stored, data)) if stored == version => {
                for osd in &targets {
                    self.send(*osd, Body::Push { object: object.clone(), version, data: data.clone() });
                }
                self.recovery.moving.insert(object, Moving::Pushing { waiting: targets, version });
            }
            // It cannot be read here: it is missing here too, and comes from whoever has it.
            _ => {
                self.backfill_lost(&object);
                self.lost_here(object, version, Draft::default());
            }
        }
    }

    /// What the store has of an object is not to be used: it comes from whoever has it.
    pub(crate) fn lost_here(&mut self, object: ObjectKey, need: Version, mut draft: Draft) {
        let item = MissingItem::new(need, Version::ZERO);
        self.missing.insert(object.clone(), item.clone());
        draft.missing.push((object, Some(item)));
        self.persist(draft);
    }

    /// A pulled object came.
    pub(crate) fn on_pulled(&mut self, from: OsdId, object: ObjectKey, version: Version, data: Blob) {
        let expected = matches!(self.recovery.moving.get(&object),
            Some(Moving::Pulling { from: source, need }) if *source == from && *need == version);
        if !expected {
            return self.redo_pulled(from, &object, version, data);
        }
        self.recovery.moving.insert(object.clone(), Moving::Storing);
        let mut draft = Draft::default();
        draft.then.push(Then::Recovered(object.clone()));
        self.put(object, version, data, draft);
    }

    fn put(&mut self, object: ObjectKey, version: Version, data: Blob, mut draft: Draft) {
        if self.missing.remove(&object).is_some() {
            draft.missing.push((object.clone(), None));
        }
        draft.objects.push(StoreChange::Put { object, version, data });
        self.persist(draft);
    }

    pub(crate) fn recovered_here(&mut self, object: &ObjectKey) {
        self.recovery.moving.remove(object);
        self.recovery.tried.remove(object);
        self.ops.mark_ready(object);
        self.start_recovery(object);
    }

    pub(crate) fn on_pull_failed(&mut self, from: OsdId, object: &ObjectKey, need: Version) {
        let asked = matches!(self.recovery.moving.get(object),
            Some(Moving::Pulling { from: source, need: asked }) if *source == from && *asked == need);
        if asked {
            self.recovery.moving.remove(object);
            self.recovery.tried.entry(object.clone()).or_default().insert(from);
            if let Some(peer) =
                self.peering.peers.get_mut(&from).filter(|peer| peer.last_backfill.covers(object))
            {
                peer.missing.insert(object.clone(), MissingItem::new(need, Version::ZERO));
            }
            self.start_recovery(object);
        } else {
            self.redo_pull_failed(from, object, need);
        }
    }

    /// A copy's side.
    pub(crate) fn on_push(&mut self, from: OsdId, object: ObjectKey, version: Version, data: Blob) {
        if self.state != State::ReplicaActive {
            return;
        }
        let wanted = self.missing.get(&object).is_some_and(|item| item.need == version);
        if !wanted && self.info.last_backfill.covers(&object) {
            return;
        }
        let mut draft = Draft::default();
        draft.then.push(Then::Send(from, Body::PushReply { object: object.clone(), version }));
        self.put(object, version, data, draft);
    }

    pub(crate) fn on_push_reply(&mut self, from: OsdId, object: &ObjectKey, version: Version) {
        let Some(Moving::Pushing { waiting, version: pushed }) = self.recovery.moving.get_mut(object) else {
            return;
        };
        if *pushed != version || !waiting.remove(&from) {
            return;
        }
        let done = waiting.is_empty();
        if let Some(peer) = self.peering.peers.get_mut(&from) {
            peer.missing.remove(object);
        }
        if done {
            self.recovery.moving.remove(object);
            self.ops.mark_ready(object);
            self.backfill_pushed(object);
        }
    }

    /// Someone who may have an unfound object has appeared.
    pub(crate) fn retry_unfound(&mut self) {
        self.recovery.unfound.clear();
        self.recovery.tried.clear();
        self.mark_all_ops_ready();
    }

    /// Pulls from those who went down are asked of others.
    pub(crate) fn retry_pulls(&mut self) {
        let Some(map) = &self.map else { return };
        let known: BTreeSet<OsdId> =
            self.peering.peers.keys().copied().chain(self.peering.strays().map(|(osd, _)| osd)).collect();
        self.recovery.moving.retain(|object, moving| match moving {
            Moving::Pulling { from, .. } if !known.contains(from) || !map.osd(*from).up => {
                self.recovery.urgent.insert(object.clone());
                false
            }
            _ => true,
        });
    }

    /// When everything is recovered: give the acting set back to CRUSH as far as CRUSH has `size` OSDs, or call
    /// it clean.
    pub(crate) fn finish_recovery(&mut self) {
        if self.state != State::Active || !self.is_recovered() || self.peering.has_backfill_targets() {
            return;
        }
        let Some(map) = &self.map else { return };
        if let Some(pg_temp) = unsettled(map) {
            if !self.has_wish() {
                self.wish(MonitorRequest::PgTemp(pg_temp));
            }
            return;
        }
        if map.acting.len() < map.size || !self.has_min_size() {
            return;
        }
        if !self.peering.marked_clean {
            self.peering.marked_clean = true;
            self.info.history.last_epoch_clean = self.epoch();
            let history = self.info.history;
            self.merge_history(&history);
            self.past_dirty |= self.past.trim(self.info.history.last_epoch_clean);
            self.persist(Draft::default());
            self.share_history();
        }
        let strays: Vec<OsdId> = self.peering.strays().map(|(osd, _)| osd).collect();
        for osd in strays {
            self.send(osd, Body::RemoveCopy);
            self.peering.forget_stray(osd);
        }
    }
}
