//! What the fuzzer and its bounded smoke test both run; not part of the crate's interface.

use crate::Frame;
use crate::frame::{FrameDecoder, FrameError};
use crate::handshake::Handshake;
use crate::lane::Lane;
use crate::registry;
use bytes::BytesMut;

/// All frames of `stream` that arrive in pieces of `piece_len` bytes, and the error that ended it.
fn decode(stream: &[u8], piece_len: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(Lane::Client);
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece_len) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buf) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Treats `data` as a client lane's stream, as every kind of message and as a handshake, and panics when a
/// decoder breaks a promise. The first byte chooses the size of the pieces it arrives in.
pub fn wire_frame(data: &[u8]) {
    let Some((&choice, stream)) = data.split_first() else { return };
    let (frames, error) = decode(stream, usize::from(choice) + 1);
    let (whole, whole_error) = decode(stream, usize::MAX);
    assert_eq!(frames, whole, "frames depend on how the bytes arrive");
    assert_eq!(error.map(|e| e.to_string()), whole_error.map(|e| e.to_string()));

    let mut at = 0;
    for (sequence, frame) in frames.iter().enumerate() {
        let bytes = frame.to_bytes(Lane::Client, sequence as u64);
        assert_eq!(bytes, stream[at..at + bytes.len()], "a frame does not encode to the bytes it came from");
        at += bytes.len();
        if let Some(entry) = registry::entry(frame.kind()) {
            message(entry, frame.message_bytes());
        }
    }
    for entry in registry::KINDS {
        message(entry, stream);
    }

    let mut buf = BytesMut::from(stream);
    if let Ok(Some(decoded)) = Handshake::decode(&mut buf) {
        let mut out = BytesMut::new();
        decoded.encode(&mut out);
        assert_eq!(Handshake::decode(&mut out), Ok(Some(decoded)));
    }
}

fn message(entry: &registry::KindEntry, bytes: &[u8]) {
    let Ok(again) = (entry.round_trip)(bytes) else { return };
    if bytes[0] == entry.version && bytes[1] == entry.oldest_reader {
        assert_eq!(again, bytes, "{} has two encodings", entry.name);
    }
}
