//! What the monitors agree on.

use super::canonical;
use super::crush;
use super::{ApplyError, Auth, Config, OsdMapHistory, Remembered, Transaction};
use cairn_types::{EntityAddr, Epoch, Fsid, MgrMap, MonId, MonInfo, MonMap, OsdId, OsdMap, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the monitors remember of an OSD that the map, which everybody gets, need not carry.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OsdRecord {
    /// When it was marked down because it failed, oldest first.
    pub mark_downs: Vec<Timestamp>,
}

/// How long somebody is shut out. The map, which everybody gets, has the end by the clock of the leader that made the entry:
/// that is for people, since clocks differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    /// For so long at least.
    pub for_ms: u64,
    /// Version of the state that has it so: who shuts out again begins anew.
    pub since: u64,
}

/// What a cluster starts from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Genesis {
    /// Its id, drawn by whoever makes it.
    pub fsid: Fsid,
    /// The time.
    pub now: Timestamp,
    /// Its first monitors. They are numbered from 0 in the order of their names.
    pub mons: BTreeMap<String, Vec<EntityAddr>>,
}

/// The state of all services: the same on every monitor that has applied the same transactions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterState {
    /// Transactions applied so far.
    pub(super) version: u64,
    pub(super) mon_map: MonMap,
    pub(super) mgr_map: MgrMap,
    pub(super) osd_maps: OsdMapHistory,
    pub(super) osd_records: BTreeMap<OsdId, OsdRecord>,
    pub(super) blocks: BTreeMap<EntityAddr, Block>,
    pub(super) config: Config,
    pub(super) auth: Auth,
    pub(super) last_client: u64,
    pub(super) remembered: Remembered,
}

impl ClusterState {
    /// The state of a new cluster: its monitors, one CRUSH root and rule, no OSD, no pool.
    pub fn new(genesis: Genesis) -> Self {
        let Genesis { fsid, now, mons } = genesis;
        let next_id = MonId(mons.len() as u32);
        let mons =
            (0..).map(MonId).zip(mons).map(|(id, (name, addrs))| (name, MonInfo { id, addrs })).collect();
        ClusterState {
            version: 0,
            mon_map: MonMap {
                epoch: Epoch(1),
                fsid,
                created: now,
                modified: now,
                next_id,
                mons,
                change: None,
            },
            mgr_map: MgrMap::default(),
            osd_maps: OsdMapHistory::new(OsdMap::new(fsid, now, crush::first_map())),
            osd_records: BTreeMap::new(),
            blocks: BTreeMap::new(),
            config: Config::default(),
            auth: Auth::default(),
            last_client: 0,
            remembered: Remembered::default(),
        }
    }

    /// Transactions applied so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The monitors.
    pub fn mon_map(&self) -> &MonMap {
        &self.mon_map
    }

    /// The mgrs.
    pub fn mgr_map(&self) -> &MgrMap {
        &self.mgr_map
    }

    /// The newest OSD map.
    pub fn osd_map(&self) -> &OsdMap {
        self.osd_maps.current()
    }

    /// The OSD maps that are kept.
    pub fn osd_maps(&self) -> &OsdMapHistory {
        &self.osd_maps
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who may connect.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// What lately completed requests got.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// What is remembered of an OSD.
    pub fn osd_record(&self, osd: OsdId) -> Option<&OsdRecord> {
        self.osd_records.get(&osd)
    }

    /// How long who is shut out stays so.
    pub fn block(&self, addr: &EntityAddr) -> Option<&Block> {
        self.blocks.get(addr)
    }

    /// The state after a transaction: the same on every monitor, whatever its clock says. A
    /// transaction made over another state than this one is refused whole; its maker tries again.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        transaction.apply_to(self)
    }

    /// Hash of all of it, for comparing monitors.
    pub fn hash(&self) -> u64 {
        canonical::hash(self)
    }
}
