//! What the OSD is told.

use super::message::PeerMessage;
use super::superblock::Superblock;
use super::{Attempt, ConnId, MonitorTag, QueryToken};
use crate::object::Supplied;
use cairn_mon::service::Reply;
use cairn_mon::service::subscription::MapBatch;
use cairn_pg::{Blob, ObjectKey, PersistToken, PersistedPg, Version};
use cairn_types::{EntityAddr, EntityName, OsdId, OsdMap, OsdMapIncremental, PgId, Timestamp};
use cairn_wire::op::{NotifyAck, OpRequest};
use cairn_wire::{ErrorCode, Payload};
use smallvec::SmallVec;

/// The process's clocks at one moment, read after the event came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Steady clock in microseconds from any start; counts while the machine is suspended. For all waiting.
    pub steady_us: u64,
    /// Wall clock, for what is stored with objects and people read.
    pub wall: Timestamp,
}

/// How full a part of the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes it can hold.
    pub total_bytes: u64,
    /// Bytes in use, for certain.
    pub used_bytes: u64,
    /// And with what the store has taken in and not settled yet, reckoned from above. A later look tells.
    pub used_at_most_bytes: u64,
    /// Bytes of the total that only removals may take.
    pub reserve_bytes: u64,
}

/// How full the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Objects' data.
    pub data: Space,
    /// All else: names, attributes, omap, places of data, groups' logs.
    pub index: Space,
    /// Log entries that all groups together may keep: what its index has room for.
    pub log_entries_max: u64,
    /// Most bytes of a group's log that one transaction stores.
    pub log_step_bytes: u64,
}

/// Share of the index, in percent, from which on it is what counts: a store whose index is full takes no write,
/// however much room there is for data. Below, it says nothing about the room that people ask for. The ratio from
/// which on monitors warn.
const INDEX_COUNTS_PERCENT: u64 = 85;

impl Usage {
    /// What the cluster is told that it can hold.
    pub fn total_bytes(&self) -> u64 {
        self.data.total_bytes
    }

    /// And what is in use: of data and index, the one that runs out.
    pub fn used_bytes(&self) -> u64 {
        let (data, index) = (self.data, self.index);
        let total = index.total_bytes.max(1);
        if index.used_at_most_bytes < total / 100 * INDEX_COUNTS_PERCENT {
            return data.used_bytes;
        }
        let share = u128::from(data.total_bytes) * u128::from(index.used_at_most_bytes) / u128::from(total);
        data.used_bytes.max(u64::try_from(share).unwrap_or(u64::MAX).min(data.total_bytes))
    }
}

/// What a start begins with: what the store has, and where this run is reached.
#[derive(Clone, Debug)]
pub struct Setup {
    /// As stored.
    pub superblock: Superblock,
    /// The maps stored: one whole map, and every change after it that was kept, in order.
    pub maps: Option<(OsdMap, Vec<OsdMapIncremental>)>,
    /// Every group stored.
    pub groups: Vec<PersistedPg>,
    /// Groups whose removal was begun and not finished; the driver goes on with it and tells [`Event::GroupRemoved`].
    pub removing: Vec<PgId>,
    /// Where clients reach this run. The nonce grows with every start.
    pub public: EntityAddr,
    /// Where OSDs reach this run; the same nonce.
    pub cluster: EntityAddr,
    /// How full the store is.
    pub usage: Usage,
}

/// What the monitors said to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorAnswer {
    /// It is so.
    Done(Reply),
    /// It was refused.
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        why: String,
    },
    /// Nobody answered.
    Failed,
}

/// What the store answers to a query.
#[derive(Clone, Debug)]
pub enum QueryAnswer {
    /// To [`super::Query::Faults`]: one answer for each fault, in their order.
    Supplied(SmallVec<[Supplied; 2]>),
    /// To [`super::Query::Object`]: the version recorded with the object, and all of it; `None` if it is not there
    /// or damaged.
    Object(Option<(Version, Blob)>),
    /// To [`super::Query::List`]: objects with their versions, in order.
    Listed(Vec<(ObjectKey, Version)>),
    /// To [`super::Query::Tally`].
    Tallied {
        /// Objects.
        objects: u64,
        /// Bytes of them, by their sizes.
        bytes: u64,
    },
    /// What was asked for is damaged and cannot be read. (Not for objects, see there. When the store has stopped:
    /// [`Event::StoreFailed`].)
    Damaged,
}

