//! The unit of change: what one slot of the log does to the state.

use super::{AuthEntity, Block, ClusterState, ConfigSection, OsdRecord, Reply};
use cairn_types::{
    EntityAddr, EntityName, Epoch, MapFault, MgrMap, MonMap, OsdId, OsdMapIncremental, Timestamp,
};
use cairn_wire::RequestId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A change of the state, decided on by the leader and ordered by the log. Applying it needs no clock and
/// no judgement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// Version of the state it makes: one above that of the state it was made over.
    pub version: u64,
    /// The leader's time when it was made.
    pub made: Timestamp,
    /// The next epoch of the OSD map.
    pub osd_map: Option<OsdMapIncremental>,
    /// The next epoch of the monitor map, whole: it is small and rare.
    pub mon_map: Option<MonMap>,
    /// The next epoch of the mgr map, whole.
    pub mgr_map: Option<MgrMap>,
    /// Records of OSDs; `None` forgets one.
    pub osd_records: BTreeMap<OsdId, Option<OsdRecord>>,
    /// How long entries of the blocklist last; `None` forgets one.
    pub blocks: BTreeMap<EntityAddr, Option<Block>>,
    /// Settings; `None` removes one.
    pub config: BTreeMap<(ConfigSection, String), Option<String>>,
    /// Entities; `None` removes one.
    pub auth: BTreeMap<EntityName, Option<AuthEntity>>,
    /// The first epoch of the OSD map to keep.
    pub trim_osd_maps_to: Option<Epoch>,
    /// Number of the last client session given out.
    pub last_client: Option<u64>,
    /// Requests that must not be carried out a second time, and what they got.
    pub remember: Vec<(RequestId, Reply)>,
}

/// Why a transaction does not apply. Every monitor refuses it for the same reason.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ApplyError {
    /// Made over a state that has changed since.
    #[error("the change was made for version {made_for} of the state, which is at {have}; try again")]
    Stale {
        /// Version the transaction makes.
        made_for: u64,
        /// Version of the state.
        have: u64,
    },
    /// An OSD map that makes no sense.
    #[error(transparent)]
    OsdMap(#[from] MapFault),
    /// Another map out of turn.
    #[error("the {map} map of the change is {found}, the one at hand {have}")]
    Epoch {
        /// Which map.
        map: &'static str,
        /// Epoch of the change.
        found: Epoch,
        /// Epoch of the state.
        have: Epoch,
    },
}

impl Transaction {
    /// A transaction that changes nothing.
    pub(super) fn empty(version: u64, made: Timestamp) -> Self {
        Transaction {
            version,
            made,
            osd_map: None,
            mon_map: None,
            mgr_map: None,
            osd_records: BTreeMap::new(),
            blocks: BTreeMap::new(),
            config: BTreeMap::new(),
            auth: BTreeMap::new(),
            trim_osd_maps_to: None,
            last_client: None,
            remember: Vec::new(),
        }
    }

    /// Whether it changes nothing but the version.
    pub fn is_empty(&self) -> bool {
        *self == Transaction::empty(self.version, self.made)
    }

    /// Changes the state: all of it, or on an error nothing.
    pub(super) fn apply_to(&self, state: &mut ClusterState) -> Result<(), ApplyError> {
        if self.version != state.version + 1 {
            return Err(ApplyError::Stale { made_for: self.version, have: state.version });
        }
        if let Some(map) = &self.mon_map {
            in_turn("monitor", state.mon_map.epoch, map.epoch)?;
        }
        if let Some(map) = &self.mgr_map {
            in_turn("mgr", state.mgr_map.epoch, map.epoch)?;
        }
        // The last step that can fail; it changes the history whole or not at all.
        if let Some(change) = &self.osd_map {
            state.osd_maps.push(change.clone())?;
        }
        state.version = self.version;
        if let Some(first) = self.trim_osd_maps_to {
            state.osd_maps.trim(first);
        }
        if let Some(map) = &self.mon_map {
            state.mon_map = map.clone();
        }
        if let Some(map) = &self.mgr_map {
            state.mgr_map = map.clone();
        }
        set(&mut state.osd_records, &self.osd_records);
        set(&mut state.blocks, &self.blocks);
        if !self.config.is_empty() {
            state.config.version += 1;
            set(&mut state.config.values, &self.config);
        }
        if !self.auth.is_empty() {
            state.auth.version += 1;
            set(&mut state.auth.entities, &self.auth);
        }
        state.last_client = self.last_client.unwrap_or(state.last_client);
        for (id, reply) in &self.remember {
            state.remembered.push(self.version, *id, reply.clone());
        }
        Ok(())
    }
}

fn in_turn(map: &'static str, have: Epoch, found: Epoch) -> Result<(), ApplyError> {
    if found == have.next() { Ok(()) } else { Err(ApplyError::Epoch { map, found, have }) }
}

fn set<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, change) in changes {
        match change {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// What makes `after` out of `before`, entry by entry.
pub(super) fn changes<K: Ord + Clone, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    gone.chain(new.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}
