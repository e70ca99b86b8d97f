//! Who may connect, and what arrives. Clients come to one address, OSDs to the other; who they are was proved by
//! their certificates.

use super::driver::Shared;
use crate::core::{ConnId, Event};
use crate::message;
use cairn_net::{CloseReason, Connection, Endpoint, Handler, Incoming, Receive};
use cairn_types::{EntityAddr, EntityKind, EntityName, OsdId};
use cairn_wire::handshake::RefusalCode;
use cairn_wire::op::{NotifyAck, OpRequest};
use cairn_wire::{Frame, Lane, Message as _, Payload};
use std::net::SocketAddr;
use std::sync::Arc;

/// Whose connection it is.
#[derive(Clone, Debug)]
pub enum Who {
    /// A client's, with its address as the blocklist names it.
    Client(EntityName, EntityAddr),
    /// Another OSD's, made by it.
    Peer(OsdId),
    /// Made by this OSD.
    Dialed(OsdId),
}

impl Who {
    pub fn peer(&self) -> Option<OsdId> {
        match self {
            Who::Client(..) => None,
            Who::Peer(osd) | Who::Dialed(osd) => Some(*osd),
        }
    }
}

/// Takes what arrives on one connection.
pub struct Gate {
    pub shared: Arc<Shared>,
    pub conn: ConnId,
    pub who: Who,
}

/// Why a connection is ended from here.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{0} is not for an OSD to answer, on the {1} lane")]
    Kind(cairn_wire::Kind, Lane),
    #[error(transparent)]
    Message(#[from] cairn_wire::MessageError),
    #[error(transparent)]
    Payload(#[from] cairn_wire::PayloadError),
    #[error(transparent)]
    Peer(#[from] message::PeerMessageError),
}

fn verify(payload: &Payload) -> Result<(), Unfit> {
    Ok(payload.segments().iter().try_for_each(|segment| segment.verify())?)
}

impl Gate {
    fn event(&self, lane: Lane, frame: Frame) -> Result<Event, Unfit> {
        let conn = self.conn;
        if !matches!(self.who, Who::Client(..)) {
            let message = message::from_frame(lane, frame)?;
            if let Some(payload) = message::bulk_of(&message) {
                verify(payload)?;
            }
            return Ok(Event::Peer { conn, message });
        }
        match (frame.kind(), lane) {
            (OpRequest::KIND, Lane::Client) => {
                let request = Box::new(frame.message::<OpRequest>()?);
                let payload = frame.into_payload();
                verify(&payload)?;
                Ok(Event::ClientRequest { conn, request, payload })
            }
            (NotifyAck::KIND, _) => Ok(Event::NotifyAck { conn, ack: frame.message()? }),
            (kind, lane) => Err(Unfit::Kind(kind, lane)),
        }
    }
}

impl Handler for Gate {
    fn on_frame(&self, connection: &Connection, lane: Lane, frame: Frame) {
        self.shared.open(self.conn, connection, &self.who, false);
        if !self.shared.is_open(self.conn) {
            return;
        }
        match self.event(lane, frame) {
            Ok(event) => self.shared.handle(event),
            Err(error) => {
                tracing::warn!(peer = %connection.peer().name, %error, "the connection is ended");
                connection.abort();
            }
        }
    }

    fn on_closed(&self, connection: &Connection, reason: &CloseReason) {
        tracing::debug!(peer = %connection.peer().name, %reason, "a connection is over");
        self.shared.open(self.conn, connection, &self.who, true);
        self.shared.closed(self.conn);
    }
}

fn client(name: &EntityName, from: SocketAddr, incarnation: u64) -> Who {
    // Ports of clients are chance; their incarnation is theirs alone.
    Who::Client(name.clone(), EntityAddr { socket: SocketAddr::new(from.ip(), 0), nonce: incarnation })
}

/// Who may come to the clients' address.
fn of_public(incoming: &Incoming) -> Result<Who, &'static str> {
    match incoming.name().kind() {
        EntityKind::Client | EntityKind::Mgr => {
            Ok(client(incoming.name(), incoming.addr(), incoming.incarnation()))
        }
        EntityKind::Osd => Err("OSDs connect to the cluster address of an OSD"),
        EntityKind::Mon => Err("an OSD connects to the monitors, not they to it"),
    }
}

/// Who may come to the OSDs' address.
fn of_cluster(incoming: &Incoming, whoami: OsdId) -> Result<Who, &'static str> {
    match incoming.name().osd_id() {
        Some(osd) if osd != whoami => Ok(Who::Peer(osd)),
        Some(_) => Err("this is the OSD of that number"),
        None => Err("only OSDs connect here; clients use the public address"),
    }
}

/// Lets in whoever may come, until the endpoint closes.
pub async fn accept(shared: Arc<Shared>, endpoint: Arc<Endpoint>, is_public: bool) {
    while let Some(incoming) = endpoint.accept().await {
        let who = if is_public { of_public(&incoming) } else { of_cluster(&incoming, shared.whoami) };
        let shared = shared.clone();
        tokio::spawn(async move {
            let who = match who {
                Ok(who) => who,
                Err(why) => return incoming.refuse(RefusalCode::IDENTITY, why).await,
            };
            let conn = shared.next_conn();
            let gate = Arc::new(Gate { shared: shared.clone(), conn, who: who.clone() });
            if let Ok(connection) = incoming.accept(Receive::Handler(gate)).await {
                shared.open(conn, &connection, &who, false);
            }
        });
    }
}
