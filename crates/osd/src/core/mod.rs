//! One OSD without I/O: many placement groups, the maps they live by, clients, and the other OSDs.
//!
//! [`Osd::handle`] takes the time and an [`Event`] and yields [`Effect`]s. Nothing here reads a clock, draws entropy,
//! waits or opens anything, and nothing depends on hash order, so the same inputs always give the same outputs. The
//! driver carries effects out in order and decides nothing.
//!
//! | behaviour | file |
//! |---|---|
//! | what goes in and comes out, the order within one event | `event`, `effect`, here |
//! | what OSDs say to each other; links that lose nothing; who lives | `message`, `link`, `peers` |
//! | every epoch of the map, and where groups are in it | `maps` |
//! | groups: made, loaded, driven, removed | `groups`, `group` |
//! | clients' vectors: taken in, answered | `client` |
//! | executions, and what the store is asked for them | `execute`, `cache` |
//! | watches and notifications | `watch` |
//! | coming up and stopping | `boot` |
//! | slots for backfill; what the mgr is told | `reserve`, `report` |
//! | room in this store and in those of others | `room`, `fullness`, `amount`, `credit` |

mod amount;
mod boot;
mod cache;
mod client;
mod config;
mod credit;
mod effect;
mod event;
mod execute;
mod fullness;
mod group;
mod groups;
mod link;
mod maps;
mod message;
mod peers;
mod report;
mod reserve;
mod room;
mod superblock;
mod watch;

pub use amount::Amount;
pub use config::Config;
pub use credit::Credit;
pub use effect::{Effect, Query, StopReason};
pub use event::{Event, MonitorAnswer, Now, QueryAnswer, Setup, Space, Usage};
pub use message::{PeerMessage, Received};
pub use superblock::Superblock;

use boot::Phase;
use cache::Cache;
use cairn_mon::service::limits::MAX_PGS_PER_REQUEST;
use cairn_mon::service::subscription::MapBatch;
use cairn_mon::service::{PgCommand, Request};
use cairn_pg::{Effect as PgEffect, Event as PgEvent, OpId, Pg, Time, Timer};
use cairn_types::{EntityAddr, Epoch, OsdCounters, OsdId, OsdMap, PgId};
use cairn_wire::Payload;
use cairn_wire::op::OpRequest;
use client::{Client, Op};
use execute::Asked;
use fullness::Fullness;
use group::Group;
use maps::{Maps, MapsError, Places, View};
use peers::{Here, Incoming, Peers};
use reserve::Reserver;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use watch::Watches;

/// The driver's name of a connection, never reused in a run; clients' and OSDs' alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// One attempt to connect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt(pub u64);

/// One question to the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryToken(pub u64);

/// One request to the monitors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MonitorTag(pub u64);

/// One OSD.
#[derive(Debug)]
pub struct Osd {
    config: Config,
    superblock: Superblock,
    /// The epochs after which the last run stopped in good order.
    clean: Option<(Epoch, Epoch)>,
    public: EntityAddr,
    cluster: EntityAddr,
    now: Now,
    time: Time,
    fullness: Fullness,

    phase: Phase,
    /// This run has been up.
    was_up: bool,
    boot_asked: Option<MonitorTag>,
    next_tag: u64,

    maps: Maps,
    /// What is older nobody needs.
    oldest_needed: Epoch,
    /// The map by which groups were last looked for.
    placed: Option<View>,
    places: Places,

    groups: BTreeMap<PgId, Group>,
    /// Least and most entries of each group's log.
    log_bounds: (usize, usize, usize),
    removing: BTreeSet<PgId>,
    /// What groups are told, in order.
    todo: VecDeque<(PgId, PgEvent)>,
    group_effects: Vec<PgEffect>,
    group_timers: BTreeMap<(PgId, Timer), Time>,
    group_timer_queue: BTreeSet<(Time, PgId, Timer)>,
    reserver: Reserver,
    /// Wishes of groups, told to the monitors together.
    want_up_thru: Option<Epoch>,
    want_pg_temp: BTreeMap<PgId, Vec<OsdId>>,

    peers: Peers,
    /// Messages that wait for a map or for a removal.
    held: VecDeque<Incoming>,
    /// What changes take that were found to fit and are not handed to the store yet.
    admitted: Amount,
    /// Objects from other copies that wait for room.
    pushes: VecDeque<Incoming>,

    clients: BTreeMap<ConnId, Client>,
    /// Requests that wait for a map.
    waiting_requests: VecDeque<(ConnId, Box<OpRequest>, Payload)>,
    ops: BTreeMap<OpId, Op>,
    ops_bytes: usize,
    next_op: u64,
    /// The vector whose outcome a group is being told.
    executing: Option<OpId>,
    cache: Cache,
    asked: BTreeMap<QueryToken, Asked>,
    next_query: u64,
    watches: Watches,

