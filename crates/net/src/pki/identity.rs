//! What this process shows to others, read from its files and checked before anything listens.

use super::{Credentials, names_of};
use cairn_types::{EntityName, Fsid};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;

/// A certificate with its key, and the CA that its peers must come from.
#[derive(Clone)]
pub struct Identity {
    pub(crate) fsid: Fsid,
    pub(crate) name: EntityName,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
}

/// Why files do not make an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not the right kind.
    #[error("the {what} is not valid PEM: {source}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// What the parser says.
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate that names no cairn cluster or entity.
    #[error("the {what} was not made by cairn: it names no cluster and entity")]
    NotOurs {
        /// Which certificate.
        what: &'static str,
    },
    /// Certificate and CA are of different clusters.
    #[error("the certificate of {name} is of cluster {certificate}, the CA of cluster {ca}")]
    MixedClusters {
        /// The bearer.
        name: EntityName,
        /// By the certificate.
        certificate: Fsid,
        /// By the CA.
        ca: Fsid,
    },
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {name}")]
    KeyMismatch {
        /// The bearer.
        name: String,
    },
    /// A certificate that cannot be parsed.
    #[error("a certificate is malformed: {0}")]
    Certificate(#[from] webpki::Error),
    /// TLS refuses the key or the CA.
    #[error("the key or CA certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl Identity {
    /// Reads and checks PEM texts: CA certificate, own certificate, own private key.
    pub fn from_pem(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let pem = |what| move |source| IdentityError::Pem { what, source };
        let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(pem("CA certificate"))?;
        let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(pem("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(pem("private key"))?;
        let Some((ca_fsid, None)) = names_of(&ca) else {
            return Err(IdentityError::NotOurs { what: "CA certificate" });
        };
        let Some((fsid, Some(name))) = names_of(&certificate) else {
            return Err(IdentityError::NotOurs { what: "certificate" });
        };
        if fsid != ca_fsid {
            return Err(IdentityError::MixedClusters { name, certificate: fsid, ca: ca_fsid });
        }
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match().map_err(|_| IdentityError::KeyMismatch { name: name.to_string() })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca)?;
        Ok(Identity { fsid, name, certified: Arc::new(certified), roots: Arc::new(roots) })
    }

    /// The cluster.
    pub fn fsid(&self) -> Fsid {
        self.fsid
    }

    /// The bearer.
    pub fn name(&self) -> &EntityName {
        &self.name
    }
}

impl TryFrom<&Credentials> for Identity {
    type Error = IdentityError;

    fn try_from(files: &Credentials) -> Result<Self, Self::Error> {
        Identity::from_pem(&files.ca_pem, &files.cert_pem, &files.key_pem)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.name, self.fsid)
    }
}
