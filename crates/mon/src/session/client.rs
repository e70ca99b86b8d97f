//! The handle that a process has on its session with the monitors.

use super::{CallError, Update, Wants};
use crate::monitor::{DaemonNews, Query, Reading};
use crate::service::{Reply, Request};
use cairn_net::Endpoint;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// How long a call waits for its answer unless [`MonClient::with_timeout`] says otherwise: several elections.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A session with the monitors; cheap to clone. It lives as long as a handle does.
#[derive(Clone, Debug)]
pub struct MonClient {
    commands: mpsc::UnboundedSender<Command>,
    timeout: Duration,
}

/// What handles ask of the session's task.
#[derive(Debug)]
enum Command {
    Change(Request, Duration, oneshot::Sender<Result<Reply, CallError>>),
    Read(Query, Duration, oneshot::Sender<Result<Reading, CallError>>),
    Session(Duration, oneshot::Sender<Result<u64, CallError>>),
    Tell(DaemonNews),
    Subscribe(Wants),
}

impl MonClient {
    /// Connects to one of `monitors` and stays connected: it moves on when that one dies or is silent, and the
    /// monitor map it receives replaces the list. `updates` gets what [`MonClient::subscribe`] asks for. Must be called
    /// inside a tokio runtime.
    pub fn start(
        endpoint: Arc<Endpoint>,
        monitors: Vec<SocketAddr>,
        updates: mpsc::Sender<Update>,
    ) -> MonClient {
        let (commands, inbox) = mpsc::unbounded_channel();
        let _ = (endpoint, monitors, updates, inbox);
        MonClient { commands, timeout: CALL_TIMEOUT }
    }

    /// The same session with another time for calls made through this handle.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> MonClient {
        MonClient { commands: self.commands.clone(), timeout }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(Duration, oneshot::Sender<Result<T, CallError>>) -> Command,
    ) -> Result<T, CallError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(self.timeout, answer)).map_err(|_| CallError::Closed)?;
        answered.await.map_err(|_| CallError::Closed)?
    }

    /// Makes a change and waits until it is decided. It is sent again until it is answered, to other monitors too,
    /// and counts once.
    pub async fn change(&self, request: Request) -> Result<Reply, CallError> {
        self.ask(|timeout, answer| Command::Change(request, timeout, answer)).await
    }

    /// Asks a question; the answer is of the moment.
    pub async fn read(&self, query: Query) -> Result<Reading, CallError> {
        self.ask(|timeout, answer| Command::Read(query, timeout, answer)).await
    }

    /// Tells the monitors something. It is dropped while there is no connection: say again what still holds.
    pub fn tell(&self, news: DaemonNews) {
        // Without its task there is nobody to tell.
        let _ = self.commands.send(Command::Tell(news));
    }

    /// Says what is wanted from now on; replaces what was said before.
    pub fn subscribe(&self, wants: Wants) {
        let _ = self.commands.send(Command::Subscribe(wants));
    }

    /// This process's session number, asked for once: unique in the cluster's life.
    pub async fn session(&self) -> Result<u64, CallError> {
        self.ask(Command::Session).await
    }
}
