//! Negotiation against the protocol's rules.

use super::*;
use proptest::prelude::*;

fn exports() -> Vec<ExportInfo> {
    let export = |name: &str, read_only| ExportInfo {
        name: name.to_owned(),
        description: format!("about {name}"),
        size_bytes: 1 << 30,
        read_only,
        block_min_bytes: 1,
        block_preferred_bytes: 4096,
    };
    vec![export("vms/a", false), export("vms/b", true)]
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(OPTION_MAGIC);
    bytes.put_u32(option);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.put_u32(text.len() as u32);
    out.put_slice(text);
}

fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    string(&mut data, name.as_bytes());
    data.put_u16(wanted.len() as u16);
    wanted.iter().for_each(|item| data.put_u16(*item));
    data
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    string(&mut data, name.as_bytes());
    data.put_u32(queries.len() as u32);
    queries.iter().for_each(|query| string(&mut data, query.as_bytes()));
    data
}

/// A reply of the server: option, type, data.
type Reply = (u32, u32, Vec<u8>);

fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes.get_u64(), OPTION_REPLY_MAGIC);
        let (option, kind, len) = (bytes.get_u32(), bytes.get_u32(), bytes.get_u32() as usize);
        found.push((option, kind, bytes[..len].to_vec()));
        bytes.advance(len);
    }
    found
}

struct Client {
    negotiation: Negotiation,
}

impl Client {
    fn new(tls: TlsMode) -> Self {
        let mut client = Client { negotiation: Negotiation::new(exports(), tls) };
        let (progress, out) = client.send(&3u32.to_be_bytes());
        assert_eq!((progress, out.len()), (Ok(Progress::More), 0));
        client
    }

    fn send(&mut self, bytes: &[u8]) -> (Result<Progress, Violation>, Vec<u8>) {
        let mut out = BytesMut::new();
        let progress = self.negotiation.receive(&mut BytesMut::from(bytes), &mut out);
        (progress, out.to_vec())
    }

    /// Sends an option that must not end the negotiation.
    fn ask(&mut self, kind: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let (progress, out) = self.send(&option(kind, data));
        assert_eq!(progress, Ok(Progress::More));
        replies(&out)
            .into_iter()
            .map(|(to, reply, data)| {
                assert_eq!(to, kind);
                (reply, data)
            })
            .collect()
    }

    fn refused(&mut self, kind: u32, data: &[u8]) -> u32 {
        let replies = self.ask(kind, data);
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert!(!replies[0].1.is_empty(), "an error says why");
        replies[0].0
    }
}

