//! Checkpoints: bringing the index up to the log, so that the log's space and freed blocks can be used
//! again. Writers go on meanwhile.

use super::{Engine, Purpose};
use crate::canary::Canary;
use crate::device::{Device, Io};
use crate::error::StoreError;
use crate::index::Batch;
use crate::limits::{CHECKPOINT_ENTRIES, CHECKPOINT_LOG_SHARE};
use crate::state::Freed;

/// Where the running checkpoint is.
#[derive(Debug, Default)]
pub struct Checkpointing {
    step: Step,
    /// Wanted, whatever the log's state.
    wanted: bool,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    None,
    /// Waits for everything up to the cut to be durable and in place.
    InPlace { cut: u64, batch: Batch, freed: Vec<Freed> },
    /// Waits for what is in place to be durable there.
    Flushing { cut: u64, batch: Batch, freed: Vec<Freed> },
    /// Waits for the index.
    Committing { cut: u64, freed: Vec<Freed> },
}

impl Checkpointing {
    pub fn is_committing(&self) -> bool {
        matches!(self.step, Step::Committing { .. })
    }

    pub fn is_running(&self) -> bool {
        self.wanted || !matches!(self.step, Step::None)
    }

    /// Changes with every step.
    pub fn step(&self) -> usize {
        match self.step {
            Step::None => usize::from(self.wanted),
            Step::InPlace { .. } => 2,
            Step::Flushing { .. } => 3,
            Step::Committing { .. } => 4,
        }
    }
}

impl<D: Device> Engine<D> {
    /// Starts a checkpoint of everything sequenced so far, unless one runs; then another follows it.
    pub fn request_checkpoint(&mut self) {
        self.checkpointing.wanted = true;
    }

    /// Whether one runs or is asked for, or what one freed is not given back yet.
    pub fn is_checkpointing(&self) -> bool {
        self.has_checkpoint_to_finish() || self.is_discarding()
    }

    /// Whether one runs or is asked for. What it frees is given back to the medium after it: who closes the store
    /// does not wait for that, it may take minutes.
    pub fn has_checkpoint_to_finish(&self) -> bool {
        self.checkpointing.is_running()
    }

    fn is_checkpoint_due(&self) -> bool {
        let (used, len) = self.log.usage();
        self.checkpointing.wanted
            || self.starved
            || used * CHECKPOINT_LOG_SHARE > len
            || self.state.dirty_entries() > CHECKPOINT_ENTRIES
            // Space that waits is no use: give it back before it is missed.
            || self.state.freed_blocks() > self.state.alloc.free_blocks() / 4 + 256
    }

    pub(super) fn step_checkpoint(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.checkpointing.step = match std::mem::take(&mut self.checkpointing.step) {
            Step::None if self.is_checkpoint_due() => {
                self.checkpointing.wanted = false;
                let cut = self.last_seq;
                let (batch, freed) = self.state.take_batch(cut + 1, 0);
                self.state.pending.begin_checkpoint(cut);
                self.counters.checkpoints += 1;
                if self.has_canary(Canary::EarlyTrim) {
                    self.log.trim(cut);
                }
                Step::InPlace { cut, batch, freed }
            }
            Step::InPlace { cut, batch, freed } => {
                let in_place = self.state.pending.is_checkpoint_in_place();
                if self.durable_seq >= cut && (in_place || self.has_canary(Canary::CheckpointBeforeData)) {
                    // The index library flushes before its commit counts, and that flush would cover these
                    // blocks too (a canary without this one is not caught); but that is its inside.
                    self.counters.flushes += 1;
                    self.queue_io(Purpose::CheckpointFlush, Io::Flush);
                    Step::Flushing { cut, batch, freed }
                } else {
                    Step::InPlace { cut, batch, freed }
                }
            }
            Step::Committing { cut, freed } => match self.runner.finished() {
                None => Step::Committing { cut, freed },
                Some(Err(error)) => {
                    self.fail(error);
                    Step::None
                }
                Some(Ok(index_bytes)) => {
                    if let Err(error) = self.committed(cut, freed, index_bytes) {
                        self.fail(error);
                    }
                    Step::None
                }
            },
            step => step,
        };
    }

