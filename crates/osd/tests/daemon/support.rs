//! A monitor and OSDs, each on a thread with a runtime of its own.

use cairn_client::{Client, ClientOptions, Pool};
use cairn_mon::daemon::{MonOptions, Seed};
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::{Genesis, PoolCommand, Request};
use cairn_net::{ClusterCa, Identity, Validity};
use cairn_osd::daemon::{NewOsd, OsdError, OsdOptions, create, run};
use cairn_store::CreateOptions;
use cairn_types::{EntityAddr, EntityName, Fsid, OsdId, Timestamp};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Long enough for any honest wait on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

fn name(text: &str) -> EntityName {
    text.parse().expect("a name")
}

/// Runs a test on a runtime of one thread, within [`PATIENCE`].
pub fn test(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("the test hangs") });
}

#[derive(PartialEq)]
enum Order {
    Stop,
    Kill,
}

/// A process, as far as a thread can be one.
struct Process<E> {
    order: Option<oneshot::Sender<Order>>,
    thread: JoinHandle<Option<Result<(), E>>>,
}

impl<E: Send + 'static> Process<E> {
    fn start<F>(run: impl FnOnce(oneshot::Receiver<()>) -> F + Send + 'static) -> Process<E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let (order, orders) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let result = runtime.block_on(async {
                let (stop, stopped) = oneshot::channel::<()>();
                let mut run = Box::pin(run(stopped));
                tokio::select! {
                    result = &mut run => return Some(result),
                    order = orders => if order != Ok(Order::Stop) {
                        return None;
                    },
                }
                drop(stop);
                Some(run.await)
            });
            // The sockets go without a word, as those of a killed process.
            runtime.shutdown_background();
            result
        });
        Process { order: Some(order), thread }
    }

    fn end(&mut self, order: Order) {
        if let Some(orders) = self.order.take() {
            let _ = orders.send(order);
        }
    }
}

pub struct Cluster {
    ca: ClusterCa,
    dir: TempDir,
    mon_addr: SocketAddr,
    _mon: Process<cairn_mon::daemon::MonError>,
    osds: BTreeMap<i32, Process<OsdError>>,
}

impl Cluster {
    /// One monitor and so many OSDs, each on a host of its own.
    pub async fn start(osds: i32) -> Cluster {
        let fsid = Fsid(*b"a test's cluster");
        let ca = ClusterCa::create(fsid, SystemTime::now()).expect("a CA");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mon_addr = listener.local_addr().expect("an address");
        drop(listener);
        let dir = tempfile::tempdir().expect("a folder");
        let mons = [("a".to_owned(), vec![EntityAddr { socket: mon_addr, nonce: 0 }])].into();
        let genesis = Genesis { fsid, now: Timestamp(1_700_000_000_000), mons };
        let mon_dir = dir.path().join("mon");
        cairn_mon::daemon::create(&mon_dir, &name("mon.a"), Seed::Founding(genesis)).expect("it is made");
        let options = MonOptions::new(identity_of(&ca, "mon.a"), mon_dir, mon_addr);
        let mon = Process::start(|stopped| cairn_mon::daemon::run(options, async { drop(stopped.await) }));
        let mut cluster = Cluster { ca, dir, mon_addr, _mon: mon, osds: BTreeMap::new() };
        for osd in 0..osds {
            cluster.new_store().await;
            cluster.start_osd(osd);
        }
        cluster
    }

    pub fn identity(&self, who: &str) -> Identity {
        identity_of(&self.ca, who)
    }

    fn store(&self, osd: i32) -> PathBuf {
        self.dir.path().join(format!("osd.{osd}"))
    }

    /// A store for the next number.
    pub async fn new_store(&self) -> PathBuf {
        let next = (0..).find(|osd| !self.store(*osd).exists()).expect("a free number");
        let new = NewOsd {
            identity: self.identity("client.admin"),
            monitors: vec![self.mon_addr],
            store: self.store(next),
            len_bytes: Some(64 << 20),
            options: CreateOptions::default(),
            id: None,
            class: None,
            weight: None,
            location: vec![
                ("root".to_owned(), "default".to_owned()),
                ("host".to_owned(), format!("host{next}")),
            ],
        };
        let osd = create(new).await.expect("it is made");
        assert_eq!(osd.0, next);
        self.store(next)
    }

    pub fn options(&self, osd: i32) -> OsdOptions {
        OsdOptions::new(self.identity(&format!("osd.{osd}")), self.store(osd), vec![self.mon_addr])
    }

    pub fn start_osd(&mut self, osd: i32) {
        let options = self.options(osd);
        let process = Process::start(|stopped| run(options, async { drop(stopped.await) }));
        assert!(self.osds.insert(osd, process).is_none(), "osd.{osd} runs already");
    }

    /// Until the map has it up.
    pub async fn until_up(&self, osd: i32) {
        let client = self.client().await;
        loop {
            match client.mon().read(Query::OsdMap(None)).await.expect("a map") {
                Reading::OsdMap(map) if map.is_up(OsdId(osd)) => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub fn kill(&mut self, osd: i32) {
        let mut process = self.osds.remove(&osd).expect("it runs");
        process.end(Order::Kill);
        assert!(process.thread.join().expect("no panic").is_none(), "it had ended by itself");
    }

    pub async fn stop(&mut self, osd: i32) -> Result<(), OsdError> {
        let mut process = self.osds.remove(&osd).expect("it runs");
        process.end(Order::Stop);
        while !process.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.thread.join().expect("no panic").expect("not killed")
    }

    pub async fn client(&self) -> Client {
        let options =
            ClientOptions { identity: self.identity("client.admin"), monitors: vec![self.mon_addr].into() };
        Client::connect(&options).await.expect("a client")
    }

    pub async fn make_pool(&self, client: &Client, name: &str) -> Pool {
        let request = Request::Pool(PoolCommand::Create {
            name: name.to_owned(),
            size: None,
            min_size: None,
            pg_num: Some(8),
            rule: None,
            application: "rbd".to_owned(),
        });
        client.mon().change(request).await.expect("a pool");
        client.pool(name).await.expect("the pool")
    }
}

fn identity_of(ca: &ClusterCa, who: &str) -> Identity {
    let credentials = ca.issue(&name(who), Validity::from_now(SystemTime::now()));
    Identity::try_from(&credentials.expect("a certificate")).expect("an identity")
}
