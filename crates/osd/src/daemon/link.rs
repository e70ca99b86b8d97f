//! The sending side of a connection. A lane's own queue is bounded; what another OSD does not take in time waits
//! here, for the core has already counted it as sent.

use cairn_net::{Connection, TrySendError};
use cairn_types::OsdId;
use cairn_wire::{Frame, Lane};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Bytes that wait for one lane of another OSD. Beyond it the connection is given up, and what was not acknowledged
/// is sent again over the next.
const BACKLOG_BYTES_MAX: usize = 256 << 20;

/// A connection to send on.
#[derive(Debug)]
pub struct Outlet {
    pub connection: Connection,
    /// Another OSD's; a client's otherwise.
    pub peer: Option<OsdId>,
    backlogs: [Option<Backlog>; Lane::ALL.len()],
}

/// What waits for room in a lane's queue, and the task that moves it there.
#[derive(Debug)]
struct Backlog {
    frames: mpsc::UnboundedSender<Frame>,
    /// Bytes; zero when everything has been moved.
    waiting: Arc<AtomicUsize>,
}

impl Outlet {
    pub fn new(connection: Connection, peer: Option<OsdId>) -> Outlet {
        Outlet { connection, peer, backlogs: [const { None }; Lane::ALL.len()] }
    }

    /// Sends in order. A client that does not take its answers loses its connection.
    pub fn send(&mut self, lane: Lane, frame: Frame) {
        let backlog = &mut self.backlogs[usize::from(lane.number())];
        if let Some(backlog) = backlog.as_ref().filter(|backlog| backlog.waiting.load(Relaxed) > 0) {
            return backlog.put(frame, &self.connection);
        }
        match self.connection.try_send(lane, frame) {
            Ok(()) => {}
            Err(TrySendError::Full(frame)) if self.peer.is_some() => {
                let backlog = backlog.get_or_insert_with(|| Backlog::start(self.connection.clone(), lane));
                backlog.put(*frame, &self.connection);
            }
            Err(TrySendError::Full(_)) => {
                tracing::warn!(client = %self.connection.peer().name, "a client does not take its answers");
                self.connection.abort();
            }
            // Its end is told by the connection.
            Err(TrySendError::Never(_)) => {}
        }
    }
}

impl Backlog {
    fn start(connection: Connection, lane: Lane) -> Backlog {
        let (frames, mut waiting_frames) = mpsc::unbounded_channel::<Frame>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        tokio::spawn(async move {
            while let Some(frame) = waiting_frames.recv().await {
                let len = frame.wire_len();
                if connection.send(lane, frame).await.is_err() {
                    return;
                }
                left.fetch_sub(len, Relaxed);
            }
        });
        Backlog { frames, waiting }
    }

    fn put(&self, frame: Frame, connection: &Connection) {
        let before = self.waiting.fetch_add(frame.wire_len(), Relaxed);
        if before > BACKLOG_BYTES_MAX {
            tracing::warn!(peer = %connection.peer().name, "it does not take what it is sent");
            connection.abort();
            return;
        }
        // Without its task the connection has ended.
        let _ = self.frames.send(frame);
    }
}
