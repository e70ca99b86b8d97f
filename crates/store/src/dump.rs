//! What is in a store that nobody has open, as plain data: for people, and as JSON.
//!
//! Read-only, and from the same decoders as the store's own; what changed since the last checkpoint is in
//! it. Numbers are the format's (`docs/format/store.md`); bytes that need not be text are escaped as in a
//! byte string of Rust.

use crate::alloc::Run;
use crate::device::BlockingDevice;
use crate::engine::OpenOptions;
use crate::engine::log::Log;
use crate::engine::open::{hex, load, take_transaction};
use crate::error::{Damage, ReadError, StoreError};
use crate::format::codec::{Malformed, Reader};
use crate::format::mutation::Mutation;
use crate::format::superblock::Superblock;
use crate::fsck::reading_only;
use crate::key::{object_key, object_of, pg_key};
use crate::limits::{BLOCK_BYTES, SHARD_BLOCKS};
use crate::state::State;
use bytes::Bytes;
use cairn_types::{ObjectId, PgId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Objects and omap entries looked up at a time.
const PAGE: usize = 1024;

/// A store to be looked at.
#[derive(Debug)]
pub struct Dump {
    device: Arc<dyn BlockingDevice>,
    superblock: Superblock,
    state: State,
}

/// The superblock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields of `Superblock`")]
pub struct SuperblockDump {
    pub store: String,
    pub cluster: String,
    pub osd: i32,
    pub compat_features: u64,
    pub ro_compat_features: u64,
    pub incompat_features: u64,
    pub device_bytes: u64,
    pub log_unit_bytes: u32,
    pub log_offset: u64,
    pub log_bytes: u64,
    pub index_offset: u64,
    pub index_bytes: u64,
    pub data_offset: u64,
    pub data_blocks: u64,
    /// Device offsets of its copies.
    pub copies: [u64; 2],
}

/// The last checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[expect(missing_docs, reason = "the fields of `Checkpoint`")]
pub struct CheckpointDump {
    pub next_seq: u64,
    pub log_position: u64,
    pub next_nid: u64,
    pub objects: u64,
    pub index_bytes: u64,
}

/// A record of the log that counts and is not in the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RecordDump {
    /// Byte position on the device.
    pub device_offset: u64,
    /// First transaction in it.
    pub seq: u64,
    /// How many.
    pub count: u32,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// What each transaction does, a line a step.
    pub transactions: Vec<Vec<String>>,
}

/// A collection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CollectionDump {
    /// Placement group.
    pub pg: String,
    /// Objects in it.
    pub objects: u64,
}

/// An object in a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ObjectSummary {
    /// Its name, with pool, hash, namespace and snapshot.
    pub object: String,
    /// Its number.
    pub nid: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 4 KiB it has; the rest are holes.
    pub blocks: u64,
    /// Runs of neighbours on the device that they make up.
    pub extents: u64,
}

/// Neighbouring blocks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ExtentDump {
    /// First byte of the object.
    pub offset: u64,
    /// First byte of the device.
    pub device_offset: u64,
    /// How many blocks.
    pub blocks: u64,
    /// Whether others may use them too.
    pub shared: bool,
    /// How many users the first one has.
    pub refs: u32,
    /// How many of them wait in the log to be put in place.
    pub in_log: u64,
    /// CRC-32 of each, hexadecimal.
    pub crcs: Vec<String>,
}

/// All of an object but its data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ObjectDump {
    /// As in a listing.
    #[serde(flatten)]
    pub summary: ObjectSummary,
    /// Number of its omap; 0 without one.
    pub omap: u64,
    /// Header of its omap.
    pub omap_header: String,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, String>,
    /// Where its data is.
    pub extents: Vec<ExtentDump>,
    /// Keys of its omap, with the bytes of their values.
    pub omap_keys: Vec<(String, usize)>,
}

