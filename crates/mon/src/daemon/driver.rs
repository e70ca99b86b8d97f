//! The loop: events in, effects out, in the order that `docs/monitors.md` asks for.

use super::callers::{Callers, MAX_CONNECTIONS};
use super::door::{self, Denied};
use super::inbox::{ConnId, Inbound, Inbox, Senders, inbox};
use super::peers::Peers;
use super::storage::{Done, Job, MonIdentity, Storage, Writer};
use super::{MonError, StorageError};
use crate::clock;
use crate::message::{MonCall, MonNews, MonPeer, MonSubscribe, ReadError, from_frame, kind_of};
use crate::monitor::{Answer, Effects, Event, Monitor, Notice, Now, PeerMessage, Subscriber, Subscription};
use cairn_net::{Connection, Endpoint, Incoming, Receive};
use cairn_paxos::{Moment, MonId};
use cairn_types::{EntityKind, EntityName, Epoch};
use cairn_wire::handshake::RefusalCode;
use cairn_wire::{ErrorCode, Frame, GoodbyeReason, Kind, LaneSet, Message, MessageError};
use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A monitor that has heard no leader for this long sends its clients to the others: an election that goes wrong a
/// few times is over by then.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);

/// The clocks, to be read after the event has come in.
pub(super) fn now() -> Now {
    Now { wall: clock::wall(), steady: clock::steady() }
}

/// What ends the loop.
enum End {
    Retired,
    Failed(MonError),
}

/// Why a frame ends its connection.
#[derive(Debug, thiserror::Error)]
enum Intruder {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a monitor takes no {0}")]
    Kind(Kind),
}

pub(super) struct Driver {
    monitor: Monitor,
    name: EntityName,
    endpoint: Arc<Endpoint>,
    writer: Writer,
    done: mpsc::UnboundedReceiver<Done>,
    peers: Peers,
    /// Epoch of the monitor map that `peers` follows.
    peers_at: Epoch,
    senders: Senders,
    inbox: Inbox,
    /// Connections that others made, also those whose handshake is not over.
    live: BTreeSet<ConnId>,
    next_conn: u64,
    greetings: JoinSet<(ConnId, Option<Connection>)>,
    callers: Callers,
    timer: Option<Moment>,
    /// Messages that wait for their batch to be durable.
    after: VecDeque<(u64, Vec<(MonId, PeerMessage)>)>,
    leaderless_since: Option<Moment>,
    storage_error: Option<StorageError>,
    end: Option<End>,
}

impl Driver {
    pub fn new(
        monitor: Monitor,
        own: &MonIdentity,
        endpoint: Arc<Endpoint>,
        storage: Storage,
    ) -> Result<Driver, MonError> {
        let (done_in, done) = mpsc::unbounded_channel();
        let (senders, inbox) = inbox();
        let mut peers = Peers::new(endpoint.clone(), own.id);
        // Also those that the state does not name any more.
        peers.follow(&own.mon_map);
        Ok(Driver {
            monitor,
            name: own.name.clone(),
            writer: Writer::start(storage, done_in).map_err(MonError::Thread)?,
            done,
            peers,
            peers_at: Epoch(0),
            endpoint,
            senders,
            inbox,
            live: BTreeSet::new(),
            next_conn: 0,
            greetings: JoinSet::new(),
            callers: Callers::default(),
            timer: None,
            after: VecDeque::new(),
            leaderless_since: Some(clock::steady()),
            storage_error: None,
            end: None,
        })
    }

