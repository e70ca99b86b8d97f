//! A session with the monitors as a state machine: which monitor to be connected to, what is sent again when, which
//! maps are new. `client` drives it.
//!
//! | behaviour | module |
//! |---|---|
//! | what goes in and out, which monitor | here |
//! | calls from the caller to the answer | `calls` |
//! | subscriptions, updates, what is acknowledged | `maps` |

mod calls;
mod maps;

use super::{Update, Wants};
use crate::message::{MonAnswer, MonCall, MonNews, MonSubscribe};
use crate::monitor::{CallTag, DaemonNews, Publication, Query, Reading};
use crate::service::{Reply, Request};
use cairn_paxos::Moment;
use cairn_types::Epoch;
use calls::Calls;
use maps::Maps;
use std::net::SocketAddr;
use std::time::Duration;

pub use calls::{Outcome, Ticket};

/// How long an attempt to connect may take before the next monitor is tried: many round trips and a handshake on
/// a busy machine.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Pause after all monitors were tried in vain, doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause: a cluster that is started is found within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The driver's name of one connection, or of the attempt to make it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attempt(pub u64);

/// Why the last attempt came to nothing.
#[derive(Debug)]
enum Failure {
    /// Nobody was there, or is no longer.
    Gone(String),
    /// See [`Event::TurnedAway`].
    TurnedAway(String),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The moment of [`Effects::timer`] has come, or may have.
    Tick,
    /// The connection stands.
    Connected(Attempt),
    /// It could not be made, or it has ended.
    Lost(Attempt, String),
    /// It could not be made because the two ends do not take each other: waiting will not mend it.
    TurnedAway(Attempt, String),
    /// An answer arrived.
    Answer(Attempt, MonAnswer),
    /// Something that was subscribed to arrived.
    Publication(Attempt, Publication),
    /// Somebody asks for a change.
    Change(Ticket, Request, Duration),
    /// Somebody asks a question.
    Read(Ticket, Query, Duration),
    /// Somebody asks for the session's number.
    Session(Ticket, Duration),
    /// Whoever asked waits no longer.
    GiveUp(Ticket),
    /// A call has no form on the wire.
    Unsendable(CallTag, String),
    /// To be told if there is a connection.
    Tell(DaemonNews),
    /// What is wanted from now on.
    Subscribe(Wants),
    /// The process has taken the OSD maps up to here.
    Delivered(Epoch),
    /// Where the configuration says that monitors are.
    Configured(Vec<SocketAddr>),
}

/// Something to send on the connection that stands.
#[derive(Clone, PartialEq, Debug)]
pub enum Sent {
    /// A change or a question, which is answered.
    Call(MonCall),
    /// Something the monitors should know, which is not.
    News(MonNews),
    /// What of the maps this process wants to be told.
    Subscribe(MonSubscribe),
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Effects {
    /// End this connection, or the attempt.
    pub disconnect: Option<Attempt>,
    /// Connect there.
    pub connect: Option<(Attempt, SocketAddr)>,
    /// Send on the connection that stands.
    pub send: Vec<Sent>,
    /// Tell whoever asked.
    pub finished: Vec<(Ticket, Outcome)>,
    /// Hand on, in order.
    pub updates: Vec<Update>,
    /// No monitor was found where they should be: read the configuration and hand in [`Event::Configured`].
    pub look_up: bool,
    /// When to hand in [`Event::Tick`]; replaces the earlier timer.
    pub timer: Option<Moment>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Pausing { until: Moment },
    Connecting { attempt: Attempt, deadline: Moment },
    Up { attempt: Attempt },
}

/// The session.
#[derive(Debug)]
pub struct Session {
    now: Moment,
    /// Of the newest map, or what it began with.
    monitors: Vec<SocketAddr>,
    /// Of the configuration. Those of the map may all have been replaced while this process was cut off.
    configured: Vec<SocketAddr>,
    /// Whom to try next, an index into those that are tried.
    next: usize,
    link: Link,
    attempts: u64,
    /// Attempts in a row that brought nothing.
    vain: usize,
    last_failure: Option<Failure>,
    calls: Calls,
    maps: Maps,
}

impl Session {
    /// A session that connects at its first event. `seed` spreads processes over the monitors.
    pub fn new(monitors: Vec<SocketAddr>, seed: u64, now: Moment) -> Session {
        let next = (seed % monitors.len().max(1) as u64) as usize;
        Session {
            now,
            configured: monitors.clone(),
            monitors,
            next,
            link: Link::Pausing { until: now },
            attempts: 0,
            vain: 0,
            last_failure: None,
            calls: Calls::default(),
            maps: Maps::default(),
        }
    }

    /// Takes one event at `now`, which must have been read after it came in.
    pub fn handle(&mut self, now: Moment, event: Event) -> Effects {
        self.now = now.max(self.now);
        let mut out = Effects::default();
        self.take_in(event, &mut out);
        let now = self.now;
        if let Link::Connecting { attempt, deadline } = self.link
            && deadline <= now
        {
            out.disconnect = Some(attempt);
            let why = format!("no connection within {} ms", CONNECT_PATIENCE.as_millis());
            self.failed(Failure::Gone(why), &mut out);
        }
        if let Link::Up { attempt } = self.link
            && self.calls.out_of_patience(attempt, now)
        {
            self.move_on(attempt, "a monitor is connected but does not answer".to_owned(), &mut out);
        }
        self.calls.expire(now, self.up().is_some(), &self.monitors, self.last_failure.as_ref(), &mut out);
        self.calls.prepare(now, &mut out);
        if let Link::Pausing { until } = self.link
            && until <= now
        {
            self.connect(&mut out);
        }
        if let Some(attempt) = self.up() {
            self.calls.send(attempt, now, &mut out);
        }
        let link_at = match self.link {
            Link::Pausing { until } => (!self.monitors.is_empty()).then_some(until),
            Link::Connecting { deadline, .. } => Some(deadline),
            Link::Up { .. } => None,
        };
        out.timer = [link_at, self.calls.wake_at(self.up())].into_iter().flatten().min();
        out
    }

