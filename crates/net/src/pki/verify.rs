//! Is the peer who it should be? Asked once per stream, inside the TLS handshake.

use super::names_of;
use cairn_types::{EntityKind, EntityName, Fsid};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};

/// Whom a connection is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Exactly this one.
    Entity(EntityName),
    /// Any of this kind: a client knows where monitors are before it knows their names.
    Kind(EntityKind),
    /// Anyone the cluster made a certificate for.
    Member,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Entity(name) => write!(f, "{name}"),
            Expect::Kind(kind) => write!(f, "a {kind}"),
            Expect::Member => f.write_str("a member of the cluster"),
        }
    }
}

/// Why a peer is not trusted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// It belongs to another cluster.
    #[error("its certificate is of cluster {theirs}, this is cluster {ours}")]
    OtherCluster {
        /// What its certificate says.
        theirs: Fsid,
        /// This side's.
        ours: Fsid,
    },
    /// It says it is of this cluster, but this cluster's CA did not make its certificate.
    #[error("its certificate was not made by the CA of cluster {ours}")]
    UnknownIssuer {
        /// This side's.
        ours: Fsid,
    },
    /// The certificate holds no longer.
    #[error("its certificate has expired: issue a new one, or set this machine's clock")]
    Expired,
    /// The certificate does not hold yet.
    #[error("its certificate does not hold yet: a clock is wrong on one of the two machines")]
    NotYetValid,
    /// It is someone else of the cluster.
    #[error("it is {found}, expected {expected}")]
    WrongName {
        /// Who was expected.
        expected: Expect,
        /// Who answered.
        found: EntityName,
    },
    /// A certificate that names no cairn entity.
    #[error("its certificate names no entity of a cairn cluster")]
    Nameless,
    /// Anything else that is wrong with the certificate.
    #[error("its certificate is not valid: {0}")]
    Invalid(webpki::Error),
}

/// Checks the peer of one stream and remembers the outcome: neither TLS nor QUIC hands a typed reason through.
pub(crate) struct PeerVerifier {
    roots: Arc<RootCertStore>,
    ours: Fsid,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
    outcome: Mutex<Option<Result<EntityName, AuthError>>>,
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerVerifier(for {} of {})", self.expect, self.ours)
    }
}

impl PeerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, ours: Fsid, expect: Expect) -> Arc<Self> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Arc::new(PeerVerifier { roots, ours, expect, algorithms, outcome: Mutex::new(None) })
    }

    /// Who the peer is, or why it was refused; `None` before it has shown a certificate.
    pub(crate) fn outcome(&self) -> Option<Result<EntityName, AuthError>> {
        self.outcome.lock().clone()
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<EntityName, AuthError> {
        let parsed = EndEntityCert::try_from(certificate).map_err(AuthError::Invalid)?;
        let names = names_of(certificate);
        parsed
            .verify_for_usage(self.algorithms.all, &self.roots.roots, intermediates, now, usage, None, None)
            .map_err(|error| match error {
                webpki::Error::CertExpired { .. } => AuthError::Expired,
                webpki::Error::CertNotValidYet { .. } => AuthError::NotYetValid,
                webpki::Error::UnknownIssuer
                | webpki::Error::InvalidSignatureForPublicKey
                | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => match names {
                    // The name is not proven, but good enough to tell a mistake from an attack.
                    Some((theirs, _)) if theirs != self.ours => {
                        AuthError::OtherCluster { theirs, ours: self.ours }
                    }
                    _ => AuthError::UnknownIssuer { ours: self.ours },
                },
                other => AuthError::Invalid(other),
            })?;
        let Some((theirs, Some(found))) = names else { return Err(AuthError::Nameless) };
        if theirs != self.ours {
            return Err(AuthError::OtherCluster { theirs, ours: self.ours });
        }
        let expected = match &self.expect {
            Expect::Entity(name) => *name == found,
            Expect::Kind(kind) => *kind == found.kind(),
            Expect::Member => true,
        };
        if !expected {
            return Err(AuthError::WrongName { expected: self.expect.clone(), found });
        }
        Ok(found)
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let outcome = self.check(certificate, intermediates, now, usage);
        // Chosen for the alert the other side gets: see `error::PeerRefusal`.
        let told = outcome.as_ref().map(|_| ()).map_err(|error| {
            rustls::Error::InvalidCertificate(match error {
                AuthError::OtherCluster { .. } | AuthError::UnknownIssuer { .. } => {
                    CertificateError::UnknownIssuer
                }
                AuthError::Expired => CertificateError::Expired,
                AuthError::NotYetValid => CertificateError::NotValidYet,
                AuthError::WrongName { .. } | AuthError::Nameless => {
                    CertificateError::ApplicationVerificationFailure
                }
                AuthError::Invalid(_) => CertificateError::BadSignature,
            })
        });
        *self.outcome.lock() = Some(outcome);
        told
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

/// TLS 1.2 is not compiled in; the traits ask for this all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
