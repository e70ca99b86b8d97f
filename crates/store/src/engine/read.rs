//! Reads.

use super::{Engine, Event, Purpose};
use crate::canary::Canary;
use crate::device::{AlignedBuf, Device, Io};
use crate::error::{ReadError, SubmitError};
use crate::format::values::Slot;
use crate::key::object_key;
use crate::limits::{BLOCK_BYTES, READ_BYTES_MAX};
use crate::state::shard_of;
use bytes::{Bytes, BytesMut};
use cairn_types::{ObjectId, PgId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Reads whose blocks are written over meanwhile are tried again, so often; then the engine waits for the
/// device, and nothing can change.
const TRIES_MAX: u32 = 8;

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Collection.
    pub pg: PgId,
    /// Object.
    pub object: ObjectId,
    /// First byte.
    pub offset: u64,
    /// How many; what lies beyond the object's end is left out.
    pub len: u64,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadData {
    /// The bytes; fewer than asked for at the object's end.
    pub data: Bytes,
    /// CRC-32 of each block of 4 KiB, holes too, as stored when it was written: when offset is a multiple
    /// of 4 KiB, one for each block that begins in `data`; else empty. The last may cover zeros behind the
    /// object's end.
    pub checksums: Vec<u32>,
}

/// Reads that are not answered.
#[derive(Debug, Default)]
pub struct Reads {
    active: BTreeMap<u64, Box<Active>>,
    /// Wait for a transaction to be durable.
    waiting: Vec<u64>,
    next: u64,
}

#[derive(Debug)]
struct Active {
    token: u64,
    request: ReadRequest,
    key: Bytes,
    nid: u64,
    /// First block, and the byte range within what the pieces make up.
    first_block: u64,
    skip: usize,
    len: usize,
    pieces: Vec<Piece>,
    outstanding: usize,
    tries: u32,
    /// Each block by itself, after the device refused neighbours: the error is to name the one it is about.
    is_single: bool,
    error: Option<ReadError>,
}

#[derive(Debug)]
enum Piece {
    Hole { blocks: usize },
    Memory { data: Bytes, crc: u32 },
    Device { slots: Vec<Slot>, buf: Option<AlignedBuf> },
}

impl Piece {
    /// The device refused it.
    fn is_unread(&self) -> bool {
        matches!(self, Piece::Device { buf: None, .. })
    }

    fn blocks(&self) -> usize {
        match self {
            Piece::Hole { blocks } => *blocks,
            Piece::Memory { .. } => 1,
            Piece::Device { slots, .. } => slots.len(),
        }
    }
}

impl Reads {
    pub fn len(&self) -> usize {
        self.active.len()
    }

    pub fn take_tokens(&mut self) -> Vec<u64> {
        self.waiting.clear();
        std::mem::take(&mut self.active).into_values().map(|active| active.token).collect()
    }
}

impl<D: Device> Engine<D> {
    /// Starts a read. Its [`Event::Read`] comes from [`Engine::poll`].
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too many are under way.
    pub fn read(&mut self, token: u64, request: ReadRequest) -> Result<(), SubmitError> {
        self.check()?;
        if self.reads.len() >= crate::limits::QUEUE_TRANSACTIONS_MAX {
            return Err(SubmitError::Busy);
        }
        let key = object_key(request.pg, &request.object);
        let id = self.reads.next;
        self.reads.next += 1;
        let active = Box::new(Active {
            token,
            request,
            key,
            nid: 0,
            first_block: 0,
            skip: 0,
            len: 0,
            pieces: Vec::new(),
            outstanding: 0,
            tries: 0,
            is_single: false,
            error: None,
        });
        self.reads.active.insert(id, active);
        self.start_read(id);
        Ok(())
    }

    /// Goes on with reads that waited.
    pub(super) fn step_reads(&mut self) {
        if self.reads.waiting.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.reads.waiting) {
            self.start_read(id);
        }
    }

    fn start_read(&mut self, id: u64) {
        let Some(mut active) = self.reads.active.remove(&id) else { return };
        if self.unstable.contains_key(&active.key) {
            self.reads.active.insert(id, active);
            self.reads.waiting.push(id);
            return;
        }
        match self.resolve(&mut active) {
            Err(error) => self.events.push(Event::Read { token: active.token, result: Err(error) }),
            Ok(()) => {
                for (piece, content) in active.pieces.iter().enumerate() {
                    if let Piece::Device { slots, .. } = content {
                        active.outstanding += 1;
                        let buf = self.pool.get(slots.len() * BLOCK);
                        let offset = slots[0].unit * BLOCK_BYTES;
                        self.queue_io(Purpose::Read { read: id, piece }, Io::Read { offset, buf });
                    }
                }
                if active.outstanding == 0 {
                    self.finish_read(active);
                } else {
                    self.reads.active.insert(id, active);
                }
            }
        }
    }

    /// Where everything asked for is.
    fn resolve(&mut self, active: &mut Active) -> Result<(), ReadError> {
        let ReadRequest { pg, ref object, offset, len } = active.request;
        let Some(head) = self.state.head(&active.key)? else {
            return Err(ReadError::NoObject { pg, object: Box::new(object.clone()) });
        };
        let end = offset.saturating_add(len).min(head.size).max(offset);
        active.nid = head.nid;
        active.first_block = offset / BLOCK_BYTES;
        active.skip = (offset % BLOCK_BYTES) as usize;
        active.len = (end - offset) as usize;
        active.pieces.clear();
        let most = if active.is_single { 1 } else { READ_BYTES_MAX / BLOCK };
        if active.len == 0 {
            return Ok(());
        }
        let mut loaded = None;
        for block in active.first_block..end.div_ceil(BLOCK_BYTES) {
            let (number, place) = shard_of(block);
            if loaded.as_ref().is_none_or(|(have, _)| *have != number) {
                loaded = Some((number, self.state.shard(head.nid, number)?));
            }
            let shard = loaded.as_ref().and_then(|(_, shard)| shard.as_ref());
            let slot = shard.map_or(Slot::HOLE, |shard| shard.slots[place]);
            if slot.is_hole() {
                match active.pieces.last_mut() {
                    Some(Piece::Hole { blocks }) => *blocks += 1,
                    _ => active.pieces.push(Piece::Hole { blocks: 1 }),
                }
            } else if let Some(data) = self.state.pending.get(slot.unit) {
                active.pieces.push(Piece::Memory { data: data.clone(), crc: slot.crc });
            } else if active.tries >= TRIES_MAX {
                let what = || (object.to_string().into(), block * BLOCK_BYTES);
                let data = self.state.read_block(slot, what)?;
                active.pieces.push(Piece::Memory { data, crc: slot.crc });
            } else {
                match active.pieces.last_mut() {
                    Some(Piece::Device { slots, .. })
                        if slots.len() < most
                            && slots.last().is_some_and(|last| last.unit + 1 == slot.unit) =>
                    {
                        slots.push(slot);
                    }
                    _ => active.pieces.push(Piece::Device { slots: vec![slot], buf: None }),
                }
            }
        }
        Ok(())
    }

    pub(super) fn piece_read(
        &mut self,
        id: u64,
        piece: usize,
        read: Option<AlignedBuf>,
        result: io::Result<()>,
    ) {
        let Some(mut active) = self.reads.active.remove(&id) else { return };
        active.outstanding -= 1;
        let before: usize = active.pieces[..piece].iter().map(Piece::blocks).sum();
        if let Piece::Device { slots, buf } = &mut active.pieces[piece] {
            match result {
                Ok(()) => *buf = read,
                Err(_) if slots.len() > 1 => active.is_single = true,
                Err(source) => {
                    let offset = (active.first_block + before as u64) * BLOCK_BYTES;
                    // The first of them, whatever the order of completion.
                    let is_first = match &active.error {
                        Some(ReadError::Device { offset: other, .. }) => offset < *other,
                        _ => true,
                    };
                    if is_first {
                        active.error = Some(ReadError::Device {
                            object: active.request.object.to_string().into(),
                            offset,
                            device_offset: slots[0].unit * BLOCK_BYTES,
                            source: Arc::new(source),
                        });
                    }
                }
            }
        }
        if active.outstanding > 0 {
            self.reads.active.insert(id, active);
            return;
        }
        if active.is_single && active.pieces.iter().any(|piece| piece.blocks() > 1 && piece.is_unread()) {
            active.error = None;
            self.reads.active.insert(id, active);
            self.start_read(id);
            return;
        }
        if active.error.is_none()
            && !self.has_canary(Canary::NoChecksum)
            && let Some((block, slot, found)) = first_damaged(&active)
        {
            active.tries += 1;
            let is_still_there = self.state.slot(active.nid, block).is_ok_and(|now| now == slot)
                && self.state.pending.get(slot.unit).is_none();
            if !is_still_there {
                // It was overwritten or moved meanwhile.
                self.reads.active.insert(id, active);
                self.start_read(id);
                return;
            }
            active.error = Some(ReadError::Corrupt {
                object: active.request.object.to_string().into(),
                offset: block * BLOCK_BYTES,
                device_offset: slot.unit * BLOCK_BYTES,
                expected: slot.crc,
                found,
            });
        }
        self.finish_read(active);
    }

    fn finish_read(&mut self, mut active: Box<Active>) {
        let result = match active.error.take() {
            Some(error) => Err(error),
            None => Ok(assemble(active.pieces, active.skip, active.len)),
        };
        if let Ok(read) = &result {
            self.counters.read_bytes += read.data.len() as u64;
        }
        self.events.push(Event::Read { token: active.token, result });
    }
}

