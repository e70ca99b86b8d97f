//! `cairn.toml`: how a client finds and proves itself to a cluster.

use crate::document::{self, Document};
use crate::{ConfError, IdentityFiles};
use cairn_net::Identity;
use cairn_types::Fsid;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The variable of the environment that names the file.
pub const CONF_ENV: &str = "CAIRN_CONF";
/// Where `cairn up` makes it, as seen from where `cairn up` was called.
pub const LOCAL_CONF: &str = ".cairn/cairn.toml";
/// Where it is on a machine that belongs to a cluster.
pub const SYSTEM_CONF: &str = "/etc/cairn/cairn.toml";

/// Most monitors that are named.
pub(crate) const MONITORS_MAX: usize = 64;

/// The configuration of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConf {
    /// Where it was read.
    pub path: PathBuf,
    /// The cluster.
    pub fsid: Fsid,
    /// Where monitors listen; one that answers is enough.
    pub monitors: Vec<SocketAddr>,
    /// Who the client is.
    pub identity: IdentityFiles,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    fsid: Fsid,
    monitors: Vec<SocketAddr>,
    identity: IdentityFiles,
}

impl Document for Form {
    fn version(&self) -> u32 {
        self.version
    }
}

/// The configuration to use: the one that is named on the command line, then the one of [`CONF_ENV`],
/// [`LOCAL_CONF`], [`SYSTEM_CONF`]. One that is named must exist.
pub fn find(named: Option<&Path>, env: Option<&Path>) -> Result<PathBuf, ConfError> {
    find_among(named.or(env), &[Path::new(LOCAL_CONF), Path::new(SYSTEM_CONF)])
}

fn find_among(named: Option<&Path>, usual: &[&Path]) -> Result<PathBuf, ConfError> {
    if let Some(path) = named {
        return match path.exists() {
            true => Ok(path.to_owned()),
            false => Err(ConfError::Missing { path: path.to_owned() }),
        };
    }
    let found = usual.iter().find(|path| path.exists());
    let looked = || usual.iter().map(|path| path.to_path_buf()).collect();
    found.map(|path| path.to_path_buf()).ok_or_else(|| ConfError::NotFound { looked: looked() })
}

impl ClientConf {
    /// Reads and checks a file; relative paths in it are taken from its directory.
    pub fn load(path: &Path) -> Result<Self, ConfError> {
        let form: Form = document::read(path)?;
        check_monitors(path, &form.monitors)?;
        Ok(ClientConf {
            path: path.to_owned(),
            fsid: form.fsid,
            monitors: form.monitors,
            identity: form.identity.resolved(directory(path)),
        })
    }

    /// The client's certificate, key and CA, which must be of the same cluster as the configuration.
    pub fn load_identity(&self) -> Result<Identity, ConfError> {
        let identity = self.identity.load()?;
        check_cluster(&self.path, self.fsid, &identity)?;
        Ok(identity)
    }

    /// Writes a file, with the paths of the identity as they are given.
    pub(crate) fn write(&self) -> Result<(), ConfError> {
        let form = Form {
            version: document::VERSION,
            fsid: self.fsid,
            monitors: self.monitors.clone(),
            identity: self.identity.clone(),
        };
        document::write(&self.path, "How a client reaches this cluster.", &form)
            .map_err(|source| ConfError::Write { path: self.path.clone(), source })
    }

    /// Writes other monitors into a file that exists.
    pub(crate) fn set_monitors(path: &Path, monitors: &[SocketAddr]) -> Result<(), ConfError> {
        let form: Form = document::read(path)?;
        let (fsid, identity) = (form.fsid, form.identity);
        ClientConf { path: path.to_owned(), fsid, monitors: monitors.to_vec(), identity }.write()
    }
}

/// The directory a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

