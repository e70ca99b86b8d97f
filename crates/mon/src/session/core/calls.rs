//! Calls from the caller to the answer. A change that must count once carries the session's number, its own, and a
//! version of the state; all three stay the same however often it is sent.

use super::Failure;
use super::{Attempt, Effects, Query, Reading, Reply, Request, Sent};
use crate::message::MonCall;
use crate::monitor::{Answer, Call, CallTag};
use crate::service::Once;
use crate::session::CallError;
use cairn_paxos::Moment;
use cairn_wire::{ErrorCode, RequestId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a monitor may leave a call without an answer before another one is asked: an election and the tries
/// that follow it fit several times.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);

/// Before a call is made again that met a monitor with too much to do.
const BUSY_RETRY: Duration = Duration::from_millis(300);

/// How long the newest version of the state that was seen is good enough for a new call to be born at: the monitors
/// remember far more requests than they can be asked in this time.
const VERSION_LIFETIME: Duration = Duration::from_secs(60);

/// The caller's name of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// What became of a call.
#[derive(Debug)]
pub enum Outcome {
    /// The change was agreed on, and this is its answer.
    Changed(Reply),
    /// The answer to a question.
    Read(Box<Reading>),
    /// The number of a session that was opened.
    Session(u64),
    /// It was refused, or nobody answered in time.
    Failed(CallError),
}

#[derive(Debug)]
enum Kind {
    Change(Request),
    Read(Query),
    /// Waits until the session has its number.
    Session,
    /// Our own: asks for the session's number.
    OpenSession,
    /// Our own: asks how far the state is.
    SeeVersion,
}

#[derive(Debug)]
struct Pending {
    kind: Kind,
    /// Nobody waits for our own calls.
    ticket: Option<Ticket>,
    started: Moment,
    deadline: Option<Moment>,
    /// As it goes over the wire, once everything it needs is known.
    call: Option<Call>,
    /// On which connection it was sent last, and when.
    sent: Option<(Attempt, Moment)>,
    retry_at: Option<Moment>,
}

/// The monitor that gave an answer hears no leader.
#[derive(Debug)]
pub(super) struct NoLeader;

/// The calls that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pending: BTreeMap<CallTag, Pending>,
    next_tag: u64,
    next_tid: u64,
    session: Option<u64>,
    /// Newest version of the state that was seen, and when.
    version: Option<(u64, Moment)>,
}

impl Calls {
    fn add(&mut self, kind: Kind, ticket: Option<Ticket>, now: Moment, timeout: Option<Duration>) {
        let tag = CallTag(self.next_tag);
        self.next_tag += 1;
        let deadline = timeout.map(|timeout| now + timeout);
        let pending =
            Pending { kind, ticket, started: now, deadline, call: None, sent: None, retry_at: None };
        self.pending.insert(tag, pending);
    }

    pub fn change(&mut self, ticket: Ticket, request: Request, now: Moment, timeout: Duration) {
        self.add(Kind::Change(request), Some(ticket), now, Some(timeout));
    }

    pub fn read(&mut self, ticket: Ticket, query: Query, now: Moment, timeout: Duration) {
        self.add(Kind::Read(query), Some(ticket), now, Some(timeout));
    }

    pub fn session(&mut self, ticket: Ticket, now: Moment, timeout: Duration) {
        self.add(Kind::Session, Some(ticket), now, Some(timeout));
    }

    pub fn give_up(&mut self, ticket: Ticket) {
        self.pending.retain(|_, pending| pending.ticket != Some(ticket));
    }

    pub fn unsendable(&mut self, tag: CallTag, why: String, out: &mut Effects) {
        let Some(pending) = self.pending.remove(&tag) else { return };
        let error = CallError::Refused { code: ErrorCode::INVAL, why };
        out.finished.extend(pending.ticket.map(|ticket| (ticket, Outcome::Failed(error))));
    }

    /// Tells those whose time is over.
    pub fn expire(
        &mut self,
        now: Moment,
        up: bool,
        monitors: &[SocketAddr],
        last: Option<&Failure>,
        out: &mut Effects,
    ) {
        let over = |pending: &Pending| pending.deadline.is_some_and(|deadline| deadline <= now);
        for (_, pending) in self.pending.extract_if(.., |_, pending| over(pending)) {
            let Some(ticket) = pending.ticket else { continue };
            let unreachable = |last| CallError::Unreachable { monitors: monitors.to_vec(), last };
            let error = match (up, last) {
                (true, _) => CallError::TimedOut { waited_ms: now.since(pending.started).as_millis() as u64 },
                (false, Some(Failure::TurnedAway(why))) => CallError::TurnedAway { why: why.clone() },
                (false, Some(Failure::Gone(why))) => unreachable(Some(why.clone())),
                (false, None) => unreachable(None),
            };
            out.finished.push((ticket, Outcome::Failed(error)));
        }
    }

