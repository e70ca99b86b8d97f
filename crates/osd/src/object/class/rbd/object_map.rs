//! An image's object map: which of its data objects are there. Bytes of the object `rbd_object_map.ID`:
//!
//! `u32` 14 · header section {`u64` objects} · two bits for each object, the first in the top bits · `u32` length of
//! the footer · footer: CRC-32C of the header section, `u32` count, CRC-32C of each 4 KiB of the bits. The CRCs start
//! from 0 and are not inverted at the end. A map that travels may have an empty footer.

use super::{Answer, Bytes, Call, ErrorCode, Stop, fail, nothing};
use crate::object::work::FBIG;
use cairn_wire::Segment;
use cairn_wire::ceph::{Malformed, Reader, Writer};
use cairn_wire::op::{CALL_LEN_MAX, OBJECT_LEN_MAX};

/// Section of version, compatible version, length and the number of objects.
const HEADER_LEN: usize = 14;
/// With its length in front.
const BITS_AT: usize = 4 + HEADER_LEN;
const BLOCK_LEN: usize = 4096;
/// Objects are there, there without changes since the last snapshot.
const EXISTS: u8 = 1;
const EXISTS_CLEAN: u8 = 3;
/// Ceph's bound: 1 PiB of objects of 4 MiB. That its map is not longer than an object may be is checked apart.
const OBJECTS_MAX: u64 = 256_000_000;
/// Maps at most this long are read whole, in one go.
const WHOLE_LEN_MAX: u64 = 128 << 10;

/// CRC-32C from 0, not inverted.
fn crc(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(u32::MAX, bytes)
}

fn bits_len(objects: u64) -> usize {
    objects.div_ceil(4) as usize
}

/// A map in memory.
struct Map {
    objects: u64,
    bits: Vec<u8>,
}

fn header(objects: u64) -> Bytes {
    let mut out = Writer::with_capacity(HEADER_LEN);
    out.section(1, 1, |out| _ = out.u64(objects));
    out.finish()
}

fn decode_header(from: &mut Reader<'_>) -> Result<(u64, u32), Malformed> {
    let bytes = from.bytes()?;
    let (_, mut content) = Reader::new(bytes).section(1)?;
    let objects = content.u64()?;
    if objects > OBJECTS_MAX { Err(Malformed) } else { Ok((objects, crc(bytes))) }
}

impl Map {
    fn get(&self, object: u64) -> u8 {
        get(&self.bits, object)
    }

    fn decode(from: &mut Reader<'_>) -> Result<Map, Malformed> {
        let (objects, header_crc) = decode_header(from)?;
        let bits = from.take(bits_len(objects))?;
        let mut footer = Reader::new(from.bytes()?);
        if !footer.is_empty() {
            if footer.u32()? != header_crc || footer.u32()? as usize != bits.len().div_ceil(BLOCK_LEN) {
                return Err(Malformed);
            }
            for block in bits.chunks(BLOCK_LEN) {
                if footer.u32()? != crc(block) {
                    return Err(Malformed);
                }
            }
        }
        Ok(Map { objects, bits: bits.to_vec() })
    }

    fn encode(&self, with_footer: bool) -> Bytes {
        let header = header(self.objects);
        let mut out = Writer::with_capacity(BITS_AT + self.bits.len() + 64);
        out.bytes(&header).put(&self.bits);
        let blocks = self.bits.chunks(BLOCK_LEN);
        if !with_footer {
            out.u32(0);
            return out.finish();
        }
        out.u32(8 + 4 * blocks.len() as u32).u32(crc(&header)).u32(blocks.len() as u32);
        for block in blocks {
            out.u32(crc(block));
        }
        out.finish()
    }
}

fn shift(object: u64) -> u32 {
    6 - 2 * (object % 4) as u32
}

fn get(bits: &[u8], object: u64) -> u8 {
    bits[(object / 4) as usize] >> shift(object) & 3
}

fn set(bits: &mut [u8], object: u64, state: u8) {
    let byte = &mut bits[(object / 4) as usize];
    *byte = *byte & !(3 << shift(object)) | (state & 3) << shift(object);
}

fn segment(offset: u64, bytes: Bytes) -> Result<Segment, Stop> {
    Segment::new(offset, bytes).map_err(|_| Stop::Fail(FBIG))
}

impl Call<'_, '_> {
    fn read_map(&mut self) -> Result<Map, Stop> {
        self.work.need()?;
        let size = self.work.state.size;
        if size == 0 {
            return fail(ErrorCode::NOENT);
        }
        let bytes = self.work.read(0, size)?;
        Map::decode(&mut Reader::new(&bytes)).map_err(|Malformed| Stop::Fail(ErrorCode::IO))
    }

