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
            // In bursts: a flush beside a few writes takes as long as one beside many. Best of all when nobody waits for one.
            let bound = match (self.is_resting, self.is_writing_back) {
                (true, _) => 0,
                (false, true) => DIRTY_BYTES_START / 2,
                (false, false) => DIRTY_BYTES_START,
            };
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

#[cfg(test)]
mod tests {
    use crate::device::Wait;
    use crate::engine::fixture;

    #[test]
    fn what_is_logged_goes_to_its_place_when_nobody_asks_for_anything() {
        let (mut engine, _) = fixture::store(16 << 20);
        let block = |byte: u8| vec![byte; 4096];
        fixture::commit(&mut engine, vec![fixture::write("object", 0, block(1))]);
        assert!(engine.wants_rest() && engine.counters().writeback_bytes == 0);
        engine.rest();
        assert!(!engine.wants_rest());
        while engine.state.pending.bytes() > 0 {
            engine.poll(Wait::Event, &mut Vec::new()).unwrap();
        }
        assert_eq!(engine.counters().writeback_bytes, 4096);

        // The next one ends the pause.
        fixture::commit(&mut engine, vec![fixture::write("object", 4096, block(2))]);
        engine.poll(Wait::Event, &mut Vec::new()).unwrap();
        assert!(engine.wants_rest() && engine.counters().writeback_bytes == 4096);
    }
}
