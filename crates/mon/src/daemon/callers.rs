//! Connections of everybody but monitors: calls until they are answered, and subscribers.

use super::inbox::ConnId;
use crate::message::{MonAnswer, MonPublication, to_frame};
use crate::monitor::{Answer, CallTag, Publication, Subscriber};
use cairn_net::Connection;
use cairn_wire::{Frame, GoodbyeReason, Lane, Message};
use std::collections::BTreeMap;

/// Connections that a monitor takes. A connection has one subscription at most.
pub const MAX_CONNECTIONS: usize = crate::monitor::MAX_SUBSCRIBERS;

/// Who is connected and waits for what. The core bounds how many calls wait.
#[derive(Default)]
pub(super) struct Callers {
    connections: BTreeMap<ConnId, Connection>,
    calls: BTreeMap<CallTag, (ConnId, CallTag)>,
    next_tag: u64,
}

impl Callers {
    /// A connection is heard.
    pub fn note(&mut self, id: ConnId, connection: &Connection) {
        self.connections.entry(id).or_insert_with(|| connection.clone());
    }

    /// It is gone. What it asked for may still happen.
    pub fn forget(&mut self, id: ConnId) {
        self.connections.remove(&id);
    }

    /// Ends all connections.
    pub fn close_all(&mut self) {
        for connection in self.connections.values() {
            connection.close(GoodbyeReason::Done);
        }
    }

    /// This monitor's name of a call.
    pub fn name_call(&mut self, id: ConnId, tag: CallTag) -> CallTag {
        let own = CallTag(self.next_tag);
        self.next_tag += 1;
        self.calls.insert(own, (id, tag));
        own
    }

    /// Answers a call.
    pub fn answer(&mut self, own: CallTag, answer: Answer) {
        if let Some((id, tag)) = self.calls.remove(&own) {
            self.answer_to(id, tag, answer);
        }
    }

    /// Answers a call that the core has not seen.
    pub fn answer_to(&self, id: ConnId, tag: CallTag, answer: Answer) {
        let Some(connection) = self.connections.get(&id) else { return };
        send(connection, encode(&MonAnswer { tag, answer }));
    }

    /// Sends what is new. Many get the same, which is encoded once.
    pub fn publish(&self, publications: Vec<(Subscriber, Publication)>) {
        let mut last: Option<(MonPublication, Option<Frame>)> = None;
        for (subscriber, publication) in publications {
            let Some(connection) = self.connections.get(&ConnId(subscriber.0)) else { continue };
            let publication = MonPublication(publication);
            if last.as_ref().is_none_or(|(known, _)| *known != publication) {
                let frame = encode(&publication);
                last = Some((publication, frame));
            }
            send(connection, last.as_ref().and_then(|(_, frame)| frame.clone()));
        }
    }
}

fn encode<M: Message>(message: &M) -> Option<Frame> {
    to_frame(message)
        .inspect_err(|error| tracing::error!(%error, "an answer or map is too large for a message"))
        .ok()
}

/// Sends, or ends a connection that cannot take it: its other end connects anew and asks again.
fn send(connection: &Connection, frame: Option<Frame>) {
    let sent = frame.map(|frame| connection.try_send(Lane::Control, frame));
    if !matches!(sent, Some(Ok(()))) {
        tracing::warn!(peer = %connection.peer().name, "a connection that does not take what it asked for is ended");
        connection.abort();
    }
}
