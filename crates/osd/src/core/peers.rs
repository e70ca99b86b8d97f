//! The other OSDs: links to and from them, whether they live, and what the monitors are told when they do not.

use super::fullness::{Left, Room};
use super::link::{Arrival, Connection, Receiver, Sender};
use super::message::PeerMessage;
use super::{Amount, Attempt, Config, ConnId, Effect};
use cairn_mon::monitor::DaemonNews;
use cairn_mon::service::{Evidence, FailureReport};
use cairn_pg::{Message, Time};
use cairn_types::{EntityAddr, Epoch, OsdId, OsdMap, PgId};
use cairn_wire::op::{Ping, Pong};
use cairn_wire::{GoodbyeReason, Lane};
use std::collections::{BTreeMap, BTreeSet};

/// One run of another OSD, as this OSD's map has it.
#[derive(Debug)]
struct Peer {
    addr: EntityAddr,
    up_from: Epoch,
    sender: Sender,
    /// When something was last heard of it.
    heard: Time,
    /// The monitors were told that it is dead.
    reported: bool,
    /// Attempts to reach it are refused.
    refused: bool,
    next_ping: u64,
}

/// What a connection is to this OSD.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// It was made here.
    Out,
    /// It was accepted; `true` once it has greeted.
    In(bool),
}

/// A message for a group.
#[derive(Debug)]
pub(super) struct Incoming {
    pub from: OsdId,
    pub pgid: PgId,
    pub message: Message,
}

/// How this OSD stands when a message comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub epoch: Epoch,
    /// There is room in memory for one that has to wait.
    pub may_come: bool,
    /// Of the store.
    pub left: Left,
}

/// The other OSDs.
#[derive(Debug)]
pub(super) struct Peers {
    whoami: OsdId,
    cluster: EntityAddr,
    config: Config,
    peers: BTreeMap<OsdId, Peer>,
    receivers: BTreeMap<OsdId, Receiver>,
    conns: BTreeMap<ConnId, (OsdId, Side)>,
    attempts: BTreeMap<Attempt, OsdId>,
    /// Those whose life is watched.
    watched: BTreeSet<OsdId>,
    /// Newest runs in the map, by which old ones are refused.
    runs: BTreeMap<OsdId, u64>,
    /// Those of them that are down.
    down: BTreeSet<OsdId>,
    /// Who is to hear at once what was received and how much room there is.
    to_hear: BTreeSet<OsdId>,
    next_link: u64,
    next_attempt: u64,
    /// When they are asked next; `None` while this OSD is not up.
    heartbeat_at: Option<Time>,
}

impl Peers {
    pub fn new(whoami: OsdId, cluster: EntityAddr, config: Config) -> Peers {
        Peers {
            whoami,
            cluster,
            config,
            peers: BTreeMap::new(),
            receivers: BTreeMap::new(),
            conns: BTreeMap::new(),
            attempts: BTreeMap::new(),
            watched: BTreeSet::new(),
            runs: BTreeMap::new(),
            down: BTreeSet::new(),
            to_hear: BTreeSet::new(),
            next_link: 0,
            next_attempt: 0,
            heartbeat_at: None,
        }
    }

