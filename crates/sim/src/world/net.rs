//! Connections between processes, as their transport gives them: lanes in order and once, or an end that both hear of,
//! sooner or later.

use super::{Ev, Kind, World};
use crate::network::{Fate, StreamId};
use crate::plan::Proc;
use crate::timeline::Instant;
use cairn_mon::message::{MonAnswer, MonCall, MonNews, MonPublication, MonSubscribe};
use cairn_osd::core::{Attempt, PeerMessage};
use cairn_types::EntityAddr;
use cairn_wire::op::{NotifyAck, OpReply, OpRequest, WatchEvent};
use cairn_wire::{Lane, Payload};
use std::collections::{BTreeMap, VecDeque};

/// How long a connection is waited for; the transport's.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// After how long a connection that carries nothing is over; the transport's.
const IDLE_TIMEOUT_MS: u64 = 30_000;
/// A host that has come back answers what it does not know at the next sign of life.
const KEEP_ALIVE_MS: u64 = 1_000;

/// Names a connection; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ConnKey(pub u64);

/// What the opener wants it for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A session with the monitors.
    Monitor(cairn_mon::session::core::Attempt),
    /// One OSD with another.
    Peer(Attempt),
    /// A client with an OSD.
    Objects(cairn_client::core::ConnId),
}

/// What travels.
#[derive(Debug)]
pub(super) enum Packet {
    MonCall(Box<MonCall>),
    MonNews(Box<MonNews>),
    MonSubscribe(MonSubscribe),
    MonAnswer(Box<MonAnswer>),
    MonPublication(Box<MonPublication>),
    Peer(Box<PeerMessage>),
    Request(Box<OpRequest>, Payload),
    Reply(Box<OpReply>, Payload),
    Watch(Box<WatchEvent>),
    NotifyAck(Box<NotifyAck>),
    /// The other end has closed it.
    Fin,
}

#[derive(Debug)]
struct End {
    who: Proc,
    life: u64,
    open: bool,
}

#[derive(Debug)]
struct Conn {
    ends: [End; 2],
    purpose: Purpose,
    /// Which run of the target is meant.
    nonce: Option<u64>,
    /// The opener has heard that it stands.
    stands: bool,
    /// The target has taken it.
    accepted: bool,
    /// What waits for a cut link, for each end.
    held: [VecDeque<(Lane, Packet)>; 2],
    cut_since: Option<Instant>,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Conns {
    all: BTreeMap<ConnKey, Conn>,
    last: u64,
}

impl Conns {
    pub fn process(&self, key: ConnKey, end: usize) -> Option<Proc> {
        self.all.get(&key).map(|conn| conn.ends[end].who)
    }

    /// The end of a process, if it is open.
    fn end_of(&self, key: ConnKey, who: Proc) -> Option<usize> {
        let conn = self.all.get(&key)?;
        conn.ends.iter().position(|end| end.who == who && end.open)
    }

    fn is_open(&self, key: ConnKey, end: usize) -> bool {
        self.all.get(&key).is_some_and(|conn| conn.ends[end].open)
    }
}

fn stream(key: ConnKey, end: usize, lane: Lane) -> StreamId {
    StreamId(key.0 * 8 + end as u64 * 4 + u64::from(lane.number()))
}

impl World {
    /// Connects to whoever listens at an address.
    pub(super) fn connect(&mut self, from: Proc, to: Proc, nonce: Option<u64>, purpose: Purpose) -> ConnKey {
        self.conns.last += 1;
        let key = ConnKey(self.conns.last);
        let life = self.life(from).unwrap_or_default();
        let ends = [End { who: from, life, open: true }, End { who: to, life: 0, open: false }];
        let conn = Conn {
            ends,
            purpose,
            nonce,
            stands: false,
            accepted: false,
            held: Default::default(),
            cut_since: None,
        };
        self.conns.all.insert(key, conn);
        self.line.after_us(CONNECT_TIMEOUT_MS * 1_000, Ev::ConnectTimeout { conn: key });
        if let Some(at) = self.passage(key, 0, Lane::Control) {
            self.line.at(at, Ev::Syn { conn: key });
        }
        key
    }

    /// When something that `end` sends now arrives; `None` while the link is cut.
    fn passage(&mut self, key: ConnKey, end: usize, lane: Lane) -> Option<Instant> {
        let conn = self.conns.all.get(&key)?;
        let (from, to) = (self.host_of(conn.ends[end].who), self.host_of(conn.ends[1 - end].who));
        let now = self.now();
        match self.network.stream(now, from, to, stream(key, end, lane)) {
            Fate::Arrives(times) => times.first().copied(),
            Fate::Held | Fate::Lost => None,
        }
    }

