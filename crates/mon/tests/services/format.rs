//! The bytes of log entries and states, as `docs/format/mon-log.md` has them.

use crate::support::{Cluster, addr, create, make_pool};
use cairn_mon::monitor::{
    CallTag, Entry, FormatError, Origin, decode_entry, decode_state, encode_entry, encode_state,
};
use cairn_mon::service::{Draft, MonCommand, Once, Request};
use cairn_paxos::{MonId, Payload};
use cairn_wire::RequestId;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn session_entry() -> Entry {
    let cluster = Cluster::new();
    let mut draft = Draft::new(&cluster.state, cluster.now);
    let once = Once { id: RequestId { client: 5, incarnation: 6, tid: 7 }, born: 0 };
    let reply = draft.run_once(once, &Request::Session).expect("a session");
    let origin = Origin { mon: MonId(2), run: 0x1122, tag: CallTag(9) };
    Entry { transaction: draft.finish().expect("a change"), answers: vec![(origin, reply)] }
}

#[test]
fn an_entry_has_the_bytes_of_the_document() {
    let bytes = encode_entry(&session_entry()).expect("it is small");
    let golden = [
        "0200",             // form 2
        "0100000000000000", // version 1
        "0068e5cf8b010000", // made
        "000000",           // no OSD, monitor or mgr map
        "0000000000000000", // no records of OSDs
        "0000000000000000", // nobody shut out
        "0000000000000000", // no settings
        "0000000000000000", // no entities
        "00",               // no trimming
        "01",
        "0100000000000000", // last client 1
        "0100000000000000", // one request to remember
        "0500000000000000",
        "06000000",
        "0700000000000000", // its id
        "01000000",
        "0100000000000000", // Reply::Session 1
        "0100000000000000", // one answer
        "02000000",
        "2211000000000000",
        "0900000000000000", // for mon.2, its run and tag
        "01000000",
        "0100000000000000", // Reply::Session 1
    ];
    assert_eq!(hex(bytes.as_slice()), golden.concat());
    assert_eq!(decode_entry(&bytes).expect("it reads"), session_entry());
}

#[test]
fn a_monitor_map_has_the_bytes_of_the_document() {
    let cluster = Cluster::new();
    let mut draft = Draft::new(&cluster.state, cluster.now);
    let command = MonCommand::Add { name: "d".to_owned(), addrs: vec![addr(3303, 0)] };
    draft.run(&Request::Mon(command)).expect("it joins");
    let transaction = draft.finish().expect("a change");
    let bytes = encode_entry(&Entry { transaction, answers: Vec::new() }).expect("it is small");
    let text = hex(bytes.as_slice());
    let addr = |port: &str| format!("000000000a000001{port}0000000000000000");
    let mon = |id: &str, port: &str| format!("{id}0000000100000000000000{}", addr(port));
    let golden = [
        "0200",             // form 2
        "0100000000000000", // version 1
        "0068e5cf8b010000", // made
        "00",               // no OSD map
        "01",               // a monitor map
        "02000000",         // epoch 2
        &"03".repeat(16),   // cluster
        "0068e5cf8b010000", // made
        "0068e5cf8b010000", // changed
        "04000000",         // next number
        "0300000000000000", // three monitors
        &format!("010000000000000061{}", mon("00", "e40c")),
        &format!("010000000000000062{}", mon("01", "e50c")),
        &format!("010000000000000063{}", mon("02", "e60c")),
        "01",       // a change
        "00000000", // joins
        &format!("010000000000000064{}", mon("03", "e70c")),
        "00", // no mgr map
    ];
    assert!(text.starts_with(&golden.concat()), "{text}");
}

#[test]
fn what_is_cut_longer_or_of_another_version_is_refused() {
    let bytes = encode_entry(&session_entry()).expect("it is small").as_slice().to_vec();
    for len in 0..bytes.len() {
        assert!(decode_entry(&Payload::from(&bytes[..len])).is_err(), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(decode_entry(&longer.into()), Err(FormatError::Trailing { left: 1 })));
    let mut newer = bytes;
    newer[0] = 3;
    assert!(matches!(decode_entry(&newer.into()), Err(FormatError::Version { found: 3, known: 2 })));
}

#[test]
fn a_state_is_read_back() {
    let mut cluster = Cluster::usual();
    cluster.ok(create(3, "n4"));
    cluster.ok(make_pool("more"));
    let bytes = encode_state(&cluster.state);
    assert_eq!(decode_state(&bytes).expect("it reads"), cluster.state);
    let cut = Payload::from(&bytes.as_slice()[..bytes.as_slice().len() - 1]);
    assert!(decode_state(&cut).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_are_refused_or_read_and_never_more(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let cluster = Cluster::usual();
        let entry = encode_entry(&session_entry()).expect("it is small");
        for bytes in [entry, encode_state(&cluster.state)] {
            let mut bytes = bytes.as_slice().to_vec();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let payload = Payload::from(bytes);
            let _ = decode_entry(&payload);
            if let Ok(state) = decode_state(&payload) {
                prop_assert_eq!(decode_state(&encode_state(&state)).expect("what is written is read"), state);
            }
        }
    }
}
