//! Clients: the core, and what is asked of it.

use super::image::{ImageOp, ImageUser};
use super::net::{Packet, Purpose};
use super::session::MonSession;
use super::{Ev, Kind, World};
use crate::check::BlockId;
use crate::check::register::Value;
use crate::plan::Proc;
use crate::rng::Rng;
use crate::shape::BALLAST_BYTES;
use crate::timeline::Instant;
use bytes::Bytes;
use cairn_client::core::{ConnId, Core, Effect, Event, Now, Submit};
use cairn_client::{OpAnswer, OpError};
use cairn_crush::placement::object_hash;
use cairn_mon::service::subscription::{MapBatch, Need};
use cairn_mon::session::Wants;
use cairn_mon::session::core::{Event as SessionEvent, Outcome, Ticket};
use cairn_types::{EntityAddr, Epoch, ObjectId, PoolId, SnapId};
use cairn_wire::op::{NotifyAck, Op, OpFlags, OpKind, OpReply, WatchEvent};
use cairn_wire::{ErrorCode, Lane, Message, Payload};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = 4_096;
/// Operations that a client has under way at most.
const IN_FLIGHT_MAX: usize = 6;
/// Operations of 1,000 that are on journals.
const JOURNAL_PERMILLE: u64 = 200;
/// Operations of 1,000 that are on objects that take room, where there are any.
const BALLAST_PERMILLE: u64 = 700;
/// Objects that take room which a client deletes when there is none.
const DELETES_WHEN_FULL: u32 = 12;
/// Bytes of a number.
const ENTRY_BYTES: u64 = 8;
/// More than any journal has.
const JOURNAL_BYTES_MAX: u64 = 1 << 16;
/// How long a client waits for a session number before it asks again.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// One operation, as the checker has to know it.
#[derive(Debug)]
pub(super) enum Asked {
    Write(Vec<(BlockId, Value)>),
    Read(Vec<BlockId>),
    /// To an object that is only appended to: which, and the number.
    Append(u32, u64),
    ReadJournal(u32),
    /// For the image code.
    Image(ImageOp),
    /// Makes or deletes an object that takes room.
    Ballast,
}

/// A client's process.
pub(super) struct ClientProc {
    pub life: u64,
    pub session: Option<MonSession>,
    pub addr: Option<EntityAddr>,
    core: Option<Core<u64>>,
    /// Of those that use images.
    pub images: Option<Box<ImageUser>>,
    pub rng: Rng,
    asked: BTreeMap<u64, (Asked, Instant)>,
    next_token: u64,
    tickets: u64,
    timer_ms: Option<u64>,
    generation: u64,
    /// Epoch of the map by which the OSD answered that was heard last.
    answered_by: Epoch,
    /// It has been shut out, and begins anew in a moment.
    pub is_out: bool,
    /// So many objects are to be deleted to make room.
    deletes: u32,
}

impl ClientProc {
    fn submit(
        &mut self,
        object: ObjectId,
        ops: Vec<Op>,
        data: Payload,
        asked: Asked,
        sent: Instant,
    ) -> Submit<u64> {
        let done = self.asked_now(asked, sent);
        Submit { object, ops, data, flags: OpFlags::default(), timeout_ms: None, done }
    }

    /// Something is asked; its token.
    pub fn asked_now(&mut self, asked: Asked, sent: Instant) -> u64 {
        self.next_token += 1;
        self.asked.insert(self.next_token, (asked, sent));
        self.next_token
    }

    pub fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }
}

fn object(pool: PoolId, kind: &str, number: u32) -> ObjectId {
    let name = format!("{kind}.{number}");
    ObjectId {
        pool,
        hash: object_hash("", "", &name),
        namespace: String::new(),
        key: String::new(),
        name,
        snap: SnapId::HEAD,
    }
}

/// A block that holds a value: all of it, so that a torn one shows.
pub(super) fn fill(value: Value, out: &mut Vec<u8>) {
    for _ in 0..BLOCK_BYTES / 8 {
        out.extend_from_slice(&value.0.to_le_bytes());
    }
}

/// The value of a block as it was read; what lies beyond the object's end is zeros.
pub(super) fn value_of(block: &[u8]) -> Option<Value> {
    let mut value = None;
    for piece in block.chunks(8) {
        let number = u64::from_le_bytes(piece.try_into().ok()?);
        if *value.get_or_insert(number) != number {
            return None;
        }
    }
    Some(Value(value.unwrap_or(0)))
}

