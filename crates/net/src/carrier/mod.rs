//! The two carriers behind one stream type: all a lane knows of either.

pub(crate) mod quic;
pub(crate) mod tcp;

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Most buffers given to one vectored write; the system takes up to 1,024, TLS cuts records of 16 KiB.
const SLICES_MAX: usize = 64;

/// One lane's bytes in both directions, authenticated.
pub(crate) enum Stream {
    /// A TCP connection of its own.
    Tls(Box<tcp::TlsSocket>),
    /// A bidirectional stream of a QUIC connection.
    Quic(Box<quic::QuicStream>),
}

impl Stream {
    /// Reads what is there to the end of `buf`; 0 is the end of the stream.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tls(stream) => {
                match ready!(tokio_util::io::poll_read_buf(Pin::new(stream.as_mut()), cx, buf)) {
                    // A peer that died sends no close_notify: the caller knows from the goodbye whether it may end.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                    other => Poll::Ready(other),
                }
            }
            Stream::Quic(stream) => stream.poll_read(cx, buf),
        }
    }

    /// Writes from the front of `out`, which must not be empty, and takes off what was written.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<()>> {
        match self {
            Stream::Tls(stream) => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(out.iter()) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                let written = ready!(Pin::new(stream.as_mut()).poll_write_vectored(cx, &slices[..count]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                consume(out, written);
                Poll::Ready(Ok(()))
            }
            Stream::Quic(stream) => stream.poll_write(cx, out),
        }
    }

    /// Hands everything written so far to the system.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            // Its connection's own task sends.
            Stream::Quic(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending direction; for QUIC, done when the peer has everything.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Stream::Quic(stream) => stream.poll_shutdown(cx),
        }
    }

    /// Writes all of `bytes` and flushes: for handshakes.
    pub(crate) async fn write_all(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut out = VecDeque::from([bytes]);
        std::future::poll_fn(|cx| {
            while !out.is_empty() {
                ready!(self.poll_write(cx, &mut out))?;
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// Reads more to the end of `buf`: for handshakes.
    pub(crate) async fn read(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        buf.reserve(1024);
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Ends the sending direction, and waits for the peer to end its own, so that what was written last is
    /// not discarded by a reset. The caller bounds the time.
    pub(crate) async fn linger(&mut self) {
        let mut buf = BytesMut::new();
        if std::future::poll_fn(|cx| self.poll_shutdown(cx)).await.is_ok() {
            while self.read(&mut buf).await.is_ok_and(|len| len > 0) {
                buf.clear();
            }
        }
    }
}

/// Takes `len` bytes off the front of `out`.
fn consume(out: &mut VecDeque<Bytes>, mut len: usize) {
    while let Some(front) = out.front_mut() {
        if len < front.len() {
            front.advance(len);
            return;
        }
        len -= front.len();
        out.pop_front();
    }
}

/// Polls a future that keeps no state between polls.
fn poll_once<F: Future>(future: F, cx: &mut Context<'_>) -> Poll<F::Output> {
    pin!(future).poll(cx)
}
