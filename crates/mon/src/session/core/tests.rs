use super::*;
use crate::monitor::{Answer, Call};
use crate::service::subscription::{MapBatch, Need};
use crate::service::{OsdCommand, PoolCommand};
use crate::session::CallError;
use cairn_types::{EntityAddr, Fsid, MonId, MonInfo, MonMap, OsdId, OsdMap, OsdMapIncremental, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], 6789))
}

struct Bench {
    session: Session,
    now: Moment,
}

impl Bench {
    fn new(monitors: u8) -> Bench {
        let now = Moment(1_000_000);
        Bench { session: Session::new((1..=monitors).map(addr).collect(), 0, now), now }
    }

    fn event(&mut self, event: Event) -> Effects {
        self.session.handle(self.now, event)
    }

    fn after(&mut self, time: Duration, event: Event) -> Effects {
        self.now = self.now + time;
        self.event(event)
    }

    /// Connects to the first monitor.
    fn up(monitors: u8) -> (Bench, Attempt) {
        let mut bench = Bench::new(monitors);
        let (attempt, _) = bench.event(Event::Tick).connect.expect("it connects");
        let out = bench.event(Event::Connected(attempt));
        assert!(matches!(out.send[..], [Sent::Subscribe(_)]));
        (bench, attempt)
    }
}

fn next_snap() -> Request {
    Request::Pool(PoolCommand::NextSnap { name: "vms".to_owned() })
}

fn calls(out: &Effects) -> Vec<MonCall> {
    let call = |sent: &Sent| match sent {
        Sent::Call(call) => Some(call.clone()),
        _ => None,
    };
    out.send.iter().filter_map(call).collect()
}

fn done(attempt: Attempt, call: &MonCall, reply: Reply, version: u64) -> Event {
    Event::Answer(attempt, MonAnswer { tag: call.tag, answer: Answer::Done { reply, version } })
}

/// A session with number 7 at version 40, and a change of it that is under way.
fn change_under_way(monitors: u8) -> (Bench, Attempt, MonCall) {
    let (mut bench, attempt) = Bench::up(monitors);
    let out = bench.event(Event::Change(Ticket(1), next_snap(), SECOND * 60));
    let opening = calls(&out);
    assert!(matches!(
        opening[..],
        [MonCall { call: Call::Change { once: None, request: Request::Session }, .. }]
    ));
    let out = bench.event(done(attempt, &opening[0], Reply::Session { client: 7 }, 40));
    let [call] = &calls(&out)[..] else { panic!("the change goes out: {out:?}") };
    (bench, attempt, call.clone())
}

#[test]
fn a_change_is_the_same_however_often_it_is_sent() {
    let (mut bench, attempt, call) = change_under_way(3);
    let Call::Change { once: Some(once), .. } = &call.call else { panic!("it counts once") };
    assert_eq!((once.id.client, once.born), (7, 40));
    let out = bench.event(Event::Lost(attempt, "gone".to_owned()));
    let (next, at) = out.connect.expect("another monitor at once");
    assert_eq!(at, addr(2));
    let out = bench.event(Event::Connected(next));
    assert_eq!(calls(&out), std::slice::from_ref(&call));
    // A late answer of the first connection says nothing any more.
    assert!(bench.event(done(attempt, &call, Reply::Done, 41)).finished.is_empty());
    let out = bench.event(done(next, &call, Reply::Done, 41));
    assert!(matches!(out.finished[..], [(Ticket(1), Outcome::Changed(Reply::Done))]));
}

#[test]
fn a_silent_monitor_is_left_and_a_busy_one_asked_again() {
    let (mut bench, attempt, call) = change_under_way(3);
    let busy = MonAnswer { tag: call.tag, answer: Answer::Busy };
    let out = bench.event(Event::Answer(attempt, busy));
    assert!(out.send.is_empty() && out.disconnect.is_none());
    let out = bench.after(SECOND, Event::Tick);
    assert_eq!(calls(&out), [call]);
    let timer = out.timer.expect("it waits for an answer");
    let out = bench.after(timer.since(bench.now), Event::Tick);
    assert_eq!(out.disconnect, Some(attempt));
    assert_eq!(out.connect.expect("another one").1, addr(2));
}

#[test]
fn a_monitor_without_a_leader_is_left() {
    let (mut bench, attempt, call) = change_under_way(2);
    let answer = MonAnswer { tag: call.tag, answer: Answer::TimedOut };
    let out = bench.event(Event::Answer(attempt, answer));
    assert_eq!((out.disconnect, out.connect.map(|to| to.1)), (Some(attempt), Some(addr(2))));
}

