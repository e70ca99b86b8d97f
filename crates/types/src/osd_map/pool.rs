//! One pool in the map.

use super::PoolFlags;
use crate::{Epoch, SnapId, Timestamp};
use serde::{Deserialize, Serialize};

/// A replicated pool. (Names are unique in a map; [`crate::OsdMap::check`] holds it to that.)
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// What people call it.
    pub name: String,
    /// Copies of each object.
    pub size: u8,
    /// Copies that must be there for I/O to go on.
    pub min_size: u8,
    /// Placement groups.
    pub pg_num: u32,
    /// Placement groups as placement counts them; below `pg_num` while a split is not spread yet.
    pub pgp_num: u32,
    /// CRUSH rule.
    pub crush_rule: u32,
    /// Switches.
    pub flags: PoolFlags,
    /// What uses it, such as `rbd`; empty for nobody yet.
    pub application: String,
    /// Newest snapshot number given out.
    pub snap_seq: SnapId,
    /// Most bytes clients may store; 0 for no quota.
    pub quota_bytes: u64,
    /// Most objects; 0 for no quota.
    pub quota_objects: u64,
    /// Whether the number of placement groups is changed without asking.
    pub autoscale: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Epoch of its last change.
    pub last_change: Epoch,
}
