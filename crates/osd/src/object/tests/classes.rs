//! Classes: what is stored to the byte (as Ceph 16.2 stores it), and the rules of each method.

use super::harness::{Cluster, hex, object};
use bytes::Bytes;
use cairn_types::Timestamp;
use cairn_wire::ErrorCode;
use cairn_wire::Payload;
use cairn_wire::ceph::{Reader, Writer};
use cairn_wire::op::{Op, OpKind};

const HEAD: u64 = u64::MAX - 1;
const NOSYS: ErrorCode = ErrorCode(-38);
const BADF: ErrorCode = ErrorCode(-9);

fn args(fill: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::default();
    fill(&mut out);
    out.finish()
}

fn strings(texts: &[&str]) -> Bytes {
    args(|out| texts.iter().for_each(|text| _ = out.string(text)))
}

fn number(value: u64) -> Bytes {
    args(|out| _ = out.u64(value))
}

fn call(class: &str, method: &str, input: Bytes) -> Op {
    OpKind::Call { class: class.to_owned(), method: method.to_owned(), input }.into()
}

fn omap(cluster: &Cluster, id: &cairn_types::ObjectId) -> Vec<(String, Bytes)> {
    let entries = cluster.omap(id).into_iter();
    entries.map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value)).collect()
}

fn image(cluster: &mut Cluster) -> cairn_types::ObjectId {
    let header = object("rbd_header.103592f33f23");
    let input = args(|out| {
        out.u64(1 << 30).u8(22).u64(0x3d).string("rbd_data.103592f33f23").i64(-1);
    });
    let create = vec![OpKind::Create { exclusive: true }.into(), call("rbd", "create", input)];
    assert_eq!(cluster.run(&header, create, Payload::none()).code, ErrorCode::OK);
    header
}

#[test]
fn a_new_image_has_its_keys() {
    let mut cluster = Cluster::new();
    let header = image(&mut cluster);
    // NOW as seconds and nanoseconds.
    let time = hex("00d2496b 80b2e60e");
    let expected = [
        ("access_timestamp", time.clone()),
        ("create_timestamp", time.clone()),
        ("features", hex("3d00000000000000")),
        ("modify_timestamp", time.clone()),
        ("object_prefix", hex("15000000 7262645f646174612e313033353932663333663233")),
        ("order", hex("16")),
        ("size", hex("0000004000000000")),
        ("snap_seq", hex("0000000000000000")),
    ];
    assert_eq!(omap(&cluster, &header), expected.map(|(key, value)| (key.to_owned(), value)));
    let cluster = &mut cluster;
    assert_eq!(cluster.answer(&header, "rbd.get_size", number(HEAD)), hex("16 0000004000000000"));
    let features = cluster.answer(&header, "rbd.get_features", args(|out| _ = out.u64(HEAD).u8(1)));
    assert_eq!(features, hex("3d00000000000000 0100000000000000"));
    let features = cluster.answer(&header, "rbd.get_features", number(HEAD));
    assert_eq!(features, hex("3d00000000000000 3d00000000000000"));
    assert_eq!(cluster.answer(&header, "rbd.get_flags", number(HEAD)), number(0));
    let prefix = cluster.answer(&header, "rbd.get_object_prefix", "");
    assert_eq!(prefix, strings(&["rbd_data.103592f33f23"]));
    assert_eq!(cluster.answer(&header, "rbd.get_data_pool", ""), number(u64::MAX));
    assert_eq!(cluster.answer(&header, "rbd.get_create_timestamp", ""), time);
    assert_eq!(cluster.answer(&header, "rbd.get_snapcontext", ""), hex("0000000000000000 00000000"));
    assert_eq!(
        cluster.answer(&header, "rbd.parent_get", ""),
        hex("0101 18000000 ffffffffffffffff 00000000 00000000 feffffffffffffff")
    );
    assert_eq!(cluster.answer(&header, "rbd.parent_overlap_get", number(HEAD)), hex("00"));
    let group = cluster.answer(&header, "rbd.image_group_get", "");
    assert_eq!(group, hex("0101 0c000000 ffffffffffffffff 00000000"));
    assert_eq!(cluster.answer(&header, "rbd.snapshot_get_limit", ""), number(u64::MAX));
    assert_eq!(cluster.answer(&header, "rbd.op_features_get", ""), number(0));
    assert_eq!(cluster.answer(&header, "rbd.get_all_features", ""), number(0x1bd));
    for (method, input, code) in [
        ("rbd.get_protection_status", number(HEAD), ErrorCode::INVAL),
        ("rbd.get_protection_status", number(3), ErrorCode::NOENT),
        ("rbd.get_size", number(3), ErrorCode::NOENT),
        ("rbd.get_size", hex("00"), ErrorCode::INVAL),
        ("rbd.mirror_image_get", strings(&["103592f33f23"]), ErrorCode::NOENT),
        ("rbd.mirror_image_remove", strings(&["103592f33f23"]), ErrorCode::NOENT),
        ("rbd.no_such_method", Bytes::new(), ErrorCode::OPNOTSUPP),
        ("noclass.get", Bytes::new(), ErrorCode::OPNOTSUPP),
    ] {
        assert_eq!(cluster.call(&header, method, input).code, code, "{method}");
    }
}

