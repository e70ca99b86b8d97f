//! A group's own state as omap entries of one object in its collection.

use super::{FormError, OWN_POOL, PersistError, form};
use crate::object::{BadChange, apply, unpack};
use bytes::{BufMut, Bytes};
use cairn_pg::{
    LogChange, LogEntry, MissingItem, MissingSet, ObjectKey, PastIntervals, PersistedPg, PgInfo, PgLog,
    PgTransaction, StoreChange, Version,
};
use cairn_store::{Engine, Op, ReadError, Transaction};
use cairn_types::{Epoch, ObjectId, PgId, SnapId};
use serde::Serialize;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// Keys of the info and the past intervals; first byte of log entries' and missing objects' keys. The missing set
/// stands last, so that throwing it away looks at nothing else.
const INFO: &[u8] = b"i";
const LOG: u8 = b'l';
const PAST: &[u8] = b"p";
const MISSING: u8 = b'q';
const MISSING_END: &[u8] = b"r";

/// Entries read at once at a start.
const LOAD_STEP: usize = 4096;

/// The object that has a group's state: first of its collection, under a pool that is no client's.
pub fn meta_object() -> ObjectId {
    ObjectId {
        pool: OWN_POOL,
        hash: 0,
        namespace: String::new(),
        key: String::new(),
        name: "group".into(),
        snap: SnapId::HEAD,
    }
}

/// Most bytes of a group's log that go, with what is missing, into one transaction of a store whose own log has so many
/// bytes: the store takes a quarter of it, at most 4 MiB, and what is stored is up to twice what the log weighs.
pub fn log_step_bytes(store_log_bytes: u64) -> u64 {
    (store_log_bytes / 4).min(4 << 20) / 4
}

const LOG_KEY_LEN: usize = 13;

fn put_log_key(version: Version, out: &mut Vec<u8>) {
    out.put_u8(LOG);
    out.put_u32(version.epoch.0);
    out.put_u64(version.version);
}

/// Keys of log entries, all in one allocation.
fn log_keys(versions: impl ExactSizeIterator<Item = Version>) -> Vec<Bytes> {
    let count = versions.len();
    if count == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(count * LOG_KEY_LEN);
    versions.for_each(|version| put_log_key(version, &mut out));
    let all = Bytes::from(out);
    (0..count).map(|at| all.slice(at * LOG_KEY_LEN..(at + 1) * LOG_KEY_LEN)).collect()
}

/// Keys with their values, made one behind the other in one allocation.
struct Entries {
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: SmallVec<[(usize, usize); 4]>,
}

impl Entries {
    fn with_capacity(count: usize) -> Entries {
        Entries { bytes: Vec::with_capacity(count * 224), ends: SmallVec::with_capacity(count) }
    }

    fn log_entry(&mut self, entry: &LogEntry) {
        put_log_key(entry.version, &mut self.bytes);
        self.value(entry);
    }

    fn put(&mut self, key: &[u8], value: &impl Serialize) {
        self.bytes.extend_from_slice(key);
        self.value(value);
    }

    /// Of the key that was just made.
    fn value(&mut self, value: &impl Serialize) {
        let key_end = self.bytes.len();
        form::encode_into(value, &mut self.bytes);
        self.ends.push((key_end, self.bytes.len()));
    }

    fn finish(self) -> Vec<(Bytes, Bytes)> {
        let all = Bytes::from(self.bytes);
        let mut start = 0;
        let entry = |(key_end, end)| {
            let begin = std::mem::replace(&mut start, end);
            (all.slice(begin..key_end), all.slice(key_end..end))
        };
        self.ends.into_iter().map(entry).collect()
    }
}

fn version_of(key: &[u8]) -> Option<Version> {
    let (&[kind, e0, e1, e2, e3], version) = key.split_first_chunk::<5>()?;
    let version = u64::from_be_bytes(version.try_into().ok()?);
    (kind == LOG).then_some(Version { epoch: Epoch(u32::from_be_bytes([e0, e1, e2, e3])), version })
}

