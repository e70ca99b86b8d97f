//! The cluster's certificate authority: made once, at the creation of the cluster.

use super::identity::IdentityError;
use super::{cluster_uri, entity_uri, names_of};
use cairn_types::{EntityName, Fsid};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// How long certificates of daemons and clients hold by default: ten years. Who may take part is decided by
/// the map and the blocklist, which act at once; a certificate that lapses unnoticed stops a cluster.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(10 * 366 * 86_400);
/// The authority outlives what it makes.
const CA_VALIDITY: Duration = Duration::from_secs(30 * 366 * 86_400);
/// Certificates hold from a day before they are made, for machines whose clocks are behind.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// When a certificate holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From a day before `now` until [`CERTIFICATE_VALIDITY`] after it.
    pub fn from_now(now: SystemTime) -> Self {
        Validity { not_before: now - CLOCK_SLACK, not_after: now + CERTIFICATE_VALIDITY }
    }
}

/// SHA-256 of the CA's certificate (DER): what a joining node checks before it has anything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = crate::token::ParseJoinTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::token::hex_array(text).map(Fingerprint).ok_or(crate::token::ParseJoinTokenError::Fingerprint)
    }
}

/// What one daemon or client keeps on its disk, as PEM. `key_pem` is secret: write it with mode 0600.
#[derive(Clone)]
pub struct Credentials {
    /// The cluster's CA certificate.
    pub ca_pem: String,
    /// The bearer's certificate.
    pub cert_pem: String,
    /// The bearer's private key.
    pub key_pem: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority of one cluster, with its private key.
pub struct ClusterCa {
    fsid: Fsid,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa").field("fsid", &self.fsid).finish_non_exhaustive()
    }
}

/// The part of the CA's certificate that follows from the cluster alone; issued certificates repeat its name.
fn ca_params(fsid: Fsid) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("cairn cluster {fsid}"));
    params.subject_alt_names = vec![SanType::URI(cluster_uri(fsid).try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl ClusterCa {
    /// Makes the authority of a new cluster, with a fresh P-256 key.
    pub fn create(fsid: Fsid, now: SystemTime) -> Result<Self, IdentityError> {
        let mut params = ca_params(fsid)?;
        params.not_before = (now - CLOCK_SLACK).into();
        params.not_after = (now + CA_VALIDITY).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let certificate_pem = certificate.pem();
        let certificate = certificate.der().clone();
        Ok(ClusterCa { fsid, certificate_pem, certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads what [`ClusterCa::certificate_pem`] and [`ClusterCa::key_pem`] gave.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|source| IdentityError::Pem { what: "CA certificate", source })?;
        let Some((fsid, None)) = names_of(&certificate) else {
            return Err(IdentityError::NotOurs { what: "CA certificate" });
        };
        let key = KeyPair::from_pem(key_pem)?;
        let of_certificate = webpki::EndEntityCert::try_from(&certificate)?.subject_public_key_info();
        if of_certificate.as_ref() != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(IdentityError::KeyMismatch { name: format!("the CA of cluster {fsid}") });
        }
        let issuer = Issuer::new(ca_params(fsid)?, key);
        Ok(ClusterCa { fsid, certificate_pem: certificate_pem.to_owned(), certificate, issuer })
    }

    /// The cluster.
    pub fn fsid(&self) -> Fsid {
        self.fsid
    }

    /// The certificate, public.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key: whoever has it can be anyone in the cluster.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// What a join token carries.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Makes a key and a certificate for `name`.
    pub fn issue(&self, name: &EntityName, validity: Validity) -> Result<Credentials, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        params.subject_alt_names = vec![SanType::URI(entity_uri(self.fsid, name).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            ca_pem: self.certificate_pem.clone(),
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}
