//! Connections to OSDs: made, written to, read from.

use super::{Input, Shared};
use crate::core::{ConnId, Event};
use cairn_net::{CloseReason, Connection, Endpoint, Expect, Handler, Receive, TrySendError};
use cairn_types::{EntityAddr, EntityKind, EntityName, OsdId};
use cairn_wire::op::{OpReply, WatchEvent};
use cairn_wire::{Frame, GoodbyeReason, Lane, LaneSet, Message};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::AbortHandle;

/// One connection.
enum Conn {
    Connecting(AbortHandle),
    Open {
        connection: Connection,
        /// Does not fit into the connection's queue yet. Bounded by what may be in flight.
        overflow: VecDeque<Frame>,
    },
}

/// All of them.
pub(super) struct Connections {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    conns: BTreeMap<ConnId, Conn>,
}

/// Takes what arrives over one connection, on the task that reads it.
struct FromOsd {
    shared: Arc<Shared>,
    conn: ConnId,
}

impl Handler for FromOsd {
    fn poll_ready(&self, _lane: Lane, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.poll_room(cx)
    }

    fn on_frame(&self, connection: &Connection, _lane: Lane, frame: Frame) {
        let conn = self.conn;
        let kind = frame.kind();
        let event = if kind == OpReply::KIND {
            frame.message().map(|reply| Event::Reply { conn, reply, data: frame.into_payload() })
        } else if kind == WatchEvent::KIND {
            frame.message().map(|event| Event::WatchEvent { conn, event })
        } else {
            tracing::debug!(peer = %connection.peer().name, ?kind, "a frame of a kind that clients do not take");
            return;
        };
        match event {
            Ok(event) => self.shared.push(Input::Event(event)),
            Err(error) => {
                tracing::warn!(peer = %connection.peer().name, %error, "a reply cannot be read; closing");
                connection.abort();
            }
        }
    }

    fn on_closed(&self, _connection: &Connection, _reason: &CloseReason) {
        self.shared.push(Input::Event(Event::Closed(self.conn)));
    }
}

impl Connections {
    pub(super) fn new(endpoint: Arc<Endpoint>, shared: Arc<Shared>) -> Self {
        Connections { endpoint, shared, conns: BTreeMap::new() }
    }

    pub(super) fn connect(&mut self, conn: ConnId, osd: OsdId, addr: EntityAddr) {
        let (endpoint, shared) = (self.endpoint.clone(), self.shared.clone());
        let task = tokio::spawn(async move {
            let name = EntityName::new(EntityKind::Osd, &osd.0.to_string());
            let receive = Receive::Handler(Arc::new(FromOsd { shared: shared.clone(), conn }));
            let expect = name.map_or(Expect::Kind(EntityKind::Osd), Expect::Entity);
            match endpoint.connect(addr.socket, &expect, LaneSet::CLIENT, receive).await {
                Ok(connection) => shared.push(Input::Connected(conn, connection)),
                Err(error) => {
                    tracing::debug!(%osd, %error, "cannot connect");
                    shared.push(Input::Event(Event::Closed(conn)));
                }
            }
        });
        self.conns.insert(conn, Conn::Connecting(task.abort_handle()));
    }

    /// Takes a connection that was made; `false` if it is over or not wanted any more.
    pub(super) fn connected(&mut self, conn: ConnId, connection: Connection) -> bool {
        if !matches!(self.conns.get(&conn), Some(Conn::Connecting(_))) {
            connection.abort();
            return false;
        }
        // The end is told to its handler, before or after this.
        if connection.close_reason().is_some() {
            return false;
        }
        self.conns.insert(conn, Conn::Open { connection, overflow: VecDeque::new() });
        true
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    /// Gives a connection up.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        match self.conns.remove(&conn) {
            Some(Conn::Connecting(task)) => task.abort(),
            Some(Conn::Open { connection, .. }) => connection.close(GoodbyeReason::Done),
            None => {}
        }
    }

    pub(super) fn send(&mut self, conn: ConnId, frame: Frame) {
        let Some(Conn::Open { connection, overflow }) = self.conns.get_mut(&conn) else { return };
        if !overflow.is_empty() {
            return overflow.push_back(frame);
        }
        if let Err(TrySendError::Full(frame)) = connection.try_send(Lane::Client, frame) {
            let connection = connection.clone();
            // A place holder for the one that waits outside, so that later ones stay behind it.
            overflow.push_back(Frame::clone(&frame));
            drain(self.shared.clone(), conn, connection, *frame);
        }
        // Of a connection that is over the handler is told.
    }

    /// The first of what waited is in the queue.
    pub(super) fn drained(&mut self, conn: ConnId) {
        let Some(Conn::Open { connection, overflow }) = self.conns.get_mut(&conn) else { return };
        overflow.pop_front();
        while let Some(frame) = overflow.front() {
            // Cheap: a frame shares its bytes.
            match connection.try_send(Lane::Client, frame.clone()) {
                Ok(()) => drop(overflow.pop_front()),
                Err(TrySendError::Full(frame)) => {
                    return drain(self.shared.clone(), conn, connection.clone(), *frame);
                }
                Err(TrySendError::Never(_)) => return overflow.clear(),
            }
        }
    }
}

/// Waits outside for room in a connection's queue.
fn drain(shared: Arc<Shared>, conn: ConnId, connection: Connection, frame: Frame) {
    tokio::spawn(async move {
        // Of a connection that is over the handler is told.
        if connection.send(Lane::Client, frame).await.is_ok() {
            shared.push(Input::Drained(conn));
        }
    });
}
