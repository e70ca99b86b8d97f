//! The recorded bytes of handshakes, frames and every kind of message.
//!
//! A message's form may only change with its version. `CAIRN_GOLDEN=write` records what is missing; it
//! never overwrites: a recorded form is what released code speaks.

use bytes::{Bytes, BytesMut};
use cairn_types::{EntityName, Fsid};
use cairn_wire::handshake::{FEATURES, Handshake, Hello, Offer, Refusal, RefusalCode, Welcome};
use cairn_wire::registry::KINDS;
use cairn_wire::{Echo, Frame, FrameDecoder, KeepAlive, Lane, LaneSet, Payload, RequestId, Segment};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// 16 bytes a line, so that a change shows as a small diff.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let line: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "{}", line.join(" ")).unwrap();
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

fn compare(name: &str, bytes: &[u8]) {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var("CAIRN_GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::write(&path, hex(bytes)).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; record a new form with CAIRN_GOLDEN=write", path.display())
    });
    assert_eq!(hex(bytes), recorded, "{name} does not encode as recorded: raise its version instead");
}

fn fsid() -> Fsid {
    "3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c10".parse().unwrap()
}

fn name(text: &str) -> EntityName {
    text.parse().unwrap()
}

#[test]
fn every_kind_encodes_as_recorded() {
    for entry in KINDS {
        let bytes = (entry.sample)();
        assert_eq!(bytes[..2], [entry.version, entry.oldest_reader], "{}", entry.name);
        compare(&format!("message-{:05}-{}.v{}", entry.kind.0, entry.name, entry.version), &bytes);
    }
}

/// What was ever recorded can still be read, unless its reader was dropped on purpose (the file goes with it).
#[test]
fn every_recorded_form_is_read() {
    let mut kinds = BTreeSet::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let Some(number) = stem.strip_prefix("message-").and_then(|s| s.get(..5)) else { continue };
        let number: u16 = number.parse().unwrap();
        let entry = KINDS.iter().find(|e| e.kind.0 == number).unwrap_or_else(|| {
            panic!("{stem} is recorded but kind {number} is not in the registry; numbers are never dropped")
        });
        let bytes = unhex(&std::fs::read_to_string(&path).unwrap());
        (entry.round_trip)(&bytes).unwrap_or_else(|error| panic!("{stem}: {error}"));
        kinds.insert(number);
    }
    assert_eq!(kinds.len(), KINDS.len(), "every kind has a recorded form");
}

#[test]
fn handshakes_encode_as_frozen() {
    let offer = Offer {
        version_min: 1,
        version_max: 3,
        features: FEATURES | 0x10,
        required: 0x20,
        fsid: fsid(),
        name: name("osd.12"),
        incarnation: 0x0102_0304_0506_0708,
    };
    let hello = Hello { offer, connection: *b"0123456789abcdef", lane: Lane::Recovery, lanes: LaneSet::ALL };
    let welcome = Welcome { version: 2, features: 0x10, fsid: fsid(), name: name("mon.a"), incarnation: 9 };
    let refusal = Refusal {
        code: RefusalCode::VERSION,
        version_min: 4,
        version_max: 5,
        text: "mon.a speaks protocol versions 4 to 5".into(),
    };
    for (file, message) in [
        ("handshake-hello", Handshake::Hello(hello)),
        ("handshake-welcome", Handshake::Welcome(welcome)),
        ("handshake-refusal", Handshake::Refusal(refusal)),
    ] {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        compare(file, &out);
        assert_eq!(Handshake::decode(&mut out), Ok(Some(message)));
        assert!(out.is_empty());
    }
}

#[test]
fn frames_encode_as_recorded() {
    let request = RequestId { client: 1, incarnation: 2, tid: 3 };
    let echo = Echo { request, return_payload: false };
    let payload: Payload = [
        Segment::new(4090, Bytes::from_static(b"across two blocks")).unwrap(),
        Segment::new(8192, Bytes::from_static(b"one")).unwrap(),
    ]
    .into_iter()
    .collect();
    let with_payload = Frame::new(&echo, payload).unwrap();
    let bare = Frame::new(&KeepAlive {}, Payload::none()).unwrap();
    for (file, frame, lane) in
        [("frame-bare", bare, Lane::Control), ("frame-two-segments", with_payload, Lane::Client)]
    {
        let bytes = frame.to_bytes(lane, 0);
        assert_eq!(bytes.len(), frame.wire_len());
        compare(file, &bytes);
        let mut buf = BytesMut::from(bytes);
        assert_eq!(FrameDecoder::new(lane).next(&mut buf).unwrap(), Some(frame));
        assert!(buf.is_empty());
    }
}
