//! What the active mgr is told: the newest report, when it can be reached. Nobody waits for it.

use crate::message::Report;
use cairn_net::{CloseReason, Connection, Endpoint, Expect, Handler, Receive};
use cairn_types::{EntityAddr, EntityKind, EntityName, OsdReport};
use cairn_wire::{Frame, GoodbyeReason, Lane, LaneSet, Payload};
use std::sync::Arc;
use tokio::sync::watch;

/// A mgr says nothing to OSDs.
struct Deaf;

impl Handler for Deaf {
    fn on_frame(&self, _connection: &Connection, _lane: Lane, _frame: Frame) {}

    fn on_closed(&self, _connection: &Connection, _reason: &CloseReason) {}
}

/// The active mgr: its name and where it is.
pub type Mgr = Option<(String, EntityAddr)>;

/// Sends each new report, over a connection that is made when there is something to send.
pub async fn report(
    endpoint: Arc<Endpoint>,
    mgr: watch::Receiver<Mgr>,
    mut reports: watch::Receiver<Option<OsdReport>>,
) {
    let mut at: Option<(EntityAddr, Connection)> = None;
    while reports.changed().await.is_ok() {
        let Some(report) = reports.borrow_and_update().clone() else { continue };
        let wanted = mgr.borrow().clone();
        let is_good = |(addr, connection): &(EntityAddr, Connection)| {
            wanted.as_ref().is_some_and(|(_, mgr)| mgr == addr) && connection.close_reason().is_none()
        };
        if let Some((_, connection)) = at.take_if(|at| !is_good(at)) {
            connection.close(GoodbyeReason::Done);
        }
        let Some((name, addr)) = wanted else { continue };
        if at.is_none() {
            let Ok(name) = EntityName::new(EntityKind::Mgr, &name) else { continue };
            let expect = Expect::Entity(name);
            let receive = Receive::Handler(Arc::new(Deaf));
            match endpoint.connect(addr.socket, &expect, LaneSet::CONTROL, receive).await {
                Ok(connection) => at = Some((addr, connection)),
                Err(error) => tracing::debug!(%error, "the mgr cannot be reached"),
            }
        }
        if let Some((_, connection)) = &at {
            match Frame::new(&Report(report), Payload::none()) {
                // A queue that is full has older reports, and the next one says more.
                Ok(frame) => drop(connection.try_send(Lane::Control, frame)),
                Err(error) => tracing::warn!(%error, "the report for the mgr cannot be sent"),
            }
        }
    }
}
