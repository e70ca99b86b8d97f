//! The store for other threads: one thread owns the engine and its device, handles give it work.
//!
//! What waits when the thread looks is taken in as a whole, so that it shares records and flushes. An idle
//! store sleeps in the device's queue until an operation ends or a handle wakes it.

use crate::device::file::{Access, FileDevice, FileMedium, QueueKind};
use crate::device::{Device, Wait, Waker};
use crate::engine::runner::Threaded;
use crate::engine::{
    Counters, Engine, Event, OpenOptions, ReadData, ReadRequest, Stat, Usage, payload_bytes,
};
use crate::error::{ReadError, StoreError, SubmitError, TransactionError};
use crate::limits::{QUEUE_BYTES_MAX, QUEUE_TRANSACTIONS_MAX};
use crate::txn::Transaction;
use bytes::Bytes;
use cairn_types::{ObjectId, PgId};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// Requests taken in and not answered. The engine's own bound, so that it never refuses one.
const REQUESTS_MAX: usize = QUEUE_TRANSACTIONS_MAX;
/// Payload bytes of those; a larger one is taken in when nothing else waits.
const REQUEST_BYTES_MAX: usize = QUEUE_BYTES_MAX;

/// For how long nothing must have been asked for until it puts in place what lies in the log. Longer than pauses in a load, shorter
/// than pauses between loads; nothing is lost by a wrong guess but the merging of what is written over.
const REST_AFTER: Duration = Duration::from_millis(250);

type OnCommit = Box<dyn FnOnce(Result<(), TransactionError>) + Send>;
type OnRead = Box<dyn FnOnce(Result<ReadData, ReadError>) + Send>;
/// Answers by itself; what it would answer to is told by its being dropped.
type Question = Box<dyn FnOnce(&mut Engine<FileDevice>) + Send>;

/// The one who waits for the answer to a question; told that there will be none when it is dropped.
struct Asker<F: FnOnce(Result<T, StoreError>), T> {
    done: Option<F>,
    answer: std::marker::PhantomData<fn(T)>,
}

impl<F: FnOnce(Result<T, StoreError>), T> Asker<F, T> {
    fn new(done: F) -> Self {
        Asker { done: Some(done), answer: std::marker::PhantomData }
    }

    fn tell(mut self, answer: T) {
        if let Some(done) = self.done.take() {
            done(Ok(answer));
        }
    }
}

impl<F: FnOnce(Result<T, StoreError>), T> Drop for Asker<F, T> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(StoreError::Closed));
        }
    }
}

/// A request that was not taken in, given back.
#[derive(Debug)]
pub struct Rejected<T> {
    /// The request.
    pub request: T,
    /// Why.
    pub error: SubmitError,
}

/// A handle of an open store. Clones are handles of the same; when the last one goes, the store is closed.
///
/// Completions are called on the store's thread, in the order of the transactions: they must be short and not
/// wait. They may call the forms that take a completion; those never wait there.
#[derive(Clone, Debug)]
pub struct Store {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
}

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// There is room again, or never will be.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Not seen by the thread yet.
    requests: VecDeque<Request>,
    /// Taken in and not answered.
    load: Load,
    /// Callers that wait for room.
    waiters: usize,
    closed: bool,
    /// Of the thread's device, while it runs: a waker may hold the device open.
    waker: Option<Arc<dyn Waker>>,
    /// Why the thread ended.
    end: Option<StoreError>,
}

/// Requests, and the payload they carry.
#[derive(Clone, Copy, Default)]
struct Load {
    requests: usize,
    bytes: usize,
}

impl Load {
    fn has_room(self, bytes: usize) -> bool {
        self.requests == 0 || (self.requests < REQUESTS_MAX && self.bytes + bytes <= REQUEST_BYTES_MAX)
    }

    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn sub(&mut self, other: Load) {
        self.requests -= other.requests;
        self.bytes -= other.bytes;
    }
}

enum Request {
    Submit(Transaction, OnCommit),
    Read(ReadRequest, OnRead),
    Ask(Question),
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Request::Submit(transaction, _) => payload_bytes(transaction),
            _ => 0,
        }
    }
}