    counters: OsdCounters,
    report_at: Option<Time>,
    out: Vec<Effect>,
}

impl Osd {
    /// An OSD as it starts. Hand in [`Event::Start`] next.
    ///
    /// # Errors
    /// The stored maps make no sense.
    pub fn new(now: Now, setup: Setup, config: Config) -> Result<Osd, StopReason> {
        let Setup { superblock, maps, groups, removing, public, cluster, usage } = setup;
        let maps = match maps {
            Some((full, increments)) => Maps::load(full, &increments).map_err(bad_map)?,
            None => Maps::default(),
        };
        let time = Time(now.steady_us / 1_000);
        let mut osd = Osd {
            config,
            clean: superblock.clean,
            public,
            cluster,
            now,
            time,
            fullness: Fullness::new(usage),
            phase: Phase::Booting { ask_at: time, wait_for: Epoch(0) },
            was_up: false,
            boot_asked: None,
            next_tag: 0,
            oldest_needed: maps.oldest(),
            maps,
            placed: None,
            places: Places::new(),
            groups: BTreeMap::new(),
            log_bounds: (config.log_entries_least, config.log_entries_least, config.pg.log_step_bytes),
            removing: removing.into_iter().collect(),
            todo: VecDeque::new(),
            group_effects: Vec::new(),
            group_timers: BTreeMap::new(),
            group_timer_queue: BTreeSet::new(),
            reserver: Reserver::default(),
            want_up_thru: None,
            want_pg_temp: BTreeMap::new(),
            peers: Peers::new(superblock.whoami, cluster, config),
            held: VecDeque::new(),
            admitted: Amount::ZERO,
            pushes: VecDeque::new(),
            clients: BTreeMap::new(),
            waiting_requests: VecDeque::new(),
            ops: BTreeMap::new(),
            ops_bytes: 0,
            next_op: 0,
            executing: None,
            cache: Cache::default(),
            asked: BTreeMap::new(),
            next_query: 0,
            watches: Watches::default(),
            counters: OsdCounters::default(),
            report_at: Some(time.plus_ms(config.report_interval_ms)),
            out: Vec::new(),
            superblock,
        };
        osd.load_groups(groups);
        Ok(osd)
    }

