//! Carries out what the core decides: connections, frames, timers, callers' answers. Decides nothing itself.
//!
//! One task owns the core. Callers and connections push into one inbox; the push that finds it empty wakes the task,
//! which takes all that waits at once.

mod connections;
mod task;
#[cfg(test)]
mod tests;

pub(crate) use task::start;

use crate::core::limits::{BYTES_IN_FLIGHT_MAX, INBOX_MAX, OPS_IN_FLIGHT_MAX};
use crate::core::{ConnId, Event, Submit, cost_bytes};
use crate::io::{OpAnswer, OpError, WatchHandler};
use cairn_net::Connection;
use cairn_types::{ObjectId, OsdMap};
use cairn_wire::Payload;
use cairn_wire::op::{Op, OpFlags};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// The way back to one caller, and its share of what may be in flight.
#[derive(Debug)]
pub(crate) struct Answer {
    to: oneshot::Sender<Result<OpAnswer, OpError>>,
    _share: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// What waits for the task.
pub(crate) enum Input {
    /// For the core.
    Event(Event<Answer>),
    /// A connection was made.
    Connected(ConnId, Connection),
    /// What did not fit into a connection's queue is in it now.
    Drained(ConnId),
    /// A caller wants to watch.
    Watch {
        cookie: u64,
        object: ObjectId,
        handler: Arc<dyn WatchHandler>,
        ready: oneshot::Sender<Result<(), OpError>>,
    },
    /// A caller wants to watch no longer.
    Unwatch { cookie: u64, answer: Answer },
}

#[derive(Default)]
struct Inbox {
    inputs: Vec<Input>,
    /// Lanes that wait for room.
    waiting: Vec<Waker>,
    /// The task has ended.
    closed: bool,
}

/// What callers, connections and the task share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    wake: Notify,
    ops: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    last_cookie: AtomicU64,
    map: watch::Sender<Option<Arc<OsdMap>>>,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            wake: Notify::new(),
            ops: Arc::new(Semaphore::new(OPS_IN_FLIGHT_MAX)),
            bytes: Arc::new(Semaphore::new(BYTES_IN_FLIGHT_MAX)),
            last_cookie: AtomicU64::new(0),
            map: watch::Sender::new(None),
        })
    }

    /// Hands something to the task. After its end it is dropped, and with it the way back to a caller.
    pub(crate) fn push(&self, input: Input) {
        let mut inbox = self.inbox.lock();
        if inbox.closed {
            return;
        }
        inbox.inputs.push(input);
        let was_empty = inbox.inputs.len() == 1;
        drop(inbox);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Whether a connection may deliver: what comes from outside waits there when there is too much here.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inbox = self.inbox.lock();
        if inbox.closed || inbox.inputs.len() < INBOX_MAX {
            return Poll::Ready(());
        }
        inbox.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// Everything that waits, for the task; `into` is empty.
    fn take(&self, into: &mut Vec<Input>) {
        let mut inbox = self.inbox.lock();
        std::mem::swap(&mut inbox.inputs, into);
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        let left = (std::mem::take(&mut inbox.inputs), std::mem::take(&mut inbox.waiting));
        // Dropped without the lock: a handler may go with it and push.
        drop(inbox);
        drop(left);
    }
}

/// Ends the client when the last one is dropped.
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.push(Input::Event(Event::Stop));
    }
}

impl Handle {
    /// Carries out a vector whose bounds were checked.
    pub(crate) async fn operate(
        &self,
        object: ObjectId,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
        timeout: Option<Duration>,
    ) -> Result<OpAnswer, OpError> {
        let cost = cost_bytes(&ops, &data).clamp(1, BYTES_IN_FLIGHT_MAX) as u32;
        // Waiting callers go in turn, so that order holds here too.
        let op = self.shared.ops.clone().acquire_owned().await.map_err(|_| OpError::Closed)?;
        let bytes = self.shared.bytes.clone().acquire_many_owned(cost).await.map_err(|_| OpError::Closed)?;
        let (to, answered) = oneshot::channel();
        let submit = Submit {
            object,
            ops,
            data,
            flags,
            timeout_ms: timeout.map(|timeout| timeout.as_millis().try_into().unwrap_or(u64::MAX)),
            done: Answer { to, _share: Some((op, bytes)) },
        };
        self.shared.push(Input::Event(Event::Submit(submit)));
        answered.await.unwrap_or(Err(OpError::Closed))
    }

    /// Watches; returns the cookie.
    pub(crate) async fn watch(
        &self,
        object: ObjectId,
        handler: Arc<dyn WatchHandler>,
    ) -> Result<u64, OpError> {
        let cookie = self.shared.last_cookie.fetch_add(1, Relaxed) + 1;
        let (ready, is_ready) = oneshot::channel();
        self.shared.push(Input::Watch { cookie, object, handler, ready });
        is_ready.await.unwrap_or(Err(OpError::Closed)).map(|()| cookie)
    }

    /// Ends a watch.
    pub(crate) async fn unwatch(&self, cookie: u64) -> Result<(), OpError> {
        let (to, answered) = oneshot::channel();
        self.shared.push(Input::Unwatch { cookie, answer: Answer { to, _share: None } });
        answered.await.unwrap_or(Err(OpError::Closed)).map(drop)
    }

    /// The newest map.
    pub(crate) fn map(&self) -> Option<Arc<OsdMap>> {
        self.shared.map.borrow().clone()
    }

    /// Follows the map.
    pub(crate) fn maps(&self) -> watch::Receiver<Option<Arc<OsdMap>>> {
        self.shared.map.subscribe()
    }

    /// Hands in a map that came another way.
    pub(crate) fn learn(&self, map: OsdMap) {
        self.shared.push(Input::Event(Event::Maps { full: Some(Box::new(map)), increments: Vec::new() }));
    }
}
