//! The mgr as a process: sockets and clocks around [`Mgr`]. Nothing is decided here but who may speak.

use crate::core::{Effect, Event, Mgr, Now};
use crate::http;
use crate::metrics;
use cairn_mon::monitor::{DaemonNews, Query, Reading};
use cairn_mon::service::subscription::Need;
use cairn_mon::session::{MonClient, Monitors, Update, Wants};
use cairn_net::{BindError, Config, Connection, Delivery, Endpoint, Identity, Incoming, Receive};
use cairn_types::{EntityAddr, EntityKind, EntityName, Epoch, Health, OsdId, OsdReport, Timestamp};
use cairn_wire::handshake::RefusalCode;
use cairn_wire::{Frame, MessageError};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// Frames received and not yet looked at, of all OSDs; then their lanes stop reading.
const INBOX_FRAMES: usize = 256;
/// Updates of the monitors not yet looked at.
const UPDATES: usize = 16;
/// Answers to questions of the monitors not yet looked at; one question is under way at a time.
const ANSWERS: usize = 1;
/// How long a question to the monitors may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a mgr that stops gives its connections to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads an OSD's report from a frame. The message belongs to the OSD's crate, which this one does not need for
/// anything else.
pub type ReadReport = fn(&Frame) -> Result<OsdReport, MessageError>;

/// What a mgr runs with.
#[derive(Clone, Debug)]
pub struct MgrOptions {
    /// Its certificate: `mgr.a`.
    pub identity: Identity,
    /// Where OSDs reach it.
    pub listen: SocketAddr,
    /// Where Prometheus reads, in plain HTTP: an address that only those reach who may know the figures.
    pub prometheus_listen: Option<SocketAddr>,
    /// The monitors.
    pub monitors: Monitors,
    /// How a report is read.
    pub read_report: ReadReport,
}

/// Why a mgr does not run.
#[derive(Debug, thiserror::Error)]
pub enum MgrError {
    /// The certificate is not a mgr's.
    #[error("the certificate is of {name}, which is no mgr: give it the certificate of mgr.NAME")]
    NotAMgr {
        /// Whose it is.
        name: EntityName,
    },
    /// The socket for OSDs.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket for Prometheus.
    #[error("cannot listen for Prometheus on {addr}: {source}")]
    Prometheus {
        /// Where.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Runs a mgr until `stop` ends. For a runtime of one thread.
pub async fn run(options: MgrOptions, stop: impl Future<Output = ()>) -> Result<(), MgrError> {
    let name = options.identity.name().clone();
    if name.kind() != EntityKind::Mgr {
        return Err(MgrError::NotAMgr { name });
    }
    let page = match options.prometheus_listen {
        Some(addr) => {
            let bound = TcpListener::bind(addr).await;
            Some(bound.map_err(|source| MgrError::Prometheus { addr, source })?)
        }
        None => None,
    };
    let start = Start::now();
    let nonce = start.wall().0;
    let config = Config { incarnation: nonce, ..Config::new(options.identity, Some(options.listen)) };
    let endpoint = Arc::new(Endpoint::bind(config).await?);
    let socket = endpoint.local_addr().unwrap_or(options.listen);
    let (updates, news) = mpsc::channel(UPDATES);
    let monitors = MonClient::start(endpoint.clone(), options.monitors, updates);
    let mgr = Mgr::new(name.id(), EntityAddr { socket, nonce });
    let driver = Driver { mgr, start, monitors, osds: BTreeMap::new(), read_report: options.read_report };
    driver.run(&endpoint, news, page, stop).await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.close()).await;
    Ok(())
}

/// The clocks.
#[derive(Clone, Copy)]
struct Start(Instant);

impl Start {
    fn now() -> Start {
        Start(Instant::now())
    }

    fn wall(self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }

    fn read(self) -> Now {
        Now { steady_ms: self.0.elapsed().as_millis() as u64, wall: self.wall() }
    }

