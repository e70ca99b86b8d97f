//! Queued operations by plain threads, where io_uring is forbidden.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::file::FileMedium;
use super::{Completion, Io, Wait, Waker};

/// Threads per device: enough to keep one disk busy, few enough to cost nothing when idle.
const WORKERS: usize = 8;

pub(super) struct ThreadQueue {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    in_flight: usize,
}

struct Shared {
    medium: Arc<FileMedium>,
    state: Mutex<State>,
    /// Something is queued, or the end has come.
    work: Condvar,
    /// Something is done, or the waker was used.
    event: Condvar,
}

struct State {
    queued: VecDeque<(u64, Io)>,
    done: Vec<Completion>,
    wake: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadQueue {
    pub(super) fn new(medium: Arc<FileMedium>, entries: usize) -> io::Result<Self> {
        let state =
            State { queued: VecDeque::with_capacity(entries), done: Vec::new(), wake: false, closed: false };
        let shared = Arc::new(Shared {
            medium,
            state: Mutex::new(state),
            work: Condvar::new(),
            event: Condvar::new(),
        });
        let mut queue = ThreadQueue { shared, workers: Vec::new(), in_flight: 0 };
        for index in 0..WORKERS {
            let shared = Arc::clone(&queue.shared);
            let worker = std::thread::Builder::new()
                .name(format!("store-disk-{index}"))
                .spawn(move || run(&shared))?;
            queue.workers.push(worker);
        }
        Ok(queue)
    }

    pub(super) fn submit(&mut self, tag: u64, io: Io) {
        self.in_flight += 1;
        self.shared.lock().queued.push_back((tag, io));
        self.shared.work.notify_one();
    }

    pub(super) fn poll(&mut self, wait: Wait, done: &mut Vec<Completion>) -> io::Result<()> {
        let mut state = self.shared.lock();
        if wait != Wait::No {
            let is_quiet = |state: &mut State| state.done.is_empty() && !state.wake;
            let event = &self.shared.event;
            state = match wait {
                Wait::EventFor(most) if self.in_flight == 0 => {
                    let waited = event.wait_timeout_while(state, most, is_quiet);
                    waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
                }
                _ => event.wait_while(state, is_quiet).unwrap_or_else(PoisonError::into_inner),
            };
            state.wake = false;
        }
        self.in_flight -= state.done.len();
        done.append(&mut state.done);
        Ok(())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(ThreadWaker(Arc::clone(&self.shared)))
    }
}

impl Drop for ThreadQueue {
    /// Finishes what is queued: a caller who no longer listens may still have asked for it.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was reported by its hook; there is nothing left to undo.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for ThreadQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadQueue").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

fn run(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let Some((tag, io)) = state.queued.pop_front() else {
            if state.closed {
                return;
            }
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let completion = perform(&shared.medium, tag, io);
        state = shared.lock();
        state.done.push(completion);
        shared.event.notify_one();
    }
}

fn perform(medium: &FileMedium, tag: u64, io: Io) -> Completion {
    match io {
        Io::Read { offset, mut buf } => {
            let result = medium.read_aligned(offset, &mut buf);
            Completion { tag, buf: Some(buf), result }
        }
        Io::Write { offset, buf, durable } => {
            let result = medium
                .check_write(offset, buf.len() as u64)
                .and_then(|()| medium.write_aligned(offset, &buf, durable));
            Completion { tag, buf: buf.into_own(), result }
        }
        Io::Flush => Completion { tag, buf: None, result: medium.flush() },
        Io::Discard { offset, len } => {
            let result = medium.check_write(offset, len).and_then(|()| medium.discard(offset, len));
            Completion { tag, buf: None, result }
        }
    }
}

struct ThreadWaker(Arc<Shared>);

impl Waker for ThreadWaker {
    fn wake(&self) {
        self.0.lock().wake = true;
        self.0.event.notify_one();
    }
}

impl fmt::Debug for ThreadWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadWaker")
    }
}
