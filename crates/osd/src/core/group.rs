//! One placement group and what the OSD keeps beside it.

use cairn_pg::{ObjectKey, OpId, PersistToken, Pg, PgMap, PgStats, PgTransaction, StoreChange};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// Objects and bytes of a group: counted when this OSD becomes its primary, kept up to date by what it executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub objects: u64,
    pub bytes: u64,
}

/// One group.
///
/// `unstable` is what makes reading of the store safe: an object is in it from the moment a transaction that changes
/// it is handed to the store until that one is durable. The store shows at least what was durable when it was asked,
/// so an execution asks it about an object only while that is not in `unstable`; until then it waits. What blind
/// writes need, the object's state, is in the cache as the last execution left it, so they do not wait; and the cache
/// never gives up an object that is in `unstable`. While an execution runs, the group hands out no other change of its object
/// (one write at a time, no write beside a read, none of what is being recovered), so all answers are of one moment.
/// Over a change of interval nothing is assumed: executions are void and the cache is dropped, but `unstable` stays.
#[derive(Debug)]
pub(super) struct Group {
    pub pg: Pg,
    /// As the newest map has it.
    pub map: Option<PgMap>,
    pub stats: Option<PgStats>,
    pub tally: Tally,
    /// The last transaction handed in and not durable that changes an object.
    unstable: BTreeMap<ObjectKey, PersistToken>,
    changed_by: VecDeque<(PersistToken, SmallVec<[ObjectKey; 1]>)>,
    /// Executions that wait for an object to be stable.
    waiting: BTreeMap<ObjectKey, SmallVec<[OpId; 2]>>,
}

impl Group {
    pub fn new(pg: Pg) -> Group {
        Group {
            pg,
            map: None,
            stats: None,
            tally: Tally::default(),
            unstable: BTreeMap::new(),
            changed_by: VecDeque::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub fn is_unstable(&self, object: &ObjectKey) -> bool {
        self.unstable.contains_key(object)
    }

    /// A transaction is handed to the store.
    pub fn handed_in(&mut self, txn: &PgTransaction) {
        let objects: SmallVec<[ObjectKey; 1]> = txn.objects.iter().flat_map(changed).cloned().collect();
        for object in &objects {
            self.unstable.insert(object.clone(), txn.token);
        }
        if !objects.is_empty() {
            self.changed_by.push_back((txn.token, objects));
        }
    }

    /// Transactions up to this one are durable. Returns the executions that may ask now.
    pub fn persisted(&mut self, token: PersistToken) -> SmallVec<[OpId; 2]> {
        let mut ready = SmallVec::new();
        while let Some((_, objects)) = self.changed_by.pop_front_if(|(first, _)| *first <= token) {
            for object in objects {
                if self.unstable.get(&object).is_some_and(|last| *last <= token) {
                    self.unstable.remove(&object);
                    ready.extend(self.waiting.remove(&object).unwrap_or_default());
                }
            }
        }
        ready
    }

    /// An execution waits until the object is stable.
    pub fn wait(&mut self, object: &ObjectKey, op: OpId) {
        self.waiting.entry(object.clone()).or_default().push(op);
    }

    /// Executions are void.
    pub fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The counts after an execution.
    pub fn count(&mut self, before: (bool, u64), after: (bool, u64)) {
        let Tally { objects, bytes } = &mut self.tally;
        *objects = (*objects + u64::from(after.0)).saturating_sub(u64::from(before.0));
        *bytes = (*bytes + after.1).saturating_sub(before.1);
    }
}

/// The objects that a change touches.
pub(super) fn changed(change: &StoreChange) -> SmallVec<[&ObjectKey; 1]> {
    match change {
        StoreChange::Apply { objects, .. } => objects.iter().map(|(object, _)| object).collect(),
        StoreChange::Put { object, .. } | StoreChange::Remove(object) => SmallVec::from_iter([object]),
    }
}
