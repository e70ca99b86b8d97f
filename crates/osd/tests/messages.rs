//! Messages between OSDs: what goes in comes out, and what cannot be is refused.

use bytes::Bytes;
use cairn_osd::core::{Amount, Credit, PeerMessage, Received};
use cairn_osd::message::{GroupMessage, KINDS, PeerMessageError, from_frame, to_frame};
use cairn_pg::{Blob, Body, EntryKind, LogEntry, LogSegment, Message, MissingItem, ObjectKey, Version};
use cairn_types::{Epoch, ObjectId, PgId, PoolId, SnapId};
use cairn_wire::op::{OBJECT_NAME_LEN_MAX, Ping, Pong};
use cairn_wire::{Frame, Lane, Payload};
use proptest::prelude::*;

const PG: PgId = PgId { pool: PoolId(3), seed: 1 };

fn object(pool: i64, name: &str) -> ObjectKey {
    let (namespace, key) = (String::new(), String::new());
    ObjectKey::new(ObjectId {
        pool: PoolId(pool),
        hash: 7,
        namespace,
        key,
        name: name.to_owned(),
        snap: SnapId::HEAD,
    })
}

fn v(version: u64) -> Version {
    Version { epoch: Epoch(4), version }
}

fn entry(version: u64, object: ObjectKey) -> LogEntry {
    let result = Bytes::from_static(b"answer");
    LogEntry {
        version: v(version),
        prior_version: v(0),
        object,
        kind: EntryKind::Modify,
        request: None,
        result,
    }
}

fn group(body: Body) -> PeerMessage {
    PeerMessage::Group { seq: 9, pgid: PG, message: Message { epoch: Epoch(4), body } }
}

fn rep_op(follows: u64, entries: Vec<LogEntry>, payload: Option<Blob>) -> PeerMessage {
    group(Body::RepOp { follows: v(follows), entries, payload, trim_to: v(0), committed_to: v(0) })
}

fn redo(follows: u64, entries: Vec<LogEntry>, data: Option<Blob>) -> PeerMessage {
    group(Body::Redo { follows: v(follows), entries, data, trim_to: v(0), committed_to: v(0) })
}

fn activated(object: ObjectKey, undone: Vec<LogEntry>) -> PeerMessage {
    let item = MissingItem { undone, ..MissingItem::new(v(1), v(2)) };
    group(Body::Activated { last_update: v(1), missing: vec![(object, item)] })
}

fn refusal(lane: Lane, message: PeerMessage) -> String {
    from_frame(lane, to_frame(message).unwrap()).unwrap_err().to_string()
}

#[test]
fn messages_come_back_with_their_bulk() {
    let data = Payload::of(4096, Bytes::from(vec![5; 10_000]));
    let blob = Blob { meta: Bytes::from_static(b"change"), data };
    let push = Body::Push { object: object(3, "a"), version: v(1), data: blob.clone() };
    let received = Received { client: 3, recovery: 4 };
    let limit = Amount { data: 1 << 40, index: 5 };
    let credit = Credit { seq: 7, limit, most: Amount { data: 6, index: 0 } };
    for (lane, message) in [
        (Lane::Client, rep_op(1, vec![entry(2, object(3, "a"))], Some(blob.clone()))),
        (Lane::Client, redo(1, vec![entry(2, object(3, "a")), entry(4, object(3, "a"))], Some(blob))),
        (Lane::Client, redo(1, vec![entry(2, object(3, "a"))], None)),
        (Lane::Client, rep_op(1, vec![entry(2, object(3, "a"))], None)),
        (Lane::Recovery, group(push)),
        (Lane::Client, group(Body::QueryInfo)),
        (Lane::Client, activated(object(3, "a"), vec![entry(2, object(3, "a"))])),
        (Lane::Control, PeerMessage::Welcome { received, credit }),
        (Lane::Control, PeerMessage::Ack { received, credit }),
        (Lane::Control, PeerMessage::Heard { credit: 7 }),
        (Lane::Control, PeerMessage::Ping(Ping { seq: 1, epoch: Epoch(2) })),
        (Lane::Control, PeerMessage::Pong(Pong { seq: 1, epoch: Epoch(2) })),
    ] {
        assert_eq!(from_frame(lane, to_frame(message.clone()).unwrap()).unwrap(), message);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let long = object(3, &"x".repeat(OBJECT_NAME_LEN_MAX + 1));
    let segment = |head, entries| LogSegment { tail: v(1), head: v(head), entries };
    let log = |segment| {
        let info = cairn_pg::PgInfo::new(PG, Epoch(1), Epoch(1));
        group(Body::Log { info, segment })
    };
    let a = || object(3, "a");
    for (message, why) in [
        (rep_op(2, vec![entry(2, a())], None), "its entries are not in order"),
        (rep_op(2, vec![], None), "its entries are not in order"),
        (rep_op(1, vec![entry(2, object(4, "a"))], None), "an object that the group cannot have"),
        (rep_op(1, vec![entry(2, long)], None), "an object that the group cannot have"),
        (redo(2, vec![entry(2, a())], None), "its entries are not in order"),
        (redo(1, vec![], None), "its entries are not in order"),
        (redo(1, vec![entry(2, a()), entry(3, object(3, "b"))], None), "its entries are not in order"),
        (redo(1, vec![entry(2, object(4, "a"))], None), "an object that the group cannot have"),
        (activated(a(), vec![entry(3, a()), entry(2, a())]), "what it took back is not in order"),
        (activated(a(), vec![entry(2, object(3, "b"))]), "what it took back is not in order"),
        (log(segment(3, vec![entry(3, a()), entry(2, a())])), "its log is not in order"),
        (log(segment(9, vec![entry(2, a())])), "its log is not in order"),
        (
            group(Body::Info {
                info: cairn_pg::PgInfo::new(PgId { seed: 2, ..PG }, Epoch(1), Epoch(1)),
                leases: Vec::new(),
            }),
            "its info is of another group",
        ),
    ] {
        let said = refusal(Lane::Client, message);
        assert!(said.contains(why), "{said}");
    }
    assert!(refusal(Lane::Control, group(Body::QueryInfo)).contains("control lane"));
    let message =
        GroupMessage { seq: 1, pgid: PG, message: Message { epoch: Epoch(1), body: Body::QueryInfo } };
    let stray = Frame::new(&message, Payload::of(0, Bytes::from_static(b"stray"))).unwrap();
    assert!(matches!(from_frame(Lane::Client, stray), Err(PeerMessageError::StrayPayload { len: 5 })));
    let other = Frame::new(&cairn_wire::KeepAlive {}, Payload::none()).unwrap();
    assert!(matches!(from_frame(Lane::Control, other), Err(PeerMessageError::Kind(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damaged bytes of every kind: an error or a message with one encoding, never a panic.
    #[test]
    fn decoders_bear_anything(
        kind in 0..KINDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let entry = &KINDS[kind];
        let mut bytes = (entry.sample)().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(again) = (entry.round_trip)(&bytes)
            && bytes[..2] == [entry.version, entry.oldest_reader]
        {
            prop_assert_eq!(&again[..], &bytes[..]);
        }
    }
}
