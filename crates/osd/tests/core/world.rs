//! A few OSDs, their stores, one monitor, the network and clients, in one thread under virtual time.

use crate::rng::Rng;
use crate::store::{Store, Write, write_of};
use bytes::Bytes;
use cairn_crush::build::{ReplicaMode, SimpleRule};
use cairn_crush::placement::object_hash;
use cairn_crush::{Algorithm, CrushMap, Tunables, binary};
use cairn_mon::monitor::DaemonNews;
use cairn_mon::service::subscription::MapBatch;
use cairn_mon::service::{Evidence, OsdCommand, PgCommand, Reply as MonReply, Request};
use cairn_osd::core::*;
use cairn_types::*;
use cairn_wire::op::*;
use cairn_wire::{ErrorCode, Lane, Payload, RequestId};
use std::collections::{BTreeMap, BTreeSet};

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000 * MS;
pub const POOL: PoolId = PoolId(1);

#[derive(Debug)]
enum Ev {
    Osd {
        osd: OsdId,
        life: u64,
        event: Box<Event>,
    },
    /// A write of the store becomes durable.
    Harden {
        osd: OsdId,
        life: u64,
    },
    Wake {
        osd: OsdId,
        life: u64,
    },
    Query {
        osd: OsdId,
        life: u64,
        pgid: PgId,
        token: QueryToken,
        query: Query,
    },
    Connect {
        from: OsdId,
        life: u64,
        attempt: Attempt,
        peer: OsdId,
        addr: EntityAddr,
    },
    /// Over a connection between OSDs; `to` is its end.
    Peer {
        conn: ConnId,
        to: OsdId,
        message: Box<PeerMessage>,
    },
    Maps(OsdId),
    Monitors {
        osd: OsdId,
        life: u64,
        tag: MonitorTag,
        request: Box<Request>,
    },
    News(DaemonNews),
    ToClient {
        conn: ConnId,
        what: Box<Answered>,
    },
    Retry {
        tid: u64,
        attempt: u32,
    },
}

#[derive(Debug)]
enum Answered {
    Reply(OpReply, Payload),
    Watch(WatchEvent),
}

pub struct Node {
    pub osd: Option<Osd>,
    pub store: Store,
    pub life: u64,
    pub stopped: Option<StopReason>,
    pub isolated: bool,
    pub sent_epoch: Epoch,
    last_harden: u64,
    wake_at: Option<u64>,
    pub reports: Vec<OsdReport>,
}

#[derive(Clone, Copy)]
struct Conn {
    ends: [(OsdId, u64); 2],
}

/// A client's connection to one run of an OSD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ClientConn {
    client: u64,
    osd: OsdId,
    life: u64,
}

pub struct Call {
    pub client: u64,
    pub object: ObjectId,
    pub pg: PgId,
    ops: Vec<OpKind>,
    payload: Payload,
    attempt: u32,
    pub attempts_max: u32,
    pub answer: Option<(OpReply, Payload)>,
    pub answered_at: u64,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    /// Every epoch.
    pub maps: Vec<OsdMap>,
    pub nodes: BTreeMap<OsdId, Node>,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    last_delivery: BTreeMap<(ConnId, OsdId, u8), u64>,
    client_conns: BTreeMap<ConnId, ClientConn>,
    pub calls: BTreeMap<u64, Call>,
    pub heard: Vec<(u64, ConnId, WatchEvent)>,
    pub config: Config,
    /// What every store's index has room for.
    pub log_entries_max: u64,
    /// Bytes in use of 1 GiB, of those that are not empty.
    pub used_bytes: BTreeMap<OsdId, u64>,
    pub digest: u64,
    pub oldest: Epoch,
    trace: bool,
}

pub fn addr(port: u16, nonce: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, 1], port).into(), nonce }
}

fn client_addr(client: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 1, client as u8], 0).into(), nonce: client }
}

