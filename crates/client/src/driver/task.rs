//! The task that owns the core.

use super::connections::Connections;
use super::{Answer, Handle, Input, Shared};
use crate::core::{Core, Effect, Event, Now};
use crate::io::{Ack, OpError, WatchHandler};
use cairn_mon::service::subscription::MapBatch;
use cairn_net::Endpoint;
use cairn_types::{EntityAddr, Epoch, Timestamp};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

/// How maps are asked for: (epoch at hand; 0 for a full map).
pub(crate) type AskMaps = Box<dyn Fn(Epoch) + Send>;

/// Starts a client on the runtime it is called in. It ends with its handle.
pub(crate) fn start(
    endpoint: Arc<Endpoint>,
    client: u64,
    addr: EntityAddr,
    maps: mpsc::Receiver<MapBatch>,
    ask_maps: AskMaps,
) -> Handle {
    let shared = Shared::new();
    let task = Task {
        core: Core::new(client, addr),
        connections: Connections::new(endpoint, shared.clone()),
        shared: shared.clone(),
        ask_maps,
        watches: BTreeMap::new(),
        started: Instant::now(),
        stopped: false,
    };
    tokio::spawn(task.run(maps));
    Handle { shared }
}

/// A watch as its caller knows it.
struct Watcher {
    handler: Arc<dyn WatchHandler>,
    /// Until it stands for the first time.
    ready: Option<oneshot::Sender<Result<(), OpError>>>,
}

struct Task {
    core: Core<Answer>,
    connections: Connections,
    shared: Arc<Shared>,
    ask_maps: AskMaps,
    watches: BTreeMap<u64, Watcher>,
    started: Instant,
    stopped: bool,
}

impl Drop for Task {
    /// Also when the runtime ends: nobody shall wait for what is gone.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Task {
    async fn run(mut self, mut maps: mpsc::Receiver<MapBatch>) {
        let shared = self.shared.clone();
        let mut inputs = Vec::new();
        let mut timer = Box::pin(tokio::time::sleep_until(self.started));
        let mut maps_open = true;
        while !self.stopped {
            shared.take(&mut inputs);
            if inputs.is_empty() {
                let due = self.set(timer.as_mut());
                tokio::select! {
                    () = shared.wake.notified() => {}
                    batch = maps.recv(), if maps_open => match batch {
                        Some(MapBatch { full, increments, .. }) => {
                            let full = full.map(Box::new);
                            inputs.push(Input::Event(Event::Maps { full, increments }));
                        }
                        None => maps_open = false,
                    },
                    () = &mut timer, if due => inputs.push(Input::Event(Event::Tick)),
                }
            }
            let now = self.now();
            for input in inputs.drain(..) {
                self.take(now, input);
            }
        }
    }

    /// Sets the timer to the core's next moment; `false` if it has none.
    fn set(&self, timer: Pin<&mut Sleep>) -> bool {
        let Some(at_ms) = self.core.timer_ms() else { return false };
        let at = self.started + Duration::from_millis(at_ms);
        if timer.deadline() != at {
            timer.reset(at);
        }
        true
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { steady_ms: self.started.elapsed().as_millis() as u64, wall: Timestamp(wall.as_millis() as u64) }
    }

    fn take(&mut self, now: Now, input: Input) {
        let event = match input {
            Input::Event(event) => {
                match event {
                    Event::Closed(conn) => self.connections.closed(conn),
                    Event::Stop => self.stopped = true,
                    _ => {}
                }
                event
            }
            Input::Connected(conn, connection) => {
                if !self.connections.connected(conn, connection) {
                    return;
                }
                Event::Connected(conn)
            }
            Input::Drained(conn) => return self.connections.drained(conn),
            Input::Watch { cookie, object, handler, ready } => {
                self.watches.insert(cookie, Watcher { handler, ready: Some(ready) });
                Event::Watch { cookie, object }
            }
            Input::Unwatch { cookie, answer } => {
                self.watches.remove(&cookie);
                Event::Unwatch { cookie, done: answer }
            }
        };
        self.core.handle(now, event);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let Task { core, connections, shared, ask_maps, watches, .. } = self;
        let have = core.map().map_or(Epoch(0), |map| map.epoch);
        for effect in core.take_effects() {
            match effect {
                Effect::Connect { conn, osd, addr } => connections.connect(conn, osd, addr),
                Effect::Disconnect(conn) => connections.disconnect(conn),
                Effect::Send(conn, frame) => connections.send(conn, frame),
                // A caller that waits no longer is no error.
                Effect::Done(Answer { to, .. }, result) => drop(to.send(result)),
                Effect::Watching { cookie, result } => watching(watches, shared, cookie, result),
                Effect::Notified { id, notice } => {
                    let Some(watcher) = watches.get(&id.cookie) else { continue };
                    let shared = shared.clone();
                    let ack = Ack::new(move |reply| {
                        shared.push(Input::Event(Event::Acknowledge { notice: id, reply }));
                    });
                    watcher.handler.notified(notice, ack);
                }
                Effect::WatchRenewed(cookie) => {
                    if let Some(watcher) = watches.get(&cookie) {
                        watcher.handler.renewed();
                    }
                }
                Effect::WatchEnded(cookie, why) => {
                    if let Some(watcher) = watches.remove(&cookie) {
                        watcher.handler.ended(why);
                    }
                }
                Effect::NeedMap(wanted) => {
                    tracing::debug!(%wanted, %have, "an OSD has a newer map");
                    ask_maps(have);
                }
                Effect::NewMap(map) => {
                    shared.map.send_replace(Some(map));
                }
                Effect::BadMap(error) => {
                    tracing::warn!(%error, "maps from the monitors cannot be used; asking for a whole one");
                    ask_maps(Epoch(0));
                }
            }
        }
    }
}

fn watching(watches: &mut BTreeMap<u64, Watcher>, shared: &Shared, cookie: u64, result: Result<(), OpError>) {
    let Some(watcher) = watches.get_mut(&cookie) else { return };
    let stands = result.is_ok();
    let told = watcher.ready.take().is_some_and(|ready| ready.send(result).is_ok());
    if !stands {
        watches.remove(&cookie);
    } else if !told {
        // Its caller has given up waiting: nobody would ever end it.
        let (to, _) = oneshot::channel();
        shared.push(Input::Unwatch { cookie, answer: Answer { to, _share: None } });
    }
}
