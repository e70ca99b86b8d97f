//! What a store should hold: the plainest implementation of every operation, when it must be refused, and a
//! generator of transactions that are valid in a given state.
#![allow(dead_code, reason = "each test uses its part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_store::device::sim::SplitMix64;
use cairn_store::limits::{NAME_BYTES_MAX, OBJECT_BYTES_MAX};
use cairn_store::{Op, Transaction, TransactionError};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

const BLOCK: u64 = 4096;
/// The object whose attribute counts the transactions: which prefix of the history a store holds.
pub const MARKER: &str = "marker";
const MARKER_ATTRIBUTE: &str = "seq";

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Object {
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<String, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
    pub header: Bytes,
}

/// The content of a whole store. Cheap to clone: unchanged objects are shared.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct State {
    pub collections: BTreeMap<u32, BTreeMap<String, Arc<Object>>>,
}

pub fn pg(seed: u32) -> PgId {
    PgId { pool: PoolId(1), seed }
}

pub fn object(name: &str) -> ObjectId {
    ObjectId {
        pool: PoolId(1),
        hash: crc32fast::hash(name.as_bytes()),
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

impl State {
    /// The number of transactions whose effect this is, as the marker says.
    pub fn sequence(&self) -> Result<usize, String> {
        let Some(marker) = self.collections.get(&0).and_then(|objects| objects.get(MARKER)) else {
            return if self.collections.is_empty() { Ok(0) } else { Err("there is no marker".into()) };
        };
        let text = marker.xattrs.get(MARKER_ATTRIBUTE).ok_or("the marker has no sequence")?;
        std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| "bad sequence".into())
    }

    pub fn get(&self, pg: PgId, object: &ObjectId) -> Option<&Object> {
        self.collections.get(&pg.seed)?.get(&object.name).map(|object| &**object)
    }

    /// Objects of a collection in the order of listing: by their hash with its bits reversed, then by name.
    pub fn list(&self, pg: PgId, after: Option<&ObjectId>, limit: usize) -> Vec<ObjectId> {
        let order = |id: &ObjectId| (id.hash.reverse_bits(), id.name.clone());
        let names = self.collections.get(&pg.seed).into_iter().flat_map(BTreeMap::keys);
        let mut ids: Vec<ObjectId> = names.map(|name| object(name)).collect();
        ids.retain(|id| after.is_none_or(|after| order(id) > order(after)));
        ids.sort_unstable_by_key(order);
        ids.truncate(limit);
        ids
    }

    /// Where another state differs from this one, in words.
    pub fn difference(&self, found: &State) -> String {
        for (pg, objects) in &self.collections {
            let Some(found) = found.collections.get(pg) else {
                return format!("collection {pg} is missing");
            };
            for (name, object) in objects {
                let Some(found) = found.get(name) else { return format!("{pg}/{name} is missing") };
                if found.data.len() != object.data.len() {
                    let (found, expected) = (found.data.len(), object.data.len());
                    return format!("{pg}/{name} has {found} bytes instead of {expected}");
                }
                if let Some(at) = (0..found.data.len()).find(|at| found.data[*at] != object.data[*at]) {
                    return format!("{pg}/{name} differs at byte {at} of {}", object.data.len());
                }
                if found != object {
                    return format!("{pg}/{name} has other attributes or keys");
                }
            }
        }
        "there is more than there should be".into()
    }

    pub fn apply(&mut self, transaction: &Transaction) {
        transaction.ops.iter().for_each(|op| self.apply_op(op));
    }

    fn edit(&mut self, pg: &PgId, object: &ObjectId) -> &mut Object {
        let objects = self.collections.get_mut(&pg.seed).expect("the collection exists");
        Arc::make_mut(objects.entry(object.name.clone()).or_default())
    }

    fn objects(&mut self, pg: &PgId) -> &mut BTreeMap<String, Arc<Object>> {
        self.collections.get_mut(&pg.seed).expect("the collection exists")
    }

    fn apply_op(&mut self, op: &Op) {
        match op {
            Op::CreateCollection(pg) => {
                self.collections.insert(pg.seed, BTreeMap::new());
            }
            Op::RemoveCollection(pg) => {
                self.collections.remove(&pg.seed);
            }
            Op::Touch(pg, object) => {
                self.edit(pg, object);
            }
            Op::Write { pg, object, offset, data, .. } => put(&mut self.edit(pg, object).data, *offset, data),
            Op::Zero { pg, object, offset, len } => {
                put(&mut self.edit(pg, object).data, *offset, &vec![0; *len as usize]);
            }
            Op::Truncate { pg, object, size } => self.edit(pg, object).data.resize(*size as usize, 0),
            Op::Remove(pg, object) => {
                self.objects(pg).remove(&object.name);
            }
            Op::CloneRange { pg, source, target, source_offset, len, target_offset } => {
                let data = &self.objects(pg)[&source.name].data;
                let (from, len) = ((*source_offset as usize).min(data.len()), *len as usize);
                let mut bytes = data[from..data.len().min(from + len)].to_vec();
                // Beyond its end the source reads as zeros.
                bytes.resize(len, 0);
                put(&mut self.edit(pg, target).data, *target_offset, &bytes);
            }
            Op::Clone { pg, source, target } => {
                let copy = Arc::clone(&self.objects(pg)[&source.name]);
                self.objects(pg).insert(target.name.clone(), copy);
            }
            Op::Rename { pg, object, target_pg, target } => {
                let moved = self.objects(pg).remove(&object.name).expect("the object exists");
                self.objects(target_pg).insert(target.name.clone(), moved);
            }
            Op::SetXattrs(pg, object, xattrs) => self.edit(pg, object).xattrs.extend(xattrs.iter().cloned()),
            Op::RemoveXattr(pg, object, name) => {
                self.edit(pg, object).xattrs.remove(name);
            }
            Op::OmapSet(pg, object, entries) => self.edit(pg, object).omap.extend(entries.iter().cloned()),
            Op::OmapRemove(pg, object, keys) => {
                let omap = &mut self.edit(pg, object).omap;
                keys.iter().for_each(|key| drop(omap.remove(key)));
            }
            Op::OmapRemoveRange { pg, object, first, end } => {
                self.edit(pg, object).omap.retain(|key, _| key < first || key >= end);
            }
            Op::OmapClear(pg, object) => {
                let object = self.edit(pg, object);
                object.omap.clear();
                object.header = Bytes::new();
            }
            Op::OmapSetHeader(pg, object, header) => self.edit(pg, object).header = header.clone(),
        }
    }
}

/// Says which transaction this is, for [`State::sequence`].
pub fn marker(sequence: usize) -> Op {
    let marker = (MARKER_ATTRIBUTE.to_owned(), Bytes::from(sequence.to_string()));
    Op::SetXattrs(pg(0), object(MARKER), vec![marker])
}

fn put(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[offset as usize..end].copy_from_slice(bytes);
}

/// Why a store must refuse a transaction, whatever space it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NoCollection,
    CollectionExists,
    CollectionNotEmpty,
    NoObject,
    ObjectExists,
    TooLarge,
    Checksums,
    ChecksumMismatch,
}

