//! Choosing the authoritative log and the acting set, from infos alone.

use crate::config::{Canary as Bug, Config};
use crate::info::PgInfo;
use crate::interval::PgMap;
use crate::version::Version;
use cairn_types::{Epoch, OsdId};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What peering decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    /// Holder of the authoritative log.
    pub auth: OsdId,
    /// Acting set wanted, primary first.
    pub acting: Vec<OsdId>,
    /// Members of the up set that cannot be brought up to date by log.
    pub backfill: Vec<OsdId>,
    /// Newest activation anyone took part in.
    pub max_started: Epoch,
    /// No log reaches as far as is known to have been committed: something acknowledged may be lost.
    pub falls_short: bool,
}

/// How far the authoritative log reaches, of the `heads` of the logs of the newest activation, when everything up to
/// `committed_to` is known to have been committed in it: as far as the newest log but one.
///
/// Every acknowledged change is in all of them, unless a disk has lost what it said it had; so any of them would do. The
/// newest log but one is there although one disk has lost something; what it leaves out is in one store alone, and
/// what it keeps is in two, so that no change hangs on the loss of one store. Of two logs that is the older one, which
/// is no guard against a disk that lost something: a log that does not reach `committed_to` is not asked. When none
/// does, the newest is the best there is.
fn authority(mut heads: Vec<Version>, committed_to: Version) -> Option<Version> {
    heads.sort_unstable_by_key(|head| Reverse(*head));
    let reaching = heads.iter().filter(|head| **head >= committed_to).count();
    heads.get(if reaching > 1 { 1 } else { 0 }).copied()
}

/// Decides; `None` when no copy took part in the newest activation and is whole.
pub(crate) fn choose(infos: &BTreeMap<OsdId, &PgInfo>, map: &PgMap, config: &Config) -> Option<Choice> {
    let whole = |info: &&PgInfo| !info.is_incomplete();
    let started = infos.values().map(|info| info.history.last_epoch_started).max()?;
    let max_started = infos
        .values()
        .filter(|i| whole(i))
        .map(|i| i.last_epoch_started)
        .max()
        .unwrap_or_default()
        .max(started);

    // Also by those whose backfill is not over: they have no log to offer, but they have been told.
    let newest = infos.iter().filter(|(_, info)| info.last_epoch_started >= max_started);
    let committed_to = newest.clone().map(|(_, info)| info.committed_to).max()?;
    let committed_to = if config.canary(Bug::IgnoreCommittedTo) { Version::ZERO } else { committed_to };
    let candidates = newest.filter(|(_, info)| whole(info));
    let heads: Vec<Version> = candidates.clone().map(|(_, info)| info.last_update).collect();
    let oldest = heads.iter().min().copied();
    let head = if config.canary(Bug::TakeOldestLog) { oldest? } else { authority(heads, committed_to)? };
    let (&auth, auth_info) =
        candidates.filter(|(_, info)| info.last_update == head).min_by_key(|(osd, info)| {
            let here = Reverse((map.primary == Some(**osd), map.up_primary == Some(**osd)));
            (info.log_tail, here, **osd)
        })?;

    // The primary: CRUSH's choice if the log can bring it up to date, else the present one (a
    // change would only cost another interval), else whoever holds the log.
    let joins = |osd: &OsdId, tail: Version| {
        infos.get(osd).is_some_and(|info| whole(info) && info.last_update >= tail)
    };
    let candidates = [map.up_primary, map.primary];
    let primary = candidates.into_iter().flatten().find(|osd| joins(osd, auth_info.log_tail)).unwrap_or(auth);
    let tail = infos.get(&primary)?.log_tail.min(auth_info.log_tail);

    let mut acting = vec![primary];
    let mut backfill = Vec::new();
    for osd in map.up.iter().filter(|osd| **osd != primary) {
        if joins(osd, tail) {
            acting.push(*osd);
        } else {
            backfill.push(*osd);
        }
    }
    // Others who have the history serve until those of the up set have it: the present acting set
    // first, then strays.
    for osd in map.acting.iter().chain(infos.keys()) {
        if acting.len() >= map.size {
            break;
        }
        if !acting.contains(osd) && !backfill.contains(osd) && joins(osd, tail) {
            acting.push(*osd);
        }
    }
    Some(Choice { auth, acting, backfill, max_started, falls_short: head < committed_to })
}

