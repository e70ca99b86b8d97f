use super::*;
use crate::device::Wait;
use crate::device::sim::{SimDevice, SimOptions, SplitMix64};
use crate::engine::runner::Inline;
use crate::format::values::{Checkpoint, Shard, Slot};
use crate::index::{Batch, Index};
use crate::limits::BLOCK_BYTES;
use crate::{CreateOptions, Engine, Op, Transaction};
use bytes::Bytes;
use cairn_types::{ObjectId, PgId, PoolId, SnapId};

const BLOCK: u64 = BLOCK_BYTES;
const PG: PgId = PgId { pool: PoolId(1), seed: 0 };
const DEEP: FsckOptions = FsckOptions { deep: true, repair: false };
const REPAIR: FsckOptions = FsckOptions { deep: true, repair: true };

fn object(number: u64) -> ObjectId {
    ObjectId {
        pool: PoolId(1),
        hash: number as u32,
        namespace: String::new(),
        key: String::new(),
        name: format!("object-{number}"),
        snap: SnapId::HEAD,
    }
}

fn store() -> (SimDevice, Arc<dyn BlockingDevice>) {
    let device = SimDevice::new(16 << 20, SimOptions::default());
    let blocking = device.handle().blocking();
    let options = CreateOptions {
        store: [7; 16],
        log_bytes: Some(1 << 20),
        index_bytes: Some(4 << 20),
        ..CreateOptions::default()
    };
    Engine::<SimDevice>::create(Arc::clone(&blocking), &options).unwrap();
    (device, blocking)
}

fn open(device: SimDevice) -> Engine<SimDevice> {
    Engine::open(device, &OpenOptions::default(), Box::new(Inline::default())).unwrap()
}

/// Submits one transaction, which must go well unless it names what is not there.
fn run(engine: &mut Engine<SimDevice>, ops: Vec<Op>) {
    engine.submit(0, Transaction { ops }).unwrap();
    let mut events = Vec::new();
    while engine.unfinished() > 0 {
        engine.poll(Wait::Event, &mut events).unwrap();
    }
}

fn checkpoint(engine: &mut Engine<SimDevice>) {
    engine.request_checkpoint();
    while engine.is_checkpointing() {
        engine.poll(Wait::Event, &mut Vec::new()).unwrap();
    }
}

/// Random transactions over six objects: writes of every kind, clones, holes, omaps, removals.
fn work(engine: &mut Engine<SimDevice>, rng: &mut SplitMix64, transactions: u64) {
    for _ in 0..transactions {
        let (target, source) = (object(rng.below(6)), object(rng.below(6)));
        let block = rng.below(300) * BLOCK;
        let len = [BLOCK, 3 * BLOCK, 100, 5000, 20 * BLOCK][rng.below(5) as usize];
        let data: Bytes = (0..len).map(|_| rng.next_u64() as u8).collect::<Vec<_>>().into();
        let name: Bytes = format!("key-{}", rng.below(5)).into();
        let op = match rng.below(12) {
            0 => Op::Remove(PG, target),
            1 => Op::Truncate { pg: PG, object: target, size: block + 17 },
            2 => Op::Zero { pg: PG, object: target, offset: block, len: 30 * BLOCK },
            3 | 4 if source != target => Op::Clone { pg: PG, source, target },
            5 if source != target => Op::CloneRange {
                pg: PG,
                source,
                target,
                source_offset: block,
                len: 7 * BLOCK,
                target_offset: rng.below(300) * BLOCK,
            },
            6 => Op::OmapSet(PG, target, vec![(name, data.slice(..100))]),
            7 => Op::OmapClear(PG, target),
            _ => Op::Write { pg: PG, object: target, offset: block, data, checksums: None },
        };
        run(engine, vec![op]);
        if rng.one_in(15) {
            checkpoint(engine);
        }
    }
}

