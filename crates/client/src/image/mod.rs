//! Disk images in the layout of RBD format 2.
//!
//! | what | where |
//! |---|---|
//! | an open image: reading, writing, resizing | here |
//! | making, listing and removing images | `catalog` |
//! | the exclusive lock | `lock` |
//! | where bytes are | `layout` |
//! | whole images in and out of files | `transfer` |
//! | calls of object classes as bytes | `call` |
//! | names, keys and bits | `names` |

mod call;
mod catalog;
mod error;
mod layout;
mod lock;
mod names;
mod transfer;

pub use catalog::{CreateOptions, create, list, remove};
pub use error::ImageError;
pub use layout::is_zero;
pub use lock::LockPolicy;
pub use names::{FEATURE_EXCLUSIVE_LOCK, FEATURE_LAYERING, ORDER_DEFAULT};
pub use transfer::{Progress, export, import};

use crate::io::{Ack, Notice, ObjectIo, OpAnswer, OpError, Watch, WatchHandler};
use bytes::Bytes;
use cairn_wire::op::{Op, OpFlags, OpKind, OpOutput};
use cairn_wire::{ErrorCode, Payload};
use call::{Header, well_formed};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use layout::{Extent, Layout};
use lock::{ImageLock, Subject};
use names::{FEATURES_WRITABLE, data_object, header_object, id_object};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Objects of one request that are asked at a time; the client bounds all of them together.
const OBJECTS_AT_A_TIME: usize = 16;

/// How an image is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Changes nothing, watches nothing.
    ReadOnly,
    /// Takes the lock at the first write.
    ReadWrite(LockPolicy),
}

/// What is known of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Objects have `2^order` bytes.
    pub order: u8,
    /// Bits.
    pub features: u64,
    /// What the names of its data objects begin with.
    pub object_prefix: String,
}

/// A part of what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes, at least one.
    Data(Bytes),
    /// This many zeros, at least one, of which none is stored.
    Zero(u64),
}

impl Piece {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Data(data) => data.len() as u64,
            Piece::Zero(len) => *len,
        }
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An open image. Clones are handles of the same; [`Image::close`] gives the lock back.
#[derive(Clone)]
pub struct Image<I: ObjectIo> {
    inner: Arc<Inner<I>>,
}

struct Inner<I: ObjectIo> {
    io: I,
    name: String,
    id: String,
    header: String,
    object_prefix: String,
    layout: Layout,
    features: u64,
    size: AtomicU64,
    mode: OpenMode,
    lock: ImageLock,
    /// None if it is open for reading only.
    watch: OnceLock<Watch>,
    closed: AtomicBool,
}

/// The id of the image of a name.
async fn id_of(io: &impl ObjectIo, name: &str) -> Result<String, ImageError> {
    let object = id_object(name);
    let get = call::call("rbd", "get_id", |_| {});
    match call::run(io, &object, vec![get]).await {
        Ok(answer) => well_formed(call::read_string(&answer, 0), name, "id", &object),
        Err(error) if error.is_not_found() => {
            Err(ImageError::NotFound { pool: io.pool_name().into(), name: name.into() })
        }
        Err(error) => Err(error.into()),
    }
}

async fn header_of(io: &impl ObjectIo, name: &str, id: &str) -> Result<Header, ImageError> {
    let object = header_object(id);
    let answer = call::run(io, &object, call::header_vector()).await.map_err(|error| {
        if error.is_not_found() {
            ImageError::NotFound { pool: io.pool_name().into(), name: name.into() }
        } else {
            error.into()
        }
    })?;
    let header = well_formed(call::read_header(&answer), name, "header", &object)?;
    if !(names::ORDER_MIN..=names::ORDER_MAX).contains(&header.order) {
        return Err(ImageError::BadOrder { order: header.order });
    }
    Ok(header)
}

/// What there is to know of an image, without opening it.
///
/// # Errors
/// When there is none, or its header cannot be read.
pub async fn info(io: &impl ObjectIo, name: &str) -> Result<ImageInfo, ImageError> {
    let id = id_of(io, name).await?;
    let Header { size, order, features, object_prefix } = header_of(io, name, &id).await?;
    Ok(ImageInfo { name: name.into(), id, size, order, features, object_prefix })
}