#[test]
fn an_image_is_made_once_and_only_of_known_features() {
    let mut cluster = Cluster::new();
    let header = image(&mut cluster);
    let input = |features: u64, prefix: &str, pool: i64| {
        args(|out| _ = out.u64(1).u8(22).u64(features).string(prefix).i64(pool))
    };
    assert_eq!(cluster.call(&header, "rbd.create", input(1, "p", -1)).code, ErrorCode::EXIST);
    let other = object("rbd_header.2");
    for (features, prefix, pool, code) in [
        (1 << 20, "p", -1, NOSYS),
        (1, "", -1, ErrorCode::INVAL),
        (0x100, "p", -1, ErrorCode::INVAL),
        (0x80, "p", -1, ErrorCode::INVAL),
        (1, "p", 7, ErrorCode::INVAL),
        (0x81, "p", 7, ErrorCode::OK),
    ] {
        assert_eq!(cluster.call(&other, "rbd.create", input(features, prefix, pool)).code, code);
    }
    assert_eq!(cluster.answer(&other, "rbd.get_data_pool", ""), number(7));
}

#[test]
fn a_header_changes() {
    let mut cluster = Cluster::new();
    let header = image(&mut cluster);
    let cluster = &mut cluster;
    cluster.answer(&header, "rbd.set_size", number(5 << 20));
    assert_eq!(cluster.answer(&header, "rbd.get_size", number(HEAD)), hex("16 0000500000000000"));
    let pair = |a: u64, b: u64| args(|out| _ = out.u64(a).u64(b));
    cluster.answer(&header, "rbd.set_features", pair(0x4, 0x3c & !0x8));
    assert_eq!(cluster.answer(&header, "rbd.get_features", number(HEAD))[..8], *number(0x0d));
    for (features, mask) in [(1, 1), (0, 1), (0x20, 0x20), (0x100, 0x100)] {
        let code = cluster.call(&header, "rbd.set_features", pair(features, mask)).code;
        assert_eq!(code, ErrorCode::INVAL, "{features:x} {mask:x}");
    }
    cluster.answer(&header, "rbd.set_flags", pair(3, 1));
    cluster.answer(&header, "rbd.set_flags", pair(2, 2));
    assert_eq!(cluster.answer(&header, "rbd.get_flags", number(HEAD)), number(3));
    cluster.now = Timestamp(2_000);
    cluster.answer(&header, "rbd.set_modify_timestamp", "");
    assert_eq!(cluster.answer(&header, "rbd.get_modify_timestamp", ""), hex("02000000 00000000"));
    let missing = object("rbd_header.none");
    for method in ["rbd.set_size", "rbd.get_size", "rbd.get_flags", "rbd.set_flags"] {
        let code = cluster.call(&missing, method, pair(HEAD, 0)).code;
        assert_eq!(code, ErrorCode::NOENT, "{method}");
    }
}

