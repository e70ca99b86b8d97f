//! Runs a vector of operations over a view of its object.

use super::class::{self, Call};
use super::kind::kind_of;
use super::state::{INFO_XATTR, WATCHERS_MAX, WATCHERS_XATTR, encode_watchers};
use super::view::{Fault, View};
use super::work::{FBIG, Page, Stop, Work, fail};
use super::{Executed, Sender, Stamp, WRITE_OUTPUT_LEN_MAX, WatchChange};
use bytes::Bytes;
use cairn_wire::op::{
    CALL_LEN_MAX, OBJECT_LEN_MAX, OMAP_ENTRIES_MAX, OpKind, OpOutput, OpRequest, OpResult, WatchAction,
    Watcher,
};
use cairn_wire::{ErrorCode, PAYLOAD_LEN_MAX, Payload, SEGMENTS_MAX, Segment};
use smallvec::smallvec;
use std::cmp::Ordering;
use std::sync::Arc;

/// Room for what a vector that reads answers beside bytes of the object: below what one message holds.
const READ_OUTPUT_LEN_MAX: usize = 3 << 20;
/// Room for the entries of one operation: the rest is for the next call.
const PAGE_LEN_MAX: usize = 1 << 20;

/// Runs a vector. `view` may lack anything; see [`Executed::Faults`]. ENOENT if it only reads and the object is not
/// there. Of `ListObjects` and `Notify`, which concern more than the object, it answers OPNOTSUPP.
pub fn execute(
    request: &OpRequest,
    payload: &Payload,
    sender: &Sender,
    view: &View,
    stamp: &Stamp,
) -> Executed {
    let writes = match kind_of(request) {
        Ok(kind) => kind != cairn_pg::OpKind::Read,
        Err(code) => return failed(code, view),
    };
    if !fits(request, payload) {
        return failed(ErrorCode::INVAL, view);
    }
    let Some(state) = view.state() else {
        if view.is_unreadable {
            return failed(ErrorCode::IO, view);
        }
        return Executed::Faults(smallvec![Fault::Attrs]);
    };
    if !writes && !state.exists {
        let results = vec![OpResult { code: ErrorCode::NOENT, output: OpOutput::None }];
        let (data, watch) = (Payload::none(), Vec::new());
        return Executed::Read { results, data, code: ErrorCode::NOENT, user_version: 0, watch };
    }
    let mut run = Run {
        work: Work::new(view, state.clone()),
        sender,
        stamp,
        writes,
        data: Payload::none(),
        data_len: 0,
        room: if writes { WRITE_OUTPUT_LEN_MAX } else { READ_OUTPUT_LEN_MAX },
        watch: Vec::new(),
    };
    let mut results = Vec::with_capacity(request.ops.len());
    let mut segments = payload.segments().iter();
    let mut has_faults = false;
    let mut code = ErrorCode::OK;
    for op in request.ops.iter() {
        let segment = if op.kind.segment_len() > 0 { segments.next() } else { None };
        // What fails must leave nothing behind, if the vector goes on.
        let before = (op.fail_ok && matches!(op.kind, OpKind::Call { .. })).then(|| run.work.clone());
        match run.operate(&op.kind, segment) {
            // Once something lacks, the rest is only looked at for what else it will need.
            Err(Stop::Fault) => has_faults = true,
            Err(_) if has_faults => break,
            Err(stop) => {
                if let Some(before) = before {
                    run.work = before;
                }
                let (failure, output) = match stop {
                    Stop::Fail(code) => (code, OpOutput::None),
                    Stop::Differs(at) => (ErrorCode::CANCELED, OpOutput::Number(at)),
                    Stop::Fault => (ErrorCode::IO, OpOutput::None),
                };
                results.push(OpResult { code: failure, output });
                if !op.fail_ok {
                    code = failure;
                    break;
                }
            }
            Ok(output) => results.push(OpResult { code: ErrorCode::OK, output }),
        }
    }
    if has_faults {
        return Executed::Faults(run.work.faults);
    }
    run.finish(request, results, code)
}

