//! From a transaction to mutations: everything is checked, looked up and given its place here, against the
//! state with the transaction's own earlier operations laid over it. Nothing is changed until it is known
//! that all of it can be done.

use super::State;
use crate::alloc::Run;
use crate::error::{StoreError, TransactionError};
use crate::format::mutation::Mutation;
use crate::format::values::{Head, Shard};
use crate::key::{object_key, object_key_buf, pg_key};
use crate::limits::{
    BLOCK_BYTES, NAME_BYTES_MAX, OBJECT_BYTES_MAX, OMAP_KEY_BYTES_MAX, OMAP_VALUE_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, XATTRS_BYTES_MAX,
};
use crate::txn::{Op, Transaction};
use bytes::Bytes;
use cairn_types::{ObjectId, PgId};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Most omap keys that one operation may remove by range, or copy.
const OMAP_KEYS_MAX: usize = 64 << 10;

/// Blocks that only transactions that free space may take: for the edges of what they cut.
pub const RESERVE_BLOCKS: u64 = 16;

/// Why a transaction cannot be carried out now.
#[derive(Debug)]
pub enum PlanError {
    /// Not at all.
    Refused(TransactionError),
    /// Not before a checkpoint has given back freed space.
    AfterCheckpoint,
}

impl<E: Into<TransactionError>> From<E> for PlanError {
    fn from(error: E) -> Self {
        PlanError::Refused(error.into())
    }
}

/// A transaction worked out.
#[derive(Debug, Default)]
pub struct Plan {
    /// What it does.
    pub mutations: Vec<Mutation>,
    /// Data for fresh blocks, by the first of them, to be durable before the record.
    pub direct: Vec<(u64, Bytes)>,
    /// Objects it is about, one or the other more than once.
    pub keys: SmallVec<[Bytes; 2]>,
    /// What it reserved; given back if it is not carried out.
    pub(super) reserved: Vec<Run>,
}

/// The state as the transaction sees it half-way.
pub(super) struct Planner<'a> {
    pub state: &'a mut State,
    pub plan: Plan,
    collections: BTreeMap<PgId, bool>,
    heads: BTreeMap<Bytes, Option<Arc<Head>>>,
    /// The object that the last operation was about: the next one is usually about the same.
    last: Option<Last<'a>>,
    pub shards: BTreeMap<(u64, u32), Box<Shard>>,
    pub refs: BTreeMap<u64, u32>,
    /// Content of blocks that this transaction writes.
    pub blocks: BTreeMap<u64, Bytes>,
    omap: BTreeMap<(u64, Bytes), Option<Bytes>>,
    next_nid: u64,
    /// Does nothing but free, and note it: may use the reserves.
    pub removes: bool,
    /// The running operation is a write, and none after it looks at blocks: what it does to them need not
    /// be laid over the state, for nothing will ask.
    pub is_last_write: bool,
    /// An operation after the running one looks at omap entries.
    reads_omap: bool,
}

struct Last<'a> {
    pg: PgId,
    object: &'a ObjectId,
    key: Bytes,
    head: Option<Arc<Head>>,
}

impl Plan {
    /// Bytes of its mutations in a record, at most.
    pub fn record_bytes(&self) -> usize {
        self.mutations.iter().map(encoded_bytes).sum::<usize>() + 4
    }
}

impl State {
    /// Works out a transaction. An encoded form longer than `record_bytes_max` is refused.
    pub fn plan(&mut self, transaction: &Transaction, record_bytes_max: usize) -> Result<Plan, PlanError> {
        let next_nid = self.next_nid;
        let removes = only_frees(transaction);
        let mut planner = Planner {
            state: self,
            plan: Plan::default(),
            collections: BTreeMap::new(),
            heads: BTreeMap::new(),
            last: None,
            shards: BTreeMap::new(),
            refs: BTreeMap::new(),
            blocks: BTreeMap::new(),
            omap: BTreeMap::new(),
            next_nid,
            removes,
            is_last_write: false,
            reads_omap: false,
        };
        let result = planner.run(transaction, record_bytes_max);
        let plan = planner.plan;
        match result {
            Ok(()) => Ok(plan),
            Err(error) => {
                self.abandon(plan);
                Err(error)
            }
        }
    }

    /// Gives back what a plan that is not carried out reserved.
    pub fn abandon(&mut self, plan: Plan) {
        plan.reserved.into_iter().for_each(|run| self.alloc.unreserve(run));
    }
}

