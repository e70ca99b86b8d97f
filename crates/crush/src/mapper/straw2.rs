//! straw2: each item draws `ln(u) / weight` with a hashed 16-bit `u`, and the greatest draw wins.
//!
//! Ceph divides once per item. Here the weights are known before the first mapping, so that a draw costs a hash and
//! little more, with the same winner:
//!
//! - Items without weight never win against one with weight, and are left out.
//! - Where all weights are equal, only items whose `u` is within a few of the greatest can win (the
//!   logarithm is as good as monotonic). Mostly there is one, and nothing is divided at all.
//! - Otherwise the quotient is a multiplication by a prepared reciprocal, exact for all dividends there are.

use super::Node;
use super::choose::Mapping;
use crate::hash::hash3;
use crate::ln::LN_DISTANCE;

/// Ids are hashed in groups of so many.
const LANES: usize = 8;

/// Bits of a dividend: a distance of logarithms is at most 2^48.
const DIVIDEND_BITS: u32 = 49;

/// All draws of a placer.
#[derive(Default)]
pub(super) struct Tables {
    draws: Vec<Draw>,
    /// What is hashed, in groups of [`LANES`] filled up with the draw's first.
    ids: Vec<u32>,
    /// Beside the ids.
    entries: Vec<Entry>,
}

/// One set of weights of one bucket.
#[derive(Clone, Copy)]
struct Draw {
    /// In ids and entries; a multiple of [`LANES`].
    first: u32,
    /// Items with weight.
    len: u32,
    mode: Mode,
}

#[derive(Clone, Copy)]
enum Mode {
    /// There is no choice.
    Only(i32),
    /// All weights are this one.
    Equal { weight: u64, window: u32 },
    /// Weights differ; the reciprocals are there.
    Mixed,
    /// A weight is 1 or from 2^31 on. The first has no reciprocal, the others are negative to Ceph, whose
    /// draws are then positive.
    Odd,
}

#[derive(Clone, Copy)]
struct Entry {
    /// `floor(2^(49 + l) / weight) + 1` with `l = ceil(log2(weight))`, shifted to the top of the word.
    reciprocal: u64,
    /// `l - 1`
    shift: u32,
    weight: u32,
    item: i32,
}

/// Memory for the hashes of one draw.
#[derive(Default)]
pub(super) struct Draws {
    hashes: Vec<u32>,
}

impl Tables {
    pub(super) fn len(&self) -> u32 {
        self.draws.len() as u32
    }

    /// Adds a draw: what is hashed, what it stands for and its weight, for each item. Returns its number.
    pub(super) fn add(&mut self, ids: &[i32], items: &[i32], weights: impl Iterator<Item = u32>) -> u32 {
        let first = self.entries.len();
        for ((&id, &item), weight) in ids.iter().zip(items).zip(weights) {
            if weight > 0 {
                self.ids.push(id as u32);
                self.entries.push(Entry::new(item, weight));
            }
        }
        let entries = &self.entries[first..];
        let len = entries.len();
        let mode = match entries {
            // Without any weight the first item stays the best. An empty bucket is never drawn from.
            [] => Mode::Only(items.first().copied().unwrap_or(0)),
            [only] => Mode::Only(only.item),
            _ if entries.iter().any(|entry| entry.weight == 1 || entry.weight >= 1 << 31) => Mode::Odd,
            [head, rest @ ..] if rest.iter().all(|entry| entry.weight == head.weight) => {
                Mode::Equal { weight: head.weight.into(), window: window(head.weight) }
            }
            _ => Mode::Mixed,
        };
        if let Mode::Only(_) = mode {
            // Nothing is hashed.
            self.ids.truncate(first);
            self.entries.truncate(first);
        }
        while !self.entries.len().is_multiple_of(LANES) {
            self.ids.push(self.ids[first]);
            self.entries.push(self.entries[first]);
        }
        self.draws.push(Draw { first: first as u32, len: len as u32, mode });
        self.len() - 1
    }
}

/// By how much a `u` may be below the greatest and still draw as well: the logarithm is flat near no value
/// and steps back by one in places, and quotients by large weights are coarse. A test compares with all
/// pairs of values.
fn window(weight: u32) -> u32 {
    2 + (weight >> 28)
}