/// The kind, then the object's name as values have it: names are far below the bound of an omap key.
fn missing_key(object: &ObjectKey) -> Bytes {
    let mut key = vec![MISSING];
    key.extend_from_slice(&form::encode(object));
    key.into()
}

/// Turns a group's transactions into the store's. Knows which log entries are stored, so that trimming removes just
/// these keys: a removal by range would read through what was removed before.
#[derive(Debug)]
pub struct GroupWriter {
    pgid: PgId,
    meta: ObjectId,
    /// Versions of the stored log entries, in order: 16 bytes each.
    entries: VecDeque<Version>,
    /// Whether the collection is there.
    exists: bool,
}

impl GroupWriter {
    /// Of a group that is not stored yet.
    pub fn new(pgid: PgId) -> GroupWriter {
        GroupWriter { pgid, meta: meta_object(), entries: VecDeque::new(), exists: false }
    }

    /// Of a group as it was loaded.
    pub fn of(persisted: &PersistedPg) -> GroupWriter {
        let entries = persisted.log.iter().map(|entry| entry.version).collect();
        GroupWriter { pgid: persisted.info.pgid, meta: meta_object(), entries, exists: true }
    }

    /// All of a transaction, objects and the group's own state, as the store's.
    ///
    /// # Errors
    /// A change that is none: the copies would differ, so whoever drives has to end.
    pub fn transaction(&mut self, txn: &PgTransaction) -> Result<Transaction, BadChange> {
        // A write of a client: the data, the size, an attribute, and the group's state.
        let (pgid, mut out) = (self.pgid, Transaction { ops: Vec::with_capacity(6) });
        self.begin(&mut out);
        for change in &txn.objects {
            match change {
                StoreChange::Apply { payload, objects } => {
                    for (object, version) in objects {
                        apply(payload, pgid, object, *version, &mut out)?;
                    }
                }
                StoreChange::Put { object, version, data } => unpack(data, pgid, object, *version, &mut out)?,
                StoreChange::Remove(object) => {
                    // Whether it is there or not.
                    let object = ObjectId::clone(object);
                    out.ops.push(Op::Touch(pgid, object.clone()));
                    out.ops.push(Op::Remove(pgid, object));
                }
            }
        }
        self.write(txn, &mut out);
        Ok(out)
    }

    /// First of a transaction: makes the collection if it is not there.
    pub fn begin(&mut self, out: &mut Transaction) {
        if !self.exists {
            self.exists = true;
            out.ops.push(Op::CreateCollection(self.pgid));
            out.ops.push(Op::Touch(self.pgid, self.meta.clone()));
        }
    }

    /// The transaction's log, missing set, info and past intervals: what [`PersistedPg::apply`] means. After
    /// [`GroupWriter::begin`]; objects may stand before or after it.
    pub fn write(&mut self, txn: &PgTransaction, out: &mut Transaction) {
        let LogChange { reset_to, rewind_to, prepend, append, trim_to } = &txn.log;
        let mut gone: Vec<Bytes> = Vec::new();
        if reset_to.is_some() {
            gone.extend(log_keys(self.entries.drain(..)));
        }
        if let Some(to) = rewind_to {
            let keep = self.entries.partition_point(|version| version <= to);
            gone.extend(log_keys(self.entries.drain(keep..)));
        }
        // Before anything is set: what is cut off may come again under the same version.
        self.remove(gone, out);
        let mut set = Entries::with_capacity(append.len() + 1);
        if let Some((_, older)) = prepend {
            older.iter().rev().for_each(|entry| self.entries.push_front(entry.version));
            older.iter().for_each(|entry| set.log_entry(entry));
        }
        self.entries.extend(append.iter().map(|entry| entry.version));
        append.iter().for_each(|entry| set.log_entry(entry));
        if txn.clear_missing {
            out.ops.push(Op::OmapRemoveRange {
                pg: self.pgid,
                object: self.meta.clone(),
                first: Bytes::from_static(&[MISSING]),
                end: Bytes::from_static(MISSING_END),
            });
        }
        // The last word on an object counts, as it would one by one.
        let missing: BTreeMap<&ObjectKey, _> =
            txn.missing.iter().map(|(object, item)| (object, item)).collect();
        let mut found: Vec<Bytes> = Vec::new();
        for (object, item) in missing {
            match item {
                Some(item) => set.put(&missing_key(object), &(object, item)),
                None => found.push(missing_key(object)),
            }
        }
        self.remove(found, out);
        set.put(INFO, &txn.info);
        if let Some(past) = &txn.past_intervals {
            set.put(PAST, past);
        }
        out.ops.push(Op::OmapSet(self.pgid, self.meta.clone(), set.finish()));
        if let Some(to) = trim_to {
            let cut = self.entries.partition_point(|version| version <= to);
            let gone = log_keys(self.entries.drain(..cut));
            self.remove(gone, out);
        }
    }

