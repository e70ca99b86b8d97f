//! Moments in the agreement of monitors that are waited for, and what happens then; what each shows is told where the
//! plan has it, [`Ambush`].

use super::fault::Undo;
use super::{Ev, World};
use crate::plan::{Ambush, Phase, Proc};
use cairn_mon::monitor::PeerMessage;
use cairn_paxos::{Message, MonId};

/// How long those that are killed beside a leader are away: no election is over by then.
const MOMENT_MS: u64 = 30;
/// How long what a leader has proposed is on its way at most.
const LATE_MAX_MS: u64 = 5_000;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Lurking {
    waits: Option<Ambush>,
    late: Option<Late>,
    /// Counts the proposals that were held up.
    lates: u64,
}

/// A leader whose proposals are on their way, and which hears nobody meanwhile.
#[derive(Debug)]
struct Late {
    leader: u16,
    held: Vec<(MonId, PeerMessage)>,
}

impl World {
    pub(super) fn lay(&mut self, ambush: Ambush) {
        self.lurking.waits = Some(ambush);
    }

    /// Takes a datagram between monitors that is held up, or that nobody hears.
    pub(super) fn holds_up(&mut self, from: u16, to: MonId, message: &PeerMessage) -> bool {
        if let PeerMessage::Log(Message::Accept { entries, .. }) = message
            && !entries.is_empty()
        {
            self.proposes(from);
        }
        let Some(late) = &mut self.lurking.late else { return false };
        if late.leader == from {
            late.held.push((to, message.clone()));
        }
        late.leader == from || u32::from(late.leader) == to.0
    }

    /// A leader is about to send a proposal.
    fn proposes(&mut self, leader: u16) {
        let now = self.now();
        match self.lurking.waits {
            Some(Ambush::Late { .. }) if self.lurking.late.is_none() => {
                self.log
                    .say(now, Some(Proc::Mon(leader)), || "proposes, and nobody hears of it yet".to_owned());
                self.lurking.late = Some(Late { leader, held: Vec::new() });
                self.lurking.lates += 1;
                let number = self.lurking.lates;
                self.line.after_us(LATE_MAX_MS * 1_000, Ev::Undo(Undo::Release(number)));
            }
            Some(Ambush::Minority { for_ms }) => {
                self.lurking.waits = None;
                self.cut_minority(leader, for_ms);
            }
            _ => {}
        }
    }

    /// Cuts a leader and one other off from the rest.
    fn cut_minority(&mut self, leader: u16, for_ms: u64) {
        let others: Vec<u16> = self.present_mons().into_iter().filter(|n| *n != leader).collect();
        let Some(companion) = others.get(self.rng_mon.below(others.len().max(1) as u64) as usize).copied()
        else {
            return;
        };
        let now = self.now();
        self.log.say(now, Some(Proc::Mon(leader)), || format!("is cut off with mon.{companion}"));
        let inside = [leader, companion].map(|n| self.host_of(Proc::Mon(n)));
        let outside = others.iter().filter(|n| **n != companion).map(|n| self.host_of(Proc::Mon(*n)));
        let links: Vec<_> = outside
            .filter(|host| !inside.contains(host))
            .flat_map(|host| inside.map(|inner| [(inner, host), (host, inner)]))
            .flatten()
            .collect();
        self.cut_links(links, for_ms);
        self.double_links(vec![(inside[0], inside[1]), (inside[1], inside[0])], for_ms);
    }

    /// A leader has decided, and nothing of it has left the process; whether it dies right then.
    pub(super) fn is_struck_down(&mut self, leader: u16) -> bool {
        match (self.lurking.waits, &self.lurking.late) {
            (Some(Ambush::Untold { followers, down_ms }), _) => {
                self.lurking.waits = None;
                self.strike_down(leader, down_ms, followers, None);
                true
            }
            (Some(Ambush::Late { restart, down_ms }), Some(late)) if late.leader != leader => {
                self.lurking.waits = None;
                let first = late.leader;
                self.strike_down(leader, down_ms, restart, Some(first));
                let number = self.lurking.lates;
                self.line.after_us(2 * MOMENT_MS * 1_000, Ev::Undo(Undo::Release(number)));
                true
            }
            _ => false,
        }
    }

    fn strike_down(&mut self, leader: u16, down_ms: u64, others: bool, but: Option<u16>) {
        let now = self.now();
        self.log.say(now, Some(Proc::Mon(leader)), || "has decided, and dies with it".to_owned());
        self.stop(Proc::Mon(leader), false);
        self.later(down_ms, Undo::Start(Proc::Mon(leader)));
        for n in self.present_mons().into_iter().filter(|n| others && *n != leader && Some(*n) != but) {
            self.stop(Proc::Mon(n), false);
            self.later(MOMENT_MS, Undo::Start(Proc::Mon(n)));
        }
    }

    /// What was held up arrives.
    pub(super) fn release(&mut self, number: u64) {
        if self.lurking.lates != number {
            return;
        }
        let Some(Late { leader, held }) = self.lurking.late.take() else { return };
        for (to, message) in held {
            self.mon_datagram(leader, to, &message);
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn end_ambushes(&mut self) {
        self.lurking.waits = None;
        self.release(self.lurking.lates);
    }

    /// A monitor has come to a phase; if that is what was waited for, it dies right now.
    pub(super) fn reached(&mut self, n: u16, phase: Phase) {
        if let Some((_, down_ms)) = self.doom.filter(|(doom, _)| *doom == phase) {
            self.doom = None;
            let now = self.now();
            self.line.at(now, Ev::Strike { process: Proc::Mon(n), down_ms });
        }
    }
}
