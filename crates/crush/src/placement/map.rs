//! What placement needs of the cluster's OSD map. Whoever places does it by this, or clients and OSDs would disagree.

use super::{OsdState, Osds, Overrides, Pool};
use cairn_types::{OsdId, OsdMap, PoolId};

impl From<&OsdMap> for Osds {
    fn from(map: &OsdMap) -> Osds {
        let mut osds = Osds::default();
        for (&osd, info) in &map.osds {
            let state = OsdState {
                exists: true,
                is_up: info.up,
                weight: info.weight,
                primary_affinity: info.primary_affinity,
            };
            osds.set(osd, state);
        }
        osds
    }
}

impl From<&OsdMap> for Overrides {
    fn from(map: &OsdMap) -> Overrides {
        let numbers = |osds: &Vec<OsdId>| osds.iter().map(|osd| osd.0).collect();
        let pairs = |items: &Vec<(OsdId, OsdId)>| items.iter().map(|(from, to)| (from.0, to.0)).collect();
        Overrides {
            upmap: map.upmap.iter().map(|(&pg, osds)| (pg, numbers(osds))).collect(),
            upmap_items: map.upmap_items.iter().map(|(&pg, items)| (pg, pairs(items))).collect(),
            pg_temp: map.pg_temp.iter().map(|(&pg, osds)| (pg, numbers(osds))).collect(),
            primary_temp: map.primary_temp.clone(),
        }
    }
}

impl Pool {
    /// A pool of the map: all are replicated, and seeded by their number.
    pub fn of_map(id: PoolId, pool: &cairn_types::Pool) -> Pool {
        Pool {
            id,
            size: u32::from(pool.size),
            pg_num: pool.pg_num,
            pgp_num: pool.pgp_num,
            rule: pool.crush_rule as usize,
            is_positional: false,
            is_seeded: true,
        }
    }
}
