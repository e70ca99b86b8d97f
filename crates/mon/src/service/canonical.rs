//! One hash per state: monitors compare theirs to notice that they have come apart.
//!
//! FNV-1a, 64 bits, over the binary form of the state (`docs/format/mon-log.md`). Every member of every type
//! is in it, in key order, because the state has ordered maps only. It guards against mistakes and damage, not
//! against an adversary.

use serde::Serialize;
use std::io;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of a value's binary form.
pub(super) fn hash(value: &impl Serialize) -> u64 {
    let mut hasher = Fnv(OFFSET);
    let config = bincode::config::standard().with_fixed_int_encoding();
    let done = bincode::serde::encode_into_std_write(value, &mut hasher, config);
    debug_assert!(done.is_ok(), "the state has a binary form: {done:?}");
    hasher.0
}

struct Fnv(u64);

impl io::Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{CrushBlob, EntityAddr, Epoch, OsdId};
    use std::collections::BTreeMap;

    #[test]
    fn the_hash_is_fnv_over_the_binary_form() {
        // Published vector: FNV-1a 64 of "foobar".
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(hash(&()), OFFSET);
        assert_eq!(hash(&OsdId(1)), hash(&[1u8, 0, 0, 0]));
        assert_eq!(hash(&Some(Epoch(2))), hash(&[1u8, 2, 0, 0, 0]));
    }

    #[test]
    fn what_differs_hashes_differently() {
        assert_ne!(hash(&("a", "bc")), hash(&("ab", "c")));
        assert_ne!(hash(&BTreeMap::from([(1u8, 2u8)])), hash(&BTreeMap::from([(2u8, 1u8)])));
        assert_ne!(hash(&CrushBlob::new(1, vec![1])), hash(&CrushBlob::new(1, vec![2])));
        let addr = |nonce| EntityAddr { socket: ([10, 0, 0, 1], 1).into(), nonce };
        assert_ne!(hash(&addr(1)), hash(&addr(2)));
    }
}