impl Refusal {
    pub fn of(error: &TransactionError) -> Option<Self> {
        Some(match error {
            TransactionError::NoCollection(_) => Refusal::NoCollection,
            TransactionError::CollectionExists(_) => Refusal::CollectionExists,
            TransactionError::CollectionNotEmpty(_) => Refusal::CollectionNotEmpty,
            TransactionError::NoObject { .. } => Refusal::NoObject,
            TransactionError::ObjectExists { .. } => Refusal::ObjectExists,
            TransactionError::TooLarge { .. } => Refusal::TooLarge,
            TransactionError::Checksums { .. } => Refusal::Checksums,
            TransactionError::ChecksumMismatch { .. } => Refusal::ChecksumMismatch,
            _ => return None,
        })
    }
}

impl State {
    /// The state after a transaction, or why there is none.
    pub fn after(&self, transaction: &Transaction) -> Result<State, Refusal> {
        let mut state = self.clone();
        for op in &transaction.ops {
            state.check(op)?;
            state.apply_op(op);
        }
        Ok(state)
    }

    fn check(&self, op: &Op) -> Result<(), Refusal> {
        let collection = |pg: &PgId| self.collections.get(&pg.seed).ok_or(Refusal::NoCollection);
        let named = |object: &ObjectId| {
            let bytes = object.namespace.len() + object.key.len() + object.name.len();
            if bytes > NAME_BYTES_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
        };
        let existing = |pg: &PgId, object: &ObjectId| {
            let objects = collection(pg)?;
            named(object)?;
            objects.get(&object.name).map(|_| ()).ok_or(Refusal::NoObject)
        };
        let open = |pg: &PgId, object: &ObjectId| collection(pg).and_then(|_| named(object));
        let within = |end: u64| if end > OBJECT_BYTES_MAX { Err(Refusal::TooLarge) } else { Ok(()) };
        match op {
            Op::CreateCollection(pg) => match collection(pg) {
                Ok(_) => Err(Refusal::CollectionExists),
                Err(_) => Ok(()),
            },
            Op::RemoveCollection(pg) => match collection(pg)?.is_empty() {
                true => Ok(()),
                false => Err(Refusal::CollectionNotEmpty),
            },
            Op::Touch(pg, object) | Op::SetXattrs(pg, object, _) | Op::OmapSet(pg, object, _) => {
                open(pg, object)
            }
            Op::OmapSetHeader(pg, object, _) => open(pg, object),
            Op::Write { pg, object, offset, data, checksums } => {
                open(pg, object)?;
                within(offset.saturating_add(data.len() as u64))?;
                let Some(given) = checksums else { return Ok(()) };
                let blocks = data.chunks(BLOCK as usize);
                let is_whole = offset.is_multiple_of(BLOCK) && (data.len() as u64).is_multiple_of(BLOCK);
                if !is_whole || given.len() != blocks.len() {
                    return Err(Refusal::Checksums);
                }
                let is_right = blocks.zip(given).all(|(block, given)| crc32fast::hash(block) == *given);
                if is_right { Ok(()) } else { Err(Refusal::ChecksumMismatch) }
            }
            Op::Zero { pg, object, offset, len } => {
                open(pg, object)?;
                within(offset.saturating_add(*len))
            }
            Op::Truncate { pg, object, size } => {
                open(pg, object)?;
                within(*size)
            }
            Op::CloneRange { pg, source, target, source_offset, len, target_offset } => {
                existing(pg, source)?;
                open(pg, target)?;
                within(source_offset.saturating_add(*len))?;
                within(target_offset.saturating_add(*len))
            }
            Op::Clone { pg, source, target } => {
                existing(pg, source)?;
                named(target)
            }
            Op::Rename { pg, object, target_pg, target } => {
                existing(pg, object)?;
                let objects = collection(target_pg)?;
                named(target)?;
                if objects.contains_key(&target.name) { Err(Refusal::ObjectExists) } else { Ok(()) }
            }
            Op::Remove(pg, object)
            | Op::RemoveXattr(pg, object, _)
            | Op::OmapRemove(pg, object, _)
            | Op::OmapRemoveRange { pg, object, .. }
            | Op::OmapClear(pg, object) => existing(pg, object),
        }
    }
}

