//! One monitor alone, event by event: what it publishes, refuses, writes and reads back.

use cairn_mon::monitor::{
    Answer, Call, CallTag, Checkpoint, DaemonNews, Effects, Event, MAX_CALLS, MAX_UNACKNOWLEDGED_EPOCHS,
    Monitor, Now, Publication, Query, Reading, Setup, Subscriber, Subscription,
};
use cairn_mon::service::subscription::Need;
use cairn_mon::service::{
    ConfigCommand, ConfigSection, Genesis, Once, OsdCommand, PgCommand, PoolCommand, Refusal, Reply, Request,
};
use cairn_paxos::{DurableState, Moment, MonId, Timing};
use cairn_types::{
    Digest, EntityAddr, Epoch, Fsid, HealthCode, OsdId, OsdUuid, PgId, PoolId, Timestamp, Weight,
};
use cairn_wire::{ErrorCode, RequestId};
use std::collections::BTreeMap;

fn addr(port: u16) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, 1], port).into(), nonce: 1 }
}

/// A cluster of one monitor whose disk is as fast as thought.
struct Solo {
    monitor: Monitor,
    disk: DurableState,
    checkpoint: Option<Checkpoint>,
    now_ms: u64,
    tags: u64,
    answers: BTreeMap<CallTag, Answer>,
    published: Vec<Publication>,
    checkpoints: usize,
}

impl Solo {
    fn new() -> Self {
        let mons = [("a".to_owned(), vec![addr(3300)])].into();
        let genesis = Genesis { fsid: Fsid([1; 16]), now: Timestamp(0), mons };
        let setup = Setup::founding(MonId(0), 1, Timing::default(), genesis).expect("sound");
        let (disk, checkpoint) = (setup.log.clone(), setup.checkpoint.clone());
        let mut solo = Solo {
            monitor: Monitor::start(setup, Self::clock(0)).expect("it starts"),
            disk,
            checkpoint,
            now_ms: 0,
            tags: 0,
            answers: BTreeMap::new(),
            published: Vec::new(),
            checkpoints: 0,
        };
        solo.wait(2_000);
        solo
    }

    fn clock(ms: u64) -> Now {
        Now { wall: Timestamp(1_000_000 + ms), steady: Moment(ms * 1_000) }
    }

    fn hand(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let effects = self.monitor.handle(Self::clock(self.now_ms), event);
            let Effects { batch, persist, checkpoint, answers, publish, .. } = effects;
            let to_write = !persist.is_empty() || checkpoint.is_some();
            for record in &persist {
                self.disk.absorb(record);
            }
            if let Some(checkpoint) = checkpoint {
                self.checkpoint = Some(checkpoint);
                self.checkpoints += 1;
            }
            if to_write {
                events.push(Event::Persisted { batch });
            }
            self.answers.extend(answers);
            self.published.extend(publish.into_iter().map(|(_, publication)| publication));
        }
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now_ms += 50;
            self.hand(Event::Tick);
        }
    }

    fn call(&mut self, call: Call) -> CallTag {
        self.tags += 1;
        self.hand(Event::Call { tag: CallTag(self.tags), call });
        CallTag(self.tags)
    }

    fn ask(&mut self, request: Request) -> Answer {
        let id = RequestId { client: 1, incarnation: 0, tid: self.tags };
        let born = self.monitor.state().expect("a state").version();
        let tag = self.call(Call::Change { once: Some(Once { id, born }), request });
        self.answers.remove(&tag).expect("alone, it answers at once")
    }

    fn ok(&mut self, request: Request) -> Reply {
        match self.ask(request) {
            Answer::Done { reply, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, query: Query) -> Reading {
        let tag = self.call(Call::Read(query));
        match self.answers.remove(&tag) {
            Some(Answer::Read(reading)) => *reading,
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&mut self, osd_map: Option<(Epoch, Need)>) {
        let who = "osd.0".parse().expect("a name");
        let (mon_map, mgr_map, config) = (Some(Epoch(0)), Some(Epoch(0)), Some(0));
        let wants = Subscription { who, osd_map, mon_map, mgr_map, config };
        self.hand(Event::Subscribe { subscriber: Subscriber(1), wants });
    }
}

fn pool(name: &str, pg_num: u32) -> Request {
    Request::Pool(PoolCommand::Create {
        name: name.to_owned(),
        size: None,
        min_size: None,
        pg_num: Some(pg_num),
        rule: None,
        application: String::new(),
    })
}

fn snap() -> Request {
    Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() })
}

