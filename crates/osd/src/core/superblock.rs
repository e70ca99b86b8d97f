//! What an OSD keeps of itself.

use cairn_types::{Epoch, Fsid, OsdId, OsdUuid};

/// What an OSD keeps of itself. Written before its first start by whoever makes the store, with `born` unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// The cluster.
    pub fsid: Fsid,
    /// This store.
    pub uuid: OsdUuid,
    /// Its number.
    pub whoami: OsdId,
    /// Newest epoch when the store was first started: it vouches for nothing older. `None` before that.
    pub born: Option<Epoch>,
    /// Epochs `[begin, end)` after which it stopped in good order; `None` while it runs.
    pub clean: Option<(Epoch, Epoch)>,
}
