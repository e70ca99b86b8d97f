//! What every conversation needs: request ids, replies, error codes, and the frames of a lane's own life.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Names one request for as long as anyone may ask about it: a resend carries the same id and is
/// never applied twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId {
    /// Number the monitors gave the sender's session; unique in the cluster's life.
    pub client: u64,
    /// Grows when the sender starts over without its memory of what it sent.
    pub incarnation: u32,
    /// Counts the sender's requests.
    pub tid: u64,
}

/// Outcome of an operation: zero or a negative Linux `errno`, as RADOS answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ErrorCode(pub i32);

macro_rules! error_codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $text] pub const $name: ErrorCode = ErrorCode($code);)*

            /// The name and meaning of a code that cairn uses.
            pub fn known(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(ErrorCode::$name => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    OK = 0, "success";
    PERM = -1, "operation not permitted";
    NOENT = -2, "no such object, image or entry";
    IO = -5, "input/output error";
    RANGE = -34, "out of range or buffer too small";
    AGAIN = -11, "not now, try again";
    ACCES = -13, "permission denied";
    BUSY = -16, "held by someone else";
    EXIST = -17, "exists already";
    INVAL = -22, "invalid argument";
    NOSPC = -28, "no space left";
    ROFS = -30, "read-only";
    NODATA = -61, "no such attribute or key";
    OVERFLOW = -75, "value too large";
    OPNOTSUPP = -95, "not supported by this version";
    BLOCKLISTED = -108, "this client is in the blocklist";
    TIMEDOUT = -110, "timed out";
    STALE = -116, "of an older epoch or interval";
    DQUOT = -122, "quota reached";
    CANCELED = -125, "canceled because a condition did not hold";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some((_, text)) => write!(f, "{text} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// Nothing was sent for a while; the sender lives. Asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeepAlive {}

/// Last frame of a lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why the sender leaves.
    pub reason: GoodbyeReason,
}

/// Why a connection is closed in good order. Grows at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GoodbyeReason {
    /// The sender needs the connection no longer.
    Done,
    /// The sending process stops.
    Shutdown,
    /// The map says that this peer does not belong here any more.
    Evicted,
}

impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GoodbyeReason::Done => "not needed any more",
            GoodbyeReason::Shutdown => "shutting down",
            GoodbyeReason::Evicted => "removed from the map",
        })
    }
}

/// The outcome of a request that has nothing else to say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request this answers.
    pub request: RequestId,
    /// How it went.
    pub code: ErrorCode,
    /// One sentence for people; empty when the code says it all.
    pub text: String,
}

/// Asks for an [`EchoReply`]; for tests and measurement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Echo {
    /// Comes back in the reply.
    pub request: RequestId,
    /// Whether the payload comes back too.
    pub return_payload: bool,
}

/// Answers an [`Echo`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EchoReply {
    /// Of the echo.
    pub request: RequestId,
    /// Bytes of payload that came with it.
    pub payload_len_bytes: u64,
}
