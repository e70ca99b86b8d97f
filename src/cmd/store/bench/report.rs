//! The rows, and what becomes of them.

use super::workload::{Goal, Workload};
use crate::cmd::store::text;
use cairn_store::engine::Counters;
use serde::Serialize;
use std::collections::BTreeMap;

/// Who did it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    Store,
    Fio,
}

/// One run. MB are 10^6 bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: &'static str,
    pub block_bytes: u64,
    pub depth: usize,
    pub who: Who,
    /// How it was done.
    pub way: String,
    /// From 1.
    pub round: u32,
    pub ops: u64,
    pub seconds: f64,
    pub iops: f64,
    pub mb_per_s: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// Kernel and user, all threads, the generator's own part too.
    pub cpu_us_per_op: f64,
    /// Bytes written to the device for a byte of payload, with the checkpoint that ends it.
    pub write_amplification: Option<f64>,
    /// What they are made up of.
    pub written: Option<Written>,
}

/// Where written bytes went.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Written {
    pub payload_bytes: u64,
    pub log_bytes: u64,
    pub direct_bytes: u64,
    pub writeback_bytes: u64,
    /// All of the process, the index among it.
    pub device_bytes: u64,
    pub records: u64,
    pub checkpoints: u64,
    pub flushes: u64,
}

impl Written {
    pub fn between(before: Counters, after: Counters, payload_bytes: u64, device_bytes: u64) -> Self {
        Written {
            payload_bytes,
            log_bytes: after.log_bytes - before.log_bytes,
            direct_bytes: after.direct_bytes - before.direct_bytes,
            writeback_bytes: after.writeback_bytes - before.writeback_bytes,
            device_bytes,
            records: after.records - before.records,
            checkpoints: after.checkpoints - before.checkpoints,
            flushes: after.flushes - before.flushes,
        }
    }
}

/// The store beside the fastest of fio's ways, medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    pub workload: &'static str,
    pub block_bytes: u64,
    pub depth: usize,
    /// `latency` (mean, µs; less is better) or `iops`.
    pub of: &'static str,
    pub store: f64,
    pub fio: f64,
    /// Which way of fio's.
    pub fio_way: String,
    pub ratio: f64,
    /// At most (latency), at least (iops); none for what is not in the table of goals.
    pub goal: Option<f64>,
    pub is_reached: Option<bool>,
}

const WIDTHS: [usize; 14] = [9, 7, 5, 5, 27, 3, 9, 8, 9, 9, 9, 9, 9, 8];

fn line(cells: [String; 14], last: &str) -> String {
    let mut out = String::new();
    for (at, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let is_word = matches!(at, 0 | 3 | 4);
        out += &if is_word { format!("{cell:<width$} ") } else { format!("{cell:>width$} ") };
    }
    format!("{out}{last:>7}\n")
}

/// What stands over the rows.
pub fn header() -> String {
    let names = [
        "workload", "block", "depth", "who", "how", "run", "IOPS", "MB/s", "mean µs", "p50", "p99", "p99.9",
        "max", "CPU µs",
    ];
    line(names.map(str::to_owned), "w.amp.")
}

impl Row {
    /// One line.
    pub fn as_text(&self) -> String {
        let number = |value: f64| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        let cells = [
            self.workload.to_owned(),
            text::size(self.block_bytes),
            self.depth.to_string(),
            if self.who == Who::Store { "store" } else { "fio" }.to_owned(),
            self.way.clone(),
            self.round.to_string(),
            number(self.iops),
            number(self.mb_per_s),
            number(self.mean_us),
            number(self.p50_us),
            number(self.p99_us),
            number(self.p999_us),
            number(self.max_us),
            number(self.cpu_us_per_op),
        ];
        line(cells, &self.write_amplification.map_or("-".to_owned(), |factor| format!("{factor:.2}")))
    }
}

