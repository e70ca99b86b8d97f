//! The numbers by which a cluster names its parts.

use crate::text::serde_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Number of an OSD, from 0. CRUSH names devices by the same non-negative number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OsdId(pub i32);

/// Number of a monitor. Never given twice in the life of a cluster: a monitor that lost its disk
/// comes back under a new number, because it no longer knows what it promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct MonId(pub u32);

/// Number of a pool. Signed 64 bits, as RADOS has it; the monitors give out numbers from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PoolId(pub i64);

/// One version of the cluster map. Epoch 0 is "no map yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// A snapshot of a pool, or [`SnapId::HEAD`] for the object as clients write it now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SnapId(pub u64);

impl SnapId {
    /// The live object (RADOS `CEPH_NOSNAP`, −2).
    pub const HEAD: SnapId = SnapId(u64::MAX - 1);
}

/// A placement group: pool and placement seed (`ps`), printed `pool.ps` with `ps` in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PgId {
    /// The pool this group belongs to.
    pub pool: PoolId,
    /// Placement seed: the group's number within its pool, below `pg_num`.
    pub seed: u32,
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for OsdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "osd.{}", self.0)
    }
}

impl fmt::Display for MonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mon.{}", self.0)
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool.0, self.seed)
    }
}

serde_as_text!(PgId, (PoolId, u32), |pg| (pg.pool, pg.seed), |(pool, seed)| Some(PgId { pool, seed }));

/// Why a text is not a placement group id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParsePgIdError;

impl fmt::Display for ParsePgIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a placement group is written POOL.SEED with the seed in hexadecimal, such as 2.1f")
    }
}

impl std::error::Error for ParsePgIdError {}

impl From<ParseIntError> for ParsePgIdError {
    fn from(_: ParseIntError) -> Self {
        ParsePgIdError
    }
}

impl FromStr for PgId {
    type Err = ParsePgIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pool, seed) = text.split_once('.').ok_or(ParsePgIdError)?;
        // from_str_radix takes a sign; a seed has none.
        if !seed.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParsePgIdError);
        }
        Ok(PgId { pool: PoolId(pool.parse()?), seed: u32::from_str_radix(seed, 16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pg_id_prints_as_it_parses() {
        let pg = PgId { pool: PoolId(2), seed: 0x1f };
        assert_eq!(pg.to_string(), "2.1f");
        assert_eq!("2.1f".parse(), Ok(pg));
    }

    #[test]
    fn malformed_pg_ids_are_refused() {
        for text in ["", "2", "2.", ".1", "2.1g", "2.+1", "2.1ffffffff", "x.1"] {
            assert_eq!(text.parse::<PgId>(), Err(ParsePgIdError), "{text:?}");
        }
    }
}
