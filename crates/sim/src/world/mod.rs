//! The cluster of one seed: processes around the project's cores, and what happens to them.
//!
//! | what | where |
//! |---|---|
//! | events, time, who is paused, the log | here |
//! | connections between processes, and datagrams between monitors | `net` |
//! | hosts: clocks, power | `power` |
//! | monitors; those that come and go | `mon`, `members` |
//! | moments of theirs that are waited for | `ambush` |
//! | anybody's session with the monitors | `session` |
//! | OSDs; their stores | `osd`, `disk` |
//! | clients and what they do | `client` |
//! | clients of images: the image code in virtual time | `image` |
//! | the operator: setting up, deeds, mending | `operator` |
//! | faults from the plan | `fault` |
//! | the state of things, for verdicts | `judge` |

mod ambush;
mod client;
mod disk;
mod fault;
mod image;
mod judge;
mod log;
mod members;
mod mon;
mod net;
mod operator;
mod osd;
mod power;
mod session;

use crate::canary::Canary;
use crate::check::Checks;
use crate::network::{HostId, Network, Weather};
use crate::plan::{Phase, Planned, Proc};
use crate::rng::Rng;
use crate::shape::Shape;
use crate::timeline::{Instant, Timeline};
use crate::watch::{Beat, Pulse};
use ambush::Lurking;
use cairn_mon::session::Update;
use cairn_mon::session::core::{Outcome, Ticket};
use cairn_osd::core::QueryToken;
use cairn_osd::persist::Answering;
use cairn_paxos::MonId;
use cairn_types::{OsdId, PgId, PoolId};
use client::ClientProc;
pub use log::Listener;
use log::Log;
use mon::Mon;
use net::{ConnKey, Conns, Packet};
use operator::Operator;
use osd::OsdProc;
use power::Machine;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Something happened that must never happen.
    Safety,
    /// Something did not happen although nothing stood in its way.
    Liveness,
    /// A core gave up or panicked.
    Crash,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Safety => "safety",
            Kind::Liveness => "liveness",
            Kind::Crash => "crash",
        })
    }
}

/// What went wrong first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// How bad it is.
    pub kind: Kind,
    /// When.
    pub at: Instant,
    /// What, for people.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {}", self.kind, self.at, self.what)
    }
}

/// Something that is to happen.
enum Ev {
    MonPeer {
        to: u16,
        from: MonId,
        message: Box<cairn_mon::monitor::PeerMessage>,
    },
    MonTimer {
        mon: u16,
        generation: u64,
    },
    MonFlushed {
        mon: u16,
        life: u64,
    },
    /// A connection is asked for at its target.
    Syn {
        conn: ConnKey,
    },
    /// The opener hears that the connection stands.
    SynAck {
        conn: ConnKey,
    },
    /// The opener hears that there is none.
    Refused {
        conn: ConnKey,
    },
    /// The opener has waited long enough.
    ConnectTimeout {
        conn: ConnKey,
    },
    Packet {
        conn: ConnKey,
        end: usize,
        packet: Packet,
    },
    /// A connection has carried nothing for too long: both ends notice by themselves.
    Silence {
        conn: ConnKey,
        since: Instant,
    },
    /// One end notices by itself that the other is gone.
    Dropped {
        conn: ConnKey,
        end: usize,
    },
    SessionTick {
        who: Proc,
        life: u64,
        generation: u64,
    },
    /// A session has an answer, or news, for its process.
    SessionFinished {
        who: Proc,
        life: u64,
        ticket: Ticket,
        outcome: Box<Outcome>,
    },
    SessionUpdate {
        who: Proc,
        life: u64,
        update: Box<Update>,
    },
    OsdWake {
        osd: OsdId,
        life: u64,
        generation: u64,
    },
    OsdRestart {
        osd: OsdId,
        life: u64,
    },
    StorePoll {
        osd: OsdId,
        life: u64,
    },
    StoreRest {
        osd: OsdId,
        life: u64,
        /// What the store had been asked for until then, by its last token.
        asked: u64,
    },
    StoreQuery {
        osd: OsdId,
        life: u64,
        token: QueryToken,
        answering: Answering,
    },
    StoreUsage {
        osd: OsdId,
        life: u64,
    },
    StoreSweep {
        osd: OsdId,
        life: u64,
        pgid: PgId,
    },
    ClientWake {
        client: u16,
        life: u64,
        generation: u64,
    },
    ClientThink {
        client: u16,
        life: u64,
    },
    /// Tasks of the image code of a client go on.
    ImageRun {
        client: u16,
        life: u64,
    },
    /// One of them has waited long enough.
    ImageAlarm {
        client: u16,
        life: u64,
        sleep: u64,
    },
    /// A client that was shut out begins anew.
    ClientRenew {
        client: u16,
        life: u64,
    },
    /// A process dies at a moment that was waited for.
    Strike {
        process: Proc,
        down_ms: u64,
    },
    /// The operator asks again.
    OperatorAsks,
    /// A step of the plan.
    Step(usize),
    Undo(fault::Undo),
    /// Looks whether all holds.
    Look,
}