    fn at(self, steady_ms: u64) -> tokio::time::Instant {
        (self.0 + Duration::from_millis(steady_ms)).into()
    }
}

struct Driver {
    mgr: Mgr,
    start: Start,
    monitors: MonClient,
    /// One connection each; an OSD that connects again replaces its own.
    osds: BTreeMap<OsdId, Connection>,
    read_report: ReadReport,
}

impl Driver {
    async fn run(
        mut self,
        endpoint: &Endpoint,
        mut news: mpsc::Receiver<Update>,
        page: Option<TcpListener>,
        stop: impl Future<Output = ()>,
    ) {
        self.subscribe(Epoch(0));
        let (inbox, mut frames) = mpsc::channel(INBOX_FRAMES);
        let (answer, mut answers) = mpsc::channel(ANSWERS);
        let (writer, mut pages) = mpsc::channel(1);
        let mut stop = pin!(stop);
        let mut serving = pin!(async {
            match page {
                Some(listener) => http::serve(listener, writer).await,
                None => std::future::pending().await,
            }
        });
        loop {
            let timer = self.start.at(self.mgr.wakes_at_ms());
            tokio::select! {
                () = &mut stop => break,
                () = &mut serving => {}
                Some(incoming) = endpoint.accept() => self.admit(incoming, &inbox).await,
                Some(delivery) = frames.recv() => self.take(delivery, &answer),
                Some(update) = news.recv() => match update {
                    Update::MgrMap(map) => self.handle(Event::MgrMap(map), &answer),
                    Update::OsdMaps(batch) => {
                        let event = Event::OsdMaps { full: batch.full, increments: batch.increments };
                        self.handle(event, &answer);
                    }
                    Update::MonMap(_) | Update::Config { .. } => {}
                },
                Some(health) = answers.recv() => self.handle(Event::Health(health), &answer),
                Some(page) = pages.recv() => {
                    let page: tokio::sync::oneshot::Sender<String> = page;
                    // The reader may have gone.
                    let _ = page.send(metrics::render(&self.mgr, self.start.read()));
                }
                () = sleep_until(timer) => self.handle(Event::Tick, &answer),
            }
        }
    }

    fn subscribe(&self, have: Epoch) {
        self.monitors.subscribe(Wants {
            osd_map: Some((have, Need::Newest)),
            mgr_map: true,
            mon_map: false,
            config: false,
        });
    }

    /// Lets OSDs in, and nobody else.
    async fn admit(&mut self, incoming: Incoming, inbox: &mpsc::Sender<Delivery>) {
        let Some(osd) = osd_of(incoming.name()) else {
            let text = format!("{} has no business with a mgr: only OSDs report to it", incoming.name());
            return incoming.refuse(RefusalCode::IDENTITY, text).await;
        };
        match incoming.accept(Receive::Channel(inbox.clone())).await {
            Ok(connection) => {
                if let Some(old) = self.osds.insert(osd, connection) {
                    old.abort();
                }
            }
            Err(reason) => tracing::debug!(?osd, %reason, "an OSD went away while it connected"),
        }
    }

    fn take(&mut self, delivery: Delivery, answer: &mpsc::Sender<Health>) {
        match delivery {
            Delivery::Frame { connection, frame, .. } => {
                let Some(from) = osd_of(&connection.peer().name) else { return connection.abort() };
                match (self.read_report)(&frame) {
                    Ok(report) => self.handle(Event::Report { from, report: Box::new(report) }, answer),
                    Err(error) => {
                        tracing::warn!(osd = from.0, %error, "an OSD sent what is no report");
                        connection.abort();
                    }
                }
            }
            Delivery::Closed { connection, .. } => self.osds.retain(|_, known| !known.same(&connection)),
        }
    }

    fn handle(&mut self, event: Event, answer: &mpsc::Sender<Health>) {
        let effects = match self.mgr.handle(self.start.read(), event) {
            Ok(effects) => effects,
            Err(refused) => return tracing::debug!(%refused, "a report does not count"),
        };
        for effect in effects {
            match effect {
                Effect::Beacon => self
                    .monitors
                    .tell(DaemonNews::MgrBeacon { name: self.mgr.name().to_owned(), addr: self.mgr.addr() }),
                Effect::Digest(digest) => {
                    let mgr = self.mgr.name().to_owned();
                    self.monitors.tell(DaemonNews::Digest { mgr, digest });
                }
                Effect::AskHealth => self.ask_health(answer),
                Effect::AskOsdMap => self.subscribe(Epoch(0)),
            }
        }
    }

    /// Asks without waiting; a question still under way is enough.
    fn ask_health(&self, answer: &mpsc::Sender<Health>) {
        let Ok(place) = answer.clone().try_reserve_owned() else { return };
        let monitors = self.monitors.with_timeout(QUERY_TIMEOUT);
        tokio::spawn(async move {
            match monitors.read(Query::Health).await {
                Ok(Reading::Health(health)) => drop(place.send(health)),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the monitors did not say how the cluster is"),
            }
        });
    }
}

fn osd_of(name: &EntityName) -> Option<OsdId> {
    name.id().parse().ok().filter(|_| name.kind() == EntityKind::Osd).map(OsdId)
}
