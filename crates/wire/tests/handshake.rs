//! Agreement and refusal, and handshakes that are none.

use bytes::BytesMut;
use cairn_types::Fsid;
use cairn_wire::handshake::{
    Handshake, HandshakeError, Hello, Offer, REFUSAL_TEXT_LEN_MAX, Refusal, RefusalCode,
};
use cairn_wire::{Lane, LaneSet};

fn offer(name: &str, versions: (u32, u32), features: u64, required: u64) -> Offer {
    Offer {
        version_min: versions.0,
        version_max: versions.1,
        features,
        required,
        fsid: Fsid([7; 16]),
        name: name.parse().unwrap(),
        incarnation: 1,
    }
}

fn encoded(message: &Handshake) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out
}

fn hello() -> Handshake {
    Handshake::Hello(Hello {
        offer: offer("osd.3", (1, 1), 0, 0),
        connection: [9; 16],
        lane: Lane::Client,
        lanes: LaneSet::CLIENT,
    })
}

/// Changes the bytes of a message and makes its checksum right again.
fn forged(message: &Handshake, change: impl FnOnce(&mut Vec<u8>)) -> BytesMut {
    let mut bytes = encoded(message).to_vec();
    bytes.truncate(bytes.len() - 4);
    change(&mut bytes);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    BytesMut::from(&bytes[..])
}

#[test]
fn the_newest_common_version_and_common_features_are_chosen() {
    let ours = offer("mon.a", (2, 5), 0b110, 0b010);
    let welcome = ours.answer(&offer("osd.0", (1, 4), 0b011, 0b010)).unwrap();
    assert_eq!((welcome.version, welcome.features), (4, 0b010));
    let welcome = ours.answer(&offer("osd.0", (3, 9), 0b011, 0)).unwrap();
    assert_eq!(welcome.version, 5);
}

#[test]
fn without_understanding_one_sentence_says_why() {
    let ours = offer("mon.a", (2, 5), 0b110, 0b010);
    let refusal = ours.answer(&offer("osd.0", (6, 7), 0b010, 0)).unwrap_err();
    assert_eq!((refusal.code, refusal.version_min, refusal.version_max), (RefusalCode::VERSION, 2, 5));
    assert_eq!(
        refusal.text,
        "mon.a speaks protocol versions 2 to 5, osd.0 speaks 6 to 7: upgrade the older one"
    );
    assert_eq!(ours.answer(&offer("osd.0", (1, 1), 0b010, 0)).unwrap_err().code, RefusalCode::VERSION);
    let refusal = ours.answer(&offer("osd.0", (2, 2), 0b100, 0)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::FEATURES);
    assert!(refusal.text.starts_with("osd.0 lacks"), "{}", refusal.text);
    let refusal = ours.answer(&offer("osd.0", (2, 2), 0b010, 0b1000)).unwrap_err();
    assert!(refusal.text.starts_with("mon.a lacks"), "{}", refusal.text);
    let mut stranger = offer("osd.0", (2, 2), 0b010, 0);
    stranger.fsid = Fsid([8; 16]);
    assert_eq!(ours.answer(&stranger).unwrap_err().code, RefusalCode::CLUSTER);
}

#[test]
fn fields_of_the_future_are_skipped() {
    let mut longer = forged(&hello(), |bytes| {
        bytes.extend_from_slice(b"from a later release");
        let body_len = (bytes.len() - 12) as u16;
        bytes[10..12].copy_from_slice(&body_len.to_le_bytes());
    });
    assert_eq!(Handshake::decode(&mut longer), Ok(Some(hello())));
    assert!(longer.is_empty());
}

#[test]
fn a_message_in_pieces_waits_for_its_end() {
    let bytes = encoded(&hello());
    let mut buf = BytesMut::new();
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(Handshake::decode(&mut buf), Ok(None), "{at}");
        buf.extend_from_slice(&[*byte]);
    }
    assert_eq!(Handshake::decode(&mut buf), Ok(Some(hello())));
}

#[test]
fn strangers_and_damage_are_told() {
    let mut http = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
    assert!(matches!(Handshake::decode(&mut http), Err(HandshakeError::Magic { .. })));
    let mut start = BytesMut::from(&b"G"[..]);
    assert!(matches!(Handshake::decode(&mut start), Err(HandshakeError::Magic { .. })), "told from one byte");
    let bytes = encoded(&hello());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        // A longer length waits for bytes that never come; everything else is an error.
        let got = Handshake::decode(&mut bad);
        assert!(got.is_err() || (matches!(at, 10 | 11) && got == Ok(None)), "byte {at}: {got:?}");
    }
    let mut long = bytes.clone();
    long[11] = 0xff;
    assert!(matches!(Handshake::decode(&mut long), Err(HandshakeError::TooLong { .. })));
}

#[test]
fn bad_fields_are_named() {
    // Offsets in the message: 12 bytes of prelude, then the body.
    for (at, value, field) in [
        (8, 9, "kind"),
        (9, 1, "reserved byte"),
        (12, 200, "version range"),
        (12 + 56, 7, "lane"),
        (12 + 57, 0b110, "lane set"),
        (12 + 57, 0b101, "lane set"),
        (12 + 57, 0b1001_0011, "lane set"),
        (12 + 68, 0, "name"),
        (12 + 68, 200, "name"),
        (12 + 69, b'x', "name"),
        (12 + 69, 0xff, "name"),
    ] {
        let mut bytes = forged(&hello(), |bytes| bytes[at] = value);
        assert_eq!(Handshake::decode(&mut bytes), Err(HandshakeError::Field { field }), "byte {at}");
    }
}

#[test]
fn a_long_refusal_is_cut_between_characters() {
    let refusal =
        Refusal { code: RefusalCode::BUSY, version_min: 1, version_max: 1, text: "ä".repeat(400) + "b" };
    let mut bytes = encoded(&Handshake::Refusal(refusal));
    let Ok(Some(Handshake::Refusal(got))) = Handshake::decode(&mut bytes) else { panic!("not a refusal") };
    assert_eq!(got.text, "ä".repeat(REFUSAL_TEXT_LEN_MAX / 2));
}
