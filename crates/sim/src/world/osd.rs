//! OSDs: the core and what carries its effects out.

use super::disk::Disk;
use super::mon::FSID;
use super::net::{ConnKey, Packet, Purpose};
use super::session::MonSession;
use super::{Ev, Kind, World};
use crate::canary::Canary;
use crate::network::HostId;
use crate::plan::Proc;
use cairn_mon::service::subscription::{MapBatch, Need};
use cairn_mon::session::core::{Event as SessionEvent, Outcome, Ticket};
use cairn_mon::session::{CallError, Wants};
use cairn_osd::core::{
    Attempt, Config, ConnId, Effect, Event, MonitorAnswer, MonitorTag, Now, Osd, PeerMessage, Setup,
    StopReason, Superblock,
};
use cairn_types::{EntityAddr, EntityKind, EntityName, Epoch, OsdId, OsdUuid};
use cairn_wire::op::{NotifyAck, OpRequest};
use cairn_wire::{Lane, Payload};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an OSD waits for the monitors; the daemon's figure.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(30);
/// One event in so many has all groups of the OSD look whether they agree with themselves.
const CHECK_EVERY: u64 = 16;
/// When whoever runs the daemons starts one again that has stopped by itself.
const RESTART_MS: u64 = 2_000;

/// An OSD and its store.
pub(super) struct OsdProc {
    pub core: Option<Osd>,
    pub host: HostId,
    /// Counts starts; the nonce of its addresses.
    pub life: u64,
    pub session: Option<MonSession>,
    pub disk: Disk,
    /// Its disk was hurt by a fault: it may stop.
    pub hurt: bool,
    /// The cluster knows its number.
    pub known: bool,
    /// Disks that it has had: part of the store's id.
    pub disks: u8,
    wake_at: Option<u64>,
    wake_generation: u64,
    tickets: BTreeMap<Ticket, MonitorTag>,
    next_ticket: u64,
    events: u64,
    /// Epoch of the map last compared with the monitors'.
    seen: Epoch,
}

fn addr(host: HostId, port: u16, nonce: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, host.0 as u8], port).into(), nonce }
}

pub(super) fn uuid(osd: OsdId, incarnation: u8) -> OsdUuid {
    let mut bytes = [osd.0 as u8 + 1; 16];
    bytes[0] = incarnation;
    OsdUuid(bytes)
}

impl World {
    pub(super) fn make_osds(&mut self, _seed: u64) {
        let places: Vec<(HostId, OsdId)> =
            self.shape.hosts.iter().flat_map(|host| host.osds.iter().map(|osd| (host.id, *osd))).collect();
        for (host, osd) in places {
            let superblock =
                Superblock { fsid: FSID, uuid: uuid(osd, 1), whoami: osd, born: None, clean: None };
            let shuffle = self.rng_disk.next();
            match Disk::create(&superblock, &self.shape, shuffle) {
                Ok(disk) => {
                    let node = OsdProc {
                        core: None,
                        host,
                        life: 0,
                        session: None,
                        disk,
                        hurt: false,
                        known: false,
                        disks: 1,
                        wake_at: None,
                        wake_generation: 0,
                        tickets: BTreeMap::new(),
                        next_ticket: 0,
                        events: 0,
                        seen: Epoch(0),
                    };
                    self.osds.insert(osd, node);
                }
                Err(why) => self.fail(Kind::Crash, format!("the store of {osd} cannot be made: {why}")),
            }
        }
    }

    /// An empty disk in the place of the old one.
    pub(super) fn new_disk(&mut self, osd: OsdId) {
        let shuffle = self.rng_disk.next();
        let Some(node) = self.osds.get_mut(&osd) else { return };
        node.disks += 1;
        let uuid = uuid(osd, node.disks);
        let superblock = Superblock { fsid: FSID, uuid, whoami: osd, born: None, clean: None };
        match Disk::create(&superblock, &self.shape, shuffle) {
            Ok(disk) => (node.disk, node.hurt, node.known) = (disk, false, false),
            Err(why) => self.fail(Kind::Crash, format!("the store of {osd} cannot be made: {why}")),
        }
    }

