//! The certificate, the key and the CA that a configuration names.

use crate::document::read_text;
use crate::{ConfError, document};
use cairn_net::{Credentials, Identity};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Name of the certificate's file in the directory of its bearer.
pub(crate) const CERT: &str = "cert.pem";
/// Name of the private key's file there.
pub(crate) const KEY: &str = "key.pem";

/// Paths of three PEM files. In a configuration they are relative to its directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The cluster's CA certificate.
    pub ca: PathBuf,
    /// The bearer's certificate.
    pub cert: PathBuf,
    /// The bearer's private key.
    pub key: PathBuf,
}

impl IdentityFiles {
    pub(crate) fn resolved(&self, dir: &Path) -> Self {
        IdentityFiles { ca: dir.join(&self.ca), cert: dir.join(&self.cert), key: dir.join(&self.key) }
    }

    /// Reads and checks them.
    pub fn load(&self) -> Result<Identity, ConfError> {
        let texts = (read_text(&self.ca)?, read_text(&self.cert)?, read_text(&self.key)?);
        Identity::from_pem(&texts.0, &texts.1, &texts.2)
            .map_err(|source| ConfError::Identity { path: self.cert.clone(), source })
    }
}

/// Writes a bearer's certificate and key into its directory.
pub(crate) fn write(dir: &Path, credentials: &Credentials) -> io::Result<()> {
    document::write_new(&dir.join(CERT), credentials.cert_pem.as_bytes(), document::PUBLIC)?;
    document::write_new(&dir.join(KEY), credentials.key_pem.as_bytes(), document::SECRET)
}
