//! A whole object on its way to another copy (`docs/format/objects.md`).

use super::change::{BadChange, CHANGE_META_LEN_MAX, bounded, in_object, whole_block_sums};
use super::state::{VERSION_XATTR, encode_version};
use bytes::{Bytes, BytesMut};
use cairn_pg::{Blob, Version};
use cairn_store::{Op, ReadData, Stat, Sums, Transaction};
use cairn_types::{ObjectId, PgId};
use cairn_wire::ceph::{Reader, Writer};
use cairn_wire::op::{OMAP_KEY_LEN_MAX, OMAP_VALUE_LEN_MAX};
use cairn_wire::{BLOCK_LEN, PAYLOAD_LEN_MAX, Payload, SEGMENTS_MAX, Segment};

const FORMAT: u8 = 1;

/// Why an object cannot be packed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unpackable {
    /// Its attributes and omap, or its bytes, are more than one message holds.
    #[error(
        "the object is too large for one message: {meta_len} bytes of attributes and omap, {data_len} of data"
    )]
    TooLarge {
        /// Bytes of attributes and omap.
        meta_len: usize,
        /// Bytes of data.
        data_len: usize,
    },
    /// What was read is not what the store said is there.
    #[error("the object changed while it was read: its extent at {offset} has {found} bytes, not {expected}")]
    Changed {
        /// Of the extent.
        offset: u64,
        /// By the store's list of extents.
        expected: u64,
        /// As read.
        found: usize,
    },
}

/// Packs an object. `extents` is what [`Fault::Extents`](super::Fault::Extents) gives for all of it, `reads` the bytes
/// of each, `omap` all entries in order. What is stored nowhere stays so in the copy.
///
/// # Errors
/// [`Unpackable`].
pub fn pack(
    stat: &Stat,
    extents: &[(u64, u64)],
    reads: &[ReadData],
    omap: &[(Bytes, Bytes)],
) -> Result<Blob, Unpackable> {
    let mut meta = Writer::with_capacity(256);
    meta.u8(FORMAT).u64(stat.size);
    // The receiver records the version that it is told.
    let xattrs = stat.xattrs.iter().filter(|(name, _)| *name != VERSION_XATTR);
    meta.u32(xattrs.clone().count() as u32);
    for (name, value) in xattrs {
        meta.string(name).bytes(value);
    }
    meta.bytes(&stat.omap_header).u32(omap.len() as u32);
    for (key, value) in omap {
        meta.bytes(key).bytes(value);
    }
    meta.u32(extents.len() as u32);
    let mut segments = Vec::with_capacity(extents.len());
    for (index, &(offset, len)) in extents.iter().enumerate() {
        meta.u64(offset).u32(len as u32);
        let found = reads.get(index).map_or(0, |read| read.data.len());
        let segment = reads.get(index).filter(|_| found as u64 == len).and_then(|read| segment(offset, read));
        segments.push(segment.ok_or(Unpackable::Changed { offset, expected: len, found })?);
    }
    let data_len = segments.iter().map(|segment| segment.data().len()).sum();
    if meta.len() > CHANGE_META_LEN_MAX || data_len > PAYLOAD_LEN_MAX {
        return Err(Unpackable::TooLarge { meta_len: meta.len(), data_len });
    }
    Ok(Blob { meta: meta.finish(), data: join(segments) })
}

/// The bytes of an extent with the store's checksums; a block that the object's end cuts is summed again.
fn segment(offset: u64, read: &ReadData) -> Option<Segment> {
    let data = read.data.clone();
    let is_whole = data.len().is_multiple_of(BLOCK_LEN) && offset.is_multiple_of(BLOCK_LEN as u64);
    if !is_whole || read.checksums.len() != data.len() / BLOCK_LEN {
        return Segment::new(offset, data).ok();
    }
    let sums = read.checksums.iter().flat_map(|sum| sum.to_le_bytes()).collect::<Vec<u8>>();
    Segment::with_sums(0, data, sums.into()).ok()
}

/// As many segments as a frame may have: usually each extent is one, and nothing is copied. Of a badly fragmented
/// object neighbours become one segment; all of them begin at a block, and only the last ends within one.
fn join(segments: Vec<Segment>) -> Payload {
    if segments.len() <= SEGMENTS_MAX {
        return segments.into_iter().collect();
    }
    let mut data = BytesMut::new();
    let mut sums = BytesMut::new();
    for segment in &segments {
        data.extend_from_slice(segment.data());
        segment.sums().for_each(|sum| sums.extend_from_slice(&sum.to_le_bytes()));
    }
    match Segment::with_sums(0, data.freeze(), sums.freeze()) {
        Ok(all) => Payload::from(all),
        // An extent within the object began within a block, which no store of ours gives; sums are made anew.
        Err(_) => {
            let all: BytesMut = segments.iter().fold(BytesMut::new(), |mut all, segment| {
                all.extend_from_slice(segment.data());
                all
            });
            Payload::of(0, all.freeze())
        }
    }
}

