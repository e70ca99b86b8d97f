//! The state of a placement group as operators read it: `active+clean`.

use crate::text::serde_as_text;
use std::fmt;
use std::str::FromStr;

/// A set of state words, printed joined by `+` in one fixed order; `unknown` when there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PgState(pub u32);

/// Words by bit, in the order they are printed.
const WORDS: [(PgState, &str); 24] = [
    (PgState::CREATING, "creating"),
    (PgState::STALE, "stale"),
    (PgState::ACTIVE, "active"),
    (PgState::ACTIVATING, "activating"),
    (PgState::CLEAN, "clean"),
    (PgState::RECOVERY_WAIT, "recovery_wait"),
    (PgState::RECOVERY_TOOFULL, "recovery_toofull"),
    (PgState::RECOVERING, "recovering"),
    (PgState::DOWN, "down"),
    (PgState::UNDERSIZED, "undersized"),
    (PgState::DEGRADED, "degraded"),
    (PgState::REMAPPED, "remapped"),
    (PgState::SCRUBBING, "scrubbing"),
    (PgState::DEEP, "deep"),
    (PgState::INCONSISTENT, "inconsistent"),
    (PgState::PEERING, "peering"),
    (PgState::REPAIR, "repair"),
    (PgState::BACKFILL_WAIT, "backfill_wait"),
    (PgState::BACKFILLING, "backfilling"),
    (PgState::BACKFILL_TOOFULL, "backfill_toofull"),
    (PgState::INCOMPLETE, "incomplete"),
    (PgState::PEERED, "peered"),
    (PgState::SNAPTRIM, "snaptrim"),
    (PgState::UNFOUND, "unfound"),
];

#[allow(missing_docs)] // Each has the meaning RADOS gives its word, in the table above.
impl PgState {
    pub const UNKNOWN: PgState = PgState(0);
    pub const CREATING: PgState = PgState(1 << 0);
    pub const STALE: PgState = PgState(1 << 1);
    pub const ACTIVE: PgState = PgState(1 << 2);
    pub const ACTIVATING: PgState = PgState(1 << 3);
    pub const CLEAN: PgState = PgState(1 << 4);
    pub const RECOVERY_WAIT: PgState = PgState(1 << 5);
    pub const RECOVERY_TOOFULL: PgState = PgState(1 << 6);
    pub const RECOVERING: PgState = PgState(1 << 7);
    pub const DOWN: PgState = PgState(1 << 8);
    pub const UNDERSIZED: PgState = PgState(1 << 9);
    pub const DEGRADED: PgState = PgState(1 << 10);
    pub const REMAPPED: PgState = PgState(1 << 11);
    pub const SCRUBBING: PgState = PgState(1 << 12);
    pub const DEEP: PgState = PgState(1 << 13);
    pub const INCONSISTENT: PgState = PgState(1 << 14);
    pub const PEERING: PgState = PgState(1 << 15);
    pub const REPAIR: PgState = PgState(1 << 16);
    pub const BACKFILL_WAIT: PgState = PgState(1 << 17);
    pub const BACKFILLING: PgState = PgState(1 << 18);
    pub const BACKFILL_TOOFULL: PgState = PgState(1 << 19);
    pub const INCOMPLETE: PgState = PgState(1 << 20);
    pub const PEERED: PgState = PgState(1 << 21);
    pub const SNAPTRIM: PgState = PgState(1 << 22);
    pub const UNFOUND: PgState = PgState(1 << 23);
}

impl PgState {
    /// Whether all words of `other` are in this state.
    pub fn has(self, other: PgState) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any word of `other` is in this state.
    pub fn has_any(self, other: PgState) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for PgState {
    type Output = PgState;

    fn bitor(self, other: PgState) -> PgState {
        PgState(self.0 | other.0)
    }
}

impl fmt::Display for PgState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, word) in WORDS.iter().filter(|(state, _)| self.has(*state)) {
            write!(f, "{}{word}", if first { "" } else { "+" })?;
            first = false;
        }
        if first { f.write_str("unknown") } else { Ok(()) }
    }
}

/// Why a text is not a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParsePgStateError;

impl fmt::Display for ParsePgStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a state of a placement group is words joined by '+', such as active+clean")
    }
}

impl std::error::Error for ParsePgStateError {}

impl FromStr for PgState {
    type Err = ParsePgStateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unknown" {
            return Ok(PgState::UNKNOWN);
        }
        text.split('+').try_fold(PgState::UNKNOWN, |state, word| {
            let known = WORDS.iter().find(|(_, known)| *known == word);
            known.map(|(bit, _)| state | *bit).ok_or(ParsePgStateError)
        })
    }
}

serde_as_text!(PgState, u32, |state| state.0, |bits| Some(PgState(bits)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_print_in_one_order_and_parse() {
        let state = PgState::DEGRADED | PgState::UNDERSIZED | PgState::ACTIVE;
        assert_eq!(state.to_string(), "active+undersized+degraded");
        assert_eq!("degraded+active+undersized".parse(), Ok(state));
        assert_eq!(PgState::UNKNOWN.to_string(), "unknown");
        assert_eq!("unknown".parse(), Ok(PgState::UNKNOWN));
        assert!("active+tidy".parse::<PgState>().is_err());
        for (n, (state, _)) in WORDS.iter().enumerate() {
            assert_eq!(state.0, 1 << n, "the table is in the order of the bits");
        }
    }
}
