//! Rules of vectors, one by one.

use super::harness::{Cluster, object, request, sender};
use crate::object::{Executed, Fault, ObjectState, Stamp, Supplied, View, WatchChange, execute, kind_of};
use bytes::Bytes;
use cairn_pg::OpKind as Kind;
use cairn_types::{SnapId, Timestamp};
use cairn_wire::op::{OBJECT_LEN_MAX, Op, OpKind, OpOutput, SnapContext, WatchAction, XATTR_LEN_MAX};
use cairn_wire::{ErrorCode, Payload, Segment};

fn xattr(name: &str, len: usize) -> OpKind {
    OpKind::SetXattr { name: name.to_owned(), value: vec![1; len].into() }
}

#[test]
fn nothing_remains_of_a_vector_that_fails() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let ops = vec![
        OpKind::Write { offset: 0, len: 3 }.into(),
        OpKind::GetXattr { name: "none".to_owned() }.into(),
        OpKind::Truncate { size: 1 }.into(),
    ];
    let outcome = cluster.run(&id, ops.clone(), Payload::of(0, Bytes::from_static(b"abc")));
    assert_eq!(outcome.code, ErrorCode::NODATA);
    assert_eq!(outcome.results.len(), 2);
    assert!(!cluster.state(&id).exists());
    let mut ops: Vec<Op> = ops;
    ops[1].fail_ok = true;
    let outcome = cluster.run(&id, ops, Payload::of(0, Bytes::from_static(b"abc")));
    let codes: Vec<_> = outcome.results.iter().map(|result| result.code).collect();
    assert_eq!(codes, [ErrorCode::OK, ErrorCode::NODATA, ErrorCode::OK]);
    assert_eq!(cluster.content(&id), "a");
}

/// A store refuses to take out more than it can at once, and an OSD whose store refuses a change ends.
#[test]
fn a_range_of_more_entries_than_one_change_may_take_out_is_refused() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let key = |n: u32| Bytes::from(format!("{n:05}"));
    for first in (0..3_000).step_by(1_000) {
        let entries = (first..first + 1_000).map(|n| (key(n), Bytes::new())).collect();
        cluster.ok(&id, OpKind::OmapSet { entries });
    }
    let range = |first, end| OpKind::OmapRemoveRange { first: key(first), end: key(end) };
    assert_eq!(cluster.one(&id, range(0, 3_000)).code, ErrorCode::OVERFLOW);
    assert_eq!(cluster.omap(&id).len(), 3_000);
    cluster.ok(&id, range(1_000, 2_000));
    cluster.ok(&id, range(0, 100));
    assert_eq!(cluster.omap(&id).len(), 1_900);
    // Those between are gone: what is left of the range is few enough.
    cluster.ok(&id, range(500, 2_500));
    assert_eq!(cluster.omap(&id).len(), 900);
}

#[test]
fn a_difference_says_where() {
    let mut cluster = Cluster::new();
    let id = object("o");
    cluster.write(&id, 0, "abcdef");
    for (data, offset, expected) in [("abX", 0, Some(2)), ("ef\0\0", 4, None), ("ef\0x", 4, Some(3))] {
        let ops = vec![OpKind::CompareExtent { offset, len: data.len() as u64 }.into()];
        let outcome = cluster.run(&id, ops, Payload::of(offset, data.into()));
        let output = expected.map_or(OpOutput::None, OpOutput::Number);
        assert_eq!(outcome.results[0].output, output, "{data}");
        let code = if expected.is_some() { ErrorCode::CANCELED } else { ErrorCode::OK };
        assert_eq!(outcome.code, code);
    }
}

#[test]
fn versions_grow_over_a_removal() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let first = cluster.write(&id, 0, "a").user_version;
    assert_eq!(cluster.ok(&id, OpKind::Stat).user_version, first);
    cluster.ok(&id, OpKind::AssertVersion { version: first });
    let code = cluster.one(&id, OpKind::AssertVersion { version: first - 1 }).code;
    assert_eq!(code, ErrorCode::RANGE);
    let code = cluster.one(&id, OpKind::AssertVersion { version: first + 1 }).code;
    assert_eq!(code, ErrorCode::OVERFLOW);
    let watch = OpKind::Watch { cookie: 1, action: WatchAction::Watch { timeout_ms: 30_000 } };
    assert_eq!(cluster.ok(&id, watch).user_version, first);
    let removed = cluster.ok(&id, OpKind::Delete).user_version;
    assert!(removed > first);
    assert_eq!(cluster.one(&id, OpKind::Stat).code, ErrorCode::NOENT);
    assert!(cluster.write(&id, 0, "a").user_version > removed);
}

