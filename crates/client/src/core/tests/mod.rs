//! The core by itself: single rules here, everything at once in `random`.

mod random;
mod world;

use super::limits::*;
use super::*;
use crate::fixture::{CLIENT, POOL, client_addr, map, object};
use crate::io::OpAnswer;
use bytes::Bytes;
use cairn_types::{OsdFlag, Timestamp};
use cairn_wire::op::{
    NotifyAck, OpFlags, OpKind, OpOutput, OpReply, OpRequest, OpResult, WatchAction, WatchEvent, WatchNews,
};
use cairn_wire::{ErrorCode, Frame, Payload};

type Outcome = (u64, Result<OpAnswer, OpError>);

/// A core, and what it did.
struct Bench {
    core: Core<u64>,
    now_ms: u64,
    map: OsdMap,
    connects: Vec<(ConnId, OsdId, EntityAddr)>,
    sent: Vec<(ConnId, Frame)>,
    done: Vec<Outcome>,
    news: Vec<String>,
}

fn addr(osd: i32, run: u64) -> EntityAddr {
    EntityAddr { socket: ([10, 0, 0, osd as u8 + 1], 6800).into(), nonce: run }
}

impl Bench {
    /// Three OSDs, and the first map is there.
    fn new() -> Self {
        let addrs: Vec<_> = (0..3).map(|osd| addr(osd, 1)).collect();
        let mut bench = Bench {
            core: Core::new(CLIENT, client_addr()),
            now_ms: 1_000,
            map: map(&addrs, 8, 2),
            connects: Vec::new(),
            sent: Vec::new(),
            done: Vec::new(),
            news: Vec::new(),
        };
        let full = Some(Box::new(bench.map.clone()));
        bench.event(Event::Maps { full, increments: Vec::new() });
        bench
    }

    fn event(&mut self, event: Event<u64>) {
        let now = Now { steady_ms: self.now_ms, wall: Timestamp(1_700_000_000_000 + self.now_ms) };
        self.core.handle(now, event);
        for effect in self.core.take_effects() {
            match effect {
                Effect::Connect { conn, osd, addr } => self.connects.push((conn, osd, addr)),
                Effect::Send(conn, frame) => self.sent.push((conn, frame)),
                Effect::Done(token, result) => self.done.push((token, result)),
                Effect::Notified { id, notice } => {
                    self.news.push(format!("notified {} {:?}", id.id, notice.payload));
                }
                Effect::NewMap(_) => {}
                other => self.news.push(format!("{other:?}")),
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut OsdMapIncremental)) {
        let mut next = OsdMapIncremental::empty(self.map.epoch.next(), self.map.fsid, Timestamp(0));
        change(&mut next);
        self.map = self.map.apply(&next).unwrap();
        self.event(Event::Maps { full: None, increments: vec![next] });
    }

    fn submit(&mut self, token: u64, name: &str, timeout_ms: Option<u64>) {
        let submit = Submit {
            object: object(name),
            ops: vec![OpKind::Stat.into()],
            data: Payload::default(),
            flags: OpFlags::default(),
            timeout_ms,
            done: token,
        };
        self.event(Event::Submit(submit));
    }

    fn connect_all(&mut self) {
        for (conn, _, _) in std::mem::take(&mut self.connects) {
            self.event(Event::Connected(conn));
        }
    }

    fn requests(&mut self) -> Vec<(ConnId, OpRequest)> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter().map(|(conn, frame)| (conn, frame.message().unwrap())).collect()
    }

    fn request(&mut self) -> (ConnId, OpRequest) {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    fn answer(&mut self, conn: ConnId, request: &OpRequest, code: ErrorCode, results: Vec<OpResult>) {
        let epoch = self.map.epoch;
        let reply =
            OpReply { request: request.request, epoch, code, user_version: 5, results: results.into() };
        self.event(Event::Reply { conn, reply, data: Payload::default() });
    }

    fn answer_ok(&mut self, conn: ConnId, request: &OpRequest) {
        let results = request.ops.iter().map(|_| ok()).collect();
        self.answer(conn, request, ErrorCode::OK, results);
    }

    fn tick_to(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.event(Event::Tick);
    }

    fn take_down(&mut self, osd: OsdId) {
        let mut info = self.map.osds[&osd];
        info.up = false;
        self.change(|next| {
            next.osds.insert(osd, info);
        });
    }
}

fn ok() -> OpResult {
    OpResult { code: ErrorCode::OK, output: OpOutput::None }
}

#[test]
fn a_vector_goes_to_the_primary_and_its_answer_to_the_caller() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    let (_, osd, to) = bench.connects[0];
    assert_eq!(to, addr(osd.0, 1));
    assert!(bench.sent.is_empty());
    bench.connect_all();
    let (conn, request) = bench.request();
    assert_eq!((request.epoch, request.object.name.as_str()), (Epoch(1), "a"));
    assert_eq!(request.mtime, Timestamp(1_700_000_001_000));
    bench.answer_ok(conn, &request);
    // A second copy of the answer finds nobody.
    bench.answer_ok(conn, &request);
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.done[0].1.as_ref().unwrap().user_version, 5);
    assert_eq!((bench.core.ops_in_flight(), bench.core.timer_ms()), (0, None));
}