impl<I: ObjectIo> Image<I> {
    /// Opens an image. What other clients tell it is acted on by tasks ([`ObjectIo::spawn`]).
    ///
    /// # Errors
    /// When there is none, its header cannot be read, or it cannot be written to by this version.
    pub async fn open(io: &I, name: &str, mode: OpenMode) -> Result<Self, ImageError> {
        let id = id_of(io, name).await?;
        let Header { size, order, features, object_prefix } = header_of(io, name, &id).await?;
        if mode != OpenMode::ReadOnly && features & !FEATURES_WRITABLE != 0 {
            return Err(ImageError::Features { name: name.into(), features });
        }
        let policy = match mode {
            OpenMode::ReadWrite(policy) => policy,
            OpenMode::ReadOnly => LockPolicy::default(),
        };
        let image = Image {
            inner: Arc::new(Inner {
                io: io.clone(),
                name: name.into(),
                header: header_object(&id),
                id,
                object_prefix,
                layout: Layout { order },
                features,
                size: AtomicU64::new(size),
                mode,
                lock: ImageLock::new(policy),
                watch: OnceLock::new(),
                closed: AtomicBool::new(false),
            }),
        };
        if mode != OpenMode::ReadOnly {
            let ears = Arc::new(Ears { image: Arc::downgrade(&image.inner) });
            let watch = io.watch(&image.inner.header, ears).await?;
            let _ = image.inner.watch.set(watch);
            // What was changed between the reading of the header and the watch was not heard.
            image.inner.refresh().await?;
        }
        Ok(image)
    }

    /// What is known of it.
    pub fn info(&self) -> ImageInfo {
        let inner = &*self.inner;
        ImageInfo {
            name: inner.name.clone(),
            id: inner.id.clone(),
            size: self.size(),
            order: inner.layout.order,
            features: inner.features,
            object_prefix: inner.object_prefix.clone(),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.inner.size.load(Ordering::Acquire)
    }

    /// Bytes of an object.
    pub fn object_len(&self) -> u64 {
        self.inner.layout.object_len()
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.inner.mode == OpenMode::ReadOnly
    }

    /// Takes the lock now instead of at the first write.
    ///
    /// # Errors
    /// [`ImageError::InUse`] when its owner keeps it.
    pub async fn acquire_lock(&self) -> Result<(), ImageError> {
        self.inner.writable()?;
        self.inner.lock.held(self.inner.subject()?).await.map(drop)
    }

    /// Reads. The pieces together have exactly `len` bytes.
    ///
    /// # Errors
    /// Outside the image, or what its objects answer.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Vec<Piece>, ImageError> {
        let inner = &*self.inner;
        inner.check_range(offset, len)?;
        let mut extents = inner.layout.extents(offset, len);
        let (Some(first), second) = (extents.next(), extents.next()) else { return Ok(Vec::new()) };
        let Some(second) = second else { return inner.read_extent(first).await };
        let all = [first, second].into_iter().chain(extents);
        let parts: Vec<Vec<Piece>> = stream::iter(all.map(|extent| inner.read_extent(extent)))
            .buffered(OBJECTS_AT_A_TIME)
            .try_collect()
            .await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Writes. When it returns, every replica has it durably.
    ///
    /// # Errors
    /// As [`Image::read`]; when the lock is not to be had.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), ImageError> {
        let inner = &*self.inner;
        inner.writable()?;
        inner.check_range(offset, data.len() as u64)?;
        let _held = inner.lock.held(inner.subject()?).await?;
        inner
            .for_extents(offset, data.len() as u64, |extent| {
                let part = data.slice(extent.at as usize..(extent.at + extent.len) as usize);
                let op = OpKind::Write { offset: extent.offset, len: extent.len };
                (vec![op.into()], Payload::of(extent.offset, part))
            })
            .await
    }

    /// Makes a range read as zeros and gives its space back.
    ///
    /// # Errors
    /// As [`Image::write`].
    pub async fn discard(&self, offset: u64, len: u64) -> Result<(), ImageError> {
        let inner = &*self.inner;
        inner.writable()?;
        inner.check_range(offset, len)?;
        let _held = inner.lock.held(inner.subject()?).await?;
        let object_len = inner.layout.object_len();
        inner
            .for_extents(offset, len, |extent| {
                let op = if extent.len == object_len {
                    OpKind::Delete
                } else if extent.offset + extent.len == object_len {
                    OpKind::Truncate { size: extent.offset }
                } else {
                    OpKind::Zero { offset: extent.offset, len: extent.len }
                };
                (vec![op.into()], Payload::none())
            })
            .await
    }

