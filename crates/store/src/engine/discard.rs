//! Freed space on its way back: to the medium where that is worth it, then to the allocator.
//!
//! A file system takes a hole while nobody reads or writes the file, and a disk may stop for one. Thousands at
//! once, of an image that was removed, would hold up everybody for seconds: one goes at a time, of bounded length.

use super::{Engine, Purpose};
use crate::alloc::Run;
use crate::canary::Canary;
use crate::device::{Device, Io};
use crate::limits::{BLOCK_BYTES, DISCARD_BYTES_MAX, DISCARD_BYTES_MIN};
use crate::state::Freed;
use std::collections::VecDeque;

/// Runs that are free in the last checkpoint, and not given out before the medium has them.
#[derive(Debug, Default)]
pub struct Discards {
    waiting: VecDeque<Run>,
    is_under_way: bool,
}

impl<D: Device> Engine<D> {
    /// Takes over what was freed up to a checkpoint that is durable.
    pub(super) fn give_back(&mut self, mut freed: Vec<Freed>) {
        freed.sort_unstable_by_key(|freed| freed.unit);
        let (least, most) = ((DISCARD_BYTES_MIN / BLOCK_BYTES) as usize, DISCARD_BYTES_MAX / BLOCK_BYTES);
        let can_discard = self.device.geometry().discard;
        for run in freed.chunk_by(|a, b| a.unit + 1 == b.unit && a.discard == b.discard) {
            if !(can_discard && run[0].discard && run.len() >= least) {
                self.discarded(Run { unit: run[0].unit, count: run.len() as u64 });
                continue;
            }
            for piece in run.chunks(most as usize) {
                let count = piece.len() as u64;
                self.discards.waiting.push_back(Run { unit: piece[0].unit, count });
            }
        }
    }

    /// Starts the next one.
    pub(super) fn discard(&mut self) {
        if self.discards.is_under_way || self.failure.is_some() {
            return;
        }
        let Some(run) = self.discards.waiting.pop_front() else { return };
        self.discards.is_under_way = true;
        let (offset, len) = (run.unit * BLOCK_BYTES, run.count * BLOCK_BYTES);
        self.queue_io(Purpose::Discard(run), Io::Discard { offset, len });
    }

    /// The medium has it.
    pub(super) fn medium_discarded(&mut self, run: Run) {
        self.discards.is_under_way = false;
        self.discarded(run);
    }

    /// Gives out at once what waits for its turn: whoever wants the space comes before the medium. Whether there
    /// was any.
    pub(super) fn hurry_discards(&mut self) -> bool {
        let waiting = std::mem::take(&mut self.discards.waiting);
        let any = !waiting.is_empty();
        waiting.into_iter().for_each(|run| self.discarded(run));
        any
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.discards.is_under_way || !self.discards.waiting.is_empty()
    }

    /// Blocks can be given out.
    fn discarded(&mut self, run: Run) {
        // With this one they were given out long ago.
        if !self.has_canary(Canary::EarlyReuse) {
            self.state.alloc.release(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Wait;
    use crate::device::sim::{Fault, FaultRule, OpKind, SimDevice};
    use crate::engine::Event;
    use crate::engine::fixture::{PG, checkpoint, commit, object, store, write};
    use crate::txn::{Op, Transaction};

    const PIECE: usize = 256 << 10;

    /// Objects in pieces that are worth a discard each, with something that stays between each two.
    fn fill(engine: &mut Engine<SimDevice>, objects: u64) {
        for number in 0..objects {
            let name = format!("image-{number}");
            commit(
                engine,
                vec![write(&name, 0, vec![1; PIECE]), write("stays", number * BLOCK_BYTES, vec![2])],
            );
        }
        checkpoint(engine);
    }

    fn removal(objects: u64) -> Vec<Op> {
        (0..objects).map(|number| Op::Remove(PG, object(&format!("image-{number}")))).collect()
    }

    /// Polls until something is so, and not for long: the discards would take longer. A sleep would end them.
    fn soon(engine: &mut Engine<SimDevice>, mut is_so: impl FnMut(&Engine<SimDevice>, &[Event]) -> bool) {
        let mut events = Vec::new();
        for _ in 0..1000 {
            if is_so(engine, &events) {
                return;
            }
            engine.poll(Wait::No, &mut events).unwrap();
        }
        panic!("not after 1000 polls: {events:?}");
    }

    #[test]
    fn a_checkpoint_does_not_wait_for_the_discards_of_a_large_removal() {
        let (mut engine, medium) = store(128 << 20);
        fill(&mut engine, 200);
        let free = engine.state.alloc.free_blocks();
        medium.inject(FaultRule::every(OpKind::Discard, Fault::Slow(3000)));
        commit(&mut engine, removal(200));
        for round in 0..3 {
            commit(&mut engine, vec![write("stays", round * BLOCK_BYTES, vec![3])]);
            engine.request_checkpoint();
            soon(&mut engine, |engine, _| !engine.has_checkpoint_to_finish());
            assert_eq!(medium.stats().discards, 1, "one at a time");
        }
        medium.clear_faults();
        checkpoint(&mut engine);
        assert_eq!(medium.stats().discards, 200);
        assert_eq!(engine.state.alloc.free_blocks(), free + 200 * PIECE as u64 / BLOCK_BYTES);
    }

    #[test]
    fn a_long_run_is_discarded_in_pieces() {
        let (mut engine, medium) = store(128 << 20);
        for piece in 0..5 {
            commit(&mut engine, vec![write("long", piece * (4 << 20), vec![1; 4 << 20])]);
        }
        commit(&mut engine, vec![Op::Remove(PG, object("long"))]);
        checkpoint(&mut engine);
        assert_eq!(medium.stats().discards, (20_u64 << 20).div_ceil(DISCARD_BYTES_MAX));
    }

    #[test]
    fn who_wants_the_space_does_not_wait_for_the_medium() {
        let (mut engine, medium) = store(64 << 20);
        let objects = engine.state.alloc.free_blocks() * BLOCK_BYTES / (PIECE as u64 + BLOCK_BYTES) - 2;
        fill(&mut engine, objects);
        medium.inject(FaultRule::every(OpKind::Discard, Fault::Slow(100_000)));
        commit(&mut engine, removal(objects));
        engine.request_checkpoint();
        soon(&mut engine, |engine, _| !engine.has_checkpoint_to_finish());
        assert_eq!(medium.stats().discards, 1);
        // All but what the medium is busy with.
        for number in 1..objects {
            let ops = vec![write(&format!("new-{number}"), 0, vec![4; PIECE])];
            engine.submit(number, Transaction { ops }).unwrap();
            soon(&mut engine, |_, events| matches!(events, [Event::Committed { result: Ok(()), .. }]));
        }
    }

    #[test]
    fn a_store_that_stopped_discards_nothing_more() {
        let (mut engine, medium) = store(64 << 20);
        fill(&mut engine, 20);
        medium.inject(FaultRule::every(OpKind::Discard, Fault::Slow(10)));
        commit(&mut engine, removal(20));
        engine.request_checkpoint();
        soon(&mut engine, |engine, _| !engine.has_checkpoint_to_finish());
        medium.inject(FaultRule::every(OpKind::Write, Fault::Error(5)));
        engine.submit(1, Transaction { ops: vec![write("stays", 0, vec![5])] }).unwrap();
        let mut events = Vec::new();
        while engine.poll(Wait::Event, &mut events).is_ok() {}
        assert!(!engine.is_checkpointing(), "nobody waits for what never comes");
    }
}
