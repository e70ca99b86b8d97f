//! The core of OSDs, several of them in one process, with stores, a network, a monitor and clients that are simulated.
//!
//! `CAIRN_OSD_SEEDS=n` makes `storms` longer; `CAIRN_OSD_SEED=n CAIRN_OSD_TRACE=1 cargo test -p cairn-osd --test core
//! one_storm -- --nocapture` shows one.

mod purity;
mod rng;
mod store;
mod storm;
mod world;

use bytes::Bytes;
use cairn_osd::core::*;
use cairn_types::*;
use cairn_wire::op::*;
use cairn_wire::{ErrorCode, Payload};
use world::{MS, SECOND, World};

#[test]
fn what_is_written_is_read_and_on_every_copy() {
    let mut world = World::started(1, 3);
    let block: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    assert_eq!(world.write(1, "a", 0, &block).code, ErrorCode::OK);
    assert_eq!(world.write(1, "a", 4096, b"in the middle").code, ErrorCode::OK);
    let mut expected = block;
    expected[4096..4109].copy_from_slice(b"in the middle");
    assert_eq!(world.read(1, "a"), (ErrorCode::OK, expected));
    assert_eq!(world.read(1, "b").0, ErrorCode::NOENT);
    let (reply, _) = world.ask(1, "a", vec![OpKind::Delete], Payload::none());
    assert_eq!(reply.code, ErrorCode::OK);
    assert_eq!(world.read(1, "a").0, ErrorCode::NOENT);
    assert_eq!(world.write(1, "a", 0, b"anew").code, ErrorCode::OK);
    assert_eq!(world.read(1, "a"), (ErrorCode::OK, b"anew".to_vec()));
    world.check_copies();
}

#[test]
fn a_request_sent_again_is_done_once() {
    let mut world = World::started(2, 3);
    let data = Payload::of(0, Bytes::from_static(b"x"));
    let tid = world.call(1, "a", vec![OpKind::Append { len: 1 }], data);
    world.send_call(tid);
    world.run(SECOND);
    let first = world.calls[&tid].answer.clone().expect("an answer");
    world.calls.get_mut(&tid).expect("a call").answer = None;
    world.send_call(tid);
    world.run(SECOND);
    let again = world.calls[&tid].answer.clone().expect("an answer");
    assert_eq!((first.0.code, first.0.user_version), (again.0.code, again.0.user_version));
    assert_eq!(world.read(1, "a"), (ErrorCode::OK, b"x".to_vec()));
}

/// Logs once filled the index of a small store, which ended its OSD.
#[test]
fn logs_of_all_groups_fit_into_the_store_also_while_a_copy_is_away() {
    let mut world = World::new(5, 3);
    world.config.log_entries_least = 4;
    world.log_entries_max = 8 * 16;
    for osd in (0..3).map(OsdId) {
        world.start(osd);
    }
    assert!(world.run_until_clean(30), "{}", world.state());
    world.kill(OsdId(2), 4);
    for n in 0..400 {
        world.write(1, &format!("o{}", n % 40), 0, b"again");
    }
    let entries = |world: &World, osd: i32| -> usize {
        let groups = &world.nodes[&OsdId(osd)].store.durable.groups;
        groups.values().filter_map(|group| group.meta.as_ref()).map(|meta| meta.log.len()).sum()
    };
    for osd in 0..2 {
        let kept = entries(&world, osd);
        assert!((8 * 8..=8 * 17).contains(&kept), "osd.{osd} keeps {kept} entries");
    }
    // What the log no longer tells is found by comparing the copies.
    world.start(OsdId(2));
    assert!(world.run_until_clean(60), "{}", world.state());
    world.check_copies();
}

#[test]
fn blind_writes_follow_one_another_without_waiting() {
    let mut world = World::started(3, 3);
    world.write(1, "a", 0, b"");
    let tids: Vec<u64> = (0..20u8)
        .map(|n| world.call(1, "a", vec![OpKind::Append { len: 1 }], Payload::of(0, vec![n].into())))
        .collect();
    world.run(2 * SECOND);
    assert!(tids.iter().all(|tid| world.calls[tid].answer.is_some()));
    assert_eq!(
        world.read(1, "a").1,
        (0..20).collect::<Vec<u8>>(),
        "each at the end that the one before left"
    );
}

