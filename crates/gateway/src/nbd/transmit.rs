//! The transmission phase, without a socket: requests read and judged, replies put into bytes.

use super::outbox::Outbox;
use super::proto::*;
use crate::block::{Extent, IoError, Segment, Zeroing};
use bytes::{Buf, BufMut, Bytes};

/// A request as it came; `WRITE` is followed by `len_bytes` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Flags of the request.
    pub flags: u16,
    /// What is asked.
    pub command: u16,
    /// The client's name for the request.
    pub cookie: u64,
    /// Where.
    pub offset: u64,
    /// How much.
    pub len_bytes: u32,
}

/// Why a client is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// Not the start of a request: where the next one starts is not known.
    #[error("a request starts with {0:#010x}, which is not the magic number of NBD")]
    RequestMagic(u32),
    /// More data than the client was told a request may have.
    #[error("a write of {0} bytes, more than the {PAYLOAD_MAX} that were agreed")]
    WriteTooLong(u32),
}

impl Request {
    /// Reads the header of a request.
    pub fn decode(header: &[u8; REQUEST_LEN]) -> Result<Self, Violation> {
        let mut bytes = &header[..];
        let magic = bytes.get_u32();
        if magic != REQUEST_MAGIC {
            return Err(Violation::RequestMagic(magic));
        }
        let request = Request {
            flags: bytes.get_u16(),
            command: bytes.get_u16(),
            cookie: bytes.get_u64(),
            offset: bytes.get_u64(),
            len_bytes: bytes.get_u32(),
        };
        if request.payload_len() > PAYLOAD_MAX as usize {
            return Err(Violation::WriteTooLong(request.len_bytes));
        }
        Ok(request)
    }

    /// Bytes of data that follow the header.
    pub fn payload_len(&self) -> usize {
        if self.command == command::WRITE { self.len_bytes as usize } else { 0 }
    }

    /// Bytes that the request keeps in memory until its reply is written.
    pub fn cost_bytes(&self) -> u64 {
        match self.command {
            command::WRITE => u64::from(self.len_bytes),
            // Longer reads are refused.
            command::READ if self.len_bytes <= PAYLOAD_MAX => u64::from(self.len_bytes),
            command::BLOCK_STATUS => (STATUS_EXTENTS_MAX * 8) as u64,
            _ => 0,
        }
    }
}

/// What a device is to do for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Nothing: an empty range, or a hint.
    Nothing,
    /// Read.
    Read {
        /// Where.
        offset: u64,
        /// How much, at least 1.
        len_bytes: u32,
    },
    /// Write the data that follows.
    Write {
        /// Where.
        offset: u64,
        /// Durable when answered.
        fua: bool,
    },
    /// Make durable all that was answered.
    Flush,
    /// Give space back.
    Discard {
        /// Where.
        offset: u64,
        /// How much, at least 1.
        len_bytes: u64,
        /// Durable when answered.
        fua: bool,
    },
    /// Make it zeros.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How much, at least 1.
        len_bytes: u64,
        /// Whether it may become a hole, and whether it must be durable.
        how: Zeroing,
    },
    /// Say what is allocated.
    Status {
        /// Where.
        offset: u64,
        /// How much, at least 1.
        len_bytes: u32,
        /// One extent is enough.
        one: bool,
    },
    /// Finish what is in progress and close.
    Disconnect,
}

/// An error for the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// As the protocol numbers it.
    pub errno: Errno,
    /// For people.
    pub message: String,
}

impl Failure {
    fn new(errno: Errno, message: &str) -> Self {
        Failure { errno, message: message.to_owned() }
    }

    /// The server is about to close.
    pub fn shutdown() -> Self {
        Failure::new(Errno::Shutdown, "the server is being shut down")
    }

    /// What to tell of an error of the device; `writes` for requests that change something.
    pub fn of(error: &IoError, writes: bool) -> Self {
        let errno = match error {
            IoError::ReadOnly => Errno::Perm,
            IoError::NoSpace => Errno::NoSpc,
            IoError::OutOfRange { .. } if writes => Errno::NoSpc,
            IoError::OutOfRange { .. } => Errno::Inval,
            IoError::Closing => Errno::Shutdown,
            IoError::Failed(_) => Errno::Io,
        };
        Failure { errno, message: error.to_string() }
    }
}

/// What was agreed with one client: judges its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Size that the client knows.
    pub size_bytes: u64,
    /// Whether changes are refused.
    pub read_only: bool,
    /// Unit of offsets and lengths.
    pub block_min_bytes: u32,
    /// Whether zeroing is faster than writing.
    pub zeroes_fast: bool,
    /// Structured replies.
    pub structured: bool,
    /// Block status was agreed.
    pub allocation: bool,
}