/// A segment for each operation that has one, of its length.
fn fits(request: &OpRequest, payload: &Payload) -> bool {
    let lens = request.ops.iter().map(|op| op.kind.segment_len()).filter(|len| *len > 0);
    lens.eq(payload.segments().iter().map(|segment| segment.data().len() as u64))
}

fn failed(code: ErrorCode, view: &View) -> Executed {
    let user_version = view.state().map_or(0, |state| state.info.user_version);
    let results = vec![OpResult { code, output: OpOutput::None }];
    Executed::Read { results, data: Payload::none(), code, user_version, watch: Vec::new() }
}

/// Beyond the object's end there are zeros.
fn compare(work: &mut Work<'_>, offset: u64, wanted: &[u8]) -> Result<(), Stop> {
    let found = work.read(offset, wanted.len() as u64)?;
    let (head, tail) = wanted.split_at(found.len());
    let differs = head.iter().zip(&*found).position(|(a, b)| a != b);
    match differs.or_else(|| tail.iter().position(|byte| *byte != 0).map(|at| head.len() + at)) {
        Some(at) => Err(Stop::Differs(at as u64)),
        None => Ok(()),
    }
}

struct Run<'a> {
    work: Work<'a>,
    sender: &'a Sender,
    stamp: &'a Stamp,
    writes: bool,
    data: Payload,
    data_len: usize,
    /// Bytes of output still allowed.
    room: usize,
    watch: Vec<WatchChange>,
}