impl Entry {
    fn new(item: i32, weight: u32) -> Self {
        if !(2..1 << 31).contains(&weight) {
            return Entry { reciprocal: 0, shift: 0, weight, item };
        }
        let log = u32::BITS - (weight - 1).leading_zeros();
        let reciprocal = (1_u128 << (DIVIDEND_BITS + log)) / u128::from(weight) + 1;
        Entry { reciprocal: (reciprocal << (63 - DIVIDEND_BITS)) as u64, shift: log - 1, weight, item }
    }

    /// `distance / weight`
    #[inline(always)]
    fn quotient(&self, distance: u64) -> u64 {
        let product = u128::from(distance) * u128::from(self.reciprocal);
        (product >> 64) as u64 >> self.shift
    }
}

impl Mapping<'_> {
    /// Draws among the items of a bucket with the weights of the replica position.
    #[inline(always)]
    pub(super) fn choose_straw2(&mut self, node: &Node, own: u32, r: i32, position: usize) -> i32 {
        let draw = match self.choose_args {
            None => own,
            Some(set) => match self.placer.replacement(node, set) {
                Some(replacement) => replacement.first + (position as u32).min(replacement.count - 1),
                None => own,
            },
        };
        let tables = &self.placer.straw2;
        let Draw { first, len, mode } = tables.draws[draw as usize];
        let first = first as usize;
        if let Mode::Only(item) = mode {
            return item;
        }
        let padded = (len as usize).next_multiple_of(LANES);
        let ids = &tables.ids[first..first + padded];
        let entries = &tables.entries[first..first + len as usize];
        if self.draws.hashes.len() < padded {
            self.draws.hashes.resize(padded, 0);
        }
        let hashes = &mut self.draws.hashes[..padded];
        let greatest = self.placer.kernel.hash(self.x, r as u32, ids, hashes);
        match mode {
            Mode::Only(item) => item,
            Mode::Equal { weight, window } => entries[best_of_equals(hashes, greatest, weight, window)].item,
            Mode::Mixed => {
                let (mut best, mut least) = (0, u64::MAX);
                for (index, (entry, &u)) in entries.iter().zip(&*hashes).enumerate() {
                    let quotient = entry.quotient(LN_DISTANCE[u as usize & 0xffff]);
                    if quotient < least {
                        (best, least) = (index, quotient);
                    }
                }
                entries[best].item
            }
            Mode::Odd => best_of_odd(entries, hashes),
        }
    }
}

/// The first of the best among items of one weight. The places behind the last item repeat the first one, and so never win.
#[inline(always)]
fn best_of_equals(hashes: &[u32], greatest: u32, weight: u64, window: u32) -> usize {
    let bound = greatest.saturating_sub(window);
    let (groups, _) = hashes.as_chunks::<LANES>();
    let mut candidates = (usize::MAX, u64::MAX);
    let mut sole = None;
    for (group, lanes) in groups.iter().enumerate() {
        let mut mask = 0_u32;
        for (lane, &u) in lanes.iter().enumerate() {
            mask |= u32::from(u >= bound) << lane;
        }
        while mask != 0 {
            let index = group * LANES + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            // One candidate is the winner whatever it draws; so the first is looked at only if there is a second.
            match sole {
                None => sole = Some(index),
                Some(first) => {
                    if candidates.0 == usize::MAX {
                        candidates = (first, LN_DISTANCE[hashes[first] as usize & 0xffff] / weight);
                    }
                    let quotient = LN_DISTANCE[hashes[index] as usize & 0xffff] / weight;
                    if quotient < candidates.1 {
                        candidates = (index, quotient);
                    }
                }
            }
        }
    }
    match candidates.0 {
        usize::MAX => sole.unwrap_or(0),
        best => best,
    }
}

/// As Ceph computes it, sign and all.
#[cold]
fn best_of_odd(entries: &[Entry], hashes: &[u32]) -> i32 {
    let (mut best, mut greatest) = (0, i64::MIN);
    for (index, (entry, &u)) in entries.iter().zip(hashes).enumerate() {
        let draw = -(LN_DISTANCE[u as usize & 0xffff] as i64) / i64::from(entry.weight as i32);
        if draw > greatest {
            (best, greatest) = (index, draw);
        }
    }
    entries[best].item
}