impl World {
    pub(super) fn make_clients(&mut self, seed: u64) {
        for n in 0..self.shape.clients {
            let client = ClientProc {
                life: 0,
                session: None,
                addr: None,
                core: None,
                images: None,
                rng: Rng::fork(seed, &format!("client {n}")),
                asked: BTreeMap::new(),
                next_token: 0,
                tickets: 0,
                timer_ms: None,
                generation: 0,
                answered_by: Epoch(0),
                is_out: false,
                deletes: 0,
            };
            self.clients.insert(n, client);
        }
    }

    pub(super) fn start_client(&mut self, n: u16) {
        if self.pool.is_none() {
            return;
        }
        let session = self.new_session(Proc::Client(n), u64::from(n));
        let Some(client) = self.clients.get_mut(&n) else { return };
        client.life += 1;
        client.session = Some(session);
        client.timer_ms = None;
        client.is_out = false;
        self.ask_session(n);
    }

    fn ask_session(&mut self, n: u16) {
        let Some(client) = self.clients.get_mut(&n) else { return };
        let ticket = client.next_ticket();
        self.tell_session(Proc::Client(n), SessionEvent::Session(ticket, SESSION_TIMEOUT));
    }

    /// What it had under way is never answered.
    pub(super) fn stop_client(&mut self, n: u16) {
        let Some(client) = self.clients.get_mut(&n) else { return };
        (client.session, client.core, client.addr, client.images) = (None, None, None, None);
        client.asked.clear();
    }

    pub(super) fn client_session(&mut self, n: u16, ticket: Ticket, outcome: Outcome) {
        if self.image_monitors_said(n, ticket, &outcome) {
            return;
        }
        let Outcome::Session(number) = outcome else { return self.ask_session(n) };
        let host = self.host_of(Proc::Client(n));
        let (Some(pool), uses_images) = (self.pool, self.uses_images(n)) else { return };
        let Some(client) = self.clients.get_mut(&n) else { return };
        let addr = EntityAddr { socket: ([10, 0, 1, host.0 as u8], 0).into(), nonce: number };
        client.addr = Some(addr);
        client.core = Some(Core::new(number, addr));
        client.images = uses_images.then(|| Box::new(ImageUser::new(number, addr, pool)));
        let life = client.life;
        self.client_wants(n, Epoch(0));
        self.line.after_us(1_000, Ev::ClientThink { client: n, life });
    }

    fn client_wants(&mut self, n: u16, have: Epoch) {
        let wants = Wants { osd_map: Some((have, Need::Newest)), ..Wants::default() };
        self.session_wants(Proc::Client(n), wants);
    }

    pub(super) fn client_maps(&mut self, n: u16, batch: MapBatch) {
        let MapBatch { full, increments, .. } = batch;
        self.tell_client(n, Event::Maps { full: full.map(Box::new), increments });
    }

    pub(super) fn client_connected(&mut self, n: u16, conn: ConnId) {
        self.tell_client(n, Event::Connected(conn));
    }

    pub(super) fn client_closed(&mut self, n: u16, conn: ConnId) {
        self.tell_client(n, Event::Closed(conn));
    }

    pub(super) fn client_reply(&mut self, n: u16, conn: ConnId, reply: OpReply, data: Payload) {
        if let Some(client) = self.clients.get_mut(&n) {
            client.answered_by = reply.epoch;
        }
        self.tell_client(n, Event::Reply { conn, reply, data });
    }

    pub(super) fn client_watch_event(&mut self, n: u16, conn: ConnId, event: WatchEvent) {
        self.tell_client(n, Event::WatchEvent { conn, event });
    }

    pub(super) fn client_wake(&mut self, n: u16, life: u64, generation: u64) {
        let Some(client) = self.clients.get_mut(&n) else { return };
        if client.life == life && client.generation == generation {
            client.timer_ms = None;
            self.tell_client(n, Event::Tick);
        }
    }

