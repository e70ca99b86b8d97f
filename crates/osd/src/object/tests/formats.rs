//! What is stored and sent, to the byte, and that no bytes whatever make a decoder fail otherwise than with an error.

use super::harness::{Cluster, PG, hex, object};
use crate::object::state::encode_watchers;
use crate::object::{BadChange, BadObject, Info, ObjectState, apply, encode_version, pack, unpack};
use bytes::Bytes;
use cairn_pg::{Blob, Version};
use cairn_store::{Op as StoreOp, Stat, Transaction};
use cairn_types::{Epoch, Timestamp};
use cairn_wire::op::{Op, OpKind, WatchAction, Watcher};
use cairn_wire::{Payload, Segment};
use proptest::prelude::*;

const VERSION: Version = Version { epoch: Epoch(3), version: 0x0102 };

#[test]
fn the_attributes_of_an_object_are_these_bytes() {
    assert_eq!(encode_version(VERSION), hex("03000000 0201000000000000"));
    let info = Info {
        user_version: 5,
        mtime: Timestamp(0x0102),
        expected_object_len: 4 << 20,
        expected_write_len: 4096,
    };
    let expected = hex("01 0500000000000000 0201000000000000 0000400000000000 0010000000000000");
    assert_eq!(info.encode(), expected);
    let watcher =
        |addr: &str| Watcher { client: 7, cookie: 9, addr: addr.parse().unwrap(), timeout_ms: 30_000 };
    let expected = hex(
        "01 02000000
         0700000000000000 0900000000000000 30750000 1100000000000000 0000 04 0a000001
         0700000000000000 0900000000000000 30750000 1100000000000000 921a 06 fd000000000000000000000000000001",
    );
    let watchers = [watcher("10.0.0.1:0/17"), watcher("[fd00::1]:6802/17")];
    assert_eq!(encode_watchers(&watchers), expected);
    let xattrs = [
        ("_v", encode_version(VERSION)),
        ("_i", info.encode()),
        ("_w", expected),
        (".user", Bytes::from_static(b"x")),
    ];
    let xattrs = xattrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let stat = Stat { size: 1, xattrs, omap_header: Bytes::new() };
    let state = ObjectState::from_stored(Some(stat.clone())).unwrap();
    assert_eq!((state.stored_version(), *state.info()), (VERSION, info));
    assert_eq!(state.watchers(), watchers);
    assert_eq!(state.xattr("user"), Some(&Bytes::from_static(b"x")));
    for (name, error) in
        [("_v", BadObject::Missing { name: "_v" }), ("_i", BadObject::Missing { name: "_i" })]
    {
        let mut stat = stat.clone();
        stat.xattrs.remove(name);
        assert_eq!(ObjectState::from_stored(Some(stat)), Err(error));
    }
    let mut stat = stat;
    stat.xattrs.insert("_x".to_owned(), Bytes::new());
    assert_eq!(ObjectState::from_stored(Some(stat)), Err(BadObject::Unknown { name: "_x".to_owned() }));
}

/// A vector with a step of every kind, and its change.
fn every_step() -> Blob {
    let mut cluster = Cluster::new();
    let id = object("object");
    cluster.write(&id, 0, vec![1; 8192]);
    let entries = vec![(Bytes::from_static(b"k"), Bytes::from_static(b"v"))];
    let ops: Vec<Op> = [
        OpKind::Delete,
        OpKind::Create { exclusive: false },
        OpKind::Write { offset: 4096, len: 4096 },
        OpKind::Zero { offset: 1, len: 2 },
        OpKind::Truncate { size: 5000 },
        OpKind::SetXattr { name: "a".to_owned(), value: Bytes::from_static(b"b") },
        OpKind::RemoveXattr { name: "a".to_owned() },
        OpKind::OmapSet { entries: entries.clone().into() },
        OpKind::OmapRemove { keys: vec![Bytes::from_static(b"k")].into() },
        OpKind::OmapRemoveRange { first: Bytes::from_static(b"a"), end: Bytes::from_static(b"b") },
        OpKind::OmapClear,
        OpKind::OmapSetHeader { value: Bytes::from_static(b"h") },
        OpKind::Watch { cookie: 9, action: WatchAction::Watch { timeout_ms: 30_000 } },
    ]
    .map(Op::from)
    .into();
    let payload = Payload::of(4096, vec![2; 4096].into());
    cluster.run(&id, ops, payload).change.unwrap()
}

