//! Index keys of collections and objects: their order as bytes is the order of listing.
//!
//! An object's key is pool (sign flipped) and seed of its group, its hash with the bits reversed, then
//! namespace, locator key and name, each ended, then the snapshot and the object's own pool: objects of a
//! group stand in the order in which a split of the group, and backfill, want them.

use bytes::Bytes;
use cairn_types::{ObjectId, PgId, PoolId, SnapId};
use smallvec::SmallVec;

/// A key that is only looked up with: names of images' objects are shorter than what lies in place.
pub type KeyBuf = SmallVec<[u8; 128]>;

/// Bytes of a collection's part.
const PG_BYTES: usize = 12;

/// A collection's key, and the prefix of its objects' keys.
pub fn pg_key(pg: PgId) -> [u8; PG_BYTES] {
    let mut key = [0; PG_BYTES];
    key[..8].copy_from_slice(&pool_bytes(pg.pool));
    key[8..].copy_from_slice(&pg.seed.to_be_bytes());
    key
}

/// The collection that a key names or is in.
pub fn pg_of(key: &[u8]) -> Option<PgId> {
    let pool = pool_of(key.get(..8)?)?;
    let seed = u32::from_be_bytes(key.get(8..PG_BYTES)?.try_into().ok()?);
    Some(PgId { pool, seed })
}

/// Negative pools stand before the others.
fn pool_bytes(pool: PoolId) -> [u8; 8] {
    ((pool.0 as u64) ^ (1 << 63)).to_be_bytes()
}

fn pool_of(bytes: &[u8]) -> Option<PoolId> {
    Some(PoolId((u64::from_be_bytes(bytes.try_into().ok()?) ^ (1 << 63)) as i64))
}

/// An object's key.
pub fn object_key(pg: PgId, object: &ObjectId) -> Bytes {
    Bytes::copy_from_slice(&object_key_buf(pg, object))
}

/// The same, to look up with.
pub fn object_key_buf(pg: PgId, object: &ObjectId) -> KeyBuf {
    let names = [&object.namespace, &object.key, &object.name];
    let mut key = KeyBuf::with_capacity(PG_BYTES + 4 + names.iter().map(|n| n.len() + 2).sum::<usize>() + 16);
    key.extend_from_slice(&pg_key(pg));
    key.extend_from_slice(&object.hash.reverse_bits().to_be_bytes());
    for name in names {
        // 0 ends a part; a 0 within it is followed by 255, the end by 1.
        let mut parts = name.as_bytes().split(|byte| *byte == 0);
        key.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            key.extend_from_slice(&[0, 0xff]);
            key.extend_from_slice(part);
        }
        key.extend_from_slice(&[0, 1]);
    }
    key.extend_from_slice(&object.snap.0.to_be_bytes());
    // Usually the group's pool; said again for the objects that are kept under another.
    key.extend_from_slice(&pool_bytes(object.pool));
    key
}

/// What a key names; `None` if it is no object's.
pub fn object_of(key: &[u8]) -> Option<(PgId, ObjectId)> {
    let pg = pg_of(key)?;
    let hash = u32::from_be_bytes(key.get(PG_BYTES..PG_BYTES + 4)?.try_into().ok()?).reverse_bits();
    let mut rest = &key[PG_BYTES + 4..];
    let mut part = || {
        let mut name = Vec::new();
        loop {
            match *rest {
                [0, 1, ref after @ ..] => {
                    rest = after;
                    return String::from_utf8(name).ok();
                }
                [0, 0xff, ref after @ ..] => {
                    name.push(0);
                    rest = after;
                }
                [0, ..] | [] => return None,
                [byte, ref after @ ..] => {
                    name.push(byte);
                    rest = after;
                }
            }
        }
    };
    let (namespace, locator, name) = (part()?, part()?, part()?);
    let (snap, pool) = rest.split_at_checked(8)?;
    let snap = SnapId(u64::from_be_bytes(snap.try_into().ok()?));
    let pool = pool_of(pool)?;
    Some((pg, ObjectId { pool, hash, namespace, key: locator, name, snap }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, name: &str, hash: u32) -> ObjectId {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        ObjectId { pool: PoolId(3), hash, namespace, key: String::new(), name, snap: SnapId::HEAD }
    }

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        let pg = PgId { pool: PoolId(-2), seed: 0x1f };
        for name in ["", "a", "a\0b", "\0", "\0\x01", "päth/ö"] {
            let object = object("n\0s", name, 0x1234_5678);
            assert_eq!(object_of(&object_key(pg, &object)), Some((pg, object)), "{name:?}");
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_listing() {
        let pg = PgId { pool: PoolId(1), seed: 2 };
        let order = [
            object("", "a", 0),
            object("", "a\0", 0),
            object("", "ab", 0),
            object("x", "a", 0),
            object("", "a", 0x8000_0000),
            object("", "a", 1),
        ];
        let keys: Vec<Bytes> = order.iter().map(|object| object_key(pg, object)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert!(keys[5] < object_key(PgId { seed: 3, ..pg }, &order[0]));
        assert!(object_key(PgId { pool: PoolId(-1), seed: 9 }, &order[5]) < keys[0]);
    }
}
