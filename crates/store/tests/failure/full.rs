//! A store without room: every refusal says so, nothing is lost, and deleting is all it takes.

use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, TransactionError};

use crate::sim_store::{BLOCK, PG, Sim, blocks, fsck, image, object, options, write};

/// Blocks that only transactions that free space may take.
const RESERVE_BLOCKS: u64 = 16;
const DATA_BYTES: u64 = 4 << 20;
/// Blocks that writes may take.
const ROOM: u64 = DATA_BYTES / BLOCK - RESERVE_BLOCKS;

fn remove(name: &str) -> Op {
    Op::Remove(PG, object(name))
}

fn assert_clean(store: &Sim) {
    let report = fsck(store.device.image()).unwrap();
    assert!(report.is_clean(), "{report}");
}

/// Every block of an object has its byte.
fn assert_content(store: &mut Sim, name: &str, byte: u8, count: u64) {
    assert!(store.read(name, 0, u64::MAX).unwrap() == blocks(byte, count), "{name}");
}

/// Gives back all that was freed.
fn assert_empty(store: &mut Sim) {
    store.checkpoint();
    let usage = store.engine.usage();
    assert_eq!((usage.objects, usage.used_bytes, usage.free_bytes), (0, 0, DATA_BYTES));
    assert_clean(store);
}

#[test]
fn a_write_larger_than_what_is_left_is_refused_and_a_smaller_one_is_not() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    store.run(vec![write("first", 0, blocks(1, ROOM - 40))]).unwrap();
    // Some of it fits: what this very transaction took is not space that a checkpoint gives back.
    let error = store.run(vec![write("second", 0, blocks(2, 60))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store is full: 245760 bytes wanted, 163840 free; remove objects or add disks"
    );
    store.run(vec![write("second", 0, blocks(2, 40))]).unwrap();
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK);
    assert_eq!(
        store.run(vec![write("second", 17, b"no new block".to_vec())]).map_err(|error| error.to_string()),
        Ok(())
    );
    assert_content(&mut store, "first", 1, ROOM - 40);
}

#[test]
fn a_store_filled_to_the_last_byte_under_load_recovers_by_deletion_alone() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let mut rng = SplitMix64::new(1);
    // Deep, with every kind of write, until nothing fits any more.
    let mut objects: Vec<(String, u8, u64)> = Vec::new();
    let mut refused = 0;
    for round in 0..20 {
        let batch: Vec<(String, u8, u64)> = (0..100)
            .map(|number| {
                let count = [1, 2, 7, 16, 40][rng.below(5) as usize];
                (format!("object-{round}-{number}"), (round * 7 + number) as u8, count)
            })
            .collect();
        for (name, byte, count) in &batch {
            store.submit(vec![write(name, 0, blocks(*byte, *count))]);
        }
        for (object, result) in batch.into_iter().zip(store.finish()) {
            match result {
                Ok(()) => objects.push(object),
                Err(error @ TransactionError::NoSpace { .. }) => {
                    refused += 1;
                    let error = error.to_string();
                    assert!(error.starts_with("the store is full: "), "{error}");
                    assert!(error.ends_with(" free; remove objects or add disks"), "{error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK, "to the last byte");
    assert!(refused > 1000, "{refused} refused");
    // Opened anew it is as full, and as whole.
    let mut store = Sim::on(store.device.image());
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK);
    for (name, byte, count) in &objects {
        assert_content(&mut store, name, *byte, *count);
    }
    assert_clean(&store);
    // In one go: a write that follows a removal gets the room of it.
    let (gone, kept) = objects.split_at(objects.len() / 2);
    for (name, _, count) in gone {
        store.submit(vec![remove(name)]);
        store.submit(vec![write(&format!("{name}-again"), 0, blocks(9, *count))]);
    }
    store.finish().into_iter().for_each(|result| result.unwrap());
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK);
    for (name, byte, count) in kept {
        assert_content(&mut store, name, *byte, *count);
    }
    for (name, _, _) in kept {
        store.submit(vec![remove(name)]);
    }
    for (name, _, _) in gone {
        store.submit(vec![remove(&format!("{name}-again"))]);
    }
    store.finish().into_iter().for_each(|result| result.unwrap());
    assert_empty(&mut store);
    store.run(vec![write("whole", 0, blocks(3, ROOM))]).unwrap();
    assert_content(&mut store, "whole", 3, ROOM);
}

#[test]
fn free_space_in_single_blocks_is_used_to_the_last_of_them() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let name = |number: u64| format!("single-{number}");
    for number in 0..ROOM {
        store.submit(vec![write(&name(number), 0, blocks(number as u8, 1))]);
    }
    store.finish().into_iter().for_each(|result| result.unwrap());
    for number in (0..ROOM).step_by(2) {
        store.submit(vec![remove(&name(number))]);
    }
    store.finish().into_iter().for_each(|result| result.unwrap());
    store.checkpoint();
    let free = store.engine.usage().free_bytes / BLOCK - RESERVE_BLOCKS;
    assert_eq!(free, ROOM / 2);
    let error = store.run(vec![write("large", 0, blocks(1, free + 1))]).unwrap_err();
    assert!(matches!(error, TransactionError::NoSpace { .. }), "{error}");
    // Long enough to go to fresh blocks, of which no two are neighbours.
    store.run(vec![write("large", 0, blocks(0xaa, free))]).unwrap();
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK);
    let mut store = Sim::on(store.device.image());
    assert_content(&mut store, "large", 0xaa, free);
    (1..ROOM).step_by(2).for_each(|number| assert_content(&mut store, &name(number), number as u8, 1));
    assert_clean(&store);
    let error = store.run(vec![write("more", 0, blocks(1, 1))]).unwrap_err();
    assert!(matches!(error, TransactionError::NoSpace { .. }), "{error}");
    for number in (1..ROOM).step_by(2) {
        store.submit(vec![remove(&name(number))]);
    }
    store.submit(vec![remove("large")]);
    store.finish().into_iter().for_each(|result| result.unwrap());
    assert_empty(&mut store);
}

