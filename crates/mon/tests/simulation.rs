//! Three and five monitors under loss, delay, reordering, duplication, cuts and power cuts, from a seed.
//! `CAIRN_MON_SEEDS=N` runs more seeds, `CAIRN_MON_SEED=N` one.

mod harness;

use cairn_mon::monitor::{Answer, Call, DaemonNews, Query, Reading};
use cairn_mon::service::{
    Evidence, FailureReport, MonCommand, Once, OsdCommand, PoolCommand, Reply, Request,
};
use cairn_paxos::MonId;
use cairn_types::{EntityAddr, Epoch, OsdId, OsdUuid, SnapId, Weight};
use cairn_wire::RequestId;
use harness::{Client, Habit, MS, Weather, World};
use std::collections::BTreeSet;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seeds(default: u64) -> Vec<u64> {
    match env("CAIRN_MON_SEED") {
        Some(seed) => vec![seed],
        None => (1..=env("CAIRN_MON_SEEDS").unwrap_or(default)).collect(),
    }
}

fn once(tid: u64, born: u64) -> Option<Once> {
    Some(Once { id: RequestId { client: 999, incarnation: 0, tid }, born })
}

fn make_pool() -> Request {
    Request::Pool(PoolCommand::Create {
        name: "vms".to_owned(),
        size: None,
        min_size: None,
        pg_num: None,
        rule: None,
        application: "rbd".to_owned(),
    })
}

/// One run: clients take numbers while everything breaks, then everything is mended.
fn storm(seed: u64, count: u16, habit: Habit) -> World {
    const CLIENTS: u64 = 3;
    const COMMANDS: u64 = 40;
    let mut world = World::new(seed, count);
    assert!(world.run_until_true(5_000, |world| world.leader().is_some()), "seed {seed}: no first leader");
    assert!(matches!(world.ask(MonId(0), once(1, 0), make_pool()), Answer::Done { .. }));
    world.clients = (0..CLIENTS).map(|n| Client::new(n + 1, COMMANDS, habit)).collect();
    for n in 0..CLIENTS as usize {
        world.wake_client(n, 1);
    }
    world.weather = Weather {
        loss_permille: 60,
        dup_permille: 60,
        slow_permille: 100,
        slow_us: 400 * MS,
        flush_us: 8 * MS,
    };
    for _ in 0..25 {
        let id = MonId(world.rng.below(count.into()) as u32);
        match world.rng.below(6) {
            0 | 1 => world.crash(id),
            2 | 3 => {
                let down: Vec<MonId> =
                    world.hosts.iter().filter(|(_, h)| h.monitor.is_none()).map(|(id, _)| *id).collect();
                down.into_iter().for_each(|id| world.start(id));
            }
            4 => world.isolate(id),
            _ => world.cut.clear(),
        }
        let pause = 50 + world.rng.below(1_500);
        world.run_ms(pause);
    }
    // The faults end.
    world.weather = Weather::default();
    world.cut.clear();
    for n in 0..count {
        world.start(MonId(n.into()));
    }
    let done = world.run_until_true(60_000, |world| world.clients.iter().all(Client::done) && world.even());
    // Calls whose clients have given up are forgotten, too.
    let clear = world
        .run_until_true(11_000, |world| (0..count).all(|n| world.monitor(MonId(n.into())).backlog() == 0));
    let failures = std::mem::take(&mut world.check.failures);
    assert!(failures.is_empty(), "seed {seed}: {failures:?}");
    assert!(clear, "seed {seed}: calls are left behind");
    assert!(done, "seed {seed}: the faults ended a minute ago, but not all is well");
    world
}

/// How many commands count, by the numbers given and the pool itself.
fn count_of_commands(world: &World) -> (u64, u64, u64) {
    let asked = world.clients.iter().map(|client| client.begun).sum();
    let given: BTreeSet<SnapId> =
        world.clients.iter().flat_map(|client| client.snaps.iter().copied()).collect();
    let state = world.monitor(MonId(0)).state().expect("a state");
    (asked, given.len() as u64, state.osd_map().pool_by_name("vms").expect("the pool").1.snap_seq.0)
}