    fn write_map(&mut self, map: &Map) -> Answer {
        let bytes = map.encode(true);
        if bytes.len() as u64 > OBJECT_LEN_MAX {
            return fail(FBIG);
        }
        self.work.write_full(Some(segment(0, bytes)?))?;
        nothing()
    }
}

pub fn load(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let bytes = call.read_map()?.encode(false);
    if bytes.len() > CALL_LEN_MAX { fail(ErrorCode::OVERFLOW) } else { Ok(bytes) }
}

pub fn save(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let map = Map::decode(&mut Reader::new(input))?;
    call.write_map(&map)
}

/// ESTALE if an object that is cut off is not in the state given.
pub fn resize(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (objects, state) = (from.u64()?, from.u8()?);
    if objects > OBJECTS_MAX || state > 3 {
        return fail(ErrorCode::INVAL);
    }
    let mut map = match call.read_map() {
        Err(Stop::Fail(ErrorCode::NOENT)) => Map { objects: 0, bits: Vec::new() },
        read => read?,
    };
    if (objects..map.objects).any(|object| map.get(object) != state) {
        return fail(ErrorCode::STALE);
    }
    map.bits.resize(bits_len(objects), 0);
    for object in map.objects..objects {
        set(&mut map.bits, object, state);
    }
    // Bits behind the last object stay 0.
    for object in objects..objects.next_multiple_of(4) {
        set(&mut map.bits, object, 0);
    }
    map.objects = objects;
    call.write_map(&map)
}

/// Sets the state of objects, or of those that have a given one. Reads and writes no more than the blocks it touches.
pub fn update(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (first, end, state) = (from.u64()?, from.u64()?, from.u8()?);
    let current = if from.u8()? != 0 { Some(from.u8()?) } else { None };
    call.work.need()?;
    if call.work.state.size <= WHOLE_LEN_MAX {
        call.work.read(0, call.work.state.size)?;
    }
    let damaged = |Malformed| Stop::Fail(ErrorCode::IO);
    let head = call.work.read(0, BITS_AT as u64)?;
    let (objects, header_crc) = decode_header(&mut Reader::new(&head)).map_err(damaged)?;
    if first >= end || end > objects || state > 3 {
        return fail(if state > 3 { ErrorCode::INVAL } else { ErrorCode::RANGE });
    }
    let bits_len = bits_len(objects);
    let blocks = bits_len.div_ceil(BLOCK_LEN);
    let (first_block, last_block) = ((first / 4) as usize / BLOCK_LEN, ((end - 1) / 4) as usize / BLOCK_LEN);
    let from_bit = first_block * BLOCK_LEN;
    let to_bit = ((last_block + 1) * BLOCK_LEN).min(bits_len);
    let footer_at = BITS_AT + bits_len;
    let footer = call.work.read(footer_at as u64, (12 + 4 * blocks) as u64);
    let before = call.work.read((BITS_AT + from_bit) as u64, (to_bit - from_bit) as u64)?;
    let footer = footer?;
    let mut sums = Reader::new(&footer);
    let is_footer = sums.u32() == Ok(8 + 4 * blocks as u32)
        && sums.u32() == Ok(header_crc)
        && sums.u32() == Ok(blocks as u32)
        && footer.len() == 12 + 4 * blocks
        && before.len() == to_bit - from_bit;
    let touched = &footer[footer.len().min(12 + 4 * first_block)..];
    let mut touched_sums = Reader::new(touched);
    if !is_footer || before.chunks(BLOCK_LEN).any(|block| touched_sums.u32() != Ok(crc(block))) {
        return fail(ErrorCode::IO);
    }
    let mut bits = before.to_vec();
    let offset = from_bit as u64 * 4;
    let mut changed: Option<(u64, u64)> = None;
    for object in first..end {
        let found = get(&bits, object - offset);
        let fits =
            current.is_none_or(|current| found == current || current == EXISTS && found == EXISTS_CLEAN);
        if fits && found != state {
            set(&mut bits, object - offset, state);
            changed = Some((changed.map_or(object, |(first, _)| first), object));
        }
    }
    let Some((first, last)) = changed else { return nothing() };
    let (from_byte, to_byte) = ((first / 4) as usize - from_bit, (last / 4) as usize - from_bit + 1);
    let at = (BITS_AT + from_bit + from_byte) as u64;
    let new_bits = Bytes::copy_from_slice(&bits[from_byte..to_byte]);
    call.work.write(at, segment(at, new_bits)?)?;
    let mut out = Writer::default();
    bits.chunks(BLOCK_LEN).for_each(|block| _ = out.u32(crc(block)));
    let at = (footer_at + 12 + 4 * first_block) as u64;
    call.work.write(at, segment(at, out.finish())?)?;
    nothing()
}
