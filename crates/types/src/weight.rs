//! Weights as CRUSH computes with them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A weight in 16.16 fixed point: `0x1_0000` is 1.0. For CRUSH items 1.0 stands for one TiB by
/// convention; for an OSD's reweight it stands for "fully in".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Weight(pub u32);

impl Weight {
    /// No weight: never chosen.
    pub const ZERO: Weight = Weight(0);
    /// 1.0.
    pub const ONE: Weight = Weight(0x1_0000);

    /// The weight as a floating point number, for printing and statistics only.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 65536.0
    }
}

impl fmt::Display for Weight {
    /// Five decimals, as operators read it from `ceph osd tree`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.5}", self.as_f64())
    }
}