#[test]
fn a_change_is_these_bytes() {
    let change = every_step();
    let expected = hex("01 00
         0c
         01
         02 0010000000000000 00100000
         03 0100000000000000 0200000000000000
         04 8813000000000000
         05 0200 2e61 01000000 62
         06 0200 2e61
         07 01000000 01000000 6b 01000000 76
         08 01000000 01000000 6b
         09 01000000 61 01000000 62
         0a
         0b 01000000 68
         05 0200 5f77 28000000
            01 01000000 0410000000000000 0900000000000000 30750000 0807060504030201 0000 04 0a010203
         05 0200 5f69 21000000
            01 6600000000000000 0068e5cf8b010000 0000000000000000 0000000000000000");
    assert_eq!(change.meta, expected);
    let mut transaction = Transaction::default();
    apply(&change, PG, &object("o"), Some(VERSION), &mut transaction).unwrap();
    let sums: Vec<_> = transaction.ops.iter().filter(|op| matches!(op, StoreOp::Write { .. })).collect();
    // The client's bytes and its checksum, not copies.
    let StoreOp::Write { data, checksums, .. } = sums[0] else { panic!() };
    assert_eq!(data.as_ptr(), change.data.segments()[0].data().as_ptr());
    assert_eq!(*checksums, Some([crc32fast::hash(&[2; 4096])].as_slice().into()));
    let Some(StoreOp::SetXattrs(_, _, last)) = transaction.ops.last() else { panic!() };
    assert_eq!(last.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["_w", "_i", "_v"]);
}

fn packed() -> Blob {
    let xattrs = [("_v", encode_version(VERSION)), (".a", Bytes::from_static(b"b"))];
    let xattrs = xattrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let stat = Stat { size: 9000, xattrs, omap_header: Bytes::from_static(b"h") };
    let read = |len: usize| cairn_store::ReadData { data: vec![7; len].into(), checksums: Vec::new() };
    let omap = [(Bytes::from_static(b"k"), Bytes::from_static(b"v"))];
    pack(&stat, &[(0, 4096), (8192, 808)], &[read(4096), read(808)], &omap).unwrap()
}

#[test]
fn a_packed_object_is_these_bytes() {
    let expected = hex("01 2823000000000000
         01000000 02000000 2e61 01000000 62
         01000000 68
         01000000 01000000 6b 01000000 76
         02000000 0000000000000000 00100000 0020000000000000 28030000");
    assert_eq!(packed().meta, expected);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let change = every_step();
    let (pg, id) = (PG, object("o"));
    let mut out = Transaction::default();
    let mut run = |change: &Blob, version| {
        let result = apply(change, pg, &id, version, &mut out);
        assert!(result.is_ok() || out.ops.is_empty());
        out.ops.clear();
        result
    };
    assert_eq!(run(&change, None), Err(BadChange::Gone));
    let bare = Blob { data: Payload::none(), ..change.clone() };
    assert_eq!(run(&bare, Some(VERSION)), Err(BadChange::Data { expected: 4096 }));
    let mut more = change.clone();
    more.data.push(Segment::new(0, Bytes::from_static(b"x")).unwrap());
    assert_eq!(run(&more, Some(VERSION)), Err(BadChange::Data { expected: 0 }));
    let other = Blob::from(hex("02 00"));
    assert_eq!(run(&other, Some(VERSION)), Err(BadChange::Format { found: 2 }));
    for bytes in ["", "01", "0102", "0100ff", "010002", "010004ffffffffffffffff"] {
        assert_eq!(run(&Blob::from(hex(bytes)), Some(VERSION)), Err(BadChange::Malformed), "{bytes}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bad_bytes_are_an_error_and_leave_nothing(
        noise in proptest::collection::vec(any::<u8>(), 0..80),
        is_packed in any::<bool>(),
        at in 0usize..400,
        flip in any::<u8>(),
        cut in 0usize..400,
    ) {
        static CHANGE: std::sync::OnceLock<Blob> = std::sync::OnceLock::new();
        let good = if is_packed { packed() } else { CHANGE.get_or_init(every_step).clone() };
        let mut meta = good.meta.to_vec();
        let place = at % meta.len();
        meta[place] ^= flip;
        meta.truncate(cut.max(1));
        let mut seeded = vec![1, 0];
        seeded.extend_from_slice(&noise);
        for meta in [meta, noise, seeded] {
            let blob = Blob { meta: meta.into(), data: good.data.clone() };
            for version in [None, Some(VERSION)] {
                let mut out = Transaction::default();
                let result = apply(&blob, PG, &object("o"), version, &mut out);
                prop_assert!(result.is_ok() || out.ops.is_empty());
            }
            let mut out = Transaction::default();
            let result = unpack(&blob, PG, &object("o"), VERSION, &mut out);
            prop_assert!(result.is_ok() || out.ops.is_empty());
        }
    }

    #[test]
    fn damaged_attributes_are_an_error(name in "_[viw]", value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut xattrs: std::collections::BTreeMap<String, Bytes> = Default::default();
        xattrs.insert("_v".to_owned(), encode_version(VERSION));
        xattrs.insert("_i".to_owned(), Info::default().encode());
        xattrs.insert(name, value.into());
        let _ = ObjectState::from_stored(Some(Stat { size: 0, xattrs, omap_header: Bytes::new() }));
    }
}
