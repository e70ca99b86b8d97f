//! Flags, ratios and the blocklist.

use super::limits::{MAX_BLOCKLIST, MAX_BLOCKLIST_MS};
use super::{Draft, Refusal, Reply};
use cairn_types::{EntityAddr, OsdFlag, Ratio, Ratios};
use serde::{Deserialize, Serialize};

/// What can be asked about the cluster as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClusterCommand {
    /// Sets or clears a flag.
    Flag {
        /// Which.
        flag: OsdFlag,
        /// Whether it is to be set.
        on: bool,
    },
    /// Changes how full OSDs may be.
    Ratios(Ratios),
    /// Shuts a process (or with [`EntityAddr::whole_host`] a host) out of all OSDs.
    Block {
        /// Who.
        addr: EntityAddr,
        /// For how long.
        for_ms: u64,
    },
    /// Lets it in again.
    Unblock {
        /// Who.
        addr: EntityAddr,
    },
}

pub(super) fn run(draft: &mut Draft<'_>, command: &ClusterCommand) -> Result<Reply, Refusal> {
    let now = draft.now;
    let map = &mut draft.next.osd_map;
    match command {
        ClusterCommand::Flag { flag: OsdFlag::Full, .. } => {
            return Err(Refusal::FlagOfTheMonitors { flag: "full" });
        }
        ClusterCommand::Flag { flag, on } => map.flags = map.flags.with(*flag, *on),
        ClusterCommand::Ratios(ratios) => {
            let Ratios { nearfull, backfillfull, full } = *ratios;
            if nearfull > backfillfull || backfillfull > full || full > Ratio::ONE {
                return Err(Refusal::BadRatios { nearfull, backfillfull, full });
            }
            map.ratios = *ratios;
        }
        ClusterCommand::Block { addr, for_ms } => {
            if !(1..=MAX_BLOCKLIST_MS).contains(for_ms) {
                return Err(Refusal::BadDuration { found_ms: *for_ms, most_ms: MAX_BLOCKLIST_MS });
            }
            if map.blocklist.len() >= MAX_BLOCKLIST && !map.blocklist.contains_key(addr) {
                return Err(Refusal::TooMany { what: "blocklist entries", limit: MAX_BLOCKLIST });
            }
            // A fence is never shortened by a second, weaker one.
            let until = now.plus_ms(*for_ms);
            let entry = map.blocklist.entry(*addr).or_insert(until);
            *entry = until.max(*entry);
        }
        ClusterCommand::Unblock { addr } => {
            map.blocklist.remove(addr).ok_or(Refusal::NotBlocked { addr: *addr })?;
        }
    }
    Ok(Reply::Done)
}

/// Removes entries whose time is over.
pub(super) fn expire(draft: &mut Draft<'_>, addrs: &[EntityAddr]) -> Result<Reply, Refusal> {
    let now = draft.now;
    for addr in addrs {
        if draft.next.osd_map.blocklist.get(addr).is_some_and(|until| *until <= now) {
            draft.next.osd_map.blocklist.remove(addr);
        }
    }
    Ok(Reply::Done)
}

/// Some OSD is full, or none is any more.
pub(super) fn set_full(draft: &mut Draft<'_>, full: bool) -> Result<Reply, Refusal> {
    let map = &mut draft.next.osd_map;
    map.flags = map.flags.with(OsdFlag::Full, full);
    Ok(Reply::Done)
}