#[test]
fn a_subscriber_is_told_of_each_committed_change_once() {
    let mut solo = Solo::new();
    solo.subscribe(Some((Epoch(0), Need::Newest)));
    let first = std::mem::take(&mut solo.published);
    assert!(matches!(&first[..], [Publication::OsdMaps(_), Publication::MonMap(_)]), "{first:?}");
    solo.ok(pool("vms", 8));
    let maps = std::mem::take(&mut solo.published);
    let [Publication::OsdMaps(batch)] = &maps[..] else { panic!("{maps:?}") };
    assert_eq!((batch.full.is_none(), batch.increments.len()), (true, 1));
    let (section, option) = (ConfigSection::Global, "osd_heartbeat_grace_ms".to_owned());
    solo.ok(Request::Config(ConfigCommand::Set {
        section,
        option: option.clone(),
        value: "3000".to_owned(),
    }));
    let values = [(option, "3000".to_owned())].into();
    assert_eq!(std::mem::take(&mut solo.published), [Publication::Config { version: 1, values }]);
    solo.hand(Event::News(DaemonNews::MgrBeacon { name: "x".to_owned(), addr: addr(9000) }));
    let mgr = std::mem::take(&mut solo.published);
    assert!(matches!(&mgr[..], [Publication::MgrMap(map)] if map.active.is_some()), "{mgr:?}");
    solo.hand(Event::Unsubscribe { subscriber: Subscriber(1) });
    solo.ok(snap());
    assert_eq!(solo.published, []);
}

#[test]
fn a_slow_subscriber_has_a_bounded_number_of_epochs_under_way() {
    let mut solo = Solo::new();
    solo.ok(pool("vms", 8));
    solo.subscribe(Some((Epoch(0), Need::EveryEpoch)));
    solo.published.clear();
    let have = solo.monitor.state().expect("a state").osd_map().epoch;
    solo.subscribe(Some((have, Need::EveryEpoch)));
    for _ in 0..3 * MAX_UNACKNOWLEDGED_EPOCHS {
        solo.ok(snap());
    }
    let sent = |solo: &Solo| -> usize {
        let batches = solo.published.iter().filter_map(|publication| match publication {
            Publication::OsdMaps(batch) => Some(batch.increments.len()),
            _ => None,
        });
        batches.sum()
    };
    assert_eq!(sent(&solo), MAX_UNACKNOWLEDGED_EPOCHS as usize);
    solo.subscribe(Some((Epoch(have.0 + MAX_UNACKNOWLEDGED_EPOCHS), Need::EveryEpoch)));
    assert_eq!(sent(&solo), 2 * MAX_UNACKNOWLEDGED_EPOCHS as usize);
}

#[test]
fn what_is_on_disk_is_the_checkpoint_and_the_log_beyond_it() {
    let mut solo = Solo::new();
    solo.ok(pool("vms", 8));
    for _ in 0..1_100 {
        solo.ok(snap());
    }
    assert!(solo.checkpoints >= 4 && solo.monitor.log().trimmed().0 > 0);
    let hash = solo.monitor.state().expect("a state").hash();
    let setup = Setup {
        id: MonId(0),
        run: 2,
        timing: Timing::default(),
        log: solo.disk.clone(),
        checkpoint: solo.checkpoint.clone(),
        mon_map: solo.monitor.mon_map().clone(),
    };
    assert!(setup.checkpoint.as_ref().expect("one").slot < solo.monitor.applied());
    let mut again = Monitor::start(setup, Solo::clock(0)).expect("it starts again");
    again.handle(Solo::clock(0), Event::Tick);
    assert_eq!(again.state().expect("a state").hash(), hash);
    assert_eq!(again.applied(), again.log().decided());
}

#[test]
fn more_calls_than_fit_are_told_so_and_those_that_wait_time_out() {
    let mut solo = Solo::new();
    // Its disk hangs: nothing is decided any more.
    for n in 0..MAX_CALLS as u64 + 1 {
        let id = RequestId { client: 9, incarnation: 0, tid: n };
        let call = Call::Change { once: Some(Once { id, born: 0 }), request: Request::Session };
        let tag = CallTag(1_000 + n);
        solo.answers.extend(solo.monitor.handle(Solo::clock(solo.now_ms), Event::Call { tag, call }).answers);
    }
    assert_eq!(solo.answers, [(CallTag(1_000 + MAX_CALLS as u64), Answer::Busy)].into());
    let late = solo.monitor.handle(Solo::clock(solo.now_ms + 10_000), Event::Tick).answers;
    assert_eq!(late.len(), MAX_CALLS);
    assert!(late.iter().all(|(_, answer)| *answer == Answer::TimedOut));
}

