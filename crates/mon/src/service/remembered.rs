//! What lately completed requests got, so that one that is sent again, to whichever monitor, is answered
//! and not carried out twice.
//!
//! A request says at which version of the state its sender first sent it (`born`). If it was carried out,
//! that was in a later version. All requests of the versions above a floor are remembered, so a request born
//! at the floor or later that is not found was never carried out; an older one is refused.

use super::Reply;
use super::limits::MAX_REMEMBERED;
use cairn_wire::RequestId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The memory of completed requests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// Requests of the versions above this one are all here.
    floor: u64,
    replies: BTreeMap<RequestId, (u64, Reply)>,
    by_version: BTreeSet<(u64, RequestId)>,
}

impl Remembered {
    /// What a request got.
    pub fn find(&self, id: RequestId) -> Option<&Reply> {
        self.replies.get(&id).map(|(_, reply)| reply)
    }

    /// The oldest `born` that can be judged.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn push(&mut self, version: u64, id: RequestId, reply: Reply) {
        self.replies.insert(id, (version, reply));
        self.by_version.insert((version, id));
        while self.by_version.len() > MAX_REMEMBERED {
            let Some((oldest, id)) = self.by_version.pop_first() else { break };
            self.replies.remove(&id);
            // Others of that version may still be here, but no longer all.
            self.floor = oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_floor_is_all_remembered() {
        let id = |tid| RequestId { client: 1, incarnation: 0, tid };
        let mut remembered = Remembered::default();
        for tid in 0..MAX_REMEMBERED as u64 + 3 {
            remembered.push(1 + tid / 2, id(tid), Reply::Done);
        }
        // Three had to go: both of version 1 and one of version 2.
        assert_eq!(remembered.floor(), 2);
        assert_eq!(remembered.find(id(2)), None);
        assert_eq!(remembered.find(id(3)), Some(&Reply::Done));
        assert_eq!(remembered.replies.len(), MAX_REMEMBERED);
    }
}
