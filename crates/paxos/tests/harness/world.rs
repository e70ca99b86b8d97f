//! Hosts, network, disks and virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cairn_paxos::{
    Apply, Canary, Change, DurableState, Effects, Event, Message, Moment, MonId, Node, Notice, Outcome,
    Params, Payload, ProposalId, Record, Request, Send, Slot, Standing, Timing,
};

use super::app::App;
use super::check::{Check, Checker};
use super::rng::Rng;

pub const MS: u64 = 1000;

/// How the world is made.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub founders: u32,
    pub params: Params,
    pub timing: Timing,
    pub canary: Option<Canary>,
    /// Whether clocks run off, up to the bound of the timing.
    pub drift: bool,
    /// Gather events while a flush is under way, instead of queueing batches.
    pub group_commit: bool,
    /// The application's durable state may lag behind the log's.
    pub app_lags: bool,
    /// Bytes added to the application's state.
    pub padding: usize,
}

impl Setup {
    pub fn calm(founders: u32) -> Self {
        Setup {
            seed: 1,
            founders,
            params: Params { alpha: 4, window: 64 },
            timing: Timing::default(),
            canary: None,
            drift: false,
            group_commit: false,
            app_lags: false,
            padding: 0,
        }
    }
}

/// What the network does to a message.
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
    Deliver { from: MonId, to: MonId, message: Message },
    Timer { mon: MonId, generation: u64 },
    Flushed { mon: MonId, incarnation: u64 },
}

/// A batch on its way to the disk.
struct Batch {
    number: u64,
    records: Vec<Record>,
    apply: Vec<Apply>,
    after: Vec<Send>,
}

pub struct Host {
    pub id: MonId,
    pub node: Option<Node>,
    pub app: App,
    /// What a crash leaves.
    pub disk: DurableState,
    pub disk_app: App,
    unflushed: VecDeque<Batch>,
    flush_done_at: u64,
    pub incarnation: u64,
    offset_us: u64,
    drift_ppm: i64,
    paused: bool,
    held: Vec<Event>,
    timer: Option<Moment>,
    generation: u64,
    pub retired: bool,
}

impl Host {
    fn clock(&self, now_us: u64) -> Moment {
        let rate = (1_000_000 + self.drift_ppm) as u128;
        Moment(self.offset_us + (u128::from(now_us) * rate / 1_000_000) as u64)
    }

    /// When, in true time, the clock shows `moment`.
    fn real(&self, moment: Moment) -> u64 {
        let rate = (1_000_000 + self.drift_ppm) as u128;
        (u128::from(moment.0.saturating_sub(self.offset_us)) * 1_000_000 / rate) as u64 + 1
    }

    pub fn up(&self) -> bool {
        self.node.is_some()
    }
}

pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), What>,
    sequence: u64,
    pub hosts: BTreeMap<MonId, Host>,
    pub cut: BTreeSet<(MonId, MonId)>,
    pub weather: Weather,
    pub check: Checker,
    pub failure: Option<String>,
    next_seq: u64,
    /// Where each proposal was made, by which start of that host, and what it was.
    pub proposals: BTreeMap<ProposalId, (MonId, u64, Slot, Request)>,
    pub trace: Option<Vec<String>>,
    pub digest: u64,
    pub steps: u64,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let founders: BTreeSet<MonId> = (1..=setup.founders).map(MonId).collect();
        let mut world = World {
            rng: Rng(setup.seed),
            now_us: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            check: Checker::new(founders.clone()),
            failure: None,
            next_seq: 0,
            proposals: BTreeMap::new(),
            trace: None,
            digest: 0,
            steps: 0,
            setup,
        };
        let state = DurableState::bootstrap(founders.clone(), world.setup.params).expect("sound founders");
        for id in founders {
            world.add_host(id, state.clone());
        }
        world
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.3} ms  {}", self.now_us as f64 / 1000.0, text()));
        }
    }

    pub fn must(&mut self, result: Check) {
        if let Err(text) = result
            && self.failure.is_none()
        {
            self.note(|| format!("FAILED {text}"));
            self.failure = Some(text);
        }
    }

    fn add_host(&mut self, id: MonId, disk: DurableState) {
        let drift = i64::from(self.setup.timing.drift_ppm);
        let drift_ppm = match self.rng.below(3) {
            _ if !self.setup.drift => 0,
            0 => drift,
            1 => -drift,
            _ => self.rng.below(2 * drift as u64 + 1) as i64 - drift,
        };
        let app = App::new(self.setup.padding);
        let host = Host {
            id,
            node: None,
            app: app.clone(),
            disk,
            disk_app: app,
            unflushed: VecDeque::new(),
            flush_done_at: 0,
            incarnation: 0,
            offset_us: self.rng.below(1_000_000_000),
            drift_ppm,
            paused: false,
            held: Vec::new(),
            timer: None,
            generation: 0,
            retired: false,
        };
        self.hosts.insert(id, host);
        self.start(id);
    }

    /// A new machine, empty, that waits to be added.
    pub fn add_joining(&mut self, id: MonId) {
        self.note(|| format!("{id} is set up"));
        self.add_host(id, DurableState::joining());
    }

    pub fn start(&mut self, id: MonId) {
        let seed = self.rng.next();
        let (timing, canary, now_us) = (self.setup.timing, self.setup.canary, self.now_us);
        self.note(|| format!("{id} starts"));
        let host = self.hosts.get_mut(&id).expect("a host");
        if host.up() || host.retired {
            return;
        }
        host.incarnation += 1;
        host.app = host.disk_app.clone();
        host.paused = false;
        host.held.clear();
        host.timer = None;
        let now = host.clock(now_us);
        match Node::restore(id, timing, host.disk.clone(), host.app.slot, seed, now) {
            Ok(mut node) => {
                node.set_canary(canary);
                host.node = Some(node);
                self.drain(id);
            }
            Err(error) => self.must(Err(format!("{id} cannot start: {error}"))),
        }
    }

    /// Power cut. Of the batches under way some first ones may have reached the disk.
    pub fn crash(&mut self, id: MonId) {
        self.note(|| format!("{id} crashes"));
        let keep = self.rng.next();
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.node.take().is_none() {
            return;
        }
        let kept = keep % (host.unflushed.len() as u64 + 1);
        let batches: Vec<Batch> = host.unflushed.drain(..).take(kept as usize).collect();
        let mut result = Ok(());
        for batch in batches {
            result = result.and(Self::reach_disk(host, &batch, self.setup.app_lags, &mut self.rng));
        }
        self.must(result);
    }

    pub fn pause(&mut self, id: MonId) {
        self.note(|| format!("{id} pauses"));
        if let Some(host) = self.hosts.get_mut(&id) {
            host.paused = host.up();
        }
    }

    pub fn resume(&mut self, id: MonId) {
        self.note(|| format!("{id} resumes"));
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if !std::mem::take(&mut host.paused) {
            return;
        }
        for event in std::mem::take(&mut host.held) {
            self.handle(id, event);
        }
        self.handle(id, Event::Tick);
    }

    pub fn cut_one_way(&mut self, from: MonId, to: MonId) {
        self.note(|| format!("{from} to {to} is cut"));
        self.cut.insert((from, to));
    }

    pub fn cut_both(&mut self, a: MonId, b: MonId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    pub fn isolate(&mut self, id: MonId) {
        let others: Vec<MonId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut_both(id, other);
        }
    }

    pub fn heal(&mut self) {
        self.note(|| "all links are mended".into());
        self.cut.clear();
    }

    /// A write of a fresh value; returns its name.
    pub fn write(&mut self, at: MonId) -> ProposalId {
        self.next_seq += 1;
        let payload = Payload::from(&self.next_seq.to_le_bytes()[..]);
        self.propose(at, Request::App(payload))
    }

    pub fn change(&mut self, at: MonId, change: Change) -> ProposalId {
        self.next_seq += 1;
        self.propose(at, Request::Change(change))
    }

    fn propose(&mut self, at: MonId, request: Request) -> ProposalId {
        let id = ProposalId { session: u64::from(at.0), seq: self.next_seq };
        let Some(node) = &self.hosts[&at].node else { return id };
        let born = node.decided();
        self.propose_as(at, id, born, request);
        id
    }

    /// Proposes again, perhaps elsewhere.
    pub fn propose_as(&mut self, at: MonId, id: ProposalId, born: Slot, request: Request) {
        let host = &self.hosts[&at];
        if !host.up() || host.paused {
            return;
        }
        self.proposals.insert(id, (at, host.incarnation, born, request.clone()));
        self.check.forget_outcome(id);
        self.handle(at, Event::Propose { id, born, request });
    }

    /// Whether the origin of `id` still runs and so owes an outcome.
    pub fn owed(&self, id: ProposalId) -> bool {
        let Some((at, incarnation, ..)) = self.proposals.get(&id) else { return false };
        let host = &self.hosts[at];
        host.up() && host.incarnation == *incarnation && self.check.outcome_of(id).is_none()
    }

    pub fn handle(&mut self, id: MonId, event: Event) {
        let now_us = self.now_us;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        if host.node.is_none() {
            return;
        }
        if host.paused {
            host.held.push(event);
            return;
        }
        let now = host.clock(now_us);
        if self.trace.is_some() && !matches!(event, Event::Tick) {
            let text = format!("{id} takes {event:?}");
            self.note(|| text);
        }
        let host = self.hosts.get_mut(&id).expect("a host");
        if let Some(node) = &mut host.node {
            node.handle(now, event);
        }
        self.drain(id);
    }

    /// Does what the monitor wants done, in the order the contract says.
    fn drain(&mut self, id: MonId) {
        let host = self.hosts.get_mut(&id).expect("a host");
        if self.setup.group_commit && !host.unflushed.is_empty() {
            return;
        }
        let Some(node) = &mut host.node else { return };
        let effects = node.take();
        let Effects { batch, early, persist, after, apply, outcomes, notices, timer, .. } = effects;
        for send in early {
            self.send(id, send);
        }
        for work in &apply {
            let host = self.hosts.get_mut(&id).expect("a host");
            let mut result = host.app.apply(work);
            let app = host.app.clone();
            if result.is_ok() {
                let disks = self.hosts.values().map(|host| (host.id, &host.disk));
                result = self.check.applied(id, work, &app, disks);
            }
            self.must(result);
        }
        if !persist.is_empty() || !after.is_empty() || !apply.is_empty() {
            self.write_batch(id, Batch { number: batch, records: persist, apply, after });
        }
        for (proposal, outcome) in outcomes {
            self.note(|| format!("{id} says {proposal:?} is {outcome:?}"));
            let result = self.check.outcome(proposal, outcome);
            self.must(result);
        }
        self.set_timer(id, timer);
        for notice in notices {
            self.notice(id, notice);
        }
    }

    fn write_batch(&mut self, id: MonId, batch: Batch) {
        let latency = 50 + self.rng.below(self.weather.flush_us.max(200));
        let host = self.hosts.get_mut(&id).expect("a host");
        host.flush_done_at = host.flush_done_at.max(self.now_us + latency) + 1;
        let (at, incarnation) = (host.flush_done_at, host.incarnation);
        host.unflushed.push_back(batch);
        self.schedule(at, What::Flushed { mon: id, incarnation });
    }

    fn reach_disk(host: &mut Host, batch: &Batch, app_lags: bool, rng: &mut Rng) -> Check {
        let mut must_apply = !app_lags || rng.permille(100);
        for record in &batch.records {
            host.disk.absorb(record);
            must_apply |= matches!(record, Record::Install { .. } | Record::Trim(_));
        }
        if let Some(Apply::Install { slot, state }) =
            batch.apply.iter().rev().find(|work| matches!(work, Apply::Install { .. }))
        {
            host.disk_app.apply(&Apply::Install { slot: *slot, state: state.clone() })?;
        }
        if !app_lags {
            for work in &batch.apply {
                if let Apply::Slot { slot, .. } = work
                    && *slot > host.disk_app.slot
                {
                    host.disk_app.apply(work)?;
                }
            }
        } else if must_apply && host.app.slot <= host.disk.decided && host.app.slot > host.disk_app.slot {
            host.disk_app = host.app.clone();
        }
        Ok(())
    }

    fn flushed(&mut self, id: MonId) {
        let host = self.hosts.get_mut(&id).expect("a host");
        let Some(batch) = host.unflushed.pop_front() else { return };
        let result = Self::reach_disk(host, &batch, self.setup.app_lags, &mut self.rng);
        self.must(result);
        self.handle(id, Event::Persisted { batch: batch.number });
        for send in batch.after {
            self.send(id, send);
        }
    }

    fn set_timer(&mut self, id: MonId, timer: Option<Moment>) {
        let host = self.hosts.get_mut(&id).expect("a host");
        if host.timer == timer {
            return;
        }
        host.timer = timer;
        host.generation += 1;
        let generation = host.generation;
        if let Some(moment) = timer {
            let at = host.real(moment).max(self.now_us + 1);
            self.schedule(at, What::Timer { mon: id, generation });
        }
    }

    fn notice(&mut self, id: MonId, notice: Notice) {
        self.note(|| format!("{id} {notice:?}"));
        match notice {
            Notice::BecameLeader { ballot } => {
                let incarnation = self.hosts[&id].incarnation;
                let result = self.check.leads(id, incarnation, ballot);
                self.must(result);
            }
            Notice::NeedSnapshot => {
                let (slot, state) = (self.hosts[&id].app.slot, self.hosts[&id].app.state());
                self.handle(id, Event::Snapshot { slot, state });
            }
            Notice::Retired => {
                let host = self.hosts.get_mut(&id).expect("a host");
                host.node = None;
                host.unflushed.clear();
                host.retired = true;
            }
            Notice::Poisoned(poison) => {
                if poison != cairn_paxos::Poison::Storage {
                    self.must(Err(format!("{id}: {poison}")));
                }
            }
            Notice::BecameFollower { .. } => {}
        }
    }

    fn send(&mut self, from: MonId, send: Send) {
        let Send { to, message } = send;
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

    /// Lets time pass until `until_us` or the first failure.
    pub fn run_until(&mut self, until_us: u64) {
        while self.failure.is_none() {
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
                What::Deliver { from, to, message } => self.handle(to, Event::Message { from, message }),
                What::Timer { mon, generation } => {
                    if self.hosts[&mon].generation == generation {
                        self.hosts.get_mut(&mon).expect("a host").timer = None;
                        self.handle(mon, Event::Tick);
                    }
                }
                What::Flushed { mon, incarnation } => {
                    if self.hosts[&mon].incarnation == incarnation && self.hosts[&mon].up() {
                        self.flushed(mon);
                    }
                }
            }
            self.read_everywhere();
        }
        self.now_us = self.now_us.max(until_us);
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(self.now_us + ms * MS);
    }

    /// Whoever says it may read, reads.
    fn read_everywhere(&mut self) {
        let now_us = self.now_us;
        let readers: Vec<(MonId, Slot)> = self
            .hosts
            .values()
            .filter(|host| !host.paused)
            .filter(|host| host.node.as_ref().is_some_and(|node| node.can_read(host.clock(now_us))))
            .map(|host| (host.id, host.app.slot))
            .collect();
        for (mon, slot) in readers {
            // With grouped commits the application may be a batch behind the core; it then asks later.
            if self.setup.group_commit
                && self.hosts[&mon].node.as_ref().is_some_and(|node| node.decided() > slot)
            {
                continue;
            }
            let result = self.check.read(mon, slot);
            self.must(result);
        }
    }

    /// A monitor that leads and may read, if there is one.
    pub fn leader(&self) -> Option<MonId> {
        self.hosts
            .values()
            .find(|host| {
                !host.paused && host.node.as_ref().is_some_and(|node| node.can_read(host.clock(self.now_us)))
            })
            .map(|host| host.id)
    }

    pub fn node(&self, id: MonId) -> &Node {
        self.hosts[&id].node.as_ref().expect("a running monitor")
    }

    /// Runs until `done` or for `ms`; says whether it was done.
    pub fn run_until_true(&mut self, ms: u64, done: impl Fn(&World) -> bool) -> bool {
        let until = self.now_us + ms * MS;
        while self.now_us < until && self.failure.is_none() {
            if done(self) {
                return true;
            }
            self.run_ms(5);
        }
        done(self)
    }

    pub fn decided(&self, id: ProposalId) -> bool {
        matches!(self.check.outcome_of(id), Some(Outcome::Decided { .. }))
    }

    /// Whether whoever was removed and does not know it also knows nobody who still runs: nothing can
    /// reach it through the log then, and it can reach no majority either.
    fn strangers_only(&self) -> bool {
        let members = &self.check.newest().members;
        self.hosts.values().filter(|host| !members.contains(&host.id)).all(|host| {
            let Some(node) = &host.node else { return true };
            let known = node.configs().eras.iter().flat_map(|(_, era)| era.members.iter());
            !known.filter(|mon| **mon != host.id).any(|mon| self.hosts[mon].up())
        })
    }

    /// Whether everyone that votes from here on runs and stands at the same slot, and everyone removed
    /// has stopped.
    pub fn settled(&self) -> bool {
        let members = &self.check.newest().members;
        let even = members.iter().all(|mon| {
            self.hosts[mon]
                .node
                .as_ref()
                .is_some_and(|node| node.decided() == self.check.last() && node.standing() == Standing::Voter)
        });
        let gone = self.hosts.values().all(|host| {
            let node = host.node.as_ref();
            members.contains(&host.id)
                || node.is_none()
                || node.is_some_and(|node| matches!(node.standing(), Standing::Joining | Standing::Learner))
        });
        let gone = gone || self.strangers_only();
        let leader = self.leader();
        let followed =
            members.iter().all(|mon| self.hosts[mon].node.as_ref().is_some_and(|n| n.leader() == leader));
        even && gone && leader.is_some() && followed
    }
}
