//! Hosts, network, disks and virtual time.

use super::{Checker, Client, Rng, addr, genesis};
use cairn_mon::monitor::{
    Answer, Call, CallTag, Checkpoint, DaemonNews, Effects, Event, MAX_UNACKNOWLEDGED_EPOCHS, Monitor,
    Notice, Now, PeerMessage, Publication, Setup, Subscriber, Subscription,
};
use cairn_mon::service::subscription::Need;
use cairn_mon::service::{MonCommand, Request};
use cairn_paxos::{DurableState, Moment, MonId, Record, Timing};
use cairn_types::{Epoch, MonMap, OsdMap, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const MS: u64 = 1000;

/// How long a client waits for one monitor.
const PATIENCE_US: u64 = 3_000 * MS;

/// What the network and the disks do.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub loss_permille: u64,
    pub dup_permille: u64,
    /// Share of messages that take up to `slow_us` instead of a millisecond or two.
    pub slow_permille: u64,
    pub slow_us: u64,
    pub flush_us: u64,
}

enum What {
    Deliver { from: MonId, to: MonId, message: PeerMessage },
    Timer { mon: MonId, generation: u64 },
    Flushed { mon: MonId, start: u64 },
    Client { client: usize },
    Subscribe { mon: MonId, start: u64, subscriber: Subscriber, need: Need, have: Epoch },
}

struct Batch {
    number: u64,
    records: Vec<Record>,
    checkpoint: Option<Checkpoint>,
    after: Vec<(MonId, PeerMessage)>,
}

/// A subscriber of each kind, connected to each host.
#[derive(Default)]
struct Follower {
    map: Option<OsdMap>,
    said: Epoch,
}

pub struct Host {
    pub monitor: Option<Monitor>,
    disk: DurableState,
    disk_checkpoint: Option<Checkpoint>,
    made_from: MonMap,
    unflushed: VecDeque<Batch>,
    flush_done_at: u64,
    start: u64,
    offset_us: u64,
    generation: u64,
    timer: Option<Moment>,
    /// Version last checked.
    seen: Option<u64>,
    followers: BTreeMap<Subscriber, Follower>,
    pub retired: bool,
}

impl Host {
    fn now(&self, now_us: u64) -> Now {
        // Wall clocks of hosts differ; nothing may depend on it.
        let wall = Timestamp(1_700_000_000_000 + self.offset_us / 50_000 + now_us / MS);
        Now { wall, steady: Moment(self.offset_us + now_us) }
    }
}

pub struct World {
    pub rng: Rng,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), What>,
    sequence: u64,
    pub hosts: BTreeMap<MonId, Host>,
    pub cut: BTreeSet<(MonId, MonId)>,
    pub weather: Weather,
    pub check: Checker,
    pub clients: Vec<Client>,
    /// Which client a tag belongs to, and at which start of which host it was asked.
    tags: BTreeMap<u64, (Option<usize>, MonId)>,
    next_tag: u64,
    /// Answers to calls of the test itself.
    pub answers: BTreeMap<u64, Answer>,
    pub digest: u64,
    pub steps: u64,
    /// Slots a host was brought forward by a whole state.
    pub installs: u64,
}

impl World {
    pub fn new(seed: u64, count: u16) -> Self {
        let mut world = World {
            rng: Rng(seed),
            now_us: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            check: Checker::default(),
            clients: Vec::new(),
            tags: BTreeMap::new(),
            next_tag: 1,
            answers: BTreeMap::new(),
            digest: 0,
            steps: 0,
            installs: 0,
        };
        for n in 0..count {
            let setup =
                Setup::founding(MonId(n.into()), 0, Timing::default(), genesis(count)).expect("sound");
            world.add_host(setup);
        }
        world
    }

    /// A new machine with a monitor that joins under this number, made from the newest map.
    pub fn add_joining(&mut self, id: MonId) {
        let maps = self.hosts.values().filter_map(|host| Some(host.monitor.as_ref()?.mon_map()));
        let map = maps.max_by_key(|map| map.epoch).expect("a monitor").clone();
        self.add_host(Setup::joining(id, 0, Timing::default(), map));
    }

