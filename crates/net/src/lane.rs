//! One lane at work: a single task reads, hands over, collects what is to be sent, and writes.
//!
//! One task and not two, because what a handler answers on the reader's task is then written by the same
//! task when all that was read has been handled: no wake-up, and one write for many answers.

use crate::carrier::Stream;
use crate::connection::Connection;
use crate::error::CloseReason;
use crate::queue::{SendQueue, Taken};
use crate::receive::Sink;
use bytes::{BufMut, Bytes, BytesMut};
use cairn_wire::{Frame, FrameDecoder, Goodbye, GoodbyeReason, KeepAlive, Lane, Message, Payload};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Room given to a read between frames. Small frames share such a buffer; the rest of a large one gets its own.
const READ_LEN: usize = 64 << 10;
/// Frames that are encoded together, in bytes; a larger frame goes alone.
const WRITE_BATCH_LEN: usize = 256 << 10;
/// Parts of a payload up to this size are copied behind their header, longer ones are written from their place.
const COPY_LEN_MAX: usize = 1024;
/// Turns of reading and writing before other tasks of the thread get theirs.
const TURNS_MAX: usize = 32;

/// How far the sending direction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// The goodbye is written or being written; the stream is to be shut down behind it.
    Ending,
    Done,
}

pub(crate) struct LaneTask {
    lane: Lane,
    stream: Stream,
    connection: Connection,
    sink: Sink,

    decoder: FrameDecoder,
    inbox: BytesMut,
    /// Decoded, and waiting for the receiver to be ready.
    held: Option<Frame>,
    peer_goodbye: bool,
    read_done: bool,

    batch: Vec<Frame>,
    out: VecDeque<Bytes>,
    /// Heads and short payloads of frames, on the way into `out`.
    scratch: BytesMut,
    /// What the frames in `out` cost in the queue.
    out_cost: usize,
    sequence: u64,
    flush: bool,
    sending: Sending,
}

impl Drop for LaneTask {
    /// Before the stream is dropped with it: the peer answers its end by ending the other lanes, and their
    /// loss must not be taken for the cause.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.connection.shared().failed(CloseReason::ReceiverGone);
        }
    }
}

impl LaneTask {
    /// `inbox` has what the handshake read too much.
    pub(crate) fn new(
        lane: Lane,
        stream: Stream,
        inbox: BytesMut,
        connection: Connection,
        sink: Sink,
    ) -> Self {
        LaneTask {
            lane,
            stream,
            connection,
            sink,
            decoder: FrameDecoder::new(lane),
            inbox,
            held: None,
            peer_goodbye: false,
            read_done: false,
            batch: Vec::new(),
            out: VecDeque::new(),
            scratch: BytesMut::new(),
            out_cost: 0,
            sequence: 0,
            flush: false,
            sending: Sending::Open,
        }
    }

