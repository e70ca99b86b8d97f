//! Whom to ask before anything may be decided, and what stands in the way.

use crate::info::PgInfo;
use crate::interval::{Interval, PastIntervals, PgMap};
use cairn_types::{Epoch, OsdId};
use std::collections::{BTreeMap, BTreeSet};

/// The OSDs whose answers peering needs (RADOS `PriorSet`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PriorSet {
    /// To be asked: they are up.
    pub probe: BTreeSet<OsdId>,
    /// Would have to be asked, and are down, where no other survivor of their interval is up.
    pub blocked_by: BTreeSet<OsdId>,
}

/// Past intervals that may have acknowledged a write nobody in a later activation knew of.
pub(crate) fn relevant(past: &PastIntervals, started: Epoch) -> impl Iterator<Item = &Interval> {
    past.closed.iter().filter(move |interval| interval.maybe_went_rw && interval.last >= started)
}

impl PriorSet {
    pub fn build(past: &PastIntervals, started: Epoch, map: &PgMap, me: OsdId) -> PriorSet {
        let mut set = PriorSet::default();
        set.probe.extend(map.up.iter().chain(&map.acting));
        for interval in relevant(past, started) {
            let (up, down): (Vec<OsdId>, Vec<OsdId>) =
                interval.acting.iter().partition(|osd| map.osd(**osd).up);
            let lost = down.iter().any(|osd| map.osd(*osd).lost_at > interval.first);
            if up.is_empty() && !lost {
                set.blocked_by.extend(down);
            }
            set.probe.extend(up);
        }
        set.probe.remove(&me);
        set
    }
}

/// The first interval nobody who answered can vouch for: all its members that are up have disks
/// younger than it.
pub(crate) fn without_witness<'a>(
    past: &'a PastIntervals,
    started: Epoch,
    map: &PgMap,
    infos: &BTreeMap<OsdId, &PgInfo>,
) -> Option<&'a Interval> {
    relevant(past, started).find(|interval| {
        !interval.acting.iter().any(|osd| {
            let vouches = infos.get(osd).is_some_and(|info| info.born <= interval.first);
            vouches || map.osd(*osd).lost_at > interval.first
        })
    })
}
