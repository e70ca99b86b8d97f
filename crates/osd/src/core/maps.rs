//! Every epoch of the OSD map that may still be asked for, as groups see it.
//!
//! Of the epochs before the newest only what placement needs is kept in memory; neighbours share what did not change
//! between them, so an epoch that only records an `up_thru` costs one table of OSDs.

use cairn_crush::placement::{self, Osds, Overrides, PgMapping, Placement};
use cairn_crush::{NO_ITEM, Placer, Scratch, binary};
use cairn_mon::service::subscription::MapBatch;
use cairn_pg::{OsdState, PgMap};
use cairn_types::{Epoch, OsdId, OsdMap, OsdMapIncremental, PgId, PoolId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Why maps cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(super) enum MapsError {
    /// They do not follow what is there: ask again.
    #[error("the maps do not follow the newest one here")]
    Gap,
    /// A map that makes no sense.
    #[error("the map of {epoch} cannot be: {why}")]
    Bad { epoch: Epoch, why: String },
}

/// A pool, as one epoch has it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct PoolView {
    placement: placement::Pool,
    size: usize,
    min_size: usize,
}

/// One epoch, as groups see it.
#[derive(Clone)]
pub(super) struct View {
    pub epoch: Epoch,
    placer: Arc<Placer>,
    osds: Arc<Osds>,
    states: Arc<BTreeMap<OsdId, OsdState>>,
    overrides: Arc<Overrides>,
    pools: Arc<BTreeMap<PoolId, PoolView>>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl View {
    /// What an epoch looks like, sharing with the one before what is the same.
    fn of(map: &OsdMap, before: Option<(&View, &OsdMap)>) -> Result<View, MapsError> {
        let bad = |why: String| MapsError::Bad { epoch: map.epoch, why };
        let placer = match before {
            Some((view, before)) if before.crush == map.crush => Arc::clone(&view.placer),
            _ => {
                let crush = binary::decode(map.crush.bytes()).map_err(|error| bad(error.to_string()))?;
                Arc::new(Placer::new(&crush).map_err(|error| bad(error.to_string()))?)
            }
        };
        let shared = |new: Osds| match before {
            Some((view, _)) if *view.osds == new => Arc::clone(&view.osds),
            _ => Arc::new(new),
        };
        let osds = shared(Osds::from(map));
        let states = match before {
            Some((view, before)) if before.osds == map.osds => Arc::clone(&view.states),
            _ => Arc::new(states(map)),
        };
        let overrides = Overrides::from(map);
        let overrides = match before {
            Some((view, _)) if *view.overrides == overrides => Arc::clone(&view.overrides),
            _ => Arc::new(overrides),
        };
        let pools = pools(map);
        let pools = match before {
            Some((view, _)) if *view.pools == pools => Arc::clone(&view.pools),
            _ => Arc::new(pools),
        };
        Ok(View { epoch: map.epoch, placer, osds, states, overrides, pools })
    }

    /// Whether no group is elsewhere than in `before`.
    pub fn places_as(&self, before: &View) -> bool {
        Arc::ptr_eq(&self.placer, &before.placer)
            && Arc::ptr_eq(&self.osds, &before.osds)
            && Arc::ptr_eq(&self.overrides, &before.overrides)
            && Arc::ptr_eq(&self.pools, &before.pools)
    }

    /// A group as this epoch has it; `None` if its pool is not there.
    pub fn group(&self, pgid: PgId, scratch: &mut Places) -> Option<PgMap> {
        let pool = self.pools.get(&pgid.pool)?;
        if pgid.seed >= pool.placement.pg_num {
            return None;
        }
        let Places { scratch, mapping } = scratch;
        let placement = Placement { placer: &self.placer, osds: &self.osds, overrides: &self.overrides };
        placement.map(&pool.placement, pgid.seed, scratch, mapping);
        let osds = |set: &[i32]| set.iter().filter(|osd| **osd != NO_ITEM).map(|osd| OsdId(*osd)).collect();
        Some(PgMap {
            epoch: self.epoch,
            up: osds(&mapping.up),
            up_primary: mapping.up_primary,
            acting: osds(&mapping.acting),
            primary: mapping.acting_primary,
            size: pool.size,
            min_size: pool.min_size,
            osds: Arc::clone(&self.states),
        })
    }

    /// The same group one epoch later, when [`View::places_as`] says that nothing moved.
    pub fn group_again(&self, before: &PgMap) -> PgMap {
        PgMap { epoch: self.epoch, osds: Arc::clone(&self.states), ..before.clone() }
    }

    /// Every group of every pool.
    pub fn groups(&self) -> impl Iterator<Item = PgId> {
        self.pools
            .iter()
            .flat_map(|(&pool, view)| (0..view.placement.pg_num).map(move |seed| PgId { pool, seed }))
    }

    /// Whether the pool of a group is there.
    pub fn has_group(&self, pgid: PgId) -> bool {
        self.pools.get(&pgid.pool).is_some_and(|pool| pgid.seed < pool.placement.pg_num)
    }

    /// The group of an object by its hash; `None` if the pool is not there.
    pub fn group_of(&self, pool: PoolId, hash: u32) -> Option<PgId> {
        Some(self.pools.get(&pool)?.placement.pg_of_hash(hash))
    }
}

fn states(map: &OsdMap) -> BTreeMap<OsdId, OsdState> {
    let state = |info: &cairn_types::OsdInfo| OsdState {
        up: info.up,
        up_from: info.up_from,
        up_thru: info.up_thru,
        lost_at: info.lost_at,
    };
    map.osds.iter().map(|(&osd, info)| (osd, state(info))).collect()
}

fn pools(map: &OsdMap) -> BTreeMap<PoolId, PoolView> {
    let view = |id: PoolId, pool: &cairn_types::Pool| PoolView {
        placement: placement::Pool::of_map(id, pool),
        size: usize::from(pool.size),
        min_size: usize::from(pool.min_size),
    };
    map.pools.iter().map(|(&id, pool)| (id, view(id, pool))).collect()
}

/// Memory that computing places needs, used again and again.
pub(super) struct Places {
    scratch: Scratch,
    mapping: PgMapping,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl Places {
    pub fn new() -> Places {
        Places { scratch: Scratch::new(), mapping: PgMapping::default() }
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Epochs that are new.
    pub epochs: Vec<Epoch>,
    /// To be kept: a whole map, then changes.
    pub full: Option<Arc<OsdMap>>,
    pub increments: Vec<OsdMapIncremental>,
}

/// The newest map, and what is kept of those before it.
#[derive(Debug, Default)]
pub(super) struct Maps {
    current: Option<Arc<OsdMap>>,
    views: BTreeMap<Epoch, View>,
    /// Epochs of which the store has a whole map.
    fulls: BTreeSet<Epoch>,
}

impl Maps {
    /// As stored.
    pub fn load(full: OsdMap, increments: &[OsdMapIncremental]) -> Result<Maps, MapsError> {
        let mut maps = Maps::default();
        maps.start_from(full)?;
        for change in increments {
            maps.follow(change)?;
        }
        Ok(maps)
    }

    fn start_from(&mut self, full: OsdMap) -> Result<(), MapsError> {
        full.check().map_err(|fault| MapsError::Bad { epoch: full.epoch, why: fault.to_string() })?;
        let view = View::of(&full, None)?;
        self.views = BTreeMap::from([(full.epoch, view)]);
        self.fulls = BTreeSet::from([full.epoch]);
        self.current = Some(Arc::new(full));
        Ok(())
    }

    fn follow(&mut self, change: &OsdMapIncremental) -> Result<(), MapsError> {
        let current = self.current.as_ref().ok_or(MapsError::Gap)?;
        let next = current
            .apply(change)
            .map_err(|fault| MapsError::Bad { epoch: change.epoch, why: fault.to_string() })?;
        let before = self.views.last_key_value().map(|(_, view)| (view, &**current));
        let view = View::of(&next, before)?;
        self.views.insert(next.epoch, view);
        self.current = Some(Arc::new(next));
        Ok(())
    }

    /// Takes what is new of a batch. After a hole what was before it is forgotten: it begins anew.
    pub fn take(&mut self, batch: MapBatch, full_map_interval: u32) -> Result<Taken, MapsError> {
        let mut taken = Taken::default();
        if let Some(full) = batch.full
            && full.epoch > self.epoch()
        {
            let epoch = full.epoch;
            self.start_from(full)?;
            taken.epochs.push(epoch);
            taken.full = self.current.clone();
        }
        for change in batch.increments {
            if change.epoch <= self.epoch() {
                continue;
            }
            if change.epoch != self.epoch().next() {
                // What came before the gap was taken.
                return if taken.epochs.is_empty() { Err(MapsError::Gap) } else { Ok(taken) };
            }
            self.follow(&change)?;
            taken.epochs.push(change.epoch);
            taken.increments.push(change);
        }
        // A whole map now and then, so that there is one to begin with when older ones are forgotten.
        let newest_full = self.fulls.last().copied().unwrap_or_default();
        if taken.full.is_none() && self.epoch().0 >= newest_full.0.saturating_add(full_map_interval) {
            self.fulls.insert(self.epoch());
            taken.full = self.current.clone();
        }
        Ok(taken)
    }

    /// Forgets what nobody needs: epochs before the last whole map that is not newer than `needed`. Returns that
    /// epoch if anything goes.
    pub fn trim(&mut self, needed: Epoch) -> Option<Epoch> {
        let first = *self.fulls.range(..=needed).next_back()?;
        if self.oldest() >= first {
            return None;
        }
        self.views = self.views.split_off(&first);
        self.fulls = self.fulls.split_off(&first);
        Some(first)
    }

    /// Epoch of the newest map; 0 if there is none.
    pub fn epoch(&self) -> Epoch {
        self.current.as_ref().map_or(Epoch(0), |map| map.epoch)
    }

    /// Oldest epoch that is kept; 0 if there is none.
    pub fn oldest(&self) -> Epoch {
        self.views.keys().next().copied().unwrap_or_default()
    }

    /// The newest map.
    pub fn current(&self) -> Option<&Arc<OsdMap>> {
        self.current.as_ref()
    }

    /// The newest map as groups see it.
    pub fn view(&self) -> Option<&View> {
        self.views.last_key_value().map(|(_, view)| view)
    }

    /// The epochs from `first` on that are kept, in order.
    pub fn views_from(&self, first: Epoch) -> impl Iterator<Item = &View> {
        self.views.range(first..).map(|(_, view)| view)
    }

    /// One epoch.
    pub fn view_of(&self, epoch: Epoch) -> Option<&View> {
        self.views.get(&epoch)
    }

    /// The first epoch of a pool: exact if it was made within the epochs that are kept, else 1, which is not later.
    /// (What is earlier than the truth is overruled by every copy that knows better.)
    pub fn pool_created(&self, pool: PoolId) -> Epoch {
        let mut views = self.views.iter();
        match views.next() {
            Some((_, oldest)) if !oldest.pools.contains_key(&pool) => {
                let made = views.find(|(_, view)| view.pools.contains_key(&pool));
                made.map_or(Epoch(1), |(epoch, _)| *epoch)
            }
            _ => Epoch(1),
        }
    }
}
