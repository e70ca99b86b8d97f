//! Every message kind there is: number, type, version, oldest reader, name and a sample.
//!
//! One line adds a kind. A changed form raises its version (and `oldest` when old readers cannot
//! just skip a tail) and may keep reading the form before it with `older`, a
//! `fn(version: u8, fields: &[u8]) -> Result<T, MessageError>`. `tests/golden.rs` compares the bytes of each
//! sample with the recorded ones, so no form changes unseen.

use crate::envelope::{Echo, EchoReply, ErrorCode, Goodbye, GoodbyeReason, KeepAlive, Reply, RequestId};
use crate::message::{self, Kind, Message, MessageError};
use bytes::Bytes;

/// What is known of one kind.
#[derive(Clone, Copy, Debug)]
pub struct KindEntry {
    /// Its number on the wire.
    pub kind: Kind,
    /// Its name in logs and file names.
    pub name: &'static str,
    /// Version of the form written by this code.
    pub version: u8,
    /// Oldest version whose reader understands that form.
    pub oldest_reader: u8,
    /// The bytes of a sample message, header included.
    pub sample: fn() -> Bytes,
    /// Decodes a message and, when its version is the current one, encodes it again; the input if all went well.
    pub round_trip: fn(&[u8]) -> Result<Bytes, MessageError>,
}

/// The entry of `kind`; `None` when this version does not know it.
pub fn entry(kind: Kind) -> Option<&'static KindEntry> {
    KINDS.binary_search_by_key(&kind, |entry| entry.kind).ok().map(|at| &KINDS[at])
}

fn round_trip<M: Message>(bytes: &[u8]) -> Result<Bytes, MessageError> {
    let decoded: M = message::decode(bytes)?;
    message::encode(&decoded).map_err(|source| MessageError::Fields {
        kind: M::KIND,
        version: M::VERSION,
        source,
    })
}

macro_rules! kinds {
    ($($number:literal $message:ty, version $version:literal, oldest $oldest:literal, $name:literal,
       $(older $older:path,)? sample $sample:expr;)*) => {
        $(impl Message for $message {
            const KIND: Kind = Kind($number);
            const VERSION: u8 = $version;
            const OLDEST_READER: u8 = $oldest;
            $(fn decode_older(version: u8, fields: &[u8]) -> Result<Self, MessageError> {
                $older(version, fields)
            })?
        })*

        /// Every kind, by number.
        pub const KINDS: &[KindEntry] = &[$(KindEntry {
            kind: Kind($number),
            name: $name,
            version: $version,
            oldest_reader: $oldest,
            sample: || {
                let sample: $message = $sample;
                message::encode(&sample).expect("a sample is far below the limit")
            },
            round_trip: round_trip::<$message>,
        },)*];
    };
}

const SAMPLE_ID: RequestId = RequestId { client: 0x1122_3344, incarnation: 5, tid: 6 };

kinds! {
    1 KeepAlive, version 1, oldest 1, "keep-alive", sample KeepAlive {};
    2 Goodbye, version 1, oldest 1, "goodbye", sample Goodbye { reason: GoodbyeReason::Shutdown };
    3 Reply, version 1, oldest 1, "reply",
        sample Reply { request: SAMPLE_ID, code: ErrorCode::NOENT, text: "no pool vms".into() };
    4 Echo, version 1, oldest 1, "echo", sample Echo { request: SAMPLE_ID, return_payload: true };
    5 EchoReply, version 1, oldest 1, "echo-reply",
        sample EchoReply { request: SAMPLE_ID, payload_len_bytes: 4096 };
}

const _: () = {
    let mut at = 1;
    while at < KINDS.len() {
        assert!(KINDS[at - 1].kind.0 < KINDS[at].kind.0, "kinds stand in order of their numbers, each once");
        at += 1;
    }
};