#[test]
fn shrinking_an_image_cuts_what_its_parent_shows() {
    let mut cluster = Cluster::new();
    let header = image(&mut cluster);
    // As a clone of the image 103592f33f23 at snapshot 14 has it.
    let parent = hex(
        "02022d000000 0200000000000000 00000000 0c000000313033353932663333663233 0e00000000000000 01 0000004000000000",
    );
    let entries = vec![(Bytes::from("parent"), parent.clone())].into();
    cluster.ok(&header, OpKind::OmapSet { entries });
    let cluster = &mut cluster;
    assert_eq!(
        cluster.answer(&header, "rbd.parent_get", ""),
        hex("0101 24000000 0200000000000000 00000000 0c000000313033353932663333663233 0e00000000000000")
    );
    let overlap = |cluster: &mut Cluster| cluster.answer(&header, "rbd.parent_overlap_get", number(HEAD));
    assert_eq!(overlap(cluster), hex("01 0000004000000000"));
    cluster.answer(&header, "rbd.set_size", number(2 << 30));
    assert!(omap(cluster, &header).contains(&("parent".to_owned(), parent)));
    cluster.answer(&header, "rbd.set_size", number(1 << 20));
    cluster.answer(&header, "rbd.set_size", number(2 << 30));
    assert_eq!(overlap(cluster), hex("01 0000100000000000"));
}

#[test]
fn a_directory_holds_both_ways() {
    let mut cluster = Cluster::new();
    let directory = object("rbd_directory");
    let cluster = &mut cluster;
    cluster.answer(&directory, "rbd.dir_add_image", strings(&["vm0", "103592f33f23"]));
    let expected = [
        ("id_103592f33f23".to_owned(), hex("03000000 766d30")),
        ("name_vm0".to_owned(), hex("0c000000 313033353932663333663233")),
    ];
    assert_eq!(omap(cluster, &directory), expected);
    assert_eq!(cluster.answer(&directory, "rbd.dir_get_id", strings(&["vm0"])), strings(&["103592f33f23"]));
    assert_eq!(cluster.answer(&directory, "rbd.dir_get_name", strings(&["103592f33f23"])), strings(&["vm0"]));
    for (method, input, code) in [
        ("rbd.dir_add_image", strings(&["vm0", "2"]), ErrorCode::EXIST),
        ("rbd.dir_add_image", strings(&["vm1", "103592f33f23"]), BADF),
        ("rbd.dir_add_image", strings(&["", "2"]), ErrorCode::INVAL),
        ("rbd.dir_add_image", strings(&["vm1", "a-b"]), ErrorCode::INVAL),
        ("rbd.dir_get_id", strings(&["vm9"]), ErrorCode::NOENT),
        ("rbd.dir_remove_image", strings(&["vm9", "103592f33f23"]), ErrorCode::NOENT),
    ] {
        assert_eq!(cluster.call(&directory, method, input).code, code, "{method}");
    }
    cluster.answer(&directory, "rbd.dir_add_image", strings(&["a", "2"]));
    let stale = cluster.call(&directory, "rbd.dir_remove_image", strings(&["vm0", "2"]));
    assert_eq!(stale.code, ErrorCode::STALE);
    let rename = cluster.call(&directory, "rbd.dir_rename_image", strings(&["a", "vm0", "2"]));
    assert_eq!(rename.code, ErrorCode::EXIST);
    cluster.answer(&directory, "rbd.dir_rename_image", strings(&["a", "z", "2"]));
    let list = |after: &str, max: u64| args(|out| _ = out.string(after).u64(max));
    let all = cluster.answer(&directory, "rbd.dir_list", list("", 1024));
    assert_eq!(all, args(|out| _ = out.u32(2).string("vm0").string("103592f33f23").string("z").string("2")));
    let rest = cluster.answer(&directory, "rbd.dir_list", list("vm0", 1));
    assert_eq!(rest, args(|out| _ = out.u32(1).string("z").string("2")));
    cluster.answer(&directory, "rbd.dir_remove_image", strings(&["vm0", "103592f33f23"]));
    assert_eq!(omap(cluster, &directory).len(), 2);
    // More than one page of entries.
    let entries = (0..1500).map(|n| (Bytes::from(format!("name_n{n:04}")), strings(&["9"])));
    let entries: Vec<_> = entries.collect();
    cluster.ok(&directory, OpKind::OmapSet { entries: entries.into() });
    let all = cluster.answer(&directory, "rbd.dir_list", list("", 10_000));
    assert_eq!(all[..4], 1501u32.to_le_bytes());
    assert_eq!(Reader::new(&cluster.answer(&directory, "rbd.dir_list", list("", 1024))).u32(), Ok(1024));
}

