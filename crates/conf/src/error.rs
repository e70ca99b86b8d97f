//! What can be wrong with configuration, with making a cluster's directory, and with a pid file.

use cairn_net::IdentityError;
use cairn_types::{EntityName, Fsid};
use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it and its fields are.
pub enum ConfError {
    #[error(
        "no cluster is known here: neither {} exists; start one with `cairn up`, or name the configuration with --conf FILE or CAIRN_CONF",
        list(.looked)
    )]
    NotFound { looked: Vec<PathBuf> },
    #[error("{} does not exist; name the configuration of a cluster, such as .cairn/cairn.toml", .path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}, line {line}, column {column}: {message}", .path.display())]
    Parse { path: PathBuf, line: usize, column: usize, message: String },
    #[error("{} is in version {found} of the format, this cairn reads version {known}; use the cairn it was made for", .path.display())]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("{}: {key} {why}", .path.display())]
    Value { path: PathBuf, key: &'static str, why: String },
    #[error("{}: {source}", .path.display())]
    Identity { path: PathBuf, source: IdentityError },
    #[error(
        "{} is of cluster {conf}, but its certificate was made by cluster {certificate}; use the certificate of the same cluster",
        .path.display()
    )]
    OtherCluster { path: PathBuf, conf: Fsid, certificate: Fsid },
    #[error("{} is for {conf}, but its certificate was made for {certificate}", .path.display())]
    OtherName { path: PathBuf, conf: EntityName, certificate: EntityName },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor ")
}

/// Why a cluster's directory, or a daemon's in it, was not made. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CreateError {
    #[error("{} is not empty and holds no cluster; name another directory with --dir", .path.display())]
    NotEmpty { path: PathBuf },
    #[error("{} exists already", .path.display())]
    Exists { path: PathBuf },
    #[error(
        "{} is half made: its creation was interrupted and nothing in it was ever used; remove it with `rm -r {}` and try again",
        .path.display(), .path.display()
    )]
    HalfMade { path: PathBuf },
    #[error("{} is being made by another process; wait for that one", .path.display())]
    BeingMade { path: PathBuf },
    #[error("{} cannot be the directory of a cluster; name one with --dir", .path.display())]
    NoName { path: PathBuf },
    #[error("cannot {what} {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("there are no {wanted} free ports on 127.0.0.1 from {from} to {to}")]
    NoPorts { wanted: usize, from: u16, to: u16 },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Conf(#[from] ConfError),
}

impl CreateError {
    /// For `map_err`: what was tried on which path.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| CreateError::Io { what, path, source }
    }
}

/// Why a pid file was not taken, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PidFileError {
    #[error("{name} is running already, as process {pid}")]
    Running { name: String, pid: i32 },
    #[error("{} cannot be used: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}
