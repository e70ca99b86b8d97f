//! The OSD map: all that placement and I/O need to know of the cluster, in one versioned value.
//!
//! | what | file |
//! |---|---|
//! | the map and its rules | here |
//! | one OSD, one pool | `osd`, `pool` |
//! | switches | `flags` |
//! | the CRUSH map inside | `crush` |
//! | what changes from one epoch to the next | `incremental` |

mod crush;
mod flags;
mod incremental;
mod osd;
mod pool;

pub use crush::CrushBlob;
pub use flags::{OsdFlag, OsdFlags, PoolFlag, PoolFlags};
pub use incremental::OsdMapIncremental;
pub use osd::{OsdInfo, OsdUuid};
pub use pool::Pool;

use crate::{EntityAddr, Epoch, Fsid, OsdId, PgId, PoolId, Timestamp, Weight};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// A share in millionths, so that maps compare and hash exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ratio(pub u32);

impl Ratio {
    /// All of it.
    pub const ONE: Ratio = Ratio(1_000_000);

    /// A share in per cent.
    pub const fn percent(percent: u32) -> Ratio {
        Ratio(percent * 10_000)
    }

    /// Whether `part` of `whole` is at least this share.
    pub fn reached_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Ratio::ONE.0) >= u128::from(whole) * u128::from(self.0)
    }
}

impl fmt::Display for Ratio {
    /// As a fraction of one, such as `0.85`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / Ratio::ONE.0, self.0 % Ratio::ONE.0);
        let text = text.trim_end_matches('0');
        f.write_str(text.strip_suffix('.').unwrap_or(text))
    }
}

/// How full an OSD may be. Each is at least the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ratios {
    /// From here health warns.
    pub nearfull: Ratio,
    /// From here the OSD takes no backfill.
    pub backfillfull: Ratio,
    /// From here clients write nothing.
    pub full: Ratio,
}

impl Default for Ratios {
    /// Ceph's defaults, which operators plan their disks by.
    fn default() -> Self {
        Ratios { nearfull: Ratio::percent(85), backfillfull: Ratio::percent(90), full: Ratio::percent(95) }
    }
}

/// One epoch of the cluster map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdMap {
    /// Version of this map.
    pub epoch: Epoch,
    /// The cluster.
    pub fsid: Fsid,
    /// When the first map was made.
    pub created: Timestamp,
    /// When this one was made.
    pub modified: Timestamp,
    /// Switches of the cluster.
    pub flags: OsdFlags,
    /// How full an OSD may be.
    pub ratios: Ratios,
    /// Where things are and how placement chooses.
    pub crush: CrushBlob,
    /// Largest pool number ever given out; numbers are never given twice.
    pub pool_max: PoolId,
    /// The pools.
    pub pools: BTreeMap<PoolId, Pool>,
    /// The OSDs that exist.
    pub osds: BTreeMap<OsdId, OsdInfo>,
    /// Acting sets that stand in for the computed ones for a while. Never empty.
    pub pg_temp: BTreeMap<PgId, Vec<OsdId>>,
    /// Primaries that stand in for the computed ones for a while.
    pub primary_temp: BTreeMap<PgId, OsdId>,
    /// Up sets that replace the computed ones. Never empty.
    pub upmap: BTreeMap<PgId, Vec<OsdId>>,
    /// Single replacements (from, to) within the computed up sets. Never empty.
    pub upmap_items: BTreeMap<PgId, Vec<(OsdId, OsdId)>>,
    /// Processes that OSDs no longer serve, and until when the monitors keep the entry.
    pub blocklist: BTreeMap<EntityAddr, Timestamp>,
}