    /// Works until both directions have ended in good order, or one failed.
    pub(crate) async fn run(mut self) -> Result<(), CloseReason> {
        let result = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let Err(reason) = &result {
            self.connection.shared().failed(reason.clone());
        }
        result
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        for _ in 0..TURNS_MAX {
            let received = self.receive(cx)?;
            let sent = self.send(cx)?;
            if self.read_done && self.sending == Sending::Done {
                return Poll::Ready(Ok(()));
            }
            if !received && !sent {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands over what has arrived and reads once. Says whether anything moved.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.read_done || !self.hand_over(cx)? {
            return Ok(false);
        }
        // The rest of a frame has its room; between frames a small rest of the buffer is not worth a read.
        if !self.decoder.in_frame() && self.inbox.capacity() - self.inbox.len() < READ_LEN / 4 {
            self.inbox.reserve(READ_LEN);
        }
        match self.stream.poll_read(cx, &mut self.inbox).map_err(CloseReason::of_io)? {
            Poll::Pending => Ok(false),
            Poll::Ready(0) => {
                if !self.peer_goodbye || !self.decoder.at_boundary(&self.inbox) {
                    return Err(CloseReason::Lost);
                }
                self.read_done = true;
                Ok(true)
            }
            Poll::Ready(_) => {
                self.connection.shared().heard();
                self.hand_over(cx)?;
                Ok(true)
            }
        }
    }

    /// Gives whole frames to the receiver; false when it is not ready and a frame waits.
    fn hand_over(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        loop {
            if self.held.is_none() {
                self.held = self
                    .decoder
                    .next(&mut self.inbox)
                    .map_err(|error| CloseReason::Frame { lane: self.lane, error: Arc::new(error) })?;
            }
            let Some(kind) = self.held.as_ref().map(Frame::kind) else { return Ok(true) };
            if kind == KeepAlive::KIND {
                self.held = None;
                continue;
            }
            if kind == Goodbye::KIND {
                let reason = self.held.take().and_then(|frame| frame.message::<Goodbye>().ok());
                self.peer_goodbye = true;
                // A reason of a later release cannot be read; the goodbye counts all the same.
                self.connection.shared().peer_goodbye(reason.map_or(GoodbyeReason::Done, |g| g.reason));
                continue;
            }
            match self.sink.poll_ready(self.lane, cx) {
                Poll::Pending => {
                    self.connection.shared().set_blocked(self.lane, true);
                    return Ok(false);
                }
                Poll::Ready(ready) => {
                    self.connection.shared().set_blocked(self.lane, false);
                    let frame = self.held.take().expect("looked at above");
                    ready
                        .and_then(|()| self.sink.deliver(&self.connection, self.lane, frame))
                        .map_err(|_gone| CloseReason::ReceiverGone)?;
                }
            }
        }
    }

    fn queue(&self) -> &SendQueue {
        self.connection.shared().queue(self.lane).expect("a lane at work has its queue")
    }

    /// Writes what waits, batch by batch, as far as the carrier takes it. Says whether anything moved.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut moved = false;
        loop {
            if !self.out.is_empty() {
                let Poll::Ready(written) = self.stream.poll_write(cx, &mut self.out) else { break };
                written.map_err(CloseReason::of_io)?;
                moved = true;
                self.flush = true;
                if self.out.is_empty() {
                    let cost = std::mem::take(&mut self.out_cost);
                    self.queue().give_back(cost);
                }
                continue;
            }
            match self.sending {
                Sending::Open => self.fill(cx),
                Sending::Ending => match self.stream.poll_shutdown(cx) {
                    Poll::Pending => break,
                    Poll::Ready(result) => {
                        result.map_err(CloseReason::of_io)?;
                        self.sending = Sending::Done;
                        moved = true;
                    }
                },
                Sending::Done => break,
            }
            if self.out.is_empty() && self.sending == Sending::Open {
                break;
            }
        }
        if self.flush
            && self.sending != Sending::Done
            && let Poll::Ready(result) = self.stream.poll_flush(cx)
        {
            result.map_err(CloseReason::of_io)?;
            self.flush = false;
        }
        Ok(moved)
    }

    /// Moves a batch from the queue to `out`.
    fn fill(&mut self, cx: &mut Context<'_>) {
        let mut batch = std::mem::take(&mut self.batch);
        let taken = self.queue().take(cx, &mut batch, WRITE_BATCH_LEN);
        for frame in batch.drain(..) {
            self.encode(&frame);
        }
        self.batch = batch;
        match taken {
            Taken::Frames { cost } => {
                self.out_cost = cost;
                self.connection.shared().spoke();
            }
            Taken::Idle => {}
            Taken::Ended(reason) => {
                let goodbye = Frame::new(&Goodbye { reason }, Payload::none());
                self.encode(&goodbye.expect("a goodbye is far below the limits"));
                self.sending = Sending::Ending;
            }
        }
        if !self.scratch.is_empty() {
            self.out.push_back(self.scratch.split().freeze());
        }
    }

    fn encode(&mut self, frame: &Frame) {
        frame.encode_head(self.lane, self.sequence, &mut self.scratch);
        self.sequence += 1;
        for segment in frame.payload().segments() {
            if segment.data().len() <= COPY_LEN_MAX {
                self.scratch.put_slice(segment.data());
            } else {
                self.out.push_back(self.scratch.split().freeze());
                self.out.push_back(segment.data().clone());
            }
        }
    }
}
