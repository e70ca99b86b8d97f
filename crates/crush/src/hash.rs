//! Robert Jenkins' hash in the two forms Ceph uses: over words for CRUSH, over bytes for object names.
//!
//! The function and its constants are in the public domain (<http://burtleburtle.net/bob/hash/evahash.html>);
//! how the words are fed in is Ceph's (`src/crush/hash.c`, `src/common/ceph_hash.cc`).

/// What CRUSH mixes into every hash first.
const SEED: u32 = 1_315_423_911;
/// The two words that fill up a round that lacks an input.
const FILL_X: u32 = 231_232;
const FILL_Y: u32 = 1_232;
/// Start of the byte hash: the golden ratio.
const GOLDEN: u32 = 0x9e37_79b9;

/// Mixes three words reversibly.
#[inline(always)]
fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 13);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 8);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 13);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 12);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 16);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 5);
    *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> 3);
    *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << 10);
    *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> 15);
}

/// rjenkins1 of two words.
#[inline(always)]
pub fn hash2(mut a: u32, mut b: u32) -> u32 {
    let mut hash = SEED ^ a ^ b;
    let (mut x, mut y) = (FILL_X, FILL_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut x, &mut a, &mut hash);
    mix(&mut b, &mut y, &mut hash);
    hash
}

/// rjenkins1 of three words.
#[inline(always)]
pub fn hash3(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    let mut hash = SEED ^ a ^ b ^ c;
    let (mut x, mut y) = (FILL_X, FILL_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut c, &mut hash);
    hash
}

/// rjenkins1 of four words.
#[inline(always)]
pub fn hash4(mut a: u32, mut b: u32, mut c: u32, mut d: u32) -> u32 {
    let mut hash = SEED ^ a ^ b ^ c ^ d;
    let (mut x, mut y) = (FILL_X, FILL_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut a, &mut x, &mut hash);
    mix(&mut y, &mut b, &mut hash);
    mix(&mut c, &mut x, &mut hash);
    mix(&mut y, &mut d, &mut hash);
    hash
}

/// rjenkins1 of five words.
#[inline(always)]
pub fn hash5(mut a: u32, mut b: u32, mut c: u32, mut d: u32, mut e: u32) -> u32 {
    let mut hash = SEED ^ a ^ b ^ c ^ d ^ e;
    let (mut x, mut y) = (FILL_X, FILL_Y);
    mix(&mut a, &mut b, &mut hash);
    mix(&mut c, &mut d, &mut hash);
    mix(&mut e, &mut x, &mut hash);
    mix(&mut y, &mut a, &mut hash);
    mix(&mut b, &mut x, &mut hash);
    mix(&mut y, &mut c, &mut hash);
    mix(&mut d, &mut x, &mut hash);
    mix(&mut y, &mut e, &mut hash);
    hash
}

/// rjenkins over the bytes of `parts`, one after the other as if they were one string.
///
/// Lengths above 4 GiB would wrap, as they do in Ceph; no object name is near it.
pub fn hash_bytes(parts: &[&[u8]]) -> u32 {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, 0_u32);
    let mut block = [0_u8; 12];
    let mut filled = 0;
    for part in parts {
        for &byte in *part {
            block[filled] = byte;
            filled += 1;
            if filled == block.len() {
                add_block(&block, &mut a, &mut b, &mut c, 0);
                mix(&mut a, &mut b, &mut c);
                filled = 0;
            }
        }
    }
    block[filled..].fill(0);
    c = c.wrapping_add(len as u32);
    // In the last block the first byte of c is the length's, so that its own bytes stand one higher.
    add_block(&block, &mut a, &mut b, &mut c, 8);
    mix(&mut a, &mut b, &mut c);
    c
}

fn add_block(block: &[u8; 12], a: &mut u32, b: &mut u32, c: &mut u32, c_shift: u32) {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    *a = a.wrapping_add(word(0));
    *b = b.wrapping_add(word(4));
    *c = c.wrapping_add(word(8) << c_shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from a running Ceph cluster (`ceph osd map`) and from `osdmaptool --test-map-object`.
    #[test]
    fn names_hash_as_in_ceph() {
        assert_eq!(hash_bytes(&[b"rbd_directory"]), 0x30a9_8c1c);
        assert_eq!(hash_bytes(&[b"x"]), 0xd6d9_af33);
        assert_eq!(hash_bytes(&[b"obj1"]), 0x6cf8_deff);
        assert_eq!(hash_bytes(&[b"ns1", b"\x1f", b"x"]), 0x5850_e139);
    }

    #[test]
    fn parts_hash_as_their_concatenation() {
        let text: Vec<u8> = (0..100).collect();
        for len in 0..text.len() {
            let whole = hash_bytes(&[&text[..len]]);
            for cut in 0..=len {
                assert_eq!(hash_bytes(&[&text[..cut], &text[cut..len]]), whole, "{len} {cut}");
            }
        }
    }
}
