//! A connection: its lanes, who is at the other end, and how it ends.

use crate::carrier::{Stream, quic};
use crate::config::{Carrier, Tuning};
use crate::error::{CloseReason, SendError, TrySendError};
use crate::lane::LaneTask;
use crate::queue::SendQueue;
use crate::receive::{Receive, Sink};
use bytes::BytesMut;
use cairn_types::EntityName;
use cairn_wire::{Frame, GoodbyeReason, KeepAlive, Lane, Payload};
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Who is at the other end, and what both speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// By its certificate.
    pub name: EntityName,
    /// Where it is, as seen from here.
    pub addr: SocketAddr,
    /// Grows with every start of its process.
    pub incarnation: u64,
    /// Protocol version of this connection.
    pub version: u32,
    /// Features both sides have.
    pub features: u64,
}

/// A handle on a connection, cheap to clone. The connection ends when it is closed, when its peer goes, or with
/// its endpoint; dropping handles does not end it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    peer: Peer,
    carrier: Carrier,
    queues: [Option<SendQueue>; Lane::ALL.len()],
    /// Something came since the last look.
    heard: AtomicBool,
    /// Something was sent since the last look.
    spoke: AtomicBool,
    /// Bit per lane: its receiver is not ready, so nothing is read from it.
    blocked: AtomicU8,
    /// The first good or bad word about the end; the final one in `closed` follows from it.
    ending: Mutex<Option<CloseReason>>,
    ended: Notify,
    aborted: Notify,
    closed: watch::Sender<Option<CloseReason>>,
}

impl Shared {
    pub(crate) fn queue(&self, lane: Lane) -> Option<&SendQueue> {
        self.queues[usize::from(lane.number())].as_ref()
    }

    pub(crate) fn heard(&self) {
        self.heard.store(true, Relaxed);
    }

    pub(crate) fn spoke(&self) {
        self.spoke.store(true, Relaxed);
    }

    pub(crate) fn set_blocked(&self, lane: Lane, blocked: bool) {
        let bit = 1 << lane.number();
        if (self.blocked.load(Relaxed) & bit != 0) != blocked {
            self.blocked.fetch_xor(bit, Relaxed);
        }
    }

    /// The peer ends in good order: so do we, after what is queued.
    pub(crate) fn peer_goodbye(&self, reason: GoodbyeReason) {
        self.end(CloseReason::Peer(reason), reason);
    }

    /// A lane cannot go on. Its word counts only if there was none before.
    pub(crate) fn failed(&self, reason: CloseReason) {
        self.ending.lock().get_or_insert(reason);
    }

    fn end(&self, why: CloseReason, goodbye: GoodbyeReason) {
        self.ending.lock().get_or_insert(why);
        for queue in self.queues.iter().flatten() {
            queue.end(goodbye);
        }
        self.ended.notify_one();
    }
}

impl Connection {
    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// How its bytes travel.
    pub fn carrier(&self) -> Carrier {
        self.shared.carrier
    }

    /// Whether both handles are of the same connection.
    pub fn same(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn queue(&self, lane: Lane) -> Result<&SendQueue, SendError> {
        self.shared.queue(lane).ok_or(SendError::NoLane(lane))
    }

    /// Queues `frame` on `lane`, after waiting for room if need be; waiting senders go in turn. Queued is not
    /// delivered: a frame is lost when the connection is.
    pub async fn send(&self, lane: Lane, frame: Frame) -> Result<(), SendError> {
        self.queue(lane)?.push(frame).await
    }

    /// Queues `frame` on `lane` if there is room now. For handlers, which may not wait.
    pub fn try_send(&self, lane: Lane, frame: Frame) -> Result<(), TrySendError> {
        self.queue(lane).map_err(TrySendError::Never)?.try_push(frame)
    }

    /// Closes in good order: what is queued is sent, then a goodbye, and the peer does the same. Takes no more
    /// frames. See [`Connection::closed`] for the end of it.
    pub fn close(&self, reason: GoodbyeReason) {
        self.shared.end(CloseReason::Local(reason), reason);
    }

    /// Closes at once; what is queued or on the way may be lost.
    pub fn abort(&self) {
        self.shared.ending.lock().get_or_insert(CloseReason::Aborted);
        self.shared.aborted.notify_one();
    }

    /// Waits for the end.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.shared.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.expect("the handle keeps the sender");
        reason.clone().expect("waited for")
    }

    /// Why it ended, if it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.closed.borrow().clone()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} at {})", self.shared.peer.name, self.shared.peer.addr)
    }
}

/// A lane that is ready for frames.
pub(crate) struct ReadyLane {
    pub(crate) lane: Lane,
    pub(crate) stream: Stream,
    /// What was read behind the handshake.
    pub(crate) inbox: BytesMut,
}