fn uuid(osd: OsdId) -> OsdUuid {
    OsdUuid([osd.0 as u8 + 1; 16])
}

fn crush(osds: i32) -> CrushBlob {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    for osd in 0..osds {
        map.add_device(osd, &format!("osd.{osd}"), Weight::ONE, None, root).unwrap();
    }
    let rule = SimpleRule {
        name: "replicated",
        root: "default",
        failure_domain: "osd",
        class: None,
        mode: ReplicaMode::Firstn,
        is_erasure: false,
    };
    map.add_simple_rule(&rule).unwrap();
    CrushBlob::new(1, binary::encode(&map).unwrap())
}

impl World {
    /// `osds` OSDs and a pool of three copies; nothing is up yet.
    pub fn new(seed: u64, osds: i32) -> World {
        let fsid = Fsid([9; 16]);
        let mut map = OsdMap::new(fsid, Timestamp(1), crush(osds));
        let pool = Pool {
            name: "vms".into(),
            size: 3,
            min_size: 2,
            pg_num: 8,
            pgp_num: 8,
            crush_rule: 0,
            flags: PoolFlags::default(),
            application: "rbd".into(),
            snap_seq: SnapId(0),
            quota_bytes: 0,
            quota_objects: 0,
            autoscale: false,
            created: Timestamp(1),
            last_change: Epoch(1),
        };
        map.pool_max = POOL;
        map.pools.insert(POOL, pool);
        let mut nodes = BTreeMap::new();
        for osd in (0..osds).map(OsdId) {
            map.osds.insert(osd, OsdInfo::new(uuid(osd)));
            let superblock = Superblock { fsid, uuid: uuid(osd), whoami: osd, born: None, clean: None };
            let node = Node {
                osd: None,
                store: Store::new(superblock, seed.is_multiple_of(2)),
                life: 0,
                stopped: None,
                isolated: false,
                sent_epoch: Epoch(0),
                last_harden: 0,
                wake_at: None,
                reports: Vec::new(),
            };
            nodes.insert(osd, node);
        }
        World {
            rng: Rng::new(seed),
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            maps: vec![map],
            nodes,
            conns: BTreeMap::new(),
            next_conn: 0,
            last_delivery: BTreeMap::new(),
            client_conns: BTreeMap::new(),
            calls: BTreeMap::new(),
            heard: Vec::new(),
            config: Config { full_map_interval: 4, ..Config::default() },
            log_entries_max: 1 << 20,
            used_bytes: BTreeMap::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            oldest: Epoch(1),
            trace: std::env::var_os("CAIRN_OSD_TRACE").is_some(),
        }
    }

    /// All OSDs run and every group is clean.
    pub fn started(seed: u64, osds: i32) -> World {
        let mut world = World::new(seed, osds);
        for osd in (0..osds).map(OsdId) {
            world.start(osd);
        }
        assert!(world.run_until_clean(30), "{}", world.state());
        world
    }

    pub fn map(&self) -> &OsdMap {
        self.maps.last().expect("a map")
    }

    // Time.

