//! Binary maps that `crushtool` 16.2.15 wrote, older tails, and input that lies.

use cairn_crush::Algorithm;
use cairn_crush::binary::{BinaryError, decode, encode};

/// Devices with classes, shadow trees, a rule on one, a weight set and replacement ids.
const CLASSES: &[u8] = include_bytes!("data/binary/classes-choose-args.bin");
/// One tree bucket as large as the format allows.
const TREE: &[u8] = include_bytes!("data/binary/tree-64.bin");

#[test]
fn a_map_of_crushtool_is_written_back_byte_for_byte() {
    for bytes in [CLASSES, TREE] {
        let map = decode(bytes).unwrap();
        assert_eq!(encode(&map).unwrap(), bytes);
    }
    let map = decode(CLASSES).unwrap();
    assert_eq!(map.max_devices, 3);
    assert_eq!(map.item_names[&-3], "default~hdd");
    assert_eq!(map.shadow_buckets[&-1][&0], -3);
    assert_eq!(map.choose_args[&3][&-1].ids, [-2, 100]);
    let tree = decode(TREE).unwrap();
    assert_eq!(tree.buckets[0].as_ref().unwrap().algorithm, Algorithm::Tree);
}

#[test]
fn a_map_that_ends_before_a_part_of_the_tail_gets_its_defaults() {
    // Bytes of the parts of TREE's tail, from the last to the first: choose-args (an empty table),
    // the three empty class tables, then the tunables in the order they were added to the format.
    let tail = [4, 12, 1, 4, 1, 1, 4, 12];
    let full = decode(TREE).unwrap();
    let mut end = TREE.len();
    for part in tail {
        end -= part;
        let map = decode(&TREE[..end]).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
        assert_eq!(map.buckets, full.buckets);
        assert_eq!(map.tunables.choose_total_tries, full.tunables.choose_total_tries);
    }
    let map = decode(&TREE[..end]).unwrap();
    let tunables = map.tunables;
    assert_eq!((tunables.choose_local_tries, tunables.choose_local_fallback_tries), (2, 5));
    assert_eq!((tunables.choose_total_tries, tunables.chooseleaf_descend_once), (19, 0));
    assert_eq!((tunables.chooseleaf_vary_r, tunables.chooseleaf_stable), (0, 0));
    assert_eq!((tunables.straw_calc_version, tunables.allowed_bucket_algs), (0, 22));
}

#[test]
fn every_other_cut_is_refused() {
    let whole: Vec<usize> = {
        let mut end = CLASSES.len();
        // The parts of this map's tail: choose-args, the class tables, tunables.
        let choose_args = 4 + 8 + 4 + (4 + 4 + 2 * (4 + 8) + 4 + 8);
        let classes = (4 + 2 * 8 + 4 * 8) + (4 + 2 * (4 + 4 + 3)) + (4 + 2 * (4 + 4 + 2 * 8));
        [0, choose_args, classes, 1, 4, 1, 1, 4, 12]
            .iter()
            .map(|part| {
                end -= part;
                end
            })
            .collect()
    };
    for end in 0..CLASSES.len() {
        assert_eq!(decode(&CLASSES[..end]).is_ok(), whole.contains(&end), "cut at {end}");
    }
}

#[test]
fn bytes_after_the_end_are_refused_but_for_default_msr_tunables() {
    let with = |tail: &[u8]| decode(&[CLASSES, tail].concat());
    assert_eq!(
        with(&[0]),
        Err(BinaryError::TrailingBytes { offset: CLASSES.len(), left: 1 }),
        "one byte too many"
    );
    let newer = with(&[100, 0, 0, 0, 100, 0, 0, 0]).unwrap();
    assert_eq!(encode(&newer).unwrap(), CLASSES);
    assert_eq!(
        with(&[100, 0, 0, 0, 99, 0, 0, 0]),
        Err(BinaryError::MsrTunables { descents: 100, collision_tries: 99 })
    );
    assert!(matches!(with(&[100; 9]), Err(BinaryError::TrailingBytes { left: 9, .. })));
}

#[test]
fn lying_counts_are_refused_before_memory_is_taken() {
    for (offset, field) in [(4, "max_buckets"), (0x20, "a bucket's size")] {
        let mut bytes = CLASSES.to_vec();
        bytes[offset..offset + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        match decode(&bytes) {
            Err(BinaryError::CountTooLarge { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let mut bytes = CLASSES.to_vec();
    bytes[8..12].copy_from_slice(&257_u32.to_le_bytes());
    assert_eq!(decode(&bytes), Err(BinaryError::TooMany { field: "max_rules", count: 257, limit: 256 }));
    let mut bytes = CLASSES.to_vec();
    bytes[4..8].copy_from_slice(&(-1_i32).to_le_bytes());
    assert!(matches!(decode(&bytes), Err(BinaryError::NegativeCount { value: -1, .. })));
}

#[test]
fn other_files_and_inconsistent_buckets_are_refused() {
    assert!(matches!(decode(b"# begin crush map\n"), Err(BinaryError::BadMagic { .. })));
    assert!(matches!(decode(b""), Err(BinaryError::Truncated { .. })));
    let changed = |offset: usize, value: u8| {
        let mut bytes = CLASSES.to_vec();
        bytes[offset] = value;
        decode(&bytes).unwrap_err()
    };
    assert!(matches!(changed(0x10, 9), BinaryError::UnknownAlgorithm { algorithm: 9, id: -1, .. }));
    assert!(matches!(changed(0x14, 0xf0), BinaryError::BucketIdMismatch { expected: -1, found: -16, .. }));
    assert!(matches!(changed(0x1a, 4), BinaryError::AlgorithmMismatch { first: 5, second: 4, .. }));
}
