//! The map at hand, and from an object to the OSD that serves it.

use cairn_crush::placement::{self, Osds, Overrides, PgMapping, Placement};
use cairn_crush::{Placer, Scratch, binary};
use cairn_types::{
    CrushBlob, EntityAddr, Epoch, MapFault, OsdFlag, OsdId, OsdMap, OsdMapIncremental, PgId, PoolId,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where one group is served, and in which interval.
///
/// Two are equal exactly if the group stayed in one interval as OSDs count them (`docs/pg.md`): then what was sent
/// by the one map still stands by the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// The group.
    pub(super) pg: PgId,
    /// Its acting primary and where clients reach it; `None` while there is none, or clients shall pause.
    pub(super) primary: Option<(OsdId, EntityAddr)>,
    up: Vec<i32>,
    acting: Vec<i32>,
    up_primary: Option<OsdId>,
    /// Of each member, in the order up, acting: one that came back begins a new interval.
    up_from: Vec<Epoch>,
    size: (u8, u8),
}

/// Why maps from the monitors could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A change that does not fit.
    #[error(transparent)]
    Fault(#[from] MapFault),
    /// Changes without a map to apply them to.
    #[error("the monitors sent changes of a map before the map")]
    NoMap,
    /// The CRUSH map in it does not decode.
    #[error("the CRUSH map of {epoch} cannot be read: {source}")]
    CrushBinary {
        /// Of the map.
        epoch: Epoch,
        /// Why.
        source: binary::BinaryError,
    },
    /// The CRUSH map in it makes no sense.
    #[error("the CRUSH map of {epoch} cannot be used: {source}")]
    Crush {
        /// Of the map.
        epoch: Epoch,
        /// Why.
        source: cairn_crush::MapError,
    },
}

/// A map made ready for placement.
pub(super) struct Maps {
    map: Arc<OsdMap>,
    placer: Placer,
    osds: Osds,
    overrides: Overrides,
    pools: BTreeMap<PoolId, placement::Pool>,
    targets: BTreeMap<PgId, Arc<Target>>,
    scratch: Scratch,
    mapping: PgMapping,
}

impl Maps {
    pub(super) fn new(map: OsdMap) -> Result<Self, MapError> {
        let placer = placer_of(&map.crush, map.epoch)?;
        let mut maps = Maps {
            map: Arc::new(map),
            placer,
            osds: Osds::default(),
            overrides: Overrides::default(),
            pools: BTreeMap::new(),
            targets: BTreeMap::new(),
            scratch: Scratch::new(),
            mapping: PgMapping::default(),
        };
        maps.prepare();
        Ok(maps)
    }

    pub(super) fn map(&self) -> &Arc<OsdMap> {
        &self.map
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.map.epoch
    }

    /// Goes on to the next epoch; on an error nothing is changed.
    pub(super) fn apply(&mut self, change: &OsdMapIncremental) -> Result<(), MapError> {
        let map = self.map.apply(change)?;
        if map.crush != self.map.crush {
            self.placer = placer_of(&map.crush, map.epoch)?;
        }
        self.map = Arc::new(map);
        self.prepare();
        Ok(())
    }

    fn prepare(&mut self) {
        let map = &self.map;
        self.targets.clear();
        self.osds = Osds::from(&**map);
        self.overrides = Overrides::from(&**map);
        let pool = |(&id, pool): (&PoolId, &cairn_types::Pool)| {
            // No map that passes its own check has 0 groups; placement divides by both.
            (pool.pg_num > 0 && pool.pgp_num > 0).then(|| (id, placement::Pool::of_map(id, pool)))
        };
        self.pools = map.pools.iter().filter_map(pool).collect();
    }

    /// Where the objects of a hash are served; `None` if there is no such pool.
    pub(super) fn target(&mut self, pool: PoolId, hash: u32) -> Option<Arc<Target>> {
        let placed = self.pools.get(&pool)?;
        let pg = placed.pg_of_hash(hash);
        if let Some(target) = self.targets.get(&pg) {
            return Some(target.clone());
        }
        let info = self.map.pools.get(&pool)?;
        let placement = Placement { placer: &self.placer, osds: &self.osds, overrides: &self.overrides };
        placement.map(placed, pg.seed, &mut self.scratch, &mut self.mapping);
        let PgMapping { up, acting, up_primary, acting_primary, .. } = &self.mapping;
        let osd_info = |osd: &i32| self.map.osds.get(&OsdId(*osd));
        let paused = self.map.flags.has(OsdFlag::Pause);
        let primary = acting_primary.filter(|_| !paused).and_then(|osd| {
            let info = osd_info(&osd.0).filter(|info| info.up)?;
            Some((osd, info.public?))
        });
        let target = Arc::new(Target {
            pg,
            primary,
            up: up.clone(),
            acting: acting.clone(),
            up_primary: *up_primary,
            up_from: up
                .iter()
                .chain(acting)
                .map(|osd| osd_info(osd).map_or(Epoch(0), |i| i.up_from))
                .collect(),
            size: (info.size, info.min_size),
        });
        self.targets.insert(pg, target.clone());
        Some(target)
    }
}

fn placer_of(crush: &CrushBlob, epoch: Epoch) -> Result<Placer, MapError> {
    let map = binary::decode(crush.bytes()).map_err(|source| MapError::CrushBinary { epoch, source })?;
    Placer::new(&map).map_err(|source| MapError::Crush { epoch, source })
}
