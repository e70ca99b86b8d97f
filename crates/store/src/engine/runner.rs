//! Who commits checkpoints to the index.

use crate::device::Waker;
use crate::device::sim::SplitMix64;
use crate::error::StoreError;
use crate::index::{Batch, Index};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

/// Commits one batch at a time.
pub trait IndexRunner: Send + fmt::Debug {
    /// Takes a batch on. None is under way.
    fn start(&mut self, index: &Arc<Index>, batch: Batch);
    /// The result of the batch taken on, once.
    fn finished(&mut self) -> Option<Result<u64, StoreError>>;
}

/// Commits on the caller's thread: for tests, simulation and offline tools.
#[derive(Debug, Default)]
pub struct Inline {
    result: Option<Result<u64, StoreError>>,
}

impl IndexRunner for Inline {
    fn start(&mut self, index: &Arc<Index>, batch: Batch) {
        self.result = Some(index.commit(&batch));
    }

    fn finished(&mut self) -> Option<Result<u64, StoreError>> {
        self.result.take()
    }
}

/// Commits on the caller's thread, only after it was looked for a while: transactions go on meanwhile, as
/// they do beside a thread. For tests and simulation.
#[derive(Debug)]
pub struct Late {
    rng: SplitMix64,
    looks_max: u64,
    looks: u64,
    job: Option<(Arc<Index>, Batch)>,
}

impl Late {
    /// Each commit comes after less than `looks_max` looks, drawn from the seed.
    pub fn new(seed: u64, looks_max: u64) -> Self {
        Late { rng: SplitMix64::new(seed), looks_max, looks: 0, job: None }
    }
}

impl IndexRunner for Late {
    fn start(&mut self, index: &Arc<Index>, batch: Batch) {
        self.looks = self.rng.below(self.looks_max);
        self.job = Some((Arc::clone(index), batch));
    }

    fn finished(&mut self) -> Option<Result<u64, StoreError>> {
        if self.looks > 0 {
            self.looks -= 1;
            return None;
        }
        self.job.take().map(|(index, batch)| index.commit(&batch))
    }
}

/// Commits on a thread of its own, so that no writer waits for a checkpoint.
#[derive(Debug)]
pub struct Threaded {
    /// None only while it is dropped.
    jobs: Option<SyncSender<(Arc<Index>, Batch)>>,
    results: Receiver<Result<u64, StoreError>>,
    running: bool,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    /// Starts the thread, which ends with this value. `waker` wakes the engine's device when a batch is done.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(waker: Arc<dyn Waker>) -> io::Result<Self> {
        let (jobs, next) = sync_channel::<(Arc<Index>, Batch)>(1);
        let (done, results) = sync_channel(1);
        let thread = std::thread::Builder::new().name("store-index".into()).spawn(move || {
            for (index, batch) in next {
                let result = index.commit(&batch);
                // Before the engine hears of it, so that it is the last to hold the index when it closes.
                drop((index, batch));
                if done.send(result).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok(Threaded { jobs: Some(jobs), results, running: false, thread: Some(thread) })
    }
}

impl Drop for Threaded {
    /// Waits for the thread: it holds the device.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panics were reported by the hook, and show in `finished`.
            let _ = thread.join();
        }
    }
}

impl IndexRunner for Threaded {
    fn start(&mut self, index: &Arc<Index>, batch: Batch) {
        // The channel has room for the one batch there is; a thread that is gone shows in `finished`.
        self.running = true;
        if let Some(jobs) = &self.jobs {
            let _ = jobs.try_send((Arc::clone(index), batch));
        }
    }

    fn finished(&mut self) -> Option<Result<u64, StoreError>> {
        match self.results.try_recv() {
            Ok(result) => {
                self.running = false;
                Some(result)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                std::mem::take(&mut self.running).then_some(Err(StoreError::Closed))
            }
        }
    }
}