    fn add_host(&mut self, setup: Setup) {
        let host = Host {
            monitor: None,
            disk: setup.log,
            disk_checkpoint: setup.checkpoint,
            made_from: setup.mon_map,
            unflushed: VecDeque::new(),
            flush_done_at: 0,
            start: 0,
            offset_us: self.rng.below(1_000_000_000),
            generation: 0,
            timer: None,
            seen: None,
            followers: BTreeMap::new(),
            retired: false,
        };
        self.hosts.insert(setup.id, host);
        self.start(setup.id);
    }

    fn host(&mut self, id: MonId) -> &mut Host {
        self.hosts.get_mut(&id).expect("a host")
    }

    pub fn start(&mut self, id: MonId) {
        let (run, now_us) = (self.rng.next(), self.now_us);
        let host = self.host(id);
        if host.monitor.is_some() || host.retired {
            return;
        }
        host.start += 1;
        host.timer = None;
        host.seen = None;
        let (log, checkpoint) = (host.disk.clone(), host.disk_checkpoint.clone());
        let mon_map = host.made_from.clone();
        let setup = Setup { id, run, timing: Timing::default(), log, checkpoint, mon_map };
        let monitor = Monitor::start(setup, host.now(now_us)).expect("what the monitor wrote, it can read");
        host.monitor = Some(monitor);
        host.followers.clear();
        self.handle(id, Event::Tick);
        for (n, need) in [(1, Need::EveryEpoch), (2, Need::Newest)] {
            self.host(id).followers.insert(Subscriber(n), Follower::default());
            self.subscribe(id, Subscriber(n), need, Epoch(0));
        }
    }

    fn subscribe(&mut self, id: MonId, subscriber: Subscriber, need: Need, have: Epoch) {
        let wants = Subscription {
            who: "osd.0".parse().expect("a name"),
            osd_map: Some((have, need)),
            mon_map: Some(Epoch(0)),
            mgr_map: None,
            config: None,
        };
        self.handle(id, Event::Subscribe { subscriber, wants });
    }

    /// Power cut. Of the batches under way some first ones may have reached the disk.
    pub fn crash(&mut self, id: MonId) {
        let keep = self.rng.next();
        let host = self.host(id);
        if host.monitor.take().is_none() {
            return;
        }
        let kept = keep % (host.unflushed.len() as u64 + 1);
        let batches: Vec<Batch> = host.unflushed.drain(..).take(kept as usize).collect();
        for batch in &batches {
            Self::reach_disk(host, batch);
        }
    }

    fn reach_disk(host: &mut Host, batch: &Batch) {
        for record in &batch.records {
            host.disk.absorb(record);
        }
        if let Some(checkpoint) = &batch.checkpoint {
            host.disk_checkpoint = Some(checkpoint.clone());
        }
    }

    pub fn isolate(&mut self, id: MonId) {
        let others: Vec<MonId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// A call by the test itself; returns its tag.
    pub fn call(&mut self, at: MonId, call: Call) -> u64 {
        self.call_for(None, at, call)
    }

    fn call_for(&mut self, client: Option<usize>, at: MonId, call: Call) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.tags.insert(tag, (client, at));
        self.handle(at, Event::Call { tag: CallTag(tag), call });
        tag
    }

    pub fn news(&mut self, at: MonId, news: DaemonNews) {
        self.handle(at, Event::News(news));
    }

    /// Lets a client act after a while.
    pub fn wake_client(&mut self, client: usize, after_us: u64) {
        self.schedule(self.now_us + after_us, What::Client { client });
    }

    fn run_client(&mut self, n: usize) {
        let read = self.rng.permille(300);
        let acknowledged = self.check.acknowledged;
        let now_us = self.now_us;
        let client = &mut self.clients[n];
        if client.waiting.is_none() && client.begin(read && !client.done(), acknowledged).is_none() {
            return;
        }
        if client.waiting.as_ref().is_some_and(|waiting| waiting.give_up_at_us > now_us) {
            return;
        }
        let ids: Vec<MonId> = self.hosts.keys().copied().collect();
        let at = ids[self.rng.below(ids.len() as u64) as usize];
        if self.hosts[&at].monitor.is_none() {
            // The connection is refused.
            return self.wake_client(n, 5 * MS);
        }
        let Some(call) = self.clients[n].again() else { return };
        let tag = self.next_tag;
        if let Some(waiting) = &mut self.clients[n].waiting {
            waiting.tag = tag;
            waiting.give_up_at_us = now_us + PATIENCE_US;
        }
        self.wake_client(n, PATIENCE_US);
        self.call_for(Some(n), at, call);
    }

