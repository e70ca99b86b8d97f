//! Option haggling, without a socket: bytes in, bytes out, and what came of it.

use super::proto::*;
use bytes::{Buf, BufMut, BytesMut};

/// An export as clients are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportInfo {
    /// Its name; at most [`STRING_MAX`] bytes.
    pub name: String,
    /// For people; at most [`STRING_MAX`] bytes.
    pub description: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Smallest unit of offsets and lengths.
    pub block_min_bytes: u32,
    /// Preferred unit.
    pub block_preferred_bytes: u32,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    /// It is not and will not be: a unix socket.
    Off,
    /// Nothing is said before it is (`FORCEDTLS`).
    Required,
    /// It is.
    Established,
}

/// What a client chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// Place of the export in the list that was given.
    pub export: usize,
    /// Replies to reads are structured.
    pub structured: bool,
    /// The client asked for the context `base:allocation` of this export.
    pub allocation: bool,
}

/// Where negotiation stands after some input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More input is needed.
    More,
    /// Send what there is to send, make the connection a TLS one, then call [`Negotiation::tls_established`].
    StartTls,
    /// Requests follow.
    Transmit(Chosen),
    /// The client took its leave: send what there is to send and close.
    Aborted,
}

/// Why a client is cut off: it broke the protocol, or nothing else can be said to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A flag that was not offered.
    #[error("the client set unknown flags {0:#x}")]
    ClientFlags(u32),
    /// Not the start of an option.
    #[error("an option starts with {0:#018x}, which is not the magic number of NBD")]
    OptionMagic(u64),
    /// Absurdly long.
    #[error("an option has {0} bytes")]
    OptionTooLong(u32),
    /// Would go on for ever.
    #[error("the client sent more than {OPTIONS_MAX} options")]
    TooManyOptions,
    /// `EXPORT_NAME` has no reply for errors.
    #[error("the client asked for an export that does not exist by an option that has no error reply")]
    UnknownExport,
    /// Likewise.
    #[error("the client wants to attach without TLS")]
    TlsRequired,
    /// A client that does not speak fixed newstyle sent more than a name.
    #[error("the client sent option {0} without fixed newstyle negotiation")]
    NotFixedNewstyle(u32),
    /// Bytes that would be taken for part of the encrypted session.
    #[error("the client sent data between STARTTLS and its reply")]
    DataBeforeTls,
}

enum State {
    ClientFlags,
    Option,
    /// Data of an option that is too long to look at.
    Skip {
        left: usize,
    },
    Ended,
}

