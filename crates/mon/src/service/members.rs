//! Monitors, mgrs, and who may connect.

use super::draft::clip;
use super::limits::{MAX_ADDRS, MAX_ENTITIES, MAX_MGRS, MAX_MONITORS};
use super::{Draft, Refusal, Reply};
use cairn_types::{EntityAddr, EntityKind, EntityName, MgrInfo, MonChange, MonId, MonInfo, MonMap, MonStep};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What can be asked about monitors. One joins or leaves at a time; the log's members follow the map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MonCommand {
    /// Gives a monitor a number. It counts once it runs under it and has the state.
    Add {
        /// Its name, such as `d`.
        name: String,
        /// Where it will listen.
        addrs: Vec<EntityAddr>,
    },
    /// Removes a monitor, or takes back one that joins.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Who may connect, and as what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuthEntity {
    /// SHA-256 of the public key in its certificate.
    pub key_sha256: [u8; 32],
    /// Whether it may no longer connect. The entry stays, so that the name is not given away.
    pub revoked: bool,
}

/// The list of entities.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Auth {
    /// Grows with every change.
    pub version: u64,
    /// Who may connect.
    pub entities: BTreeMap<EntityName, AuthEntity>,
}

/// What can be asked about entities.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AuthCommand {
    /// Lets an entity in, or replaces its key.
    Put {
        /// Who.
        name: EntityName,
        /// SHA-256 of its public key.
        key_sha256: [u8; 32],
    },
    /// Shuts an entity out.
    Revoke {
        /// Who.
        name: EntityName,
    },
    /// Forgets an entity.
    Remove {
        /// Who.
        name: EntityName,
    },
}

pub(super) fn run_mon(draft: &mut Draft<'_>, command: &MonCommand) -> Result<Reply, Refusal> {
    let map = &mut draft.next.mon_map;
    match command {
        MonCommand::Add { name, addrs } => add_mon(map, name, addrs),
        MonCommand::Remove { name } => remove_mon(map, name),
    }
}

fn add_mon(map: &mut MonMap, name: &str, addrs: &[EntityAddr]) -> Result<Reply, Refusal> {
    if EntityName::new(EntityKind::Mon, name).is_err() {
        return Err(Refusal::BadName { name: clip(name) });
    }
    let joins = map.change.as_ref().filter(|change| change.step == MonStep::Joins && change.name == name);
    if let Some(known) = joins.map(|change| &change.mon).or(map.mons.get(name)) {
        return match known.addrs == addrs {
            true => Ok(Reply::Mon { mon: known.id }),
            false => Err(Refusal::MonExists { name: name.to_owned() }),
        };
    }
    one_at_a_time(map)?;
    if addrs.is_empty() || addrs.len() > MAX_ADDRS {
        return Err(Refusal::BadAddrs { found: addrs.len(), most: MAX_ADDRS });
    }
    if map.mons.len() >= MAX_MONITORS {
        return Err(Refusal::TooMany { what: "monitors", limit: MAX_MONITORS });
    }
    let taken =
        |mon: &MonInfo| mon.addrs.iter().any(|known| addrs.iter().any(|addr| addr.socket == known.socket));
    if let Some((other, _)) = map.mons.iter().find(|(_, mon)| taken(mon)) {
        return Err(Refusal::AddrTaken { name: other.clone() });
    }
    let mon = map.next_id;
    map.next_id = MonId(mon.0 + 1);
    let info = MonInfo { id: mon, addrs: addrs.to_vec() };
    map.change = Some(MonChange { step: MonStep::Joins, name: name.to_owned(), mon: info });
    Ok(Reply::Mon { mon })
}

fn remove_mon(map: &mut MonMap, name: &str) -> Result<Reply, Refusal> {
    if let Some(change) = map.change.as_mut().filter(|change| change.name == name) {
        // Taken back, if it joins. Its number is used up all the same.
        change.step = MonStep::Leaves;
        return Ok(Reply::Done);
    }
    if !map.mons.contains_key(name) {
        return Err(Refusal::NoMon { name: name.to_owned() });
    }
    one_at_a_time(map)?;
    if map.mons.len() == 1 {
        return Err(Refusal::LastMon { name: name.to_owned() });
    }
    if let Some(mon) = map.mons.remove(name) {
        map.change = Some(MonChange { step: MonStep::Leaves, name: name.to_owned(), mon });
    }
    Ok(Reply::Done)
}

