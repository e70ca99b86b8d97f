//! The bytes of every structure as version 1 has them, in `tests/golden/`, and what decoders make of them
//! when they are cut, flipped or longer than they should be.

use super::mutation::Mutation;
use super::record::{HEADER_BYTES, Header};
use super::superblock::{Reserved, Superblock};
use super::values::{Checkpoint, Head, Shard, Slot};
use crate::alloc::Allocator;
use crate::device::sim::{SimDevice, SimOptions};
use crate::device::{Wait, checked};
use crate::engine::runner::Inline;
use crate::format::codec::{Malformed, Put, Reader};
use crate::format::features::Features;
use crate::key::{object_key, object_of, pg_key};
use crate::{CreateOptions, Engine, Op, OpenOptions, Transaction};
use bytes::Bytes;
use cairn_types::{ObjectId, PgId, PoolId, SnapId};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

const STORE: [u8; 16] = *b"sixteen bytes it";
const PG: PgId = PgId { pool: PoolId(-2), seed: 0x0102_0304 };

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("hex")
}

/// Lines of 32 bytes; lines that are one byte over and over are `BYTE * LINES`.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut lines = bytes.chunks(32).peekable();
    while let Some(line) = lines.next() {
        let is_even = line.len() == 32 && line.iter().all(|byte| *byte == line[0]);
        if is_even && lines.peek() == Some(&line) {
            let mut count = 1;
            while lines.next_if_eq(&line).is_some() {
                count += 1;
            }
            writeln!(text, "{:02x} * {count}", line[0]).unwrap();
        } else {
            line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

/// The structure has the bytes that are on file. `CAIRN_GOLDEN=write` puts them there.
fn golden(name: &str, bytes: &[u8]) {
    if std::env::var("CAIRN_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(file(name), to_text(bytes)).unwrap();
    }
    let wanted = std::fs::read_to_string(file(name))
        .unwrap_or_else(|error| panic!("{}: {error}", file(name).display()));
    assert!(
        to_text(bytes) == wanted,
        "the bytes of {name} on the device have changed. Stores that exist could not be read any more: raise \
         the version in format/superblock.rs (or add a feature bit), say in docs/format/store.md what changed, \
         and only then run the tests once with CAIRN_GOLDEN=write.\nwas:\n{wanted}is:\n{}",
        to_text(bytes)
    );
}

/// Whatever `decode` takes of damaged forms of `bytes`, it must be what these bytes say and nothing else:
/// encoded again they come out the same. `mend` puts checksums right, so that more than these are tested.
fn refused_or_the_same(
    name: &str,
    bytes: &[u8],
    mend: impl Fn(&mut [u8]),
    recode: impl Fn(&[u8]) -> Option<Vec<u8>>,
) {
    assert_eq!(recode(bytes).as_deref(), Some(bytes), "{name} itself");
    let check = |damaged: &[u8], what: &dyn Fn() -> String| {
        if let Some(again) = recode(damaged) {
            assert!(again == damaged, "{name}, {}: taken, but as {again:02x?}", what());
        }
    };
    for len in 0..bytes.len() {
        check(&bytes[..len], &|| format!("cut at {len}"));
    }
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged, &|| format!("bit {bit} flipped"));
        mend(&mut damaged);
        check(&damaged, &|| format!("bit {bit} flipped under a right checksum"));
    }
    for byte in [0, 1, 0xff] {
        let mut damaged = bytes.to_vec();
        damaged.push(byte);
        check(&damaged, &|| format!("{byte} added"));
    }
}

/// For what has no checksum of its own.
fn nothing(_: &mut [u8]) {}

fn superblock() -> Superblock {
    Superblock {
        features: Features { compat: 0x8000_0000_0000_0001, ro_compat: 2, incompat: 0 },
        store: STORE,
        cluster: *b"the cluster's id",
        osd: -1,
        device_bytes: 16 << 20,
        log_unit_bytes: 512,
        log_offset: 4096,
        log_bytes: 1 << 20,
        index_offset: (1 << 20) + 8192,
        index_bytes: 4 << 20,
        data_offset: (5 << 20) + 8192,
        data_blocks: 2814,
        reserved: Reserved::default(),
    }
}

