//! `cairn store info`.

use super::{Format, about, open, print, print_json, table, text};
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::Access;
use cairn_store::dump::{CheckpointDump, Dump, SuperblockDump};
use cairn_store::limits::BLOCK_BYTES;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// Tell what a store is, how full it is and where its log stands
///
/// Nothing is written. The store must not be open in another process.
#[derive(clap::Args)]
pub struct Args {
    /// File or block device
    device: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is told.
#[derive(Serialize)]
struct Info {
    device: String,
    superblock: SuperblockDump,
    checkpoint: CheckpointDump,
    space: Space,
    collections: usize,
    objects: u64,
    log: Log,
}

/// The data region.
#[derive(Serialize)]
struct Space {
    data_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    /// Part of the free bytes: to be had from the next checkpoint on.
    waiting_bytes: u64,
    longest_free_run_bytes: u64,
    /// Share of the free space in runs below 1 MiB.
    fragmentation: f64,
}

/// What has to be taken from the log when the store is opened.
#[derive(Serialize)]
struct Log {
    /// Of the ring.
    bytes: u64,
    /// Bodies of the records since the last checkpoint.
    waiting_bytes: u64,
    records: u64,
    transactions: u64,
    /// The next transaction's number.
    next_seq: u64,
}

/// Tells.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let failed = about(&args.device);
    let medium: Arc<dyn BlockingDevice> = open(&args.device, Access::ReadOnly)?;
    let dump = Dump::open(&medium).map_err(&failed)?;
    let superblock = dump.superblock();
    let checkpoint = dump.checkpoint().map_err(&failed)?;
    let mut log = Log {
        bytes: superblock.log_bytes,
        waiting_bytes: 0,
        records: 0,
        transactions: 0,
        next_seq: checkpoint.next_seq,
    };
    dump.each_record(|record| {
        log.waiting_bytes += record.body_bytes;
        log.records += 1;
        log.transactions += u64::from(record.count);
        log.next_seq = record.seq + u64::from(record.count);
    })
    .map_err(&failed)?;
    let collections = dump.collections().map_err(&failed)?;
    let free = dump.free_space();
    let info = Info {
        device: args.device.display().to_string(),
        superblock,
        checkpoint,
        space: Space {
            data_bytes: free.blocks * BLOCK_BYTES,
            used_bytes: (free.blocks - free.free_blocks) * BLOCK_BYTES,
            free_bytes: free.free_blocks * BLOCK_BYTES,
            waiting_bytes: free.waiting_blocks * BLOCK_BYTES,
            longest_free_run_bytes: free.longest_run_blocks * BLOCK_BYTES,
            fragmentation: free.fragmentation,
        },
        collections: collections.len(),
        objects: collections.iter().map(|collection| collection.objects).sum(),
        log,
    };
    match args.format {
        Format::Json => print_json(&info),
        Format::Text => print(&as_text(&info)?),
    }
}

fn as_text(info: &Info) -> anyhow::Result<String> {
    let Info { superblock, space, log, .. } = info;
    let cluster = text::parse_fsid(&superblock.cluster).ok().filter(|fsid| fsid.0 != [0; 16]);
    let store = text::parse_fsid(&superblock.store).map_or(superblock.store.clone(), |id| id.to_string());
    let percent = 100.0 * space.used_bytes as f64 / space.data_bytes.max(1) as f64;
    Ok(table(&[
        ("device", info.device.clone()),
        ("store", store),
        ("osd", text::osd(superblock.osd)),
        ("cluster", text::cluster(cluster)),
        ("features", features(superblock)?),
        ("size", text::size(superblock.device_bytes)),
        (
            "data",
            format!(
                "{} of {} used ({percent:.1} %), {} free, longest free run {}, fragmentation {:.3}",
                text::size(space.used_bytes),
                text::size(space.data_bytes),
                text::size(space.free_bytes),
                text::size(space.longest_free_run_bytes),
                space.fragmentation,
            ),
        ),
        (
            "index",
            format!(
                "{} of entries in {}",
                text::size(info.checkpoint.index_bytes),
                text::size(superblock.index_bytes)
            ),
        ),
        ("holds", format!("{} objects in {} collections", info.objects, info.collections)),
        (
            "log",
            format!(
                "{} transactions in {} records ({}) since the checkpoint, of {}; next is {}",
                log.transactions,
                log.records,
                text::size(log.waiting_bytes),
                text::size(log.bytes),
                log.next_seq,
            ),
        ),
    ]))
}

/// The feature masks that have a bit set, under the names they have in the superblock.
fn features(superblock: &SuperblockDump) -> anyhow::Result<String> {
    let Value::Object(fields) = serde_json::to_value(superblock)? else { return Ok(String::new()) };
    let masks = fields.iter().filter(|(name, _)| name.ends_with("features"));
    let set: Vec<String> = masks
        .filter_map(|(name, mask)| Some((name, mask.as_u64().filter(|mask| *mask != 0)?)))
        .map(|(name, mask)| format!("{name} {mask:#x}"))
        .collect();
    Ok(if set.is_empty() { "none".to_owned() } else { set.join(", ") })
}
