//! Clients: what of theirs is taken in, and what they are answered.

use super::{Amount, ConnId, Effect, Osd};
use crate::object::{Sender, WatchChange, kind_of};
use bytes::Bytes;
use cairn_crush::placement::object_hash;
use cairn_pg::{ClientOp, Event as PgEvent, ObjectKey, OpId, OpKind as Kind, Reply};
use cairn_types::{EntityAddr, EntityName, Epoch, PgId};
use cairn_wire::op::{OpOutput, OpReply, OpRequest, OpResult};
use cairn_wire::{ErrorCode, List, Payload, codec};
use serde::{Deserialize, Serialize};

/// Version of [`Remembered`] as bytes.
const REMEMBERED_VERSION: u8 = 1;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub name: EntityName,
    pub addr: EntityAddr,
}

/// A vector taken in and not answered.
#[derive(Debug)]
pub(super) struct Op {
    /// To be answered over this; `None`: it is this OSD's own.
    pub conn: Option<ConnId>,
    pub request: Box<OpRequest>,
    pub payload: Payload,
    pub sender: Sender,
    pub pgid: PgId,
    pub object: ObjectKey,
    pub kind: Kind,
    pub arrived_us: u64,
    /// While it is executed.
    pub view: crate::object::View,
    /// What it was answered, if that is not in the group's log.
    pub answer: Option<Answer>,
    /// What the object is like once the change that was executed has been handed to the store.
    pub after: Option<super::execute::After>,
    /// What its change takes, from the moment it was found to fit until it is handed to the store.
    pub takes: Amount,
    /// What becomes of watches when it has been answered.
    pub watch: Vec<WatchChange>,
}

/// The outcome of a vector.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub remembered: Remembered,
    pub data: Payload,
}

/// What a group's log keeps of the answer to a change, to be given again to a resend: version 1, then this struct in
/// the codec of messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub code: ErrorCode,
    pub user_version: u64,
    pub results: List<OpResult>,
}

impl Default for Remembered {
    fn default() -> Remembered {
        Remembered { code: ErrorCode::OK, user_version: 0, results: List::default() }
    }
}

impl Remembered {
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![REMEMBERED_VERSION];
        match codec::encode(self, &mut bytes) {
            Ok(()) => bytes.into(),
            // Results are bounded far below what the codec takes; without them the answer is still right.
            Err(_) => Remembered { results: List::default(), ..self.clone() }.encode(),
        }
    }

    /// What an older version of this program may have written, too; IO if it is none.
    pub fn decode(bytes: &[u8]) -> Remembered {
        let unreadable = Remembered { code: ErrorCode::IO, ..Remembered::default() };
        match bytes.split_first() {
            Some((&REMEMBERED_VERSION, rest)) => codec::decode(rest).unwrap_or(unreadable),
            _ => unreadable,
        }
    }
}

impl Op {
    /// The group's name of its request.
    pub fn group_request(&self) -> cairn_pg::RequestId {
        let cairn_wire::RequestId { client, incarnation, tid } = self.request.request;
        cairn_pg::RequestId { client, incarnation, tid }
    }
}

impl Osd {
    pub(super) fn client_opened(&mut self, conn: ConnId, name: EntityName, addr: EntityAddr) {
        self.clients.insert(conn, Client { name, addr });
    }

    pub(super) fn client_closed(&mut self, conn: ConnId) {
        self.clients.remove(&conn);
        self.watches.disconnected(conn);
    }

    pub(super) fn client_request(&mut self, conn: ConnId, request: Box<OpRequest>, payload: Payload) {
        if !self.clients.contains_key(&conn) || self.is_stopping() {
            // It will be sent again to who takes over.
            return;
        }
        if request.epoch > self.maps.epoch() {
            if self.waiting_requests.len() >= self.config.waiting_for_map_max {
                self.refuse(conn, &request, ErrorCode::BUSY, self.maps.epoch());
                return;
            }
            self.waiting_requests.push_back((conn, request, payload));
            return;
        }
        if let Err((code, epoch)) = self.admit(conn, &request, &payload) {
            self.refuse(conn, &request, code, epoch);
            return;
        }
        let Some(client) = self.clients.get(&conn) else { return };
        let sender =
            Sender { client: request.request.client, addr: client.addr, entity: client.name.clone() };
        self.take_in(Some(conn), request, payload, sender);
    }

    /// Requests that waited for this map.
    pub(super) fn retry_waiting_requests(&mut self) {
        for (conn, request, payload) in std::mem::take(&mut self.waiting_requests) {
            self.client_request(conn, request, payload);
        }
    }

