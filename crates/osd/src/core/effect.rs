//! What the OSD asks of its driver, as data.

use super::message::PeerMessage;
use super::superblock::Superblock;
use super::{Attempt, ConnId, MonitorTag, QueryToken};
use crate::object::Fault;
use cairn_mon::monitor::DaemonNews;
use cairn_mon::service::Request;
use cairn_pg::{ListRange, ObjectKey, PgTransaction};
use cairn_types::{EntityAddr, Epoch, OsdId, OsdMap, OsdMapIncremental, OsdReport, PgId};
use cairn_wire::op::{OpReply, WatchEvent};
use cairn_wire::{GoodbyeReason, Lane, Payload};
use smallvec::SmallVec;
use std::sync::Arc;
use thiserror::Error;

/// A question to the store. It sees at least every transaction that [`super::Event::Persisted`] was told of before it
/// was asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Query {
    /// What an execution needs to know of an object.
    Faults {
        /// The object.
        object: ObjectKey,
        /// What.
        faults: SmallVec<[Fault; 2]>,
    },
    /// All of an object, packed for another copy, with its version. It does not change meanwhile.
    Object {
        /// The object.
        object: ObjectKey,
    },
    /// Objects with their versions, in order. What a group keeps of itself is not among them.
    List {
        /// Which.
        range: ListRange,
    },
    /// How many objects and bytes the group has; for people, at leisure.
    Tally,
}

/// Why the core is finished. The process ends.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum StopReason {
    /// As asked for, in good order.
    #[error("stopped")]
    Clean,
    /// The store failed.
    #[error("the store has stopped; see its error above")]
    StoreFailed,
    /// The monitors will never let this run boot.
    #[error("the monitors do not take this OSD: {why}")]
    Refused {
        /// As they said.
        why: String,
    },
    /// The map has this number with another store, or not at all.
    #[error("{osd} is not this store's number any more: it was destroyed, removed or given to another disk")]
    NotOurs {
        /// The number.
        osd: OsdId,
    },
    /// A map that cannot be.
    #[error("the map of {epoch} cannot be used: {why}")]
    BadMap {
        /// Which.
        epoch: Epoch,
        /// Why.
        why: String,
    },
}

/// What the OSD asks of its driver. To be carried out in order.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "the commonest effects are the large ones")]
pub enum Effect {
    /// Hand this to the store, making the group's collection if there is none. Transactions become durable in the
    /// order given, over all groups.
    Persist {
        /// The group.
        pgid: PgId,
        /// What.
        txn: PgTransaction,
    },
    /// Remove a group. First make durable that it is gone (what a start then finds is [`super::Setup::removing`]),
    /// then remove its objects, at leisure.
    RemoveGroup {
        /// The group.
        pgid: PgId,
    },
    /// Keep these maps, and forget those before `remove_before`. In the order of the other writes.
    KeepMaps {
        /// A whole map.
        full: Option<Arc<OsdMap>>,
        /// Changes.
        increments: Vec<OsdMapIncremental>,
        /// Of this epoch there is a whole map.
        remove_before: Option<Epoch>,
    },
    /// Replace the superblock. In the order of the other writes.
    SaveSuperblock(Superblock),
    /// Ask the store.
    Query {
        /// Given back with the answer.
        token: QueryToken,
        /// Of which group.
        pgid: PgId,
        /// What.
        query: Query,
    },
    /// Ask the store how full it is.
    AskUsage,
    /// Answer a client.
    Reply {
        /// Over which connection.
        conn: ConnId,
        /// The answer.
        reply: OpReply,
        /// Its bytes.
        payload: Payload,
    },
    /// Tell a watcher.
    WatchEvent {
        /// Over which connection.
        conn: ConnId,
        /// What.
        event: WatchEvent,
    },
    /// Close the connection of a client.
    CloseClient {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: GoodbyeReason,
    },
    /// Connect to an OSD; the answer is [`super::Event::PeerConnected`] or [`super::Event::PeerUnreachable`].
    Connect {
        /// Given back with the answer.
        attempt: Attempt,
        /// Who it must be, by its certificate.
        peer: OsdId,
        /// Where, and which run of it.
        addr: EntityAddr,
    },
    /// Send to an OSD. Messages of one lane arrive in order.
    Send {
        /// Over which connection.
        conn: ConnId,
        /// On which lane.
        lane: Lane,
        /// What.
        message: PeerMessage,
    },
    /// Close the connection with an OSD. Nothing of it is handed in any more, except
    /// [`super::Event::PeerClosed`], which may be.
    ClosePeer {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: GoodbyeReason,
    },
    /// Subscribe to every epoch of the OSD map after this one.
    Subscribe {
        /// The newest at hand.
        have: Epoch,
    },
    /// Ask the monitors; all of these requests are repeatable.
    AskMonitors {
        /// Given back with the answer.
        tag: MonitorTag,
        /// What.
        request: Request,
    },
    /// Tell the monitors; nobody waits for it.
    Tell(DaemonNews),
    /// Tell the mgr, if there is one.
    Report(Box<OsdReport>),
    /// The core is finished.
    Stopped(StopReason),
}