#[test]
fn the_greeting_is_that_of_the_protocol() {
    assert_eq!(&Negotiation::greeting(), b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn go_tells_what_was_asked_and_begins() {
    let mut client = Client::new(TlsMode::Off);
    assert_eq!(client.ask(option::STRUCTURED_REPLY, b""), [(reply::ACK, vec![])]);
    let (progress, out) = client.send(&option(option::GO, &go("vms/b", &[3, 1, 77, 2])));
    assert_eq!(progress, Ok(Progress::Transmit(Chosen { export: 1, structured: true, allocation: false })));
    let found = replies(&out);
    let kinds: Vec<u32> = found.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [reply::INFO, reply::INFO, reply::INFO, reply::INFO, reply::ACK]);
    let flags = flag::HAS_FLAGS
        | flag::READ_ONLY
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_DF
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    let mut export = vec![0, 0];
    export.put_u64(1 << 30);
    export.put_u16(flags);
    assert_eq!(found[0].2, export);
    assert_eq!(found[1].2, b"\x00\x01vms/b");
    assert_eq!(found[2].2, b"\x00\x02about vms/b");
    assert_eq!(found[3].2, [0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]);
}

#[test]
fn info_leaves_the_client_in_negotiation_and_an_empty_name_is_the_first_export() {
    let mut client = Client::new(TlsMode::Off);
    let replies = client.ask(option::INFO, &go("", &[info::NAME]));
    assert_eq!(replies.len(), 3);
    assert_eq!(replies[1].1, b"\x00\x01vms/a");
    assert_eq!(client.refused(option::INFO, &go("vms/c", &[])), reply::ERR_UNKNOWN);
    assert_eq!(client.refused(option::GO, &go("vms/c", &[])), reply::ERR_UNKNOWN);
}

#[test]
fn export_name_answers_with_or_without_padding_and_ends_in_silence() {
    for (flags, len) in [(3u32, 10), (1, 134), (0, 134)] {
        let mut client = Client { negotiation: Negotiation::new(exports(), TlsMode::Off) };
        client.send(&flags.to_be_bytes()).0.unwrap();
        let (progress, out) = client.send(&option(option::EXPORT_NAME, b"vms/a"));
        assert_eq!(
            progress,
            Ok(Progress::Transmit(Chosen { export: 0, structured: false, allocation: false }))
        );
        assert_eq!(out.len(), len);
        assert_eq!(out[..8], (1u64 << 30).to_be_bytes());
        assert_eq!(u16::from_be_bytes([out[8], out[9]]) & flag::SEND_DF, 0, "DF needs structured replies");
    }
    let mut client = Client::new(TlsMode::Off);
    assert_eq!(client.send(&option(option::EXPORT_NAME, b"x")), (Err(Violation::UnknownExport), vec![]));
}

#[test]
fn a_client_of_the_old_newstyle_may_only_name_an_export() {
    let mut client = Client { negotiation: Negotiation::new(exports(), TlsMode::Off) };
    client.send(&0u32.to_be_bytes()).0.unwrap();
    assert_eq!(client.send(&option(option::LIST, b"")).0, Err(Violation::NotFixedNewstyle(option::LIST)));
    let mut client = Client { negotiation: Negotiation::new(exports(), TlsMode::Off) };
    assert_eq!(client.send(&7u32.to_be_bytes()).0, Err(Violation::ClientFlags(7)));
}

#[test]
fn list_has_every_export_and_abort_is_acknowledged() {
    let mut client = Client::new(TlsMode::Off);
    let listed = client.ask(option::LIST, b"");
    assert_eq!(listed[0], (reply::SERVER, b"\x00\x00\x00\x05vms/aabout vms/a".to_vec()));
    assert_eq!(listed.len(), 3);
    assert_eq!(client.refused(option::LIST, b"x"), reply::ERR_INVALID);
    let (progress, out) = client.send(&option(option::ABORT, b"why not"));
    assert_eq!((progress, replies(&out)[0].1), (Ok(Progress::Aborted), reply::ACK));
}

#[test]
fn contexts_are_selected_for_one_export_and_forgotten_by_a_failure() {
    let mut client = Client::new(TlsMode::Off);
    let base = contexts("vms/a", &["x-none:y", "base:allocation"]);
    assert_eq!(client.refused(option::SET_META_CONTEXT, &base), reply::ERR_INVALID);
    client.ask(option::STRUCTURED_REPLY, b"");
    for (queries, count) in [(vec![], 1), (vec!["base:"], 1), (vec!["base:other", "qemu:"], 0)] {
        let listed = client.ask(option::LIST_META_CONTEXT, &contexts("vms/a", &queries));
        assert_eq!(listed.len(), count + 1, "{queries:?}");
    }
    for queries in [vec![], vec!["base:"]] {
        assert_eq!(client.ask(option::SET_META_CONTEXT, &contexts("vms/a", &queries)).len(), 1);
    }
    let set = client.ask(option::SET_META_CONTEXT, &base);
    assert_eq!(set[0], (reply::META_CONTEXT, b"\x00\x00\x00\x01base:allocation".to_vec()));

    let chosen = |client: &mut Client, name: &str| match client.send(&option(option::GO, &go(name, &[]))).0 {
        Ok(Progress::Transmit(chosen)) => chosen.allocation,
        other => panic!("{other:?}"),
    };
    let select = || {
        let mut client = Client::new(TlsMode::Off);
        client.ask(option::STRUCTURED_REPLY, b"");
        client.ask(option::SET_META_CONTEXT, &base);
        client
    };
    assert!(chosen(&mut select(), "vms/a"));
    assert!(!chosen(&mut select(), "vms/b"), "selected for another export");
    let mut client = select();
    assert_eq!(client.refused(option::SET_META_CONTEXT, &contexts("vms/c", &[])), reply::ERR_UNKNOWN);
    assert!(!chosen(&mut client, "vms/a"), "a failure drops what was selected");
}

#[test]
fn nothing_is_said_before_tls_and_nothing_is_kept_from_before_it() {
    let mut client = Client::new(TlsMode::Required);
    for (kind, data) in [
        (option::LIST, vec![]),
        (option::INFO, go("vms/a", &[])),
        (option::GO, go("vms/a", &[])),
        (option::STRUCTURED_REPLY, vec![]),
        (option::SET_META_CONTEXT, contexts("vms/a", &[])),
        (4711, vec![1; 5]),
        (option::LIST, vec![0; OPTION_LEN_MAX + 1]),
    ] {
        assert_eq!(client.refused(kind, &data), reply::ERR_TLS_REQD);
    }
    assert_eq!(client.refused(option::STARTTLS, b"x"), reply::ERR_INVALID);
    let (progress, out) = client.send(&option(option::STARTTLS, b""));
    assert_eq!((progress, replies(&out)[0].1), (Ok(Progress::StartTls), reply::ACK));
    client.negotiation.tls_established();
    assert_eq!(client.refused(option::STARTTLS, b""), reply::ERR_INVALID);
    let (progress, _) = client.send(&option(option::GO, &go("vms/a", &[])));
    assert_eq!(progress, Ok(Progress::Transmit(Chosen { export: 0, structured: false, allocation: false })));

    let mut client = Client::new(TlsMode::Required);
    assert_eq!(client.send(&option(option::EXPORT_NAME, b"vms/a")).0, Err(Violation::TlsRequired));
    let mut client = Client::new(TlsMode::Required);
    let mut injected = option(option::STARTTLS, b"");
    injected.extend(option(option::LIST, b""));
    assert_eq!(client.send(&injected).0, Err(Violation::DataBeforeTls));
    let mut client = Client::new(TlsMode::Off);
    assert_eq!(client.refused(option::STARTTLS, b""), reply::ERR_POLICY);
}

#[test]
fn unknown_and_long_options_are_refused_and_the_next_one_is_understood() {
    let mut client = Client::new(TlsMode::Off);
    assert_eq!(client.refused(11, b"abc"), reply::ERR_UNSUP);
    assert_eq!(client.refused(option::INFO, &vec![0; OPTION_SKIP_MAX]), reply::ERR_TOO_BIG);
    assert_eq!(client.ask(option::STRUCTURED_REPLY, b""), [(reply::ACK, vec![])]);
    let mut long = option(option::INFO, b"");
    long[12..16].copy_from_slice(&(OPTION_SKIP_MAX as u32 + 1).to_be_bytes());
    assert_eq!(client.send(&long).0, Err(Violation::OptionTooLong(OPTION_SKIP_MAX as u32 + 1)));
    let mut client = Client::new(TlsMode::Off);
    assert_eq!(client.send(&[7; 16]).0, Err(Violation::OptionMagic(0x0707_0707_0707_0707)));
    let mut client = Client::new(TlsMode::Off);
    for _ in 0..OPTIONS_MAX {
        client.ask(option::LIST, b"");
    }
    assert_eq!(client.send(&option(option::LIST, b"")).0, Err(Violation::TooManyOptions));
}

#[test]
fn malformed_data_is_invalid() {
    let mut client = Client::new(TlsMode::Off);
    client.ask(option::STRUCTURED_REPLY, b"");
    let mut long_name = Vec::new();
    string(&mut long_name, &[b'a'; STRING_MAX + 1]);
    long_name.put_u16(0);
    let mut no_text = Vec::new();
    string(&mut no_text, &[0xff, 0xfe]);
    no_text.put_u16(0);
    let mut tail = go("vms/a", &[1]);
    tail.push(0);
    for data in [&b""[..], &[0, 0, 0, 9, b'a', 0, 0], &[0, 0, 0, 0, 0, 2, 0, 1], &long_name, &no_text, &tail]
    {
        assert_eq!(client.refused(option::INFO, data), reply::ERR_INVALID, "{data:?}");
    }
    let mut many = contexts("vms/a", &[]);
    let count = many.len() - 4;
    many[count..].copy_from_slice(&u32::MAX.to_be_bytes());
    for data in [&b""[..], &many, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, b'b']] {
        assert_eq!(client.refused(option::SET_META_CONTEXT, data), reply::ERR_INVALID, "{data:?}");
    }
}

