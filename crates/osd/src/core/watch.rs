//! Watches and notifications.
//!
//! Who watches an object is stored with it, so it outlives the primary. What lives here is the rest: over which
//! connection a watcher is reached, when it runs out, and whom a notification waits for. A watch that runs out is ended
//! by a vector of this OSD's own, in the name of its client.

use super::client::{Answer, Op, Remembered};
use super::{ConnId, Effect, Osd};
use crate::object::{ObjectState, Sender, WatchChange};
use cairn_pg::{ObjectKey, Time};
use cairn_types::{EntityAddr, EntityName, PgId};
use cairn_wire::op::{
    NotifyAck, NotifyReply, OpFlags, OpKind, OpOutput, OpRequest, OpResult, WatchAction, WatchEvent,
    WatchNews, Watcher,
};
use cairn_wire::{ErrorCode, Payload, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// Marks the sessions in whose name OSDs send vectors of their own; the monitors count theirs from 1.
const OWN_SESSION: u64 = 1 << 63;
/// A watch that could not be ended is tried again after this, milliseconds.
const END_RETRY_MS: u64 = 1_000;

/// Client and cookie.
type WatchId = (u64, u64);
type Place = (PgId, ObjectKey);

#[derive(Debug)]
struct Watch {
    addr: EntityAddr,
    timeout_ms: u32,
    conn: Option<ConnId>,
    /// When it runs out.
    until: Time,
}

#[derive(Debug)]
struct Notification {
    op: Op,
    place: Place,
    /// Those who have not acknowledged, and over which connection they were told.
    waiting: BTreeMap<WatchId, Option<ConnId>>,
    acknowledged: Vec<NotifyReply>,
    missed: Vec<WatchId>,
    until: Time,
}

/// Watches and notifications of all objects.
#[derive(Debug, Default)]
pub(super) struct Watches {
    objects: BTreeMap<Place, BTreeMap<WatchId, Watch>>,
    notifications: BTreeMap<u64, Notification>,
    next_notification: u64,
    timers: BTreeSet<(Time, Place, WatchId)>,
    next_own_tid: u64,
}

/// Whether the vector is a notification.
pub(super) fn is_notify(request: &OpRequest) -> bool {
    matches!(request.ops.first().map(|op| &op.kind), Some(OpKind::Notify { .. }))
}

impl Watches {
    pub fn wake_at(&self) -> Option<Time> {
        let notifications = self.notifications.values().map(|notification| notification.until);
        notifications.chain(self.timers.first().map(|(at, _, _)| *at)).min()
    }

    pub fn notifications(&self) -> usize {
        self.notifications.len()
    }

    /// A client's connection is over: its watches live on until they run out.
    pub fn disconnected(&mut self, conn: ConnId) {
        let watches = self.objects.values_mut().flat_map(BTreeMap::values_mut);
        for watch in watches.filter(|watch| watch.conn == Some(conn)) {
            watch.conn = None;
        }
    }

    fn get(&mut self, place: &Place, id: WatchId) -> Option<&mut Watch> {
        self.objects.get_mut(place)?.get_mut(&id)
    }

    fn set_timer(&mut self, place: &Place, id: WatchId, until: Time) {
        let Some(watch) = self.get(place, id) else { return };
        let before = std::mem::replace(&mut watch.until, until);
        self.timers.remove(&(before, place.clone(), id));
        self.timers.insert((until, place.clone(), id));
    }

    fn remove(&mut self, place: &Place, id: WatchId) -> Option<Watch> {
        let watches = self.objects.get_mut(place)?;
        let watch = watches.remove(&id)?;
        if watches.is_empty() {
            self.objects.remove(place);
        }
        self.timers.remove(&(watch.until, place.clone(), id));
        Some(watch)
    }
}

impl Osd {
    /// The object was read: those who watch it are known, though not where they are.
    pub(super) fn sync_watches(&mut self, pgid: PgId, object: &ObjectKey, state: &ObjectState) {
        for &Watcher { client, cookie, addr, timeout_ms } in state.watchers() {
            let (place, id) = ((pgid, object.clone()), (client, cookie));
            if self.watches.get(&place, id).is_none() {
                self.begin_watch(&place, id, addr, timeout_ms, None);
            }
        }
    }

    fn begin_watch(
        &mut self,
        place: &Place,
        id: WatchId,
        addr: EntityAddr,
        timeout_ms: u32,
        conn: Option<ConnId>,
    ) {
        let until = self.time.plus_ms(u64::from(timeout_ms));
        let watch = Watch { addr, timeout_ms, conn, until };
        self.watches.remove(place, id);
        self.watches.objects.entry(place.clone()).or_default().insert(id, watch);
        self.watches.set_timer(place, id, until);
        self.tell_watcher(place, id);
    }

    /// Tells a watcher of the notifications that wait for it and that it has not heard over this connection.
    fn tell_watcher(&mut self, place: &Place, id: WatchId) {
        let Some(conn) = self.watches.get(place, id).and_then(|watch| watch.conn) else { return };
        for (&number, notification) in &mut self.watches.notifications {
            if notification.place != *place {
                continue;
            }
            if let Some(told) = notification.waiting.get_mut(&id).filter(|told| **told != Some(conn)) {
                *told = Some(conn);
                let event = news(&notification.op, place, id.1, number);
                self.out.push(Effect::WatchEvent { conn, event });
            }
        }
    }

    /// A vector succeeded: what it says of watches.
    pub(super) fn watched(&mut self, op: &Op) {
        let place = (op.pgid, op.object.clone());
        // From the request, not from the execution: a resend is not executed, and comes over another connection.
        for kind in op.request.ops.iter().map(|op| &op.kind) {
            let OpKind::Watch { cookie, action } = kind else { continue };
            let id = (op.sender.client, *cookie);
            match action {
                WatchAction::Watch { timeout_ms } => {
                    self.begin_watch(&place, id, op.sender.addr, *timeout_ms, op.conn);
                }
                WatchAction::Ping => {
                    if let Some(watch) = self.watches.get(&place, id) {
                        watch.conn = op.conn;
                        let until = self.time.plus_ms(u64::from(watch.timeout_ms));
                        self.watches.set_timer(&place, id, until);
                        self.tell_watcher(&place, id);
                    }
                }
                WatchAction::Unwatch => self.end_watch(&place, id, false),
            }
        }
        for change in &op.watch {
            if let WatchChange::Ended { watcher, is_removal: true } = change {
                self.end_watch(&place, (watcher.client, watcher.cookie), true);
            }
        }
    }

    /// A watch is over; `tell`: its client does not know.
    fn end_watch(&mut self, place: &Place, id: WatchId, tell: bool) {
        if let Some(Watch { conn: Some(conn), .. }) = self.watches.remove(place, id)
            && tell
        {
            let event = WatchEvent { object: (*place.1).clone(), cookie: id.1, what: WatchNews::Ended };
            self.out.push(Effect::WatchEvent { conn, event });
        }
        let of = |notification: &Notification| notification.place == *place;
        let notifications = self.watches.notifications.iter_mut().filter(|(_, n)| of(n));
        let mut done = Vec::new();
        for (&number, notification) in notifications {
            if notification.waiting.remove(&id).is_some() {
                notification.missed.push(id);
                if notification.waiting.is_empty() {
                    done.push(number);
                }
            }
        }
        done.into_iter().for_each(|number| self.finish_notify(number));
    }

    /// A notification goes out.
    pub(super) fn start_notify(&mut self, op: Op) {
        let Some(OpKind::Notify { timeout_ms, .. }) = op.request.ops.first().map(|op| &op.kind) else {
            return;
        };
        let until = self.time.plus_ms(u64::from(*timeout_ms).min(self.config.notify_timeout_max_ms));
        // Sent again over another connection while it goes on: it is answered there.
        let same = |n: &&mut Notification| n.op.request.request == op.request.request;
        if let Some(known) = self.watches.notifications.values_mut().find(same) {
            known.op.conn = op.conn;
            return;
        }
        let place = (op.pgid, op.object.clone());
        let watches = self.watches.objects.get(&place);
        let waiting: BTreeMap<_, _> =
            watches.into_iter().flat_map(BTreeMap::keys).map(|id| (*id, None)).collect();
        self.watches.next_notification += 1;
        let number = self.watches.next_notification;
        let ids: Vec<WatchId> = waiting.keys().copied().collect();
        let (acknowledged, missed) = Default::default();
        let notification = Notification { op, place: place.clone(), waiting, acknowledged, missed, until };
        self.watches.notifications.insert(number, notification);
        if ids.is_empty() {
            return self.finish_notify(number);
        }
        ids.into_iter().for_each(|id| self.tell_watcher(&place, id));
    }

    /// A watcher has heard.
    pub(super) fn notify_ack(&mut self, conn: ConnId, ack: NotifyAck) {
        let Some(notification) = self.watches.notifications.get_mut(&ack.id) else { return };
        let told = notification.waiting.iter();
        let heard =
            told.filter(|(id, told)| **told == Some(conn) && id.1 == ack.cookie).map(|(id, _)| *id).next();
        let Some(id) = heard else { return };
        notification.waiting.remove(&id);
        notification.acknowledged.push(NotifyReply { client: id.0, cookie: id.1, reply: ack.reply });
        if notification.waiting.is_empty() {
            self.finish_notify(ack.id);
        }
    }

    fn finish_notify(&mut self, number: u64) {
        let Some(notification) = self.watches.notifications.remove(&number) else { return };
        let Notification { op, waiting, acknowledged, mut missed, .. } = notification;
        missed.extend(waiting.into_keys());
        let output = OpOutput::Notified { acknowledged: acknowledged.into(), missed: missed.into() };
        let results = vec![OpResult { code: ErrorCode::OK, output }].into();
        let remembered = Remembered { results, ..Remembered::default() };
        self.answer(&op, Answer { remembered, data: Payload::none() });
    }

    /// Whatever has run out.
    pub(super) fn tick_watches(&mut self) {
        let over = self.watches.notifications.iter().filter(|(_, n)| n.until <= self.time);
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        over.into_iter().for_each(|number| self.finish_notify(number));
        while let Some((at, place, id)) = self.watches.timers.first().cloned()
            && at <= self.time
        {
            // Until it is gone, or its client is heard of after all.
            self.watches.set_timer(&place, id, self.time.plus_ms(END_RETRY_MS));
            self.expire_watch(&place, id);
        }
    }

    /// Ends a watch without its client.
    fn expire_watch(&mut self, place: &Place, id: WatchId) {
        let Some(watch) = self.watches.get(place, id) else { return };
        let (addr, conn) = (watch.addr, watch.conn.take());
        if let Some(conn) = conn {
            let event = WatchEvent { object: (*place.1).clone(), cookie: id.1, what: WatchNews::Ended };
            self.out.push(Effect::WatchEvent { conn, event });
        }
        let (pgid, object) = place;
        let Some(up_from) = self.up_from().filter(|_| self.groups.contains_key(pgid)) else { return };
        self.watches.next_own_tid += 1;
        let request = OpRequest {
            request: RequestId {
                client: OWN_SESSION | self.whoami().0 as u64,
                // A run's epoch of boot is no other run's.
                incarnation: up_from.0,
                tid: self.watches.next_own_tid,
            },
            epoch: self.maps.epoch(),
            pg: *pgid,
            object: (**object).clone(),
            snaps: Default::default(),
            mtime: self.now.wall,
            flags: OpFlags::FULL_TRY,
            ops: vec![OpKind::Watch { cookie: id.1, action: WatchAction::Unwatch }.into()].into(),
        };
        let sender = Sender { client: id.0, addr, entity: EntityName::from(self.whoami()) };
        self.take_in(None, Box::new(request), Payload::none(), sender);
    }

    /// One of this OSD's own vectors was carried out, or there was nothing to end any more.
    pub(super) fn own_op_done(&mut self, op: &Op) {
        if let Some(OpKind::Watch { cookie, .. }) = op.request.ops.first().map(|op| &op.kind) {
            self.end_watch(&(op.pgid, op.object.clone()), (op.sender.client, *cookie), true);
        }
    }

    /// A new map: watches of those it blocks end now; those of groups led elsewhere are no longer this OSD's to keep.
    pub(super) fn watches_on_map(&mut self) {
        let Some(map) = self.maps.current().cloned() else { return };
        let (mut blocked, mut elsewhere) = (Vec::new(), BTreeSet::new());
        for (place, watches) in &self.watches.objects {
            if !self.leads(place.0) {
                elsewhere.insert(place.clone());
                continue;
            }
            let all = watches.iter();
            let bad = all.filter(|(_, watch)| map.is_blocklisted(&watch.addr) && watch.until > self.time);
            blocked.extend(bad.map(|(id, _)| (place.clone(), *id)));
        }
        for (place, id) in blocked {
            self.watches.set_timer(&place, id, self.time);
        }
        for place in elsewhere {
            for (id, watch) in self.watches.objects.remove(&place).unwrap_or_default() {
                self.watches.timers.remove(&(watch.until, place.clone(), id));
            }
        }
        let lost = |n: &Notification| !self.leads(n.place.0);
        let lost: Vec<u64> =
            self.watches.notifications.iter().filter(|(_, n)| lost(n)).map(|(number, _)| *number).collect();
        for number in lost {
            // The client asks again, where the watches are now.
            if let Some(notification) = self.watches.notifications.remove(&number) {
                let remembered = Remembered { code: ErrorCode::STALE, ..Remembered::default() };
                self.answer(&notification.op, Answer { remembered, data: Payload::none() });
            }
        }
    }
}

fn news(op: &Op, place: &Place, cookie: u64, id: u64) -> WatchEvent {
    let payload = match op.request.ops.first().map(|op| &op.kind) {
        Some(OpKind::Notify { payload, .. }) => payload.clone(),
        _ => Default::default(),
    };
    let what = WatchNews::Notify { id, notifier: op.sender.client, payload };
    WatchEvent { object: (*place.1).clone(), cookie, what }
}