#[test]
fn a_killed_osd_is_noticed_and_recovers_by_its_log() {
    let mut world = World::started(4, 3);
    for n in 0..20 {
        world.write(1, &format!("o{n}"), 0, b"before");
    }
    let killed_at = world.now;
    world.kill(OsdId(1), 0);
    assert!(world.run_until(3, |world| !world.map().is_up(OsdId(1))), "its peers say so");
    assert!(world.now - killed_at < SECOND, "a refused connection is told at once");
    for n in 0..20 {
        assert_eq!(world.write(1, &format!("o{n}"), 3, b"after").code, ErrorCode::OK);
    }
    world.start(OsdId(1));
    world.check_copies();
    for n in 0..20 {
        assert_eq!(world.read(1, &format!("o{n}")).1, b"befafter");
    }
    let pushed: u64 =
        world.nodes.values().filter_map(|n| n.reports.last()).map(|r| r.counters.recovered_objects).sum();
    assert!(pushed >= 20, "{pushed} were recovered");
}

#[test]
fn a_silent_osd_is_noticed_after_the_grace() {
    let mut world = World::started(5, 3);
    world.nodes.get_mut(&OsdId(2)).expect("a node").isolated = true;
    let from = world.now;
    assert!(world.run_until(10, |world| !world.map().is_up(OsdId(2))));
    let took = world.now - from;
    assert!((2_500 * MS..4_000 * MS).contains(&took), "{took} us");
    world.nodes.get_mut(&OsdId(2)).expect("a node").isolated = false;
    world.change(|_| {});
    world.check_copies();
}

#[test]
fn an_osd_that_comes_anew_is_backfilled() {
    let mut world = World::started(6, 4);
    world.config.pg.log_min_entries = 10;
    for n in 0..100 {
        world.write(1, &format!("o{n}"), 0, format!("content {n}").as_bytes());
    }
    world.kill(OsdId(0), 4);
    assert!(world.run_until(5, |world| !world.map().is_up(OsdId(0))));
    world.change(|map| map.osds.get_mut(&OsdId(0)).expect("an OSD").weight = Weight::ZERO);
    for n in 0..100 {
        world.write(1, &format!("o{n}"), 8, format!("{n:03} later").as_bytes());
    }
    world.check_copies();
    // It comes back with its old copies, which the others have gone on from or given up.
    world.change(|map| map.osds.get_mut(&OsdId(0)).expect("an OSD").weight = Weight::ONE);
    world.start(OsdId(0));
    world.check_copies();
    for n in 0..100 {
        assert_eq!(world.read(1, &format!("o{n}")).1, format!("content {n:03} later").as_bytes());
    }
    let left = world.nodes.values().map(|node| node.store.durable.groups.len()).sum::<usize>();
    assert_eq!(left, 3 * 8, "copies that are not needed any more are removed");
}

#[test]
fn a_broken_connection_loses_nothing() {
    let mut world = World::started(7, 3);
    let mut tids = Vec::new();
    for n in 0..200u32 {
        let data = Payload::of(0, Bytes::from(vec![n as u8]));
        tids.push(world.call(1, &format!("o{}", n % 5), vec![OpKind::Append { len: 1 }], data));
        world.run(2 * MS);
        if n % 3 == 0 {
            world.break_some_conn();
        }
    }
    let epoch = world.map().epoch;
    assert!(world.run_until(10, |world| tids.iter().all(|tid| world.calls[tid].answer.is_some())));
    assert_eq!(world.map().epoch, epoch, "nobody was taken for dead");
    for o in 0..5u32 {
        let expected: Vec<u8> = (0..200).filter(|n| n % 5 == o).map(|n| n as u8).collect();
        let mut found = world.read(1, &format!("o{o}")).1;
        found.sort_unstable();
        assert_eq!(found, expected);
    }
    world.check_copies();
}

fn watch(timeout_ms: u32) -> Vec<OpKind> {
    vec![OpKind::Watch { cookie: 5, action: WatchAction::Watch { timeout_ms } }]
}

fn notify(timeout_ms: u32) -> Vec<OpKind> {
    vec![OpKind::Notify { payload: Bytes::from_static(b"hear"), timeout_ms }]
}

/// Who acknowledged with what, and who did not.
type Notified = (Vec<(u64, u64, Bytes)>, Vec<(u64, u64)>);

