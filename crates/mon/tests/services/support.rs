//! A cluster's state, driven by requests as the leader drives it.

use cairn_mon::service::crush::Location;
use cairn_mon::service::{
    ClusterState, ConfigCommand, ConfigSection, Draft, Genesis, OsdCommand, PoolCommand, Refusal, Reply,
    Request,
};
use cairn_types::{EntityAddr, Epoch, Fsid, OsdId, OsdInfo, OsdUuid, Timestamp, Weight};

pub const START: Timestamp = Timestamp(1_700_000_000_000);

pub struct Cluster {
    pub state: ClusterState,
    pub now: Timestamp,
}

pub fn addr(port: u16, nonce: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, 1], port).into(), nonce }
}

pub fn host(name: &str) -> Location {
    vec![("root".to_owned(), "default".to_owned()), ("host".to_owned(), name.to_owned())]
}

pub fn uuid(n: i32) -> OsdUuid {
    OsdUuid([n as u8 + 1; 16])
}

pub fn create(n: i32, at: &str) -> Request {
    let location = host(at);
    Request::Osd(OsdCommand::Create { uuid: uuid(n), id: None, class: None, weight: Weight::ONE, location })
}

/// The `nonce`th run of an OSD says that it runs.
pub fn boot(n: i32, nonce: u64) -> Request {
    let port = 6800 + 2 * n as u16;
    let (public, cluster) = (addr(port, nonce), addr(port + 1, nonce));
    Request::Osd(OsdCommand::Boot { osd: OsdId(n), uuid: uuid(n), public, cluster, clean: None })
}

pub fn make_pool(name: &str) -> Request {
    Request::Pool(PoolCommand::Create {
        name: name.to_owned(),
        size: None,
        min_size: None,
        pg_num: None,
        rule: None,
        application: "rbd".to_owned(),
    })
}

pub fn set(option: &str, value: &str) -> Request {
    let (section, option) = (ConfigSection::Global, option.to_owned());
    Request::Config(ConfigCommand::Set { section, option, value: value.to_owned() })
}

impl Cluster {
    /// Three monitors, no OSD.
    pub fn new() -> Self {
        let mons = [("a", 3300), ("b", 3301), ("c", 3302)];
        let mons = mons.into_iter().map(|(name, port)| (name.to_owned(), vec![addr(port, 0)])).collect();
        Cluster { state: ClusterState::new(Genesis { fsid: Fsid([3; 16]), now: START, mons }), now: START }
    }

    /// OSDs that are up, each on the host named.
    pub fn with_osds(hosts: &[&str]) -> Self {
        let mut cluster = Cluster::new();
        for (n, name) in hosts.iter().enumerate() {
            cluster.ok(create(n as i32, name));
            cluster.ok(boot(n as i32, 1));
        }
        cluster
    }

    /// Three hosts with an OSD each, and pool `vms`.
    pub fn usual() -> Self {
        let mut cluster = Cluster::with_osds(&["n1", "n2", "n3"]);
        cluster.ok(make_pool("vms"));
        cluster
    }

    /// Requests that become one transaction.
    pub fn batch(&mut self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        let mut draft = Draft::new(&self.state, self.now);
        let replies = requests.iter().map(|request| draft.run(request)).collect();
        if let Some(transaction) = draft.finish() {
            self.state.apply(&transaction).expect("a draft applies to what it was made over");
        }
        replies
    }

    pub fn run(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.batch(&[request]).remove(0)
    }

    pub fn ok(&mut self, request: Request) -> Reply {
        self.run(request).expect("accepted")
    }

    /// A refusal, which must leave no trace.
    pub fn refused(&mut self, request: Request) -> Refusal {
        let before = self.state.hash();
        let refusal = self.run(request).expect_err("refused");
        assert_eq!(self.state.hash(), before, "a refused request changes nothing");
        refusal
    }

    pub fn epoch(&self) -> Epoch {
        self.state.osd_map().epoch
    }

    pub fn osd(&self, n: i32) -> OsdInfo {
        self.state.osd_map().osds[&OsdId(n)]
    }
}
