//! What one OSD knows of its copy of the group, in a few numbers.

use crate::version::{Position, Version};
use cairn_types::{Epoch, PgId};
use serde::{Deserialize, Serialize};

/// Facts about the group as a whole, merged from whoever knows more (RADOS `pg_history_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Epoch the pool (or group) was made in.
    pub epoch_created: Epoch,
    /// Newest epoch in which a whole acting set is known to have agreed on one log.
    pub last_epoch_started: Epoch,
    /// Newest epoch in which every copy was known to be whole.
    pub last_epoch_clean: Epoch,
    /// First epoch of the current interval, by this OSD's own maps; never merged.
    pub same_interval_since: Epoch,
}

impl History {
    /// Takes what `other` knows better. True if anything that bounds peering moved.
    pub fn merge(&mut self, other: &History) -> bool {
        let before = *self;
        self.epoch_created = self.epoch_created.max(other.epoch_created);
        self.last_epoch_started = self.last_epoch_started.max(other.last_epoch_started);
        self.last_epoch_clean = self.last_epoch_clean.max(other.last_epoch_clean);
        *self != before
    }
}

/// One copy of the group (RADOS `pg_info_t`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PgInfo {
    /// Which group.
    pub pgid: PgId,
    /// Newest entry of this copy's log.
    pub last_update: Version,
    /// Every change up to this one is in this copy's objects, none of them missing.
    pub last_complete: Version,
    /// The log reaches back to just after this version.
    pub log_tail: Version,
    /// Newest activation this copy has durably taken part in.
    pub last_epoch_started: Epoch,
    /// Every change up to this one was durable on the whole acting set, as far as this copy was told: it may have been
    /// acknowledged, and a log of the same activation that ends before it has lost something.
    pub committed_to: Version,
    /// How far through the objects this copy is meant to have them.
    pub last_backfill: Position,
    /// Newest epoch when this OSD's disk was made: it cannot vouch for anything older.
    pub born: Epoch,
    /// About the group as a whole.
    pub history: History,
}

impl PgInfo {
    /// A copy with nothing in it. It is complete: an empty group has no objects to lack. Peering
    /// makes it a backfill target if it turns out that others hold a longer history.
    pub fn new(pgid: PgId, epoch_created: Epoch, born: Epoch) -> PgInfo {
        PgInfo {
            pgid,
            last_update: Version::ZERO,
            last_complete: Version::ZERO,
            log_tail: Version::ZERO,
            last_epoch_started: Epoch(0),
            committed_to: Version::ZERO,
            last_backfill: Position::Max,
            born,
            history: History { epoch_created, ..History::default() },
        }
    }

    /// Whether a backfill of this copy was begun and not finished.
    pub fn is_incomplete(&self) -> bool {
        self.last_backfill != Position::Max
    }

    /// This copy takes part in a new activation, durably: what the group has agreed on ends with its log.
    pub(crate) fn start(&mut self, started: Epoch, head: Version) {
        self.last_epoch_started = started;
        self.committed_to = self.committed_to.min(head);
    }

    /// A version below which this copy's log certainly agrees with every later authoritative one:
    /// what it logged before its newest activation was agreed on in that activation.
    pub fn agreed_up_to(&self) -> Version {
        self.last_update.min(Version { epoch: self.last_epoch_started, version: 0 })
    }
}
