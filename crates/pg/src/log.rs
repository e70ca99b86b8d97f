//! The log of the group: every change in order, with the request that made it and its answer.

use crate::missing::{MissingItem, MissingSet};
use crate::version::{ObjectKey, Position, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most entries that one transaction drops. There are more than [`TRIM_TOGETHER`] only when the log was long for a copy that was
/// behind, or is dropped as a whole.
pub(crate) const TRIM_STEP: usize = 256;

/// Entries that are dropped together, or a sixteenth of the log if that is fewer: dropped one by one, each change would look up and
/// remove, on every copy, an entry that nobody has touched for long.
const TRIM_TOGETHER: usize = 100;

/// Names one request of one client, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId {
    /// Client's global id.
    pub client: u64,
    /// Which life of the client.
    pub incarnation: u32,
    /// The client's counter.
    pub tid: u64,
}

/// What an entry did to its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EntryKind {
    /// Made or changed it.
    Modify,
    /// Removed it.
    Delete,
    /// Left it alone: the request failed, and a resend must fail the same way.
    Error,
}

/// One change of one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place in the history.
    pub version: Version,
    /// Version the object had before, [`Version::ZERO`] if it did not exist.
    pub prior_version: Version,
    /// The object.
    pub object: ObjectKey,
    /// What was done to it.
    pub kind: EntryKind,
    /// The request; `None` on the further entries of a request that changed several objects.
    pub request: Option<RequestId>,
    /// The answer remembered for a resend.
    pub result: Bytes,
}

impl LogEntry {
    /// About the bytes it takes in a message and in the store, from above: numbers 64, then what has no fixed length.
    pub(crate) fn weight_bytes(&self) -> usize {
        let object = &self.object;
        64 + object.namespace.len() + object.key.len() + object.name.len() + self.result.len()
    }

    /// Version of the object after it, [`Version::ZERO`] where it removed it.
    pub(crate) fn leaves(&self) -> Version {
        match self.kind {
            EntryKind::Delete => Version::ZERO,
            EntryKind::Modify | EntryKind::Error => self.version,
        }
    }
}

/// A stretch of another copy's log: everything in `(tail, head]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogSegment {
    /// Version just before the first entry.
    pub tail: Version,
    /// Version of the last entry, or `tail`.
    pub head: Version,
    /// The entries, oldest first.
    pub entries: Vec<LogEntry>,
}

/// One copy's log: everything in `(tail, head]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PgLog {
    tail: Version,
    head: Version,
    entries: VecDeque<LogEntry>,
    /// Newest entry of each object that changed it.
    objects: BTreeMap<ObjectKey, Version>,
    requests: BTreeMap<RequestId, Version>,
    /// Of all entries, [`LogEntry::weight_bytes`].
    weight_bytes: usize,
}

/// What taking over an authoritative log does to a copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Merge {
    /// The log is cut back to this version first.
    pub rewind_to: Version,
    /// Entries cut off: changes no acknowledged history contains.
    pub divergent: Vec<LogEntry>,
    /// Entries then appended.
    pub added: Vec<LogEntry>,
    /// Entries put before the tail, when the other log reaches further back.
    pub older: Vec<LogEntry>,
    /// Tail after that.
    pub tail: Version,
}

/// Cuts entries into pieces of at most so many bytes, and at least one entry.
pub(crate) fn in_steps(entries: Vec<LogEntry>, bytes: usize) -> Vec<Vec<LogEntry>> {
    let mut steps: Vec<Vec<LogEntry>> = Vec::new();
    let mut last_bytes = 0;
    for entry in entries {
        last_bytes += entry.weight_bytes();
        match steps.last_mut() {
            Some(step) if last_bytes <= bytes => step.push(entry),
            _ => {
                last_bytes = entry.weight_bytes();
                steps.push(vec![entry]);
            }
        }
    }
    steps
}

