//! The log ring: where records go, what is still needed of it, and reading it back.
//!
//! A record lies in one piece. One that does not fit before the ring's end lies at its start; a reader
//! that finds no record where it expects one looks there too.

use crate::device::BlockingDevice;
use crate::error::StoreError;
use crate::format::record::{BODY_BYTES_MAX, HEADER_BYTES, Header};
use crate::format::superblock::Superblock;
use crate::limits::IO_BYTES_MAX;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// The ring.
#[derive(Debug)]
pub struct Log {
    store: [u8; 16],
    offset: u64,
    len: u64,
    unit: u64,
    /// Where the next record goes, if it fits.
    head: u64,
    used: u64,
    records: VecDeque<Record>,
}

/// A record that is still needed.
#[derive(Clone, Copy, Debug)]
struct Record {
    position: u64,
    last_seq: u64,
    /// With what was left unused before it.
    bytes: u64,
}

impl Log {
    /// The ring of a store, empty, going on at a position.
    pub fn new(superblock: &Superblock, head: u64) -> Self {
        Log {
            store: superblock.store,
            offset: superblock.log_offset,
            len: superblock.log_bytes,
            unit: u64::from(superblock.log_unit_bytes),
            head,
            used: 0,
            records: VecDeque::new(),
        }
    }

    /// Bytes of a record with such a body.
    pub fn record_bytes(&self, body: usize) -> u64 {
        ((HEADER_BYTES + body) as u64).next_multiple_of(self.unit)
    }

    /// Share of the ring in use: (used, all).
    pub fn usage(&self) -> (u64, u64) {
        (self.used, self.len)
    }

    /// Position in the ring and bytes consumed, for a record of so many bytes; `None` if there is no room.
    fn place(&self, bytes: u64) -> Option<(u64, u64)> {
        let (position, consumed) = if self.head + bytes <= self.len {
            (self.head, bytes)
        } else {
            (0, self.len - self.head + bytes)
        };
        (self.used + consumed <= self.len && bytes <= self.len).then_some((position, consumed))
    }

    /// Whether records of so many bytes together, none longer than `longest`, have room wherever they begin:
    /// at the ring's end less than the longest is left unused.
    pub fn has_room_for_all(&self, bytes: u64, longest: u64) -> bool {
        self.used + bytes + longest <= self.len
    }

    /// Takes the place of a record; returns its device offset. There must be room.
    pub fn append(&mut self, bytes: u64, last_seq: u64) -> Option<u64> {
        let (position, consumed) = self.place(bytes)?;
        self.records.push_back(Record { position, last_seq, bytes: consumed });
        self.used += consumed;
        self.head = (position + bytes) % self.len;
        Some(self.offset + position)
    }

    /// The header of a record.
    pub fn header(&self, seq: u64, count: u32, body: &[u8]) -> [u8; HEADER_BYTES] {
        let header = Header { seq, count, body_bytes: body.len() as u32, body_crc: crc32fast::hash(body) };
        header.encode(&self.store)
    }

    /// Where the record with the transaction after `seq` starts, or will start.
    pub fn position_after(&self, seq: u64) -> u64 {
        self.records.iter().find(|record| record.last_seq > seq).map_or(self.head, |record| record.position)
    }

    /// Everything up to `seq` is not needed any more.
    pub fn trim(&mut self, seq: u64) {
        while let Some(record) = self.records.front().filter(|record| record.last_seq <= seq) {
            self.used -= record.bytes;
            self.records.pop_front();
        }
    }

    /// Reads the next record that counts, which must hold transaction `next_seq`, and moves behind it.
    /// `exact`: it must start with it, too.
    pub fn read_next(
        &mut self,
        device: &dyn BlockingDevice,
        next_seq: u64,
        exact: bool,
    ) -> Result<Option<(Header, u64, Bytes)>, StoreError> {
        for position in [self.head, 0] {
            let Some((header, body)) = self.read_at(device, position)? else { continue };
            let holds = header.seq <= next_seq && next_seq < header.seq + u64::from(header.count);
            if !holds || (exact && header.seq != next_seq) {
                continue;
            }
            let bytes = self.record_bytes(body.len());
            let unused = if position == self.head { 0 } else { self.len - self.head };
            if self.used + unused + bytes > self.len {
                // A ring never holds more than its length: this one is old.
                continue;
            }
            self.used += unused + bytes;
            self.head = (position + bytes) % self.len;
            let last_seq = header.seq + u64::from(header.count) - 1;
            self.records.push_back(Record { position, last_seq, bytes: unused + bytes });
            return Ok(Some((header, self.offset + position, body)));
        }
        Ok(None)
    }

    /// Where a record starts whose transactions come after `next_seq`, when there is no record with that one.
    ///
    /// A record is written when the one before it is durable, and numbers only grow: such a record shows that
    /// one that was acknowledged is lost, and that this is not where the power went. (What a copy of a ring, as
    /// payload, says of itself is older than the record that brought it.) Looks as far as it can start.
    pub fn find_later(&self, device: &dyn BlockingDevice, next_seq: u64) -> Result<Option<u64>, StoreError> {
        let longest = self.record_bytes(BODY_BYTES_MAX.min(self.len as usize / 4));
        let ahead = (self.head + self.unit, self.len.min(self.head + longest + self.unit));
        // The lost one, or the one after it, may have begun the ring anew.
        let around = (0, if self.head + 2 * longest > self.len { longest + self.unit } else { 0 });
        let mut buf = vec![0; IO_BYTES_MAX];
        for (start, end) in [ahead, around] {
            let mut at = start;
            while at < end.min(self.len) {
                let count = (end.min(self.len) - at).min(buf.len() as u64);
                let piece = &mut buf[..count as usize];
                self.read_ring(device, at, piece)?;
                let found = piece.chunks_exact(self.unit as usize).position(|unit| {
                    Header::decode(unit, &self.store).is_some_and(|header| header.seq > next_seq)
                });
                if let Some(found) = found {
                    return Ok(Some(self.offset + at + found as u64 * self.unit));
                }
                at += count;
            }
        }
        Ok(None)
    }

    /// Where the next record is, or will be, on the device.
    pub fn head_offset(&self) -> u64 {
        self.offset + self.head
    }

    fn read_ring(&self, device: &dyn BlockingDevice, at: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let offset = self.offset + at;
        device.read_at(offset, out).map_err(|source| StoreError::Device {
            action: "read the log",
            offset,
            source: Arc::new(source),
        })
    }

    fn read_at(
        &self,
        device: &dyn BlockingDevice,
        position: u64,
    ) -> Result<Option<(Header, Bytes)>, StoreError> {
        if position + self.unit > self.len {
            return Ok(None);
        }
        let mut first = vec![0; self.unit as usize];
        self.read_ring(device, position, &mut first)?;
        let Some(header) = Header::decode(&first, &self.store) else { return Ok(None) };
        let body_bytes = header.body_bytes as usize;
        if position + self.record_bytes(body_bytes) > self.len {
            return Ok(None);
        }
        let mut body = vec![0; body_bytes];
        let have = body_bytes.min(first.len() - HEADER_BYTES);
        body[..have].copy_from_slice(&first[HEADER_BYTES..HEADER_BYTES + have]);
        if have < body_bytes {
            self.read_ring(device, position + self.unit, &mut body[have..])?;
        }
        Ok((crc32fast::hash(&body) == header.body_crc).then(|| (header, Bytes::from(body))))
    }
}
