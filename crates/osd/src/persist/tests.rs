//! What is written comes back, through a store that is closed and opened again.

use super::*;
use crate::core::{Query, QueryAnswer, Superblock};
use crate::object::{Fault, Supplied};
use cairn_pg::{
    EntryKind, Interval, LogEntry, MissingItem, ObjectKey, PersistToken, PersistedPg, PgInfo, PgTransaction,
    Position, RequestId, Version,
};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{FileMedium, QueueKind};
use cairn_store::device::sim::SimDevice;
use cairn_store::{CreateOptions, Engine, OpenOptions, Store, Transaction};
use cairn_types::{CrushBlob, Fsid, ObjectId, OsdId, OsdMap, OsdMapIncremental, OsdUuid, SnapId, Timestamp};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

const PG: PgId = PgId { pool: PoolId(3), seed: 0x18 };

fn made(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("store");
    let medium: Arc<dyn BlockingDevice> = FileMedium::create(&path, 64 << 20).unwrap();
    Engine::<SimDevice>::create(medium, &CreateOptions::default()).unwrap();
    path
}

fn open(path: &Path) -> Store {
    Store::open(path, &OpenOptions::default(), QueueKind::Auto).unwrap()
}

fn ask<T: Send + 'static>(
    store: &Store,
    question: impl FnOnce(&mut Engine<cairn_store::device::file::FileDevice>) -> T + Send + 'static,
) -> T {
    let (sender, answer) = channel();
    store.query(question, move |got| sender.send(got).unwrap()).unwrap();
    answer.recv().unwrap().unwrap()
}

fn load(store: &Store) -> Result<LoadedGroup, PersistError> {
    ask(store, |engine| load_group(engine, PG))
}

fn object(n: u32) -> ObjectKey {
    ObjectKey::new(ObjectId {
        pool: PG.pool,
        hash: n.wrapping_mul(0x9e37_79b9),
        namespace: String::new(),
        key: String::new(),
        name: format!("object {n}"),
        snap: SnapId::HEAD,
    })
}

fn v(epoch: u32, version: u64) -> Version {
    Version { epoch: Epoch(epoch), version }
}

/// One part of a transaction, before it is known what it meets.
#[derive(Clone, Debug)]
enum Part {
    Reset,
    Rewind(usize),
    Prepend(u64),
    Append(u32, u8),
    Trim(usize),
    ClearMissing,
    Missing(u32, Option<u64>),
    Past(u32),
    Backfill(Option<u32>),
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        1 => Just(Part::Reset),
        1 => (0..8usize).prop_map(Part::Rewind),
        1 => (1..6u64).prop_map(Part::Prepend),
        12 => (0..6u32, 1..4u8).prop_map(|(object, count)| Part::Append(object, count)),
        4 => (0..12usize).prop_map(Part::Trim),
        1 => Just(Part::ClearMissing),
        6 => (0..6u32, proptest::option::of(0..9u64)).prop_map(|(object, need)| Part::Missing(object, need)),
        2 => (0..4u32).prop_map(Part::Past),
        1 => proptest::option::of(0..6u32).prop_map(Part::Backfill),
    ]
}

/// A transaction a group could make of the parts: the log stays in order, the info says how far it goes.
fn transaction(state: &PersistedPg, epoch: u32, parts: &[Part]) -> PgTransaction {
    let mut txn = PgTransaction {
        token: PersistToken(u64::from(epoch)),
        objects: Vec::new(),
        log: cairn_pg::LogChange::default(),
        clear_missing: false,
        missing: Vec::new(),
        info: state.info.clone(),
        past_intervals: None,
    };
    let mut next = state.log.head().version;
    let entries: Vec<Version> = state.log.iter().map(|entry| entry.version).collect();
    for part in parts {
        match part {
            Part::Reset => txn.log.reset_to = Some(v(epoch - 1, next)),
            Part::Rewind(cut) => {
                txn.log.rewind_to = entries.iter().rev().nth(*cut).copied().or(txn.log.rewind_to);
            }
            // Room in front of the log is only where it was trimmed.
            Part::Prepend(count) if txn.log.reset_to.is_none() && !entries.is_empty() => {
                let tail = state.log.tail();
                let from = tail.version.saturating_sub(*count);
                let older = (from..tail.version).map(|n| entry(v(tail.epoch.0, n + 1), n as u32, epoch));
                txn.log.prepend = Some((v(tail.epoch.0.min(1), from), older.collect()));
            }
            Part::Prepend(_) => {}
            Part::Append(object, count) => {
                for _ in 0..*count {
                    next += 1;
                    txn.log.append.push(entry(v(epoch, next), *object, epoch));
                }
            }
            Part::Trim(keep) => {
                let versions = entries.iter().chain(txn.log.append.iter().map(|entry| &entry.version));
                txn.log.trim_to = versions.rev().nth(*keep).copied().or(txn.log.trim_to);
            }
            Part::ClearMissing => txn.clear_missing = true,
            Part::Missing(n, need) => {
                let item = need.map(|need| {
                    let undone = (0..need % 3).map(|at| entry(v(epoch, need + 2 + at), *n, epoch)).collect();
                    MissingItem { undone, ..MissingItem::new(v(epoch, need + 1), Version::ZERO) }
                });
                txn.missing.push((object(*n), item));
            }
            Part::Past(n) => {
                let interval = |n| Interval {
                    first: Epoch(n),
                    last: Epoch(n + 1),
                    acting: vec![OsdId(1), OsdId(2)],
                    up: vec![OsdId(2)],
                    primary: Some(OsdId(1)),
                    maybe_went_rw: n % 2 == 0,
                };
                let closed = (0..*n).map(interval).collect();
                txn.past_intervals = Some(cairn_pg::PastIntervals { closed, current: None });
            }
            Part::Backfill(to) => {
                txn.info.last_backfill = to.map_or(Position::Min, |n| Position::At(object(n)));
            }
        }
    }
    let mut after = state.clone();
    after.apply(&txn);
    txn.info.last_update = after.log.head();
    txn.info.log_tail = after.log.tail();
    txn.info.history.same_interval_since = Epoch(epoch);
    txn
}