/// Why a map, or a change of one, makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MapFault {
    /// Not the next change.
    #[error("the change makes epoch {found}, but the map at hand is {have} and takes only {}", .have.next())]
    NotNext {
        /// Epoch of the map.
        have: Epoch,
        /// Epoch of the change.
        found: Epoch,
    },
    /// The change of another cluster.
    #[error("the change belongs to cluster {found}, the map to cluster {have}")]
    OtherCluster {
        /// Cluster of the map.
        have: Fsid,
        /// Cluster of the change.
        found: Fsid,
    },
    /// A pool that is not there.
    #[error("{what} names pool {pool}, which is not in the map")]
    NoPool {
        /// What names it.
        what: &'static str,
        /// The pool.
        pool: PoolId,
    },
    /// An OSD that is not there.
    #[error("{what} names {osd}, which is not in the map")]
    NoOsd {
        /// What names it.
        what: &'static str,
        /// The OSD.
        osd: OsdId,
    },
    /// A placement group that is not there.
    #[error("{what} names placement group {pg}, but the pool has {pg_num}")]
    NoPg {
        /// What names it.
        what: &'static str,
        /// The group.
        pg: PgId,
        /// Groups of its pool.
        pg_num: u32,
    },
    /// An entry that is to be removed and is not there.
    #[error("the change removes {what} of {entry}, which is not in the map")]
    NothingToRemove {
        /// What kind of entry.
        what: &'static str,
        /// Its key.
        entry: String,
    },
    /// Two changes of one thing.
    #[error("the change names {entry} twice")]
    Twice {
        /// What.
        entry: String,
    },
    /// A pool that cannot work.
    #[error("pool {pool} cannot be: {why}")]
    BadPool {
        /// The pool.
        pool: PoolId,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An OSD that cannot be.
    #[error("{osd} cannot be: {why}")]
    BadOsd {
        /// The OSD.
        osd: OsdId,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// An entry without content or with a repetition.
    #[error("{what} of placement group {pg} is empty or names an OSD twice")]
    BadSet {
        /// What kind of entry.
        what: &'static str,
        /// The group.
        pg: PgId,
    },
    /// Ratios out of order.
    #[error("the ratios must rise: nearfull {nearfull}, backfillfull {backfillfull}, full {full}, at most 1")]
    BadRatios {
        /// `nearfull`
        nearfull: Ratio,
        /// `backfillfull`
        backfillfull: Ratio,
        /// `full`
        full: Ratio,
    },
    /// Bits that nobody here knows.
    #[error("{what} holds flags this version does not know; update it")]
    UnknownFlags {
        /// Whose flags.
        what: &'static str,
    },
}

impl OsdMap {
    /// Epoch 1 of a new cluster: no pool, no OSD.
    pub fn new(fsid: Fsid, now: Timestamp, crush: CrushBlob) -> Self {
        OsdMap {
            epoch: Epoch(1),
            fsid,
            created: now,
            modified: now,
            flags: OsdFlags::default(),
            ratios: Ratios::default(),
            crush,
            pool_max: PoolId(0),
            pools: BTreeMap::new(),
            osds: BTreeMap::new(),
            pg_temp: BTreeMap::new(),
            primary_temp: BTreeMap::new(),
            upmap: BTreeMap::new(),
            upmap_items: BTreeMap::new(),
            blocklist: BTreeMap::new(),
        }
    }

    /// One above the largest OSD number: the length of tables by OSD.
    pub fn max_osd(&self) -> i32 {
        self.osds.keys().next_back().map_or(0, |osd| osd.0 + 1)
    }

    /// Whether an OSD exists and is up.
    pub fn is_up(&self, osd: OsdId) -> bool {
        self.osds.get(&osd).is_some_and(|info| info.up)
    }

    /// How many OSDs are up.
    pub fn up_count(&self) -> usize {
        self.osds.values().filter(|osd| osd.up).count()
    }

    /// How many OSDs are in.
    pub fn in_count(&self) -> usize {
        self.osds.values().filter(|osd| osd.is_in()).count()
    }

    /// The pool of a name.
    pub fn pool_by_name(&self, name: &str) -> Option<(PoolId, &Pool)> {
        self.pools.iter().find(|(_, pool)| pool.name == name).map(|(&id, pool)| (id, pool))
    }

    /// Whether OSDs refuse this process, by itself or with its whole host.
    pub fn is_blocklisted(&self, addr: &EntityAddr) -> bool {
        self.blocklist.contains_key(addr)
            || self.blocklist.contains_key(&EntityAddr::whole_host(addr.socket.ip()))
    }

    /// Whether every reference and every value in the map makes sense.
    pub fn check(&self) -> Result<(), MapFault> {
        if !self.flags.is_known() {
            return Err(MapFault::UnknownFlags { what: "the cluster" });
        }
        let Ratios { nearfull, backfillfull, full } = self.ratios;
        if nearfull > backfillfull || backfillfull > full || full > Ratio::ONE {
            return Err(MapFault::BadRatios { nearfull, backfillfull, full });
        }
        self.check_pools()?;
        for (&osd, info) in &self.osds {
            check_osd(osd, info)?;
        }
        for (&pg, osds) in &self.pg_temp {
            self.check_set("pg_temp", pg, osds)?;
        }
        for (&pg, &osd) in &self.primary_temp {
            self.check_pg("primary_temp", pg)?;
            self.check_osd_exists("primary_temp", osd)?;
        }
        for (&pg, osds) in &self.upmap {
            self.check_set("upmap", pg, osds)?;
        }
        for (&pg, items) in &self.upmap_items {
            let (from, to): (Vec<OsdId>, Vec<OsdId>) = items.iter().copied().unzip();
            self.check_set("upmap_items", pg, &from)?;
            self.check_set("upmap_items", pg, &to)?;
        }
        Ok(())
    }

    fn check_pools(&self) -> Result<(), MapFault> {
        let mut names = BTreeSet::new();
        for (&pool, info) in &self.pools {
            let bad = |why| Err(MapFault::BadPool { pool, why });
            if pool.0 < 1 || pool > self.pool_max {
                return bad("its number was never given out");
            }
            if info.name.is_empty() || !names.insert(&info.name) {
                return bad("its name is empty or another pool's");
            }
            if info.min_size < 1 || info.min_size > info.size {
                return bad("min_size must be from 1 to size");
            }
            if info.pgp_num < 1 || info.pgp_num > info.pg_num {
                return bad("pgp_num must be from 1 to pg_num");
            }
            if info.last_change > self.epoch {
                return bad("its last change is in the future");
            }
            if !info.flags.is_known() {
                return Err(MapFault::UnknownFlags { what: "a pool" });
            }
        }
        Ok(())
    }

    fn check_pg(&self, what: &'static str, pg: PgId) -> Result<(), MapFault> {
        let pool = self.pools.get(&pg.pool).ok_or(MapFault::NoPool { what, pool: pg.pool })?;
        if pg.seed >= pool.pg_num {
            return Err(MapFault::NoPg { what, pg, pg_num: pool.pg_num });
        }
        Ok(())
    }

    fn check_osd_exists(&self, what: &'static str, osd: OsdId) -> Result<(), MapFault> {
        if self.osds.contains_key(&osd) { Ok(()) } else { Err(MapFault::NoOsd { what, osd }) }
    }

    fn check_set(&self, what: &'static str, pg: PgId, osds: &[OsdId]) -> Result<(), MapFault> {
        self.check_pg(what, pg)?;
        let distinct: BTreeSet<_> = osds.iter().collect();
        if osds.is_empty() || distinct.len() != osds.len() {
            return Err(MapFault::BadSet { what, pg });
        }
        osds.iter().try_for_each(|&osd| self.check_osd_exists(what, osd))
    }
}

fn check_osd(osd: OsdId, info: &OsdInfo) -> Result<(), MapFault> {
    let bad = |why| Err(MapFault::BadOsd { osd, why });
    if osd.0 < 0 {
        return bad("numbers start at 0");
    }
    if info.weight > Weight::ONE || info.primary_affinity > Weight::ONE {
        return bad("reweight and primary affinity go from 0 to 1");
    }
    if info.weight_before_auto_out.is_some_and(|before| before > Weight::ONE || info.is_in()) {
        return bad("a weight is kept for later only while it is out");
    }
    if info.up && (info.public.is_none() || info.cluster.is_none() || info.is_destroyed()) {
        return bad("what is up has addresses and a store");
    }
    if info.last_clean_interval.0 > info.last_clean_interval.1 {
        return bad("its last clean interval ends before it begins");
    }
    Ok(())
}
