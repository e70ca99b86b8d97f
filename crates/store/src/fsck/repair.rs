//! Mending.

use super::walk::walk;
use super::{Findings, reading_only};
use crate::device::BlockingDevice;
use crate::engine::OpenOptions;
use crate::engine::open::load;
use crate::error::StoreError;
use crate::format::superblock::Superblock;
use crate::format::values::Checkpoint;
use crate::index::Batch;
use crate::limits::{BLOCK_BYTES, WRITEBACK_BYTES_MAX};
use std::sync::Arc;

/// Writes damaged copies anew.
pub(super) fn superblocks(
    device: &dyn BlockingDevice,
    superblock: &Superblock,
    bad: &[u64],
) -> Result<(), StoreError> {
    for &place in bad {
        device.write_at(place, &superblock.encode()).map_err(device_error("write the superblock", place))?;
        device.sync().map_err(flush_error)?;
    }
    Ok(())
}

/// Corrects the free map, counts, and what belongs to nobody. Only for an index that can be read as a whole.
pub(super) fn index(device: &Arc<dyn BlockingDevice>, superblock: &Superblock) -> Result<(), StoreError> {
    checkpoint(device, superblock)?;
    let (mut state, _, _) = load(device, superblock, &OpenOptions::default())?;
    let mut findings = Findings::default();
    let mut found =
        walk(&mut state, superblock, &*reading_only(device), false, &mut findings, &mut |_, _| {});
    if findings.hides_references {
        // It was whole a moment ago.
        return Ok(());
    }
    let (before, _) = state.index().load(|_, _| true)?;
    let batch = Batch {
        shards: found.orphan_shards.drain(..).map(|key| (key, None)).collect(),
        dropped_omaps: found.orphan_omaps,
        refs: found.refs,
        bitmap: found.chunks.iter().map(|&chunk| (chunk, found.alloc.chunk(chunk))).collect(),
        checkpoint: Checkpoint {
            objects: found.objects,
            next_nid: before.next_nid.max(found.last_number.saturating_add(1)),
            ..before
        },
        ..Batch::default()
    };
    state.index().commit(&batch)?;
    drop(state);
    device.sync().map_err(flush_error)
}

/// What the engine's checkpoint does, with everybody waiting: after it the log is of no more use.
fn checkpoint(device: &Arc<dyn BlockingDevice>, superblock: &Superblock) -> Result<(), StoreError> {
    let (mut state, log, last_seq) = load(device, superblock, &OpenOptions::default())?;
    // A record that was read may be in the device's cache only, left there by a process that was killed. No
    // block may be written over before its record is durable.
    device.sync().map_err(flush_error)?;
    let most = WRITEBACK_BYTES_MAX / BLOCK_BYTES as usize;
    let mut buf = Vec::with_capacity(WRITEBACK_BYTES_MAX);
    loop {
        let due = state.pending.next_in_background(most, last_seq);
        let Some(first) = due.first() else { break };
        buf.clear();
        due.iter().for_each(|due| buf.extend_from_slice(&due.data));
        let offset = first.unit * BLOCK_BYTES;
        state.pending.begin_write(&due);
        device.write_at(offset, &buf).map_err(device_error("write data", offset))?;
        due.iter().for_each(|due| state.pending.written(due.unit, due.seq));
    }
    device.sync().map_err(flush_error)?;
    let (batch, _) = state.take_batch(last_seq + 1, log.position_after(last_seq));
    state.index().commit(&batch).map(drop)
}

fn device_error(action: &'static str, offset: u64) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Device { action, offset, source: Arc::new(source) }
}

fn flush_error(source: std::io::Error) -> StoreError {
    StoreError::Flush(Arc::new(source))
}
