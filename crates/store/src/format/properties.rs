//! Whatever can be encoded is decoded to the same, whatever is decoded is encoded to the same, and keys
//! stand in the order of what they name.

use super::codec::Reader;
use super::features::Features;
use super::mutation::Mutation;
use super::record::{BODY_BYTES_MAX, Header};
use super::superblock::{Reserved, Superblock, log_lengths};
use super::values::{Checkpoint, Head, Shard, Slot};
use crate::key::{object_key, object_of, pg_key, pg_of};
use crate::limits::{NUMBER_MAX, OBJECT_BYTES_MAX, SHARD_BLOCKS, UNITS_MAX};
use bytes::Bytes;
use cairn_types::{ObjectId, PgId, PoolId, SnapId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

/// Small numbers and numbers of every length.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, (0..63_u32, any::<u64>()).prop_map(|(shift, word)| word >> (shift + 1))]
}

fn count_from_1() -> impl Strategy<Value = u64> {
    number().prop_map(|number| number.max(1))
}

fn blob(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

/// Few characters, so that names are prefixes of each other, among them those that keys escape or end with.
fn name() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b'), Just('\u{ff}'), Just('\u{10ffff}')],
        0..5,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn edge<T: Copy + std::fmt::Debug + 'static>(values: [T; 5]) -> impl Strategy<Value = T> {
    proptest::sample::select(values.to_vec())
}

fn pg() -> impl Strategy<Value = PgId> {
    let pool = prop_oneof![edge([i64::MIN, -1, 0, 1, i64::MAX]), any::<i64>()];
    let seed = prop_oneof![edge([0, 1, 2, 256, u32::MAX]), any::<u32>()];
    (pool, seed).prop_map(|(pool, seed)| PgId { pool: PoolId(pool), seed })
}

fn object() -> impl Strategy<Value = ObjectId> {
    let hash = prop_oneof![edge([0, 1, 2, 1 << 31, u32::MAX]), any::<u32>()];
    let snap = edge([0, 1, 256, u64::MAX - 1, u64::MAX]);
    let pool = edge([i64::MIN, -1, 0, 1, i64::MAX]);
    (pool, hash, name(), name(), name(), snap).prop_map(|(pool, hash, namespace, key, name, snap)| ObjectId {
        pool: PoolId(pool),
        hash,
        namespace,
        key,
        name,
        snap: SnapId(snap),
    })
}

fn head() -> impl Strategy<Value = Head> {
    let xattrs = btree_map("[a-z_ö]{0,12}", blob(40), 0..6);
    (number(), 0..=OBJECT_BYTES_MAX, number(), blob(80), xattrs)
        .prop_map(|(nid, size, omap, omap_header, xattrs)| Head { nid, size, omap, omap_header, xattrs })
}

fn shard() -> impl Strategy<Value = Shard> {
    let run = (0..SHARD_BLOCKS, 1..20_usize, prop_oneof![1..50_u64, 1..UNITS_MAX - 20], any::<bool>());
    let whole = any::<bool>();
    (vec(run, 0..30), whole, any::<u32>()).prop_map(|(runs, whole, crc)| {
        let mut shard = Shard::default();
        let crc_of = |block: usize| crc.wrapping_mul(block as u32 + 1);
        if whole {
            for (block, slot) in shard.slots.iter_mut().enumerate() {
                *slot = Slot { unit: 1 + block as u64, crc: crc_of(block), shared: false };
            }
        }
        for (first, len, unit, shared) in runs {
            let end = (first + len).min(SHARD_BLOCKS);
            for block in first..end {
                let unit = unit + (block - first) as u64;
                shard.slots[block] = Slot { unit, crc: crc_of(block), shared };
            }
        }
        shard
    })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (count_from_1(), any::<u64>(), count_from_1(), any::<u64>(), any::<u64>()).prop_map(
        |(next_seq, log_position, next_nid, objects, index_bytes)| Checkpoint {
            next_seq,
            log_position,
            next_nid,
            objects,
            index_bytes,
        },
    )
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let map = (number(), 0..1000_u64, 1..UNITS_MAX - 4, vec(any::<u32>(), 1..4), any::<Option<u8>>());
    let range = || (number(), 0..1000_u64, 1..1000_u64);
    prop_oneof![
        pg().prop_map(Mutation::PutCollection),
        pg().prop_map(Mutation::DropCollection),
        (blob(60), head()).prop_map(|(key, head)| Mutation::PutHead { key, head: head.into() }),
        blob(60).prop_map(|key| Mutation::DropHead { key }),
        map.prop_map(|(nid, block, unit, crcs, fill)| {
            let payload = fill.map(|byte| Bytes::from(vec![byte; crcs.len() * 4096]));
            Mutation::Map { nid, block, unit, crcs: crcs.into(), payload }
        }),
        range().prop_map(|(nid, block, count)| Mutation::Unmap { nid, block, count }),
        (range(), number(), 0..1000_u64).prop_map(|((nid, block, count), from_nid, from_block)| {
            Mutation::Share { from_nid, from_block, nid, block, count }
        }),
        (number(), blob(60), blob(60)).prop_map(|(omap, key, value)| Mutation::PutOmap { omap, key, value }),
        (number(), blob(60)).prop_map(|(omap, key)| Mutation::DropOmapKey { omap, key }),
        number().prop_map(|omap| Mutation::DropOmap { omap }),
    ]
}

