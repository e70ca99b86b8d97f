//! The load on the store: so many requests at once, each completion giving the next.
//!
//! The next request is made in the completion of the one before, on the store's own thread, as an OSD does
//! whose shard owns its store. Waking another thread for each would cost 25-30 µs on the virtual machine that
//! the figures come from, and at depth 1 be a good part of what is measured. The store takes the request in as
//! any other. What the generator itself costs (a clock, a histogram, the object's name) is in the CPU time.

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use cairn_store::device::AlignedBuf;
use cairn_store::device::sim::SplitMix64;
use cairn_store::{Op, ReadRequest, Store, Transaction};
use cairn_types::{ObjectId, PgId, PoolId, SnapId};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of an object, as of an RBD image.
pub const OBJECT_BYTES: u64 = 4 << 20;
/// Bytes of a small write or read, and the grain of everything.
pub const SMALL_BYTES: u64 = 4 << 10;
/// The pool of all that the benchmark makes: pools are numbered from 1, so it is nobody's.
pub const POOL: PoolId = PoolId(-1);
/// Collections of it. An OSD has some hundred.
pub const GROUPS: u32 = 32;
/// Longest latency told apart, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What is asked of the store.
pub enum Request {
    /// Count for the payload, in bytes, and the changes.
    Write(u64, Transaction),
    /// Has to give all that it asks for.
    Read(ReadRequest),
}

/// What a run was like.
pub struct Outcome {
    pub ops: u64,
    /// Payload.
    pub bytes: u64,
    pub elapsed: Duration,
    /// Of all threads of the process, kernel and user.
    pub cpu: Duration,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
}

/// Object `number` of a kind, named like the data of an image.
pub fn object(kind: &str, number: u64) -> (PgId, ObjectId) {
    let hash = SplitMix64::new(number).next_u64() as u32;
    let object = ObjectId {
        pool: POOL,
        hash,
        namespace: String::new(),
        key: String::new(),
        name: format!("rbd_data.{kind}.{number:016x}"),
        snap: SnapId::HEAD,
    };
    (PgId { pool: POOL, seed: hash % GROUPS }, object)
}

/// Random bytes to write: what compresses or repeats may be served by less than a disk.
pub struct Content(Bytes);

impl Content {
    /// Twice an object, in memory that the device takes as it is: so is fio's.
    pub fn new(rng: &mut SplitMix64) -> Self {
        let mut content = AlignedBuf::new(2 * OBJECT_BYTES as usize);
        content.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_le_bytes()));
        Content(Bytes::from_owner(content))
    }

    /// Some of them, not copied; `len` is at most an object.
    pub fn some(&self, len: u64, rng: &mut SplitMix64) -> Bytes {
        let from = rng.below(OBJECT_BYTES / SMALL_BYTES) * SMALL_BYTES;
        self.0.slice(from as usize..(from + len) as usize)
    }

    /// A write of some of them.
    pub fn write(
        &self,
        (pg, object): &(PgId, ObjectId),
        offset: u64,
        len: u64,
        rng: &mut SplitMix64,
    ) -> Request {
        let data = self.some(len, rng);
        let write = Op::Write { pg: *pg, object: object.clone(), offset, data, checksums: None };
        Request::Write(len, Transaction { ops: vec![write] })
    }
}

type Source = Box<dyn FnMut() -> Option<Request> + Send>;

struct Load {
    store: Store,
    running: Mutex<Running>,
    /// Nothing is under way any more.
    finished: Condvar,
}

struct Running {
    source: Source,
    in_flight: usize,
    ops: u64,
    bytes: u64,
    latency: Histogram<u64>,
    error: Option<anyhow::Error>,
}

