//! Frames in pieces, in rows, damaged and lying.

use bytes::{Bytes, BytesMut};
use cairn_wire::{
    BODY_LEN_MAX, Echo, FRAME_HEADER_LEN, Frame, FrameDecoder, FrameError, KeepAlive, Lane, PAYLOAD_LEN_MAX,
    Payload, PayloadError, RequestId, SEGMENTS_MAX, Segment, fuzzing,
};
use proptest::prelude::*;

const LANE: Lane = Lane::Client;

fn echo(tid: u64, payload: Payload) -> Frame {
    let request = RequestId { client: 1, incarnation: 1, tid };
    Frame::new(&Echo { request, return_payload: true }, payload).unwrap()
}

fn decode_one(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    FrameDecoder::new(LANE).next(&mut BytesMut::from(bytes))
}

/// A frame's bytes with some changed and the header's checksum made right again.
fn forged(frame: &Frame, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = frame.to_bytes(LANE, 0).to_vec();
    change(&mut bytes);
    let sum = crc32fast::hash(&bytes[..32]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn a_payload_is_not_copied() {
    let data: Bytes = vec![0xa5; 1 << 20].into();
    let frame = echo(1, Payload::of(0, data));
    let mut buf = BytesMut::from(frame.to_bytes(LANE, 0));
    let start = buf.as_ptr() as usize;
    let end = start + buf.len();
    let decoded = FrameDecoder::new(LANE).next(&mut buf).unwrap().unwrap();
    let at = decoded.payload().segments()[0].data().as_ptr() as usize;
    assert_eq!(at, end - (1 << 20), "the payload lies where it arrived");
    assert_eq!(decoded, frame);
}

#[test]
fn the_rest_of_a_large_frame_gets_its_place_at_once() {
    let frame = echo(1, Payload::of(0, vec![1; 1 << 20].into()));
    let bytes = frame.to_bytes(LANE, 0);
    let mut decoder = FrameDecoder::new(LANE);
    let mut buf = BytesMut::from(&bytes[..1000]);
    assert!(decoder.next(&mut buf).unwrap().is_none());
    assert!(buf.capacity() >= bytes.len() - FRAME_HEADER_LEN);
    let place = buf.as_ptr();
    buf.extend_from_slice(&bytes[1000..]);
    assert_eq!(buf.as_ptr(), place, "no second move");
    assert_eq!(decoder.next(&mut buf).unwrap(), Some(frame));
}

#[test]
fn damage_of_any_byte_is_found() {
    let frame = echo(1, Payload::of(100, vec![7; 5000].into()));
    let bytes = frame.to_bytes(LANE, 0);
    for at in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 0x10;
        assert!(decode_one(&bad).is_err(), "byte {at}");
    }
    let mut bad = bytes.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let error = decode_one(&bad).unwrap_err();
    assert!(
        matches!(error, FrameError::Payload { segment: 0, source: PayloadError::Damaged { block: 1, .. } }),
        "{error}"
    );
}

#[test]
fn lengths_past_the_limits_are_refused_before_anything_is_read() {
    let frame = echo(1, Payload::of(0, vec![7; 10].into()));
    for (at, max) in [(16, BODY_LEN_MAX), (20, PAYLOAD_LEN_MAX)] {
        for len in [max as u32 + 1, u32::MAX] {
            let bytes = forged(&frame, |b| b[at..at + 4].copy_from_slice(&len.to_le_bytes()));
            let mut buf = BytesMut::from(&bytes[..FRAME_HEADER_LEN]);
            let error = FrameDecoder::new(LANE).next(&mut buf).unwrap_err();
            assert!(matches!(error, FrameError::TooLong { len: l, .. } if l == len as usize), "{error}");
            assert!(buf.capacity() < 4096, "nothing was allocated for the lie");
        }
    }
    let bytes = forged(&frame, |b| b[28..30].copy_from_slice(&1025u16.to_le_bytes()));
    assert!(matches!(decode_one(&bytes), Err(FrameError::TooManySegments { count: 1025 })));
}

#[test]
fn what_cannot_be_read_is_not_sent() {
    let too_long: Payload = (0..17).map(|_| Segment::new(0, vec![0; 1 << 20].into()).unwrap()).collect();
    let error = Frame::new(&KeepAlive {}, too_long).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { part: "payload", .. }), "{error}");
    let many: Payload =
        (0..=SEGMENTS_MAX).map(|_| Segment::new(0, Bytes::from_static(b"x")).unwrap()).collect();
    assert!(matches!(Frame::new(&KeepAlive {}, many), Err(FrameError::TooManySegments { .. })));
}

#[test]
fn the_largest_frame_goes_through() {
    let frame = echo(1, Payload::of(0, vec![3; PAYLOAD_LEN_MAX].into()));
    assert_eq!(decode_one(&frame.to_bytes(LANE, 0)).unwrap(), Some(frame));
}