#[test]
fn the_superblock() {
    let bytes = superblock().encode();
    golden("superblock", &bytes);
    let (sector, rest) = bytes.split_at(512);
    assert!(rest.iter().all(|byte| *byte == 0));
    let mend = |bytes: &mut [u8]| {
        let crc = crc32fast::hash(&bytes[..508]);
        bytes[508..].copy_from_slice(&crc.to_le_bytes());
    };
    // What follows the sector is no part of it.
    let recode =
        |bytes: &[u8]| Some(Superblock::decode(bytes).ok()??.encode()[..bytes.len().min(513)].to_vec());
    refused_or_the_same("superblock", sector, mend, |bytes| recode(bytes).filter(|_| bytes.len() <= 512));
}

#[test]
fn the_header_of_a_record() {
    let header =
        Header { seq: 0x0102_0304_0506_0708, count: 3, body_bytes: 0x0001_0203, body_crc: 0xdead_beef };
    let bytes = header.encode(&STORE);
    golden("record_header", &bytes);
    let mend = |bytes: &mut [u8]| {
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    };
    refused_or_the_same("record header", &bytes, mend, |bytes| {
        (bytes.len() <= HEADER_BYTES).then_some(())?;
        Some(Header::decode(bytes, &STORE)?.encode(&STORE).to_vec())
    });
    assert_eq!(Header::decode(&bytes, b"another store's."), None);
}

#[test]
fn a_record_as_the_engine_writes_it() {
    let device = SimDevice::new(16 << 20, SimOptions::default());
    let blocking = device.handle().blocking();
    let options = CreateOptions { store: STORE, log_bytes: Some(128 << 10), ..CreateOptions::default() };
    let superblock = Engine::<SimDevice>::create(Arc::clone(&blocking), &options).unwrap();
    let runner = Box::new(Inline::default());
    let mut engine = Engine::open(device, &OpenOptions::default(), runner).unwrap();
    let data = Bytes::from(vec![0xa5; 4096]);
    let write = Op::Write { pg: PG, object: object(), offset: 8192, data, checksums: None };
    engine.submit(1, Transaction { ops: vec![Op::CreateCollection(PG)] }).unwrap();
    engine.submit(2, Transaction { ops: vec![write] }).unwrap();
    while engine.unfinished() > 0 {
        engine.poll(Wait::Event, &mut Vec::new()).unwrap();
    }
    let mut bytes = vec![0; 5120];
    blocking.read_at(superblock.log_offset, &mut bytes).unwrap();
    golden("record", &bytes);
}

fn head() -> Head {
    Head {
        nid: 0x0102_0304_0506_0708,
        size: 0x0012_3456,
        omap: 9,
        omap_header: Bytes::from_static(b"header"),
        xattrs: [("_".into(), Bytes::from_static(b"info")), ("snapset".into(), Bytes::new())].into(),
    }
}

fn recode_head(bytes: &[u8]) -> Option<Vec<u8>> {
    Head::decode(Bytes::copy_from_slice(bytes)).ok().map(|head| head.encode())
}

#[test]
fn heads() {
    golden("head", &head().encode());
    refused_or_the_same("head", &head().encode(), nothing, recode_head);
    let new = Head { nid: 1, ..Head::default() }.encode();
    golden("head_of_a_new_object", &new);
    refused_or_the_same("head of a new object", &new, nothing, recode_head);
}

/// Two runs that a flipped bit can join, a shared one, a hole between, and the last block.
fn shard() -> Shard {
    let mut shard = Shard::default();
    let mut set = |block: usize, unit, shared| {
        shard.slots[block] = Slot { unit, crc: 0x1000_0000 + block as u32, shared };
    };
    set(0, 0x0100, false);
    set(1, 0x0101, false);
    set(2, 0x0103, false);
    set(3, 0x0104, true);
    set(9, 0x0a_0b0c_0d0e, true);
    set(255, 7, false);
    shard
}

fn recode_shard(bytes: &[u8]) -> Option<Vec<u8>> {
    Shard::decode(Bytes::copy_from_slice(bytes)).ok().map(|shard| shard.encode())
}

