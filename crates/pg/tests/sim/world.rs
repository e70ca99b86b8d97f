//! A few OSDs with one group, their stores, monitors, network and clients, in one thread under
//! virtual time.

use crate::authority::Authority;
use crate::checker::{ABSENT, Action, Operation, is_linearizable};
use crate::rng::Rng;
use crate::store::Store;
use bytes::Bytes;
use cairn_pg::*;
use cairn_types::{Epoch, ObjectId, OsdId, PgId, PoolId, SnapId};
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet};

pub const PG: PgId = PgId { pool: PoolId(1), seed: 0 };
pub const MS: u64 = 1_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Answers of an object fit no order.
    NotLinearizable { object: usize },
    /// Faults are over and not everything is clean and answered.
    Stuck { state: String, open: usize },
    /// Copies of a clean group differ.
    CopiesDiffer { osd: OsdId },
    /// A copy contradicts itself.
    Inconsistent(String),
    /// A core stopped itself on a broken invariant.
    Panicked,
}

#[derive(Debug)]
enum Ev {
    ToOsd { to: OsdId, life: u64, from: OsdId, from_life: u64, message: Message },
    OpToOsd { to: OsdId, life: u64, op: ClientOp },
    ToClient { request: u64, reply: Reply },
    MapToOsd(OsdId),
    MapToClient(usize),
    Hardened { osd: OsdId, life: u64, token: PersistToken },
    Execute { osd: OsdId, life: u64, op: ClientOp },
    Read { osd: OsdId, life: u64, token: ReadToken, object: ObjectKey },
    List { osd: OsdId, life: u64, token: ReadToken, range: ListRange },
    Reserved { osd: OsdId, life: u64, reservation: Reservation },
    Timer { osd: OsdId, life: u64, timer: Timer },
    ToMonitor { osd: OsdId, request: MonitorRequest },
    MarkDown { osd: OsdId, life: u64 },
    Restart(OsdId),
    Boot(OsdId),
    Resume(OsdId),
    Heal(OsdId),
    Send { request: u64, attempt: u32 },
    NewRequest(usize),
    Fault,
    Spoil(OsdId),
}

pub struct Node {
    pub pg: Option<Pg>,
    pub store: Store,
    pub alive: bool,
    paused: bool,
    pub isolated: bool,
    life: u64,
    born: Epoch,
    /// Epoch this life is up from; nothing is acted on before.
    boot_epoch: Epoch,
    map_epoch: u32,
    /// Clock: parts per thousand of true time, and where it started.
    rate: u64,
    offset_ms: u64,
    held: Vec<Ev>,
    last_hardened: u64,
    pub stats: Option<PgStats>,
}

impl Node {
    fn clock(&self, now_us: u64) -> Time {
        Time(self.offset_ms + now_us * self.rate / 1_000_000)
    }

    fn true_time_us(&self, at: Time) -> u64 {
        at.0.saturating_sub(self.offset_ms) * 1_000_000 / self.rate + MS
    }
}

struct Request {
    client: usize,
    object: usize,
    at: usize,
    action: Action,
    attempt: u32,
    done: bool,
}

struct Client {
    map_epoch: u32,
    /// How long a map takes to reach it.
    map_delay_us: u64,
    open: usize,
}

pub struct Setup {
    pub osds: usize,
    pub size: usize,
    pub min_size: usize,
    pub objects: usize,
    pub clients: usize,
    pub config: Config,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    seq: u64,
    pub authority: Authority,
    pub nodes: BTreeMap<OsdId, Node>,
    clients: Vec<Client>,
    requests: BTreeMap<u64, Request>,
    pub history: Vec<Vec<Operation>>,
    keys: Vec<ObjectKey>,
    /// By sender, receiver and lane: each lane keeps its order.
    last_delivery: BTreeMap<(OsdId, OsdId, u8), u64>,
    /// What a cut link holds back; it arrives in order when the link is whole again.
    cut: BTreeMap<(OsdId, OsdId), Vec<Ev>>,
    next_op: u64,
    pub config: Config,
    /// When faults and new requests stop.
    pub quiet_from: u64,
    /// Newest epoch the group was clean in.
    clean_at: Epoch,
    wiped_at: Epoch,
    /// Whether what a copy has taken back is sometimes all that is left of an object.
    pub spoils: bool,
    is_spoiling: bool,
    /// No faults until then.
    calm_until: u64,
    pub digest: u64,
    pub events: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
    pub trace: bool,
}