    /// Runs until `stop` ends, or the monitor does.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), MonError> {
        let mut stop = pin!(stop);
        self.handle(Event::Tick);
        while self.end.is_none() {
            let endpoint = self.endpoint.clone();
            // Timers and the disk first, then monitors: what keeps the quorum goes before what loads it.
            tokio::select! {
                biased;
                () = &mut stop => {
                    self.handle(Event::Resign);
                    break;
                }
                () = clock::sleep_until(self.wake_at()) => self.handle(Event::Tick),
                Some(done) = self.done.recv() => self.take_done(done),
                Some(id) = self.inbox.closed.recv() => self.closed(id),
                Some(inbound) = self.inbox.peers.recv() => self.take_frame(inbound),
                Some(inbound) = self.inbox.clients.recv() => self.take_frame(inbound),
                Some(greeted) = self.greetings.join_next() => {
                    if let Ok((id, connection)) = greeted {
                        self.greeted(id, connection);
                    }
                }
                Some(incoming) = endpoint.accept() => self.welcome(incoming),
            }
        }
        match self.end.take() {
            None | Some(End::Retired) => Ok(()),
            Some(End::Failed(error)) => Err(error),
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        let leaderless = self.leaderless_since.map(|since| since + LEADERLESS_MAX);
        let leaderless = leaderless.filter(|at| *at > clock::steady());
        self.timer.into_iter().chain(leaderless).min()
    }

    fn handle(&mut self, event: Event) {
        let effects = self.monitor.handle(now(), event);
        self.carry_out(effects);
        self.follow_map();
        self.watch_leader();
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects {
            batch,
            early,
            persist,
            checkpoint,
            after,
            must_flush,
            answers,
            publish,
            notices,
            timer,
        } = effects;
        self.timer = timer;
        for (to, message) in early {
            self.peers.send(to, message);
        }
        let flush = must_flush || checkpoint.is_some();
        if flush || !persist.is_empty() {
            self.writer.write(Job { batch, records: persist, checkpoint, flush });
        }
        if !after.is_empty() {
            self.after.push_back((batch, after));
        }
        for (tag, answer) in answers {
            self.callers.answer(tag, answer);
        }
        self.callers.publish(publish);
        for notice in notices {
            self.take_notice(notice);
        }
    }