    /// The client asks for something, and thinks about the next.
    pub(super) fn client_think(&mut self, n: u16, life: u64) {
        if self.uses_images(n) {
            return self.image_think(n, life);
        }
        let Some(client) = self.clients.get_mut(&n).filter(|client| client.life == life) else { return };
        if client.core.is_none() || self.calm {
            return;
        }
        let mut pause_us = client.rng.between(200, 40_000);
        if client.rng.permille(20) {
            pause_us = client.rng.between(100_000, 1_500_000);
        }
        self.line.after_us(pause_us, Ev::ClientThink { client: n, life });
        let Some(pool) = self.pool else { return };
        if client.asked.len() >= IN_FLIGHT_MAX {
            return;
        }
        let journal = client.rng.permille(JOURNAL_PERMILLE);
        let ballast = self.shape.ballast > 0 && client.rng.permille(BALLAST_PERMILLE);
        let submit = if ballast {
            self.ballast_operation(n, pool, None)
        } else if journal {
            self.journal_operation(n, pool)
        } else {
            self.block_operation(n, pool)
        };
        if let Some(submit) = submit {
            self.tell_client(n, Event::Submit(submit));
        }
    }

    /// An append to an object that is only appended to, or a read of all of it.
    fn journal_operation(&mut self, n: u16, pool: PoolId) -> Option<Submit<u64>> {
        let sent = self.line.now();
        let client = self.clients.get_mut(&n)?;
        let number = client.rng.below(u64::from(self.shape.objects)) as u32;
        let (asked, op, data) = if client.rng.permille(700) && n >= self.shape.readers {
            let entry = self.checks.new_number();
            self.checks.journal(number).append_sent(entry);
            let data = Payload::of(0, Bytes::copy_from_slice(&entry.to_le_bytes()));
            (Asked::Append(number, entry), OpKind::Append { len: ENTRY_BYTES }, data)
        } else {
            (Asked::ReadJournal(number), OpKind::Read { offset: 0, len: JOURNAL_BYTES_MAX }, Payload::none())
        };
        Some(client.submit(object(pool, "journal", number), vec![op.into()], data, asked, sent))
    }

    /// Makes an object that takes room, or deletes one: of a given number, or when there was no room lately.
    pub(super) fn ballast_operation(
        &mut self,
        n: u16,
        pool: PoolId,
        gone: Option<u32>,
    ) -> Option<Submit<u64>> {
        let client = self.clients.get_mut(&n)?;
        let number = gone.unwrap_or(client.rng.below(u64::from(self.shape.ballast)) as u32);
        let deletes = gone.is_some() || client.deletes > 0;
        client.deletes = client.deletes.saturating_sub(1);
        let (op, data) = if deletes {
            (OpKind::Delete, Payload::none())
        } else {
            let bytes = vec![client.rng.next() as u8; BALLAST_BYTES as usize];
            (OpKind::WriteFull { len: BALLAST_BYTES }, Payload::of(0, Bytes::from(bytes)))
        };
        let sent = self.line.now();
        let submit =
            client.submit(object(pool, "ballast", number), vec![op.into()], data, Asked::Ballast, sent);
        let flags = if deletes { OpFlags::FULL_TRY } else { OpFlags::default() };
        Some(Submit { flags, ..submit })
    }

    /// All that only took room is deleted.
    pub(super) fn drop_ballast(&mut self) {
        let Some(pool) = self.pool else { return };
        let first = self.clients.iter().find(|(_, client)| client.core.is_some()).map(|(n, _)| *n);
        for number in 0..self.shape.ballast {
            if let Some(n) = first
                && let Some(submit) = self.ballast_operation(n, pool, Some(number))
            {
                self.tell_client(n, Event::Submit(submit));
            }
        }
    }