    /// Whether the request is looked at here and now; if not, what it is answered, and the epoch with it.
    fn admit(
        &mut self,
        conn: ConnId,
        request: &OpRequest,
        payload: &Payload,
    ) -> Result<(), (ErrorCode, Epoch)> {
        let epoch = self.maps.epoch();
        let no = |code| Err((code, epoch));
        let (Some(map), Some(view), Some(client)) =
            (self.maps.current(), self.maps.view(), self.clients.get(&conn))
        else {
            return no(ErrorCode::BUSY);
        };
        if map.is_blocklisted(&client.addr) {
            return no(ErrorCode::BLOCKLISTED);
        }
        let full = self.ops.len() >= self.config.client_ops_max
            || self.ops_bytes + payload.len() > self.config.client_bytes_max && !self.ops.is_empty();
        if full {
            return no(ErrorCode::BUSY);
        }
        if super::watch::is_notify(request) && self.watches.notifications() >= self.config.notifies_max {
            return no(ErrorCode::BUSY);
        }
        kind_of(request).map_err(|code| (code, epoch))?;
        let object = &request.object;
        if !map.pools.contains_key(&request.pg.pool) {
            return no(ErrorCode::NOENT);
        }
        // Listing concerns the group; the object it names is none.
        if !is_listing(request) {
            if object.pool != request.pg.pool
                || object.hash != object_hash(&object.namespace, &object.key, &object.name)
            {
                return no(ErrorCode::INVAL);
            }
            if view.group_of(object.pool, object.hash) != Some(request.pg) {
                return no(ErrorCode::STALE);
            }
        }
        if !self.groups.contains_key(&request.pg) {
            return no(ErrorCode::STALE);
        }
        Ok(())
    }

    /// Hands a vector to its group.
    pub(super) fn take_in(
        &mut self,
        conn: Option<ConnId>,
        request: Box<OpRequest>,
        payload: Payload,
        sender: Sender,
    ) -> OpId {
        self.next_op += 1;
        let id = OpId(self.next_op);
        let kind = kind_of(&request).unwrap_or(Kind::Read);
        let object = ObjectKey::new(request.object.clone());
        self.ops_bytes += payload.len();
        let op = Op {
            conn,
            pgid: request.pg,
            object: object.clone(),
            kind,
            request,
            payload,
            sender,
            arrived_us: self.now.steady_us,
            view: Default::default(),
            answer: None,
            after: None,
            takes: Amount::ZERO,
            watch: Vec::new(),
        };
        let event =
            ClientOp { id, epoch: op.request.epoch, request: op.group_request(), object, kind: op.kind };
        self.tell(op.pgid, PgEvent::Op(event));
        self.ops.insert(id, op);
        id
    }

    /// A request that is not looked at.
    fn refuse(&mut self, conn: ConnId, request: &OpRequest, code: ErrorCode, epoch: Epoch) {
        // With a result it is an answer; without, the request may be sent again, or by another.
        let is_answer = ![ErrorCode::STALE, ErrorCode::BUSY, ErrorCode::BLOCKLISTED].contains(&code);
        let results = is_answer.then(|| no_output(code)).into_iter().collect::<Vec<_>>().into();
        let request = request.request;
        let reply = OpReply { request, epoch, code, user_version: 0, results };
        self.out.push(Effect::Reply { conn, reply, payload: Payload::none() });
    }

    /// The group has answered.
    pub(super) fn group_replied(&mut self, id: OpId, reply: Reply) {
        self.is_handed_in(id);
        let Some(mut op) = self.ops.remove(&id) else { return };
        self.ops_bytes -= op.payload.len();
        let result = match reply {
            Reply::Done(result) => result,
            Reply::NotPrimary(epoch) | Reply::Again(epoch) => {
                return self.not_done(&op, ErrorCode::STALE, epoch);
            }
            Reply::Busy => return self.not_done(&op, ErrorCode::BUSY, self.maps.epoch()),
        };
        let answer = op
            .answer
            .take()
            .unwrap_or_else(|| Answer { remembered: Remembered::decode(&result), data: Payload::none() });
        self.count(&op, &answer);
        if op.conn.is_none() {
            return self.own_op_done(&op);
        }
        if answer.remembered.code == ErrorCode::OK {
            if super::watch::is_notify(&op.request) {
                return self.start_notify(op);
            }
            self.watched(&op);
        }
        self.answer(&op, answer);
    }

    fn not_done(&mut self, op: &Op, code: ErrorCode, epoch: Epoch) {
        // What this OSD does by itself is tried again by a timer.
        if let Some(conn) = op.conn.filter(|conn| self.clients.contains_key(conn)) {
            self.refuse(conn, &op.request, code, epoch);
        }
    }

    /// Answers a client that is still there.
    pub(super) fn answer(&mut self, op: &Op, answer: Answer) {
        let Some(conn) = op.conn.filter(|conn| self.clients.contains_key(conn)) else { return };
        let Answer { remembered: Remembered { code, user_version, results }, data } = answer;
        let (request, epoch) = (op.request.request, self.maps.epoch());
        let reply = OpReply { request, epoch, code, user_version, results };
        self.out.push(Effect::Reply { conn, reply, payload: data });
    }

    fn count(&mut self, op: &Op, answer: &Answer) {
        if op.conn.is_none() {
            return;
        }
        let us = self.now.steady_us.saturating_sub(op.arrived_us);
        let counters = &mut self.counters;
        if op.kind == Kind::Read {
            counters.read_ops += 1;
            counters.read_bytes += answer.data.len() as u64;
            counters.read_latency.add(us);
        } else {
            counters.write_ops += 1;
            counters.write_bytes += op.payload.len() as u64;
            counters.write_latency.add(us);
        }
    }
}

/// The result of an operation that was not carried out.
pub(super) fn no_output(code: ErrorCode) -> OpResult {
    OpResult { code, output: OpOutput::None }
}

/// Whether the vector asks for the objects of a group.
pub(super) fn is_listing(request: &OpRequest) -> bool {
    matches!(request.ops.first().map(|op| &op.kind), Some(cairn_wire::op::OpKind::ListObjects { .. }))
}