/// Small numbers, so that short runs meet every limit.
pub fn sim_config() -> Config {
    Config {
        lease_ms: 200,
        // A request must be remembered for as long as its client may send it again: more writes
        // than happen in the longest patience below.
        log_min_entries: 50,
        log_max_entries: 70,
        max_ops: 64,
        recovery_limit: 2,
        backfill_chunk: 2,
        monitor_retry_ms: 300,
        ..Config::default()
    }
}

impl World {
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut rng = Rng::new(seed);
        let mut order: Vec<OsdId> = (0..setup.osds as i32).map(OsdId).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let authority = Authority::new(order.clone(), setup.size, setup.min_size);
        let mut nodes = BTreeMap::new();
        for osd in &order {
            let node = Node {
                pg: None,
                store: Store { reads_see_pending: seed.is_multiple_of(2), ..Store::default() },
                alive: true,
                paused: false,
                isolated: false,
                life: 0,
                born: Epoch(0),
                boot_epoch: Epoch(1),
                map_epoch: 0,
                rate: rng.range(992, 1008),
                offset_ms: rng.below(1_000_000),
                held: Vec::new(),
                last_hardened: 0,
                stats: None,
            };
            nodes.insert(*osd, node);
        }
        let keys = (0..setup.objects).map(|n| {
            ObjectKey::new(ObjectId {
                pool: PG.pool,
                hash: rng.next() as u32,
                namespace: String::new(),
                key: String::new(),
                name: format!("object{n}"),
                snap: SnapId::HEAD,
            })
        });
        let keys: Vec<ObjectKey> = keys.collect();
        let mut clients = Vec::new();
        for n in 0..setup.clients {
            // The first hears of maps late and only reads: it goes on asking those who used to be
            // primary, as a client does that is cut off together with one.
            let map_delay_us = if n == 0 { rng.range(300, 2_500) * MS } else { rng.range(1, 50) * MS };
            clients.push(Client { map_epoch: 1, map_delay_us, open: 0 });
        }
        let mut world = World {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            seq: 0,
            authority,
            nodes,
            clients,
            requests: BTreeMap::new(),
            history: vec![Vec::new(); setup.objects],
            keys,
            last_delivery: BTreeMap::new(),
            cut: BTreeMap::new(),
            next_op: 0,
            config: setup.config,
            quiet_from: u64::MAX,
            clean_at: Epoch(0),
            wiped_at: Epoch(0),
            spoils: false,
            is_spoiling: false,
            calm_until: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            events: 0,
            faults: BTreeMap::new(),
            violation: None,
            trace: std::env::var_os("CAIRN_SIM_TRACE").is_some(),
        };
        world.publish_maps();
        world
    }

    fn at(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), ev);
    }

    fn after(&mut self, delay: u64, ev: Ev) {
        self.at(self.now + delay, ev);
    }

    fn log(&mut self, text: &str) {
        for byte in text.bytes().chain(self.now.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace {
            println!("{:>10.3} {text}", self.now as f64 / 1000.0);
        }
    }

    /// Runs until `until` (virtual microseconds), or until something is wrong.
    pub fn run_until(&mut self, until: u64) {
        while self.violation.is_none() {
            let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) else { break };
            self.now = entry.key().0;
            let ev = entry.remove();
            self.events += 1;
            self.log(&format!("{ev:?}"));
            self.dispatch(ev);
        }
        self.now = self.now.max(until);
    }

    /// Runs until `done`, at most for `limit` more microseconds. True if it came to pass.
    pub fn run_while(&mut self, limit: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        while self.now < end && self.violation.is_none() {
            if done(self) {
                return true;
            }
            self.run_until(self.now + 20 * MS);
        }
        done(self)
    }

    fn node(&mut self, osd: OsdId) -> &mut Node {
        self.nodes.get_mut(&osd).expect("every OSD has a node")
    }

    /// Whether an event of this life can happen now; a paused process takes it later.
    fn can_run(&mut self, osd: OsdId, life: u64) -> Option<bool> {
        let node = self.node(osd);
        (node.alive && node.life == life).then_some(!node.paused)
    }

    fn dispatch(&mut self, ev: Ev) {
        let local = match &ev {
            Ev::ToOsd { to, life, .. } | Ev::OpToOsd { to, life, .. } => Some((*to, *life)),
            Ev::Hardened { osd, life, .. }
            | Ev::Execute { osd, life, .. }
            | Ev::Read { osd, life, .. }
            | Ev::List { osd, life, .. }
            | Ev::Reserved { osd, life, .. }
            | Ev::Timer { osd, life, .. } => Some((*osd, *life)),
            Ev::MapToOsd(osd) => Some((*osd, self.nodes[osd].life)),
            _ => None,
        };
        if let Some((osd, life)) = local {
            match self.can_run(osd, life) {
                None => return,
                Some(false) => {
                    self.node(osd).held.push(ev);
                    return;
                }
                Some(true) => {}
            }
        }
        match ev {
            Ev::ToOsd { to, from, from_life, message, life } => {
                if self.nodes[&from].life != from_life {
                    return;
                }
                let cut = self.nodes[&from].isolated || self.nodes[&to].isolated;
                let node = self.node(to);
                if cut {
                    self.cut.entry((from, to)).or_default().push(Ev::ToOsd {
                        to,
                        from,
                        from_life,
                        message,
                        life,
                    });
                } else if node.map_epoch < node.boot_epoch.0 {
                    node.held.push(Ev::ToOsd { to, from, from_life, message, life });
                } else {
                    self.ensure_pg(to);
                    self.drive(to, Event::Message { from, message });
                }
            }
            Ev::OpToOsd { to, op, .. } => {
                if self.nodes[&to].pg.is_some() {
                    self.drive(to, Event::Op(op));
                } else {
                    let reply = Reply::NotPrimary(Epoch(self.nodes[&to].map_epoch));
                    self.after(MS, Ev::ToClient { request: op.request.tid, reply });
                }
            }
            Ev::ToClient { request, reply } => self.on_reply(request, reply),
            Ev::MapToOsd(osd) => self.on_map_to_osd(osd),
            Ev::MapToClient(client) => self.clients[client].map_epoch = self.authority.epoch().0,
            Ev::Hardened { osd, token, .. } => {
                let store = &mut self.node(osd).store;
                let count = store.pending.iter().take_while(|txn| txn.token <= token).count();
                if !store.is_stuck {
                    store.harden(count);
                    self.drive(osd, Event::Persisted(token));
                }
            }
            Ev::Execute { osd, op, .. } => self.execute(osd, op),
            Ev::Read { osd, token, object, .. } => {
                let store = &self.nodes[&osd].store;
                let found = store
                    .readable()
                    .objects
                    .get(&object)
                    .filter(|_| !store.rotten.contains(&object))
                    .cloned();
                let object = found.map(|(version, content)| (version, content.into()));
                self.drive(osd, Event::ObjectRead { token, object });
            }
            Ev::List { osd, token, range, .. } => {
                let objects = self.nodes[&osd].store.readable().list(&range);
                self.drive(osd, Event::Listed { token, objects });
            }
            Ev::Reserved { osd, reservation, .. } => self.drive(osd, Event::Reserved(reservation)),
            Ev::Timer { osd, timer, .. } => self.drive(osd, Event::Timer(timer)),
            Ev::ToMonitor { osd, request } => {
                if !self.nodes[&osd].isolated {
                    match request {
                        MonitorRequest::UpThru(epoch) => self.authority.up_thru(osd, epoch),
                        MonitorRequest::PgTemp(acting) => self.authority.pg_temp(osd, acting),
                    }
                    self.publish_maps();
                }
            }
            Ev::MarkDown { osd, life } => {
                let node = self.node(osd);
                if node.life == life && (!node.alive || node.paused || node.isolated) {
                    self.authority.mark_down(osd);
                    self.publish_maps();
                }
            }
            Ev::Restart(osd) => self.restart(osd),
            Ev::Boot(osd) => {
                let node = &self.nodes[&osd];
                if node.alive && !node.paused && !node.isolated && !self.authority.is_up(osd) {
                    self.boot(osd);
                }
            }
            Ev::Resume(osd) => self.resume(osd),
            Ev::Heal(osd) => self.heal(osd),
            Ev::Send { request, attempt } => self.send_request(request, attempt),
            Ev::NewRequest(client) => self.new_request(client),
            Ev::Fault => self.random_fault(),
            Ev::Spoil(osd) => self.spoil(osd),
        }
    }

    // Maps.

    pub fn publish_maps(&mut self) {
        let epoch = self.authority.epoch().0;
        for osd in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&osd].map_epoch < epoch && !self.nodes[&osd].isolated {
                let delay = self.rng.range(200, 20 * MS);
                self.after(delay, Ev::MapToOsd(osd));
            }
        }
        for client in 0..self.clients.len() {
            if self.clients[client].map_epoch < epoch {
                let delay = self.clients[client].map_delay_us;
                self.after(delay, Ev::MapToClient(client));
            }
        }
    }

    fn on_map_to_osd(&mut self, osd: OsdId) {
        let epoch = self.authority.epoch().0;
        let node = self.node(osd);
        if node.isolated || node.map_epoch >= epoch {
            return;
        }
        let from = std::mem::replace(&mut node.map_epoch, epoch) + 1;
        let has_pg = node.pg.is_some();
        if has_pg {
            for epoch in from..=epoch {
                let map = self.authority.map(epoch).clone();
                self.drive(osd, Event::Map(map));
            }
        }
        if self.nodes[&osd].boot_epoch.0 <= epoch {
            let map = self.authority.latest();
            let member = map.up.contains(&osd) || map.acting.contains(&osd);
            if has_pg {
                self.drive(osd, Event::ActOnMap);
            } else if member || self.nodes[&osd].store.durable.meta.is_some() {
                self.ensure_pg(osd);
            }
            for ev in std::mem::take(&mut self.node(osd).held) {
                self.dispatch(ev);
            }
        }
        if !self.authority.is_up(osd) {
            let delay = self.rng.range(1, 20) * MS;
            self.after(delay, Ev::Boot(osd));
        }
    }

    /// What a driver does when it is told to have, or finds, a group.
    fn ensure_pg(&mut self, osd: OsdId) {
        let (config, now) = (self.config, self.now);
        let node = self.node(osd);
        if node.pg.is_some() || node.map_epoch == 0 {
            return;
        }
        let pg = match node.store.durable.meta.clone() {
            Some(meta) => Pg::load(node.clock(now), osd, meta, config),
            None => Pg::new(osd, PG, Epoch(1), node.born, config),
        };
        let (from, to) = (pg.first_map_needed().0, node.map_epoch);
        node.pg = Some(pg);
        for epoch in from..=to {
            let map = self.authority.map(epoch).clone();
            self.drive(osd, Event::Map(map));
        }
        self.drive(osd, Event::ActOnMap);
    }

    // The driver of one core.

    pub fn drive(&mut self, osd: OsdId, event: Event) {
        let now = self.now;
        let node = self.node(osd);
        let clock = node.clock(now);
        let life = node.life;
        let Some(pg) = node.pg.as_mut() else { return };
        let effects = pg.handle(clock, event);
        let checked = pg.check();
        if let Err(what) = checked {
            self.violation.get_or_insert(Violation::Inconsistent(format!("{osd}: {what:?}")));
        }
        if self.spoils && !self.is_spoiling && self.undone_of(osd).is_some() {
            self.is_spoiling = true;
            let delay = self.rng.below(8 * MS);
            self.after(delay, Ev::Spoil(osd));
        }
        for effect in effects {
            self.carry_out(osd, life, effect);
        }
    }

    fn carry_out(&mut self, osd: OsdId, life: u64, effect: Effect) {
        if self.trace {
            println!("{:>24} {osd} {effect:?}", "");
        }
        match effect {
            Effect::Persist(txn) => {
                let token = txn.token;
                let delay = if self.rng.one_in(20) {
                    self.rng.range(1, 60) * MS
                } else {
                    self.rng.range(100, 3 * MS)
                };
                let at = (self.now + delay).max(self.nodes[&osd].last_hardened + 1);
                let node = self.node(osd);
                node.last_hardened = at;
                node.store.submit(txn);
                self.at(at, Ev::Hardened { osd, life, token });
            }
            Effect::Send { to, message } => {
                if matches!(message.body, Body::Redo { .. }) {
                    self.count("seen making again");
                }
                let delay =
                    if self.rng.one_in(30) { self.rng.range(1, 80) * MS } else { self.rng.range(50, 2 * MS) };
                let lane = message.body.lane().number();
                let last = self.last_delivery.entry((osd, to, lane)).or_default();
                let at = (self.now + delay).max(*last + 1);
                *last = at;
                let to_life = self.nodes[&to].life;
                self.at(at, Ev::ToOsd { to, life: to_life, from: osd, from_life: life, message });
            }
            Effect::Execute(op) => {
                let delay = self.rng.range(0, 400);
                self.after(delay, Ev::Execute { osd, life, op });
            }
            Effect::Reply { op, reply } => {
                let delay = self.rng.range(50, 3 * MS);
                self.after(delay, Ev::ToClient { request: op.0 >> 32, reply });
            }
            Effect::Monitor(request) => {
                let delay = self.rng.range(1, 30) * MS;
                self.after(delay, Ev::ToMonitor { osd, request });
            }
            Effect::ArmTimer { timer, at } => {
                let when = self.nodes[&osd].true_time_us(at);
                self.at(when, Ev::Timer { osd, life, timer });
            }
            Effect::ReadObject { token, object } => {
                let delay = self.rng.range(50, 2 * MS);
                self.after(delay, Ev::Read { osd, life, token, object });
            }
            Effect::List { token, range } => {
                let delay = self.rng.range(50, 2 * MS);
                self.after(delay, Ev::List { osd, life, token, range });
            }
            Effect::Reserve(reservation) => {
                let delay = self.rng.range(1, 20) * MS;
                self.after(delay, Ev::Reserved { osd, life, reservation });
            }
            Effect::Release(_) | Effect::NewInterval => {}
            Effect::Stats(stats) => {
                self.log(&format!("{osd} {}", stats.state));
                let state = stats.state;
                if state.clean {
                    self.clean_at = stats.epoch;
                }
                let seen = [
                    (state.backfilling, "seen backfilling"),
                    (state.recovering, "seen recovering"),
                    (state.recovery_unfound, "seen unfound"),
                    (state.peered, "seen peered"),
                    (state.down, "seen down"),
                    (state.incomplete, "seen incomplete"),
                    (state.remapped, "seen remapped"),
                ];
                for (_, what) in seen.into_iter().filter(|(seen, _)| *seen) {
                    self.count(what);
                }
                self.node(osd).stats = Some(stats);
            }
            Effect::Remove => {
                let node = self.node(osd);
                node.pg = None;
                node.store.remove();
            }
        }
    }

    fn execute(&mut self, osd: OsdId, op: ClientOp) {
        let action = self.requests[&op.request.tid].action;
        let node = &self.nodes[&osd];
        let stored = node.store.readable().objects.get(&op.object);
        let stored_version = stored.map_or(Version::ZERO, |(version, _)| *version);
        let content = stored.map(|(_, content)| content.clone());
        let change = |delete, payload: Blob, result: Bytes| Outcome::Change {
            changes: smallvec![ObjectChange { object: op.object.clone(), delete, stored_version }],
            payload,
            result,
        };
        let payload =
            |tag: u8, value: u64| -> Blob { Bytes::from([&[tag][..], &value.to_be_bytes()].concat()).into() };
        let ok = Bytes::from_static(b"ok");
        let outcome = match action {
            Action::Read => Outcome::Answer(content.unwrap_or(Bytes::from_static(ABSENT))),
            Action::Set(value) => change(false, payload(b'S', value), ok),
            Action::Append(value) => {
                let old: &[u8] = content.as_deref().unwrap_or(&[]);
                change(false, payload(b'A', value), [old, &value.to_be_bytes()].concat().into())
            }
            Action::Delete if content.is_none() => Outcome::Failed(Bytes::from_static(ABSENT)),
            Action::Delete => change(true, payload(b'D', 0), ok),
        };
        let outcome = if self.nodes[&osd].store.is_rotten(&op.object) {
            let otherwise = Box::new(Outcome::Failed(Bytes::from_static(b"error")));
            Outcome::Unreadable { stored_version: Some(stored_version), otherwise }
        } else {
            outcome
        };
        self.drive(osd, Event::Executed { op: op.id, outcome });
    }

    // Clients.

    pub fn start_clients(&mut self) {
        for client in 0..self.clients.len() {
            self.after(client as u64 * MS, Ev::NewRequest(client));
        }
    }

    fn new_request(&mut self, client: usize) {
        if self.now >= self.quiet_from {
            return;
        }
        let object = self.rng.below(self.keys.len() as u64) as usize;
        if self.clients[client].open < 3 && self.history[object].len() < 100 {
            let value = self.requests.len() as u64 + 1;
            let action = match if client == 0 { 0 } else { self.rng.below(10) } {
                0..=3 => Action::Read,
                4..=6 => Action::Append(value),
                7 | 8 => Action::Set(value),
                _ => Action::Delete,
            };
            self.request(client, object, action);
        }
        let delay = self.rng.range(5, 120) * MS;
        self.after(delay, Ev::NewRequest(client));
    }

    /// A client asks for something; the number names the request.
    pub fn request(&mut self, client: usize, object: usize, action: Action) -> u64 {
        let id = self.requests.len() as u64 + 1;
        let at = self.history[object].len();
        self.history[object].push(Operation { action, invoked: self.now, answered: None });
        self.requests.insert(id, Request { client, object, at, action, attempt: 0, done: false });
        self.clients[client].open += 1;
        self.after(0, Ev::Send { request: id, attempt: 0 });
        id
    }

    pub fn answer(&self, request: u64) -> Option<Bytes> {
        let request = &self.requests[&request];
        self.history[request.object][request.at].answered.as_ref().map(|(_, bytes)| bytes.clone())
    }

    /// Its client does not ask again, and hears no answer.
    pub fn give_up(&mut self, request: u64) {
        let request = self.requests.get_mut(&request).expect("a request");
        if !std::mem::replace(&mut request.done, true) {
            self.clients[request.client].open -= 1;
        }
    }

    fn send_request(&mut self, id: u64, attempt: u32) {
        let Some(request) = self.requests.get_mut(&id).filter(|r| !r.done && r.attempt == attempt) else {
            return;
        };
        request.attempt += 1;
        let (client, object, action, attempt) =
            (request.client, request.object, request.action, request.attempt);
        // Patience: then the same request is sent again, perhaps while the first still waits.
        let patience = self.rng.range(100, 350) * MS;
        self.after(patience, Ev::Send { request: id, attempt });
        let epoch = self.clients[client].map_epoch;
        let Some(primary) = self.authority.map(epoch).primary else { return };
        self.next_op += 1;
        let op = ClientOp {
            id: OpId(id << 32 | self.next_op & 0xffff_ffff),
            epoch: Epoch(epoch),
            request: RequestId { client: client as u64, incarnation: 0, tid: id },
            object: self.keys[object].clone(),
            kind: match action {
                Action::Read => OpKind::Read,
                Action::Set(_) => OpKind::Write,
                Action::Append(_) | Action::Delete => OpKind::ReadWrite,
            },
        };
        let life = self.nodes[&primary].life;
        let twice = if self.rng.one_in(15) { 2 } else { 1 };
        for copy in 0..twice {
            self.next_op += copy;
            let op = ClientOp { id: OpId(id << 32 | self.next_op & 0xffff_ffff), ..op.clone() };
            let delay = self.rng.range(50, 3 * MS);
            self.after(delay, Ev::OpToOsd { to: primary, life, op });
        }
    }

    fn on_reply(&mut self, id: u64, reply: Reply) {
        let now = self.now;
        let Some(request) = self.requests.get_mut(&id).filter(|request| !request.done) else { return };
        match reply {
            Reply::Done(bytes) => {
                request.done = true;
                let (client, object, at) = (request.client, request.object, request.at);
                self.clients[client].open -= 1;
                self.history[object][at].answered = Some((now, bytes));
            }
            Reply::Again(_) | Reply::NotPrimary(_) | Reply::Busy => {
                let attempt = request.attempt;
                let delay = self.rng.range(5, 60) * MS;
                self.after(delay, Ev::Send { request: id, attempt });
            }
        }
    }

    // Faults.

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn crash(&mut self, osd: OsdId, detect_ms: u64) {
        self.count("crash");
        self.log(&format!("crash {osd}"));
        let survive = self.rng.below(self.nodes[&osd].store.pending.len() as u64 + 1) as usize;
        let node = self.node(osd);
        if !node.alive {
            return;
        }
        node.store.crash(survive);
        node.alive = false;
        node.paused = false;
        node.life += 1;
        node.pg = None;
        node.stats = None;
        node.held.clear();
        node.last_hardened = 0;
        let life = node.life;
        self.after(detect_ms * MS, Ev::MarkDown { osd, life });
    }

    pub fn restart(&mut self, osd: OsdId) {
        if self.nodes[&osd].alive {
            return;
        }
        self.log(&format!("restart {osd}"));
        let node = self.node(osd);
        node.alive = true;
        node.map_epoch = 0;
        node.boot_epoch = Epoch(u32::MAX);
        if !node.isolated {
            self.boot(osd);
        }
    }

    fn boot(&mut self, osd: OsdId) {
        let epoch = self.authority.boot(osd);
        let node = self.node(osd);
        node.boot_epoch = epoch;
        self.publish_maps();
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&mut self, osd: OsdId) {
        self.count("wipe");
        self.crash(osd, 100);
        let born = self.authority.epoch();
        let node = self.node(osd);
        node.store.remove();
        node.born = born;
        self.wiped_at = born;
    }

    /// An OSD cannot read an object any more.
    pub fn rot(&mut self, osd: OsdId, object: usize) {
        let object = self.keys[object].clone();
        self.node(osd).store.rotten.insert(object);
    }

    pub fn pause(&mut self, osd: OsdId, ms: u64) {
        self.count("pause");
        self.node(osd).paused = true;
        self.suspect(osd);
        self.after(ms * MS, Ev::Resume(osd));
    }

    fn resume(&mut self, osd: OsdId) {
        let node = self.node(osd);
        if node.paused {
            node.paused = false;
            for ev in std::mem::take(&mut self.node(osd).held) {
                self.dispatch(ev);
            }
            self.publish_maps();
        }
    }

    /// Cuts an OSD off from the others and from the monitors, not from clients.
    pub fn isolate(&mut self, osd: OsdId) {
        self.count("isolate");
        self.node(osd).isolated = true;
        self.suspect(osd);
    }

    pub fn heal(&mut self, osd: OsdId) {
        let node = self.node(osd);
        if !node.isolated {
            return;
        }
        node.isolated = false;
        let links: Vec<(OsdId, OsdId)> = self.cut.keys().copied().collect();
        for (from, to) in links {
            if !self.nodes[&from].isolated && !self.nodes[&to].isolated {
                for ev in self.cut.remove(&(from, to)).unwrap_or_default() {
                    self.dispatch(ev);
                }
            }
        }
        let node = &self.nodes[&osd];
        if node.alive && node.boot_epoch == Epoch(u32::MAX) {
            self.boot(osd);
        }
        self.publish_maps();
    }

    fn suspect(&mut self, osd: OsdId) {
        let life = self.nodes[&osd].life;
        let delay = self.rng.range(100, 500) * MS;
        self.after(delay, Ev::MarkDown { osd, life });
    }

    pub fn start_faults(&mut self) {
        self.after(300 * MS, Ev::Fault);
    }

    fn random_fault(&mut self) {
        if self.now >= self.quiet_from {
            return;
        }
        if self.now < self.calm_until {
            self.at(self.calm_until, Ev::Fault);
            return;
        }
        // What rotted too late to matter, and was not read since, is as before.
        for node in self.nodes.values_mut() {
            let missing = node.pg.as_ref().map(|pg| pg.missing());
            node.store.rotten.retain(|object| missing.is_some_and(|missing| missing.contains(object)));
        }
        let osds: Vec<OsdId> = self.nodes.keys().copied().collect();
        let any = self.rng.pick(&osds).expect("there are OSDs");
        // Half of all faults hit a member of the acting set, often the primary.
        let osd = match self.rng.below(4) {
            0 => self.authority.latest().primary.unwrap_or(any),
            1 => self.rng.pick(&self.authority.latest().acting.clone()).unwrap_or(any),
            _ => any,
        };
        let up_again = self.rng.range(20, 2_500) * MS;
        match self.rng.below(20) {
            0..=7 => {
                let detect = self.rng.range(20, 400);
                self.crash(osd, detect);
                self.after(up_again, Ev::Restart(osd));
            }
            8..=10 => {
                let ms = self.rng.range(20, 1_500);
                self.pause(osd, ms);
            }
            11..=13 => {
                self.isolate(osd);
                self.after(up_again, Ev::Heal(osd));
            }
            14 | 15 => {
                self.count("out");
                let out = !self.authority.out().contains(&osd) && self.authority.out().len() + 2 < osds.len();
                self.authority.set_out(osd, out);
                self.publish_maps();
            }
            16 => {
                self.count("power loss");
                for osd in osds {
                    let detect = self.rng.range(20, 400);
                    self.crash(osd, detect);
                    let up_again = self.rng.range(20, 1_000) * MS;
                    self.after(up_again, Ev::Restart(osd));
                }
            }
            _ => {
                if self.may_wipe() {
                    self.wipe(osd);
                    self.after(up_again, Ev::Restart(osd));
                }
            }
        }
        let delay = if self.rng.one_in(4) { self.rng.range(1, 50) } else { self.rng.range(100, 1_500) };
        self.after(delay * MS, Ev::Fault);
    }

    /// An object that this copy, part of an activation, misses and could make from what it has taken back.
    fn undone_of(&self, osd: OsdId) -> Option<ObjectKey> {
        let pg = self.nodes[&osd].pg.as_ref()?;
        let is_part = matches!(pg.state(), State::Active | State::ReplicaActive);
        let mut undone = pg.missing().iter().filter(|(_, item)| is_part && !item.undone.is_empty());
        undone.next().map(|(object, _)| object.clone())
    }

    /// Everything else that there is of such an object is lost, and nothing more until it should have been made anew.
    fn spoil(&mut self, osd: OsdId) {
        self.is_spoiling = false;
        let map = self.authority.latest().clone();
        let is_calm =
            |node: &Node| node.alive && !node.paused && !node.isolated && node.map_epoch == map.epoch.0;
        let all_calm = self.nodes.values().all(is_calm) && self.nodes.keys().all(|osd| map.osd(*osd).up);
        let once = self.clean_at > self.wiped_at && map.acting.contains(&osd);
        let Some(object) = self.undone_of(osd).filter(|_| once && all_calm && self.now < self.quiet_from)
        else {
            return;
        };
        let others: Vec<OsdId> = map.acting.iter().copied().filter(|other| *other != osd).collect();
        self.log(&format!("spoil {object} but on {osd}"));
        self.wiped_at = map.epoch;
        self.calm_until = self.now + 3_000 * MS;
        if let &[other] = &others[..]
            && !self.rng.one_in(3)
        {
            self.count("wipe what others took back");
            self.wipe(other);
            let up_again = self.rng.range(20, 1_500) * MS;
            self.after(up_again, Ev::Restart(other));
        } else {
            self.count("rot what others took back");
            for other in others {
                self.node(other).store.rotten.insert(object.clone());
            }
        }
    }

    /// A disk may be lost once between two clean states, while nothing is missing on another member
    /// of the acting set: what was acknowledged then survives there.
    fn may_wipe(&self) -> bool {
        let map = self.authority.latest();
        let stats = map.primary.and_then(|primary| self.nodes[&primary].stats.as_ref());
        map.acting.len() >= 2
            && self.clean_at > self.wiped_at
            && stats.is_some_and(|stats| {
                stats.state.active && stats.degraded_copies == 0 && stats.epoch == map.epoch
            })
    }

    pub fn stop_faults(&mut self) {
        self.quiet_from = self.now;
        self.authority.all_in();
        for osd in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.heal(osd);
            self.resume(osd);
            self.restart(osd);
        }
        self.publish_maps();
    }

    // Judgement.

    pub fn is_clean(&self) -> bool {
        let map = self.authority.latest();
        self.is_called_clean()
            && self.nodes.values().all(|node| node.store.pending.is_empty() && node.map_epoch == map.epoch.0)
    }

    /// Whether the primary says so, whatever is on its way to the stores.
    pub fn is_called_clean(&self) -> bool {
        let map = self.authority.latest();
        let stats = map.primary.and_then(|primary| self.nodes[&primary].stats.as_ref());
        stats.is_some_and(|stats| stats.state.clean && stats.epoch == map.epoch)
    }

    pub fn state(&self) -> String {
        let map = self.authority.latest();
        let stats = map.primary.and_then(|primary| self.nodes[&primary].stats.as_ref());
        stats.map_or("none".to_owned(), |stats| stats.state.to_string())
    }

    pub fn open_requests(&self) -> usize {
        self.clients.iter().map(|client| client.open).sum()
    }

    /// Faults stop; everything must become clean and answered, copies alike and answers in order.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.stop_faults();
        let settled = self.run_while(30_000 * MS, |world| world.is_clean() && world.open_requests() == 0);
        if settled && self.violation.is_none() {
            for object in 0..self.keys.len() {
                self.request(1, object, Action::Read);
            }
        }
        let settled =
            settled && self.run_while(5_000 * MS, |world| world.is_clean() && world.open_requests() == 0);
        if let Some(violation) = self.violation.clone() {
            return Err(violation);
        }
        self.check_histories()?;
        if !settled {
            return Err(Violation::Stuck { state: self.state(), open: self.open_requests() });
        }
        self.check_copies()
    }

    pub fn check_histories(&self) -> Result<(), Violation> {
        for (object, history) in self.history.iter().enumerate() {
            if !is_linearizable(history) {
                if self.trace {
                    println!("{history:#?}");
                }
                return Err(Violation::NotLinearizable { object });
            }
        }
        Ok(())
    }

    pub fn check_copies(&self) -> Result<(), Violation> {
        let acting: BTreeSet<OsdId> = self.authority.latest().acting.iter().copied().collect();
        let mut first: Option<&Node> = None;
        for osd in acting {
            let node = &self.nodes[&osd];
            let same = first.is_none_or(|first| first.store.durable.objects == node.store.durable.objects);
            let pg = node.pg.as_ref();
            let meta = node.store.durable.meta.as_ref();
            let whole = pg.zip(meta).is_some_and(|(pg, meta)| {
                pg.missing().is_empty()
                    && meta.missing == *pg.missing()
                    && meta.log == *pg.log()
                    && meta.past_intervals == *pg.past_intervals()
                    && meta.info.last_backfill == Position::Max
            });
            if !same || !whole {
                return Err(Violation::CopiesDiffer { osd });
            }
            first.get_or_insert(node);
        }
        Ok(())
    }
}
