//! Who the monitors are.

use crate::{EntityAddr, Epoch, Fsid, MonId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One monitor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonInfo {
    /// Its number in the replicated log.
    pub id: MonId,
    /// Where it listens.
    pub addrs: Vec<EntityAddr>,
}

/// The monitors of a cluster, by name (`a` for `mon.a`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonMap {
    /// Version of this map.
    pub epoch: Epoch,
    /// The cluster.
    pub fsid: Fsid,
    /// When the cluster was made.
    pub created: Timestamp,
    /// When this version was made.
    pub modified: Timestamp,
    /// Number of the next monitor to join; numbers are never given twice.
    pub next_id: MonId,
    /// The monitors.
    pub mons: BTreeMap<String, MonInfo>,
}

impl MonMap {
    /// Position of a monitor in the order of their numbers.
    pub fn rank(&self, name: &str) -> Option<usize> {
        let id = self.mons.get(name)?.id;
        Some(self.mons.values().filter(|mon| mon.id < id).count())
    }

    /// The name of a monitor by its number.
    pub fn name_of(&self, id: MonId) -> Option<&str> {
        self.mons.iter().find(|(_, mon)| mon.id == id).map(|(name, _)| name.as_str())
    }

    /// How many monitors make a majority.
    pub fn majority(&self) -> usize {
        self.mons.len() / 2 + 1
    }
}