#[test]
fn shards() {
    golden("shard", &shard().encode());
    refused_or_the_same("shard", &shard().encode(), nothing, recode_shard);
    let mut whole = Shard::default();
    for (block, slot) in whole.slots.iter_mut().enumerate() {
        *slot = Slot { unit: 5000 + block as u64, crc: block as u32, shared: false };
    }
    golden("shard_in_one_run", &whole.encode());
    refused_or_the_same("shard in one run", &whole.encode(), nothing, recode_shard);
}

#[test]
fn the_checkpoint() {
    let checkpoint = Checkpoint {
        next_seq: 0x0102_0304_0506_0708,
        log_position: 0x0a00,
        next_nid: 0x1112_1314_1516_1718,
        objects: 77,
        index_bytes: 123_456,
    };
    golden("checkpoint", &checkpoint.encode());
    refused_or_the_same("checkpoint", &checkpoint.encode(), nothing, |bytes| {
        Checkpoint::decode(Bytes::copy_from_slice(bytes)).ok().map(|checkpoint| checkpoint.encode())
    });
}

fn object() -> ObjectId {
    ObjectId {
        pool: PoolId(3),
        hash: 0x1234_5678,
        namespace: "space".into(),
        key: "a\0b".into(),
        name: "rbd_data.1".into(),
        snap: SnapId::HEAD,
    }
}

#[test]
fn keys() {
    golden("key_collection", &pg_key(PG));
    let key = object_key(PG, &object());
    golden("key_object", &key);
    refused_or_the_same("object key", &key, nothing, |key| {
        object_of(key).map(|(pg, object)| object_key(pg, &object).to_vec())
    });
}

/// Their form is the index library's: this is to see that an update keeps it.
#[test]
fn keys_of_the_index_library() {
    fn bytes<'a, V: redb::Value>(value: &'a V::SelfType<'a>) -> Vec<u8> {
        V::as_bytes(value).as_ref().to_vec()
    }
    golden("key_meta", &bytes::<u8>(&0));
    golden("key_shard", &bytes::<(u64, u32)>(&(0x0102_0304_0506_0708, 0x090a_0b0c)));
    golden("key_omap", &bytes::<(u64, &[u8])>(&(0x0102_0304_0506_0708, &b"key"[..])));
    golden("key_refs", &bytes::<u64>(&0x0102_0304_0506_0708));
    golden("value_refs", &bytes::<u32>(&0x0102_0304));
    golden("key_bitmap", &bytes::<u32>(&0x0102_0304));
}

fn mutations() -> Vec<(&'static str, Mutation)> {
    let key = || object_key(PG, &object());
    let (nid, block, unit, count) = (0x0102_0304_0506_0708, 5, 0x0a0b_0c0d, 3);
    let crcs = vec![0x1111_1111, 0x2222_2222];
    let payload = Bytes::from([[0xa5; 4096], [0x5a; 4096]].concat());
    vec![
        ("mutation_01_put_collection", Mutation::PutCollection(PG)),
        ("mutation_02_drop_collection", Mutation::DropCollection(PG)),
        ("mutation_03_put_head", Mutation::PutHead { key: key(), head: head().into() }),
        ("mutation_04_drop_head", Mutation::DropHead { key: key() }),
        (
            "mutation_05_map_logged",
            Mutation::Map { nid, block, unit, crcs: crcs.clone().into(), payload: Some(payload) },
        ),
        ("mutation_06_map_in_place", Mutation::Map { nid, block, unit, crcs: crcs.into(), payload: None }),
        ("mutation_07_unmap", Mutation::Unmap { nid, block, count }),
        ("mutation_08_share", Mutation::Share { from_nid: 9, from_block: 1, nid, block, count }),
        ("mutation_09_put_omap", Mutation::PutOmap { omap: 9, key: "key".into(), value: "value".into() }),
        ("mutation_10_drop_omap_key", Mutation::DropOmapKey { omap: 9, key: "key".into() }),
        ("mutation_11_drop_omap", Mutation::DropOmap { omap: 9 }),
    ]
}