/// Makes requests until `source` has no more, `depth` at once, and waits for the end.
///
/// # Errors
/// The first request that failed; what is under way then is waited for.
pub fn run(
    store: &Store,
    depth: usize,
    source: impl FnMut() -> Option<Request> + Send + 'static,
) -> anyhow::Result<Outcome> {
    let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
    let running = Running { source: Box::new(source), in_flight: 0, ops: 0, bytes: 0, latency, error: None };
    let load =
        Arc::new(Load { store: store.clone(), running: Mutex::new(running), finished: Condvar::new() });
    let (start, cpu) = (Instant::now(), cpu_time());
    for _ in 0..depth {
        let next = {
            let mut running = load.lock();
            let next = if running.error.is_none() { (running.source)() } else { None };
            running.in_flight += usize::from(next.is_some());
            next
        };
        match next {
            Some(request) => load.start(request),
            None => break,
        }
    }
    let mut running = load.lock();
    while running.in_flight > 0 {
        running = load.finished.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    let (elapsed, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    match running.error.take() {
        Some(error) => Err(error),
        None => Ok(Outcome {
            ops: running.ops,
            bytes: running.bytes,
            elapsed,
            cpu,
            latency: running.latency.clone(),
        }),
    }
}

impl Load {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request is counted as under way already.
    fn start(self: &Arc<Self>, request: Request) {
        let (load, begin) = (Arc::clone(self), Instant::now());
        let taken = match request {
            Request::Write(bytes, transaction) => self.store.submit(transaction, move |result| {
                load.ended(begin, result.map(|()| bytes).map_err(anyhow::Error::from));
            }),
            Request::Read(request) => {
                let wanted = request.len;
                self.store.read(request, move |result| {
                    let result =
                        result.map_err(anyhow::Error::from).and_then(|read| match read.data.len() as u64 {
                            len if len == wanted => Ok(len),
                            len => bail!("a read of {wanted} bytes gave {len}"),
                        });
                    load.ended(begin, result);
                })
            }
        };
        if let Err(error) = taken {
            self.ended(begin, Err(error.into()));
        }
    }

    fn ended(self: &Arc<Self>, begin: Instant, result: anyhow::Result<u64>) {
        let latency_ns = begin.elapsed().as_nanos() as u64;
        let mut running = self.lock();
        match result {
            Ok(bytes) => {
                running.ops += 1;
                running.bytes += bytes;
                running.latency.saturating_record(latency_ns);
            }
            Err(error) => running.error = running.error.take().or(Some(error)),
        }
        let next = if running.error.is_none() { (running.source)() } else { None };
        match next {
            Some(request) => {
                drop(running);
                self.start(request);
            }
            None => {
                running.in_flight -= 1;
                if running.in_flight == 0 {
                    self.finished.notify_all();
                }
            }
        }
    }
}

/// Brings everything in place and the index up to the log, and waits for it: what a run leaves behind is
/// neither the next one's to carry nor nobody's.
pub fn settle(store: &Store) -> anyhow::Result<()> {
    store.request_checkpoint()?;
    while store.is_checkpointing()? {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// CPU time of the process, all threads, io_uring's workers among them.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that the process has had written to disks: of data, log and index alike.
pub fn written_bytes() -> anyhow::Result<u64> {
    let [bytes] = numbers_in("/proc/self/io", ["write_bytes:"])?;
    Ok(bytes)
}

/// Numbers of a file of `/proc` whose lines begin with names, all of one moment.
pub fn numbers_in<const N: usize>(path: &str, names: [&str; N]) -> anyhow::Result<[u64; N]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut numbers = [0; N];
    for (number, name) in numbers.iter_mut().zip(names) {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let found = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        *number = found.ok_or_else(|| anyhow!("{path} says nothing of {name}"))?;
    }
    Ok(numbers)
}

/// Makes the collections, without what an interrupted run may have left in them.
pub fn make_groups(store: &Store) -> anyhow::Result<()> {
    remove_groups(store)?;
    let ops = (0..GROUPS).map(|seed| Op::CreateCollection(PgId { pool: POOL, seed })).collect();
    Ok(store.commit(Transaction { ops })?)
}

/// Removes all that the benchmark made.
pub fn remove_groups(store: &Store) -> anyhow::Result<()> {
    const AT_ONCE: usize = 64;
    for pg in store.collections()?.into_iter().filter(|pg| pg.pool == POOL) {
        let mut after = None;
        loop {
            let objects = store.list(pg, after.as_ref(), AT_ONCE)?;
            let Some(last) = objects.last() else { break };
            // Not from the start again: removed names are passed over one by one until a checkpoint.
            after = Some(last.clone());
            let ops = objects.into_iter().map(|object| Op::Remove(pg, object)).collect();
            store.commit(Transaction { ops })?;
        }
        store.commit(Transaction { ops: vec![Op::RemoveCollection(pg)] })?;
    }
    Ok(())
}
