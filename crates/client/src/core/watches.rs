//! Watches: begun, kept alive, begun again where their OSD changed; and what they hear.

use super::limits::{NOTICES_KEPT, WATCH_PING_INTERVAL_MS, WATCH_TIMEOUT_MS};
use super::ops::Owner;
use super::target::Target;
use super::{ConnId, Core, Effect, NoticeId};
use crate::io::{Notice, OpAnswer, OpError};
use bytes::Bytes;
use cairn_types::{EntityAddr, ObjectId};
use cairn_wire::op::{CALL_LEN_MAX, NotifyAck, OpFlags, OpKind, WatchAction, WatchEvent, WatchNews};
use cairn_wire::{Frame, Payload};
use std::collections::VecDeque;
use std::sync::Arc;

/// A notification that was heard.
#[derive(Debug)]
struct Heard {
    osd: EntityAddr,
    id: u64,
    /// What was answered.
    reply: Option<Bytes>,
}

/// One watch.
#[derive(Debug)]
pub(super) struct Watching {
    object: ObjectId,
    /// The vector that begins it, while that is not answered.
    register: Option<u64>,
    /// The last sign of life, while that is not answered.
    ping: Option<u64>,
    ping_at_ms: u64,
    /// It has stood before.
    established: bool,
    /// Where it stands.
    pub(super) target: Option<Arc<Target>>,
    /// The connection over which it was begun.
    pub(super) conn: Option<ConnId>,
    heard: VecDeque<Heard>,
}

impl Watching {
    pub(super) fn timer_ms(&self) -> Option<u64> {
        (self.register.is_none() && self.ping.is_none()).then_some(self.ping_at_ms)
    }

    /// The last word about it.
    pub(super) fn end<C>(&self, cookie: u64, why: OpError) -> Effect<C> {
        match self.established {
            true => Effect::WatchEnded(cookie, why),
            false => Effect::Watching { cookie, result: Err(why) },
        }
    }
}

impl<C> Core<C> {
    pub(super) fn watch(&mut self, cookie: u64, object: ObjectId) {
        if let Some(error) = self.refusal() {
            return self.effects.push(Effect::Watching { cookie, result: Err(error) });
        }
        let watching = Watching {
            object,
            register: None,
            ping: None,
            ping_at_ms: 0,
            established: false,
            target: None,
            conn: None,
            heard: VecDeque::new(),
        };
        self.watches.insert(cookie, watching);
        self.register(cookie);
    }

    pub(super) fn unwatch(&mut self, cookie: u64, done: C) {
        if let Some(error) = self.refusal() {
            return self.effects.push(Effect::Done(done, Err(error)));
        }
        let Some(watch) = self.watches.remove(&cookie) else {
            return self.effects.push(Effect::Done(done, Ok(OpAnswer::default())));
        };
        for tid in watch.register.iter().chain(&watch.ping) {
            self.forget(*tid);
        }
        self.act(watch.object, cookie, WatchAction::Unwatch, Owner::Unwatch(done));
    }

    fn act(&mut self, object: ObjectId, cookie: u64, action: WatchAction, owner: Owner<C>) -> u64 {
        let ops = vec![OpKind::Watch { cookie, action }.into()];
        // A full cluster is opened and closed like any other.
        self.start(object, ops, Payload::default(), OpFlags::FULL_TRY, None, owner)
    }

    /// Begins the watch, for the first time or again. A beginning that is under way is sent again by itself.
    fn register(&mut self, cookie: u64) {
        let Some(watch) = self.watches.get_mut(&cookie) else { return };
        if watch.register.is_some() {
            return;
        }
        let (object, ping) = (watch.object.clone(), watch.ping.take());
        if let Some(tid) = ping {
            self.forget(tid);
        }
        // Known before it is sent: the answer may come at once.
        let tid = self.last_tid + 1;
        if let Some(watch) = self.watches.get_mut(&cookie) {
            watch.register = Some(tid);
        }
        let action = WatchAction::Watch { timeout_ms: WATCH_TIMEOUT_MS };
        let started = self.act(object, cookie, action, Owner::Register(cookie));
        debug_assert_eq!(started, tid);
    }

    pub(super) fn registered(
        &mut self,
        cookie: u64,
        tid: u64,
        target: Option<Arc<Target>>,
        result: Result<OpAnswer, OpError>,
    ) {
        let Some(watch) = self.watches.get_mut(&cookie).filter(|watch| watch.register == Some(tid)) else {
            return;
        };
        watch.register = None;
        if let Err(why) = result {
            let end = watch.end(cookie, why);
            self.watches.remove(&cookie);
            return self.effects.push(end);
        }
        let primary = target.as_ref().and_then(|target| target.primary);
        watch.conn = primary.and_then(|(osd, _)| self.sessions.get(&osd)).map(|session| session.conn);
        watch.target = target;
        watch.ping_at_ms = self.now.steady_ms + WATCH_PING_INTERVAL_MS;
        let renewed = std::mem::replace(&mut watch.established, true);
        self.effects.push(match renewed {
            true => Effect::WatchRenewed(cookie),
            false => Effect::Watching { cookie, result: Ok(()) },
        });
    }

