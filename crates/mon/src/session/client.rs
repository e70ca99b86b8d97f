//! The handle that a process has on its session with the monitors, and the task behind it: connection, clock, and no
//! decisions.

use super::core::{Attempt, Effects, Event, Outcome, Sent, Session, Ticket};
use super::{CallError, LookUp, Monitors, Update, Wants};
use crate::clock;
use crate::message::{MonAnswer, MonPublication, ReadError, from_frame, kind_of, to_frame};
use crate::monitor::{DaemonNews, Query, Reading};
use crate::service::{Reply, Request};
use cairn_net::{ConnectError, Connection, Delivery, Endpoint, Expect, Receive};
use cairn_types::EntityKind;
use cairn_wire::{Frame, GoodbyeReason, Kind, Lane, LaneSet, Message, MessageError};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long a call waits for its answer unless [`MonClient::with_timeout`] says otherwise: several elections.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls and news of one session under way at once.
pub const MAX_PENDING: usize = 1024;

/// Frames received and not yet looked at.
const INBOX_FRAMES: usize = 64;

/// A session with the monitors; cheap to clone. It lives as long as a handle does.
#[derive(Clone, Debug)]
pub struct MonClient {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    /// Bounded by `room`, apart from subscriptions and those who give up.
    commands: mpsc::UnboundedSender<Command>,
    room: Arc<Semaphore>,
    next_ticket: AtomicU64,
}

/// What handles ask of the session's task.
#[derive(Debug)]
enum Command {
    Call(Ticket, Ask, Duration, oneshot::Sender<Outcome>, OwnedSemaphorePermit),
    GiveUp(Ticket),
    Tell(DaemonNews, OwnedSemaphorePermit),
    Subscribe(Wants),
}

#[derive(Debug)]
enum Ask {
    Change(Request),
    Read(Query),
    Session,
}

/// Tells the session that nobody waits for a call any more, however the wait ends.
struct Waiting<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let _ = self.shared.commands.send(Command::GiveUp(self.ticket));
    }
}

impl MonClient {
    /// Connects to one of `monitors` and stays connected: it moves on when that one dies or is silent, and the
    /// monitor map it receives replaces the list, until none is found there. `updates` gets what [`MonClient::subscribe`] asks for. Must be called
    /// inside a tokio runtime.
    pub fn start(
        endpoint: Arc<Endpoint>,
        monitors: impl Into<Monitors>,
        updates: mpsc::Sender<Update>,
    ) -> MonClient {
        let monitors = monitors.into();
        let (commands, inbox) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MAX_PENDING));
        tokio::spawn(Driver::new(endpoint, monitors).run(inbox, updates));
        let shared = Shared { commands, room, next_ticket: AtomicU64::new(0) };
        MonClient { shared: Arc::new(shared), timeout: CALL_TIMEOUT }
    }

    /// The same session with another time for the calls made through this handle; [`Duration::MAX`] to wait for ever.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> MonClient {
        MonClient { shared: self.shared.clone(), timeout }
    }

    /// Makes a change and waits until it is decided. It is sent again until it is answered, to other monitors too,
    /// and counts once.
    pub async fn change(&self, request: Request) -> Result<Reply, CallError> {
        match self.ask(Ask::Change(request)).await? {
            Outcome::Changed(reply) => Ok(reply),
            other => Err(other.into_error()),
        }
    }

    /// Asks a question; the answer is of the moment.
    pub async fn read(&self, query: Query) -> Result<Reading, CallError> {
        match self.ask(Ask::Read(query)).await? {
            Outcome::Read(reading) => Ok(*reading),
            other => Err(other.into_error()),
        }
    }

    /// This process's session number, asked for once: unique in the cluster's life.
    pub async fn session(&self) -> Result<u64, CallError> {
        match self.ask(Ask::Session).await? {
            Outcome::Session(client) => Ok(client),
            other => Err(other.into_error()),
        }
    }

    /// Tells the monitors something. It is dropped while there is no connection: say again what still holds.
    pub fn tell(&self, news: DaemonNews) {
        if let Ok(permit) = self.shared.room.clone().try_acquire_owned() {
            // Without its task there is nobody to tell.
            let _ = self.shared.commands.send(Command::Tell(news, permit));
        }
    }

    /// Says what is wanted from now on; replaces what was said before.
    pub fn subscribe(&self, wants: Wants) {
        let _ = self.shared.commands.send(Command::Subscribe(wants));
    }

    async fn ask(&self, ask: Ask) -> Result<Outcome, CallError> {
        let permit = self.shared.room.clone().try_acquire_owned();
        let permit = permit.map_err(|_| CallError::TooMany { most: MAX_PENDING })?;
        let ticket = Ticket(self.shared.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let command = Command::Call(ticket, ask, self.timeout, answer, permit);
        self.shared.commands.send(command).map_err(|_| CallError::Closed)?;
        let waiting = Waiting { shared: &self.shared, ticket };
        let outcome = answered.await.map_err(|_| CallError::Closed)?;
        if !matches!(outcome, Outcome::Failed(_)) {
            // Answered for good: there is nothing to give up.
            std::mem::forget(waiting);
        }
        Ok(outcome)
    }
}

