//! Making a cluster on disk: its authority, certificates, and a directory for each daemon.

use crate::document::{self, SECRET, write_new};
use crate::identity::{CERT, KEY};
use crate::layout::DAEMON_CONF;
use crate::{
    ClientConf, CreateError, DaemonConf, IdentityFiles, Layout, MgrConf, MonConf, OsdConf, Role, Staging,
};
use crate::{identity, ports};
use cairn_net::{ClusterCa, Validity};
use cairn_types::{EntityKind, EntityName, Fsid};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, create_dir};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The client that may do everything.
const ADMIN: &str = "admin";
/// Ports each daemon gets: a monitor and a mgr have one for all, and the mgr one for metrics; an OSD has one for
/// clients and one for OSDs.
const PORTS_OF_MON: usize = 1;
const PORTS_OF_OTHERS: usize = 2;

/// What a new cluster has.
#[derive(Clone, Copy, Debug)]
pub struct ClusterPlan {
    /// Its id, drawn at random.
    pub fsid: Fsid,
    /// The time.
    pub now: SystemTime,
    /// Monitors, `mon.a` and on. Each on a host of its own, from `n1`, with a mgr.
    pub mons: u8,
    /// OSDs, from `osd.0`. Each on a host of its own, from `n1`.
    pub osds: u32,
    /// Size of each OSD's store.
    pub osd_bytes: u64,
    /// Chooses the ports.
    pub seed: u64,
}

/// A daemon to be added to a cluster.
#[derive(Clone, Debug)]
pub struct DaemonPlan {
    /// Who it is.
    pub name: EntityName,
    /// Where the monitors are.
    pub monitors: Vec<SocketAddr>,
    /// Where it listens, [`DaemonPlan::ports`] addresses.
    pub listen: Vec<SocketAddr>,
    /// Host of an OSD.
    pub host: String,
    /// Size of an OSD's store.
    pub store_bytes: u64,
}

impl DaemonPlan {
    /// How many addresses a daemon of a kind listens on.
    pub fn ports(kind: EntityKind) -> usize {
        if kind == EntityKind::Mon { PORTS_OF_MON } else { PORTS_OF_OTHERS }
    }

    fn role(&self) -> Role {
        // The plan's own addresses: as many as `ports` says.
        let second = self.listen[self.listen.len() - 1];
        match self.name.kind() {
            EntityKind::Mon => Role::Mon(MonConf { data: PathBuf::from("data") }),
            EntityKind::Osd => Role::Osd(OsdConf {
                cluster_listen: second,
                store: PathBuf::from("store"),
                store_bytes: self.store_bytes,
                location: [("root", "default"), ("host", self.host.as_str())]
                    .map(|(level, name)| (level.to_owned(), name.to_owned()))
                    .into(),
            }),
            EntityKind::Mgr | EntityKind::Client => Role::Mgr(MgrConf { metrics_listen: second }),
        }
    }
}

/// `a`, `b`, … `z`, then `m26` and on.
fn letter(n: u8) -> String {
    if n < 26 { char::from(b'a' + n).to_string() } else { format!("m{n}") }
}

fn name(kind: EntityKind, id: &str) -> EntityName {
    EntityName::new(kind, id).expect("a letter or a number is an id")
}

/// Makes the directory of a new cluster. `fill` may add to it, under the path it is given, before it gets its name.
pub fn create_cluster<E: From<CreateError>>(
    layout: &Layout,
    plan: &ClusterPlan,
    fill: impl FnOnce(&Layout) -> Result<(), E>,
) -> Result<(), E> {
    let staging = Staging::begin(layout.dir())?;
    let staged = Layout::new(staging.path());
    write_cluster(&staged, plan)?;
    fill(&staged)?;
    Ok(staging.finish()?)
}