/// What generated histories are like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Objects grow to at most this.
    pub object_bytes: u64,
    /// Names of objects in each collection.
    pub objects: u64,
    /// Most blocks of one large write, besides 16.
    pub large_blocks: u64,
    /// Ranges are also cloned within an object and from beyond its end.
    pub odd_clones: bool,
    /// About the most that a transaction puts into the log: a store refuses one of more than a quarter of its own.
    pub logged_bytes: u64,
}

/// Small enough that a history has every power cut it can have.
pub const SMALL: Shape = Shape {
    object_bytes: 160 << 10,
    objects: 4,
    large_blocks: 16,
    odd_clones: false,
    // Of 128 KiB, less what describes it.
    logged_bytes: 112 << 10,
};

/// At most what an operation puts into the log, without what describes it: what is no whole number of blocks goes there, as
/// do few blocks, and blocks that are changed in part go there whole.
fn logged_bytes(op: &Op) -> u64 {
    let entries = |lens: &mut dyn Iterator<Item = usize>| lens.sum::<usize>() as u64;
    match op {
        Op::Write { data, .. }
            if (data.len() as u64).is_multiple_of(BLOCK) && data.len() as u64 >= 16 * BLOCK =>
        {
            0
        }
        Op::Write { data, .. } => data.len() as u64 + 2 * BLOCK,
        Op::CloneRange { source_offset, len, target_offset, .. }
            if [source_offset, len, target_offset].iter().all(|at| at.is_multiple_of(BLOCK)) =>
        {
            0
        }
        Op::CloneRange { len, .. } => len + 2 * BLOCK,
        Op::Zero { .. } | Op::Truncate { .. } => 2 * BLOCK,
        Op::SetXattrs(_, _, xattrs) => {
            entries(&mut xattrs.iter().map(|(name, value)| name.len() + value.len()))
        }
        Op::OmapSet(_, _, omap) => entries(&mut omap.iter().map(|(key, value)| key.len() + value.len())),
        Op::OmapSetHeader(_, _, header) => header.len() as u64,
        _ => 0,
    }
}

