//! Which epochs of the OSD map to send to somebody who has one already.

use super::OsdMapHistory;
use super::limits::MAX_MAPS_PER_MESSAGE;
use cairn_types::{Epoch, OsdMap, OsdMapIncremental};
use serde::{Deserialize, Serialize};

/// How much of the history a subscriber needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Need {
    /// OSDs: every epoch that is kept, in order, because they work out past intervals.
    EveryEpoch,
    /// Clients: the newest map, by the shortest way.
    Newest,
}

/// What to send: a full map, if any, then increments that follow it without a gap.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MapBatch {
    /// A map to start from.
    pub full: Option<OsdMap>,
    /// What follows.
    pub increments: Vec<OsdMapIncremental>,
    /// Oldest epoch that is kept: every group is clean past those before it, so nobody needs them.
    pub oldest: Epoch,
}

impl MapBatch {
    /// The epoch the subscriber has afterwards; `None` if there is nothing to send.
    pub fn last(&self) -> Option<Epoch> {
        let increment = self.increments.last().map(|change| change.epoch);
        increment.or(self.full.as_ref().map(|map| map.epoch))
    }
}

/// The next message for a subscriber that has `have` (0 for none). Empty when it is up to date; one that is
/// far behind gets several messages, each of at most [`MAX_MAPS_PER_MESSAGE`] increments.
pub fn next_maps(history: &OsdMapHistory, have: Epoch, need: Need) -> MapBatch {
    let (first, current) = (history.first(), history.current().epoch);
    if have >= current {
        return MapBatch::default();
    }
    let far = have < first || current.0 - have.0 > MAX_MAPS_PER_MESSAGE;
    match need {
        Need::Newest if far => {
            MapBatch { full: Some(history.current().clone()), increments: Vec::new(), oldest: first }
        }
        Need::EveryEpoch if have < first => {
            // A new OSD too: a group it is given has a past, and whom to ask about it follows from these.
            let increments = history.increments(first.next(), current);
            MapBatch { full: history.map_at(first), increments, oldest: first }
        }
        _ => MapBatch { full: None, increments: history.increments(have.next(), current), oldest: first },
    }
}