#[test]
fn an_id_object_holds_the_id() {
    let mut cluster = Cluster::new();
    let id = object("rbd_id.vm0");
    assert_eq!(cluster.call(&id, "rbd.get_id", "").code, ErrorCode::NOENT);
    let make =
        |id: &str| vec![OpKind::Create { exclusive: true }.into(), call("rbd", "set_id", strings(&[id]))];
    assert_eq!(cluster.run(&id, make("103592f33f23"), Payload::none()).code, ErrorCode::OK);
    assert_eq!(cluster.content(&id), hex("0c000000 313033353932663333663233"));
    assert_eq!(cluster.answer(&id, "rbd.get_id", ""), strings(&["103592f33f23"]));
    assert_eq!(cluster.call(&id, "rbd.set_id", strings(&["1"])).code, ErrorCode::EXIST);
    assert_eq!(cluster.run(&id, make("1"), Payload::none()).code, ErrorCode::EXIST);
}

#[test]
fn metadata_is_raw() {
    let mut cluster = Cluster::new();
    let header = image(&mut cluster);
    let set = args(|out| _ = out.u32(2).string("conf_a").bytes(b"1").string("b").bytes(b"xy"));
    let cluster = &mut cluster;
    cluster.answer(&header, "rbd.metadata_set", set.clone());
    assert!(omap(cluster, &header).contains(&("metadata_conf_a".to_owned(), hex("31"))));
    assert_eq!(cluster.answer(&header, "rbd.metadata_get", strings(&["b"])), strings(&["xy"]));
    let list = |after: &str, max: u64| args(|out| _ = out.string(after).u64(max));
    let both = args(|out| _ = out.u32(2).string("b").bytes(b"xy").string("conf_a").bytes(b"1"));
    assert_eq!(cluster.answer(&header, "rbd.metadata_list", list("", 0)), both);
    let last = args(|out| _ = out.u32(1).string("conf_a").bytes(b"1"));
    assert_eq!(cluster.answer(&header, "rbd.metadata_list", list("b", 64)), last);
    cluster.answer(&header, "rbd.metadata_remove", strings(&["b"]));
    assert_eq!(cluster.call(&header, "rbd.metadata_get", strings(&["b"])).code, ErrorCode::NOENT);
    let lying = args(|out| _ = out.u32(u32::MAX).string("a"));
    assert_eq!(cluster.call(&header, "rbd.metadata_set", lying).code, ErrorCode::INVAL);
}

