//! Clients of images: the project's image code, run in virtual time over the simulated client.
//!
//! | what | where |
//! |---|---|
//! | what the image code asks of the world, and the answers | here |
//! | the pool as it sees it | `io` |
//! | futures | `tasks` |
//! | what is done with images, and what must come of it | `work` |

mod io;
mod tasks;
mod work;

use super::client::{Asked, BLOCK_BYTES, value_of};
use super::{Ev, World};
use crate::canary::Canary;
use crate::check::image::Place;
use crate::check::register::Value;
use crate::plan::Proc;
use cairn_client::core::{Effect, Event, Submit};
use cairn_client::{Ack, OpAnswer, OpError, WatchHandler};
use cairn_crush::placement::object_hash;
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::{ClusterCommand, Request};
use cairn_mon::session::core::{Event as SessionEvent, Outcome, Ticket};
use cairn_mon::session::{CALL_TIMEOUT, CallError};
use cairn_types::{EntityAddr, Epoch, ObjectId, PoolId, SnapId};
use cairn_wire::Payload;
use cairn_wire::op::{Op, OpFlags, OpKind};
use io::{Answer, Ask, SimIo};
use std::collections::BTreeMap;
use std::sync::Arc;
use tasks::{Slot, Tasks};
use work::Using;

/// A watch of the image code.
struct Watcher {
    handler: Arc<dyn WatchHandler>,
    ready: Option<Slot<Result<(), OpError>>>,
}

/// What the checker has to know of a vector that the image code sends.
#[derive(Debug)]
pub(super) enum Touch {
    /// Nothing.
    None,
    /// The lock of the image with this header is being taken.
    Lock(String),
    /// A data object.
    Data { image: String, object: u64, holder: u64, writes: Vec<(Place, Value)> },
}

/// Asked for by the image code.
pub(super) struct ImageOp {
    to: Answer,
    touch: Touch,
}

impl std::fmt::Debug for ImageOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.touch.fmt(f)
    }
}

/// Answers of the monitors that are waited for.
enum Call {
    /// Somebody is being shut out.
    Block(Slot<Result<Epoch, OpError>>),
    /// The newest map.
    Map(Slot<Result<Epoch, OpError>>),
}

/// The image code in one life of a client.
pub(super) struct ImageUser {
    io: SimIo,
    tasks: Tasks,
    watchers: BTreeMap<u64, Watcher>,
    calls: BTreeMap<Ticket, Call>,
    sleeps: BTreeMap<u64, Slot<()>>,
    last_sleep: u64,
    /// By header: the version that taking the lock last made.
    holders: BTreeMap<String, u64>,
    /// It will be polled in a moment.
    woken: bool,
    using: Using,
}

impl ImageUser {
    pub fn new(client: u64, addr: EntityAddr, pool: PoolId) -> ImageUser {
        ImageUser {
            io: SimIo::new(client, addr, pool),
            tasks: Tasks::default(),
            watchers: BTreeMap::new(),
            calls: BTreeMap::new(),
            sleeps: BTreeMap::new(),
            last_sleep: 0,
            holders: BTreeMap::new(),
            woken: false,
            using: Using::default(),
        }
    }
}

const DATA: &str = "rbd_data.";
const HEADER: &str = "rbd_header.";

fn object_id(pool: PoolId, name: &str) -> ObjectId {
    ObjectId {
        pool,
        hash: object_hash("", "", name),
        namespace: String::new(),
        key: String::new(),
        name: name.to_owned(),
        snap: SnapId::HEAD,
    }
}

/// The image and the number of one of its data objects.
fn data_object(name: &str) -> Option<(&str, u64)> {
    let (image, number) = name.strip_prefix(DATA)?.rsplit_once('.')?;
    Some((image, u64::from_str_radix(number, 16).ok()?))
}

fn takes_lock(op: &Op) -> bool {
    matches!(&op.kind, OpKind::Call { class, method, .. } if &**class == "lock" && &**method == "lock")
}

/// Bytes of a vector, one after the other.
pub(super) fn bytes_of(data: &Payload) -> Vec<u8> {
    data.segments().iter().flat_map(|segment| segment.data().to_vec()).collect()
}

impl World {
    fn image_user(&mut self, n: u16) -> Option<&mut ImageUser> {
        self.clients.get_mut(&n)?.images.as_deref_mut()
    }

    /// Something may have woken tasks of a client.
    fn wake_images(&mut self, n: u16) {
        let (now, Some(life)) = (self.now(), self.life(Proc::Client(n))) else { return };
        let Some(user) = self.image_user(n) else { return };
        if !user.woken {
            user.woken = true;
            self.line.at(now, Ev::ImageRun { client: n, life });
        }
    }

