//! The client's decisions, without clock, sockets or runtime: events and the time go in, effects come out.
//!
//! A vector is sent to the acting primary of its object's group and sent again, with the same request id, until it
//! is answered: when the group's interval changed, when the connection was lost, when the OSD has a newer map than the
//! client (STALE) or too much to do (BUSY). OSDs carry a request out once. Vectors are sent, and sent again, in
//! the order in which they came.
//!
//! | what | file |
//! |---|---|
//! | the map, and from an object to its OSD | `target` |
//! | vectors, from call to answer | `ops` |
//! | connections to OSDs | `sessions` |
//! | watches and notifications | `watches` |
//! | bounds of vectors, sense of answers | `check` |
//! | numbers | `limits` |

mod check;
mod effect;
pub mod limits;
mod ops;
mod sessions;
mod target;
#[cfg(test)]
mod tests;
mod watches;

pub use check::{check, cost_bytes};
pub use effect::{ConnId, Effect, Event, NoticeId, Now, Submit};
pub use target::MapError;

use crate::io::OpError;
use cairn_types::{EntityAddr, Epoch, OsdId, OsdMap, OsdMapIncremental, PoolId};
use ops::{Owner, Pending, State};
use sessions::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use target::Maps;
use watches::Watching;

/// What holds up the vectors of an object: they wait, in order, until it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stall {
    /// The OSD was too busy: until this moment.
    Until(u64),
    /// The OSD has a newer map: until it is here.
    Map(Epoch),
}

/// Objects by pool and hash. Two objects of one hash stall together, which does no harm.
type StallKey = (PoolId, u32);

/// Why nothing is served any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Blocklisted,
    Stopped,
}

/// A client. `C` is the driver's way to its callers.
pub struct Core<C> {
    client: u64,
    addr: EntityAddr,
    now: Now,
    maps: Option<Maps>,
    /// By tid, which is the order of submission.
    ops: BTreeMap<u64, Pending<C>>,
    last_tid: u64,
    sessions: BTreeMap<OsdId, Session>,
    last_conn: u64,
    stalls: BTreeMap<StallKey, Stall>,
    /// Moment and tid of the vectors that have a time-out.
    deadlines: BTreeSet<(u64, u64)>,
    /// By cookie.
    watches: BTreeMap<u64, Watching>,
    ended: Option<Ended>,
    effects: Vec<Effect<C>>,
}

impl<C> Core<C> {
    /// A client without a map. `client` is its session number, `addr` what the blocklist would name.
    pub fn new(client: u64, addr: EntityAddr) -> Self {
        Core {
            client,
            addr,
            now: Now::default(),
            maps: None,
            ops: BTreeMap::new(),
            last_tid: 0,
            sessions: BTreeMap::new(),
            last_conn: 0,
            stalls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            watches: BTreeMap::new(),
            ended: None,
            effects: Vec::new(),
        }
    }

    /// Takes in one event. What follows is in [`Core::take_effects`].
    pub fn handle(&mut self, now: Now, event: Event<C>) {
        self.now = now;
        match event {
            Event::Submit(submit) => self.submit(submit),
            Event::Watch { cookie, object } => self.watch(cookie, object),
            Event::Unwatch { cookie, done } => self.unwatch(cookie, done),
            Event::Acknowledge { notice, reply } => self.acknowledge(notice, reply),
            Event::Maps { full, increments } => self.take_maps(full, increments),
            Event::Connected(conn) => self.connected(conn),
            Event::Closed(conn) => self.closed(conn),
            Event::Reply { conn, reply, data } => self.reply(conn, reply, data),
            Event::WatchEvent { conn, event } => self.watch_event(conn, event),
            Event::Tick => self.tick(),
            Event::Stop => self.end(Ended::Stopped),
        }
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> std::vec::Drain<'_, Effect<C>> {
        self.effects.drain(..)
    }

    /// When to hand in [`Event::Tick`], by the steady clock.
    pub fn timer_ms(&self) -> Option<u64> {
        let stalls = self.stalls.values().filter_map(|stall| match *stall {
            Stall::Until(until_ms) => Some(until_ms),
            Stall::Map(_) => None,
        });
        let sessions = self.sessions.values().filter_map(Session::timer_ms);
        let watches = self.watches.values().filter_map(Watching::timer_ms);
        let deadline = self.deadlines.first().map(|&(at_ms, _)| at_ms);
        stalls.chain(sessions).chain(watches).chain(deadline).min()
    }

