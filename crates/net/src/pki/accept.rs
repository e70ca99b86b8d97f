//! TLS with the cluster's certificates for a protocol that is not cairn's own, such as NBD.

use super::tls::server_of_any_protocol;
use super::{AuthError, Expect, Identity};
use cairn_types::EntityName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Why a stream did not become a TLS one.
#[derive(Debug, thiserror::Error)]
pub enum TlsAcceptError {
    /// The client is not one that is let in.
    #[error("the client is refused: {0}")]
    Auth(#[from] AuthError),
    /// The handshake failed: no TLS 1.3, no certificate, a lost connection.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
}

/// Takes the server's part of a TLS 1.3 handshake on `stream`. The client must show a certificate of the cluster that names
/// one of `expect`; its name comes with the stream.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    identity: &Identity,
    expect: Expect,
    stream: S,
) -> Result<(TlsStream<S>, EntityName), TlsAcceptError> {
    let (config, verifier) = server_of_any_protocol(identity, expect);
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    match (accepted, verifier.outcome()) {
        (Ok(stream), Some(Ok(name))) => Ok((stream, name)),
        (_, Some(Err(error))) => Err(error.into()),
        (Err(error), _) => Err(error.into()),
        (Ok(_), None) => Err(AuthError::Nameless.into()),
    }
}