/// The loop over a bucket's items, in the widest form the processor has.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Detected),
}

impl Kernel {
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(detected) = avx2::Detected::new() {
            return Kernel::Avx2(detected);
        }
        Kernel::Portable
    }

    /// The lower 16 bits of the hashes of (x, id, r) for each id; returns the greatest. Both slices have the
    /// same length, a multiple of [`LANES`].
    #[inline(always)]
    fn hash(self, x: u32, r: u32, ids: &[u32], hashes: &mut [u32]) -> u32 {
        match self {
            Kernel::Portable => portable(x, r, ids, hashes),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(detected) => detected.hash(x, r, ids, hashes),
        }
    }
}

fn portable(x: u32, r: u32, ids: &[u32], hashes: &mut [u32]) -> u32 {
    let mut greatest = 0;
    for (hash, &id) in hashes.iter_mut().zip(ids) {
        *hash = hash3(x, id, r) & 0xffff;
        greatest = greatest.max(*hash);
    }
    greatest
}

/// Eight hashes at once.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::LANES;
    use std::arch::x86_64::*;

    /// Says that this processor has AVX2.
    #[derive(Clone, Copy)]
    pub(in crate::mapper) struct Detected(());

    impl Detected {
        pub(super) fn new() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Detected(()))
        }

        #[inline(always)]
        pub(super) fn hash(self, x: u32, r: u32, ids: &[u32], hashes: &mut [u32]) -> u32 {
            // SAFETY: the processor has AVX2, which this value is the proof of; nothing else is asked for.
            unsafe { hash(x, r, ids, hashes) }
        }
    }

    /// One lane per id; `N` such groups side by side keep the processor busy.
    type Words<const N: usize> = [__m256i; N];

    #[target_feature(enable = "avx2")]
    fn hash(x: u32, r: u32, ids: &[u32], hashes: &mut [u32]) -> u32 {
        let (ids, _) = ids.as_chunks::<LANES>();
        let (hashes, _) = hashes.as_chunks_mut::<LANES>();
        let mut greatest = _mm256_setzero_si256();
        let (id_pairs, id_rest) = ids.as_chunks::<2>();
        let (hash_pairs, hash_rest) = hashes.as_chunks_mut::<2>();
        for (ids, hashes) in id_pairs.iter().zip(hash_pairs) {
            let words = hash_groups(x, r, [load(&ids[0]), load(&ids[1])]);
            hashes[0] = store(words[0]);
            hashes[1] = store(words[1]);
            greatest = _mm256_max_epu32(greatest, _mm256_max_epu32(words[0], words[1]));
        }
        for (ids, hashes) in id_rest.iter().zip(hash_rest) {
            let [word] = hash_groups(x, r, [load(ids)]);
            *hashes = store(word);
            greatest = _mm256_max_epu32(greatest, word);
        }
        let half = _mm_max_epu32(_mm256_castsi256_si128(greatest), _mm256_extracti128_si256::<1>(greatest));
        let quarter = _mm_max_epu32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
        let last = _mm_max_epu32(quarter, _mm_shuffle_epi32::<0b00_00_00_01>(quarter));
        _mm_cvtsi128_si32(last) as u32
    }

    /// [`crate::hash::hash3`] with the ids in the middle, and its lower 16 bits.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn hash_groups<const N: usize>(x: u32, r: u32, ids: Words<N>) -> Words<N> {
        let all = |word: u32| [_mm256_set1_epi32(word as i32); N];
        let (mut a, mut b, mut c) = (all(x), ids, all(r));
        let (mut fill_x, mut fill_y) = (all(231_232), all(1_232));
        let seed = _mm256_set1_epi32((1_315_423_911 ^ x ^ r) as i32);
        let mut hash = ids;
        for word in &mut hash {
            *word = _mm256_xor_si256(*word, seed);
        }
        mix(&mut a, &mut b, &mut hash);
        mix(&mut c, &mut fill_x, &mut hash);
        mix(&mut fill_y, &mut a, &mut hash);
        mix(&mut b, &mut fill_x, &mut hash);
        mix(&mut fill_y, &mut c, &mut hash);
        for word in &mut hash {
            *word = _mm256_and_si256(*word, _mm256_set1_epi32(0xffff));
        }
        hash
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn mix<const N: usize>(a: &mut Words<N>, b: &mut Words<N>, c: &mut Words<N>) {
        right::<13, N>(a, b, c);
        left::<8, N>(b, c, a);
        right::<13, N>(c, a, b);
        right::<12, N>(a, b, c);
        left::<16, N>(b, c, a);
        right::<5, N>(c, a, b);
        right::<3, N>(a, b, c);
        left::<10, N>(b, c, a);
        right::<15, N>(c, a, b);
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn right<const SHIFT: i32, const N: usize>(a: &mut Words<N>, b: &Words<N>, c: &Words<N>) {
        for n in 0..N {
            let difference = _mm256_sub_epi32(_mm256_sub_epi32(a[n], b[n]), c[n]);
            a[n] = _mm256_xor_si256(difference, _mm256_srli_epi32::<SHIFT>(c[n]));
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn left<const SHIFT: i32, const N: usize>(a: &mut Words<N>, b: &Words<N>, c: &Words<N>) {
        for n in 0..N {
            let difference = _mm256_sub_epi32(_mm256_sub_epi32(a[n], b[n]), c[n]);
            a[n] = _mm256_xor_si256(difference, _mm256_slli_epi32::<SHIFT>(c[n]));
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(group: &[u32; LANES]) -> __m256i {
        let [a, b, c, d, e, f, g, h] = group.map(|word| word as i32);
        _mm256_setr_epi32(a, b, c, d, e, f, g, h)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(words: __m256i) -> [u32; LANES] {
        // SAFETY: both are 32 bytes of which every pattern is valid; lane 0 is the first word.
        unsafe { std::mem::transmute(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_hash_alike() {
        let ids: Vec<u32> = (0..40_u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
        for len in [8, 16, 24, 32, 40] {
            for x in 0..2000_u32 {
                let (mut ours, mut plain) = (vec![0; len], vec![0; len]);
                let greatest = Kernel::detect().hash(x, x >> 3, &ids[..len], &mut ours);
                assert_eq!(greatest, portable(x, x >> 3, &ids[..len], &mut plain));
                assert_eq!(ours, plain);
                assert_eq!(plain.iter().max(), Some(&greatest));
            }
        }
    }

    #[test]
    fn reciprocals_divide_exactly() {
        let weights = (2..70_000).chain([
            0x10000,
            0x10001,
            0x64_0000,
            0x640_0000,
            0x7fff_ffff,
            0x4000_0000,
            0x4000_0001,
        ]);
        for weight in weights {
            let entry = Entry::new(0, weight);
            let w = u64::from(weight);
            // The hardest dividends are those just below and at a multiple.
            for multiple in [1, 2, 3, (1 << 48) / w - 1, (1 << 48) / w] {
                for distance in [multiple * w - 1, multiple * w, (multiple * w + 1).min(1 << 48)] {
                    assert_eq!(entry.quotient(distance), distance / w, "{distance} / {weight}");
                }
            }
            for &distance in LN_DISTANCE.iter().step_by(997) {
                assert_eq!(entry.quotient(distance), distance / w, "{distance} / {weight}");
            }
        }
    }

    /// For every greatest `u` and every `u` below its window, the draw is worse.
    #[test]
    fn no_winner_is_outside_the_window() {
        for weight in
            [2_u32, 1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 26, 1 << 28, 3 << 28, 5 << 28, i32::MAX as u32]
        {
            let mut least_below = u64::MAX;
            let window = window(weight) as usize;
            for (greatest, &distance) in LN_DISTANCE.iter().enumerate() {
                if let Some(below) = greatest.checked_sub(window + 1) {
                    least_below = least_below.min(LN_DISTANCE[below]);
                    assert!(
                        least_below / u64::from(weight) > distance / u64::from(weight),
                        "{weight} {greatest}"
                    );
                }
            }
        }
    }
}