/// The first block whose content is not what its slot says: (block, slot, checksum found).
fn first_damaged(active: &Active) -> Option<(u64, Slot, u32)> {
    let mut block = active.first_block;
    for piece in &active.pieces {
        if let Piece::Device { slots, buf: Some(buf) } = piece {
            for (at, (slot, content)) in slots.iter().zip(buf.chunks_exact(BLOCK)).enumerate() {
                let found = crc32fast::hash(content);
                if found != slot.crc {
                    return Some((block + at as u64, *slot, found));
                }
            }
        }
        block += piece.blocks() as u64;
    }
    None
}

fn assemble(pieces: Vec<Piece>, skip: usize, len: usize) -> ReadData {
    let mut checksums = Vec::new();
    if skip == 0 {
        for piece in &pieces {
            match piece {
                Piece::Hole { blocks } => checksums.extend(std::iter::repeat_n(crc_of_zeros(), *blocks)),
                Piece::Memory { crc, .. } => checksums.push(*crc),
                Piece::Device { slots, .. } => checksums.extend(slots.iter().map(|slot| slot.crc)),
            }
        }
    }
    let mut contents = pieces.into_iter().map(|piece| match piece {
        Piece::Hole { blocks } => Bytes::from(vec![0; blocks * BLOCK]),
        Piece::Memory { data, .. } => data,
        Piece::Device { buf, .. } => buf.map_or_else(Bytes::new, Bytes::from_owner),
    });
    let data = match (contents.next(), contents.next()) {
        (None, _) => Bytes::new(),
        // The common case: one piece, not copied.
        (Some(only), None) => only,
        (Some(first), Some(second)) => {
            let mut all = BytesMut::with_capacity(skip + len + BLOCK);
            all.extend_from_slice(&first);
            all.extend_from_slice(&second);
            contents.for_each(|content| all.extend_from_slice(&content));
            all.freeze()
        }
    };
    let data = data.slice(skip.min(data.len())..(skip + len).min(data.len()));
    ReadData { data, checksums }
}

