//! The send queue of one lane: filled from anywhere, emptied in batches by the lane's task.

use crate::config::SEND_COST_MIN;
use crate::error::{SendError, TrySendError};
use cairn_wire::{Frame, GoodbyeReason};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::task::{Context, Waker};
use tokio::sync::{Semaphore, TryAcquireError};

/// Bounded by bytes. Senders wait in turn for room, room comes back when frames have been handed to the
/// carrier, and the lane's task is woken once for all that waits.
#[derive(Debug)]
pub(crate) struct SendQueue {
    /// One permit per byte of room.
    room: Semaphore,
    room_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// Of the lane's task, while it sleeps with nothing to send.
    idle: Option<Waker>,
    /// Set once: no frame is taken any more, and a goodbye is to follow the last.
    goodbye: Option<GoodbyeReason>,
}

/// What the lane's task finds in its queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Frames were moved out; their cost is to be given back by [`SendQueue::give_back`].
    Frames {
        /// Sum over the frames.
        cost: usize,
    },
    /// Nothing now; the task will be woken.
    Idle,
    /// Nothing now or ever again: say goodbye.
    Ended(GoodbyeReason),
}

impl SendQueue {
    pub(crate) fn new(room_max: usize) -> Self {
        let room_max = room_max.clamp(SEND_COST_MIN, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        SendQueue { room: Semaphore::new(room_max), room_max, state: Mutex::default() }
    }

    fn cost(&self, frame: &Frame) -> usize {
        frame.wire_len().clamp(SEND_COST_MIN, self.room_max)
    }

    /// Queues `frame` when there is room; senders that wait go first.
    pub(crate) async fn push(&self, frame: Frame) -> Result<(), SendError> {
        let permits =
            self.room.acquire_many(self.cost(&frame) as u32).await.map_err(|_| SendError::Closed)?;
        self.push_now(frame)?;
        permits.forget();
        Ok(())
    }

    /// Queues `frame` if there is room now.
    pub(crate) fn try_push(&self, frame: Frame) -> Result<(), TrySendError> {
        match self.room.try_acquire_many(self.cost(&frame) as u32) {
            Ok(permits) => {
                self.push_now(frame).map_err(TrySendError::Never)?;
                permits.forget();
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(TrySendError::Full(Box::new(frame))),
            Err(TryAcquireError::Closed) => Err(TrySendError::Never(SendError::Closed)),
        }
    }

    fn push_now(&self, frame: Frame) -> Result<(), SendError> {
        let waker = {
            let mut state = self.state.lock();
            if state.goodbye.is_some() {
                return Err(SendError::Closed);
            }
            state.frames.push_back(frame);
            state.idle.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Moves frames of up to `batch_len` bytes to the end of `batch`; at least one if there is any. When there
    /// is none, remembers whom to wake.
    pub(crate) fn take(&self, cx: &Context<'_>, batch: &mut Vec<Frame>, batch_len: usize) -> Taken {
        let mut state = self.state.lock();
        let (mut cost, mut len) = (0, 0);
        while let Some(frame) = state.frames.front() {
            len += frame.wire_len();
            if len > batch_len && cost > 0 {
                break;
            }
            cost += self.cost(frame);
            batch.extend(state.frames.pop_front());
        }
        if cost > 0 {
            // What is pushed from now on is found when this batch is out.
            state.idle = None;
            return Taken::Frames { cost };
        }
        if let Some(reason) = state.goodbye {
            return Taken::Ended(reason);
        }
        match &state.idle {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.idle = Some(cx.waker().clone()),
        }
        Taken::Idle
    }

    /// Makes room again.
    pub(crate) fn give_back(&self, cost: usize) {
        self.room.add_permits(cost);
    }

    /// Takes no more frames; what is queued still goes out, then a goodbye with the first reason given.
    pub(crate) fn end(&self, reason: GoodbyeReason) {
        let waker = {
            let mut state = self.state.lock();
            state.goodbye.get_or_insert(reason);
            state.idle.take()
        };
        self.room.close();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops what is queued; nothing will go out any more.
    pub(crate) fn abandon(&self) {
        self.end(GoodbyeReason::Done);
        self.state.lock().frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_wire::{KeepAlive, Payload};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Poll, Wake};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn frame(len: usize) -> Frame {
        Frame::new(&KeepAlive {}, Payload::of(0, vec![0; len].into())).unwrap()
    }

    #[test]
    fn small_frames_are_bounded_in_number_and_large_ones_pass_alone() {
        let queue = SendQueue::new(8 * SEND_COST_MIN);
        for _ in 0..8 {
            queue.try_push(frame(0)).unwrap();
        }
        assert!(matches!(queue.try_push(frame(0)), Err(TrySendError::Full(_))));
        let waker = Arc::new(Wakes::default()).into();
        let cx = Context::from_waker(&waker);
        let mut batch = Vec::new();
        let Taken::Frames { cost } = queue.take(&cx, &mut batch, 1 << 20) else { panic!("frames wait") };
        assert_eq!((batch.len(), cost), (8, 8 * SEND_COST_MIN));
        assert!(queue.try_push(frame(0)).is_err(), "room comes back when the frames are out");
        queue.give_back(cost);
        queue.try_push(frame(1 << 20)).unwrap();
        assert!(queue.try_push(frame(0)).is_err());
    }

    #[test]
    fn a_sleeping_lane_is_woken_once_for_many_frames() {
        let queue = SendQueue::new(1 << 20);
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let cx = Context::from_waker(&waker);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&cx, &mut batch, 1000), Taken::Idle);
        for _ in 0..5 {
            queue.try_push(frame(0)).unwrap();
        }
        assert_eq!(wakes.0.load(SeqCst), 1);
        // While it works it looks again before it sleeps: no wake-up.
        assert!(matches!(queue.take(&cx, &mut batch, 1000), Taken::Frames { .. }));
        queue.try_push(frame(0)).unwrap();
        assert_eq!(wakes.0.load(SeqCst), 1);
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let queue = SendQueue::new(1 << 20);
        for len in [5000, 100, 100] {
            queue.try_push(frame(len)).unwrap();
        }
        let waker = Arc::new(Wakes::default()).into();
        let cx = Context::from_waker(&waker);
        let mut batch = Vec::new();
        queue.take(&cx, &mut batch, 1000);
        assert_eq!(batch.len(), 1, "larger than the bound, alone");
        queue.take(&cx, &mut batch, 1000);
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn an_ended_queue_empties_then_says_goodbye_and_wakes_who_waits() {
        let queue = SendQueue::new(2 * SEND_COST_MIN);
        queue.try_push(frame(0)).unwrap();
        queue.try_push(frame(0)).unwrap();
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut waiting = pin!(queue.push(frame(0)));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        queue.end(GoodbyeReason::Shutdown);
        queue.end(GoodbyeReason::Done);
        assert_eq!(wakes.0.load(SeqCst), 1);
        assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(Err(SendError::Closed))));
        assert!(matches!(queue.try_push(frame(0)), Err(TrySendError::Never(SendError::Closed))));
        let mut batch = Vec::new();
        assert!(matches!(queue.take(&cx, &mut batch, 1 << 20), Taken::Frames { .. }));
        assert_eq!(batch.len(), 2);
        assert_eq!(queue.take(&cx, &mut batch, 1 << 20), Taken::Ended(GoodbyeReason::Shutdown));
    }
}