impl Session {
    /// What to do for a request, or the error it gets.
    pub fn judge(&self, request: &Request) -> Result<Command, Failure> {
        let Request { flags, command, offset, len_bytes, .. } = *request;
        let known = match command {
            command::READ if self.structured => command_flag::DF,
            command::WRITE_ZEROES => command_flag::NO_HOLE | command_flag::FAST_ZERO,
            command::BLOCK_STATUS => command_flag::REQ_ONE,
            _ => 0,
        };
        // Clients set FUA where it means nothing; the protocol has it accepted on every command.
        if flags & !(known | command_flag::FUA) != 0 {
            return Err(Failure::new(Errno::Inval, "the request has a flag that does not belong to it"));
        }
        let fua = flags & command_flag::FUA != 0;
        let long = u64::from(len_bytes);
        match command {
            command::DISC => Ok(Command::Disconnect),
            command::FLUSH if offset != 0 || len_bytes != 0 => {
                Err(Failure::new(Errno::Inval, "a flush has no range"))
            }
            command::FLUSH => Ok(Command::Flush),
            command::READ => {
                self.in_range(request, Errno::Inval)?;
                if len_bytes > PAYLOAD_MAX {
                    let errno = if self.structured { Errno::Overflow } else { Errno::Inval };
                    return Err(Failure::new(errno, "the read is longer than was agreed"));
                }
                if len_bytes == 0 {
                    return Ok(Command::Nothing);
                }
                Ok(Command::Read { offset, len_bytes })
            }
            command::WRITE => {
                self.change(request, Errno::NoSpc)?;
                Ok(if len_bytes == 0 { Command::Nothing } else { Command::Write { offset, fua } })
            }
            command::TRIM => {
                self.change(request, Errno::Inval)?;
                Ok(if len_bytes == 0 {
                    Command::Nothing
                } else {
                    Command::Discard { offset, len_bytes: long, fua }
                })
            }
            command::WRITE_ZEROES => {
                self.change(request, Errno::NoSpc)?;
                let may_unmap = flags & command_flag::NO_HOLE == 0;
                if flags & command_flag::FAST_ZERO != 0 && !(self.zeroes_fast && may_unmap) {
                    return Err(Failure::new(Errno::NotSup, "zeroing is not faster than writing here"));
                }
                Ok(if len_bytes == 0 {
                    Command::Nothing
                } else {
                    Command::WriteZeroes { offset, len_bytes: long, how: Zeroing { may_unmap, fua } }
                })
            }
            command::CACHE => {
                self.in_range(request, Errno::Inval)?;
                Ok(Command::Nothing)
            }
            command::BLOCK_STATUS => {
                if !self.allocation {
                    return Err(Failure::new(Errno::Inval, "no metadata context was selected"));
                }
                self.in_range(request, Errno::Inval)?;
                if len_bytes == 0 {
                    return Err(Failure::new(Errno::Inval, "the range is empty"));
                }
                Ok(Command::Status { offset, len_bytes, one: flags & command_flag::REQ_ONE != 0 })
            }
            _ => Err(Failure::new(Errno::Inval, "this server does not know the command")),
        }
    }

    fn change(&self, request: &Request, beyond: Errno) -> Result<(), Failure> {
        if self.read_only {
            return Err(Failure::new(Errno::Perm, "the export is read-only"));
        }
        self.in_range(request, beyond)
    }

    fn in_range(&self, request: &Request, beyond: Errno) -> Result<(), Failure> {
        let unit = u64::from(self.block_min_bytes);
        if !request.offset.is_multiple_of(unit) || !u64::from(request.len_bytes).is_multiple_of(unit) {
            return Err(Failure::new(Errno::Inval, "the range is not aligned to the minimum block size"));
        }
        match request.offset.checked_add(u64::from(request.len_bytes)) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(Failure::new(beyond, "the range ends beyond the export")),
        }
    }
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done.
    Done,
    /// What was read.
    Data(Vec<Segment>),
    /// What is known of the range.
    Extents(Vec<Extent>),
    /// It failed.
    Failed(Failure),
}

/// Puts the reply to `request` into `out`.
pub fn put_answer(session: &Session, request: &Request, answer: Answer, out: &mut Outbox) {
    let answer = checked(request, answer);
    if !session.structured {
        return put_simple(request.cookie, answer, out);
    }
    match answer {
        Answer::Done if request.command == command::READ => {
            put_chunk(out, request.cookie, CHUNK_DONE, chunk::NONE, 0);
        }
        Answer::Done => put_simple(request.cookie, Answer::Done, out),
        Answer::Data(segments) => put_data(request, segments, out),
        Answer::Extents(extents) => put_extents(request, &extents, out),
        Answer::Failed(Failure { errno, message }) => {
            let message = &message.as_bytes()[..message.floor_char_boundary(STRING_MAX)];
            put_chunk(out, request.cookie, CHUNK_DONE, chunk::ERROR, 6 + message.len());
            let head = out.head();
            head.put_u32(errno as u32);
            head.put_u16(message.len() as u16);
            head.put_slice(message);
        }
    }
}