    pub(super) fn syn(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.all.get(&key) else { return };
        let (to, nonce, purpose) = (conn.ends[1].who, conn.nonce, conn.purpose);
        if !self.is_powered(self.host_of(to)) || conn.accepted {
            return;
        }
        let life = self.life(to).filter(|life| nonce.is_none_or(|nonce| nonce == *life));
        let listens = life.filter(|_| self.takes_connections(to, purpose));
        let Some(life) = listens else {
            if let Some(at) = self.passage(key, 1, Lane::Control) {
                self.line.at(at, Ev::Refused { conn: key });
            }
            return;
        };
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        conn.ends[1].life = life;
        conn.ends[1].open = true;
        conn.accepted = true;
        let from = conn.ends[0].who;
        if let Some(at) = self.passage(key, 1, Lane::Control) {
            self.line.at(at, Ev::SynAck { conn: key });
        }
        match (to, from, purpose) {
            (Proc::Osd(osd), Proc::Osd(peer), Purpose::Peer(_)) => self.osd_accepted_peer(osd, key, peer),
            (Proc::Osd(osd), Proc::Client(client), Purpose::Objects(_)) => {
                self.osd_accepted_client(osd, key, client);
            }
            _ => {}
        }
    }

    fn takes_connections(&self, to: Proc, purpose: Purpose) -> bool {
        match (to, purpose) {
            (Proc::Mon(n), Purpose::Monitor(_)) => !self.is_leaderless(n),
            (Proc::Osd(_), Purpose::Peer(_) | Purpose::Objects(_)) => true,
            _ => false,
        }
    }

    pub(super) fn syn_ack(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        if conn.stands || !conn.ends[0].open {
            return;
        }
        conn.stands = true;
        let (who, life, purpose) = (conn.ends[0].who, conn.ends[0].life, conn.purpose);
        if !self.lives(who, life) {
            return;
        }
        match (who, purpose) {
            (_, Purpose::Monitor(attempt)) => self.session_connected(who, attempt),
            (Proc::Osd(osd), Purpose::Peer(attempt)) => self.osd_connected(osd, attempt, key),
            (Proc::Client(n), Purpose::Objects(conn)) => self.client_connected(n, conn),
            _ => {}
        }
    }

    pub(super) fn connect_failed(&mut self, key: ConnKey, refused: bool) {
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        if conn.stands || !conn.ends[0].open {
            return;
        }
        conn.ends[0].open = false;
        let (who, life, purpose) = (conn.ends[0].who, conn.ends[0].life, conn.purpose);
        let accepted = conn.ends[1].open;
        if accepted {
            self.send_fin(key, 0);
        }
        self.bury(key);
        if !self.lives(who, life) {
            return;
        }
        match (who, purpose) {
            (_, Purpose::Monitor(attempt)) => self.session_lost(who, attempt),
            (Proc::Osd(osd), Purpose::Peer(attempt)) => self.osd_unreachable(osd, attempt, refused),
            (Proc::Client(n), Purpose::Objects(conn)) => self.client_closed(n, conn),
            _ => {}
        }
    }

    /// Sends over a connection; nothing happens when it is over.
    pub(super) fn send(&mut self, from: Proc, key: ConnKey, lane: Lane, packet: Packet) {
        let Some(end) = self.conns.end_of(key, from) else { return };
        self.send_from(key, end, lane, packet);
    }

    fn send_from(&mut self, key: ConnKey, end: usize, lane: Lane, packet: Packet) {
        let waits = self.conns.all.get(&key).is_some_and(|conn| !conn.held[end].is_empty());
        let at = if waits { None } else { self.passage(key, end, lane) };
        match at {
            Some(at) => {
                self.line.at(at, Ev::Packet { conn: key, end: 1 - end, packet });
            }
            None => {
                let now = self.now();
                let Some(conn) = self.conns.all.get_mut(&key) else { return };
                conn.held[end].push_back((lane, packet));
                if conn.cut_since.is_none() {
                    conn.cut_since = Some(now);
                    self.line.after_us(IDLE_TIMEOUT_MS * 1_000, Ev::Silence { conn: key, since: now });
                }
            }
        }
    }

    fn send_fin(&mut self, key: ConnKey, end: usize) {
        self.send_from(key, end, Lane::Control, Packet::Fin);
    }

    /// Closes one's end.
    pub(super) fn close(&mut self, who: Proc, key: ConnKey) {
        let Some(end) = self.conns.end_of(key, who) else { return };
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        conn.ends[end].open = false;
        if conn.ends[1 - end].open {
            self.send_fin(key, end);
        }
        self.bury(key);
    }

