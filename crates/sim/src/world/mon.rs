//! Monitors: the core, its disk, its callers.

use super::members::mon_name;
use super::net::{ConnKey, Packet};
use super::{Ev, Kind, World};
use crate::canary::Canary;
use crate::network::{Fate, HostId};
use crate::plan::{Phase, Proc};
use cairn_mon::message::{MonAnswer, MonCall, MonNews, MonPublication, MonSubscribe};
use cairn_mon::monitor::{
    CallTag, Checkpoint, Effects, Event, Monitor, Notice, Now, PeerMessage, Setup, Subscriber, Subscription,
};
use cairn_mon::service::{ClusterState, Genesis};
use cairn_paxos::{DurableState, Message, Moment, MonId, Record, Timing};
use cairn_types::{EntityAddr, EntityKind, EntityName, Fsid, MonMap, Timestamp};
use cairn_wire::Lane;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// The cluster.
pub(super) const FSID: Fsid = Fsid([7; 16]);
/// A monitor without a leader for so long sends its callers away; the daemon's figure.
const LEADERLESS_MAX_US: u64 = 5_000_000;

struct Batch {
    number: u64,
    records: Vec<Record>,
    checkpoint: Option<Checkpoint>,
    after: Vec<(MonId, PeerMessage)>,
}

/// A monitor and its disk.
pub(super) struct Mon {
    pub monitor: Option<Monitor>,
    pub life: u64,
    pub host: HostId,
    /// It was removed and has ended for good.
    pub retired: bool,
    id: MonId,
    pub addr: SocketAddr,
    /// The map that it was made from.
    made_from: MonMap,
    /// Monitors that this process has ever known: it speaks with no others.
    known: BTreeSet<MonId>,
    disk: DurableState,
    checkpoint: Option<Checkpoint>,
    unflushed: VecDeque<Batch>,
    flushed_at_us: u64,
    timer: Option<Moment>,
    generation: u64,
    leaderless_since_us: Option<u64>,
    calls: BTreeMap<CallTag, (ConnKey, CallTag)>,
    next_tag: u64,
    /// Version last checked.
    seen: Option<u64>,
}

/// Where the monitor listens that is the `nth` to be made.
pub(super) fn mon_addr(host: HostId, nth: u16) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, host.0 as u8], 3300 + nth).into(), nonce: 0 }
}

/// The name that the certificate of a process has.
fn entity(who: Proc) -> Option<EntityName> {
    match who {
        Proc::Mon(n) => EntityName::new(EntityKind::Mon, &n.to_string()),
        Proc::Osd(osd) => EntityName::new(EntityKind::Osd, &osd.0.to_string()),
        Proc::Client(n) => EntityName::new(EntityKind::Client, &format!("c{n}")),
    }
    .ok()
}

impl World {
    pub(super) fn make_mons(&mut self) {
        let count = self.shape.mons;
        // The first monitors have the numbers of their hosts.
        let addr = |n: u16| mon_addr(HostId(n), n);
        self.conf = (0..count).map(|n| addr(n).socket).collect();
        self.mons_made = count;
        for n in 0..count {
            let genesis = Genesis {
                fsid: FSID,
                now: Timestamp(1_700_000_000_000),
                mons: (0..count).map(|n| (mon_name(HostId(n)), vec![addr(n)])).collect(),
            };
            let founding = Setup::founding(MonId(n.into()), 0, Timing::default(), genesis);
            let Ok(setup) = founding else {
                return self.fail(Kind::Crash, "a monitor cannot found a cluster".to_owned());
            };
            self.mons.insert(n, Mon::new(HostId(n), addr(n).socket, setup));
        }
        for n in 0..count {
            self.start(Proc::Mon(n));
        }
    }

    fn mon_now(&self, n: u16) -> Now {
        let who = Proc::Mon(n);
        Now { wall: self.wall(who), steady: Moment(self.steady_us(who)) }
    }

