//! What goes into the core and what comes out.

use super::target::MapError;
use crate::io::{Notice, OpAnswer, OpError};
use bytes::Bytes;
use cairn_types::{EntityAddr, Epoch, ObjectId, OsdId, OsdMap, OsdMapIncremental, Timestamp};
use cairn_wire::op::{Op, OpFlags, OpReply, WatchEvent};
use cairn_wire::{Frame, Payload};

/// The clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Steady clock in ms, for all waiting.
    pub steady_ms: u64,
    /// Wall clock: becomes the objects' modification time.
    pub wall: Timestamp,
}

/// The core's name of a connection attempt and of the connection it leads to; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A vector to carry out. Its bounds were checked ([`crate::core::check()`]).
#[derive(Debug)]
pub struct Submit<C> {
    /// The object, its pool and hash.
    pub object: ObjectId,
    /// What to do.
    pub ops: Vec<Op>,
    /// The bytes that belong to it.
    pub data: Payload,
    /// For the vector.
    pub flags: OpFlags,
    /// It is given up after so long, in ms.
    pub timeout_ms: Option<u64>,
    /// Comes back with the answer.
    pub done: C,
}

/// Something that happened. `C` is the driver's way to give an answer to its caller.
#[derive(Debug)]
pub enum Event<C> {
    /// A caller asks.
    Submit(Submit<C>),
    /// A caller wants to watch. Answered by [`Effect::Watching`].
    Watch {
        /// Drawn by the driver, never twice.
        cookie: u64,
        /// What.
        object: ObjectId,
    },
    /// A caller has watched enough. Answered when the OSD was told.
    Unwatch {
        /// Which.
        cookie: u64,
        /// Comes back with the answer.
        done: C,
    },
    /// A notification was dealt with.
    Acknowledge {
        /// Which.
        notice: NoticeId,
        /// The answer to it.
        reply: Bytes,
    },
    /// Maps from the monitors: one to start from, if any, and what follows.
    Maps {
        /// Replaces what is there, if newer.
        full: Option<Box<OsdMap>>,
        /// In order.
        increments: Vec<OsdMapIncremental>,
    },
    /// [`Effect::Connect`] worked.
    Connected(ConnId),
    /// [`Effect::Connect`] did not, or the connection is over.
    Closed(ConnId),
    /// A reply came.
    Reply {
        /// From where.
        conn: ConnId,
        /// The reply.
        reply: OpReply,
        /// The bytes that belong to it.
        data: Payload,
    },
    /// Something happened to a watch.
    WatchEvent {
        /// From where.
        conn: ConnId,
        /// What.
        event: WatchEvent,
    },
    /// The moment of [`super::Core::timer_ms`] has come, or may have.
    Tick,
    /// The client ends: everything is answered now.
    Stop,
}

/// Names a notification until it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoticeId {
    /// The watch.
    pub cookie: u64,
    /// The OSD that passed it on, and which run of it.
    pub osd: EntityAddr,
    /// That OSD's number of it.
    pub id: u64,
}

/// Something to do, in order.
#[derive(Debug)]
pub enum Effect<C> {
    /// Connect to an OSD and answer [`Event::Connected`] or [`Event::Closed`].
    Connect {
        /// Name of the attempt.
        conn: ConnId,
        /// Who is expected there.
        osd: OsdId,
        /// Where.
        addr: EntityAddr,
    },
    /// Give the attempt or connection up; no [`Event::Closed`] is needed.
    Disconnect(ConnId),
    /// Send on the client lane.
    Send(ConnId, Frame),
    /// A caller's answer.
    Done(C, Result<OpAnswer, OpError>),
    /// The watch stands, or cannot.
    Watching {
        /// Which.
        cookie: u64,
        /// How it went.
        result: Result<(), OpError>,
    },
    /// Somebody notifies. Answer with [`Event::Acknowledge`].
    Notified {
        /// Names it.
        id: NoticeId,
        /// For the handler.
        notice: Notice,
    },
    /// The watch was lost for a while.
    WatchRenewed(u64),
    /// The watch is over for good.
    WatchEnded(u64, OpError),
    /// An OSD uses a newer map than is here: ask for it.
    NeedMap(Epoch),
    /// There is a new map.
    NewMap(std::sync::Arc<OsdMap>),
    /// Maps could not be used: start again from a full one.
    BadMap(MapError),
}
