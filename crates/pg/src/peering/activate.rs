//! Activation: every member takes over the agreed log and says so durably, then the primary serves.

use super::Peer;
use crate::config::Canary as Bug;
use crate::effect::Effect;
use crate::event::Timer;
use crate::info::History;
use crate::message::{Activation, Body};
use crate::missing::{MissingItem, MissingSet};
use crate::state::State;
use crate::version::{ObjectKey, Position, Version};
use crate::{Draft, Pg, Then};
use cairn_types::OsdId;

impl Pg {
    /// The primary's own activation is durable first: what the others then take over survives it.
    pub(super) fn activate(&mut self) {
        self.set_state(State::GetMissing);
        self.merge_heard_leases();
        self.peering.started = self.has_min_size().then(|| self.epoch());
        if let Some(started) = self.peering.started {
            self.info.start(started, self.log.head());
        }
        let mut draft = Draft::default();
        if !self.peering.unbroken.contains(&self.whoami) {
            self.forget_undone(&mut draft);
        }
        draft.then.push(Then::Activated);
        self.persist(draft);
    }

    fn merge_heard_leases(&mut self) {
        let max_started = self.peering.choice.as_ref().map(|choice| choice.max_started);
        // If this process was primary of the newest activation, nobody can have had a lease since
        // that it does not know of: what those who restarted are unsure about does not matter.
        let knows = max_started.is_some_and(|started| self.lease_authority == Some(started));
        for (holder, until) in std::mem::take(&mut self.peering.heard) {
            if holder.is_some() || !knows {
                self.leases.promise(holder, until);
            }
        }
        self.peering.serve_after = self.leases.others_until(self.whoami);
        if self.config.canary(Bug::IgnorePriorLease) {
            self.peering.serve_after = self.now;
        }
    }

    pub(crate) fn activate_peers(&mut self) {
        if self.state != State::GetMissing {
            return;
        }
        let Some(choice) = self.peering.choice.clone() else { return };
        let me = self.whoami;
        for &osd in choice.acting.iter().chain(&choice.backfill).filter(|osd| **osd != me) {
            let Some((_, info)) = self.peering.infos.get(&osd) else { continue };
            let reset = info.last_update < self.log.tail();
            assert!(!reset || choice.backfill.contains(&osd), "{}: {osd} acts without a log", self.info.pgid);
            let since = if reset { Version::ZERO } else { info.agreed_up_to() };
            let last_backfill = if reset { Position::Min } else { info.last_backfill.clone() };
            let peer =
                Peer { missing: MissingSet::default(), sent_through: last_backfill.clone(), last_backfill };
            self.peering.peers.insert(osd, peer);
            self.peering.activating.insert(osd);
            let body = Body::Activate(Activation {
                history: self.info.history,
                started: self.peering.started,
                segment: self.log.segment(since),
                reset,
                keeps_undone: self.peering.unbroken.contains(&osd),
                leases: self.leases.bounds(self.now),
            });
            self.send(osd, body);
        }
        self.check_activated();
    }

    /// A member's side.
    pub(crate) fn on_activate(&mut self, from: OsdId, activation: &Activation) {
        if self.state != State::Stray {
            return;
        }
        self.set_state(State::ReplicaActive);
        let Activation { history, started, segment, reset, keeps_undone, leases } = activation;
        for bound in leases {
            self.leases.promise(bound.holder, self.now.plus_ms(bound.remaining_ms));
        }
        self.merge_history(history);
        let mut draft =
            if *reset { self.replace_log(segment) } else { self.merge_log(segment, *keeps_undone) };
        if !keeps_undone {
            self.forget_undone(&mut draft);
        }
        if let Some(started) = *started {
            self.info.start(started, self.log.head());
        }
        let missing = self.missing.iter().map(|(object, item)| (object.clone(), item.clone())).collect();
        draft.then.push(Then::Send(from, Body::Activated { last_update: self.log.head(), missing }));
        self.persist(draft);
    }

    pub(crate) fn on_activated(
        &mut self,
        from: OsdId,
        last_update: Version,
        missing: Vec<(ObjectKey, MissingItem)>,
    ) {
        if self.state != State::GetMissing || !self.peering.activating.contains(&from) {
            return;
        }
        assert_eq!(last_update, self.log.head(), "{}: {from} activated with another log", self.info.pgid);
        if let Some(peer) = self.peering.peers.get_mut(&from) {
            peer.missing = MissingSet::from_iter(missing);
        }
        self.peering.activating.remove(&from);
        self.check_activated();
    }

    fn check_activated(&mut self) {
        if !self.peering.activating.is_empty() {
            return;
        }
        self.set_state(State::Active);
        if let Some(started) = self.peering.started {
            self.info.history.last_epoch_started = started;
            self.lease_authority = Some(started);
            // With fewer copies than `min_size` what they agree on commits nobody.
            self.info.committed_to = self.log.head();
            self.persist(Draft::default());
            self.share_history();
        }
        if self.peering.serve_after > self.now {
            self.out.push(Effect::ArmTimer { timer: Timer::PriorLease, at: self.peering.serve_after });
        }
        self.mark_all_ops_ready();
        self.work();
    }

    /// Tells all copies that take part what is now known of the group.
    pub(crate) fn share_history(&mut self) {
        let (history, committed_to) = (self.info.history, self.info.committed_to);
        let peers: Vec<OsdId> = self.peering.peers.keys().copied().collect();
        for osd in peers {
            self.send(osd, Body::Share { history, committed_to });
        }
    }

    pub(crate) fn on_share(&mut self, history: &History, committed_to: Version) {
        self.heard_committed(committed_to);
        if self.merge_history(history) {
            self.persist(Draft::default());
        }
    }

    /// What a copy is told of its group, but no more than it has itself: it is stored with the next transaction, and must
    /// not be ahead of the log that is stored with it.
    pub(crate) fn heard_committed(&mut self, to: Version) {
        if self.state == State::ReplicaActive {
            self.info.committed_to = self.info.committed_to.max(to.min(self.log.head()));
        }
    }

    /// The whole is clean: what others still keep is not needed.
    pub(crate) fn on_remove_copy(&mut self) {
        let Some(map) = &self.map else { return };
        let member = map.acting.contains(&self.whoami) || map.up.contains(&self.whoami);
        // What waits here for a newer map may be a later primary's question: it has to be answered
        // by this copy, which will be told to go again if it still should.
        if self.state == State::Stray && !member && self.waiting_for_map.is_empty() {
            self.set_state(State::Removed);
            self.out.push(Effect::Remove);
        }
    }
}
