//! Sequencing and group commit.

use super::{Engine, Event, Purpose, payload_bytes};
use crate::canary::Canary;
use crate::device::{AlignedBuf, Device, Io};
use crate::error::{StoreError, TransactionError};
use crate::format::codec::Put;
use crate::format::record::HEADER_BYTES;
use crate::limits::{BLOCK_BYTES, DIRTY_BYTES_START, IO_BYTES_MAX, RECORD_BYTES_MAX};
use crate::state::{Misfit, PlanError};
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

/// Payload not in place yet, above which nothing more is sequenced: bounds memory.
const DIRTY_BYTES_MAX: usize = 3 * DIRTY_BYTES_START;

/// Data on its way to fresh blocks, above which nothing more is sequenced.
const ARRIVING_BYTES_MAX: usize = 64 << 20;

/// A transaction that is sequenced.
#[derive(Debug)]
pub struct Staged {
    pub token: u64,
    seq: u64,
    /// Its mutations, encoded.
    body: Vec<u8>,
    /// Of the log, if it gets a record of its own.
    record_bytes: u64,
    payload_bytes: usize,
    /// Writes to fresh blocks not finished.
    arriving: usize,
    /// Has such data, which no flush has covered yet.
    unflushed: bool,
    keys: SmallVec<[Bytes; 2]>,
}

/// Transactions that one record makes durable.
#[derive(Debug, Default)]
pub struct Group {
    tokens: Vec<u64>,
    keys: Vec<Bytes>,
    last_seq: u64,
    payload_bytes: usize,
}

/// What the log is doing.
#[derive(Debug, Default)]
pub enum Commit {
    #[default]
    Idle,
    /// Makes the data of the first staged transactions durable, up to this one.
    FlushingData { last_seq: u64 },
    /// Writes a record.
    Recording(Group),
}

impl Commit {
    pub fn tokens(&self) -> usize {
        if let Commit::Recording(group) = self { group.tokens.len() } else { 0 }
    }

    pub fn take_tokens(&mut self) -> Vec<u64> {
        match std::mem::take(self) {
            Commit::Recording(group) => group.tokens,
            _ => Vec::new(),
        }
    }
}

