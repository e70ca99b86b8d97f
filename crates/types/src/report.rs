//! What an OSD tells the mgr every few seconds.

use crate::{Epoch, OsdId, OsdStat, PgCounts, PgId, PgState};
use serde::{Deserialize, Serialize};

/// Classes of a [`Latencies`]: the last one has everything from half an hour on.
pub const LATENCY_CLASSES: usize = 32;

/// How long operations took: in class `n` are those of at least `2^n` and below `2^(n+1)` microseconds; in class 0
/// also those below one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// Operations by class; shorter than [`LATENCY_CLASSES`] when the longest took less.
    pub classes: Vec<u64>,
    /// Sum of all, microseconds.
    pub sum_us: u64,
}

impl Latencies {
    /// Counts an operation.
    pub fn add(&mut self, us: u64) {
        let class = us.max(1).ilog2().min(LATENCY_CLASSES as u32 - 1) as usize;
        if self.classes.len() <= class {
            self.classes.resize(class + 1, 0);
        }
        self.classes[class] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// What was done since the process started. Only grows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OsdCounters {
    /// Clients' vectors that only read.
    pub read_ops: u64,
    /// Bytes they were answered.
    pub read_bytes: u64,
    /// Clients' vectors that write.
    pub write_ops: u64,
    /// Bytes they brought.
    pub write_bytes: u64,
    /// Objects that were pulled or pushed by this OSD as primary.
    pub recovered_objects: u64,
    /// Bytes of those.
    pub recovered_bytes: u64,
    /// From arrival to answer, vectors that only read.
    pub read_latency: Latencies,
    /// From arrival to answer, vectors that write.
    pub write_latency: Latencies,
}

/// One group, as its primary sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PgReport {
    /// The group.
    pub pg: PgId,
    /// Map by which this is said: of two primaries the one with the newer map counts.
    pub epoch: Epoch,
    /// State.
    pub state: PgState,
    /// Who should have it.
    pub up: Vec<OsdId>,
    /// Who has it.
    pub acting: Vec<OsdId>,
    /// Newest epoch in which every copy was known to be whole.
    pub last_epoch_clean: Epoch,
    /// Objects, counted once.
    pub objects: u64,
    /// Bytes clients stored, counted once.
    pub stored_bytes: u64,
    /// Copies.
    pub counts: PgCounts,
    /// OSDs that are down and whose answer peering needs.
    pub blocked_by: Vec<OsdId>,
}

/// What an OSD tells the mgr.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdReport {
    /// Who.
    pub osd: OsdId,
    /// Which run of it.
    pub up_from: Epoch,
    /// Its newest map.
    pub epoch: Epoch,
    /// Itself.
    pub stat: OsdStat,
    /// What it did.
    pub counters: OsdCounters,
    /// Every group it is primary of.
    pub pgs: Vec<PgReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_classes_of_powers_of_two() {
        let mut latencies = Latencies::default();
        for us in [0, 1, 2, 3, 4, 1_000, u64::MAX] {
            latencies.add(us);
        }
        assert_eq!(latencies.count(), 7);
        assert_eq!(latencies.classes[..3], [2, 2, 1]);
        assert_eq!((latencies.classes[9], latencies.classes[LATENCY_CLASSES - 1]), (1, 1));
    }
}
