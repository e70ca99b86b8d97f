//! Tables of message kinds: number, type, version, oldest reader, name and a sample.
//!
//! Here stand the kinds whose types are of this crate. A crate above it whose messages carry its own types has a
//! table of its own, made by the same [`kinds!`](crate::kinds), out of its range of numbers (`docs/format/wire.md`).
//!
//! One line adds a kind. A changed form raises its version (and `oldest` when old readers cannot
//! just skip a tail) and may keep reading the form before it with `older`, a
//! `fn(version: u8, fields: &[u8]) -> Result<T, MessageError>`. `tests/golden.rs` compares the bytes of each
//! sample with the recorded ones, so no form changes unseen.

use crate::envelope::{Echo, EchoReply, ErrorCode, Goodbye, GoodbyeReason, KeepAlive, Reply, RequestId};
use crate::message::{self, Kind, Message, MessageError};
use crate::op::{
    NotifyAck, Op, OpFlags, OpKind, OpOutput, OpReply, OpRequest, OpResult, Ping, Pong, SnapContext,
    WatchEvent, WatchNews,
};
use bytes::Bytes;
use cairn_types::{Epoch, ObjectId, PgId, PoolId, SnapId, Timestamp};

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

/// The entry of `kind`; `None` when it is not one of this crate's.
pub fn entry(kind: Kind) -> Option<&'static KindEntry> {
    KINDS.binary_search_by_key(&kind, |entry| entry.kind).ok().map(|at| &KINDS[at])
}

/// Decodes a message and encodes it again: for [`KindEntry::round_trip`].
#[doc(hidden)]
pub fn round_trip<M: Message>(bytes: &[u8]) -> Result<Bytes, MessageError> {
    let decoded: M = message::decode(bytes)?;
    message::encode(&decoded).map_err(|source| MessageError::Fields {
        kind: M::KIND,
        version: M::VERSION,
        source,
    })
}

/// The bytes of a sample: for [`KindEntry::sample`].
#[doc(hidden)]
pub fn encode_sample<M: Message>(sample: &M) -> Bytes {
    message::encode(sample).expect("a sample is far below the limit")
}

/// Whether kinds stand in the order of their numbers, each once, within `first..=last`.
#[doc(hidden)]
pub const fn in_order(kinds: &[KindEntry], first: u16, last: u16) -> bool {
    let mut at = 0;
    while at < kinds.len() {
        let kind = kinds[at].kind.0;
        if kind < first || kind > last || (at > 0 && kinds[at - 1].kind.0 >= kind) {
            return false;
        }
        at += 1;
    }
    true
}

/// Makes a table of kinds, `KINDS`, and implements [`Message`] for their types.
///
/// `range 16..=31;` first, then for each kind a line `16 Type, version 1, oldest 1, "name", sample VALUE;`, with
/// `older PATH,` before `sample` for a type that still reads an older form.
#[macro_export]
macro_rules! kinds {
    (range $first:literal ..= $last:literal;
     $($number:literal $message:ty, version $version:literal, oldest $oldest:literal, $name:literal,
       $(older $older:path,)? sample $sample:expr;)*) => {
        $(impl $crate::Message for $message {
            const KIND: $crate::Kind = $crate::Kind($number);
            const VERSION: u8 = $version;
            const OLDEST_READER: u8 = $oldest;
            $(fn decode_older(version: u8, fields: &[u8]) -> Result<Self, $crate::MessageError> {
                $older(version, fields)
            })?
        })*

        /// Every kind of this crate, by number.
        pub const KINDS: &[$crate::registry::KindEntry] = &[$($crate::registry::KindEntry {
            kind: $crate::Kind($number),
            name: $name,
            version: $version,
            oldest_reader: $oldest,
            sample: || {
                let sample: $message = $sample;
                $crate::registry::encode_sample(&sample)
            },
            round_trip: $crate::registry::round_trip::<$message>,
        },)*];

        const _: () = assert!(
            $crate::registry::in_order(KINDS, $first, $last),
            "kinds stand in order of their numbers, each once, within their crate's range"
        );
    };
}

const SAMPLE_ID: RequestId = RequestId { client: 0x1122_3344, incarnation: 5, tid: 6 };

fn sample_object() -> ObjectId {
    ObjectId {
        pool: PoolId(3),
        hash: 0x1234_5678,
        namespace: "ns".into(),
        key: String::new(),
        name: "rbd_header.1f".into(),
        snap: SnapId::HEAD,
    }
}

crate::kinds! {
    range 1..=63;
    1 KeepAlive, version 1, oldest 1, "keep-alive", sample KeepAlive {};
    2 Goodbye, version 1, oldest 1, "goodbye", sample Goodbye { reason: GoodbyeReason::Shutdown };
    3 Reply, version 1, oldest 1, "reply",
        sample Reply { request: SAMPLE_ID, code: ErrorCode::NOENT, text: "no pool vms".into() };
    4 Echo, version 1, oldest 1, "echo", sample Echo { request: SAMPLE_ID, return_payload: true };
    5 EchoReply, version 1, oldest 1, "echo-reply",
        sample EchoReply { request: SAMPLE_ID, payload_len_bytes: 4096 };
    32 OpRequest, version 1, oldest 1, "op-request", sample OpRequest {
        request: SAMPLE_ID,
        epoch: Epoch(9),
        pg: PgId { pool: PoolId(3), seed: 0x18 },
        object: sample_object(),
        snaps: SnapContext { seq: 4, ids: vec![SnapId(4), SnapId(2)].into() },
        mtime: Timestamp(1_700_000_000_123),
        flags: OpFlags::FULL_TRY,
        ops: vec![
            Op { kind: OpKind::Call { class: "rbd".into(), method: "get_size".into(), input: Bytes::from_static(b"in") }, fail_ok: true },
            OpKind::Write { offset: 4096, len: 512 }.into(),
        ].into(),
    };
    33 OpReply, version 1, oldest 1, "op-reply", sample OpReply {
        request: SAMPLE_ID,
        epoch: Epoch(9),
        code: ErrorCode::OK,
        user_version: 12,
        results: vec![
            OpResult { code: ErrorCode::OK, output: OpOutput::Data { len: 512 } },
            OpResult {
                code: ErrorCode::NODATA,
                output: OpOutput::Entries {
                    entries: vec![(Bytes::from_static(b"size"), Bytes::from_static(b"1"))].into(),
                    more: false,
                },
            },
        ].into(),
    };
    34 WatchEvent, version 1, oldest 1, "watch-event", sample WatchEvent {
        object: sample_object(),
        cookie: 5,
        what: WatchNews::Notify { id: 6, notifier: 7, payload: Bytes::from_static(b"hello") },
    };
    35 NotifyAck, version 1, oldest 1, "notify-ack",
        sample NotifyAck { object: sample_object(), cookie: 5, id: 6, reply: Bytes::from_static(b"ok") };
    36 Ping, version 1, oldest 1, "ping", sample Ping { seq: 1, epoch: Epoch(9) };
    37 Pong, version 1, oldest 1, "pong", sample Pong { seq: 1, epoch: Epoch(9) };
}
