//! Bits that change at rest: in data, in the log, in the index, in the superblocks.

use cairn_store::device::sim::{Image, SplitMix64};
use cairn_store::{Damage, Op, OpenOptions, ReadError, StoreError, TransactionError};

use crate::sim_store::{BLOCK, PG, Sim, blocks, fsck, image, object, open, open_with, options, write};

const DATA_BYTES: u64 = 4 << 20;

/// One object of 40 blocks, in place, with nothing in the log.
fn in_place() -> Sim {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let data: Vec<u8> = (0..40 * BLOCK).map(|at| (at / BLOCK) as u8).collect();
    store.run(vec![write("victim", 0, data), write("other", 0, blocks(0xbb, 1))]).unwrap();
    store.checkpoint();
    Sim::on(store.device.image())
}

/// Where a block that holds one byte only is on the device.
fn find(image: &Image, byte: u8) -> u64 {
    let mut block = [0; BLOCK as usize];
    let end = image.len_bytes() / BLOCK;
    let found = (0..end).rev().find(|at| {
        image.read(at * BLOCK, &mut block);
        block.iter().all(|found| *found == byte)
    });
    found.expect("the block is somewhere") * BLOCK
}

#[test]
fn a_rotten_block_is_named_and_never_returned() {
    let mut store = in_place();
    let at = find(&store.device.image(), 25);
    store.device.rot(at + 1000, 3);
    let expected = crc32fast::hash(&[25; BLOCK as usize]);
    let found = {
        let mut block = vec![25; BLOCK as usize];
        block[1000] ^= 8;
        crc32fast::hash(&block)
    };
    let sentence = format!(
        "object {} is damaged at byte 102400: the block at device offset {at} has checksum {found:08x}, expected {expected:08x}",
        object("victim")
    );
    for (offset, len) in [(0, u64::MAX), (25 * BLOCK, BLOCK), (25 * BLOCK + 3000, 1)] {
        let error = store.read("victim", offset, len).unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { offset: 102_400, .. }));
        assert_eq!(error.to_string(), sentence);
    }
    // What is beside it is as good as ever, and the store goes on.
    assert_eq!(store.read("victim", 0, 25 * BLOCK).unwrap().len() as u64, 25 * BLOCK);
    assert!(store.read("victim", 26 * BLOCK, BLOCK).unwrap() == blocks(26, 1));
    store.run(vec![write("other", 0, blocks(0xcc, 1))]).unwrap();
    // A part of it cannot be changed, for the rest is not known.
    let error = store.run(vec![write("victim", 25 * BLOCK + 7, vec![1; 9])]).unwrap_err();
    assert!(matches!(error, TransactionError::Read(ReadError::Corrupt { .. })));
    assert_eq!(error.to_string(), sentence);
    let report = fsck(store.device.image()).unwrap();
    assert_eq!(report.findings.len(), 1, "{report}");
    assert!(report.to_string().contains(&format!("device offset {at} has checksum {found:08x}")), "{report}");
    // A copy shares the damage and says so under its own name.
    store.run(vec![Op::Clone { pg: PG, source: object("victim"), target: object("copy") }]).unwrap();
    let error = store.read("copy", 25 * BLOCK, 1).unwrap_err().to_string();
    assert!(error.starts_with(&format!("object {} is damaged at byte 102400", object("copy"))), "{error}");
    // Written over as a whole it is whole.
    store.run(vec![Op::Remove(PG, object("copy"))]).unwrap();
    store.run(vec![write("victim", 25 * BLOCK, blocks(0xdd, 1))]).unwrap();
    assert!(store.read("victim", 25 * BLOCK, BLOCK).unwrap() == blocks(0xdd, 1));
    store.checkpoint();
    assert!(fsck(store.device.image()).unwrap().is_clean());
}

#[test]
fn nothing_after_a_refused_change_is_kept_if_that_is_asked_for() {
    let options = OpenOptions { stops_at_refusal: true, ..OpenOptions::default() };
    for stops in [false, true] {
        let image = in_place().device.image();
        let mut store = if stops { open_with(image, &options).unwrap() } else { Sim::on(image) };
        store.device.rot(find(&store.device.image(), 25) + 1000, 3);
        store.submit(vec![write("victim", 25 * BLOCK + 7, vec![1; 9])]);
        store.submit(vec![write("other", 0, blocks(0xcc, 1))]);
        let results = store.finish();
        assert!(matches!(results[0], Err(TransactionError::Read(ReadError::Corrupt { .. }))), "{results:?}");
        assert_eq!(results[1].is_err(), stops, "{results:?}");
        let mut again = Sim::on(store.device.image());
        let kept = blocks(if stops { 0xbb } else { 0xcc }, 1);
        assert!(again.read("other", 0, BLOCK).unwrap() == kept);
    }
}