/// The acting set that is wanted once every member of the up set and of the acting set is whole: the up set, and
/// while that is short of `size`, members of the acting set besides.
///
/// [`choose`] comes to the same then. If the two differed, a group whose up set is too small would be given
/// back to CRUSH when recovered and taken away again by the next peering, for ever.
fn settled(map: &PgMap) -> SmallVec<[OsdId; 8]> {
    let mut acting: SmallVec<[OsdId; 8]> = map.up_primary.into_iter().collect();
    for osd in &map.up {
        if !acting.contains(osd) {
            acting.push(*osd);
        }
    }
    for osd in map.primary.iter().chain(&map.acting) {
        if acting.len() >= map.size {
            break;
        }
        if !acting.contains(osd) {
            acting.push(*osd);
        }
    }
    acting
}

/// What PG temp should be once all members are whole (nothing: the acting set is the up set), if it is not that.
pub(crate) fn unsettled(map: &PgMap) -> Option<Vec<OsdId>> {
    let wanted = settled(map);
    let primary = wanted.first().copied();
    if same_members(&wanted, primary, &map.up, map.up_primary) {
        (map.acting != map.up).then(Vec::new)
    } else {
        (!same_members(&wanted, primary, &map.acting, map.primary)).then(|| wanted.to_vec())
    }
}

