//! Deliberate bugs. Each must be found by the simulation within a bounded number of seeds: that shows
//! the checkers see. Compiled only into tests.

/// A deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Canary {
    /// Accept a ballot below the promise.
    AcceptOldBallot,
    /// Count two answers of one member as two votes.
    CountMemberTwice,
    /// Answer an accept before it is durable.
    AckBeforePersist,
    /// Come back from a restart without the promise.
    ForgetPromise,
    /// Promise to a candidate although another leader's lease runs.
    LeaseNotWaitedOut,
    /// After a restart, promise at once although a lease may have been granted before it.
    LeaseForgottenAtBoot,
    /// Read by virtue of being leader, without a lease.
    ReadWithoutLease,
    /// Read before the entries of earlier ballots are decided.
    ReadBeforeRecovery,
    /// Date the lease by the answer's arrival instead of the question's departure.
    LeaseFromArrival,
    /// Count the lease in full, as if clocks ran alike.
    DriftIgnored,
    /// Drop entries that are not decided.
    TrimTooFar,
    /// Promise without telling what was accepted.
    PromiseWithoutAccepted,
    /// Propose own commands over those found in promises.
    IgnoreRecovered,
    /// Of several accepted values take the one with the lowest ballot.
    LowestBallotWins,
    /// Take an entry of an older ballot as decided because the leader's index has passed it.
    DecideByIndex,
    /// Count all votes in the newest membership, whatever the slot.
    NewestMembershipCounts,
    /// Apply a repeated proposal again.
    ApplyTwice,
    /// A leader that meets a higher promise goes on as if nothing were.
    NeverPrepareAgain,
    /// Forget forwarded proposals instead of tracking their outcome.
    DropProposals,
    /// Let a promise speak for slots the voter had already trimmed from its answer.
    PromiseSpeaksForDecided,
    /// Go on leading after learning that a newer ballot decided a slot.
    LeadPastNewerDecision,
}

impl Canary {
    /// All that random faults find. The one that is not here needs five monitors and a question that
    /// waits in the network through a change of leader: a scenario shows it.
    pub const ALL: [Canary; 20] = [
        Canary::AcceptOldBallot,
        Canary::CountMemberTwice,
        Canary::AckBeforePersist,
        Canary::ForgetPromise,
        Canary::LeaseNotWaitedOut,
        Canary::LeaseForgottenAtBoot,
        Canary::ReadWithoutLease,
        Canary::ReadBeforeRecovery,
        Canary::LeaseFromArrival,
        Canary::DriftIgnored,
        Canary::TrimTooFar,
        Canary::PromiseWithoutAccepted,
        Canary::IgnoreRecovered,
        Canary::LowestBallotWins,
        Canary::DecideByIndex,
        Canary::NewestMembershipCounts,
        Canary::ApplyTwice,
        Canary::NeverPrepareAgain,
        Canary::DropProposals,
        Canary::PromiseSpeaksForDecided,
    ];
}
