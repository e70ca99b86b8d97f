//! Requests and replies against the protocol's rules.

use super::*;
use proptest::prelude::*;

const SIZE: u64 = 1 << 40;

fn session() -> Session {
    Session {
        size_bytes: SIZE,
        read_only: false,
        block_min_bytes: 1,
        zeroes_fast: true,
        structured: true,
        allocation: true,
    }
}

fn request(command: u16, flags: u16, offset: u64, len_bytes: u32) -> Request {
    Request { flags, command, cookie: 0x0102_0304_0506_0708, offset, len_bytes }
}

fn errno(session: &Session, request: Request) -> Option<Errno> {
    session.judge(&request).err().map(|failure| failure.errno)
}

fn encoded(request: &Request) -> [u8; REQUEST_LEN] {
    let mut bytes = [0; REQUEST_LEN];
    let mut out = &mut bytes[..];
    out.put_u32(REQUEST_MAGIC);
    out.put_u16(request.flags);
    out.put_u16(request.command);
    out.put_u64(request.cookie);
    out.put_u64(request.offset);
    out.put_u32(request.len_bytes);
    bytes
}

#[test]
fn a_request_is_read_and_a_wrong_or_long_one_cuts_the_client_off() {
    let write = request(command::WRITE, 1, 512, PAYLOAD_MAX);
    assert_eq!(Request::decode(&encoded(&write)), Ok(write));
    let long = Request { len_bytes: PAYLOAD_MAX + 1, ..write };
    assert_eq!(Request::decode(&encoded(&long)), Err(Violation::WriteTooLong(PAYLOAD_MAX + 1)));
    let zeroes = Request { command: command::WRITE_ZEROES, len_bytes: u32::MAX, ..write };
    assert_eq!(Request::decode(&encoded(&zeroes)), Ok(zeroes));
    let mut wrong = encoded(&write);
    wrong[0] ^= 1;
    assert!(matches!(Request::decode(&wrong), Err(Violation::RequestMagic(_))));
}

#[test]
fn requests_become_commands() {
    use command_flag::*;
    let judge = |command, flags, offset, len| session().judge(&request(command, flags, offset, len)).unwrap();
    assert_eq!(judge(command::READ, DF, 5, 7), Command::Read { offset: 5, len_bytes: 7 });
    assert_eq!(judge(command::WRITE, FUA, SIZE - 1, 1), Command::Write { offset: SIZE - 1, fua: true });
    // Clients set FUA on a flush.
    assert_eq!(judge(command::FLUSH, FUA, 0, 0), Command::Flush);
    let all = u32::MAX;
    assert_eq!(
        judge(command::TRIM, 0, 0, all),
        Command::Discard { offset: 0, len_bytes: u64::from(all), fua: false }
    );
    assert_eq!(
        judge(command::WRITE_ZEROES, NO_HOLE, 0, all),
        Command::WriteZeroes {
            offset: 0,
            len_bytes: u64::from(all),
            how: Zeroing { may_unmap: false, fua: false }
        }
    );
    assert_eq!(
        judge(command::BLOCK_STATUS, REQ_ONE, 1, all),
        Command::Status { offset: 1, len_bytes: all, one: true }
    );
    assert_eq!(judge(command::CACHE, 0, 0, all), Command::Nothing);
    assert_eq!(judge(command::DISC, 0, 0, 0), Command::Disconnect);
    for empty in [command::READ, command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(judge(empty, 0, 0, 0), Command::Nothing);
    }
}