impl<D: Device> Engine<D> {
    /// Longest body of one transaction: a quarter of the ring, so that a checkpoint can always make room.
    fn body_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min(self.log.usage().1 as usize / 4 - HEADER_BYTES)
    }

    /// Sequences as many queued transactions as may be.
    pub(super) fn sequence(&mut self) {
        while !self.starved && self.failure.is_none() {
            let is_full = self.staged_bytes >= 2 * RECORD_BYTES_MAX as u64
                || self.arriving_bytes >= ARRIVING_BYTES_MAX
                || self.state.pending.bytes() >= DIRTY_BYTES_MAX;
            if is_full || self.queue.is_empty() {
                return;
            }
            let Some((token, transaction)) = self.queue.front() else { return };
            let token = *token;
            let result = self.state.plan(transaction, self.body_bytes_max());
            let payload_bytes = payload_bytes(transaction);
            let plan = match result {
                Ok(plan) => plan,
                Err(PlanError::AfterCheckpoint) => {
                    if self.hurry_discards() {
                        continue;
                    }
                    self.starved = true;
                    return;
                }
                Err(PlanError::Refused(error)) => {
                    let cause = StoreError::Refused(Arc::new(error.clone()));
                    self.refuse(token, payload_bytes, error);
                    if self.stops_at_refusal {
                        return self.fail(cause);
                    }
                    continue;
                }
            };
            // Whatever is staged can be recorded without waiting for a checkpoint, for a checkpoint waits
            // for it.
            let body_bytes = plan.record_bytes();
            let record_bytes = self.log.record_bytes(body_bytes);
            let longest = self.log.record_bytes(self.body_bytes_max());
            if !self.log.has_room_for_all(self.staged_bytes + record_bytes, longest) {
                self.state.abandon(plan);
                return;
            }
            self.queue.pop_front();
            let seq = self.last_seq + 1;
            let mut body = Vec::with_capacity(body_bytes);
            body.put_u32(0);
            for mutation in &plan.mutations {
                mutation.encode(&mut body);
                if let Err(misfit) = self.state.apply(mutation, seq) {
                    // The plan was made against this very state.
                    let cause = match misfit {
                        Misfit::Store(error) => error,
                        Misfit::Contradiction(why) => {
                            StoreError::Damaged(crate::error::Damage::Record { seq, offset: 0, why })
                        }
                    };
                    self.queue.push_front((token, crate::Transaction::default()));
                    self.fail(cause);
                    return;
                }
            }
            let len = (body.len() - 4) as u32;
            body[..4].copy_from_slice(&len.to_le_bytes());
            self.last_seq = seq;
            for key in &plan.keys {
                self.unstable.insert(key.clone(), seq);
            }
            if self.has_canary(Canary::EarlyReuse) {
                self.state.release_freed();
            }
            let mut arriving = 0;
            for (unit, data) in plan.direct {
                self.counters.direct_bytes += data.len() as u64;
                for (at, piece) in (0..data.len()).step_by(IO_BYTES_MAX).enumerate() {
                    let piece = data.slice(piece..data.len().min(piece + IO_BYTES_MAX));
                    let unit = unit + (at * IO_BYTES_MAX) as u64 / BLOCK_BYTES;
                    let buf = self.write_buf(&piece);
                    self.arriving_bytes += piece.len();
                    self.state.arriving.insert(unit, piece);
                    self.queue_io(
                        Purpose::Direct { seq, unit },
                        Io::Write { offset: unit * BLOCK_BYTES, buf, durable: false },
                    );
                    arriving += 1;
                }
            }
            let unflushed = arriving > 0;
            let record_bytes = self.log.record_bytes(body.len());
            self.staged_bytes += record_bytes;
            let keys = plan.keys;
            self.staged.push_back(Staged {
                token,
                seq,
                body,
                record_bytes,
                payload_bytes,
                arriving,
                unflushed,
                keys,
            });
        }
    }

    fn refuse(&mut self, token: u64, payload_bytes: usize, error: TransactionError) {
        self.queue.pop_front();
        self.queue_bytes -= payload_bytes;
        self.events.push(Event::Committed { token, result: Err(error) });
    }

    pub(super) fn data_arrived(&mut self, seq: u64, unit: u64) {
        if let Some(data) = self.state.arriving.remove(&unit) {
            self.arriving_bytes -= data.len();
        }
        if let Some(staged) = self.staged.iter_mut().find(|staged| staged.seq == seq) {
            staged.arriving -= 1;
        }
    }

    /// Starts the next flush or record, if none is under way.
    pub(super) fn step_commit(&mut self) {
        if !matches!(self.commit, Commit::Idle) || self.failure.is_some() {
            return;
        }
        let early = self.has_canary(Canary::RecordBeforeData);
        let mut count = 0;
        let mut bytes = 0;
        let mut unflushed = None;
        for staged in &self.staged {
            let is_over =
                count > 0 && bytes + staged.body.len() > RECORD_BYTES_MAX.min(self.body_bytes_max());
            if is_over || (staged.arriving > 0 && !early) {
                break;
            }
            if staged.unflushed {
                unflushed = Some(staged.seq);
            }
            bytes += staged.body.len();
            count += 1;
        }
        if count == 0 {
            return;
        }
        if let Some(last_seq) = unflushed.filter(|_| !early && !self.has_canary(Canary::FlushLeftOut)) {
            self.commit = Commit::FlushingData { last_seq };
            self.counters.flushes += 1;
            self.queue_io(Purpose::DataFlush, Io::Flush);
            return;
        }
        self.record(count, bytes);
    }

    pub(super) fn data_flushed(&mut self) {
        if let Commit::FlushingData { last_seq } = self.commit {
            self.commit = Commit::Idle;
            self.staged.iter_mut().take_while(|s| s.seq <= last_seq).for_each(|s| s.unflushed = false);
        }
    }

    /// Writes the first staged transactions as one record.
    fn record(&mut self, count: usize, body_bytes: usize) {
        let record_bytes = self.log.record_bytes(body_bytes);
        let mut group = Group::default();
        let mut buf: AlignedBuf = self.pool.get(record_bytes as usize);
        buf.set_len(record_bytes as usize);
        let mut at = HEADER_BYTES;
        let mut first_seq = 0;
        for staged in self.staged.drain(..count) {
            buf[at..at + staged.body.len()].copy_from_slice(&staged.body);
            at += staged.body.len();
            first_seq = if first_seq == 0 { staged.seq } else { first_seq };
            group.last_seq = staged.seq;
            self.staged_bytes -= staged.record_bytes;
            group.tokens.push(staged.token);
            group.payload_bytes += staged.payload_bytes;
            group.keys.extend(staged.keys);
        }
        buf[at..].fill(0);
        let header = self.log.header(first_seq, count as u32, &buf[HEADER_BYTES..at]);
        buf[..HEADER_BYTES].copy_from_slice(&header);
        let offset =
            self.log.append(record_bytes, group.last_seq).expect("room was made sure of when sequencing");
        self.counters.records += 1;
        self.counters.log_bytes += record_bytes;
        // What is put in place meanwhile can wait.
        let alone = self.queue.is_empty()
            && self.staged.is_empty()
            && self.reads.len() == 0
            && self.backlog.is_empty();
        self.commit = Commit::Recording(group);
        if self.has_canary(Canary::EarlyAcknowledgement) {
            self.recorded();
        }
        let durable = !self.has_canary(Canary::RecordNotDurable);
        if alone && durable {
            // Nobody else waits for the device: the shortest path is to wait here.
            match self.device.write_durable_now(offset, &buf) {
                Ok(()) => self.recorded(),
                Err(source) => {
                    self.fail(StoreError::Device {
                        action: "write the log",
                        offset,
                        source: Arc::new(source),
                    });
                }
            }
        } else {
            self.queue_io(Purpose::Record { offset }, Io::Write { offset, buf: buf.into(), durable });
        }
    }

    /// The record under way is durable.
    pub(super) fn recorded(&mut self) {
        let Commit::Recording(group) = std::mem::take(&mut self.commit) else { return };
        self.durable_seq = group.last_seq;
        self.queue_bytes -= group.payload_bytes;
        self.counters.transactions += group.tokens.len() as u64;
        self.counters.written_bytes += group.payload_bytes as u64;
        for key in group.keys {
            if self.unstable.get(&key).is_some_and(|seq| *seq <= group.last_seq) {
                self.unstable.remove(&key);
            }
        }
        self.events.extend(group.tokens.into_iter().map(|token| Event::Committed { token, result: Ok(()) }));
    }
}
