//! What the OSDs of a group say to each other. Plain data; how it travels is the OSD's.

use crate::blob::Blob;
use crate::info::{History, PgInfo};
use crate::log::{LogEntry, LogSegment};
use crate::missing::MissingItem;
use crate::version::{ObjectKey, Position, Version};
use cairn_types::{Epoch, OsdId};
use cairn_wire::Lane;
use serde::{Deserialize, Serialize};

/// A message and the map epoch its sender had. The receiver drops it if its own interval began
/// later, and keeps it until its map has caught up if it is behind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Sender's map epoch.
    pub epoch: Epoch,
    /// What is said.
    pub body: Body,
}

/// How long someone may still be answering reads under a lease of an earlier interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseBound {
    /// Who; `None` when the teller restarted and no longer knows.
    pub holder: Option<OsdId>,
    /// Milliseconds from when the message was sent; its journey only makes the bound safer.
    pub remaining_ms: u64,
}

/// How a copy becomes part of an activation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Activation {
    /// About the group.
    pub history: History,
    /// The epoch to record as last epoch started, unless there are too few copies to serve.
    pub started: Option<Epoch>,
    /// The agreed log, from where the copy's is known to agree.
    pub segment: LogSegment,
    /// Begin a backfill: the log is replaced and no object is trusted.
    pub reset: bool,
    /// Nobody has seen the group without what this copy takes back, or took back before: it is to be remembered.
    pub keeps_undone: bool,
    /// Leases of others.
    pub leases: Vec<LeaseBound>,
}

/// What is said.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are described with their message")]
pub enum Body {
    /// Primary to anyone who may have a copy: send your info.
    QueryInfo,
    /// Primary to the holder of the authoritative log: send what follows `since`.
    QueryLog { since: Version },
    /// To the primary, in answer or unasked: this copy's info, durable when sent, and the leases it knows of.
    Info { info: PgInfo, leases: Vec<LeaseBound> },
    /// To the primary: the log asked for.
    Log { info: PgInfo, segment: LogSegment },
    /// Primary to every acting member and backfill target: make your log agree with the segment.
    Activate(Activation),
    /// To the primary: that is durable; these objects are missing here.
    Activated { last_update: Version, missing: Vec<(ObjectKey, MissingItem)> },
    /// Primary to all: the history moved (everyone activated, or everything is clean). Everything up to `committed_to` is
    /// durable on the whole acting set.
    Share { history: History, committed_to: Version },
    /// Primary to the other copies: log `entries` after the one at `follows`, and apply `payload` with them unless this copy's
    /// backfill has not come to the object. Drop log entries up to `trim_to`. Everything up to `committed_to` is durable on the
    /// whole acting set.
    RepOp {
        follows: Version,
        entries: Vec<LogEntry>,
        payload: Option<Blob>,
        trim_to: Version,
        committed_to: Version,
    },
    /// Primary to the other copies, in the place of a [`Body::RepOp`]: log `entries`, which were taken back before, and put `data` in the
    /// place of their object, or remove it where they end so; unless this copy's backfill has not come to the object.
    Redo {
        follows: Version,
        entries: Vec<LogEntry>,
        data: Option<Blob>,
        trim_to: Version,
        committed_to: Version,
    },
    /// To the primary: durable up to `version`.
    RepOpReply { version: Version },
    /// Primary to a copy that should have it: send me this version of the object.
    Pull { object: ObjectKey, need: Version },
    /// To the primary: I do not have that version.
    PullFailed { object: ObjectKey, need: Version },
    /// A whole object, in answer to a pull, or from the primary to a copy that misses it.
    Push { object: ObjectKey, version: Version, data: Blob },
    /// To the primary: the pushed object is durable.
    PushReply { object: ObjectKey, version: Version },
    /// Primary to a backfill target: may we? Answered when the target's OSD has a slot.
    BackfillReserve,
    /// To the primary: yes.
    BackfillGranted,
    /// Primary to a backfill target: the slot is free again.
    BackfillRelease,
    /// Primary to a backfill target: list your objects in `(begin, end]`.
    BackfillScan { begin: Position, end: Position },
    /// To the primary: those objects and their versions.
    BackfillObjects { begin: Position, end: Position, objects: Vec<(ObjectKey, Version)> },
    /// Primary to a backfill target: everything up to `through` is now right once these are gone.
    BackfillProgress { through: Position, remove: Vec<ObjectKey> },
    /// To the primary: that is durable.
    BackfillAck { through: Position },
    /// Primary to the acting set: promise not to let a later interval write before my lease is over.
    LeaseRequest { seq: u64 },
    /// To the primary: promised.
    LeaseGrant { seq: u64 },
    /// Primary to a stray, when everything is clean: your copy is not needed any more.
    RemoveCopy,
}

impl Body {
    /// The lane it travels on. Each lane keeps its order; between the two nothing is ordered, and nothing needs to be:
    /// a pull or push begins when the copies have said that they are active, no change of its object is made until it
    /// is answered, and what ends it (activation, progress of a backfill, removal) is said after the answer.
    pub fn lane(&self) -> Lane {
        match self {
            Body::Pull { .. } | Body::PullFailed { .. } | Body::Push { .. } | Body::PushReply { .. } => {
                Lane::Recovery
            }
            _ => Lane::Client,
        }
    }
}
