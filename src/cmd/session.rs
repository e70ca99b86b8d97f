//! A command's session with the monitors.

use super::Context;
use anyhow::Context as _;
use cairn_conf::{CONF_ENV, ClientConf, find};
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::session::{MonClient, Monitors, Update};
use cairn_net::{Config, Endpoint};
use cairn_types::{Health, MonMap, OsdMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Updates that wait to be taken; the session waits beyond them.
const UPDATES_MAX: usize = 64;

/// Runs a command on this thread.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// Milliseconds since 1970: grows with every start of a process.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The configuration that a command uses.
pub fn conf(context: &Context) -> anyhow::Result<ClientConf> {
    let env = std::env::var_os(CONF_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(ClientConf::load(&find(context.conf.as_deref(), env.as_deref())?)?)
}

/// Where monitors are, also when the configuration has been written anew: some commands run for days.
pub fn monitors(conf: &ClientConf) -> Monitors {
    let path = conf.path.clone();
    Monitors::new(conf.monitors.clone(), move || Some(ClientConf::load(&path).ok()?.monitors))
}

/// A session with the monitors.
pub struct Session {
    /// Calls.
    pub mon: MonClient,
    /// What was subscribed to.
    pub updates: mpsc::Receiver<Update>,
}

impl Session {
    /// Begins a session with the cluster of a configuration. Whether it can be reached is seen at the first call.
    pub async fn start(conf: &ClientConf) -> anyhow::Result<Session> {
        let config = Config { incarnation: now_ms(), ..Config::new(conf.load_identity()?, None) };
        let endpoint = Arc::new(Endpoint::bind(config).await?);
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let mon = MonClient::start(endpoint, monitors(conf), sender);
        Ok(Session { mon, updates })
    }

    /// The same for the cluster that the command line means.
    pub async fn open(context: &Context) -> anyhow::Result<Session> {
        Session::start(&conf(context)?).await
    }

    /// The same session for calls that give up after another time.
    pub fn impatient(&self, timeout: Duration) -> MonClient {
        self.mon.with_timeout(timeout)
    }

    /// The newest OSD map.
    pub async fn osd_map(&self) -> anyhow::Result<OsdMap> {
        match self.mon.read(Query::OsdMap(None)).await? {
            Reading::OsdMap(map) => Ok(map),
            other => Err(unexpected(&other)),
        }
    }

    /// The monitors.
    pub async fn mon_map(&self) -> anyhow::Result<MonMap> {
        match self.mon.read(Query::MonMap).await? {
            Reading::MonMap(map) => Ok(map),
            other => Err(unexpected(&other)),
        }
    }

    /// The checks.
    pub async fn health(&self) -> anyhow::Result<Health> {
        match self.mon.read(Query::Health).await? {
            Reading::Health(health) => Ok(health),
            other => Err(unexpected(&other)),
        }
    }

    /// The whole at a glance.
    pub async fn status(&self) -> anyhow::Result<cairn_mon::service::status::Status> {
        match self.mon.read(Query::Status).await? {
            Reading::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// The mgr's statistics; none while no mgr is active.
    pub async fn digest(&self) -> anyhow::Result<Option<cairn_types::Digest>> {
        match self.mon.read(Query::Digest).await? {
            Reading::Digest(digest) => Ok(digest),
            other => Err(unexpected(&other)),
        }
    }
}

/// An answer to another question: the monitors are of a version this program does not understand.
pub fn unexpected(answer: &impl std::fmt::Debug) -> anyhow::Error {
    let text = format!("{answer:?}");
    let what = text.split(['(', ' ', '{']).next().unwrap_or_default();
    anyhow::anyhow!(
        "the monitors answered another question ('{what}'): update cairn on this machine or theirs"
    )
}