#[test]
fn an_error_of_an_operation_is_the_answer_even_if_it_is_called_busy() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.connect_all();
    let (conn, request) = bench.request();
    let failed = OpResult { code: ErrorCode::BUSY, output: OpOutput::None };
    bench.answer(conn, &request, ErrorCode::BUSY, vec![failed]);
    assert_eq!(bench.done[0].1.as_ref().unwrap_err().code(), Some(ErrorCode::BUSY));
}

#[test]
fn what_a_busy_osd_refuses_goes_again_later_and_later_and_in_order() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.connect_all();
    let (conn, first) = bench.request();
    let mut delay_ms = BUSY_DELAY_MIN_MS;
    for _ in 0..12 {
        bench.answer(conn, &first, ErrorCode::BUSY, vec![]);
        assert_eq!(bench.core.timer_ms(), Some(bench.now_ms + delay_ms));
        bench.tick_to(bench.now_ms + delay_ms);
        assert_eq!(bench.request().1.request, first.request);
        delay_ms = (2 * delay_ms).min(BUSY_DELAY_MAX_MS);
    }
    bench.answer(conn, &first, ErrorCode::BUSY, vec![]);
    // One for the same object waits behind it.
    bench.submit(2, "a", None);
    assert!(bench.sent.is_empty());
    bench.tick_to(bench.now_ms + delay_ms);
    let again = bench.requests();
    assert_eq!(again.iter().map(|(_, request)| request.request.tid).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_stale_client_waits_for_the_map() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.connect_all();
    let (conn, request) = bench.request();
    bench.map.epoch = Epoch(3);
    bench.answer(conn, &request, ErrorCode::STALE, vec![]);
    assert_eq!(bench.news, ["NeedMap(Epoch(3))"]);
    bench.map.epoch = Epoch(1);
    bench.submit(2, "a", None);
    bench.change(|_| {});
    assert!(bench.sent.is_empty(), "epoch 2 is not enough");
    bench.change(|_| {});
    let again = bench.requests();
    let again: Vec<_> = again.iter().map(|(_, request)| (request.request.tid, request.epoch)).collect();
    assert_eq!(again, [(1, Epoch(3)), (2, Epoch(3))]);
}

#[test]
fn a_map_that_ends_the_interval_sends_again_and_another_does_not() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.connect_all();
    let (conn, request) = bench.request();
    bench.change(|next| next.flags = Some(OsdFlag::NoOut.into_set()));
    assert!(bench.sent.is_empty());
    // The primary stays, the other copy goes: the primary forgets what it had taken in.
    let primary = OsdId(bench.core.sessions.keys().next().unwrap().0);
    for osd in [0, 1, 2].map(OsdId).into_iter().filter(|osd| *osd != primary) {
        bench.take_down(osd);
    }
    let again = bench.requests();
    assert!(!again.is_empty());
    assert!(again.iter().all(|(to, again)| *to == conn && again.request == request.request));
    bench.take_down(primary);
    assert!(bench.requests().is_empty(), "nobody serves it");
    assert!(bench.news.contains(&format!("Disconnect({conn:?})")), "{:?}", bench.news);
    assert_eq!((bench.core.ops_in_flight(), bench.core.timer_ms()), (1, None));
}

#[test]
fn what_a_former_primary_answers_is_not_believed() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    let (_, primary, _) = bench.connects[0];
    bench.connect_all();
    let (conn, request) = bench.request();
    bench.take_down(primary);
    bench.answer_ok(conn, &request);
    assert!(bench.done.is_empty());
    bench.connect_all();
    let (conn, request) = bench.request();
    bench.answer_ok(conn, &request);
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn an_epoch_that_was_skipped_sends_everything_again() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.connect_all();
    bench.request();
    bench.map.epoch = Epoch(5);
    let full = Some(Box::new(bench.map.clone()));
    bench.event(Event::Maps { full, increments: Vec::new() });
    assert_eq!(bench.request().1.epoch, Epoch(5));
}

