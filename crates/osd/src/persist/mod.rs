//! What an OSD keeps in its store beside its clients' objects. The bytes are `docs/format/osd.md`.
//!
//! | what | where | file |
//! |---|---|---|
//! | a group's info, log, missing set, past intervals | omap of one object in the group's collection | `group` |
//! | the superblock | omap of one object in a collection of no pool | `host` |
//! | maps | an object for each in that collection | `host` |
//!
//! An ordinary write adds one omap entry and replaces one, in the transaction of its data.

mod answer;
mod form;
mod group;
mod host;
#[cfg(test)]
mod tests;
mod usage;

pub use answer::{Answering, Reading, Step, sweep};
pub use form::FormError;
pub use group::{GroupWriter, LoadedGroup, begin_removal, load_group, log_step_bytes, meta_object};
pub use host::{
    HOST, Host, KEEP_MAPS_STEP, MapsKept, create_host, load_host, maps_transaction, superblock_op,
};
pub use usage::look;

use cairn_store::{ReadError, StoreError};
use cairn_types::{Epoch, PgId, PoolId};

/// Pool under which an OSD's own objects are named, so that they never stand among clients': no pool has it.
pub const OWN_POOL: PoolId = PoolId(-1);

/// Why what is stored cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not answer a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A value does not decode.
    #[error("{what} in the store does not decode: {source}; destroy the OSD and let it be filled again")]
    Form {
        /// Of what.
        what: String,
        /// What is wrong with it.
        source: FormError,
    },
    /// The parts of a group contradict each other.
    #[error(
        "group {pgid} in the store contradicts itself: {why}; destroy the OSD and let it be filled again"
    )]
    Group {
        /// The group.
        pgid: PgId,
        /// What does not fit.
        why: &'static str,
    },
    /// A store that no OSD was created on.
    #[error("the store was made, but no OSD was created on it: run the creation of the OSD again")]
    NoSuperblock,
    /// A map that should be there is not.
    #[error("the map of {epoch} is not in the store; destroy the OSD and let it be filled again")]
    NoMap {
        /// Which.
        epoch: Epoch,
    },
}