fn one_at_a_time(map: &MonMap) -> Result<(), Refusal> {
    match &map.change {
        Some(MonChange { step: MonStep::Joins, name, .. }) => Err(Refusal::MonJoins { name: name.clone() }),
        Some(MonChange { step: MonStep::Leaves, name, .. }) => Err(Refusal::MonLeaves { name: name.clone() }),
        None => Ok(()),
    }
}

/// The log's members are what this change was for.
pub(super) fn mon_changed(draft: &mut Draft<'_>, done: &MonChange) -> Result<Reply, Refusal> {
    let map = &mut draft.next.mon_map;
    // One that joins may have been taken back in this moment.
    if let Some(change) = map.change.take_if(|change| change == done)
        && change.step == MonStep::Joins
    {
        map.mons.insert(change.name, change.mon);
    }
    Ok(Reply::Done)
}

pub(super) fn run_auth(draft: &mut Draft<'_>, command: &AuthCommand) -> Result<Reply, Refusal> {
    let entities = &mut draft.next.auth.entities;
    match command {
        AuthCommand::Put { name, key_sha256 } => {
            if entities.len() >= MAX_ENTITIES && !entities.contains_key(name) {
                return Err(Refusal::TooMany { what: "entities", limit: MAX_ENTITIES });
            }
            entities.insert(name.clone(), AuthEntity { key_sha256: *key_sha256, revoked: false });
        }
        AuthCommand::Revoke { name } => {
            let entity = entities.get_mut(name).ok_or_else(|| Refusal::NoEntity { name: name.clone() })?;
            entity.revoked = true;
        }
        AuthCommand::Remove { name } => {
            entities.remove(name).ok_or_else(|| Refusal::NoEntity { name: name.clone() })?;
        }
    }
    Ok(Reply::Done)
}

/// A mgr runs: the first becomes active, others stand by. A new run of the active one takes its place
/// among the standbys if there is one to take over.
pub(super) fn mgr_seen(draft: &mut Draft<'_>, name: &str, addr: EntityAddr) -> Result<Reply, Refusal> {
    if EntityName::new(EntityKind::Mgr, name).is_err() {
        return Err(Refusal::BadName { name: clip(name) });
    }
    let info = MgrInfo { addr, since: draft.now };
    let map = &mut draft.next.mgr_map;
    let run = map.active.iter().map(|(name, info)| (name, info)).chain(&map.standbys);
    if run.filter(|(known, _)| *known == name).any(|(_, info)| info.addr.nonce > addr.nonce) {
        // Late news of an earlier run.
        return Ok(Reply::Done);
    }
    let active = map.active.as_ref().filter(|(active, _)| active == name).map(|(_, info)| info.addr);
    if active == Some(addr) || map.standbys.get(name).is_some_and(|known| known.addr == addr) {
        return Ok(Reply::Done);
    }
    if map.standbys.len() >= MAX_MGRS && !map.standbys.contains_key(name) {
        return Err(Refusal::TooMany { what: "mgrs", limit: MAX_MGRS });
    }
    if active.is_some() {
        map.active = None;
    }
    map.standbys.insert(name.to_owned(), info);
    promote(draft, Some(name));
    Ok(Reply::Done)
}

/// A run of a mgr is silent.
pub(super) fn mgr_lost(draft: &mut Draft<'_>, name: &str, addr: EntityAddr) -> Result<Reply, Refusal> {
    let map = &mut draft.next.mgr_map;
    if map.standbys.get(name).is_some_and(|info| info.addr == addr) {
        map.standbys.remove(name);
    }
    if map.active.as_ref().is_some_and(|(active, info)| active == name && info.addr == addr) {
        map.active = None;
        promote(draft, None);
    }
    Ok(Reply::Done)
}

/// Makes a standby active if none is; `last` only if there is no other.
fn promote(draft: &mut Draft<'_>, last: Option<&str>) {
    let now = draft.now;
    let map = &mut draft.next.mgr_map;
    if map.active.is_some() {
        return;
    }
    let other = map.standbys.keys().find(|name| Some(name.as_str()) != last);
    let Some(name) = other.or_else(|| map.standbys.keys().next()).cloned() else { return };
    if let Some(info) = map.standbys.remove(&name) {
        map.active = Some((name, MgrInfo { since: now, ..info }));
    }
}
