//! Settings of a group's core, each with its reason.

/// Settings. [`Config::default`] is what a daemon runs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How long a read lease lasts, milliseconds. It bounds how long a new primary waits when the
    /// old one is cut off; below the time in which a dead OSD is noticed it costs nothing then.
    /// Each renewal is one round to the acting set, made only while clients read.
    pub lease_ms: u64,
    /// How much faster one clock may run than another, in parts per thousand of the lease. Quartz
    /// is below 0.1; virtual machines' clocks have been seen at 10.
    pub clock_drift_permille: u64,
    /// Log entries always kept: requests remembered. A client with 3,000 requests in flight to
    /// one group is beyond every client's own bound. There are up to a sixteenth more, at most 100,
    /// which are dropped together.
    pub log_min_entries: usize,
    /// Log entries kept while a copy is absent or behind, so that it can come back by log
    /// instead of backfill, and as many more as above. About 200 bytes each.
    pub log_max_entries: usize,
    /// Bytes of the log, whoever needs it: a whole log has to fit into one message of 4 MiB, however long the names
    /// are, also one that was put together from two.
    pub log_bytes_max: usize,
    /// Bytes of log entries that one transaction stores at most when a copy takes over a log, which may be longer: the store bounds a
    /// transaction. As much again comes with them for what is missing.
    pub log_step_bytes: usize,
    /// Bytes of log entries that a copy remembers at most when it takes changes back, until their objects have been recovered: those
    /// that were under way when the power failed. They go into one transaction of the store, and those of one object into a message
    /// beside the object, which leaves 64 KiB for them.
    pub undone_bytes_max: usize,
    /// Operations admitted to this group and not answered, before the answer is [`crate::Reply::Busy`].
    pub max_ops: usize,
    /// Objects recovered at once, beyond those an operation waits for. Few: all groups of an OSD recover at the same time,
    /// and an object of 4 MiB waits in memory until its copies have it. The driver changes it as clients' latency asks.
    pub recovery_limit: usize,
    /// Objects compared in one step of a backfill; writes to those that differ wait for the step.
    pub backfill_chunk: usize,
    /// After how long a wish is told to the monitors again, milliseconds.
    pub monitor_retry_ms: u64,
    /// A deliberate bug. Without the feature `canaries` it is not looked at.
    #[cfg(feature = "canaries")]
    pub canary: Option<Canary>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lease_ms: 1_000,
            clock_drift_permille: 20,
            log_min_entries: 3_000,
            log_max_entries: 10_000,
            log_bytes_max: 3 << 19,
            log_step_bytes: 1 << 20,
            undone_bytes_max: 48 << 10,
            max_ops: 1_024,
            recovery_limit: 2,
            backfill_chunk: 32,
            monitor_retry_ms: 1_000,
            #[cfg(feature = "canaries")]
            canary: None,
        }
    }
}

impl Config {
    /// How long after its question was heard a lease may last by the hearer's clock.
    pub(crate) fn lease_bound_ms(&self) -> u64 {
        self.lease_ms + self.lease_ms * self.clock_drift_permille / 1_000 + 1
    }

    #[cfg(feature = "canaries")]
    pub(crate) fn canary(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }

    #[cfg(not(feature = "canaries"))]
    pub(crate) fn canary(&self, _: Canary) -> bool {
        false
    }
}

/// Deliberate bugs, for tests that prove they would be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "canaries"), allow(dead_code))]
pub enum Canary {
    /// Past intervals never count as having gone rw.
    ForgetUpThru,
    /// Answer a write while one replica has not made it durable.
    AckWithOneReplicaNotDurable,
    /// Answer reads without a lease.
    ReadWithoutLease,
    /// Keep divergent changes when taking over a log.
    SkipDivergentRollback,
    /// Do not look for a resent request in the log.
    ApplyResendTwice,
    /// Do not put objects into the missing set when taking over a log.
    ForgetMissingObject,
    /// Trim the log to a few entries, whoever needs them.
    TrimLogTooFar,
    /// A replica answers before its store does.
    AckBeforePersist,
    /// Activate without waiting for `up_thru`.
    ActivateWithoutUpThru,
    /// A new primary does not wait out the leases of others.
    IgnorePriorLease,
    /// Take the oldest log of the newest activation, whatever was committed and whoever has more.
    TakeOldestLog,
    /// Take a log that ends before what is known to be committed.
    IgnoreCommittedTo,
    /// Forget whose requests they were when changes that were taken back are made again.
    ForgetRedoneRequests,
    /// Serve reads of an object while a copy may still want to make a change of it again.
    ReadWhatMayBeRedone,
}