fn entry(version: Version, n: u32, salt: u32) -> LogEntry {
    LogEntry {
        version,
        prior_version: Version::ZERO,
        object: object(n),
        kind: if n.is_multiple_of(3) { EntryKind::Delete } else { EntryKind::Modify },
        request: n.is_multiple_of(2).then_some(RequestId {
            client: 7,
            incarnation: salt,
            tid: version.version,
        }),
        result: vec![b'r'; (salt % 40) as usize].into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_group_is_loaded_as_its_transactions_mean(
        script in prop::collection::vec((prop::collection::vec(part(), 0..5), any::<bool>()), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = made(&dir);
        let mut store = open(&path);
        let mut model = PersistedPg::new(PgInfo::new(PG, Epoch(1), Epoch(1)));
        let mut writer = GroupWriter::new(PG);
        for (step, (parts, reopen)) in script.iter().enumerate() {
            let txn = transaction(&model, step as u32 + 2, parts);
            let mut out = Transaction::default();
            writer.begin(&mut out);
            writer.write(&txn, &mut out);
            store.commit(out).unwrap();
            model.apply(&txn);
            if *reopen && step % 4 == 0 {
                store.close().unwrap();
                store = open(&path);
                match load(&store).unwrap() {
                    LoadedGroup::Group(loaded) => {
                        writer = GroupWriter::of(&loaded);
                        prop_assert_eq!(&loaded, &model);
                    }
                    LoadedGroup::Litter => panic!("the group is there"),
                }
            }
        }
        store.close().unwrap();
        match load(&open(&path)).unwrap() {
            LoadedGroup::Group(loaded) => prop_assert_eq!(loaded, model),
            LoadedGroup::Litter => panic!("the group is there"),
        }
    }
}

#[test]
fn an_ordinary_write_sets_two_entries_and_removes_one() {
    let mut writer = GroupWriter::new(PG);
    let mut model = PersistedPg::new(PgInfo::new(PG, Epoch(1), Epoch(1)));
    for epoch in 2..12 {
        let txn = transaction(&model, epoch, &[Part::Append(1, 1)]);
        writer.write(&txn, &mut Transaction::default());
        model.apply(&txn);
    }
    let txn = transaction(&model, 12, &[Part::Append(1, 1), Part::Trim(10)]);
    let mut out = Transaction::default();
    writer.begin(&mut out);
    out.ops.clear();
    writer.write(&txn, &mut out);
    let counts: Vec<(usize, usize)> = out
        .ops
        .iter()
        .map(|op| match op {
            cairn_store::Op::OmapSet(_, _, entries) => (entries.len(), 0),
            cairn_store::Op::OmapRemove(_, _, keys) => (0, keys.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [(2, 0), (0, 1)]);
}

#[test]
fn a_removed_group_is_litter_until_it_is_swept_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    let store = open(&path);
    let model = PersistedPg::new(PgInfo::new(PG, Epoch(1), Epoch(1)));
    let mut out = Transaction::default();
    let mut writer = GroupWriter::new(PG);
    writer.begin(&mut out);
    writer.write(&transaction(&model, 2, &[Part::Append(1, 1)]), &mut out);
    out.ops.push(cairn_store::Op::Touch(PG, ObjectId::clone(&object(1))));
    store.commit(out).unwrap();
    store.commit(begin_removal(PG)).unwrap();
    store.close().unwrap();
    let store = open(&path);
    assert!(matches!(load(&store).unwrap(), LoadedGroup::Litter));
}

fn superblock(born: Option<u32>) -> Superblock {
    Superblock {
        fsid: Fsid([7; 16]),
        uuid: OsdUuid([8; 16]),
        whoami: OsdId(4),
        born: born.map(Epoch),
        clean: born.map(|born| (Epoch(born), Epoch(born + 3))),
    }
}

fn map(epoch: u32) -> OsdMap {
    let mut map = OsdMap::new(Fsid([7; 16]), Timestamp(u64::from(epoch)), CrushBlob::new(1, Vec::new()));
    map.epoch = Epoch(epoch);
    map
}

fn increment(epoch: u32) -> OsdMapIncremental {
    OsdMapIncremental::empty(Epoch(epoch), Fsid([7; 16]), Timestamp(u64::from(epoch)))
}

#[test]
fn the_host_comes_back_with_the_longest_run_of_maps_that_has_no_hole() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    let store = open(&path);
    assert!(matches!(ask(&store, load_host).unwrap_err(), PersistError::NoSuperblock));
    store.commit(create_host(&superblock(None))).unwrap();
    let host = ask(&store, load_host).unwrap();
    assert_eq!((host.superblock, host.maps, &host.kept), (superblock(None), None, &MapsKept::default()));

    let mut kept = host.kept;
    let mut keep = |full: Option<u32>, increments: std::ops::RangeInclusive<u32>, before: Option<u32>| {
        let increments: Vec<OsdMapIncremental> = increments.map(increment).collect();
        let full = full.map(map);
        let out = maps_transaction(&mut kept, full.as_ref(), &increments, before.map(Epoch));
        store.commit(out).unwrap();
    };
    #[allow(clippy::reversed_empty_ranges, reason = "none")]
    let none = 1..=0;
    keep(Some(5), 6..=20, None);
    keep(Some(30), 31..=40, None);
    keep(Some(35), none.clone(), None);
    let last = superblock(Some(9));
    store.commit(Transaction { ops: vec![superblock_op(&last)] }).unwrap();
    let host = ask(&store, load_host).unwrap();
    let (first, changes) = host.maps.unwrap();
    assert_eq!((host.superblock, &first), (last, &map(30)));
    assert_eq!(changes, (31..=40).map(increment).collect::<Vec<_>>());

    keep(None, none, Some(35));
    store.close().unwrap();
    let host = ask(&open(&path), load_host).unwrap();
    let (first, changes) = host.maps.unwrap();
    assert_eq!(first, map(35));
    assert_eq!(changes, (36..=40).map(increment).collect::<Vec<_>>());
    assert_eq!(host.kept, kept);
}

#[test]
fn what_an_object_that_is_gone_has_is_not_answered_as_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&made(&dir));
    let mut out = Transaction::default();
    GroupWriter::new(PG).begin(&mut out);
    store.commit(out).unwrap();
    let faults = [
        Fault::Extents { offset: 0, len: 10 },
        Fault::OmapKeys(vec![b"key".to_vec().into()]),
        Fault::OmapRange { after: b"a".to_vec().into(), prefix: b"b".to_vec().into(), max: 5 },
        Fault::OmapRange { after: b"".to_vec().into(), prefix: b"".to_vec().into(), max: 5 },
    ];
    let query = Query::Faults { object: object(1), faults: faults.into_iter().collect() };
    let answered = ask(&store, |engine| Answering::new(PG, query).step(engine)).unwrap();
    let Step::Done(QueryAnswer::Supplied(supplied)) = answered else { panic!("{answered:?}") };
    assert_eq!(supplied.len(), 4);
    assert!(supplied.iter().all(|supplied| matches!(supplied, Supplied::Unreadable)), "{supplied:?}");
    // Bytes are read after that.
    let query = Query::Faults { object: object(1), faults: vec![Fault::Data { offset: 0, len: 10 }].into() };
    let (requests, reading) = Answering::new(PG, query).plain_reads().unwrap();
    let (sender, answer) = channel();
    let request = requests.into_iter().next().unwrap();
    store.read(request, move |got| sender.send(got).unwrap()).unwrap();
    let answered = reading.finish(vec![answer.recv().unwrap()]).unwrap();
    let QueryAnswer::Supplied(supplied) = answered else { panic!("{answered:?}") };
    assert!(matches!(supplied[..], [Supplied::Unreadable]), "{supplied:?}");
}
