//! Monitors on loopback: each on a thread with a runtime of its own, with real files and certificates.

use cairn_mon::daemon::{MonError, MonOptions, Seed, create, run};
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::status::Status;
use cairn_mon::service::{Genesis, PoolCommand, Reply, Request};
use cairn_mon::session::{MonClient, Update};
use cairn_net::{ClusterCa, Config, Endpoint, Identity, Validity};
use cairn_types::{EntityAddr, EntityName, Fsid, Timestamp};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

/// Long enough for any honest wait on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> EntityName {
    text.parse().expect("a name")
}

/// Runs a test on a runtime of one thread, within [`PATIENCE`].
pub fn test(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("the test hangs") });
}

/// Addresses that nothing listens on.
pub fn free_addrs(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect()
}

enum Order {
    Stop,
    Kill,
}

pub struct Mon {
    order: oneshot::Sender<Order>,
    thread: JoinHandle<Option<Result<(), MonError>>>,
}

impl Mon {
    pub fn start(options: MonOptions) -> Mon {
        let (order, orders) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let result = runtime.block_on(async {
                let (stop, stopped) = oneshot::channel::<()>();
                let run = run(options, async { drop(stopped.await) });
                tokio::pin!(run);
                tokio::select! {
                    result = &mut run => return Some(result),
                    order = orders => match order {
                        Ok(Order::Stop) => drop(stop),
                        Ok(Order::Kill) | Err(_) => return None,
                    }
                }
                Some(run.await)
            });
            // The sockets go without a word, as those of a killed process.
            runtime.shutdown_background();
            result
        });
        Mon { order, thread }
    }

    pub fn kill(self) {
        let _ = self.order.send(Order::Kill);
        self.thread.join().expect("no panic");
    }

    pub fn stop(self) -> Result<(), MonError> {
        let _ = self.order.send(Order::Stop);
        self.thread.join().expect("no panic").expect("not killed")
    }

    /// Waits until it ends by itself.
    pub async fn ended(self) -> Result<(), MonError> {
        while !self.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.thread.join().expect("no panic").expect("not killed")
    }
}

pub struct Cluster {
    pub ca: ClusterCa,
    dir: TempDir,
    pub addrs: BTreeMap<String, SocketAddr>,
    running: BTreeMap<String, Mon>,
}

impl Cluster {
    /// Makes and starts monitors of these names.
    pub fn start(names: &[&str]) -> Cluster {
        let fsid = Fsid(*b"a test's cluster");
        let ca = ClusterCa::create(fsid, SystemTime::now()).expect("a CA");
        let addrs: BTreeMap<String, SocketAddr> =
            names.iter().map(|name| (*name).to_owned()).zip(free_addrs(names.len())).collect();
        let entity = |socket: &SocketAddr| vec![EntityAddr { socket: *socket, nonce: 0 }];
        let mons = addrs.iter().map(|(name, addr)| (name.clone(), entity(addr))).collect();
        let genesis = Genesis { fsid, now: Timestamp(1_700_000_000_000), mons };
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster { ca, dir, addrs, running: BTreeMap::new() };
        for mon in names {
            let seed = Seed::Founding(genesis.clone());
            create(&cluster.dir(mon), &name(&format!("mon.{mon}")), seed).expect("it is made");
            cluster.start_mon(mon);
        }
        cluster
    }

    pub fn dir(&self, mon: &str) -> PathBuf {
        self.dir.path().join(mon)
    }

    pub fn identity(&self, who: &str) -> Identity {
        let credentials = self.ca.issue(&name(who), Validity::from_now(SystemTime::now()));
        Identity::try_from(&credentials.expect("a certificate")).expect("an identity")
    }

    pub fn options(&self, mon: &str) -> MonOptions {
        MonOptions::new(self.identity(&format!("mon.{mon}")), self.dir(mon), self.addrs[mon])
    }

    pub fn start_mon(&mut self, mon: &str) {
        let started = Mon::start(self.options(mon));
        assert!(self.running.insert(mon.to_owned(), started).is_none(), "mon.{mon} runs already");
    }

    pub fn take(&mut self, mon: &str) -> Mon {
        self.running.remove(mon).expect("it runs")
    }

    pub fn kill(&mut self, mon: &str) {
        self.take(mon).kill();
    }

    pub async fn endpoint(&self, who: &str) -> Arc<Endpoint> {
        Arc::new(Endpoint::bind(Config::new(self.identity(who), None)).await.expect("an endpoint"))
    }

    pub async fn client(&self, who: &str) -> (MonClient, mpsc::Receiver<Update>) {
        let (updates, inbox) = mpsc::channel(4);
        let monitors: Vec<_> = self.addrs.values().copied().collect();
        let client = MonClient::start(self.endpoint(who).await, monitors, updates);
        (client.with_timeout(PATIENCE), inbox)
    }
}

pub async fn status(client: &MonClient) -> Status {
    match client.read(Query::Status).await {
        Ok(Reading::Status(status)) => status,
        other => panic!("a status was asked for: {other:?}"),
    }
}

/// Waits until these monitors, and no other, agree.
pub async fn quorum(client: &MonClient, names: &[&str]) {
    while status(client).await.mon.quorum != names {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn create_pool(name: &str) -> Request {
    Request::Pool(PoolCommand::Create {
        name: name.to_owned(),
        size: None,
        min_size: None,
        pg_num: Some(8),
        rule: None,
        application: "rbd".to_owned(),
    })
}

/// Counts up, so that a change that was lost or made twice shows.
pub async fn next_snap(client: &MonClient) -> u64 {
    let request = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    match client.change(request).await {
        Ok(Reply::Snap { snap }) => snap.0,
        other => panic!("a snapshot number was asked for: {other:?}"),
    }
}