    /// Everything answered before is durable: it was when it was answered.
    ///
    /// # Errors
    /// When the image may not be used any more.
    pub async fn flush(&self) -> Result<(), ImageError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(ImageError::Closed);
        }
        Ok(())
    }

    /// Which parts of a range have objects: (length, whether something is stored), one for each object, neighbours
    /// of a kind joined. At most `objects_max` objects are asked, so the answer may end before the range.
    ///
    /// # Errors
    /// As [`Image::read`].
    pub async fn allocated(
        &self,
        offset: u64,
        len: u64,
        objects_max: usize,
    ) -> Result<Vec<(u64, bool)>, ImageError> {
        let inner = &*self.inner;
        inner.check_range(offset, len)?;
        let extents = inner.layout.extents(offset, len).take(objects_max);
        let parts: Vec<(u64, bool)> = stream::iter(extents.map(|extent| async move {
            let object = data_object(&inner.object_prefix, extent.object);
            match call::run(&inner.io, &object, vec![OpKind::Stat.into()]).await {
                Ok(_) => Ok((extent.len, true)),
                Err(error) if error.is_not_found() => Ok((extent.len, false)),
                Err(error) => Err(ImageError::Op(error)),
            }
        }))
        .buffered(OBJECTS_AT_A_TIME)
        .try_collect()
        .await?;
        let mut joined: Vec<(u64, bool)> = Vec::new();
        for (len, stored) in parts {
            match joined.last_mut() {
                Some(last) if last.1 == stored => last.0 += len,
                _ => joined.push((len, stored)),
            }
        }
        Ok(joined)
    }

    /// Makes it larger or, if `shrink`, smaller: then what lies beyond is removed.
    ///
    /// # Errors
    /// As [`Image::write`]; [`ImageError::WouldShrink`].
    pub async fn resize(&self, size: u64, shrink: bool) -> Result<(), ImageError> {
        let inner = &*self.inner;
        inner.writable()?;
        catalog::check_size(size, inner.layout)?;
        let held = inner.lock.held(inner.subject()?).await?;
        inner.refresh().await?;
        let old = self.size();
        if size < old && !shrink {
            return Err(ImageError::WouldShrink { name: inner.name.clone(), size });
        }
        if size < old {
            // No new request reaches beyond; should this be interrupted, the cut-off part reads as zeros.
            inner.size.store(size, Ordering::Release);
            inner.trim(size, old, |_, _| {}).await?;
        }
        call::run_even_full(&inner.io, &inner.header, vec![call::set_size(size)]).await?;
        inner.size.store(size, Ordering::Release);
        drop(held);
        lock::tell(&inner.subject()?, call::Notice::HeaderUpdate).await;
        Ok(())
    }

    /// Gives the lock back and ends the watch. Other handles of the image are of no use afterwards.
    ///
    /// # Errors
    /// When the cluster did not take it; a dead owner's lock is broken by the next one.
    pub async fn close(&self) -> Result<(), ImageError> {
        let inner = &*self.inner;
        inner.closed.store(true, Ordering::Release);
        let Some(watch) = inner.watch.get() else { return Ok(()) };
        let released = inner.lock.release(inner.subject()?).await;
        let ended = inner.io.unwatch(watch).await;
        released?;
        Ok(ended?)
    }
}

