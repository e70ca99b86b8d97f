//! What a group is told.

use crate::blob::Blob;
use crate::interval::PgMap;
use crate::log::RequestId;
use crate::message::Message;
use crate::version::{ObjectKey, Position, Version};
use bytes::Bytes;
use cairn_types::{Epoch, OsdId};
use smallvec::SmallVec;

/// Names one arrival of a client's operation at this OSD; the driver's choice, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// How an operation may be ordered among others on its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// Changes nothing. Sees only what every copy has.
    Read,
    /// Changes the object without looking at it: may follow an unfinished write at once.
    Write,
    /// Looks at the object and changes it: waits for earlier writes to be durable everywhere.
    ReadWrite,
}

/// A client's operation. What it does is the driver's to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOp {
    /// This arrival.
    pub id: OpId,
    /// Map epoch of the client when it sent this: what was sent in an earlier interval may have
    /// been answered since, long enough ago to be forgotten, and is not looked at.
    pub epoch: Epoch,
    /// The request, the same on every resend.
    pub request: RequestId,
    /// The object.
    pub object: ObjectKey,
    /// How it is ordered.
    pub kind: OpKind,
}

/// One object changed by an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectChange {
    /// The object.
    pub object: ObjectKey,
    /// True if it is gone afterwards.
    pub delete: bool,
    /// Version recorded with the object in the store, [`Version::ZERO`] if it is not there. Used
    /// when the log no longer knows; may lag behind unfinished writes.
    pub stored_version: Version,
}

/// What came of executing an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It changed nothing and the answer need not be remembered.
    Answer(Bytes),
    /// It changes objects, atomically. `payload` is handed to every copy's store; `result` is
    /// remembered and returned when all copies are durable.
    Change {
        /// Objects changed; the first is the operation's own.
        changes: SmallVec<[ObjectChange; 1]>,
        /// The change, opaque.
        payload: Blob,
        /// The answer.
        result: Bytes,
    },
    /// It failed, or had nothing to change, and a resend must get the same answer.
    Failed(Bytes),
    /// What it needed to know of its object cannot be read here. The object is fetched from another copy and the operation executed
    /// again; where no other has it, it ends otherwise.
    Unreadable {
        /// Version recorded with the object in the store, if that could be read.
        stored_version: Option<Version>,
        /// How it ends if there is no other copy.
        otherwise: Box<Outcome>,
    },
}

/// Something the group asked the driver to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadToken(pub u64);

/// A transaction handed to the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PersistToken(pub u64);

/// What a timer was armed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// The read lease should be renewed, if anyone reads.
    Lease,
    /// Leases of earlier intervals have run out.
    PriorLease,
    /// A wish told to the monitors has not come true.
    Monitor,
}

/// What a reservation is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reservation {
    /// This OSD's slot for a group it is primary of and backfills.
    LocalBackfill,
    /// This OSD's slot for a group it is a backfill target of.
    RemoteBackfill,
}

/// What a group is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next map. Every epoch, in order.
    Map(PgMap),
    /// The maps known so far have been given: act on the last one.
    ActOnMap,
    /// A message from another OSD.
    Message {
        /// Who sent it.
        from: OsdId,
        /// What it says.
        message: Message,
    },
    /// A client's operation.
    Op(ClientOp),
    /// An operation has been executed.
    Executed {
        /// Which.
        op: OpId,
        /// What came of it.
        outcome: Outcome,
    },
    /// A transaction, and all before it, are durable.
    Persisted(PersistToken),
    /// An object read for recovery; `None` if it is not there or cannot be read.
    ObjectRead {
        /// Which read.
        token: ReadToken,
        /// The version recorded with the object, and all of the object.
        object: Option<(Version, Blob)>,
    },
    /// The objects asked for, in order.
    Listed {
        /// Which listing.
        token: ReadToken,
        /// At most the number asked for, if one was.
        objects: Vec<(ObjectKey, Version)>,
    },
    /// A reservation asked for is held now.
    Reserved(Reservation),
    /// A timer went off.
    Timer(Timer),
    /// Change how many objects may be recovered at once (at least 1).
    SetRecoveryLimit(usize),
}

/// A range of objects to list: `(begin, end]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRange {
    /// After this.
    pub begin: Position,
    /// Up to and including this.
    pub end: Position,
    /// At most so many, if given.
    pub limit: Option<usize>,
}