#[test]
fn an_object_stays_within_its_bounds() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let fbig = ErrorCode(-27);
    assert_eq!(cluster.write(&id, OBJECT_LEN_MAX - 1, "ab").code, fbig);
    assert_eq!(cluster.write(&id, u64::MAX, "ab").code, fbig);
    assert_eq!(cluster.write(&id, OBJECT_LEN_MAX - 2, "ab").code, ErrorCode::OK);
    let append = vec![OpKind::Append { len: 1 }.into()];
    assert_eq!(cluster.run(&id, append, Payload::of(0, "a".into())).code, fbig);
    assert_eq!(cluster.one(&id, OpKind::Truncate { size: OBJECT_LEN_MAX + 1 }).code, fbig);
    assert_eq!(cluster.one(&id, xattr("a", XATTR_LEN_MAX + 1)).code, ErrorCode::OVERFLOW);
    cluster.ok(&id, xattr("a", 50_000));
    assert_eq!(cluster.one(&id, xattr("b", 10_000)).code, ErrorCode::OVERFLOW);
    cluster.ok(&id, xattr("a", 40_000));
    cluster.ok(&id, xattr("b", 10_000));
    // As many watches as there may be still fit beside.
    for cookie in 0..129 {
        let action = WatchAction::Watch { timeout_ms: 30_000 };
        let code = cluster.one(&id, OpKind::Watch { cookie, action }).code;
        assert_eq!(code, if cookie < 128 { ErrorCode::OK } else { ErrorCode::NOSPC });
    }
    let read =
        vec![OpKind::Read { offset: 0, len: 0 }.into(), OpKind::Read { offset: 0, len: 2 << 20 }.into()];
    assert_eq!(cluster.run(&id, read, Payload::none()).code, ErrorCode::OVERFLOW);
}

#[test]
fn a_payload_must_be_what_the_vector_says() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let write = || vec![OpKind::Write { offset: 0, len: 3 }.into()];
    for payload in [Payload::none(), Payload::of(0, "ab".into())] {
        assert_eq!(cluster.run(&id, write(), payload).code, ErrorCode::INVAL);
    }
    let mut two = Payload::of(0, "abc".into());
    two.push(Segment::new(0, "abc".into()).unwrap());
    assert_eq!(cluster.run(&id, write(), two).code, ErrorCode::INVAL);
}

#[test]
fn watches_begin_live_and_end() {
    let mut cluster = Cluster::new();
    let id = object("o");
    let watch = |cookie, action| OpKind::Watch { cookie, action };
    let begin = WatchAction::Watch { timeout_ms: 30_000 };
    assert_eq!(cluster.one(&id, watch(5, begin)).code, ErrorCode::NOENT);
    cluster.ok(&id, OpKind::Create { exclusive: true });
    assert_eq!(cluster.one(&id, watch(5, WatchAction::Ping)).code, ErrorCode::NOENT);
    let begun = cluster.ok(&id, watch(5, begin));
    let watcher = cluster.state(&id).watchers()[0].clone();
    assert_eq!((watcher.client, watcher.cookie, watcher.timeout_ms), (4100, 5, 30_000));
    assert_eq!(begun.watch, [WatchChange::Begun(watcher.clone())]);
    let alive = [WatchChange::Alive { client: 4100, cookie: 5 }];
    for action in [begin, WatchAction::Ping] {
        let outcome = cluster.ok(&id, watch(5, action));
        assert_eq!(outcome.watch, alive);
        assert!(outcome.change.is_none());
    }
    cluster.client = 4200;
    cluster.ok(&id, watch(5, begin));
    let listed = cluster.ok(&id, OpKind::ListWatchers);
    let OpOutput::Watchers(watchers) = &listed.results[0].output else { panic!() };
    assert_eq!(watchers.len(), 2);
    let ended = cluster.ok(&id, watch(5, WatchAction::Unwatch));
    assert!(matches!(ended.watch[..], [WatchChange::Ended { is_removal: false, .. }]));
    assert!(cluster.ok(&id, watch(5, WatchAction::Unwatch)).change.is_none());
    let removed = cluster.ok(&id, OpKind::Delete);
    assert_eq!(removed.watch, [WatchChange::Ended { watcher, is_removal: true }]);
    // What begins and ends in one vector, and what fails, leaves nothing.
    cluster.ok(&id, OpKind::Create { exclusive: true });
    let both = vec![watch(1, begin).into(), watch(1, WatchAction::Unwatch).into()];
    assert!(cluster.run(&id, both, Payload::none()).change.is_none());
    let failing = vec![watch(1, begin).into(), OpKind::Create { exclusive: true }.into()];
    let failed = cluster.run(&id, failing, Payload::none());
    assert_eq!((failed.code, failed.watch.len()), (ErrorCode::EXIST, 0));
}

