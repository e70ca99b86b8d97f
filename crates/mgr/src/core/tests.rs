//! What a mgr makes of reports.

use super::*;
use cairn_types::{
    CrushBlob, Fsid, MgrInfo, OsdInfo, OsdUuid, PgCounts, PgId, PgReport, PgState, Pool, PoolFlags, PoolId,
    SnapId,
};

const CLEAN: PgState = PgState(PgState::ACTIVE.0 | PgState::CLEAN.0);

fn addr(nonce: u64) -> EntityAddr {
    EntityAddr { socket: "127.0.0.1:6800".parse().unwrap(), nonce }
}

fn now(steady_ms: u64) -> Now {
    Now { steady_ms, wall: Timestamp(1_000_000 + steady_ms) }
}

pub(crate) fn mgr_map(epoch: u32, active: &str, nonce: u64) -> MgrMap {
    let info = MgrInfo { addr: addr(nonce), since: Timestamp(0) };
    MgrMap { epoch: Epoch(epoch), active: Some((active.to_owned(), info)), standbys: BTreeMap::new() }
}

/// Three OSDs that are up since epoch 5, one pool of four groups.
pub(crate) fn osd_map() -> OsdMap {
    let mut map = OsdMap::new(Fsid([1; 16]), Timestamp(0), CrushBlob::new(1, Vec::new()));
    map.epoch = Epoch(10);
    for osd in 0..3 {
        let info = OsdInfo { up: true, up_from: Epoch(5), ..OsdInfo::new(OsdUuid([osd as u8; 16])) };
        map.osds.insert(OsdId(osd), info);
    }
    let pool = Pool {
        name: "vms".into(),
        size: 3,
        min_size: 2,
        pg_num: 4,
        pgp_num: 4,
        crush_rule: 0,
        flags: PoolFlags::default(),
        application: "rbd".into(),
        snap_seq: SnapId(0),
        quota_bytes: 0,
        quota_objects: 0,
        autoscale: false,
        created: Timestamp(0),
        last_change: Epoch(2),
    };
    map.pools.insert(PoolId(1), pool);
    map
}

fn pg(seed: u32) -> PgId {
    PgId { pool: PoolId(1), seed }
}

pub(crate) fn group(seed: u32, epoch: u32, state: PgState) -> PgReport {
    PgReport {
        pg: pg(seed),
        epoch: Epoch(epoch),
        state,
        up: vec![OsdId(0), OsdId(1), OsdId(2)],
        acting: vec![OsdId(0), OsdId(1), OsdId(2)],
        last_epoch_clean: Epoch(7 + seed),
        objects: 10,
        stored_bytes: 1000,
        counts: PgCounts { copies: 30, degraded: 1, misplaced: 2, unfound: 0 },
        blocked_by: Vec::new(),
    }
}

pub(crate) fn report(osd: i32, write_ops: u64, pgs: Vec<PgReport>) -> Event {
    let mut counters = OsdCounters { write_ops, write_bytes: write_ops * 4096, ..OsdCounters::default() };
    (0..write_ops).for_each(|_| counters.write_latency.add(700));
    let report = OsdReport {
        osd: OsdId(osd),
        up_from: Epoch(5),
        epoch: Epoch(10),
        stat: OsdStat { total_bytes: 100, used_bytes: 10, pgs: 4, slow_ops: 0 },
        counters,
        pgs,
    };
    Event::Report { from: OsdId(osd), report: Box::new(report) }
}

pub(crate) fn active() -> Mgr {
    let mut mgr = Mgr::new("a", addr(7));
    mgr.handle(now(0), Event::MgrMap(mgr_map(1, "a", 7))).unwrap();
    mgr.handle(now(0), Event::OsdMaps { full: Some(osd_map()), increments: Vec::new() }).unwrap();
    mgr
}

#[test]
fn a_standby_only_says_that_it_runs_and_takes_no_report() {
    let mut mgr = Mgr::new("a", addr(7));
    assert_eq!(mgr.handle(now(0), Event::Tick), Ok(vec![Effect::Beacon]));
    assert_eq!(mgr.handle(now(10), Event::Tick), Ok(vec![]), "not before its time");
    assert_eq!(mgr.wakes_at_ms(), BEACON_INTERVAL_MS);
    for (name, nonce) in [("b", 7), ("a", 6)] {
        mgr.handle(now(10), Event::MgrMap(mgr_map(1, name, nonce))).unwrap();
        assert!(!mgr.is_active(), "{name} of run {nonce} is another");
    }
    assert_eq!(mgr.handle(now(10), report(0, 0, vec![])), Err(ReportRefused::Standby));
}

