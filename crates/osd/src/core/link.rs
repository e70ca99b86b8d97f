//! A link: messages of groups from one run of an OSD to one run of another, in order and each once.
//!
//! The sender numbers what it sends, by lane, and keeps it until it is acknowledged. A connection that breaks takes
//! what was under way with it; over the next one the receiver first says how much it has, and the rest is sent again.
//! A link ends with a run of either side, or when the map has marked the receiver down: what was not received then
//! belongs to an interval that is over.

use super::credit::{Promises, Spending};
use super::message::{PeerMessage, Received};
use super::{Amount, Attempt, ConnId, Credit, Effect};
use cairn_pg::{Message, Time};
use cairn_types::{EntityAddr, PgId};
use cairn_wire::Lane;
use std::collections::VecDeque;

/// The lanes that groups use.
const LANES: [Lane; 2] = [Lane::Client, Lane::Recovery];

impl Received {
    pub(super) fn of(&self, lane: Lane) -> u64 {
        if lane == Lane::Recovery { self.recovery } else { self.client }
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut u64 {
        if lane == Lane::Recovery { &mut self.recovery } else { &mut self.client }
    }

    /// Messages received since `earlier`.
    pub(super) fn since(&self, earlier: &Received) -> u64 {
        (self.client - earlier.client) + (self.recovery - earlier.recovery)
    }
}

/// One lane's messages that were not acknowledged; the first has the number after `acked`.
#[derive(Debug, Default)]
struct Outbox {
    acked: u64,
    messages: VecDeque<(PgId, Message)>,
}

impl Outbox {
    /// False if more is acknowledged than was sent, or less than before.
    fn acknowledge(&mut self, received: u64) -> bool {
        let Some(count) = received.checked_sub(self.acked) else { return false };
        if count > self.messages.len() as u64 {
            return false;
        }
        self.messages.drain(..count as usize);
        self.acked = received;
        true
    }
}

/// How a link's connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    /// None; another attempt at this time.
    Idle(Time),
    /// Being made.
    Connecting(Attempt),
    /// Made; the other side has not answered the greeting.
    Greeting(ConnId),
    /// In use.
    Open(ConnId),
}

/// The sender's side of a link.
#[derive(Debug)]
pub(super) struct Sender {
    link: u64,
    pub connection: Connection,
    outboxes: [Outbox; LANES.len()],
    /// Room at the receiver.
    pub room: Spending,
}

impl Sender {
    pub fn new(link: u64, now: Time) -> Sender {
        let (outboxes, room) = Default::default();
        Sender { link, connection: Connection::Idle(now), outboxes, room }
    }

    /// Whether everything was received.
    pub fn is_empty(&self) -> bool {
        self.outboxes.iter().all(|outbox| outbox.messages.is_empty())
    }

    /// The connection, if there is one.
    pub fn conn(&self) -> Option<ConnId> {
        match self.connection {
            Connection::Greeting(conn) | Connection::Open(conn) => Some(conn),
            Connection::Idle(_) | Connection::Connecting(_) => None,
        }
    }

    /// The connection, if it is in use.
    pub fn open_conn(&self) -> Option<ConnId> {
        if let Connection::Open(conn) = self.connection { Some(conn) } else { None }
    }

    pub fn send(&mut self, pgid: PgId, message: Message, out: &mut Vec<Effect>) {
        let lane = message.body.lane();
        self.room.sent(Amount::of_message(&message));
        let outbox = &mut self.outboxes[usize::from(lane == Lane::Recovery)];
        if let Connection::Open(conn) = self.connection {
            let seq = outbox.acked + outbox.messages.len() as u64 + 1;
            let message = PeerMessage::Group { seq, pgid, message: message.clone() };
            out.push(Effect::Send { conn, lane, message });
        }
        outbox.messages.push_back((pgid, message));
    }