#[test]
fn errors_are_those_of_the_protocol() {
    use command_flag::*;
    let plain = session();
    let past = |command| errno(&plain, request(command, 0, SIZE - 1, 2));
    assert_eq!(past(command::READ), Some(Errno::Inval));
    assert_eq!(past(command::WRITE), Some(Errno::NoSpc));
    assert_eq!(past(command::WRITE_ZEROES), Some(Errno::NoSpc));
    assert_eq!(past(command::TRIM), Some(Errno::Inval));
    assert_eq!(past(command::CACHE), Some(Errno::Inval));
    assert_eq!(past(command::BLOCK_STATUS), Some(Errno::Inval));
    assert_eq!(errno(&plain, request(command::WRITE, 0, u64::MAX, 2)), Some(Errno::NoSpc));

    let read_only = Session { read_only: true, ..plain };
    for change in [command::WRITE, command::WRITE_ZEROES, command::TRIM] {
        assert_eq!(errno(&read_only, request(change, 0, 0, 1)), Some(Errno::Perm));
    }
    assert_eq!(errno(&read_only, request(command::FLUSH, 0, 0, 0)), None);

    let units = Session { block_min_bytes: 512, ..plain };
    assert_eq!(errno(&units, request(command::READ, 0, 512, 1024)), None);
    assert_eq!(errno(&units, request(command::READ, 0, 1, 512)), Some(Errno::Inval));
    assert_eq!(errno(&units, request(command::WRITE, 0, 512, 100)), Some(Errno::Inval));

    for (command, flag) in [
        (command::READ, NO_HOLE),
        (command::WRITE, DF),
        (command::TRIM, NO_HOLE),
        (command::CACHE, REQ_ONE),
        (command::WRITE_ZEROES, REQ_ONE),
        (command::BLOCK_STATUS, FAST_ZERO),
        (command::READ, 1 << 5),
    ] {
        assert_eq!(errno(&plain, request(command, flag, 0, 1)), Some(Errno::Inval), "{command} {flag}");
    }
    assert_eq!(errno(&plain, request(99, 0, 0, 1)), Some(Errno::Inval));
    assert_eq!(errno(&plain, request(command::FLUSH, 0, 0, 1)), Some(Errno::Inval));
    assert_eq!(errno(&plain, request(command::BLOCK_STATUS, 0, 0, 0)), Some(Errno::Inval));
    let blind = Session { allocation: false, ..plain };
    assert_eq!(errno(&blind, request(command::BLOCK_STATUS, 0, 0, 1)), Some(Errno::Inval));

    let long = request(command::READ, 0, 0, PAYLOAD_MAX + 1);
    assert_eq!(errno(&plain, long), Some(Errno::Overflow));
    let simple = Session { structured: false, ..plain };
    assert_eq!(errno(&simple, long), Some(Errno::Inval));
    assert_eq!(errno(&simple, request(command::READ, DF, 0, 1)), Some(Errno::Inval));

    assert_eq!(errno(&plain, request(command::WRITE_ZEROES, FAST_ZERO, 0, 1)), None);
    assert_eq!(errno(&plain, request(command::WRITE_ZEROES, FAST_ZERO | NO_HOLE, 0, 1)), Some(Errno::NotSup));
    let slow = Session { zeroes_fast: false, ..plain };
    assert_eq!(errno(&slow, request(command::WRITE_ZEROES, FAST_ZERO, 0, 1)), Some(Errno::NotSup));
    assert_eq!(errno(&slow, request(command::WRITE_ZEROES, 0, 0, 1)), None);
}

#[test]
fn errors_of_the_device_are_mapped() {
    let failed = || IoError::Failed("the disk is on fire".into());
    for (error, writes, errno) in [
        (IoError::ReadOnly, true, Errno::Perm),
        (IoError::NoSpace, true, Errno::NoSpc),
        (IoError::OutOfRange { size_bytes: 1 }, true, Errno::NoSpc),
        (IoError::OutOfRange { size_bytes: 1 }, false, Errno::Inval),
        (IoError::Closing, false, Errno::Shutdown),
        (failed(), true, Errno::Io),
    ] {
        assert_eq!(Failure::of(&error, writes).errno, errno);
    }
    assert_eq!(Failure::of(&failed(), true).message, "the disk is on fire");
}

fn reply(session: &Session, request: &Request, answer: Answer) -> Vec<u8> {
    let mut out = Outbox::default();
    put_answer(session, request, answer, &mut out);
    out.take_all()
}