fn acknowledged_commands_count_once(count: u16, default_seeds: u64) {
    let mut reads = 0;
    for seed in seeds(default_seeds) {
        let world = storm(seed, count, Habit::SameId);
        let (asked, given, counted) = count_of_commands(&world);
        assert_eq!((asked, asked), (given, counted), "seed {seed}: asked, distinct numbers given, counted");
        reads += world.clients.iter().map(|client| client.reads).sum::<u64>();
    }
    assert!(reads > 0, "reads were among it");
}

#[test]
fn three_monitors_lose_nothing_and_do_nothing_twice() {
    acknowledged_commands_count_once(3, 40);
}

#[test]
fn five_monitors_lose_nothing_and_do_nothing_twice() {
    acknowledged_commands_count_once(5, 20);
}

#[test]
fn a_client_that_sends_again_under_a_new_id_is_found_out() {
    let twice = (1..=20).any(|seed| {
        let (asked, _, counted) = count_of_commands(&storm(seed, 3, Habit::NewId));
        assert!(counted >= asked);
        counted > asked
    });
    assert!(twice, "the storms are too weak to make anything count twice");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runs = [0, 1].map(|_| {
        let world = storm(5, 3, Habit::SameId);
        (world.digest, world.steps, world.now_us)
    });
    assert_eq!(runs[0], runs[1]);
}

/// A quiet cluster with a leader and the pool.
fn calm(count: u16) -> World {
    calm_by(1, count)
}

fn calm_by(seed: u64, count: u16) -> World {
    let mut world = World::new(seed, count);
    assert!(world.run_until_true(5_000, |world| world.leader().is_some()));
    assert!(matches!(world.ask(MonId(0), once(1, 0), make_pool()), Answer::Done { .. }));
    world
}

fn finish(world: &World) {
    assert_eq!(world.check.failures, Vec::<String>::new());
}

#[test]
fn a_single_monitor_serves() {
    let mut world = calm(1);
    assert!(world.run_until_true(1_000, World::even));
    finish(&world);
}

#[test]
fn every_monitor_takes_calls_and_answers_reads() {
    let mut world = calm(3);
    for at in 0..3 {
        let tag = world.call(MonId(at), Call::Read(Query::Health));
        assert!(world.run_until_true(1_000, |world| world.answers.contains_key(&tag)));
        let Some(Answer::Read(reading)) = world.answers.remove(&tag) else { panic!("an answer") };
        let Reading::Health(health) = *reading else { panic!("the health") };
        assert!(!health.checks.contains_key(&cairn_types::HealthCode::MonDown), "{health:?}");
        assert!(health.checks.contains_key(&cairn_types::HealthCode::TooFewOsds), "{health:?}");
    }
    // A change without an id, and one that only the leader makes, are refused at the door.
    let refused = world.ask(MonId(1), None, make_pool());
    assert!(matches!(refused, Answer::Refused { code: cairn_wire::ErrorCode::INVAL, .. }), "{refused:?}");
    let full = Request::Leader(cairn_mon::service::LeaderCommand::OsdFull { full: true });
    let refused = world.ask(MonId(1), None, full);
    assert!(matches!(refused, Answer::Refused { code: cairn_wire::ErrorCode::PERM, .. }), "{refused:?}");
    finish(&world);
}

#[test]
fn a_resend_to_another_monitor_after_the_leader_died_gets_the_first_answer() {
    let mut world = calm(3);
    let request = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    let first = world.ask(MonId(2), once(2, 0), request.clone());
    let leader = world.leader().expect("a leader");
    world.crash(leader);
    let other = MonId(if leader == MonId(1) { 2 } else { 1 });
    let again = world.ask(other, once(2, 0), request.clone());
    assert_eq!(first, Answer::Done { reply: Reply::Snap { snap: SnapId(1) }, version: 2 });
    let Answer::Done { reply, .. } = again else { panic!("{again:?}") };
    assert_eq!(reply, Reply::Snap { snap: SnapId(1) });
    let next = world.ask(other, once(3, 2), request);
    assert!(matches!(next, Answer::Done { reply: Reply::Snap { snap: SnapId(2) }, .. }), "{next:?}");
    finish(&world);
}

