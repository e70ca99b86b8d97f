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
    /// Those of them whose disks are known to be gone, so that nobody waits for them.
    pub lost: BTreeSet<OsdId>,
}

/// Past intervals that may have acknowledged a write nobody in a later activation knew of.
pub(crate) fn relevant(past: &PastIntervals, started: Epoch) -> impl Iterator<Item = &Interval> {
    past.closed.iter().filter(move |interval| interval.maybe_went_rw && interval.last >= started)
}

/// Whether what an OSD wrote in an interval is known to be gone: the operator has said so, has destroyed it or has
/// taken it out of the map.
fn is_lost(map: &PgMap, osd: OsdId, interval: &Interval) -> bool {
    map.osds.get(&osd).is_none_or(|state| state.lost_at > interval.first)
}

impl PriorSet {
    pub fn build(past: &PastIntervals, started: Epoch, map: &PgMap, me: OsdId) -> PriorSet {
        let mut set = PriorSet::default();
        set.probe.extend(map.up.iter().chain(&map.acting));
        for interval in relevant(past, started) {
            let (up, down): (Vec<OsdId>, Vec<OsdId>) =
                interval.acting.iter().partition(|osd| map.osd(**osd).up);
            let is_lost = |osd: &OsdId| is_lost(map, *osd, interval);
            set.lost.extend(interval.acting.iter().copied().filter(is_lost));
            if up.is_empty() {
                set.blocked_by.extend(down.into_iter().filter(|osd| !is_lost(osd)));
            }
            set.probe.extend(up);
        }
        set.probe.remove(&me);
        set
    }
}

/// The first interval nobody who answered can vouch for, although not all of its disks are gone: its members that
/// are up have disks younger than it, and one that is down may have what it wrote. One lost disk tells nothing of the
/// others: what was acknowledged lies on each of them.
pub(crate) fn without_witness<'a>(
    past: &'a PastIntervals,
    started: Epoch,
    map: &PgMap,
    infos: &BTreeMap<OsdId, &PgInfo>,
) -> Option<&'a Interval> {
    relevant(past, started).find(|interval| {
        let vouches = |osd: &OsdId| infos.get(osd).is_some_and(|info| info.born <= interval.first);
        let is_lost = |osd: &OsdId| is_lost(map, *osd, interval);
        !interval.acting.iter().any(vouches) && !interval.acting.iter().all(is_lost)
    })
}

/// Whether a copy has taken part in the newest activation, and in every interval since that may have served anybody.
pub(crate) fn has_seen_all(past: &PastIntervals, max_started: Epoch, osd: OsdId, info: &PgInfo) -> bool {
    info.last_epoch_started >= max_started
        && relevant(past, max_started).all(|interval| interval.acting.contains(&osd))
}

/// Whether a member of one of those intervals is down and its disk not known to be gone.
pub(crate) fn awaits_someone(past: &PastIntervals, started: Epoch, map: &PgMap) -> bool {
    relevant(past, started)
        .any(|interval| interval.acting.iter().any(|osd| !map.osd(*osd).up && !is_lost(map, *osd, interval)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::OsdState;
    use cairn_types::{PgId, PoolId};
    use std::sync::Arc;

    /// Epoch 9; of the OSDs given, whether each is up and since when its disk is known to be lost.
    fn map(osds: &[(i32, bool, u32)]) -> PgMap {
        let osds = osds.iter().map(|&(osd, up, lost_at)| {
            let state = OsdState { up, up_from: Epoch(8), up_thru: Epoch(0), lost_at: Epoch(lost_at) };
            (OsdId(osd), state)
        });
        PgMap {
            epoch: Epoch(9),
            up: vec![OsdId(0)],
            up_primary: Some(OsdId(0)),
            acting: vec![OsdId(0)],
            primary: Some(OsdId(0)),
            size: 3,
            min_size: 2,
            osds: Arc::new(osds.collect()),
        }
    }

    /// OSDs 1 and 2 acknowledged writes in epochs 4 and 5.
    fn past() -> PastIntervals {
        let acting = vec![OsdId(1), OsdId(2)];
        let interval = Interval {
            first: Epoch(4),
            last: Epoch(5),
            up: acting.clone(),
            acting,
            primary: Some(OsdId(1)),
            maybe_went_rw: true,
        };
        PastIntervals { closed: vec![interval], current: None }
    }

    fn lacks_witness(map: &PgMap, born: &[(i32, u32)]) -> bool {
        let pgid = PgId { pool: PoolId(1), seed: 0 };
        let infos: Vec<(OsdId, PgInfo)> =
            born.iter().map(|&(osd, born)| (OsdId(osd), PgInfo::new(pgid, Epoch(1), Epoch(born)))).collect();
        let infos = infos.iter().map(|(osd, info)| (*osd, info)).collect();
        without_witness(&past(), Epoch(0), map, &infos).is_some()
    }

    #[test]
    fn a_new_disk_in_the_place_of_a_lost_one_does_not_speak_for_the_member_that_is_down() {
        let replaced = map(&[(0, true, 0), (1, true, 7), (2, false, 0)]);
        assert!(lacks_witness(&replaced, &[(0, 1), (1, 8)]));
        // The other one comes back, or is given up, too.
        let back = map(&[(0, true, 0), (1, true, 7), (2, true, 0)]);
        assert!(!lacks_witness(&back, &[(0, 1), (1, 8), (2, 1)]));
        let given_up = map(&[(0, true, 0), (1, true, 7), (2, false, 9)]);
        assert!(!lacks_witness(&given_up, &[(0, 1), (1, 8)]));
        // Peering begins anew when that happens.
        let me = OsdId(0);
        let prior = |map| PriorSet::build(&past(), Epoch(0), map, me);
        assert_ne!(prior(&replaced), prior(&given_up));
    }

    #[test]
    fn who_was_away_while_others_may_have_served_has_not_seen_all() {
        let pgid = PgId { pool: PoolId(1), seed: 0 };
        let info =
            |started| PgInfo { last_epoch_started: Epoch(started), ..PgInfo::new(pgid, Epoch(1), Epoch(1)) };
        let seen = |past: &PastIntervals, max, osd, started| {
            has_seen_all(past, Epoch(max), OsdId(osd), &info(started))
        };
        // OSDs 1 and 2 took part in the activation of epoch 4.
        assert!(seen(&past(), 4, 1, 4) && seen(&past(), 4, 2, 4));
        // It has missed the newest activation.
        assert!(!seen(&past(), 4, 1, 3));
        // Another interval without it may have served; nobody who took part in it answers.
        let mut past = past();
        let later =
            Interval { first: Epoch(6), last: Epoch(7), acting: vec![OsdId(2)], ..past.closed[0].clone() };
        past.closed.push(later);
        assert!(!seen(&past, 4, 1, 4) && seen(&past, 4, 2, 4));
        past.closed[1].maybe_went_rw = false;
        assert!(seen(&past, 4, 1, 4));
    }

    #[test]
    fn a_member_that_is_down_is_waited_for_although_another_is_lost() {
        let waits = map(&[(0, true, 0), (1, false, 7), (2, false, 0)]);
        let prior = PriorSet::build(&past(), Epoch(0), &waits, OsdId(0));
        assert_eq!(prior.blocked_by, BTreeSet::from([OsdId(2)]));
        assert!(awaits_someone(&past(), Epoch(0), &waits));
        let given_up = map(&[(0, true, 0), (1, true, 0), (2, false, 9)]);
        assert!(!awaits_someone(&past(), Epoch(0), &given_up));
    }
}