fn notified(reply: &OpReply) -> Notified {
    assert_eq!(reply.code, ErrorCode::OK);
    let OpOutput::Notified { acknowledged, missed } = &reply.results[0].output else { panic!("{reply:?}") };
    let heard = acknowledged.iter().map(|ack| (ack.client, ack.cookie, ack.reply.clone())).collect();
    (heard, missed.to_vec())
}

#[test]
fn watchers_are_notified_and_run_out() {
    let mut world = World::started(8, 3);
    world.write(1, "w", 0, b"header");
    for client in [2, 3] {
        assert_eq!(world.ask(client, "w", watch(20_000), Payload::none()).0.code, ErrorCode::OK);
    }
    let tid = world.call(1, "w", notify(5_000), Payload::none());
    assert!(world.run_until(1, |world| world.heard.len() == 2));
    // The notification does not hold up writes.
    assert_eq!(world.write(1, "w", 0, b"HEADER").code, ErrorCode::OK);
    for (_, conn, event) in std::mem::take(&mut world.heard) {
        assert!(matches!(&event.what, WatchNews::Notify { notifier: 1, payload, .. } if payload == "hear"));
        world.acknowledge(conn, &event, b"yes");
    }
    world.run(100 * MS);
    let (reply, _) = world.calls[&tid].answer.clone().expect("an answer");
    let yes = Bytes::from_static(b"yes");
    assert_eq!(notified(&reply), (vec![(2, 5, yes.clone()), (3, 5, yes)], vec![]));

    // One is gone: it is waited for as long as asked for, and named.
    world.disconnect_client(3);
    let from = world.now;
    let tid = world.call(1, "w", notify(700), Payload::none());
    assert!(world.run_until(1, |world| !world.heard.is_empty()));
    let (_, conn, event) = world.heard.remove(0);
    world.acknowledge(conn, &event, b"");
    assert!(world.run_until(2, |world| world.calls[&tid].answer.is_some()));
    assert!(world.now - from >= 700 * MS);
    let (reply, _) = world.calls[&tid].answer.clone().expect("an answer");
    assert_eq!(notified(&reply), (vec![(2, 5, Bytes::new())], vec![(3, 5)]));

    // Signs of life keep a watch; silence ends it, on every copy.
    for _ in 0..12 {
        world.run(2 * SECOND);
        let ping = vec![OpKind::Watch { cookie: 5, action: WatchAction::Ping }];
        assert_eq!(world.ask(2, "w", ping, Payload::none()).0.code, ErrorCode::OK);
    }
    let (reply, _) = world.ask(1, "w", vec![OpKind::ListWatchers], Payload::none());
    let OpOutput::Watchers(watchers) = &reply.results[0].output else { panic!("{reply:?}") };
    assert_eq!(watchers.iter().map(|watcher| watcher.client).collect::<Vec<_>>(), [2]);
    world.run(25 * SECOND);
    let ended = world.heard.pop().expect("the watcher is told");
    assert_eq!(ended.2.what, WatchNews::Ended);
    let ping = vec![OpKind::Watch { cookie: 5, action: WatchAction::Ping }];
    assert_eq!(world.ask(2, "w", ping, Payload::none()).0.code, ErrorCode::NOENT);
    world.check_copies();
}

#[test]
fn a_watch_outlives_its_primary() {
    let mut world = World::started(9, 3);
    world.write(1, "w", 0, b"header");
    world.ask(2, "w", watch(30_000), Payload::none());
    let primary = world.primary(&world.object("w")).expect("a primary");
    world.kill(primary, 4);
    assert!(world.run_until(5, |world| !world.map().is_up(primary)));
    // Its client has not come to the new primary yet: it is waited for, and told when it comes.
    let tid = world.call(1, "w", notify(10_000), Payload::none());
    world.run(2 * SECOND);
    assert!(world.calls[&tid].answer.is_none() && world.heard.is_empty());
    world.ask(2, "w", watch(30_000), Payload::none());
    assert!(world.run_until(1, |world| !world.heard.is_empty()));
    let (_, conn, event) = world.heard.remove(0);
    world.acknowledge(conn, &event, b"late");
    assert!(world.run_until(1, |world| world.calls[&tid].answer.is_some()));
}

