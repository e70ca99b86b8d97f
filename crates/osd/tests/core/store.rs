//! A store in memory: writes are seen at once or when they are durable, become durable later and in order, and a crash
//! loses those that are not.

use bytes::Bytes;
use cairn_osd::core::{Effect, Query, QueryAnswer, Superblock};
use cairn_osd::object::{Fault, ObjectState, Supplied, VERSION_XATTR, apply, decode_version, pack, unpack};
use cairn_pg::{ListRange, ObjectKey, PersistedPg, PgTransaction, StoreChange, Version};
use cairn_store::{Op, ReadData, Stat, Transaction};
use cairn_types::{Epoch, ObjectId, OsdMap, OsdMapIncremental, PgId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Object {
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<String, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
    pub header: Bytes,
}

impl Object {
    pub fn version(&self) -> Version {
        decode_version(&self.xattrs[VERSION_XATTR]).expect("a version")
    }

    fn stat(&self) -> Stat {
        let (size, xattrs) = (self.data.len() as u64, self.xattrs.clone());
        Stat { size, xattrs, omap_header: self.header.clone() }
    }

    fn read(&self, offset: u64, len: u64) -> ReadData {
        let end =
            (offset.saturating_add(len)).min(self.data.len() as u64).max(offset.min(self.data.len() as u64));
        let data = Bytes::copy_from_slice(&self.data[offset.min(end) as usize..end as usize]);
        let sum = |block: &[u8]| {
            let mut whole = block.to_vec();
            whole.resize(4096, 0);
            crc32fast::hash(&whole)
        };
        let is_aligned = offset.is_multiple_of(4096);
        let checksums = if is_aligned { data.chunks(4096).map(sum).collect() } else { Vec::new() };
        ReadData { data, checksums }
    }
}

#[derive(Clone, Default)]
pub struct Group {
    pub meta: Option<PersistedPg>,
    pub objects: BTreeMap<ObjectKey, Object>,
}

#[derive(Clone)]
pub struct State {
    pub superblock: Superblock,
    pub fulls: BTreeMap<Epoch, Arc<OsdMap>>,
    pub increments: BTreeMap<Epoch, OsdMapIncremental>,
    pub groups: BTreeMap<PgId, Group>,
}

#[derive(Clone)]
pub enum Write {
    Group(PgId, Box<PgTransaction>),
    Remove(PgId),
    Maps { full: Option<Arc<OsdMap>>, increments: Vec<OsdMapIncremental>, remove_before: Option<Epoch> },
    Superblock(Superblock),
}

pub struct Store {
    pub durable: State,
    pub view: State,
    pub pending: VecDeque<Write>,
    /// Whether queries see what is not durable yet. A core may not depend on either.
    pub reads_see_pending: bool,
}

impl State {
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Superblock(superblock) => self.superblock = *superblock,
            Write::Remove(pgid) => drop(self.groups.remove(pgid)),
            Write::Maps { full, increments, remove_before } => {
                self.fulls.extend(full.iter().map(|full| (full.epoch, Arc::clone(full))));
                self.increments.extend(increments.iter().map(|change| (change.epoch, change.clone())));
                if let Some(first) = remove_before {
                    assert!(self.fulls.contains_key(first), "a whole map to begin with");
                    self.fulls = self.fulls.split_off(first);
                    self.increments = self.increments.split_off(&first.next());
                }
            }
            Write::Group(pgid, txn) => {
                let group = self.groups.entry(*pgid).or_default();
                let mut changes = Transaction::default();
                for change in &txn.objects {
                    match change {
                        StoreChange::Apply { payload, objects } => {
                            for (object, version) in objects {
                                apply(payload, *pgid, object, *version, &mut changes).expect("a change");
                            }
                        }
                        StoreChange::Put { object, version, data } => {
                            unpack(data, *pgid, object, *version, &mut changes).expect("an object");
                        }
                        StoreChange::Remove(object) => {
                            if group.objects.contains_key(object) {
                                changes.ops.push(Op::Remove(*pgid, (**object).clone()));
                            }
                        }
                    }
                    for op in changes.ops.drain(..) {
                        operate(&mut group.objects, op);
                    }
                }
                group.meta.get_or_insert_with(|| PersistedPg::new(txn.info.clone())).apply(txn);
            }
        }
    }

    /// The maps as a start finds them.
    pub fn maps(&self) -> Option<(OsdMap, Vec<OsdMapIncremental>)> {
        let (first, full) = self.fulls.first_key_value()?;
        let changes = self.increments.range(first.next()..).map(|(_, change)| change.clone());
        Some(((**full).clone(), changes.collect()))
    }
}

/// The object, made if it is not there.
fn at(objects: &mut BTreeMap<ObjectKey, Object>, object: ObjectId) -> &mut Object {
    objects.entry(ObjectKey::new(object)).or_default()
}