    /// Begins again the watches that stood and for which `lost` holds.
    pub(super) fn renew_watches(&mut self, lost: impl Fn(&Watching) -> bool) {
        let lost = self.watches.iter().filter(|(_, watch)| watch.register.is_none() && lost(watch));
        let cookies: Vec<u64> = lost.map(|(&cookie, _)| cookie).collect();
        for cookie in cookies {
            self.register(cookie);
        }
    }

    /// Under a new map.
    pub(super) fn retarget_watches(&mut self, skipped: bool) {
        let Some(maps) = &mut self.maps else { return };
        let stands = self.watches.iter().filter(|(_, watch)| watch.register.is_none());
        let moved = stands.filter_map(|(&cookie, watch)| {
            let target = maps.target(watch.object.pool, watch.object.hash);
            (skipped || target.is_none() || target != watch.target).then_some(cookie)
        });
        let moved: Vec<u64> = moved.collect();
        for cookie in moved {
            self.register(cookie);
        }
    }

    pub(super) fn ping_watches(&mut self) {
        let now_ms = self.now.steady_ms;
        let due = self.watches.iter().filter(|(_, watch)| watch.timer_ms().is_some_and(|at| at <= now_ms));
        let due: Vec<_> = due.map(|(&cookie, watch)| (cookie, watch.object.clone())).collect();
        for (cookie, object) in due {
            let tid = self.last_tid + 1;
            if let Some(watch) = self.watches.get_mut(&cookie) {
                watch.ping = Some(tid);
                watch.ping_at_ms = now_ms + WATCH_PING_INTERVAL_MS;
            }
            self.act(object, cookie, WatchAction::Ping, Owner::Ping(cookie));
        }
    }

    pub(super) fn pinged(&mut self, cookie: u64, tid: u64, result: Result<OpAnswer, OpError>) {
        let Some(watch) = self.watches.get_mut(&cookie).filter(|watch| watch.ping == Some(tid)) else {
            return;
        };
        watch.ping = None;
        if result.is_err() {
            // Gone there; beginning again tells whether the object is, too.
            self.register(cookie);
        }
    }

    pub(super) fn watch_event(&mut self, conn: ConnId, event: WatchEvent) {
        self.heard(conn);
        let Some((_, session)) = self.session_of(conn) else { return };
        let osd = session.addr;
        let WatchEvent { object, cookie, what } = event;
        let Some(watch) = self.watches.get_mut(&cookie).filter(|watch| watch.object == object) else {
            return;
        };
        match what {
            WatchNews::Ended => {
                // Of a watch that stands here; an older one's end means nothing.
                if watch.conn == Some(conn) {
                    self.register(cookie);
                }
            }
            WatchNews::Notify { id, notifier, payload } => {
                match watch.heard.iter().find(|heard| heard.osd == osd && heard.id == id) {
                    None => {
                        if watch.heard.len() == NOTICES_KEPT {
                            watch.heard.pop_front();
                        }
                        watch.heard.push_back(Heard { osd, id, reply: None });
                        let notice = Notice { cookie, notifier, payload };
                        self.effects.push(Effect::Notified { id: NoticeId { cookie, osd, id }, notice });
                    }
                    // Its acknowledgement was lost with a connection.
                    Some(Heard { reply: Some(reply), .. }) => {
                        let ack = NotifyAck { object, cookie, id, reply: reply.clone() };
                        self.send_ack(conn, &ack);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    pub(super) fn acknowledge(&mut self, notice: NoticeId, reply: Bytes) {
        let NoticeId { cookie, osd, id } = notice;
        let Some(watch) = self.watches.get_mut(&cookie) else { return };
        let reply = if reply.len() > CALL_LEN_MAX { Bytes::new() } else { reply };
        let heard = watch.heard.iter_mut().find(|heard| heard.osd == osd && heard.id == id);
        if let Some(heard) = heard {
            heard.reply = Some(reply.clone());
        }
        let ack = NotifyAck { object: watch.object.clone(), cookie, id, reply };
        let session = self.sessions.values().find(|session| session.addr == osd && session.is_open());
        if let Some(conn) = session.map(|session| session.conn) {
            self.send_ack(conn, &ack);
        }
    }

    fn send_ack(&mut self, conn: ConnId, ack: &NotifyAck) {
        // Names and replies are bounded, so that it always fits.
        if let Ok(frame) = Frame::new(ack, Payload::default()) {
            self.effects.push(Effect::Send(conn, frame));
        }
    }
}
