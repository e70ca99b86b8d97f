//! Where things are in the directory of a cluster.
//!
//! ```text
//! DIR/cairn.toml              the client's configuration; it stands for "a cluster is here"
//! DIR/ca/{ca.pem,ca.key}      the cluster's authority
//! DIR/client.admin/           certificate and key of the client
//! DIR/mon.a/daemon.toml …     one directory for each daemon: configuration, certificate, key, data
//! DIR/run/NAME.pid            which process a daemon is
//! DIR/log/NAME.log            what it had to say
//! ```

use crate::{ClientConf, ConfError, DaemonConf};
use cairn_types::{EntityKind, EntityName};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Name of a daemon's configuration in its directory.
pub(crate) const DAEMON_CONF: &str = "daemon.toml";

/// A cluster's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The directory at `dir`, whether it is there or not.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Layout { dir: dir.into() }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a cluster is there.
    pub fn exists(&self) -> bool {
        self.client_conf().exists()
    }

    /// The client's configuration.
    pub fn client_conf(&self) -> PathBuf {
        self.dir.join("cairn.toml")
    }

    /// The CA's certificate.
    pub fn ca_cert(&self) -> PathBuf {
        self.dir.join("ca/ca.pem")
    }

    /// The CA's private key.
    pub fn ca_key(&self) -> PathBuf {
        self.dir.join("ca/ca.key")
    }

    /// The directory of a daemon or client.
    pub fn entity_dir(&self, name: &EntityName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// A daemon's configuration.
    pub fn daemon_conf(&self, name: &EntityName) -> PathBuf {
        self.entity_dir(name).join(DAEMON_CONF)
    }

    /// The pid files.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The logs.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// A daemon's pid file.
    pub fn pid_file(&self, name: &EntityName) -> PathBuf {
        self.run_dir().join(format!("{name}.pid"))
    }

    /// A daemon's log.
    pub fn log_file(&self, name: &EntityName) -> PathBuf {
        self.log_dir().join(format!("{name}.log"))
    }

    /// The daemons that are here: monitors, OSDs, mgrs, each kind in order.
    pub fn daemons(&self) -> Result<Vec<EntityName>, ConfError> {
        let read = || -> io::Result<Vec<EntityName>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&self.dir)? {
                let Some(name) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                if self.daemon_conf(&name).is_file() {
                    found.push(name);
                }
            }
            Ok(found)
        };
        let mut names = read().map_err(|source| ConfError::Read { path: self.dir.clone(), source })?;
        names.retain(|name| name.kind() != EntityKind::Client);
        names.sort_by_key(|name| (name.kind(), name.osd_id(), name.id().to_owned()));
        Ok(names)
    }

    /// Writes the addresses of the monitors into all configurations that are here.
    pub fn set_monitors(&self, monitors: &[SocketAddr]) -> Result<(), ConfError> {
        for name in self.daemons()? {
            DaemonConf::set_monitors(&self.daemon_conf(&name), monitors)?;
        }
        ClientConf::set_monitors(&self.client_conf(), monitors)
    }
}