    pub(super) fn image_run(&mut self, n: u16, life: u64) {
        if !self.lives(Proc::Client(n), life) {
            return;
        }
        let Some(user) = self.image_user(n) else { return };
        user.woken = false;
        let ran = user.tasks.run();
        while let Some(ask) = self.image_user(n).and_then(|user| user.io.0.take()) {
            self.image_ask(n, ask);
        }
        self.image_outcomes(n);
        if ran || self.image_user(n).is_some_and(|user| user.tasks.is_ready()) {
            self.wake_images(n);
        }
    }

    fn image_ask(&mut self, n: u16, ask: Ask) {
        let who = Proc::Client(n);
        let Some(pool) = self.pool else { return };
        match ask {
            Ask::Operate { object, ops, data, flags, to } => {
                self.image_operate(n, &object, ops, data, flags, to)
            }
            Ask::Watch { cookie, object, handler, to } => {
                let Some(user) = self.image_user(n) else { return };
                user.watchers.insert(cookie, Watcher { handler, ready: Some(to) });
                self.tell_client(n, Event::Watch { cookie, object: object_id(pool, &object) });
            }
            Ask::Unwatch { cookie, to } => {
                let now = self.now();
                let Some(client) = self.clients.get_mut(&n) else { return };
                if let Some(user) = &mut client.images {
                    user.watchers.remove(&cookie);
                }
                let asked = Asked::Image(ImageOp { to, touch: Touch::None });
                let done = client.asked_now(asked, now);
                self.tell_client(n, Event::Unwatch { cookie, done });
            }
            Ask::Acknowledge { notice, reply } => self.tell_client(n, Event::Acknowledge { notice, reply }),
            Ask::Block { addr, for_ms, to } => {
                if self.canary == Some(Canary::TakeLockWithoutBlocklist) {
                    to.put(Ok(Epoch(0)));
                    return self.wake_images(n);
                }
                let request = Request::Cluster(ClusterCommand::Block { addr, for_ms });
                let Some(ticket) = self.image_call(n, Call::Block(to)) else { return };
                self.tell_session(who, SessionEvent::Change(ticket, request, CALL_TIMEOUT));
            }
            Ask::Sleep { for_us, to } => {
                let at = self.when_steady(who, self.steady_us(who) + for_us);
                let Some(life) = self.life(who) else { return };
                let Some(user) = self.image_user(n) else { return };
                user.last_sleep += 1;
                let sleep = user.last_sleep;
                user.sleeps.insert(sleep, to);
                self.line.at(at, Ev::ImageAlarm { client: n, life, sleep });
            }
            Ask::Spawn(work) => {
                let Some(user) = self.image_user(n) else { return };
                user.tasks.spawn(work);
                self.wake_images(n);
            }
        }
    }

    fn image_operate(
        &mut self,
        n: u16,
        object: &str,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
        to: Answer,
    ) {
        let (now, Some(pool)) = (self.now(), self.pool) else { return };
        let touch = self.image_touch(n, object, &ops, &data);
        let Some(client) = self.clients.get_mut(&n) else { return };
        let done = client.asked_now(Asked::Image(ImageOp { to, touch }), now);
        let object = object_id(pool, object);
        self.tell_client(n, Event::Submit(Submit { object, ops, data, flags, timeout_ms: None, done }));
    }

    /// Tells the checker what is being sent.
    fn image_touch(&mut self, n: u16, name: &str, ops: &[Op], data: &Payload) -> Touch {
        let now = self.now();
        if name.starts_with(HEADER) && ops.iter().any(takes_lock) {
            return Touch::Lock(name.to_owned());
        }
        let (Some((image, object)), Some(op)) = (data_object(name), ops.first()) else { return Touch::None };
        let image = image.to_owned();
        let holders = self.image_user(n).map(|user| &user.holders);
        let holder = holders.and_then(|all| all.get(&format!("{HEADER}{image}"))).copied().unwrap_or(0);
        let first = object * work::OBJECT_BLOCKS;
        let mut writes = Vec::new();
        match op.kind {
            OpKind::Write { offset, .. } => {
                for (at, block) in bytes_of(data).chunks(BLOCK_BYTES as usize).enumerate() {
                    let block_of_image = first + offset / BLOCK_BYTES + at as u64;
                    let place = Place { image: image.clone(), object, block: block_of_image };
                    // What is written here are blocks of one number each.
                    let Some(value) = value_of(block) else { continue };
                    self.checks.images.write_sent(&place, value, holder, now);
                    writes.push((place, value));
                }
            }
            OpKind::Delete | OpKind::Truncate { .. } | OpKind::Zero { .. } => {
                for block in first..first + work::OBJECT_BLOCKS {
                    self.checks.images.discarded(&image, block);
                }
            }
            _ => {}
        }
        Touch::Data { image, object, holder, writes }
    }

