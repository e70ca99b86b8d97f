//! Where the other monitors are. Each has it from the newest map that it has applied, has been told, or was made from.
//!
//! A member that was away while the others were replaced knows none of those that are there now, and takes nothing from
//! strangers but this: where the monitors are. So whoever misses somebody tells it. One that joins asks for the state by
//! itself: nobody needs it before it has that.

use super::{Effects, Monitor, PeerMessage};
use crate::service::ClusterState;
use cairn_paxos::{Message, Moment, MonId, Slot};
use cairn_types::MonMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often those that are silent are told, and a state is asked for: an election takes as long.
const GREET_EVERY: Duration = Duration::from_millis(700);

/// What a monitor knows of where the others are, beside its state.
#[derive(Clone, Debug)]
pub(super) struct Acquaintance {
    /// The newest map that it was made from or was told.
    told: MonMap,
    /// When it looks for those that are silent.
    at: Moment,
    /// Whom it asked for the state last.
    asked: Option<MonId>,
}

impl Acquaintance {
    pub fn new(made_from: MonMap, now: Moment) -> Acquaintance {
        Acquaintance { told: made_from, at: now, asked: None }
    }

    pub fn wake_at(&self) -> Moment {
        self.at
    }
}

impl Monitor {
    /// The newest map of the monitors that this one knows: whom it speaks to, and where they are. What the monitors agree
    /// on is in the state, and may lag behind this.
    pub fn mon_map(&self) -> &MonMap {
        let told = &self.acquaintance.told;
        let applied = self.state.as_ref().map(ClusterState::mon_map);
        applied.filter(|applied| applied.epoch >= told.epoch).unwrap_or(told)
    }

    /// Somebody says where the monitors are.
    pub(super) fn take_mon_map(&mut self, map: MonMap) {
        let known = self.mon_map();
        if map.fsid == known.fsid && map.epoch > known.epoch {
            self.acquaintance.told = map;
        }
    }

    pub(super) fn greet(&mut self, out: &mut Effects) {
        let now = self.now.steady;
        if self.acquaintance.at > now || self.fault.is_some() {
            return;
        }
        self.acquaintance.at = now + GREET_EVERY;
        if self.state.is_none() {
            return self.ask_for_state(out);
        }
        let heard = match self.node.leader() {
            Some(leader) if leader != self.node.id() => return,
            Some(_) => self.node.responsive(),
            None => BTreeSet::new(),
        };
        let map = self.mon_map().clone();
        for silent in self.peers().into_iter().filter(|peer| !heard.contains(peer)) {
            out.early.push((silent, PeerMessage::MonMap(Box::new(map.clone()))));
        }
    }

    /// Asks one after the other: any has it.
    fn ask_for_state(&mut self, out: &mut Effects) {
        let (peers, asked) = (self.peers(), self.acquaintance.asked);
        let next = peers.iter().find(|peer| asked.is_none_or(|asked| **peer > asked)).or(peers.first());
        self.acquaintance.asked = next.copied();
        let ask = PeerMessage::Log(Message::LearnRequest { from: Slot::ZERO });
        out.early.extend(next.map(|peer| (*peer, ask)));
    }

    /// The other monitors, in the order of their numbers.
    pub(super) fn peers(&self) -> BTreeSet<MonId> {
        let own = self.node.id();
        self.mon_map().peers().map(|(_, mon)| mon.id).filter(|id| *id != own).collect()
    }
}