/// A device that answers something else than it was asked is broken; its client must not be misled.
fn checked(request: &Request, answer: Answer) -> Answer {
    let sound = match &answer {
        Answer::Data(segments) => {
            segments.iter().all(|segment| segment.len_bytes() > 0)
                && segments.iter().map(Segment::len_bytes).sum::<u64>() == u64::from(request.len_bytes)
        }
        Answer::Extents(extents) => !extents.is_empty() && extents.iter().all(|extent| extent.len_bytes > 0),
        Answer::Done | Answer::Failed(_) => true,
    };
    if sound {
        return answer;
    }
    tracing::error!(?request, "the device's answer does not fit the request");
    Answer::Failed(Failure::new(Errno::Io, "the device's answer does not fit the request"))
}

fn put_simple(cookie: u64, answer: Answer, out: &mut Outbox) {
    let error = match &answer {
        Answer::Failed(failure) => failure.errno as u32,
        Answer::Done | Answer::Data(_) => 0,
        // Block status is not agreed without structured replies.
        Answer::Extents(_) => Errno::Inval as u32,
    };
    let head = out.head();
    head.put_u32(SIMPLE_REPLY_MAGIC);
    head.put_u32(error);
    head.put_u64(cookie);
    if let Answer::Data(segments) = answer {
        for segment in segments {
            put_content(segment, out);
        }
    }
}

fn put_chunk(out: &mut Outbox, cookie: u64, flags: u16, kind: u16, len: usize) {
    let head = out.head();
    head.reserve(CHUNK_HEADER_LEN + 12);
    head.put_u32(STRUCTURED_REPLY_MAGIC);
    head.put_u16(flags);
    head.put_u16(kind);
    head.put_u64(cookie);
    head.put_u32(len as u32);
}

/// Zeros to send; the same memory over and over.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

fn put_content(segment: Segment, out: &mut Outbox) {
    match segment {
        Segment::Data(data) => out.push(data),
        Segment::Zero(len) => {
            let mut left = len as usize;
            while left > 0 {
                let here = left.min(ZEROS.len());
                out.push(Bytes::from_static(&ZEROS[..here]));
                left -= here;
            }
        }
    }
}

/// Content as chunks: neighbours that are data share one, and no byte is copied.
fn put_data(request: &Request, segments: Vec<Segment>, out: &mut Outbox) {
    let whole = request.flags & command_flag::DF != 0 && segments.len() > 1;
    let is_hole =
        |segment: &Segment| !whole && matches!(segment, Segment::Zero(len) if *len >= HOLE_CHUNK_MIN);
    let mut offset = request.offset;
    let mut rest = segments.into_iter().peekable();
    let mut run = Vec::new();
    while let Some(first) = rest.next() {
        if is_hole(&first) {
            let flags = if rest.peek().is_none() { CHUNK_DONE } else { 0 };
            let Segment::Zero(len) = first else { unreachable!("a hole is zeros") };
            put_chunk(out, request.cookie, flags, chunk::OFFSET_HOLE, 12);
            let head = out.head();
            head.put_u64(offset);
            head.put_u32(len);
            offset += u64::from(len);
            continue;
        }
        let mut len = first.len_bytes();
        run.push(first);
        while let Some(next) = rest.next_if(|segment| !is_hole(segment)) {
            len += next.len_bytes();
            run.push(next);
        }
        let flags = if rest.peek().is_none() { CHUNK_DONE } else { 0 };
        put_chunk(out, request.cookie, flags, chunk::OFFSET_DATA, 8 + len as usize);
        out.head().put_u64(offset);
        for segment in run.drain(..) {
            put_content(segment, out);
        }
        offset += len;
    }
}

/// Descriptors of the range, neighbours of one kind as one. None reaches beyond the request: what is not asked for may change
/// in kind before it is.
fn put_extents(request: &Request, extents: &[Extent], out: &mut Outbox) {
    let one = request.flags & command_flag::REQ_ONE != 0;
    let mut left = u64::from(request.len_bytes);
    let mut found: Vec<(u32, u32)> = Vec::new();
    for extent in extents.iter().take(STATUS_EXTENTS_MAX) {
        let here = extent.len_bytes.min(left) as u32;
        if here == 0 {
            break;
        }
        left -= u64::from(here);
        let status =
            if extent.hole { allocation::HOLE } else { 0 } | if extent.zero { allocation::ZERO } else { 0 };
        match found.last_mut() {
            Some((len, last)) if *last == status => *len += here,
            Some(_) if one => break,
            _ => found.push((here, status)),
        }
    }
    put_chunk(out, request.cookie, CHUNK_DONE, chunk::BLOCK_STATUS, 4 + 8 * found.len());
    let head = out.head();
    head.put_u32(allocation::ID);
    for (len, status) in found {
        head.put_u32(len);
        head.put_u32(status);
    }
}

#[cfg(test)]
#[path = "transmit_tests.rs"]
mod tests;