#[test]
fn a_call_is_born_at_a_version_seen_lately() {
    let (mut bench, attempt, call) = change_under_way(1);
    bench.event(done(attempt, &call, Reply::Done, 41));
    let out = bench.after(SECOND * 600, Event::Change(Ticket(2), next_snap(), SECOND));
    let asked = calls(&out);
    assert!(matches!(asked[..], [MonCall { call: Call::Read(Query::Version), .. }]));
    let answer = Answer::Read(Box::new(Reading::Version(900)));
    let out = bench.event(Event::Answer(attempt, MonAnswer { tag: asked[0].tag, answer }));
    let [MonCall { call: Call::Change { once: Some(once), .. }, .. }] = calls(&out)[..] else {
        panic!("the change goes out: {out:?}")
    };
    assert_eq!((once.id.tid, once.born), (2, 900));
}

#[test]
fn what_may_be_repeated_needs_no_session() {
    let (mut bench, _) = Bench::up(1);
    let stopping =
        OsdCommand::Stopping { osd: OsdId(1), public: "127.0.0.1:1/1".parse().expect("an address") };
    let out = bench.event(Event::Change(Ticket(1), Request::Osd(stopping), SECOND));
    assert!(matches!(calls(&out)[..], [MonCall { call: Call::Change { once: None, .. }, .. }]));
}

#[test]
fn who_is_turned_away_is_told_so_and_not_asked_whether_anybody_is_there() {
    let mut bench = Bench::new(1);
    let mut event = Event::Read(Ticket(1), Query::Status, SECOND);
    let error = loop {
        let out = bench.event(event);
        if let [(_, Outcome::Failed(error))] = &out.finished[..] {
            break error.clone();
        }
        event = match out.connect {
            Some((attempt, at)) => Event::TurnedAway(attempt, format!("{at} is of another cluster")),
            None => {
                bench.now = out.timer.expect("it tries again");
                Event::Tick
            }
        };
    };
    assert!(matches!(error, CallError::TurnedAway { .. }), "{error:?}");
    assert!(error.to_string().contains("is of another cluster"), "{error}");
}

#[test]
fn who_waits_in_vain_is_told_why() {
    let mut bench = Bench::new(2);
    let mut tried = Vec::new();
    let mut event = Event::Read(Ticket(1), Query::Status, SECOND);
    // Refused by each, at once: a pause comes after a whole round.
    let (finished, pauses) = loop {
        let out = bench.event(event);
        if let [(_, Outcome::Failed(error))] = &out.finished[..] {
            break (error.clone(), tried.len());
        }
        event = match out.connect {
            Some((attempt, at)) => {
                tried.push(at);
                Event::Lost(attempt, format!("{at} refuses connections"))
            }
            None => {
                bench.now = out.timer.expect("it tries again");
                Event::Tick
            }
        };
        assert!(tried.len() < 20, "it tries too often");
    };
    assert!(pauses >= 4);
    assert_eq!(tried[..3], [addr(1), addr(2), addr(1)]);
    let CallError::Unreachable { monitors, .. } = &finished else { panic!("{finished:?}") };
    assert_eq!(monitors.len(), 2);
    let text = finished.to_string();
    assert!(
        text.starts_with(
            "no monitor answers at 127.0.0.1:6789, 127.0.0.2:6789: is the cluster running? (127.0.0."
        ),
        "{text}"
    );
}

#[test]
fn an_attempt_that_hangs_is_given_up() {
    let mut bench = Bench::new(2);
    let (attempt, _) = bench.event(Event::Tick).connect.expect("it connects");
    let out = bench.after(CONNECT_PATIENCE, Event::Tick);
    assert_eq!((out.disconnect, out.connect.map(|to| to.1)), (Some(attempt), Some(addr(2))));
    // Too late.
    assert!(bench.event(Event::Connected(attempt)).send.is_empty());
}

#[test]
fn who_gave_up_is_not_answered() {
    let (mut bench, attempt, call) = change_under_way(1);
    bench.event(Event::GiveUp(Ticket(1)));
    assert!(bench.event(done(attempt, &call, Reply::Done, 41)).finished.is_empty());
}

fn increments(epochs: std::ops::RangeInclusive<u32>) -> Publication {
    let increments = epochs
        .map(|epoch| OsdMapIncremental::empty(Epoch(epoch), Fsid([1; 16]), Default::default()))
        .collect();
    Publication::OsdMaps(MapBatch { full: None, increments, oldest: Epoch(1) })
}