impl<I: ObjectIo> Inner<I> {
    fn subject(&self) -> Result<Subject<'_, I>, ImageError> {
        let watch = self.watch.get().ok_or_else(|| ImageError::ReadOnly { name: self.name.clone() })?;
        Ok(Subject { io: &self.io, name: &self.name, header: &self.header, watch: watch.cookie })
    }

    fn writable(&self) -> Result<(), ImageError> {
        if self.mode == OpenMode::ReadOnly {
            return Err(ImageError::ReadOnly { name: self.name.clone() });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(ImageError::Closed);
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<(), ImageError> {
        let size = self.size.load(Ordering::Acquire);
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(ImageError::OutOfRange { size }),
        }
    }

    /// Reads the size again.
    async fn refresh(&self) -> Result<(), ImageError> {
        let header = header_of(&self.io, &self.name, &self.id).await?;
        self.size.store(header.size, Ordering::Release);
        Ok(())
    }

    async fn read_extent(&self, extent: Extent) -> Result<Vec<Piece>, ImageError> {
        let object = data_object(&self.object_prefix, extent.object);
        let op = OpKind::Read { offset: extent.offset, len: extent.len };
        let mut pieces = Vec::with_capacity(1);
        let mut got = 0;
        match call::run(&self.io, &object, vec![op.into()]).await {
            Ok(OpAnswer { results, data, .. }) => {
                let said = match results.first().map(|result| &result.output) {
                    Some(OpOutput::Data { len }) => *len,
                    _ => 0,
                };
                for segment in data.segments() {
                    got += segment.data().len() as u64;
                    pieces.push(Piece::Data(segment.data().clone()));
                }
                if said != got || got > extent.len {
                    return Err(OpError::BadAnswer { object }.into());
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        if got < extent.len {
            pieces.push(Piece::Zero(extent.len - got));
        }
        Ok(pieces)
    }

    /// Carries out a change of each object of a range.
    async fn for_extents(
        &self,
        offset: u64,
        len: u64,
        vector: impl Fn(Extent) -> (Vec<Op>, Payload),
    ) -> Result<(), ImageError> {
        let mut extents = self.layout.extents(offset, len);
        let (Some(first), second) = (extents.next(), extents.next()) else { return Ok(()) };
        let change = |extent: Extent| {
            let (ops, data) = vector(extent);
            self.change(extent.object, ops, data)
        };
        let Some(second) = second else { return change(first).await };
        let mut changes = stream::iter([first, second].into_iter().chain(extents).map(change))
            .buffer_unordered(OBJECTS_AT_A_TIME);
        // All of them end before this does: none is under way when the caller hears of an error.
        let mut outcome = Ok(());
        while let Some(changed) = changes.next().await {
            outcome = outcome.and(changed);
        }
        outcome
    }

    /// A change of one object; taking something away from what is not there is done.
    async fn change(&self, object: u64, ops: Vec<Op>, data: Payload) -> Result<(), ImageError> {
        let takes_away = matches!(
            ops.first().map(|op| &op.kind),
            Some(OpKind::Delete | OpKind::Truncate { .. } | OpKind::Zero { .. })
        );
        let flags = if takes_away { OpFlags::FULL_TRY } else { OpFlags::default() };
        let object = data_object(&self.object_prefix, object);
        match self.io.operate(&object, ops, data, flags).await {
            Ok(_) => Ok(()),
            Err(error) if takes_away && error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what lies in `[from, to)` of an image that shall have no more than `from` bytes. `told` hears of
    /// objects done, of how many.
    async fn trim(&self, from: u64, to: u64, told: impl Fn(u64, u64)) -> Result<(), ImageError> {
        let object_len = self.layout.object_len();
        let within = from % object_len;
        if within != 0 {
            let op = OpKind::Truncate { size: within };
            self.change(from / object_len, vec![op.into()], Payload::none()).await?;
        }
        let (first, end) = (from.div_ceil(object_len), self.layout.object_count(to));
        let mut removals = stream::iter(
            (first..end).map(|object| self.change(object, vec![OpKind::Delete.into()], Payload::none())),
        )
        .buffer_unordered(OBJECTS_AT_A_TIME);
        let mut done = 0;
        while let Some(removed) = removals.next().await {
            removed?;
            done += 1;
            told(done, end.saturating_sub(first));
        }
        Ok(())
    }
}

/// Hears what other clients of the image say.
struct Ears<I: ObjectIo> {
    image: Weak<Inner<I>>,
}

impl<I: ObjectIo> Ears<I> {
    /// Lets `work` run on a task of its own, if the image is still open.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Inner<I>>) -> F) {
        if let Some(image) = self.image.upgrade() {
            let io = image.io.clone();
            io.spawn(work(image));
        }
    }
}

impl<I: ObjectIo> WatchHandler for Ears<I> {
    fn notified(&self, notice: Notice, ack: Ack) {
        match call::Notice::decode(&notice.payload) {
            call::Notice::RequestLock => self.spawn(|image| async move {
                if notice.notifier == image.io.client_id() || !image.lock.is_held() {
                    return;
                }
                if image.lock.policy() == LockPolicy::Keep {
                    return ack.reply(call::encode_response(ErrorCode::ROFS.0));
                }
                ack.reply(call::encode_response(0));
                let released = match image.subject() {
                    Ok(subject) => image.lock.release(subject).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = released {
                    tracing::warn!(image = image.name, %error, "could not give the lock up");
                }
            }),
            call::Notice::HeaderUpdate => self.spawn(|image| async move {
                // Acknowledged when it has taken effect: who resized knows that all see it.
                if let Err(error) = image.refresh().await {
                    tracing::warn!(image = image.name, %error, "could not read the header again");
                }
                drop(ack);
            }),
            _ => {}
        }
    }

    fn renewed(&self) {
        self.spawn(|image| async move {
            if let Ok(subject) = image.subject() {
                image.lock.verify(subject).await;
            }
            if let Err(error) = image.refresh().await {
                tracing::warn!(image = image.name, %error, "could not read the header again");
            }
        });
    }

    fn ended(&self, why: OpError) {
        self.spawn(|image| async move { image.lock.lose(why.to_string()).await });
    }
}