impl Store {
    /// Opens the store on a file or block device and starts its thread.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(path: &Path, options: &OpenOptions, queue: QueueKind) -> Result<Self, StoreError> {
        let (opened, outcome) = sync_channel(1);
        let (path, options) = (path.to_owned(), options.clone());
        // Opened on its thread: an io_uring belongs to the thread that made it.
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || match open(&path, &options, queue) {
                Ok((shared, engine)) => {
                    let sent = opened.send(Ok(Arc::clone(&shared)));
                    drop(opened);
                    if sent.is_ok() {
                        serve(&shared, engine);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            })
            .map_err(thread_error)?;
        let thread_id = thread.thread().id();
        match outcome.recv() {
            Ok(Ok(shared)) => {
                Ok(Store { handle: Arc::new(Handle { shared, thread: Mutex::new(Some(thread)), thread_id }) })
            }
            Ok(Err(error)) => {
                // So that the device is free again when the caller hears of it.
                let _ = thread.join();
                Err(error)
            }
            Err(_) => match thread.join() {
                Err(payload) => Err(StoreError::of_panic(&*payload)),
                Ok(()) => Err(StoreError::Closed),
            },
        }
    }

    /// Gives it a transaction, waiting while too much is under way. `done` is called when it is durable, or
    /// was refused; not at all if this returns an error.
    ///
    /// # Errors
    /// When the store has stopped, with the cause.
    pub fn submit(
        &self,
        transaction: Transaction,
        done: impl FnOnce(Result<(), TransactionError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.push(Request::Submit(transaction, Box::new(done)))
    }

    /// As [`Self::submit`], never waiting.
    ///
    /// # Errors
    /// [`SubmitError::Busy`], or as [`Self::submit`]; with the transaction.
    pub fn try_submit(
        &self,
        transaction: Transaction,
        done: impl FnOnce(Result<(), TransactionError>) + Send + 'static,
    ) -> Result<(), Box<Rejected<Transaction>>> {
        self.try_push(Request::Submit(transaction, Box::new(done))).map_err(|rejected| match *rejected {
            (Request::Submit(request, _), error) => Box::new(Rejected { request, error }),
            _ => unreachable!("a request comes back as it was given"),
        })
    }

    /// Gives it a read, waiting while too much is under way.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn read(
        &self,
        request: ReadRequest,
        done: impl FnOnce(Result<ReadData, ReadError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.push(Request::Read(request, Box::new(done)))
    }

    /// As [`Self::read`], never waiting.
    ///
    /// # Errors
    /// As [`Self::try_submit`].
    pub fn try_read(
        &self,
        request: ReadRequest,
        done: impl FnOnce(Result<ReadData, ReadError>) + Send + 'static,
    ) -> Result<(), Box<Rejected<ReadRequest>>> {
        self.try_push(Request::Read(request, Box::new(done))).map_err(|rejected| match *rejected {
            (Request::Read(request, _), error) => Box::new(Rejected { request, error }),
            _ => unreachable!("a request comes back as it was given"),
        })
    }

    /// Commits a transaction and waits until it is durable.
    ///
    /// # Errors
    /// Why it was refused.
    ///
    /// # Panics
    /// When called from a completion, which would wait for itself. So do all that follow.
    pub fn commit(&self, transaction: Transaction) -> Result<(), TransactionError> {
        self.wait_for(|done| Request::Submit(transaction, Box::new(move |result| drop(done.send(result)))))
            .unwrap_or_else(|error| Err(error.into()))
    }

    /// Reads and waits for the data.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fetch(&self, request: ReadRequest) -> Result<ReadData, ReadError> {
        self.wait_for(|done| Request::Read(request, Box::new(move |result| drop(done.send(result)))))
            .unwrap_or_else(|error| Err(error.into()))
    }