impl Merge {
    /// The same in steps, each of which leaves a log without a hole: what is cut off (and remembered), what is added, then what
    /// goes before the tail, newest first.
    ///
    /// A copy that is stopped in between has a log that ends, or begins, too early. It has not taken part in the activation that
    /// the log is of, and where it took part in the one before, its own log was no longer than this one.
    pub fn in_steps(self, bytes: usize) -> Vec<Merge> {
        let Merge { rewind_to, divergent, added, older, tail } = self;
        let mut steps = Vec::new();
        if !divergent.is_empty() {
            steps.push(Merge { rewind_to, divergent, ..Merge::default() });
        }
        steps.extend(in_steps(added, bytes).into_iter().map(|added| Merge { added, ..Merge::default() }));
        let mut tails = tail;
        let mut older: Vec<Merge> = in_steps(older, bytes)
            .into_iter()
            .map(|older| {
                let next = older.last().map_or(tails, |entry| entry.version);
                Merge { tail: std::mem::replace(&mut tails, next), older, ..Merge::default() }
            })
            .collect();
        older.reverse();
        steps.extend(older);
        steps
    }
}

impl PgLog {
    /// A log from its parts, as read from the store.
    pub fn from_parts(tail: Version, entries: impl IntoIterator<Item = LogEntry>) -> PgLog {
        let mut log = PgLog { tail, head: tail, ..PgLog::default() };
        for entry in entries {
            log.append(entry);
        }
        log
    }

    /// The log reaches back to just after this.
    pub fn tail(&self) -> Version {
        self.tail
    }

    /// Version of the newest entry.
    pub fn head(&self) -> Version {
        self.head
    }