    pub fn handle(&mut self, id: MonId, event: Event) {
        let now_us = self.now_us;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let now = host.now(now_us);
        let Some(monitor) = &mut host.monitor else { return };
        let effects = monitor.handle(now, event);
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: MonId, effects: Effects) {
        let Effects { batch, early, persist, checkpoint, after, answers, publish, notices, timer, .. } =
            effects;
        for (to, message) in early {
            self.send(id, to, message);
        }
        let host = self.hosts.get_mut(&id).expect("a host");
        if let Some(state) = host.monitor.as_ref().and_then(Monitor::state)
            && host.seen != Some(state.version())
        {
            host.seen = Some(state.version());
            self.check.state(id.0, state);
        }
        self.installs +=
            persist.iter().filter(|record| matches!(record, Record::Install { .. })).count() as u64;
        if !persist.is_empty() || checkpoint.is_some() || !after.is_empty() {
            let latency = 50 + self.rng.below(self.weather.flush_us.max(200));
            let host = self.hosts.get_mut(&id).expect("a host");
            host.flush_done_at = host.flush_done_at.max(self.now_us + latency) + 1;
            let (at, start) = (host.flush_done_at, host.start);
            host.unflushed.push_back(Batch { number: batch, records: persist, checkpoint, after });
            self.schedule(at, What::Flushed { mon: id, start });
        }
        for (tag, answer) in answers {
            self.answered(tag.0, answer);
        }
        let host = self.hosts.get_mut(&id).expect("a host");
        if host.timer != timer {
            host.timer = timer;
            host.generation += 1;
            let generation = host.generation;
            if let Some(moment) = timer {
                let at = moment.0.saturating_sub(host.offset_us).max(self.now_us + 1);
                self.schedule(at, What::Timer { mon: id, generation });
            }
        }
        for notice in notices {
            match notice {
                Notice::Retired => {
                    let host = self.host(id);
                    host.monitor = None;
                    host.unflushed.clear();
                    host.retired = true;
                }
                Notice::Stopped(fault) => self.check.failures.push(format!("{id} stopped: {fault}")),
                Notice::Leads | Notice::Follows { .. } => {}
            }
        }
        for (subscriber, publication) in publish {
            self.published(id, subscriber, publication);
        }
    }

    fn answered(&mut self, tag: u64, answer: Answer) {
        let Some((client, _)) = self.tags.remove(&tag) else {
            self.check.failures.push(format!("call {tag} was answered twice"));
            return;
        };
        let Some(n) = client else {
            if let Answer::Done { version, .. } = &answer {
                self.check.acknowledge(*version);
            }
            self.answers.insert(tag, answer);
            return;
        };
        if self.clients[n].waiting.as_ref().is_none_or(|waiting| waiting.tag != tag) {
            return;
        }
        let pause = if self.clients[n].take(answer, &mut self.check) { 5 * MS } else { 50 * MS };
        if let Some(waiting) = &mut self.clients[n].waiting {
            waiting.give_up_at_us = 0;
        }
        let after = 1 + self.rng.below(pause);
        self.wake_client(n, after);
    }

    fn published(&mut self, id: MonId, subscriber: Subscriber, publication: Publication) {
        let Publication::OsdMaps(batch) = publication else { return };
        let host = self.hosts.get_mut(&id).expect("a host");
        let Some(follower) = host.followers.get_mut(&subscriber) else { return };
        let who = format!("subscriber {} of {id}", subscriber.0);
        follower.map = self.check.maps_taken(&who, follower.map.take(), batch);
        let have = follower.map.as_ref().map_or(Epoch(0), |map| map.epoch);
        let need = if subscriber.0 == 1 { Need::EveryEpoch } else { Need::Newest };
        // A subscriber need not say after each message what it has, but after so many epochs it must.
        let must = have.0 - follower.said.0 >= MAX_UNACKNOWLEDGED_EPOCHS / 2;
        if must || self.rng.permille(300) {
            follower.said = have;
            let start = host.start;
            let at = self.now_us + 1 + self.rng.below(2 * MS);
            self.schedule(at, What::Subscribe { mon: id, start, subscriber, need, have });
        }
    }

