//! Answers to the core's questions, over any engine, in short steps: everything else waits for the store's thread.

use super::{OWN_POOL, meta_object};
use crate::core::{Query, QueryAnswer};
use crate::object::{Fault, ObjectState, Supplied, VERSION_XATTR, decode_version, pack};
use bytes::Bytes;
use cairn_pg::{ListRange, ObjectKey, Position, Version};
use cairn_store::device::Device;
use cairn_store::{Engine, Op, ReadData, ReadError, ReadRequest, Stat, StoreError, Transaction};
use cairn_types::{ObjectId, PgId};
use smallvec::SmallVec;

/// Objects looked at in one step.
const STEP_OBJECTS: usize = 128;
/// Omap entries looked at in one step.
const STEP_ENTRIES: usize = 1024;

/// A question being answered.
#[derive(Debug)]
pub struct Answering {
    pgid: PgId,
    state: State,
}

#[derive(Debug)]
enum State {
    Faults { object: ObjectKey, faults: SmallVec<[Fault; 2]> },
    Object { object: ObjectKey, stat: Option<Stat>, omap: Vec<(Bytes, Bytes)> },
    List { range: ListRange, found: Vec<(ObjectKey, Version)> },
    Tally { after: Option<ObjectId>, objects: u64, bytes: u64 },
}

/// Where a question stands after a step.
#[derive(Debug)]
pub enum Step {
    /// Answered.
    Done(QueryAnswer),
    /// To be asked again.
    Again(Answering),
    /// These reads first, then [`Reading::finish`].
    Read(Vec<ReadRequest>, Reading),
}

/// What waits for bytes of objects.
#[derive(Debug)]
pub struct Reading {
    then: Then,
}

#[derive(Debug)]
enum Then {
    /// Answers so far; `None` takes the next read.
    Faults(SmallVec<[Option<Supplied>; 2]>),
    Object {
        stat: Stat,
        version: Version,
        extents: Vec<(u64, u64)>,
        omap: Vec<(Bytes, Bytes)>,
        what: String,
    },
}

impl Answering {
    /// A question about a group.
    pub fn new(pgid: PgId, query: Query) -> Answering {
        let state = match query {
            Query::Faults { object, faults } => State::Faults { object, faults },
            Query::Object { object } => State::Object { object, stat: None, omap: Vec::new() },
            Query::List { range } => State::List { range, found: Vec::new() },
            Query::Tally => State::Tally { after: None, objects: 0, bytes: 0 },
        };
        Answering { pgid, state }
    }

    /// The reads that are all it takes, when it is about data and nothing else; all others need
    /// [`Answering::step`].
    pub fn plain_reads(&self) -> Option<(Vec<ReadRequest>, Reading)> {
        let State::Faults { object, faults } = &self.state else { return None };
        let pg = self.pgid;
        let read = |fault: &Fault| match fault {
            Fault::Data { offset, len } => {
                Some(ReadRequest { pg, object: ObjectId::clone(object), offset: *offset, len: *len })
            }
            _ => None,
        };
        let reads = faults.iter().map(read).collect::<Option<Vec<_>>>()?;
        let answers = faults.iter().map(|_| None).collect();
        Some((reads, Reading { then: Then::Faults(answers) }))
    }

    /// Goes on. On the store's thread.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn step<D: Device>(self, engine: &mut Engine<D>) -> Result<Step, StoreError> {
        let pgid = self.pgid;
        match self.state {
            State::Faults { object, faults } => answer_faults(engine, pgid, &object, &faults),
            State::Object { object, stat, omap } => object_step(engine, pgid, object, stat, omap),
            State::List { range, found } => list_step(engine, pgid, range, found),
            State::Tally { after, objects, bytes } => tally_step(engine, pgid, after, objects, bytes),
        }
    }
}

/// What is damaged is reported and answered so; that the store has stopped ends everything.
fn unless_damaged<T>(
    what: &dyn std::fmt::Display,
    result: Result<T, ReadError>,
) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ReadError::NoObject { .. }) => Ok(None),
        Err(ReadError::Store(error)) => Err(error),
        Err(error) => {
            tracing::error!(object = %what, %error, "an object cannot be read");
            Ok(None)
        }
    }
}

/// The same of an object whose state has been asked for before: that it is not there any more is damage, and not an object
/// without content.
fn known_to_be_there<T>(object: &ObjectKey, result: Result<T, ReadError>) -> Result<Option<T>, StoreError> {
    if let Err(error @ ReadError::NoObject { .. }) = &result {
        tracing::error!(%object, %error, "an object cannot be read");
    }
    unless_damaged(object, result)
}