    pub(super) fn start_mon(&mut self, n: u16) {
        let (run, now, canary) = (self.rng_mon.next(), self.mon_now(n), self.canary);
        let Some(mon) = self.mons.get_mut(&n) else { return };
        mon.life += 1;
        // A process knows where those are that its files name, and no others.
        mon.known = mon.made_from.peers().map(|(_, mon)| mon.id).collect();
        (mon.timer, mon.seen, mon.leaderless_since_us) = (None, None, None);
        mon.calls.clear();
        let (log, checkpoint) = (mon.disk.clone(), mon.checkpoint.clone());
        let (id, mon_map) = (mon.id, mon.made_from.clone());
        let setup = Setup { id, run, timing: Timing::default(), log, checkpoint, mon_map };
        match Monitor::start(setup, now) {
            Ok(mut monitor) => {
                if let Some(Canary::Paxos(canary)) = canary {
                    monitor.set_canary(Some(canary));
                }
                mon.monitor = Some(monitor);
                self.tell_mon(n, Event::Tick);
            }
            Err(error) => self.fail(Kind::Crash, format!("mon.{n} does not start: {error}")),
        }
    }

    /// Of the batches under way some first ones may have reached the disk.
    pub(super) fn stop_mon(&mut self, n: u16) {
        let drawn = self.rng_power.next();
        let Some(mon) = self.mons.get_mut(&n) else { return };
        mon.monitor = None;
        let kept = drawn % (mon.unflushed.len() as u64 + 1);
        let batches: Vec<Batch> = mon.unflushed.drain(..).take(kept as usize).collect();
        batches.iter().for_each(|batch| mon.reach_disk(batch));
    }

    pub(super) fn is_leaderless(&self, n: u16) -> bool {
        let since = self.mons.get(&n).and_then(|mon| mon.leaderless_since_us);
        since.is_some_and(|since| since + LEADERLESS_MAX_US <= self.steady_us(Proc::Mon(n)))
    }

    pub(super) fn mon_peer(&mut self, to: u16, from: MonId, message: PeerMessage) {
        // The door takes nothing from strangers but where the monitors are.
        if !self.mons.get(&to).is_some_and(|mon| mon.known.contains(&from)) {
            let now = self.now();
            self.log.say(now, Some(Proc::Mon(to)), || format!("does not know mon.{}", from.0));
            if let PeerMessage::MonMap(map) = message {
                self.tell_mon(to, Event::MonMap(*map));
            }
            return;
        }
        self.tell_mon(to, Event::Peer { from, message });
    }

    pub(super) fn mon_timer(&mut self, n: u16, generation: u64) {
        let Some(mon) = self.mons.get_mut(&n) else { return };
        if mon.generation == generation {
            mon.timer = None;
            self.tell_mon(n, Event::Tick);
        }
    }

    pub(super) fn mon_flushed(&mut self, n: u16, life: u64) {
        if !self.lives(Proc::Mon(n), life) {
            return;
        }
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let Some(batch) = mon.unflushed.pop_front() else { return };
        mon.reach_disk(&batch);
        self.tell_mon(n, Event::Persisted { batch: batch.number });
        if !self.lives(Proc::Mon(n), life) {
            return;
        }
        for (to, message) in batch.after {
            self.mon_send(n, to, message);
        }
    }

    pub(super) fn mon_call(&mut self, n: u16, conn: ConnKey, call: MonCall) {
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let tag = CallTag(mon.next_tag);
        mon.next_tag += 1;
        mon.calls.insert(tag, (conn, call.tag));
        self.tell_mon(n, Event::Call { tag, call: call.call });
    }

    pub(super) fn mon_news(&mut self, n: u16, news: MonNews) {
        self.tell_mon(n, Event::News(news.0));
    }

    pub(super) fn mon_subscribe(&mut self, n: u16, conn: ConnKey, from: Proc, wants: MonSubscribe) {
        let Some(who) = entity(from) else { return };
        let MonSubscribe { osd_map, mon_map, mgr_map, config } = wants;
        let wants = Subscription { who, osd_map, mon_map, mgr_map, config };
        self.tell_mon(n, Event::Subscribe { subscriber: Subscriber(conn.0), wants });
    }

    pub(super) fn mon_closed(&mut self, n: u16, conn: ConnKey) {
        self.tell_mon(n, Event::Unsubscribe { subscriber: Subscriber(conn.0) });
    }

