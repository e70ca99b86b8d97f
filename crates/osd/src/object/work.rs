//! An object in the middle of a vector: what is stored, and over it what the vector has changed so far.

use super::change::{Builder, CHANGE_META_LEN_MAX};
use super::state::{CLIENT_XATTRS_LEN_MAX, ObjectState};
use super::view::{Fault, View};
use bytes::{Bytes, BytesMut};
use cairn_wire::op::{OBJECT_LEN_MAX, OMAP_ENTRIES_MAX};
use cairn_wire::{ErrorCode, Segment};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Bound;

/// EFBIG: an object would be longer than any may be. RADOS answers it too.
pub const FBIG: ErrorCode = ErrorCode(-27);

/// Why an operation does not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Something must be known first.
    Fault,
    /// It fails.
    Fail(ErrorCode),
    /// The bytes differ from those given first at this place of them.
    Differs(u64),
}

impl From<ErrorCode> for Stop {
    fn from(code: ErrorCode) -> Self {
        Stop::Fail(code)
    }
}

/// Fails with a code.
pub fn fail<T>(code: ErrorCode) -> Result<T, Stop> {
    Err(Stop::Fail(code))
}

/// Omap entries, and whether there are more.
pub type Page = (Vec<(Bytes, Bytes)>, bool);

/// A change of the bytes within the vector.
#[derive(Clone, Debug)]
enum Layer {
    Bytes { offset: u64, data: Bytes },
    Zeros { offset: u64, len: u64 },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Work<'v> {
    view: &'v View,
    /// As it is now; kept up to date by every change.
    pub state: ObjectState,
    /// Bytes of the stored object that are still to be seen: its size, or less once cut or removed.
    base_size: u64,
    layers: Vec<Layer>,
    /// Stored omap entries are still to be seen, but for those in `omap` and `removed`.
    has_base_omap: bool,
    omap: BTreeMap<Bytes, Option<Bytes>>,
    removed: Vec<(Bytes, Bytes)>,
    existed: bool,
    pub change: Builder,
    /// A change that counts for users: version and time follow.
    pub is_user_change: bool,
    pub watchers_changed: bool,
    pub info_changed: bool,
    pub faults: SmallVec<[Fault; 2]>,
}

impl<'v> Work<'v> {
    pub fn new(view: &'v View, state: ObjectState) -> Self {
        Work {
            view,
            base_size: state.size,
            has_base_omap: state.exists,
            existed: state.exists,
            state,
            layers: Vec::new(),
            omap: BTreeMap::new(),
            removed: Vec::new(),
            change: Builder::new(),
            is_user_change: false,
            watchers_changed: false,
            info_changed: false,
            faults: SmallVec::new(),
        }
    }

    fn fault<T>(&mut self, fault: Fault) -> Result<T, Stop> {
        if self.view.is_unreadable {
            return fail(ErrorCode::IO);
        }
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
        Err(Stop::Fault)
    }

    /// As it was before the vector.
    pub fn before(&self) -> ObjectState {
        self.view.state().cloned().unwrap_or_default()
    }

    /// Whether it was there before the vector.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// ENOENT if the object is not there.
    pub fn need(&self) -> Result<(), Stop> {
        if self.state.exists { Ok(()) } else { fail(ErrorCode::NOENT) }
    }

    // Bytes.

    /// A range, cut at the object's end, as (offset, length). Length 0 is to the end.
    pub fn clip(&self, offset: u64, len: u64) -> (u64, u64) {
        let len = if len == 0 { u64::MAX } else { len };
        (offset, self.state.size.saturating_sub(offset).min(len))
    }