fn answer_faults<D: Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
    object: &ObjectKey,
    faults: &[Fault],
) -> Result<Step, StoreError> {
    let mut reads = Vec::new();
    let mut answers: SmallVec<[Option<Supplied>; 2]> = SmallVec::new();
    for fault in faults {
        let answer = match fault {
            Fault::Data { offset, len } => {
                reads.push(ReadRequest {
                    pg: pgid,
                    object: ObjectId::clone(object),
                    offset: *offset,
                    len: *len,
                });
                answers.push(None);
                continue;
            }
            Fault::Attrs => {
                let stat = match engine.stat(pgid, object) {
                    Ok(stat) => Some(stat),
                    Err(ReadError::NoObject { .. }) => None,
                    Err(ReadError::Store(error)) => return Err(error),
                    Err(error) => {
                        tracing::error!(%object, %error, "an object cannot be read");
                        answers.push(Some(Supplied::Unreadable));
                        continue;
                    }
                };
                match ObjectState::from_stored(stat) {
                    Ok(state) => Supplied::Attrs(state),
                    Err(error) => {
                        tracing::error!(%object, %error, "an object cannot be used");
                        Supplied::Unreadable
                    }
                }
            }
            Fault::Extents { offset, len } => {
                let extents = engine.extents(pgid, object, *offset, *len);
                known_to_be_there(object, extents)?.map_or(Supplied::Unreadable, Supplied::Extents)
            }
            Fault::OmapKeys(keys) => {
                let entries = engine.omap_get(pgid, object, keys);
                known_to_be_there(object, entries)?.map_or(Supplied::Unreadable, Supplied::OmapKeys)
            }
            Fault::OmapRange { after, prefix, max } => {
                let page = omap_range(engine, pgid, object, after, prefix, *max);
                known_to_be_there(object, page)?.unwrap_or(Supplied::Unreadable)
            }
        };
        answers.push(Some(answer));
    }
    if reads.is_empty() {
        return Ok(Step::Done(QueryAnswer::Supplied(answers.into_iter().flatten().collect())));
    }
    Ok(Step::Read(reads, Reading { then: Then::Faults(answers) }))
}

/// Entries with the prefix lie together: from the later of the two beginnings to the first without it.
fn omap_range<D: Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
    object: &ObjectKey,
    after: &Bytes,
    prefix: &Bytes,
    max: u32,
) -> Result<Supplied, ReadError> {
    let max = max as usize;
    let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
    let is_inside = |key: &Bytes| key.starts_with(prefix);
    let mut from = after.clone();
    if !prefix.is_empty() && after < prefix {
        // The key that is the prefix counts, and listing begins after a key.
        entries.extend(engine.omap_get(pgid, object, std::slice::from_ref(prefix))?);
        from = prefix.clone();
    }
    let first = (!from.is_empty()).then_some(&from[..]);
    let page = engine.omap_list(pgid, object, first, max + 1)?;
    entries.extend(page.into_iter().take_while(|(key, _)| is_inside(key)));
    let more = entries.len() > max;
    entries.truncate(max);
    Ok(Supplied::OmapRange { entries, more })
}

fn object_step<D: Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
    object: ObjectKey,
    stat: Option<Stat>,
    mut omap: Vec<(Bytes, Bytes)>,
) -> Result<Step, StoreError> {
    let absent = || Ok(Step::Done(QueryAnswer::Object(None)));
    let stat = match stat {
        Some(stat) => stat,
        None => match unless_damaged(&object, engine.stat(pgid, &object))? {
            Some(stat) => stat,
            None => return absent(),
        },
    };
    let after = omap.last().map(|(key, _)| key.clone());
    let page = engine.omap_list(pgid, &object, after.as_deref(), STEP_ENTRIES);
    let Some(page) = unless_damaged(&object, page)? else { return absent() };
    let more = page.len() == STEP_ENTRIES;
    omap.extend(page);
    if more {
        return Ok(Step::Again(Answering { pgid, state: State::Object { object, stat: Some(stat), omap } }));
    }
    let Some(version) = version_of(&object, &stat) else { return absent() };
    let extents = unless_damaged(&object, engine.extents(pgid, &object, 0, stat.size))?;
    let Some(extents) = extents else { return absent() };
    let read =
        |&(offset, len): &(u64, u64)| ReadRequest { pg: pgid, object: ObjectId::clone(&object), offset, len };
    let reads: Vec<ReadRequest> = extents.iter().map(read).collect();
    let reading = Reading { then: Then::Object { stat, version, extents, omap, what: object.to_string() } };
    if reads.is_empty() {
        return Ok(Step::Done(reading.finish(Vec::new())?));
    }
    Ok(Step::Read(reads, reading))
}

/// The version recorded with an object; one without cannot be told from another and counts as damaged.
fn version_of(object: &ObjectId, stat: &Stat) -> Option<Version> {
    let version = stat.xattrs.get(VERSION_XATTR).map(|bytes| decode_version(bytes));
    if version.as_ref().is_none_or(Result::is_err) {
        tracing::error!(%object, "an object has no version");
    }
    version?.ok()
}

