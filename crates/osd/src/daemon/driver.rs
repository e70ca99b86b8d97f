//! Events into the core, effects out of it, in order. All under one lock, which only the runtime's thread takes.

use super::disk::{Disk, Inbox, News};
use super::door::{Gate, Who, accept};
use super::link::Outlet;
use super::reporter::{Mgr, report};
use super::{clock, wants_maps};
use crate::core::{
    Attempt, Config, ConnId, Effect, Event, MonitorAnswer, MonitorTag, Osd, Setup, StopReason,
};
use crate::message;
use crate::persist::MapsKept;
use cairn_mon::service::Request;
use cairn_mon::session::{CallError, MonClient, Update, Wants};
use cairn_net::{AuthError, ConnectError, Connection, Endpoint, Expect, Receive};
use cairn_pg::Time;
use cairn_store::Store;
use cairn_types::{EntityAddr, EntityName, OsdId, OsdReport, PgId};
use cairn_wire::{Frame, FrameError, Lane, LaneSet, Payload};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Why the process ends: the core's reason, or what failed beneath it.
pub type End = Result<StopReason, String>;

/// What a driver is made of.
pub struct Parts {
    pub whoami: OsdId,
    pub store: Store,
    pub mon: MonClient,
    /// Where OSDs connect, and from where they are connected to.
    pub cluster: Arc<Endpoint>,
    pub kept: MapsKept,
    pub wants: Wants,
}

/// What every task of the process works on.
pub struct Shared {
    pub whoami: OsdId,
    inner: Mutex<Inner>,
    mon: MonClient,
    cluster: Arc<Endpoint>,
    wants: Wants,
    next_conn: AtomicU64,
    /// The core wants to be woken earlier than before.
    rearm: Notify,
    /// The store is held back until what goes to other OSDs has been written.
    held_back: Notify,
    reports: watch::Sender<Option<OsdReport>>,
    mgr: watch::Sender<Mgr>,
}

struct Inner {
    osd: Osd,
    disk: Disk,
    conns: BTreeMap<ConnId, Outlet>,
    /// Connections from outside that were told to the core: also those that it has closed and that are not over.
    known: BTreeSet<ConnId>,
    effects: Vec<Effect>,
    /// Follow from effects, at once.
    events: VecDeque<Event>,
    armed: Option<Time>,
    removing: Vec<PgId>,
    ended: Option<oneshot::Sender<End>>,
    /// The core is finished; what it gave the store is not yet.
    finishing: Option<StopReason>,
}

/// The handle that [`super::run`] keeps.
pub struct Driver {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
}

impl Driver {
    pub fn new(
        parts: Parts,
        setup: Setup,
        config: Config,
        ended: oneshot::Sender<End>,
    ) -> Result<Driver, StopReason> {
        let Parts { whoami, store, mon, cluster, kept, wants } = parts;
        let disk = Disk::new(store, kept, &setup.groups);
        let inbox = disk.inbox();
        let removing = setup.removing.clone();
        let osd = Osd::new(clock::now(), setup, config)?;
        let inner = Inner {
            osd,
            disk,
            conns: BTreeMap::new(),
            known: BTreeSet::new(),
            effects: Vec::new(),
            events: VecDeque::new(),
            armed: None,
            removing,
            ended: Some(ended),
            finishing: None,
        };
        let shared = Arc::new(Shared {
            whoami,
            inner: Mutex::new(inner),
            mon,
            cluster,
            wants,
            next_conn: AtomicU64::new(1),
            rearm: Notify::new(),
            held_back: Notify::new(),
            reports: watch::Sender::new(None),
            mgr: watch::Sender::new(None),
        });
        Ok(Driver { shared, inbox })
    }

    /// Sets everything to work. Ends with the set that it gives.
    pub fn start(&self, mut updates: mpsc::Receiver<Update>, public: &Arc<Endpoint>) -> JoinSet<()> {
        let shared = &self.shared;
        shared.handle(Event::Start);
        {
            let mut inner = shared.inner.lock();
            let removing = std::mem::take(&mut inner.removing);
            removing.into_iter().for_each(|pgid| inner.disk.sweep(pgid));
        }
        let mut tasks = JoinSet::new();
        let (own, inbox) = (shared.clone(), self.inbox.clone());
        tasks.spawn(async move {
            loop {
                inbox.wake.notified().await;
                own.on_news();
            }
        });
        let own = shared.clone();
        tasks.spawn(async move {
            loop {
                let at = own.arm();
                tokio::select! {
                    () = clock::sleep_until(at) => own.handle(Event::Tick),
                    () = own.rearm.notified() => {}
                }
            }
        });
        let own = shared.clone();
        tasks.spawn(async move {
            loop {
                // Told behind the lanes that have something to send: they have written it when this runs.
                own.held_back.notified().await;
                own.inner.lock().disk.go_on();
            }
        });
        let own = shared.clone();
        tasks.spawn(async move {
            while let Some(update) = updates.recv().await {
                own.on_update(update);
            }
        });
        tasks.spawn(accept(shared.clone(), public.clone(), true));
        tasks.spawn(accept(shared.clone(), shared.cluster.clone(), false));
        tasks.spawn(report(shared.cluster.clone(), shared.mgr.subscribe(), shared.reports.subscribe()));
        tasks
    }