    /// Takes an event; the effects are to be carried out in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.handle_into(now, event, &mut effects);
        effects
    }

    /// As [`Osd::handle`], adding to a list the caller keeps.
    pub fn handle_into(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Stopped {
            return;
        }
        self.now = Now { steady_us: self.now.steady_us.max(now.steady_us), wall: now.wall };
        self.time = Time(self.now.steady_us / 1_000);
        std::mem::swap(&mut self.out, effects);
        self.take(event);
        self.settle();
        self.tell_wishes();
        self.tell_room();
        // What is asked for after the end is of no use to anyone.
        if let Some(end) = self.out.iter().position(|effect| matches!(effect, Effect::Stopped(_))) {
            self.out.truncate(end + 1);
        }
        std::mem::swap(&mut self.out, effects);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Start => self.start(),
            Event::Tick => self.tick(),
            Event::Maps(batch) => self.take_maps(batch),
            Event::Monitors { tag, answer } => {
                self.monitors_said(tag, answer);
                self.tick_boot();
            }
            Event::ClientOpened { conn, name, addr } => self.client_opened(conn, name, addr),
            Event::ClientRequest { conn, request, payload } => self.client_request(conn, request, payload),
            Event::NotifyAck { conn, ack } => self.notify_ack(conn, ack),
            Event::ClientClosed { conn } => self.client_closed(conn),
            Event::PeerAccepted { conn, osd } => self.peers.on_accepted(conn, osd),
            Event::PeerConnected { attempt, conn } => self.peers.on_connected(attempt, conn, &mut self.out),
            Event::PeerUnreachable { attempt, refused } => {
                self.peers.on_unreachable(self.time, attempt, refused, &mut self.out);
            }
            Event::Peer { conn, message } => {
                let waits = match &message {
                    PeerMessage::Group { pgid, message, .. } => self.must_wait(*pgid, message.epoch),
                    _ => false,
                };
                let may_come = !waits || self.held.len() < self.config.waiting_messages_max;
                let here = Here { epoch: self.maps.epoch(), may_come, left: self.left() };
                let incoming = self.peers.on_message(self.time, conn, message, here, &mut self.out);
                incoming.into_iter().for_each(|incoming| self.deliver(incoming));
            }
            Event::PeerClosed { conn } => self.peers.on_closed(self.time, conn, &mut self.out),
            Event::Persisted { pgid, token } => {
                let Some(group) = self.groups.get_mut(&pgid) else { return };
                let ready = group.persisted(token);
                self.tell(pgid, PgEvent::Persisted(token));
                ready.into_iter().for_each(|op| self.step(op));
            }
            Event::GroupRemoved { pgid } => self.group_removed(pgid),
            Event::Queried { token, answer } => self.queried(token, answer),
            Event::Usage(usage) => {
                self.fullness.told(usage);
                self.share_log_room();
                self.found_room();
            }
            Event::StoreFailed => self.stop(StopReason::StoreFailed),
            Event::Stop => self.begin_stop(),
        }
    }

    fn start(&mut self) {
        if self.superblock.clean.is_some() {
            // From now on it can stop in another way.
            self.superblock = Superblock { clean: None, ..self.superblock };
            self.out.push(Effect::SaveSuperblock(self.superblock));
        }
        self.out.push(Effect::Subscribe { have: self.maps.epoch() });
        self.tick_boot();
    }

    /// When to hand in [`Event::Tick`]; asked after each event. Early and late ticks do no harm.
    pub fn wake_at(&self) -> Option<Time> {
        if self.phase == Phase::Stopped {
            return None;
        }
        let group = self.group_timer_queue.first().map(|(at, _, _)| *at);
        let all = [group, self.peers.wake_at(), self.watches.wake_at(), self.boot_wake_at(), self.report_at];
        all.into_iter().flatten().min()
    }

    fn tick(&mut self) {
        self.tick_groups();
        self.peers.tick(self.time, self.maps.epoch(), self.left(), &mut self.out);
        self.tick_watches();
        self.tick_report();
        self.tick_boot();
    }

    fn take_maps(&mut self, batch: MapBatch) {
        self.oldest_needed = self.oldest_needed.max(batch.oldest);
        let before = self.maps.epoch();
        let has_full = batch.full.is_some();
        let taken = match self.maps.take(batch, self.config.full_map_interval) {
            Ok(taken) => taken,
            Err(MapsError::Gap) => return self.out.push(Effect::Subscribe { have: before }),
            Err(error) => return self.stop(bad_map(error)),
        };
        if taken.epochs.is_empty() {
            return;
        }
        // After a hole, older maps are of no use any more.
        let restart = has_full && taken.epochs.first().is_some_and(|first| *first == self.maps.oldest());
        let remove_before =
            if restart { Some(self.maps.oldest()) } else { self.maps.trim(self.oldest_needed) };
        let maps::Taken { epochs, full, increments } = taken;
        self.out.push(Effect::KeepMaps { full, increments, remove_before });

        self.groups_on_maps(&epochs);
        self.settle();
        self.boot_on_map();
        self.peers_on_map();
        self.groups_act();
        self.settle();
        // The groups that were made now have members of their own.
        self.peers_on_map();
        self.watches_on_map();
        self.retry_waiting_requests();
        self.tick_boot();
    }

    fn peers_on_map(&mut self) {
        let wanted = self.wanted_peers();
        if let Some(map) = self.maps.current() {
            self.peers.on_map(self.time, map, wanted, &mut self.out);
        }
    }

    /// What groups want of the monitors, in as few requests as it takes.
    fn tell_wishes(&mut self) {
        let (up_thru, sets) = (self.want_up_thru.take(), std::mem::take(&mut self.want_pg_temp));
        let Some(up_from) = self.up_from() else { return };
        let osd = self.whoami();
        if let Some(want) = up_thru {
            self.ask_monitors(Request::Pg(PgCommand::UpThru { osd, up_from, want }));
        }
        let mut sets = sets.into_iter().peekable();
        while sets.peek().is_some() {
            let sets = sets.by_ref().take(MAX_PGS_PER_REQUEST).collect();
            self.ask_monitors(Request::Pg(PgCommand::Temp { from: osd, sets }));
        }
    }

    /// Its number.
    pub fn whoami(&self) -> OsdId {
        self.superblock.whoami
    }

    /// The newest map.
    pub fn map(&self) -> Option<&Arc<OsdMap>> {
        self.maps.current()
    }

    /// The groups it has, for tests and for whoever shows its inside.
    pub fn groups(&self) -> impl Iterator<Item = &Pg> {
        self.groups.values().map(|group| &group.pg)
    }
}

fn bad_map(error: MapsError) -> StopReason {
    match error {
        MapsError::Bad { epoch, why } => StopReason::BadMap { epoch, why },
        MapsError::Gap => StopReason::BadMap { epoch: Epoch(0), why: "the stored maps have a gap".into() },
    }
}