#[test]
fn without_a_majority_calls_time_out_and_no_read_is_answered() {
    let mut world = calm(3);
    let leader = world.leader().expect("a leader");
    for id in (0..3).map(MonId).filter(|id| *id != leader) {
        world.crash(id);
    }
    world.run_ms(1_000);
    let read = world.call(leader, Call::Read(Query::Status));
    let answer =
        world.ask(leader, once(2, 0), Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() }));
    assert_eq!(answer, Answer::TimedOut);
    assert_eq!(world.answers.get(&read), Some(&Answer::TimedOut));
    finish(&world);
}

#[test]
fn a_monitor_that_was_away_for_long_catches_up_by_a_whole_state() {
    let mut world = calm(3);
    world.clients = (1..4).map(|n| Client::new(n, 500, Habit::SameId)).collect();
    (0..3).for_each(|n| world.wake_client(n, 1));
    let away = (0..3).map(MonId).find(|id| Some(*id) != world.leader()).expect("a follower");
    world.crash(away);
    assert!(world.run_until_true(120_000, |world| world.clients.iter().all(Client::done)));
    let leader = world.leader().expect("a leader");
    assert!(world.monitor(leader).log().trimmed().0 > 0, "the log was trimmed");
    world.start(away);
    assert!(world.run_until_true(10_000, World::even), "it catches up");
    assert!(world.installs > 0, "by a whole state, since the entries are gone");
    finish(&world);
}

/// Whether nobody joins or leaves, as the leader has it.
fn settled(world: &World) -> bool {
    world.leader().is_some_and(|id| world.monitor(id).mon_map().change.is_none())
}

#[test]
fn a_monitor_that_never_comes_is_not_waited_for() {
    // One becomes two: were the second a member before it runs, the first would lead no more.
    let mut world = calm(1);
    let added = world.ask(MonId(0), once(2, 0), World::add_mon_command("d", 3303));
    assert!(matches!(added, Answer::Done { reply: Reply::Mon { mon: MonId(1) }, .. }), "{added:?}");
    world.run_ms(5_000);
    assert_eq!(snap_of(Some(&world.ask(MonId(0), once(3, 0), snap()))), 1);
    assert!(!settled(&world));
    let other = World::add_mon_command("e", 3304);
    let refused = world.ask(MonId(0), once(4, 0), other.clone());
    assert!(matches!(refused, Answer::Refused { code: cairn_wire::ErrorCode::AGAIN, .. }), "{refused:?}");
    let back = Request::Mon(MonCommand::Remove { name: "d".to_owned() });
    assert!(matches!(world.ask(MonId(0), once(5, 0), back), Answer::Done { .. }));
    assert!(world.run_until_true(1_000, settled));
    // It comes after all, with a number that was taken back.
    world.add_joining(MonId(1));
    world.run_ms(5_000);
    assert!(world.monitor(MonId(0)).log().configs().newest().is_some_and(|(_, now)| now.members.len() == 1));
    let added = world.ask(MonId(0), once(6, 0), other);
    assert!(matches!(added, Answer::Done { reply: Reply::Mon { mon: MonId(2) }, .. }), "{added:?}");
    finish(&world);
}

#[test]
fn monitors_join_and_leave_at_run_time() {
    let mut world = calm(3);
    let added = world.ask(MonId(1), once(2, 0), World::add_mon_command("d", 3303));
    assert!(matches!(added, Answer::Done { reply: Reply::Mon { mon: MonId(3) }, .. }), "{added:?}");
    world.add_joining(MonId(3));
    let joined = |world: &World| {
        let members = world.leader().and_then(|id| {
            world.monitor(id).log().configs().newest().map(|(_, newest)| newest.members.len())
        });
        members == Some(4) && world.even() && settled(world)
    };
    assert!(world.run_until_true(10_000, joined), "it votes and has the state");
    let removed = world.ask(MonId(3), once(3, 0), Request::Mon(MonCommand::Remove { name: "a".to_owned() }));
    assert!(matches!(removed, Answer::Done { .. }), "{removed:?}");
    assert!(world.run_until_true(10_000, |world| world.hosts[&MonId(0)].retired), "it is told to stop");
    // Two of the three that are left are a majority.
    world.crash(MonId(1));
    let snap = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    let answer = world.ask(MonId(3), once(4, 0), snap);
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    finish(&world);
}