#[test]
fn the_trash_keeps_images_by_id() {
    let mut cluster = Cluster::new();
    let trash = object("rbd_trash");
    let spec = |state: u8| {
        args(|out| {
            out.section(2, 1, |out| {
                out.u8(0).string("vm0").time(Timestamp(1_000)).time(Timestamp(2_000)).u8(state);
            });
        })
    };
    let add = args(|out| _ = out.string("103592f33f23").put(&spec(0)));
    let cluster = &mut cluster;
    assert_eq!(cluster.call(&trash, "rbd.trash_list", strings(&[""])).code, ErrorCode::NOENT);
    cluster.answer(&trash, "rbd.trash_add", add.clone());
    let stored = hex("0201 19000000 00 03000000766d30 0100000000000000 0200000000000000 00");
    assert_eq!(omap(cluster, &trash), [("id_103592f33f23".to_owned(), stored.clone())]);
    assert_eq!(cluster.call(&trash, "rbd.trash_add", add).code, ErrorCode::EXIST);
    assert_eq!(cluster.answer(&trash, "rbd.trash_get", strings(&["103592f33f23"])), stored);
    let set = |to: u8, from: u8| args(|out| _ = out.string("103592f33f23").u8(to).u8(from));
    cluster.answer(&trash, "rbd.trash_state_set", set(4, 0));
    cluster.answer(&trash, "rbd.trash_state_set", set(4, 0));
    assert_eq!(cluster.call(&trash, "rbd.trash_state_set", set(3, 0)).code, ErrorCode::STALE);
    let listed = args(|out| _ = out.u32(1).string("103592f33f23").put(&spec(4)));
    let list = args(|out| _ = out.string("").u64(10));
    assert_eq!(cluster.answer(&trash, "rbd.trash_list", list), listed);
    cluster.answer(&trash, "rbd.trash_remove", strings(&["103592f33f23"]));
    let again = cluster.call(&trash, "rbd.trash_remove", strings(&["103592f33f23"]));
    assert_eq!(again.code, ErrorCode::NOENT);
}

#[test]
fn an_object_map_is_ceph_s_to_the_byte() {
    let mut cluster = Cluster::new();
    let map = object("rbd_object_map.103592f33f23");
    let resize = |objects: u64, state: u8| args(|out| _ = out.u64(objects).u8(state));
    let update = |first: u64, end: u64, state: u8, current: Option<u8>| {
        args(|out| {
            out.u64(first).u64(end).u8(state);
            match current {
                Some(current) => out.u8(1).u8(current),
                None => out.u8(0),
            };
        })
    };
    let cluster = &mut cluster;
    assert_eq!(cluster.call(&map, "rbd.object_map_load", "").code, ErrorCode::NOENT);
    cluster.answer(&map, "rbd.object_map_resize", resize(3, 0));
    cluster.answer(&map, "rbd.object_map_update", update(0, 1, 1, None));
    let head = hex("0101 08000000 0300000000000000");
    let crc = |bytes: &[u8]| !crc32c::crc32c_append(u32::MAX, bytes);
    // CRC-32C from 0 without inversion: of "123456789" it is the known 0x58e3fa20.
    assert_eq!(crc(b"123456789"), 0x58e3_fa20);
    let expected = args(|out| {
        out.bytes(&head).u8(0x40).u32(12).u32(crc(&head)).u32(1).u32(crc(&[0x40]));
    });
    assert_eq!(cluster.content(&map), expected);
    assert_eq!(
        cluster.answer(&map, "rbd.object_map_load", ""),
        args(|out| _ = out.bytes(&head).u8(0x40).u32(0))
    );
    // Only what is in the state asked for; EXISTS stands for EXISTS_CLEAN too.
    cluster.answer(&map, "rbd.object_map_update", update(1, 2, 3, None));
    cluster.answer(&map, "rbd.object_map_update", update(0, 3, 2, Some(1)));
    assert_eq!(cluster.answer(&map, "rbd.object_map_load", "")[18], 0b10_10_00_00);
    let nothing = cluster.call(&map, "rbd.object_map_update", update(0, 3, 2, Some(1)));
    assert!(nothing.change.is_none());
    for (first, end) in [(0, 4), (2, 2), (3, 1)] {
        let code = cluster.call(&map, "rbd.object_map_update", update(first, end, 1, None)).code;
        assert_eq!(code, ErrorCode::RANGE);
    }
    assert_eq!(cluster.call(&map, "rbd.object_map_resize", resize(1, 0)).code, ErrorCode::STALE);
    cluster.answer(&map, "rbd.object_map_update", update(1, 2, 0, None));
    cluster.answer(&map, "rbd.object_map_resize", resize(1, 0));
    let saved = args(|out| _ = out.bytes(&hex("0101 08000000 0500000000000000")).put(&[0x55, 0x40]).u32(0));
    cluster.answer(&map, "rbd.object_map_save", saved.clone());
    assert_eq!(cluster.answer(&map, "rbd.object_map_load", ""), saved);
    // Damage is found.
    cluster.write(&map, 18, vec![0x54]);
    assert_eq!(cluster.call(&map, "rbd.object_map_load", "").code, ErrorCode::IO);
    let code = cluster.call(&map, "rbd.object_map_update", update(0, 1, 0, None)).code;
    assert_eq!(code, ErrorCode::IO);
}