#[test]
fn an_active_mgr_makes_a_digest_every_second_however_late_it_is_woken() {
    let mut mgr = active();
    let digests = |effects: Vec<Effect>| {
        effects.into_iter().filter(|effect| matches!(effect, Effect::Digest(_))).count()
    };
    assert_eq!(digests(mgr.handle(now(0), Event::Tick).unwrap()), 1);
    assert_eq!(digests(mgr.handle(now(999), Event::Tick).unwrap()), 0);
    assert_eq!(digests(mgr.handle(now(9_500), Event::Tick).unwrap()), 1);
    assert_eq!(mgr.wakes_at_ms(), 10_500);
}

#[test]
fn groups_are_summed_and_those_not_reported_are_unknown() {
    let mut mgr = active();
    mgr.handle(now(0), report(0, 0, vec![group(0, 10, CLEAN), group(1, 10, CLEAN)])).unwrap();
    let digest = mgr.digest(now(100));
    assert_eq!(digest.pg_states, [(CLEAN, 2)].into());
    assert_eq!(digest.last_epoch_clean_min, None, "two groups are not known");
    assert_eq!((digest.made, digest.osdmap_epoch), (Timestamp(1_000_100), Epoch(10)));
    mgr.handle(now(0), report(1, 0, vec![group(2, 10, CLEAN), group(3, 10, PgState::PEERING)])).unwrap();
    let digest = mgr.digest(now(100));
    assert_eq!(digest.pg_total(), 4);
    assert_eq!(digest.last_epoch_clean_min, Some(Epoch(7)));
    let pool = digest.pools[&PoolId(1)];
    assert_eq!((pool.objects, pool.stored_bytes, pool.used_bytes), (40, 4000, 12_000));
    assert_eq!(pool.counts, PgCounts { copies: 120, degraded: 4, misplaced: 8, unfound: 0 });
    assert_eq!(digest.osds.len(), 2);
    assert_eq!(digest.problems.len(), 1);
    assert_eq!(digest.problems[0].pg, pg(3));
}

#[test]
fn a_group_of_two_primaries_is_as_the_newer_map_has_it() {
    let mut mgr = active();
    mgr.handle(now(0), report(0, 0, vec![group(0, 9, CLEAN)])).unwrap();
    mgr.handle(now(1), report(1, 0, vec![group(0, 10, PgState::PEERING)])).unwrap();
    mgr.handle(now(2), report(0, 0, vec![group(0, 9, CLEAN)])).unwrap();
    assert_eq!(mgr.digest(now(3)).pg_states, [(PgState::PEERING, 1)].into());
}

#[test]
fn what_nobody_confirms_is_stale_and_what_left_the_map_is_gone() {
    let mut mgr = active();
    mgr.handle(now(0), report(0, 0, vec![group(0, 10, CLEAN)])).unwrap();
    mgr.handle(now(0), report(1, 0, vec![group(1, 10, CLEAN)])).unwrap();
    mgr.handle(now(REPORT_LIFETIME_MS), report(0, 0, vec![group(0, 10, CLEAN)])).unwrap();
    let stale = CLEAN | PgState::STALE;
    let digest = mgr.digest(now(REPORT_LIFETIME_MS + 1));
    assert_eq!(digest.pg_states, [(CLEAN, 1), (stale, 1)].into());
    assert_eq!(digest.problems[0].for_ms, REPORT_LIFETIME_MS + 1);

    let mut map = osd_map();
    map.epoch = Epoch(11);
    map.osds.get_mut(&OsdId(0)).unwrap().up = false;
    mgr.handle(now(0), Event::OsdMaps { full: Some(map.clone()), increments: Vec::new() }).unwrap();
    let digest = mgr.digest(now(REPORT_LIFETIME_MS + 1));
    assert_eq!(digest.pg_states, [(stale, 2)].into(), "the primary is down");

    map.epoch = Epoch(12);
    map.pools.clear();
    map.osds.remove(&OsdId(1));
    mgr.handle(now(0), Event::OsdMaps { full: Some(map), increments: Vec::new() }).unwrap();
    let digest = mgr.digest(now(0));
    assert_eq!((digest.pg_total(), digest.osds.len(), digest.pools.len()), (0, 1, 0));
}

