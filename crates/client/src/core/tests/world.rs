//! A cluster that is not: maps that change, OSDs that follow them late, connections that break.
//!
//! OSDs keep the rules of `docs/pg.md` that clients rely on: a request is carried out once in its life and only by the
//! primary of the interval that lasts; one of an earlier interval is not looked at; what waits is forgotten when
//! the interval ends.

use super::super::target::{Maps, Target};
use super::super::{ConnId, Core, Effect, Event, Now, Submit};
use crate::fixture::{CLIENT, POOL, client_addr, map, object};
use cairn_types::{EntityAddr, Epoch, OsdId, OsdMap, OsdMapIncremental, PgId, Timestamp};
use cairn_wire::op::{OpFlags, OpKind, OpOutput, OpReply, OpRequest, OpResult};
use cairn_wire::{ErrorCode, Payload, RequestId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const OSDS: usize = 4;

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One OSD's process.
struct Osd {
    addr: EntityAddr,
    epoch: Epoch,
    /// Taken in, not carried out.
    waiting: VecDeque<(ConnId, OpRequest)>,
}

/// A connection: what is on the way in both directions, in order.
struct Link {
    osd: usize,
    up: VecDeque<OpRequest>,
    down: VecDeque<OpReply>,
}

pub(super) struct World {
    pub(super) rng: Rng,
    now_ms: u64,
    core: Core<u64>,
    /// By epoch, from 1.
    maps: Vec<Maps>,
    changes: Vec<OsdMapIncremental>,
    client_epoch: usize,
    osds: Vec<Osd>,
    runs: u64,
    connecting: Vec<(ConnId, EntityAddr)>,
    links: BTreeMap<ConnId, Link>,
    /// What was carried out, by object, in order.
    applied: BTreeMap<String, Vec<u64>>,
    remembered: BTreeSet<RequestId>,
    submitted: BTreeMap<String, Vec<u64>>,
    tokens: u64,
    pub(super) done: BTreeMap<u64, u32>,
    /// Whether OSDs say BUSY: then they keep no order.
    may_be_busy: bool,
    pub(super) resends: u64,
    pub(super) lost_links: u64,
}

impl World {
    pub(super) fn new(seed: u64, may_be_busy: bool) -> Self {
        let addrs: Vec<_> = (0..OSDS).map(|osd| addr(osd, 1)).collect();
        let first = map(&addrs, 8, 3);
        let osds = addrs.iter().map(|&addr| Osd { addr, epoch: Epoch(1), waiting: VecDeque::new() });
        World {
            rng: Rng(seed),
            now_ms: 0,
            core: Core::new(CLIENT, client_addr()),
            maps: vec![Maps::new(first).unwrap()],
            changes: Vec::new(),
            client_epoch: 0,
            osds: osds.collect(),
            runs: 1,
            connecting: Vec::new(),
            links: BTreeMap::new(),
            applied: BTreeMap::new(),
            remembered: BTreeSet::new(),
            submitted: BTreeMap::new(),
            tokens: 0,
            done: BTreeMap::new(),
            may_be_busy,
            resends: 0,
            lost_links: 0,
        }
    }

    /// One thing happens.
    pub(super) fn step(&mut self) {
        self.now_ms += self.rng.below(3);
        match self.rng.below(100) {
            0..25 => self.submit(),
            25..27 => self.change_map(),
            27..32 => self.tell_client_maps(),
            32..40 => self.tell_osd_maps(),
            40..46 => self.connect(),
            46..47 => self.lose_link(),
            47..67 => self.deliver_up(),
            67..77 => self.carry_out(),
            77..97 => self.deliver_down(),
            _ => self.tick(),
        }
    }

    /// Nothing breaks any more, and everything gets its turn, until all is answered.
    pub(super) fn settle(&mut self) {
        self.may_be_busy = false;
        let mut next = self.next_change();
        for (osd, info) in self.newest().map().osds.clone() {
            let mut info = info;
            if !info.up {
                info.up = true;
                info.up_from = next.epoch;
                next.osds.insert(osd, info);
            }
        }
        self.publish(next);
        for _ in 0..2_000 {
            if self.core.ops_in_flight() == 0 {
                return;
            }
            self.now_ms += 20;
            for _ in 0..4 {
                self.tell_client_maps();
                self.connect();
            }
            for osd in &mut self.osds {
                osd.epoch = Epoch(self.maps.len() as u32);
            }
            for _ in 0..50 {
                self.deliver_up();
                self.carry_out();
                self.deliver_down();
            }
            self.tick();
        }
        panic!("{} vectors are never answered", self.core.ops_in_flight());
    }

    pub(super) fn check(&self) {
        for (token, answers) in &self.done {
            assert_eq!(*answers, 1, "vector {token}");
        }
        assert_eq!(self.done.len() as u64, self.tokens, "each vector has an answer");
        for (object, submitted) in &self.submitted {
            let mut applied = self.applied.get(object).cloned().unwrap_or_default();
            if !self.remembered.contains(&BUSY_MARK) {
                assert_eq!(&applied, submitted, "{object}: in order, each once");
            }
            applied.sort_unstable();
            assert_eq!(&applied, submitted, "{object}: each once");
        }
    }

    fn event(&mut self, event: Event<u64>) {
        let now = Now { steady_ms: self.now_ms, wall: Timestamp(self.now_ms) };
        self.core.handle(now, event);
        let effects: Vec<_> = self.core.take_effects().collect();
        for effect in effects {
            match effect {
                Effect::Connect { conn, addr, .. } => self.connecting.push((conn, addr)),
                Effect::Disconnect(conn) => {
                    self.links.remove(&conn);
                    self.connecting.retain(|(other, _)| *other != conn);
                }
                Effect::Send(conn, frame) => {
                    let link = self.links.get_mut(&conn).expect("sent over a connection that stands");
                    link.up.push_back(frame.message().unwrap());
                }
                Effect::Done(token, result) => {
                    result.unwrap_or_else(|error| panic!("vector {token}: {error}"));
                    *self.done.entry(token).or_default() += 1;
                }
                Effect::NeedMap(epoch) => assert!(epoch.0 as usize <= self.maps.len()),
                Effect::NewMap(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn submit(&mut self) {
        if self.core.ops_in_flight() >= 64 {
            return;
        }
        self.tokens += 1;
        let name = format!("object{}", self.rng.below(12));
        self.submitted.entry(name.clone()).or_default().push(self.tokens);
        let submit = Submit {
            object: object(&name),
            ops: vec![OpKind::AssertVersion { version: self.tokens }.into()],
            data: Payload::default(),
            flags: OpFlags::default(),
            timeout_ms: None,
            done: self.tokens,
        };
        self.event(Event::Submit(submit));
    }

    fn tick(&mut self) {
        if self.core.timer_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.event(Event::Tick);
        }
    }

    fn newest(&mut self) -> &mut Maps {
        self.maps.last_mut().unwrap()
    }

    fn next_change(&self) -> OsdMapIncremental {
        let map: &OsdMap = self.maps.last().unwrap().map();
        OsdMapIncremental::empty(map.epoch.next(), map.fsid, Timestamp(self.now_ms))
    }

    fn publish(&mut self, next: OsdMapIncremental) {
        let map = self.newest().map().apply(&next).unwrap();
        self.maps.push(Maps::new(map).unwrap());
        self.changes.push(next);
    }

    fn change_map(&mut self) {
        let mut next = self.next_change();
        let osd = self.rng.below(OSDS as u64) as usize;
        let id = OsdId(osd as i32);
        let mut info = self.newest().map().osds[&id];
        match self.rng.below(4) {
            0 if info.up && self.newest().map().up_count() > 1 => {
                info.up = false;
                next.osds.insert(id, info);
            }
            // Back as it was, or as another run of its process.
            0 | 1 if !info.up => {
                if self.rng.chance(50) {
                    self.runs += 1;
                    self.osds[osd].addr = addr(osd, self.runs);
                    self.forget(osd, |_| true);
                    self.break_links(osd);
                }
                info.up = true;
                info.up_from = next.epoch;
                info.public = Some(self.osds[osd].addr);
                info.cluster = info.public;
                next.osds.insert(id, info);
            }
            2 => {
                let pg = PgId { pool: POOL, seed: self.rng.below(8) as u32 };
                let temp = self.newest().map().pg_temp.contains_key(&pg);
                next.pg_temp.insert(pg, (!temp).then(|| vec![id]));
            }
            _ => {}
        }
        self.publish(next);
    }

    fn tell_client_maps(&mut self) {
        let newest = self.maps.len();
        if self.client_epoch == newest {
            return;
        }
        if self.client_epoch == 0 || self.rng.chance(10) {
            self.client_epoch = newest;
            let full = Some(Box::new(OsdMap::clone(self.newest().map())));
            return self.event(Event::Maps { full, increments: Vec::new() });
        }
        let missing = (newest - self.client_epoch) as u64;
        let count = 1 + self.rng.below(missing) as usize;
        let increments = self.changes[self.client_epoch - 1..][..count].to_vec();
        self.client_epoch += count;
        self.event(Event::Maps { full: None, increments });
    }

    fn tell_osd_maps(&mut self) {
        let osd = self.rng.below(OSDS as u64) as usize;
        let epoch = self.osds[osd].epoch;
        if (epoch.0 as usize) < self.maps.len() {
            self.osds[osd].epoch = epoch.next();
            let mut ended = BTreeSet::new();
            for seed in 0..8 {
                if self.target(epoch, seed) != self.target(epoch.next(), seed) {
                    ended.insert(seed);
                }
            }
            self.forget(osd, |request| ended.contains(&request.pg.seed) && request.epoch <= epoch);
        }
    }

    fn forget(&mut self, osd: usize, gone: impl Fn(&OpRequest) -> bool) {
        self.osds[osd].waiting.retain(|(_, request)| !gone(request));
    }

    fn target(&mut self, epoch: Epoch, seed: u32) -> Arc<Target> {
        self.maps[epoch.0 as usize - 1].target(POOL, seed).unwrap()
    }

    fn interval_start(&mut self, epoch: Epoch, seed: u32) -> Epoch {
        let mut first = epoch;
        while first.0 > 1 && self.target(Epoch(first.0 - 1), seed) == self.target(first, seed) {
            first = Epoch(first.0 - 1);
        }
        first
    }

    fn connect(&mut self) {
        let Some((conn, addr)) = self.connecting.pop() else { return };
        let osd = self.osds.iter().position(|osd| osd.addr == addr);
        match osd.filter(|_| !self.rng.chance(20)) {
            Some(osd) => {
                let link = Link { osd, up: VecDeque::new(), down: VecDeque::new() };
                self.links.insert(conn, link);
                self.event(Event::Connected(conn));
            }
            None => self.event(Event::Closed(conn)),
        }
    }

    fn some_link(&mut self) -> Option<ConnId> {
        let count = self.links.len() as u64;
        if count == 0 {
            return None;
        }
        let n = self.rng.below(count) as usize;
        self.links.keys().nth(n).copied()
    }

    fn lose_link(&mut self) {
        let Some(conn) = self.some_link() else { return };
        self.links.remove(&conn);
        self.lost_links += 1;
        self.event(Event::Closed(conn));
    }

    fn break_links(&mut self, osd: usize) {
        let broken: Vec<_> =
            self.links.iter().filter(|(_, link)| link.osd == osd).map(|(&conn, _)| conn).collect();
        for conn in broken {
            self.links.remove(&conn);
            self.event(Event::Closed(conn));
        }
    }

    fn deliver_up(&mut self) {
        let Some(conn) = self.some_link() else { return };
        let link = self.links.get_mut(&conn).unwrap();
        let osd = link.osd;
        if let Some(request) = link.up.pop_front() {
            self.osds[osd].waiting.push_back((conn, request));
        }
    }

    /// The OSD looks at the first that waits.
    fn carry_out(&mut self) {
        let osd = self.rng.below(OSDS as u64) as usize;
        let Some((conn, request)) = self.osds[osd].waiting.pop_front() else { return };
        let (epoch, seed) = (self.osds[osd].epoch, request.pg.seed);
        let newest = Epoch(self.maps.len() as u32);
        let interval = self.interval_start(epoch, seed);
        let leads = |target: &Target| target.primary.is_some_and(|(id, _)| id.0 as usize == osd);
        if request.epoch > epoch {
            // Waits for the map.
            return self.osds[osd].waiting.push_front((conn, request));
        }
        let target = self.target(epoch, seed);
        if request.epoch < interval || !leads(&target) {
            return self.answer(conn, &request, epoch, ErrorCode::STALE);
        }
        if target != self.target(newest, seed) {
            // The other copies know better: nothing is acknowledged until this OSD does, too.
            return self.osds[osd].waiting.push_front((conn, request));
        }
        if self.may_be_busy && self.rng.chance(20) {
            self.remembered.insert(BUSY_MARK);
            return self.answer(conn, &request, epoch, ErrorCode::BUSY);
        }
        if self.remembered.insert(request.request) {
            let OpKind::AssertVersion { version: token } = request.ops[0].kind else { panic!() };
            self.applied.entry(request.object.name.clone()).or_default().push(token);
        } else {
            self.resends += 1;
        }
        self.answer(conn, &request, epoch, ErrorCode::OK);
        if self.rng.chance(10) {
            self.answer(conn, &request, epoch, ErrorCode::OK);
        }
    }

    fn answer(&mut self, conn: ConnId, request: &OpRequest, epoch: Epoch, code: ErrorCode) {
        let looked_at = code == ErrorCode::OK;
        let results = looked_at.then_some(OpResult { code, output: OpOutput::None });
        let results = results.into_iter().collect();
        let reply = OpReply { request: request.request, epoch, code, user_version: 1, results };
        if let Some(link) = self.links.get_mut(&conn) {
            link.down.push_back(reply);
        }
    }

    fn deliver_down(&mut self) {
        let Some(conn) = self.some_link() else { return };
        if let Some(reply) = self.links.get_mut(&conn).and_then(|link| link.down.pop_front()) {
            self.event(Event::Reply { conn, reply, data: Payload::default() });
        }
    }
}

/// Stands in `remembered` for: an OSD was too busy once.
const BUSY_MARK: RequestId = RequestId { client: 0, incarnation: 0, tid: 0 };

fn addr(osd: usize, run: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, osd as u8 + 1], 6800).into(), nonce: run }
}
