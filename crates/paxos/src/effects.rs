//! What goes in and what comes out.

use cairn_types::MonId;
use thiserror::Error;

use crate::ballot::{Ballot, Slot};
use crate::command::{Payload, ProposalId, Request};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::membership::ChangeRefused;
use crate::message::Message;
use crate::state::{Applied, Record};
use crate::timers::Moment;

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The moment of [`Effects::timer`] has come (or may have: early and double ticks are harmless).
    Tick,
    /// A message arrived over the authenticated link of `from`.
    Message {
        /// Who sent it.
        from: MonId,
        /// What.
        message: Message,
    },
    /// The records of this batch, and so of all before it, are durable.
    Persisted {
        /// [`Effects::batch`].
        batch: u64,
    },
    /// Writing or reading the durable state failed. The monitor never answers again.
    StorageFailed,
    /// The application or an operator proposes something. The outcome comes in [`Effects::outcomes`].
    Propose {
        /// Its name.
        id: ProposalId,
        /// [`crate::Node::decided`] when the proposal was first made; kept when it is made again.
        born: Slot,
        /// What.
        request: Request,
    },
    /// Answer to [`Notice::NeedSnapshot`]: the application's state after applying everything up to `slot`.
    Snapshot {
        /// Where the state stands.
        slot: Slot,
        /// The state.
        state: Payload,
    },
    /// The application's durable state has reached `upto` and entries up to there may go. Keep some, so
    /// that a monitor that was away a little catches up by entries.
    Trim {
        /// The last slot to drop.
        upto: Slot,
    },
    /// Lay down leadership if we have it: the process is about to stop.
    Resign,
}

/// A message and where it goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Send {
    /// To whom.
    pub to: MonId,
    /// What.
    pub message: Message,
}

/// Work for the application, in the order of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Apply {
    /// A slot was decided.
    Slot {
        /// Which.
        slot: Slot,
        /// What it means.
        applied: Applied,
    },
    /// Replace the whole state: this one stands at `slot`.
    Install {
        /// Where it stands.
        slot: Slot,
        /// The state.
        state: Payload,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It is in the log here, once.
    Decided {
        /// Where.
        slot: Slot,
    },
    /// It is in the log, as a membership change that could not be made.
    ChangeRefused {
        /// Where.
        slot: Slot,
        /// Why.
        reason: ChangeRefused,
    },
    /// It is not in the log and never will be: the log passed its window. Propose it under a new id.
    Lost,
    /// It was decided or lost so long ago that the log cannot tell which.
    Forgotten,
    /// Time is up without an answer; it may still be decided. Propose it again under the same id and
    /// the same `born`.
    Uncertain,
    /// It was never taken up.
    Refused(Refused),
}

/// Why a proposal was not taken up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Refused {
    /// Back-pressure.
    #[error("too many proposals are waiting; try again in a moment")]
    Busy,
    /// Above the limit.
    #[error("a proposal may have at most {PAYLOAD_BYTES_MAX} bytes")]
    TooLarge,
    /// Its `born` is above the decided slot.
    #[error("the proposal says it was made at a slot that is not decided yet")]
    BornInFuture,
    /// This monitor has no say: it is joining, removed, or its storage failed.
    #[error("this monitor is not part of the quorum; ask another one")]
    NotServing,
}

/// Why a monitor stopped answering for good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Poison {
    /// [`Event::StorageFailed`].
    #[error("the monitor's storage failed; replace the disk, remove this monitor and add a new one")]
    Storage,
    /// Its history differs from the leader's.
    #[error("the monitor's log differs from the leader's at {0}; remove this monitor and add a new one")]
    Diverged(Slot),
}

/// News for the driver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// This monitor leads now; reads may have to wait for the first answers ([`crate::Node::can_read`]).
    BecameLeader {
        /// Under which ballot.
        ballot: Ballot,
    },
    /// It does not lead (any more); the leader it follows, once one is heard.
    BecameFollower {
        /// Whom it follows.
        leader: Option<MonId>,
    },
    /// Someone needs the full state: answer with [`Event::Snapshot`]. Asked once per need.
    NeedSnapshot,
    /// This monitor was removed and nobody needs it any more: stop it.
    Retired,
    /// It will never answer again.
    Poisoned(Poison),
}

/// Everything a monitor wants done, gathered over one or more events.
///
/// The order that a driver keeps:
/// 1. send `early` (nothing in it depends on this batch being durable);
/// 2. make `persist`, and the application's own changes for `apply`, durable as one atomic batch;
/// 3. hand in [`Event::Persisted`] with `batch`, then send `after`.
///
/// Several batches may be under way if they become durable in order. While [`Effects::must_flush`] is
/// false the records may wait for a later batch.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Effects {
    /// Number of this batch, ascending.
    pub batch: u64,
    /// Messages that need not wait.
    pub early: Vec<Send>,
    /// Records, in order.
    pub persist: Vec<Record>,
    /// Messages that wait for the flush.
    pub after: Vec<Send>,
    /// Decided by a quorum whatever becomes of this monitor: applied at once, in order.
    pub apply: Vec<Apply>,
    /// Outcomes of proposals made here. Hand them out after `apply`.
    pub outcomes: Vec<(ProposalId, Outcome)>,
    /// News.
    pub notices: Vec<Notice>,
    /// When to hand in [`Event::Tick`]; replaces the earlier timer. `None`: no timer.
    pub timer: Option<Moment>,
    pub(crate) votes: bool,
}

impl Effects {
    /// Whether something waits for this batch to be durable.
    #[must_use]
    pub fn must_flush(&self) -> bool {
        self.votes || !self.after.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.early.clear();
        self.persist.clear();
        self.after.clear();
        self.apply.clear();
        self.outcomes.clear();
        self.notices.clear();
        self.timer = None;
        self.votes = false;
    }
}