    /// Entries kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.iter()
    }

    /// The entry with this version.
    pub fn get(&self, version: Version) -> Option<&LogEntry> {
        let at = self.entries.binary_search_by(|entry| entry.version.cmp(&version)).ok()?;
        self.entries.get(at)
    }

    /// Version of the newest entry older than `version`, or the tail.
    pub(crate) fn before(&self, version: Version) -> Version {
        let at = self.entries.partition_point(|entry| entry.version < version);
        at.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(self.tail, |entry| entry.version)
    }

    /// The entry that answered a request.
    pub fn find_request(&self, request: &RequestId) -> Option<&LogEntry> {
        self.get(*self.requests.get(request)?)
    }

    /// The newest entry that changed `object`, if the log still has one.
    pub fn newest_of(&self, object: &ObjectKey) -> Option<&LogEntry> {
        self.get(*self.objects.get(object)?)
    }

    /// Version of `object` by the log: `None` when the log does not know, [`Version::ZERO`] when
    /// it is deleted.
    pub fn object_version(&self, object: &ObjectKey) -> Option<Version> {
        self.newest_of(object).map(LogEntry::leaves)
    }

    /// Adds the next entry.
    pub fn append(&mut self, entry: LogEntry) {
        assert!(entry.version > self.head, "entry {} after head {}", entry.version, self.head);
        self.head = entry.version;
        self.index(&entry);
        self.weight_bytes += entry.weight_bytes();
        self.entries.push_back(entry);
    }

    /// Newest entry to drop so that at most `entries` of at most `bytes` together stay, or on the way there.
    pub(crate) fn excess(&self, entries: usize, bytes: usize) -> Option<Version> {
        let (mut left, mut left_bytes) = (self.entries.len(), self.weight_bytes);
        let mut last = None;
        for entry in self.entries.iter().take(TRIM_STEP) {
            if left <= entries && left_bytes <= bytes {
                break;
            }
            left -= 1;
            left_bytes -= entry.weight_bytes();
            last = Some(entry.version);
        }
        last
    }

    /// Newest entry to drop of a log that has come to more than `entries` by so many that they are worth dropping together, or to
    /// more than `bytes`; `None` while it has not.
    pub(crate) fn trim_point(&self, entries: usize, bytes: usize) -> Option<Version> {
        let is_over =
            self.entries.len() > entries + (entries / 16).min(TRIM_TOGETHER) || self.weight_bytes > bytes;
        if is_over { self.excess(entries, bytes - bytes / 16) } else { None }
    }

    fn index(&mut self, entry: &LogEntry) {
        if entry.kind != EntryKind::Error {
            self.objects.insert(entry.object.clone(), entry.version);
        }
        if let Some(request) = entry.request {
            self.requests.insert(request, entry.version);
        }
    }

    /// Drops entries up to and including `to`.
    pub fn trim(&mut self, to: Version) {
        while self.entries.front().is_some_and(|entry| entry.version <= to) {
            let Some(entry) = self.entries.pop_front() else { break };
            self.tail = entry.version;
            self.weight_bytes -= entry.weight_bytes();
            if self.objects.get(&entry.object) == Some(&entry.version) {
                self.objects.remove(&entry.object);
            }
            if let Some(request) = entry.request
                && self.requests.get(&request) == Some(&entry.version)
            {
                self.requests.remove(&request);
            }
        }
    }

    /// Cuts off everything after `to`, newest last in the result.
    pub fn rewind(&mut self, to: Version) -> Vec<LogEntry> {
        let keep = self.entries.partition_point(|entry| entry.version <= to);
        let cut: Vec<LogEntry> = self.entries.split_off(keep).into();
        self.head = self.entries.back().map_or(self.tail, |entry| entry.version);
        self.weight_bytes -= cut.iter().map(LogEntry::weight_bytes).sum::<usize>();
        if !cut.is_empty() {
            self.reindex();
        }
        cut
    }

    fn prepend(&mut self, tail: Version, older: Vec<LogEntry>) {
        if self.entries.is_empty() {
            self.head = older.last().map_or(self.head, |entry| entry.version);
        }
        for entry in older.into_iter().rev() {
            self.weight_bytes += entry.weight_bytes();
            self.entries.push_front(entry);
        }
        self.tail = tail;
        self.reindex();
    }

    fn reindex(&mut self) {
        self.objects.clear();
        self.requests.clear();
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.index(entry);
        }
        self.entries = entries;
    }

    /// Entries after `since`, or all of them if the log does not reach back so far.
    pub fn segment(&self, since: Version) -> LogSegment {
        let start = self.entries.partition_point(|entry| entry.version <= since);
        let tail = match start.checked_sub(1).and_then(|at| self.entries.get(at)) {
            Some(entry) => entry.version,
            None => self.tail,
        };
        LogSegment { tail, head: self.head, entries: self.entries.range(start..).cloned().collect() }
    }

    /// Newest version both logs have. What either has up to the other's tail is taken as agreed:
    /// tails never pass what every copy has (the caller has checked that the logs overlap).
    fn common_with(&self, auth: &LogSegment) -> Version {
        let theirs: BTreeSet<Version> = auth.entries.iter().map(|entry| entry.version).collect();
        let agreed = |version: &Version| *version <= auth.tail || theirs.contains(version);
        self.entries.iter().rev().map(|entry| entry.version).find(agreed).unwrap_or(self.tail)
    }

    /// Whether `auth` joins this log without a hole.
    pub(crate) fn overlaps(&self, auth: &LogSegment) -> bool {
        self.head >= auth.tail
    }

    /// What it takes to make this log equal to `auth` from the point where they agree.
    pub(crate) fn plan_merge(&self, auth: &LogSegment) -> Merge {
        let common = self.common_with(auth);
        let older: Vec<LogEntry> = if auth.tail < self.tail {
            auth.entries.iter().filter(|entry| entry.version <= self.tail).cloned().collect()
        } else {
            Vec::new()
        };
        Merge {
            rewind_to: common,
            divergent: self.entries.iter().filter(|entry| entry.version > common).cloned().collect(),
            added: auth.entries.iter().filter(|e| e.version > common.max(self.tail)).cloned().collect(),
            tail: if older.is_empty() { self.tail } else { auth.tail },
            older,
        }
    }

    pub(crate) fn apply_merge(&mut self, merge: &Merge) {
        if !merge.divergent.is_empty() {
            self.rewind(merge.rewind_to);
        }
        if !merge.older.is_empty() {
            self.prepend(merge.tail, merge.older.clone());
        }
        for entry in &merge.added {
            self.append(entry.clone());
        }
    }
}

/// What a merge asks of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ObjectFate {
    /// Not in the history: remove it from the store and from the missing set.
    Remove,
    /// The store has what the history wants.
    Present,
    /// The history wants another version than the store has.
    Missing(MissingItem),
}

