//! What operators see of a group.

use crate::version::Version;
use cairn_types::{Epoch, OsdId, PgId};
use std::fmt;

/// The words of a state such as `active+undersized+degraded`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "each is the RADOS word of its name")]
pub struct StateFlags {
    pub active: bool,
    pub peered: bool,
    pub peering: bool,
    pub down: bool,
    pub incomplete: bool,
    pub clean: bool,
    pub undersized: bool,
    pub degraded: bool,
    pub remapped: bool,
    pub recovering: bool,
    pub recovery_unfound: bool,
    pub backfill_wait: bool,
    pub backfilling: bool,
}

impl fmt::Display for StateFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.down, "down"),
            (self.incomplete, "incomplete"),
            (self.peering, "peering"),
            (self.active, "active"),
            (self.clean, "clean"),
            (self.backfill_wait, "backfill_wait"),
            (self.backfilling, "backfilling"),
            (self.recovering, "recovering"),
            (self.recovery_unfound, "recovery_unfound"),
            (self.undersized, "undersized"),
            (self.degraded, "degraded"),
            (self.remapped, "remapped"),
            (self.peered, "peered"),
        ];
        let mut first = true;
        for (_, word) in words.iter().filter(|(set, _)| *set) {
            if !first {
                f.write_str("+")?;
            }
            f.write_str(word)?;
            first = false;
        }
        if first { f.write_str("unknown") } else { Ok(()) }
    }
}

/// What the primary tells of its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PgStats {
    /// Which group.
    pub pgid: PgId,
    /// Map epoch at the time.
    pub epoch: Epoch,
    /// State.
    pub state: StateFlags,
    /// Up set.
    pub up: Vec<OsdId>,
    /// Acting set.
    pub acting: Vec<OsdId>,
    /// Newest change.
    pub last_update: Version,
    /// Objects the primary itself misses.
    pub missing_on_primary: usize,
    /// Copies of objects missing, over all members.
    pub degraded_copies: usize,
    /// Objects no known copy has in the version the log asks for.
    pub unfound: usize,
    /// Backfill targets.
    pub backfill_targets: Vec<OsdId>,
    /// Past members that are down and whose answer is needed.
    pub blocked_by: Vec<OsdId>,
    /// Operations waiting.
    pub ops_waiting: usize,
}
