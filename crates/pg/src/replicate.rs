//! Primary-copy replication: one order of changes, the same transaction on every copy, an answer
//! when all of them have it durably.

use crate::blob::Blob;
use crate::config::Canary as Bug;
use crate::event::{ObjectChange, OpId};
use crate::log::{EntryKind, LogEntry, RequestId};
use crate::message::Body;
use crate::state::State;
use crate::version::{ObjectKey, Version};
use crate::{Draft, Pg, StoreChange, Then};
use bytes::Bytes;
use cairn_types::OsdId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Changes not yet durable everywhere.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    /// By the version of the last entry.
    in_flight: BTreeMap<Version, InFlight>,
    /// Arrivals to be answered.
    arrivals: usize,
    /// Those of `in_flight` that are made again: until they are durable there may be one copy of their object.
    redone: BTreeSet<Version>,
}

#[derive(Debug)]
struct InFlight {
    /// Version of the first entry.
    first: Version,
    object: ObjectKey,
    waiting: SmallVec<[OsdId; 4]>,
    /// Arrivals to be answered: the first, and resends that came meanwhile.
    ops: SmallVec<[OpId; 1]>,
    result: Bytes,
}

impl Replication {
    /// Joins a resend to the request whose entry has this version, if it is still under way.
    pub fn attach(&mut self, version: Version, op: OpId) -> bool {
        let next = self.in_flight.range_mut(version..).next();
        let Some((_, in_flight)) = next.filter(|(_, in_flight)| in_flight.first <= version) else {
            return false;
        };
        in_flight.ops.push(op);
        self.arrivals += 1;
        true
    }

    /// Arrivals waiting for copies to be durable.
    pub fn arrivals(&self) -> usize {
        self.arrivals
    }

    /// Changes made again that are not durable on all copies.
    pub fn redone(&self) -> usize {
        self.redone.len()
    }

    /// Everything before this is durable on all copies.
    fn all_committed_before(&self) -> Option<Version> {
        self.in_flight.values().next().map(|in_flight| in_flight.first)
    }

    pub fn take_ops(&mut self) -> impl Iterator<Item = OpId> + use<> {
        self.redone.clear();
        std::mem::take(&mut self.in_flight).into_values().flat_map(|in_flight| in_flight.ops)
    }
}

impl Pg {
    /// Orders a change: log entry, own store, every other copy.
    pub(crate) fn submit(
        &mut self,
        op: OpId,
        request: RequestId,
        kind: Option<(SmallVec<[ObjectChange; 1]>, Blob)>,
        object: ObjectKey,
        result: Bytes,
    ) {
        let epoch = self.epoch();
        let follows = self.log.head();
        let mut next = follows.version;
        let mut version = || {
            next += 1;
            Version { epoch, version: next }
        };
        let (changes, payload) = match kind {
            Some((changes, payload)) => (changes, Some(payload)),
            None => (SmallVec::new(), None),
        };
        let mut entries: Vec<LogEntry> = Vec::with_capacity(changes.len().max(1));
        for change in changes {
            let first = entries.is_empty();
            entries.push(LogEntry {
                version: version(),
                prior_version: self.log.object_version(&change.object).unwrap_or(change.stored_version),
                object: change.object,
                kind: if change.delete { EntryKind::Delete } else { EntryKind::Modify },
                request: first.then_some(request),
                result: if first { result.clone() } else { Bytes::new() },
            });
        }
        if entries.is_empty() {
            entries.push(LogEntry {
                version: version(),
                prior_version: Version::ZERO,
                object: object.clone(),
                kind: EntryKind::Error,
                request: Some(request),
                result: result.clone(),
            });
        }
        let first = entries.first().map(|entry| entry.version).unwrap_or_default();
        let last = entries.last().map(|entry| entry.version).unwrap_or_default();
        let trim_to = self.trim_point();
        let committed_to = self.info.committed_to;

        let mut waiting = SmallVec::from_iter([self.whoami]);
        for (osd, within) in self.peers_within(&object) {
            if within {
                waiting.push(osd);
            }
            let payload = payload.clone().filter(|_| within);
            let entries = entries.clone();
            self.send(osd, Body::RepOp { follows, entries, payload, trim_to, committed_to });
        }
        if self.config.canary(Bug::AckWithOneReplicaNotDurable) && waiting.len() > 1 {
            waiting.pop();
        }
        self.ops.began_write(&object);
        let ops = SmallVec::from_iter([op]);
        self.replication.arrivals += 1;
        self.replication.in_flight.insert(last, InFlight { first, object, waiting, ops, result });
        let mut draft = Draft::default();
        draft.then.push(Then::Committed(last));
        self.append(entries, payload, trim_to, draft);
    }

