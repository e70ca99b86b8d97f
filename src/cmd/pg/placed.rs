//! Where the groups of a map are, worked out from the map as every client does, and how they are by the mgr's digest.

use anyhow::anyhow;
use cairn_crush::placement::{self, Osds, Overrides, PgMapping, Placement};
use cairn_crush::{NO_ITEM, Placer, Scratch};
use cairn_mon::service::crush;
use cairn_types::{Digest, OsdId, OsdMap, PgId, PgState, Pool, PoolId};
use serde::Serialize;

/// One group.
#[derive(Serialize)]
pub struct Placed {
    /// Its name.
    pub pg: PgId,
    /// How it is; none where nobody has said.
    pub state: Option<PgState>,
    /// For how long, of those that are not well.
    pub for_ms: Option<u64>,
    /// Who should hold it.
    pub up: Vec<OsdId>,
    /// Who should lead it.
    pub up_primary: Option<OsdId>,
    /// Who holds it.
    pub acting: Vec<OsdId>,
    /// Who leads it.
    pub acting_primary: Option<OsdId>,
}

/// Works out groups.
pub struct Places<'a> {
    map: &'a OsdMap,
    digest: Option<&'a Digest>,
    placer: Placer,
    osds: Osds,
    overrides: Overrides,
    /// Whether the digest names every group that is not `active+clean`, so that all others are.
    is_digest_whole: bool,
}

impl<'a> Places<'a> {
    /// Over a map, with what the mgr has to say.
    pub fn new(map: &'a OsdMap, digest: Option<&'a Digest>) -> anyhow::Result<Self> {
        let crush = crush::decode(&map.crush)?;
        let placer = Placer::new(&crush).map_err(|error| anyhow!("the CRUSH map cannot be used: {error}"))?;
        let (osds, overrides) = (Osds::from(map), Overrides::from(map));
        let well = PgState::ACTIVE | PgState::CLEAN;
        let is_digest_whole = digest.is_some_and(|digest| {
            let groups: u64 = map.pools.values().map(|pool| u64::from(pool.pg_num)).sum();
            let unwell = digest.pgs_where(|state| !state.has(well));
            digest.pg_total() == groups && unwell <= digest.problems.len() as u64
        });
        Ok(Places { map, digest, placer, osds, overrides, is_digest_whole })
    }

    /// All groups of a pool.
    pub fn of_pool(&self, id: PoolId, pool: &Pool) -> Vec<Placed> {
        let rules = placement::Pool::of_map(id, pool);
        let placement = Placement { placer: &self.placer, osds: &self.osds, overrides: &self.overrides };
        let (mut scratch, mut found) = (Scratch::new(), PgMapping::default());
        let all = 0..pool.pg_num;
        all.map(|seed| {
            placement.map(&rules, seed, &mut scratch, &mut found);
            let pg = PgId { pool: id, seed };
            let (state, for_ms) = self.state(pg);
            Placed {
                pg,
                state,
                for_ms,
                up: ids(&found.up),
                up_primary: found.up_primary,
                acting: ids(&found.acting),
                acting_primary: found.acting_primary,
            }
        })
        .collect()
    }

    /// One group.
    pub fn one(&self, pg: PgId) -> Option<Placed> {
        let pool = self.map.pools.get(&pg.pool)?;
        self.of_pool(pg.pool, pool).into_iter().nth(pg.seed as usize)
    }

    fn state(&self, pg: PgId) -> (Option<PgState>, Option<u64>) {
        let Some(digest) = self.digest else { return (None, None) };
        match digest.problems.iter().find(|problem| problem.pg == pg) {
            Some(problem) => (Some(problem.state), Some(problem.for_ms)),
            None if self.is_digest_whole => (Some(PgState::ACTIVE | PgState::CLEAN), None),
            None => (None, None),
        }
    }
}

fn ids(osds: &[i32]) -> Vec<OsdId> {
    osds.iter().filter(|osd| **osd != NO_ITEM).map(|osd| OsdId(*osd)).collect()
}

