//! Anybody's session with the monitors: the core that daemons and clients run, over simulated connections.

use super::net::{Packet, Purpose};
use super::{Ev, OPERATOR, World};
use crate::plan::Proc;
use cairn_mon::message::MonAnswer;
use cairn_mon::monitor::Publication;
use cairn_mon::session::core::{Attempt, Effects, Event, Outcome, Sent, Session, Ticket};
use cairn_mon::session::{Update, Wants};
use cairn_paxos::Moment;
use cairn_wire::Lane;

/// A session and its timer.
pub(super) struct MonSession {
    core: Session,
    generation: u64,
    timer: Option<Moment>,
}

impl World {
    pub(super) fn new_session(&mut self, who: Proc, seed: u64) -> MonSession {
        let monitors = self.conf();
        let now = Moment(self.steady_us(who));
        // Timers of an earlier life must not count.
        let core = Session::new(monitors, seed, now);
        MonSession { core, generation: self.now().0, timer: None }
    }

    fn session_mut(&mut self, who: Proc) -> Option<&mut MonSession> {
        match who {
            Proc::Osd(osd) => self.osds.get_mut(&osd)?.session.as_mut(),
            OPERATOR => self.operator.session.as_mut(),
            Proc::Client(n) => self.clients.get_mut(&n)?.session.as_mut(),
            Proc::Mon(_) => None,
        }
    }

    pub(super) fn session_connected(&mut self, who: Proc, attempt: Attempt) {
        self.tell_session(who, Event::Connected(attempt));
    }

    pub(super) fn session_lost(&mut self, who: Proc, attempt: Attempt) {
        self.tell_session(who, Event::Lost(attempt, "the connection has ended".to_owned()));
    }

    pub(super) fn session_answer(&mut self, who: Proc, attempt: Attempt, answer: MonAnswer) {
        self.tell_session(who, Event::Answer(attempt, answer));
    }

    pub(super) fn session_publication(&mut self, who: Proc, attempt: Attempt, publication: Publication) {
        self.tell_session(who, Event::Publication(attempt, publication));
    }

    pub(super) fn session_wants(&mut self, who: Proc, wants: Wants) {
        self.tell_session(who, Event::Subscribe(wants));
    }

    pub(super) fn session_tick(&mut self, who: Proc, life: u64, generation: u64) {
        if !self.lives(who, life) {
            return;
        }
        let Some(session) = self.session_mut(who) else { return };
        if session.generation == generation {
            session.timer = None;
            self.tell_session(who, Event::Tick);
        }
    }

    pub(super) fn tell_session(&mut self, who: Proc, event: Event) {
        let (at, now) = (self.now(), Moment(self.steady_us(who)));
        self.log.say(at, Some(who), || format!("session: {event:?}"));
        let Some(session) = self.session_mut(who) else { return };
        let effects = session.core.handle(now, event);
        let Effects { disconnect, connect, send, finished, updates, look_up, timer } = effects;
        if session.timer != timer {
            session.timer = timer;
            session.generation += 1;
            let generation = session.generation;
            if let (Some(moment), Some(life)) = (timer, self.life(who)) {
                let at = self.when_steady(who, moment.0);
                self.line.at(at, Ev::SessionTick { who, life, generation });
            }
        }
        if let Some(attempt) = disconnect {
            self.close_attempt(who, attempt);
        }
        if let Some((attempt, addr)) = connect {
            let mon = self.mon_at(addr);
            self.connect(who, mon, None, Purpose::Monitor(attempt));
        }
        if look_up {
            let conf = self.conf();
            self.tell_session(who, Event::Configured(conf));
        }
        if !send.is_empty()
            && let Some(conn) = self.session_conn(who)
        {
            for sent in send {
                let packet = match sent {
                    Sent::Call(call) => Packet::MonCall(Box::new(call)),
                    Sent::News(news) => Packet::MonNews(Box::new(news)),
                    Sent::Subscribe(wants) => Packet::MonSubscribe(wants),
                };
                self.send(who, conn, Lane::Control, packet);
            }
        }
        // One after the other: whoever is told may be carrying out effects of its own.
        let Some(life) = self.life(who) else { return };
        for (ticket, outcome) in finished {
            self.line.at(at, Ev::SessionFinished { who, life, ticket, outcome: Box::new(outcome) });
        }
        for update in updates {
            self.line.at(at, Ev::SessionUpdate { who, life, update: Box::new(update) });
        }
    }

    pub(super) fn session_finished(&mut self, who: Proc, life: u64, ticket: Ticket, outcome: Outcome) {
        if !self.lives(who, life) {
            return;
        }
        match who {
            Proc::Osd(osd) => self.osd_monitors_said(osd, ticket, outcome),
            OPERATOR => self.operator_answer(outcome),
            Proc::Client(n) => self.client_session(n, ticket, outcome),
            Proc::Mon(_) => {}
        }
    }

    pub(super) fn session_update(&mut self, who: Proc, life: u64, update: Update) {
        if !self.lives(who, life) {
            return;
        }
        let Update::OsdMaps(batch) = update else { return };
        let last = batch.last();
        match who {
            Proc::Osd(osd) => self.osd_maps(osd, batch),
            OPERATOR => {}
            Proc::Client(n) => self.client_maps(n, batch),
            Proc::Mon(_) => {}
        }
        if let Some(epoch) = last {
            self.tell_session(who, Event::Delivered(epoch));
        }
    }
}