/// Adds the store operations that make the object what was packed, whether and whatever it was before.
///
/// # Errors
/// [`BadChange`], with `out` as it was.
pub fn unpack(
    packed: &Blob,
    pg: PgId,
    object: &ObjectId,
    version: Version,
    out: &mut Transaction,
) -> Result<(), BadChange> {
    let before = out.ops.len();
    let result = unpack_into(packed, pg, object, version, &mut out.ops);
    if result.is_err() {
        out.ops.truncate(before);
    }
    result
}

fn unpack_into(
    packed: &Blob,
    pg: PgId,
    object: &ObjectId,
    version: Version,
    out: &mut Vec<Op>,
) -> Result<(), BadChange> {
    let all = &packed.meta;
    let mut from = Reader::new(all);
    let format = from.u8()?;
    if format != FORMAT {
        return Err(BadChange::Format { found: format });
    }
    let size = from.u64()?;
    in_object(size, 0)?;
    let name = || object.clone();
    // Only what is there can be removed.
    out.push(Op::Touch(pg, name()));
    out.push(Op::Remove(pg, name()));
    let mut xattrs = Vec::new();
    for _ in 0..from.count(8)? {
        let name = from.string()?;
        if name.is_empty() || name.len() > cairn_store::limits::XATTR_NAME_BYTES_MAX || name == VERSION_XATTR
        {
            return Err(BadChange::Malformed);
        }
        xattrs.push((name.to_owned(), bounded(&mut from, all, cairn_store::limits::XATTRS_BYTES_MAX)?));
    }
    xattrs.push((VERSION_XATTR.to_owned(), encode_version(version)));
    out.push(Op::SetXattrs(pg, name(), xattrs));
    let header = bounded(&mut from, all, OMAP_VALUE_LEN_MAX)?;
    if !header.is_empty() {
        out.push(Op::OmapSetHeader(pg, name(), header));
    }
    let count = from.count(8)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let key = bounded(&mut from, all, OMAP_KEY_LEN_MAX)?;
        entries.push((key, bounded(&mut from, all, OMAP_VALUE_LEN_MAX)?));
    }
    if !entries.is_empty() {
        out.push(Op::OmapSet(pg, name(), entries));
    }
    let mut data = Stream { segments: packed.data.segments(), at: 0 };
    let mut end_before = 0;
    for _ in 0..from.count(12)? {
        let (offset, len) = (from.u64()?, from.u32()?);
        let end = offset.checked_add(len.into()).filter(|end| *end <= size).ok_or(BadChange::Malformed)?;
        if offset < end_before || len == 0 {
            return Err(BadChange::Malformed);
        }
        end_before = end;
        let (bytes, checksums) =
            data.next(offset, len as usize).ok_or(BadChange::Data { expected: len.into() })?;
        out.push(Op::Write { pg, object: name(), offset, data: bytes, checksums });
    }
    from.end()?;
    if !data.segments.is_empty() {
        return Err(BadChange::Data { expected: 0 });
    }
    if end_before < size {
        out.push(Op::Truncate { pg, object: name(), size });
    }
    Ok(())
}

/// What is left of the segments, the first from `at`.
struct Stream<'a> {
    segments: &'a [Segment],
    at: usize,
}

impl Stream<'_> {
    fn next(&mut self, offset: u64, len: usize) -> Option<(Bytes, Option<Sums>)> {
        let segment = self.segments.first()?;
        let (at, end) = (self.at, self.at.checked_add(len)?);
        if end > segment.data().len() {
            return None;
        }
        self.at = end;
        if end == segment.data().len() {
            (self.segments, self.at) = (&self.segments[1..], 0);
        }
        if at == 0 && self.at == 0 {
            return Some((segment.data().clone(), whole_block_sums(offset, segment)));
        }
        let is_whole = segment.phase() == 0
            && [at, len].iter().all(|n| n.is_multiple_of(BLOCK_LEN))
            && offset.is_multiple_of(BLOCK_LEN as u64);
        let sums = || segment.sums().skip(at / BLOCK_LEN).take(len / BLOCK_LEN).collect();
        Some((segment.data().slice(at..end), is_whole.then(sums)))
    }
}