/// Whether two acting sets are the same but for the order of the replicas.
pub(crate) fn same_members(
    a: &[OsdId],
    a_primary: Option<OsdId>,
    b: &[OsdId],
    b_primary: Option<OsdId>,
) -> bool {
    a_primary == b_primary && a.len() == b.len() && a.iter().all(|osd| b.contains(osd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{ObjectKey, Position};
    use cairn_types::{ObjectId, PgId, PoolId, SnapId};
    use std::sync::Arc;

    fn info(started: u32, last: u64, tail: u64) -> PgInfo {
        let mut info = PgInfo::new(PgId { pool: PoolId(1), seed: 0 }, Epoch(1), Epoch(0));
        info.last_epoch_started = Epoch(started);
        info.last_update = Version { epoch: Epoch(started), version: last };
        info.log_tail = Version { epoch: Epoch(u32::from(tail > 0)), version: tail };
        info
    }

    fn map(up: &[i32], acting: &[i32]) -> PgMap {
        let ids = |list: &[i32]| list.iter().copied().map(OsdId).collect::<Vec<_>>();
        PgMap {
            epoch: Epoch(9),
            up: ids(up),
            up_primary: up.first().copied().map(OsdId),
            acting: ids(acting),
            primary: acting.first().copied().map(OsdId),
            size: 3,
            min_size: 2,
            osds: Arc::default(),
        }
    }

    fn decide(infos: &[(i32, PgInfo)], map: &PgMap) -> Option<Choice> {
        choose(&infos.iter().map(|(osd, info)| (OsdId(*osd), info)).collect(), map, &Config::default())
    }

    #[test]
    fn the_newest_activation_wins_over_the_newest_change() {
        let choice = decide(&[(0, info(5, 20, 0)), (1, info(7, 12, 0))], &map(&[0, 1], &[0, 1])).unwrap();
        assert_eq!((choice.auth, choice.max_started), (OsdId(1), Epoch(7)));
        assert_eq!(choice.acting, [OsdId(0), OsdId(1)]);
    }

    #[test]
    fn of_three_logs_the_newest_but_one_wins_of_two_the_older_then_the_longer_tail() {
        let map = map(&[0, 1, 2], &[0, 1, 2]);
        let decide = |infos: &[(i32, PgInfo)]| decide(infos, &map).unwrap().auth;
        // What one store has alone goes; what two have stays, whoever lacks it.
        assert_eq!(decide(&[(0, info(5, 21, 0)), (1, info(5, 20, 4)), (2, info(5, 20, 2))]), OsdId(2));
        assert_eq!(decide(&[(0, info(5, 21, 4)), (1, info(5, 21, 2)), (2, info(5, 3, 0))]), OsdId(1));
        assert_eq!(decide(&[(0, info(5, 21, 0)), (1, info(5, 20, 0)), (2, info(5, 19, 0))]), OsdId(1));
        assert_eq!(decide(&[(0, info(5, 21, 0)), (1, info(5, 20, 0))]), OsdId(1));
        assert_eq!(decide(&[(0, info(5, 21, 0)), (1, info(4, 20, 0))]), OsdId(0));
    }

    #[test]
    fn a_log_that_ends_before_what_was_committed_is_not_taken() {
        let map = map(&[0, 1, 2], &[0, 1, 2]);
        let told = |info: PgInfo, epoch, version| PgInfo {
            committed_to: Version { epoch: Epoch(epoch), version },
            ..info
        };
        let choice = |infos: &[(i32, PgInfo)]| {
            let choice = decide(infos, &map).unwrap();
            (choice.auth, choice.falls_short)
        };
        // Of two, the one that lost something; of three, two that did.
        assert_eq!(choice(&[(0, info(5, 12, 0)), (1, told(info(5, 20, 0), 5, 19))]), (OsdId(1), false));
        assert_eq!(choice(&[(0, info(5, 19, 0)), (1, told(info(5, 20, 0), 5, 19))]), (OsdId(0), false));
        let two_lie = [(0, info(5, 12, 0)), (1, info(5, 11, 0)), (2, told(info(5, 20, 0), 5, 19))];
        assert_eq!(choice(&two_lie), (OsdId(2), false));
        // What an older activation committed is in every log of a newer one, or was given up with it.
        assert_eq!(choice(&[(0, told(info(4, 20, 0), 4, 19)), (1, info(5, 12, 0))]), (OsdId(1), false));
        // One whose backfill is not over knows, and has no log to offer.
        let mut half = told(info(5, 20, 0), 5, 19);
        half.last_backfill = Position::Min;
        assert_eq!(choice(&[(0, info(5, 11, 0)), (1, info(5, 12, 0)), (2, half)]), (OsdId(1), true));
    }

    #[test]
    fn an_empty_primary_of_the_up_set_is_backfilled_while_others_serve() {
        let infos = [(3, info(0, 0, 0)), (1, info(5, 20, 9)), (2, info(5, 20, 9))];
        let choice = decide(&infos, &map(&[3, 1, 2], &[3, 1, 2])).unwrap();
        assert_eq!((choice.acting, choice.backfill), (vec![OsdId(1), OsdId(2)], vec![OsdId(3)]));
    }

    #[test]
    fn what_is_settled_is_what_peering_chooses_when_all_are_whole() {
        for (up, acting) in [
            (&[1, 2, 0][..], &[1, 2, 0][..]),
            (&[1, 2], &[1, 2, 0]),
            (&[3, 1], &[1, 2, 0]),
            (&[], &[1, 2]),
            (&[4, 5, 6], &[1, 2, 3]),
        ] {
            let map = map(up, acting);
            let infos: Vec<(i32, PgInfo)> = (0..7).map(|osd| (osd, info(5, 20, 9))).collect();
            let wanted = settled(&map);
            assert_eq!(
                decide(&infos, &map).unwrap().acting[..wanted.len()],
                wanted[..],
                "up {up:?} acting {acting:?}"
            );
            assert_eq!(unsettled(&map).is_none(), wanted[..] == map.acting);
        }
    }

    #[test]
    fn an_unfinished_backfill_is_never_authoritative() {
        let mut half = info(7, 20, 0);
        let object = ObjectId {
            pool: PoolId(1),
            hash: 1,
            namespace: String::new(),
            key: String::new(),
            name: "o".into(),
            snap: SnapId::HEAD,
        };
        half.last_backfill = Position::At(ObjectKey::new(object));
        half.history.last_epoch_started = Epoch(7);
        assert_eq!(decide(&[(0, half)], &map(&[0], &[0])), None);
    }
}