fn superblock() -> impl Strategy<Value = Superblock> {
    let log_bytes = proptest::sample::select(log_lengths().collect::<Vec<_>>());
    let sizes = (log_bytes, 0..1_u64 << 30, 0..1_u64 << 30, 0..4096_u64);
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<i32>(), any::<bool>());
    (sizes, ids, any::<u64>(), any::<u64>()).prop_map(
        |((log_bytes, index_blocks, data_blocks, rest), (store, cluster, osd, large), compat, ro_compat)| {
            let index_offset = log_bytes + 8192;
            let data_offset = index_offset + index_blocks * 4096;
            Superblock {
                features: Features { compat, ro_compat, incompat: 0 },
                store,
                cluster,
                osd,
                device_bytes: data_offset + data_blocks * 4096 + rest,
                log_unit_bytes: if large { 4096 } else { 512 },
                log_offset: 4096,
                log_bytes,
                index_offset,
                index_bytes: index_blocks * 4096,
                data_offset,
                data_blocks,
                reserved: Reserved::default(),
            }
        },
    )
}

fn decode_mutation(bytes: Vec<u8>) -> Option<Mutation> {
    let mut reader = Reader::new(Bytes::from(bytes));
    let mutation = Mutation::decode(&mut reader).ok()?;
    reader.end().ok()?;
    Some(mutation)
}

fn encode_mutation(mutation: &Mutation) -> Vec<u8> {
    let mut out = Vec::new();
    mutation.encode(&mut out);
    out
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn values_come_back(head in head(), shard in shard(), checkpoint in checkpoint()) {
        prop_assert_eq!(Head::decode(head.encode().into()), Ok(head));
        prop_assert_eq!(Checkpoint::decode(checkpoint.encode().into()), Ok(checkpoint));
        prop_assert_eq!(Shard::decode(shard.encode().into()), Ok(shard));
    }

    #[test]
    fn mutations_come_back(mutation in mutation()) {
        prop_assert_eq!(decode_mutation(encode_mutation(&mutation)), Some(mutation));
    }

    #[test]
    fn mutations_one_behind_the_other_come_back(mutations in vec(mutation(), 0..8)) {
        let mut bytes = Vec::new();
        mutations.iter().for_each(|mutation| mutation.encode(&mut bytes));
        let mut reader = Reader::new(bytes.into());
        for mutation in mutations {
            prop_assert_eq!(Mutation::decode(&mut reader), Ok(mutation));
        }
        prop_assert!(reader.end().is_ok());
    }

    #[test]
    fn superblocks_come_back(superblock in superblock()) {
        let decoded = Superblock::decode(&superblock.encode());
        prop_assert_eq!(decoded.unwrap(), Some(superblock));
    }

    #[test]
    fn record_headers_come_back(
        seq in 1..=NUMBER_MAX,
        count in 1..=u32::MAX,
        body_bytes in 0..=BODY_BYTES_MAX as u32,
        body_crc: u32,
        store: [u8; 16],
    ) {
        let header = Header { seq, count, body_bytes, body_crc };
        prop_assert_eq!(Header::decode(&header.encode(&store), &store), Some(header));
    }

    /// Anything that starts like a value or a mutation: no panic, and one state has one form.
    #[test]
    fn what_is_decoded_has_one_form(kind in 0..13_u8, rest in vec(prop_oneof![Just(0_u8), 0..8_u8, any::<u8>()], 0..120)) {
        let bytes = [vec![kind], rest].concat();
        if let Ok(head) = Head::decode(bytes.clone().into()) {
            prop_assert_eq!(head.encode(), bytes.clone());
        }
        if let Ok(shard) = Shard::decode(bytes.clone().into()) {
            prop_assert_eq!(shard.encode(), bytes.clone());
        }
        if let Ok(checkpoint) = Checkpoint::decode(bytes.clone().into()) {
            prop_assert_eq!(checkpoint.encode(), bytes.clone());
        }
        if let Some(mutation) = decode_mutation(bytes.clone()) {
            prop_assert_eq!(encode_mutation(&mutation), bytes.clone());
        }
        if let Some((pg, object)) = object_of(&bytes) {
            prop_assert_eq!(&object_key(pg, &object)[..], &bytes[..]);
        }
    }

    #[test]
    fn keys_come_back(pg in pg(), object in object()) {
        prop_assert_eq!(pg_of(&pg_key(pg)), Some(pg));
        let key = object_key(pg, &object);
        prop_assert_eq!(pg_of(&key), Some(pg));
        prop_assert_eq!(object_of(&key), Some((pg, object)));
    }

    #[test]
    fn keys_stand_in_the_order_of_what_they_name(a in (pg(), object()), b in (pg(), object()), same in 0..8_usize) {
        // Pairs that differ late are the ones that matter.
        let (first, mut second) = (a.1, b.1);
        let pg = if same > 0 { a.0 } else { b.0 };
        if same > 1 { second.hash = first.hash; }
        if same > 2 { second.namespace.clone_from(&first.namespace); }
        if same > 3 { second.key.clone_from(&first.key); }
        if same > 4 { second.name.clone_from(&first.name); }
        if same > 5 { second.snap = first.snap; }
        let typed = |pg: PgId, object: &ObjectId| {
            let ObjectId { pool, hash, namespace, key, name, snap } = object.clone();
            (pg.pool, pg.seed, hash.reverse_bits(), namespace, key, name, snap, pool)
        };
        prop_assert_eq!(
            object_key(a.0, &first).cmp(&object_key(pg, &second)),
            typed(a.0, &first).cmp(&typed(pg, &second))
        );
        prop_assert_eq!(pg_key(a.0).cmp(&pg_key(b.0)), (a.0.pool, a.0.seed).cmp(&(b.0.pool, b.0.seed)));
        prop_assert!(object_key(a.0, &first).starts_with(&pg_key(a.0)));
    }
}