impl Run<'_> {
    fn operate(&mut self, op: &OpKind, segment: Option<&Segment>) -> Result<OpOutput, Stop> {
        let work = &mut self.work;
        match op {
            OpKind::Stat => {
                work.need()?;
                Ok(OpOutput::Stat { size: work.state.size, mtime: work.state.info.mtime })
            }
            OpKind::Read { offset, len } => self.read(*offset, *len),
            OpKind::SparseRead { offset, len } => self.sparse_read(*offset, *len),
            OpKind::GetXattr { name } => {
                work.need()?;
                match work.state.xattr(name).cloned() {
                    Some(value) => self.keep(OpOutput::Bytes(value)),
                    None => fail(ErrorCode::NODATA),
                }
            }
            OpKind::GetXattrs => {
                work.need()?;
                let all = work.state.xattrs.iter().flat_map(|xattrs| xattrs.iter());
                let entries =
                    all.map(|(name, value)| (Bytes::from(name.clone().into_bytes()), value.clone()));
                let entries = entries.collect();
                self.keep(OpOutput::Entries { entries, more: false })
            }
            OpKind::OmapGetKeys { after, max } => {
                let page = work.omap_range(after, b"", *max)?;
                let (entries, more) = self.cut(page, |(key, _)| key.len())?;
                let keys = entries.into_iter().map(|(key, _)| key).collect();
                self.keep(OpOutput::Keys { keys, more })
            }
            OpKind::OmapGetVals { after, prefix, max } => {
                let page = work.omap_range(after, prefix, *max)?;
                let (entries, more) = self.cut(page, |(key, value)| key.len() + value.len())?;
                self.keep(OpOutput::Entries { entries: entries.into(), more })
            }
            OpKind::OmapGetValsByKeys { keys } => {
                let wanted: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                work.omap_want(&wanted)?;
                let mut entries = Vec::new();
                for key in keys.iter() {
                    entries.extend(work.omap_get(key)?.map(|value| (key.clone(), value)));
                }
                self.keep(OpOutput::Entries { entries: entries.into(), more: false })
            }
            OpKind::OmapGetHeader => {
                let header = work.state.omap_header.clone();
                self.keep(OpOutput::Bytes(header))
            }
            OpKind::Call { class, method, input } => {
                let Some(method) = class::find(class, method) else { return fail(ErrorCode::OPNOTSUPP) };
                let (sender, now) = (self.sender, self.stamp.now);
                let output = (method.run)(&mut Call { work, sender, now }, input)?;
                if output.len() > CALL_LEN_MAX {
                    return fail(ErrorCode::OVERFLOW);
                }
                self.keep(OpOutput::Bytes(output))
            }
            OpKind::ListWatchers => {
                work.need()?;
                Ok(OpOutput::Watchers(work.state.watchers().to_vec().into()))
            }
            _ => self.change(op, segment).map(|()| OpOutput::None),
        }
    }

    /// What changes the object or is a condition for it: it has no output.
    fn change(&mut self, op: &OpKind, segment: Option<&Segment>) -> Result<(), Stop> {
        let work = &mut self.work;
        match op {
            OpKind::Create { exclusive: true } if work.state.exists => return fail(ErrorCode::EXIST),
            OpKind::Create { .. } => work.touch(),
            OpKind::Write { offset, .. } => match segment {
                Some(segment) => work.write(*offset, segment.clone())?,
                None => work.touch(),
            },
            OpKind::WriteFull { len } if *len > OBJECT_LEN_MAX => return fail(FBIG),
            OpKind::WriteFull { .. } => work.write_full(segment.cloned())?,
            OpKind::Append { .. } => match segment {
                Some(segment) => work.write(work.state.size, segment.clone())?,
                None => work.touch(),
            },
            OpKind::Zero { offset, len } => work.zero(*offset, *len),
            OpKind::Truncate { size } => {
                work.need()?;
                work.truncate(*size)?;
            }
            OpKind::Delete => {
                work.need()?;
                let removed = |watcher: &Watcher| {
                    let watcher = watcher.clone();
                    WatchChange::Ended { watcher, is_removal: true }
                };
                self.watch.extend(work.state.watchers().iter().map(removed));
                work.remove();
            }
            OpKind::SetAllocHint { object_len, write_len } => {
                if !work.state.exists {
                    work.touch();
                }
                let info = &mut work.state.info;
                if (info.expected_object_len, info.expected_write_len) != (*object_len, *write_len) {
                    (info.expected_object_len, info.expected_write_len) = (*object_len, *write_len);
                    work.info_changed = true;
                }
            }
            OpKind::CompareExtent { offset, .. } => {
                if let Some(segment) = segment {
                    compare(work, *offset, segment.data())?;
                }
            }
            OpKind::AssertVersion { version: 0 } => return fail(ErrorCode::INVAL),
            OpKind::AssertVersion { version } => match version.cmp(&work.state.info.user_version) {
                Ordering::Less => return fail(ErrorCode::RANGE),
                Ordering::Equal => {}
                Ordering::Greater => return fail(ErrorCode::OVERFLOW),
            },
            OpKind::SetXattr { name, value } => work.set_xattr(name, value.clone())?,
            OpKind::RemoveXattr { name } => {
                work.need()?;
                if work.state.xattr(name).is_none() {
                    return fail(ErrorCode::NODATA);
                }
                work.remove_xattr(name);
            }
            OpKind::CompareXattr { name, value } => {
                condition(work.state.xattr(name).map_or(&[][..], |found| found) == value)?;
            }
            OpKind::OmapSet { entries } => work.omap_set(entries),
            OpKind::OmapRemove { keys } => {
                work.need()?;
                work.omap_remove(keys);
            }
            OpKind::OmapRemoveRange { first, end } => {
                work.need()?;
                // What a store takes out at once is bounded, and a change that it refuses would end every copy's OSD.
                let (entries, more) = work.omap_range(first, &[], OMAP_ENTRIES_MAX)?;
                if more && entries.last().is_some_and(|(key, _)| key < end) {
                    return fail(ErrorCode::OVERFLOW);
                }
                work.omap_remove_range(first.clone(), end.clone());
            }
            OpKind::OmapClear => {
                work.need()?;
                work.omap_clear();
            }
            OpKind::OmapSetHeader { value } => work.omap_set_header(value.clone()),
            OpKind::OmapCompare { key, value } => {
                let found = work.omap_get(key)?;
                condition(found.as_deref().unwrap_or_default() == value)?;
            }
            OpKind::Watch { cookie, action } => self.watch(*cookie, *action)?,
            // They concern more than this object. The others have outputs.
            _ => return fail(ErrorCode::OPNOTSUPP),
        }
        Ok(())
    }

    /// An output, if there is room for it. What a vector that writes cannot keep for resends is left out.
    fn keep(&mut self, output: OpOutput) -> Result<OpOutput, Stop> {
        let len = match &output {
            OpOutput::Bytes(bytes) => bytes.len(),
            OpOutput::Keys { keys, .. } => keys.iter().map(|key| 8 + key.len()).sum(),
            OpOutput::Entries { entries, .. } => entries.iter().map(|(k, v)| 16 + k.len() + v.len()).sum(),
            _ => 0,
        };
        match self.room.checked_sub(len) {
            Some(room) => {
                self.room = room;
                Ok(output)
            }
            None if self.writes => Ok(OpOutput::None),
            None => fail(ErrorCode::OVERFLOW),
        }
    }

    /// As much of a page as there is room for.
    fn cut(&self, (mut entries, more): Page, len: impl Fn(&(Bytes, Bytes)) -> usize) -> Result<Page, Stop> {
        let mut room = PAGE_LEN_MAX.min(self.room);
        let fitting = entries.iter().take_while(|entry| {
            let rest = room.checked_sub(16 + len(entry));
            room = rest.unwrap_or(0);
            rest.is_some()
        });
        let count = fitting.count();
        if count == entries.len() {
            return Ok((entries, more));
        }
        if count == 0 && !self.writes {
            return fail(ErrorCode::OVERFLOW);
        }
        entries.truncate(count);
        Ok((entries, true))
    }

    /// Room for so much more of the object's bytes, in so many pieces, in the answer.
    fn reserve(&mut self, len: u64, pieces: usize) -> Result<(), Stop> {
        let len = self.data_len as u64 + len;
        let count = self.data.segments().len() + pieces;
        if len > PAYLOAD_LEN_MAX as u64 || count > SEGMENTS_MAX {
            return fail(ErrorCode::OVERFLOW);
        }
        self.data_len = len as usize;
        Ok(())
    }

    fn read(&mut self, offset: u64, len: u64) -> Result<OpOutput, Stop> {
        let (offset, len) = self.work.clip(offset, len);
        if self.writes || len == 0 {
            // What is read beside a change is not kept for resends, so nobody gets it.
            return Ok(if self.writes { OpOutput::None } else { OpOutput::Data { len: 0 } });
        }
        self.reserve(len, 1)?;
        let segment = self.work.read_segment(offset, len)?;
        let len = segment.as_ref().map_or(0, |segment| segment.data().len() as u64);
        if let Some(segment) = segment {
            self.data.push(segment);
        }
        Ok(OpOutput::Data { len })
    }

    fn sparse_read(&mut self, offset: u64, len: u64) -> Result<OpOutput, Stop> {
        if self.writes {
            return Ok(OpOutput::None);
        }
        let mut extents = self.work.extents(offset, len)?;
        let pieces_max = SEGMENTS_MAX.saturating_sub(self.data.segments().len()).max(1);
        coarsen(&mut extents, pieces_max);
        self.reserve(extents.iter().map(|(_, len)| len).sum(), extents.len())?;
        let mut lacks = false;
        for &(offset, len) in &extents {
            match self.work.read_segment(offset, len) {
                Ok(Some(segment)) => self.data.push(segment),
                Ok(None) => return fail(ErrorCode::IO),
                Err(Stop::Fault) => lacks = true,
                Err(stop) => return Err(stop),
            }
        }
        if lacks { Err(Stop::Fault) } else { Ok(OpOutput::Extents(extents.into())) }
    }

    fn watch(&mut self, cookie: u64, action: WatchAction) -> Result<(), Stop> {
        let work = &mut self.work;
        work.need()?;
        let Sender { client, addr, .. } = *self.sender;
        let at = work.state.watchers().iter().position(|w| (w.client, w.cookie) == (client, cookie));
        match (action, at) {
            (WatchAction::Watch { timeout_ms }, at) => {
                let watcher = Watcher { client, cookie, addr, timeout_ms };
                if at.is_some_and(|at| work.state.watchers()[at] == watcher) {
                    self.watch.push(WatchChange::Alive { client, cookie });
                    return Ok(());
                }
                let watchers = Arc::make_mut(work.state.watchers.get_or_insert_default());
                match at {
                    Some(at) => watchers[at] = watcher.clone(),
                    None if watchers.len() >= WATCHERS_MAX => return fail(ErrorCode::NOSPC),
                    None => watchers.push(watcher.clone()),
                }
                work.watchers_changed = true;
                self.watch.push(WatchChange::Begun(watcher));
            }
            (WatchAction::Ping, Some(_)) => self.watch.push(WatchChange::Alive { client, cookie }),
            (WatchAction::Ping, None) => return fail(ErrorCode::NOENT),
            // Over already: the first answer was lost, or it ran out.
            (WatchAction::Unwatch, None) => {}
            (WatchAction::Unwatch, Some(at)) => {
                let watchers = Arc::make_mut(work.state.watchers.get_or_insert_default());
                let watcher = watchers.remove(at);
                if watchers.is_empty() {
                    work.state.watchers = None;
                }
                work.watchers_changed = true;
                self.watch.push(WatchChange::Ended { watcher, is_removal: false });
            }
        }
        Ok(())
    }

    fn finish(self, request: &OpRequest, results: Vec<OpResult>, code: ErrorCode) -> Executed {
        let Run { mut work, stamp, data, watch, writes, .. } = self;
        let before = work.before();
        let stored = before.info.user_version;
        // A watch that began and ended within the vector leaves nothing.
        let has_watch = work.watchers_changed && before.watchers() != work.state.watchers();
        let changes = work.is_user_change || has_watch || work.info_changed;
        let too_long = changes && work.check_len().is_err();
        let nothing = !work.existed() && !work.state.exists;
        if code != ErrorCode::OK || too_long || !changes || nothing {
            let code = if code == ErrorCode::OK && too_long { ErrorCode::OVERFLOW } else { code };
            // Of a change that does not happen no watch begins or ends.
            let is_kept =
                |change: &WatchChange| code == ErrorCode::OK && matches!(change, WatchChange::Alive { .. });
            let watch = watch.into_iter().filter(is_kept).collect();
            let data = if writes { Payload::none() } else { data };
            return Executed::Read { results, data, code, user_version: stored, watch };
        }
        let mut user_version = stored;
        if work.is_user_change {
            user_version = stamp.user_version.max(stored + 1);
        }
        let deletes = !work.state.exists;
        if !deletes {
            if work.is_user_change {
                work.state.info.user_version = user_version;
                work.state.info.mtime = request.mtime;
            }
            if has_watch {
                match work.state.watchers() {
                    // The object was made anew, and they went with the old one.
                    [] if !work.watchers_changed => {}
                    [] => work.change.remove_xattr("", WATCHERS_XATTR),
                    watchers => work.change.set_xattr("", WATCHERS_XATTR, &encode_watchers(watchers)),
                }
            }
            if work.is_user_change || work.info_changed {
                work.change.set_xattr("", INFO_XATTR, &work.state.info.encode());
            }
        }
        let after = std::mem::take(&mut work.state);
        let change = work.change.finish(deletes);
        Executed::Write { change, results, code, deletes, after, user_version, watch }
    }
}

fn condition(holds: bool) -> Result<(), Stop> {
    if holds { Ok(()) } else { fail(ErrorCode::CANCELED) }
}

/// Joins neighbouring extents over their smallest gaps until there are at most `max`: the gaps read as zeros.
fn coarsen(extents: &mut Vec<(u64, u64)>, max: usize) {
    let mut gap = 4096;
    while extents.len() > max {
        extents.dedup_by(|next, last| {
            let joins = next.0 - (last.0 + last.1) <= gap;
            if joins {
                last.1 = next.0 + next.1 - last.0;
            }
            joins
        });
        gap *= 2;
    }
}