    /// The process is to stop.
    pub fn stop(&self) {
        self.shared.handle(Event::Stop);
    }

    /// Lets go of every connection.
    pub fn shut(&self) {
        let conns = std::mem::take(&mut self.shared.inner.lock().conns);
        conns.values().for_each(|outlet| outlet.connection.close(cairn_wire::GoodbyeReason::Shutdown));
    }
}

impl Shared {
    pub fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Relaxed))
    }

    /// A connection that came from outside is there; whoever sees it first says so. One that this OSD made is
    /// entered by the attempt. `is_end`: its end is about to be told.
    pub fn open(self: &Arc<Self>, conn: ConnId, connection: &Connection, who: &Who, is_end: bool) {
        let event = match who {
            Who::Client(name, addr) => Event::ClientOpened { conn, name: name.clone(), addr: *addr },
            Who::Peer(osd) => Event::PeerAccepted { conn, osd: *osd },
            Who::Dialed(_) => return,
        };
        {
            let mut inner = self.inner.lock();
            // Its end was told before: what comes late must not open it again.
            let is_over = !is_end && connection.close_reason().is_some();
            if inner.ended.is_none() || is_over || !inner.known.insert(conn) {
                return;
            }
            inner.conns.insert(conn, Outlet::new(connection.clone(), who.peer()));
        }
        self.handle(event);
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        self.inner.lock().conns.contains_key(&conn)
    }

    /// A connection is over.
    pub fn closed(self: &Arc<Self>, conn: ConnId) {
        let outlet = {
            let mut inner = self.inner.lock();
            inner.known.remove(&conn);
            inner.conns.remove(&conn)
        };
        if let Some(outlet) = outlet {
            self.handle(match outlet.peer {
                Some(_) => Event::PeerClosed { conn },
                None => Event::ClientClosed { conn },
            });
        }
    }

    /// When to look again; what is earlier from now on is told by `rearm`.
    fn arm(&self) -> Option<Time> {
        let mut inner = self.inner.lock();
        inner.armed = if inner.ended.is_some() { inner.osd.wake_at() } else { None };
        inner.armed
    }

    /// Hands in an event and carries out what follows.
    pub fn handle(self: &Arc<Self>, event: Event) {
        let inner = &mut *self.inner.lock();
        inner.events.push_back(event);
        self.run(inner);
    }

    fn run(self: &Arc<Self>, inner: &mut Inner) {
        while let Some(event) = inner.events.pop_front() {
            if inner.ended.is_none() {
                inner.events.clear();
                return;
            }
            let mut effects = std::mem::take(&mut inner.effects);
            inner.osd.handle_into(clock::now(), event, &mut effects);
            // The other copies first: what they have to do takes longer by the way there and back, and waking the
            // store's thread costs as much as a send.
            let others_first =
                effects.iter().any(|effect| matches!(effect, Effect::Send { lane: Lane::Client, .. }))
                    && effects.iter().any(|effect| matches!(effect, Effect::Persist { .. }));
            if others_first {
                inner.disk.hold_back();
            }
            for effect in effects.drain(..) {
                self.carry_out(inner, effect);
            }
            if others_first {
                self.held_back.notify_one();
            }
            inner.effects = effects;
        }
        if inner.disk.is_idle()
            && let Some(reason) = inner.finishing.take()
        {
            end(inner, Ok(reason));
        }
        if let Some(at) = inner.osd.wake_at()
            && inner.armed.is_none_or(|armed| at < armed)
        {
            inner.armed = Some(at);
            self.rearm.notify_one();
        }
    }

    fn on_news(self: &Arc<Self>) {
        let inner = &mut *self.inner.lock();
        for news in inner.disk.news() {
            match news {
                News::Persisted(pgid, token) => inner.events.push_back(Event::Persisted { pgid, token }),
                News::Kept => {}
                News::Queried(token, answer) => {
                    inner.events.push_back(Event::Queried { token, answer: *answer })
                }
                News::Usage(usage) => inner.events.push_back(Event::Usage(usage)),
                News::Swept(pgid) => inner.disk.sweep(pgid),
                News::Sweep(pgid, Some(transaction)) => inner.disk.commit_sweep(pgid, transaction),
                News::Sweep(pgid, None) => inner.events.push_back(Event::GroupRemoved { pgid }),
                News::Failed(why) => {
                    // What came before it is durable; nothing after it is. The reason first: the core, told of it,
                    // stops as well and knows none.
                    inner.events.push_back(Event::StoreFailed);
                    end(inner, Err(format!("its store failed: {why}")));
                    return self.run(inner);
                }
            }
        }
        self.run(inner);
    }

    fn on_update(self: &Arc<Self>, update: Update) {
        match update {
            Update::OsdMaps(batch) => self.handle(Event::Maps(batch)),
            Update::MgrMap(map) => {
                let active = map.active.map(|(name, info)| (name, info.addr));
                self.mgr.send_if_modified(|mgr| std::mem::replace(mgr, active.clone()) != active);
            }
            Update::MonMap(_) | Update::Config { .. } => {}
        }
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner, effect: Effect) {
        match effect {
            Effect::Persist { pgid, txn } => {
                if let Err(error) = inner.disk.persist(pgid, &txn) {
                    end(inner, Err(format!("a change of group {pgid} cannot be carried out: {error}")));
                }
            }
            Effect::RemoveGroup { pgid } => {
                if !inner.disk.remove_group(pgid) {
                    inner.events.push_back(Event::GroupRemoved { pgid });
                }
            }
            Effect::KeepMaps { full, increments, remove_before } => {
                inner.disk.keep_maps(full.as_deref(), &increments, remove_before);
            }
            Effect::SaveSuperblock(superblock) => inner.disk.save_superblock(&superblock),
            Effect::Query { token, pgid, query } => inner.disk.ask(token, pgid, query),
            Effect::AskUsage => inner.disk.ask_usage(),
            Effect::Reply { conn, reply, payload } => {
                send(inner, conn, Lane::Client, Frame::new(&reply, payload))
            }
            Effect::WatchEvent { conn, event } => {
                send(inner, conn, Lane::Client, Frame::new(&event, Payload::none()));
            }
            Effect::CloseClient { conn, reason } => {
                if let Some(outlet) = inner.conns.get(&conn) {
                    outlet.connection.close(reason);
                }
            }
            Effect::Connect { attempt, peer, addr } => {
                tokio::spawn(self.clone().connect(attempt, peer, addr));
            }
            Effect::Send { conn, lane, message } => send(inner, conn, lane, message::to_frame(message)),
            Effect::ClosePeer { conn, reason } => {
                if let Some(outlet) = inner.conns.remove(&conn) {
                    outlet.connection.close(reason);
                }
            }
            Effect::Subscribe { have } => self.mon.subscribe(wants_maps(self.wants, have)),
            Effect::AskMonitors { tag, request } => {
                tokio::spawn(self.clone().ask_monitors(tag, request));
            }
            Effect::Tell(news) => self.mon.tell(news),
            Effect::Report(report) => {
                self.reports.send_replace(Some(*report));
            }
            Effect::Stopped(reason) => inner.finishing = Some(reason),
        }
    }

    async fn connect(self: Arc<Self>, attempt: Attempt, peer: OsdId, addr: EntityAddr) {
        let conn = self.next_conn();
        let who = Who::Dialed(peer);
        let gate = Arc::new(Gate { shared: self.clone(), conn, who });
        let expect = Expect::Entity(EntityName::from(peer));
        let made = self.cluster.connect(addr.socket, &expect, LaneSet::ALL, Receive::Handler(gate)).await;
        let unreachable = |refused| Event::PeerUnreachable { attempt, refused };
        let event = match made {
            Ok(connection) if connection.peer().incarnation != addr.nonce => {
                connection.close(cairn_wire::GoodbyeReason::Done);
                unreachable(true)
            }
            Ok(connection) => {
                let mut inner = self.inner.lock();
                // Looked at under the lock: its end comes after this, or has been.
                if connection.close_reason().is_some() {
                    unreachable(false)
                } else {
                    inner.conns.insert(conn, Outlet::new(connection, Some(peer)));
                    Event::PeerConnected { attempt, conn }
                }
            }
            Err(error) => {
                tracing::debug!(%peer, %addr, %error, "no connection");
                // Another one of the cluster answers: the process that was meant is gone.
                let is_other =
                    matches!(&error, ConnectError::Untrusted { source: AuthError::WrongName { .. }, .. });
                unreachable(is_other || matches!(error, ConnectError::Refused { .. }))
            }
        };
        self.handle(event);
    }

    async fn ask_monitors(self: Arc<Self>, tag: MonitorTag, request: Request) {
        let answer = match self.mon.change(request).await {
            Ok(reply) => MonitorAnswer::Done(reply),
            Err(CallError::Refused { code, why }) => MonitorAnswer::Refused { code, why },
            Err(error) => {
                tracing::warn!(%error, "the monitors do not answer");
                MonitorAnswer::Failed
            }
        };
        self.handle(Event::Monitors { tag, answer });
    }
}

/// A message that does not fit a frame cannot be left out: others count on it.
fn send(inner: &mut Inner, conn: ConnId, lane: Lane, frame: Result<Frame, FrameError>) {
    match frame {
        Ok(frame) => {
            if let Some(outlet) = inner.conns.get_mut(&conn) {
                outlet.send(lane, frame);
            }
        }
        Err(error) => end(inner, Err(format!("a message cannot be sent: {error}"))),
    }
}

fn end(inner: &mut Inner, why: End) {
    if let Some(ended) = inner.ended.take() {
        let _ = ended.send(why);
    }
}