/// `[2,0,1]p2`, as operators read it: the set and its primary.
pub fn set(osds: &[OsdId], primary: Option<OsdId>) -> String {
    let list = osds.iter().map(|osd| osd.0.to_string()).collect::<Vec<_>>().join(",");
    primary.map_or_else(|| format!("[{list}]"), |primary| format!("[{list}]p{}", primary.0))
}

/// The state, or that nobody has said.
pub fn state(placed: &Placed) -> String {
    placed.state.map_or_else(|| "unknown".to_owned(), |state| state.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_mon::service::{ClusterState, Draft, Genesis, OsdCommand, PoolCommand, Request};
    use cairn_types::{EntityAddr, Fsid, OsdUuid, PgProblem, Timestamp, Weight};
    use std::collections::BTreeMap;

    /// Three OSDs on three hosts, all up, and a pool of eight groups.
    fn map() -> OsdMap {
        let now = Timestamp(1);
        let mut state = ClusterState::new(Genesis { fsid: Fsid([1; 16]), now, mons: BTreeMap::new() });
        let addr = |port: u16| EntityAddr { socket: ([127, 0, 0, 1], port).into(), nonce: 1 };
        let mut run = |request: Request| {
            let mut draft = Draft::new(&state, now);
            draft.run(&request).unwrap();
            let transaction = draft.finish().unwrap();
            state.apply(&transaction).unwrap();
        };
        for n in 0..3_u8 {
            let (uuid, osd) = (OsdUuid([n; 16]), OsdId(n.into()));
            let location = vec![("root".into(), "default".into()), ("host".into(), format!("n{n}"))];
            run(Request::Osd(OsdCommand::Create {
                uuid,
                id: Some(osd),
                class: None,
                weight: Weight::ONE,
                location,
            }));
            let (public, cluster) = (addr(100 + u16::from(n)), addr(200 + u16::from(n)));
            run(Request::Osd(OsdCommand::Boot { osd, uuid, public, cluster, clean: None }));
        }
        run(Request::Pool(PoolCommand::Create {
            name: "vms".into(),
            size: Some(3),
            min_size: Some(2),
            pg_num: Some(8),
            rule: None,
            application: "rbd".into(),
        }));
        state.osd_map().clone()
    }

    #[test]
    fn every_group_is_on_three_osds_and_has_the_state_the_mgr_says() {
        let map = map();
        let well = PgState::ACTIVE | PgState::CLEAN;
        let pg_states = BTreeMap::from([(well, 7), (PgState::PEERING, 1)]);
        let mut digest = Digest { pg_states, ..Digest::default() };
        let pg = PgId { pool: PoolId(1), seed: 5 };
        digest.problems.push(PgProblem { pg, state: PgState::PEERING, acting: vec![OsdId(0)], for_ms: 7 });
        let (id, pool) = map.pool_by_name("vms").unwrap();

        let places = Places::new(&map, Some(&digest)).unwrap();
        for placed in places.of_pool(id, pool) {
            let mut acting = placed.acting.clone();
            assert_eq!(placed.acting_primary, acting.first().copied());
            acting.sort();
            assert_eq!(acting, [OsdId(0), OsdId(1), OsdId(2)]);
            let wanted = if placed.pg == pg { (PgState::PEERING, Some(7)) } else { (well, None) };
            assert_eq!((placed.state.unwrap(), placed.for_ms), wanted);
        }
        assert!(places.one(PgId { pool: id, seed: 8 }).is_none());

        // Without word of all groups nothing is said of those that are not named.
        digest.pg_states.insert(PgState::DOWN, 1);
        let places = Places::new(&map, Some(&digest)).unwrap();
        assert_eq!(places.one(PgId { pool: id, seed: 0 }).unwrap().state, None);
        assert_eq!(places.one(pg).unwrap().state, Some(PgState::PEERING));
    }
}
