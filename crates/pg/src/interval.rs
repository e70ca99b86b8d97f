//! Intervals: runs of epochs in which up set, acting set and their members' incarnations stay the
//! same, and which of the past ones may have accepted writes.

use cairn_types::{Epoch, OsdId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One OSD as a map sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OsdState {
    /// Whether it is up.
    pub up: bool,
    /// Epoch in which it last came up.
    pub up_from: Epoch,
    /// Newest epoch in which it told the monitors that it was alive.
    pub up_thru: Epoch,
    /// Epoch in which the operator declared its data lost; 0 if never.
    pub lost_at: Epoch,
}

/// One map epoch as this group sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PgMap {
    /// The map's epoch.
    pub epoch: Epoch,
    /// Up set, by CRUSH; only OSDs that are up.
    pub up: Vec<OsdId>,
    /// First of the up set, unless primary affinity chose another.
    pub up_primary: Option<OsdId>,
    /// Acting set: the up set unless PG temp overrides it; only OSDs that are up.
    pub acting: Vec<OsdId>,
    /// Primary of the acting set.
    pub primary: Option<OsdId>,
    /// Copies the pool wants.
    pub size: usize,
    /// Copies below which nothing is acknowledged.
    pub min_size: usize,
    /// All OSDs, shared by the groups of one daemon.
    pub osds: Arc<BTreeMap<OsdId, OsdState>>,
}

impl PgMap {
    /// What the map says of `osd`; an unknown one is down.
    pub fn osd(&self, osd: OsdId) -> OsdState {
        self.osds.get(&osd).copied().unwrap_or_default()
    }

    fn members(&self) -> impl Iterator<Item = OsdId> {
        self.up.iter().chain(&self.acting).copied()
    }
}

/// An interval that is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// First epoch.
    pub first: Epoch,
    /// Last epoch.
    pub last: Epoch,
    /// Acting set.
    pub acting: Vec<OsdId>,
    /// Up set.
    pub up: Vec<OsdId>,
    /// Primary.
    pub primary: Option<OsdId>,
    /// Whether it may have activated and acknowledged a write.
    pub maybe_went_rw: bool,
}

/// The interval that lasts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CurrentInterval {
    /// First epoch seen of it.
    pub first: Epoch,
    /// True when it began before the first map seen, so that `up_thru` cannot be compared with
    /// its start and it must be presumed to have gone active.
    pub truncated: bool,
    /// Acting set.
    pub acting: Vec<OsdId>,
    /// Up set.
    pub up: Vec<OsdId>,
    /// Primary of the acting set.
    pub primary: Option<OsdId>,
    /// Primary of the up set.
    pub up_primary: Option<OsdId>,
    /// Copies wanted.
    pub size: usize,
    /// Copies needed.
    pub min_size: usize,
    /// `up_from` of every member, in the order up, acting: a member that restarted begins a new
    /// interval, since what it had in flight is gone.
    pub up_from: Vec<Epoch>,
}

impl CurrentInterval {
    fn of(map: &PgMap, truncated: bool) -> CurrentInterval {
        CurrentInterval {
            first: map.epoch,
            truncated,
            acting: map.acting.clone(),
            up: map.up.clone(),
            primary: map.primary,
            up_primary: map.up_primary,
            size: map.size,
            min_size: map.min_size,
            up_from: map.members().map(|osd| map.osd(osd).up_from).collect(),
        }
    }

    fn contains(&self, map: &PgMap) -> bool {
        let CurrentInterval { acting, up, primary, up_primary, size, min_size, up_from, .. } = self;
        *acting == map.acting
            && *up == map.up
            && *primary == map.primary
            && *up_primary == map.up_primary
            && *size == map.size
            && *min_size == map.min_size
            && map.members().map(|osd| map.osd(osd).up_from).eq(up_from.iter().copied())
    }