/// One object of 40 blocks and a clone of its first 10, with an omap, all in place. Then the device.
fn simple() -> (Arc<dyn BlockingDevice>, Superblock) {
    let (device, blocking) = store();
    let mut engine = open(device);
    let data: Bytes = (0..40 * BLOCK).map(|at| (at / BLOCK) as u8 + 1).collect::<Vec<_>>().into();
    let first = object(1);
    run(
        &mut engine,
        vec![
            Op::CreateCollection(PG),
            Op::Write { pg: PG, object: first.clone(), offset: 0, data, checksums: None },
            Op::OmapSet(PG, first.clone(), vec![("key".into(), "value".into())]),
            Op::CloneRange {
                pg: PG,
                source: first,
                target: object(2),
                source_offset: 0,
                len: 10 * BLOCK,
                target_offset: 0,
            },
        ],
    );
    checkpoint(&mut engine);
    let superblock = engine.superblock().clone();
    (blocking, superblock)
}

fn fsck(device: &Arc<dyn BlockingDevice>, options: FsckOptions) -> FsckReport {
    check(device, &options, &mut |done, total| assert!(done <= total)).unwrap()
}

fn tamper(
    device: &Arc<dyn BlockingDevice>,
    superblock: &Superblock,
    batch: impl FnOnce(&Index, Checkpoint) -> Batch,
) {
    let region = (superblock.index_offset, superblock.index_bytes);
    let index = Index::open(Arc::clone(device), region, 1 << 20).unwrap();
    let (checkpoint, _) = index.load(|_, _| true).unwrap();
    index.commit(&batch(&index, checkpoint)).unwrap();
}

