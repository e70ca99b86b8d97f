//! `daemon.toml`: what one daemon is, where it listens and where it keeps its data.

use crate::client::{check_cluster, check_monitors, directory};
use crate::document::{self, Document};
use crate::{ConfError, IdentityFiles};
use cairn_net::Identity;
use cairn_types::{EntityKind, EntityName, Fsid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The configuration of a daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonConf {
    /// Where it was read.
    pub path: PathBuf,
    /// Who it is.
    pub name: EntityName,
    /// The cluster.
    pub fsid: Fsid,
    /// Where monitors listen.
    pub monitors: Vec<SocketAddr>,
    /// Where it listens for clients and daemons.
    pub listen: SocketAddr,
    /// Where it says which process it is.
    pub pid_file: Option<PathBuf>,
    /// Its certificate.
    pub identity: IdentityFiles,
    /// What only its kind has.
    pub role: Role,
}

/// What only one kind of daemon has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// A monitor.
    Mon(MonConf),
    /// An OSD.
    Osd(OsdConf),
    /// A mgr.
    Mgr(MgrConf),
}

/// A monitor's own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonConf {
    /// Directory of its log and checkpoint.
    pub data: PathBuf,
}

/// An OSD's own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsdConf {
    /// Where it listens for other OSDs.
    pub cluster_listen: SocketAddr,
    /// File or block device of its store.
    pub store: PathBuf,
    /// Size of the store's file when it is made.
    pub store_bytes: u64,
    /// Where it stands, such as `host = "n1"`, by level.
    pub location: BTreeMap<String, String>,
}

/// A mgr's own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MgrConf {
    /// Where it serves metrics over HTTP.
    pub metrics_listen: SocketAddr,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    name: EntityName,
    fsid: Fsid,
    monitors: Vec<SocketAddr>,
    listen: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid_file: Option<PathBuf>,
    identity: IdentityFiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    mon: Option<MonConf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    osd: Option<OsdConf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mgr: Option<MgrConf>,
}

impl Document for Form {
    fn version(&self) -> u32 {
        self.version
    }
}

impl DaemonConf {
    /// Reads and checks a file; relative paths in it are taken from its directory.
    pub fn load(path: &Path) -> Result<Self, ConfError> {
        let mut conf = Self::read(path)?;
        let dir = directory(path);
        conf.identity = conf.identity.resolved(dir);
        conf.pid_file = conf.pid_file.map(|file| dir.join(file));
        match &mut conf.role {
            Role::Mon(mon) => mon.data = dir.join(&mon.data),
            Role::Osd(osd) => osd.store = dir.join(&osd.store),
            Role::Mgr(_) => {}
        }
        Ok(conf)
    }

    fn read(path: &Path) -> Result<Self, ConfError> {
        let form: Form = document::read(path)?;
        check_monitors(path, &form.monitors)?;
        let kind = form.name.kind();
        let role = match (kind, form.mon, form.osd, form.mgr) {
            (EntityKind::Mon, Some(mon), None, None) => Role::Mon(mon),
            (EntityKind::Osd, None, Some(osd), None) => Role::Osd(osd),
            (EntityKind::Mgr, None, None, Some(mgr)) => Role::Mgr(mgr),
            (EntityKind::Client, ..) => {
                let why = format!("is {}, which is no daemon", form.name);
                return Err(ConfError::Value { path: path.to_owned(), key: "name", why });
            }
            _ => {
                let why = format!("is {}: there must be one section [{kind}] and no other kind's", form.name);
                return Err(ConfError::Value { path: path.to_owned(), key: "name", why });
            }
        };
        Ok(DaemonConf {
            path: path.to_owned(),
            name: form.name,
            fsid: form.fsid,
            monitors: form.monitors,
            listen: form.listen,
            pid_file: form.pid_file,
            identity: form.identity,
            role,
        })
    }

    /// The daemon's certificate, key and CA, which must be of its cluster and name.
    pub fn load_identity(&self) -> Result<Identity, ConfError> {
        let identity = self.identity.load()?;
        check_cluster(&self.path, self.fsid, &identity)?;
        if *identity.name() != self.name {
            let (conf, certificate) = (self.name.clone(), identity.name().clone());
            return Err(ConfError::OtherName { path: self.path.clone(), conf, certificate });
        }
        Ok(identity)
    }

    /// Writes a file, with paths as they are given.
    pub(crate) fn write(&self) -> Result<(), ConfError> {
        let (mut mon, mut osd, mut mgr) = (None, None, None);
        match self.role.clone() {
            Role::Mon(conf) => mon = Some(conf),
            Role::Osd(conf) => osd = Some(conf),
            Role::Mgr(conf) => mgr = Some(conf),
        }
        let form = Form {
            version: document::VERSION,
            name: self.name.clone(),
            fsid: self.fsid,
            monitors: self.monitors.clone(),
            listen: self.listen,
            pid_file: self.pid_file.clone(),
            identity: self.identity.clone(),
            mon,
            osd,
            mgr,
        };
        document::write(&self.path, &format!("What {} is.", self.name), &form)
            .map_err(|source| ConfError::Write { path: self.path.clone(), source })
    }

    /// Writes other monitors into a file that exists.
    pub(crate) fn set_monitors(path: &Path, monitors: &[SocketAddr]) -> Result<(), ConfError> {
        let mut conf = Self::read(path)?;
        conf.monitors = monitors.to_vec();
        conf.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OSD: &str = r#"version = 1
name = "osd.3"
fsid = "3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c10"
monitors = ["127.0.0.1:6789"]
listen = "127.0.0.1:6800"
pid_file = "../run/osd.3.pid"

[identity]
ca = "../ca/ca.pem"
cert = "cert.pem"
key = "key.pem"

[osd]
cluster_listen = "127.0.0.1:6801"
store = "store"
store_bytes = 1073741824

[osd.location]
host = "n4"
root = "default"
"#;

    fn load(text: &str) -> Result<DaemonConf, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.toml");
        std::fs::write(&path, text).unwrap();
        DaemonConf::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn an_osd_is_read_as_it_is_written() {
        let conf = load(OSD).unwrap();
        let dir = conf.path.parent().unwrap();
        let Role::Osd(osd) = &conf.role else { panic!("{conf:?}") };
        assert_eq!(osd.store, dir.join("store"));
        assert_eq!(conf.pid_file, Some(dir.join("../run/osd.3.pid")));
        assert_eq!(osd.location.get("host").map(String::as_str), Some("n4"));

        let again = tempfile::tempdir().unwrap();
        let copy = DaemonConf { path: again.path().join("daemon.toml"), ..conf.clone() };
        copy.write().unwrap();
        assert_eq!(DaemonConf::load(&copy.path).unwrap(), copy);
    }

    #[test]
    fn name_and_section_belong_together() {
        for (text, says) in [
            (OSD.replace("osd.3\"\nfsid", "mon.a\"\nfsid"), "there must be one section [mon]"),
            (OSD.replace("osd.3\"\nfsid", "client.a\"\nfsid"), "is no daemon"),
            (OSD.replace("osd.3\"\nfsid", "osd.03\"\nfsid"), "line 2, column 8"),
            (OSD.replace("store_bytes", "store_size"), "unknown field `store_size`"),
            (format!("{OSD}\n[mgr]\nmetrics_listen = \"127.0.0.1:1\"\n"), "no other kind's"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(says) && error.lines().count() == 1, "{error:?} should say {says:?}");
        }
    }
}