    /// The newest map that came; `None` before the first.
    pub fn map(&self) -> Option<&Arc<OsdMap>> {
        self.maps.as_ref().map(Maps::map)
    }

    /// Vectors that are not answered, those of watches included.
    pub fn ops_in_flight(&self) -> usize {
        self.ops.len()
    }

    fn tick(&mut self) {
        while let Some(&(at_ms, tid)) = self.deadlines.first().filter(|(at, _)| *at <= self.now.steady_ms) {
            self.deadlines.remove(&(at_ms, tid));
            self.give_up(tid);
        }
        self.release(|stall, now_ms, _| matches!(stall, Stall::Until(until_ms) if until_ms <= now_ms));
        self.retry_sessions();
        self.ping_watches();
    }

    fn take_maps(&mut self, full: Option<Box<OsdMap>>, increments: Vec<OsdMapIncremental>) {
        if self.ended.is_some() {
            return;
        }
        let before = self.maps.as_ref().map_or(Epoch(0), Maps::epoch);
        if let Err(error) = self.advance(full, increments) {
            self.effects.push(Effect::BadMap(error));
        }
        let Some(maps) = &self.maps else { return };
        let (map, epoch) = (maps.map().clone(), maps.epoch());
        if epoch <= before {
            return;
        }
        self.effects.push(Effect::NewMap(map.clone()));
        if map.is_blocklisted(&self.addr) {
            return self.end(Ended::Blocklisted);
        }
        self.drop_sessions(&map);
        // An OSD forgets what waits when an interval ends. Over an epoch that was not looked at, one may have ended and
        // another like it begun.
        let skipped = epoch.0 - before.0 > 1;
        self.stalls.retain(|_, stall| matches!(stall, Stall::Map(wanted) if *wanted > epoch));
        let tids: Vec<u64> = self.ops.keys().copied().collect();
        for tid in tids {
            self.retarget(tid, skipped);
        }
        self.retarget_watches(skipped);
    }

    fn advance(
        &mut self,
        full: Option<Box<OsdMap>>,
        increments: Vec<OsdMapIncremental>,
    ) -> Result<(), MapError> {
        if let Some(map) = full
            && self.maps.as_ref().is_none_or(|maps| maps.epoch() < map.epoch)
        {
            self.maps = Some(Maps::new(*map)?);
        }
        for change in increments {
            let maps = self.maps.as_mut().ok_or(MapError::NoMap)?;
            if change.epoch > maps.epoch() {
                maps.apply(&change)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, why: Ended) {
        if self.ended == Some(Ended::Stopped) {
            return;
        }
        self.ended = Some(why);
        self.stalls.clear();
        self.deadlines.clear();
        let error = self.end_error(why);
        for (_, op) in std::mem::take(&mut self.ops) {
            if let Owner::Caller(done) | Owner::Unwatch(done) = op.owner {
                self.effects.push(Effect::Done(done, Err(error.clone())));
            }
        }
        for (cookie, watch) in std::mem::take(&mut self.watches) {
            self.effects.push(watch.end(cookie, error.clone()));
        }
        for (_, session) in std::mem::take(&mut self.sessions) {
            self.effects.push(Effect::Disconnect(session.conn));
        }
    }

    fn end_error(&self, why: Ended) -> OpError {
        match why {
            Ended::Blocklisted => OpError::Blocklisted { addr: self.addr },
            Ended::Stopped => OpError::Closed,
        }
    }

    /// The error of everything that is asked after the end.
    fn refusal(&self) -> Option<OpError> {
        self.ended.map(|why| self.end_error(why))
    }

    /// Ends stalls, and sends what waited for them in the order in which it came.
    fn release(&mut self, over: impl Fn(Stall, u64, Epoch) -> bool) {
        if self.stalls.is_empty() {
            return;
        }
        let (now_ms, epoch) = (self.now.steady_ms, self.maps.as_ref().map_or(Epoch(0), Maps::epoch));
        let before = self.stalls.len();
        self.stalls.retain(|_, stall| !over(*stall, now_ms, epoch));
        if self.stalls.len() == before {
            return;
        }
        let stalled = |op: &Pending<C>| op.state == State::Stalled;
        let tids: Vec<u64> = self.ops.iter().filter(|(_, op)| stalled(op)).map(|(&tid, _)| tid).collect();
        for tid in tids {
            self.send(tid);
        }
    }
}