#[test]
fn a_change_of_a_part_of_a_rotten_block_leaves_it_rotten_if_that_is_asked_for() {
    let options = OpenOptions { stops_at_refusal: true, keeps_damage: true, ..OpenOptions::default() };
    let mut store = open_with(in_place().device.image(), &options).unwrap();
    let rotten = find(&store.device.image(), 25) + 1000;
    store.device.rot(rotten, 3);
    let parts =
        vec![write("victim", 25 * BLOCK + 7, vec![1; 9]), write("victim", 24 * BLOCK + 7, vec![1; 9])];
    store.run(parts).unwrap();
    store.run(vec![Op::Truncate { pg: PG, object: object("victim"), size: 25 * BLOCK + 9 }]).unwrap();
    store.checkpoint();
    let device = store.device.clone();
    for mut store in [Sim::on(store.device.image()), store] {
        let error = store.read("victim", 25 * BLOCK, 9).unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { offset: 102_400, .. }), "{error}");
        assert_eq!(store.read("victim", 24 * BLOCK + 6, 3).unwrap()[..], [24, 1, 1]);
    }
    // As it was before the changes it is not right either.
    device.rot(rotten, 3);
    let mut store = Sim::on(device.image());
    let error = store.read("victim", 25 * BLOCK, 9).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { offset: 102_400, .. }), "{error}");
    store.run(vec![write("victim", 25 * BLOCK, vec![7; BLOCK as usize])]).unwrap();
    assert_eq!(store.read("victim", 25 * BLOCK, 9).unwrap()[..], [7; 9]);
}

#[test]
fn a_rotten_block_that_two_objects_share_takes_no_change_of_a_part() {
    // It cannot be marked for one of them alone, and unmarked it may be read again as it was before.
    let options = OpenOptions { keeps_damage: true, ..OpenOptions::default() };
    let mut store = open_with(in_place().device.image(), &options).unwrap();
    store.run(vec![Op::Clone { pg: PG, source: object("victim"), target: object("copy") }]).unwrap();
    let rotten = find(&store.device.image(), 25) + 1000;
    store.device.rot(rotten, 3);
    let error = store.run(vec![write("victim", 25 * BLOCK + 7, vec![1; 9])]).unwrap_err();
    assert!(matches!(error, TransactionError::Read(ReadError::Corrupt { offset: 102_400, .. })), "{error}");
    store.device.rot(rotten, 3);
    assert_eq!(store.read("victim", 25 * BLOCK + 6, 3).unwrap()[..], [25; 3]);
}

#[test]
fn a_rotten_object_can_be_removed() {
    let mut store = in_place();
    let at = find(&store.device.image(), 25);
    store.device.rot(at, 0);
    store.run(vec![Op::Truncate { pg: PG, object: object("victim"), size: 30 * BLOCK }]).unwrap();
    store.run(vec![Op::Remove(PG, object("victim"))]).unwrap();
    store.checkpoint();
    assert!(fsck(store.device.image()).unwrap().is_clean());
    assert!(store.read("other", 0, BLOCK).unwrap() == blocks(0xbb, 1));
}

#[test]
fn a_write_that_went_elsewhere_is_noticed_on_both_sides() {
    use cairn_store::device::sim::{Fault, FaultRule, OpKind};
    let mut store = in_place();
    let (from, to) = (find(&store.device.image(), 5), find(&store.device.image(), 0xbb));
    store.device.inject(FaultRule::nth(OpKind::Write, 0, Fault::Misdirect(to)).within(from..from + BLOCK));
    store.run(vec![write("victim", 5 * BLOCK, blocks(0xee, 1))]).unwrap();
    store.checkpoint();
    for (name, offset) in [("victim", 5 * BLOCK), ("other", 0)] {
        let error = store.read(name, offset, BLOCK).unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{name}: {error}");
    }
}

/// Three records behind the checkpoint, a write of one block each; with the device offset and the length of each.
fn in_the_log() -> (Image, Vec<(u64, u64)>) {
    let mut store = in_place();
    let mut records = Vec::new();
    for byte in 1..=3 {
        let used = store.engine.usage().log_used_bytes;
        store.run(vec![write("logged", 0, blocks(0xf0 + byte, 1))]).unwrap();
        records.push(store.engine.usage().log_used_bytes - used);
    }
    let image = store.device.image();
    // They follow each other: the first is found by what it holds.
    let (start, log_bytes) = (BLOCK, options().log_bytes.unwrap());
    let mut ring = vec![0; log_bytes as usize];
    image.read(start, &mut ring);
    let payload = ring.windows(64).position(|bytes| bytes == [0xf1; 64]).expect("the payload") as u64;
    let mut at = start + payload / 512 * 512;
    let places = records.into_iter().map(|len| {
        at += len;
        (at - len, len)
    });
    (image.clone(), places.collect())
}

#[test]
fn a_damaged_record_that_later_ones_follow_is_no_end_of_the_log() {
    let (image, records) = in_the_log();
    assert!(open(image.clone()).unwrap().read("logged", 0, BLOCK).unwrap() == blocks(0xf3, 1));
    let mut rng = SplitMix64::new(1);
    for &(offset, len) in &records[..2] {
        for within in [0, 8, 44, 60, len / 2].into_iter().chain((0..20).map(|_| rng.below(len / 2))) {
            let device = Sim::on(image.clone()).device;
            device.rot(offset + within, 1);
            let error = open(device.image()).err().expect("what was acknowledged is lost");
            assert!(matches!(error, StoreError::Damaged(Damage::Record { .. })), "byte {within}: {error}");
            let StoreError::Damaged(Damage::Record { seq, .. }) = error else { unreachable!() };
            assert_eq!(
                error.to_string(),
                format!(
                    "the store is damaged: log record {seq} at device offset {offset} does not apply: it was complete once, for a later record is there, and is damaged now; check it with `cairn store fsck`, or destroy the OSD and let it be filled again"
                )
            );
            // Neither does the check take it for the end.
            assert_eq!(fsck(device.image()).unwrap_err().to_string(), error.to_string());
        }
    }
}