#[test]
fn a_full_store_of_clones_is_cut_and_emptied() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    store.run(vec![write("base", 0, blocks(5, 60))]).unwrap();
    let clone = |target: &str| Op::Clone { pg: PG, source: object("base"), target: object(target) };
    for number in 0..20 {
        store.run(vec![clone(&format!("clone-{number}"))]).unwrap();
    }
    store.run(vec![write("filler", 0, blocks(6, ROOM - 60))]).unwrap();
    let error = store.run(vec![write("clone-0", 0, blocks(7, 1))]).unwrap_err();
    assert!(matches!(error, TransactionError::NoSpace { .. }), "a shared block is not written over: {error}");
    // The edges of what is cut want blocks of their own: they come out of the reserve, while it lasts.
    let mut cut = 0;
    for number in 0..20 {
        let ops =
            vec![Op::Zero { pg: PG, object: object(&format!("clone-{number}")), offset: 100, len: 50_000 }];
        match store.run(ops) {
            Ok(()) => cut += 1,
            Err(TransactionError::NoSpace { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(cut, RESERVE_BLOCKS / 2, "two edges each");
    // Removing takes nothing.
    for number in 0..20 {
        store.run(vec![remove(&format!("clone-{number}"))]).unwrap();
    }
    assert_content(&mut store, "base", 5, 60);
    store.checkpoint();
    assert_eq!(store.engine.usage().free_bytes, RESERVE_BLOCKS * BLOCK);
    store.run(vec![remove("filler")]).unwrap();
    store.run(vec![write("base", 0, blocks(7, 1))]).unwrap();
    store.run(vec![remove("base")]).unwrap();
    assert_empty(&mut store);
}

#[test]
fn a_full_index_says_so_and_recovers_by_deletion_alone() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let value = blocks(3, 1);
    let mut objects = Vec::new();
    let mut refused = 0;
    for round in 0..10 {
        for number in 0..40 {
            let entries = vec![(format!("key-{number}").into(), value.clone())];
            store.submit(vec![Op::OmapSet(PG, object(&format!("object-{round}-{number}")), entries)]);
        }
        for (number, result) in store.finish().into_iter().enumerate() {
            match result {
                Ok(()) => objects.push((format!("object-{round}-{number}"), format!("key-{number}"))),
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.to_string(), "the index of the store is full: remove objects");
                }
            }
        }
    }
    assert!(refused > 200 && objects.len() > 40, "{refused} refused, {} kept", objects.len());
    let usage = store.engine.usage();
    assert!(usage.index_used_bytes <= usage.index_bytes);
    let mut store = Sim::on(store.device.image());
    for (name, key) in &objects {
        let found = store.engine.omap_get(PG, &object(name), &[key.clone().into()]).unwrap();
        assert_eq!(found, [(key.clone().into(), value.clone())]);
    }
    assert_clean(&store);
    for (at, (name, key)) in objects.iter().enumerate() {
        let op = match at % 3 {
            0 => Op::OmapRemove(PG, object(name), vec![key.clone().into()]),
            1 => Op::OmapClear(PG, object(name)),
            _ => remove(name),
        };
        store.submit(vec![op]);
    }
    store.finish().into_iter().for_each(|result| result.unwrap());
    store.checkpoint();
    let entries = vec![("again".into(), value.clone())];
    store.run(vec![Op::OmapSet(PG, object("again"), entries)]).unwrap();
    assert_clean(&store);
}

/// As an OSD does it: each change is noted in one object's omap, removals, too.
#[test]
fn a_removal_that_is_noted_has_the_reserve_of_the_index() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let note = |number: u64, len: usize| {
        let (key, value) = (format!("{number:08}").into_bytes(), vec![7; len]);
        Op::OmapSet(PG, object("log"), vec![(key.into(), value.into())])
    };
    store.run(vec![Op::Touch(PG, object("log"))]).unwrap();
    for number in 0..200 {
        store.run(vec![write(&format!("o{number}"), 0, blocks(1, 1))]).unwrap();
    }
    let mut number = 0;
    let error = loop {
        number += 1;
        if let Err(error) = store.run(vec![note(number, 1 << 10)]) {
            break error;
        }
    };
    assert!(matches!(error, TransactionError::IndexFull), "{error}");
    let usage = store.engine.usage();
    let left = usage.index_bytes - usage.index_reserve_bytes - usage.index_settled_bytes;
    assert!(left < 2 << 10, "{left} bytes that not only removals may take");
    for at in 0..200 {
        number += 1;
        store.run(vec![remove(&format!("o{at}")), note(number, 300)]).unwrap();
    }
    number += 1;
    store.run(vec![Op::OmapClear(PG, object("log"))]).unwrap();
    store.run(vec![note(number, 1 << 10)]).unwrap();
    assert_clean(&store);
}

#[test]
fn what_waits_counts_as_what_it_may_take() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    store.submit(vec![write("a", 1, blocks(1, 2))]);
    let usage = store.engine.usage();
    assert_eq!((usage.used_bytes, usage.queued_bytes), (0, 3 * BLOCK), "of three blocks a part each");
    assert!(usage.index_used_bytes > usage.index_settled_bytes);
    store.finish().into_iter().for_each(|result| result.unwrap());
    let usage = store.engine.usage();
    assert_eq!((usage.used_bytes, usage.queued_bytes), (3 * BLOCK, 0));
}
