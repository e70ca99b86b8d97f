//! Index entries in memory: those changed since the last checkpoint, pinned, and as many others as fit.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

/// Entries looked at to make room for one: far more than come in, so that the bound holds as soon as enough of
/// them are clean.
const LOOKS: usize = 64;

/// Entries by key; a value of `None` says that the index has (or will have) none.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Changed since the last batch was taken.
    dirty: BTreeSet<K>,
    /// In the batch that is being committed.
    committing: Vec<K>,
    /// What an entry is taken to cost.
    cost: fn(&K, Option<&V>) -> usize,
    bytes: usize,
    bound_bytes: usize,
    /// Where the search for entries to forget goes on.
    hand: Option<K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: Option<Arc<V>>,
    /// The generation that changed it last; 0 for what the index has.
    generation: u64,
    referenced: bool,
}

impl<K: Ord + Clone, V> Cache<K, V> {
    /// Empty, to keep clean entries up to a bound.
    pub fn new(bound_bytes: usize, cost: fn(&K, Option<&V>) -> usize) -> Self {
        Cache {
            entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            committing: Vec::new(),
            cost,
            bytes: 0,
            bound_bytes,
            hand: None,
        }
    }

    /// The value, loaded if it is not here.
    pub fn get<E>(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Arc<V>>, E> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.referenced = true;
            return Ok(entry.value.clone());
        }
        let value = load()?.map(Arc::new);
        self.insert(key.clone(), value.clone(), 0);
        self.shrink(LOOKS);
        Ok(value)
    }

    /// The value with the key it is kept under, if it is here.
    pub fn find<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(&K, Option<&Arc<V>>)>
    where
        K: Borrow<Q>,
    {
        let (key, entry) = self.entries.range_mut((Bound::Included(key), Bound::Included(key))).next()?;
        entry.referenced = true;
        Some((key, entry.value.as_ref()))
    }

    /// The value as [`Self::get`] gives it, out of the cache, so that it can be changed in place where nobody
    /// else holds it. [`Self::put`] follows.
    pub fn take<E>(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Arc<V>>, E> {
        match self.entries.get_mut(key) {
            Some(entry) => {
                self.bytes -= (self.cost)(key, entry.value.as_deref());
                let value = entry.value.take();
                self.bytes += (self.cost)(key, None);
                Ok(value)
            }
            None => Ok(load()?.map(Arc::new)),
        }
    }

    /// Changes the value; it stays until a batch with it is committed. Says whether there was a value before, but for one
    /// that was taken; `None`: only the index knows.
    pub fn put(&mut self, key: K, value: Option<Arc<V>>, generation: u64) -> Option<bool> {
        self.insert(key, value, generation)
    }

    fn insert(&mut self, key: K, value: Option<Arc<V>>, generation: u64) -> Option<bool> {
        self.bytes += (self.cost)(&key, value.as_deref());
        let new = Entry { value, generation, referenced: true };
        match self.entries.get_mut(&key) {
            Some(entry) => {
                let old = mem::replace(entry, new);
                self.bytes -= (self.cost)(&key, old.value.as_deref());
                if generation != old.generation {
                    self.dirty.insert(key);
                }
                Some(old.value.is_some())
            }
            None => {
                if generation != 0 {
                    self.dirty.insert(key.clone());
                }
                self.entries.insert(key, new);
                None
            }
        }
    }

    /// Changed entries, which are from here on those being committed.
    pub fn take_dirty(&mut self) -> Vec<(K, Option<Arc<V>>)> {
        let dirty = mem::take(&mut self.dirty);
        self.committing.extend(dirty.iter().cloned());
        dirty.into_iter().map(|key| (key.clone(), self.entries[&key].value.clone())).collect()
    }

    /// The index has what was taken up to a generation.
    pub fn committed(&mut self, generation: u64) {
        let looks = LOOKS + 2 * self.committing.len();
        for key in mem::take(&mut self.committing) {
            if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.generation <= generation) {
                entry.generation = 0;
            }
        }
        self.shrink(looks);
    }

    /// Changed since the last batch was taken.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Entries that the index does not have in this form, in order.
    pub fn pinned(&self, from: Bound<&K>) -> impl Iterator<Item = (&K, Option<&Arc<V>>)> {
        let range = self.entries.range((from.cloned(), Bound::Unbounded));
        range.filter(|(_, entry)| entry.generation != 0).map(|(key, entry)| (key, entry.value.as_ref()))
    }

    /// What all entries cost.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets clean entries that were not used lately, while there are too many. Looks at so many at most: where
    /// most of them are pinned, a transaction must not wait for a walk over all.
    fn shrink(&mut self, looks_max: usize) {
        // Twice around: the first time takes the mark of use away.
        let mut looks = looks_max.min(2 * self.entries.len());
        while self.bytes > self.bound_bytes && looks > 0 {
            let from = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
            let mut forget = Vec::new();
            let mut excess = self.bytes - self.bound_bytes;
            for (key, entry) in self.entries.range_mut((from, Bound::Unbounded)) {
                if looks == 0 || excess == 0 {
                    break;
                }
                looks -= 1;
                self.hand = Some(key.clone());
                if entry.generation != 0 {
                    continue;
                }
                if mem::take(&mut entry.referenced) {
                    continue;
                }
                excess = excess.saturating_sub((self.cost)(key, entry.value.as_deref()));
                forget.push(key.clone());
            }
            for key in forget {
                if let Some(entry) = self.entries.remove(&key) {
                    self.bytes -= (self.cost)(&key, entry.value.as_deref());
                }
            }
            // The end was reached: begin at the start.
            if self.hand.as_ref().is_none_or(|hand| {
                self.entries.range((Bound::Excluded(hand), Bound::Unbounded)).next().is_none()
            }) {
                self.hand = None;
            }
            // All that is left may be pinned; a whole round has shown it then.
            looks = looks.min(2 * self.entries.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(key: u32) -> impl FnOnce() -> Result<Option<u32>, ()> {
        move || Ok(Some(key * 10))
    }

    #[test]
    fn clean_entries_stay_within_the_bound_and_changed_ones_stay() {
        let mut cache: Cache<u32, u32> = Cache::new(10, |_, _| 1);
        for key in 0..8 {
            cache.put(key, Some(Arc::new(key)), 1);
        }
        for key in 0..100 {
            let expected = if key < 8 { key } else { key * 10 };
            assert_eq!(cache.get(&key, load(key)).unwrap().as_deref(), Some(&expected));
            assert!(cache.bytes() <= 11, "{}", cache.bytes());
        }
        assert_eq!(cache.take_dirty().len(), 8);
        cache.put(3, None, 2);
        cache.committed(1);
        for key in 200..300 {
            cache.get(&key, load(key)).unwrap();
        }
        assert_eq!(
            cache.pinned(Bound::Unbounded).map(|(key, value)| (*key, value.cloned())).collect::<Vec<_>>(),
            [(3, None)]
        );
        assert!(cache.bytes() <= 10);
        assert_eq!(cache.take_dirty(), [(3, None)]);
    }
}