    fn take_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Leads => tracing::info!(name = %self.name, "leads the monitors"),
            Notice::Follows { leader } => {
                tracing::info!(name = %self.name, leader = leader.map(|id| id.0), "follows");
            }
            Notice::Retired => {
                tracing::info!(name = %self.name, "was removed from the cluster and stops");
                self.end = Some(End::Retired);
            }
            Notice::Stopped(fault) => {
                let error = self.storage_error.take().map_or(MonError::Stopped(fault), MonError::Storage);
                self.end = Some(End::Failed(error));
            }
        }
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Ok(batch) => {
                self.handle(Event::Persisted { batch });
                while self.after.front().is_some_and(|(waits, _)| *waits <= batch) {
                    for (to, message) in self.after.pop_front().into_iter().flat_map(|(_, messages)| messages)
                    {
                        self.peers.send(to, message);
                    }
                }
            }
            Err(error) => {
                tracing::error!(name = %self.name, %error, "the storage failed");
                self.storage_error = Some(error);
                self.handle(Event::StorageFailed);
            }
        }
    }

    fn follow_map(&mut self) {
        let map = self.monitor.mon_map();
        if map.epoch != self.peers_at {
            self.peers_at = map.epoch;
            self.peers.follow(map);
        }
    }

    /// Sends clients away when this monitor is cut off from the others.
    fn watch_leader(&mut self) {
        let now = clock::steady();
        if self.monitor.log().leader().is_some() {
            self.leaderless_since = None;
        } else {
            self.leaderless_since.get_or_insert(now);
            if self.is_leaderless() {
                self.callers.close_all();
            }
        }
    }

    fn is_leaderless(&self) -> bool {
        self.leaderless_since.is_some_and(|since| since + LEADERLESS_MAX <= clock::steady())
    }

    /// Decides about a new connection.
    fn welcome(&mut self, incoming: Incoming) {
        let who = incoming.name().clone();
        let refusal = if self.is_revoked(&who) {
            Some((RefusalCode::IDENTITY, Denied::Revoked { who: who.clone() }.to_string()))
        } else if incoming.lanes() != LaneSet::CONTROL {
            Some((RefusalCode::LANES, "monitors speak on the control lane only".to_owned()))
        } else if self.live.len() >= MAX_CONNECTIONS {
            Some((RefusalCode::BUSY, format!("{} has {MAX_CONNECTIONS} connections already", self.name)))
        } else if self.is_leaderless() && who.kind() != EntityKind::Mon {
            Some((RefusalCode::BUSY, format!("{} hears no leader of the monitors", self.name)))
        } else {
            None
        };
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        if let Some((code, text)) = refusal {
            tracing::debug!(peer = %who, text, "a connection is refused");
            self.greetings.spawn(async move {
                incoming.refuse(code, text).await;
                (id, None)
            });
            return;
        }
        self.live.insert(id);
        if who.kind() == EntityKind::Mon {
            self.peers.heard(&who);
        }
        let handler = self.senders.handler(id, who.kind());
        self.greetings.spawn(async move { (id, incoming.accept(Receive::Handler(handler)).await.ok()) });
    }

    /// The handshake is over.
    fn greeted(&mut self, id: ConnId, connection: Option<Connection>) {
        match connection {
            // Else it was noted with its first frame, or is closed already.
            Some(connection) if self.live.contains(&id) => self.note(id, &connection),
            Some(_) => {}
            None => {
                self.live.remove(&id);
            }
        }
    }

    /// Monitors are answered over the connection that is made to them.
    fn note(&mut self, id: ConnId, connection: &Connection) {
        if connection.peer().name.kind() != EntityKind::Mon {
            self.callers.note(id, connection);
        }
    }

    fn closed(&mut self, id: ConnId) {
        self.live.remove(&id);
        self.callers.forget(id);
        self.handle(Event::Unsubscribe { subscriber: Subscriber(id.0) });
    }

    fn is_revoked(&self, who: &EntityName) -> bool {
        let entry = self.monitor.state().and_then(|state| state.auth().entities.get(who));
        entry.is_some_and(|entity| entity.revoked)
    }

    fn take_frame(&mut self, inbound: Inbound) {
        let Inbound { from, connection, frame } = inbound;
        // Its end was told already, or will be.
        if !self.live.contains(&from) {
            return;
        }
        self.note(from, &connection);
        if let Err(intruder) = self.take_message(from, &connection.peer().name, &frame) {
            tracing::warn!(peer = %connection.peer().name, error = %intruder, "a connection is ended");
            connection.close(GoodbyeReason::Done);
            // Whatever else it has sent is not looked at.
            self.live.remove(&from);
        }
    }

    fn take_message(&mut self, from: ConnId, who: &EntityName, frame: &Frame) -> Result<(), Intruder> {
        if self.is_revoked(who) {
            return Err(Denied::Revoked { who: who.clone() }.into());
        }
        match kind_of(frame)? {
            MonPeer::KIND => {
                door::peer(who)?;
                let MonPeer(message) = from_frame(frame)?;
                match (self.peers.id_of(who), message) {
                    (Some(from), message) => self.handle(Event::Peer { from, message }),
                    (None, PeerMessage::MonMap(map)) => self.handle(Event::MonMap(*map)),
                    // The connection stays: it may tell yet where the monitors are.
                    (None, _) => {
                        tracing::debug!(peer = %who, "a monitor that is in no map known here is not heard")
                    }
                }
            }
            MonCall::KIND => {
                let MonCall { tag, call } = from_frame(frame)?;
                match door::call(who, &call) {
                    Ok(()) => {
                        let tag = self.callers.name_call(from, tag);
                        self.handle(Event::Call { tag, call });
                    }
                    Err(denied) => {
                        let answer = Answer::Refused { code: ErrorCode::PERM, why: denied.to_string() };
                        self.callers.answer_to(from, tag, answer);
                    }
                }
            }
            MonNews::KIND => {
                let MonNews(news) = from_frame(frame)?;
                door::news(who, &news)?;
                self.handle(Event::News(news));
            }
            MonSubscribe::KIND => {
                let MonSubscribe { osd_map, mon_map, mgr_map, config } = from_frame(frame)?;
                let wants = Subscription { who: who.clone(), osd_map, mon_map, mgr_map, config };
                self.handle(Event::Subscribe { subscriber: Subscriber(from.0), wants });
            }
            other => return Err(Intruder::Kind(other)),
        }
        Ok(())
    }
}
