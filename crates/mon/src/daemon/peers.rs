//! Connections to the other monitors. Each monitor makes one to each other one and only sends on it; what it receives
//! comes over the connections that they make. So nobody has to agree on which of two connections counts.

use crate::message::{MonPeer, to_frame};
use crate::monitor::PeerMessage;
use cairn_net::{CloseReason, Connection, Endpoint, Expect, Handler, Receive};
use cairn_types::{EntityKind, EntityName, MonId, MonMap};
use cairn_wire::{Frame, Lane, LaneSet};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Pause after an attempt to connect that failed, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause. A monitor that comes back connects by itself, and that ends the pause at the others.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The other monitors that were ever known to this process.
pub(super) struct Peers {
    endpoint: Arc<Endpoint>,
    own: MonId,
    links: BTreeMap<MonId, Link>,
}

struct Link {
    name: EntityName,
    addr: SocketAddr,
    shared: Arc<LinkState>,
    task: AbortHandle,
}

#[derive(Default)]
struct LinkState {
    connection: Mutex<Option<Connection>>,
    /// The other end was heard: it is worth a try now.
    heard: Notify,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peers {
    pub fn new(endpoint: Arc<Endpoint>, own: MonId) -> Peers {
        Peers { endpoint, own, links: BTreeMap::new() }
    }

    /// Follows the monitor map. A removed monitor stays known: it has to hear that it was removed. Numbers are never
    /// given twice, so it cannot be taken for another.
    pub fn follow(&mut self, map: &MonMap) {
        for (name, mon) in map.peers().filter(|(_, mon)| mon.id != self.own) {
            let (Ok(name), Some(addr)) = (EntityName::new(EntityKind::Mon, name), mon.addrs.first()) else {
                continue;
            };
            if self.links.get(&mon.id).is_some_and(|link| link.name == name && link.addr == addr.socket) {
                continue;
            }
            let shared = Arc::new(LinkState::default());
            let dial = keep_connected(self.endpoint.clone(), name.clone(), addr.socket, shared.clone());
            let task = tokio::spawn(dial).abort_handle();
            self.links.insert(mon.id, Link { name, addr: addr.socket, shared, task });
        }
    }

    /// The number of the monitor of this name; the newest, if the name was given again.
    pub fn id_of(&self, name: &EntityName) -> Option<MonId> {
        self.links.iter().rev().find(|(_, link)| link.name == *name).map(|(id, _)| *id)
    }

    /// The monitor of this name has connected.
    pub fn heard(&self, name: &EntityName) {
        for link in self.links.values().filter(|link| link.name == *name) {
            link.shared.heard.notify_one();
        }
    }

    /// Sends, or drops what cannot go: the log bears any loss.
    pub fn send(&self, to: MonId, message: PeerMessage) {
        let Some(link) = self.links.get(&to) else { return };
        let Some(connection) = link.shared.connection.lock().clone() else { return };
        match to_frame(&MonPeer(message)) {
            Ok(frame) => {
                if let Err(error) = connection.try_send(Lane::Control, frame) {
                    tracing::debug!(peer = %link.name, %error, "a message to a monitor is dropped");
                }
            }
            Err(error) => {
                tracing::error!(peer = %link.name, %error, "a message between monitors is too large")
            }
        }
    }
}

async fn keep_connected(endpoint: Arc<Endpoint>, name: EntityName, addr: SocketAddr, link: Arc<LinkState>) {
    let mut pause = PAUSE_MIN;
    loop {
        let expect = Expect::Entity(name.clone());
        let receive = Receive::Handler(Arc::new(OneWay));
        match endpoint.connect(addr, &expect, LaneSet::CONTROL, receive).await {
            Ok(connection) => {
                tracing::debug!(peer = %name, %addr, "connected to a monitor");
                *link.connection.lock() = Some(connection.clone());
                let reason = connection.closed().await;
                *link.connection.lock() = None;
                tracing::info!(peer = %name, %addr, %reason, "the connection to a monitor ended");
                pause = PAUSE_MIN;
            }
            Err(error) => {
                tracing::debug!(peer = %name, %error, "a monitor cannot be reached");
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        let _ = tokio::time::timeout(pause, link.heard.notified()).await;
    }
}

/// Receives nothing.
struct OneWay;

impl Handler for OneWay {
    fn on_frame(&self, connection: &Connection, _: Lane, frame: Frame) {
        tracing::warn!(peer = %connection.peer().name, kind = %frame.kind(), "a monitor answers where it should not");
        connection.abort();
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {}
}