    fn remove(&self, keys: Vec<Bytes>, out: &mut Transaction) {
        if !keys.is_empty() {
            out.ops.push(Op::OmapRemove(self.pgid, self.meta.clone(), keys));
        }
    }
}

/// Makes durable that a group is gone, whatever is left of it: without its state the rest of the collection is
/// litter, which a start sweeps out.
pub fn begin_removal(pgid: PgId) -> Transaction {
    // Made first: nothing may be stored of the group yet but its collection.
    Transaction { ops: vec![Op::Touch(pgid, meta_object()), Op::Remove(pgid, meta_object())] }
}

/// What a collection turned out to be.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives for a moment at a start")]
pub enum LoadedGroup {
    /// A group.
    Group(PersistedPg),
    /// What a removal left over.
    Litter,
}

/// Reads a group's state. On the store's thread, at a start.
///
/// # Errors
/// When it cannot be read, or contradicts itself.
pub fn load_group<D: cairn_store::device::Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
) -> Result<LoadedGroup, PersistError> {
    let damaged = |what: &str, source: FormError| PersistError::Form {
        what: format!("{what} of group {pgid}"),
        source,
    };
    let contradiction = |why| PersistError::Group { pgid, why };
    let meta = meta_object();
    let (mut info, mut past) = (None::<PgInfo>, None::<PastIntervals>);
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut missing = MissingSet::default();
    let mut after: Option<Bytes> = None;
    loop {
        let page = match engine.omap_list(pgid, &meta, after.as_deref(), LOAD_STEP) {
            Err(ReadError::NoObject { .. }) => return Ok(LoadedGroup::Litter),
            page => page?,
        };
        for (key, value) in &page {
            match key.first() {
                _ if *key == INFO => info = Some(form::decode(value).map_err(|e| damaged("the info", e))?),
                _ if *key == PAST => {
                    past = Some(form::decode(value).map_err(|e| damaged("the past intervals", e))?);
                }
                Some(&LOG) => {
                    let entry: LogEntry = form::decode(value).map_err(|e| damaged("a log entry", e))?;
                    if version_of(key) != Some(entry.version) {
                        return Err(contradiction("a log entry is not where its version says"));
                    }
                    entries.push(entry);
                }
                Some(&MISSING) => {
                    let (object, item): (ObjectKey, MissingItem) =
                        form::decode(value).map_err(|e| damaged("a missing object", e))?;
                    missing.insert(object, item);
                }
                _ => return Err(contradiction("an entry of no kind")),
            }
        }
        after = match page.into_iter().last() {
            Some((key, _)) => Some(key),
            None => break,
        };
    }
    // Made, and the info never written: no transaction leaves that behind.
    let info = info.ok_or_else(|| contradiction("no info"))?;
    let head = entries.last().map_or(info.log_tail, |entry| entry.version);
    if info.pgid != pgid || head != info.last_update {
        return Err(contradiction("the log does not end where the info says"));
    }
    if entries.first().is_some_and(|entry| entry.version <= info.log_tail) {
        return Err(contradiction("the log does not begin where the info says"));
    }
    let log = PgLog::from_parts(info.log_tail, entries);
    Ok(LoadedGroup::Group(PersistedPg { info, log, missing, past_intervals: past.unwrap_or_default() }))
}
