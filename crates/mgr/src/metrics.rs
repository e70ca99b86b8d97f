//! The cluster as Prometheus reads it (OpenMetrics text). The names are those of Ceph's exporter with `cairn_` for `ceph_`,
//! and so are the labels, so that an operator's dashboards and alerts need one replacement.

use crate::core::{Mgr, Now};
use cairn_types::{Latencies, OsdMap, PgState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// Classes of latency that have a bucket of their own: up to 2^25 µs, 34 s. Slower ones are only in the last.
const BUCKETS: usize = 25;
/// Words of a group's state.
const STATE_WORDS: u32 = 24;

/// Everything, as text.
pub fn render(mgr: &Mgr, now: Now) -> String {
    let mut page = Page::default();
    page.describe(mgr, now);
    let mut registry = Registry::with_prefix("cairn");
    registry.register_collector(Box::new(page));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written");
    text
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Counter(u64),
    Histogram { sum_s: f64, buckets: Vec<(f64, u64)> },
}

impl Value {
    fn encode(&self, point: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Value::Gauge(value) => point.encode_gauge(value),
            Value::Counter(value) => point.encode_counter::<NoLabelSet, _, u64>(value, None),
            Value::Histogram { sum_s, buckets } => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                point.encode_histogram::<NoLabelSet>(*sum_s, count, buckets, None)
            }
        }
    }
}

#[derive(Debug)]
struct Family {
    name: String,
    help: &'static str,
    points: Vec<(Labels, Value)>,
}

/// The figures of one moment.
#[derive(Debug, Default)]
struct Page(Vec<Family>);

impl Page {
    fn add(&mut self, name: impl Into<String>, help: &'static str, points: Vec<(Labels, Value)>) {
        if !points.is_empty() {
            self.0.push(Family { name: name.into(), help, points });
        }
    }

    fn one(&mut self, name: &str, help: &'static str, value: u64) {
        self.add(name, help, vec![(Labels::new(), Value::Gauge(value as f64))]);
    }

    fn describe(&mut self, mgr: &Mgr, now: Now) {
        let active = mgr.is_active();
        let own = vec![("cairn_daemon", format!("mgr.{}", mgr.name()))];
        self.add("mgr_status", "1 on the active mgr", vec![(own, Value::Gauge(f64::from(u8::from(active))))]);
        // A standby's figures would be old, and counted twice.
        let Some(map) = mgr.osd_map().filter(|_| active) else { return };
        self.health(mgr);
        self.osds(mgr, map);
        self.groups(mgr, map, now);
        self.pools(mgr, map, now);
    }

    fn health(&mut self, mgr: &Mgr) {
        let Some(health) = mgr.health() else { return };
        self.one("health_status", "0 HEALTH_OK, 1 HEALTH_WARN, 2 HEALTH_ERR", health.status as u64);
        let detail = health.checks.iter().map(|(code, check)| {
            let severity = cairn_types::HealthStatus::from(check.severity).to_string();
            (vec![("name", code.to_string()), ("severity", severity)], Value::Gauge(1.0))
        });
        self.add("health_detail", "1 for each check that does not hold", detail.collect());
    }

    fn osds(&mut self, mgr: &Mgr, map: &OsdMap) {
        let flag = |set: bool| Value::Gauge(f64::from(u8::from(set)));
        let of_map = |value: &dyn Fn(&cairn_types::OsdInfo) -> Value| {
            map.osds.iter().map(|(osd, info)| (daemon(*osd), value(info))).collect::<Vec<_>>()
        };
        self.add("osd_up", "1 for an OSD that runs", of_map(&|info| flag(info.up)));
        self.add("osd_in", "1 for an OSD that is given data", of_map(&|info| flag(info.weight.0 > 0)));
        self.add("osd_weight", "Reweight of an OSD", of_map(&|info| Value::Gauge(info.weight.as_f64())));
        let seen = |value: &dyn Fn(&crate::core::OsdSeen) -> Value| {
            mgr.osds().iter().map(|(osd, seen)| (daemon(*osd), value(seen))).collect::<Vec<_>>()
        };
        let bytes = |value: u64| Value::Gauge(value as f64);
        self.add("osd_stat_bytes", "Size of an OSD's store", seen(&|osd| bytes(osd.stat.total_bytes)));
        self.add("osd_stat_bytes_used", "Bytes in use on an OSD", seen(&|osd| bytes(osd.stat.used_bytes)));
        self.add("osd_numpg", "Placement groups on an OSD", seen(&|osd| bytes(u64::from(osd.stat.pgs))));
        self.add(
            "osd_slow_ops",
            "Operations that wait too long",
            seen(&|osd| bytes(u64::from(osd.stat.slow_ops))),
        );
        self.add(
            "osd_op_r",
            "Clients' operations that read",
            seen(&|osd| Value::Counter(osd.counters.read_ops)),
        );
        self.add(
            "osd_op_w",
            "Clients' operations that write",
            seen(&|osd| Value::Counter(osd.counters.write_ops)),
        );
        self.add(
            "osd_op_r_out_bytes",
            "Bytes read by clients",
            seen(&|osd| Value::Counter(osd.counters.read_bytes)),
        );
        self.add(
            "osd_op_w_in_bytes",
            "Bytes written by clients",
            seen(&|osd| Value::Counter(osd.counters.write_bytes)),
        );
        self.add(
            "osd_recovery_ops",
            "Objects recovered",
            seen(&|osd| Value::Counter(osd.counters.recovered_objects)),
        );
        self.add(
            "osd_recovery_bytes",
            "Bytes recovered",
            seen(&|osd| Value::Counter(osd.counters.recovered_bytes)),
        );
        self.add(
            "osd_op_r_latency_seconds",
            "From arrival to answer, reads",
            seen(&|osd| histogram(&osd.counters.read_latency)),
        );
        self.add(
            "osd_op_w_latency_seconds",
            "From arrival to answer, writes",
            seen(&|osd| histogram(&osd.counters.write_latency)),
        );
        // Ceph's means, from the same sums: a write is answered when it is committed and applied.
        let mean_ms = |latency: &Latencies| match latency.count() {
            0 => 0.0,
            count => latency.sum_us as f64 / count as f64 / 1_000.0,
        };
        for name in ["osd_apply_latency_ms", "osd_commit_latency_ms"] {
            self.add(
                name,
                "Mean time of a write since the OSD started",
                seen(&|osd| Value::Gauge(mean_ms(&osd.counters.write_latency))),
            );
        }
        let sum = |of: fn(&crate::core::OsdSeen) -> u64| mgr.osds().values().map(of).sum();
        self.one("cluster_total_bytes", "Size of all stores", sum(|osd| osd.stat.total_bytes));
        self.one("cluster_total_used_bytes", "Bytes in use on all stores", sum(|osd| osd.stat.used_bytes));
    }

