//! A store: transactions are seen at once, become durable later and in order, and a crash loses
//! those that are not.

use bytes::Bytes;
use cairn_pg::{Blob, ListRange, ObjectKey, PersistedPg, PgTransaction, StoreChange, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub type Objects = BTreeMap<ObjectKey, (Version, Bytes)>;

#[derive(Clone, Default)]
pub struct State {
    pub objects: Objects,
    pub meta: Option<PersistedPg>,
}

#[derive(Default)]
pub struct Store {
    pub durable: State,
    pub view: State,
    pub pending: VecDeque<PgTransaction>,
    /// Whether reads see what is not durable yet. A core may not depend on either.
    pub reads_see_pending: bool,
    /// Objects that cannot be read, until they are replaced as a whole.
    pub rotten: BTreeSet<ObjectKey>,
    /// Nothing becomes durable for now.
    pub is_stuck: bool,
}

/// A change of an object, as a payload: `S` set, `A` append, `D` delete, and eight bytes.
pub fn change(content: Option<&Bytes>, payload: &Blob) -> Option<Bytes> {
    let value = &payload.meta[1..];
    match payload.meta[0] {
        b'S' => Some(Bytes::copy_from_slice(value)),
        b'A' => {
            let old: &[u8] = content.map_or(&[], |content| content);
            Some([old, value].concat().into())
        }
        _ => None,
    }
}

impl State {
    fn apply(&mut self, txn: &PgTransaction) {
        for change_of in &txn.objects {
            match change_of {
                StoreChange::Apply { payload, objects } => {
                    for (object, version) in objects {
                        let content = change(self.objects.get(object).map(|(_, content)| content), payload);
                        match (content, version) {
                            (Some(content), Some(version)) => {
                                self.objects.insert(object.clone(), (*version, content));
                            }
                            _ => drop(self.objects.remove(object)),
                        }
                    }
                }
                StoreChange::Put { object, version, data } => {
                    self.objects.insert(object.clone(), (*version, data.meta.clone()));
                }
                StoreChange::Remove(object) => drop(self.objects.remove(object)),
            }
        }
        self.meta.get_or_insert_with(|| PersistedPg::new(txn.info.clone())).apply(txn);
    }

    pub fn list(&self, range: &ListRange) -> Vec<(ObjectKey, Version)> {
        let within = self.objects.iter().filter(|(key, _)| !range.begin.covers(key) && range.end.covers(key));
        within
            .take(range.limit.unwrap_or(usize::MAX))
            .map(|(key, (version, _))| (key.clone(), *version))
            .collect()
    }
}

impl Store {
    /// What a read finds.
    pub fn readable(&self) -> &State {
        if self.reads_see_pending { &self.view } else { &self.durable }
    }

    pub fn submit(&mut self, txn: PgTransaction) {
        self.view.apply(&txn);
        self.pending.push_back(txn);
    }

    /// The oldest `count` become durable.
    pub fn harden(&mut self, count: usize) {
        let count = if self.is_stuck { 0 } else { count };
        for txn in self.pending.drain(..count) {
            for change in &txn.objects {
                if let StoreChange::Put { object, .. } | StoreChange::Remove(object) = change {
                    self.rotten.remove(object);
                }
            }
            self.durable.apply(&txn);
        }
    }

    /// Whether an execution finds that it cannot read the object: it waits for what replaces the object to be durable.
    pub fn is_rotten(&self, object: &ObjectKey) -> bool {
        let replaces = |change: &StoreChange| match change {
            StoreChange::Put { object: replaced, .. } | StoreChange::Remove(replaced) => replaced == object,
            StoreChange::Apply { .. } => false,
        };
        self.rotten.contains(object) && !self.pending.iter().any(|txn| txn.objects.iter().any(replaces))
    }

    /// Power is lost after `survive` of the waiting transactions reached the disk.
    pub fn crash(&mut self, survive: usize) {
        self.harden(survive.min(self.pending.len()));
        self.pending.clear();
        self.view = self.durable.clone();
    }

    pub fn remove(&mut self) {
        *self = Store { reads_see_pending: self.reads_see_pending, ..Store::default() };
    }
}
