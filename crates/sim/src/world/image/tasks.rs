//! Runs futures in virtual time: each is polled, in the order of its number, when something has woken it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A task.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A thread that panicked with the lock ends the run.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that its task is to be polled.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    work: Work,
    flag: Arc<Flag>,
}

/// The tasks of a process.
#[derive(Default)]
pub struct Tasks {
    all: BTreeMap<u64, Task>,
    last: u64,
}

impl Tasks {
    pub fn spawn(&mut self, work: Work) {
        self.last += 1;
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.all.insert(self.last, Task { work, flag });
    }

    /// Polls each task that is to be polled once. False when there was none.
    pub fn run(&mut self) -> bool {
        let mut ran = false;
        self.all.retain(|_, task| {
            if !task.flag.0.swap(false, Ordering::Relaxed) {
                return true;
            }
            ran = true;
            let waker = Waker::from(task.flag.clone());
            task.work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        ran
    }

    pub fn is_ready(&self) -> bool {
        self.all.values().any(|task| task.flag.0.load(Ordering::Relaxed))
    }
}

/// Where something will be that a task waits for.
pub struct Slot<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot(Arc::default())
    }
}

impl<T> Slot<T> {
    pub fn put(&self, value: T) {
        let mut inner = lock(&self.0);
        inner.0 = Some(value);
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut inner = lock(&self.0);
        match inner.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                inner.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_go_on_when_what_they_wait_for_is_there() {
        let mut tasks = Tasks::default();
        let (first, second, done): (Slot<u32>, Slot<u32>, Slot<u32>) = Default::default();
        let (a, b, out) = (first.clone(), second.clone(), done.clone());
        tasks.spawn(Box::pin(async move { out.put(a.await + b.await) }));
        assert!(tasks.run() && !tasks.run());
        second.put(2);
        assert!(!tasks.is_ready(), "it waits for the first");
        first.put(40);
        assert!(tasks.is_ready() && tasks.run() && !tasks.run());
        assert_eq!(lock(&done.0).0, Some(42));
    }
}