#[test]
fn a_blocked_client_does_nothing_any_more() {
    let mut world = World::started(10, 3);
    world.write(2, "a", 0, b"mine");
    world.ask(2, "a", watch(30_000), Payload::none());
    let addr = EntityAddr { socket: "10.0.1.2:0".parse().expect("an address"), nonce: 2 };
    world.change(|map| {
        map.blocklist.insert(addr, Timestamp(u64::MAX));
    });
    assert_eq!(world.write(1, "a", 0, b"ours").code, ErrorCode::OK);
    assert_eq!(world.write(2, "a", 0, b"late").code, ErrorCode::BLOCKLISTED);
    assert_eq!(world.read(2, "a").0, ErrorCode::BLOCKLISTED);
    assert_eq!(world.read(1, "a"), (ErrorCode::OK, b"ours".to_vec()));
    world.run(2 * SECOND);
    let (reply, _) = world.ask(1, "a", vec![OpKind::ListWatchers], Payload::none());
    let OpOutput::Watchers(watchers) = &reply.results[0].output else { panic!("{reply:?}") };
    assert!(watchers.is_empty(), "its watch is ended");
}

#[test]
fn a_full_cluster_is_read_but_not_written() {
    let mut world = World::started(11, 3);
    world.write(1, "a", 0, b"there");
    world.change(|map| map.flags = map.flags.with(OsdFlag::Full, true));
    let reply = world.write(1, "a", 0, b"more");
    assert_eq!((reply.code, reply.results[0].code), (ErrorCode::NOSPC, ErrorCode::NOSPC));
    assert_eq!(world.read(1, "a").1, b"there");
    world.change(|map| map.flags = map.flags.with(OsdFlag::Full, false));
    assert_eq!(world.write(1, "a", 0, b"again").code, ErrorCode::OK);
}

/// Of 1 GiB, so much that less than two blocks are left below 97 %.
const FULL: u64 = (1 << 30) / 100 * 97 - 4_096;

#[test]
fn a_copy_that_is_full_is_asked_before_anything_is_written() {
    for full in (0..3).map(OsdId) {
        let mut world = World::started(18, 3);
        world.write(1, "a", 0, b"there");
        world.write(1, "b", 0, b"there");
        world.fill(full, FULL);
        world.run(2 * SECOND);
        // Its primary may be any of the three.
        let data = [7; 20_000];
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            assert_eq!(world.write(1, name, 0, &data).code, ErrorCode::NOSPC, "{name}, {full} is full");
        }
        assert_eq!(world.read(1, "a").1, b"there");
        assert_eq!(world.ask(1, "b", vec![OpKind::Delete], Payload::none()).0.code, ErrorCode::OK);
        world.check_copies();
        world.fill(full, 1 << 20);
        world.run(2 * SECOND);
        assert_eq!(world.write(1, "a", 0, &data).code, ErrorCode::OK);
    }
}

#[test]
fn an_object_waits_for_room_at_the_copy_that_misses_it() {
    let mut world = World::started(19, 3);
    world.kill(OsdId(2), 4);
    assert!(world.run_until(20, |world| !world.map().is_up(OsdId(2))));
    let data = [7; 20_000];
    assert_eq!(world.write(1, "a", 0, &data).code, ErrorCode::OK);
    // There is less room than recovery leaves.
    world.used_bytes.insert(OsdId(2), (1 << 30) / 1_000 * 986);
    world.start(OsdId(2));
    assert!(!world.run_until_clean(20));
    assert_eq!(world.nodes[&OsdId(2)].stopped, None);
    assert_eq!(world.read(1, "a").1, data);
    world.fill(OsdId(2), 1 << 20);
    assert!(world.run_until_clean(20), "{}", world.state());
    world.check_copies();
}

#[test]
fn what_was_carried_out_is_answered_so_although_the_cluster_is_full_by_now() {
    let mut world = World::started(11, 3);
    let data = Payload::of(0, Bytes::from_static(b"x"));
    let tid = world.call(1, "a", vec![OpKind::Append { len: 1 }], data);
    assert!(world.run_until(5, |world| world.calls[&tid].answer.is_some()));
    world.change(|map| map.flags = map.flags.with(OsdFlag::Full, true));
    // Its answer was lost with a connection, say.
    world.calls.get_mut(&tid).expect("a call").answer = None;
    world.send_call(tid);
    assert!(world.run_until(5, |world| world.calls[&tid].answer.is_some()));
    let (reply, _) = world.calls[&tid].answer.clone().expect("an answer");
    assert_eq!(reply.code, ErrorCode::OK);
    assert_eq!(world.read(1, "a").1, b"x");
}