impl Outcome {
    fn into_error(self) -> CallError {
        match self {
            Outcome::Failed(error) => error,
            // A change gets a reply, a question a reading: the monitors give nothing else.
            Outcome::Changed(_) | Outcome::Read(_) | Outcome::Session(_) => CallError::Closed,
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = (Attempt, Result<Connection, ConnectError>)> + Send>>;

/// Why a frame cannot be taken.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("a monitor sent {0}, which is none of its messages")]
    Kind(Kind),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The task of one session.
struct Driver {
    endpoint: Arc<Endpoint>,
    session: Session,
    timer: Option<cairn_paxos::Moment>,
    connecting: Option<Connecting>,
    look_up: Option<LookUp>,
    looking: Option<JoinHandle<Option<Vec<SocketAddr>>>>,
    connection: Option<(Attempt, Connection)>,
    inbox: mpsc::Receiver<Delivery>,
    waiting: BTreeMap<Ticket, (oneshot::Sender<Outcome>, OwnedSemaphorePermit)>,
    /// Bounded by what a monitor sends without an acknowledgement.
    undelivered: VecDeque<Update>,
}

impl Driver {
    fn new(endpoint: Arc<Endpoint>, monitors: Monitors) -> Driver {
        Driver {
            endpoint,
            look_up: monitors.look_up,
            looking: None,
            session: Session::new(monitors.addrs, clock::draw(), clock::steady()),
            timer: Some(clock::steady()),
            connecting: None,
            connection: None,
            inbox: mpsc::channel(1).1,
            waiting: BTreeMap::new(),
            undelivered: VecDeque::new(),
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, updates: mpsc::Sender<Update>) {
        loop {
            let event = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take_command(command),
                    None => break,
                },
                (attempt, result) = poll_connecting(&mut self.connecting) => {
                    self.connecting = None;
                    match result {
                        Ok(connection) => {
                            self.connection = Some((attempt, connection));
                            Event::Connected(attempt)
                        }
                        Err(error) if error.is_refusal() => Event::TurnedAway(attempt, error.to_string()),
                        Err(error) => Event::Lost(attempt, error.to_string()),
                    }
                }
                found = poll_looking(&mut self.looking) => {
                    self.looking = None;
                    let Some(addrs) = found else { continue };
                    Event::Configured(addrs)
                }
                Some(delivery) = self.inbox.recv() => match self.take_delivery(delivery) {
                    Some(event) => event,
                    None => continue,
                },
                permit = updates.reserve(), if !self.undelivered.is_empty() => {
                    let Some(update) = self.undelivered.pop_front() else { continue };
                    let epoch = match &update {
                        Update::OsdMaps(batch) => batch.last(),
                        _ => None,
                    };
                    if let Ok(permit) = permit {
                        permit.send(update);
                    }
                    // When nobody listens any more the maps count as taken: there is nothing to hold back for.
                    Event::Delivered(epoch.unwrap_or_default())
                }
                () = clock::sleep_until(self.timer) => Event::Tick,
            };
            self.handle(event);
        }
        if let Some((_, connection)) = self.connection {
            connection.close(GoodbyeReason::Done);
        }
    }

    fn take_command(&mut self, command: Command) -> Event {
        match command {
            Command::Call(ticket, ask, timeout, answer, permit) => {
                self.waiting.insert(ticket, (answer, permit));
                match ask {
                    Ask::Change(request) => Event::Change(ticket, request, timeout),
                    Ask::Read(query) => Event::Read(ticket, query, timeout),
                    Ask::Session => Event::Session(ticket, timeout),
                }
            }
            Command::GiveUp(ticket) => {
                self.waiting.remove(&ticket);
                Event::GiveUp(ticket)
            }
            Command::Tell(news, _permit) => Event::Tell(news),
            Command::Subscribe(wants) => Event::Subscribe(wants),
        }
    }

    fn take_delivery(&mut self, delivery: Delivery) -> Option<Event> {
        let (attempt, own) = self.connection.as_ref()?;
        let attempt = *attempt;
        match delivery {
            Delivery::Frame { connection, frame, .. } if connection.same(own) => {
                match read_frame(attempt, &frame) {
                    Ok(event) => Some(event),
                    Err(error) => {
                        tracing::warn!(monitor = %own.peer().name, %error, "a monitor sent what cannot be read");
                        own.abort();
                        None
                    }
                }
            }
            Delivery::Closed { connection, reason } if connection.same(own) => {
                let why = format!("the connection to {} ended: {reason}", own.peer().name);
                self.connection = None;
                Some(Event::Lost(attempt, why))
            }
            _ => None,
        }
    }

    fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = self.session.handle(clock::steady(), event);
            self.carry_out(effects, &mut events);
        }
    }