    fn tell_mon(&mut self, n: u16, event: Event) {
        let (at, now) = (self.now(), self.mon_now(n));
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let Some(monitor) = &mut mon.monitor else { return };
        self.log.say(at, Some(Proc::Mon(n)), || format!("{event:?}"));
        let effects = monitor.handle(now, event);
        mon.known.extend(monitor.mon_map().peers().map(|(_, mon)| mon.id));
        // Whoever has to agree with it can be found from its files alone.
        let listed = |id: &MonId| monitor.state().is_some_and(|state| state.mon_map().name_of(*id).is_some());
        let voters = monitor.log().configs().eras.iter().flat_map(|(_, voters)| &voters.members);
        if let Some(unknown) = voters.into_iter().find(|id| !listed(id)) {
            let why = format!("mon.{n} has a map without mon.{}, which votes", unknown.0);
            return self.fail(Kind::Safety, why);
        }
        let version = monitor.state().map(ClusterState::version);
        if monitor.log().leading().is_some() && mon.seen.is_some() && version > mon.seen {
            self.check_mon(n);
            if self.is_struck_down(n) {
                return;
            }
        }
        self.carry_out_mon(n, effects);
        self.watch_leader(n);
    }

    fn carry_out_mon(&mut self, n: u16, effects: Effects) {
        let Effects { batch, early, persist, checkpoint, after, answers, publish, notices, timer, .. } =
            effects;
        for (to, message) in early {
            self.mon_send(n, to, message);
        }
        self.check_mon(n);
        if !persist.is_empty() || checkpoint.is_some() || !after.is_empty() {
            let slow = self.rng_mon.permille(30);
            let latency_us =
                if slow { self.rng_mon.between(2_000, 30_000) } else { self.rng_mon.between(60, 900) };
            let now_us = self.now().0;
            let Some(mon) = self.mons.get_mut(&n) else { return };
            let at_us = (now_us + latency_us).max(mon.flushed_at_us + 1);
            mon.flushed_at_us = at_us;
            mon.unflushed.push_back(Batch { number: batch, records: persist, checkpoint, after });
            let life = mon.life;
            self.line.at(crate::timeline::Instant(at_us), Ev::MonFlushed { mon: n, life });
        }
        for (tag, answer) in answers {
            let Some(mon) = self.mons.get_mut(&n) else { return };
            let Some((conn, theirs)) = mon.calls.remove(&tag) else {
                self.fail(Kind::Safety, format!("mon.{n} answered call {tag:?} twice"));
                continue;
            };
            let answer = Packet::MonAnswer(Box::new(MonAnswer { tag: theirs, answer }));
            self.send(Proc::Mon(n), conn, Lane::Control, answer);
        }
        for (subscriber, publication) in publish {
            let packet = Packet::MonPublication(Box::new(MonPublication(publication)));
            self.send(Proc::Mon(n), ConnKey(subscriber.0), Lane::Control, packet);
        }
        for notice in notices {
            match notice {
                Notice::Stopped(fault) => self.fail(Kind::Crash, format!("mon.{n} stopped: {fault}")),
                Notice::Retired if self.is_member(n) => {
                    self.fail(Kind::Safety, format!("mon.{n} ends and was not removed"));
                }
                Notice::Retired => return self.retire(n),
                Notice::Leads | Notice::Follows { .. } => {
                    let at = self.now();
                    self.log.say(at, Some(Proc::Mon(n)), || format!("{notice:?}"));
                }
            }
        }
        self.set_mon_timer(n, timer);
    }

    fn set_mon_timer(&mut self, n: u16, timer: Option<Moment>) {
        let Some(mon) = self.mons.get_mut(&n) else { return };
        if mon.timer == timer {
            return;
        }
        mon.timer = timer;
        mon.generation += 1;
        let generation = mon.generation;
        if let Some(moment) = timer {
            let at = self.when_steady(Proc::Mon(n), moment.0);
            self.line.at(at, Ev::MonTimer { mon: n, generation });
        }
    }

    fn mon_send(&mut self, from: u16, to: MonId, message: PeerMessage) {
        if !self.mons.get(&from).is_some_and(|mon| mon.known.contains(&to)) {
            let now = self.now();
            return self.log.say(now, Some(Proc::Mon(from)), || format!("does not know mon.{}", to.0));
        }
        self.watch_agreement(from, to.0 as u16, &message);
        if !self.holds_up(from, to, &message) {
            self.mon_datagram(from, to, &message);
        }
    }