    /// Closes the end for which a session has opened it.
    pub(super) fn close_attempt(&mut self, who: Proc, attempt: cairn_mon::session::core::Attempt) {
        let purpose = Purpose::Monitor(attempt);
        let is_it = |conn: &Conn| conn.ends[0].who == who && conn.ends[0].open && conn.purpose == purpose;
        let found = self.conns.all.iter().find(|(_, conn)| is_it(conn)).map(|(key, _)| *key);
        if let Some(key) = found {
            self.close(who, key);
        }
    }

    /// The connection over which a session speaks.
    pub(super) fn session_conn(&self, who: Proc) -> Option<ConnKey> {
        let is_it = |conn: &Conn| {
            conn.ends[0].who == who
                && conn.ends[0].open
                && conn.stands
                && matches!(conn.purpose, Purpose::Monitor(_))
        };
        self.conns.all.iter().rev().find(|(_, conn)| is_it(conn)).map(|(key, _)| *key)
    }

    /// The connection that a client calls so.
    pub(super) fn object_conn(&self, client: u16, id: cairn_client::core::ConnId) -> Option<ConnKey> {
        let who = Proc::Client(client);
        let is_it = |conn: &Conn| {
            conn.ends[0].who == who && conn.ends[0].open && conn.purpose == Purpose::Objects(id)
        };
        self.conns.all.iter().find(|(_, conn)| is_it(conn)).map(|(key, _)| *key)
    }

    /// Connections over which a monitor is asked.
    pub(super) fn conns_to(&self, to: Proc) -> Vec<ConnKey> {
        let is_it = |conn: &Conn| conn.ends[1].who == to && conn.ends[1].open;
        self.conns.all.iter().filter(|(_, conn)| is_it(conn)).map(|(key, _)| *key).collect()
    }

    fn bury(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.all.get(&key) else { return };
        if conn.ends.iter().any(|end| end.open) {
            return;
        }
        self.conns.all.remove(&key);
        for (end, lane) in [0, 1].into_iter().flat_map(|end| Lane::ALL.map(|lane| (end, lane))) {
            self.network.forget(stream(key, end, lane));
        }
    }

    pub(super) fn packet(&mut self, key: ConnKey, end: usize, packet: Packet) {
        if !self.conns.is_open(key, end) {
            return;
        }
        let Some(conn) = self.conns.all.get(&key) else { return };
        let (who, life, purpose) = (conn.ends[end].who, conn.ends[end].life, conn.purpose);
        if !self.lives(who, life) {
            return;
        }
        if let Packet::Fin = packet {
            return self.ended(key, end);
        }
        match (who, packet) {
            (Proc::Mon(n), Packet::MonCall(call)) => self.mon_call(n, key, *call),
            (Proc::Mon(n), Packet::MonNews(news)) => self.mon_news(n, *news),
            (Proc::Mon(n), Packet::MonSubscribe(wants)) => {
                if let Some(other) = self.conns.process(key, 0) {
                    self.mon_subscribe(n, key, other, wants);
                }
            }
            (_, Packet::MonAnswer(answer)) => {
                if let Purpose::Monitor(attempt) = purpose {
                    self.session_answer(who, attempt, *answer);
                }
            }
            (_, Packet::MonPublication(publication)) => {
                if let Purpose::Monitor(attempt) = purpose {
                    self.session_publication(who, attempt, publication.0);
                }
            }
            (Proc::Osd(osd), Packet::Peer(message)) => self.osd_peer(osd, key, *message),
            (Proc::Osd(osd), Packet::Request(request, payload)) => {
                self.osd_request(osd, key, request, payload)
            }
            (Proc::Osd(osd), Packet::NotifyAck(ack)) => self.osd_notify_ack(osd, key, *ack),
            (Proc::Client(n), Packet::Reply(reply, payload)) => {
                if let Purpose::Objects(conn) = purpose {
                    self.client_reply(n, conn, *reply, payload);
                }
            }
            (Proc::Client(n), Packet::Watch(event)) => {
                if let Purpose::Objects(conn) = purpose {
                    self.client_watch_event(n, conn, *event);
                }
            }
            (who, packet) => self.fail(Kind::Safety, format!("{who} was sent {packet:?}")),
        }
    }