impl Ev {
    /// The process it happens to; a paused one hears of it later.
    fn process(&self, conns: &Conns) -> Option<Proc> {
        match self {
            Ev::MonPeer { to: mon, .. } | Ev::MonTimer { mon, .. } | Ev::MonFlushed { mon, .. } => {
                Some(Proc::Mon(*mon))
            }
            Ev::Syn { conn } => conns.process(*conn, 1),
            Ev::SynAck { conn } | Ev::Refused { conn } | Ev::ConnectTimeout { conn } => {
                conns.process(*conn, 0)
            }
            Ev::Packet { conn, end, .. } | Ev::Dropped { conn, end } => conns.process(*conn, *end),
            Ev::SessionTick { who, .. } | Ev::SessionFinished { who, .. } | Ev::SessionUpdate { who, .. } => {
                Some(*who)
            }
            Ev::OsdWake { osd, .. }
            | Ev::StorePoll { osd, .. }
            | Ev::StoreRest { osd, .. }
            | Ev::StoreQuery { osd, .. }
            | Ev::StoreUsage { osd, .. }
            | Ev::StoreSweep { osd, .. } => Some(Proc::Osd(*osd)),
            Ev::ClientWake { client, .. }
            | Ev::ClientThink { client, .. }
            | Ev::ImageRun { client, .. }
            | Ev::ImageAlarm { client, .. } => Some(Proc::Client(*client)),
            Ev::Silence { .. }
            | Ev::OsdRestart { .. }
            | Ev::ClientRenew { .. }
            | Ev::Strike { .. }
            | Ev::OperatorAsks
            | Ev::Step(_)
            | Ev::Undo(_)
            | Ev::Look => None,
        }
    }
}

/// The operator's process, beside the clients of the shape.
pub(crate) const OPERATOR: Proc = Proc::Client(u16::MAX);

/// The cluster and everything around it.
pub struct World {
    shape: Shape,
    plan: Vec<Planned>,
    canary: Option<Canary>,
    line: Timeline<Ev>,
    network: Network,
    conns: Conns,
    machines: BTreeMap<HostId, Machine>,
    mons: BTreeMap<u16, Mon>,
    osds: BTreeMap<OsdId, OsdProc>,
    clients: BTreeMap<u16, ClientProc>,
    operator: Operator,
    /// What happened to paused processes meanwhile.
    paused: BTreeMap<Proc, VecDeque<Ev>>,
    pool: Option<PoolId>,
    /// The image was removed, in the end.
    image_is_gone: bool,
    /// Writes for which there was no room.
    refused_full: u64,
    rng_disk: Rng,
    rng_power: Rng,
    rng_mon: Rng,
    checks: Checks,
    log: Log,
    failure: Option<Failure>,
    faults: BTreeMap<&'static str, u64>,
    /// No more faults, nothing new is asked for.
    calm: bool,
    /// The next leader that does this dies.
    doom: Option<(Phase, u64)>,
    lurking: Lurking,
    /// Where processes that start find monitors.
    conf: Vec<SocketAddr>,
    /// Monitors that were ever made: each listens somewhere else.
    mons_made: u16,
    settled_at: Option<Instant>,
    events: u64,
    moment: Instant,
    events_now: u64,
    pulse: Pulse,
}

