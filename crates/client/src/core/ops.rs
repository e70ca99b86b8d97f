//! Vectors: from the call to the answer.

use super::check::fits;
use super::limits::{BUSY_DELAY_MAX_MS, BUSY_DELAY_MIN_MS};
use super::target::{Maps, Target};
use super::{ConnId, Core, Effect, Ended, Stall, StallKey, Submit};
use crate::io::{InvalidOp, OpAnswer, OpError};
use cairn_types::{Epoch, ObjectId, PgId};
use cairn_wire::op::{Op, OpFlags, OpReply, OpRequest, SnapContext};
use cairn_wire::{ErrorCode, Frame, Payload, RequestId};
use std::sync::Arc;

/// Whom an answer concerns.
#[derive(Debug)]
pub(super) enum Owner<C> {
    Caller(C),
    /// Of a call that ends a watch.
    Unwatch(C),
    /// Begins or renews the watch of this cookie.
    Register(u64),
    /// Keeps it.
    Ping(u64),
}

/// How far a vector is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Waits for a map, a primary or a connection.
    Unsent,
    /// Waits for the end of its object's stall.
    Stalled,
    /// Queued on this connection, by the map of `request.epoch`.
    Sent(ConnId),
}

/// A vector that is not answered.
#[derive(Debug)]
pub(super) struct Pending<C> {
    request: OpRequest,
    data: Payload,
    pub(super) target: Option<Arc<Target>>,
    pub(super) state: State,
    /// How often in a row it was too much for an OSD.
    refusals: u32,
    deadline_ms: Option<u64>,
    timeout_ms: u64,
    pub(super) owner: Owner<C>,
}

impl<C> Pending<C> {
    fn stall_key(&self) -> StallKey {
        (self.request.object.pool, self.request.object.hash)
    }

    fn object_name(&self) -> String {
        self.request.object.name.clone()
    }
}

impl<C> Core<C> {
    pub(super) fn submit(&mut self, submit: Submit<C>) {
        let Submit { object, ops, data, flags, timeout_ms, done } = submit;
        if let Some(error) = self.refusal() {
            return self.effects.push(Effect::Done(done, Err(error)));
        }
        self.start(object, ops, data, flags, timeout_ms, Owner::Caller(done));
    }

