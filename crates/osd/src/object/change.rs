//! The change of one object, as every copy applies it (`docs/format/objects.md`).

use super::state::{VERSION_XATTR, encode_version};
use bytes::Bytes;
use cairn_pg::{Blob, Version};
use cairn_store::{Op, Sums, Transaction};
use cairn_types::{ObjectId, PgId};
use cairn_wire::ceph::{Malformed, Reader, Writer};
use cairn_wire::op::{OBJECT_LEN_MAX, OMAP_KEY_LEN_MAX, OMAP_VALUE_LEN_MAX};
use cairn_wire::{BLOCK_LEN, Payload, Segment};

/// Longest description of a change: with what else is in its message it stays below the wire's limit of a value.
pub const CHANGE_META_LEN_MAX: usize = cairn_wire::codec::VALUE_LEN_MAX - (64 << 10);

pub(crate) const FORMAT: u8 = 1;
/// The object is not there afterwards.
pub(crate) const FLAG_GONE: u8 = 1;

mod step {
    pub const TOUCH: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const ZERO: u8 = 3;
    pub const TRUNCATE: u8 = 4;
    pub const SET_XATTR: u8 = 5;
    pub const REMOVE_XATTR: u8 = 6;
    pub const OMAP_SET: u8 = 7;
    pub const OMAP_REMOVE: u8 = 8;
    pub const OMAP_REMOVE_RANGE: u8 = 9;
    pub const OMAP_CLEAR: u8 = 10;
    pub const OMAP_SET_HEADER: u8 = 11;
    pub const REMOVE: u8 = 12;
}

/// Why bytes are not a change, or not a packed object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadChange {
    /// Made by a version that is not known here.
    #[error("format {found} is not known here; {FORMAT} is")]
    Format {
        /// As found.
        found: u8,
    },
    /// The description ends early, has bytes too many, or holds a number or a name that cannot be.
    #[error("the description is malformed")]
    Malformed,
    /// The data that came along is not what the description speaks of.
    #[error("the data that came along is not the {expected} bytes that the description speaks of")]
    Data {
        /// Bytes of the segment that was looked for; 0: there is one too many.
        expected: u64,
    },
    /// The version to record and the description disagree on whether the object is there afterwards.
    #[error("the group and the description disagree on whether the object is there afterwards")]
    Gone,
}

impl From<Malformed> for BadChange {
    fn from(_: Malformed) -> Self {
        BadChange::Malformed
    }
}

/// Writes a change down, step by step.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    meta: Writer,
    data: Payload,
}

const HEADER_LEN: usize = 2;

impl Builder {
    pub fn new() -> Self {
        Builder { meta: Writer::default(), data: Payload::none() }
    }

    /// Begins with the first step: a vector that only reads allocates nothing.
    fn step(&mut self, tag: u8) -> &mut Writer {
        if self.meta.is_empty() {
            self.meta = Writer::with_capacity(128);
            self.meta.u8(FORMAT).u8(0);
        }
        self.meta.u8(tag)
    }

    pub fn len(&self) -> usize {
        self.meta.len()
    }

    pub fn touch(&mut self) {
        self.step(step::TOUCH);
    }

    pub fn write(&mut self, offset: u64, segment: Segment) {
        self.step(step::WRITE).u64(offset).u32(segment.data().len() as u32);
        self.data.push(segment);
    }

    pub fn zero(&mut self, offset: u64, len: u64) {
        self.step(step::ZERO).u64(offset).u64(len);
    }

    pub fn truncate(&mut self, size: u64) {
        self.step(step::TRUNCATE).u64(size);
    }

    /// `prefix` and `name` make the stored name.
    pub fn set_xattr(&mut self, prefix: &str, name: &str, value: &[u8]) {
        let out = self.step(step::SET_XATTR).u16((prefix.len() + name.len()) as u16);
        out.put(prefix.as_bytes()).put(name.as_bytes()).bytes(value);
    }