    /// Asks the engine on its thread, waiting only while too much is under way. `done` gets the answer there, or that
    /// the store has stopped. The question must be short: everything else waits for it. Data of objects is read by
    /// [`Self::read`], which `done` may call.
    ///
    /// # Errors
    /// When the store has stopped; `done` is told then, too.
    pub fn query<T: 'static>(
        &self,
        question: impl FnOnce(&mut Engine<FileDevice>) -> T + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let asker = Asker::new(done);
        self.push(Request::Ask(Box::new(move |engine| {
            let answer = question(engine);
            asker.tell(answer);
        })))
    }

    /// See [`Engine::stat`]. Queries see what was acknowledged before they were made, and maybe more.
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, pg: PgId, object: &ObjectId) -> Result<Stat, ReadError> {
        let object = object.clone();
        self.ask(move |engine| engine.stat(pg, &object))?
    }

    /// See [`Engine::list`].
    ///
    /// # Errors
    /// As there.
    pub fn list(
        &self,
        pg: PgId,
        after: Option<&ObjectId>,
        limit: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        let after = after.cloned();
        self.ask(move |engine| engine.list(pg, after.as_ref(), limit))?
    }

    /// See [`Engine::extents`].
    ///
    /// # Errors
    /// As there.
    pub fn extents(
        &self,
        pg: PgId,
        object: &ObjectId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<(u64, u64)>, ReadError> {
        let object = object.clone();
        self.ask(move |engine| engine.extents(pg, &object, offset, len))?
    }

    /// See [`Engine::omap_get`].
    ///
    /// # Errors
    /// As there.
    pub fn omap_get(
        &self,
        pg: PgId,
        object: &ObjectId,
        keys: Vec<Bytes>,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let object = object.clone();
        self.ask(move |engine| engine.omap_get(pg, &object, &keys))?
    }

    /// See [`Engine::omap_list`].
    ///
    /// # Errors
    /// As there.
    pub fn omap_list(
        &self,
        pg: PgId,
        object: &ObjectId,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
        let object = object.clone();
        self.ask(move |engine| engine.omap_list(pg, &object, after.as_deref(), limit))?
    }

    /// Collections, in order.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn collections(&self) -> Result<Vec<PgId>, StoreError> {
        self.ask(|engine| engine.collections())
    }

    /// How full it is.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.ask(|engine| engine.usage())
    }

    /// What was done since open.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn counters(&self) -> Result<Counters, StoreError> {
        self.ask(|engine| engine.counters())
    }

    /// See [`Engine::request_checkpoint`]. Does not wait for its end, of which [`Self::is_checkpointing`] tells.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn request_checkpoint(&self) -> Result<(), StoreError> {
        self.ask(|engine| engine.request_checkpoint())
    }

    /// See [`Engine::is_checkpointing`].
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn is_checkpointing(&self) -> Result<bool, StoreError> {
        self.ask(|engine| engine.is_checkpointing())
    }

    /// Finishes what was given, makes a checkpoint and ends the thread; the device is free then. Called from a
    /// completion it does not wait for that.
    ///
    /// # Errors
    /// Why the store stopped before.
    pub fn close(&self) -> Result<(), StoreError> {
        self.handle.close()
    }

    fn is_own_thread(&self) -> bool {
        std::thread::current().id() == self.handle.thread_id
    }

    fn push(&self, request: Request) -> Result<(), StoreError> {
        let bytes = request.bytes();
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        // On the store's own thread nobody would make room: what a completion adds replaces what it completes.
        while queue.check().is_ok() && !queue.load.has_room(bytes) && !self.is_own_thread() {
            queue.waiters += 1;
            queue = shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiters -= 1;
        }
        queue.check()?;
        shared.add(queue, request, bytes);
        Ok(())
    }

    fn try_push(&self, request: Request) -> Result<(), Box<(Request, SubmitError)>> {
        let bytes = request.bytes();
        let queue = self.handle.shared.lock();
        if let Err(error) = queue.check() {
            return Err(Box::new((request, error.into())));
        }
        if !queue.load.has_room(bytes) {
            return Err(Box::new((request, SubmitError::Busy)));
        }
        self.handle.shared.add(queue, request, bytes);
        Ok(())
    }

    /// Makes a request with a place for its answer, and waits for that.
    fn wait_for<T: Send + 'static>(
        &self,
        request: impl FnOnce(std::sync::mpsc::SyncSender<T>) -> Request,
    ) -> Result<T, StoreError> {
        assert!(!self.is_own_thread(), "a completion of the store must not wait for the store");
        let (done, answer) = sync_channel(1);
        self.push(request(done))?;
        // Dropped without an answer when the thread has ended.
        answer.recv().map_err(|_| self.handle.shared.lock().end.clone().unwrap_or(StoreError::Closed))
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine<FileDevice>) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait_for(|done| Request::Ask(Box::new(move |engine| drop(done.send(question(engine))))))
    }
}