    /// A write or a read of some blocks of an object.
    fn block_operation(&mut self, n: u16, pool: PoolId) -> Option<Submit<u64>> {
        let client = self.clients.get_mut(&n)?;
        let by = client.addr?;
        let number = client.rng.below(u64::from(self.shape.objects)) as u32;
        let first = client.rng.below(u64::from(self.shape.blocks)) as u32;
        let count = if client.rng.permille(750) {
            1
        } else {
            client.rng.between(1, u64::from(self.shape.blocks - first)) as u32
        };
        let blocks: Vec<BlockId> =
            (first..first + count).map(|block| BlockId { object: number, block }).collect();
        let (offset, len) = (u64::from(first) * BLOCK_BYTES, u64::from(count) * BLOCK_BYTES);
        // The last is read often and written seldom: it lies on the disk.
        let is_cold = number > 0 && number + 1 == self.shape.objects;
        let write_permille = if is_cold { 40 } else { 500 };
        let is_write = client.rng.permille(write_permille) && n >= self.shape.readers;
        let sent = self.line.now();
        let (asked, ops, data) = if is_write {
            let mut bytes = Vec::with_capacity(len as usize);
            let mut writes = Vec::new();
            for block in blocks {
                let value = self.checks.write_sent(block, by, sent);
                fill(value, &mut bytes);
                writes.push((block, value));
            }
            let whole = offset == 0 && count == self.shape.blocks;
            let ops = match client.rng.below(if whole { 10 } else { 6 }) {
                // Space is given back and taken again.
                6 => vec![
                    OpKind::Create { exclusive: false }.into(),
                    OpKind::Delete.into(),
                    OpKind::Write { offset, len }.into(),
                ],
                7 => vec![
                    OpKind::Create { exclusive: false }.into(),
                    OpKind::Truncate { size: 0 }.into(),
                    OpKind::Write { offset, len }.into(),
                ],
                8 => vec![OpKind::WriteFull { len }.into()],
                0 => vec![OpKind::Zero { offset, len }.into(), OpKind::Write { offset, len }.into()],
                _ => vec![OpKind::Write { offset, len }.into()],
            };
            (Asked::Write(writes), ops, Payload::of(offset, Bytes::from(bytes)))
        } else {
            (Asked::Read(blocks), vec![OpKind::Read { offset, len }.into()], Payload::none())
        };
        Some(client.submit(object(pool, "object", number), ops, data, asked, sent))
    }

    /// A client that was shut out begins anew, under another address.
    pub(super) fn client_renew(&mut self, n: u16, life: u64) {
        if self.lives(Proc::Client(n), life) {
            self.stop(Proc::Client(n), false);
            self.start(Proc::Client(n));
        }
    }

    pub(super) fn tell_client(&mut self, n: u16, event: Event<u64>) {
        let who = Proc::Client(n);
        let at = self.now();
        let now = Now { steady_ms: self.steady_us(who) / 1_000, wall: self.wall(who) };
        let Some(client) = self.clients.get_mut(&n) else { return };
        let Some(core) = &mut client.core else { return };
        self.log.say(at, Some(who), || format!("{event:?}"));
        core.handle(now, event);
        let have = core.map().map_or(Epoch(0), |map| map.epoch);
        let effects: Vec<Effect<u64>> = core.take_effects().collect();
        let timer_ms = core.timer_ms();
        for effect in effects {
            self.log.say(at, Some(who), || format!("  → {effect:?}"));
            self.carry_out_client(n, effect, have);
        }
        let Some(client) = self.clients.get_mut(&n) else { return };
        if client.timer_ms != timer_ms {
            client.timer_ms = timer_ms;
            client.generation += 1;
            let (life, generation) = (client.life, client.generation);
            if let Some(ms) = timer_ms {
                let at = self.when_steady(who, ms * 1_000);
                self.line.at(at, Ev::ClientWake { client: n, life, generation });
            }
        }
    }

    fn carry_out_client(&mut self, n: u16, effect: Effect<u64>, have: Epoch) {
        let who = Proc::Client(n);
        match effect {
            Effect::Connect { conn, osd: _, addr } => {
                // A client knows an OSD by its certificate; the run it finds there may be another.
                self.connect(who, Self::listener(&addr), None, Purpose::Objects(conn));
            }
            Effect::Disconnect(conn) => {
                if let Some(key) = self.object_conn(n, conn) {
                    self.close(who, key);
                }
            }
            Effect::Send(conn, frame) => {
                let Some(key) = self.object_conn(n, conn) else { return };
                let packet = match frame.kind() {
                    NotifyAck::KIND => frame.message().map(|ack| Packet::NotifyAck(Box::new(ack))),
                    _ => frame
                        .message()
                        .map(|request| Packet::Request(Box::new(request), frame.into_payload())),
                };
                match packet {
                    Ok(packet) => self.send(who, key, Lane::Client, packet),
                    Err(error) => self.fail(Kind::Crash, format!("{who} sends what cannot be read: {error}")),
                }
            }
            Effect::Done(token, result) => self.client_answer(n, token, result),
            Effect::NeedMap(_) => self.client_wants(n, have),
            Effect::BadMap(error) => self.fail(Kind::Safety, format!("{who} was given a bad map: {error}")),
            Effect::NewMap(map) => {
                if let Err(why) = self.checks.map(&who.to_string(), &map) {
                    self.fail(Kind::Safety, why);
                }
            }
            Effect::Watching { .. }
            | Effect::Notified { .. }
            | Effect::WatchRenewed(_)
            | Effect::WatchEnded(..) => self.image_effect(n, effect),
        }
    }

