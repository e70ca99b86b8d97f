//! What is known of objects, so that it need not be read again.

use crate::object::ObjectState;
use cairn_pg::ObjectKey;
use cairn_types::PgId;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Entry {
    state: ObjectState,
    /// Its place in the order of use.
    stamp: u64,
}

/// States of objects, the least recently used going first.
#[derive(Debug, Default)]
pub(super) struct Cache {
    groups: BTreeMap<PgId, BTreeMap<ObjectKey, Entry>>,
    by_use: BTreeMap<u64, (PgId, ObjectKey)>,
    next_stamp: u64,
    bytes: usize,
}

impl Cache {
    pub fn get(&mut self, pgid: PgId, object: &ObjectKey) -> Option<&ObjectState> {
        let entry = self.groups.get_mut(&pgid)?.get_mut(object)?;
        if let Some(place) = self.by_use.remove(&entry.stamp) {
            self.next_stamp += 1;
            entry.stamp = self.next_stamp;
            self.by_use.insert(entry.stamp, place);
        }
        Some(&entry.state)
    }

    pub fn put(&mut self, pgid: PgId, object: &ObjectKey, state: ObjectState) {
        self.remove(pgid, object);
        self.next_stamp += 1;
        let stamp = self.next_stamp;
        self.bytes += state.memory_bytes();
        self.groups.entry(pgid).or_default().insert(object.clone(), Entry { state, stamp });
        self.by_use.insert(stamp, (pgid, object.clone()));
    }

    pub fn remove(&mut self, pgid: PgId, object: &ObjectKey) {
        let Some(group) = self.groups.get_mut(&pgid) else { return };
        if let Some(entry) = group.remove(object) {
            self.bytes -= entry.state.memory_bytes();
            self.by_use.remove(&entry.stamp);
        }
        if group.is_empty() {
            self.groups.remove(&pgid);
        }
    }

    pub fn remove_group(&mut self, pgid: PgId) {
        for entry in self.groups.remove(&pgid).unwrap_or_default().into_values() {
            self.bytes -= entry.state.memory_bytes();
            self.by_use.remove(&entry.stamp);
        }
    }

    /// Forgets the least recently used until no more than `bytes_max` is taken, except those that must stay.
    pub fn shrink(&mut self, bytes_max: usize, must_stay: impl Fn(PgId, &ObjectKey) -> bool) {
        while self.bytes > bytes_max {
            let oldest = self.by_use.values().find(|(pgid, object)| !must_stay(*pgid, object));
            let Some((pgid, object)) = oldest.cloned() else { return };
            self.remove(pgid, &object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{ObjectId, PoolId, SnapId};

    fn key(name: &str) -> ObjectKey {
        let (namespace, key) = (String::new(), String::new());
        ObjectKey::new(ObjectId {
            pool: PoolId(1),
            hash: 1,
            namespace,
            key,
            name: name.into(),
            snap: SnapId::HEAD,
        })
    }

    #[test]
    fn the_least_recently_used_goes_unless_it_must_stay() {
        let pg = PgId { pool: PoolId(1), seed: 0 };
        let mut cache = Cache::default();
        for name in ["a", "b", "c"] {
            cache.put(pg, &key(name), ObjectState::absent());
        }
        let one = ObjectState::absent().memory_bytes();
        assert!(cache.get(pg, &key("b")).is_some());
        cache.shrink(2 * one, |_, object| *object == key("a"));
        assert!(cache.get(pg, &key("a")).is_some() && cache.get(pg, &key("c")).is_none());
        cache.shrink(0, |_, object| *object == key("a"));
        assert!(cache.get(pg, &key("a")).is_some() && cache.get(pg, &key("b")).is_none());
        cache.remove_group(pg);
        assert_eq!((cache.bytes, cache.by_use.len()), (0, 0));
    }
}
