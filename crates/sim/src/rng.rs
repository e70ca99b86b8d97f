//! The one source of chance: everything random in a run comes from its seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, the same on every machine and in every release.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// A stream of its own for one purpose, so that what one part draws does not shift what another part
    /// draws. This is what makes a shortened fault plan comparable with the whole one.
    pub fn fork(seed: u64, purpose: &str) -> Self {
        // FNV-1a, then one step of the generator to spread it.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in purpose.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut rng = Rng(seed ^ hash);
        Rng(rng.next())
    }

    /// 64 bits.
    #[allow(clippy::should_implement_trait, reason = "an endless stream is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 when it is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `parts` of 1,000.
    pub fn permille(&mut self, parts: u64) -> bool {
        self.below(1_000) < parts
    }

    /// One of `items`, or nothing of nothing.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Puts `items` in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_for_ever() {
        // Seeds are kept as regression tests: the stream of a seed must not change with a release.
        let mut rng = Rng::new(42);
        assert_eq!([rng.next(), rng.next()], [0xbdd7_3226_2feb_6e95, 0x28ef_e333_b266_f103]);
    }

    #[test]
    fn purposes_have_streams_of_their_own() {
        let draw = |purpose| Rng::fork(7, purpose).next();
        assert_eq!(draw("network"), draw("network"));
        assert_ne!(draw("network"), draw("disk"));
    }

    #[test]
    fn bounds_hold() {
        let mut rng = Rng::new(1);
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| (3..=5).contains(&rng.between(3, 5))));
        assert!(rng.choose::<u8>(&[]).is_none());
    }
}