    fn osd_now(&self, osd: OsdId) -> Now {
        let who = Proc::Osd(osd);
        Now { steady_us: self.steady_us(who), wall: self.wall(who) }
    }

    pub(super) fn start_osd(&mut self, osd: OsdId) {
        let now = self.osd_now(osd);
        let session = self.new_session(Proc::Osd(osd), osd.0 as u64);
        let canary = self.canary;
        let Some(node) = self.osds.get_mut(&osd) else { return };
        if !node.known {
            return;
        }
        let started = node.disk.start(canary);
        let host = match started {
            Ok(host) => host,
            Err(error) if node.hurt => {
                let at = self.now();
                self.log.say(at, Some(Proc::Osd(osd)), || format!("cannot start: {error}"));
                // Whoever looks after it sees that the disk is broken.
                return self.replace_disk(osd);
            }
            Err(error) => return self.fail(Kind::Safety, format!("{osd} cannot start: {error}")),
        };
        let Some(usage) = node.disk.usage() else { return };
        node.life += 1;
        let (life, place) = (node.life, node.host);
        let mut config = Config { full_map_interval: 4, ..Config::default() };
        if let Some(Canary::Pg(canary)) = canary {
            config.pg.canary = Some(canary);
        }
        let removing = host.removing.clone();
        let mut maps = host.maps;
        if let (Some(Canary::ForgetBlocklist), Some((full, increments))) = (canary, &mut maps) {
            full.blocklist.clear();
            increments.iter_mut().for_each(|increment| increment.blocklist.clear());
        }
        let setup = Setup {
            superblock: host.superblock,
            maps,
            groups: host.groups,
            removing: host.removing,
            public: addr(place, 7_000 + osd.0 as u16, life),
            cluster: addr(place, 8_000 + osd.0 as u16, life),
            usage,
        };
        match Osd::new(now, setup, config) {
            Ok(core) => node.core = Some(core),
            Err(reason) => return self.fail(Kind::Crash, format!("{osd} cannot start: {reason}")),
        }
        node.session = Some(session);
        node.tickets.clear();
        (node.wake_at, node.seen) = (None, Epoch(0));
        node.wake_generation += 1;
        for pgid in removing {
            self.line.after_us(100, Ev::StoreSweep { osd, life, pgid });
        }
        self.tell_osd(osd, Event::Start);
        self.tell_session(Proc::Osd(osd), SessionEvent::Tick);
    }

    pub(super) fn stop_osd(&mut self, osd: OsdId, power_cut: bool) {
        let (drawn, shuffle) = (self.rng_power.next(), self.rng_power.next());
        let Some(node) = self.osds.get_mut(&osd) else { return };
        node.core = None;
        node.session = None;
        if power_cut {
            node.disk.power_cut(drawn, shuffle);
        } else {
            node.disk.kill(shuffle);
        }
    }

    pub(super) fn osd_restart(&mut self, osd: OsdId, life: u64) {
        if self.osds.get(&osd).is_some_and(|node| node.life == life) {
            self.start(Proc::Osd(osd));
        }
    }

    pub(super) fn osd_wake(&mut self, osd: OsdId, life: u64, generation: u64) {
        let Some(node) = self.osds.get_mut(&osd) else { return };
        if node.life == life && node.wake_generation == generation {
            node.wake_at = None;
            self.tell_osd(osd, Event::Tick);
            if self.canary == Some(Canary::Spin)
                && let Some(generation) = self.osds.get(&osd).map(|node| node.wake_generation)
            {
                let now = self.now();
                self.line.at(now, Ev::OsdWake { osd, life, generation });
            }
        }
    }

    pub(super) fn osd_accepted_peer(&mut self, osd: OsdId, conn: ConnKey, peer: OsdId) {
        self.tell_osd(osd, Event::PeerAccepted { conn: ConnId(conn.0), osd: peer });
    }

