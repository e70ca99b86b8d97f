//! `cairn store dump`.
//!
//! Written as it is read: a store may hold millions of objects.

use super::{Format, about, open, table, text};
use anyhow::{anyhow, bail};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::Access;
use cairn_store::dump::{Dump, FreeSpaceDump, ObjectDump, ObjectSummary, RecordDump};
use cairn_store::limits::BLOCK_BYTES;
use cairn_types::PgId;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Print what a store holds: superblock, checkpoint, log, collections, objects and free space
///
/// Nothing is written. With --object it is all about these objects instead: where each block is, with its
/// checksum and how many share it, extended attributes and omap keys. Offsets and sizes are in bytes, blocks of
/// 4 KiB.
#[derive(clap::Args)]
pub struct Args {
    /// File or block device
    device: PathBuf,
    /// Name of an object, alone or in full as the dump prints it; may be repeated
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    object: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Dumps.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let medium: Arc<dyn BlockingDevice> = open(&args.device, Access::ReadOnly)?;
    let mut dump = Dump::open(&medium).map_err(about(&args.device))?;
    let mut out = BufWriter::new(io::stdout().lock());
    match (args.object.is_empty(), args.format) {
        (true, Format::Text) => all_as_text(args, &mut dump, &mut out)?,
        (true, Format::Json) => all_as_json(args, &mut dump, &mut out)?,
        (false, format) => {
            let found = objects(args, &mut dump)?;
            match format {
                Format::Json => {
                    serde_json::to_writer_pretty(&mut out, &serde_json::json!({ "objects": found }))
                        .map_err(io::Error::from)?;
                    writeln!(out)?;
                }
                Format::Text => found.iter().try_for_each(|found| object_as_text(found, &mut out))?,
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// An object in its group.
#[derive(Serialize)]
struct Found {
    pg: String,
    #[serde(flatten)]
    dump: ObjectDump,
}

fn objects(args: &Args, dump: &mut Dump) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for name in &args.object {
        let found = dump.find(name).map_err(about(&args.device))?;
        if found.is_empty() {
            bail!("{} has no object '{name}': `cairn store dump` lists what it has", args.device.display());
        }
        for (pg, object) in found {
            let dump = dump
                .object(pg, &object)
                .map_err(|error| anyhow!("{}: object {object} of {pg}: {error}", args.device.display()))?;
            all.push(Found { pg: pg.to_string(), dump });
        }
    }
    Ok(all)
}

/// Runs a walk whose visits write, and gives back what went wrong first, the walk or the writing.
fn walk<T, E>(
    visit: &mut dyn FnMut(T) -> io::Result<()>,
    run: impl FnOnce(&mut dyn FnMut(T)) -> Result<(), E>,
    failed: impl Fn(E) -> anyhow::Error,
) -> anyhow::Result<()> {
    let mut wrote = Ok(());
    run(&mut |item| {
        if wrote.is_ok() {
            wrote = visit(item);
        }
    })
    .map_err(failed)?;
    Ok(wrote?)
}

fn parse_pg(pg: &str) -> anyhow::Result<PgId> {
    pg.parse().map_err(|error| anyhow!("'{pg}': {error}"))
}

fn json(out: &mut impl Write, before: &str, value: &impl Serialize) -> io::Result<()> {
    out.write_all(before.as_bytes())?;
    Ok(serde_json::to_writer(out, value)?)
}

/// An object of the listing in its group.
#[derive(Serialize)]
struct Listed<'a> {
    pg: &'a str,
    #[serde(flatten)]
    summary: ObjectSummary,
}

fn all_as_json(args: &Args, dump: &mut Dump, out: &mut impl Write) -> anyhow::Result<()> {
    let failed = about(&args.device);
    let collections = dump.collections().map_err(&failed)?;
    json(out, "{\"superblock\":", &dump.superblock())?;
    json(out, ",\n\"checkpoint\":", &dump.checkpoint().map_err(&failed)?)?;
    json(out, ",\n\"free_space\":", &dump.free_space())?;
    json(out, ",\n\"collections\":", &collections)?;
    write!(out, ",\n\"log\":[")?;
    let mut separator = "\n";
    let mut record = |record: RecordDump| json(out, std::mem::replace(&mut separator, ",\n"), &record);
    walk(&mut record, |visit| dump.each_record(visit), &failed)?;
    write!(out, "],\n\"objects\":[")?;
    separator = "\n";
    for collection in &collections {
        let mut object = |summary: ObjectSummary| {
            let listed = Listed { pg: &collection.pg, summary };
            json(out, std::mem::replace(&mut separator, ",\n"), &listed)
        };
        let pg = parse_pg(&collection.pg)?;
        walk(&mut object, |visit| dump.each_object(pg, visit), &failed)?;
    }
    writeln!(out, "]}}")?;
    Ok(())
}

fn all_as_text(args: &Args, dump: &mut Dump, out: &mut impl Write) -> anyhow::Result<()> {
    let failed = about(&args.device);
    fields(out, "superblock", &dump.superblock())?;
    fields(out, "checkpoint", &dump.checkpoint().map_err(&failed)?)?;
    writeln!(out, "log since the checkpoint")?;
    let mut record = |record: RecordDump| {
        let RecordDump { device_offset, seq, count, body_bytes, transactions } = record;
        writeln!(out, "  record {seq}+{count} at {device_offset}: {body_bytes} bytes")?;
        for (number, steps) in (seq..).zip(&transactions) {
            writeln!(out, "    transaction {number}")?;
            steps.iter().try_for_each(|step| writeln!(out, "      {step}"))?;
        }
        Ok(())
    };
    walk(&mut record, |visit| dump.each_record(visit), &failed)?;
    for collection in dump.collections().map_err(&failed)? {
        writeln!(out, "collection {}: {} objects", collection.pg, collection.objects)?;
        let pg = parse_pg(&collection.pg)?;
        let mut object = |object: ObjectSummary| writeln!(out, "  {}", summary(&object));
        walk(&mut object, |visit| dump.each_object(pg, visit), &failed)?;
    }
    free_space_as_text(&dump.free_space(), out)?;
    Ok(())
}

/// A heading and the fields of a structure, under the names that they have in JSON.
fn fields(out: &mut impl Write, heading: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let Value::Object(fields) = serde_json::to_value(value)? else { return Ok(()) };
    writeln!(out, "{heading}")?;
    let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows: Vec<(&str, String)> = fields.iter().map(|(name, field)| (&name[..], value(field))).collect();
    for line in table(&rows).lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

fn summary(object: &ObjectSummary) -> String {
    let ObjectSummary { object, nid, size, blocks, extents } = object;
    format!("{object}: number {nid}, {size} bytes, {blocks} blocks in {extents} extents")
}

fn free_space_as_text(free: &FreeSpaceDump, out: &mut impl Write) -> io::Result<()> {
    let size = |blocks: u64| text::size(blocks * BLOCK_BYTES);
    writeln!(
        out,
        "free space: {} of {} in {} runs, the longest {}; {} of it after the next checkpoint; fragmentation {:.3}",
        size(free.free_blocks),
        size(free.blocks),
        free.runs,
        size(free.longest_run_blocks),
        size(free.waiting_blocks),
        free.fragmentation,
    )?;
    for (least, runs, blocks) in &free.histogram {
        writeln!(out, "  {runs} runs of {} and more: {}", size(*least), size(*blocks))?;
    }
    Ok(())
}

fn object_as_text(found: &Found, out: &mut impl Write) -> io::Result<()> {
    let Found { pg, dump } = found;
    writeln!(out, "{} of {pg}", summary(&dump.summary))?;
    for extent in &dump.extents {
        write!(
            out,
            "  byte {}: {} blocks at device offset {}",
            extent.offset, extent.blocks, extent.device_offset
        )?;
        if extent.shared {
            write!(out, ", shared by {}", extent.refs)?;
        }
        if extent.in_log > 0 {
            write!(out, ", {} not in place yet", extent.in_log)?;
        }
        writeln!(out, "\n    checksums {}", extent.crcs.join(" "))?;
    }
    for (name, value) in &dump.xattrs {
        writeln!(out, "  xattr {name} = {value}")?;
    }
    if dump.omap != 0 {
        writeln!(out, "  omap {}, header '{}'", dump.omap, dump.omap_header)?;
    }
    for (key, bytes) in &dump.omap_keys {
        writeln!(out, "  omap key {key}: {bytes} bytes")?;
    }
    Ok(())
}