    /// Closes the interval with the last map that belonged to it, or without one when that map is
    /// not to be had: then it must be presumed to have gone active.
    fn close(&self, last: Epoch, last_map: Option<&PgMap>, ignore_up_thru: bool) -> Interval {
        let writable = self.acting.len() >= self.min_size.max(1) && self.primary.is_some();
        let active = match (self.primary, last_map) {
            (Some(primary), Some(map)) if !self.truncated => {
                let state = map.osd(primary);
                state.up_thru >= self.first && state.up_from <= self.first
            }
            _ => true,
        };
        Interval {
            first: self.first,
            last,
            acting: self.acting.clone(),
            up: self.up.clone(),
            primary: self.primary,
            maybe_went_rw: writable && active && !ignore_up_thru,
        }
    }
}

/// The intervals since the group was last clean, and the current one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PastIntervals {
    /// Those that are over, oldest first.
    pub closed: Vec<Interval>,
    /// The one that lasts; `None` before the first map.
    pub current: Option<CurrentInterval>,
}

impl PastIntervals {
    /// Takes the next map. `previous` is the map before it, `created` the group's first epoch.
    /// True if `map` begins a new interval.
    pub(crate) fn advance(
        &mut self,
        previous: Option<&PgMap>,
        map: &PgMap,
        created: Epoch,
        forget: bool,
    ) -> bool {
        let Some(current) = &self.current else {
            self.current = Some(CurrentInterval::of(map, map.epoch > created));
            return true;
        };
        if current.contains(map) && previous.is_none_or(|p| p.epoch.0 + 1 == map.epoch.0) {
            return false;
        }
        // A hole in the maps: what happened inside it is unknown, and the interval that begins
        // here may have begun in it.
        let follows = previous.filter(|p| p.epoch.0 + 1 == map.epoch.0);
        let closed = current.close(Epoch(map.epoch.0 - 1), follows, forget);
        self.closed.push(closed);
        self.current = Some(CurrentInterval::of(map, follows.is_none()));
        true
    }

    /// Forgets what ended before the group was last clean. True if anything went.
    pub(crate) fn trim(&mut self, last_epoch_clean: Epoch) -> bool {
        let before = self.closed.len();
        self.closed.retain(|interval| interval.last >= last_epoch_clean);
        before != self.closed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(epoch: u32, acting: &[i32], up_thru: u32) -> PgMap {
        let osds = (0..4).map(|id| {
            let state = OsdState { up: true, up_from: Epoch(1), up_thru: Epoch(up_thru), lost_at: Epoch(0) };
            (OsdId(id), state)
        });
        let acting: Vec<OsdId> = acting.iter().copied().map(OsdId).collect();
        PgMap {
            epoch: Epoch(epoch),
            up: acting.clone(),
            up_primary: acting.first().copied(),
            primary: acting.first().copied(),
            acting,
            size: 3,
            min_size: 2,
            osds: Arc::new(osds.collect()),
        }
    }

    fn run(maps: &[PgMap]) -> PastIntervals {
        let mut past = PastIntervals::default();
        let mut previous = None;
        for map in maps {
            past.advance(previous, map, Epoch(1), false);
            previous = Some(map);
        }
        past
    }

    #[test]
    fn an_interval_whose_primary_recorded_up_thru_may_have_gone_rw() {
        let past = run(&[map(1, &[0, 1, 2], 0), map(2, &[0, 1, 2], 1), map(3, &[1, 2], 1)]);
        assert_eq!(past.closed.len(), 1);
        assert_eq!((past.closed[0].first, past.closed[0].last), (Epoch(1), Epoch(2)));
        assert!(past.closed[0].maybe_went_rw);
    }

    #[test]
    fn an_interval_without_up_thru_or_below_min_size_did_not() {
        let past = run(&[map(1, &[0, 1, 2], 0), map(2, &[1, 2], 0), map(3, &[2], 9), map(4, &[2, 3], 9)]);
        let rw: Vec<bool> = past.closed.iter().map(|i| i.maybe_went_rw).collect();
        assert_eq!(rw, [false, false, false], "{past:?}");
    }

    #[test]
    fn a_hole_in_the_maps_is_presumed_to_hide_a_write() {
        let past = run(&[map(1, &[0, 1, 2], 0), map(5, &[0, 1, 2], 0), map(6, &[1, 2], 0)]);
        assert!(past.closed.iter().all(|i| i.maybe_went_rw), "{past:?}");
        assert_eq!(past.closed.len(), 2);
    }
}