    /// When [`Peers::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Time> {
        let retry = self.peers.values().filter_map(|peer| match peer.sender.connection {
            Connection::Idle(at) => Some(at),
            _ => None,
        });
        let acks = self.receivers.values().filter_map(|receiver| receiver.ack_at);
        retry.chain(acks).chain(self.heartbeat_at).min()
    }

    /// A new map. Links to runs that are over end. `wanted`: those whose life this OSD watches; `None` while it is not
    /// up itself.
    pub fn on_map(
        &mut self,
        now: Time,
        map: &OsdMap,
        wanted: Option<BTreeSet<OsdId>>,
        out: &mut Vec<Effect>,
    ) {
        let nonces = map.osds.iter().filter_map(|(osd, info)| Some((*osd, info.cluster?.nonce)));
        self.runs = nonces.collect();
        // Room that was promised to one that was removed is nobody's any more.
        self.receivers.retain(|osd, _| map.osds.contains_key(osd));
        self.down = map.osds.iter().filter(|(_, info)| !info.up).map(|(osd, _)| *osd).collect();
        self.heartbeat_at = match &wanted {
            Some(_) => self.heartbeat_at.or(Some(now.plus_ms(self.config.heartbeat_interval_ms))),
            None => None,
        };
        self.watched = wanted.unwrap_or_default();
        let watched = &self.watched;
        let gone = |(osd, peer): (&OsdId, &Peer)| {
            let info = map.osds.get(osd);
            let same = info.is_some_and(|info| {
                info.up && info.cluster == Some(peer.addr) && info.up_from == peer.up_from
            });
            let needed = watched.contains(osd) || !peer.sender.is_empty();
            (!same || !needed).then_some(*osd)
        };
        let gone: Vec<OsdId> = self.peers.iter().filter_map(gone).collect();
        for osd in gone {
            self.drop_peer(osd, out);
        }
        for osd in self.watched.clone() {
            self.peer(now, osd, map);
        }
        self.connect(now, out);
    }

    fn drop_peer(&mut self, osd: OsdId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.remove(&osd) else { return };
        if let Some(conn) = peer.sender.conn() {
            self.conns.remove(&conn);
            out.push(Effect::ClosePeer { conn, reason: GoodbyeReason::Done });
        }
        // An attempt under way is closed when it succeeds.
        self.attempts.retain(|_, to| *to != osd);
    }

    /// The peer, made if the map has it up.
    fn peer(&mut self, now: Time, osd: OsdId, map: &OsdMap) -> Option<&mut Peer> {
        if osd == self.whoami {
            return None;
        }
        if !self.peers.contains_key(&osd) {
            let info = map.osds.get(&osd).filter(|info| info.up)?;
            self.next_link += 1;
            let peer = Peer {
                addr: info.cluster?,
                up_from: info.up_from,
                sender: Sender::new(self.next_link, now),
                heard: now,
                reported: false,
                refused: false,
                next_ping: 0,
            };
            self.peers.insert(osd, peer);
        }
        self.peers.get_mut(&osd)
    }

    /// Sends to a copy of a group. To one that is down in the map nothing is sent: its interval is over.
    pub fn send(
        &mut self,
        now: Time,
        to: OsdId,
        pgid: PgId,
        message: Message,
        map: &OsdMap,
        out: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peer(now, to, map) else { return };
        peer.sender.send(pgid, message, out);
        if matches!(peer.sender.connection, Connection::Idle(_)) {
            self.connect(now, out);
        }
    }

    /// Makes the connections that are due.
    fn connect(&mut self, now: Time, out: &mut Vec<Effect>) {
        for (&osd, peer) in &mut self.peers {
            if let Connection::Idle(at) = peer.sender.connection
                && at <= now
            {
                self.next_attempt += 1;
                let attempt = Attempt(self.next_attempt);
                self.attempts.insert(attempt, osd);
                peer.sender.connection = Connection::Connecting(attempt);
                out.push(Effect::Connect { attempt, peer: osd, addr: peer.addr });
            }
        }
    }

    pub fn on_connected(&mut self, attempt: Attempt, conn: ConnId, out: &mut Vec<Effect>) {
        let osd = self.attempts.remove(&attempt);
        let peer = osd.and_then(|osd| Some((osd, self.peers.get_mut(&osd)?)));
        match peer {
            Some((osd, peer)) if peer.sender.connection == Connection::Connecting(attempt) => {
                self.conns.insert(conn, (osd, Side::Out));
                peer.sender.greet(conn, self.cluster, peer.addr, out);
            }
            _ => out.push(Effect::ClosePeer { conn, reason: GoodbyeReason::Done }),
        }
    }

    pub fn on_unreachable(&mut self, now: Time, attempt: Attempt, refused: bool, out: &mut Vec<Effect>) {
        let Some(osd) = self.attempts.remove(&attempt) else { return };
        let Some(peer) = self.peers.get_mut(&osd) else { return };
        if peer.sender.connection != Connection::Connecting(attempt) {
            return;
        }
        peer.sender.connection = Connection::Idle(now.plus_ms(self.config.reconnect_ms));
        // At once, and then with every heartbeat.
        let first = refused && !peer.refused;
        peer.refused = refused;
        if first && self.heartbeat_at.is_some() {
            peer.reported = true;
            out.push(report(self.whoami, osd, peer.up_from, Evidence::Refused));
        }
    }

    pub fn on_accepted(&mut self, conn: ConnId, osd: OsdId) {
        self.conns.insert(conn, (osd, Side::In(false)));
    }

    pub fn on_closed(&mut self, now: Time, conn: ConnId, out: &mut Vec<Effect>) {
        let Some((osd, side)) = self.conns.remove(&conn) else { return };
        match side {
            Side::Out => {
                if let Some(peer) = self.peers.get_mut(&osd).filter(|peer| peer.sender.conn() == Some(conn)) {
                    // At once: if its process is gone, the attempt will be refused. Whoever does not answer a greeting
                    // will not do so at once.
                    let was_open = peer.sender.open_conn().is_some();
                    let wait_ms = if was_open { 0 } else { self.config.reconnect_ms };
                    peer.sender.connection = Connection::Idle(now.plus_ms(wait_ms));
                    self.connect(now, out);
                }
            }
            Side::In(_) => {
                if let Some(receiver) = self.receivers.get_mut(&osd).filter(|r| r.conn == Some(conn)) {
                    receiver.conn = None;
                    receiver.ack_at = None;
                }
            }
        }
    }

    fn close(&mut self, now: Time, conn: ConnId, out: &mut Vec<Effect>) {
        out.push(Effect::ClosePeer { conn, reason: GoodbyeReason::Done });
        self.on_closed(now, conn, out);
    }

    /// A peer does what none does: the connection is closed, and another one may do better, a little later.
    fn misbehaved(&mut self, now: Time, conn: ConnId, out: &mut Vec<Effect>) {
        let later = now.plus_ms(self.config.reconnect_ms);
        let Some((osd, side)) = self.conns.get(&conn).copied() else { return };
        if let (Side::Out, Some(peer)) = (side, self.peers.get_mut(&osd)) {
            peer.sender.connection = Connection::Idle(later);
        }
        self.close(now, conn, out);
    }

    /// A message. One for a group is given back, if there is room for it here: if not, the connection is closed and it comes
    /// again.
    pub fn on_message(
        &mut self,
        now: Time,
        conn: ConnId,
        message: PeerMessage,
        here: Here,
        out: &mut Vec<Effect>,
    ) -> Option<Incoming> {
        let Here { epoch, may_come, left } = here;
        let (osd, side) = *self.conns.get(&conn)?;
        match (side, message) {
            (Side::In(false), PeerMessage::Hello { link, from, to }) => {
                self.greeted(now, conn, osd, (link, from, to), left, out);
            }
            (Side::In(true), PeerMessage::Group { seq, pgid, message }) => {
                let lane = message.body.lane();
                let receiver = self.receivers.get_mut(&osd).filter(|r| r.conn == Some(conn))?;
                match receiver.judge(lane, seq) {
                    Arrival::Next if may_come => {
                        let ack_at = now.plus_ms(self.config.ack_delay_ms);
                        if receiver.took(&message, ack_at, self.config.ack_every) {
                            self.to_hear.insert(osd);
                        }
                        self.heard(now, osd, out);
                        return Some(Incoming { from: osd, pgid, message });
                    }
                    Arrival::Again => {}
                    Arrival::Next | Arrival::Gap => self.misbehaved(now, conn, out),
                }
            }
            (Side::In(true), PeerMessage::Ping(Ping { seq, .. })) => {
                let message = PeerMessage::Pong(Pong { seq, epoch });
                out.push(Effect::Send { conn, lane: Lane::Control, message });
                // Also who has nothing to send knows how much room there is.
                self.to_hear.insert(osd);
                self.heard(now, osd, out);
            }
            (Side::In(true), PeerMessage::Heard { credit }) => {
                let receiver = self.receivers.get_mut(&osd).filter(|r| r.conn == Some(conn))?;
                receiver.room.heard(credit);
            }
            (Side::Out, PeerMessage::Welcome { received, credit }) => {
                self.welcomed(now, conn, osd, received, out);
                let peer = self.peers.get_mut(&osd).filter(|peer| peer.sender.open_conn() == Some(conn))?;
                peer.sender.room.told(credit);
            }
            (Side::Out, PeerMessage::Ack { received, credit }) => {
                let peer = self.peers.get_mut(&osd).filter(|peer| peer.sender.open_conn() == Some(conn))?;
                peer.sender.room.told(credit);
                if !peer.sender.acknowledged(received) {
                    self.misbehaved(now, conn, out);
                }
                self.heard(now, osd, out);
            }
            (Side::Out, PeerMessage::Pong(_)) => self.heard(now, osd, out),
            _ => self.misbehaved(now, conn, out),
        }
        None
    }

    fn greeted(
        &mut self,
        now: Time,
        conn: ConnId,
        osd: OsdId,
        (link, from, to): (u64, EntityAddr, EntityAddr),
        left: Left,
        out: &mut Vec<Effect>,
    ) {
        let known = self.receivers.get(&osd);
        let is_old = self.runs.get(&osd).is_some_and(|newest| from.nonce < *newest)
            || known.is_some_and(|known| (from.nonce, link) < (known.from.nonce, known.link));
        if to != self.cluster || is_old {
            self.misbehaved(now, conn, out);
            return;
        }
        let same = known.is_some_and(|known| known.from == from && known.link == link);
        if let Some(before) = known.and_then(|known| known.conn) {
            self.close(now, before, out);
        }
        if !same {
            self.receivers.insert(osd, Receiver::new(from, link, conn));
        }
        let (others, senders) = self.promised_beside(osd);
        if let Some(receiver) = self.receivers.get_mut(&osd) {
            let credit = receiver.room.say(left, others, senders);
            receiver.welcome(conn, credit, out);
        }
        self.conns.insert(conn, (osd, Side::In(true)));
    }

    fn welcomed(
        &mut self,
        now: Time,
        conn: ConnId,
        osd: OsdId,
        received: super::Received,
        out: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peers.get_mut(&osd).filter(|peer| peer.sender.conn() == Some(conn)) else {
            return;
        };
        peer.refused = false;
        if peer.sender.welcomed(conn, received, out) {
            self.heard(now, osd, out);
            return;
        }
        self.next_link += 1;
        let link = self.next_link;
        if let Some(peer) = self.peers.get_mut(&osd) {
            peer.sender.renew(link);
        }
        self.misbehaved(now, conn, out);
    }

    fn heard(&mut self, now: Time, osd: OsdId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&osd) else { return };
        peer.heard = now;
        // A refusal stands until its connection works again.
        if peer.reported && !peer.refused {
            peer.reported = false;
            out.push(report(self.whoami, osd, peer.up_from, Evidence::Alive));
        }
    }

    /// Whatever is due.
    pub fn tick(&mut self, now: Time, epoch: Epoch, left: Left, out: &mut Vec<Effect>) {
        let due = self.receivers.iter().filter(|(_, receiver)| receiver.ack_at.is_some_and(|at| at <= now));
        self.to_hear.extend(due.map(|(osd, _)| *osd));
        self.tell_room(left, out);
        if let Some(at) = self.heartbeat_at.filter(|at| *at <= now) {
            self.heartbeat_at = Some(now.plus_ms(self.config.heartbeat_interval_ms));
            // This process did not run for long: it cannot know who was silent.
            let overslept = now.0 - at.0 > self.config.heartbeat_grace_ms / 2;
            self.heartbeat(now, epoch, overslept, out);
        }
        self.connect(now, out);
    }

    /// Whether a change finds room in the store of another OSD, after others that are to be sent.
    pub fn has_room_for(&self, osd: OsdId, takes: Amount, before: Amount) -> Room {
        self.peers.get(&osd).map_or(Room::Unknown, |peer| peer.sender.room.has_room_for(takes, before))
    }

    /// Those that may send something: not those that the map has down, whatever they send is of the past.
    fn senders(&self) -> impl Iterator<Item = (OsdId, &Receiver)> {
        let is_over = |osd: &OsdId, receiver: &Receiver| {
            let newest = self.runs.get(osd).copied().unwrap_or_default();
            receiver.from.nonce < newest || receiver.from.nonce == newest && self.down.contains(osd)
        };
        let all = self.receivers.iter().filter(move |(osd, receiver)| !is_over(osd, receiver));
        all.map(|(osd, receiver)| (*osd, receiver))
    }

    /// Room in this store that others were promised.
    pub fn promised(&self) -> Amount {
        self.senders().fold(Amount::ZERO, |sum, (_, receiver)| sum.plus(receiver.room.open()))
    }

    /// What all but one were promised, and how many there are with that one.
    fn promised_beside(&self, osd: OsdId) -> (Amount, u64) {
        let others = self.senders().filter(|(other, _)| *other != osd);
        others.fold((Amount::ZERO, 1), |(sum, count), (_, receiver)| {
            (sum.plus(receiver.room.open()), count + 1)
        })
    }

    /// A look at the store has told: who has less than is there for it hears of it.
    pub fn room_changed(&mut self, left: Left) {
        let senders = self.senders().count() as u64;
        let poor = self.senders().filter(|(_, receiver)| receiver.room.could_rise(left, senders));
        let poor: Vec<OsdId> = poor.map(|(osd, _)| osd).collect();
        self.to_hear.extend(poor);
    }

    pub fn has_nothing_to_tell(&self) -> bool {
        self.to_hear.is_empty()
    }

    /// Says what was received and how much room there is, to those that are to hear it. When all that has come is handed to the store:
    /// the same bytes must not count as room.
    pub fn tell_room(&mut self, left: Left, out: &mut Vec<Effect>) {
        for osd in std::mem::take(&mut self.to_hear) {
            let (others, senders) = self.promised_beside(osd);
            if let Some(receiver) = self.receivers.get_mut(&osd).filter(|receiver| receiver.conn.is_some()) {
                let credit = receiver.room.say(left, others, senders);
                receiver.acknowledge(credit, out);
            }
        }
    }

    fn heartbeat(&mut self, now: Time, epoch: Epoch, overslept: bool, out: &mut Vec<Effect>) {
        for (&osd, peer) in &mut self.peers {
            if overslept {
                peer.heard = now;
            }
            if let Some(conn) = peer.sender.open_conn() {
                peer.next_ping += 1;
                let message = PeerMessage::Ping(Ping { seq: peer.next_ping, epoch });
                out.push(Effect::Send { conn, lane: Lane::Control, message });
                if let Some(credit) = peer.sender.room.heard() {
                    let message = PeerMessage::Heard { credit };
                    out.push(Effect::Send { conn, lane: Lane::Control, message });
                }
            }
            let for_ms = now.0 - peer.heard.0.min(now.0);
            let evidence = match peer.refused {
                true => Some(Evidence::Refused),
                false if for_ms >= self.config.heartbeat_grace_ms => Some(Evidence::Silence { for_ms }),
                false => None,
            };
            if let Some(evidence) = evidence {
                peer.reported = true;
                out.push(report(self.whoami, osd, peer.up_from, evidence));
            }
        }
    }
}

fn report(reporter: OsdId, target: OsdId, up_from: Epoch, evidence: Evidence) -> Effect {
    Effect::Tell(DaemonNews::Failure(FailureReport { reporter, target, up_from, evidence }))
}