    /// The other copies that take a change of the object.
    pub fn takers(&self, object: &ObjectKey) -> impl Iterator<Item = OsdId> + use<> {
        self.peers_within(object).into_iter().filter_map(|(osd, within)| within.then_some(osd))
    }

    /// The other copies, and whether they are meant to have the object by now.
    fn peers_within(&self, object: &ObjectKey) -> SmallVec<[(OsdId, bool); 4]> {
        let peers = self.peering.peers.iter();
        peers.map(|(osd, peer)| (*osd, peer.sent_through.covers(object))).collect()
    }

    /// Orders changes of an object anew that were taken back: their entries with the requests and answers they had, and the object
    /// that came of them in the place of whatever the copies have.
    pub(crate) fn submit_redo(&mut self, object: ObjectKey, undone: Vec<LogEntry>, data: Option<Blob>) {
        let epoch = self.epoch();
        let follows = self.log.head();
        // Above what they had: versions that clients see of the object are drawn from it.
        let before = undone.iter().map(|entry| entry.version.version).fold(follows.version, u64::max);
        let versions = (before + 1..).map(|version| Version { epoch, version });
        let mut prior_version = undone.first().map(|entry| entry.prior_version).unwrap_or_default();
        let entries: Vec<LogEntry> = undone
            .into_iter()
            .zip(versions)
            .map(|(entry, version)| {
                let request = entry.request.filter(|_| !self.config.canary(Bug::ForgetRedoneRequests));
                let entry = LogEntry { version, prior_version, request, ..entry };
                prior_version = entry.leaves();
                entry
            })
            .collect();
        let Some(last) = entries.last().map(|entry| entry.version) else { return };
        let trim_to = self.trim_point();
        let committed_to = self.info.committed_to;

        let mut waiting: SmallVec<[OsdId; 4]> = SmallVec::from_iter([self.whoami]);
        for (osd, within) in self.peers_within(&object) {
            if within {
                waiting.push(osd);
            }
            let data = data.clone().filter(|_| within);
            let entries = entries.clone();
            self.send(osd, Body::Redo { follows, entries, data, trim_to, committed_to });
            // It has the object before anything that is said of it from now on.
            if let Some(peer) = self.peering.peers.get_mut(&osd) {
                peer.missing.remove(&object);
            }
        }
        for entry in &entries {
            self.ops.began_write(&object);
            let (first, object, waiting) = (entry.version, object.clone(), waiting.clone());
            let in_flight =
                InFlight { first, object, waiting, ops: SmallVec::new(), result: entry.result.clone() };
            self.replication.in_flight.insert(entry.version, in_flight);
            self.replication.redone.insert(entry.version);
        }
        self.ops.mark_ready(&object);
        let mut draft = Draft::default();
        draft.then.push(Then::Committed(last));
        self.append_redo(entries, data, trim_to, draft);
    }

    /// A replica's side.
    pub(crate) fn on_redo(
        &mut self,
        from: OsdId,
        entries: Vec<LogEntry>,
        data: Option<Blob>,
        trim_to: Version,
        committed_to: Version,
    ) {
        if let Some(draft) = self.begin_replica(from, &entries, committed_to) {
            self.append_redo(entries, data, trim_to, draft);
        }
    }

    /// Puts entries into the log and what came of them in the place of their object.
    fn append_redo(
        &mut self,
        entries: Vec<LogEntry>,
        data: Option<Blob>,
        trim_to: Version,
        mut draft: Draft,
    ) {
        let Some(last) = entries.last() else { return };
        let object = last.object.clone();
        match data {
            Some(data) => {
                draft.objects.push(StoreChange::Put { object: object.clone(), version: last.version, data });
            }
            None if last.kind == EntryKind::Delete => {
                draft.objects.push(StoreChange::Remove(object.clone()));
            }
            // The backfill will bring it.
            None => {}
        }
        if self.missing.remove(&object).is_some() {
            draft.missing.push((object, None));
        }
        self.append(entries, None, trim_to, draft);
    }