    fn journal_read(&mut self, number: u32, answer: Result<OpAnswer, OpError>, sent: Instant) {
        let now = self.now();
        let bytes: Vec<u8> = match answer {
            Ok(answer) => answer.data.segments().iter().flat_map(|segment| segment.data().to_vec()).collect(),
            Err(OpError::Code { code: ErrorCode::NOENT, .. }) => Vec::new(),
            Err(OpError::Code { code: ErrorCode::IO, .. }) if self.osds.values().any(|node| node.hurt) => {
                return;
            }
            Err(OpError::Blocklisted { .. }) => return,
            Err(error) => return self.fail(Kind::Safety, format!("journal.{number}: {error}")),
        };
        let entries: Vec<u64> = bytes
            .chunks(ENTRY_BYTES as usize)
            .map(|entry| entry.try_into().map_or(u64::MAX, u64::from_le_bytes))
            .collect();
        if let Err(why) = self.checks.journal(number).read(&entries, sent, now) {
            self.fail(Kind::Safety, format!("journal.{number}: {why}"));
        }
    }

    fn client_answer(&mut self, n: u16, token: u64, result: Result<OpAnswer, OpError>) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(&n) else { return };
        let Some((asked, sent)) = client.asked.remove(&token) else {
            return self.fail(Kind::Safety, format!("client.{n} was answered twice"));
        };
        let by = client.answered_by;
        if let Err(OpError::Code { code: ErrorCode::NOSPC, .. }) = &result
            && self.shape.ballast > 0
        {
            client.deletes = DELETES_WHEN_FULL;
            self.refused_full += 1;
            // Nothing was changed.
            return match asked {
                Asked::Write(writes) => {
                    writes.into_iter().for_each(|(block, value)| self.checks.write_refused(block, value));
                }
                Asked::Append(number, entry) => {
                    if let Err(why) = self.checks.journal(number).append_refused(entry) {
                        self.fail(Kind::Safety, format!("journal.{number}: {why}"));
                    }
                }
                _ => {}
            };
        }
        match (asked, result) {
            (Asked::Ballast, Ok(_) | Err(OpError::Code { code: ErrorCode::NOENT, .. })) => {}
            (Asked::Image(op), result) => self.image_answer(n, op, result),
            (Asked::Write(writes), Ok(_)) => {
                for (block, value) in writes {
                    self.checks.write_answered(block, value, now);
                    self.checks.fence(block, by, now);
                }
            }
            (Asked::Read(blocks), Ok(answer)) => {
                let bytes: Vec<u8> =
                    answer.data.segments().iter().flat_map(|segment| segment.data().to_vec()).collect();
                for (at, block) in blocks.into_iter().enumerate() {
                    let from = (at * BLOCK_BYTES as usize).min(bytes.len());
                    let to = (from + BLOCK_BYTES as usize).min(bytes.len());
                    self.checks.fence(block, by, now);
                    match value_of(&bytes[from..to]) {
                        Some(value) => self.checks.read(block, value, sent, now),
                        None => self.fail(Kind::Safety, format!("{block:?} was read torn")),
                    }
                }
            }
            // Nobody has written it yet.
            (Asked::Read(blocks), Err(OpError::Code { code: ErrorCode::NOENT, .. })) => {
                for block in blocks {
                    self.checks.read(block, Value::INITIAL, sent, now);
                }
            }
            (Asked::Append(number, entry), Ok(_)) => self.checks.journal(number).append_answered(entry, now),
            (Asked::ReadJournal(number), answer) => self.journal_read(number, answer, sent),
            // The operator has shut it out: what was under way may have happened.
            (_, Err(OpError::Blocklisted { .. })) => {
                let Some(client) = self.clients.get_mut(&n).filter(|client| !client.is_out) else { return };
                client.is_out = true;
                let life = client.life;
                self.line.after_us(1_000, Ev::ClientRenew { client: n, life });
            }
            // A disk that was hurt may say so; that is not to return something wrong.
            (_, Err(OpError::Code { code: ErrorCode::IO, .. }))
                if self.osds.values().any(|node| node.hurt) => {}
            (asked, Err(error)) => self.fail(Kind::Safety, format!("client.{n}: {asked:?}: {error}")),
        }
    }
}
