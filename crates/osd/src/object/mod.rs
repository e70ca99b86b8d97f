//! Objects: vectors of operations on them, and the classes whose methods run beside the data.
//!
//! Pure: no store, no clock. A vector is looked at by [`kind_of`], which says how it may be ordered, and run by
//! [`execute()`] over a [`View`] of its object. What the view lacks comes back as [`Fault`]s; whoever drives answers them
//! and runs the vector again from its start. The outcome of a change is a [`Blob`] that each copy turns
//! into store operations with [`apply`]; the bytes a client wrote stay where they are, with the client's checksums.
//!
//! Who ends a watch that ran out executes a vector with one `Unwatch` in the name of its client.

mod change;
mod class;
mod execute;
mod kind;
mod pack;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod work;

pub use change::{BadChange, CHANGE_META_LEN_MAX, apply};
pub use execute::execute;
pub use kind::kind_of;
pub use pack::{Unpackable, pack, unpack};
pub use state::{
    BadObject, CLIENT_XATTR_PREFIX, INFO_XATTR, Info, ObjectState, VERSION_XATTR, WATCHERS_MAX,
    WATCHERS_XATTR, decode_version, encode_version,
};
pub use view::{Fault, Supplied, View};

use cairn_pg::Blob;
use cairn_types::{EntityAddr, EntityName, Timestamp};
use cairn_wire::op::{OpResult, Watcher};
use cairn_wire::{ErrorCode, Payload};
use smallvec::SmallVec;

/// Most bytes of output that the results of a vector keep when it changes the object: they are remembered for resends.
/// Outputs beyond it are left out.
pub const WRITE_OUTPUT_LEN_MAX: usize = 16 << 10;

/// Who sent a vector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its session.
    pub client: u64,
    /// Where it is, as the blocklist names it.
    pub addr: EntityAddr,
    /// Its name, by its certificate.
    pub entity: EntityName,
}

/// What the world outside the object gives to a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The primary's wall clock: for times that classes keep, and for locks that run out.
    pub now: Timestamp,
    /// The object's version for users if the vector changes it: above that of every change of the group before, so
    /// that an object made anew goes on counting. The counter of the group's next version will do.
    pub user_version: u64,
}

/// What became of a watch. Those of a change count when the change is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchChange {
    /// It is new, or goes on, perhaps from elsewhere and with another time-out.
    Begun(Watcher),
    /// Its client was heard of.
    Alive {
        /// The client's session.
        client: u64,
        /// The client's name of the watch.
        cookie: u64,
    },
    /// It is over: by its client, or because the object is removed.
    Ended {
        /// As it was.
        watcher: Watcher,
        /// The object is removed: the watcher is to be told.
        is_removal: bool,
    },
}

/// What came of a vector.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant, reason = "the commonest outcome; a box would be an allocation per write")]
pub enum Executed {
    /// It needs these first; then run it again from the start with the fuller view.
    Faults(SmallVec<[Fault; 2]>),
    /// It changes nothing: it only reads, failed, or had nothing to do. The reply.
    Read {
        /// One for each operation carried out.
        results: Vec<OpResult>,
        /// Their bytes; empty if the vector was one that writes.
        data: Payload,
        /// OK, or that of the operation that ended it.
        code: ErrorCode,
        /// The object's version for users; 0: it is not there.
        user_version: u64,
        /// Watches heard of.
        watch: Vec<WatchChange>,
    },
    /// It changes the object.
    Write {
        /// What every copy applies.
        change: Blob,
        /// One for each operation; without bytes of the object.
        results: Vec<OpResult>,
        /// OK.
        code: ErrorCode,
        /// The object is not there afterwards.
        deletes: bool,
        /// The object afterwards.
        after: ObjectState,
        /// The object's version for users afterwards; of one that is removed, that of the removal.
        user_version: u64,
        /// Watches that begin, end or were heard of.
        watch: Vec<WatchChange>,
    },
}
