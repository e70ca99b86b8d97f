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

/// Which way a monitor goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MonStep {
    /// It has a number and is to run, but does not count yet.
    Joins,
    /// It does not count any more, but the others may need its voice to agree on that.
    Leaves,
}

/// A monitor that joins or leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonChange {
    /// Which way.
    pub step: MonStep,
    /// Its name.
    pub name: String,
    /// Its number, and where it listens.
    pub mon: MonInfo,
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
    /// The monitors that count.
    pub mons: BTreeMap<String, MonInfo>,
    /// The one that joins or leaves. There is one at a time, from before the members of the replicated log change until
    /// they are those of `mons`: so whoever has this map knows where all are that have to agree.
    pub change: Option<MonChange>,
}

impl MonMap {
    /// Position of a monitor in the order of their numbers.
    pub fn rank(&self, name: &str) -> Option<usize> {
        let id = self.mons.get(name)?.id;
        Some(self.mons.values().filter(|mon| mon.id < id).count())
    }

    /// Whom a monitor speaks to: those that count, and the one that joins or leaves.
    pub fn peers(&self) -> impl Iterator<Item = (&str, &MonInfo)> {
        let changing = self.change.iter().map(|change| (change.name.as_str(), &change.mon));
        self.mons.iter().map(|(name, mon)| (name.as_str(), mon)).chain(changing)
    }

    /// The name of a monitor by its number.
    pub fn name_of(&self, id: MonId) -> Option<&str> {
        self.peers().find(|(_, mon)| mon.id == id).map(|(name, _)| name)
    }

    /// How many monitors make a majority.
    pub fn majority(&self) -> usize {
        self.mons.len() / 2 + 1
    }
}