#[test]
fn a_batch_that_is_too_large_for_the_log_is_split() {
    let mut solo = Solo::new();
    // Without OSDs nothing limits groups per OSD.
    solo.ok(pool("p", 1 << 16));
    solo.ok(pool("q", 1 << 16));
    solo.ok(pool("r", 1 << 16));
    let location = vec![("root".to_owned(), "default".to_owned()), ("host".to_owned(), "n1".to_owned())];
    for n in 0..3u8 {
        let (osd, uuid) = (OsdId(n.into()), OsdUuid([n + 1; 16]));
        let location = location.clone();
        let create = OsdCommand::Create { uuid, id: None, class: None, weight: Weight::ONE, location };
        solo.ok(Request::Osd(create));
        let (public, cluster) = (addr(6800 + u16::from(n)), addr(6900 + u16::from(n)));
        solo.ok(Request::Osd(OsdCommand::Boot { osd, uuid, public, cluster, clean: None }));
    }
    let before = solo.monitor.state().expect("a state").version();
    let set = vec![OsdId(2), OsdId(1), OsdId(0)];
    // The first call flies alone; the others wait for it, since the disk is told of later, and then are too
    // many for one entry.
    let mut last = Effects::default();
    for n in 0..36u32 {
        let pgs = (0..4096).map(|at| PgId { pool: PoolId(i64::from(n % 3) + 1), seed: (n / 3) * 4096 + at });
        let sets = pgs.map(|pg| (pg, set.clone())).collect();
        let request = Request::Pg(PgCommand::Temp { from: OsdId(0), sets });
        let (tag, call) = (CallTag(5_000 + n as u64), Call::Change { once: None, request });
        let effects = solo.monitor.handle(Solo::clock(solo.now_ms), Event::Call { tag, call });
        if !effects.persist.is_empty() {
            last = effects;
        }
    }
    for record in &last.persist {
        solo.disk.absorb(record);
    }
    solo.hand(Event::Persisted { batch: last.batch });
    solo.wait(200);
    assert_eq!(solo.answers.len(), 36);
    assert!(solo.answers.values().all(|answer| matches!(answer, Answer::Done { .. })));
    let state = solo.monitor.state().expect("a state");
    assert_eq!(state.osd_map().pg_temp.len(), 36 * 4096);
    assert!((4..=9).contains(&(state.version() - before)), "{} entries", state.version() - before);
}

#[test]
fn a_late_copy_of_a_refused_call_is_refused_whatever_has_changed_since() {
    use cairn_mon::monitor::PeerMessage;
    let mut solo = Solo::new();
    solo.ok(pool("vms", 8));
    let once = Some(Once { id: RequestId { client: 7, incarnation: 0, tid: 1 }, born: 0 });
    let call = Call::Change { once, request: pool("vms", 8) };
    let copy = || PeerMessage::Call { run: 5, tag: CallTag(1), call: call.clone() };
    let told = |solo: &mut Solo| {
        let event = Event::Peer { from: MonId(9), message: copy() };
        let effects = solo.monitor.handle(Solo::clock(solo.now_ms), event);
        effects.early.into_iter().any(|(to, message)| {
            let refused = matches!(&message, PeerMessage::Answer { answer: Answer::Refused { code, .. }, .. }
                if *code == ErrorCode::EXIST);
            to == MonId(9) && refused
        })
    };
    assert!(told(&mut solo), "the pool exists");
    solo.ok(Request::Pool(PoolCommand::Remove { name: "vms".to_owned(), confirm: "vms".to_owned() }));
    assert!(told(&mut solo));
    assert!(solo.monitor.state().expect("a state").osd_map().pools.is_empty());
}

#[test]
fn statistics_count_while_they_are_fresh_and_from_the_active_mgr() {
    let mut solo = Solo::new();
    solo.ok(pool("vms", 8));
    solo.hand(Event::News(DaemonNews::MgrBeacon { name: "x".to_owned(), addr: addr(9000) }));
    let clean = "active+clean".parse().expect("a state");
    let digest = Box::new(Digest { pg_states: [(clean, 8)].into(), ..Digest::default() });
    let unknown = |solo: &mut Solo| {
        let Reading::Health(health) = solo.read(Query::Health) else { panic!("health") };
        health.checks.contains_key(&HealthCode::PgAvailability)
    };
    solo.hand(Event::News(DaemonNews::Digest { mgr: "y".to_owned(), digest: digest.clone() }));
    assert!(unknown(&mut solo), "y is not active");
    solo.hand(Event::News(DaemonNews::Digest { mgr: "x".to_owned(), digest }));
    assert!(!unknown(&mut solo));
    solo.wait(14_950);
    assert!(!unknown(&mut solo));
    solo.wait(50);
    assert!(unknown(&mut solo), "it is 15 s old");
}

#[test]
fn every_query_is_answered_and_an_epoch_that_is_gone_is_named() {
    let mut solo = Solo::new();
    solo.ok(pool("vms", 8));
    for query in [
        Query::Version,
        Query::Status,
        Query::Health,
        Query::OsdTree,
        Query::OsdMap(None),
        Query::OsdMap(Some(Epoch(1))),
        Query::MonMap,
        Query::MgrMap,
        Query::Config,
        Query::Auth,
        Query::Digest,
    ] {
        let reading = format!("{:?}", solo.read(query));
        let name = format!("{query:?}");
        let name = name.split('(').next().expect("a name");
        assert!(reading.starts_with(name), "{name} got {reading}");
    }
    let tag = solo.call(Call::Read(Query::OsdMap(Some(Epoch(9)))));
    let why = Refusal::NoEpoch { epoch: Epoch(9), first: Epoch(1), last: Epoch(2) }.to_string();
    assert_eq!(solo.answers.remove(&tag), Some(Answer::Refused { code: ErrorCode::NOENT, why }));
}