    fn at(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), ev);
    }

    fn after(&mut self, from: u64, to: u64, ev: Ev) {
        let at = self.now + self.rng.range(from, to);
        self.at(at, ev);
    }

    pub fn run(&mut self, us: u64) {
        let until = self.now + us;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            let ev = entry.remove();
            self.note(&format!("{ev:?}"));
            self.dispatch(ev);
        }
        self.now = until;
    }

    /// Runs until `done`, for at most some seconds.
    pub fn run_until(&mut self, seconds: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let until = self.now + seconds * SECOND;
        while self.now < until {
            if done(self) {
                return true;
            }
            self.run(20 * MS);
        }
        done(self)
    }

    pub fn run_until_clean(&mut self, seconds: u64) -> bool {
        self.run_until(seconds, World::is_clean)
    }

    fn note(&mut self, text: &str) {
        for byte in text.bytes().chain(self.now.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace {
            println!("{:>12.3} {text}", self.now as f64 / 1000.0);
        }
    }

    // OSDs.

    pub fn usage(&self, osd: OsdId) -> Usage {
        let used_bytes = self.used_bytes.get(&osd).copied().unwrap_or_default();
        let used = Space { used_bytes, used_at_most_bytes: used_bytes, ..Space::default() };
        Usage {
            data: Space { total_bytes: 1 << 30, ..used },
            index: Space { total_bytes: 1 << 36, ..Space::default() },
            log_entries_max: self.log_entries_max,
            log_step_bytes: 1 << 30,
        }
    }

    /// From the next look on so much of a store is in use.
    pub fn fill(&mut self, osd: OsdId, used_bytes: u64) {
        self.used_bytes.insert(osd, used_bytes);
        let usage = self.usage(osd);
        self.drive(osd, Event::Usage(usage));
    }

    pub fn start(&mut self, osd: OsdId) {
        let now = self.now_of();
        let config = self.config;
        let usage = self.usage(osd);
        let node = self.nodes.get_mut(&osd).expect("a node");
        node.life += 1;
        node.stopped = None;
        node.sent_epoch = Epoch(0);
        node.wake_at = None;
        node.last_harden = 0;
        node.reports.clear();
        let life = node.life;
        let stored = &node.store.durable;
        let setup = Setup {
            superblock: stored.superblock,
            maps: stored.maps(),
            groups: stored.groups.values().filter_map(|group| group.meta.clone()).collect(),
            removing: Vec::new(),
            public: addr(7000 + osd.0 as u16, life),
            cluster: addr(8000 + osd.0 as u16, life),
            usage,
        };
        let core = Osd::new(now, setup, config).expect("stored maps are good");
        node.osd = Some(core);
        self.drive(osd, Event::Start);
    }

    /// The process is gone at once. `survive`: the share of its waiting writes that reached the disk, of four.
    pub fn kill(&mut self, osd: OsdId, survive: usize) {
        let node = self.nodes.get_mut(&osd).expect("a node");
        if node.osd.take().is_none() {
            return;
        }
        let count = node.store.pending.len() * survive / 4;
        node.store.crash(count);
        node.life += 1;
        self.note(&format!("kill {osd}"));
        let conns: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.ends.iter().any(|end| end.0 == osd))
            .map(|(id, _)| *id)
            .collect();
        conns.into_iter().for_each(|conn| self.break_conn(conn));
        self.client_conns.retain(|_, conn| conn.osd != osd);
    }

    /// A connection breaks; what is under way on it is lost.
    pub fn break_conn(&mut self, conn: ConnId) {
        let Some(Conn { ends }) = self.conns.remove(&conn) else { return };
        for (osd, life) in ends {
            self.after(0, 2 * MS, Ev::Osd { osd, life, event: Box::new(Event::PeerClosed { conn }) });
        }
    }

    pub fn break_some_conn(&mut self) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        if let Some(conn) = self.rng.pick(&conns) {
            self.note(&format!("break {conn:?}"));
            self.break_conn(conn);
        }
    }

    fn now_of(&self) -> Now {
        Now { steady_us: 5 * SECOND + self.now, wall: Timestamp(1_700_000_000_000 + self.now / 1_000) }
    }

    fn is_alive(&self, osd: OsdId, life: u64) -> bool {
        let node = &self.nodes[&osd];
        node.life == life && node.osd.is_some()
    }

    pub fn drive(&mut self, osd: OsdId, event: Event) {
        let now = self.now_of();
        let node = self.nodes.get_mut(&osd).expect("a node");
        let Some(core) = node.osd.as_mut() else { return };
        let effects = core.handle(now, event);
        for pg in core.groups() {
            pg.check().expect("a group agrees with itself");
        }
        let life = node.life;
        let wake_at = core.wake_at().map(|at| (at.0 * 1_000).saturating_sub(5 * SECOND).max(self.now + 1));
        for effect in effects {
            if self.trace {
                println!("{:>16} {osd} {effect:?}", "");
            }
            self.carry_out(osd, life, effect);
        }
        let node = self.nodes.get_mut(&osd).expect("a node");
        if wake_at != node.wake_at {
            node.wake_at = wake_at;
            if let Some(at) = wake_at {
                self.at(at, Ev::Wake { osd, life });
            }
        }
    }

    fn carry_out(&mut self, osd: OsdId, life: u64, effect: Effect) {
        let effect = match write_of(effect) {
            Ok(write) => {
                let delay = if self.rng.one_in(20) {
                    self.rng.range(1, 30) * MS
                } else {
                    self.rng.range(100, 2 * MS)
                };
                let now = self.now;
                let node = self.nodes.get_mut(&osd).expect("a node");
                node.store.submit(write);
                let at = (now + delay).max(node.last_harden + 1);
                node.last_harden = at;
                return self.at(at, Ev::Harden { osd, life });
            }
            Err(effect) => *effect,
        };
        match effect {
            Effect::Query { token, pgid, query } => {
                self.after(20, 500, Ev::Query { osd, life, pgid, token, query });
            }
            Effect::AskUsage => {
                let event = Box::new(Event::Usage(self.usage(osd)));
                self.after(MS, 2 * MS, Ev::Osd { osd, life, event });
            }
            Effect::Reply { conn, reply, payload } => {
                self.after(50, MS, Ev::ToClient { conn, what: Box::new(Answered::Reply(reply, payload)) });
            }
            Effect::WatchEvent { conn, event } => {
                self.after(50, MS, Ev::ToClient { conn, what: Box::new(Answered::Watch(event)) });
            }
            Effect::CloseClient { conn, .. } => drop(self.client_conns.remove(&conn)),
            Effect::Connect { attempt, peer, addr } => {
                self.after(100, MS, Ev::Connect { from: osd, life, attempt, peer, addr });
            }
            Effect::Send { conn, lane, message } => self.send(osd, conn, lane, message),
            Effect::ClosePeer { conn, .. } => {
                if let Some(Conn { ends }) = self.conns.remove(&conn) {
                    for (other, life) in ends.into_iter().filter(|end| end.0 != osd) {
                        let event = Box::new(Event::PeerClosed { conn });
                        self.after(0, 2 * MS, Ev::Osd { osd: other, life, event });
                    }
                }
            }
            Effect::Subscribe { have } => {
                self.nodes.get_mut(&osd).expect("a node").sent_epoch = have;
                self.after(100, MS, Ev::Maps(osd));
            }
            Effect::AskMonitors { tag, request } => {
                self.after(MS, 5 * MS, Ev::Monitors { osd, life, tag, request: Box::new(request) });
            }
            Effect::Tell(news) => self.after(MS, 5 * MS, Ev::News(news)),
            Effect::Report(report) => self.nodes.get_mut(&osd).expect("a node").reports.push(*report),
            Effect::Stopped(reason) => {
                let node = self.nodes.get_mut(&osd).expect("a node");
                node.stopped = Some(reason);
                let pending = node.store.pending.len();
                node.store.crash(pending);
                self.kill(osd, 4);
            }
            _ => unreachable!("writes were taken out"),
        }
    }

    fn send(&mut self, from: OsdId, conn: ConnId, lane: Lane, message: PeerMessage) {
        let Some(&Conn { ends }) = self.conns.get(&conn) else { return };
        let to = if ends[0].0 == from { ends[1].0 } else { ends[0].0 };
        let delay = if self.rng.one_in(30) { self.rng.range(1, 20) * MS } else { self.rng.range(50, MS) };
        let last = self.last_delivery.entry((conn, to, lane.number())).or_default();
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        self.at(at, Ev::Peer { conn, to, message: Box::new(message) });
    }

    fn dispatch(&mut self, ev: Ev) {
        match ev {
            Ev::Osd { osd, life, event } => {
                if self.is_alive(osd, life) {
                    self.drive(osd, *event);
                }
            }
            Ev::Wake { osd, life } => {
                if self.is_alive(osd, life) && self.nodes[&osd].wake_at == Some(self.now) {
                    self.nodes.get_mut(&osd).expect("a node").wake_at = None;
                    self.drive(osd, Event::Tick);
                }
            }
            Ev::Harden { osd, life } => {
                if !self.is_alive(osd, life) {
                    return;
                }
                match self.nodes.get_mut(&osd).and_then(|node| node.store.harden()) {
                    Some(Write::Group(pgid, txn)) => {
                        self.drive(osd, Event::Persisted { pgid, token: txn.token });
                    }
                    Some(Write::Remove(pgid)) => self.drive(osd, Event::GroupRemoved { pgid }),
                    _ => {}
                }
            }
            Ev::Query { osd, life, pgid, token, query } => {
                if self.is_alive(osd, life) {
                    let answer = self.nodes[&osd].store.query(pgid, &query);
                    let event = Box::new(Event::Queried { token, answer });
                    self.after(20, 300, Ev::Osd { osd, life, event });
                }
            }
            Ev::Connect { from, life, attempt, peer, addr } => self.connect(from, life, attempt, peer, addr),
            Ev::Peer { conn, to, message } => {
                let Some(&Conn { ends }) = self.conns.get(&conn) else { return };
                if ends.iter().any(|end| self.nodes[&end.0].isolated) {
                    return self.break_conn(conn);
                }
                let life = ends.iter().find(|end| end.0 == to).expect("an end").1;
                if self.is_alive(to, life) {
                    self.drive(to, Event::Peer { conn, message: *message });
                }
            }
            Ev::Maps(osd) => self.send_maps(osd),
            Ev::Monitors { osd, life, tag, request } => {
                if self.nodes[&osd].isolated {
                    return;
                }
                let answer = self.decide(*request);
                let event = Box::new(Event::Monitors { tag, answer });
                self.after(MS, 3 * MS, Ev::Osd { osd, life, event });
            }
            Ev::News(news) => self.news(news),
            Ev::ToClient { conn, what } => self.client_hears(conn, *what),
            Ev::Retry { tid, attempt } => {
                if self.calls.get(&tid).is_some_and(|call| call.answer.is_none() && call.attempt == attempt) {
                    self.send_call(tid);
                }
            }
        }
    }

    fn connect(&mut self, from: OsdId, life: u64, attempt: Attempt, peer: OsdId, addr: EntityAddr) {
        let other = &self.nodes[&peer];
        let (cut, other_life) = (other.isolated || self.nodes[&from].isolated, other.life);
        if cut || other.osd.is_none() || addr.nonce != other_life {
            let event = Box::new(Event::PeerUnreachable { attempt, refused: !cut });
            return self.after(MS, 5 * MS, Ev::Osd { osd: from, life, event });
        }
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.conns.insert(conn, Conn { ends: [(from, life), (peer, other_life)] });
        if self.is_alive(from, life) {
            self.drive(peer, Event::PeerAccepted { conn, osd: from });
            self.drive(from, Event::PeerConnected { attempt, conn });
        }
    }

    // The monitor.

    /// Makes the next epoch.
    pub fn change(&mut self, change: impl FnOnce(&mut OsdMap)) {
        let mut next = self.map().clone();
        next.epoch = next.epoch.next();
        change(&mut next);
        next.check().expect("a map that can be");
        self.maps.push(next);
        for osd in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.after(100, 5 * MS, Ev::Maps(osd));
        }
    }

    fn send_maps(&mut self, osd: OsdId) {
        let epoch = self.map().epoch;
        let node = &self.nodes[&osd];
        if node.isolated || node.osd.is_none() || node.sent_epoch >= epoch {
            return;
        }
        let have = node.sent_epoch.max(Epoch(self.oldest.0 - 1));
        let full = (have != node.sent_epoch || have == Epoch(0)).then(|| self.maps[have.0 as usize].clone());
        let start = full.as_ref().map_or(have, |full| full.epoch);
        let increments =
            (start.0..epoch.0).map(|at| self.maps[at as usize - 1].diff(&self.maps[at as usize])).collect();
        self.nodes.get_mut(&osd).expect("a node").sent_epoch = epoch;
        self.drive(osd, Event::Maps(MapBatch { full, increments, oldest: self.oldest }));
    }

    fn decide(&mut self, request: Request) -> MonitorAnswer {
        match request {
            Request::Osd(OsdCommand::Boot { osd, uuid, public, cluster, clean: _ }) => {
                let info = self.map().osds[&osd];
                assert_eq!(info.uuid, Some(uuid));
                if info.up && info.public == Some(public) {
                    return MonitorAnswer::Done(MonReply::Done);
                }
                if info.up {
                    self.mark_down(osd);
                    return MonitorAnswer::Done(MonReply::BootLater { epoch: self.map().epoch });
                }
                self.change(|map| {
                    let epoch = map.epoch;
                    let info = map.osds.get_mut(&osd).expect("an OSD");
                    (info.up, info.up_from) = (true, epoch);
                    (info.public, info.cluster) = (Some(public), Some(cluster));
                });
            }
            Request::Osd(OsdCommand::Stopping { osd, .. }) => self.mark_down(osd),
            Request::Pg(PgCommand::UpThru { osd, up_from, want }) => {
                let info = self.map().osds[&osd];
                if info.up && info.up_from == up_from && info.up_thru < want {
                    self.change(|map| map.osds.get_mut(&osd).expect("an OSD").up_thru = want);
                }
            }
            Request::Pg(PgCommand::Temp { sets, .. }) => self.change(|map| {
                for (pg, set) in sets {
                    if set.is_empty() {
                        drop(map.pg_temp.remove(&pg))
                    } else {
                        drop(map.pg_temp.insert(pg, set))
                    }
                }
            }),
            other => panic!("OSDs do not ask for {other:?}"),
        }
        MonitorAnswer::Done(MonReply::Done)
    }

    pub fn mark_down(&mut self, osd: OsdId) {
        if self.map().is_up(osd) {
            self.change(|map| {
                let epoch = map.epoch;
                let info = map.osds.get_mut(&osd).expect("an OSD");
                (info.up, info.down_at) = (false, epoch);
                let up: BTreeSet<OsdId> =
                    map.osds.iter().filter(|(_, info)| info.up).map(|(osd, _)| *osd).collect();
                map.pg_temp.retain(|_, set| set.iter().any(|osd| up.contains(osd)));
            });
        }
    }

    fn news(&mut self, news: DaemonNews) {
        let DaemonNews::Failure(report) = news else { return };
        if self.nodes[&report.reporter].isolated || report.evidence == Evidence::Alive {
            return;
        }
        let info = self.map().osds[&report.target];
        if info.up && info.up_from == report.up_from && self.map().is_up(report.reporter) {
            self.mark_down(report.target);
        }
    }

    // Clients.

    pub fn object(&self, name: &str) -> ObjectId {
        let hash = object_hash("", "", name);
        let (namespace, key) = (String::new(), String::new());
        ObjectId { pool: POOL, hash, namespace, key, name: name.into(), snap: SnapId::HEAD }
    }

    pub fn pg_of(&self, object: &ObjectId) -> PgId {
        PgId { pool: POOL, seed: cairn_crush::placement::stable_mod(object.hash, 8) }
    }

    pub fn acting(&self, pg: PgId) -> Vec<OsdId> {
        // As an OSD that has the newest map sees it.
        let groups = self.nodes.values().filter_map(|node| node.osd.as_ref());
        let epoch = self.map().epoch;
        let stats =
            groups.flat_map(Osd::groups).filter(|group| group.pgid() == pg).filter_map(|group| group.stats());
        stats.filter(|stats| stats.epoch == epoch).map(|stats| stats.acting).next().unwrap_or_default()
    }

    pub fn primary(&self, object: &ObjectId) -> Option<OsdId> {
        self.acting(self.pg_of(object)).first().copied()
    }

    fn client_conn(&mut self, client: u64, osd: OsdId) -> Option<ConnId> {
        let life = self.nodes[&osd].life;
        let wanted = ClientConn { client, osd, life };
        if let Some((conn, _)) = self.client_conns.iter().find(|(_, conn)| **conn == wanted) {
            return Some(*conn);
        }
        self.nodes[&osd].osd.as_ref()?;
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.client_conns.insert(conn, wanted);
        let name = EntityName::new(EntityKind::Client, &format!("c{client}")).expect("a name");
        self.drive(osd, Event::ClientOpened { conn, name, addr: client_addr(client) });
        Some(conn)
    }

    /// The connections of a client break.
    pub fn disconnect_client(&mut self, client: u64) {
        let conns = self.client_conns.iter().filter(|(_, conn)| conn.client == client);
        let conns: Vec<(ConnId, ClientConn)> = conns.map(|(id, conn)| (*id, *conn)).collect();
        for (conn, ClientConn { osd, life, .. }) in conns {
            self.client_conns.remove(&conn);
            if self.is_alive(osd, life) {
                self.drive(osd, Event::ClientClosed { conn });
            }
        }
    }

    /// A client asks; it asks again until it is answered. The number names the request.
    pub fn call(&mut self, client: u64, name: &str, ops: Vec<OpKind>, data: Payload) -> u64 {
        let tid = self.calls.len() as u64 + 1;
        let object = self.object(name);
        let pg = self.pg_of(&object);
        let call = Call {
            client,
            object,
            pg,
            ops,
            payload: data,
            attempt: 0,
            attempts_max: u32::MAX,
            answer: None,
            answered_at: 0,
        };
        self.calls.insert(tid, call);
        self.send_call(tid);
        tid
    }

    pub fn send_call(&mut self, tid: u64) {
        let Some(call) = self.calls.get_mut(&tid).filter(|call| call.attempt < call.attempts_max) else {
            return;
        };
        call.attempt += 1;
        let attempt = call.attempt;
        let (client, pg) = (call.client, call.pg);
        self.after(250 * MS, 400 * MS, Ev::Retry { tid, attempt });
        let Some(osd) = self.acting(pg).first().copied() else { return };
        let Some(conn) = self.client_conn(client, osd) else { return };
        let call = &self.calls[&tid];
        let takes_away = matches!(call.ops[..], [OpKind::Delete]);
        let flags = if takes_away { OpFlags::FULL_TRY } else { OpFlags::default() };
        let request = OpRequest {
            request: RequestId { client, incarnation: 0, tid },
            epoch: self.map().epoch,
            pg,
            object: call.object.clone(),
            snaps: SnapContext::default(),
            mtime: Timestamp(7),
            flags,
            ops: call.ops.iter().cloned().map(Op::from).collect::<Vec<_>>().into(),
        };
        let event = Event::ClientRequest { conn, request: Box::new(request), payload: call.payload.clone() };
        let life = self.nodes[&osd].life;
        // In order on the connection.
        let at = self.now + 300;
        self.at(at, Ev::Osd { osd, life, event: Box::new(event) });
    }

    fn client_hears(&mut self, conn: ConnId, what: Answered) {
        if !self.client_conns.contains_key(&conn) {
            return;
        }
        match what {
            Answered::Watch(event) => self.heard.push((self.now, conn, event)),
            Answered::Reply(reply, payload) => {
                let now = self.now;
                let tid = reply.request.tid;
                let Some(call) = self.calls.get_mut(&tid).filter(|call| call.answer.is_none()) else {
                    return;
                };
                if [ErrorCode::STALE, ErrorCode::BUSY].contains(&reply.code) && reply.results.is_empty() {
                    let attempt = call.attempt;
                    return self.after(5 * MS, 40 * MS, Ev::Retry { tid, attempt });
                }
                call.answered_at = now;
                call.answer = Some((reply, payload));
            }
        }
    }

    /// A watcher answers a notification.
    pub fn acknowledge(&mut self, conn: ConnId, event: &WatchEvent, reply: &'static [u8]) {
        let WatchNews::Notify { id, .. } = event.what else { panic!("no notification: {event:?}") };
        let ClientConn { osd, life, .. } = self.client_conns[&conn];
        let ack = NotifyAck {
            object: event.object.clone(),
            cookie: event.cookie,
            id,
            reply: Bytes::from_static(reply),
        };
        let event = Box::new(Event::NotifyAck { conn, ack });
        self.after(100, MS, Ev::Osd { osd, life, event });
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, client: u64, name: &str, ops: Vec<OpKind>, data: Payload) -> (OpReply, Payload) {
        let tid = self.call(client, name, ops, data);
        let answered = self.run_until(30, |world| world.calls[&tid].answer.is_some());
        assert!(answered, "{name} is not answered: {}", self.state());
        self.calls[&tid].answer.clone().expect("an answer")
    }

    pub fn write(&mut self, client: u64, name: &str, offset: u64, data: &[u8]) -> OpReply {
        let payload = Payload::of(offset, Bytes::copy_from_slice(data));
        self.ask(client, name, vec![OpKind::Write { offset, len: data.len() as u64 }], payload).0
    }

    pub fn read(&mut self, client: u64, name: &str) -> (ErrorCode, Vec<u8>) {
        let (reply, payload) =
            self.ask(client, name, vec![OpKind::Read { offset: 0, len: 0 }], Payload::none());
        (reply.code, payload.segments().iter().flat_map(|segment| segment.data().to_vec()).collect())
    }

    // Judgement.

    /// Whether every group is clean by the newest map.
    pub fn is_clean(&self) -> bool {
        let epoch = self.map().epoch;
        let running = self.nodes.iter().filter(|(osd, _)| self.map().is_up(**osd));
        let groups = running.filter_map(|(_, node)| node.osd.as_ref()).flat_map(Osd::groups);
        let stats = groups.filter_map(|group| group.stats());
        let led = stats.filter(|stats| stats.epoch == epoch && stats.state.clean);
        led.map(|stats| stats.pgid).collect::<BTreeSet<_>>().len() == 8
    }

    pub fn state(&self) -> String {
        let mut text = format!("{} ", self.map().epoch);
        for (osd, node) in &self.nodes {
            let Some(core) = &node.osd else { continue };
            let epoch = core.map().map(|map| map.epoch);
            text += &format!("\n{osd} {epoch:?} up {}:", self.map().is_up(*osd));
            for group in core.groups() {
                text += &format!(" {}={:?}", group.pgid(), group.state());
                if let Some(stats) = group.stats().filter(|stats| stats.acting.first() == Some(osd)) {
                    text += &format!("[{} {:?}/{:?}]", stats.state, stats.up, stats.acting);
                }
            }
        }
        text
    }

    /// All copies of every group are the same, and nothing is elsewhere.
    pub fn check_copies(&mut self) {
        self.run(SECOND);
        assert!(self.run_until_clean(30), "{}", self.state());
        self.run(SECOND);
        for seed in 0..8 {
            let pg = PgId { pool: POOL, seed };
            let acting = self.acting(pg);
            assert_eq!(acting.len(), 3, "{pg}");
            let first = &self.nodes[&acting[0]].store.durable.groups[&pg].objects;
            for osd in &acting[1..] {
                assert_eq!(&self.nodes[osd].store.durable.groups[&pg].objects, first, "{pg} on {osd}");
            }
        }
    }
}