/// The negotiation of one connection.
pub struct Negotiation {
    exports: Vec<ExportInfo>,
    tls: TlsMode,
    state: State,
    fixed: bool,
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` is selected.
    allocation_of: Option<usize>,
    options: u32,
}

/// Why an option gets an error reply.
struct Refusal(u32, &'static str);

const INVALID: Refusal = Refusal(reply::ERR_INVALID, "the option's data is malformed");
const UNKNOWN: Refusal = Refusal(reply::ERR_UNKNOWN, "no such export");

impl Negotiation {
    /// Begins; the first export is the default one, chosen by an empty name.
    pub fn new(exports: Vec<ExportInfo>, tls: TlsMode) -> Self {
        Negotiation {
            exports,
            tls,
            state: State::ClientFlags,
            fixed: false,
            no_zeroes: false,
            structured: false,
            allocation_of: None,
            options: 0,
        }
    }

    /// What the server says first.
    pub fn greeting() -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        let mut out = &mut bytes[..];
        out.put_u64(INIT_MAGIC);
        out.put_u64(OPTION_MAGIC);
        out.put_u16(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        bytes
    }

    /// The connection is encrypted now. What was negotiated before is forgotten, as anyone may have said it.
    pub fn tls_established(&mut self) {
        self.tls = TlsMode::Established;
        self.structured = false;
        self.allocation_of = None;
    }

    /// The flags of an export for this client.
    pub fn transmission_flags(export: &ExportInfo, structured: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::SEND_CACHE
            // There is no cache per connection: see `BlockDevice`.
            | flag::CAN_MULTI_CONN;
        if export.read_only {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
        }
        if structured {
            flags |= flag::SEND_DF;
        }
        flags
    }

    /// Consumes whole messages of `input` and appends replies to `out`, until it needs more or is at an end. Bytes
    /// left in `input` then belong to what follows.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Progress, Violation> {
        loop {
            match self.state {
                State::ClientFlags => {
                    if input.len() < 4 {
                        return Ok(Progress::More);
                    }
                    self.client_flags(input.get_u32())?;
                }
                State::Skip { left } => {
                    let here = left.min(input.len());
                    input.advance(here);
                    if here < left {
                        self.state = State::Skip { left: left - here };
                        return Ok(Progress::More);
                    }
                    self.state = State::Option;
                }
                State::Option => {
                    let Some((option, data)) = self.next_option(input, out)? else {
                        if matches!(self.state, State::Skip { .. }) {
                            continue;
                        }
                        return Ok(Progress::More);
                    };
                    let progress = self.option(option, &data, out)?;
                    match progress {
                        Progress::More => {}
                        Progress::StartTls if !input.is_empty() => return Err(Violation::DataBeforeTls),
                        Progress::StartTls => return Ok(progress),
                        Progress::Transmit(_) | Progress::Aborted => {
                            self.state = State::Ended;
                            return Ok(progress);
                        }
                    }
                }
                State::Ended => return Ok(Progress::Aborted),
            }
        }
    }

    fn client_flags(&mut self, flags: u32) -> Result<(), Violation> {
        let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        if flags & !known != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        self.fixed = flags & u32::from(handshake::FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        self.state = State::Option;
        Ok(())
    }

    /// Takes one option with its data, if all of it is there and it is not too long.
    fn next_option(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<(u32, BytesMut)>, Violation> {
        let Some(mut header) = input.get(..OPTION_HEADER_LEN) else { return Ok(None) };
        let magic = header.get_u64();
        let option = header.get_u32();
        let len = header.get_u32();
        if magic != OPTION_MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        if !self.fixed && option != option::EXPORT_NAME {
            return Err(Violation::NotFixedNewstyle(option));
        }
        let len_bytes = len as usize;
        if len_bytes > OPTION_SKIP_MAX || (option == option::EXPORT_NAME && len_bytes > STRING_MAX) {
            return Err(Violation::OptionTooLong(len));
        }
        if len_bytes > OPTION_LEN_MAX {
            self.count_option()?;
            input.advance(OPTION_HEADER_LEN);
            self.state = State::Skip { left: len_bytes };
            let refusal = match self.tls {
                TlsMode::Required if option != option::ABORT => self.tls_first(),
                _ => Refusal(reply::ERR_TOO_BIG, "the option's data is too long"),
            };
            put_refusal(out, option, refusal);
            return Ok(None);
        }
        if input.len() < OPTION_HEADER_LEN + len_bytes {
            return Ok(None);
        }
        self.count_option()?;
        input.advance(OPTION_HEADER_LEN);
        Ok(Some((option, input.split_to(len_bytes))))
    }

    fn count_option(&mut self) -> Result<(), Violation> {
        self.options += 1;
        if self.options > OPTIONS_MAX { Err(Violation::TooManyOptions) } else { Ok(()) }
    }

    fn tls_first(&self) -> Refusal {
        Refusal(reply::ERR_TLS_REQD, "this server answers over TLS only, with a certificate of its cluster")
    }

    fn option(&mut self, option: u32, data: &[u8], out: &mut BytesMut) -> Result<Progress, Violation> {
        if self.tls == TlsMode::Required {
            match option {
                option::STARTTLS | option::ABORT => {}
                option::EXPORT_NAME => return Err(Violation::TlsRequired),
                _ => {
                    put_refusal(out, option, self.tls_first());
                    return Ok(Progress::More);
                }
            }
        }
        let result = match option {
            option::EXPORT_NAME => return self.export_name(data, out),
            option::ABORT => {
                put_reply(out, option, reply::ACK, &[]);
                return Ok(Progress::Aborted);
            }
            option::LIST => self.list(data, out),
            option::STARTTLS => self.start_tls(data),
            option::INFO | option::GO => self.info(option, data, out),
            option::STRUCTURED_REPLY => self.structured_reply(data),
            option::LIST_META_CONTEXT => self.list_meta_context(data, out),
            option::SET_META_CONTEXT => self.set_meta_context(data, out),
            _ => Err(Refusal(reply::ERR_UNSUP, "this server does not know the option")),
        };
        match result {
            Ok(progress) => {
                put_reply(out, option, reply::ACK, &[]);
                Ok(progress)
            }
            Err(refusal) => {
                put_refusal(out, option, refusal);
                Ok(Progress::More)
            }
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        if name.is_empty() && !self.exports.is_empty() {
            return Some(0);
        }
        self.exports.iter().position(|export| export.name.as_bytes() == name)
    }

    fn chosen(&self, export: usize) -> Progress {
        let allocation = self.structured && self.allocation_of == Some(export);
        Progress::Transmit(Chosen { export, structured: self.structured, allocation })
    }

    fn export_name(&mut self, name: &[u8], out: &mut BytesMut) -> Result<Progress, Violation> {
        let export = self.find(name).ok_or(Violation::UnknownExport)?;
        let about = &self.exports[export];
        out.put_u64(about.size_bytes);
        out.put_u16(Self::transmission_flags(about, self.structured));
        if !self.no_zeroes {
            out.put_bytes(0, 124);
        }
        Ok(self.chosen(export))
    }

    fn list(&self, data: &[u8], out: &mut BytesMut) -> Result<Progress, Refusal> {
        if !data.is_empty() {
            return Err(INVALID);
        }
        for export in &self.exports {
            let name = export.name.as_bytes();
            put_reply(
                out,
                option::LIST,
                reply::SERVER,
                &[&(name.len() as u32).to_be_bytes(), name, export.description.as_bytes()],
            );
        }
        Ok(Progress::More)
    }

    fn start_tls(&self, data: &[u8]) -> Result<Progress, Refusal> {
        match self.tls {
            TlsMode::Off => Err(Refusal(reply::ERR_POLICY, "this socket is served without TLS")),
            TlsMode::Established => Err(Refusal(reply::ERR_INVALID, "TLS is established already")),
            TlsMode::Required if !data.is_empty() => Err(INVALID),
            TlsMode::Required => Ok(Progress::StartTls),
        }
    }

    fn info(&self, option: u32, data: &[u8], out: &mut BytesMut) -> Result<Progress, Refusal> {
        let mut data = Reader(data);
        let name = data.string()?;
        let count = data.u16()?;
        let wanted: Vec<u16> = (0..count).map(|_| data.u16()).collect::<Result<_, _>>()?;
        data.end()?;
        let export = self.find(name).ok_or(UNKNOWN)?;
        let about = &self.exports[export];
        let flags = Self::transmission_flags(about, self.structured);
        put_reply(
            out,
            option,
            reply::INFO,
            &[&info::EXPORT.to_be_bytes(), &about.size_bytes.to_be_bytes(), &flags.to_be_bytes()],
        );
        // Once each, however often they were asked for.
        if wanted.contains(&info::NAME) {
            put_reply(out, option, reply::INFO, &[&info::NAME.to_be_bytes(), about.name.as_bytes()]);
        }
        if wanted.contains(&info::DESCRIPTION) && !about.description.is_empty() {
            let text = about.description.as_bytes();
            put_reply(out, option, reply::INFO, &[&info::DESCRIPTION.to_be_bytes(), text]);
        }
        if wanted.contains(&info::BLOCK_SIZE) {
            put_reply(
                out,
                option,
                reply::INFO,
                &[
                    &info::BLOCK_SIZE.to_be_bytes(),
                    &about.block_min_bytes.to_be_bytes(),
                    &about.block_preferred_bytes.to_be_bytes(),
                    &PAYLOAD_MAX.to_be_bytes(),
                ],
            );
        }
        Ok(if option == option::GO { self.chosen(export) } else { Progress::More })
    }

    fn structured_reply(&mut self, data: &[u8]) -> Result<Progress, Refusal> {
        if !data.is_empty() {
            return Err(INVALID);
        }
        self.structured = true;
        Ok(Progress::More)
    }

    /// The export of a query of contexts, and whether a query asks for `base:allocation`.
    fn meta_queries(&self, data: &[u8], listing: bool) -> Result<(usize, bool), Refusal> {
        let mut data = Reader(data);
        let name = data.string()?;
        let count = data.u32()?;
        let mut allocation = listing && count == 0;
        for _ in 0..count {
            let query = data.string()?;
            allocation |= query == allocation::NAME.as_bytes()
                || (listing && query == allocation::NAMESPACE.as_bytes());
        }
        data.end()?;
        Ok((self.find(name).ok_or(UNKNOWN)?, allocation))
    }

    fn list_meta_context(&self, data: &[u8], out: &mut BytesMut) -> Result<Progress, Refusal> {
        let (_, allocation) = self.meta_queries(data, true)?;
        if allocation {
            put_context(out, option::LIST_META_CONTEXT, 0);
        }
        Ok(Progress::More)
    }

    fn set_meta_context(&mut self, data: &[u8], out: &mut BytesMut) -> Result<Progress, Refusal> {
        // What was selected before is dropped even when this fails.
        self.allocation_of = None;
        if !self.structured {
            return Err(Refusal(reply::ERR_INVALID, "structured replies must be negotiated first"));
        }
        let (export, allocation) = self.meta_queries(data, false)?;
        if allocation {
            self.allocation_of = Some(export);
            put_context(out, option::SET_META_CONTEXT, allocation::ID);
        }
        Ok(Progress::More)
    }
}

fn put_reply(out: &mut BytesMut, option: u32, kind: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(20 + len);
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(len as u32);
    for part in parts {
        out.put_slice(part);
    }
}

fn put_refusal(out: &mut BytesMut, option: u32, Refusal(kind, message): Refusal) {
    put_reply(out, option, kind, &[message.as_bytes()]);
}

fn put_context(out: &mut BytesMut, option: u32, id: u32) {
    put_reply(out, option, reply::META_CONTEXT, &[&id.to_be_bytes(), allocation::NAME.as_bytes()]);
}

/// Reads an option's data; whatever does not fit is [`INVALID`].
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(INVALID)?;
        self.0 = tail;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        self.take(2).map(|mut bytes| bytes.get_u16())
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        self.take(4).map(|mut bytes| bytes.get_u32())
    }

    fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let len = self.u32()? as usize;
        if len > STRING_MAX {
            return Err(INVALID);
        }
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| INVALID)?;
        Ok(bytes)
    }

    fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(INVALID) }
    }
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
