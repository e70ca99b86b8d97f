//! What a run came to.

use crate::cmd::output::{Format, columns, print, print_json};
use crate::cmd::text;
use cairn_client::bench::{BenchResult, Latency, Work};
use serde::Serialize;

/// What people are shown of a run.
pub struct Row {
    pub work: &'static str,
    pub block_len: u64,
    pub depth: usize,
    pub ops: u64,
    pub seconds: f64,
    pub bytes: u64,
    pub latency: Latency,
}

impl Row {
    pub fn of(result: &BenchResult) -> Row {
        let options = &result.options;
        Row {
            work: name(options.work),
            block_len: options.block_len,
            depth: options.depth,
            ops: result.ops,
            seconds: result.elapsed_ms / 1e3,
            bytes: result.bytes,
            latency: result.latency,
        }
    }
}

pub fn name(work: Work) -> &'static str {
    match work {
        Work::Write => "write",
        Work::Read => "read",
        Work::RandomWrite => "randwrite",
        Work::RandomRead => "randread",
    }
}

/// Shows a run: its document, or its row.
pub fn show(format: Format, document: &impl Serialize, row: &Row) -> anyhow::Result<()> {
    match format {
        Format::Json => print_json(document),
        Format::Text => print(&as_text(row)),
    }
}

fn as_text(row: &Row) -> String {
    let seconds = row.seconds.max(f64::MIN_POSITIVE);
    let whole = |us: u64| us.to_string();
    let Latency { mean_us, p50_us, p90_us, p99_us, p999_us, max_us, .. } = row.latency;
    // MB are 10^6 bytes, as disks and fio count them.
    let mb_per_s = row.bytes as f64 / 1e6 / seconds;
    let cells = [
        row.work.to_owned(),
        text::size(row.block_len),
        row.depth.to_string(),
        row.ops.to_string(),
        format!("{:.1}", row.seconds),
        format!("{:.0}", row.ops as f64 / seconds),
        format!("{mb_per_s:.1}"),
        format!("{mean_us:.1}"),
        whole(p50_us),
        whole(p90_us),
        whole(p99_us),
        whole(p999_us),
        whole(max_us),
    ];
    columns(
        [
            "WORK",
            ">BLOCK",
            ">DEPTH",
            ">OPS",
            ">SECONDS",
            ">IOPS",
            ">MB/s",
            ">MEAN µs",
            ">P50",
            ">P90",
            ">P99",
            ">P99.9",
            ">MAX",
        ],
        [cells],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_mb_are_millions() {
        let latency =
            Latency { mean_us: 500.0, min_us: 1, p50_us: 2, p90_us: 3, p99_us: 4, p999_us: 5, max_us: 6 };
        let row = Row {
            work: "write",
            block_len: 4096,
            depth: 8,
            ops: 1000,
            seconds: 2.0,
            bytes: 4_096_000,
            latency,
        };
        let text = as_text(&row);
        let fields: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            fields,
            ["write", "4", "KiB", "8", "1000", "2.0", "500", "2.0", "500.0", "2", "3", "4", "5", "6"]
        );
    }
}