fn subscribed(out: &Effects) -> Option<MonSubscribe> {
    out.send.iter().find_map(|sent| match sent {
        Sent::Subscribe(subscribe) => Some(*subscribe),
        _ => None,
    })
}

#[test]
fn maps_come_once_in_order_and_are_acknowledged_when_taken() {
    let (mut bench, attempt) = Bench::up(2);
    let wants = Wants { osd_map: Some((Epoch(10), Need::EveryEpoch)), ..Wants::default() };
    let out = bench.event(Event::Subscribe(wants));
    assert_eq!(subscribed(&out).and_then(|s| s.osd_map), Some((Epoch(10), Need::EveryEpoch)));
    assert_eq!(bench.event(Event::Publication(attempt, increments(11..=29))).updates.len(), 1);
    assert!(subscribed(&bench.event(Event::Delivered(Epoch(29)))).is_none());
    // Some of it again, and one more.
    let out = bench.event(Event::Publication(attempt, increments(28..=30)));
    let [Update::OsdMaps(batch)] = &out.updates[..] else { panic!("one map: {out:?}") };
    assert_eq!(batch.increments.len(), 1);
    let out = bench.event(Event::Delivered(Epoch(30)));
    assert_eq!(subscribed(&out).and_then(|s| s.osd_map), Some((Epoch(30), Need::EveryEpoch)));
    // One is missing: another monitor has it.
    let out = bench.event(Event::Publication(attempt, increments(32..=33)));
    assert!(out.updates.is_empty());
    let (next, _) = out.connect.expect("it connects anew");
    let out = bench.event(Event::Connected(next));
    assert_eq!(subscribed(&out).and_then(|s| s.osd_map), Some((Epoch(30), Need::EveryEpoch)));
}

#[test]
fn a_full_map_starts_anew() {
    let (mut bench, attempt) = Bench::up(1);
    let wants = Wants { osd_map: Some((Epoch(0), Need::Newest)), ..Wants::default() };
    bench.event(Event::Subscribe(wants));
    let mut full = OsdMap::new(Fsid([1; 16]), Default::default(), cairn_types::CrushBlob::new(1, vec![]));
    full.epoch = Epoch(5_000);
    let batch = MapBatch { full: Some(full), increments: Vec::new(), oldest: Epoch(1) };
    let out = bench.event(Event::Publication(attempt, Publication::OsdMaps(batch)));
    assert_eq!(out.updates.len(), 1);
    let out = bench.event(Event::Delivered(Epoch(5_000)));
    assert_eq!(subscribed(&out).and_then(|s| s.osd_map), Some((Epoch(5_000), Need::Newest)));
}

#[test]
fn when_all_monitors_of_the_map_are_gone_those_of_the_configuration_are_tried() {
    let (mut bench, attempt) = Bench::up(1);
    let mon =
        |id: u32| MonInfo { id: MonId(id), addrs: vec![EntityAddr { socket: addr(id as u8), nonce: 0 }] };
    let map = MonMap {
        epoch: Epoch(2),
        fsid: Fsid([1; 16]),
        created: Timestamp(0),
        modified: Timestamp(0),
        next_id: MonId(4),
        mons: [("b".to_owned(), mon(2)), ("c".to_owned(), mon(3))].into(),
        change: None,
    };
    bench.event(Event::Publication(attempt, Publication::MonMap(map)));
    let out = bench.event(Event::Lost(attempt, "gone".to_owned()));
    let mut tried = vec![out.connect.expect("another monitor").1];
    let (mut last, mut looked_up) = (Attempt(attempt.0 + 1), 0);
    for _ in 0..9 {
        let mut out = bench.event(Event::Lost(last, "nobody is there".to_owned()));
        looked_up += u32::from(out.look_up);
        if out.look_up {
            // It was written anew since the process began.
            bench.event(Event::Configured(vec![addr(3), addr(9)]));
        }
        if out.connect.is_none() {
            out = bench.after(SECOND * 2, Event::Tick);
        }
        let (attempt, at) = out.connect.expect("another attempt");
        (last, tried) = (attempt, [tried, vec![at]].concat());
    }
    assert!(looked_up >= 2, "{looked_up}");
    assert!(tried.contains(&addr(9)), "{tried:?}");
    assert!(tried.contains(&addr(2)) && tried.contains(&addr(3)), "{tried:?}");
    assert!(!tried.contains(&addr(1)), "what the configuration said before is over: {tried:?}");
}