#[test]
fn a_long_object_map_is_changed_in_place() {
    let mut cluster = Cluster::new();
    let map = object("rbd_object_map.long");
    let cluster = &mut cluster;
    // 250 KB of bits.
    let objects = 1_000_003u64;
    cluster.answer(&map, "rbd.object_map_resize", args(|out| _ = out.u64(objects).u8(0)));
    let mut states = vec![0u8; objects as usize];
    for (first, end, state) in
        [(0, 1, 1), (16_380, 16_390, 2), (999_999, 1_000_003, 3), (300_000, 400_000, 1)]
    {
        let input = args(|out| _ = out.u64(first).u64(end).u8(state).u8(0));
        let outcome = cluster.call(&map, "rbd.object_map_update", input);
        assert_eq!(outcome.code, ErrorCode::OK);
        assert!(outcome.change.unwrap().data.len() < 30_000);
        states[first as usize..end as usize].fill(state);
    }
    // The checksums hold, or this would fail.
    let loaded = cluster.answer(&map, "rbd.object_map_load", "");
    for (object, state) in states.iter().enumerate() {
        assert_eq!(loaded[18 + object / 4] >> (6 - 2 * (object % 4)) & 3, *state, "{object}");
    }
}

fn lock_args(name: &str, kind: u8, cookie: &str, tag: &str, seconds: u32, flags: u8) -> Bytes {
    args(|out| {
        out.section(1, 1, |out| {
            out.string(name).u8(kind).string(cookie).string(tag).string("");
            out.u32(seconds).u32(0).u8(flags);
        });
    })
}

fn section(fill: impl FnOnce(&mut Writer)) -> Bytes {
    args(|out| _ = out.section(1, 1, fill))
}