const COOKIE: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn replies_have_the_bytes_of_the_protocol() {
    let write = request(command::WRITE, 0, 0, 4096);
    let simple = Session { structured: false, allocation: false, ..session() };
    let done = [b"\x67\x44\x66\x98\0\0\0\0", COOKIE].concat();
    assert_eq!(reply(&simple, &write, Answer::Done), done);
    assert_eq!(reply(&session(), &write, Answer::Done), done);
    let failure = Answer::Failed(Failure { errno: Errno::NoSpc, message: "full".into() });
    assert_eq!(
        reply(&simple, &write, failure.clone()),
        [b"\x67\x44\x66\x98\0\0\0\x1c", COOKIE].concat(),
        "a simple error has no message"
    );
    assert_eq!(
        reply(&session(), &write, failure),
        [b"\x66\x8e\x33\xef\0\x01\x80\x01", COOKIE, b"\0\0\0\x0a\0\0\0\x1c\0\x04full"].concat()
    );
    let read = request(command::READ, 0, 0x1000, 5);
    let data = || Answer::Data(vec![Segment::Data(Bytes::from_static(b"hello"))]);
    assert_eq!(reply(&simple, &read, data()), [&done[..], b"hello"].concat());
    assert_eq!(
        reply(&session(), &read, data()),
        [b"\x66\x8e\x33\xef\0\x01\0\x01", COOKIE, b"\0\0\0\x0d\0\0\0\0\0\0\x10\0hello"].concat()
    );
    assert_eq!(
        reply(&session(), &request(command::READ, 0, 0, 0), Answer::Done),
        [b"\x66\x8e\x33\xef\0\x01\0\0", COOKIE, b"\0\0\0\0"].concat()
    );
    let status = request(command::BLOCK_STATUS, 0, 0, 4096);
    let hole = Extent { len_bytes: 1 << 40, hole: true, zero: true };
    assert_eq!(
        reply(&session(), &status, Answer::Extents(vec![hole])),
        [b"\x66\x8e\x33\xef\0\x01\0\x05", COOKIE, b"\0\0\0\x0c\0\0\0\x01\0\0\x10\0\0\0\0\x03"].concat()
    );
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let failure = Failure { errno: Errno::Io, message: "é".repeat(3000) + "x" };
    let bytes = reply(&session(), &request(command::WRITE, 0, 0, 1), Answer::Failed(failure));
    assert_eq!(bytes.len(), CHUNK_HEADER_LEN + 6 + STRING_MAX);
    std::str::from_utf8(&bytes[CHUNK_HEADER_LEN + 6..]).unwrap();
}

#[test]
fn an_answer_that_does_not_fit_the_request_is_an_error() {
    let read = request(command::READ, 0, 0, 100);
    for wrong in [vec![], vec![Segment::Zero(99)], vec![Segment::Zero(100), Segment::Data(Bytes::new())]] {
        let bytes = reply(&session(), &read, Answer::Data(wrong));
        assert_eq!(bytes[6..8], chunk::ERROR.to_be_bytes());
        assert_eq!(bytes[20..24], (Errno::Io as u32).to_be_bytes());
    }
    let status = request(command::BLOCK_STATUS, 0, 0, 100);
    let bytes = reply(&session(), &status, Answer::Extents(vec![]));
    assert_eq!(bytes[6..8], chunk::ERROR.to_be_bytes());
}

struct Chunk {
    flags: u16,
    kind: u16,
    payload: Vec<u8>,
}

fn chunks(mut bytes: &[u8]) -> Vec<Chunk> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes.get_u32(), STRUCTURED_REPLY_MAGIC);
        let (flags, kind) = (bytes.get_u16(), bytes.get_u16());
        assert_eq!(bytes[..8], *COOKIE);
        bytes.advance(8);
        let len = bytes.get_u32() as usize;
        found.push(Chunk { flags, kind, payload: bytes[..len].to_vec() });
        bytes.advance(len);
    }
    found
}

fn any_segments() -> impl Strategy<Value = Vec<Segment>> {
    let segment = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..3000).prop_map(|data| Segment::Data(data.into())),
        (1..200_000u32).prop_map(Segment::Zero),
        (1..600u32).prop_map(Segment::Zero),
    ];
    prop::collection::vec(segment, 1..8)
}