fn osd_addr(osd: u16, nonce: u64) -> EntityAddr {
    EntityAddr { socket: ([127, 0, 0, 1], 6800 + osd).into(), nonce }
}

fn with_osds(count: u16) -> World {
    let mut world = calm(3);
    for n in 0..count {
        let uuid = OsdUuid([n as u8 + 1; 16]);
        let location = vec![("root".to_owned(), "default".to_owned()), ("host".to_owned(), format!("n{n}"))];
        let create = OsdCommand::Create { uuid, id: None, class: None, weight: Weight::ONE, location };
        let made = world.ask(MonId(n as u32 % 3), None, Request::Osd(create));
        let Answer::Done { reply: Reply::Osd { osd }, .. } = made else { panic!("{made:?}") };
        let (public, cluster) = (osd_addr(n, 1), osd_addr(100 + n, 1));
        let boot = OsdCommand::Boot { osd, uuid, public, cluster, clean: None };
        let booted = world.ask(MonId(n as u32 % 3), None, Request::Osd(boot));
        assert!(matches!(booted, Answer::Done { reply: Reply::Done, .. }), "{booted:?}");
    }
    world
}

fn is_up(world: &World, osd: OsdId) -> bool {
    let state = world.monitor(world.leader().expect("a leader")).state().expect("a state");
    state.osd_map().is_up(osd)
}

#[test]
fn reports_that_come_to_followers_mark_an_osd_down_and_its_silence_marks_it_out() {
    let mut world = with_osds(4);
    let dead = OsdId(3);
    let leader = world.leader().expect("a leader");
    let state = world.monitor(leader).state().expect("a state");
    let up_from: Epoch = state.osd_map().osds[&dead].up_from;
    let follower = (0..3).map(MonId).find(|id| *id != leader).expect("a follower");
    for reporter in [OsdId(0), OsdId(1)] {
        let report = FailureReport { reporter, target: dead, up_from, evidence: Evidence::Refused };
        world.news(follower, DaemonNews::Failure(report));
    }
    assert!(world.run_until_true(1_000, |world| !is_up(world, dead)), "two hosts say that it is dead");
    // The others stay up by their beacons.
    let is_in = |world: &World| {
        let leader = world.leader().expect("a leader");
        world.monitor(leader).state().expect("a state").osd_map().osds[&dead].is_in()
    };
    for seconds in (0..700).step_by(10) {
        for n in 0..3 {
            let osd = OsdId(n);
            let leader = world.leader().expect("a leader");
            let up_from = world.monitor(leader).state().expect("a state").osd_map().osds[&osd].up_from;
            world.news(MonId(n as u32), DaemonNews::OsdBeacon { osd, up_from });
        }
        world.run_ms(10_000);
        if seconds != 590 {
            assert_eq!(is_in(&world), seconds < 590, "after {seconds} to {} s", seconds + 10);
        }
    }
    assert!((0..3).all(|n| is_up(&world, OsdId(n))));
    finish(&world);
}

#[test]
fn a_leader_that_is_cut_off_answers_no_read_after_its_lease() {
    let mut world = calm(3);
    let old = world.leader().expect("a leader");
    world.isolate(old);
    world.run_ms(550);
    assert!(world.monitor(old).log().leading().is_some(), "it does not know yet");
    let read = world.call(old, Call::Read(Query::Version));
    assert!(!world.answers.contains_key(&read));
    world.run_ms(2_000);
    assert!(!world.answers.contains_key(&read));
    world.cut.clear();
    assert!(world.run_until_true(2_000, |world| world.answers.contains_key(&read)), "the new leader answers");
    finish(&world);
}

fn snap() -> Request {
    Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() })
}