#[test]
fn a_lost_connection_is_made_again_at_once_and_one_that_is_refused_later() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    let (conn, ..) = bench.connects.pop().unwrap();
    bench.event(Event::Closed(conn));
    assert!(bench.connects.is_empty());
    assert_eq!(bench.core.timer_ms(), Some(bench.now_ms + RECONNECT_DELAY_MIN_MS));
    bench.tick_to(bench.now_ms + RECONNECT_DELAY_MIN_MS);
    let (conn, ..) = bench.connects.pop().unwrap();
    bench.event(Event::Closed(conn));
    assert_eq!(bench.core.timer_ms(), Some(bench.now_ms + 2 * RECONNECT_DELAY_MIN_MS));
    bench.tick_to(bench.now_ms + 2 * RECONNECT_DELAY_MIN_MS);
    bench.connect_all();
    let (conn, request) = bench.request();
    bench.answer_ok(conn, &request);
    bench.submit(2, "a", None);
    let (_, request) = bench.request();
    bench.event(Event::Closed(conn));
    assert_eq!(bench.connects.len(), 1, "it stood and was of use");
    bench.connect_all();
    let (conn, again) = bench.request();
    assert_eq!(again.request, request.request);
    bench.answer_ok(conn, &again);
    bench.event(Event::Closed(conn));
    assert_eq!((bench.connects.len(), bench.core.timer_ms()), (0, None), "nobody needs it");
}

#[test]
fn the_blocklist_ends_everything_for_good() {
    for by_map in [true, false] {
        let mut bench = Bench::new();
        bench.submit(1, "a", Some(1_000));
        bench.event(Event::Watch { cookie: 9, object: object("w") });
        bench.connect_all();
        let (conn, request) = bench.requests().remove(0);
        if by_map {
            bench.change(|next| {
                next.blocklist.insert(client_addr(), Some(Timestamp(9)));
            });
        } else {
            bench.answer(conn, &request, ErrorCode::BLOCKLISTED, vec![]);
        }
        bench.submit(2, "b", None);
        let error = OpError::Blocklisted { addr: client_addr() };
        assert_eq!(bench.done, [(1, Err(error.clone())), (2, Err(error))]);
        assert!(
            bench.news.iter().any(|news| news.starts_with("Watching { cookie: 9, result: Err(Blocklisted"))
        );
        assert_eq!((bench.core.ops_in_flight(), bench.core.timer_ms()), (0, None));
    }
}

#[test]
fn a_vector_with_a_time_out_is_given_up() {
    let mut bench = Bench::new();
    bench.submit(1, "a", Some(500));
    bench.submit(2, "a", None);
    bench.tick_to(bench.now_ms + 499);
    assert!(bench.done.is_empty());
    bench.tick_to(bench.now_ms + 1);
    assert_eq!(bench.done, [(1, Err(OpError::TimedOut { object: "a".to_owned(), after_ms: 500 }))]);
    assert_eq!(bench.core.ops_in_flight(), 1);
}

#[test]
fn a_pool_that_goes_fails_its_vectors() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.change(|next| {
        next.removed_pools.insert(POOL);
    });
    bench.submit(2, "a", None);
    let gone = Err(OpError::NoPool { pool: POOL });
    assert_eq!(bench.done, [(1, gone.clone()), (2, gone)]);
}

#[test]
fn nothing_is_sent_while_clients_shall_pause() {
    let mut bench = Bench::new();
    bench.change(|next| next.flags = Some(OsdFlag::Pause.into_set()));
    bench.submit(1, "a", None);
    assert!(bench.connects.is_empty() && bench.sent.is_empty());
    bench.change(|next| next.flags = Some(Default::default()));
    bench.connect_all();
    assert_eq!(bench.requests().len(), 1);
}

trait IntoSet {
    fn into_set(self) -> cairn_types::OsdFlags;
}

impl IntoSet for OsdFlag {
    fn into_set(self) -> cairn_types::OsdFlags {
        cairn_types::OsdFlags::default().with(self, true)
    }
}

fn action_of(request: &OpRequest) -> WatchAction {
    match request.ops[0].kind {
        OpKind::Watch { cookie: 9, action } => action,
        ref other => panic!("{other:?}"),
    }
}

fn watching() -> (Bench, ConnId, OsdId) {
    let mut bench = Bench::new();
    bench.event(Event::Watch { cookie: 9, object: object("w") });
    let (_, primary, _) = bench.connects[0];
    bench.connect_all();
    let (conn, request) = bench.request();
    assert_eq!(action_of(&request), WatchAction::Watch { timeout_ms: WATCH_TIMEOUT_MS });
    bench.answer_ok(conn, &request);
    assert_eq!(bench.news, ["Watching { cookie: 9, result: Ok(()) }"]);
    bench.news.clear();
    (bench, conn, primary)
}

