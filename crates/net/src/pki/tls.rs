//! TLS settings of one stream, the same for both carriers.

use super::Identity;
use super::verify::{Expect, PeerVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use std::sync::{Arc, LazyLock};

/// Names the protocol inside TLS, frozen like the handshake behind it.
const ALPN: &[u8] = b"cairn/1";

/// AES-128-GCM first: on processors with AES instructions it costs the least, and both sides are ours. The
/// others stay for machines without them.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
});

#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Settings to connect with, and who will say whether the peer is `expect`.
///
/// Nothing is resumed: a resumed session would skip the check of the certificate.
pub(crate) fn client(identity: &Identity, expect: Expect) -> (ClientConfig, Arc<PeerVerifier>) {
    let verifier = PeerVerifier::new(identity.roots.clone(), identity.fsid, expect);
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous() // replaces name checks by DNS with those by entity, see `PeerVerifier`
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(Arc::new(Own(identity.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    (config, verifier)
}

/// Settings to accept one stream with, and who will say who connected.
pub(crate) fn server(identity: &Identity) -> (ServerConfig, Arc<PeerVerifier>) {
    let (mut config, verifier) = server_of_any_protocol(identity, Expect::Member);
    config.alpn_protocols = vec![ALPN.to_vec()];
    (config, verifier)
}

/// The same for a protocol of others, which names none inside TLS.
pub(super) fn server_of_any_protocol(
    identity: &Identity,
    expect: Expect,
) -> (ServerConfig, Arc<PeerVerifier>) {
    let verifier = PeerVerifier::new(identity.roots.clone(), identity.fsid, expect);
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(Own(identity.certified.clone())));
    config.send_tls13_tickets = 0;
    (config, verifier)
}