fn snap_of(answer: Option<&Answer>) -> u64 {
    match answer {
        Some(Answer::Done { reply: Reply::Snap { snap }, .. }) => snap.0,
        other => panic!("{other:?}"),
    }
}

/// A leader with an entry under way is cut off, another one is chosen. Returns both and the call.
fn leader_cut_off_with_an_entry(seed: u64) -> (World, MonId, MonId, u64) {
    let mut world = calm_by(seed, 3);
    let old = world.leader().expect("a leader");
    world.isolate(old);
    let call = world.call(old, Call::Change { once: once(50, 0), request: snap() });
    assert!(world.run_until_true(5_000, |world| world.leader().is_some_and(|leader| leader != old)));
    let new = world.leader().expect("a leader");
    (world, old, new, call)
}

#[test]
fn an_entry_of_a_leader_that_was_replaced_is_void_and_its_calls_are_done_anew() {
    let (mut world, old, new, call) = leader_cut_off_with_an_entry(1);
    let other = world.ask(new, once(51, 0), snap());
    assert_eq!(snap_of(Some(&other)), 1);
    world.cut.clear();
    assert!(world.run_until_true(5_000, |world| world.answers.contains_key(&call)));
    assert_eq!(snap_of(world.answers.get(&call)), 2);
    assert!(world.run_until_true(5_000, World::even));
    assert_eq!(world.monitor(old).void_entries(), 1, "the old entry came into the log after all");
    finish(&world);
}

#[test]
fn a_leader_whose_own_entry_is_void_drafts_its_calls_again() {
    let mut overtaken = 0;
    for delay in 0..40 {
        let (mut world, old, new, first) = leader_cut_off_with_an_entry(delay);
        world.cut.clear();
        // The old leader hears the new one within a heartbeat and passes its entry on.
        assert!(world.run_until_true(1_000, |world| world.monitor(old).log().leader() == Some(new)));
        let until = world.now_us + delay % 20 * MS / 8;
        world.run_until(until);
        let second = world.call(new, Call::Change { once: once(51, 0), request: snap() });
        let both = |world: &World| [first, second].iter().all(|call| world.answers.contains_key(call));
        assert!(world.run_until_true(3_000, both), "delay {delay}");
        let mut snaps = [first, second].map(|call| snap_of(world.answers.get(&call)));
        let late = world.monitor(new).void_entries() > 0 && snaps == [1, 2];
        overtaken += u32::from(late);
        snaps.sort_unstable();
        assert_eq!(snaps, [1, 2], "each counts once");
        let clear = world.run_until_true(1_000, |world| world.monitor(new).backlog() == 0);
        assert!(clear, "delay {delay}: a call is left behind");
        finish(&world);
    }
    assert!(overtaken > 0, "no entry of the new leader was overtaken by one of the old");
}

#[test]
fn a_cluster_that_loses_power_goes_on_where_it_was() {
    let mut world = calm(3);
    for n in 0..20 {
        assert!(matches!(world.ask(MonId(n % 3), once(100 + u64::from(n), 0), snap()), Answer::Done { .. }));
    }
    for round in 0..3 {
        (0..3).for_each(|n| world.crash(MonId(n)));
        world.run_ms(100);
        (0..3).for_each(|n| world.start(MonId(n)));
        assert!(world.run_until_true(5_000, World::even));
        let next = world.ask(MonId(round), once(200 + u64::from(round), 0), snap());
        assert_eq!(snap_of(Some(&next)), 21 + u64::from(round));
    }
    finish(&world);
}

#[test]
fn a_burst_of_calls_becomes_few_entries() {
    let mut world = calm(3);
    let leader = world.leader().expect("a leader");
    let before = world.monitor(leader).state().expect("a state").version();
    let snap = Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() });
    let tags: Vec<u64> = (0..200)
        .map(|n| world.call(leader, Call::Change { once: once(10 + n, 0), request: snap.clone() }))
        .collect();
    assert!(world.run_until_true(2_000, |world| tags.iter().all(|tag| world.answers.contains_key(tag))));
    let after = world.monitor(leader).state().expect("a state").version();
    assert!(after - before <= 3, "200 calls took {} entries", after - before);
    finish(&world);
}