    pub fn remove_xattr(&mut self, prefix: &str, name: &str) {
        let out = self.step(step::REMOVE_XATTR).u16((prefix.len() + name.len()) as u16);
        out.put(prefix.as_bytes()).put(name.as_bytes());
    }

    pub fn omap_set(&mut self, entries: &[(Bytes, Bytes)]) {
        let out = self.step(step::OMAP_SET).u32(entries.len() as u32);
        for (key, value) in entries {
            out.bytes(key).bytes(value);
        }
    }

    pub fn omap_remove(&mut self, keys: &[Bytes]) {
        let out = self.step(step::OMAP_REMOVE).u32(keys.len() as u32);
        for key in keys {
            out.bytes(key);
        }
    }

    pub fn omap_remove_range(&mut self, first: &[u8], end: &[u8]) {
        self.step(step::OMAP_REMOVE_RANGE).bytes(first).bytes(end);
    }

    pub fn omap_clear(&mut self) {
        self.step(step::OMAP_CLEAR);
    }

    pub fn omap_set_header(&mut self, value: &[u8]) {
        self.step(step::OMAP_SET_HEADER).bytes(value);
    }

    /// Nothing that came before it matters any more; `existed`: the object was there before the vector.
    pub fn remove(&mut self, existed: bool) {
        self.meta.truncate(0);
        self.data = Payload::none();
        if existed {
            self.step(step::REMOVE);
        }
    }

    pub fn finish(mut self, gone: bool) -> Blob {
        let mut meta = std::mem::take(&mut self.meta);
        if gone {
            meta = {
                let steps = meta.finish();
                let mut out = Writer::with_capacity(steps.len());
                out.u8(FORMAT).u8(FLAG_GONE).put(&steps[HEADER_LEN..]);
                out
            };
        }
        Blob { meta: meta.finish(), data: self.data }
    }
}

/// The checksums of a segment, if they are those of whole blocks of the object.
pub(crate) fn whole_block_sums(offset: u64, segment: &Segment) -> Option<Sums> {
    let block = BLOCK_LEN as u64;
    let is_whole = offset.is_multiple_of(block) && segment.data().len().is_multiple_of(BLOCK_LEN);
    (is_whole && segment.phase() == 0).then(|| segment.sums().collect())
}