    pub(super) fn osd_accepted_client(&mut self, osd: OsdId, conn: ConnKey, client: u16) {
        let Ok(name) = EntityName::new(EntityKind::Client, &format!("c{client}")) else { return };
        let Some(addr) = self.clients.get(&client).and_then(|client| client.addr) else { return };
        self.tell_osd(osd, Event::ClientOpened { conn: ConnId(conn.0), name, addr });
    }

    pub(super) fn osd_connected(&mut self, osd: OsdId, attempt: Attempt, conn: ConnKey) {
        self.tell_osd(osd, Event::PeerConnected { attempt, conn: ConnId(conn.0) });
    }

    pub(super) fn osd_unreachable(&mut self, osd: OsdId, attempt: Attempt, refused: bool) {
        self.tell_osd(osd, Event::PeerUnreachable { attempt, refused });
    }

    pub(super) fn osd_peer(&mut self, osd: OsdId, conn: ConnKey, message: PeerMessage) {
        self.tell_osd(osd, Event::Peer { conn: ConnId(conn.0), message });
    }

    pub(super) fn osd_peer_closed(&mut self, osd: OsdId, conn: ConnKey) {
        self.tell_osd(osd, Event::PeerClosed { conn: ConnId(conn.0) });
    }

    pub(super) fn osd_request(
        &mut self,
        osd: OsdId,
        conn: ConnKey,
        request: Box<OpRequest>,
        payload: Payload,
    ) {
        self.tell_osd(osd, Event::ClientRequest { conn: ConnId(conn.0), request, payload });
    }

    pub(super) fn osd_notify_ack(&mut self, osd: OsdId, conn: ConnKey, ack: NotifyAck) {
        self.tell_osd(osd, Event::NotifyAck { conn: ConnId(conn.0), ack });
    }

    pub(super) fn osd_client_closed(&mut self, osd: OsdId, conn: ConnKey) {
        self.tell_osd(osd, Event::ClientClosed { conn: ConnId(conn.0) });
    }

    pub(super) fn osd_maps(&mut self, osd: OsdId, batch: MapBatch) {
        self.tell_osd(osd, Event::Maps(batch));
    }

    pub(super) fn osd_monitors_said(&mut self, osd: OsdId, ticket: Ticket, outcome: Outcome) {
        let Some(tag) = self.osds.get_mut(&osd).and_then(|node| node.tickets.remove(&ticket)) else { return };
        let answer = match outcome {
            Outcome::Changed(reply) => MonitorAnswer::Done(reply),
            Outcome::Failed(CallError::Refused { code, why }) => MonitorAnswer::Refused { code, why },
            _ => MonitorAnswer::Failed,
        };
        self.tell_osd(osd, Event::Monitors { tag, answer });
    }

    pub(super) fn tell_osd(&mut self, osd: OsdId, event: Event) {
        let (at, now) = (self.now(), self.osd_now(osd));
        let Some(node) = self.osds.get_mut(&osd) else { return };
        let Some(core) = &mut node.core else { return };
        self.log.say(at, Some(Proc::Osd(osd)), || format!("{event:?}"));
        let effects = core.handle(now, event);
        node.events += 1;
        if node.events.is_multiple_of(CHECK_EVERY) {
            let wrong = core.groups().find_map(|group| Some((group.pgid(), group.check().err()?)));
            if let Some((pgid, inconsistency)) = wrong {
                return self.fail(Kind::Safety, format!("{pgid} on {osd}: {inconsistency:?}"));
            }
        }
        let life = node.life;
        self.compare_map(osd);
        for effect in effects {
            self.log.say(at, Some(Proc::Osd(osd)), || format!("  → {effect:?}"));
            self.carry_out_osd(osd, life, effect);
        }
        self.set_osd_wake(osd);
    }

    fn set_osd_wake(&mut self, osd: OsdId) {
        let Some(node) = self.osds.get_mut(&osd) else { return };
        let wake_at = node.core.as_ref().and_then(Osd::wake_at).map(|at| at.0);
        if node.wake_at == wake_at {
            return;
        }
        node.wake_at = wake_at;
        node.wake_generation += 1;
        let (life, generation) = (node.life, node.wake_generation);
        if let Some(ms) = wake_at {
            let at = self.when_steady(Proc::Osd(osd), ms * 1_000);
            self.line.at(at, Ev::OsdWake { osd, life, generation });
        }
    }

