//! Putting logged data in its place.

use super::{Engine, Purpose};
use crate::canary::Canary;
use crate::device::{Device, Io};
use crate::limits::{BLOCK_BYTES, DIRTY_BYTES_START, WRITEBACK_BYTES_MAX, WRITEBACK_DEPTH};

const RUN_MAX: usize = WRITEBACK_BYTES_MAX / BLOCK_BYTES as usize;

impl<D: Device> Engine<D> {
    /// Writes what the running checkpoint needs; without one, what is above the bound of what may lie.
    pub(super) fn write_back(&mut self) {
        // Several together: nobody waits for any of them, and each call of the kernel costs as much as its write.
        if self.writebacks > WRITEBACK_DEPTH / 2 {
            return;
        }
        while self.writebacks < WRITEBACK_DEPTH && self.failure.is_none() {
            let durable = if self.has_canary(Canary::EarlyWriteBack) { u64::MAX } else { self.durable_seq };
            let mut due = self.state.pending.next_for_checkpoint(RUN_MAX, durable);
            // In bursts: a flush beside a few writes takes as long as one beside many.
            let bound = if self.is_writing_back { DIRTY_BYTES_START / 2 } else { DIRTY_BYTES_START };
            self.is_writing_back = self.state.pending.bytes() > bound;
            if due.is_empty() && (self.is_writing_back || self.has_canary(Canary::EarlyWriteBack)) {
                due = self.state.pending.next_in_background(RUN_MAX, durable);
            }
            let Some(first) = due.first().map(|due| due.unit) else { return };
            let mut buf = self.pool.get(due.len() * BLOCK_BYTES as usize);
            for (block, due) in buf.chunks_exact_mut(BLOCK_BYTES as usize).zip(&due) {
                block.copy_from_slice(&due.data);
            }
            self.state.pending.begin_write(&due);
            self.counters.writeback_bytes += buf.len() as u64;
            self.writebacks += 1;
            self.queue_io(
                Purpose::WriteBack(due),
                Io::Write { offset: first * BLOCK_BYTES, buf: buf.into(), durable: false },
            );
        }
    }
}