/// More events at one moment are a loop.
const EVENTS_AT_ONCE_MAX: u64 = 100_000;
/// How often it is looked whether all holds.
const LOOK_EVERY_MS: u64 = 500;

impl World {
    /// The cluster of a seed as it starts, with the faults of `plan` to come.
    pub fn new(
        seed: u64,
        shape: Shape,
        plan: Vec<Planned>,
        canary: Option<Canary>,
        trace: Option<Listener>,
    ) -> World {
        let machines = power::machines(&shape, &mut Rng::fork(seed, "clocks"));
        let mut world = World {
            machines,
            canary,
            line: Timeline::default(),
            network: Network::new(Rng::fork(seed, "network"), Weather::CALM),
            conns: Conns::default(),
            mons: BTreeMap::new(),
            osds: BTreeMap::new(),
            clients: BTreeMap::new(),
            operator: Operator::default(),
            paused: BTreeMap::new(),
            pool: None,
            image_is_gone: false,
            refused_full: 0,
            rng_disk: Rng::fork(seed, "disk"),
            rng_power: Rng::fork(seed, "power"),
            rng_mon: Rng::fork(seed, "mon"),
            checks: Checks::default(),
            log: Log::new(trace),
            failure: None,
            faults: BTreeMap::new(),
            calm: false,
            doom: None,
            lurking: Lurking::default(),
            conf: Vec::new(),
            mons_made: 0,
            settled_at: None,
            events: 0,
            moment: Instant(0),
            events_now: 0,
            pulse: Pulse::default(),
            shape,
            plan,
        };
        world.make_mons();
        world.make_osds(seed);
        world.make_clients(seed);
        world.begin_operator();
        for (at, planned) in world.plan.iter().enumerate() {
            world.line.at(planned.at, Ev::Step(at));
        }
        world.line.after_us(LOOK_EVERY_MS * 1_000, Ev::Look);
        world
    }

    /// Runs until the verdict.
    pub fn run(&mut self) {
        while self.failure.is_none() && self.settled_at.is_none() {
            let Some(event) = self.line.next() else {
                return self.fail(Kind::Liveness, "nothing is left to happen".to_owned());
            };
            self.events += 1;
            self.events_now = if self.now() == self.moment { self.events_now + 1 } else { 0 };
            self.moment = self.now();
            if self.events_now > EVENTS_AT_ONCE_MAX {
                let who =
                    event.process(&self.conns).map_or_else(|| "the world".to_owned(), |who| who.to_string());
                return self.fail(Kind::Liveness, format!("{who} spins: time does not go on"));
            }
            self.pulse.beat(Beat { events: self.events, at: self.moment, who: event.process(&self.conns) });
            self.take(event);
        }
    }

    /// Beats this pulse before each event.
    pub fn watched_by(&mut self, pulse: Pulse) {
        self.pulse = pulse;
    }

