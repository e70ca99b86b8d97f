//! The engine: puts transactions in order, makes them durable, puts their data in place, answers reads.
//!
//! One thread owns it, and it has no other: everything it does follows from calls and from completions of
//! its device, so the same engine runs in an OSD, in tests and in the simulator.
//!
//! Invariants, each with who keeps it:
//! - Transactions are sequenced in the order submitted; a record holds consecutive ones; one record is
//!   under way at a time (`commit`).
//! - Data that a record refers to is durable before the record is written (`commit`).
//! - A block is written over in place only when the record that says so is durable (`writeback`).
//! - A checkpoint's index is committed only when everything it speaks of is durable and in place, flushed
//!   (`checkpoint`); only then does the log let go of its records and the allocator of its freed blocks.
//! - A read never sees a transaction that is not durable (`read`).
//! - After an error of a write, a flush or the index nothing is written any more (`fail`).

mod checkpoint;
mod commit;
mod discard;
#[cfg(test)]
mod fixture;
pub(crate) mod log;
pub(crate) mod open;
mod query;
mod read;
pub mod runner;
mod writeback;

pub use open::{CreateOptions, OpenOptions};
pub use query::{Stat, Usage};
pub use read::{ReadData, ReadRequest};

use crate::alloc::Run;
use crate::canary::Canary;
use crate::device::{BufferPool, Completion, Device, Io, Wait, WriteBuf};
use crate::error::{ReadError, StoreError, SubmitError, TransactionError};
use crate::format::superblock::Superblock;
use crate::limits::{BLOCK_BYTES, CHECKPOINT_ENTRIES, QUEUE_BYTES_MAX, QUEUE_TRANSACTIONS_MAX};
use crate::state::State;
use crate::state::pending::Due;
use crate::txn::{Op, Transaction};
use bytes::Bytes;
use checkpoint::Checkpointing;
use commit::{Commit, Staged};
use discard::Discards;
use log::Log;
use read::Reads;
use runner::IndexRunner;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// Something the engine has to say.
#[derive(Debug)]
pub enum Event {
    /// A transaction is durable, or was refused.
    Committed {
        /// From [`Engine::submit`].
        token: u64,
        /// Nothing of a refused transaction happened.
        result: Result<(), TransactionError>,
    },
    /// A read is answered.
    Read {
        /// From [`Engine::read`].
        token: u64,
        /// What it found.
        result: Result<ReadData, ReadError>,
    },
}

/// What a queued device operation is for.
#[derive(Debug)]
enum Purpose {
    /// Data of a staged transaction.
    Direct {
        seq: u64,
        unit: u64,
    },
    /// The flush before a record that refers to fresh blocks.
    DataFlush,
    Record {
        offset: u64,
    },
    WriteBack(Vec<Due>),
    CheckpointFlush,
    Read {
        read: u64,
        piece: usize,
    },
    Discard(Run),
}

/// Counters since open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Transactions made durable.
    pub transactions: u64,
    /// Payload bytes of them.
    pub written_bytes: u64,
    /// Records of the log.
    pub records: u64,
    /// Bytes of them.
    pub log_bytes: u64,
    /// Bytes written to fresh blocks.
    pub direct_bytes: u64,
    /// Bytes put in place later.
    pub writeback_bytes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Flushes, besides durable writes of records.
    pub flushes: u64,
    /// Bytes answered to reads.
    pub read_bytes: u64,
}

/// The store of one OSD, open.
#[derive(Debug)]
pub struct Engine<D: Device> {
    device: D,
    superblock: Superblock,
    state: State,
    log: Log,
    pool: BufferPool,
    runner: Box<dyn IndexRunner>,
    /// Submitted, not sequenced yet.
    queue: VecDeque<(u64, Transaction)>,
    queue_bytes: usize,
    /// Sequenced, not in a record yet.
    staged: VecDeque<Staged>,
    /// Of the log, for what is staged.
    staged_bytes: u64,
    /// Data being written to fresh blocks.
    arriving_bytes: usize,
    commit: Commit,
    /// Last transaction sequenced.
    last_seq: u64,
    /// Last transaction that is durable.
    durable_seq: u64,
    /// Objects changed by transactions that are not durable yet.
    unstable: BTreeMap<Bytes, u64>,
    checkpointing: Checkpointing,
    /// The head of the queue waits for a checkpoint's space.
    starved: bool,
    writebacks: usize,
    discards: Discards,
    /// Background write-back goes on until little is left.
    is_writing_back: bool,
    /// No transaction has come since [`Self::rest`].
    is_resting: bool,
    reads: Reads,
    /// By the tags of the operations.
    purposes: Slab<Purpose>,
    /// Operations queued since open.
    queued_ios: u64,
    /// Operations that the device had no room for.
    backlog: VecDeque<(u64, Io)>,
    completions: Vec<Completion>,
    events: Vec<Event>,
    failure: Option<StoreError>,
    stops_at_refusal: bool,
    counters: Counters,
    canary: Option<Canary>,
}