#[test]
fn the_kind_is_that_of_its_operations() {
    let id = object("o");
    let call = |class: &str, method: &str| OpKind::Call {
        class: class.to_owned(),
        method: method.to_owned(),
        input: Bytes::new(),
    };
    let write = || OpKind::Write { offset: 0, len: 1 };
    for (ops, expected) in [
        (vec![OpKind::Stat], Ok(Kind::Read)),
        (vec![write(), xattr("a", 1)], Ok(Kind::Write)),
        (vec![OpKind::Stat, write()], Ok(Kind::ReadWrite)),
        (vec![OpKind::Delete], Ok(Kind::ReadWrite)),
        (vec![call("rbd", "get_size")], Ok(Kind::Read)),
        (vec![call("rbd", "set_size")], Ok(Kind::ReadWrite)),
        (vec![call("rbd", "none")], Err(ErrorCode::OPNOTSUPP)),
        (vec![], Err(ErrorCode::INVAL)),
        (vec![OpKind::Stat; 65], Err(ErrorCode::INVAL)),
        (vec![xattr("", 1)], Err(ErrorCode::INVAL)),
        (vec![xattr(&"n".repeat(256), 1)], Err(ErrorCode(-36))),
        (vec![OpKind::Notify { payload: Bytes::new(), timeout_ms: 1 }, write()], Err(ErrorCode::INVAL)),
    ] {
        let ops = ops.into_iter().map(Op::from).collect();
        assert_eq!(kind_of(&request(&id, ops)), expected);
    }
    let mut snapped = request(&id, vec![write().into()]);
    snapped.snaps = SnapContext { seq: 1, ids: vec![SnapId(1)].into() };
    assert_eq!(kind_of(&snapped), Err(ErrorCode::OPNOTSUPP));
    snapped.ops = vec![OpKind::Stat.into()].into();
    assert_eq!(kind_of(&snapped), Ok(Kind::Read));
    snapped.object.snap = SnapId(1);
    assert_eq!(kind_of(&snapped), Err(ErrorCode::OPNOTSUPP));
}

#[test]
fn what_is_lacking_is_asked_for_together() {
    let mut cluster = Cluster::new();
    let id = object("o");
    cluster.write(&id, 0, vec![1; 10_000]);
    let get = |key: &'static str| OpKind::OmapGetValsByKeys { keys: vec![Bytes::from(key)].into() };
    let read = OpKind::Read { offset: 4096, len: 4096 };
    let ops = vec![get("a").into(), read.into(), get("b").into()];
    let outcome = cluster.run(&id, ops, Payload::none());
    assert_eq!(outcome.code, ErrorCode::OK);
    // The state, then all else.
    assert_eq!(outcome.rounds, 2);
    assert_eq!(outcome.data.segments()[0].data().len(), 4096);
}

#[test]
fn a_write_to_a_known_object_asks_for_nothing_and_copies_nothing() {
    let mut cluster = Cluster::new();
    let id = object("o");
    cluster.write(&id, 0, vec![1; 8192]);
    let view = View::of(cluster.state(&id));
    let data = Bytes::from(vec![2; 4096]);
    let payload = Payload::of(4096, data.clone());
    let request = request(&id, vec![OpKind::Write { offset: 4096, len: 4096 }.into()]);
    let stamp = Stamp { now: Timestamp(1), user_version: 1_000 };
    let Executed::Write { change, after, user_version, .. } =
        execute(&request, &payload, &sender(1), &view, &stamp)
    else {
        panic!()
    };
    assert_eq!(user_version, 1_000);
    assert_eq!(change.data.segments()[0].data().as_ptr(), data.as_ptr());
    assert!(change.meta.len() < 64, "{}", change.meta.len());
    assert_eq!((after.size(), after.info().user_version), (8192, 1_000));
}

#[test]
fn what_cannot_be_read_fails_the_vector() {
    let id = object("o");
    let run = |view: &View| {
        let request = request(&id, vec![OpKind::Read { offset: 0, len: 1 }.into()]);
        let stamp = Stamp { now: Timestamp(1), user_version: 1 };
        execute(&request, &Payload::none(), &sender(1), view, &stamp)
    };
    let mut view = View::new();
    assert!(matches!(run(&view), Executed::Faults(faults) if faults[..] == [Fault::Attrs]));
    view.supply(&Fault::Attrs, Supplied::Unreadable);
    assert!(matches!(run(&view), Executed::Read { code: ErrorCode::IO, .. }));
    let view = View::of(ObjectState::absent());
    assert!(matches!(run(&view), Executed::Read { code: ErrorCode::NOENT, user_version: 0, .. }));
}