/// Decides for every object a merge touches. `log` is the log after the merge; `missing` the set
/// before it. Objects beyond `last_backfill` are left to the backfill.
///
/// What is cut off is remembered with its object where nothing else has changed that since: the store has what it led to.
pub(crate) fn object_fates(
    merge: &Merge,
    log: &PgLog,
    missing: &MissingSet,
    last_backfill: &Position,
) -> BTreeMap<ObjectKey, ObjectFate> {
    #[derive(Default)]
    struct Touched<'a> {
        divergent: Vec<&'a LogEntry>,
        first_added: Option<&'a LogEntry>,
        last_added: Option<&'a LogEntry>,
    }
    let mut touched: BTreeMap<&ObjectKey, Touched<'_>> = BTreeMap::new();
    let changes = |entry: &&LogEntry| entry.kind != EntryKind::Error && last_backfill.covers(&entry.object);
    for entry in merge.divergent.iter().filter(changes) {
        touched.entry(&entry.object).or_default().divergent.push(entry);
    }
    for entry in merge.added.iter().filter(changes) {
        let object = touched.entry(&entry.object).or_default();
        object.first_added.get_or_insert(entry);
        object.last_added = Some(entry);
    }

    // A request that changed several objects would have to be made again on all of them.
    let is_whole = merge.divergent.iter().all(|entry| entry.request.is_some());
    touched
        .into_iter()
        .map(|(object, t)| {
            // What lies in the store now.
            let have = match (missing.get(object), t.divergent.last(), t.first_added) {
                (Some(item), _, _) => item.have,
                (None, Some(divergent), _) => divergent.leaves(),
                (None, None, Some(added)) => added.prior_version,
                (None, None, None) => Version::ZERO,
            };
            // What the history wants: the newest change in it, or what was before the divergence.
            let want = match (t.last_added, t.divergent.first()) {
                (Some(added), _) => added.leaves(),
                (None, Some(divergent)) => log.object_version(object).unwrap_or(divergent.prior_version),
                (None, None) => have,
            };
            let fate = if want == Version::ZERO {
                ObjectFate::Remove
            } else if want == have {
                ObjectFate::Present
            } else {
                let undone = match t.divergent.first() {
                    Some(first) if is_whole && !missing.contains(object) && first.prior_version == want => {
                        t.divergent.into_iter().cloned().collect()
                    }
                    _ => Vec::new(),
                };
                ObjectFate::Missing(MissingItem { need: want, have, undone })
            };
            (object.clone(), fate)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{Epoch, ObjectId, PoolId, SnapId};

    fn v(epoch: u32, version: u64) -> Version {
        Version { epoch: Epoch(epoch), version }
    }

    fn object(name: &str) -> ObjectKey {
        ObjectKey::new(ObjectId {
            pool: PoolId(1),
            hash: 0,
            namespace: String::new(),
            key: String::new(),
            name: name.to_owned(),
            snap: SnapId::HEAD,
        })
    }

    fn entry(name: &str, version: Version, prior_version: Version, kind: EntryKind) -> LogEntry {
        let request = Some(RequestId { client: 1, incarnation: 0, tid: version.version });
        LogEntry { version, prior_version, object: object(name), kind, request, result: Bytes::new() }
    }

    fn log(entries: &[LogEntry]) -> PgLog {
        PgLog::from_parts(Version::ZERO, entries.to_vec())
    }

    fn fates(mine: &PgLog, auth: &PgLog, missing: &MissingSet) -> BTreeMap<ObjectKey, ObjectFate> {
        let merge = mine.plan_merge(&auth.segment(Version::ZERO));
        let mut merged = mine.clone();
        merged.apply_merge(&merge);
        assert_eq!(merged.head(), auth.head());
        object_fates(&merge, &merged, missing, &Position::Max)
    }

    #[test]
    fn a_divergent_change_makes_the_version_before_it_missing() {
        let a = entry("a", v(1, 1), Version::ZERO, EntryKind::Modify);
        let undone = [
            entry("a", v(1, 2), v(1, 1), EntryKind::Modify),
            entry("a", v(1, 3), v(1, 2), EntryKind::Modify),
        ];
        let mine = log(&[a.clone(), undone[0].clone(), undone[1].clone()]);
        let auth = log(&[a, entry("b", v(3, 2), Version::ZERO, EntryKind::Modify)]);
        let fates = fates(&mine, &auth, &MissingSet::default());
        let item = MissingItem { undone: undone.to_vec(), ..MissingItem::new(v(1, 1), v(1, 3)) };
        assert!(item.is_right());
        assert_eq!(fates[&object("a")], ObjectFate::Missing(item));
        assert_eq!(fates[&object("b")], ObjectFate::Missing(MissingItem::new(v(3, 2), Version::ZERO)));
    }

    #[test]
    fn a_divergent_create_is_removed_and_a_divergent_delete_is_fetched_again() {
        let b = entry("b", v(1, 1), Version::ZERO, EntryKind::Modify);
        let mine = log(&[
            b.clone(),
            entry("a", v(1, 2), Version::ZERO, EntryKind::Modify),
            entry("b", v(1, 3), v(1, 1), EntryKind::Delete),
        ]);
        let fates = fates(&mine, &log(&[b]), &MissingSet::default());
        assert_eq!(fates[&object("a")], ObjectFate::Remove);
        let undone = vec![entry("b", v(1, 3), v(1, 1), EntryKind::Delete)];
        let item = MissingItem { undone, ..MissingItem::new(v(1, 1), Version::ZERO) };
        assert!(item.is_right());
        assert_eq!(fates[&object("b")], ObjectFate::Missing(item));
    }

    #[test]
    fn a_divergent_request_that_changed_several_objects_is_not_remembered() {
        let a = entry("a", v(1, 1), Version::ZERO, EntryKind::Modify);
        let further = LogEntry { request: None, ..entry("b", v(1, 3), Version::ZERO, EntryKind::Modify) };
        let mine = log(&[a.clone(), entry("a", v(1, 2), v(1, 1), EntryKind::Modify), further]);
        let fates = fates(&mine, &log(&[a]), &MissingSet::default());
        assert_eq!(fates[&object("a")], ObjectFate::Missing(MissingItem::new(v(1, 1), v(1, 2))));
    }

    #[test]
    fn a_divergent_change_whose_data_never_came_leaves_the_object_present() {
        let a = entry("a", v(1, 1), Version::ZERO, EntryKind::Modify);
        let mine = log(&[a.clone(), entry("a", v(2, 2), v(1, 1), EntryKind::Modify)]);
        let item = MissingItem::new(v(2, 2), v(1, 1));
        let missing = MissingSet::from_iter([(object("a"), item)]);
        assert_eq!(fates(&mine, &log(&[a]), &missing)[&object("a")], ObjectFate::Present);
    }

    #[test]
    fn a_divergent_change_superseded_by_the_history_is_missing_at_the_new_version() {
        let a = entry("a", v(1, 1), Version::ZERO, EntryKind::Modify);
        let mine = log(&[a.clone(), entry("a", v(1, 2), v(1, 1), EntryKind::Modify)]);
        let auth = log(&[a, entry("a", v(4, 2), v(1, 1), EntryKind::Modify)]);
        let expected = ObjectFate::Missing(MissingItem::new(v(4, 2), v(1, 2)));
        assert_eq!(fates(&mine, &auth, &MissingSet::default())[&object("a")], expected);
    }

    #[test]
    fn a_longer_tail_is_taken_over() {
        let all: Vec<LogEntry> =
            (1..=6).map(|n| entry("a", v(1, n), v(1, n - 1), EntryKind::Modify)).collect();
        let mine = PgLog::from_parts(v(1, 4), all[4..5].to_vec());
        let auth = log(&all);
        let merge = mine.plan_merge(&auth.segment(Version::ZERO));
        let mut merged = mine;
        merged.apply_merge(&merge);
        assert_eq!(merged, auth);
    }

    #[test]
    fn a_log_taken_over_in_steps_is_the_one_taken_over_at_once() {
        let all: Vec<LogEntry> =
            (1..=20).map(|n| entry("a", v(1, n), v(1, n - 1), EntryKind::Modify)).collect();
        let auth = log(&all);
        for (from, to) in [(0, 20), (8, 12), (19, 20), (0, 0), (5, 5)] {
            let tail = if from == 0 { Version::ZERO } else { v(1, from as u64) };
            let mut mine = PgLog::from_parts(tail, all[from..to].to_vec());
            if to < 20 {
                let prior = if to > 0 { v(1, to as u64) } else { Version::ZERO };
                mine.append(entry("a", v(1, 900), prior, EntryKind::Modify));
            }
            let merge = mine.plan_merge(&auth.segment(Version::ZERO));
            for bytes in [1, 200, 1 << 20] {
                let (mut merged, mut missing) = (mine.clone(), MissingSet::default());
                for step in merge.clone().in_steps(bytes) {
                    merged.apply_merge(&step);
                    for (object, fate) in object_fates(&step, &merged, &missing, &Position::Max) {
                        match fate {
                            ObjectFate::Missing(item) => missing.insert(object, item),
                            ObjectFate::Present | ObjectFate::Remove => drop(missing.remove(&object)),
                        }
                    }
                    let versions: Vec<Version> = merged.iter().map(|entry| entry.version).collect();
                    assert!(
                        versions.is_sorted() && versions.first().is_none_or(|first| *first > merged.tail())
                    );
                }
                assert_eq!(merged, auth, "from {from} to {to}, {bytes} bytes at a time");
                let want = if to < 20 { Some(v(1, 20)) } else { None };
                assert_eq!(missing.get(&object("a")).map(|item| item.need), want);
            }
        }
    }

    #[test]
    fn a_log_too_long_by_number_or_by_bytes_loses_its_oldest() {
        let mut log = PgLog::default();
        let name = "n".repeat(936);
        for n in 1..=10 {
            log.append(entry(&name, v(1, n), Version::ZERO, EntryKind::Modify));
        }
        assert_eq!(log.excess(10, 10_000), None);
        assert_eq!(log.excess(7, 10_000), Some(v(1, 3)));
        assert_eq!(log.excess(10, 9_999), Some(v(1, 1)));
        assert_eq!(log.excess(9, 5_500), Some(v(1, 5)));
        log.rewind(v(1, 8));
        log.trim(v(1, 2));
        assert_eq!((log.excess(6, 6_000), log.excess(6, 5_999)), (None, Some(v(1, 3))));
        let older = vec![entry(&name, v(1, 2), Version::ZERO, EntryKind::Modify)];
        log.prepend(v(1, 1), older);
        assert_eq!(log.excess(7, 6_999), Some(v(1, 2)));
    }

    #[test]
    fn entries_are_dropped_together() {
        let mut log = PgLog::default();
        for n in 1..=170 {
            assert_eq!(log.trim_point(160, 1 << 20), None, "after {n}");
            log.append(entry("a", v(1, n), Version::ZERO, EntryKind::Modify));
        }
        log.append(entry("a", v(1, 171), Version::ZERO, EntryKind::Modify));
        assert_eq!(log.trim_point(160, 1 << 20), Some(v(1, 11)));
        log.trim(v(1, 11));
        assert_eq!((log.len(), log.trim_point(160, 1 << 20)), (160, None));
        let weight = log.weight_bytes;
        assert_eq!(log.trim_point(160, weight), None);
        // A sixteenth of the bytes and no less.
        assert_eq!(log.trim_point(160, weight - 1), Some(v(1, 11 + 160_u64.div_ceil(16))));
        // A short log has nothing to save.
        assert_eq!(log.trim_point(15, 1 << 20), Some(v(1, 156)));
        log.trim(v(1, 156));
        log.append(entry("a", v(1, 172), Version::ZERO, EntryKind::Modify));
        assert_eq!(log.trim_point(15, 1 << 20), Some(v(1, 157)));
    }

    #[test]
    fn trimming_forgets_requests_and_keeps_what_follows() {
        let mut log = log(&[
            entry("a", v(1, 1), Version::ZERO, EntryKind::Modify),
            entry("a", v(1, 2), v(1, 1), EntryKind::Modify),
        ]);
        let request = |tid| RequestId { client: 1, incarnation: 0, tid };
        log.trim(v(1, 1));
        assert!(log.find_request(&request(1)).is_none() && log.find_request(&request(2)).is_some());
        assert_eq!((log.tail(), log.object_version(&object("a"))), (v(1, 1), Some(v(1, 2))));
    }
}