    /// Does what the session wants done; what of it could not be done becomes an event.
    fn carry_out(&mut self, effects: Effects, events: &mut VecDeque<Event>) {
        let Effects { disconnect, connect, send, finished, updates, look_up, timer } = effects;
        self.timer = timer;
        if look_up && self.looking.is_none() {
            let look_up = self.look_up.clone();
            self.looking = look_up.map(|look_up| tokio::task::spawn_blocking(move || look_up()));
        }
        self.undelivered.extend(updates);
        for (ticket, outcome) in finished {
            if let Some((answer, _permit)) = self.waiting.remove(&ticket) {
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
        }
        if let Some(attempt) = disconnect {
            self.connecting = None;
            if let Some((_, connection)) = self.connection.take_if(|(known, _)| *known == attempt) {
                connection.close(GoodbyeReason::Done);
            }
        }
        if let Some((attempt, addr)) = connect {
            let (sender, inbox) = mpsc::channel(INBOX_FRAMES);
            self.inbox = inbox;
            let endpoint = self.endpoint.clone();
            self.connecting = Some(Box::pin(async move {
                let expect = Expect::Kind(EntityKind::Mon);
                let receive = Receive::Channel(sender);
                (attempt, endpoint.connect(addr, &expect, LaneSet::CONTROL, receive).await)
            }));
        }
        for message in send {
            let (frame, tag) = match &message {
                Sent::Call(call) => (to_frame(call), Some(call.tag)),
                Sent::News(news) => (to_frame(news), None),
                Sent::Subscribe(subscribe) => (to_frame(subscribe), None),
            };
            match (frame, tag) {
                (Ok(frame), _) => {
                    if let Some((_, connection)) = &self.connection
                        && let Err(error) = connection.try_send(Lane::Control, frame)
                    {
                        // Its end is told through the inbox.
                        tracing::debug!(%error, "the connection to a monitor takes no more");
                        connection.abort();
                    }
                }
                (Err(error), Some(tag)) => events.push_back(Event::Unsendable(tag, error.to_string())),
                (Err(error), None) => {
                    tracing::warn!(%error, "news for the monitors have no form on the wire")
                }
            }
        }
    }
}

fn read_frame(attempt: Attempt, frame: &Frame) -> Result<Event, Unreadable> {
    match kind_of(frame)? {
        MonAnswer::KIND => Ok(Event::Answer(attempt, from_frame(frame)?)),
        MonPublication::KIND => Ok(Event::Publication(attempt, from_frame::<MonPublication>(frame)?.0)),
        other => Err(Unreadable::Kind(other)),
    }
}

async fn poll_looking(looking: &mut Option<JoinHandle<Option<Vec<SocketAddr>>>>) -> Option<Vec<SocketAddr>> {
    match looking {
        // One that ends in a panic has found nothing.
        Some(looking) => looking.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

async fn poll_connecting(connecting: &mut Option<Connecting>) -> (Attempt, Result<Connection, ConnectError>) {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
