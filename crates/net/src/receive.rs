//! Where frames go that arrive: to a handler on the task that read them, or through a bounded channel.

use crate::connection::Connection;
use crate::error::CloseReason;
use cairn_wire::{Frame, Lane};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Takes frames on the task that reads the lane: no other thread is woken between the socket and the handler,
/// and what the handler sends on the same connection goes out in one write when it has had all that was read.
///
/// The lanes of a connection call at the same time; the frames of one lane come one by one and in order.
/// A handler that blocks or works for long holds up its lane.
pub trait Handler: Send + Sync + 'static {
    /// Whether the next frame of `lane` can be taken. While it cannot, nothing more is read from the lane
    /// and the peer's sends wait; the task is to be woken through `cx`.
    fn poll_ready(&self, _lane: Lane, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// A frame arrived whole, its checksums right.
    fn on_frame(&self, connection: &Connection, lane: Lane, frame: Frame);

    /// The connection is over. Called once, after the last frame.
    fn on_closed(&self, connection: &Connection, reason: &CloseReason);
}

/// What a channel receives.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// A frame arrived.
    Frame {
        /// From whom.
        connection: Connection,
        /// On which lane.
        lane: Lane,
        /// The frame.
        frame: Frame,
    },
    /// The connection is over; nothing more comes from it.
    Closed {
        /// Which.
        connection: Connection,
        /// Why.
        reason: CloseReason,
    },
}

/// Where the frames of a connection go.
#[derive(Clone)]
pub enum Receive {
    /// To a handler, without a hop between threads.
    Handler(Arc<dyn Handler>),
    /// To a bounded channel, shared by as many connections as its reader likes. When it is full the lanes stop
    /// reading, so its bound is the bound of what waits here.
    Channel(mpsc::Sender<Delivery>),
}

/// One lane's way to the receiver.
pub(crate) enum Sink {
    Handler(Arc<dyn Handler>),
    Channel(PollSender<Delivery>),
}

/// The receiver of a channel was dropped.
pub(crate) struct Gone;

impl Sink {
    pub(crate) fn new(receive: &Receive) -> Self {
        match receive {
            Receive::Handler(handler) => Sink::Handler(handler.clone()),
            Receive::Channel(sender) => Sink::Channel(PollSender::new(sender.clone())),
        }
    }

    pub(crate) fn poll_ready(&mut self, lane: Lane, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self {
            Sink::Handler(handler) => handler.poll_ready(lane, cx).map(Ok),
            Sink::Channel(sender) => Poll::Ready(ready!(sender.poll_reserve(cx)).map_err(|_| Gone)),
        }
    }

    /// Only after [`Sink::poll_ready`] was ready.
    pub(crate) fn deliver(&mut self, connection: &Connection, lane: Lane, frame: Frame) -> Result<(), Gone> {
        match self {
            Sink::Handler(handler) => {
                handler.on_frame(connection, lane, frame);
                Ok(())
            }
            Sink::Channel(sender) => sender
                .send_item(Delivery::Frame { connection: connection.clone(), lane, frame })
                .map_err(|_| Gone),
        }
    }
}

impl Receive {
    pub(crate) async fn closed(&self, connection: &Connection, reason: &CloseReason) {
        match self {
            Receive::Handler(handler) => handler.on_closed(connection, reason),
            Receive::Channel(sender) => {
                let closed = Delivery::Closed { connection: connection.clone(), reason: reason.clone() };
                // Nobody is left to tell when this fails.
                let _ = sender.send(closed).await;
            }
        }
    }
}
