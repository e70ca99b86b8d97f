//! Placement groups and objects, from the mgr's statistics.

use super::{View, add_counted, count_of};
use cairn_types::{Digest, Health, HealthCode, PgProblem, PgState, Severity};

pub(super) fn check(view: View<'_>, health: &mut Health) {
    availability(view, health);
    let Some(digest) = view.digest else { return };
    degraded(digest, health);
    other_states(digest, health);
    objects(digest, health);
}

fn lines(digest: &Digest, test: impl Fn(PgState) -> bool) -> Vec<String> {
    digest.problems.iter().filter(|problem| test(problem.state)).map(line).collect()
}

fn line(problem: &PgProblem) -> String {
    let acting: Vec<String> = problem.acting.iter().map(|osd| osd.0.to_string()).collect();
    let seconds = problem.for_ms / 1_000;
    format!("pg {} is {} for {seconds} s, acting [{}]", problem.pg, problem.state, acting.join(","))
}

fn is_unavailable(state: PgState) -> bool {
    !state.has(PgState::ACTIVE)
}

fn availability(view: View<'_>, health: &mut Health) {
    let none = Digest::default();
    let digest = view.digest.unwrap_or(&none);
    let total: u64 = view.state.osd_map().pools.values().map(|pool| u64::from(pool.pg_num)).sum();
    // Groups nobody has reported are not known to serve.
    let silent = total.saturating_sub(digest.pg_total());
    let inactive = digest.pgs_where(is_unavailable) + silent;
    if inactive == 0 {
        return;
    }
    if silent == total {
        let summary = format!("Reduced data availability: {} unknown", count_of(total, "pg"));
        let step = "the active mgr has sent no statistics lately: start a mgr, or wait for its first ones";
        add_counted(health, HealthCode::PgAvailability, Severity::Warning, summary, total, Vec::new(), step);
        return;
    }
    let stuck = PgState::DOWN | PgState::INCOMPLETE | PgState::STALE;
    let severe = digest.pgs_where(|state| state.has_any(stuck)) > 0;
    let severity = if severe { Severity::Error } else { Severity::Warning };
    let summary = format!("Reduced data availability: {} inactive", count_of(inactive, "pg"));
    let step = "I/O to these groups waits and goes on by itself once enough of their OSDs are up: start the OSDs \
                that are down; `cairn pg show PG` says which ones a group waits for";
    let detail = lines(digest, is_unavailable);
    add_counted(health, HealthCode::PgAvailability, severity, summary, inactive, detail, step);
}

fn degraded(digest: &Digest, health: &mut Health) {
    let test = |state: PgState| state.has_any(PgState::DEGRADED | PgState::UNDERSIZED);
    let groups = digest.pgs_where(test);
    if groups == 0 {
        return;
    }
    let copies: u64 = digest.pools.values().map(|pool| pool.counts.copies).sum();
    let missing: u64 = digest.pools.values().map(|pool| pool.counts.degraded).sum();
    let undersized = digest.pgs_where(|state| state.has(PgState::UNDERSIZED));
    let summary = format!(
        "Degraded data redundancy: {missing}/{copies} objects degraded ({}%), {} degraded or undersized, {undersized} undersized",
        percent(missing, copies),
        count_of(groups, "pg"),
    );
    let step = "copies are made by themselves once there are OSDs for them; start the OSDs that are down, or \
                replace their disks";
    let detail = lines(digest, test);
    add_counted(health, HealthCode::PgDegraded, Severity::Warning, summary, groups, detail, step);
}

fn other_states(digest: &Digest, health: &mut Health) {
    let checks = [
        (
            HealthCode::PgDamaged,
            Severity::Error,
            PgState::INCONSISTENT,
            "Possible data damage",
            "inconsistent",
            "the copies differ: look at the disks of these OSDs, then repair with `cairn pg repair PG`",
        ),
        (
            HealthCode::PgRecoveryFull,
            Severity::Error,
            PgState::RECOVERY_TOOFULL,
            "Full OSDs block recovery",
            "recovery_toofull",
            "add OSDs or delete data: recovery has no room",
        ),
        (
            HealthCode::PgBackfillFull,
            Severity::Warning,
            PgState::BACKFILL_TOOFULL,
            "Low space hinders backfill",
            "backfill_toofull",
            "add OSDs or delete data; backfill goes on by itself once there is room",
        ),
    ];
    for (code, severity, state, what, word, step) in checks {
        let count = digest.pgs_where(|found| found.has(state));
        if count > 0 {
            let summary = format!("{what}: {} {word}", count_of(count, "pg"));
            let detail = lines(digest, |found| found.has(state));
            add_counted(health, code, severity, summary, count, detail, step);
        }
    }
}

fn objects(digest: &Digest, health: &mut Health) {
    let sum = |get: fn(&cairn_types::PoolStat) -> u64| digest.pools.values().map(get).sum::<u64>();
    let unfound = sum(|pool| pool.counts.unfound);
    if unfound > 0 {
        let summary = format!("{unfound}/{} objects unfound", sum(|pool| pool.objects));
        let step = "bring back the OSDs that were up when they were written; only if they are gone for good, \
                    say so with `cairn osd lost ID`";
        let detail = lines(digest, |state| state.has(PgState::UNFOUND));
        add_counted(health, HealthCode::ObjectUnfound, Severity::Error, summary, unfound, detail, step);
    }
    let misplaced = sum(|pool| pool.counts.misplaced);
    if misplaced > 0 {
        let copies = sum(|pool| pool.counts.copies);
        let share = percent(misplaced, copies);
        let summary = format!("{misplaced}/{copies} objects misplaced ({share}%)");
        let step = "nothing: they are complete and move by themselves to where they belong";
        let detail = lines(digest, |state| state.has(PgState::REMAPPED));
        add_counted(health, HealthCode::ObjectMisplaced, Severity::Warning, summary, misplaced, detail, step);
    }
}

/// A percentage with three decimals, as operators read it.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = u128::from(part) * 100_000 / u128::from(whole.max(1));
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}
