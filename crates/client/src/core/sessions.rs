//! Connections to OSDs: one to each that is needed, made again when it is lost.

use super::limits::{RECONNECT_DELAY_MAX_MS, RECONNECT_DELAY_MIN_MS};
use super::ops::State;
use super::target::Target;
use super::{ConnId, Core, Effect};
use cairn_types::{EntityAddr, OsdId, OsdMap};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Connecting,
    Open {
        /// Something came over it: it is worth to be made again at once.
        heard: bool,
    },
    /// To be tried again then.
    Waiting {
        until_ms: u64,
    },
}

/// The connection to one OSD.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) addr: EntityAddr,
    /// The newest attempt.
    pub(super) conn: ConnId,
    link: Link,
    /// Wait before the next attempt.
    delay_ms: u64,
}

impl Session {
    pub(super) fn timer_ms(&self) -> Option<u64> {
        match self.link {
            Link::Waiting { until_ms } => Some(until_ms),
            _ => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }
}

impl<C> Core<C> {
    /// The connection to an OSD if it stands; begins one if there is none.
    pub(super) fn session(&mut self, osd: OsdId, addr: EntityAddr) -> Option<ConnId> {
        match self.sessions.get(&osd) {
            Some(session) if session.addr == addr => session.is_open().then_some(session.conn),
            _ => {
                if let Some(old) = self.sessions.remove(&osd) {
                    self.effects.push(Effect::Disconnect(old.conn));
                }
                self.connect(osd, addr, RECONNECT_DELAY_MIN_MS);
                None
            }
        }
    }

    fn connect(&mut self, osd: OsdId, addr: EntityAddr, delay_ms: u64) {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        self.sessions.insert(osd, Session { addr, conn, link: Link::Connecting, delay_ms });
        self.effects.push(Effect::Connect { conn, osd, addr });
    }

    /// The session that a connection belongs to, unless it was given up.
    pub(super) fn session_of(&mut self, conn: ConnId) -> Option<(OsdId, &mut Session)> {
        let found = self.sessions.iter_mut().find(|(_, session)| session.conn == conn);
        found.map(|(&osd, session)| (osd, session))
    }

    pub(super) fn heard(&mut self, conn: ConnId) {
        if let Some((_, session)) = self.session_of(conn)
            && session.is_open()
        {
            session.link = Link::Open { heard: true };
        }
    }

    pub(super) fn connected(&mut self, conn: ConnId) {
        let Some((osd, session)) = self.session_of(conn) else { return };
        if session.link != Link::Connecting {
            return;
        }
        session.link = Link::Open { heard: false };
        let waits =
            self.ops.iter().filter(|(_, op)| op.state == State::Unsent && is_served_by(&op.target, osd));
        let tids: Vec<u64> = waits.map(|(&tid, _)| tid).collect();
        for tid in tids {
            self.send(tid);
        }
        self.renew_watches(|watch| is_served_by(&watch.target, osd) && watch.conn != Some(conn));
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        let Some((osd, session)) = self.session_of(conn) else { return };
        let (link, addr, delay_ms) = (session.link, session.addr, session.delay_ms);
        for op in self.ops.values_mut().filter(|op| op.state == State::Sent(conn)) {
            op.state = State::Unsent;
        }
        if !self.is_needed(osd) {
            self.sessions.remove(&osd);
        } else if link == (Link::Open { heard: true }) {
            self.connect(osd, addr, RECONNECT_DELAY_MIN_MS);
        } else {
            let link = Link::Waiting { until_ms: self.now.steady_ms + delay_ms };
            let delay_ms = (2 * delay_ms).min(RECONNECT_DELAY_MAX_MS);
            self.sessions.insert(osd, Session { addr, conn, link, delay_ms });
        }
    }

    pub(super) fn retry_sessions(&mut self) {
        let now_ms = self.now.steady_ms;
        let due =
            self.sessions.iter().filter(|(_, session)| session.timer_ms().is_some_and(|at| at <= now_ms));
        let due: Vec<_> = due.map(|(&osd, session)| (osd, session.addr, session.delay_ms)).collect();
        for (osd, addr, delay_ms) in due {
            if self.is_needed(osd) {
                self.connect(osd, addr, delay_ms);
            } else {
                self.sessions.remove(&osd);
            }
        }
    }

    /// Closes connections to OSDs that are not there any more by the map.
    pub(super) fn drop_sessions(&mut self, map: &OsdMap) {
        let is_there = |osd: &OsdId, session: &Session| {
            map.osds.get(osd).is_some_and(|info| info.up && info.public == Some(session.addr))
        };
        let effects = &mut self.effects;
        let mut gone = Vec::new();
        self.sessions.retain(|osd, session| {
            let keep = is_there(osd, session);
            if !keep {
                gone.push(session.conn);
                effects.push(Effect::Disconnect(session.conn));
            }
            keep
        });
        let lost = |state: State| matches!(state, State::Sent(conn) if gone.contains(&conn));
        for op in self.ops.values_mut().filter(|op| lost(op.state)) {
            op.state = State::Unsent;
        }
    }

    fn is_needed(&self, osd: OsdId) -> bool {
        self.ops.values().any(|op| is_served_by(&op.target, osd))
            || self.watches.values().any(|watch| is_served_by(&watch.target, osd))
    }
}

fn is_served_by(target: &Option<std::sync::Arc<Target>>, osd: OsdId) -> bool {
    target.as_ref().and_then(|target| target.primary).is_some_and(|(primary, _)| primary == osd)
}
