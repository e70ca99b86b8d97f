//! What an OSD does a second, from counters that only grow.

use super::REPORT_LIFETIME_MS;
use cairn_types::{IoRates, OsdCounters};
use std::collections::VecDeque;

/// Rates are over the reports of this time: a few, so that one busy moment neither fills the line nor is lost.
const WINDOW_MS: u64 = 10_000;
/// Reports kept; an OSD that reports more often has a shorter window.
const SAMPLES_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sample {
    at_ms: u64,
    read_ops: u64,
    read_bytes: u64,
    write_ops: u64,
    write_bytes: u64,
    recovered_objects: u64,
    recovered_bytes: u64,
}

/// The last reports of one run of an OSD.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Rates(VecDeque<Sample>);

impl Rates {
    pub(super) fn add(&mut self, at_ms: u64, counters: &OsdCounters) {
        while self.0.len() >= SAMPLES_MAX
            || self.0.front().is_some_and(|first| first.at_ms + WINDOW_MS < at_ms && self.0.len() > 1)
        {
            self.0.pop_front();
        }
        self.0.push_back(Sample {
            at_ms,
            read_ops: counters.read_ops,
            read_bytes: counters.read_bytes,
            write_ops: counters.write_ops,
            write_bytes: counters.write_bytes,
            recovered_objects: counters.recovered_objects,
            recovered_bytes: counters.recovered_bytes,
        });
    }

    /// The rates at a time; none from an OSD that is silent.
    pub(super) fn at(&self, now_ms: u64) -> IoRates {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else { return IoRates::default() };
        let span_ms = last.at_ms.saturating_sub(first.at_ms);
        if span_ms == 0 || now_ms > last.at_ms + REPORT_LIFETIME_MS {
            return IoRates::default();
        }
        let a_second = |of: fn(&Sample) -> u64| {
            let more = of(last).saturating_sub(of(first));
            (u128::from(more) * 1_000 / u128::from(span_ms)) as u64
        };
        IoRates {
            read_bytes_per_s: a_second(|sample| sample.read_bytes),
            write_bytes_per_s: a_second(|sample| sample.write_bytes),
            read_ops_per_s: a_second(|sample| sample.read_ops),
            write_ops_per_s: a_second(|sample| sample.write_ops),
            recovery_bytes_per_s: a_second(|sample| sample.recovered_bytes),
            recovery_objects_per_s: a_second(|sample| sample.recovered_objects),
        }
    }
}