#[test]
fn a_frame_of_another_lane_or_out_of_turn_is_refused() {
    let frame = echo(1, Payload::none());
    let error = decode_one(&frame.to_bytes(Lane::Recovery, 0)).unwrap_err();
    assert!(matches!(error, FrameError::Lane { found: 2, .. }), "{error}");
    let error = decode_one(&frame.to_bytes(LANE, 1)).unwrap_err();
    assert!(matches!(error, FrameError::Sequence { expected: 0, found: 1, .. }), "{error}");
}

#[test]
fn header_fields_of_the_future_are_refused() {
    let frame = echo(1, Payload::of(0, vec![7; 10].into()));
    for (at, value, name) in
        [(4, 2, "format"), (30, 2, "sum_algorithm"), (30, 0, "sum_algorithm"), (31, 1, "flags")]
    {
        let error = decode_one(&forged(&frame, |b| b[at] = value)).unwrap_err();
        assert!(
            matches!(error, FrameError::Unknown { field, value: v } if field == name && v == value),
            "{error}"
        );
    }
}

#[test]
fn segments_must_fit_body_and_payload() {
    let frame = echo(1, Payload::of(0, vec![7; 5000].into()));
    // Offsets within the segment table, which starts behind the header.
    for (at, value) in [(4, 4999u32), (4, 5001), (4, 0), (4, u32::MAX), (0, 4096), (0, 0xffff), (2, 1)] {
        let bytes = forged(&frame, |b| {
            let entry = &mut b[FRAME_HEADER_LEN + at..];
            if at == 4 {
                entry[..4].copy_from_slice(&value.to_le_bytes());
            } else {
                entry[..2].copy_from_slice(&(value as u16).to_le_bytes());
            }
            let body_len = u32::from_le_bytes(b[16..20].try_into().unwrap()) as usize;
            let sum = crc32fast::hash(&b[FRAME_HEADER_LEN..FRAME_HEADER_LEN + body_len]);
            b[24..28].copy_from_slice(&sum.to_le_bytes());
        });
        let error = decode_one(&bytes).unwrap_err();
        assert!(
            matches!(error, FrameError::Segments { .. } | FrameError::Payload { .. }),
            "{at} {value}: {error}"
        );
    }
}

/// One fixed generator (xorshift), so that a failure is the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// The body of `fuzz/fuzz_targets/wire_frame.rs` over damaged streams, bounded.
#[test]
fn fuzz_smoke() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut decoded_some = 0;
    for _ in 0..4000 {
        let mut stream = vec![random.below(256) as u8];
        for sequence in 0..random.below(4) as u64 {
            let data: Bytes = (0..random.below(9000)).map(|_| random.below(256) as u8).collect();
            let frame = echo(sequence, Payload::of(random.below(5000) as u64, data));
            stream.extend_from_slice(&frame.to_bytes(LANE, sequence));
        }
        let mut body = (cairn_wire::registry::KINDS[random.below(5)].sample)().to_vec();
        if random.below(8) == 0 {
            stream.truncate(1);
            stream.append(&mut body);
        }
        decoded_some += usize::from(stream.len() > 1);
        for _ in 0..random.below(4) {
            match random.below(3) {
                0 => {
                    let at = random.below(stream.len());
                    stream[at] ^= 1 << random.below(8);
                }
                1 => {
                    let len = 1 + random.below(stream.len());
                    stream.truncate(len);
                }
                _ => {
                    let at = random.below(stream.len());
                    let end = at + random.below(stream.len() - at + 1);
                    let copy = stream[at..end].to_vec();
                    stream.splice(at..at, copy);
                }
            }
        }
        fuzzing::wire_frame(&stream);
    }
    assert!(decoded_some > 2000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_row_of_frames_arrives_in_any_pieces(
        parts in prop::collection::vec(prop::collection::vec((0u64..8192, 1usize..10_000), 0..3), 1..5),
        piece_len in 1usize..5000,
    ) {
        let frames: Vec<Frame> = parts.iter().enumerate().map(|(tid, segments)| {
            let payload = segments.iter().map(|&(offset, len)| {
                Segment::new(offset, (0..len).map(|i| (i * 31 + tid) as u8).collect()).unwrap()
            }).collect();
            echo(tid as u64, payload)
        }).collect();
        let stream: Vec<u8> =
            frames.iter().zip(0..).flat_map(|(frame, sequence)| frame.to_bytes(LANE, sequence)).collect();
        let mut decoder = FrameDecoder::new(LANE);
        let mut buf = BytesMut::new();
        let mut got = Vec::new();
        for piece in stream.chunks(piece_len) {
            buf.extend_from_slice(piece);
            while let Some(frame) = decoder.next(&mut buf).unwrap() {
                got.push(frame);
            }
        }
        prop_assert!(decoder.at_boundary(&buf));
        prop_assert_eq!(got, frames);
    }
}
