//! Which mgr is active.

use crate::{EntityAddr, Epoch, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One mgr.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MgrInfo {
    /// Where it listens, and which run of it.
    pub addr: EntityAddr,
    /// When it took the part it has.
    pub since: Timestamp,
}

/// The active mgr and those that stand by, by name (`a` for `mgr.a`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MgrMap {
    /// Version of this map.
    pub epoch: Epoch,
    /// The one that gathers statistics; none while no mgr runs.
    pub active: Option<(String, MgrInfo)>,
    /// The ones ready to take over.
    pub standbys: BTreeMap<String, MgrInfo>,
}
