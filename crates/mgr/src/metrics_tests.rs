//! What Prometheus reads.

use super::*;
use crate::core::Event;
use crate::core::tests::{active, group, mgr_map, report};
use cairn_types::{Health, HealthCheck, HealthCode, Severity, Timestamp};

fn now() -> Now {
    Now { steady_ms: 0, wall: Timestamp(0) }
}

#[test]
fn names_and_labels_are_those_that_operators_know() {
    let mut mgr = active();
    let clean = PgState::ACTIVE | PgState::CLEAN;
    mgr.handle(now(), report(0, 3, vec![group(0, 10, clean), group(1, 10, PgState::PEERING)])).unwrap();
    let mut health = Health::default();
    let check = HealthCheck {
        severity: Severity::Warning,
        summary: "one is down".into(),
        count: 1,
        detail: Vec::new(),
        next_step: String::new(),
    };
    health.add(HealthCode::OsdDown, check);
    mgr.handle(now(), Event::Health(health)).unwrap();
    let text = render(&mgr, now());
    for line in [
        "cairn_mgr_status{cairn_daemon=\"mgr.a\"} 1.0",
        "# TYPE cairn_health_status gauge",
        "cairn_health_status 1.0",
        "cairn_health_detail{name=\"OSD_DOWN\",severity=\"HEALTH_WARN\"} 1.0",
        "cairn_osd_up{cairn_daemon=\"osd.2\"} 1.0",
        "cairn_osd_in{cairn_daemon=\"osd.0\"} 1.0",
        "cairn_osd_stat_bytes{cairn_daemon=\"osd.0\"} 100.0",
        "cairn_osd_stat_bytes_used{cairn_daemon=\"osd.0\"} 10.0",
        "# TYPE cairn_osd_op_w counter",
        "cairn_osd_op_w_total{cairn_daemon=\"osd.0\"} 3",
        "cairn_osd_op_w_in_bytes_total{cairn_daemon=\"osd.0\"} 12288",
        "cairn_osd_apply_latency_ms{cairn_daemon=\"osd.0\"} 0.7",
        "# TYPE cairn_osd_op_w_latency_seconds histogram",
        "cairn_osd_op_w_latency_seconds_sum{cairn_daemon=\"osd.0\"} 0.0021",
        "cairn_osd_op_w_latency_seconds_count{cairn_daemon=\"osd.0\"} 3",
        "cairn_osd_op_w_latency_seconds_bucket{le=\"0.000512\",cairn_daemon=\"osd.0\"} 0",
        "cairn_osd_op_w_latency_seconds_bucket{le=\"0.001024\",cairn_daemon=\"osd.0\"} 3",
        "cairn_osd_op_w_latency_seconds_bucket{le=\"+Inf\",cairn_daemon=\"osd.0\"} 3",
        "cairn_pg_total{pool_id=\"1\"} 4.0",
        "cairn_pg_active{pool_id=\"1\"} 1.0",
        "cairn_pg_clean{pool_id=\"1\"} 1.0",
        "cairn_pg_peering{pool_id=\"1\"} 1.0",
        "cairn_pg_unknown{pool_id=\"1\"} 2.0",
        "cairn_pg_degraded{pool_id=\"1\"} 0.0",
        "cairn_pool_metadata{pool_id=\"1\",name=\"vms\",type=\"replicated\"} 1.0",
        "cairn_pool_stored{pool_id=\"1\"} 2000.0",
        "cairn_pool_objects{pool_id=\"1\"} 20.0",
        "cairn_cluster_total_bytes 100.0",
        "cairn_num_objects_degraded 2.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn a_standby_says_only_that_it_is_one() {
    let mut mgr = active();
    mgr.handle(now(), Event::MgrMap(mgr_map(2, "b", 1))).unwrap();
    let text = render(&mgr, now());
    let figures: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(figures, ["cairn_mgr_status{cairn_daemon=\"mgr.a\"} 0.0"]);
}

#[test]
fn every_word_of_a_state_has_a_name_of_its_own() {
    let mut words: Vec<String> = (0..STATE_WORDS).map(|bit| PgState(1 << bit).to_string()).collect();
    words.sort();
    words.dedup();
    assert_eq!(words.len(), STATE_WORDS as usize);
    assert!(!words.contains(&"unknown".to_owned()));
    assert_eq!(PgState(1 << STATE_WORDS).to_string(), "unknown", "there is a new word");
}