fn recode_mutation(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let mutation = Mutation::decode(&mut reader).ok()?;
    reader.end().ok()?;
    let mut out = Vec::new();
    mutation.encode(&mut out);
    Some(out)
}

#[test]
fn every_mutation() {
    for (name, mutation) in mutations() {
        let mut bytes = Vec::new();
        mutation.encode(&mut bytes);
        golden(name, &bytes);
        // What a payload holds concerns nobody; the first of each block stand for it.
        if !name.contains("logged") {
            refused_or_the_same(name, &bytes, nothing, recode_mutation);
        }
        assert_eq!(Mutation::decode(&mut Reader::new(Bytes::from(bytes))), Ok(mutation));
    }
    for kind in (0..=u8::MAX).filter(|kind| !(1..=11).contains(kind)) {
        let mut reader = Reader::new(Bytes::from([vec![kind], vec![1; 64]].concat()));
        assert_eq!(Mutation::decode(&mut reader), Err(Malformed), "kind {kind}");
    }
}

#[test]
fn a_mutation_with_payload_is_cut_and_flipped_where_it_means_something() {
    let mut bytes = Vec::new();
    mutations()[4].1.encode(&mut bytes);
    let fields = bytes.len() - 2 * 4096;
    for len in (0..fields + 2).chain(bytes.len() - 2..bytes.len()) {
        assert_eq!(recode_mutation(&bytes[..len]), None, "cut at {len}");
    }
    for bit in 0..8 * (fields + 1) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Some(again) = recode_mutation(&damaged) {
            assert!(again == damaged, "bit {bit} flipped");
        }
    }
}

#[test]
fn a_piece_of_the_free_map() {
    let (base, blocks) = (100, 1000);
    let mut alloc = Allocator::new(base, blocks);
    for unit in [100, 101, 107, 108, 163, 164, 1099] {
        assert!(alloc.mark_used(unit));
    }
    let bytes = alloc.chunk(0);
    golden("bitmap", &bytes);
    refused_or_the_same("free map", &bytes, nothing, |bytes| {
        let mut alloc = Allocator::new(base, blocks);
        alloc.load_chunk(0, bytes).then(|| alloc.chunk(0))
    });
}

#[test]
fn the_index_regions_head_and_checksum_table() {
    golden("index_region_head", &checked::head(0x0000_0001_0000_1000, 0x1111_1111, 0x2222_2222));
    let entries: Vec<u32> = (0..1000).map(|entry| 0x0100_0000 + entry).collect();
    golden("index_region_table", &checked::table_block(2, &entries));
}

