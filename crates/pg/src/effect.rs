//! What a group asks of its driver, as data.

use crate::blob::Blob;
use crate::event::{ClientOp, ListRange, OpId, PersistToken, ReadToken, Reservation, Timer};
use crate::info::PgInfo;
use crate::interval::PastIntervals;
use crate::log::{LogEntry, PgLog};
use crate::message::Message;
use crate::missing::{MissingItem, MissingSet};
use crate::stats::PgStats;
use crate::version::{ObjectKey, Time, Version};
use bytes::Bytes;
use cairn_types::{Epoch, OsdId};

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// With this answer.
    Done(Bytes),
    /// Not here: this OSD is not the primary by the map of this epoch.
    NotPrimary(Epoch),
    /// The interval changed under it, or before it: send it again by a map at least as new as this
    /// epoch. It may or may not have happened; a resend of the same request never happens twice.
    Again(Epoch),
    /// Too many operations wait here; send it again later.
    Busy,
}

/// One change of stored objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreChange {
    /// A client's change. The driver records each version with its object.
    Apply {
        /// The change, opaque.
        payload: Blob,
        /// Objects it changes and the version to record, `None` where it removes the object.
        objects: Vec<(ObjectKey, Option<Version>)>,
    },
    /// Replace the object by a copy.
    Put {
        /// The object.
        object: ObjectKey,
        /// Version to record with it.
        version: Version,
        /// All of it, as a read for recovery gave it.
        data: Blob,
    },
    /// Remove the object if it is there.
    Remove(ObjectKey),
}

/// How the stored log changes, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogChange {
    /// Throw all of it away; it begins at this tail.
    pub reset_to: Option<Version>,
    /// Cut off what is newer.
    pub rewind_to: Option<Version>,
    /// Entries to put in front, with the new tail.
    pub prepend: Option<(Version, Vec<LogEntry>)>,
    /// Entries to append.
    pub append: Vec<LogEntry>,
    /// Drop what is not newer.
    pub trim_to: Option<Version>,
}

/// Everything that must become durable together.
#[derive(Clone, PartialEq, Debug)]
pub struct PgTransaction {
    /// Given back in [`crate::Event::Persisted`].
    pub token: PersistToken,
    /// Objects.
    pub objects: Vec<StoreChange>,
    /// Log.
    pub log: LogChange,
    /// Throw the missing set away first.
    pub clear_missing: bool,
    /// Missing set: set or cleared entries.
    pub missing: Vec<(ObjectKey, Option<MissingItem>)>,
    /// The info after it.
    pub info: PgInfo,
    /// The past intervals, when they changed.
    pub past_intervals: Option<PastIntervals>,
}

/// What the driver keeps for a group beside its objects, and gives back when it starts again.
#[derive(Clone, PartialEq, Debug)]
pub struct PersistedPg {
    /// Info.
    pub info: PgInfo,
    /// Log.
    pub log: PgLog,
    /// Missing set.
    pub missing: MissingSet,
    /// Past intervals.
    pub past_intervals: PastIntervals,
}

impl PersistedPg {
    /// What is stored of a group nothing was persisted for yet.
    pub fn new(info: PgInfo) -> PersistedPg {
        PersistedPg {
            info,
            log: PgLog::default(),
            missing: MissingSet::default(),
            past_intervals: PastIntervals::default(),
        }
    }

    /// The meaning of a transaction's metadata. A driver that keeps log and missing set as keys
    /// does the same change to its keys.
    pub fn apply(&mut self, txn: &PgTransaction) {
        let LogChange { reset_to, rewind_to, prepend, append, trim_to } = &txn.log;
        if let Some(tail) = reset_to {
            self.log = PgLog::from_parts(*tail, []);
        }
        if let Some(to) = rewind_to {
            self.log.rewind(*to);
        }
        if let Some((tail, older)) = prepend {
            let newer = self.log.iter().cloned().collect::<Vec<_>>();
            self.log = PgLog::from_parts(*tail, older.iter().cloned().chain(newer));
        }
        for entry in append {
            self.log.append(entry.clone());
        }
        if let Some(to) = trim_to {
            self.log.trim(*to);
        }
        if txn.clear_missing {
            self.missing = MissingSet::default();
        }
        for (object, item) in &txn.missing {
            self.missing.set(object, item.clone());
        }
        self.info = txn.info.clone();
        if let Some(past) = &txn.past_intervals {
            self.past_intervals = past.clone();
        }
    }
}

/// What the monitors are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonitorRequest {
    /// Record that this OSD is alive in this epoch.
    UpThru(Epoch),
    /// Make this the acting set; empty means the up set again.
    PgTemp(Vec<OsdId>),
}

/// What a group asks of its driver. To be carried out in order.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "the commonest effect; a box would be an allocation per write")]
pub enum Effect {
    /// Hand this to the store. Transactions become durable in the order given; until then reads
    /// may or may not see them.
    Persist(PgTransaction),
    /// Send this. Messages to one OSD arrive in order, each once, while both live.
    Send {
        /// To whom.
        to: OsdId,
        /// What.
        message: Message,
    },
    /// Execute this operation against what has been handed to the store so far, and tell what
    /// came of it.
    Execute(ClientOp),
    /// Answer a client.
    Reply {
        /// Which arrival.
        op: OpId,
        /// The answer.
        reply: Reply,
    },
    /// Tell the monitors.
    Monitor(MonitorRequest),
    /// Wake the group with this timer at this time; replaces an earlier one of the same kind.
    ArmTimer {
        /// Which.
        timer: Timer,
        /// When.
        at: Time,
    },
    /// Read a whole object with its version.
    ReadObject {
        /// Given back with the answer.
        token: ReadToken,
        /// Which object.
        object: ObjectKey,
    },
    /// List objects with their versions, in order.
    List {
        /// Given back with the answer.
        token: ReadToken,
        /// Which.
        range: ListRange,
    },
    /// Ask this OSD's reserver for a slot.
    Reserve(Reservation),
    /// Give the slot, or the place in the queue, back.
    Release(Reservation),
    /// A new interval began: executions and reads not yet answered are void, and what was cached
    /// of objects may have been rolled back.
    NewInterval,
    /// The state or the counts changed.
    Stats(PgStats),
    /// Remove the group and all its objects from the store; the core is finished.
    Remove,
}