/// Something that happened.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "handed in by value, once")]
pub enum Event {
    /// First of all, once. The answer has what a start has to do.
    Start,
    /// The moment of [`super::Osd::wake_at`] has come, or may have.
    Tick,
    /// Maps from the monitors, as they came.
    Maps(MapBatch),
    /// To [`super::Effect::AskMonitors`].
    Monitors {
        /// Which request.
        tag: MonitorTag,
        /// What they said.
        answer: MonitorAnswer,
    },
    /// A client has connected; who it is was proved.
    ClientOpened {
        /// The driver's name of the connection.
        conn: ConnId,
        /// By its certificate.
        name: EntityName,
        /// Its IP as seen from here, port 0, and the incarnation it gave: as the blocklist names it.
        addr: EntityAddr,
    },
    /// A client asks. The payload's checksums were verified.
    ClientRequest {
        /// Who.
        conn: ConnId,
        /// What.
        request: Box<OpRequest>,
        /// Its bytes.
        payload: Payload,
    },
    /// A client has heard a notification.
    NotifyAck {
        /// Who.
        conn: ConnId,
        /// Which.
        ack: NotifyAck,
    },
    /// The connection of a client is over. Nothing comes from it after this.
    ClientClosed {
        /// Which.
        conn: ConnId,
    },
    /// Another OSD has connected; that it is this one was proved by its certificate.
    PeerAccepted {
        /// The driver's name of the connection.
        conn: ConnId,
        /// Who.
        osd: OsdId,
    },
    /// To [`super::Effect::Connect`]: there is a connection, and it is that OSD.
    PeerConnected {
        /// Which attempt.
        attempt: Attempt,
        /// The driver's name of the connection.
        conn: ConnId,
    },
    /// To [`super::Effect::Connect`]: there is none.
    PeerUnreachable {
        /// Which attempt.
        attempt: Attempt,
        /// The host answered that nobody listens there, or another process does: the one that was meant is gone.
        refused: bool,
    },
    /// Another OSD says something.
    Peer {
        /// Over which connection.
        conn: ConnId,
        /// What.
        message: PeerMessage,
    },
    /// The connection with another OSD is over. Nothing comes from it after this.
    PeerClosed {
        /// Which.
        conn: ConnId,
    },
    /// This transaction of the group, and all given to the store before it, are durable. Each is told, in order.
    Persisted {
        /// Of which group.
        pgid: PgId,
        /// Which.
        token: PersistToken,
    },
    /// To [`super::Effect::RemoveGroup`]: nothing of the group is left.
    GroupRemoved {
        /// Which.
        pgid: PgId,
    },
    /// To [`super::Effect::Query`]. Answers may come in any order.
    Queried {
        /// Which query.
        token: QueryToken,
        /// What the store has.
        answer: QueryAnswer,
    },
    /// How full the store is now, to [`super::Effect::AskUsage`].
    Usage(Usage),
    /// The store has stopped. Nothing is durable any more.
    StoreFailed,
    /// The process is to stop: in good order.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_runs_out_counts_as_a_store_that_runs_out() {
        let usage = |used| {
            let data = Space { total_bytes: 1 << 30, used_bytes: 1 << 20, ..Space::default() };
            let index = Space { total_bytes: 40 << 20, used_at_most_bytes: used, ..Space::default() };
            Usage { data, index, ..Usage::default() }
        };
        assert_eq!(usage(33 << 20).used_bytes(), 1 << 20);
        assert_eq!(usage(38 << 20).used_bytes(), (1 << 30) / 20 * 19 + 3, "95 %, rounded down");
        assert_eq!(usage(41 << 20).used_bytes(), 1 << 30);
    }
}
