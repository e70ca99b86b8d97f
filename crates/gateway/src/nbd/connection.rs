//! One connection: a single task that reads, runs the device's work and writes, each when it can.
//!
//! Nothing is handed to another task on the way of a request: the device's futures are polled where the socket is. A
//! client that is faster than the device, or does not read its replies, is no longer read from when
//! [`IN_FLIGHT_REQUESTS_MAX`] or [`IN_FLIGHT_BYTES_MAX`] is reached.

use super::negotiate::{self, Chosen, ExportInfo, Negotiation, Progress, TlsMode};
use super::outbox::{Outbox, SLICES_MAX};
use super::proto::*;
use super::server::Export;
use super::transmit::{self, Answer, Command, Failure, Request, Session, put_answer};
use crate::block::{BlockDevice, IoError};
use bytes::{Buf, Bytes, BytesMut};
use cairn_net::pki::{self, TlsAcceptError};
use cairn_net::{Expect, Identity};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// Time a client has until it attaches, handshake of TLS included.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes asked of the socket at once. Small writes that lie in one such piece share its memory.
const READ_LEN: usize = 128 << 10;
/// Time the last bytes of a connection have to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Negotiation(#[from] negotiate::Violation),
    #[error(transparent)]
    Transmission(#[from] transmit::Violation),
    #[error(transparent)]
    Tls(#[from] TlsAcceptError),
    #[error("the client did not attach within {} s", NEGOTIATION_TIMEOUT.as_secs())]
    NegotiationTimeout,
    #[error("the client went away: {0}")]
    Lost(#[from] io::Error),
}

/// How clients of a listener prove who they are.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) identity: Identity,
    pub(crate) expect: Expect,
}

/// Serves one client until it leaves, or until `stop` says so and its requests are answered.
pub(crate) async fn serve<D, S>(
    exports: &[Export<D>],
    stream: S,
    tls: Option<Tls>,
    stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError>
where
    D: BlockDevice,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let about: Vec<ExportInfo> = exports.iter().map(Export::about).collect();
    let mode = if tls.is_some() { TlsMode::Required } else { TlsMode::Off };
    let mut stopping = stop.clone();
    let attached = tokio::select! {
        attached = tokio::time::timeout(NEGOTIATION_TIMEOUT, attach(about.clone(), mode, stream, tls)) => {
            attached.map_err(|_| ConnectionError::NegotiationTimeout)??
        }
        // Nothing is in progress yet: the client sees the connection close.
        () = stopped(&mut stopping) => return Ok(()),
    };
    match attached {
        None => Ok(()),
        Some(Attached::Plain(stream, chosen, input)) => {
            transmission(&exports[chosen.export], &about[chosen.export], chosen, stream, input, stop).await
        }
        Some(Attached::Encrypted(stream, chosen, input)) => {
            transmission(&exports[chosen.export], &about[chosen.export], chosen, *stream, input, stop).await
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A server that is gone has stopped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A client past negotiation, with bytes it has sent already.
enum Attached<S> {
    Plain(S, Chosen, BytesMut),
    Encrypted(Box<tokio_rustls::server::TlsStream<S>>, Chosen, BytesMut),
}

async fn attach<S: AsyncRead + AsyncWrite + Unpin>(
    exports: Vec<ExportInfo>,
    mode: TlsMode,
    mut stream: S,
    tls: Option<Tls>,
) -> Result<Option<Attached<S>>, ConnectionError> {
    let mut negotiation = Negotiation::new(exports, mode);
    let mut input = BytesMut::new();
    stream.write_all(&Negotiation::greeting()).await?;
    match (haggle(&mut negotiation, &mut stream, &mut input).await?, tls) {
        (Progress::Transmit(chosen), _) => Ok(Some(Attached::Plain(stream, chosen, input))),
        (Progress::StartTls, Some(tls)) => {
            let (mut stream, name) = pki::accept(&tls.identity, tls.expect, stream).await?;
            tracing::debug!(%name, "a client proved who it is");
            negotiation.tls_established();
            match haggle(&mut negotiation, &mut stream, &mut input).await? {
                Progress::Transmit(chosen) => Ok(Some(Attached::Encrypted(Box::new(stream), chosen, input))),
                _ => {
                    let _ = stream.shutdown().await;
                    Ok(None)
                }
            }
        }
        _ => {
            let _ = stream.shutdown().await;
            Ok(None)
        }
    }
}

/// Reads and answers options until something else is to be done.
async fn haggle<S: AsyncRead + AsyncWrite + Unpin>(
    negotiation: &mut Negotiation,
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<Progress, ConnectionError> {
    let mut out = BytesMut::new();
    loop {
        let progress = negotiation.receive(input, &mut out);
        // What was answered before a violation is still worth sending.
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
        match progress? {
            Progress::More => {}
            progress => return Ok(progress),
        }
        input.reserve(OPTION_HEADER_LEN + STRING_MAX);
        if stream.read_buf(input).await? == 0 {
            return Ok(Progress::Aborted);
        }
    }
}

/// What is in progress, measured against the bounds.
#[derive(Default)]
struct InFlight {
    requests: usize,
    bytes: u64,
    /// Replies in the outbox: where each ends in the stream, and what it gives back when it is sent.
    replied: VecDeque<(u64, u64)>,
}

impl InFlight {
    fn has_room(&self, request: &Request) -> bool {
        self.requests < IN_FLIGHT_REQUESTS_MAX && self.bytes + request.cost_bytes() <= IN_FLIGHT_BYTES_MAX
    }

    fn begin(&mut self, request: &Request) {
        self.requests += 1;
        self.bytes += request.cost_bytes();
    }

    fn replied(&mut self, request: &Request, end: u64) {
        self.replied.push_back((end, request.cost_bytes()));
    }

    fn sent(&mut self, position: u64) {
        while self.replied.front().is_some_and(|(end, _)| *end <= position) {
            let (_, cost) = self.replied.pop_front().expect("there is a front");
            self.requests -= 1;
            self.bytes -= cost;
        }
    }
}

/// What the next bytes of the socket are.
enum Intake {
    Header,
    /// Data of a write.
    Payload(Request, Command),
    /// Data of a write that is refused.
    Discard(Request, Failure, usize),
    /// A request that waits for room.
    Blocked(Request),
    /// Nothing more is taken.
    Closed,
}

/// What to do next for a client.
enum Next {
    Run(Request, Command, Bytes),
    Refuse(Request, Failure),
    /// Bytes are missing, or room.
    Wait,
}

impl Intake {
    fn next(
        &mut self,
        session: &Session,
        input: &mut BytesMut,
        in_flight: &mut InFlight,
    ) -> Result<Next, transmit::Violation> {
        loop {
            match std::mem::replace(self, Intake::Header) {
                Intake::Header => {
                    let Some(header) = input.first_chunk() else { return Ok(Next::Wait) };
                    let request = Request::decode(header)?;
                    input.advance(REQUEST_LEN);
                    *self = Intake::Blocked(request);
                }
                Intake::Blocked(request) if !in_flight.has_room(&request) => {
                    *self = Intake::Blocked(request);
                    return Ok(Next::Wait);
                }
                Intake::Blocked(request) => match session.judge(&request) {
                    Ok(Command::Disconnect) => *self = Intake::Closed,
                    Ok(command) => {
                        in_flight.begin(&request);
                        *self = Intake::Payload(request, command);
                    }
                    Err(failure) => {
                        in_flight.begin(&request);
                        *self = Intake::Discard(request, failure, request.payload_len());
                    }
                },
                Intake::Payload(request, command) => {
                    let len = request.payload_len();
                    if input.len() < len {
                        *self = Intake::Payload(request, command);
                        return Ok(Next::Wait);
                    }
                    return Ok(Next::Run(request, command, input.split_to(len).freeze()));
                }
                Intake::Discard(request, failure, left) => {
                    let here = left.min(input.len());
                    input.advance(here);
                    if here < left {
                        *self = Intake::Discard(request, failure, left - here);
                        return Ok(Next::Wait);
                    }
                    return Ok(Next::Refuse(request, failure));
                }
                Intake::Closed => {
                    *self = Intake::Closed;
                    return Ok(Next::Wait);
                }
            }
        }
    }

    fn wants_bytes(&self) -> bool {
        matches!(self, Intake::Header | Intake::Payload(..) | Intake::Discard(..))
    }

    /// Room to make before reading.
    fn want_len(&self, input: &BytesMut) -> usize {
        match self {
            Intake::Payload(request, _) => request.payload_len().saturating_sub(input.len()).max(REQUEST_LEN),
            _ => REQUEST_LEN,
        }
    }
}

async fn transmission<D: BlockDevice, S: AsyncRead + AsyncWrite + Unpin>(
    export: &Export<D>,
    about: &ExportInfo,
    chosen: Chosen,
    stream: S,
    mut input: BytesMut,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let device = &*export.device;
    let session = Session {
        size_bytes: about.size_bytes,
        read_only: about.read_only,
        block_min_bytes: about.block_min_bytes,
        zeroes_fast: device.info().zeroes_fast,
        structured: chosen.structured,
        allocation: chosen.allocation,
    };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut running = FuturesUnordered::new();
    let mut outbox = Outbox::default();
    let mut in_flight = InFlight::default();
    let mut intake = Intake::Header;
    let mut stopping = false;
    // The first thing that went wrong. Work that has begun is finished all the same.
    let mut broken: Option<ConnectionError> = None;
    let mut unflushed = false;
    loop {
        loop {
            let next = match intake.next(&session, &mut input, &mut in_flight) {
                Ok(next) => next,
                Err(violation) => {
                    intake = Intake::Closed;
                    broken.get_or_insert(violation.into());
                    break;
                }
            };
            match next {
                Next::Wait => break,
                Next::Run(request, _, _) if stopping => {
                    put_answer(&session, &request, Answer::Failed(Failure::shutdown()), &mut outbox);
                    in_flight.replied(&request, outbox.end());
                }
                Next::Run(request, command, data) => {
                    running.push(async move { (request, execute(device, command, data).await) });
                }
                Next::Refuse(request, failure) => {
                    put_answer(&session, &request, Answer::Failed(failure), &mut outbox);
                    in_flight.replied(&request, outbox.end());
                }
            }
        }
        if stopping && intake.wants_bytes() {
            intake = Intake::Closed;
        }
        if matches!(broken, Some(ConnectionError::Lost(_))) {
            outbox.drop_all();
            in_flight.sent(outbox.sent_bytes());
            unflushed = false;
        }
        if matches!(intake, Intake::Closed) && running.is_empty() && outbox.is_empty() && !unflushed {
            break;
        }
        let reading = intake.wants_bytes();
        if reading {
            let want = intake.want_len(&input);
            if input.capacity() - input.len() < want {
                input.reserve(want.max(READ_LEN));
            }
        }
        tokio::select! {
            biased;
            Some((request, answer)) = running.next(), if !running.is_empty() => {
                put_answer(&session, &request, answer, &mut outbox);
                in_flight.replied(&request, outbox.end());
                // What else is ready shares the write.
                while let Some(Some((request, answer))) = running.next().now_or_never() {
                    put_answer(&session, &request, answer, &mut outbox);
                    in_flight.replied(&request, outbox.end());
                }
            }
            sent = send(&mut writer, &mut outbox), if !outbox.is_empty() || unflushed => match sent {
                // TLS keeps bytes back until it is flushed.
                Ok(len) => {
                    unflushed = len > 0;
                    outbox.advance(len);
                    in_flight.sent(outbox.sent_bytes());
                }
                Err(error) => {
                    intake = Intake::Closed;
                    broken = Some(error.into());
                }
            },
            read = reader.read_buf(&mut input), if reading => match read {
                // Replies may still be wanted: the client may have closed one direction only.
                Ok(0) => intake = Intake::Closed,
                Ok(_) => {}
                Err(error) => {
                    intake = Intake::Closed;
                    broken = Some(error.into());
                }
            },
            () = stopped(&mut stop), if !stopping => stopping = true,
        }
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, writer.shutdown()).await;
    broken.map_or(Ok(()), Err)
}

/// Gives the socket what it takes at once; flushes, and says 0, when there is nothing left.
async fn send<W: AsyncWrite + Unpin>(writer: &mut W, outbox: &mut Outbox) -> io::Result<usize> {
    if outbox.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = outbox.slices(&mut slices);
    match writer.write_vectored(&slices[..count]).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        sent => sent,
    }
}

async fn execute<D: BlockDevice>(device: &D, command: Command, data: Bytes) -> Answer {
    let done = |result: Result<(), IoError>| match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed(Failure::of(&error, true)),
    };
    match command {
        Command::Nothing | Command::Disconnect => Answer::Done,
        Command::Read { offset, len_bytes } => match device.read(offset, len_bytes).await {
            Ok(segments) => Answer::Data(segments),
            Err(error) => Answer::Failed(Failure::of(&error, false)),
        },
        Command::Write { offset, fua } => done(device.write(offset, data, fua).await),
        Command::Flush => done(device.flush().await),
        Command::Discard { offset, len_bytes, fua } => done(device.discard(offset, len_bytes, fua).await),
        Command::WriteZeroes { offset, len_bytes, how } => {
            done(device.write_zeroes(offset, len_bytes, how).await)
        }
        Command::Status { offset, len_bytes, one } => {
            let extents_max = if one { 1 } else { STATUS_EXTENTS_MAX };
            match device.status(offset, u64::from(len_bytes), extents_max).await {
                Ok(extents) => Answer::Extents(extents),
                Err(error) => Answer::Failed(Failure::of(&error, false)),
            }
        }
    }
}