proptest! {
    #[test]
    fn chunks_hold_exactly_what_was_read(segments in any_segments(), offset in 0..SIZE, df in any::<bool>()) {
        let content: Vec<u8> = segments
            .iter()
            .flat_map(|segment| match segment {
                Segment::Data(data) => data.to_vec(),
                Segment::Zero(len) => vec![0; *len as usize],
            })
            .collect();
        let flags = if df { command_flag::DF } else { 0 };
        let read = request(command::READ, flags, offset, content.len() as u32);
        let simple = Session { structured: false, ..session() };
        let bytes = reply(&simple, &read, Answer::Data(segments.clone()));
        prop_assert!(bytes[SIMPLE_REPLY_LEN..] == content[..]);

        let found = chunks(&reply(&session(), &read, Answer::Data(segments)));
        prop_assert!(!df || found.len() == 1, "one chunk of content with DF");
        let mut got = Vec::new();
        for (place, chunk) in found.iter().enumerate() {
            prop_assert_eq!(chunk.flags == CHUNK_DONE, place + 1 == found.len());
            let mut payload = &chunk.payload[..];
            prop_assert_eq!(payload.get_u64(), offset + got.len() as u64, "chunks follow each other");
            match chunk.kind {
                chunk::OFFSET_DATA => {
                    prop_assert!(!payload.is_empty());
                    got.extend_from_slice(payload);
                }
                chunk::OFFSET_HOLE => {
                    let len = payload.get_u32();
                    prop_assert!(len > 0 && payload.is_empty());
                    got.resize(got.len() + len as usize, 0);
                }
                other => prop_assert!(false, "chunk of type {}", other),
            }
        }
        prop_assert!(got == content);
    }

    #[test]
    fn extents_stay_inside_the_request(
        extents in prop::collection::vec((1..1u64 << 34, any::<bool>(), any::<bool>()), 1..40),
        len in 1..u32::MAX,
        one in any::<bool>(),
    ) {
        let extents: Vec<Extent> =
            extents.into_iter().map(|(len_bytes, hole, zero)| Extent { len_bytes, hole, zero }).collect();
        let flags = if one { command_flag::REQ_ONE } else { 0 };
        let status = request(command::BLOCK_STATUS, flags, 0, len);
        let found = chunks(&reply(&session(), &status, Answer::Extents(extents.clone())));
        prop_assert_eq!(found.len(), 1);
        let mut payload = &found[0].payload[..];
        prop_assert_eq!(payload.get_u32(), allocation::ID);
        prop_assert!(!payload.is_empty() && (!one || payload.len() == 8));
        let (mut position, mut last) = (0u64, None);
        while !payload.is_empty() {
            let (here, status) = (payload.get_u32(), payload.get_u32());
            prop_assert!(here > 0 && last != Some(status), "neighbours differ");
            // The first byte of each descriptor is as the device said.
            let mut start = 0;
            let of = extents.iter().find(|extent| { start += extent.len_bytes; start > position }).unwrap();
            let expected = (u32::from(of.hole) * allocation::HOLE) | (u32::from(of.zero) * allocation::ZERO);
            prop_assert_eq!(status, expected);
            position += u64::from(here);
            last = Some(status);
        }
        prop_assert!(position <= u64::from(len));
    }

    #[test]
    fn any_request_is_judged(bytes in prop::array::uniform28(any::<u8>()), right_magic in any::<bool>(), low in any::<bool>()) {
        let mut bytes = bytes;
        if right_magic {
            bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        }
        if low {
            bytes[6] = 0;
            bytes[7] %= 10;
            bytes[16..20].fill(0);
        }
        let Ok(request) = Request::decode(&bytes) else { return Ok(()) };
        prop_assert!(request.cost_bytes() <= IN_FLIGHT_BYTES_MAX, "any one request fits");
        match session().judge(&request) {
            Ok(Command::Read { offset, len_bytes } | Command::Status { offset, len_bytes, .. }) => {
                prop_assert!(len_bytes > 0 && offset + u64::from(len_bytes) <= SIZE);
            }
            Ok(Command::Discard { offset, len_bytes, .. } | Command::WriteZeroes { offset, len_bytes, .. }) => {
                prop_assert!(len_bytes > 0 && offset + len_bytes <= SIZE);
            }
            Ok(Command::Write { offset, .. }) => {
                prop_assert!(request.len_bytes > 0 && offset + u64::from(request.len_bytes) <= SIZE);
            }
            Ok(_) | Err(_) => {}
        }
    }
}
