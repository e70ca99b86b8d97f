//! What a store should hold: the plainest implementation of every operation, and a generator of
//! transactions that are valid in a given state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, Transaction};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

/// Objects grow to at most this.
const OBJECT_BYTES: u64 = 160 << 10;
const BLOCK: u64 = 4096;
const OBJECTS: u64 = 4;
/// The object whose attribute counts the transactions: which prefix of the history a store holds.
const MARKER: &str = "marker";
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
                let from = *source_offset as usize;
                let bytes = self.objects(pg)[&source.name].data[from..from + *len as usize].to_vec();
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

fn put(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[offset as usize..end].copy_from_slice(bytes);
}

/// Draws transactions.
#[derive(Debug)]
pub struct Generator {
    rng: SplitMix64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Generator { rng: SplitMix64::new(seed) }
    }

    /// The transaction that makes history number `sequence` (from 1), valid in `state`.
    pub fn next(&mut self, state: &State, sequence: usize) -> Transaction {
        let mut ops = Vec::new();
        let mut state = state.clone();
        if sequence == 1 {
            ops.extend([Op::CreateCollection(pg(0)), Op::CreateCollection(pg(1))]);
        }
        for _ in 0..if sequence == 1 { 0 } else { 1 + self.rng.below(4) } {
            let op = self.op(&state);
            state.apply_op(&op);
            ops.push(op);
        }
        let marker = (MARKER_ATTRIBUTE.to_owned(), Bytes::from(sequence.to_string()));
        ops.push(Op::SetXattrs(pg(0), object(MARKER), vec![marker]));
        Transaction { ops }
    }

    fn op(&mut self, state: &State) -> Op {
        let at = self.rng.below(2) as u32;
        let target = object(&format!("object-{}", self.rng.below(OBJECTS)));
        let existing =
            state.collections[&at].keys().filter(|name| *name != MARKER).nth(self.rng.below(4) as usize);
        let pg_id = pg(at);
        match (self.rng.below(20), existing) {
            (0, Some(name)) => Op::Remove(pg_id, object(name)),
            (1, Some(name)) => Op::Truncate { pg: pg_id, object: object(name), size: self.position() },
            (2, Some(name)) => {
                let object = object(name);
                let offset = self.position();
                Op::Zero { pg: pg_id, object, offset, len: 1 + self.rng.below(OBJECT_BYTES - offset) }
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
                (self.rng.below(OBJECT_BYTES / BLOCK - blocks) * BLOCK, blocks * BLOCK)
            }
            // Many blocks: data goes to fresh extents before its record.
            3 => {
                let blocks = 16 + self.rng.below(16);
                (self.rng.below(OBJECT_BYTES / BLOCK - blocks) * BLOCK, blocks * BLOCK)
            }
            // Anything.
            _ => {
                let offset = self.position();
                (offset, 1 + self.rng.below((OBJECT_BYTES - offset).min(9000)))
            }
        };
        let mut data = vec![0; len as usize];
        data.chunks_mut(8)
            .for_each(|word| word.copy_from_slice(&self.rng.next_u64().to_le_bytes()[..word.len()]));
        let aligned = offset % BLOCK == 0 && len % BLOCK == 0;
        let checksums = (aligned && self.rng.one_in(2))
            .then(|| data.chunks(BLOCK as usize).map(crc32fast::hash).collect::<Vec<u32>>());
        Op::Write { pg, object, offset, data: data.into(), checksums }
    }

    fn clone_range(&mut self, state: &State, at: u32, source: &str, target: ObjectId) -> Op {
        let size = state.collections[&at][source].data.len() as u64;
        if size == 0 || source == target.name {
            return Op::Touch(pg(at), target);
        }
        let (source_offset, len, target_offset) = if size >= BLOCK && !self.rng.one_in(3) {
            let first = self.rng.below(size / BLOCK);
            let blocks = 1 + self.rng.below(size / BLOCK - first);
            (first * BLOCK, blocks * BLOCK, self.rng.below((OBJECT_BYTES / BLOCK - blocks) + 1) * BLOCK)
        } else {
            let offset = self.rng.below(size);
            let len = 1 + self.rng.below(size - offset);
            (offset, len, self.rng.below(OBJECT_BYTES - len + 1))
        };
        Op::CloneRange { pg: pg(at), source: object(source), target, source_offset, len, target_offset }
    }

    fn position(&mut self) -> u64 {
        self.rng.below(OBJECT_BYTES)
    }

    fn name(&mut self) -> String {
        format!("key-{}", self.rng.below(6))
    }

    fn value(&mut self) -> Bytes {
        let len = self.rng.below(60) as usize;
        (0..len).map(|_| self.rng.next_u64() as u8).collect::<Vec<_>>().into()
    }
}