/// The damage is found, as this and nothing else; a check changes nothing; a repair mends it.
fn found_and_mended(device: &Arc<dyn BlockingDevice>, expected: &[&str]) {
    for _ in 0..2 {
        let report = fsck(device, DEEP);
        let said: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        assert_eq!(said.len(), expected.len(), "{report}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
        assert!(!report.is_clean() && report.findings.iter().all(Finding::is_repairable));
    }
    let report = fsck(device, REPAIR);
    assert!(report.is_clean() && !report.is_repair_withheld, "{report}");
    assert_eq!(report.repaired.len(), expected.len(), "{report}");
    let report = fsck(device, DEEP);
    assert!(report.is_clean() && report.repaired.is_empty(), "{report}");
}

#[test]
fn a_store_is_clean_after_whatever_work() {
    for seed in 0..8 {
        let (device, blocking) = store();
        let mut rng = SplitMix64::new(seed);
        let mut engine = open(device);
        run(&mut engine, vec![Op::CreateCollection(PG)]);
        for round in 0..4 {
            work(&mut engine, &mut rng, 40);
            // With and without something in the log only.
            if round % 2 == 0 {
                checkpoint(&mut engine);
            }
            let report = fsck(&blocking, DEEP);
            assert!(report.is_clean(), "seed {seed}, round {round}: {report}");
            assert_eq!(report.blocks, engine.usage().used_bytes / BLOCK);
            assert_eq!(report.objects, engine.usage().objects);
            assert!(report.verified_bytes >= report.blocks * BLOCK);
        }
    }
}

#[test]
fn a_check_writes_nothing() {
    let (device, blocking) = store();
    let handle = device.handle();
    let mut engine = open(device);
    run(&mut engine, vec![Op::CreateCollection(PG)]);
    work(&mut engine, &mut SplitMix64::new(3), 30);
    let writes = handle.stats().writes;
    fsck(&blocking, DEEP);
    assert_eq!(handle.stats().writes, writes);
}

#[test]
fn a_flipped_bit_of_data_is_found_and_named() {
    let (device, superblock) = simple();
    let unit = first_unit(&device, &superblock, 1);
    let at = (unit + 25) * BLOCK;
    device.write_at(at + 99, &[0xff]).unwrap();
    assert!(fsck(&device, FsckOptions::default()).is_clean());
    for options in [DEEP, REPAIR] {
        let report = fsck(&device, options);
        let [finding] = &report.findings[..] else { panic!("{report}") };
        assert!(!finding.is_repairable());
        let text = finding.to_string();
        for part in ["object-1", &format!("byte {}", 25 * BLOCK), &format!("device offset {at}")] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
}

/// Unit of an object's first block.
fn first_unit(device: &Arc<dyn BlockingDevice>, superblock: &Superblock, number: u64) -> u64 {
    let (mut state, _, _) = load(&reading_only(device), superblock, &OpenOptions::default()).unwrap();
    let head = state.head(&crate::key::object_key(PG, &object(number))).unwrap().unwrap();
    state.slot(head.nid, 0).unwrap().unit
}

#[test]
fn a_lost_superblock_is_written_again() {
    for copy in 0..2 {
        let (device, superblock) = simple();
        device.write_at(superblock.places()[copy], &[0; 512]).unwrap();
        found_and_mended(&device, &[&format!("device offset {}", superblock.places()[copy])]);
        assert_eq!(Superblock::read(&*device).unwrap(), superblock);
    }
}

#[test]
fn a_leaked_block_comes_back() {
    let (device, superblock) = simple();
    let mut bitmap = Vec::new();
    tamper(&device, &superblock, |index, checkpoint| {
        index
            .load(|_, chunk| {
                bitmap = chunk.to_vec();
                true
            })
            .unwrap();
        // Bits 100 to 103.
        bitmap[12] |= 0xf0;
        Batch { bitmap: vec![(0, bitmap)], checkpoint, ..Batch::default() }
    });
    let at = superblock.data_offset + 100 * BLOCK;
    found_and_mended(&device, &[&format!("4 block(s) at device offset {at}")]);
}

#[test]
fn a_used_block_is_marked_as_used_again() {
    let (device, superblock) = simple();
    let unit = first_unit(&device, &superblock, 1) - superblock.data_offset / BLOCK + 30;
    tamper(&device, &superblock, |index, checkpoint| {
        let mut bitmap = Vec::new();
        index
            .load(|_, chunk| {
                bitmap = chunk.to_vec();
                true
            })
            .unwrap();
        bitmap[(unit / 8) as usize] &= !(1 << (unit % 8));
        Batch { bitmap: vec![(0, bitmap)], checkpoint, ..Batch::default() }
    });
    found_and_mended(&device, &[&format!("1 block(s) from byte {}", 30 * BLOCK)]);
}

#[test]
fn what_belongs_to_nobody_goes() {
    let (device, superblock) = simple();
    let unit = superblock.data_offset / BLOCK + 500;
    tamper(&device, &superblock, |_, checkpoint| {
        let mut shard = Shard::default();
        shard.slots[3] = Slot { unit, crc: 1, shared: false };
        Batch {
            shards: vec![((77, 2), Some(Arc::new(shard)))],
            omap: Arc::new([((78, "key".into()), Some("value".into()))].into()),
            checkpoint: Checkpoint { next_nid: 100, ..checkpoint },
            ..Batch::default()
        }
    });
    found_and_mended(&device, &["number 77", "omap 78"]);
}

#[test]
fn wrong_counts_are_corrected() {
    let (device, superblock) = simple();
    let unit = first_unit(&device, &superblock, 2);
    tamper(&device, &superblock, |_, checkpoint| Batch {
        refs: vec![(unit, 5), (unit + 1, 1), (unit + 20, 3)],
        checkpoint: Checkpoint { objects: 9, next_nid: 1, ..checkpoint },
        ..Batch::default()
    });
    let used = |count, found| format!("used {count} times, the index says {found}");
    let expected = [used(2, 5), used(2, 1), used(1, 3), "2 objects, the index says 9".into(), "next".into()];
    found_and_mended(&device, &expected.each_ref().map(String::as_str));
}

#[test]
fn a_repair_keeps_what_is_in_the_log() {
    let (device, superblock) = simple();
    tamper(&device, &superblock, |_, checkpoint| Batch {
        checkpoint: Checkpoint { objects: 9, ..checkpoint },
        ..Batch::default()
    });
    // Through another store's eyes: an engine on a copy, killed with its work in the log.
    let copy = SimDevice::new(16 << 20, SimOptions::default());
    let blocking = copy.handle().blocking();
    let mut all = vec![0; 16 << 20];
    device.read_at(0, &mut all).unwrap();
    blocking.write_at(0, &all).unwrap();
    let mut engine = open(copy);
    let data = Bytes::from(vec![0xab; 3 * BLOCK as usize]);
    let ops =
        vec![Op::Write { pg: PG, object: object(1), offset: 2 * BLOCK, data: data.clone(), checksums: None }];
    run(&mut engine, ops);
    blocking.read_at(0, &mut all).unwrap();
    device.write_at(0, &all).unwrap();
    drop(engine);
    found_and_mended(&device, &["2 objects, the index says 9"]);
    let (mut state, _, last_seq) =
        load(&reading_only(&device), &superblock, &OpenOptions::default()).unwrap();
    let (checkpoint, _) = state.index().load(|_, _| true).unwrap();
    assert_eq!((last_seq, state.pending.bytes()), (checkpoint.next_seq - 1, 0), "the log is not empty");
    let head = state.head(&crate::key::object_key(PG, &object(1))).unwrap().unwrap();
    for block in 2..5 {
        let slot = state.slot(head.nid, block).unwrap();
        let read = state.read_block(slot, || ("object".into(), 0)).unwrap();
        assert_eq!(read[..], data[..BLOCK as usize]);
    }
}

#[test]
fn what_does_not_decode_keeps_a_repair_from_freeing_anything() {
    let (device, superblock) = simple();
    tamper(&device, &superblock, |_, checkpoint| {
        let head = crate::format::values::Head { nid: 50, ..Default::default() };
        Batch { heads: vec![("no key".into(), Some(Arc::new(head)))], checkpoint, ..Batch::default() }
    });
    let report = fsck(&device, REPAIR);
    assert!(report.is_repair_withheld && report.repaired.is_empty(), "{report}");
    assert!(report.findings.iter().any(|finding| matches!(finding, Finding::Entry(_))), "{report}");
}

#[test]
fn damage_that_a_repair_would_have_to_guess_about_stays() {
    let (device, superblock) = simple();
    let unit = first_unit(&device, &superblock, 1);
    tamper(&device, &superblock, |_, checkpoint| {
        let mut shard = Shard::default();
        // Another's block, one beyond the device, and behind the end of the object.
        shard.slots[0] = Slot { unit: unit + 20, crc: 1, shared: false };
        shard.slots[1] = Slot { unit: 1 << 40, crc: 1, shared: false };
        let head = crate::format::values::Head { nid: 50, size: BLOCK, ..Default::default() };
        let lost = PgId { pool: PoolId(1), seed: 9 };
        Batch {
            heads: vec![(crate::key::object_key(lost, &object(3)), Some(Arc::new(head)))],
            shards: vec![
                ((50, 0), Some(Arc::new(shard.clone()))),
                (
                    (50, 1),
                    Some(Arc::new(Shard {
                        slots: {
                            let mut slots = [Slot::HOLE; 256];
                            slots[0] = Slot { unit: unit + 30, crc: 1, shared: true };
                            slots
                        },
                    })),
                ),
            ],
            checkpoint: Checkpoint { next_nid: 100, objects: checkpoint.objects + 1, ..checkpoint },
            ..Batch::default()
        }
    });
    let report = fsck(&device, FsckOptions { deep: false, repair: true });
    let text = report.to_string();
    for part in ["placement group 1.9", "not in the data region", "not marked as shared", ":object-3 of 1.9"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(report.findings.iter().any(|finding| matches!(finding, Finding::BeyondEnd { .. })), "{text}");
    assert!(report.repaired.is_empty(), "{text}");
}