/// Where there is room.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FreeSpaceDump {
    /// Blocks of the data region.
    pub blocks: u64,
    /// Those that nothing uses.
    pub free_blocks: u64,
    /// Those of them that the checkpoint still has as used: free after the next one.
    pub waiting_blocks: u64,
    /// Runs of free neighbours.
    pub runs: u64,
    /// Blocks of the longest.
    pub longest_run_blocks: u64,
    /// By the power of two that a run's length in blocks is at least: (that length, runs, blocks).
    pub histogram: Vec<(u64, u64, u64)>,
    /// Share of the free blocks that are in no run of 1 MiB or more: 0 is one piece, 1 is dust.
    pub fragmentation: f64,
}

impl Dump {
    /// Looks at the store on a device that nobody has open. Nothing is written.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(device: &Arc<dyn BlockingDevice>) -> Result<Self, StoreError> {
        let superblock = Superblock::read(&**device)?;
        let device = reading_only(device);
        let (state, _, _) = load(&device, &superblock, &OpenOptions::default())?;
        Ok(Dump { device, superblock, state })
    }

    /// The superblock.
    pub fn superblock(&self) -> SuperblockDump {
        let superblock = &self.superblock;
        SuperblockDump {
            store: hex(&superblock.store),
            cluster: hex(&superblock.cluster),
            osd: superblock.osd,
            compat_features: superblock.features.compat,
            ro_compat_features: superblock.features.ro_compat,
            incompat_features: superblock.features.incompat,
            device_bytes: superblock.device_bytes,
            log_unit_bytes: superblock.log_unit_bytes,
            log_offset: superblock.log_offset,
            log_bytes: superblock.log_bytes,
            index_offset: superblock.index_offset,
            index_bytes: superblock.index_bytes,
            data_offset: superblock.data_offset,
            data_blocks: superblock.data_blocks,
            copies: superblock.places(),
        }
    }

    /// The last checkpoint.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn checkpoint(&self) -> Result<CheckpointDump, StoreError> {
        let (checkpoint, _) = self.state.index().load(|_, _| true)?;
        Ok(CheckpointDump {
            next_seq: checkpoint.next_seq,
            log_position: checkpoint.log_position,
            next_nid: checkpoint.next_nid,
            objects: checkpoint.objects,
            index_bytes: checkpoint.index_bytes,
        })
    }

    /// Hands on the records since the checkpoint, in order.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn each_record(&self, mut visit: impl FnMut(RecordDump)) -> Result<(), StoreError> {
        let (checkpoint, _) = self.state.index().load(|_, _| true)?;
        let mut log = Log::new(&self.superblock, checkpoint.log_position % self.superblock.log_bytes);
        let mut next_seq = checkpoint.next_seq;
        let mut exact = false;
        while let Some((header, device_offset, body)) = log.read_next(&*self.device, next_seq, exact)? {
            exact = true;
            let body_bytes = body.len() as u64;
            let transactions = steps(body, header.count).map_err(|Malformed| Damage::Record {
                seq: header.seq,
                offset: device_offset,
                why: "it does not decode",
            })?;
            let (seq, count) = (header.seq, header.count);
            visit(RecordDump { device_offset, seq, count, body_bytes, transactions });
            next_seq = header.seq + u64::from(header.count);
        }
        Ok(())
    }

    /// Collections, in order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn collections(&self) -> Result<Vec<CollectionDump>, StoreError> {
        let count = |pg: &PgId| {
            let mut objects = 0;
            each_key(&self.state, *pg, |_| {
                objects += 1;
                Ok(())
            })?;
            Ok(CollectionDump { pg: pg.to_string(), objects })
        };
        self.state.collections().iter().map(count).collect()
    }

    /// Hands on the objects of a collection, in the order of their keys.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn each_object(&mut self, pg: PgId, mut visit: impl FnMut(ObjectSummary)) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        each_key(&self.state, pg, |key| {
            keys.push(key.clone());
            Ok(())
        })?;
        for key in &keys {
            let (_, object) =
                object_of(key).ok_or_else(|| Damage::Entry { table: "heads", key: format!("{key:02x?}") })?;
            let Some(head) = self.state.head(key)? else { continue };
            visit(summary(&object, head.nid, head.size, &self.extents(head.nid)?));
        }
        Ok(())
    }

    /// Objects whose name is `name`, or that are printed as `name` in a listing: one name may be in several
    /// groups, pools, namespaces and snapshots.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn find(&self, name: &str) -> Result<Vec<(PgId, ObjectId)>, StoreError> {
        let mut found = Vec::new();
        for &pg in self.state.collections() {
            each_key(&self.state, pg, |key| {
                let object = object_of(key).map(|(_, object)| object);
                found
                    .extend(object.filter(|it| it.name == name || it.to_string() == name).map(|it| (pg, it)));
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// All of an object but its data.
    ///
    /// # Errors
    /// [`ReadError::NoObject`], or when the index cannot be read.
    pub fn object(&mut self, pg: PgId, object: &ObjectId) -> Result<ObjectDump, ReadError> {
        let head = self.state.head(&object_key(pg, object))?;
        let head = head.ok_or_else(|| ReadError::NoObject { pg, object: Box::new(object.clone()) })?;
        let extents = self.extents(head.nid)?;
        let mut omap_keys = Vec::new();
        let mut last: Option<Bytes> = None;
        loop {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let entries = self.state.omap_range(head.omap, from, PAGE)?;
            let Some((key, _)) = entries.last() else { break };
            last = Some(key.clone());
            omap_keys.extend(entries.iter().map(|(key, value)| (escape(key), value.len())));
        }
        Ok(ObjectDump {
            summary: summary(object, head.nid, head.size, &extents),
            omap: head.omap,
            omap_header: escape(&head.omap_header),
            xattrs: head.xattrs.iter().map(|(name, value)| (name.clone(), escape(value))).collect(),
            extents,
            omap_keys,
        })
    }

    fn extents(&mut self, nid: u64) -> Result<Vec<ExtentDump>, StoreError> {
        let mut extents: Vec<ExtentDump> = Vec::new();
        for number in self.state.shards_of(nid)? {
            let Some(shard) = self.state.shard(nid, number)? else { continue };
            for (place, slot) in shard.slots.iter().enumerate().filter(|(_, slot)| !slot.is_hole()) {
                let offset = (u64::from(number) * SHARD_BLOCKS as u64 + place as u64) * BLOCK_BYTES;
                let device_offset = slot.unit.saturating_mul(BLOCK_BYTES);
                let refs = if slot.shared { self.state.refs(slot.unit)? } else { 1 };
                let in_log = u64::from(self.state.pending.get(slot.unit).is_some());
                let crc = format!("{:08x}", slot.crc);
                match extents.last_mut() {
                    Some(last)
                        if last.offset + last.blocks * BLOCK_BYTES == offset
                            && last.device_offset + last.blocks * BLOCK_BYTES == device_offset
                            && (last.shared, last.refs) == (slot.shared, refs) =>
                    {
                        last.blocks += 1;
                        last.in_log += in_log;
                        last.crcs.push(crc);
                    }
                    _ => extents.push(ExtentDump {
                        offset,
                        device_offset,
                        blocks: 1,
                        shared: slot.shared,
                        refs,
                        in_log,
                        crcs: vec![crc],
                    }),
                }
            }
        }
        Ok(extents)
    }

    /// Where there is room.
    pub fn free_space(&self) -> FreeSpaceDump {
        const WHOLE_BLOCKS: u64 = SHARD_BLOCKS as u64;
        let alloc = &self.state.alloc;
        let mut histogram: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let (mut runs, mut longest_run_blocks, mut in_pieces) = (0, 0, 0);
        alloc.each_unused_run(|Run { count, .. }| {
            let class = histogram.entry(1 << count.ilog2()).or_default();
            *class = (class.0 + 1, class.1 + count);
            runs += 1;
            longest_run_blocks = count.max(longest_run_blocks);
            in_pieces += if count < WHOLE_BLOCKS { count } else { 0 };
        });
        let free_blocks = alloc.blocks() - alloc.used_blocks();
        FreeSpaceDump {
            blocks: alloc.blocks(),
            free_blocks,
            waiting_blocks: alloc.waiting_blocks(),
            runs,
            longest_run_blocks,
            histogram: histogram.into_iter().map(|(len, (runs, blocks))| (len, runs, blocks)).collect(),
            fragmentation: if free_blocks == 0 { 0.0 } else { in_pieces as f64 / free_blocks as f64 },
        }
    }
}

fn each_key(
    state: &State,
    pg: PgId,
    mut visit: impl FnMut(&Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<Bytes> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = state.head_keys(&pg_key(pg), from, PAGE)?;
        keys.iter().try_for_each(&mut visit)?;
        match keys.last() {
            Some(last) => after = Some(last.clone()),
            None => return Ok(()),
        }
    }
}

fn summary(object: &ObjectId, nid: u64, size: u64, extents: &[ExtentDump]) -> ObjectSummary {
    let blocks = extents.iter().map(|extent| extent.blocks).sum();
    ObjectSummary { object: object.to_string(), nid, size, blocks, extents: extents.len() as u64 }
}

fn steps(body: Bytes, count: u32) -> Result<Vec<Vec<String>>, Malformed> {
    let mut reader = Reader::new(body);
    let mut transactions = Vec::new();
    for _ in 0..count {
        let mut transaction = Reader::new(take_transaction(&mut reader)?);
        let mut steps = Vec::new();
        while transaction.left() > 0 {
            steps.push(step(&Mutation::decode(&mut transaction)?));
        }
        transactions.push(steps);
    }
    Ok(transactions)
}

fn step(mutation: &Mutation) -> String {
    let name = |key: &Bytes| match object_of(key) {
        Some((pg, object)) => format!("{object} of {pg}"),
        None => escape(key),
    };
    match mutation {
        Mutation::PutCollection(pg) => format!("make collection {pg}"),
        Mutation::DropCollection(pg) => format!("drop collection {pg}"),
        Mutation::PutHead { key, head } => format!(
            "put {}: number {}, {} bytes, {} xattrs, omap {}",
            name(key),
            head.nid,
            head.size,
            head.xattrs.len(),
            head.omap
        ),
        Mutation::DropHead { key } => format!("drop {}", name(key)),
        Mutation::Map { nid, block, unit, crcs, payload } => format!(
            "map {nid}: blocks {block}+{} to device offset {}{}",
            crcs.len(),
            unit.saturating_mul(BLOCK_BYTES),
            if payload.is_some() { ", content in the log" } else { "" }
        ),
        Mutation::Unmap { nid, block, count } => format!("unmap {nid}: blocks {block}+{count}"),
        Mutation::Share { from_nid, from_block, nid, block, count } => {
            format!("share {from_nid} with {nid}: blocks {from_block}+{count} as {block}")
        }
        Mutation::PutOmap { omap, key, value } => {
            format!("put omap {omap}: {} = {} bytes", escape(key), value.len())
        }
        Mutation::DropOmapKey { omap, key } => format!("drop omap {omap}: {}", escape(key)),
        Mutation::DropOmap { omap } => format!("drop omap {omap}"),
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Wait;
    use crate::device::sim::{SimDevice, SimOptions};
    use crate::engine::runner::Inline;
    use crate::{CreateOptions, Engine, Op, Transaction};
    use cairn_types::{PoolId, SnapId};

    const PG: PgId = PgId { pool: PoolId(1), seed: 3 };

    fn object(name: &str) -> ObjectId {
        ObjectId {
            pool: PoolId(1),
            hash: 1,
            namespace: String::new(),
            key: String::new(),
            name: name.to_owned(),
            snap: SnapId::HEAD,
        }
    }

    #[test]
    fn a_dump_tells_what_is_there() {
        let device = SimDevice::new(16 << 20, SimOptions::default());
        let handle = device.handle();
        let blocking = handle.blocking();
        let options = CreateOptions { store: [0xab; 16], osd: 4, ..CreateOptions::default() };
        Engine::<SimDevice>::create(Arc::clone(&blocking), &options).unwrap();
        let mut engine = Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap();
        let run = |engine: &mut Engine<SimDevice>, ops| {
            engine.submit(0, Transaction { ops }).unwrap();
            while engine.unfinished() > 0 || engine.is_checkpointing() {
                engine.poll(Wait::Event, &mut Vec::new()).unwrap();
            }
        };
        let write = |offset, byte: u8, blocks: u64| Op::Write {
            pg: PG,
            object: object("a"),
            offset,
            data: vec![byte; (blocks * BLOCK_BYTES) as usize].into(),
            checksums: None,
        };
        engine.request_checkpoint();
        run(&mut engine, vec![Op::CreateCollection(PG), write(0, 1, 20)]);
        engine.request_checkpoint();
        run(&mut engine, vec![Op::Touch(PG, object("b"))]);
        let range = (30 * BLOCK_BYTES, 2 * BLOCK_BYTES);
        let clone = Op::CloneRange {
            pg: PG,
            source: object("a"),
            target: object("b"),
            source_offset: 0,
            len: range.1,
            target_offset: range.0,
        };
        let omap = vec![("key\n".into(), "value".into())];
        run(&mut engine, vec![clone, Op::OmapSet(PG, object("b"), omap)]);
        run(&mut engine, vec![write(5 * BLOCK_BYTES, 2, 1)]);

        let writes = handle.stats().writes;
        let mut dump = Dump::open(&blocking).unwrap();
        let superblock = dump.superblock();
        assert_eq!((superblock.osd, &superblock.store[..4]), (4, "abab"));
        let first_in_log = dump.checkpoint().unwrap().next_seq;
        let mut records = Vec::new();
        dump.each_record(|record| records.push(record)).unwrap();
        assert!(!records.is_empty() && records[0].seq + u64::from(records[0].count) > first_in_log);
        let steps: Vec<String> = records.iter().flat_map(|r| r.transactions.concat()).collect();
        for part in ["share 1 with 2: blocks 0+2 as 30", "key\\n = 5 bytes", "content in the log"] {
            assert!(steps.iter().any(|step| step.contains(part)), "{steps:?} without {part:?}");
        }
        assert_eq!(dump.collections().unwrap(), [CollectionDump { pg: PG.to_string(), objects: 2 }]);
        let mut objects = Vec::new();
        dump.each_object(PG, |object| objects.push(object)).unwrap();
        assert_eq!(objects.iter().map(|object| object.blocks).collect::<Vec<_>>(), [20, 2]);
        let a = dump.object(PG, &object("a")).unwrap();
        assert_eq!(
            a.extents.iter().map(|extent| (extent.blocks, extent.refs)).collect::<Vec<_>>(),
            [(2, 2), (18, 1)]
        );
        assert_eq!(a.extents[1].in_log, 1);
        assert_eq!(a.extents[1].crcs[3], format!("{:08x}", crc32fast::hash(&[2; 4096])));
        let b = dump.object(PG, &object("b")).unwrap();
        assert_eq!((b.extents.len(), b.extents[0].offset), (1, range.0));
        assert_eq!(b.extents[0].device_offset, a.extents[0].device_offset);
        assert_eq!(b.omap_keys, [("key\\n".to_owned(), 5)]);
        assert_eq!(dump.find("b").unwrap(), [(PG, object("b"))]);
        assert_eq!(dump.find(&object("b").to_string()).unwrap(), [(PG, object("b"))]);
        assert_eq!(dump.find("c").unwrap(), []);
        assert!(matches!(dump.object(PG, &object("c")), Err(ReadError::NoObject { .. })));
        let free = dump.free_space();
        assert_eq!(free.free_blocks, free.blocks - 20);
        assert_eq!(free.histogram.iter().map(|(_, runs, _)| runs).sum::<u64>(), free.runs);
        assert_eq!(free.histogram.iter().map(|(_, _, blocks)| blocks).sum::<u64>(), free.free_blocks);
        assert!(free.fragmentation < 0.1 && free.longest_run_blocks > 1000, "{free:?}");
        assert_eq!(handle.stats().writes, writes, "a dump writes nothing");
        let json = serde_json::to_value(&b).unwrap();
        assert_eq!(json["size"], 32 * BLOCK_BYTES);
        assert_eq!(json["extents"][0]["refs"], 2);
    }
}
