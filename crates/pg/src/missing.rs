//! Objects the log says a copy should have and the copy has not.

use crate::log::LogEntry;
use crate::version::{ObjectKey, Version};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One missing object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MissingItem {
    /// Version the log asks for.
    pub need: Version,
    /// Version that lies in the store, [`Version::ZERO`] for none. Never served.
    pub have: Version,
    /// The changes that made `have` of `need`, oldest first, where this copy has taken them back and the group may still make
    /// them again; else none.
    pub undone: Vec<LogEntry>,
}

impl MissingItem {
    /// An object of which only the version needed is of use.
    pub fn new(need: Version, have: Version) -> MissingItem {
        MissingItem { need, have, undone: Vec::new() }
    }

    /// What was taken back leads from what is needed to what the store has, or nothing was.
    pub(crate) fn is_right(&self) -> bool {
        let ends = self.undone.first().zip(self.undone.last());
        ends.is_none_or(|(first, last)| first.prior_version == self.need && last.leaves() == self.have)
    }

    /// About the bytes that what was taken back takes.
    pub(crate) fn undone_bytes(&self) -> usize {
        self.undone.iter().map(LogEntry::weight_bytes).sum()
    }
}

/// The missing set of one copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingSet {
    items: BTreeMap<ObjectKey, MissingItem>,
    by_need: BTreeSet<(Version, ObjectKey)>,
}

impl MissingSet {
    /// Objects in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The entry of an object.
    pub fn get(&self, object: &ObjectKey) -> Option<&MissingItem> {
        self.items.get(object)
    }

    /// Whether the object is missing.
    pub fn contains(&self, object: &ObjectKey) -> bool {
        self.items.contains_key(object)
    }

    /// All of it, in object order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &MissingItem)> {
        self.items.iter()
    }

    /// Objects in the order of the versions needed, oldest first: the order of recovery.
    pub fn oldest_first(&self) -> impl Iterator<Item = &ObjectKey> {
        self.by_need.iter().map(|(_, object)| object)
    }

    /// The oldest version needed.
    pub fn oldest_need(&self) -> Option<Version> {
        self.by_need.first().map(|(need, _)| *need)
    }

    /// Adds or replaces.
    pub fn insert(&mut self, object: ObjectKey, item: MissingItem) {
        let need = item.need;
        if let Some(old) = self.items.insert(object.clone(), item) {
            self.by_need.remove(&(old.need, object.clone()));
        }
        self.by_need.insert((need, object));
    }

    /// What was taken back of an object will not be made again.
    pub(crate) fn forget_undone(&mut self, object: &ObjectKey) {
        if let Some(item) = self.items.get_mut(object) {
            item.undone.clear();
        }
    }

    /// Takes an object out, when it has been recovered or deleted.
    pub fn remove(&mut self, object: &ObjectKey) -> Option<MissingItem> {
        let item = self.items.remove(object)?;
        self.by_need.remove(&(item.need, object.clone()));
        Some(item)
    }

    /// Sets or clears one object's entry, as a transaction records it.
    pub fn set(&mut self, object: &ObjectKey, item: Option<MissingItem>) {
        match item {
            Some(item) => self.insert(object.clone(), item),
            None => drop(self.remove(object)),
        }
    }
}

impl FromIterator<(ObjectKey, MissingItem)> for MissingSet {
    fn from_iter<I: IntoIterator<Item = (ObjectKey, MissingItem)>>(items: I) -> MissingSet {
        let mut set = MissingSet::default();
        for (object, item) in items {
            set.insert(object, item);
        }
        set
    }
}