    fn take(&mut self, event: Ev) {
        if let Some(who) = event.process(&self.conns)
            && let Some(waiting) = self.paused.get_mut(&who)
        {
            return waiting.push_back(event);
        }
        match event {
            Ev::MonPeer { to, from, message } => self.mon_peer(to, from, *message),
            Ev::MonTimer { mon, generation } => self.mon_timer(mon, generation),
            Ev::MonFlushed { mon, life } => self.mon_flushed(mon, life),
            Ev::Syn { conn } => self.syn(conn),
            Ev::SynAck { conn } => self.syn_ack(conn),
            Ev::Refused { conn } => self.connect_failed(conn, true),
            Ev::ConnectTimeout { conn } => self.connect_failed(conn, false),
            Ev::Packet { conn, end, packet } => self.packet(conn, end, packet),
            Ev::Silence { conn, since } => self.silence(conn, since),
            Ev::Dropped { conn, end } => self.dropped(conn, end),
            Ev::SessionTick { who, life, generation } => self.session_tick(who, life, generation),
            Ev::SessionFinished { who, life, ticket, outcome } => {
                self.session_finished(who, life, ticket, *outcome);
            }
            Ev::SessionUpdate { who, life, update } => self.session_update(who, life, *update),
            Ev::OsdWake { osd, life, generation } => self.osd_wake(osd, life, generation),
            Ev::OsdRestart { osd, life } => self.osd_restart(osd, life),
            Ev::StorePoll { osd, life } => self.store_poll(osd, life),
            Ev::StoreRest { osd, life, asked } => self.store_rest(osd, life, asked),
            Ev::StoreQuery { osd, life, token, answering } => self.store_query(osd, life, token, answering),
            Ev::StoreUsage { osd, life } => self.store_usage(osd, life),
            Ev::StoreSweep { osd, life, pgid } => self.store_sweep(osd, life, pgid),
            Ev::ClientWake { client, life, generation } => self.client_wake(client, life, generation),
            Ev::ClientThink { client, life } => self.client_think(client, life),
            Ev::ImageRun { client, life } => self.image_run(client, life),
            Ev::ImageAlarm { client, life, sleep } => self.image_alarm(client, life, sleep),
            Ev::ClientRenew { client, life } => self.client_renew(client, life),
            Ev::Strike { process, down_ms } => self.strike(process, down_ms),
            Ev::OperatorAsks => self.ask_next(),
            Ev::Step(at) => self.step(at),
            Ev::Undo(undo) => self.undo(undo),
            Ev::Look => self.look(),
        }
    }

    fn now(&self) -> Instant {
        self.line.now()
    }

    fn fail(&mut self, kind: Kind, what: String) {
        let at = self.now();
        if self.failure.is_none() {
            self.log.say(at, None, || format!("FAILED {kind}: {what}"));
            self.failure = Some(Failure { kind, at, what });
        }
    }

    /// Whether the process runs this life of it.
    fn lives(&self, who: Proc, life: u64) -> bool {
        match who {
            Proc::Mon(n) => self.mons.get(&n).is_some_and(|mon| mon.life == life && mon.monitor.is_some()),
            Proc::Osd(osd) => self.osds.get(&osd).is_some_and(|osd| osd.life == life && osd.core.is_some()),
            OPERATOR => life == 1,
            Proc::Client(n) => {
                self.clients.get(&n).is_some_and(|client| client.life == life && client.session.is_some())
            }
        }
    }

    /// The life that runs.
    fn life(&self, who: Proc) -> Option<u64> {
        let life = match who {
            Proc::Mon(n) => self.mons.get(&n)?.life,
            Proc::Osd(osd) => self.osds.get(&osd)?.life,
            OPERATOR => 1,
            Proc::Client(n) => self.clients.get(&n)?.life,
        };
        self.lives(who, life).then_some(life)
    }

    fn host_of(&self, who: Proc) -> HostId {
        match who {
            Proc::Mon(n) => self.mons.get(&n).map_or(HostId(0), |mon| mon.host),
            Proc::Osd(osd) => self.osds.get(&osd).map_or(HostId(0), |osd| osd.host),
            OPERATOR => self.shape.client_host(self.shape.clients),
            Proc::Client(n) => self.shape.client_host(n),
        }
    }

    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Figures of the run so far.
    pub fn figures(&self) -> Figures {
        Figures {
            virtual_us: self.now().0,
            events: self.events,
            operations: self.checks.operations(),
            monitors: self.checks.mon_map().map_or(0, |map| map.mons.len() as u64),
            refused_full: self.refused_full,
            faults: self.faults.clone(),
            digest: self.log.digest(),
        }
    }
}

/// Figures of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Virtual time that went by.
    pub virtual_us: u64,
    /// Events.
    pub events: u64,
    /// Reads and writes of blocks that were checked.
    pub operations: u64,
    /// Monitors of the last map.
    pub monitors: u64,
    /// Writes for which there was no room.
    pub refused_full: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Of the log.
    pub digest: u64,
}
