//! What is known of an object while a vector runs, and what more it needs.

use super::state::ObjectState;
use bytes::{Bytes, BytesMut};
use cairn_store::ReadData;
use cairn_wire::{BLOCK_LEN, Segment};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// What a vector needs to know before it can run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The object's state: a stat of the store, through [`ObjectState::from_stored`].
    Attrs,
    /// Bytes of a range; fewer at the object's end.
    Data {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// What of a range is stored.
    Extents {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The entries of these omap keys that are there.
    OmapKeys(Vec<Bytes>),
    /// Omap entries after `after` (empty: from the first, that of the empty key too) whose keys begin with `prefix`, in
    /// order, at most `max`.
    OmapRange {
        /// Exclusive.
        after: Bytes,
        /// May be empty.
        prefix: Bytes,
        /// At least 1.
        max: u32,
    },
}

/// The answer to a [`Fault`]: the variant of the same name, or that there is none.
#[derive(Clone, Debug)]
pub enum Supplied {
    /// The state.
    Attrs(ObjectState),
    /// The bytes, with the checksums of the store.
    Data(ReadData),
    /// Ranges (offset, length), ascending.
    Extents(Vec<(u64, u64)>),
    /// Entries.
    OmapKeys(Vec<(Bytes, Bytes)>),
    /// Entries.
    OmapRange {
        /// At most `max`.
        entries: Vec<(Bytes, Bytes)>,
        /// There are more after them.
        more: bool,
    },
    /// It cannot be read: an operation that needs it fails with IO.
    Unreadable,
}

#[derive(Clone, Debug)]
struct KnownData {
    offset: u64,
    len: u64,
    read: ReadData,
}

#[derive(Clone, Debug)]
struct KnownExtents {
    offset: u64,
    len: u64,
    extents: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownRange {
    after: Bytes,
    prefix: Bytes,
    max: u32,
    pub entries: Vec<(Bytes, Bytes)>,
    pub more: bool,
}

/// What is known of the object of one vector. Filled from the answers to [`super::Executed::Faults`], and with the
/// state when that is known before. All answers must be of the same moment: no change of the object in between.
#[derive(Clone, Debug, Default)]
pub struct View {
    state: Option<ObjectState>,
    data: SmallVec<[KnownData; 1]>,
    extents: Vec<KnownExtents>,
    omap: BTreeMap<Bytes, Option<Bytes>>,
    ranges: Vec<KnownRange>,
    pub(crate) is_unreadable: bool,
}

impl View {
    /// Nothing is known.
    pub fn new() -> Self {
        View::default()
    }

    /// The state is known.
    pub fn of(state: ObjectState) -> Self {
        View { state: Some(state), ..View::default() }
    }

    /// The state, once it is known.
    pub fn state(&self) -> Option<&ObjectState> {
        self.state.as_ref()
    }

    /// Adds an answer. One that does not fit its fault counts as [`Supplied::Unreadable`].
    pub fn supply(&mut self, fault: &Fault, got: Supplied) {
        match (fault, got) {
            (Fault::Attrs, Supplied::Attrs(state)) => self.state = Some(state),
            (&Fault::Data { offset, len }, Supplied::Data(read)) => {
                self.data.push(KnownData { offset, len, read });
            }
            (&Fault::Extents { offset, len }, Supplied::Extents(extents)) => {
                self.extents.push(KnownExtents { offset, len, extents });
            }
            (Fault::OmapKeys(keys), Supplied::OmapKeys(entries)) => {
                for key in keys {
                    self.omap.entry(key.clone()).or_default();
                }
                self.omap.extend(entries.into_iter().map(|(key, value)| (key, Some(value))));
            }
            (Fault::OmapRange { after, prefix, max }, Supplied::OmapRange { entries, more }) => {
                let (after, prefix) = (after.clone(), prefix.clone());
                self.ranges.push(KnownRange { after, prefix, max: *max, entries, more });
            }
            _ => self.is_unreadable = true,
        }
    }

    /// Bytes of a range within the object, if they are known: the read they are in, and where in it.
    fn known(&self, offset: u64, len: u64) -> Option<(&ReadData, usize)> {
        self.data.iter().find_map(|known| {
            let at = offset.checked_sub(known.offset)?;
            (at + len <= known.len).then_some((&known.read, at as usize))
        })
    }

    /// The bytes of a range that lies within the object. `Err`: they are not what the store should have given.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Option<Result<Bytes, ()>> {
        let (read, at) = self.known(offset, len)?;
        let end = at + len as usize;
        Some(if end <= read.data.len() { Ok(read.data.slice(at..end)) } else { Err(()) })
    }

    /// The same, with the checksums that the store keeps where they fit: only parts of blocks are summed again.
    pub(crate) fn segment(&self, offset: u64, len: u64) -> Option<Result<Segment, ()>> {
        let (read, at) = self.known(offset, len)?;
        let end = at + len as usize;
        if end > read.data.len() {
            return Some(Err(()));
        }
        let data = read.data.slice(at..end);
        let first = at / BLOCK_LEN;
        let blocks = data.len().div_ceil(BLOCK_LEN);
        let is_aligned = offset.is_multiple_of(BLOCK_LEN as u64) && at.is_multiple_of(BLOCK_LEN);
        let Some(sums) = read.checksums.get(first..first + blocks).filter(|_| is_aligned) else {
            return Some(Segment::new(offset, data).map_err(|_| ()));
        };
        let mut out = BytesMut::with_capacity(4 * blocks);
        for sum in sums {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        let part = data.len() % BLOCK_LEN;
        if part != 0 {
            let sum = crc32fast::hash(&data[data.len() - part..]);
            out.truncate(4 * (blocks - 1));
            out.extend_from_slice(&sum.to_le_bytes());
        }
        Some(Segment::with_sums(0, data, out.freeze()).map_err(|_| ()))
    }

    pub(crate) fn extents(&self, offset: u64, len: u64) -> Option<&[(u64, u64)]> {
        self.extents
            .iter()
            .find(|known| (known.offset, known.len) == (offset, len))
            .map(|known| &*known.extents)
    }

    /// `Some(None)`: known not to be there.
    pub(crate) fn omap(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        self.omap.get(key).map(Option::as_ref)
    }

    pub(crate) fn range(&self, after: &[u8], prefix: &[u8], max: u32) -> Option<&KnownRange> {
        self.ranges.iter().find(|known| known.after == after && known.prefix == prefix && known.max == max)
    }
}
