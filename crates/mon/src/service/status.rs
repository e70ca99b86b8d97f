//! The whole at a glance, as a document for programs. `render` makes the text for people of it.

use super::health::{self, View};
use cairn_types::{Digest, Epoch, Fsid, Health, IoRates, PgState, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer to `cairn status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub fsid: Fsid,
    /// When this was read.
    pub time: Timestamp,
    /// Its health.
    pub health: Health,
    /// Its monitors.
    pub mon: MonStatus,
    /// Its mgrs.
    pub mgr: MgrStatus,
    /// Its OSDs.
    pub osd: OsdStatus,
    /// Its pools.
    pub pool: PoolStatus,
    /// Its placement groups.
    pub pg: PgStatus,
    /// Its space.
    pub usage: Usage,
    /// Its traffic.
    pub io: IoRates,
}

/// Monitors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonStatus {
    /// Version of the monitor map.
    pub epoch: Epoch,
    /// How many there are.
    pub total: u64,
    /// Names of those that agree.
    pub quorum: Vec<String>,
    /// Name of the leader.
    pub leader: Option<String>,
    /// A monitor joins and does not count yet, or leaves and is still needed.
    pub changing: bool,
}

/// Mgrs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MgrStatus {
    /// Name of the active one.
    pub active: Option<String>,
    /// Names of the others.
    pub standbys: Vec<String>,
}

/// OSDs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdStatus {
    /// Version of the OSD map.
    pub epoch: Epoch,
    /// How many there are.
    pub total: u64,
    /// How many are up.
    pub up: u64,
    /// How many are in.
    pub r#in: u64,
    /// Switches that are set.
    pub flags: Vec<String>,
}

/// Pools.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    /// How many there are.
    pub total: u64,
    /// Objects in all of them.
    pub objects: u64,
    /// Bytes clients stored, counted once.
    pub stored_bytes: u64,
}

/// Placement groups. Those that have not reported count as `unknown`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PgStatus {
    /// How many there are.
    pub total: u64,
    /// How many by state.
    pub states: BTreeMap<PgState, u64>,
    /// Copies there should be.
    pub copies: u64,
    /// Copies that are missing.
    pub degraded: u64,
    /// Copies on other OSDs than they should be.
    pub misplaced: u64,
    /// Objects without any known copy.
    pub unfound: u64,
}

/// Space on all OSDs that are up.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Size.
    pub total_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// Free.
    pub avail_bytes: u64,
}

/// Reads the status.
pub fn status(view: View<'_>) -> Status {
    let state = view.state;
    let (osd_map, mon_map, mgr_map) = (state.osd_map(), state.mon_map(), state.mgr_map());
    let none = Digest::default();
    let digest = view.digest.unwrap_or(&none);
    let pools = || digest.pools.iter().filter(|(id, _)| osd_map.pools.contains_key(id)).map(|(_, stat)| stat);
    let up = digest.osds.iter().filter(|(osd, _)| osd_map.is_up(**osd)).map(|(_, stat)| stat);
    let usage = up.fold(Usage::default(), |sum, stat| Usage {
        total_bytes: sum.total_bytes + stat.total_bytes,
        used_bytes: sum.used_bytes + stat.used_bytes,
        avail_bytes: sum.avail_bytes + stat.total_bytes.saturating_sub(stat.used_bytes),
    });
    Status {
        fsid: osd_map.fsid,
        time: view.now,
        health: health::health(view),
        mon: MonStatus {
            epoch: mon_map.epoch,
            total: mon_map.mons.len() as u64,
            quorum: view.quorum.members.clone(),
            leader: view.quorum.leader.clone(),
            changing: mon_map.change.is_some(),
        },
        mgr: MgrStatus {
            active: mgr_map.active.as_ref().map(|(name, _)| name.clone()),
            standbys: mgr_map.standbys.keys().cloned().collect(),
        },
        osd: OsdStatus {
            epoch: osd_map.epoch,
            total: osd_map.osds.len() as u64,
            up: osd_map.up_count() as u64,
            r#in: osd_map.in_count() as u64,
            flags: osd_map.flags.iter().map(|flag| flag.to_string()).collect(),
        },
        pool: PoolStatus {
            total: osd_map.pools.len() as u64,
            objects: pools().map(|pool| pool.objects).sum(),
            stored_bytes: pools().map(|pool| pool.stored_bytes).sum(),
        },
        pg: PgStatus {
            total: osd_map.pools.values().map(|pool| u64::from(pool.pg_num)).sum(),
            states: states(osd_map.pools.values().map(|pool| u64::from(pool.pg_num)).sum(), digest),
            copies: pools().map(|pool| pool.counts.copies).sum(),
            degraded: pools().map(|pool| pool.counts.degraded).sum(),
            misplaced: pools().map(|pool| pool.counts.misplaced).sum(),
            unfound: pools().map(|pool| pool.counts.unfound).sum(),
        },
        usage,
        io: digest.io,
    }
}

fn states(total: u64, digest: &Digest) -> BTreeMap<PgState, u64> {
    let mut states = digest.pg_states.clone();
    states.retain(|_, count| *count > 0);
    let silent = total.saturating_sub(digest.pg_total());
    if silent > 0 {
        *states.entry(PgState::UNKNOWN).or_default() += silent;
    }
    states
}
