//! Clients' operations: admitted, ordered per object, executed when the object is whole here and,
//! for a write, on every copy.

use crate::config::Canary as Bug;
use crate::effect::{Effect, Reply};
use crate::event::{ClientOp, OpId, OpKind, Outcome, Timer};
use crate::message::Body;
use crate::state::State;
use crate::version::{ObjectKey, Position, Version};
use crate::{Draft, Pg, Time};
use bytes::Bytes;
use cairn_types::OsdId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Operations of all objects.
#[derive(Debug, Default)]
pub(crate) struct Ops {
    objects: BTreeMap<ObjectKey, Queue>,
    executing: BTreeMap<OpId, ClientOp>,
    /// Objects whose first operation may be able to go on.
    ready: BTreeSet<ObjectKey>,
    waiting: usize,
}

/// Operations on one object. Writes follow one another without waiting; reads, and writes that
/// look at the object, wait until it is the same on every copy.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<ClientOp>,
    reading: usize,
    /// A write is being executed.
    writing: bool,
    /// Writes executed and not durable everywhere.
    in_flight: usize,
}

/// When an operation is executed again whose object could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Again {
    /// When the object has been recovered.
    Recovered,
    /// When nothing of it is under way.
    AtRest,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading == 0 && self.is_quiet()
    }

    fn is_quiet(&self) -> bool {
        !self.writing && self.in_flight == 0
    }
}

impl Ops {
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn began_write(&mut self, object: &ObjectKey) {
        self.objects.entry(object.clone()).or_default().in_flight += 1;
    }

    pub fn ended_write(&mut self, object: &ObjectKey) {
        if let Some(queue) = self.objects.get_mut(object) {
            queue.in_flight -= 1;
        }
        self.mark_ready(object);
    }

    pub fn mark_ready(&mut self, object: &ObjectKey) {
        self.ready.insert(object.clone());
    }

    /// Whether no write is under way to objects in `(begin, end]`.
    pub fn is_quiet_in(&self, begin: &Position, end: &Position) -> bool {
        let busy = self.objects.iter().filter(|(_, queue)| !queue.is_quiet());
        busy.map(|(object, _)| object).all(|object| begin.covers(object) || !end.covers(object))
    }

    fn enqueue(&mut self, op: ClientOp, front: bool) {
        self.waiting += 1;
        self.ready.insert(op.object.clone());
        let queue = &mut self.objects.entry(op.object.clone()).or_default().waiting;
        if front { queue.push_front(op) } else { queue.push_back(op) }
    }
}

impl Pg {
    pub(crate) fn on_op(&mut self, op: ClientOp) {
        if !self.is_primary() {
            let reply = Reply::NotPrimary(self.epoch());
            self.out.push(Effect::Reply { op: op.id, reply });
            return;
        }
        if op.epoch < self.interval() {
            self.out.push(Effect::Reply { op: op.id, reply: Reply::Again(self.interval()) });
            return;
        }
        if self.ops.waiting + self.ops.executing.len() + self.replication.arrivals() >= self.config.max_ops {
            self.out.push(Effect::Reply { op: op.id, reply: Reply::Busy });
            return;
        }
        self.ops.enqueue(op, false);
        self.work();
    }

    /// The interval changed: nothing that waits can be promised.
    pub(crate) fn reset_ops(&mut self) {
        let Ops { objects, executing, .. } = std::mem::take(&mut self.ops);
        let reply = Reply::Again(self.interval());
        let waiting = objects.into_values().flat_map(|queue| queue.waiting).map(|op| op.id);
        let under_way = self.replication.take_ops();
        for op in waiting.chain(executing.into_keys()).chain(under_way) {
            self.out.push(Effect::Reply { op, reply: reply.clone() });
        }
    }

    pub(crate) fn reply_done(&mut self, op: OpId, result: Bytes) {
        self.out.push(Effect::Reply { op, reply: Reply::Done(result) });
    }