impl<D: Device> Engine<D> {
    /// Takes a transaction in. Its [`Event::Committed`] comes from [`Self::poll`].
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much waits already.
    pub fn submit(&mut self, token: u64, transaction: Transaction) -> Result<(), SubmitError> {
        self.check()?;
        let bytes = payload_bytes(&transaction);
        let waiting = self.queue.len() + self.staged.len();
        if waiting >= QUEUE_TRANSACTIONS_MAX || (waiting > 0 && self.queue_bytes + bytes > QUEUE_BYTES_MAX) {
            return Err(SubmitError::Busy);
        }
        self.queue_bytes += bytes;
        self.queue.push_back((token, transaction));
        self.is_resting = false;
        Ok(())
    }

    /// Nobody has asked for anything for a while: puts in place what lies in the log, until the next transaction comes.
    pub fn rest(&mut self) {
        self.is_resting = true;
        if self.state.dirty_entries() > CHECKPOINT_ENTRIES / 8 {
            self.request_checkpoint();
        }
    }

    /// Whether [`Self::rest`] would find something to do.
    pub fn wants_rest(&self) -> bool {
        !self.is_resting && self.state.pending.bytes() > 0
    }

    /// Goes on with everything, then appends what is finished to `events`. With [`Wait::Event`] sleeps
    /// until there is something, or until the device's waker is used.
    ///
    /// # Errors
    /// When the store has stopped. What was under way then ends with the same error, in `events`.
    pub fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), StoreError> {
        self.work();
        if self.events.is_empty() && self.failure.is_none() {
            self.reap(if self.is_busy() { wait } else { Wait::No });
            self.work();
        }
        events.append(&mut self.events);
        self.check()
    }

    /// As [`Self::poll`], sleeping even when nothing is under way: for a thread that others wake.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn poll_or_sleep(&mut self, wait: Wait, events: &mut Vec<Event>) -> Result<(), StoreError> {
        self.work();
        if self.events.is_empty() && self.failure.is_none() {
            self.reap(wait);
            self.work();
        }
        events.append(&mut self.events);
        self.check()
    }

    /// Transactions and reads that are not finished.
    pub fn unfinished(&self) -> usize {
        self.queue.len() + self.staged.len() + self.commit.tokens() + self.reads.len()
    }

    /// Transactions that wait to be sequenced or to be put in a record.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.staged.len()
    }

    /// What was done since open.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Who and where this store is.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The device's waker.
    pub fn waker(&self) -> Arc<dyn crate::device::Waker> {
        self.device.waker()
    }

    /// Switches a deliberate bug on.
    #[cfg(any(test, feature = "canary"))]
    pub fn set_canary(&mut self, canary: Option<Canary>) {
        self.canary = canary;
    }

    pub(crate) fn has_canary(&self, canary: Canary) -> bool {
        cfg!(any(test, feature = "canary")) && self.canary == Some(canary)
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.failure {
            None => Ok(()),
            Some(cause) => Err(StoreError::Poisoned(Arc::new(cause.clone()))),
        }
    }

    /// Whether something is under way whose end the device or the index thread will tell.
    pub fn is_busy(&self) -> bool {
        self.device.in_flight() > 0 || self.checkpointing.is_committing()
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        loop {
            if self.failure.is_some() {
                return;
            }
            self.reap(Wait::No);
            if let Some(error) = self.state.index().panicked() {
                self.fail(error.clone());
                return;
            }
            let before = self.progress();
            self.sequence();
            self.step_commit();
            self.step_checkpoint();
            self.write_back();
            self.discard();
            self.step_reads();
            self.drain_backlog();
            if self.progress() == before {
                return;
            }
        }
    }

    /// Changes whenever something moved that may let something else move.
    fn progress(&self) -> (u64, u64, u64, usize, usize) {
        (
            self.queued_ios,
            self.durable_seq,
            self.last_seq,
            self.events.len() + self.queue.len(),
            self.checkpointing.step(),
        )
    }

    fn reap(&mut self, wait: Wait) {
        let mut completions = std::mem::take(&mut self.completions);
        if let Err(source) = self.device.poll(wait, &mut completions) {
            self.fail(StoreError::Device {
                action: "wait for the device",
                offset: 0,
                source: Arc::new(source),
            });
        }
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
    }

    fn complete(&mut self, Completion { tag, buf, result }: Completion) {
        let Some(purpose) = self.purposes.try_remove(tag as usize) else { return };
        match purpose {
            Purpose::Direct { seq, unit } => {
                if self.wrote("write data", unit * BLOCK_BYTES, result) {
                    self.data_arrived(seq, unit);
                }
            }
            Purpose::DataFlush => {
                if self.flushed(result) {
                    self.data_flushed();
                }
            }
            Purpose::Record { offset } => {
                if self.wrote("write the log", offset, result) {
                    self.recorded();
                }
            }
            Purpose::WriteBack(due) => {
                self.writebacks -= 1;
                if self.wrote("write data", due.first().map_or(0, |due| due.unit * BLOCK_BYTES), result) {
                    due.iter().for_each(|due| self.state.pending.written(due.unit, due.seq));
                }
            }
            Purpose::CheckpointFlush => {
                if self.flushed(result) {
                    self.checkpoint_flushed();
                }
            }
            Purpose::Read { read, piece } => self.piece_read(read, piece, buf, result),
            Purpose::Discard(run) => {
                if let Err(error) = result {
                    // The blocks are free all the same; the medium only keeps the space.
                    tracing::warn!(?run, %error, "the device could not discard freed blocks");
                }
                self.medium_discarded(run);
            }
        }
    }

    /// Whether a write went well; everything ends if not.
    fn wrote(&mut self, action: &'static str, offset: u64, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => self.failure.is_none(),
            Err(source) => {
                self.fail(StoreError::Device { action, offset, source: Arc::new(source) });
                false
            }
        }
    }

    /// Whether a flush went well; everything ends if not.
    fn flushed(&mut self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => self.failure.is_none(),
            Err(source) => {
                self.fail(StoreError::Flush(Arc::new(source)));
                false
            }
        }
    }

    /// Stops for good: what is on the device now is all there will be.
    fn fail(&mut self, cause: StoreError) {
        if self.failure.is_some() {
            return;
        }
        tracing::error!(%cause, "the store stops");
        self.failure = Some(cause.clone());
        let poisoned = StoreError::Poisoned(Arc::new(cause));
        let queued = self.queue.drain(..).map(|(token, _)| token);
        let staged = self.staged.drain(..).map(|staged| staged.token);
        let mut tokens: Vec<u64> = self.commit.take_tokens();
        tokens.extend(staged);
        tokens.extend(queued);
        for token in tokens {
            self.events
                .push(Event::Committed { token, result: Err(TransactionError::Store(poisoned.clone())) });
        }
        for token in self.reads.take_tokens() {
            self.events.push(Event::Read { token, result: Err(ReadError::Store(poisoned.clone())) });
        }
        self.queue_bytes = 0;
        self.discards = Discards::default();
        self.backlog.clear();
    }

    fn queue_io(&mut self, purpose: Purpose, io: Io) {
        self.queued_ios += 1;
        let tag = self.purposes.insert(purpose) as u64;
        if self.backlog.is_empty() && self.device.room() > 0 {
            self.device.submit(tag, io);
        } else {
            self.backlog.push_back((tag, io));
        }
    }

    fn drain_backlog(&mut self) {
        while self.device.room() > 0 {
            let Some((tag, io)) = self.backlog.pop_front() else { return };
            self.device.submit(tag, io);
        }
    }

    /// Whole blocks for a write: as they are where they lie well enough for the device, else copied.
    fn write_buf(&self, data: &Bytes) -> WriteBuf {
        let align = self.device.geometry().memory_align_bytes as usize;
        if data.as_ptr().addr().is_multiple_of(align) {
            return WriteBuf::Shared(data.clone());
        }
        let mut buf = self.pool.get(data.len());
        buf.copy_from_slice(data);
        buf.into()
    }
}

