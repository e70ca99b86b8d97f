//! Versions, positions and local time: the orders everything else is built on.

use cairn_types::{Epoch, ObjectId, SnapId};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Version of one change of the group (RADOS `eversion_t`): the map epoch its primary had, then a
/// counter that only grows along one history. No two changes ever share a version, because an
/// epoch has one primary and a primary never reuses a counter within an interval.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Version {
    /// Map epoch at the primary when the change was ordered.
    pub epoch: Epoch,
    /// Place in the history of the group.
    pub version: u64,
}

impl Version {
    /// Before every change; as the version of an object: it does not exist.
    pub const ZERO: Version = Version { epoch: Epoch(0), version: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'{}", self.epoch.0, self.version)
    }
}

/// A moment on one process's monotonic clock, in milliseconds. Two processes' moments are never
/// compared; what crosses the wire are durations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// This moment and `ms` milliseconds.
    pub fn plus_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }

    /// Milliseconds from `now` until this moment, 0 when it has passed.
    pub fn remaining_ms(self, now: Time) -> u64 {
        self.0.saturating_sub(now.0)
    }
}

/// An object's name, cheap to clone, ordered as objects are listed and backfilled: by placement
/// hash with its bits reversed (so that a split of the group cuts a contiguous range), then by
/// name, clones before the head.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(from = "ObjectId")]
pub struct ObjectKey(Arc<ObjectId>);

impl ObjectKey {
    /// Wraps a name.
    pub fn new(object: ObjectId) -> ObjectKey {
        ObjectKey(Arc::new(object))
    }

    /// The head of the same name: the last of the name's objects in the order.
    pub fn head(&self) -> ObjectKey {
        if self.0.snap == SnapId::HEAD {
            return self.clone();
        }
        ObjectKey::new(ObjectId { snap: SnapId::HEAD, ..ObjectId::clone(&self.0) })
    }
}

impl From<ObjectId> for ObjectKey {
    fn from(object: ObjectId) -> ObjectKey {
        ObjectKey::new(object)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ObjectId::serialize(self, serializer)
    }
}

impl Deref for ObjectKey {
    type Target = ObjectId;

    fn deref(&self) -> &ObjectId {
        &self.0
    }
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &ObjectKey) -> Ordering {
        let (a, b) = (&*self.0, &*other.0);
        (a.hash.reverse_bits(), &a.namespace, &a.key, &a.name, a.snap.0, a.pool.0).cmp(&(
            b.hash.reverse_bits(),
            &b.namespace,
            &b.key,
            &b.name,
            b.snap.0,
            b.pool.0,
        ))
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &ObjectKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the order of objects; everything up to and including it. `last_backfill` is one:
/// what lies within it is as current as log and missing set say, what lies beyond is unknown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Position {
    /// Before every object.
    Min,
    /// Up to and including this name (always a head, so that a head and its clones stay together).
    At(ObjectKey),
    /// After every object: complete.
    Max,
}

impl Position {
    /// Whether `object` lies within.
    pub fn covers(&self, object: &ObjectKey) -> bool {
        match self {
            Position::Min => false,
            Position::At(end) => object <= end,
            Position::Max => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::PoolId;

    fn key(hash: u32, name: &str, snap: SnapId) -> ObjectKey {
        ObjectKey::new(ObjectId {
            pool: PoolId(1),
            hash,
            namespace: String::new(),
            key: String::new(),
            name: name.to_owned(),
            snap,
        })
    }

    #[test]
    fn versions_order_by_epoch_first() {
        let v = |e, v| Version { epoch: Epoch(e), version: v };
        assert!(v(1, 11) < v(2, 3) && v(2, 3) < v(2, 4) && Version::ZERO < v(1, 1));
    }

    #[test]
    fn objects_order_by_reversed_hash_and_clones_stay_with_their_head() {
        assert!(key(0x8000_0000, "a", SnapId::HEAD) < key(1, "a", SnapId::HEAD));
        let clone = key(5, "x", SnapId(7));
        assert!(clone < clone.head());
        assert!(Position::At(clone.head()).covers(&clone));
        assert!(!Position::At(clone.head()).covers(&key(5, "y", SnapId(1))));
        assert!(Position::Min < Position::At(clone.clone()) && Position::At(clone) < Position::Max);
    }
}