#[test]
fn objects_of_a_group_are_listed_page_by_page() {
    let mut world = World::started(12, 3);
    let mut names: Vec<String> = (0..60).map(|n| format!("o{n}")).collect();
    names.retain(|name| world.pg_of(&world.object(name)).seed == 3);
    for name in &names {
        world.write(1, name, 0, b"x");
    }
    let any = names[0].clone();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (reply, _) = world.ask(1, &any, vec![OpKind::ListObjects { after, max: 3 }], Payload::none());
        let OpOutput::Listed { objects, next } = &reply.results[0].output else { panic!("{reply:?}") };
        assert!(objects.len() <= 3);
        found.extend(objects.iter().map(|object| object.name.clone()));
        after = next.clone();
        if after.is_none() {
            break;
        }
    }
    found.sort();
    names.sort();
    assert_eq!(found, names);
}

#[test]
fn an_osd_stops_in_good_order_and_says_so() {
    let mut world = World::started(13, 3);
    world.write(1, "a", 0, b"kept");
    let (from, up_from) = (world.now, world.map().osds[&OsdId(2)].up_from);
    world.drive(OsdId(2), Event::Stop);
    assert!(world.run_until(3, |world| world.nodes[&OsdId(2)].stopped.is_some()));
    assert_eq!(world.nodes[&OsdId(2)].stopped, Some(StopReason::Clean));
    assert!(world.now - from < 200 * MS, "the map says so at once");
    let (begin, end) = world.nodes[&OsdId(2)].store.durable.superblock.clean.expect("a clean interval");
    assert_eq!((begin, end), (up_from, world.map().osds[&OsdId(2)].down_at));
    world.start(OsdId(2));
    world.check_copies();
    assert_eq!(world.nodes[&OsdId(2)].store.durable.superblock.clean, None);
}

#[test]
fn one_wrongly_taken_for_dead_comes_back_by_itself() {
    let mut world = World::started(14, 3);
    world.write(1, "a", 0, b"kept");
    world.mark_down(OsdId(0));
    world.check_copies();
    assert!(world.map().is_up(OsdId(0)));
    assert_eq!(world.read(1, "a").1, b"kept");
}

#[test]
fn old_maps_are_forgotten_with_the_monitors() {
    let mut world = World::started(15, 3);
    for _ in 0..30 {
        world.change(|_| {});
        world.run(10 * MS);
    }
    world.oldest = world.map().epoch;
    for _ in 0..8 {
        world.change(|_| {});
        world.run(10 * MS);
    }
    world.run(SECOND);
    let kept = world.nodes[&OsdId(0)].store.durable.increments.len()
        + world.nodes[&OsdId(0)].store.durable.fulls.len();
    assert!(kept < 20, "{kept} are kept");
    world.kill(OsdId(0), 4);
    world.start(OsdId(0));
    world.check_copies();
}

#[test]
fn the_mgr_is_told() {
    let mut world = World::started(16, 3);
    for n in 0..30 {
        world.write(1, &format!("o{n}"), 0, &[7; 100]);
    }
    world.run(3 * SECOND);
    let reports: Vec<&OsdReport> = world.nodes.values().filter_map(|node| node.reports.last()).collect();
    let pgs: Vec<&PgReport> = reports.iter().flat_map(|report| &report.pgs).collect();
    assert_eq!((reports.len(), pgs.len()), (3, 8));
    assert_eq!(pgs.iter().map(|pg| pg.objects).sum::<u64>(), 30);
    assert_eq!(pgs.iter().map(|pg| pg.stored_bytes).sum::<u64>(), 3_000);
    assert!(pgs.iter().all(|pg| pg.state == PgState::ACTIVE | PgState::CLEAN && pg.counts.degraded == 0));
    assert_eq!(reports.iter().map(|report| report.counters.write_ops).sum::<u64>(), 30);
    assert_eq!(reports.iter().map(|report| report.counters.write_latency.count()).sum::<u64>(), 30);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut world = World::started(17, 3);
        storm::run(&mut world, 40);
        world.digest
    };
    assert_eq!(run(), run());
}
