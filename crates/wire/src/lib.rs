//! What cairn processes say to each other, as bytes: handshake, frames, messages.
//!
//! The format is `docs/format/wire.md`. Nothing here opens, reads or waits: bytes go in and values come
//! out, so the same code runs behind sockets, in a simulation and under a fuzzer. Every decoder is
//! bounded by the bytes it was given and by the limits named here.
//!
//! To add a message: define the struct next to its fellows, add one line to the table in
//! `registry.rs`, run the tests with `CAIRN_GOLDEN=write` once, and commit the recorded bytes.

pub mod ceph;
pub mod codec;
mod envelope;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
mod lane;
mod message;
pub mod op;
mod payload;
pub mod registry;

pub use codec::{CodecError, List};
pub use envelope::{Echo, EchoReply, ErrorCode, Goodbye, GoodbyeReason, KeepAlive, Reply, RequestId};
pub use frame::{
    BODY_LEN_MAX, FRAME_HEADER_LEN, Frame, FrameDecoder, FrameError, PAYLOAD_LEN_MAX, SEGMENTS_MAX,
};
pub use lane::{Lane, LaneSet};
pub use message::{Kind, Message, MessageError};
pub use payload::{BLOCK_LEN, Payload, PayloadError, Segment};