    /// A connection was made: greet.
    pub fn greet(&mut self, conn: ConnId, from: EntityAddr, to: EntityAddr, out: &mut Vec<Effect>) {
        self.connection = Connection::Greeting(conn);
        let message = PeerMessage::Hello { link: self.link, from, to };
        out.push(Effect::Send { conn, lane: Lane::Control, message });
    }

    /// The greeting is answered: what was not received is sent again. False if the other side does not know this
    /// link as it should.
    pub fn welcomed(&mut self, conn: ConnId, received: Received, out: &mut Vec<Effect>) -> bool {
        if self.connection != Connection::Greeting(conn) || !self.acknowledged(received) {
            return false;
        }
        self.connection = Connection::Open(conn);
        for (lane, outbox) in LANES.into_iter().zip(&self.outboxes) {
            for (seq, (pgid, message)) in (outbox.acked + 1..).zip(&outbox.messages) {
                let message = PeerMessage::Group { seq, pgid: *pgid, message: message.clone() };
                out.push(Effect::Send { conn, lane, message });
            }
        }
        true
    }

    /// False if that cannot be.
    pub fn acknowledged(&mut self, received: Received) -> bool {
        LANES.into_iter().zip(&mut self.outboxes).all(|(lane, outbox)| outbox.acknowledge(received.of(lane)))
    }

    /// The other side has forgotten this link: everything it did not acknowledge goes over a new one.
    pub fn renew(&mut self, link: u64) {
        self.link = link;
        self.outboxes.iter_mut().for_each(|outbox| outbox.acked = 0);
        let messages = self.outboxes.iter().flat_map(|outbox| &outbox.messages);
        let again = messages.map(|(_, message)| Amount::of_message(message)).fold(Amount::ZERO, Amount::plus);
        self.room = Spending::begun_with(again);
    }
}

/// The receiver's side of a link.
#[derive(Debug)]
pub(super) struct Receiver {
    /// The run that sends.
    pub from: EntityAddr,
    pub link: u64,
    /// Over which it comes now.
    pub conn: Option<ConnId>,
    pub received: Received,
    acked: Received,
    /// When to acknowledge.
    pub ack_at: Option<Time>,
    /// Room here for what is sent over the link.
    pub room: Promises,
}

/// What a message of a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The next.
    Next,
    /// Received before.
    Again,
    /// Something before it is missing: not what a peer does.
    Gap,
}

impl Receiver {
    pub fn new(from: EntityAddr, link: u64, conn: ConnId) -> Receiver {
        let (received, acked, room) = Default::default();
        Receiver { from, link, conn: Some(conn), received, acked, ack_at: None, room }
    }

    /// The answer to a greeting.
    pub fn welcome(&mut self, conn: ConnId, credit: Credit, out: &mut Vec<Effect>) {
        self.conn = Some(conn);
        self.acked = self.received;
        self.ack_at = None;
        let message = PeerMessage::Welcome { received: self.received, credit };
        out.push(Effect::Send { conn, lane: Lane::Control, message });
    }

    pub fn judge(&self, lane: Lane, seq: u64) -> Arrival {
        let next = self.received.of(lane) + 1;
        match seq.cmp(&next) {
            std::cmp::Ordering::Less => Arrival::Again,
            std::cmp::Ordering::Equal => Arrival::Next,
            std::cmp::Ordering::Greater => Arrival::Gap,
        }
    }

    /// A message was taken. It is acknowledged with the others of its time; true: at once.
    pub fn took(&mut self, message: &Message, ack_at: Time, ack_every: u64) -> bool {
        *self.received.of_mut(message.body.lane()) += 1;
        self.room.received(Amount::of_message(message));
        self.ack_at.get_or_insert(ack_at);
        self.received.since(&self.acked) >= ack_every || self.room.is_low()
    }

