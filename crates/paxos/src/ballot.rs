//! Slots and ballots: the two orders everything rests on.

use std::fmt;

use cairn_types::MonId;
use serde::{Deserialize, Serialize};

/// One place in the log. Slot 0 is "nothing yet"; the first decided command stands in slot 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Slot(pub u64);

impl Slot {
    /// Before the first command.
    pub const ZERO: Slot = Slot(0);

    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Slot {
        Slot(self.0 + 1)
    }

    /// The slot `count` further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Slot {
        Slot(self.0.saturating_add(count))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A bid for leadership. Ordered by round, then monitor, so that no two monitors share one. The
/// default, round 0, is below every real ballot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with every attempt.
    pub round: u64,
    /// Who leads if this ballot wins.
    pub leader: MonId,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.leader.0)
    }
}