    fn base(&mut self, offset: u64, len: u64) -> Result<Bytes, Stop> {
        match self.view.bytes(offset, len) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(())) => fail(ErrorCode::IO),
            None => self.fault(Fault::Data { offset, len }),
        }
    }

    /// Bytes of a range; fewer at the object's end.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Bytes, Stop> {
        let len = len.min(self.state.size.saturating_sub(offset));
        if len == 0 {
            return Ok(Bytes::new());
        }
        let end = offset + len;
        let from_base = self.base_size.min(end).saturating_sub(offset);
        let covers = |layer: &Layer| match layer {
            Layer::Bytes { offset: at, data } => *at <= offset && at + data.len() as u64 >= end,
            Layer::Zeros { .. } => false,
        };
        if let Some(Layer::Bytes { offset: at, data }) = self.layers.last().filter(|layer| covers(layer)) {
            return Ok(data.slice((offset - at) as usize..(end - at) as usize));
        }
        let is_covered = self.layers.iter().any(covers);
        let base = if from_base == 0 || is_covered { Bytes::new() } else { self.base(offset, from_base)? };
        if base.len() as u64 == len && self.layers.is_empty() {
            return Ok(base);
        }
        let mut out = BytesMut::zeroed(len as usize);
        out[..base.len()].copy_from_slice(&base);
        for layer in &self.layers {
            let (at, layer_len) = match layer {
                Layer::Bytes { offset, data } => (*offset, data.len() as u64),
                Layer::Zeros { offset, len } => (*offset, *len),
            };
            let (from, to) = (at.max(offset), (at + layer_len).min(end));
            if from >= to {
                continue;
            }
            let target = &mut out[(from - offset) as usize..(to - offset) as usize];
            match layer {
                Layer::Bytes { data, .. } => {
                    target.copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
                }
                Layer::Zeros { .. } => target.fill(0),
            }
        }
        Ok(out.freeze())
    }

    /// The same as a segment; `None` where there is nothing. The store's checksums are kept where they fit.
    pub fn read_segment(&mut self, offset: u64, len: u64) -> Result<Option<Segment>, Stop> {
        let len = len.min(self.state.size.saturating_sub(offset));
        if len == 0 {
            return Ok(None);
        }
        if self.layers.is_empty() && offset + len <= self.base_size {
            return match self.view.segment(offset, len) {
                Some(segment) => segment.map(Some).map_err(|()| ErrorCode::IO.into()),
                None => self.fault(Fault::Data { offset, len }),
            };
        }
        Ok(Segment::new(offset, self.read(offset, len)?).ok())
    }

    /// What of a range is stored: (offset, length), ascending.
    pub fn extents(&mut self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, Stop> {
        let (offset, len) = self.clip(offset, len);
        let from_base = self.base_size.min(offset + len).saturating_sub(offset);
        let mut extents = match from_base {
            0 => Vec::new(),
            _ => match self.view.extents(offset, from_base) {
                Some(extents) => extents.to_vec(),
                None => return self.fault(Fault::Extents { offset, len: from_base }),
            },
        };
        for layer in &self.layers {
            let (at, layer_len, is_stored) = match layer {
                Layer::Bytes { offset, data } => (*offset, data.len() as u64, true),
                Layer::Zeros { offset, len } => (*offset, *len, false),
            };
            let (from, to) = (at.max(offset), (at + layer_len).min(offset + len));
            if from < to {
                cover(&mut extents, from, to, is_stored);
            }
        }
        Ok(extents)
    }

    /// Makes the object exist.
    pub fn touch(&mut self) {
        if !self.state.exists {
            self.state.exists = true;
            self.change.touch();
        }
        self.is_user_change = true;
    }

    pub fn write(&mut self, offset: u64, segment: Segment) -> Result<(), Stop> {
        let len = segment.data().len() as u64;
        let Some(end) = offset.checked_add(len).filter(|end| *end <= OBJECT_LEN_MAX) else {
            return fail(FBIG);
        };
        self.layers.push(Layer::Bytes { offset, data: segment.data().clone() });
        self.state.exists = true;
        self.state.size = self.state.size.max(end);
        self.is_user_change = true;
        self.change.write(offset, segment);
        Ok(())
    }

    /// Replaces the bytes.
    pub fn write_full(&mut self, segment: Option<Segment>) -> Result<(), Stop> {
        self.touch();
        let len = segment.as_ref().map_or(0, |segment| segment.data().len() as u64);
        if let Some(segment) = segment {
            self.write(0, segment)?;
        }
        if len < self.state.size {
            self.truncate(len)?;
        }
        Ok(())
    }

    /// Zeros within the object.
    pub fn zero(&mut self, offset: u64, len: u64) {
        if len == 0 || offset >= self.state.size {
            return;
        }
        let len = len.min(self.state.size - offset);
        self.layers.push(Layer::Zeros { offset, len });
        self.is_user_change = true;
        self.change.zero(offset, len);
    }

    pub fn truncate(&mut self, size: u64) -> Result<(), Stop> {
        if size > OBJECT_LEN_MAX {
            return fail(FBIG);
        }
        self.is_user_change = true;
        if size < self.state.size {
            self.layers.push(Layer::Zeros { offset: size, len: self.state.size - size });
            self.base_size = self.base_size.min(size);
        }
        if size != self.state.size {
            self.state.size = size;
            self.change.truncate(size);
        }
        Ok(())
    }

    pub fn remove(&mut self) {
        self.change.remove(self.existed);
        self.state = ObjectState { version: self.state.version, ..ObjectState::absent() };
        self.base_size = 0;
        self.layers.clear();
        self.has_base_omap = false;
        self.omap.clear();
        self.removed.clear();
        self.is_user_change = true;
        // What is made anew begins with new ones.
        self.info_changed = false;
        self.watchers_changed = false;
    }

    // Attributes.

    pub fn set_xattr(&mut self, name: &str, value: Bytes) -> Result<(), Stop> {
        let before = self.state.xattr(name).map_or(0, |value| 1 + name.len() + value.len());
        if self.state.xattrs_len - before + 1 + name.len() + value.len() > CLIENT_XATTRS_LEN_MAX {
            return fail(ErrorCode::OVERFLOW);
        }
        self.touch();
        self.change.set_xattr(".", name, &value);
        self.state.set_xattr(name, value);
        Ok(())
    }

    pub fn remove_xattr(&mut self, name: &str) {
        self.is_user_change = true;
        self.change.remove_xattr(".", name);
        self.state.remove_xattr(name);
    }

    // Omap.

    fn is_hidden(&self, key: &[u8]) -> bool {
        !self.has_base_omap || self.removed.iter().any(|(first, end)| **first <= *key && *key < **end)
    }

    /// The value of a key.
    pub fn omap_get(&mut self, key: &[u8]) -> Result<Option<Bytes>, Stop> {
        if let Some(value) = self.omap.get(key) {
            return Ok(value.clone());
        }
        if self.is_hidden(key) {
            return Ok(None);
        }
        match self.view.omap(key) {
            Some(value) => Ok(value.cloned()),
            None => self.omap_fault(&[key]),
        }
    }

    /// Asks for the keys together.
    fn omap_fault<T>(&mut self, keys: &[&[u8]]) -> Result<T, Stop> {
        if self.view.is_unreadable {
            return fail(ErrorCode::IO);
        }
        let wanted = match self.faults.iter().position(|fault| matches!(fault, Fault::OmapKeys(_))) {
            Some(at) => at,
            None => {
                self.faults.push(Fault::OmapKeys(Vec::new()));
                self.faults.len() - 1
            }
        };
        if let Fault::OmapKeys(wanted) = &mut self.faults[wanted] {
            for key in keys {
                if !wanted.iter().any(|have| have == key) {
                    wanted.push(Bytes::copy_from_slice(key));
                }
            }
        }
        Err(Stop::Fault)
    }

    /// Asks at once for all of the keys that are not known, before the first is used.
    pub fn omap_want(&mut self, keys: &[&[u8]]) -> Result<(), Stop> {
        let unknown = |key: &&&[u8]| {
            !self.omap.contains_key(**key) && !self.is_hidden(key) && self.view.omap(key).is_none()
        };
        let keys: SmallVec<[&[u8]; 8]> = keys.iter().filter(unknown).copied().collect();
        if keys.is_empty() { Ok(()) } else { self.omap_fault(&keys) }
    }

    /// Entries after a key whose keys begin with `prefix`, in order, at most `max` (and at most
    /// [`OMAP_ENTRIES_MAX`]), and whether there are more.
    pub fn omap_range(&mut self, after: &[u8], prefix: &[u8], max: u32) -> Result<Page, Stop> {
        let max = max.min(OMAP_ENTRIES_MAX);
        if max == 0 {
            return Ok((Vec::new(), true));
        }
        let view = self.view;
        let mut found: Vec<(Bytes, Bytes)> = Vec::new();
        let mut cursor = Bytes::copy_from_slice(after);
        loop {
            let (base, base_more) = if !self.has_base_omap {
                (&[][..], false)
            } else if let Some(known) = view.range(&cursor, prefix, max) {
                (&known.entries[..], known.more && !known.entries.is_empty())
            } else {
                let prefix = Bytes::copy_from_slice(prefix);
                return self.fault(Fault::OmapRange { after: cursor, prefix, max });
            };
            let last = base.last().map(|(key, _)| key.clone());
            if last.as_ref().is_some_and(|last| *last <= cursor) {
                return fail(ErrorCode::IO);
            }
            // Within the stretch of keys that the stored entries cover, ours stand between theirs.
            let end = if base_more {
                last.as_ref().map_or(Bound::Unbounded, Bound::Included)
            } else {
                Bound::Unbounded
            };
            let mut ours = self
                .omap
                .range::<Bytes, _>((Bound::Excluded(&cursor), end))
                .filter(|(key, value)| key.starts_with(prefix) && value.is_some())
                .peekable();
            let start = found.len();
            for (key, value) in base {
                if self.omap.contains_key(key) || self.is_hidden(key) {
                    continue;
                }
                while let Some((own, Some(value))) = ours.next_if(|(own, _)| *own < key) {
                    found.push((own.clone(), value.clone()));
                }
                found.push((key.clone(), value.clone()));
            }
            found.extend(ours.filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
            debug_assert!(found[start..].is_sorted_by(|a, b| a.0 < b.0));
            if found.len() > max as usize || !base_more {
                let more = found.len() > max as usize;
                found.truncate(max as usize);
                return Ok((found, more));
            }
            if found.len() == max as usize && self.omap.is_empty() && self.removed.is_empty() {
                return Ok((found, true));
            }
            cursor = last.unwrap_or_default();
        }
    }

    pub fn omap_set(&mut self, entries: &[(Bytes, Bytes)]) {
        self.touch();
        self.change.omap_set(entries);
        self.omap.extend(entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
    }

    pub fn omap_remove(&mut self, keys: &[Bytes]) {
        self.is_user_change = true;
        self.change.omap_remove(keys);
        self.omap.extend(keys.iter().map(|key| (key.clone(), None)));
    }

    pub fn omap_remove_range(&mut self, first: Bytes, end: Bytes) {
        self.is_user_change = true;
        if first >= end {
            return;
        }
        self.change.omap_remove_range(&first, &end);
        self.omap.retain(|key, _| *key < first || *key >= end);
        self.removed.push((first, end));
    }

    pub fn omap_clear(&mut self) {
        self.is_user_change = true;
        self.change.omap_clear();
        self.has_base_omap = false;
        self.omap.clear();
        self.removed.clear();
        self.state.omap_header = Bytes::new();
    }

    pub fn omap_set_header(&mut self, value: Bytes) {
        self.touch();
        self.change.omap_set_header(&value);
        self.state.omap_header = value;
    }

    /// The change so far can be told to the other copies.
    pub fn check_len(&self) -> Result<(), Stop> {
        if self.change.len() <= CHANGE_META_LEN_MAX { Ok(()) } else { fail(ErrorCode::OVERFLOW) }
    }
}

/// Makes `from..to` stored or not in a list of extents.
fn cover(extents: &mut Vec<(u64, u64)>, from: u64, to: u64, is_stored: bool) {
    let mut out: Vec<(u64, u64)> = Vec::with_capacity(extents.len() + 2);
    for &(offset, len) in extents.iter() {
        let end = offset + len;
        out.extend((offset < from).then(|| (offset, end.min(from) - offset)));
        out.extend((end > to).then(|| (offset.max(to), end - offset.max(to))));
    }
    if is_stored {
        out.push((from, to - from));
    }
    out.sort_unstable();
    extents.clear();
    for (offset, len) in out {
        match extents.last_mut() {
            Some((start, have)) if *start + *have == offset => *have += len,
            _ => extents.push((offset, len)),
        }
    }
}
