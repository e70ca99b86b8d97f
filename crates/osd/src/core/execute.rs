//! Executions: a group lets a vector go, the store is asked for what the vector needs to know, the outcome goes back to
//! the group. Why what the store answers is right: see [`Group`](super::group::Group).

use super::client::{Answer, Remembered, is_listing, no_output};
use super::effect::Query;
use super::event::QueryAnswer;
use super::{Effect, Osd, QueryToken};
use crate::object::{Executed, Fault, ObjectState, Stamp, Supplied, View, execute};
use bytes::Bytes;
use cairn_pg::{
    Event as PgEvent, ListRange, ObjectChange, ObjectKey, OpId, OpKind as Kind, Outcome, PgTransaction,
    Position, ReadToken, StoreChange, Version,
};
use cairn_types::PgId;
use cairn_wire::op::{OMAP_ENTRIES_MAX, OpKind, OpOutput, OpResult};
use cairn_wire::{ErrorCode, Payload};
use smallvec::{SmallVec, smallvec};

/// Most objects one listing returns; the caller goes on after the last.
const LISTED_MAX: u32 = OMAP_ENTRIES_MAX;

/// What an object is like after a change that was executed, if the group takes it.
#[derive(Debug)]
pub(super) struct After {
    pub state: ObjectState,
    /// Whether it was there and its size, before.
    before: (bool, u64),
}

/// What the store was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// What an execution needs.
    Faults { op: OpId, faults: SmallVec<[Fault; 2]> },
    /// Objects for a client; how many it wants.
    Listing { op: OpId, max: usize },
    /// An object for another copy.
    Object { pgid: PgId, token: ReadToken },
    /// Objects for a backfill.
    Objects { pgid: PgId, token: ReadToken },
    /// How much a group has.
    Tally { pgid: PgId },
}

impl Osd {
    pub(super) fn ask(&mut self, pgid: PgId, query: Query, asked: Asked) {
        self.next_query += 1;
        let token = QueryToken(self.next_query);
        self.asked.insert(token, asked);
        self.out.push(Effect::Query { token, pgid, query });
    }

    /// The group lets a vector go.
    pub(super) fn execute(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.view = match self.cache.get(op.pgid, &op.object) {
            Some(state) => View::of(state.clone()),
            None => View::new(),
        };
        (op.answer, op.after) = (None, None);
        op.watch.clear();
        self.step(id);
    }

    /// Goes on with an execution: as far as what is known takes it.
    pub(super) fn step(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Some(map) = self.maps.current() else { return };
        // Again, since a map may have come while it waited: once a map is acted on, nothing that is not executed yet
        // of those it blocks happens any more.
        if op.conn.is_some() && map.is_blocklisted(&op.sender.addr) {
            return self.executed_without_change(id, ErrorCode::BLOCKLISTED, Vec::new());
        }
        if is_listing(&op.request) {
            return self.list(id);
        }
        if super::watch::is_notify(&op.request) {
            return match op.view.state().cloned() {
                Some(state) if !state.exists() => {
                    self.executed_without_change(id, ErrorCode::NOENT, vec![no_output(ErrorCode::NOENT)]);
                }
                Some(state) => {
                    let (pgid, object) = (op.pgid, op.object.clone());
                    self.sync_watches(pgid, &object, &state);
                    self.executed_without_change(id, ErrorCode::OK, Vec::new());
                }
                None => self.need(id, smallvec![Fault::Attrs]),
            };
        }
        let Some(group) = self.groups.get(&op.pgid) else { return };
        let stamp = Stamp { now: self.now.wall, user_version: group.pg.log().head().version + 1 };
        match execute(&op.request, &op.payload, &op.sender, &op.view, &stamp) {
            Executed::Faults(faults) => self.need(id, faults),
            Executed::Read { results, data, code, user_version, watch } => {
                let remembered = Remembered { code, user_version, results: results.into() };
                // A vector that could have written is not looked at twice, either: a resend gets the same answer.
                let outcome = match op.kind {
                    Kind::Read => Outcome::Answer(Bytes::new()),
                    Kind::Write | Kind::ReadWrite => Outcome::Failed(remembered.encode()),
                };
                if let Some(op) = self.ops.get_mut(&id) {
                    op.answer = Some(Answer { remembered, data });
                    op.watch = watch;
                }
                self.executed(id, outcome);
            }
            Executed::Write { change, results, code, deletes, after, user_version, watch } => {
                if let Some(code) = self.lacks_room(id, &change) {
                    // Without results it is the OSD that is busy, not somebody who holds a lock.
                    let results = if code == ErrorCode::BUSY { Vec::new() } else { vec![no_output(code)] };
                    return self.executed_without_change(id, code, results);
                }
                let Some(op) = self.ops.get(&id) else { return };
                let remembered = Remembered { code, user_version, results: results.into() };
                let before = op.view.state().cloned().unwrap_or_default();
                let change_of = ObjectChange {
                    object: op.object.clone(),
                    delete: deletes,
                    stored_version: before.stored_version(),
                };
                let result = remembered.encode();
                if let Some(op) = self.ops.get_mut(&id) {
                    op.after = Some(After { state: after, before: (before.exists(), before.size()) });
                    op.watch = watch;
                }
                let changes = smallvec![change_of];
                self.executed(id, Outcome::Change { changes, payload: change, result });
            }
        }
    }

