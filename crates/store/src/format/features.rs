//! What a store uses beyond version 1, as three masks of bits. A program that does not know a set bit may
//! still use the store, only read it, or not touch it, by the mask the bit is in.

use std::fmt;

/// The masks of a superblock.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Features {
    /// Who does not know one may use the store all the same.
    pub compat: u64,
    /// Who does not know one may read the store but not write to it.
    pub ro_compat: u64,
    /// Who does not know one cannot read the store.
    pub incompat: u64,
}

impl Features {
    /// Those that this version knows: none yet.
    pub const KNOWN: Features = Features { compat: 0, ro_compat: 0, incompat: 0 };

    /// Why the store cannot be read, if so.
    pub fn unknown_incompat(&self) -> Option<FeatureBits> {
        FeatureBits::of(self.incompat & !Features::KNOWN.incompat)
    }

    /// Why the store must not be written to, though it can be read, if so.
    pub fn unknown_ro_compat(&self) -> Option<FeatureBits> {
        FeatureBits::of(self.ro_compat & !Features::KNOWN.ro_compat)
    }
}

/// Bits of one mask, at least one. Shown as numbers, as the format's document lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureBits(u64);

impl FeatureBits {
    fn of(mask: u64) -> Option<Self> {
        (mask != 0).then_some(FeatureBits(mask))
    }

    /// As a mask.
    pub fn mask(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FeatureBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.count_ones() == 1 { "bit" } else { "bits" })?;
        let bits = (0..u64::BITS).filter(|bit| self.0 >> bit & 1 == 1);
        for (at, bit) in bits.enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {bit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_named_by_number() {
        assert_eq!(FeatureBits(1 << 63).to_string(), "bit 63");
        assert_eq!(FeatureBits(0b1000_0000_0000_1001).to_string(), "bits 0, 3, 15");
        assert_eq!(FeatureBits::of(0), None);
    }
}