    fn groups(&mut self, mgr: &Mgr, map: &OsdMap, now: Now) {
        let pools = mgr.groups_by_pool(now);
        let count = |pool: &cairn_types::PoolId, test: &dyn Fn(PgState) -> bool| {
            let states = pools.get(pool);
            states.map_or(0, |states| {
                states.iter().filter(|(state, _)| test(**state)).map(|(_, count)| *count).sum::<u64>()
            })
        };
        let by_pool = |value: &dyn Fn(&cairn_types::PoolId, u64) -> u64| {
            let pool = |(id, pool): (&cairn_types::PoolId, &cairn_types::Pool)| {
                (pool_id(*id), Value::Gauge(value(id, u64::from(pool.pg_num)) as f64))
            };
            map.pools.iter().map(pool).collect::<Vec<_>>()
        };
        self.add("pg_total", "Placement groups", by_pool(&|_, pg_num| pg_num));
        let unknown = by_pool(&|pool, pg_num| pg_num.saturating_sub(count(pool, &|_| true)));
        self.add("pg_unknown", "Placement groups nobody has reported", unknown);
        for bit in 0..STATE_WORDS {
            let word = PgState(1 << bit);
            let points = by_pool(&|pool, _| count(pool, &|state| state.has(word)));
            self.add(format!("pg_{word}"), "Placement groups with this word in their state", points);
        }
    }

    fn pools(&mut self, mgr: &Mgr, map: &OsdMap, now: Now) {
        let digest = mgr.digest(now);
        let metadata = map.pools.iter().map(|(id, pool)| {
            let mut labels = pool_id(*id);
            labels.push(("name", pool.name.clone()));
            labels.push(("type", "replicated".to_owned()));
            (labels, Value::Gauge(1.0))
        });
        self.add("pool_metadata", "1 for each pool", metadata.collect());
        let by_pool = |value: &dyn Fn(&cairn_types::PoolStat) -> u64| {
            let pools = digest.pools.iter();
            pools.map(|(id, pool)| (pool_id(*id), Value::Gauge(value(pool) as f64))).collect::<Vec<_>>()
        };
        self.add("pool_objects", "Objects in a pool", by_pool(&|pool| pool.objects));
        self.add("pool_stored", "Bytes clients stored in a pool", by_pool(&|pool| pool.stored_bytes));
        self.add("pool_bytes_used", "The same with every copy", by_pool(&|pool| pool.used_bytes));
        let quota = |value: &dyn Fn(&cairn_types::Pool) -> u64| {
            let pools = map.pools.iter();
            pools.map(|(id, pool)| (pool_id(*id), Value::Gauge(value(pool) as f64))).collect::<Vec<_>>()
        };
        self.add(
            "pool_quota_bytes",
            "Most bytes a pool may have; 0 for no bound",
            quota(&|pool| pool.quota_bytes),
        );
        self.add(
            "pool_quota_objects",
            "Most objects a pool may have; 0 for no bound",
            quota(&|pool| pool.quota_objects),
        );
        let sum =
            |of: fn(&cairn_types::PgCounts) -> u64| digest.pools.values().map(|pool| of(&pool.counts)).sum();
        self.one("num_objects_degraded", "Copies that are missing", sum(|counts| counts.degraded));
        self.one("num_objects_misplaced", "Copies on the wrong OSD", sum(|counts| counts.misplaced));
        self.one("num_objects_unfound", "Objects without a known copy", sum(|counts| counts.unfound));
    }
}

fn daemon(osd: cairn_types::OsdId) -> Labels {
    vec![("cairn_daemon", format!("osd.{}", osd.0))]
}

fn pool_id(pool: cairn_types::PoolId) -> Labels {
    vec![("pool_id", pool.0.to_string())]
}

/// Every bucket at every time: one that appears later would look like a rate.
fn histogram(latencies: &Latencies) -> Value {
    let count = |class: usize| latencies.classes.get(class).copied().unwrap_or(0);
    let mut buckets: Vec<(f64, u64)> =
        (0..BUCKETS).map(|class| ((1u64 << (class + 1)) as f64 / 1e6, count(class))).collect();
    buckets.push((f64::INFINITY, latencies.classes.iter().skip(BUCKETS).sum()));
    Value::Histogram { sum_s: latencies.sum_us as f64 / 1e6, buckets }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { name, help, points } in &self.0 {
            let kind = match points.first() {
                Some((_, Value::Counter(_))) => MetricType::Counter,
                Some((_, Value::Histogram { .. })) => MetricType::Histogram,
                _ => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in points {
                if labels.is_empty() {
                    // A family of no labels would be written with empty braces.
                    value.encode(&mut family)?;
                } else {
                    value.encode(&mut family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