fn write_cluster(layout: &Layout, plan: &ClusterPlan) -> Result<(), CreateError> {
    let ca = ClusterCa::create(plan.fsid, plan.now)?;
    let kinds = [
        (EntityKind::Mon, plan.mons.into()),
        (EntityKind::Osd, plan.osds),
        (EntityKind::Mgr, plan.mons.into()),
    ];
    let wanted = kinds.iter().map(|(kind, count)| DaemonPlan::ports(*kind) * *count as usize).sum();
    let mut free = ports::free_ports(wanted, plan.seed)?.into_iter();
    let founders: BTreeMap<String, SocketAddr> = (0..plan.mons).map(letter).zip(free.by_ref()).collect();
    let monitors: Vec<SocketAddr> = founders.values().copied().collect();

    for dir in [layout.run_dir(), layout.log_dir()] {
        create_dir(&dir).map_err(CreateError::io("make", &dir))?;
    }
    write_ca(layout, &ca)?;
    for (kind, count) in kinds {
        for n in 0..count {
            let id = if kind == EntityKind::Osd { n.to_string() } else { letter(n as u8) };
            let listen = match kind {
                EntityKind::Mon => vec![founders[&id]],
                _ => free.by_ref().take(DaemonPlan::ports(kind)).collect(),
            };
            let daemon = DaemonPlan {
                name: name(kind, &id),
                monitors: monitors.clone(),
                listen,
                host: format!("n{}", n + 1),
                store_bytes: plan.osd_bytes,
            };
            let dir = layout.entity_dir(&daemon.name);
            make_private(&dir)?;
            write_daemon(&dir, &ca, &daemon, plan.now)?;
        }
    }
    write_admin(layout, &ca, monitors, plan.now)
}

fn write_ca(layout: &Layout, ca: &ClusterCa) -> Result<(), CreateError> {
    let (cert, key) = (layout.ca_cert(), layout.ca_key());
    make_private(&layout.dir().join("ca"))?;
    write_new(&cert, ca.certificate_pem().as_bytes(), document::PUBLIC)
        .map_err(CreateError::io("write", &cert))?;
    write_new(&key, ca.key_pem().as_bytes(), SECRET).map_err(CreateError::io("write", &key))
}

fn write_admin(
    layout: &Layout,
    ca: &ClusterCa,
    monitors: Vec<SocketAddr>,
    now: SystemTime,
) -> Result<(), CreateError> {
    let admin = name(EntityKind::Client, ADMIN);
    let dir = layout.entity_dir(&admin);
    make_private(&dir)?;
    let credentials = ca.issue(&admin, Validity::from_now(now))?;
    identity::write(&dir, &credentials).map_err(CreateError::io("write to", &dir))?;
    let own = |file| PathBuf::from(admin.to_string()).join(file);
    let identity = IdentityFiles { ca: PathBuf::from("ca/ca.pem"), cert: own(CERT), key: own(KEY) };
    Ok(ClientConf { path: layout.client_conf(), fsid: ca.fsid(), monitors, identity }.write()?)
}

/// A directory whose files are secret or of no use to others.
fn make_private(dir: &Path) -> Result<(), CreateError> {
    DirBuilder::new().mode(0o700).create(dir).map_err(CreateError::io("make", dir))
}

fn write_daemon(dir: &Path, ca: &ClusterCa, plan: &DaemonPlan, now: SystemTime) -> Result<(), CreateError> {
    let credentials = ca.issue(&plan.name, Validity::from_now(now))?;
    identity::write(dir, &credentials).map_err(CreateError::io("write to", dir))?;
    let conf = DaemonConf {
        path: dir.join(DAEMON_CONF),
        name: plan.name.clone(),
        fsid: ca.fsid(),
        monitors: plan.monitors.clone(),
        listen: plan.listen[0],
        pid_file: Some(PathBuf::from(format!("../run/{}.pid", plan.name))),
        identity: IdentityFiles {
            ca: PathBuf::from("../ca/ca.pem"),
            cert: PathBuf::from(CERT),
            key: PathBuf::from(KEY),
        },
        role: plan.role(),
    };
    Ok(conf.write()?)
}

/// Makes the directory of one more daemon of a cluster that is there.
pub fn create_daemon<E: From<CreateError>>(
    layout: &Layout,
    plan: &DaemonPlan,
    now: SystemTime,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let ca = read_ca(layout)?;
    let staging = Staging::begin(&layout.entity_dir(&plan.name))?;
    write_daemon(staging.path(), &ca, plan, now)?;
    fill(staging.path())?;
    Ok(staging.finish()?)
}

