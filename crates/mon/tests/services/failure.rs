//! When reports mark an OSD down.

use crate::support::{Cluster, boot, set};
use cairn_mon::service::watch::{Now, Watch};
use cairn_mon::service::{
    ClusterCommand, Evidence, FailureReport, LeaderCommand, OsdCommand, Request, Verdict,
};
use cairn_types::{Epoch, OsdFlag, OsdId};

fn at(steady_ms: u64) -> Now {
    Now { steady_ms }
}

struct Court {
    cluster: Cluster,
    watch: Watch,
}

impl Court {
    fn new(hosts: &[&str]) -> Self {
        let cluster = Cluster::with_osds(hosts);
        let watch = Watch::new(&cluster.state, at(0));
        Court { cluster, watch }
    }

    fn ok(&mut self, request: Request, now_ms: u64) {
        self.cluster.ok(request);
        self.watch.observe(&self.cluster.state, at(now_ms));
    }

    fn hear(&mut self, reporter: i32, target: i32, evidence: Evidence, now_ms: u64) -> Verdict {
        let up_from = self.cluster.osd(target).up_from;
        let report = FailureReport { reporter: OsdId(reporter), target: OsdId(target), up_from, evidence };
        let (verdict, request) = self.watch.report(&self.cluster.state, &report, at(now_ms));
        let dead = LeaderCommand::OsdFailed { osd: OsdId(target), up_from };
        assert_eq!(request, (verdict == Verdict::Dead).then_some(Request::Leader(dead)));
        verdict
    }
}

const WAITING: Verdict = Verdict::Waiting { hosts: 1, needed: 2 };

#[test]
fn two_reporters_of_different_hosts_are_needed() {
    let mut court = Court::new(&["n1", "n1", "n2", "n3"]);
    assert_eq!(court.hear(0, 3, Evidence::Refused, 0), WAITING);
    assert_eq!(court.hear(1, 3, Evidence::Refused, 1), WAITING, "of the same host");
    assert_eq!(court.hear(2, 3, Evidence::Refused, 2), Verdict::Dead);
}

#[test]
fn one_reporter_does_where_only_one_other_host_exists() {
    let mut court = Court::new(&["n1", "n2"]);
    assert_eq!(court.hear(0, 1, Evidence::Refused, 0), Verdict::Dead);
    let mut court = Court::new(&["n1", "n1"]);
    assert_eq!(court.hear(0, 1, Evidence::Refused, 0), Verdict::Dead, "or no other host at all");
}

#[test]
fn hosts_without_an_osd_that_is_up_do_not_count() {
    let mut court = Court::new(&["n1", "n2", "n3"]);
    assert_eq!(court.hear(0, 2, Evidence::Refused, 0), WAITING);
    court.ok(Request::Osd(OsdCommand::Down { osds: vec![OsdId(1)] }), 1);
    let due = court.watch.tick(&court.cluster.state, None, at(2));
    let up_from = court.cluster.osd(2).up_from;
    let dead = Request::Leader(LeaderCommand::OsdFailed { osd: OsdId(2), up_from });
    assert_eq!(due.requests, [dead], "the report that stands is enough now");
}

#[test]
fn silence_counts_from_the_grace_on() {
    let mut court = Court::new(&["n1", "n2", "n3"]);
    assert_eq!(court.hear(0, 2, Evidence::Silence { for_ms: 2_499 }, 0), Verdict::Ignored);
    assert_eq!(court.hear(1, 2, Evidence::Silence { for_ms: 2_500 }, 0), WAITING);
    court.ok(set("osd_heartbeat_grace_ms", "10000"), 0);
    assert_eq!(court.hear(0, 2, Evidence::Silence { for_ms: 9_999 }, 0), Verdict::Ignored);
    assert_eq!(court.hear(0, 2, Evidence::Silence { for_ms: 10_000 }, 0), Verdict::Dead);
}

#[test]
fn a_report_is_taken_back_or_runs_out() {
    let mut court = Court::new(&["n1", "n2", "n3"]);
    assert_eq!(court.hear(0, 2, Evidence::Refused, 0), WAITING);
    assert_eq!(court.hear(0, 2, Evidence::Alive, 1), Verdict::Ignored);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 2), WAITING, "the first no longer counts");
    assert_eq!(court.hear(0, 2, Evidence::Refused, 10_001), Verdict::Dead);
    let mut court = Court::new(&["n1", "n2", "n3"]);
    assert_eq!(court.hear(0, 2, Evidence::Refused, 0), WAITING);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 10_000), WAITING, "the first has run out");
}

#[test]
fn reports_on_another_run_of_itself_or_by_the_dead_say_nothing() {
    let mut court = Court::new(&["n1", "n2", "n3"]);
    assert_eq!(court.hear(2, 2, Evidence::Refused, 0), Verdict::Ignored);
    let stale = FailureReport {
        reporter: OsdId(0),
        target: OsdId(2),
        up_from: Epoch(1),
        evidence: Evidence::Refused,
    };
    let verdict = court.watch.report(&court.cluster.state, &stale, at(0)).0;
    assert_eq!(verdict, Verdict::Ignored);
    // One report on the run that is, then a new run: it starts with none against it.
    assert_eq!(court.hear(0, 2, Evidence::Refused, 0), WAITING);
    court.ok(boot(2, 2), 1);
    court.ok(boot(2, 2), 1);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 2), WAITING);
    court.ok(Request::Osd(OsdCommand::Down { osds: vec![OsdId(0)] }), 3);
    assert_eq!(court.hear(0, 2, Evidence::Refused, 4), Verdict::Ignored, "the reporter is down");
}

#[test]
fn nodown_and_the_share_that_is_up_hold_a_verdict() {
    let mut court = Court::new(&["n1", "n2", "n3"]);
    let nodown = |on| Request::Cluster(ClusterCommand::Flag { flag: OsdFlag::NoDown, on });
    court.ok(nodown(true), 0);
    court.hear(0, 2, Evidence::Refused, 0);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 0), Verdict::Held);
    court.ok(nodown(false), 0);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 1), Verdict::Dead);
    court.ok(set("mon_osd_min_up_ratio", "1"), 1);
    court.ok(Request::Osd(OsdCommand::Down { osds: vec![OsdId(0)] }), 1);
    assert_eq!(court.hear(1, 2, Evidence::Refused, 1), Verdict::Held, "two of three are up");
}
