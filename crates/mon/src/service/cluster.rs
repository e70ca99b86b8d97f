//! Flags, ratios and the blocklist.

use super::limits::{MAX_BLOCKLIST, MAX_BLOCKLIST_MS};
use super::{Block, Draft, Refusal, Reply};
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
    let (now, since) = (draft.now, draft.base.version + 1);
    let blocks = &mut draft.next.blocks;
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
            let for_ms = blocks.get(addr).map_or(*for_ms, |block| block.for_ms.max(*for_ms));
            blocks.insert(*addr, Block { for_ms, since });
        }
        ClusterCommand::Unblock { addr } => {
            map.blocklist.remove(addr).ok_or(Refusal::NotBlocked { addr: *addr })?;
            blocks.remove(addr);
        }
    }
    Ok(Reply::Done)
}

/// Removes entries whose time is over, unless they have been renewed.
pub(super) fn expire(draft: &mut Draft<'_>, entries: &[(EntityAddr, u64)]) -> Result<Reply, Refusal> {
    for (addr, since) in entries {
        if draft.next.blocks.get(addr).is_some_and(|block| block.since == *since) {
            draft.next.blocks.remove(addr);
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