    /// Takes a vector in; returns its tid. It may be answered already.
    pub(super) fn start(
        &mut self,
        object: ObjectId,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
        timeout_ms: Option<u64>,
        owner: Owner<C>,
    ) -> u64 {
        self.last_tid += 1;
        let tid = self.last_tid;
        let deadline_ms = timeout_ms.map(|timeout_ms| self.now.steady_ms.saturating_add(timeout_ms));
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.insert((deadline_ms, tid));
        }
        let request = OpRequest {
            request: RequestId { client: self.client, incarnation: 0, tid },
            epoch: Epoch(0),
            pg: PgId { pool: object.pool, seed: 0 },
            object,
            snaps: SnapContext::default(),
            mtime: self.now.wall,
            flags,
            ops: ops.into(),
        };
        let op = Pending {
            request,
            data,
            target: None,
            state: State::Unsent,
            refusals: 0,
            deadline_ms,
            timeout_ms: timeout_ms.unwrap_or(0),
            owner,
        };
        self.ops.insert(tid, op);
        self.send(tid);
        tid
    }

    /// Sends a vector by the map at hand, or leaves it waiting for what is missing.
    pub(super) fn send(&mut self, tid: u64) {
        let (Some(op), Some(maps)) = (self.ops.get_mut(&tid), &mut self.maps) else { return };
        let (pool, hash) = op.stall_key();
        let Some(target) = maps.target(pool, hash) else {
            return self.finish(tid, Err(OpError::NoPool { pool }));
        };
        let epoch = maps.epoch();
        op.target = Some(target.clone());
        if self.stalls.contains_key(&(pool, hash)) {
            op.state = State::Stalled;
            return;
        }
        op.state = State::Unsent;
        let Some((osd, addr)) = target.primary else { return };
        let Some(conn) = self.session(osd, addr) else { return };
        let Some(op) = self.ops.get_mut(&tid) else { return };
        op.request.epoch = epoch;
        op.request.pg = target.pg;
        match Frame::new(&op.request, op.data.clone()) {
            Ok(frame) => {
                op.state = State::Sent(conn);
                self.effects.push(Effect::Send(conn, frame));
            }
            Err(_) => {
                let (object, why) = (op.object_name(), InvalidOp::MessageLen);
                self.finish(tid, Err(OpError::Invalid { object, why }));
            }
        }
    }

    /// Under a new map: sends again what its OSD may have forgotten, and what could not be sent until now.
    pub(super) fn retarget(&mut self, tid: u64, skipped: bool) {
        let (Some(op), Some(maps)) = (self.ops.get(&tid), &mut self.maps) else { return };
        let (pool, hash) = op.stall_key();
        let target = maps.target(pool, hash);
        let stands =
            matches!(op.state, State::Sent(_)) && !skipped && target.is_some() && target == op.target;
        if !stands {
            self.send(tid);
        }
    }

    pub(super) fn reply(&mut self, conn: ConnId, reply: OpReply, data: Payload) {
        self.heard(conn);
        let tid = reply.request.tid;
        let Some(op) = self.ops.get_mut(&tid) else { return };
        // What another OSD answers who was asked before is not to be trusted: it may not lead any more.
        if op.request.request != reply.request || op.state != State::Sent(conn) {
            return;
        }
        // A vector that was looked at has a result for the operation that ended it.
        let looked_at = !reply.results.is_empty();
        match reply.code {
            ErrorCode::OK if fits(&op.request.ops, &reply, &data) => {
                let OpReply { user_version, results, .. } = reply;
                self.finish(tid, Ok(OpAnswer { user_version, results: results.into_vec(), data }));
            }
            ErrorCode::OK => {
                let object = op.object_name();
                self.finish(tid, Err(OpError::BadAnswer { object }));
            }
            ErrorCode::BLOCKLISTED if !looked_at => self.end(Ended::Blocklisted),
            ErrorCode::STALE if !looked_at => self.stale(tid, reply.epoch),
            ErrorCode::BUSY if !looked_at => self.busy(tid),
            code => {
                let object = op.object_name();
                let results = reply.results.into_vec();
                self.finish(tid, Err(OpError::Code { object, code, results }));
            }
        }
    }

    fn stale(&mut self, tid: u64, osd_epoch: Epoch) {
        let have = self.maps.as_ref().map_or(Epoch(0), Maps::epoch);
        let Some(op) = self.ops.get_mut(&tid) else { return };
        if osd_epoch > have {
            op.state = State::Stalled;
            let key = op.stall_key();
            self.stalls.insert(key, Stall::Map(osd_epoch));
            self.effects.push(Effect::NeedMap(osd_epoch));
        } else if op.request.epoch < have {
            self.send(tid);
        } else {
            // The OSD is behind, or this answers an earlier sending: either passes.
            self.busy(tid);
        }
    }

    fn busy(&mut self, tid: u64) {
        let Some(op) = self.ops.get_mut(&tid) else { return };
        let delay_ms = (BUSY_DELAY_MIN_MS << op.refusals.min(16)).min(BUSY_DELAY_MAX_MS);
        op.refusals += 1;
        op.state = State::Stalled;
        let until = Stall::Until(self.now.steady_ms + delay_ms);
        let key = op.stall_key();
        // What waits already goes on when the first of it does.
        self.stalls.entry(key).or_insert(until);
    }

    /// A deadline came.
    pub(super) fn give_up(&mut self, tid: u64) {
        let Some(op) = self.ops.get(&tid) else { return };
        let (object, after_ms) = (op.object_name(), op.timeout_ms);
        self.finish(tid, Err(OpError::TimedOut { object, after_ms }));
    }

    /// Forgets a vector without an answer.
    pub(super) fn forget(&mut self, tid: u64) {
        if let Some(deadline_ms) = self.ops.remove(&tid).and_then(|op| op.deadline_ms) {
            self.deadlines.remove(&(deadline_ms, tid));
        }
    }

    fn finish(&mut self, tid: u64, result: Result<OpAnswer, OpError>) {
        let Some(op) = self.ops.remove(&tid) else { return };
        if let Some(deadline_ms) = op.deadline_ms {
            self.deadlines.remove(&(deadline_ms, tid));
        }
        match op.owner {
            Owner::Caller(done) => self.effects.push(Effect::Done(done, result)),
            Owner::Unwatch(done) => {
                // Gone is what was wanted.
                let result = match result {
                    Err(OpError::Code { code: ErrorCode::NOENT, .. }) => Ok(OpAnswer::default()),
                    result => result,
                };
                self.effects.push(Effect::Done(done, result));
            }
            Owner::Register(cookie) => self.registered(cookie, tid, op.target, result),
            Owner::Ping(cookie) => self.pinged(cookie, tid, result),
        }
    }
}
