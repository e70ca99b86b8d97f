//! What the mgr is told.

use super::{Effect, Osd};
use cairn_pg::StateFlags;
use cairn_types::{OsdReport, OsdStat, PgCounts, PgReport, PgState};

impl Osd {
    /// Tells the mgr, if it is time.
    pub(super) fn tick_report(&mut self) {
        if self.report_at.is_none_or(|at| at > self.time) {
            return;
        }
        self.report_at = Some(self.time.plus_ms(self.config.report_interval_ms));
        self.fullness.ask(&mut self.out);
        let Some(up_from) = self.up_from() else { return };
        let slow_before = self.now.steady_us.saturating_sub(self.config.slow_op_ms * 1_000);
        let slow_ops = self.ops.values().filter(|op| op.arrived_us < slow_before).count() as u32;
        let stat = OsdStat {
            total_bytes: self.fullness.usage().total_bytes(),
            used_bytes: self.fullness.usage().used_bytes(),
            pgs: self.groups.len() as u32,
            slow_ops,
        };
        let pgs = self.led().filter_map(report).collect();
        let report = OsdReport {
            osd: self.whoami(),
            up_from,
            epoch: self.maps.epoch(),
            stat,
            counters: self.counters.clone(),
            pgs,
        };
        self.out.push(Effect::Report(Box::new(report)));
    }
}

fn report(group: &super::group::Group) -> Option<PgReport> {
    let (stats, map) = (group.pg.stats()?, group.map.as_ref()?);
    let objects = group.tally.objects;
    let wanted = map.size as u64;
    // Copies that nobody has a place for, and copies that are to be backfilled, besides those known to be missing.
    let absent = wanted.saturating_sub(map.acting.len() as u64) * objects;
    let elsewhere = map.acting.iter().filter(|osd| !map.up.contains(osd)).count() as u64;
    let counts = PgCounts {
        copies: wanted * objects,
        degraded: (stats.degraded_copies as u64 + absent).min(wanted * objects.max(1)),
        misplaced: elsewhere * objects,
        unfound: stats.unfound as u64,
    };
    Some(PgReport {
        pg: stats.pgid,
        epoch: stats.epoch,
        state: state(stats.state),
        up: stats.up,
        acting: stats.acting,
        last_epoch_clean: group.pg.info().history.last_epoch_clean,
        objects,
        stored_bytes: group.tally.bytes,
        counts,
        blocked_by: stats.blocked_by,
    })
}

fn state(flags: StateFlags) -> PgState {
    let words = [
        (flags.active, PgState::ACTIVE),
        (flags.peered, PgState::PEERED),
        (flags.peering, PgState::PEERING),
        (flags.down, PgState::DOWN),
        (flags.incomplete, PgState::INCOMPLETE),
        (flags.clean, PgState::CLEAN),
        (flags.undersized, PgState::UNDERSIZED),
        (flags.degraded, PgState::DEGRADED),
        (flags.remapped, PgState::REMAPPED),
        (flags.recovering, PgState::RECOVERING),
        (flags.recovery_unfound, PgState::UNFOUND),
        (flags.backfill_wait, PgState::BACKFILL_WAIT),
        (flags.backfilling, PgState::BACKFILLING),
    ];
    words.into_iter().filter(|(set, _)| *set).fold(PgState::UNKNOWN, |state, (_, word)| state | word)
}
