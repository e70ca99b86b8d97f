//! Between the core and the store: transactions in order, questions, and what comes back, all that waits at once.

use crate::core::{Query, QueryAnswer, QueryToken, Superblock, Usage};
use crate::object::BadChange;
use crate::persist::{
    Answering, GroupWriter, MapsKept, Reading, Step, begin_removal, look, maps_transaction, superblock_op,
    sweep,
};
use cairn_pg::{PersistToken, PersistedPg, PgTransaction};
use cairn_store::{Op, ReadData, ReadError, Store, StoreError, Transaction, TransactionError};
use cairn_types::{Epoch, OsdMap, OsdMapIncremental, PgId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Requests given to the store and not answered: below the store's own bound, so that giving one never waits.
const REQUESTS_MAX: usize = 3_072;
/// Bytes of those; a larger one goes alone.
const REQUEST_BYTES_MAX: usize = 192 << 20;

/// What the store has to say.
#[derive(Debug)]
pub enum News {
    /// A group's transaction is durable.
    Persisted(PgId, PersistToken),
    /// Something nobody waits for is durable.
    Kept,
    /// A question is answered.
    Queried(QueryToken, Box<QueryAnswer>),
    /// How full it is.
    Usage(Usage),
    /// A part of a group that is gone has been swept out: go on.
    Swept(PgId),
    /// The next part to sweep out; none: all is gone.
    Sweep(PgId, Option<Transaction>),
    /// It has stopped, or something could not be done that must be.
    Failed(String),
}

/// Filled by the store's thread, emptied as a whole by the runtime's; one wake-up for all that waits.
#[derive(Debug, Default)]
pub struct Inbox {
    news: Mutex<Vec<(usize, News)>>,
    pub wake: Notify,
}

impl Inbox {
    fn put(&self, bytes: usize, news: News) {
        let is_first = {
            let mut waiting = self.news.lock();
            waiting.push((bytes, news));
            waiting.len() == 1
        };
        if is_first {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<(usize, News)> {
        std::mem::take(&mut self.news.lock())
    }
}

enum Job {
    Commit(Transaction, News),
    Ask(Answering, QueryToken),
    Usage,
    Sweep(PgId),
}

/// The store as the driver sees it.
pub struct Disk {
    store: Store,
    inbox: Arc<Inbox>,
    writers: BTreeMap<PgId, GroupWriter>,
    kept: MapsKept,
    /// Given and not answered.
    requests: usize,
    bytes: usize,
    /// For when there is room, and it is not held back, in order.
    waiting: VecDeque<(usize, Job)>,
    held_back: bool,
}

fn bytes_of(transaction: &Transaction) -> usize {
    let bytes = |op: &Op| match op {
        Op::Write { data, .. } => data.len(),
        Op::OmapSet(_, _, entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        Op::SetXattrs(_, _, xattrs) => xattrs.iter().map(|(name, value)| name.len() + value.len()).sum(),
        _ => 0,
    };
    transaction.ops.iter().map(bytes).sum()
}

impl Disk {
    pub fn new(store: Store, kept: MapsKept, groups: &[PersistedPg]) -> Disk {
        let writers = groups.iter().map(|group| (group.info.pgid, GroupWriter::of(group))).collect();
        let inbox = Arc::new(Inbox::default());
        Disk {
            store,
            inbox,
            writers,
            kept,
            requests: 0,
            bytes: 0,
            waiting: VecDeque::new(),
            held_back: false,
        }
    }

    pub fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// A group's transaction.
    ///
    /// # Errors
    /// A change that is none: the copies would differ, so the process has to end.
    pub fn persist(&mut self, pgid: PgId, txn: &PgTransaction) -> Result<(), BadChange> {
        let writer = self.writers.entry(pgid).or_insert_with(|| GroupWriter::new(pgid));
        let out = writer.transaction(txn)?;
        self.commit(out, News::Persisted(pgid, txn.token));
        Ok(())
    }

    pub fn save_superblock(&mut self, superblock: &Superblock) {
        self.commit(Transaction { ops: vec![superblock_op(superblock)] }, News::Kept);
    }

    pub fn keep_maps(
        &mut self,
        full: Option<&OsdMap>,
        increments: &[OsdMapIncremental],
        before: Option<Epoch>,
    ) {
        let out = maps_transaction(&mut self.kept, full, increments, before);
        if !out.ops.is_empty() {
            self.commit(out, News::Kept);
        }
    }

    /// Makes a group gone; [`News::Swept`] begins what follows. False when nothing of it is stored.
    pub fn remove_group(&mut self, pgid: PgId) -> bool {
        let is_stored = self.writers.remove(&pgid).is_some();
        if is_stored {
            self.commit(begin_removal(pgid), News::Swept(pgid));
        }
        is_stored
    }

    /// Goes on with sweeping out a group.
    pub fn sweep(&mut self, pgid: PgId) {
        self.give(0, Job::Sweep(pgid));
    }

    pub fn commit_sweep(&mut self, pgid: PgId, transaction: Transaction) {
        self.commit(transaction, News::Swept(pgid));
    }

    pub fn ask(&mut self, token: QueryToken, pgid: PgId, query: Query) {
        self.give(0, Job::Ask(Answering::new(pgid, query), token));
    }

    pub fn ask_usage(&mut self) {
        self.give(0, Job::Usage);
    }

    /// Whether everything that was given has been answered.
    pub fn is_idle(&self) -> bool {
        self.requests == 0 && self.waiting.is_empty()
    }

    /// What is given from now on waits for [`Disk::go_on`].
    pub fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Gives the store what was held back.
    pub fn go_on(&mut self) {
        self.held_back = false;
        self.start_waiting();
    }

    /// All that has come; makes room for what waits.
    pub fn news(&mut self) -> Vec<News> {
        let news = self.inbox.take();
        for (bytes, _) in &news {
            self.requests -= 1;
            self.bytes -= bytes;
        }
        self.start_waiting();
        news.into_iter().map(|(_, news)| news).collect()
    }

    fn start_waiting(&mut self) {
        while let Some((bytes, _)) = self.waiting.front() {
            if self.held_back || !self.has_room(*bytes) {
                break;
            }
            if let Some((bytes, job)) = self.waiting.pop_front() {
                self.start(bytes, job);
            }
        }
    }

    fn commit(&mut self, transaction: Transaction, news: News) {
        self.give(bytes_of(&transaction), Job::Commit(transaction, news));
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.requests == 0 || (self.requests < REQUESTS_MAX && self.bytes + bytes <= REQUEST_BYTES_MAX)
    }

    fn give(&mut self, bytes: usize, job: Job) {
        if self.waiting.is_empty() && !self.held_back && self.has_room(bytes) {
            self.start(bytes, job);
        } else {
            self.waiting.push_back((bytes, job));
        }
    }

    fn start(&mut self, bytes: usize, job: Job) {
        self.requests += 1;
        self.bytes += bytes;
        let inbox = self.inbox.clone();
        let given = match job {
            Job::Commit(transaction, news) => {
                let done = inbox.clone();
                self.store.submit(transaction, move |result| done.put(bytes, committed(result, news)))
            }
            // Their answer is told, too, when the store has stopped.
            Job::Ask(answering, token) => {
                match answering.plain_reads() {
                    Some((reads, reading)) => read(&self.store, reads, reading, token, inbox),
                    None => step(&self.store, answering, token, inbox),
                }
                return;
            }
            Job::Usage => {
                let _ =
                    self.store.query(look, move |usage| inbox.put(0, usage.map_or_else(failed, News::Usage)));
                return;
            }
            Job::Sweep(pgid) => {
                let _ = self.store.query(
                    move |engine| sweep(engine, pgid),
                    move |swept| {
                        let news = swept.and_then(|next| next).map(|next| News::Sweep(pgid, next));
                        inbox.put(0, news.unwrap_or_else(failed));
                    },
                );
                return;
            }
        };
        if let Err(error) = given {
            self.inbox.put(bytes, failed(error));
        }
    }
}

fn failed(error: StoreError) -> News {
    News::Failed(error.to_string())
}

/// A transaction that is refused has been ordered and told to others: this copy cannot go on without it.
fn committed(result: Result<(), TransactionError>, news: News) -> News {
    match result {
        Ok(()) => news,
        Err(error) => News::Failed(error.to_string()),
    }
}

/// One step of an answer, and those after it.
fn step(store: &Store, answering: Answering, token: QueryToken, inbox: Arc<Inbox>) {
    let next = store.clone();
    let done = move |step: Result<Result<Step, StoreError>, StoreError>| match step.and_then(|step| step) {
        Ok(Step::Done(answer)) => inbox.put(0, News::Queried(token, Box::new(answer))),
        Ok(Step::Again(answering)) => self::step(&next, answering, token, inbox),
        Ok(Step::Read(reads, reading)) => read(&next, reads, reading, token, inbox),
        Err(error) => inbox.put(0, failed(error)),
    };
    // When the store has stopped `done` is told.
    let _ = store.query(move |engine| answering.step(engine), done);
}

/// Reads under way for one answer.
struct Gathering {
    reading: Reading,
    got: Vec<Option<Result<ReadData, ReadError>>>,
    left: usize,
}

fn read(
    store: &Store,
    reads: Vec<cairn_store::ReadRequest>,
    reading: Reading,
    token: QueryToken,
    inbox: Arc<Inbox>,
) {
    let got = reads.iter().map(|_| None).collect();
    let gathering = Arc::new(Mutex::new(Some(Gathering { reading, got, left: reads.len() })));
    let arrived = move |at: usize, result: Result<ReadData, ReadError>| {
        let mut slot = gathering.lock();
        let Some(gathering) = slot.as_mut() else { return };
        gathering.got[at] = Some(result);
        gathering.left -= 1;
        if gathering.left > 0 {
            return;
        }
        let Some(whole) = slot.take() else { return };
        drop(slot);
        let got = whole.got.into_iter().flatten().collect();
        let news = whole.reading.finish(got).map(|answer| News::Queried(token, Box::new(answer)));
        inbox.put(0, news.unwrap_or_else(failed));
    };
    let arrived = Arc::new(arrived);
    for (at, request) in reads.into_iter().enumerate() {
        let done = arrived.clone();
        if let Err(error) = store.read(request, move |result| done(at, result)) {
            arrived(at, Err(error.into()));
        }
    }
}