/// What a connection shares with the endpoint it belongs to.
#[derive(Clone)]
pub(crate) struct Belongs {
    /// Turns true, or ends, when the endpoint closes.
    pub(crate) closing: watch::Receiver<bool>,
    /// Held while the connection lives.
    pub(crate) alive: mpsc::Sender<()>,
}

/// Sets the lanes to work.
pub(crate) fn start(
    peer: Peer,
    lanes: Vec<ReadyLane>,
    quic: Option<quinn::Connection>,
    tuning: &Tuning,
    receive: Receive,
    belongs: Belongs,
) -> Connection {
    let present = |lane| lanes.iter().any(|ready| ready.lane == lane);
    let queues = Lane::ALL.map(|lane| present(lane).then(|| SendQueue::new(tuning.send_queue_bytes_max)));
    let connection = Connection {
        shared: Arc::new(Shared {
            peer,
            carrier: if quic.is_some() { Carrier::Quic } else { Carrier::Tcp },
            queues,
            heard: AtomicBool::new(true),
            spoke: AtomicBool::new(true),
            blocked: AtomicU8::new(0),
            ending: Mutex::new(None),
            ended: Notify::new(),
            aborted: Notify::new(),
            closed: watch::Sender::new(None),
        }),
    };
    let mut tasks = JoinSet::new();
    for ReadyLane { lane, stream, inbox } in lanes {
        tasks.spawn(LaneTask::new(lane, stream, inbox, connection.clone(), Sink::new(&receive)).run());
    }
    tokio::spawn(supervise(connection.clone(), tasks, quic, tuning.clone(), receive, belongs));
    connection
}

/// Stands beside the lanes: sends keep-alives, finds a silent peer, bounds the time of a close, and tells the end.
async fn supervise(
    connection: Connection,
    mut tasks: JoinSet<Result<(), CloseReason>>,
    quic: Option<quinn::Connection>,
    tuning: Tuning,
    receive: Receive,
    mut belongs: Belongs,
) {
    let shared = &connection.shared;
    let watched = watch_lanes(&connection, &mut tasks, &tuning, &mut belongs.closing).await;
    // The first word counts: a peer that says goodbye may reset the rest of its lanes.
    let reason = shared.ending.lock().clone().or(watched).unwrap_or(CloseReason::Lost);
    tasks.shutdown().await;
    for queue in shared.queues.iter().flatten() {
        queue.abandon();
    }
    if let Some(quic) = quic {
        let good = matches!(reason, CloseReason::Local(_) | CloseReason::Peer(_));
        quic.close(if good { quic::CODE_DONE } else { quic::CODE_ABORTED }, b"");
    }
    tracing::debug!(peer = %shared.peer.name, addr = %shared.peer.addr, %reason, "connection closed");
    shared.closed.send_replace(Some(reason.clone()));
    receive.closed(&connection, &reason).await;
}

/// Until every lane has ended (`None`) or the connection is to be given up.
async fn watch_lanes(
    connection: &Connection,
    tasks: &mut JoinSet<Result<(), CloseReason>>,
    tuning: &Tuning,
    closing: &mut watch::Receiver<bool>,
) -> Option<CloseReason> {
    let shared = &connection.shared;
    let start = Instant::now() + tuning.keep_alive_interval;
    let mut ticks = tokio::time::interval_at(start, tuning.keep_alive_interval);
    // After this process was stopped for a while, what waits in the sockets is read before the next look.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_intervals = 0;
    let mut deadline = None;
    loop {
        tokio::select! {
            lane = tasks.join_next() => match lane {
                None => return None,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(reason))) => return Some(reason),
                Some(Err(panic)) => {
                    tracing::error!(peer = %shared.peer.name, %panic, "a receiver of frames panicked");
                    return Some(CloseReason::ReceiverGone);
                }
            },
            _ = ticks.tick() => {
                if !shared.spoke.swap(false, Relaxed) {
                    let frame = Frame::new(&KeepAlive {}, Payload::none()).expect("far below the limits");
                    // When the queue has no room or is closed, something is on its way already.
                    let _ = connection.try_send(Lane::Control, frame);
                }
                let quiet = !shared.heard.swap(false, Relaxed) && shared.blocked.load(Relaxed) == 0;
                silent_intervals = if quiet { silent_intervals + 1 } else { 0 };
                if silent_intervals >= tuning.silent_intervals_max {
                    return Some(CloseReason::Silent);
                }
            }
            () = shared.ended.notified(), if deadline.is_none() => {
                deadline = Some(Instant::now() + tuning.close_timeout);
            }
            () = tokio::time::sleep_until(deadline.unwrap_or(start)), if deadline.is_some() => return None,
            () = shared.aborted.notified() => return None,
            _ = closing.wait_for(|closing| *closing), if deadline.is_none() => {
                connection.close(GoodbyeReason::Shutdown);
                deadline = Some(Instant::now() + tuning.close_timeout);
            }
        }
    }
}
