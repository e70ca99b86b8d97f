//! What monitors say to each other. No order, no single delivery and no delivery at all is assumed.
//! The sender is known to the receiver from the authenticated link, so messages do not repeat it.

use cairn_types::MonId;
use serde::{Deserialize, Serialize};

use crate::ballot::{Ballot, Slot};
use crate::command::{Command, Payload, Proposal, ProposalId};
use crate::state::{Accepted, Ledger};
use crate::timers::Moment;

/// A message between two monitors. `docs/paxos.md` has the table of who sends what when.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// "Would you promise to me?" Changes nothing at the receiver.
    PreVote {
        /// Tells this attempt's replies from older ones.
        attempt: u64,
        /// The sender's decided slot.
        decided: Slot,
    },
    /// Answer to [`Message::PreVote`].
    PreVoteReply {
        /// From the question.
        attempt: u64,
        /// Whether a prepare would be answered with a promise now.
        granted: bool,
        /// The voter's own promise: the ballot to beat.
        promised: Ballot,
        /// The voter's decided slot.
        decided: Slot,
        /// The leader the voter hears, if it hears one.
        leader: Option<MonId>,
    },
    /// Phase 1a.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// The candidate's decided slot.
        decided: Slot,
    },
    /// Phase 1b: no lower ballot is accepted from here on.
    Promise {
        /// From the prepare.
        ballot: Ballot,
        /// The voter's decided slot. The promise speaks for the slots above it only.
        decided: Slot,
        /// Everything the voter accepted above `decided`; at most alpha entries.
        accepted: Vec<Accepted>,
    },
    /// Phase 2a, sign of life and news of decisions in one.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The leader's clock; comes back in the answer and dates the lease.
        stamp: Moment,
        /// Everything up to here is decided.
        decided: Slot,
        /// Hash of the history up to `decided`.
        hash: u64,
        /// Slots to accept; often none, at most alpha.
        entries: Vec<(Slot, Command)>,
    },
    /// Phase 2b, and the lease.
    Accepted {
        /// From the accept.
        ballot: Ballot,
        /// From the accept.
        stamp: Moment,
        /// The follower's decided slot.
        decided: Slot,
        /// Slots now durably accepted in this ballot.
        slots: Vec<Slot>,
    },
    /// A prepare or accept was not honoured.
    Reject {
        /// Of the refused message.
        ballot: Ballot,
        /// The refuser's own promise: the ballot to beat.
        promised: Ballot,
        /// Whose lease the refuser still honours, when it is not the sender's.
        lessee: Option<MonId>,
    },
    /// The leader lays down its ballot and no longer reads under it.
    Resign {
        /// The ballot.
        ballot: Ballot,
    },
    /// "Send me what is decided from here on." Slot 0 asks for the full state.
    LearnRequest {
        /// First slot wanted.
        from: Slot,
    },
    /// Decided entries, consecutive.
    Learn {
        /// With the ballot in which the sender had accepted each.
        entries: Vec<Accepted>,
        /// The sender's decided slot: more than what is here may exist.
        decided: Slot,
    },
    /// "Send me the state at this slot from this offset on."
    SnapshotRequest {
        /// Which state.
        slot: Slot,
        /// Byte offset.
        offset: u64,
    },
    /// A piece of the full state.
    SnapshotChunk {
        /// The slot the state stands at.
        slot: Slot,
        /// Byte offset of `bytes`.
        offset: u64,
        /// Length of the whole, in bytes.
        len: u64,
        /// FNV-1a of the whole.
        hash: u64,
        /// What the log itself knows at `slot`; in the first piece only.
        ledger: Option<Box<Ledger>>,
        /// The piece.
        bytes: Payload,
    },
    /// A follower hands a proposal to the leader.
    Forward {
        /// Who waits for the outcome.
        origin: MonId,
        /// How often it was passed on.
        hops: u8,
        /// The proposal.
        proposal: Proposal,
    },
    /// The leader's queue is full; the origin tries again later.
    Busy {
        /// Which proposal.
        id: ProposalId,
    },
}