    /// Puts entries into the log and the change into the store, as one transaction.
    fn append(&mut self, entries: Vec<LogEntry>, payload: Option<Blob>, trim_to: Version, mut draft: Draft) {
        if let Some(payload) = payload {
            let version = |entry: &LogEntry| (entry.kind == EntryKind::Modify).then_some(entry.version);
            let objects = entries.iter().map(|entry| (entry.object.clone(), version(entry))).collect();
            draft.objects.push(StoreChange::Apply { payload, objects });
        }
        for entry in &entries {
            self.log.append(entry.clone());
        }
        draft.log.append = entries;
        if trim_to > self.log.tail() {
            self.log.trim(trim_to);
            draft.log.trim_to = Some(trim_to);
        }
        self.persist(draft);
    }

    /// Up to where the log may be trimmed. Requests are remembered by it, and copies that are
    /// behind or absent come back by it, so it is cut only when it is long, less when someone
    /// needs it, and never beyond what all copies have durably.
    fn trim_point(&self) -> Version {
        if self.config.canary(Bug::TrimLogTooFar) {
            let excess = self.log.len().saturating_sub(2);
            return excess
                .checked_sub(1)
                .and_then(|at| self.log.iter().nth(at))
                .map_or(self.log.tail(), |e| e.version);
        }
        let behind = self.degraded_copies() > 0
            || !self.missing.is_empty()
            || self.peering.has_backfill_targets()
            || self.map.as_ref().is_some_and(|map| map.acting.len() < map.size);
        let keep = if behind { self.config.log_max_entries } else { self.config.log_min_entries };
        let Some(to) = self.log.trim_point(keep, self.config.log_bytes_max) else { return self.log.tail() };
        match self.replication.all_committed_before() {
            Some(first) if to >= first => self.log.tail(),
            _ => to,
        }
    }

    /// A replica's side.
    pub(crate) fn on_rep_op(
        &mut self,
        from: OsdId,
        entries: Vec<LogEntry>,
        payload: Option<Blob>,
        trim_to: Version,
        committed_to: Version,
    ) {
        if let Some(draft) = self.begin_replica(from, &entries, committed_to) {
            self.append(entries, payload, trim_to, draft);
        }
    }

    /// A replica takes entries in: they are answered when they are durable. `None` if it takes none.
    fn begin_replica(&mut self, from: OsdId, entries: &[LogEntry], committed_to: Version) -> Option<Draft> {
        if self.state != State::ReplicaActive {
            return None;
        }
        self.heard_committed(committed_to);
        let version = entries.last()?.version;
        let mut draft = Draft::default();
        let reply = Body::RepOpReply { version };
        if self.config.canary(Bug::AckBeforePersist) {
            self.send(from, reply);
        } else {
            draft.then.push(Then::Send(from, reply));
        }
        Some(draft)
    }

    /// `osd` has everything up to `version` durably.
    pub(crate) fn committed(&mut self, osd: OsdId, version: Version) {
        if self.state != State::Active {
            return;
        }
        let mut done: SmallVec<[Version; 4]> = SmallVec::new();
        for (last, in_flight) in self.replication.in_flight.range_mut(..=version) {
            in_flight.waiting.retain(|waiting| *waiting != osd);
            if in_flight.waiting.is_empty() {
                done.push(*last);
            }
        }
        if done.is_empty() {
            return;
        }
        for last in done {
            let Some(InFlight { object, ops, result, .. }) = self.replication.in_flight.remove(&last) else {
                continue;
            };
            self.replication.redone.remove(&last);
            self.replication.arrivals -= ops.len();
            for op in ops {
                self.reply_done(op, result.clone());
            }
            self.ops.ended_write(&object);
        }
        // With fewer copies than `min_size` what they agree on commits nobody.
        if self.peering.is_started() {
            self.info.committed_to = match self.replication.all_committed_before() {
                Some(first) => self.log.before(first),
                None => self.log.head(),
            };
        }
    }
}