    pub(crate) fn mark_all_ops_ready(&mut self) {
        self.ops.ready.extend(self.ops.objects.keys().cloned());
    }

    fn is_serving(&self) -> bool {
        self.state == State::Active && self.has_min_size() && self.now >= self.peering.serve_after
    }

    fn may_read(&self) -> bool {
        self.leases.is_readable(self.now) || self.config.canary(Bug::ReadWithoutLease)
    }

    pub(crate) fn pump_ops(&mut self) {
        if !self.is_serving() {
            return;
        }
        while let Some(object) = self.ops.ready.pop_first() {
            while self.pump_one(&object) {}
            if self.ops.objects.get(&object).is_some_and(Queue::is_idle) {
                self.ops.objects.remove(&object);
            }
        }
    }

    /// Lets the first operation on an object go, if it may. True if the next should be tried.
    fn pump_one(&mut self, object: &ObjectKey) -> bool {
        let Some(queue) = self.ops.objects.get(object) else { return false };
        let Some(op) = queue.waiting.front() else { return false };
        let (kind, request, id) = (op.kind, op.request, op.id);
        let (writing, reading, in_flight) = (queue.writing, queue.reading, queue.in_flight);

        if self.missing.contains(object) {
            self.recover_first(object);
            return false;
        }
        if kind == OpKind::Read {
            // A pulled object that is not durable yet may not be seen by a read.
            if writing || in_flight > 0 || self.is_arriving(object) {
                return false;
            }
            // Whoever sees the object without a change must not see it with that change later on, as when the change is of a
            // client that was shut out before.
            if self.may_be_redone(object) {
                self.recover_first(object);
                return false;
            }
            self.leases.wanted = true;
            if !self.may_read() {
                self.ask_for_lease();
                // With nobody to ask it is granted at once.
                if !self.may_read() {
                    return false;
                }
            }
            self.execute_first(object, |queue| queue.reading += 1);
            return true;
        }

        if writing || reading > 0 {
            return false;
        }
        if self.is_degraded(object) {
            self.recover_first(object);
            return false;
        }
        if self.is_moving(object) || self.backfill.blocks(object) {
            return false;
        }
        if !self.config.canary(Bug::ApplyResendTwice)
            && let Some(entry) = self.log.find_request(&request)
        {
            let (version, result) = (entry.version, entry.result.clone());
            if !self.replication.attach(version, id) {
                self.reply_done(id, result);
            }
            self.take_first(object);
            return true;
        }
        if kind == OpKind::ReadWrite && in_flight > 0 {
            return false;
        }
        self.execute_first(object, |queue| queue.writing = true);
        true
    }

    fn take_first(&mut self, object: &ObjectKey) -> Option<ClientOp> {
        let op = self.ops.objects.get_mut(object)?.waiting.pop_front()?;
        self.ops.waiting -= 1;
        Some(op)
    }

    fn execute_first(&mut self, object: &ObjectKey, mark: impl FnOnce(&mut Queue)) {
        let Some(op) = self.take_first(object) else { return };
        mark(self.ops.objects.entry(object.clone()).or_default());
        self.ops.executing.insert(op.id, op.clone());
        self.out.push(Effect::Execute(op));
    }