pub(crate) fn check_monitors(path: &Path, monitors: &[SocketAddr]) -> Result<(), ConfError> {
    let bad = |why: String| Err(ConfError::Value { path: path.to_owned(), key: "monitors", why });
    match monitors {
        [] => bad("names none; name at least one, such as \"127.0.0.1:6789\"".to_owned()),
        all if all.len() > MONITORS_MAX => bad(format!("names {}, more than {MONITORS_MAX}", all.len())),
        all => match all.iter().find(|addr| addr.port() == 0) {
            Some(addr) => bad(format!("names {addr}, which has no port")),
            None => Ok(()),
        },
    }
}

pub(crate) fn check_cluster(path: &Path, conf: Fsid, identity: &Identity) -> Result<(), ConfError> {
    let certificate = identity.fsid();
    if certificate == conf {
        return Ok(());
    }
    Err(ConfError::OtherCluster { path: path.to_owned(), conf, certificate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1
fsid = "3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c10"
monitors = ["127.0.0.1:6789", "[::1]:6789"]

[identity]
ca = "ca/ca.pem"
cert = "/etc/cairn/cert.pem"
key = "key.pem"
"#;

    fn load(text: &str) -> Result<ClientConf, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cairn.toml");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", dir.path().display());
        ClientConf::load(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn paths_are_taken_from_the_directory_of_the_file() {
        let conf = load(GOOD).unwrap();
        let dir = conf.path.parent().unwrap();
        assert_eq!(conf.identity.ca, dir.join("ca/ca.pem"));
        assert_eq!(conf.identity.cert, Path::new("/etc/cairn/cert.pem"));
        assert_eq!(conf.monitors.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases = [
            (GOOD.replace("= [", "= "), "cairn.toml, line 3, column "),
            (GOOD.replace("[::1]:6789", "nowhere"), "cairn.toml, line 3, column 31: "),
            (GOOD.replace("fsid", "fsidd"), "cairn.toml, line 2, column 1: unknown field `fsidd`"),
            (GOOD.replace("3f2a6c1e-", "3f2a"), "cairn.toml, line 2, column 8: "),
            (GOOD.replace("key = ", "kee = "), "cairn.toml, line 8, column 1: unknown field `kee`"),
            (GOOD.replace("key = \"key.pem\"", ""), "missing field `key`"),
            (GOOD.replace("version = 1\n", ""), "missing field `version`"),
            (GOOD.replace("version = 1", "version = 2\nnew = true"), "is in version 2 of the format"),
            (GOOD.replace("version = 1", "version = 0"), "is in version 0 of the format"),
            (GOOD.replace("[\"127.0.0.1:6789\", \"[::1]:6789\"]", "[]"), "monitors names none"),
            (GOOD.replace("127.0.0.1:6789", "127.0.0.1:0"), "127.0.0.1:0, which has no port"),
            (String::from("\u{0}"), "cairn.toml, line 1, column 2: "),
        ];
        for (text, says) in cases {
            let error = load(&text).unwrap_err();
            assert!(error.contains(says) && error.lines().count() == 1, "{error:?} should say {says:?}");
        }
    }

    #[test]
    fn the_named_file_wins_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        let usual = [first.as_path(), second.as_path()];
        assert!(matches!(find_among(None, &usual), Err(ConfError::NotFound { looked }) if looked == usual));
        std::fs::write(&second, "").unwrap();
        assert_eq!(find_among(None, &usual).unwrap(), second);
        std::fs::write(&first, "").unwrap();
        assert_eq!(find_among(None, &usual).unwrap(), first);
        assert_eq!(find_among(Some(&second), &usual).unwrap(), second);
        let missing = dir.path().join("third");
        assert!(matches!(find_among(Some(&missing), &usual), Err(ConfError::Missing { .. })));
        // The command line before the environment.
        assert_eq!(find(Some(&first), Some(&missing)).unwrap(), first);
        assert!(matches!(find(None, Some(&missing)), Err(ConfError::Missing { .. })));
    }
}