#[test]
fn the_index_region_is_refused_whatever_bit_of_its_head_or_table_is_wrong() {
    const LEN: u64 = 64 * 4096;
    let device = SimDevice::new(LEN, SimOptions::default());
    let (handle, blocking) = (device.handle(), device.handle().blocking());
    checked::CheckedRegion::create(Arc::clone(&blocking), 0, LEN).unwrap();
    let open = || checked::CheckedRegion::open(Arc::clone(&blocking), 0, LEN);
    assert!(open().is_ok());
    // The head's fields, and the block of the table.
    for offset in (0..36).chain(4096..8192) {
        for bit in 0..8 {
            handle.rot(offset, bit);
            assert!(open().is_err(), "bit {bit} of byte {offset} flipped");
            handle.rot(offset, bit);
        }
    }
    assert!(open().is_ok());
    // A version, a word and a length that nobody wrote, under a right checksum.
    for (at, word) in [(8, 2_u32), (12, 1), (16, 1 << 31), (20, 1)] {
        let mut head = checked::head(0, 0, 0);
        head[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let crc = crc32fast::hash(&head[..32]);
        head[32..36].copy_from_slice(&crc.to_le_bytes());
        handle.scribble(0, &head);
        assert!(open().is_err(), "{word} at {at}");
    }
}

/// An update of the index library that writes another format makes stores that older versions cannot read.
#[test]
fn the_index_library_keeps_its_file_format() {
    let device = SimDevice::new(16 << 20, SimOptions::default());
    let blocking = device.handle().blocking();
    let superblock = Engine::<SimDevice>::create(Arc::clone(&blocking), &CreateOptions::default()).unwrap();
    let tables = (superblock.index_bytes / 4096 - 1).div_ceil(1017);
    let mut first = vec![0; 320];
    blocking.read_at(superblock.index_offset + (1 + tables) * 4096, &mut first).unwrap();
    assert_eq!(&first[..9], b"redb\x1a\x0a\xa9\x0d\x0a");
    assert_eq!(first[12..16], 4096_u32.to_le_bytes(), "page size");
    let slot = 64 + 128 * usize::from(first[9] & 1);
    assert_eq!(first[slot], 3, "the file format of the index library has changed: see docs/format/store.md");
}

#[test]
fn a_length_is_checked_before_memory_is_taken_for_it() {
    let long = |kind: u8, fields: &[u64]| {
        let mut out = vec![kind];
        fields.iter().for_each(|field| out.put_u64(*field));
        out.put_u32(u32::MAX);
        out
    };
    // A key, a key and a head, checksums, an omap's key.
    for bytes in [long(4, &[]), long(3, &[]), long(5, &[1, 0, 5]), long(6, &[1, 0, 5]), long(10, &[1])] {
        assert_eq!(recode_mutation(&bytes), None);
    }
    // The most blocks an object has, and none of their checksums.
    let mut bytes = long(6, &[1, 0, 5]);
    bytes.truncate(25);
    bytes.put_u32(1 << 20);
    assert_eq!(recode_mutation(&bytes), None);
    // A head of 2^32 − 1 attributes, and a shard of as many runs.
    let mut bytes = Head::default().encode();
    let at = bytes.len() - 4;
    bytes[at..].fill(0xff);
    assert_eq!(recode_head(&bytes), None);
    assert_eq!(recode_shard(&[1, 0xff, 0xff, 0xff, 0xff]), None);
}

#[test]
fn numbers_that_nobody_can_count_to_are_refused() {
    for head in [
        Head { nid: u64::MAX, ..head() },
        Head { omap: u64::MAX, ..head() },
        Head { size: crate::limits::OBJECT_BYTES_MAX + 1, ..head() },
    ] {
        assert_eq!(recode_head(&head.encode()), None, "{head:?}");
    }
    let good = Checkpoint { next_seq: 1, next_nid: 1, ..Checkpoint::default() };
    for checkpoint in [
        Checkpoint { next_seq: 0, ..good },
        Checkpoint { next_seq: u64::MAX, ..good },
        Checkpoint { next_nid: 0, ..good },
        Checkpoint { next_nid: u64::MAX, ..good },
    ] {
        assert_eq!(Checkpoint::decode(checkpoint.encode().into()), Err(Malformed), "{checkpoint:?}");
    }
    for seq in [0, u64::MAX] {
        let header = Header { seq, count: 2, body_bytes: 8, body_crc: 0 };
        assert_eq!(Header::decode(&header.encode(&STORE), &STORE), None);
    }
    // The byte position of a unit has to be a number.
    let unit = 1_u64 << 52;
    let mut bytes = vec![1];
    bytes.put_u32(1);
    bytes.extend_from_slice(&[0, 0]);
    bytes.put_u64(unit << 1);
    bytes.put_u32(0);
    assert_eq!(recode_shard(&bytes), None);
    let mut bytes = Vec::new();
    Mutation::Map { nid: 1, block: 0, unit, crcs: vec![0].into(), payload: None }.encode(&mut bytes);
    assert_eq!(recode_mutation(&bytes), None);
}

#[test]
fn attributes_out_of_order_twice_or_too_long_are_refused() {
    let with = |xattrs: &[(&str, usize)]| {
        let mut out = Head::default().encode();
        out.truncate(out.len() - 4);
        out.put_u32(xattrs.len() as u32);
        for (name, len) in xattrs {
            out.put_bytes(name.as_bytes());
            out.put_bytes(&vec![0; *len]);
        }
        recode_head(&out)
    };
    assert!(with(&[("a", 1), ("b", 40 << 10)]).is_some());
    assert!(with(&[("b", 1), ("a", 1)]).is_none());
    assert!(with(&[("a", 1), ("a", 1)]).is_none());
    assert!(with(&[("a", 40 << 10), ("b", 40 << 10)]).is_none());
}