impl Handle {
    fn close(&self) -> Result<(), StoreError> {
        {
            let mut queue = self.shared.lock();
            queue.closed = true;
            queue.wake();
        }
        self.shared.room.notify_all();
        if std::thread::current().id() == self.thread_id {
            return Ok(());
        }
        // Held while joining, so that a second caller waits too.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // Its panics are caught in `serve` and are in `end`.
            let _ = thread.join();
        }
        match &self.shared.lock().end {
            None | Some(StoreError::Closed) => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(path = %self.shared.path.display(), %error, "the store had stopped before it was closed");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue>, request: Request, bytes: usize) {
        queue.load.add(bytes);
        queue.requests.push_back(request);
        // The thread takes all at once: who finds others waiting knows that it was woken for them. Without the lock,
        // which it takes first of all when it wakes.
        let waker = if queue.requests.len() == 1 { queue.waker.clone() } else { None };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn answered(&self, load: Load) {
        if load.requests > 0 {
            let mut queue = self.lock();
            queue.load.sub(load);
            if queue.waiters > 0 {
                self.room.notify_all();
            }
        }
    }
}

impl Queue {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.end {
            Some(end) => Err(end.clone()),
            None if self.closed => Err(StoreError::Closed),
            None => Ok(()),
        }
    }
}

fn thread_error(source: std::io::Error) -> StoreError {
    StoreError::Device { action: "start the store's thread", offset: 0, source: Arc::new(source) }
}

fn open(
    path: &Path,
    options: &OpenOptions,
    queue: QueueKind,
) -> Result<(Arc<Shared>, Engine<FileDevice>), StoreError> {
    let medium = FileMedium::open(path, Access::ReadWrite).map_err(Arc::new)?;
    let device = FileDevice::new(medium, queue).map_err(Arc::new)?;
    let waker = device.waker();
    let runner = Threaded::new(device.waker()).map_err(thread_error)?;
    let engine = Engine::open(device, options, Box::new(runner))?;
    let queue = Mutex::new(Queue { waker: Some(waker), ..Queue::default() });
    Ok((Arc::new(Shared { path: path.to_owned(), queue, room: Condvar::new() }), engine))
}

/// Completions of what is in the engine, by token.
#[derive(Default)]
struct Completions {
    slots: Vec<Option<Completion>>,
    free: Vec<usize>,
    load: Load,
}

enum Completion {
    Commit(OnCommit, usize),
    Read(OnRead),
}

impl Completions {
    fn insert(&mut self, completion: Completion) -> u64 {
        self.load.add(if let Completion::Commit(_, bytes) = &completion { *bytes } else { 0 });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(completion);
        slot as u64
    }

    /// The completion, and what its request weighed.
    fn remove(&mut self, token: u64) -> Option<(Completion, Load)> {
        let completion = self.slots.get_mut(token as usize)?.take()?;
        self.free.push(token as usize);
        let bytes = if let Completion::Commit(_, bytes) = &completion { *bytes } else { 0 };
        let load = Load { requests: 1, bytes };
        self.load.sub(load);
        Some((completion, load))
    }
}

/// What the thread holds that others wait for: kept out of what a panic unwinds.
#[derive(Default)]
struct Held {
    /// Seen, and not in the engine yet.
    waiting: VecDeque<Request>,
    completions: Completions,
}