impl<'a> Planner<'a> {
    fn run(&mut self, transaction: &'a Transaction, record_bytes_max: usize) -> Result<(), PlanError> {
        let last_with_blocks = transaction.ops.iter().rposition(has_blocks);
        let last_omap_reader = transaction.ops.iter().rposition(reads_omap);
        for (at, op) in transaction.ops.iter().enumerate() {
            self.reads_omap = last_omap_reader.is_some_and(|reader| at < reader);
            self.is_last_write = Some(at) == last_with_blocks && matches!(op, Op::Write { .. });
            self.op(op)?;
        }
        limit("a transaction's record", self.plan.record_bytes(), record_bytes_max)?;
        let entries: u64 = self.plan.mutations.iter().map(entry_bytes).sum();
        if !self.state.index_has_room(entries, self.removes) {
            // What is added since the checkpoint is an estimate from above: a checkpoint makes it exact.
            return Err(match self.state.added_bytes + self.state.committing_bytes {
                0 => PlanError::Refused(TransactionError::IndexFull),
                _ => PlanError::AfterCheckpoint,
            });
        }
        Ok(())
    }

    fn op(&mut self, op: &'a Op) -> Result<(), PlanError> {
        match op {
            Op::CreateCollection(pg) => {
                if self.has_collection(*pg) {
                    return Err(TransactionError::CollectionExists(*pg).into());
                }
                self.collections.insert(*pg, true);
                self.push(Mutation::PutCollection(*pg));
            }
            Op::RemoveCollection(pg) => {
                self.collection(*pg)?;
                if self.has_objects(*pg)? {
                    return Err(TransactionError::CollectionNotEmpty(*pg).into());
                }
                self.collections.insert(*pg, false);
                self.push(Mutation::DropCollection(*pg));
            }
            Op::Touch(pg, object) => {
                self.open(*pg, object)?;
            }
            Op::Write { pg, object, offset, data, checksums } => {
                let (key, head) = self.open(*pg, object)?;
                let end = end_of(*offset, data.len() as u64)?;
                self.write(&head, object, *offset, data, checksums.as_deref())?;
                self.grow(key, &head, end);
            }
            Op::Zero { pg, object, offset, len } => {
                let (key, head) = self.open(*pg, object)?;
                let end = end_of(*offset, *len)?;
                self.zero(&head, object, *offset, end.min(head.size))?;
                self.grow(key, &head, end);
            }
            Op::Truncate { pg, object, size } => {
                let (key, head) = self.open(*pg, object)?;
                limit("an object's size", *size as usize, OBJECT_BYTES_MAX as usize)?;
                if *size < head.size {
                    self.zero(&head, object, *size, head.size)?;
                }
                if *size != head.size {
                    self.put_head(key, Head { size: *size, ..Head::clone(&head) });
                }
            }
            Op::Remove(pg, object) => {
                let (key, head) = self.existing(*pg, object)?;
                self.drop_content(&head)?;
                self.put_no_head(key);
            }
            Op::CloneRange { pg, source, target, source_offset, len, target_offset } => {
                let (_, from) = self.existing(*pg, source)?;
                let (key, to) = self.open(*pg, target)?;
                end_of(*source_offset, *len)?;
                let end = end_of(*target_offset, *len)?;
                self.clone_range((&from, source, *source_offset), (&to, target, *target_offset), *len)?;
                self.grow(key, &to, end);
            }
            Op::Clone { pg, source, target } => self.clone(*pg, source, target)?,
            Op::Rename { pg, object, target_pg, target } => {
                let (key, head) = self.existing(*pg, object)?;
                self.collection(*target_pg)?;
                let target_key = checked_key(*target_pg, target)?;
                if self.head(&target_key)?.is_some() {
                    let object = Box::new(target.clone());
                    return Err(TransactionError::ObjectExists { pg: *target_pg, object }.into());
                }
                self.put_no_head(key);
                self.put_shared_head(target_key, head);
            }
            Op::SetXattrs(pg, object, xattrs) => {
                let (key, head) = self.open(*pg, object)?;
                let mut head = Head::clone(&head);
                for (name, value) in xattrs {
                    limit("an attribute's name", name.len(), XATTR_NAME_BYTES_MAX)?;
                    head.xattrs.insert(name.clone(), value.clone());
                }
                let bytes = head.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
                limit("an object's attributes", bytes, XATTRS_BYTES_MAX)?;
                self.put_head(key, head);
            }
            Op::RemoveXattr(pg, object, name) => {
                let (key, head) = self.existing(*pg, object)?;
                let mut head = Head::clone(&head);
                if head.xattrs.remove(name).is_some() {
                    self.put_head(key, head);
                }
            }
            Op::OmapSet(pg, object, entries) => {
                let (key, head) = self.open(*pg, object)?;
                let omap = self.own_omap(key, &head);
                for (key, value) in entries {
                    limit("an omap key", key.len(), OMAP_KEY_BYTES_MAX)?;
                    limit("an omap value", value.len(), OMAP_VALUE_BYTES_MAX)?;
                    self.put_omap(omap, key.clone(), value.clone());
                }
            }
            Op::OmapRemove(pg, object, keys) => {
                let (_, head) = self.existing(*pg, object)?;
                keys.iter().for_each(|key| self.drop_omap_key(head.omap, key.clone()));
            }
            Op::OmapRemoveRange { pg, object, first, end } => {
                let (_, head) = self.existing(*pg, object)?;
                for (key, _) in self.omap_entries(head.omap, first, Some(end))? {
                    self.drop_omap_key(head.omap, key);
                }
            }
            Op::OmapClear(pg, object) => {
                let (key, head) = self.existing(*pg, object)?;
                if head.omap != 0 {
                    self.drop_omap(head.omap);
                }
                if head.omap != 0 || !head.omap_header.is_empty() {
                    let head = Head { omap: 0, omap_header: Bytes::new(), ..Head::clone(&head) };
                    self.put_head(key, head);
                }
            }
            Op::OmapSetHeader(pg, object, header) => {
                let (key, head) = self.open(*pg, object)?;
                limit("an omap header", header.len(), OMAP_VALUE_BYTES_MAX)?;
                self.put_head(key, Head { omap_header: header.clone(), ..Head::clone(&head) });
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self, mutation: Mutation) {
        self.plan.mutations.push(mutation);
    }

    fn has_collection(&self, pg: PgId) -> bool {
        self.collections.get(&pg).copied().unwrap_or_else(|| self.state.collections.contains(&pg))
    }

    fn collection(&self, pg: PgId) -> Result<(), TransactionError> {
        if self.has_collection(pg) { Ok(()) } else { Err(TransactionError::NoCollection(pg)) }
    }

    fn has_objects(&mut self, pg: PgId) -> Result<bool, StoreError> {
        let prefix = pg_key(pg);
        let here = |key: &&Bytes| key.starts_with(&prefix);
        if self.heads.iter().any(|(key, head)| here(&key) && head.is_some()) {
            return Ok(true);
        }
        // Every name this transaction removed may hide one that stays.
        let gone = self.heads.keys().filter(here).count();
        let found = self.state.head_keys(&prefix, Bound::Unbounded, gone + 1)?;
        Ok(found.iter().any(|key| !self.heads.contains_key(key)))
    }

    fn head(&mut self, key: &Bytes) -> Result<Option<Arc<Head>>, StoreError> {
        match self.heads.get(key) {
            Some(head) => Ok(head.clone()),
            None => self.state.head(key),
        }
    }

    /// The object that an operation is about: its key, and its head if it is there.
    fn find(&mut self, pg: PgId, object: &'a ObjectId) -> Result<(Bytes, Option<Arc<Head>>), PlanError> {
        if let Some(last) = &self.last
            && (last.pg, last.object) == (pg, object)
        {
            return Ok((last.key.clone(), last.head.clone()));
        }
        check_name(object)?;
        let name = object_key_buf(pg, object);
        let (key, head) = match self.heads.get_key_value(&name[..]) {
            Some((key, head)) => (key.clone(), head.clone()),
            None => self.state.find_head(&name)?,
        };
        self.is_about(&key);
        self.last = Some(Last { pg, object, key: key.clone(), head: head.clone() });
        Ok((key, head))
    }

    fn is_about(&mut self, key: &Bytes) {
        if self.plan.keys.last() != Some(key) {
            self.plan.keys.push(key.clone());
        }
    }

    /// The object, made if it is not there.
    fn open(&mut self, pg: PgId, object: &'a ObjectId) -> Result<(Bytes, Arc<Head>), PlanError> {
        self.collection(pg)?;
        let (key, head) = self.find(pg, object)?;
        if let Some(head) = head {
            return Ok((key, head));
        }
        let head = Arc::new(Head { nid: self.new_nid(), ..Head::default() });
        self.put_shared_head(key.clone(), head.clone());
        Ok((key, head))
    }

    fn existing(&mut self, pg: PgId, object: &'a ObjectId) -> Result<(Bytes, Arc<Head>), PlanError> {
        self.collection(pg)?;
        match self.find(pg, object)? {
            (key, Some(head)) => Ok((key, head)),
            (_, None) => Err(TransactionError::NoObject { pg, object: Box::new(object.clone()) }.into()),
        }
    }

    fn new_nid(&mut self) -> u64 {
        self.next_nid += 1;
        self.next_nid - 1
    }

    fn put_head(&mut self, key: Bytes, head: Head) {
        self.put_shared_head(key, Arc::new(head));
    }

    fn put_shared_head(&mut self, key: Bytes, head: Arc<Head>) {
        self.is_about(&key);
        self.lay_over(key.clone(), Some(head.clone()));
        // Several changes of one head in a row need one.
        if let Some(Mutation::PutHead { key: last, head: old }) = self.plan.mutations.last_mut()
            && *last == key
        {
            *old = head;
            return;
        }
        self.push(Mutation::PutHead { key, head });
    }

    fn put_no_head(&mut self, key: Bytes) {
        self.lay_over(key.clone(), None);
        self.push(Mutation::DropHead { key });
    }

    fn lay_over(&mut self, key: Bytes, head: Option<Arc<Head>>) {
        if let Some(last) = self.last.as_mut().filter(|last| last.key == key) {
            last.head = head.clone();
        }
        self.heads.insert(key, head);
    }

    fn grow(&mut self, key: Bytes, head: &Head, end: u64) {
        if end > head.size {
            self.put_head(key, Head { size: end, ..head.clone() });
        }
    }

    fn clone(&mut self, pg: PgId, source: &'a ObjectId, target: &'a ObjectId) -> Result<(), PlanError> {
        let (source_key, from) = self.existing(pg, source)?;
        let key = checked_key(pg, target)?;
        if key == source_key {
            return Ok(());
        }
        let nid = match self.head(&key)? {
            Some(old) => {
                self.drop_content(&old)?;
                old.nid
            }
            None => self.new_nid(),
        };
        let entries = self.omap_entries(from.omap, &Bytes::new(), None)?;
        let omap = if entries.is_empty() { 0 } else { self.new_nid() };
        self.put_head(key, Head { nid, omap, ..Head::clone(&from) });
        for (key, value) in entries {
            self.put_omap(omap, key, value);
        }
        self.share((from.nid, 0), (nid, 0), from.size.div_ceil(BLOCK_BYTES))?;
        Ok(())
    }

    /// Blocks and omap of an object that goes.
    fn drop_content(&mut self, head: &Head) -> Result<(), PlanError> {
        self.unmap(head.nid, 0, head.size.div_ceil(BLOCK_BYTES))?;
        if head.omap != 0 {
            self.drop_omap(head.omap);
        }
        Ok(())
    }

    fn own_omap(&mut self, key: Bytes, head: &Head) -> u64 {
        if head.omap != 0 {
            return head.omap;
        }
        let omap = self.new_nid();
        self.put_head(key, Head { omap, ..head.clone() });
        omap
    }

    fn put_omap(&mut self, omap: u64, key: Bytes, value: Bytes) {
        if self.reads_omap {
            self.omap.insert((omap, key.clone()), Some(value.clone()));
        }
        self.push(Mutation::PutOmap { omap, key, value });
    }

    fn drop_omap_key(&mut self, omap: u64, key: Bytes) {
        if omap != 0 {
            if self.reads_omap {
                self.omap.insert((omap, key.clone()), None);
            }
            self.push(Mutation::DropOmapKey { omap, key });
        }
    }

    fn drop_omap(&mut self, omap: u64) {
        self.omap.retain(|(number, _), _| *number != omap);
        self.push(Mutation::DropOmap { omap });
    }

    /// Entries from `first` to before `end`, as this transaction sees them.
    fn omap_entries(
        &self,
        omap: u64,
        first: &Bytes,
        end: Option<&Bytes>,
    ) -> Result<BTreeMap<Bytes, Bytes>, PlanError> {
        let stored = self.state.omap_range(omap, Bound::Included(first), OMAP_KEYS_MAX + 1)?;
        let within = |key: &Bytes| end.is_none_or(|end| key < end);
        let mut entries: BTreeMap<Bytes, Bytes> = stored.into_iter().filter(|(key, _)| within(key)).collect();
        limit("the number of omap keys at once", entries.len(), OMAP_KEYS_MAX)?;
        let own = self.omap.range((omap, first.clone())..).take_while(|((number, _), _)| *number == omap);
        for ((_, key), value) in own.filter(|((_, key), _)| within(key)) {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        Ok(entries)
    }
}

/// Bytes that a transaction which frees may set beside: what its caller notes of it.
const NOTE_BYTES_MAX: usize = 4 << 10;

/// Whether a transaction frees space, and beside that does nothing but note it. An OSD writes to a group's log with each change.
fn only_frees(transaction: &Transaction) -> bool {
    let (mut frees, mut noted) = (false, 0);
    for op in &transaction.ops {
        match op {
            Op::Remove(..)
            | Op::Truncate { .. }
            | Op::Zero { .. }
            | Op::RemoveXattr(..)
            | Op::OmapRemoveRange { .. }
            | Op::OmapClear(..)
            | Op::RemoveCollection(_) => frees = true,
            // Trimming a log is a part of every change.
            Op::OmapRemove(..) | Op::Touch(..) => {}
            Op::OmapSet(_, _, entries) => {
                noted += entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            }
            Op::SetXattrs(_, _, xattrs) => {
                noted += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            }
            _ => return false,
        }
    }
    let only_keys = || transaction.ops.iter().all(|op| matches!(op, Op::OmapRemove(..)));
    (frees && noted <= NOTE_BYTES_MAX) || only_keys()
}

/// Whether an operation reads, writes or frees blocks.
fn has_blocks(op: &Op) -> bool {
    match op {
        Op::Write { .. }
        | Op::Zero { .. }
        | Op::Truncate { .. }
        | Op::Remove(..)
        | Op::CloneRange { .. }
        | Op::Clone { .. } => true,
        Op::CreateCollection(_)
        | Op::RemoveCollection(_)
        | Op::Touch(..)
        | Op::Rename { .. }
        | Op::SetXattrs(..)
        | Op::RemoveXattr(..)
        | Op::OmapSet(..)
        | Op::OmapRemove(..)
        | Op::OmapRemoveRange { .. }
        | Op::OmapClear(..)
        | Op::OmapSetHeader(..) => false,
    }
}

/// Whether an operation looks at omap entries.
fn reads_omap(op: &Op) -> bool {
    matches!(op, Op::OmapRemoveRange { .. } | Op::Clone { .. })
}

/// A limit of the store.
fn limit(what: &'static str, given: usize, most: usize) -> Result<(), TransactionError> {
    if given <= most {
        return Ok(());
    }
    Err(TransactionError::TooLarge { what, given: given as u64, limit: most as u64 })
}

fn end_of(offset: u64, len: u64) -> Result<u64, TransactionError> {
    let end = offset.saturating_add(len);
    limit("an object's size", end as usize, OBJECT_BYTES_MAX as usize)?;
    Ok(end)
}

fn check_name(object: &ObjectId) -> Result<(), TransactionError> {
    limit("an object's name", object.namespace.len() + object.key.len() + object.name.len(), NAME_BYTES_MAX)
}

fn checked_key(pg: PgId, object: &ObjectId) -> Result<Bytes, TransactionError> {
    check_name(object)?;
    Ok(object_key(pg, object))
}

/// Bytes in a record, at most.
fn encoded_bytes(mutation: &Mutation) -> usize {
    match mutation {
        Mutation::PutHead { key, head } => 96 + key.len() + head_bytes(head),
        Mutation::DropHead { key } | Mutation::DropOmapKey { key, .. } => 16 + key.len(),
        Mutation::Map { crcs, payload, .. } => 32 + 4 * crcs.len() + payload.as_ref().map_or(0, Bytes::len),
        Mutation::PutOmap { key, value, .. } => 24 + key.len() + value.len(),
        _ => 64,
    }
}

/// Bytes it may add to the index.
fn entry_bytes(mutation: &Mutation) -> u64 {
    match mutation {
        Mutation::PutHead { key, head } => (64 + key.len() + head_bytes(head)) as u64,
        Mutation::Map { crcs, .. } => 64 + 16 * crcs.len() as u64,
        Mutation::Share { count, .. } => 64 + 24 * count,
        Mutation::PutOmap { key, value, .. } => (16 + key.len() + value.len()) as u64,
        Mutation::PutCollection(_) => 64,
        _ => 0,
    }
}

fn head_bytes(head: &Head) -> usize {
    head.omap_header.len()
        + head.xattrs.iter().map(|(name, value)| 8 + name.len() + value.len()).sum::<usize>()
}
