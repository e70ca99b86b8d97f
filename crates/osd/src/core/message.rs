//! What OSDs say to each other. Plain data; its bytes are `crate::message`'s.
//!
//! Each OSD connects to those it has something to tell and tells it over its own connection, so between two OSDs
//! that talk there are two connections, and one *link* in each direction. A link outlives its connections: what
//! was sent and not received is sent again over the next one, so that a group's messages arrive in order and once,
//! from one run to one run (`link.rs`).

use super::credit::Credit;
use cairn_pg::Message;
use cairn_types::{EntityAddr, PgId};
use cairn_wire::op::{Ping, Pong};

/// How much of a link was received, by the lanes that groups use: the number of the last message of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// On [`cairn_wire::Lane::Client`].
    pub client: u64,
    /// On [`cairn_wire::Lane::Recovery`].
    pub recovery: u64,
}

/// What is said.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerMessage {
    /// First on a connection, by who opened it; on the control lane. Nothing else before the answer.
    Hello {
        /// Which link of this run: a higher one replaces a lower one.
        link: u64,
        /// The sender.
        from: EntityAddr,
        /// Who it should be.
        to: EntityAddr,
    },
    /// The answer, on the control lane: go on after this.
    Welcome {
        /// Of that link; zeros if it is new.
        received: Received,
        /// How much room there is for what is sent over it.
        credit: Credit,
    },
    /// From one copy of a group to another; by who opened the connection; on the lane of
    /// [`cairn_pg::Body::lane`].
    Group {
        /// Counts the messages of the link on this lane, from 1.
        seq: u64,
        /// The group.
        pgid: PgId,
        /// What.
        message: Message,
    },
    /// To who opened the connection, on the control lane: received so far.
    Ack {
        /// What.
        received: Received,
        /// How much room there is for what is sent next.
        credit: Credit,
    },
    /// By who opened the connection, on the control lane: the newest word about room that was heard.
    Heard {
        /// Its number.
        credit: u64,
    },
    /// On the control lane, by who opened the connection.
    Ping(Ping),
    /// The answer.
    Pong(Pong),
}
