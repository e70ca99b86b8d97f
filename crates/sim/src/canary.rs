//! Deliberate bugs, by name: each must be found, or the checkers do not see.

use crate::shape::Profile;
use cairn_paxos::Canary as Log;
use cairn_pg::Canary as Group;
use cairn_store::Canary as Store;

/// A deliberate bug somewhere in the cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// In every placement group.
    Pg(Group),
    /// In every store.
    Store(Store),
    /// In the log of every monitor.
    Paxos(Log),
    /// An OSD that starts again has forgotten the blocklist of the maps it kept.
    ForgetBlocklist,
    /// An OSD wants to be woken at once, always.
    Spin,
    /// An operator ends a monitor as soon as it is removed from the map, while the others may need it to agree on that.
    EndMonEarly,
    /// Who takes the lock of an image from a dead client does not shut that client out.
    TakeLockWithoutBlocklist,
}

impl Canary {
    /// All that random runs have to find, with the names that the command line takes.
    pub const ALL: [(&'static str, Canary); 21] = [
        ("acknowledge-before-persisting", Canary::Pg(Group::AckBeforePersist)),
        ("one-replica-not-durable", Canary::Pg(Group::AckWithOneReplicaNotDurable)),
        ("forget-up-thru", Canary::Pg(Group::ForgetUpThru)),
        ("activate-without-up-thru", Canary::Pg(Group::ActivateWithoutUpThru)),
        ("read-without-lease", Canary::Pg(Group::ReadWithoutLease)),
        ("skip-divergent-rollback", Canary::Pg(Group::SkipDivergentRollback)),
        ("apply-resend-twice", Canary::Pg(Group::ApplyResendTwice)),
        ("forget-missing-object", Canary::Pg(Group::ForgetMissingObject)),
        ("trim-log-too-far", Canary::Pg(Group::TrimLogTooFar)),
        ("forget-blocklist", Canary::ForgetBlocklist),
        ("take-lock-without-blocklist", Canary::TakeLockWithoutBlocklist),
        ("store-record-not-durable", Canary::Store(Store::RecordNotDurable)),
        ("skip-checksum", Canary::Store(Store::NoChecksum)),
        ("store-reuses-early", Canary::Store(Store::EarlyReuse)),
        ("accept-old-ballot", Canary::Paxos(Log::AcceptOldBallot)),
        ("count-twice-in-a-quorum", Canary::Paxos(Log::CountMemberTwice)),
        ("log-acknowledges-before-persisting", Canary::Paxos(Log::AckBeforePersist)),
        ("forget-promise", Canary::Paxos(Log::ForgetPromise)),
        ("trim-paxos-log-too-far", Canary::Paxos(Log::TrimTooFar)),
        ("spin", Canary::Spin),
        ("end-removed-monitor-early", Canary::EndMonEarly),
    ];

    /// Its name.
    pub fn name(self) -> Option<&'static str> {
        let mut all = Canary::ALL.iter().chain(&Canary::TOO_RARE);
        all.find(|(_, canary)| *canary == self).map(|(name, _)| *name)
    }

    /// The profile whose faults meet what it breaks.
    pub fn profile(self) -> Profile {
        match self {
            Canary::Paxos(_) | Canary::EndMonEarly => Profile::Monitors,
            Canary::TakeLockWithoutBlocklist => Profile::Images,
            _ => Profile::Narrow,
        }
    }

    /// Those that random runs of a whole cluster do not have to find: they need moments that are rare, or a disk that lies. The first is
    /// found by a story (`tests/scenarios.rs`), the others by the tests of the group and of the store.
    pub const TOO_RARE: [(&'static str, Canary); 6] = [
        ("take-oldest-log", Canary::Pg(Group::TakeOldestLog)),
        ("ignore-committed-to", Canary::Pg(Group::IgnoreCommittedTo)),
        ("forget-redone-requests", Canary::Pg(Group::ForgetRedoneRequests)),
        ("read-what-may-be-redone", Canary::Pg(Group::ReadWhatMayBeRedone)),
        ("ignore-prior-lease", Canary::Pg(Group::IgnorePriorLease)),
        ("store-acknowledges-early", Canary::Store(Store::EarlyAcknowledgement)),
    ];
}

impl std::str::FromStr for Canary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = || Canary::ALL.iter().chain(&Canary::TOO_RARE);
        let found = all().find(|(name, _)| *name == text);
        found.map(|(_, canary)| *canary).ok_or_else(|| {
            let names: Vec<&str> = all().map(|(name, _)| *name).collect();
            format!("there is no canary {text}; there are {}", names.join(", "))
        })
    }
}