#[test]
fn reports_count_only_from_themselves_and_from_the_newest_run() {
    let mut mgr = active();
    let Event::Report { report: whole, .. } = report(1, 0, vec![]) else { unreachable!() };
    let by = |from: i32, change: &dyn Fn(&mut OsdReport)| {
        let mut changed = whole.clone();
        change(&mut changed);
        Event::Report { from: OsdId(from), report: changed }
    };
    assert!(matches!(mgr.handle(now(0), by(2, &|_| ())), Err(ReportRefused::NotItself { .. })));
    assert!(matches!(
        mgr.handle(now(0), by(1, &|report| report.up_from = Epoch(4))),
        Err(ReportRefused::OldRun { .. })
    ));
    assert!(matches!(
        mgr.handle(now(0), by(9, &|report| report.osd = OsdId(9))),
        Err(ReportRefused::Unknown { .. })
    ));
    // It has booted again, and the mgr's map is behind.
    let newer = |report: &mut OsdReport| (report.epoch, report.up_from) = (Epoch(12), Epoch(12));
    mgr.handle(now(0), by(1, &newer)).unwrap();
    let late = mgr.handle(now(0), by(1, &|report| report.epoch = Epoch(11)));
    assert!(matches!(late, Err(ReportRefused::OldRun { .. })), "{late:?}");
}

#[test]
fn rates_are_over_a_few_reports_begin_anew_with_a_run_and_end_with_silence() {
    let mut mgr = active();
    for second in 0..30 {
        let ops = if second < 20 { second * 100 } else { 2_000 + (second - 20) * 500 };
        mgr.handle(now(second * 1_000), report(0, ops, vec![])).unwrap();
    }
    let io = mgr.digest(now(29_500)).io;
    assert!((450..=500).contains(&io.write_ops_per_s), "the last seconds count: {io:?}");
    assert_eq!(io.write_bytes_per_s, io.write_ops_per_s * 4096);
    assert_eq!(mgr.digest(now(29_000 + REPORT_LIFETIME_MS + 1)).io, IoRates::default());

    let Event::Report { from, report: mut again } = report(0, 5, vec![]) else { unreachable!() };
    (again.up_from, again.epoch) = (Epoch(11), Epoch(11));
    mgr.handle(now(30_000), Event::Report { from, report: again }).unwrap();
    assert_eq!(mgr.digest(now(30_000)).io, IoRates::default(), "a new run counts from zero");
}

#[test]
fn problems_are_bounded_and_the_worst_come_first() {
    let mut mgr = active();
    let mut map = osd_map();
    map.epoch = Epoch(11);
    map.pools.get_mut(&PoolId(1)).unwrap().pg_num = 500;
    mgr.handle(now(0), Event::OsdMaps { full: Some(map), increments: Vec::new() }).unwrap();
    let states = [
        PgState::ACTIVE | PgState::REMAPPED,
        PgState::ACTIVE | PgState::UNDERSIZED | PgState::DEGRADED,
        PgState::PEERING,
        PgState::DOWN,
        CLEAN | PgState::SCRUBBING | PgState::DEEP,
    ];
    let pgs = (0..200).map(|seed| group(seed, 10, states[seed as usize % 5])).collect();
    mgr.handle(now(0), report(0, 0, pgs)).unwrap();
    let digest = mgr.digest(now(1));
    assert_eq!((digest.problems.len(), digest.pg_total()), (PROBLEMS_MAX, 200));
    let shown: Vec<PgState> = digest.problems.iter().map(|problem| problem.state).collect();
    assert!(shown[..40].iter().all(|state| *state == states[3]));
    assert!(shown[40..80].iter().all(|state| *state == states[2]));
    assert!(shown[80..].iter().all(|state| *state == states[1]));
}

#[test]
fn maps_with_a_gap_are_asked_for_anew() {
    let mut mgr = Mgr::new("a", addr(7));
    let nothing = Event::OsdMaps { full: None, increments: Vec::new() };
    assert_eq!(mgr.handle(now(0), nothing), Ok(vec![Effect::AskOsdMap]));
    let mut mgr = active();
    let far = OsdMapIncremental::empty(Epoch(12), Fsid([1; 16]), Timestamp(0));
    let gap = Event::OsdMaps { full: None, increments: vec![far] };
    assert_eq!(mgr.handle(now(0), gap), Ok(vec![Effect::AskOsdMap]));
    assert_eq!(mgr.osd_map().unwrap().epoch, Epoch(10), "what it has stays");
}

#[test]
fn who_loses_the_part_forgets_what_it_gathered() {
    let mut mgr = active();
    mgr.handle(now(0), report(0, 0, vec![group(0, 10, CLEAN)])).unwrap();
    mgr.handle(now(0), Event::MgrMap(mgr_map(2, "b", 9))).unwrap();
    mgr.handle(now(0), Event::MgrMap(mgr_map(1, "a", 7))).unwrap();
    assert!(!mgr.is_active(), "an older map says nothing");
    mgr.handle(now(0), Event::MgrMap(mgr_map(3, "a", 7))).unwrap();
    assert!(mgr.is_active() && mgr.osds().is_empty());
    assert_eq!(mgr.digest(now(0)).pg_total(), 0);
}