    fn send(&mut self, from: MonId, to: MonId, message: PeerMessage) {
        if self.cut.contains(&(from, to)) || self.rng.permille(self.weather.loss_permille) {
            return;
        }
        let copies = if self.rng.permille(self.weather.dup_permille) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.rng.permille(self.weather.slow_permille) {
                1 + self.rng.below(self.weather.slow_us.max(1))
            } else {
                100 + self.rng.below(1500)
            };
            self.schedule(self.now_us + delay, What::Deliver { from, to, message: message.clone() });
        }
    }

    fn schedule(&mut self, at: u64, what: What) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    pub fn run_until(&mut self, until_us: u64) {
        while self.check.failures.is_empty() {
            let Some(entry) = self.queue.first_entry() else { break };
            let (at, sequence) = *entry.key();
            if at > until_us {
                break;
            }
            let what = entry.remove();
            self.now_us = at;
            self.steps += 1;
            self.digest = (self.digest ^ at ^ sequence.rotate_left(40)).wrapping_mul(0x100_0000_01b3);
            match what {
                What::Deliver { from, to, message } => self.handle(to, Event::Peer { from, message }),
                What::Timer { mon, generation } => {
                    if self.hosts[&mon].generation == generation {
                        self.host(mon).timer = None;
                        self.handle(mon, Event::Tick);
                    }
                }
                What::Flushed { mon, start } => {
                    let host = self.host(mon);
                    if host.start == start && host.monitor.is_some() {
                        let Some(batch) = host.unflushed.pop_front() else { continue };
                        Self::reach_disk(host, &batch);
                        self.handle(mon, Event::Persisted { batch: batch.number });
                        for (to, message) in batch.after {
                            self.send(mon, to, message);
                        }
                    }
                }
                What::Client { client } => self.run_client(client),
                What::Subscribe { mon, start, subscriber, need, have } => {
                    if self.hosts[&mon].start == start {
                        self.subscribe(mon, subscriber, need, have);
                    }
                }
            }
        }
        self.now_us = self.now_us.max(until_us);
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(self.now_us + ms * MS);
    }

    /// Runs until `done` or for `ms`; says whether it was done.
    pub fn run_until_true(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        let until = self.now_us + ms * MS;
        while self.now_us < until && self.check.failures.is_empty() {
            if done(self) {
                return true;
            }
            self.run_ms(5);
        }
        done(self)
    }

    /// The monitor that leads and may answer, if there is one.
    pub fn leader(&self) -> Option<MonId> {
        let leads = |host: &Host| {
            let now = host.now(self.now_us).steady;
            host.monitor.as_ref().is_some_and(|monitor| monitor.log().can_read(now))
        };
        self.hosts.iter().find(|(_, host)| leads(host)).map(|(id, _)| *id)
    }

    /// Whether all monitors that run stand at one version, and their subscribers at one epoch.
    pub fn even(&self) -> bool {
        let running = || self.hosts.values().filter(|host| host.monitor.is_some());
        let versions: BTreeSet<Option<u64>> = running()
            .map(|host| host.monitor.as_ref().and_then(|mon| mon.state()).map(|state| state.version()))
            .collect();
        let followers = running().flat_map(|host| host.followers.values());
        let epochs: BTreeSet<Option<Epoch>> =
            followers.map(|follower| follower.map.as_ref().map(|map| map.epoch)).collect();
        versions.len() == 1 && epochs.len() == 1 && self.leader().is_some()
    }

    pub fn monitor(&self, id: MonId) -> &Monitor {
        self.hosts[&id].monitor.as_ref().expect("a running monitor")
    }

    /// Asks for a change at a monitor and runs until it is answered.
    pub fn ask(&mut self, at: MonId, once: Option<cairn_mon::service::Once>, request: Request) -> Answer {
        let tag = self.call(at, Call::Change { once, request });
        self.run_until_true(12_000, |world| world.answers.contains_key(&tag));
        self.answers.remove(&tag).expect("every call is answered")
    }

    pub fn add_mon_command(name: &str, port: u16) -> Request {
        Request::Mon(MonCommand::Add { name: name.to_owned(), addrs: vec![addr(port)] })
    }
}