#[test]
fn an_exclusive_lock_is_stored_as_ceph_s() {
    let mut cluster = Cluster::new();
    let header = object("rbd_header.1");
    let cluster = &mut cluster;
    cluster.client = 4100;
    let lock = lock_args("rbd_lock", 1, "auto 94", "internal", 0, 0);
    cluster.answer(&header, "lock.lock", lock.clone());
    // Locker {client.4100, cookie}, info {never, address: legacy, nonce 0x05060708 with 0x01020304 in the padding,
    // 10.1.2.3 port 0, no description}, exclusive, tag.
    let held = hex(
        "0101 60000000 01000000
         0101 14000000 08 0410000000000000 07000000 6175746f203934
         0101 2f000000 0000000000000000 01 0101 1c000000 01000000 08070605 10000000 0200 0000 0a010203 04030201 00000000
         00000000
         01 08000000 696e7465726e616c",
    );
    let stored = |cluster: &mut Cluster| {
        cluster.one(&header, OpKind::GetXattr { name: "lock.rbd_lock".to_owned() }).bytes(0)
    };
    assert_eq!(stored(cluster), held);
    let info = section(|out| _ = out.string("rbd_lock"));
    assert_eq!(cluster.answer(&header, "lock.get_info", info), held);
    let names = cluster.answer(&header, "lock.list_locks", "");
    assert_eq!(names, section(|out| _ = out.u32(1).string("rbd_lock")));
    let held_by =
        |cookie: &str, tag: &str| section(|out| _ = out.string("rbd_lock").u8(1).string(cookie).string(tag));
    cluster.answer(&header, "lock.assert_locked", held_by("auto 94", "internal"));
    assert_eq!(cluster.call(&header, "lock.lock", lock.clone()).code, ErrorCode::EXIST);
    cluster.answer(&header, "lock.lock", lock_args("rbd_lock", 1, "auto 94", "internal", 0, 1));
    for input in [held_by("auto 95", "internal"), held_by("auto 94", "other")] {
        assert_eq!(cluster.call(&header, "lock.assert_locked", input).code, ErrorCode::BUSY);
    }
    // Somebody else.
    cluster.client = 4200;
    assert_eq!(cluster.call(&header, "lock.lock", lock.clone()).code, ErrorCode::BUSY);
    let unlock = section(|out| _ = out.string("rbd_lock").string("auto 94"));
    assert_eq!(cluster.call(&header, "lock.unlock", unlock.clone()).code, ErrorCode::NOENT);
    let code = cluster.call(&header, "lock.assert_locked", held_by("auto 94", "internal")).code;
    assert_eq!(code, ErrorCode::BUSY);
    let must = lock_args("rbd_lock", 1, "auto 94", "internal", 0, 2);
    assert_eq!(cluster.call(&header, "lock.lock", must).code, ErrorCode::NOENT);
    let take = section(|out| _ = out.string("rbd_lock").u8(8).i64(4100).string("auto 94"));
    cluster.answer(&header, "lock.break_lock", take);
    cluster.answer(&header, "lock.lock", lock);
    cluster.answer(&header, "lock.unlock", unlock);
    // The lock stays, with nobody who holds it.
    assert_eq!(stored(cluster), hex("0101 11000000 00000000 01 08000000 696e7465726e616c"));
}

#[test]
fn locks_are_shared_run_out_and_guard_a_vector() {
    let mut cluster = Cluster::new();
    let id = object("shared");
    let cluster = &mut cluster;
    for client in [1, 2] {
        cluster.client = client;
        cluster.answer(&id, "lock.lock", lock_args("l", 2, "c", "t", 10, 0));
    }
    cluster.client = 3;
    for input in [lock_args("l", 1, "c", "t", 0, 0), lock_args("l", 2, "c", "other", 0, 0)] {
        assert_eq!(cluster.call(&id, "lock.lock", input).code, ErrorCode::BUSY);
    }
    for input in [lock_args("", 1, "c", "t", 0, 0), lock_args("l", 0, "c", "t", 0, 0), hex("01")] {
        assert_eq!(cluster.call(&id, "lock.lock", input).code, ErrorCode::INVAL);
    }
    cluster.now = cluster.now.plus_ms(10_001);
    cluster.answer(&id, "lock.lock", lock_args("l", 1, "c", "other", 0, 0));
    let cookie = |cookie: &str, new: &str| {
        section(|out| _ = out.string("l").u8(1).string(cookie).string("other").string(new))
    };
    assert_eq!(cluster.call(&id, "lock.set_cookie", cookie("x", "d")).code, ErrorCode::BUSY);
    cluster.answer(&id, "lock.set_cookie", cookie("c", "d"));
    let guard = |cookie: &str| {
        let input = section(|out| _ = out.string("l").u8(1).string(cookie).string("other"));
        vec![call("lock", "assert_locked", input), OpKind::Truncate { size: 9 }.into()]
    };
    assert_eq!(cluster.run(&id, guard("c"), Payload::none()).code, ErrorCode::BUSY);
    assert_eq!(cluster.state(&id).size(), 0);
    assert_eq!(cluster.run(&id, guard("d"), Payload::none()).code, ErrorCode::OK);
    assert_eq!(cluster.state(&id).size(), 9);
    let missing = object("missing");
    let input = section(|out| _ = out.string("l"));
    assert_eq!(cluster.call(&missing, "lock.get_info", input).code, ErrorCode::NOENT);
}