fn operate(objects: &mut BTreeMap<ObjectKey, Object>, op: Op) {
    match op {
        Op::Touch(_, object) => {
            at(objects, object);
        }
        Op::Write { object, offset, data, .. } => {
            let bytes = &mut at(objects, object).data;
            let end = offset as usize + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(&data);
        }
        Op::Zero { object, offset, len, .. } => {
            let bytes = &mut at(objects, object).data;
            let end = (offset + len) as usize;
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].fill(0);
        }
        Op::Truncate { object, size, .. } => at(objects, object).data.resize(size as usize, 0),
        Op::Remove(_, object) => {
            objects.remove(&ObjectKey::new(object)).expect("what is removed is there");
        }
        Op::SetXattrs(_, object, xattrs) => at(objects, object).xattrs.extend(xattrs),
        Op::RemoveXattr(_, object, name) => drop(at(objects, object).xattrs.remove(&name)),
        Op::OmapSet(_, object, entries) => at(objects, object).omap.extend(entries),
        Op::OmapRemove(_, object, keys) => at(objects, object).omap.retain(|key, _| !keys.contains(key)),
        Op::OmapRemoveRange { object, first, end, .. } => {
            at(objects, object).omap.retain(|key, _| *key < first || *key >= end);
        }
        Op::OmapClear(_, object) => {
            let object = at(objects, object);
            object.omap.clear();
            object.header = Bytes::new();
        }
        Op::OmapSetHeader(_, object, header) => at(objects, object).header = header,
        other => panic!("not an operation of this test's: {other:?}"),
    }
}

impl Store {
    pub fn new(superblock: Superblock, reads_see_pending: bool) -> Store {
        let (fulls, increments, groups) = Default::default();
        let state = State { superblock, fulls, increments, groups };
        Store { durable: state.clone(), view: state, pending: VecDeque::new(), reads_see_pending }
    }

    fn readable(&self) -> &State {
        if self.reads_see_pending { &self.view } else { &self.durable }
    }

    pub fn submit(&mut self, write: Write) {
        self.view.apply(&write);
        self.pending.push_back(write);
    }

    /// The oldest write becomes durable.
    pub fn harden(&mut self) -> Option<Write> {
        let write = self.pending.pop_front()?;
        self.durable.apply(&write);
        Some(write)
    }

    /// Power is lost after `survive` of the waiting writes reached the disk.
    pub fn crash(&mut self, survive: usize) {
        for _ in 0..survive {
            self.harden();
        }
        self.pending.clear();
        self.view = self.durable.clone();
    }

    pub fn query(&self, pgid: PgId, query: &Query) -> QueryAnswer {
        let empty = Group::default();
        let group = self.readable().groups.get(&pgid).unwrap_or(&empty);
        match query {
            Query::Faults { object, faults } => {
                let object = group.objects.get(object);
                QueryAnswer::Supplied(faults.iter().map(|fault| supply(object, fault)).collect())
            }
            Query::Object { object } => {
                let found = group.objects.get(object).map(|object| {
                    let whole = object.data.len() as u64;
                    let extents: Vec<(u64, u64)> = (whole > 0).then_some((0, whole)).into_iter().collect();
                    let reads: Vec<ReadData> =
                        extents.iter().map(|(at, len)| object.read(*at, *len)).collect();
                    let omap: Vec<_> = object.omap.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                    let blob = pack(&object.stat(), &extents, &reads, &omap).expect("it fits a message");
                    (object.version(), blob)
                });
                QueryAnswer::Object(found)
            }
            Query::List { range } => QueryAnswer::Listed(list(group, range)),
            Query::Tally => QueryAnswer::Tallied {
                objects: group.objects.len() as u64,
                bytes: group.objects.values().map(|object| object.data.len() as u64).sum(),
            },
        }
    }
}

fn supply(object: Option<&Object>, fault: &Fault) -> Supplied {
    match fault {
        Fault::Attrs => {
            Supplied::Attrs(ObjectState::from_stored(object.map(Object::stat)).expect("an object of ours"))
        }
        Fault::Data { offset, len } => {
            Supplied::Data(object.map_or(Object::default().read(0, 0), |object| object.read(*offset, *len)))
        }
        Fault::Extents { offset, len } => {
            let end = object.map_or(0, |object| object.data.len() as u64).min(offset + len);
            Supplied::Extents((end > *offset).then(|| (*offset, end - offset)).into_iter().collect())
        }
        Fault::OmapKeys(keys) => {
            let entry = |key: &Bytes| Some((key.clone(), object?.omap.get(key)?.clone()));
            Supplied::OmapKeys(keys.iter().filter_map(entry).collect())
        }
        Fault::OmapRange { after, prefix, max } => {
            let all = object.into_iter().flat_map(|object| &object.omap);
            let all = all.filter(|(key, _)| (after.is_empty() || *key > after) && key.starts_with(prefix));
            let mut entries: Vec<_> =
                all.map(|(k, v)| (k.clone(), v.clone())).take(*max as usize + 1).collect();
            let more = entries.len() > *max as usize;
            entries.truncate(*max as usize);
            Supplied::OmapRange { entries, more }
        }
    }
}

fn list(group: &Group, range: &ListRange) -> Vec<(ObjectKey, Version)> {
    let within = group.objects.iter().filter(|(key, _)| !range.begin.covers(key) && range.end.covers(key));
    let all = within.map(|(key, object)| (key.clone(), object.version()));
    all.take(range.limit.unwrap_or(usize::MAX)).collect()
}

/// The write that an effect asks for, or the effect.
pub fn write_of(effect: Effect) -> Result<Write, Box<Effect>> {
    match effect {
        Effect::Persist { pgid, txn } => Ok(Write::Group(pgid, Box::new(txn))),
        Effect::RemoveGroup { pgid } => Ok(Write::Remove(pgid)),
        Effect::KeepMaps { full, increments, remove_before } => {
            Ok(Write::Maps { full, increments, remove_before })
        }
        Effect::SaveSuperblock(superblock) => Ok(Write::Superblock(superblock)),
        other => Err(Box::new(other)),
    }
}