/// Options that are nearly right, and some that are not at all.
fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["", "vms/a", "vms/b", "no such"]);
    let query = prop::sample::select(vec!["base:", "base:allocation", "qemu:x", "no colon"]);
    let kind = prop_oneof![1..12u32, any::<u32>()];
    prop_oneof![
        4 => (prop::sample::select(vec![6u32, 7]), name.clone(), prop::collection::vec(0..5u16, 0..5))
            .prop_map(|(kind, name, wanted)| option(kind, &go(name, &wanted))),
        4 => (9..11u32, name, prop::collection::vec(query, 0..4))
            .prop_map(|(kind, name, queries)| option(kind, &contexts(name, &queries))),
        4 => (1..12u32).prop_map(|kind| option(kind, b"")),
        2 => (kind, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(kind, data)| option(kind, &data)),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    /// However the bytes are cut, the answers are the same, and they are replies as the protocol has them.
    #[test]
    fn any_bytes_are_answered_alike_however_they_arrive(
        options in prop::collection::vec(any_option(), 0..12),
        flags in prop::sample::select(vec![0u32, 1, 3, 3, 3, 9]),
        tls in prop::sample::select(vec![TlsMode::Off, TlsMode::Required, TlsMode::Established]),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        steps in prop::collection::vec(1..50usize, 1..20),
    ) {
        let mut bytes = flags.to_be_bytes().to_vec();
        options.iter().for_each(|option| bytes.extend(option));
        if let Some((place, value)) = damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let run = |mut steps: Box<dyn Iterator<Item = usize>>| {
            let mut negotiation = Negotiation::new(exports(), tls);
            let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
            let mut rest = &bytes[..];
            loop {
                let here = steps.next().unwrap().min(rest.len());
                input.put_slice(&rest[..here]);
                rest.advance(here);
                let progress = negotiation.receive(&mut input, &mut out);
                let over = rest.is_empty() || progress != Ok(Progress::More);
                if over {
                    return (progress, out.to_vec());
                }
            }
        };
        let whole = run(Box::new(std::iter::repeat(usize::MAX)));
        // Data behind STARTTLS is only seen when it is there already.
        if whole.0 != Err(Violation::DataBeforeTls) {
            let cut = run(Box::new(steps.into_iter().cycle()));
            prop_assert_eq!(&cut, &whole);
        }
        let (progress, out) = whole;
        let named = matches!(progress, Ok(Progress::Transmit(_))) && !out.ends_with(&reply_ack());
        if !named {
            replies(&out);
        }
    }
}

fn reply_ack() -> Vec<u8> {
    let mut out = BytesMut::new();
    put_reply(&mut out, option::GO, reply::ACK, &[]);
    out.to_vec()
}