    /// An answer for the image code.
    pub(super) fn image_answer(&mut self, n: u16, op: ImageOp, result: Result<OpAnswer, OpError>) {
        let now = self.now();
        match (op.touch, &result) {
            (Touch::Lock(header), Ok(answer)) => {
                if let Some(user) = self.image_user(n) {
                    user.holders.insert(header, answer.user_version);
                }
            }
            (Touch::Data { image, object, holder, writes }, Ok(_)) => {
                for (place, value) in writes {
                    if let Err(why) = self.checks.images.write_answered(&place, value, now) {
                        self.fail(super::Kind::Safety, format!("client.{n}: {why}"));
                    }
                }
                self.checks.images.carried_out(&image, object, holder, now);
            }
            (Touch::Data { image, object, holder, .. }, Err(error)) if error.is_not_found() => {
                self.checks.images.carried_out(&image, object, holder, now);
            }
            _ => {}
        }
        op.to.put(result);
        self.wake_images(n);
    }

    /// The client's core has something to say about watches.
    pub(super) fn image_effect(&mut self, n: u16, effect: Effect<u64>) {
        let Some(user) = self.image_user(n) else { return };
        match effect {
            Effect::Watching { cookie, result } => {
                let Some(watcher) = user.watchers.get_mut(&cookie) else { return };
                let stands = result.is_ok();
                if let Some(ready) = watcher.ready.take() {
                    ready.put(result);
                }
                if !stands {
                    user.watchers.remove(&cookie);
                }
            }
            Effect::Notified { id, notice } => {
                let Some(watcher) = user.watchers.get(&id.cookie) else { return };
                let desk = user.io.0.clone();
                let ack = Ack::new(move |reply| desk.put(Ask::Acknowledge { notice: id, reply }));
                watcher.handler.notified(notice, ack);
            }
            Effect::WatchRenewed(cookie) => {
                if let Some(watcher) = user.watchers.get(&cookie) {
                    watcher.handler.renewed();
                }
            }
            Effect::WatchEnded(cookie, why) => {
                if let Some(watcher) = user.watchers.remove(&cookie) {
                    watcher.handler.ended(why);
                }
            }
            _ => {}
        }
        self.wake_images(n);
    }

    pub(super) fn image_alarm(&mut self, n: u16, life: u64, sleep: u64) {
        if !self.lives(Proc::Client(n), life) {
            return;
        }
        if let Some(to) = self.image_user(n).and_then(|user| user.sleeps.remove(&sleep)) {
            to.put(());
            self.wake_images(n);
        }
    }

    fn image_call(&mut self, n: u16, call: Call) -> Option<Ticket> {
        let client = self.clients.get_mut(&n)?;
        let ticket = client.next_ticket();
        client.images.as_deref_mut()?.calls.insert(ticket, call);
        Some(ticket)
    }

    /// The monitors answer a call of the image code, as the client does over a real session. False when it is none.
    pub(super) fn image_monitors_said(&mut self, n: u16, ticket: Ticket, outcome: &Outcome) -> bool {
        let Some(call) = self.image_user(n).and_then(|user| user.calls.remove(&ticket)) else { return false };
        match (call, outcome) {
            // When this is done, the client uses a map that has the entry.
            (Call::Block(to), Outcome::Changed(_)) => {
                if let Some(ticket) = self.image_call(n, Call::Map(to)) {
                    let query = Query::OsdMap(None);
                    self.tell_session(Proc::Client(n), SessionEvent::Read(ticket, query, CALL_TIMEOUT));
                }
            }
            (Call::Map(to), Outcome::Read(reading)) => {
                let Reading::OsdMap(map) = &**reading else { return true };
                let epoch = map.epoch;
                let full = Some(Box::new(map.clone()));
                self.tell_client(n, Event::Maps { full, increments: Vec::new() });
                to.put(Ok(epoch));
            }
            (Call::Block(to) | Call::Map(to), outcome) => {
                let error = match outcome {
                    Outcome::Failed(error) => error.clone(),
                    _ => CallError::Closed,
                };
                to.put(Err(error.into()));
            }
        }
        self.wake_images(n);
        true
    }
}