fn crc_of_zeros() -> u32 {
    // Of 4096 zero bytes; a test holds it to that.
    0xc71c_0011
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transaction;
    use crate::device::Wait;
    use crate::device::sim::{Fault, FaultRule, OpKind, SimDevice};
    use crate::engine::fixture::{PG, checkpoint, commit, object, store, write};

    #[test]
    fn the_checksum_of_a_hole_is_that_of_zeros() {
        assert_eq!(crc_of_zeros(), crc32fast::hash(&[0; BLOCK]));
    }

    /// What reading the second block of an object gives after a bit of it has changed on the medium, and
    /// where that is.
    fn read_rotten(canary: Option<Canary>) -> (Result<ReadData, ReadError>, u64) {
        let (mut engine, medium) = store(16 << 20);
        let object = object("object");
        commit(&mut engine, vec![write("object", 0, vec![7; 2 * BLOCK])]);
        checkpoint(&mut engine);
        let nid = engine.state.head(&object_key(PG, &object)).unwrap().unwrap().nid;
        let device_offset = engine.state.slot(nid, 1).unwrap().unit * BLOCK_BYTES;
        medium.rot(device_offset + 100, 3);
        engine.set_canary(canary);
        let mut events = Vec::new();
        engine.read(2, ReadRequest { pg: PG, object, offset: 0, len: 2 * BLOCK_BYTES }).unwrap();
        while engine.unfinished() > 0 {
            engine.poll(Wait::Event, &mut events).unwrap();
        }
        match events.pop() {
            Some(Event::Read { token: 2, result }) => (result, device_offset),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_changed_bit_is_an_error_that_says_where() {
        let (result, position) = read_rotten(None);
        match result {
            Err(ReadError::Corrupt { object, offset, device_offset, .. }) => {
                assert!(object.contains("object"), "{object}");
                assert_eq!((offset, device_offset), (BLOCK_BYTES, position));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_verification_a_changed_bit_would_be_returned() {
        let (result, _) = read_rotten(Some(Canary::NoChecksum));
        assert_eq!(result.unwrap().data[BLOCK + 100], 7 ^ 1 << 3);
    }

    #[test]
    fn a_block_that_is_written_over_all_the_time_is_read_all_the_same() {
        let (mut engine, medium) = store(16 << 20);
        let (mut events, mut writes) = (Vec::new(), 0_u8);
        let mut put_in_place = |engine: &mut Engine<SimDevice>, events: &mut Vec<Event>| {
            writes += 1;
            let ops = vec![write("object", 0, vec![writes; BLOCK])];
            engine.submit(1, Transaction { ops }).unwrap();
            engine.request_checkpoint();
            while engine.is_checkpointing() {
                engine.poll(Wait::Event, events).unwrap();
            }
        };
        put_in_place(&mut engine, &mut events);
        // Each read of the device ends only after the block is in place with another content.
        medium.inject(FaultRule::every(OpKind::Read, Fault::Slow(20)));
        let request = ReadRequest { pg: PG, object: object("object"), offset: 0, len: BLOCK_BYTES };
        engine.read(2, request).unwrap();
        let mut rounds = 0;
        let read = loop {
            put_in_place(&mut engine, &mut events);
            rounds += 1;
            assert!(rounds < 200, "no answer");
            let found = events.drain(..).find_map(|event| match event {
                Event::Read { result, .. } => Some(result),
                Event::Committed { result, .. } => result.err().map(|error| panic!("{error}")),
            });
            if let Some(result) = found {
                break result.unwrap();
            }
        };
        assert!(rounds > TRIES_MAX, "{rounds} rounds did not disturb it often enough");
        assert!(read.data.iter().all(|byte| *byte == read.data[0]));
        assert_eq!(read.checksums, [crc32fast::hash(&read.data)]);
    }
}
