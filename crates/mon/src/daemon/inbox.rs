//! What arrives over connections that others made: monitors apart from everybody else, so that a crowd of clients
//! cannot hold up the log.

use cairn_net::{CloseReason, Connection, Handler};
use cairn_types::EntityKind;
use cairn_wire::{Frame, Lane};
use parking_lot::Mutex;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Frames of monitors that wait; beyond it their connections are not read.
const PEER_FRAMES_WAITING_MAX: usize = 256;

/// Frames of everybody else.
const CLIENT_FRAMES_WAITING_MAX: usize = 256;

/// This process's name of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ConnId(pub u64);

/// A frame and where it came from.
pub(super) struct Inbound {
    pub from: ConnId,
    pub connection: Connection,
    pub frame: Frame,
}

/// The sending ends, one set for all connections.
#[derive(Clone)]
pub(super) struct Senders {
    peers: PollSender<Inbound>,
    clients: PollSender<Inbound>,
    /// One for each connection at most.
    closed: mpsc::UnboundedSender<ConnId>,
}

/// The receiving ends.
pub(super) struct Inbox {
    pub peers: mpsc::Receiver<Inbound>,
    pub clients: mpsc::Receiver<Inbound>,
    pub closed: mpsc::UnboundedReceiver<ConnId>,
}

pub(super) fn inbox() -> (Senders, Inbox) {
    let (peers_in, peers) = mpsc::channel(PEER_FRAMES_WAITING_MAX);
    let (clients_in, clients) = mpsc::channel(CLIENT_FRAMES_WAITING_MAX);
    let (closed_in, closed) = mpsc::unbounded_channel();
    let senders =
        Senders { peers: PollSender::new(peers_in), clients: PollSender::new(clients_in), closed: closed_in };
    (senders, Inbox { peers, clients, closed })
}

impl Senders {
    /// Takes the frames of one connection.
    pub fn handler(&self, id: ConnId, kind: EntityKind) -> Arc<dyn Handler> {
        let sender = if kind == EntityKind::Mon { &self.peers } else { &self.clients };
        Arc::new(Tagged { id, sender: Mutex::new(sender.clone()), closed: self.closed.clone() })
    }
}

struct Tagged {
    id: ConnId,
    /// Connections to monitors have one lane, so nobody waits for this lock.
    sender: Mutex<PollSender<Inbound>>,
    closed: mpsc::UnboundedSender<ConnId>,
}

impl Handler for Tagged {
    fn poll_ready(&self, _: Lane, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the monitor stops: what arrives is dropped.
        self.sender.lock().poll_reserve(cx).map(|_| ())
    }

    fn on_frame(&self, connection: &Connection, _: Lane, frame: Frame) {
        let _ =
            self.sender.lock().send_item(Inbound { from: self.id, connection: connection.clone(), frame });
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {
        let _ = self.closed.send(self.id);
    }
}