    fn compare_map(&mut self, osd: OsdId) {
        let Some(node) = self.osds.get_mut(&osd) else { return };
        let Some(map) = node.core.as_ref().and_then(Osd::map) else { return };
        if map.epoch == node.seen {
            return;
        }
        node.seen = map.epoch;
        if let Err(why) = self.checks.map(&osd.to_string(), map) {
            self.fail(Kind::Safety, why);
        }
    }

    fn carry_out_osd(&mut self, osd: OsdId, life: u64, effect: Effect) {
        let who = Proc::Osd(osd);
        let Some(node) = self.osds.get_mut(&osd) else { return };
        if node.core.is_none() || node.life != life {
            return;
        }
        match effect {
            Effect::Persist { pgid, txn } => {
                if let Err(bad) = node.disk.persist(pgid, &txn) {
                    return self
                        .fail(Kind::Safety, format!("{osd} cannot carry out a change of {pgid}: {bad}"));
                }
                self.wake_store(osd);
            }
            Effect::RemoveGroup { pgid } => {
                if node.disk.remove_group(pgid) {
                    self.wake_store(osd);
                } else {
                    self.line.after_us(100, Ev::StoreSweep { osd, life, pgid });
                }
            }
            Effect::KeepMaps { full, increments, remove_before } => {
                node.disk.keep_maps(full.as_deref(), &increments, remove_before);
                self.wake_store(osd);
            }
            Effect::SaveSuperblock(superblock) => {
                node.disk.save_superblock(&superblock);
                self.wake_store(osd);
            }
            Effect::Query { token, pgid, query } => self.ask_store(osd, token, pgid, query),
            Effect::AskUsage => {
                self.line.after_us(100, Ev::StoreUsage { osd, life });
            }
            Effect::Reply { conn, reply, payload } => {
                self.send(who, ConnKey(conn.0), Lane::Client, Packet::Reply(Box::new(reply), payload));
            }
            Effect::WatchEvent { conn, event } => {
                self.send(who, ConnKey(conn.0), Lane::Client, Packet::Watch(Box::new(event)));
            }
            Effect::CloseClient { conn, .. } | Effect::ClosePeer { conn, .. } => {
                self.close(who, ConnKey(conn.0));
            }
            Effect::Connect { attempt, peer: _, addr } => {
                let peer = Self::listener(&addr);
                self.connect(who, peer, Some(addr.nonce), Purpose::Peer(attempt));
            }
            Effect::Send { conn, lane, message } => {
                self.send(who, ConnKey(conn.0), lane, Packet::Peer(Box::new(message)));
            }
            Effect::Subscribe { have } => {
                let wants = Wants { osd_map: Some((have, Need::EveryEpoch)), ..Wants::default() };
                self.session_wants(who, wants);
            }
            Effect::AskMonitors { tag, request } => {
                node.next_ticket += 1;
                let ticket = Ticket(node.next_ticket);
                node.tickets.insert(ticket, tag);
                self.tell_session(who, SessionEvent::Change(ticket, request, MONITOR_TIMEOUT));
            }
            Effect::Tell(news) => self.tell_session(who, SessionEvent::Tell(news)),
            Effect::Report(_) => {}
            Effect::Stopped(reason) => self.osd_stopped(osd, life, &reason),
        }
    }

    fn osd_stopped(&mut self, osd: OsdId, life: u64, reason: &StopReason) {
        let excused = match reason {
            StopReason::StoreFailed => self.osds.get(&osd).is_some_and(|node| node.hurt),
            _ => false,
        };
        if !excused {
            self.fail(Kind::Crash, format!("{osd} has stopped: {reason}"));
        }
        self.stop(Proc::Osd(osd), false);
        self.line.after_us(RESTART_MS * 1_000, Ev::OsdRestart { osd, life });
    }
}