/// Bytes that a transaction carries.
pub(crate) fn payload_bytes(transaction: &Transaction) -> usize {
    let bytes = |op: &Op| match op {
        Op::Write { data, .. } => data.len(),
        Op::SetXattrs(_, _, xattrs) => xattrs.iter().map(|(name, value)| name.len() + value.len()).sum(),
        Op::OmapSet(_, _, entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        Op::OmapSetHeader(_, _, header) => header.len(),
        _ => 0,
    };
    transaction.ops.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixture::PG;
    use std::ops::Bound;

    #[test]
    fn a_panic_of_the_index_stops_the_store() {
        let (mut engine, _) = fixture::store(16 << 20);
        fixture::commit(&mut engine, vec![Op::Touch(PG, fixture::object("object"))]);
        fixture::checkpoint(&mut engine);
        let snapshot = engine.state.index().snapshot().unwrap();
        snapshot.each_head(Bound::Unbounded, |_| panic!("a page of no kind")).unwrap_err();
        engine.submit(2, Transaction { ops: vec![Op::RemoveCollection(PG)] }).unwrap();
        let mut events = Vec::new();
        let error = engine.poll(Wait::Event, &mut events).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned(_)) && error.to_string().contains("no kind"), "{error}");
        assert!(matches!(&events[..], [Event::Committed { token: 2, result: Err(_) }]), "{events:?}");
    }
}