/// Draws transactions.
#[derive(Debug)]
pub struct Generator {
    rng: SplitMix64,
    shape: Shape,
}

impl Generator {
    pub fn new(seed: u64, shape: Shape) -> Self {
        Generator { rng: SplitMix64::new(seed), shape }
    }

    /// The transaction that makes history number `sequence` (from 1), valid in `state`.
    pub fn next(&mut self, state: &State, sequence: usize) -> Transaction {
        let mut ops = Vec::new();
        let mut room = self.shape.logged_bytes;
        let mut state = state.clone();
        if sequence == 1 {
            ops.extend([Op::CreateCollection(pg(0)), Op::CreateCollection(pg(1))]);
        }
        for _ in 0..if sequence == 1 { 0 } else { 1 + self.rng.below(4) } {
            let op = self.op(&state);
            let Some(left) = room.checked_sub(logged_bytes(&op)) else { continue };
            room = left;
            state.apply_op(&op);
            ops.push(op);
        }
        ops.push(marker(sequence));
        Transaction { ops }
    }

    /// One operation that is valid in `state`, which has collections 0 and 1.
    pub fn op(&mut self, state: &State) -> Op {
        let at = self.rng.below(2) as u32;
        let target = object(&format!("object-{}", self.rng.below(self.shape.objects)));
        let existing = state.collections[&at]
            .keys()
            .filter(|name| *name != MARKER)
            .nth(self.rng.below(self.shape.objects) as usize);
        let pg_id = pg(at);
        match (self.rng.below(20), existing) {
            (0, Some(name)) => Op::Remove(pg_id, object(name)),
            (1, Some(name)) => Op::Truncate { pg: pg_id, object: object(name), size: self.position() },
            (2, Some(name)) => {
                let object = object(name);
                let offset = self.position();
                Op::Zero {
                    pg: pg_id,
                    object,
                    offset,
                    len: 1 + self.rng.below(self.shape.object_bytes - offset),
                }
            }
            (3 | 4, Some(name)) => self.clone_range(state, at, name, target),
            (5, Some(name)) if *name != target.name => Op::Clone { pg: pg_id, source: object(name), target },
            (6, Some(name)) if !state.collections[&(1 - at)].contains_key(&target.name) => {
                Op::Rename { pg: pg_id, object: object(name), target_pg: pg(1 - at), target }
            }
            (7, _) => {
                let count = 1 + self.rng.below(3);
                Op::SetXattrs(pg_id, target, (0..count).map(|_| (self.name(), self.value())).collect())
            }
            (8, Some(name)) => Op::RemoveXattr(pg_id, object(name), self.name()),
            (9 | 10, _) => {
                let count = 1 + self.rng.below(6);
                Op::OmapSet(pg_id, target, (0..count).map(|_| (self.name().into(), self.value())).collect())
            }
            (11, Some(name)) => {
                Op::OmapRemove(pg_id, object(name), vec![self.name().into(), self.name().into()])
            }
            (12, Some(name)) => {
                let (mut first, mut end) = (self.name(), self.name());
                if first > end {
                    std::mem::swap(&mut first, &mut end);
                }
                Op::OmapRemoveRange { pg: pg_id, object: object(name), first: first.into(), end: end.into() }
            }
            (13, Some(name)) if self.rng.one_in(3) => Op::OmapClear(pg_id, object(name)),
            (13, _) => Op::OmapSetHeader(pg_id, target, self.value()),
            (14, _) => Op::Touch(pg_id, target),
            _ => self.write(pg_id, target),
        }
    }

