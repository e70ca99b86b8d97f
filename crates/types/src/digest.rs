//! What the active mgr has gathered of OSDs and placement groups, summed up for the monitors. It is
//! not agreed on by the log: it shows the cluster, it does not steer it.

use crate::{Epoch, OsdId, PgId, PgState, PoolId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Statistics of the whole cluster at one time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Digest {
    /// When it was made.
    pub made: Timestamp,
    /// Newest OSD map the mgr knew.
    pub osdmap_epoch: Epoch,
    /// Groups by state, all pools.
    pub pg_states: BTreeMap<PgState, u64>,
    /// Oldest "last epoch clean" of all groups of all pools; `None` until every one has reported.
    pub last_epoch_clean_min: Option<Epoch>,
    /// Groups that are not well, the worst first; the mgr sends at most a named number of them.
    pub problems: Vec<PgProblem>,
    /// By OSD.
    pub osds: BTreeMap<OsdId, OsdStat>,
    /// By pool.
    pub pools: BTreeMap<PoolId, PoolStat>,
    /// Clients' and recovery's traffic.
    pub io: IoRates,
}

/// One group that is not `active+clean`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PgProblem {
    /// The group.
    pub pg: PgId,
    /// Its state.
    pub state: PgState,
    /// Its acting set.
    pub acting: Vec<OsdId>,
    /// For how long it has been in this state.
    pub for_ms: u64,
}

/// Counts over the groups of a pool. Objects count once per copy where copies are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PgCounts {
    /// Copies there should be.
    pub copies: u64,
    /// Copies that are missing.
    pub degraded: u64,
    /// Copies that are on the wrong OSD.
    pub misplaced: u64,
    /// Objects of which no copy is known to exist.
    pub unfound: u64,
}

/// One pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PoolStat {
    /// Objects, counted once.
    pub objects: u64,
    /// Bytes clients stored, counted once.
    pub stored_bytes: u64,
    /// Bytes on disks, every copy.
    pub used_bytes: u64,
    /// Its copies.
    pub counts: PgCounts,
}

/// One OSD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OsdStat {
    /// Size of its store.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Placement groups it has a part in.
    pub pgs: u32,
    /// Operations that have waited longer than they should.
    pub slow_ops: u32,
}

/// Rates over the last few seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IoRates {
    /// Bytes clients read a second.
    pub read_bytes_per_s: u64,
    /// Bytes clients write a second.
    pub write_bytes_per_s: u64,
    /// Reads a second.
    pub read_ops_per_s: u64,
    /// Writes a second.
    pub write_ops_per_s: u64,
    /// Bytes recovered a second.
    pub recovery_bytes_per_s: u64,
    /// Objects recovered a second.
    pub recovery_objects_per_s: u64,
}

impl Digest {
    /// How many groups have reported.
    pub fn pg_total(&self) -> u64 {
        self.pg_states.values().sum()
    }

    /// How many groups are in a state for which `test` holds.
    pub fn pgs_where(&self, test: impl Fn(PgState) -> bool) -> u64 {
        self.pg_states.iter().filter(|(state, _)| test(**state)).map(|(_, count)| count).sum()
    }
}