impl Ratio {
    /// Of all rows of one workload, if fio ran it.
    pub fn of(workload: &Workload, rows: &[Row]) -> Option<Self> {
        let is_latency = match workload.goal() {
            Some(goal) => matches!(goal, Goal::Latency(_)),
            None => workload.depth == 1,
        };
        let mut values: BTreeMap<(Who, &str), Vec<f64>> = BTreeMap::new();
        for row in rows {
            let is_its = (row.workload, row.block_bytes, row.depth)
                == (workload.kind.name(), workload.block_bytes, workload.depth);
            if is_its {
                let value = if is_latency { row.mean_us } else { row.iops };
                values.entry((row.who, &row.way)).or_default().push(value);
            }
        }
        let medians = values.iter_mut().map(|((who, way), values)| (*who, *way, median(values)));
        let (mut store, mut fio) = (None, None::<(f64, &str)>);
        for (who, way, value) in medians {
            match who {
                Who::Store => store = Some(value),
                Who::Fio if fio.is_none_or(|(best, _)| (value < best) == is_latency) => {
                    fio = Some((value, way))
                }
                Who::Fio => {}
            }
        }
        let (store, (fio, fio_way)) = (store?, fio?);
        let ratio = store / fio;
        let (goal, is_reached) = match workload.goal() {
            None => (None, None),
            Some(Goal::Latency(most)) => (Some(most), Some(ratio <= most)),
            Some(Goal::Rate(least)) => (Some(least), Some(ratio >= least)),
        };
        Some(Ratio {
            workload: workload.kind.name(),
            block_bytes: workload.block_bytes,
            depth: workload.depth,
            of: if is_latency { "latency" } else { "iops" },
            store,
            fio,
            fio_way: fio_way.to_owned(),
            ratio,
            goal,
            is_reached,
        })
    }

    /// One line.
    pub fn as_text(&self) -> String {
        let unit = if self.of == "latency" { "µs mean" } else { "IOPS" };
        let goal = match (self.goal, self.is_reached) {
            (Some(goal), Some(is_reached)) => {
                let bound = if self.of == "latency" { "at most" } else { "at least" };
                format!(", wanted {bound} {goal}{}", if is_reached { "" } else { ": MISSED" })
            }
            _ => String::new(),
        };
        format!(
            "{} {} depth {}: store {:.1} {unit}, fio ({}) {:.1}: {:.2} x{goal}\n",
            self.workload,
            text::size(self.block_bytes),
            self.depth,
            self.store,
            self.fio_way,
            self.fio,
            self.ratio,
        )
    }
}

/// Not of an empty list.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[half - 1] + values[half]) / 2.0 } else { values[half] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::store::bench::workload::TABLE;

    fn row(workload: &Workload, who: Who, way: &str, iops: f64) -> Row {
        Row {
            workload: workload.kind.name(),
            block_bytes: workload.block_bytes,
            depth: workload.depth,
            who,
            way: way.to_owned(),
            round: 1,
            ops: 1,
            seconds: 1.0,
            iops,
            mb_per_s: 1.0,
            mean_us: 1e6 / iops,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            max_us: 1.0,
            cpu_us_per_op: 1.0,
            write_amplification: None,
            written: None,
        }
    }

    #[test]
    fn a_ratio_is_of_medians_and_beside_the_faster_way() {
        let [single, queued, ..] = TABLE;
        let mut rows: Vec<Row> =
            [700.0, 590.0, 100.0].map(|iops| row(&queued, Who::Store, "store", iops)).to_vec();
        rows.extend([500.0, 510.0].map(|iops| row(&queued, Who::Fio, "slow", iops)));
        rows.extend([1000.0, 1000.0].map(|iops| row(&queued, Who::Fio, "fast", iops)));
        let ratio = Ratio::of(&queued, &rows).unwrap();
        assert_eq!((ratio.of, &ratio.fio_way[..], ratio.ratio), ("iops", "fast", 0.59));
        assert_eq!(ratio.is_reached, Some(false));
        assert!(Ratio::of(&single, &rows).is_none(), "no row is of this load");
        rows.push(row(&single, Who::Store, "store", 1000.0));
        assert!(Ratio::of(&single, &rows).is_none(), "nothing to compare with");
        rows.push(row(&single, Who::Fio, "slow", 500.0));
        rows.push(row(&single, Who::Fio, "fast", 1250.0));
        let ratio = Ratio::of(&single, &rows).unwrap();
        assert_eq!((ratio.of, &ratio.fio_way[..], ratio.ratio), ("latency", "fast", 1.25));
        assert_eq!(ratio.is_reached, Some(true));
    }
}