    fn executed(&mut self, id: OpId, outcome: Outcome) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let outcome = if op.view.is_unreadable {
            let stored_version = op.view.state().map(ObjectState::stored_version);
            Outcome::Unreadable { stored_version, otherwise: Box::new(outcome) }
        } else {
            outcome
        };
        op.view = View::new();
        let pgid = op.pgid;
        self.tell(pgid, PgEvent::Executed { op: id, outcome });
    }

    /// The answer is not remembered: it changed nothing, and a resend may be looked at anew.
    fn executed_without_change(&mut self, id: OpId, code: ErrorCode, results: Vec<OpResult>) {
        if let Some(op) = self.ops.get_mut(&id) {
            let remembered = Remembered { code, results: results.into(), ..Remembered::default() };
            op.answer = Some(Answer { remembered, data: Payload::none() });
        }
        self.executed(id, Outcome::Answer(Bytes::new()));
    }

    /// An execution needs to know more.
    fn need(&mut self, id: OpId, faults: SmallVec<[Fault; 2]>) {
        let Some(op) = self.ops.get(&id) else { return };
        let Some(group) = self.groups.get_mut(&op.pgid) else { return };
        if group.is_unstable(&op.object) {
            group.wait(&op.object, id);
            return;
        }
        let (pgid, object) = (op.pgid, op.object.clone());
        let query = Query::Faults { object, faults: faults.clone() };
        self.ask(pgid, query, Asked::Faults { op: id, faults });
    }

    pub(super) fn queried(&mut self, token: QueryToken, answer: QueryAnswer) {
        match (self.asked.remove(&token), answer) {
            (Some(Asked::Faults { op, faults }), answer) => self.supplied(op, &faults, answer),
            (Some(Asked::Listing { op, max }), answer) => self.listed(op, max, answer),
            (Some(Asked::Object { pgid, token }), QueryAnswer::Object(object)) => {
                self.tell(pgid, PgEvent::ObjectRead { token, object });
            }
            (Some(Asked::Object { pgid, token }), _) => {
                self.tell(pgid, PgEvent::ObjectRead { token, object: None });
            }
            (Some(Asked::Objects { pgid, token }), QueryAnswer::Listed(objects)) => {
                self.tell(pgid, PgEvent::Listed { token, objects });
            }
            (Some(Asked::Tally { pgid }), QueryAnswer::Tallied { objects, bytes }) => {
                if let Some(group) = self.groups.get_mut(&pgid) {
                    group.tally = super::group::Tally { objects, bytes };
                }
            }
            // A backfill without its listing waits for the next interval; nothing is made up.
            (Some(Asked::Objects { .. } | Asked::Tally { .. }) | None, _) => {}
        }
    }

    fn supplied(&mut self, id: OpId, faults: &[Fault], answer: QueryAnswer) {
        // In a new interval the vector was answered, or is executed anew with another question.
        let Some(op) = self.ops.get_mut(&id) else { return };
        let QueryAnswer::Supplied(supplied) = answer else {
            faults.iter().for_each(|fault| op.view.supply(fault, Supplied::Unreadable));
            return self.step(id);
        };
        let had_state = op.view.state().is_some();
        for (fault, got) in faults.iter().zip(supplied) {
            op.view.supply(fault, got);
        }
        let (pgid, object) = (op.pgid, op.object.clone());
        if let Some(state) = op.view.state().filter(|_| !had_state).cloned() {
            self.sync_watches(pgid, &object, &state);
            self.remember(pgid, &object, state);
        }
        self.step(id);
    }

    /// Keeps what is known of an object.
    fn remember(&mut self, pgid: PgId, object: &ObjectKey, state: ObjectState) {
        self.cache.put(pgid, object, state);
        let groups = &self.groups;
        let must_stay =
            |pgid: PgId, object: &ObjectKey| groups.get(&pgid).is_some_and(|group| group.is_unstable(object));
        self.cache.shrink(self.config.cache_bytes_max, must_stay);
    }

    /// A transaction is handed to the store: objects are now as it leaves them.
    pub(super) fn handed_in(&mut self, pgid: PgId, txn: &PgTransaction) {
        let Some(group) = self.groups.get_mut(&pgid) else { return };
        group.handed_in(txn);
        for change in &txn.objects {
            let executing = self.executing.and_then(|id| self.ops.get_mut(&id));
            if let (StoreChange::Apply { objects, .. }, Some(op)) = (change, executing)
                && let [(object, version)] = &objects[..]
                && *object == op.object
                && let Some(After { mut state, before }) = op.after.take()
            {
                let Some(group) = self.groups.get_mut(&pgid) else { return };
                group.count(before, (state.exists(), state.size()));
                state.version = version.unwrap_or(Version::ZERO);
                self.remember(pgid, object, state);
                continue;
            }
            for object in super::group::changed(change) {
                self.cache.remove(pgid, object);
            }
        }
    }

    fn list(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Some(OpKind::ListObjects { after, max }) = op.request.ops.first().map(|op| &op.kind) else {
            return;
        };
        let max = (*max).clamp(1, LISTED_MAX) as usize;
        let begin =
            after.as_ref().map_or(Position::Min, |after| Position::At(ObjectKey::new((**after).clone())));
        let range = ListRange { begin, end: Position::Max, limit: Some(max) };
        self.ask(op.pgid, Query::List { range }, Asked::Listing { op: id, max });
    }

    fn listed(&mut self, id: OpId, max: usize, answer: QueryAnswer) {
        let Some(op) = self.ops.get(&id) else { return };
        let QueryAnswer::Listed(objects) = answer else {
            return self.executed_without_change(id, ErrorCode::IO, vec![no_output(ErrorCode::IO)]);
        };
        let Some(group) = self.groups.get(&op.pgid) else { return };
        let Some(OpKind::ListObjects { after, .. }) = op.request.ops.first().map(|op| &op.kind) else {
            return;
        };
        let after = after.as_ref().map(|after| ObjectKey::new((**after).clone()));
        // What is not recovered yet is there all the same.
        let missing = group.pg.missing().iter().map(|(object, _)| object.clone());
        let missing = missing.filter(|object| after.as_ref().is_none_or(|after| object > after));
        let is_all = objects.len() < max;
        let end = objects.last().map(|(object, _)| object.clone()).filter(|_| !is_all);
        let mut all: Vec<ObjectKey> = objects.into_iter().map(|(object, _)| object).collect();
        all.extend(missing.filter(|object| end.as_ref().is_none_or(|end| object <= end)));
        all.sort_unstable();
        all.dedup();
        let more = !is_all || all.len() > max;
        all.truncate(max);
        let next = all.last().filter(|_| more).map(|object| Box::new((**object).clone()));
        let objects: Vec<_> = all.iter().map(|object| (**object).clone()).collect();
        let output = OpOutput::Listed { objects: objects.into(), next };
        self.executed_without_change(id, ErrorCode::OK, vec![OpResult { code: ErrorCode::OK, output }]);
    }

    /// Whatever was executed for the group is void; what is known of its objects may have been rolled back.
    pub(super) fn new_interval(&mut self, pgid: PgId) {
        self.cache.remove_group(pgid);
        if let Some(group) = self.groups.get_mut(&pgid) {
            group.forget_waiting();
        }
    }
}