/// The thread: until it is closed, or the engine stops.
fn serve(shared: &Shared, mut engine: Engine<FileDevice>) {
    let mut held = Held::default();
    // With the engine in it, so that its end is within too.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let result = run(shared, &mut engine, &mut held);
        drop(engine);
        result
    }));
    let end = match outcome {
        Ok(Ok(())) => StoreError::Closed,
        Ok(Err(error)) => error,
        Err(payload) => {
            let error = StoreError::of_panic(&*payload);
            tracing::error!(path = %shared.path.display(), %error, "the store stops");
            StoreError::Poisoned(Arc::new(error))
        }
    };
    let left = {
        let mut queue = shared.lock();
        queue.end = Some(end.clone());
        queue.waker = None;
        std::mem::take(&mut queue.requests)
    };
    shared.room.notify_all();
    // A completion that panics must not keep the others from being called.
    let refuse_commit =
        |done: OnCommit| drop(catch_unwind(AssertUnwindSafe(|| done(Err(end.clone().into())))));
    let refuse_read = |done: OnRead| drop(catch_unwind(AssertUnwindSafe(|| done(Err(end.clone().into())))));
    for completion in held.completions.slots.into_iter().flatten() {
        match completion {
            Completion::Commit(done, _) => refuse_commit(done),
            Completion::Read(done) => refuse_read(done),
        }
    }
    for request in held.waiting.into_iter().chain(left) {
        match request {
            Request::Submit(_, done) => refuse_commit(done),
            Request::Read(_, done) => refuse_read(done),
            Request::Ask(_) => {}
        }
    }
}

fn run(shared: &Shared, engine: &mut Engine<FileDevice>, held: &mut Held) -> Result<(), StoreError> {
    let mut events = Vec::new();
    let mut is_last_checkpoint = false;
    loop {
        let closed = {
            let mut queue = shared.lock();
            held.waiting.append(&mut queue.requests);
            queue.closed
        };
        let asked = take_in(engine, held)?;
        shared.answered(asked);
        if closed && held.waiting.is_empty() && engine.unfinished() == 0 && !is_last_checkpoint {
            engine.request_checkpoint();
            is_last_checkpoint = true;
        }
        if is_last_checkpoint && !engine.has_checkpoint_to_finish() {
            return Ok(());
        }
        let result = if is_last_checkpoint {
            // Nobody wakes it any more.
            engine.poll(Wait::Event, &mut events)
        } else if engine.wants_rest() {
            let begin = Instant::now();
            let polled = engine.poll_or_sleep(Wait::EventFor(REST_AFTER), &mut events);
            if begin.elapsed() >= REST_AFTER && engine.unfinished() == 0 {
                engine.rest();
            }
            polled
        } else {
            engine.poll_or_sleep(Wait::Event, &mut events)
        };
        let mut answered = Load::default();
        for event in events.drain(..) {
            answered.add(answer(event, &mut held.completions));
        }
        shared.answered(answered);
        result?;
    }
}

/// Gives the engine what it has room for, and answers questions on the way.
fn take_in(engine: &mut Engine<FileDevice>, held: &mut Held) -> Result<Load, StoreError> {
    let mut asked = Load::default();
    while let Some(request) = held.waiting.front() {
        let bytes = request.bytes();
        if !held.completions.load.has_room(bytes) {
            break;
        }
        let taken = match held.waiting.pop_front() {
            None => break,
            Some(Request::Submit(transaction, done)) => {
                let token = held.completions.insert(Completion::Commit(done, bytes));
                engine.submit(token, transaction)
            }
            Some(Request::Read(request, done)) => {
                let token = held.completions.insert(Completion::Read(done));
                engine.read(token, request)
            }
            Some(Request::Ask(question)) => {
                question(engine);
                asked.add(0);
                Ok(())
            }
        };
        match taken {
            Ok(()) => {}
            Err(SubmitError::Store(error)) => return Err(error),
            Err(SubmitError::Busy) => unreachable!("the engine's bound is kept here"),
        }
    }
    Ok(asked)
}

/// Calls an event's completion; returns the payload bytes it frees.
fn answer(event: Event, completions: &mut Completions) -> usize {
    let (Event::Committed { token, .. } | Event::Read { token, .. }) = &event;
    let Some((completion, load)) = completions.remove(*token) else { return 0 };
    match (event, completion) {
        (Event::Committed { result, .. }, Completion::Commit(done, _)) => done(result),
        (Event::Read { result, .. }, Completion::Read(done)) => done(result),
        _ => unreachable!("an event has the token of its request"),
    }
    load.bytes
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.shared.path).finish_non_exhaustive()
    }
}
