//! Numbers of the NBD protocol, and the bounds this server sets.

/// First word of the server's greeting, `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting and first of every option, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a chunk of a structured reply.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Length of the greeting.
pub const GREETING_LEN: usize = 18;
/// Length of the header of an option.
pub const OPTION_HEADER_LEN: usize = 16;
/// Length of the header of a request.
pub const REQUEST_LEN: usize = 28;
/// Length of a simple reply without data.
pub const SIMPLE_REPLY_LEN: usize = 16;
/// Length of the header of a chunk.
pub const CHUNK_HEADER_LEN: usize = 20;

/// Longest string (name of an export, query, message) by the protocol.
pub const STRING_MAX: usize = 4096;
/// Most data of one option that is looked at: room for a name and some queries of full length.
pub const OPTION_LEN_MAX: usize = 64 << 10;
/// Longer options up to this length are skipped and refused; beyond it the client is cut off.
pub const OPTION_SKIP_MAX: usize = 1 << 20;
/// Most options of one connection: a real client sends a dozen, `nbdinfo --list` a few for each export.
pub const OPTIONS_MAX: u32 = 1024;
/// Longest payload of a read or write, as advertised; the protocol's own default.
pub const PAYLOAD_MAX: u32 = 32 << 20;
/// Most extents in one answer about blocks: half a mebibyte of descriptors.
pub const STATUS_EXTENTS_MAX: usize = 1 << 16;
/// Shorter holes inside a read are sent as zeros: a chunk costs nearly as much.
pub const HOLE_CHUNK_MIN: u32 = 512;
/// Requests of one connection that are in progress or whose reply is not written yet. The deepest queue that Linux and
/// QEMU make by default is 128.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 256;
/// Payload bytes of those requests, of either direction: any one request fits.
pub const IN_FLIGHT_BYTES_MAX: u64 = PAYLOAD_MAX as u64;

/// Flags of the greeting and of the client's answer to it.
pub mod handshake {
    /// Both: options get replies.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// Both: no padding after the answer to `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Types of replies to options.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_TLS_REQD: u32 = (1 << 31) + 5;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Kinds of information about an export.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod flag {
    pub const HAS_FLAGS: u16 = 1 << 0;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_CACHE: u16 = 1 << 10;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Types of requests.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod command_flag {
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Flag of a chunk: the last one of its reply.
pub const CHUNK_DONE: u16 = 1 << 0;

/// Types of chunks.
#[allow(missing_docs, reason = "the protocol's names")]
pub mod chunk {
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) + 1;
}

/// The metadata context `base:allocation`.
pub mod allocation {
    /// Its name.
    pub const NAME: &str = "base:allocation";
    /// Its namespace, a query for all contexts in it.
    pub const NAMESPACE: &str = "base:";
    /// The id this server gives it.
    pub const ID: u32 = 1;
    /// No space is taken.
    pub const HOLE: u32 = 1 << 0;
    /// Reads as zeros.
    pub const ZERO: u32 = 1 << 1;
}

/// An error as the protocol numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Errno {
    /// A change of a read-only export.
    Perm = 1,
    /// The device failed.
    Io = 5,
    /// Not a valid request.
    Inval = 22,
    /// No room, or a write beyond the end.
    NoSpc = 28,
    /// Longer than can be answered.
    Overflow = 75,
    /// Not faster than writing zeros.
    NotSup = 95,
    /// The server is stopping.
    Shutdown = 108,
}