fn list_step<D: Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
    range: ListRange,
    mut found: Vec<(ObjectKey, Version)>,
) -> Result<Step, StoreError> {
    let limit = range.limit.unwrap_or(usize::MAX);
    let done = |found| Ok(Step::Done(QueryAnswer::Listed(found)));
    let begin = match &range.begin {
        Position::Max => return done(found),
        Position::Min => None,
        Position::At(object) => Some(object.clone()),
    };
    let page = engine.list(pgid, begin.as_deref(), STEP_OBJECTS)?;
    let more = page.len() == STEP_OBJECTS;
    let mut last = None;
    for object in page {
        let object = ObjectKey::new(object);
        last = Some(object.clone());
        if object.pool == OWN_POOL {
            continue;
        }
        if found.len() == limit || !range.end.covers(&object) {
            return done(found);
        }
        let Some(stat) = unless_damaged(&object, engine.stat(pgid, &object))? else {
            return Ok(Step::Done(QueryAnswer::Damaged));
        };
        match version_of(&object, &stat) {
            Some(version) => found.push((object, version)),
            None => return Ok(Step::Done(QueryAnswer::Damaged)),
        }
    }
    match last {
        Some(last) if more => {
            let range = ListRange { begin: Position::At(last), ..range };
            Ok(Step::Again(Answering { pgid, state: State::List { range, found } }))
        }
        _ => done(found),
    }
}

fn tally_step<D: Device>(
    engine: &mut Engine<D>,
    pgid: PgId,
    after: Option<ObjectId>,
    mut objects: u64,
    mut bytes: u64,
) -> Result<Step, StoreError> {
    let page = engine.list(pgid, after.as_ref(), STEP_OBJECTS)?;
    let more = page.len() == STEP_OBJECTS;
    for object in page.iter().filter(|object| object.pool != OWN_POOL) {
        if let Some(stat) = unless_damaged(object, engine.stat(pgid, object))? {
            objects += 1;
            bytes += stat.size;
        }
    }
    if more {
        let state = State::Tally { after: page.into_iter().last(), objects, bytes };
        return Ok(Step::Again(Answering { pgid, state }));
    }
    Ok(Step::Done(QueryAnswer::Tallied { objects, bytes }))
}

impl Reading {
    /// With what the reads gave, in their order.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn finish(self, reads: Vec<Result<ReadData, ReadError>>) -> Result<QueryAnswer, StoreError> {
        match self.then {
            Then::Faults(answers) => {
                let mut reads = reads.into_iter();
                let mut supplied = SmallVec::new();
                for answer in answers {
                    let read = match answer {
                        Some(answer) => {
                            supplied.push(answer);
                            continue;
                        }
                        None => reads.next(),
                    };
                    supplied.push(match read {
                        Some(Ok(data)) => Supplied::Data(data),
                        Some(Err(ReadError::Store(error))) => return Err(error),
                        Some(Err(error)) => {
                            tracing::error!(%error, "an object cannot be read");
                            Supplied::Unreadable
                        }
                        None => Supplied::Unreadable,
                    });
                }
                Ok(QueryAnswer::Supplied(supplied))
            }
            Then::Object { stat, version, extents, omap, what } => {
                let mut data = Vec::with_capacity(reads.len());
                for read in reads {
                    match unless_damaged(&what, read)? {
                        Some(read) => data.push(read),
                        None => return Ok(QueryAnswer::Object(None)),
                    }
                }
                let packed = pack(&stat, &extents, &data, &omap);
                if let Err(error) = &packed {
                    tracing::error!(object = what, %error, "an object cannot be packed");
                }
                Ok(QueryAnswer::Object(packed.ok().map(|blob| (version, blob))))
            }
        }
    }
}

/// The next transaction of sweeping out a group that is gone, after [`super::begin_removal`]; `None` when nothing of
/// it is left. On the store's thread; ask again when the transaction is durable.
///
/// # Errors
/// When the store has stopped.
pub fn sweep<D: Device>(engine: &mut Engine<D>, pgid: PgId) -> Result<Option<Transaction>, StoreError> {
    if !engine.collections().contains(&pgid) {
        return Ok(None);
    }
    let left = engine.list(pgid, None, STEP_OBJECTS)?;
    if left.is_empty() {
        return Ok(Some(Transaction { ops: vec![Op::RemoveCollection(pgid)] }));
    }
    debug_assert!(left.first() != Some(&meta_object()), "the group was not made to be gone");
    let ops = left.into_iter().map(|object| Op::Remove(pgid, object)).collect();
    Ok(Some(Transaction { ops }))
}