    fn write(&mut self, pg: PgId, object: ObjectId) -> Op {
        let (offset, len) = match self.rng.below(6) {
            // Whole blocks, few: the path of a guest's random overwrite.
            0..3 => {
                let blocks = 1 + self.rng.below(3);
                (self.rng.below(self.shape.object_bytes / BLOCK - blocks) * BLOCK, blocks * BLOCK)
            }
            // Many blocks: data goes to fresh extents before its record.
            3 => {
                let blocks = 16 + self.rng.below(self.shape.large_blocks);
                (self.rng.below(self.shape.object_bytes / BLOCK - blocks) * BLOCK, blocks * BLOCK)
            }
            // Anything.
            _ => {
                let offset = self.position();
                (offset, 1 + self.rng.below((self.shape.object_bytes - offset).min(9000)))
            }
        };
        let mut data = vec![0; len as usize];
        data.chunks_mut(8)
            .for_each(|word| word.copy_from_slice(&self.rng.next_u64().to_le_bytes()[..word.len()]));
        let aligned = offset % BLOCK == 0 && len % BLOCK == 0;
        let checksums = (aligned && self.rng.one_in(2))
            .then(|| data.chunks(BLOCK as usize).map(crc32fast::hash).collect::<Vec<u32>>());
        Op::Write { pg, object, offset, data: data.into(), checksums: checksums.map(Into::into) }
    }

    fn clone_range(&mut self, state: &State, at: u32, source: &str, target: ObjectId) -> Op {
        let size = state.collections[&at][source].data.len() as u64;
        let odd = self.shape.odd_clones;
        if size == 0 || (source == target.name && !odd) {
            return Op::Touch(pg(at), target);
        }
        // As if it were longer than it is.
        let size = if odd && self.rng.one_in(8) { (2 * size).min(self.shape.object_bytes) } else { size };
        let (source_offset, len, target_offset) = if size >= BLOCK && !self.rng.one_in(3) {
            let first = self.rng.below(size / BLOCK);
            let blocks = 1 + self.rng.below(size / BLOCK - first);
            (
                first * BLOCK,
                blocks * BLOCK,
                self.rng.below((self.shape.object_bytes / BLOCK - blocks) + 1) * BLOCK,
            )
        } else {
            let offset = self.rng.below(size);
            let len = 1 + self.rng.below(size - offset);
            (offset, len, self.rng.below(self.shape.object_bytes - len + 1))
        };
        Op::CloneRange { pg: pg(at), source: object(source), target, source_offset, len, target_offset }
    }

    fn position(&mut self) -> u64 {
        self.rng.below(self.shape.object_bytes)
    }

    fn name(&mut self) -> String {
        format!("key-{}", self.rng.below(6))
    }

    fn value(&mut self) -> Bytes {
        let len = self.rng.below(60) as usize;
        (0..len).map(|_| self.rng.next_u64() as u8).collect::<Vec<_>>().into()
    }
}