    pub(super) fn mon_datagram(&mut self, from: u16, to: MonId, message: &PeerMessage) {
        let (to, now) = (to.0 as u16, self.now());
        let hosts = (self.host_of(Proc::Mon(from)), self.host_of(Proc::Mon(to)));
        let Fate::Arrives(times) = self.network.datagram(now, hosts.0, hosts.1) else { return };
        let from = MonId(from.into());
        for at in times {
            self.line.at(at, Ev::MonPeer { to, from, message: Box::new(message.clone()) });
        }
    }

    fn is_member(&self, n: u16) -> bool {
        let map = self.checks.mon_map();
        map.is_some_and(|map| map.mons.values().any(|mon| mon.id.0 == u32::from(n)))
    }

    /// One value for each slot of a ballot, one leader for each ballot; and whether a leader is where it is to die.
    fn watch_agreement(&mut self, from: u16, to: u16, message: &PeerMessage) {
        let PeerMessage::Log(message) = message else { return };
        match message {
            Message::Prepare { .. } => self.reached(from, Phase::Prepare),
            Message::Promise { .. } => self.reached(to, Phase::Promise),
            Message::Accept { ballot, entries, .. } => {
                let mut result = self.checks.leads(from, *ballot);
                for (slot, command) in entries {
                    result = result.and_then(|()| self.checks.proposes(*ballot, *slot, command));
                }
                if let Err(why) = result {
                    return self.fail(Kind::Safety, why);
                }
                if !entries.is_empty() {
                    self.reached(from, Phase::Accept);
                }
            }
            Message::Accepted { slots, .. } if !slots.is_empty() => self.reached(to, Phase::Accepted),
            _ => {}
        }
    }

    /// Sends callers away when this monitor is cut off from the others.
    fn watch_leader(&mut self, n: u16) {
        let steady_us = self.steady_us(Proc::Mon(n));
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let Some(monitor) = &mon.monitor else { return };
        if monitor.log().leader().is_some() {
            mon.leaderless_since_us = None;
            return;
        }
        mon.leaderless_since_us.get_or_insert(steady_us);
        if self.is_leaderless(n) {
            for conn in self.conns_to(Proc::Mon(n)) {
                self.close(Proc::Mon(n), conn);
                self.mon_closed_by_itself(n, conn);
            }
        }
    }

    fn mon_closed_by_itself(&mut self, n: u16, conn: ConnKey) {
        let (at, now) = (self.now(), self.mon_now(n));
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let Some(monitor) = &mut mon.monitor else { return };
        self.log.say(at, Some(Proc::Mon(n)), || format!("sends {conn:?} away"));
        let effects = monitor.handle(now, Event::Unsubscribe { subscriber: Subscriber(conn.0) });
        self.carry_out_mon(n, effects);
    }

    fn check_mon(&mut self, n: u16) {
        let now = self.now();
        let Some(mon) = self.mons.get_mut(&n) else { return };
        let Some(state) = mon.monitor.as_ref().and_then(Monitor::state) else { return };
        if mon.seen == Some(state.version()) {
            return;
        }
        mon.seen = Some(state.version());
        if let Err(why) = self.checks.monitor_state(n, state, now) {
            self.fail(Kind::Safety, why);
        }
    }
}

impl Mon {
    /// One that has not been started.
    pub fn new(host: HostId, addr: SocketAddr, setup: Setup) -> Mon {
        Mon {
            monitor: None,
            life: 0,
            host,
            retired: false,
            id: setup.id,
            addr,
            made_from: setup.mon_map,
            known: BTreeSet::new(),
            disk: setup.log,
            checkpoint: setup.checkpoint,
            unflushed: VecDeque::new(),
            flushed_at_us: 0,
            timer: None,
            generation: 0,
            leaderless_since_us: None,
            calls: BTreeMap::new(),
            next_tag: 1,
            seen: None,
        }
    }

    fn reach_disk(&mut self, batch: &Batch) {
        for record in &batch.records {
            self.disk.absorb(record);
        }
        if let Some(checkpoint) = &batch.checkpoint {
            self.checkpoint = Some(checkpoint.clone());
        }
    }
}