    /// An end hears that the connection is over.
    fn ended(&mut self, key: ConnKey, end: usize) {
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        if !conn.ends[end].open {
            return;
        }
        conn.ends[end].open = false;
        let (who, life, purpose) = (conn.ends[end].who, conn.ends[end].life, conn.purpose);
        let stood = conn.stands || end == 1;
        self.bury(key);
        if !self.lives(who, life) {
            return;
        }
        match (who, purpose) {
            (Proc::Mon(n), _) => self.mon_closed(n, key),
            (_, Purpose::Monitor(attempt)) => self.session_lost(who, attempt),
            (Proc::Osd(osd), Purpose::Peer(_)) if stood => self.osd_peer_closed(osd, key),
            (Proc::Osd(osd), Purpose::Peer(attempt)) => self.osd_unreachable(osd, attempt, true),
            (Proc::Osd(osd), Purpose::Objects(_)) => self.osd_client_closed(osd, key),
            (Proc::Client(n), Purpose::Objects(conn)) => self.client_closed(n, conn),
            _ => {}
        }
    }

    pub(super) fn dropped(&mut self, key: ConnKey, end: usize) {
        self.ended(key, end);
    }

    pub(super) fn silence(&mut self, key: ConnKey, since: Instant) {
        let Some(conn) = self.conns.all.get_mut(&key) else { return };
        if conn.cut_since != Some(since) {
            return;
        }
        conn.held = Default::default();
        for end in [0, 1] {
            // Each by itself: one of them may be paused.
            self.line.after_us(end as u64, Ev::Dropped { conn: key, end });
        }
    }

    /// Links were cut: what crosses them is silent from now on.
    pub(super) fn links_cut(&mut self) {
        let now = self.now();
        let keys: Vec<ConnKey> = self.conns.all.keys().copied().collect();
        for key in keys {
            let Some(conn) = self.conns.all.get(&key) else { continue };
            let hosts = [self.host_of(conn.ends[0].who), self.host_of(conn.ends[1].who)];
            let is_cut = self.network.is_cut(hosts[0], hosts[1]) || self.network.is_cut(hosts[1], hosts[0]);
            if is_cut && conn.cut_since.is_none() {
                if let Some(conn) = self.conns.all.get_mut(&key) {
                    conn.cut_since = Some(now);
                }
                self.line.after_us(IDLE_TIMEOUT_MS * 1_000, Ev::Silence { conn: key, since: now });
            }
        }
    }

    /// Links are whole again: what waited for them goes on.
    pub(super) fn links_mended(&mut self) {
        let keys: Vec<ConnKey> = self.conns.all.keys().copied().collect();
        for key in keys {
            let Some(conn) = self.conns.all.get(&key) else { continue };
            let hosts = [self.host_of(conn.ends[0].who), self.host_of(conn.ends[1].who)];
            let cut = [self.network.is_cut(hosts[0], hosts[1]), self.network.is_cut(hosts[1], hosts[0])];
            for end in [0, 1] {
                if cut[end] {
                    continue;
                }
                let Some(conn) = self.conns.all.get_mut(&key) else { continue };
                for (lane, packet) in std::mem::take(&mut conn.held[end]) {
                    self.send_from(key, end, lane, packet);
                }
            }
            if cut == [false, false]
                && let Some(conn) = self.conns.all.get_mut(&key)
            {
                conn.cut_since = None;
            }
        }
    }

    /// A process is gone; its host tells the other ends, if it still has power.
    pub(super) fn process_gone(&mut self, who: Proc, power_cut: bool) {
        let keys: Vec<ConnKey> = self.conns.all.keys().copied().collect();
        for key in keys {
            let Some(end) = self.conns.end_of(key, who) else { continue };
            if !power_cut {
                self.close(who, key);
                continue;
            }
            let Some(conn) = self.conns.all.get_mut(&key) else { continue };
            conn.ends[end].open = false;
            conn.held[end].clear();
            if conn.ends[1 - end].open {
                self.line.after_us(IDLE_TIMEOUT_MS * 1_000, Ev::Dropped { conn: key, end: 1 - end });
            }
            self.bury(key);
        }
    }

    /// A host has power again: it knows nothing of the connections it had.
    pub(super) fn reset_strangers(&mut self, host: crate::network::HostId) {
        let keys: Vec<ConnKey> = self.conns.all.keys().copied().collect();
        for key in keys {
            let Some(conn) = self.conns.all.get(&key) else { continue };
            for end in [0, 1] {
                if self.host_of(conn.ends[end].who) == host
                    && !conn.ends[end].open
                    && conn.ends[1 - end].open
                    && conn.accepted
                {
                    self.line.after_us(KEEP_ALIVE_MS * 1_000, Ev::Dropped { conn: key, end: 1 - end });
                }
            }
        }
    }

    /// Which OSD is meant to listen at an address: it tells by itself.
    pub(super) fn listener(addr: &EntityAddr) -> Proc {
        match addr.socket.port() {
            port @ 7000..8000 => Proc::Osd(cairn_types::OsdId(i32::from(port) - 7000)),
            port => Proc::Osd(cairn_types::OsdId(i32::from(port) - 8000)),
        }
    }
}
