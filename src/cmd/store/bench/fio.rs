//! The yardstick: the same load by fio, on a file of the same size in the same directory, in the same run.
//!
//! The file is written from end to end first, as the store's objects are: writes to holes would allocate.

use super::report::{Row, Who};
use super::workload::{Kind, Workload};
use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file for fio, removed when dropped.
pub struct Fio {
    file: PathBuf,
    len_bytes: u64,
    /// fio's engine for more than one operation at once.
    queued: &'static str,
}

/// A way to do a load.
pub struct Way {
    /// For people.
    pub name: String,
    engine: &'static str,
    arguments: &'static [&'static str],
}

impl Drop for Fio {
    fn drop(&mut self) {
        // It may not have come to be.
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Fio {
    /// Lays a file of `len_bytes` out beside the store. `is_uring` as of the store's queue.
    pub fn new(store: &Path, len_bytes: u64, is_uring: bool) -> anyhow::Result<Self> {
        let metadata =
            std::fs::metadata(store).with_context(|| format!("cannot look at {}", store.display()))?;
        if !metadata.is_file() {
            bail!(
                "--beside-fio writes a file beside the store's, and {} is a block device: measure a store on a file of that disk",
                store.display()
            );
        }
        let name = format!(".cairn-bench-fio-{}", std::process::id());
        let queued = if is_uring { "io_uring" } else { "libaio" };
        let fio = Fio { file: store.with_file_name(name), len_bytes, queued };
        fio.call(
            "psync",
            &["--rw=write".into(), "--bs=4M".into(), "--end_fsync=1".into(), "--fallocate=none".into()],
        )?;
        Ok(fio)
    }

    /// Reads the file from end to end.
    pub fn read_whole(&self) -> anyhow::Result<()> {
        self.call(self.queued, &["--rw=read".into(), "--bs=4M".into(), "--iodepth=8".into()])?;
        Ok(())
    }

    /// The ways that the store is compared with.
    pub fn ways(&self, workload: &Workload) -> Vec<Way> {
        let engine = if workload.depth == 1 { "psync" } else { self.queued };
        let way = |name: &str, arguments| Way { name: format!("{engine}, {name}"), engine, arguments };
        match (workload.kind, workload.depth) {
            (Kind::Randwrite, 1) => vec![way("fdatasync each", &["--fdatasync=1"])],
            (Kind::Randwrite, _) => {
                vec![way("dsync", &["--sync=dsync"]), way("fdatasync per 32", &["--fdatasync=32"])]
            }
            (Kind::Seqwrite, _) => vec![way("fsync at end", &["--end_fsync=1"])],
            (Kind::Seqread | Kind::Randread, _) => vec![way("read", &[])],
        }
    }

    /// Runs a load one way.
    pub fn run(&self, workload: &Workload, way: &Way, runtime: Duration) -> anyhow::Result<Row> {
        let rw = match workload.kind {
            Kind::Randwrite => "randwrite",
            Kind::Randread => "randread",
            Kind::Seqwrite => "write",
            Kind::Seqread => "read",
        };
        let mut arguments = vec![
            format!("--rw={rw}"),
            format!("--bs={}", workload.block_bytes),
            format!("--iodepth={}", workload.depth),
            "--time_based".to_owned(),
            format!("--runtime={}ms", runtime.as_millis()),
            "--norandommap".to_owned(),
            "--randrepeat=0".to_owned(),
        ];
        arguments.extend(way.arguments.iter().map(ToString::to_string));
        let report = self.call(way.engine, &arguments)?;
        row(workload, way, &report).ok_or_else(|| anyhow!("fio's report lacks a figure: {report}"))
    }

    /// fio's report on its one job.
    fn call(&self, engine: &str, arguments: &[String]) -> anyhow::Result<Value> {
        let output = Command::new("fio")
            .args(["--name=cairn", "--output-format=json", "--direct=1", "--percentile_list=50:99:99.9"])
            .arg(format!("--ioengine={engine}"))
            .arg(format!("--filename={}", self.file.display()))
            .arg(format!("--size={}", self.len_bytes))
            .args(arguments)
            .output()
            .context("cannot run fio: install it (Debian package fio), or leave --beside-fio out")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("fio {} failed ({}): {}", arguments.join(" "), output.status, error.trim());
        }
        // Notes may stand before the report.
        let report = said.find('{').map_or("", |at| &said[at..]);
        let report: Value = serde_json::from_str(report).context("fio's report is no JSON")?;
        let job = report.pointer("/jobs/0").cloned().ok_or_else(|| anyhow!("fio reports on no job"))?;
        match job["error"].as_i64() {
            Some(0) | None => Ok(job),
            Some(error) => bail!("fio {} failed with error {error}", arguments.join(" ")),
        }
    }
}

/// The figures that are the store's too. Where fio flushes after each write, it tells of both apart: then the
/// percentiles are the sums of those of write and flush, and the maximum is that of the two together.
fn row(workload: &Workload, way: &Way, job: &Value) -> Option<Row> {
    let side = &job[if workload.kind.is_write() { "write" } else { "read" }];
    let number = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_f64);
    let ops = number(side, "/total_ios")?;
    let runtime_ms = number(side, "/runtime")?;
    let is_flushed_each = way.arguments.contains(&"--fdatasync=1");
    let us = |own: &str, flush: &str| {
        let write_ns = number(side, own)?;
        let flush_ns = if is_flushed_each { number(job, flush)? } else { 0.0 };
        Some((write_ns + flush_ns) / 1e3)
    };
    let percentile =
        |p: &str| us(&format!("/clat_ns/percentile/{p}"), &format!("/sync/lat_ns/percentile/{p}"));
    let seconds = runtime_ms / 1e3;
    let iops = ops / seconds;
    Some(Row {
        workload: workload.kind.name(),
        block_bytes: workload.block_bytes,
        depth: workload.depth,
        who: Who::Fio,
        way: way.name.clone(),
        round: 0,
        ops: ops as u64,
        seconds,
        iops,
        mb_per_s: iops * workload.block_bytes as f64 / 1e6,
        // Of a closed loop, by Little's law: flushes that are not part of a write's own latency count too.
        mean_us: workload.depth as f64 / iops * 1e6,
        p50_us: percentile("50.000000")?,
        p99_us: percentile("99.000000")?,
        p999_us: percentile("99.900000")?,
        max_us: us("/lat_ns/max", "/sync/lat_ns/max")?,
        cpu_us_per_op: (number(job, "/usr_cpu")? + number(job, "/sys_cpu")?) / 100.0 * runtime_ms * 1e3 / ops,
        write_amplification: None,
        written: None,
    })
}
