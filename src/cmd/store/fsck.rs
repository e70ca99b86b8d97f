//! `cairn store fsck`.

use super::{Format, about, open, print, print_json, text};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::Access;
use cairn_store::fsck::{FsckOptions, FsckReport, check};
use cairn_store::limits::BLOCK_BYTES;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Nothing is wrong.
const CLEAN: u8 = 0;
/// Something was wrong, and all of it was mended.
const MENDED: u8 = 1;
/// Something is wrong.
const ERRORS_LEFT: u8 = 4;
/// Nothing can be said.
const NOT_CHECKED: u8 = 8;

/// Check a store that nobody has open, and mend what can be mended without losing anything
///
/// Without --repair nothing is written. With it, what can be mended is what nothing refers to or what can be
/// counted anew: a leaked extent, a wrong free map, a wrong count of sharers, a damaged copy of the superblock.
/// Damaged data is never mended: the object is to be had from another OSD.
#[derive(clap::Args)]
#[command(after_help = "Exit codes, as of fsck(8):
  0  nothing is wrong
  1  something was wrong and all of it was mended
  2  the command line makes no sense
  4  errors are left
  8  the store could not be checked: in use, not a store, too damaged to be opened, or the device fails")]
pub struct Args {
    /// File or block device
    device: PathBuf,
    /// Read all data and compare its checksums
    #[arg(long)]
    deep: bool,
    /// Mend what can be mended safely
    #[arg(long)]
    repair: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Checks. Its exit codes are its own, so errors end here.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let code = match checked(args) {
        Ok(report) => {
            let code = exit_code(&report);
            let printed = match args.format {
                Format::Json => print_json(&as_json(args, &report, code)),
                Format::Text => print(&as_text(args, &report, code)),
            };
            printed.or_else(super::ignore_broken_pipe)?;
            code
        }
        Err(error) => {
            eprintln!("cairn: {error:#}");
            NOT_CHECKED
        }
    };
    Ok(code.into())
}

fn checked(args: &Args) -> anyhow::Result<FsckReport> {
    let access = if args.repair { Access::ReadWrite } else { Access::ReadOnly };
    let medium: Arc<dyn BlockingDevice> = open(&args.device, access)?;
    let options = FsckOptions { deep: args.deep, repair: args.repair };
    let bar = progress_bar(args.deep);
    let unit = if args.deep { BLOCK_BYTES } else { 1 };
    let mut progress = |done: u64, total: u64| {
        if let Some(bar) = &bar {
            bar.set_length(total * unit);
            bar.set_position(done * unit);
        }
    };
    let report = check(&medium, &options, &mut progress);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    report.map_err(about(&args.device))
}

/// On a terminal only.
fn progress_bar(deep: bool) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let form = if deep {
        "{elapsed_precise} [{bar:40}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left"
    } else {
        "{elapsed_precise} [{bar:40}] {pos} of {len} objects, {eta} left"
    };
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    Some(bar)
}

fn exit_code(report: &FsckReport) -> u8 {
    match (report.is_clean(), report.repaired.is_empty()) {
        (true, true) => CLEAN,
        (true, false) => MENDED,
        (false, _) => ERRORS_LEFT,
    }
}

fn as_text(args: &Args, report: &FsckReport, code: u8) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for finding in &report.repaired {
        line(format!("mended: {finding}"));
    }
    for finding in &report.findings {
        let hint = if finding.is_repairable() && !args.repair { " (--repair mends it)" } else { "" };
        line(format!("{finding}{hint}"));
    }
    if report.left_out > 0 {
        line(format!("{} more findings are not listed", report.left_out));
    }
    if report.is_repair_withheld {
        line(
            "only the superblock was mended: a part of the index cannot be read, so what seems unused may be used"
                .to_owned(),
        );
    }
    let data = if args.deep {
        format!("{} of data verified", text::size(report.verified_bytes))
    } else {
        "data not read (--deep does)".to_owned()
    };
    let verdict = match code {
        CLEAN => "clean".to_owned(),
        MENDED => format!("{} errors, all mended", report.repaired.len()),
        _ => format!("{} ERRORS LEFT", report.findings.len() as u64 + report.left_out),
    };
    line(format!(
        "{}: {} objects, {} in use, {data}: {verdict}",
        args.device.display(),
        report.objects,
        text::size(report.blocks * BLOCK_BYTES),
    ));
    out
}

fn as_json(args: &Args, report: &FsckReport, code: u8) -> Value {
    let findings = report.findings.iter();
    let findings: Vec<Value> = findings
        .map(|finding| json!({ "text": finding.to_string(), "repairable": finding.is_repairable() }))
        .collect();
    json!({
        "device": args.device.display().to_string(),
        "deep": args.deep,
        "repair": args.repair,
        "clean": report.is_clean(),
        "exit_code": code,
        "findings": findings,
        "findings_left_out": report.left_out,
        "repaired": report.repaired.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "repair_withheld": report.is_repair_withheld,
        "objects": report.objects,
        "used_bytes": report.blocks * BLOCK_BYTES,
        "verified_bytes": report.verified_bytes,
    })
}