    fn take_in(&mut self, event: Event, out: &mut Effects) {
        match event {
            Event::Tick => {}
            Event::Connected(attempt) => {
                if self.is_connecting(attempt) {
                    self.link = Link::Up { attempt };
                    self.maps.subscribe(out);
                }
            }
            Event::Lost(attempt, why) => {
                if self.is_connecting(attempt) || self.is_up(attempt) {
                    self.failed(Failure::Gone(why), out);
                }
            }
            Event::TurnedAway(attempt, why) => {
                if self.is_connecting(attempt) {
                    self.failed(Failure::TurnedAway(why), out);
                }
            }
            Event::Answer(attempt, MonAnswer { tag, answer }) => {
                if self.is_up(attempt) {
                    self.vain = 0;
                    if self.calls.take_answer(tag, answer, self.now, out).is_err() {
                        self.move_on(attempt, "a monitor is connected but hears no leader".to_owned(), out);
                    }
                }
            }
            Event::Publication(attempt, publication) => {
                if self.is_up(attempt) {
                    self.take_publication(attempt, publication, out);
                }
            }
            Event::Change(ticket, request, timeout) => self.calls.change(ticket, request, self.now, timeout),
            Event::Read(ticket, query, timeout) => self.calls.read(ticket, query, self.now, timeout),
            Event::Session(ticket, timeout) => self.calls.session(ticket, self.now, timeout),
            Event::GiveUp(ticket) => self.calls.give_up(ticket),
            Event::Unsendable(tag, why) => self.calls.unsendable(tag, why, out),
            Event::Tell(news) => {
                if self.up().is_some() {
                    out.send.push(Sent::News(MonNews(news)));
                }
            }
            Event::Subscribe(wants) => {
                self.maps.set(wants, out);
                if self.up().is_some() {
                    self.maps.subscribe(out);
                }
            }
            Event::Delivered(epoch) => {
                if self.maps.delivered(epoch) && self.up().is_some() {
                    self.maps.subscribe(out);
                }
            }
            Event::Configured(addrs) => self.configured = addrs,
        }
    }

    fn take_publication(&mut self, attempt: Attempt, publication: Publication, out: &mut Effects) {
        if publication == Publication::Refused {
            return self.move_on(attempt, "a monitor has too many subscribers".to_owned(), out);
        }
        self.vain = 0;
        match self.maps.take(publication, out) {
            Ok(Some(addrs)) => self.replace_monitors(addrs),
            Ok(None) => {}
            Err(maps::Gap) => self.move_on(attempt, "a map is missing".to_owned(), out),
        }
    }

    /// The monitor map says where monitors are.
    fn replace_monitors(&mut self, addrs: Vec<SocketAddr>) {
        if !addrs.is_empty() && addrs != self.monitors {
            self.next %= addrs.len();
            self.monitors = addrs;
        }
    }

    fn up(&self) -> Option<Attempt> {
        match self.link {
            Link::Up { attempt } => Some(attempt),
            _ => None,
        }
    }

    fn is_up(&self, attempt: Attempt) -> bool {
        self.up() == Some(attempt)
    }

    fn is_connecting(&self, wanted: Attempt) -> bool {
        matches!(self.link, Link::Connecting { attempt, .. } if attempt == wanted)
    }

    /// Those of the map; after a round in vain those of the configuration as well.
    fn candidates(&self) -> Vec<SocketAddr> {
        let mut candidates = self.monitors.clone();
        if self.vain >= self.monitors.len() {
            candidates.extend(self.configured.iter().filter(|addr| !self.monitors.contains(addr)));
        }
        candidates
    }

    fn connect(&mut self, out: &mut Effects) {
        let candidates = self.candidates();
        let Some(&addr) = candidates.get(self.next).or(candidates.first()) else { return };
        self.next = (candidates.iter().position(|at| *at == addr).unwrap_or(0) + 1) % candidates.len();
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        self.link = Link::Connecting { attempt, deadline: self.now + CONNECT_PATIENCE };
        out.connect = Some((attempt, addr));
    }

    /// The connection, or the attempt, is over: another monitor is next, after a pause if all were tried.
    fn failed(&mut self, why: Failure, out: &mut Effects) {
        self.last_failure = Some(why);
        self.vain += 1;
        let round = self.candidates().len().max(1);
        let pause = match self.vain {
            tried if !tried.is_multiple_of(round) => Duration::ZERO,
            tried => PAUSE_MIN * (1 << (tried / round - 1).min(10)),
        };
        out.look_up |= self.vain.is_multiple_of(round);
        self.link = Link::Pausing { until: self.now + pause.min(PAUSE_MAX) };
    }

    fn move_on(&mut self, attempt: Attempt, why: String, out: &mut Effects) {
        out.disconnect = Some(attempt);
        // What was to be sent on it is sent again on the next.
        out.send.clear();
        self.failed(Failure::Gone(why), out);
    }
}

#[cfg(test)]
mod tests;
