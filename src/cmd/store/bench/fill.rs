//! Bringing a store to age: nearly full, and its free space in pieces.

use super::load::{Content, OBJECT_BYTES, Request, SMALL_BYTES, object, run, settle};
use anyhow::Context;
use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, ReadRequest, Store, Transaction};
use cairn_types::{ObjectId, PgId, SnapId};
use std::sync::Arc;

/// What fills the space left beside the objects that are measured.
const KIND: &str = "fill";
/// 4 KiB holes punched in each object: 1/16 of it.
const HOLES: u64 = 64;
/// 4 KiB overwrites of each object.
const OVERWRITES: u64 = 16;
/// Of so many objects, one has a snapshot while it is overwritten, which is removed then.
const SNAPSHOT_SHARE: u64 = 8;
const DEPTH: usize = 8;
const SMALL_DEPTH: usize = 32;

/// Writes objects of 4 MiB until `percent` of the data space is used, makes holes in them and overwrites
/// them, some under a snapshot, and fills again what that freed.
pub fn fill(
    store: &Store,
    percent: u64,
    content: &Arc<Content>,
    rng: &mut SplitMix64,
    note: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let first = fill_up(store, percent, 0, content, rng)?;
    note(&format!("filled to {percent} % with {first} objects"));
    fragment(store, first, content, rng).context("while fragmenting")?;
    let more = fill_up(store, percent, first, content, rng)?;
    note(&format!("fragmented by holes, overwrites and snapshots, filled again with {more} objects"));
    Ok(())
}

/// Returns how many objects it took.
fn fill_up(
    store: &Store,
    percent: u64,
    first: u64,
    content: &Arc<Content>,
    rng: &mut SplitMix64,
) -> anyhow::Result<u64> {
    settle(store)?;
    let usage = store.usage()?;
    let wanted = (usage.data_bytes / 100 * percent).saturating_sub(usage.used_bytes);
    let count = wanted / OBJECT_BYTES;
    write_whole(store, (first..first + count).map(|number| object(KIND, number)), content, rng)
        .with_context(|| format!("while filling to {percent} %"))?;
    Ok(count)
}

/// Writes objects from end to end.
pub fn write_whole(
    store: &Store,
    mut objects: impl Iterator<Item = (PgId, ObjectId)> + Send + 'static,
    content: &Arc<Content>,
    rng: &mut SplitMix64,
) -> anyhow::Result<()> {
    let (content, mut rng) = (Arc::clone(content), SplitMix64::new(rng.next_u64()));
    run(store, DEPTH, move || Some(content.write(&objects.next()?, 0, OBJECT_BYTES, &mut rng)))?;
    settle(store)
}

/// Reads objects from end to end.
pub fn read_whole(store: &Store, objects: &Arc<[(PgId, ObjectId)]>) -> anyhow::Result<()> {
    let (objects, mut next) = (Arc::clone(objects), 0);
    run(store, DEPTH, move || {
        let (pg, object) = objects.get(next)?.clone();
        next += 1;
        Some(Request::Read(ReadRequest { pg, object, offset: 0, len: OBJECT_BYTES }))
    })?;
    Ok(())
}

/// What a year of discards, snapshots and overwrites does, in short.
fn fragment(store: &Store, objects: u64, content: &Arc<Content>, rng: &mut SplitMix64) -> anyhow::Result<()> {
    let place = |rng: &mut SplitMix64| rng.below(OBJECT_BYTES / SMALL_BYTES) * SMALL_BYTES;
    let of_snapshot = |number| {
        let (pg, head) = object(KIND, number);
        (pg, head.clone(), ObjectId { snap: SnapId(1), ..head })
    };
    // Holes first, so that there is room for what the others take.
    each(store, objects, 1, rng, move |number, rng| {
        let (pg, object) = object(KIND, number);
        let hole = |_| Op::Zero { pg, object: object.clone(), offset: place(rng), len: SMALL_BYTES };
        Request::Write(0, Transaction { ops: (0..HOLES).map(hole).collect() })
    })?;
    settle(store)?;
    let snapshots = objects / SNAPSHOT_SHARE;
    each(store, snapshots, 1, rng, move |number, _| {
        let (pg, source, target) = of_snapshot(number * SNAPSHOT_SHARE);
        Request::Write(0, Transaction { ops: vec![Op::Clone { pg, source, target }] })
    })?;
    let content = Arc::clone(content);
    each(store, objects, OVERWRITES, rng, move |number, rng| {
        content.write(&object(KIND, number), place(rng), SMALL_BYTES, rng)
    })?;
    each(store, snapshots, 1, rng, move |number, _| {
        let (pg, _, target) = of_snapshot(number * SNAPSHOT_SHARE);
        Request::Write(0, Transaction { ops: vec![Op::Remove(pg, target)] })
    })
}

/// Makes `times` requests for each object, in their order.
fn each(
    store: &Store,
    objects: u64,
    times: u64,
    rng: &mut SplitMix64,
    mut request: impl FnMut(u64, &mut SplitMix64) -> Request + Send + 'static,
) -> anyhow::Result<()> {
    let mut rng = SplitMix64::new(rng.next_u64());
    let mut steps = (0..objects).flat_map(move |number| (0..times).map(move |_| number));
    run(store, SMALL_DEPTH, move || Some(request(steps.next()?, &mut rng)))?;
    Ok(())
}