#[test]
fn a_watch_gives_signs_of_life_and_begins_again_when_it_is_gone() {
    let (mut bench, _, _) = watching();
    for _ in 0..3 {
        bench.tick_to(bench.core.timer_ms().unwrap());
        let (conn, ping) = bench.request();
        assert_eq!(action_of(&ping), WatchAction::Ping);
        assert_eq!(bench.core.timer_ms(), None, "one at a time");
        bench.answer_ok(conn, &ping);
        assert_eq!(bench.core.timer_ms(), Some(bench.now_ms + WATCH_PING_INTERVAL_MS));
    }
    bench.tick_to(bench.core.timer_ms().unwrap());
    let (conn, ping) = bench.request();
    let gone = vec![OpResult { code: ErrorCode::NOENT, output: OpOutput::None }];
    bench.answer(conn, &ping, ErrorCode::NOENT, gone.clone());
    let (conn, again) = bench.request();
    assert!(matches!(action_of(&again), WatchAction::Watch { .. }));
    bench.answer_ok(conn, &again);
    assert_eq!(bench.news, ["WatchRenewed(9)"]);
    // The object is removed.
    let event = WatchEvent { object: object("w"), cookie: 9, what: WatchNews::Ended };
    bench.event(Event::WatchEvent { conn, event });
    let (conn, again) = bench.request();
    bench.answer(conn, &again, ErrorCode::NOENT, gone);
    assert!(bench.news[1].starts_with("WatchEnded(9, Code"), "{:?}", bench.news);
    assert_eq!((bench.core.ops_in_flight(), bench.core.timer_ms()), (0, None));
}

#[test]
fn a_watch_moves_with_its_primary_and_over_a_new_connection() {
    let (mut bench, conn, primary) = watching();
    bench.event(Event::Closed(conn));
    bench.connect_all();
    let (conn, again) = bench.request();
    bench.answer_ok(conn, &again);
    assert_eq!(bench.news, ["WatchRenewed(9)"]);
    bench.take_down(primary);
    bench.connect_all();
    let (other, again) = bench.request();
    assert_ne!(other, conn);
    bench.answer_ok(other, &again);
    assert_eq!(bench.news[2], "WatchRenewed(9)", "{:?}", bench.news);
    bench.event(Event::Unwatch { cookie: 9, done: 1 });
    let (conn, end) = bench.request();
    assert_eq!(action_of(&end), WatchAction::Unwatch);
    bench.answer_ok(conn, &end);
    assert!(matches!(bench.done[..], [(1, Ok(_))]));
    assert_eq!(bench.core.timer_ms(), None);
}

#[test]
fn a_notification_that_comes_again_is_heard_once_and_acknowledged_again() {
    let (mut bench, conn, _) = watching();
    let notify = |id: u64| WatchEvent {
        object: object("w"),
        cookie: 9,
        what: WatchNews::Notify { id, notifier: 3, payload: Bytes::from_static(b"hey") },
    };
    bench.event(Event::WatchEvent { conn, event: notify(4) });
    bench.event(Event::WatchEvent { conn, event: notify(4) });
    assert_eq!(bench.news, ["notified 4 b\"hey\""]);
    let id = NoticeId { cookie: 9, osd: bench.core.sessions.values().next().unwrap().addr, id: 4 };
    bench.event(Event::Acknowledge { notice: id, reply: Bytes::from_static(b"yes") });
    bench.event(Event::Closed(conn));
    bench.connect_all();
    bench.event(Event::Connected(ConnId(99)));
    let conn = bench.core.sessions.values().next().unwrap().conn;
    let acks = |bench: &mut Bench| -> Vec<NotifyAck> {
        let sent = std::mem::take(&mut bench.sent);
        sent.iter().filter_map(|(_, frame)| frame.message().ok()).collect()
    };
    let ack = NotifyAck { object: object("w"), cookie: 9, id: 4, reply: Bytes::from_static(b"yes") };
    assert_eq!(acks(&mut bench), std::slice::from_ref(&ack));
    bench.event(Event::WatchEvent { conn, event: notify(4) });
    assert_eq!(acks(&mut bench), [ack]);
    bench.event(Event::WatchEvent { conn, event: notify(5) });
    assert_eq!(bench.news, ["notified 4 b\"hey\"", "notified 5 b\"hey\""]);
}

#[test]
fn a_stop_answers_everybody() {
    let mut bench = Bench::new();
    bench.submit(1, "a", None);
    bench.event(Event::Stop);
    bench.submit(2, "a", None);
    bench.event(Event::Unwatch { cookie: 9, done: 3 });
    assert_eq!(bench.done, [1, 2, 3].map(|token| (token, Err(OpError::Closed))));
}