    pub(super) fn checkpoint_flushed(&mut self) {
        self.checkpointing.step = match std::mem::take(&mut self.checkpointing.step) {
            Step::Flushing { cut, batch, freed } => self.commit_index(cut, batch, freed),
            step => step,
        };
    }

    fn commit_index(&mut self, cut: u64, mut batch: Batch, freed: Vec<Freed>) -> Step {
        batch.checkpoint.log_position = self.log.position_after(cut);
        self.runner.start(self.state.index(), batch);
        Step::Committing { cut, freed }
    }

    fn committed(&mut self, cut: u64, freed: Vec<Freed>, index_bytes: u64) -> Result<(), StoreError> {
        self.state.committed(index_bytes)?;
        self.state.pending.end_checkpoint();
        self.log.trim(cut);
        self.starved = false;
        self.give_back(freed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Op;
    use crate::device::sim::SimDevice;
    use crate::engine::{Engine, fixture};
    use bytes::Bytes;
    use std::sync::Arc;

    fn set(entries: &[(&'static str, &'static str)]) -> Op {
        let entries = entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Op::OmapSet(fixture::PG, fixture::object("object"), entries)
    }

    fn remove(keys: &[&'static str]) -> Op {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        Op::OmapRemove(fixture::PG, fixture::object("object"), keys)
    }

    /// Listed from the start and from behind the first, and asked for one by one.
    fn check(engine: &mut Engine<SimDevice>, expected: &[(&str, &str)]) {
        let object = fixture::object("object");
        let text = |found: Vec<(Bytes, Bytes)>| -> Vec<(String, String)> {
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            found.into_iter().map(|(key, value)| (text(key), text(value))).collect()
        };
        let expected: Vec<_> = expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let all = engine.omap_list(fixture::PG, &object, None, 100).unwrap();
        assert_eq!(text(all), expected);
        let behind = engine.omap_list(fixture::PG, &object, Some(b"a"), 100).unwrap();
        let later: Vec<_> = expected.iter().filter(|(key, _)| key != "a").cloned().collect();
        assert_eq!(text(behind), later);
        let keys: Vec<Bytes> = ["a", "b", "c", "d", "e", "f"].map(Bytes::from).into();
        let got = engine.omap_get(fixture::PG, &object, &keys).unwrap();
        assert_eq!(text(got), expected);
    }

    #[test]
    fn omap_entries_are_read_from_the_index_a_running_checkpoint_and_what_came_after_it() {
        let (mut engine, _) = fixture::store(16 << 20);
        fixture::commit(&mut engine, vec![set(&[("a", "1"), ("b", "1"), ("c", "1"), ("f", "1")])]);
        fixture::checkpoint(&mut engine);
        fixture::commit(&mut engine, vec![set(&[("b", "2"), ("d", "2"), ("e", "2")]), remove(&["c"])]);
        let (batch, _) = engine.state.take_batch(engine.last_seq + 1, 0);
        check(&mut engine, &[("a", "1"), ("b", "2"), ("d", "2"), ("e", "2"), ("f", "1")]);
        fixture::commit(&mut engine, vec![set(&[("c", "3"), ("d", "3")]), remove(&["a", "e"])]);
        let now = [("b", "2"), ("c", "3"), ("d", "3"), ("f", "1")];
        check(&mut engine, &now);

        let index_bytes = Arc::clone(engine.state.index()).commit(&batch).unwrap();
        drop(batch);
        engine.state.committed(index_bytes).unwrap();
        check(&mut engine, &now);
        // What is let go bit by bit is not missed.
        fixture::commit(&mut engine, vec![set(&[("f", "4")])]);
        check(&mut engine, &[("b", "2"), ("c", "3"), ("d", "3"), ("f", "4")]);
        // Gone as a whole, with what a checkpoint has of it.
        let (batch, _) = engine.state.take_batch(engine.last_seq + 1, 0);
        fixture::commit(&mut engine, vec![Op::OmapClear(fixture::PG, fixture::object("object"))]);
        check(&mut engine, &[]);
        let index_bytes = Arc::clone(engine.state.index()).commit(&batch).unwrap();
        drop(batch);
        engine.state.committed(index_bytes).unwrap();
        check(&mut engine, &[]);
    }
}