fn read_ca(layout: &Layout) -> Result<ClusterCa, CreateError> {
    let (cert, key) = (document::read_text(&layout.ca_cert())?, document::read_text(&layout.ca_key())?);
    Ok(ClusterCa::from_pem(&cert, &key)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConfError;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    fn plan() -> ClusterPlan {
        ClusterPlan {
            fsid: Fsid([7; 16]),
            now: SystemTime::now(),
            mons: 3,
            osds: 12,
            osd_bytes: 1 << 30,
            seed: 1234,
        }
    }

    fn made() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("cluster"));
        create_cluster(&layout, &plan(), |_| Ok::<_, CreateError>(())).unwrap();
        (dir, layout)
    }

    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn every_daemon_can_be_started_from_its_directory() {
        let (_dir, layout) = made();
        let names: Vec<String> = layout.daemons().unwrap().iter().map(ToString::to_string).collect();
        let osds: Vec<String> = (0..12).map(|n| format!("osd.{n}")).collect();
        let wanted = [
            &["mon.a", "mon.b", "mon.c"].map(String::from)[..],
            &osds,
            &["mgr.a", "mgr.b", "mgr.c"].map(String::from),
        ];
        assert_eq!(names, wanted.concat());

        let client = ClientConf::load(&layout.client_conf()).unwrap();
        assert_eq!(client.load_identity().unwrap().name().to_string(), "client.admin");
        let mut listens = BTreeSet::new();
        for name in layout.daemons().unwrap() {
            let conf = DaemonConf::load(&layout.daemon_conf(&name)).unwrap();
            assert_eq!(conf.name, name);
            conf.load_identity().unwrap();
            assert_eq!(conf.monitors, client.monitors);
            assert!(listens.insert(conf.listen));
            match conf.role {
                Role::Mon(_) => assert!(client.monitors.contains(&conf.listen)),
                Role::Osd(osd) => {
                    assert!(listens.insert(osd.cluster_listen));
                    assert_eq!(osd.location["host"], format!("n{}", name.osd_id().unwrap().0 + 1));
                }
                Role::Mgr(mgr) => assert!(listens.insert(mgr.metrics_listen)),
            }
        }
    }

    #[test]
    fn private_keys_are_for_their_owner_alone() {
        let (_dir, layout) = made();
        let mut all = Vec::new();
        files(layout.dir(), &mut all);
        let secret: Vec<_> = all
            .iter()
            .filter(|path| std::fs::read_to_string(path).unwrap().contains("PRIVATE KEY"))
            .collect();
        assert_eq!(secret.len(), 3 + 12 + 3 + 2);
        for path in secret {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
    }

    #[test]
    fn a_cluster_that_cannot_be_filled_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("cluster"));
        let failed = create_cluster(&layout, &plan(), |staged| {
            assert!(staged.exists() && !layout.exists());
            Err(CreateError::Exists { path: PathBuf::from("store") })
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_daemon_is_added_to_a_cluster() {
        let (_dir, layout) = made();
        let client = ClientConf::load(&layout.client_conf()).unwrap();
        let plan = DaemonPlan {
            name: "mon.d".parse().unwrap(),
            monitors: client.monitors.clone(),
            listen: ports::free_ports(1, 99).unwrap(),
            host: "n4".to_owned(),
            store_bytes: 0,
        };
        create_daemon(&layout, &plan, SystemTime::now(), |_| Ok::<_, CreateError>(())).unwrap();
        let again = create_daemon(&layout, &plan, SystemTime::now(), |_| Ok::<_, CreateError>(()));
        assert!(matches!(again, Err(CreateError::NotEmpty { .. })), "{again:?}");
        let conf = DaemonConf::load(&layout.daemon_conf(&plan.name)).unwrap();
        conf.load_identity().unwrap();
        assert_eq!(conf.listen, plan.listen[0]);

        let more = [client.monitors, plan.listen].concat();
        layout.set_monitors(&more).unwrap();
        for name in layout.daemons().unwrap() {
            assert_eq!(DaemonConf::load(&layout.daemon_conf(&name)).unwrap().monitors, more);
        }
        assert_eq!(ClientConf::load(&layout.client_conf()).unwrap().monitors, more);
    }

    #[test]
    fn a_certificate_of_another_cluster_or_daemon_is_refused() {
        let (_dir, layout) = made();
        let other = tempfile::tempdir().unwrap();
        let second = Layout::new(other.path().join("cluster"));
        let plan = ClusterPlan { fsid: Fsid([8; 16]), ..plan() };
        create_cluster(&second, &plan, |_| Ok::<_, CreateError>(())).unwrap();

        let [zero, one]: [EntityName; 2] = ["osd.0", "osd.1"].map(|name| name.parse().unwrap());
        let mut conf = DaemonConf::load(&layout.daemon_conf(&zero)).unwrap();
        conf.identity = DaemonConf::load(&layout.daemon_conf(&one)).unwrap().identity;
        assert!(matches!(conf.load_identity(), Err(ConfError::OtherName { .. })));
        conf.identity = DaemonConf::load(&second.daemon_conf(&zero)).unwrap().identity;
        assert!(matches!(conf.load_identity(), Err(ConfError::OtherCluster { .. })));
        conf.identity.ca = layout.ca_cert();
        let error = conf.load_identity().unwrap_err().to_string();
        assert!(error.contains("of cluster 08080808-"), "{error}");
    }
}