    pub(crate) fn on_executed(&mut self, id: OpId, outcome: Outcome) {
        // An execution begun in an earlier interval is void; its client has been told.
        let Some(mut op) = self.ops.executing.remove(&id) else { return };
        let object = op.object.clone();
        let (again, outcome) = match outcome {
            Outcome::Unreadable { stored_version, otherwise } => {
                (self.after_unreadable(&object, stored_version), *otherwise)
            }
            outcome => (None, outcome),
        };
        if let Some(queue) = self.ops.objects.get_mut(&object) {
            match op.kind {
                OpKind::Read => queue.reading -= 1,
                OpKind::Write | OpKind::ReadWrite => queue.writing = false,
            }
        }
        self.ops.mark_ready(&object);
        if let Some(again) = again {
            if again == Again::AtRest {
                // What looks at its object and changes it waits for just that.
                op.kind = OpKind::ReadWrite;
            }
            self.ops.enqueue(op, true);
            self.work();
            return;
        }
        match outcome {
            // The value was read before this moment, and nobody else has written before the
            // lease's end: it was the newest one at this moment.
            Outcome::Answer(bytes) if self.may_read() => self.reply_done(id, bytes),
            Outcome::Failed(bytes) if op.kind == OpKind::Read && self.may_read() => {
                self.reply_done(id, bytes)
            }
            Outcome::Answer(_) => {
                // A write that changed nothing, such as one of a client that was shut out, waits for the lease as
                // reads do: as a write it would be executed again at once, and again.
                op.kind = OpKind::Read;
                self.read_again(op);
            }
            Outcome::Failed(_) if op.kind == OpKind::Read => self.read_again(op),
            // It turned out to write: it has to go through the order of writes.
            Outcome::Change { .. } if op.kind == OpKind::Read => {
                op.kind = OpKind::ReadWrite;
                self.ops.enqueue(op, true);
            }
            Outcome::Change { changes, payload, result } => {
                self.submit(id, op.request, Some((changes, payload)), object, result);
            }
            Outcome::Failed(result) => self.submit(id, op.request, None, object, result),
            // Taken apart above; there is nothing in it twice.
            Outcome::Unreadable { .. } => self.ops.enqueue(op, true),
        }
        self.work();
    }

    /// An object that cannot be read here is missing here. `None` if that would help nobody: it is not known which version it has, or
    /// no other copy has it.
    fn after_unreadable(&mut self, object: &ObjectKey, stored_version: Option<Version>) -> Option<Again> {
        if self.missing.contains(object) {
            return Some(Again::Recovered);
        }
        // Others may not have the last change yet, or it is just being pushed to them.
        let is_quiet = self.ops.objects.get(object).is_none_or(|queue| queue.in_flight == 0);
        if !is_quiet || self.is_moving(object) {
            return Some(Again::AtRest);
        }
        let version = self.log.object_version(object).or(stored_version);
        let need = version.filter(|version| *version != Version::ZERO)?;
        self.find_source(object)?;
        self.lost_here(object.clone(), need, Draft::default());
        Some(Again::Recovered)
    }

    fn read_again(&mut self, op: ClientOp) {
        self.ops.enqueue(op, true);
        self.ask_for_lease();
    }

    /// Asks the acting set for a lease, unless the last question may still be answered.
    pub(crate) fn ask_for_lease(&mut self) {
        if self.state != State::Active || self.leases.is_asking(self.now, self.config.lease_ms) {
            return;
        }
        let acting: BTreeSet<OsdId> =
            self.acting().iter().copied().filter(|osd| *osd != self.whoami).collect();
        let seq = self.leases.ask(self.now, acting.clone(), self.config.lease_ms);
        for osd in acting {
            if let Some(seq) = seq {
                self.send(osd, Body::LeaseRequest { seq });
            }
        }
        // Renewed at a third, so that two rounds may be slow before a reader notices.
        let at: Time = self.now.plus_ms(self.config.lease_ms / 3);
        self.out.push(Effect::ArmTimer { timer: Timer::Lease, at });
    }

    pub(crate) fn on_lease_request(&mut self, from: OsdId, seq: u64) {
        if self.state == State::ReplicaActive {
            self.leases.promise(Some(from), self.now.plus_ms(self.config.lease_bound_ms()));
            self.send(from, Body::LeaseGrant { seq });
        }
    }

    pub(crate) fn on_lease_grant(&mut self, from: OsdId, seq: u64) {
        if self.leases.granted(from, seq, self.config.lease_ms) {
            self.mark_all_ops_ready();
        }
    }
}
