//! What OSDs and the balancer ask about placement groups.

use super::limits::MAX_PGS_PER_REQUEST;
use super::{Draft, Refusal, Reply};
use cairn_types::{Epoch, OsdId, PgId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What can be asked about placement groups.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PgCommand {
    /// A primary wants other acting sets for a while, or (empty) the computed ones again.
    Temp {
        /// Who asks.
        from: OsdId,
        /// The sets.
        sets: BTreeMap<PgId, Vec<OsdId>>,
    },
    /// An OSD wants it known that it was alive at an epoch, before it serves.
    UpThru {
        /// Who asks.
        osd: OsdId,
        /// The run that asks.
        up_from: Epoch,
        /// Which epoch.
        want: Epoch,
    },
    /// Replaces the computed up set of a group, or (`None`) no longer.
    Upmap {
        /// The group.
        pg: PgId,
        /// The set.
        set: Option<Vec<OsdId>>,
    },
    /// Replaces members of the computed up set of a group, or (`None`) no longer.
    UpmapItems {
        /// The group.
        pg: PgId,
        /// Pairs (from, to).
        items: Option<Vec<(OsdId, OsdId)>>,
    },
}

pub(super) fn run(draft: &mut Draft<'_>, command: &PgCommand) -> Result<Reply, Refusal> {
    match command {
        PgCommand::Temp { from, sets } => temp(draft, *from, sets),
        PgCommand::UpThru { osd, up_from, want } => {
            let have = draft.base.osd_map().epoch;
            let info = draft.osd(*osd)?;
            if !info.up || info.up_from != *up_from {
                return Err(Refusal::OsdNotUp { osd: *osd });
            }
            if *want > have {
                return Err(Refusal::FutureEpoch { found: *want, have });
            }
            info.up_thru = info.up_thru.max(*want);
            Ok(Reply::Done)
        }
        PgCommand::Upmap { pg, set } => {
            if let Some(set) = set {
                check_set(draft, *pg, set)?;
            }
            change(&mut draft.next.osd_map.upmap, *pg, set.clone());
            Ok(Reply::Done)
        }
        PgCommand::UpmapItems { pg, items } => {
            if let Some(items) = items {
                let (from, to): (Vec<OsdId>, Vec<OsdId>) = items.iter().copied().unzip();
                check_set(draft, *pg, &from)?;
                check_set(draft, *pg, &to)?;
            }
            change(&mut draft.next.osd_map.upmap_items, *pg, items.clone());
            Ok(Reply::Done)
        }
    }
}

fn temp(draft: &mut Draft<'_>, from: OsdId, sets: &BTreeMap<PgId, Vec<OsdId>>) -> Result<Reply, Refusal> {
    if sets.len() > MAX_PGS_PER_REQUEST {
        return Err(Refusal::TooMany { what: "groups in one request", limit: MAX_PGS_PER_REQUEST });
    }
    if !draft.osd(from)?.up {
        return Err(Refusal::OsdNotUp { osd: from });
    }
    for (&pg, set) in sets {
        // A group whose pool went away meanwhile is no mistake of the OSD's.
        if draft.next.osd_map.pools.get(&pg.pool).is_none_or(|pool| pg.seed >= pool.pg_num) {
            continue;
        }
        // Members may have died while the request was under way: such a set would help nobody.
        if set.is_empty() || !set.iter().any(|osd| draft.next.osd_map.is_up(*osd)) {
            draft.next.osd_map.pg_temp.remove(&pg);
        } else {
            check_set(draft, pg, set)?;
            draft.next.osd_map.pg_temp.insert(pg, set.clone());
        }
    }
    Ok(Reply::Done)
}

/// A set of a group: of existing OSDs, none twice, no larger than the pool's size.
fn check_set(draft: &Draft<'_>, pg: PgId, set: &[OsdId]) -> Result<(), Refusal> {
    let map = &draft.next.osd_map;
    let pool = map.pools.get(&pg.pool).filter(|pool| pg.seed < pool.pg_num).ok_or(Refusal::NoPg { pg })?;
    let distinct: BTreeSet<_> = set.iter().collect();
    if set.is_empty() || set.len() > usize::from(pool.size) || distinct.len() != set.len() {
        return Err(Refusal::BadSet { pg, size: pool.size });
    }
    match set.iter().find(|osd| !map.osds.contains_key(osd)) {
        Some(&osd) => Err(Refusal::NoOsd { osd }),
        None => Ok(()),
    }
}

fn change<V>(map: &mut BTreeMap<PgId, V>, pg: PgId, value: Option<V>) {
    match value {
        Some(value) => map.insert(pg, value),
        None => map.remove(&pg),
    };
}