    /// Says what was received, and how much room there is.
    pub fn acknowledge(&mut self, credit: Credit, out: &mut Vec<Effect>) {
        self.ack_at = None;
        if let Some(conn) = self.conn {
            self.acked = self.received;
            let message = PeerMessage::Ack { received: self.received, credit };
            out.push(Effect::Send { conn, lane: Lane::Control, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fullness::Left;
    use super::*;
    use cairn_pg::Body;
    use cairn_types::{Epoch, PoolId};

    const PG: PgId = PgId { pool: PoolId(1), seed: 0 };

    fn message(n: u64) -> Message {
        Message { epoch: Epoch(1), body: Body::LeaseGrant { seq: n } }
    }

    const LEFT: Left = {
        let all = Amount { data: 1 << 30, index: 1 << 30 };
        Left { at_most: all, at_least: all }
    };

    fn object() -> cairn_pg::ObjectKey {
        cairn_pg::ObjectKey::new(cairn_types::ObjectId {
            pool: PoolId(1),
            hash: 0,
            namespace: String::new(),
            key: String::new(),
            name: "a".into(),
            snap: cairn_types::SnapId::HEAD,
        })
    }

    fn sent(out: &mut Vec<Effect>) -> Vec<u64> {
        let seq = |effect| match effect {
            Effect::Send { message: PeerMessage::Group { seq, .. }, .. } => Some(seq),
            _ => None,
        };
        out.drain(..).filter_map(seq).collect()
    }

    #[test]
    fn what_was_not_received_is_sent_again_over_the_next_connection() {
        let mut out = Vec::new();
        let addr = EntityAddr { socket: "10.0.0.1:1".parse().unwrap(), nonce: 1 };
        let mut sender = Sender::new(1, Time(0));
        sender.send(PG, message(1), &mut out);
        sender.greet(ConnId(1), addr, addr, &mut out);
        sender.send(PG, message(2), &mut out);
        assert_eq!(sent(&mut out), [], "nothing before the greeting is answered");
        assert!(sender.welcomed(ConnId(1), Received::default(), &mut out));
        sender.send(PG, message(3), &mut out);
        assert_eq!(sent(&mut out), [1, 2, 3]);
        assert!(sender.acknowledged(Received { client: 1, recovery: 0 }));
        sender.greet(ConnId(2), addr, addr, &mut out);
        assert!(sender.welcomed(ConnId(2), Received { client: 2, recovery: 0 }, &mut out));
        assert_eq!(sent(&mut out), [3]);
        assert!(!sender.acknowledged(Received { client: 4, recovery: 0 }), "more than was sent");
        assert!(!sender.acknowledged(Received { client: 1, recovery: 0 }), "less than before");
        sender.renew(2);
        sender.greet(ConnId(3), addr, addr, &mut out);
        assert!(sender.welcomed(ConnId(3), Received::default(), &mut out));
        assert_eq!(sent(&mut out), [1], "the one that was left, over a new link");
    }

    #[test]
    fn a_receiver_takes_each_once_and_in_order() {
        let addr = EntityAddr { socket: "10.0.0.1:1".parse().unwrap(), nonce: 1 };
        let mut out = Vec::new();
        let mut receiver = Receiver::new(addr, 1, ConnId(1));
        assert_eq!(receiver.judge(Lane::Client, 1), Arrival::Next);
        // Room that is low is told of at once.
        receiver.room.say(LEFT, Amount::ZERO, 1);
        assert!(!receiver.took(&message(1), Time(9), 2));
        assert_eq!(receiver.judge(Lane::Client, 1), Arrival::Again);
        assert_eq!(receiver.judge(Lane::Client, 3), Arrival::Gap);
        assert_eq!(receiver.judge(Lane::Recovery, 1), Arrival::Next, "lanes count by themselves");
        assert_eq!((receiver.ack_at, out.len()), (Some(Time(9)), 0));
        let pull = Body::PullFailed { object: object(), need: Default::default() };
        let pull = Message { epoch: Epoch(1), body: pull };
        assert!(receiver.took(&pull, Time(12), 2), "the second one is acknowledged at once");
        receiver.acknowledge(Credit::default(), &mut out);
        assert_eq!((receiver.ack_at, out.len()), (None, 1));
    }
}
