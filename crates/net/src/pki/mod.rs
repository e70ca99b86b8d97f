//! Who is who: the cluster's own certificate authority, the certificates it makes, and what a peer's
//! certificate must say.
//!
//! A certificate names its bearer in one URI of its subject alternative names, `cairn://FSID/KIND.ID`.
//! The chain proves that the cluster made it; the name is then compared with what was expected.

mod accept;
mod ca;
mod identity;
pub(crate) mod tls;
mod verify;

pub use accept::{TlsAcceptError, accept};
pub use ca::{CERTIFICATE_VALIDITY, ClusterCa, Credentials, Fingerprint, Validity};
pub use identity::{Identity, IdentityError};
pub use verify::{AuthError, Expect};

use cairn_types::{EntityName, Fsid};
use rustls_pki_types::CertificateDer;

const SCHEME: &str = "cairn://";

fn entity_uri(fsid: Fsid, name: &EntityName) -> String {
    format!("{SCHEME}{fsid}/{name}")
}

fn cluster_uri(fsid: Fsid) -> String {
    format!("{SCHEME}{fsid}")
}

/// The cluster and the bearer that a certificate names, whoever made it. A CA names no bearer.
fn names_of(certificate: &CertificateDer<'_>) -> Option<(Fsid, Option<EntityName>)> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut uris = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(SCHEME));
    let uri = uris.next()?;
    // Two names would let a certificate be taken for either.
    if uris.next().is_some() {
        return None;
    }
    match uri.split_once('/') {
        Some((fsid, name)) => Some((fsid.parse().ok()?, Some(name.parse().ok()?))),
        None => Some((uri.parse().ok()?, None)),
    }
}