    /// Gives calls their form for the wire as soon as what they need is there, and asks for what is not.
    pub fn prepare(&mut self, now: Moment, out: &mut Effects) {
        let fresh = |at: Moment| now.since(at) < VERSION_LIFETIME;
        let version = self.version.filter(|(_, at)| fresh(*at)).map(|(version, _)| version);
        let (mut needs_session, mut needs_version) = (false, false);
        let mut have_session = Vec::new();
        for (&tag, pending) in self.pending.iter_mut().filter(|(_, pending)| pending.call.is_none()) {
            pending.call = match &pending.kind {
                Kind::Read(query) => Some(Call::Read(*query)),
                Kind::SeeVersion => Some(Call::Read(Query::Version)),
                Kind::OpenSession => Some(Call::Change { once: None, request: Request::Session }),
                Kind::Session => {
                    match self.session {
                        Some(_) => have_session.push(tag),
                        None => needs_session = true,
                    }
                    None
                }
                Kind::Change(request) if request.is_repeatable() => {
                    Some(Call::Change { once: None, request: request.clone() })
                }
                Kind::Change(request) => match (self.session, version) {
                    (Some(client), Some(born)) => {
                        self.next_tid += 1;
                        let id = RequestId { client, incarnation: 0, tid: self.next_tid };
                        Some(Call::Change { once: Some(Once { id, born }), request: request.clone() })
                    }
                    (session, _) => {
                        needs_session |= session.is_none();
                        needs_version |= session.is_some();
                        None
                    }
                },
            };
        }
        for tag in have_session {
            let pending = self.pending.remove(&tag);
            if let (Some(ticket), Some(client)) = (pending.and_then(|p| p.ticket), self.session) {
                out.finished.push((ticket, Outcome::Session(client)));
            }
        }
        // An answer to the first brings a version, too.
        let opens = |pending: &Pending| matches!(pending.kind, Kind::OpenSession);
        let sees = |pending: &Pending| matches!(pending.kind, Kind::SeeVersion);
        if needs_session && !self.pending.values().any(opens) {
            self.add(Kind::OpenSession, None, now, None);
            self.prepare(now, out);
        } else if needs_version && !self.pending.values().any(sees) {
            self.add(Kind::SeeVersion, None, now, None);
            self.prepare(now, out);
        }
    }

    /// Sends what this connection has not carried yet, and what is due again.
    pub fn send(&mut self, attempt: Attempt, now: Moment, out: &mut Effects) {
        for (&tag, pending) in &mut self.pending {
            let carried = pending.sent.is_some_and(|(on, _)| on == attempt);
            let due = pending.retry_at.is_none_or(|at| at <= now);
            if carried && pending.retry_at.is_none() || !due {
                continue;
            }
            if let Some(call) = &pending.call {
                out.send.push(Sent::Call(MonCall { tag, call: call.clone() }));
                (pending.sent, pending.retry_at) = (Some((attempt, now)), None);
            }
        }
    }

    /// Takes an answer; `Err` if it says that the monitor that gave it is of no use.
    pub fn take_answer(
        &mut self,
        tag: CallTag,
        answer: Answer,
        now: Moment,
        out: &mut Effects,
    ) -> Result<(), NoLeader> {
        let Some(pending) = self.pending.get_mut(&tag) else { return Ok(()) };
        let outcome = match answer {
            Answer::Busy => {
                pending.retry_at = Some(now + BUSY_RETRY);
                return Ok(());
            }
            Answer::TimedOut => {
                pending.sent = None;
                return Err(NoLeader);
            }
            Answer::Refused { code, why } => Outcome::Failed(CallError::Refused { code, why }),
            Answer::Done { reply, version } => {
                self.version = Some((version.max(self.version.map_or(0, |(known, _)| known)), now));
                if let (Kind::OpenSession, Reply::Session { client }) = (&pending.kind, &reply) {
                    self.session = Some(*client);
                }
                Outcome::Changed(reply)
            }
            Answer::Read(reading) => {
                if let Reading::Version(version) = *reading {
                    self.version = Some((version.max(self.version.map_or(0, |(known, _)| known)), now));
                }
                Outcome::Read(reading)
            }
        };
        if let Some(ticket) = self.pending.remove(&tag).and_then(|pending| pending.ticket) {
            out.finished.push((ticket, outcome));
        }
        Ok(())
    }

    /// Whether a call has waited on this connection for too long.
    pub fn out_of_patience(&self, attempt: Attempt, now: Moment) -> bool {
        self.answer_due(attempt).is_some_and(|due| due <= now)
    }

    fn answer_due(&self, attempt: Attempt) -> Option<Moment> {
        let waits = self.pending.values().filter(|pending| pending.retry_at.is_none());
        let sent = waits.filter_map(|pending| pending.sent).filter(|(on, _)| *on == attempt);
        sent.map(|(_, at)| at + ANSWER_PATIENCE).min()
    }

    pub fn wake_at(&self, up: Option<Attempt>) -> Option<Moment> {
        let deadlines = self.pending.values().filter_map(|pending| pending.deadline);
        let Some(attempt) = up else { return deadlines.min() };
        let retries = self.pending.values().filter_map(|pending| pending.retry_at);
        deadlines.chain(retries).chain(self.answer_due(attempt)).min()
    }
}