#[test]
fn a_lost_record_that_a_later_one_follows_is_no_end_of_the_log() {
    let (image, records) = in_the_log();
    let (offset, len) = records[0];
    for byte in [0, 0xdd] {
        let device = Sim::on(image.clone()).device;
        device.scribble(offset, &vec![byte; len as usize]);
        let error = open(device.image()).err().expect("what was acknowledged is lost");
        assert!(matches!(error, StoreError::Damaged(Damage::Record { .. })), "{error}");
    }
}

/// The last record cannot be told from one that a power cut tore: what is before it counts.
#[test]
fn a_damaged_record_at_the_end_is_the_end() {
    let (image, records) = in_the_log();
    let (offset, len) = records[2];
    for within in [0, 44, 60, len / 2] {
        let device = Sim::on(image.clone()).device;
        device.rot(offset + within, 1);
        let mut store = open(device.image()).unwrap();
        assert!(store.read("logged", 0, BLOCK).unwrap() == blocks(0xf2, 1));
        // And what is written then does not let it come back.
        store.run(vec![write("logged", 0, blocks(0xf4, 1))]).unwrap();
        let mut store = open(store.device.image()).unwrap();
        assert!(store.read("logged", 0, BLOCK).unwrap() == blocks(0xf4, 1));
        assert!(fsck(store.device.image()).unwrap().is_clean());
    }
}

/// A lost write of the index's first block brings its last state but one back. The log has what came after, but
/// a block that was given out again since is in two places of that history.
#[test]
fn an_index_older_than_the_log_is_refused_when_a_block_was_used_again() {
    let mut store = in_place();
    let room = DATA_BYTES / BLOCK - 16 - 41;
    store.run(vec![write("filler", 0, blocks(0xcc, room))]).unwrap();
    store.checkpoint();
    let older = store.device.image();
    store.run(vec![Op::Remove(PG, object("victim"))]).unwrap();
    store.checkpoint();
    store.run(vec![write("heir", 0, blocks(0xdd, 40))]).unwrap();
    assert!(Sim::on(store.device.image()).read("heir", 0, u64::MAX).unwrap() == blocks(0xdd, 40));
    let mut index = vec![0; options().index_bytes.unwrap() as usize];
    let start = 2 * BLOCK + options().log_bytes.unwrap();
    older.read(start, &mut index);
    let device = Sim::on(store.device.image()).device;
    device.scribble(start, &index);
    let error = open(device.image()).err().expect("a block would be given out while it is in use");
    assert!(
        error.to_string().contains("does not apply: it uses a block that was freed since the checkpoint"),
        "{error}"
    );
}

#[test]
fn a_rotten_index_is_an_error_or_without_effect() {
    let store = in_place();
    let image = store.device.image();
    let start = 2 * BLOCK + options().log_bytes.unwrap();
    let mut rng = SplitMix64::new(7);
    let (mut errors, mut whole) = (0, 0);
    for _ in 0..400 {
        let device = Sim::on(image.clone()).device;
        // The head and the checksums of the region are few blocks of many.
        let within = if rng.one_in(4) { 8192 } else { 256 << 10 };
        device.rot(start + rng.below(within), rng.below(8) as u32);
        let read = open(device.image()).map_err(|error| error.to_string()).and_then(|mut store| {
            let read = store.read("victim", 25 * BLOCK, BLOCK);
            read.map_err(|error| error.to_string())
        });
        match read {
            Ok(found) => {
                assert!(found == blocks(25, 1));
                whole += 1;
            }
            Err(error) => {
                assert!(error.contains("index"), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 20 && whole > 20, "{errors} errors, {whole} without effect");
}

#[test]
fn one_superblock_is_enough_and_none_is_no_store() {
    let image = in_place().device.image();
    let places = [0, BLOCK + options().log_bytes.unwrap()];
    for place in places {
        let device = Sim::on(image.clone()).device;
        device.rot(place + 40, 2);
        assert!(open(device.image()).unwrap().read("victim", BLOCK, BLOCK).unwrap() == blocks(1, 1));
        let report = fsck(device.image()).unwrap().to_string();
        let sentence =
            format!("the superblock copy at device offset {place} is damaged or differs from the other");
        assert!(report.contains(&sentence), "{report}");
    }
    let device = Sim::on(image).device;
    places.into_iter().for_each(|place| device.rot(place + 40, 2));
    assert_eq!(
        open(device.image()).err().unwrap().to_string(),
        "this is not a cairn store: no superblock found (make one with `cairn store create`)"
    );
}