fn text(from: &mut Reader<'_>) -> Result<String, Malformed> {
    let len = from.u16()?;
    let bytes = from.take(len.into())?;
    if bytes.is_empty() || bytes.len() > cairn_store::limits::XATTR_NAME_BYTES_MAX {
        return Err(Malformed);
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

/// A part of `all`, without a copy.
pub(crate) fn bounded(from: &mut Reader<'_>, all: &Bytes, len_max: usize) -> Result<Bytes, Malformed> {
    let bytes = from.bytes()?;
    if bytes.len() > len_max { Err(Malformed) } else { Ok(all.slice_ref(bytes)) }
}

/// Adds the store operations of a change to `out`, the same for every copy. `version` is what to record with the
/// object; `None`: the change removes it.
///
/// # Errors
/// [`BadChange`], with `out` as it was: the change is not one that [`super::execute()`] makes.
pub fn apply(
    change: &Blob,
    pg: PgId,
    object: &ObjectId,
    version: Option<Version>,
    out: &mut Transaction,
) -> Result<(), BadChange> {
    let before = out.ops.len();
    let result = apply_steps(change, pg, object, version, &mut out.ops);
    if result.is_err() {
        out.ops.truncate(before);
    }
    result
}

fn apply_steps(
    change: &Blob,
    pg: PgId,
    object: &ObjectId,
    version: Option<Version>,
    out: &mut Vec<Op>,
) -> Result<(), BadChange> {
    let all = &change.meta;
    let mut from = Reader::new(all);
    let format = from.u8()?;
    if format != FORMAT {
        return Err(BadChange::Format { found: format });
    }
    let is_gone = match from.u8()? {
        0 => false,
        FLAG_GONE => true,
        _ => return Err(BadChange::Malformed),
    };
    if is_gone != version.is_none() {
        return Err(BadChange::Gone);
    }
    let name = || object.clone();
    let mut segments = change.data.segments().iter();
    // Neighbouring attributes are set together.
    let mut xattrs: Vec<(String, Bytes)> = Vec::new();
    while !from.is_empty() {
        let tag = from.u8()?;
        if tag != step::SET_XATTR && !xattrs.is_empty() {
            out.push(Op::SetXattrs(pg, name(), std::mem::take(&mut xattrs)));
        }
        out.push(match tag {
            step::TOUCH => Op::Touch(pg, name()),
            step::WRITE => {
                let (offset, len) = (from.u64()?, from.u32()?);
                let wrong = BadChange::Data { expected: len.into() };
                let segment = segments.next().ok_or(wrong.clone())?;
                if segment.data().len() != len as usize {
                    return Err(wrong);
                }
                in_object(offset, len.into())?;
                let checksums = whole_block_sums(offset, segment);
                Op::Write { pg, object: name(), offset, data: segment.data().clone(), checksums }
            }
            step::ZERO => {
                let (offset, len) = (from.u64()?, from.u64()?);
                in_object(offset, len)?;
                Op::Zero { pg, object: name(), offset, len }
            }
            step::TRUNCATE => {
                let size = from.u64()?;
                in_object(size, 0)?;
                Op::Truncate { pg, object: name(), size }
            }
            step::SET_XATTR => {
                let name = text(&mut from)?;
                xattrs.push((name, bounded(&mut from, all, cairn_store::limits::XATTRS_BYTES_MAX)?));
                continue;
            }
            step::REMOVE_XATTR => Op::RemoveXattr(pg, name(), text(&mut from)?),
            step::OMAP_SET => {
                let count = from.count(8)?;
                let mut entries = Vec::with_capacity(count);
                for _ in 0..count {
                    let key = bounded(&mut from, all, OMAP_KEY_LEN_MAX)?;
                    entries.push((key, bounded(&mut from, all, OMAP_VALUE_LEN_MAX)?));
                }
                Op::OmapSet(pg, name(), entries)
            }
            step::OMAP_REMOVE => {
                let count = from.count(4)?;
                let keys = (0..count).map(|_| bounded(&mut from, all, OMAP_KEY_LEN_MAX));
                Op::OmapRemove(pg, name(), keys.collect::<Result<_, _>>()?)
            }
            step::OMAP_REMOVE_RANGE => {
                let first = bounded(&mut from, all, OMAP_KEY_LEN_MAX)?;
                let end = bounded(&mut from, all, OMAP_KEY_LEN_MAX)?;
                Op::OmapRemoveRange { pg, object: name(), first, end }
            }
            step::OMAP_CLEAR => Op::OmapClear(pg, name()),
            step::OMAP_SET_HEADER => {
                Op::OmapSetHeader(pg, name(), bounded(&mut from, all, OMAP_VALUE_LEN_MAX)?)
            }
            step::REMOVE => Op::Remove(pg, name()),
            _ => return Err(BadChange::Malformed),
        });
    }
    if segments.next().is_some() {
        return Err(BadChange::Data { expected: 0 });
    }
    if let Some(version) = version {
        xattrs.push((VERSION_XATTR.to_owned(), encode_version(version)));
        out.push(Op::SetXattrs(pg, name(), xattrs));
    } else if !xattrs.is_empty() {
        return Err(BadChange::Malformed);
    }
    Ok(())
}

/// A range is within the largest object.
pub(crate) fn in_object(offset: u64, len: u64) -> Result<(), Malformed> {
    if offset.checked_add(len).is_some_and(|end| end <= OBJECT_LEN_MAX) { Ok(()) } else { Err(Malformed) }
}
