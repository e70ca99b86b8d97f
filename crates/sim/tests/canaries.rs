//! Deliberate bugs: each is found, or the checkers are blind.

use sim::canary::Canary;
use sim::run::{Options, run};

/// Seeds within which a bug must show.
const SEEDS_MAX: u64 = 2_000;

/// Finds the first seed that shows a bug.
fn hunt(name: &str) {
    let canary: Canary = name.parse().expect("a name of `Canary::ALL`");
    for seed in 1..=SEEDS_MAX {
        let outcome = run(seed, Options { profile: canary.profile(), canary: Some(canary) });
        if let Some(failure) = outcome.failure {
            eprintln!("{name}: seed {seed}: {failure}");
            return;
        }
    }
    panic!("{name} is not found within {SEEDS_MAX} seeds");
}

macro_rules! canaries {
    ($($name:ident: $canary:literal;)*) => {
        $(
            #[test]
            fn $name() {
                hunt($canary);
            }
        )*

        #[test]
        fn every_canary_is_hunted() {
            let hunted = [$($canary),*];
            let all = Canary::ALL.map(|(name, _)| name);
            assert_eq!(hunted, all);
        }
    };
}

canaries! {
    acknowledge_before_persisting: "acknowledge-before-persisting";
    one_replica_not_durable: "one-replica-not-durable";
    forget_up_thru: "forget-up-thru";
    activate_without_up_thru: "activate-without-up-thru";
    read_without_lease: "read-without-lease";
    skip_divergent_rollback: "skip-divergent-rollback";
    apply_resend_twice: "apply-resend-twice";
    forget_missing_object: "forget-missing-object";
    trim_log_too_far: "trim-log-too-far";
    forget_blocklist: "forget-blocklist";
    take_lock_without_blocklist: "take-lock-without-blocklist";
    store_record_not_durable: "store-record-not-durable";
    skip_checksum: "skip-checksum";
    store_reuses_early: "store-reuses-early";
    accept_old_ballot: "accept-old-ballot";
    count_twice_in_a_quorum: "count-twice-in-a-quorum";
    log_acknowledges_before_persisting: "log-acknowledges-before-persisting";
    forget_promise: "forget-promise";
    trim_paxos_log_too_far: "trim-paxos-log-too-far";
    spin: "spin";
    end_removed_monitor_early: "end-removed-monitor-early";
}
