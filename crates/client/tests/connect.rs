//! A client and a monitor as they run: the way from addresses to pools, and the blocklist.

use cairn_client::{BLOCKLIST_DURATION, Client, ClientError, ClientOptions, ObjectIo};
use cairn_mon::daemon::{self, MonOptions, Seed};
use cairn_mon::service::{Genesis, PoolCommand, Reply, Request};
use cairn_net::{ClusterCa, Identity, Validity};
use cairn_types::{EntityAddr, Fsid, Timestamp};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Long enough for any honest wait on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One monitor on a thread of its own.
struct Monitor {
    ca: ClusterCa,
    addr: SocketAddr,
    /// It stops when this is dropped.
    _stop: oneshot::Sender<()>,
    _dir: TempDir,
}

fn identity(ca: &ClusterCa, name: &str) -> Identity {
    let credentials = ca.issue(&name.parse().unwrap(), Validity::from_now(SystemTime::now())).unwrap();
    Identity::try_from(&credentials).unwrap()
}

impl Monitor {
    fn start() -> Monitor {
        let fsid = Fsid([9; 16]);
        let ca = ClusterCa::create(fsid, SystemTime::now()).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mons = [("a".to_owned(), vec![EntityAddr { socket: addr, nonce: 0 }])].into();
        let genesis = Genesis { fsid, now: Timestamp(1_700_000_000_000), mons };
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("a");
        daemon::create(&data_dir, &"mon.a".parse().unwrap(), Seed::Founding(genesis)).unwrap();
        let options = MonOptions::new(identity(&ca, "mon.a"), data_dir, addr);
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(daemon::run(options, async { drop(stopped.await) })).unwrap();
        });
        Monitor { ca, addr, _stop: stop, _dir: dir }
    }

    fn options(&self) -> ClientOptions {
        ClientOptions { identity: identity(&self.ca, "client.admin"), monitors: vec![self.addr].into() }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

fn create_pool(name: &str) -> Request {
    Request::Pool(PoolCommand::Create {
        name: name.to_owned(),
        size: Some(2),
        min_size: None,
        pg_num: Some(8),
        rule: None,
        application: String::new(),
    })
}

#[test]
fn a_client_finds_pools_and_shuts_others_out() {
    run(async {
        let monitor = Monitor::start();
        let client = Client::connect(&monitor.options()).await.unwrap();
        let other = Client::connect(&monitor.options()).await.unwrap();
        assert_ne!(client.session(), other.session());
        assert_eq!(client.addr().socket.ip(), monitor.addr.ip());
        assert_ne!(client.addr(), other.addr());

        let error = client.pool("vms").await.err().unwrap();
        assert!(matches!(&error, ClientError::NoPool { pools, .. } if pools.is_empty()), "{error}");
        // Made by another client, it is found at once.
        for name in ["vms", "iso"] {
            assert!(matches!(other.mon().change(create_pool(name)).await, Ok(Reply::Pool { .. })));
            let pool = client.pool(name).await.unwrap();
            assert_eq!(pool.pool_name(), name);
        }
        let error = client.pool("vm").await.err().unwrap();
        assert_eq!(error.to_string(), "there is no pool 'vm'; there are 'vms', 'iso'");

        let pool = client.pool("vms").await.unwrap();
        let waiting = other.pool("vms").await.unwrap();
        let task = tokio::spawn(async move { cairn_client::objects::stat(&waiting, "x").await });
        let epoch = pool.blocklist(other.addr(), BLOCKLIST_DURATION).await.unwrap();
        let map = client.map().unwrap();
        assert!(
            map.epoch >= epoch && map.is_blocklisted(&other.addr()) && !map.is_blocklisted(&client.addr())
        );
        // No OSD serves it, so that it would wait for ever.
        let error = task.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("is in the blocklist"), "{error}");
    });
}

#[test]
fn without_a_monitor_there_is_a_sentence() {
    run(async {
        let monitor = Monitor::start();
        let none = ClientOptions { monitors: Vec::new().into(), ..monitor.options() };
        assert!(matches!(Client::connect(&none).await, Err(ClientError::NoMonitors)));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let wrong = ClientOptions { monitors: vec![nobody].into(), ..monitor.options() };
        let error = Client::connect(&wrong).await.err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("no monitor answers at {nobody}: is the cluster running?")),
            "{error}"
        );
    });
}
