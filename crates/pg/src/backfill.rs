//! Backfill: a copy the log cannot bring up to date is compared with the primary's, a step of
//! objects at a time, in object order.
//!
//! A step: list the next objects to find its end; hold writes to its range until those under way
//! are durable; list both sides; remove what is too much, push what differs, and let writes to
//! everything else go on, from now on with their payload; when all pushes are durable, the target
//! records that its copy is whole up to the end.

use crate::effect::Effect;
use crate::event::Reservation;
use crate::message::Body;
use crate::recovery::Purpose;
use crate::version::{ObjectKey, Position, Version};
use crate::{Draft, Pg, State, StoreChange, Then};
use cairn_types::OsdId;
use std::collections::{BTreeMap, BTreeSet};

type Listing = Vec<(ObjectKey, Version)>;

/// The backfill of a group, one target at a time; on a target, its reservation.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    step: Step,
    target: Option<OsdId>,
    local_slot: bool,
    /// As a target: a slot is held or asked for.
    remote_slot: bool,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    /// Waiting for this OSD's slot.
    ReserveLocal,
    /// Waiting for the target's slot.
    ReserveRemote,
    /// Finding the end of the step.
    Next { begin: Position },
    /// Waiting for writes to the range to be durable.
    Drain { begin: Position, end: Position },
    /// Listing both sides.
    Compare { begin: Position, end: Position, mine: Option<Listing>, theirs: Option<Listing> },
    /// Pushing what differs.
    Push { end: Position, left: BTreeSet<ObjectKey>, lost: bool },
    /// Waiting for the target to record the end.
    Record { end: Position },
}

impl Backfill {
    /// Whether objects are moving, as opposed to waiting for a slot.
    pub fn is_moving(&self) -> bool {
        !matches!(self.step, Step::Idle | Step::ReserveLocal | Step::ReserveRemote)
    }

    /// Whether writes to the object have to wait for the step.
    pub fn blocks(&self, object: &ObjectKey) -> bool {
        match &self.step {
            Step::Drain { begin, end } | Step::Compare { begin, end, .. } => {
                !begin.covers(object) && end.covers(object)
            }
            Step::Push { left, .. } => left.contains(object),
            Step::Idle
            | Step::ReserveLocal
            | Step::ReserveRemote
            | Step::Next { .. }
            | Step::Record { .. } => false,
        }
    }
}

impl Pg {
    pub(crate) fn reset_backfill(&mut self) {
        if self.backfill.local_slot {
            self.out.push(Effect::Release(Reservation::LocalBackfill));
        }
        if self.backfill.remote_slot {
            self.out.push(Effect::Release(Reservation::RemoteBackfill));
        }
        self.backfill = Backfill::default();
    }

    /// Takes the next step if it may. Recovery by log comes first.
    pub(crate) fn continue_backfill(&mut self) {
        if self.state != State::Active {
            return;
        }
        match &self.backfill.step {
            Step::Idle if self.is_recovered() && self.peering.has_backfill_targets() => {
                self.backfill.step = Step::ReserveLocal;
                self.backfill.local_slot = true;
                self.out.push(Effect::Reserve(Reservation::LocalBackfill));
            }
            Step::Drain { begin, end } if self.ops.is_quiet_in(begin, end) && self.is_recovered() => {
                let (begin, end) = (begin.clone(), end.clone());
                self.compare(begin, end);
            }
            _ => {}
        }
    }

    pub(crate) fn on_reserved(&mut self, reservation: Reservation) {
        match reservation {
            Reservation::LocalBackfill if matches!(self.backfill.step, Step::ReserveLocal) => {
                self.next_target()
            }
            Reservation::RemoteBackfill
                if self.backfill.remote_slot && self.state == State::ReplicaActive =>
            {
                if let Some(primary) = self.primary() {
                    self.send(primary, Body::BackfillGranted);
                }
            }
            Reservation::LocalBackfill | Reservation::RemoteBackfill => {}
        }
        self.work();
    }

    fn next_target(&mut self) {
        self.backfill.target = self.peering.backfill_targets().first().copied();
        match self.backfill.target {
            Some(target) => {
                self.backfill.step = Step::ReserveRemote;
                self.send(target, Body::BackfillReserve);
            }
            None => self.reset_backfill(),
        }
    }

    pub(crate) fn on_backfill_granted(&mut self, from: OsdId) {
        if self.backfill.target == Some(from) && matches!(self.backfill.step, Step::ReserveRemote) {
            self.next_step();
        }
    }

    fn next_step(&mut self) {
        let Some(peer) = self.backfill.target.and_then(|target| self.peering.peers.get(&target)) else {
            return;
        };
        let begin = peer.last_backfill.clone();
        self.backfill.step = Step::Next { begin: begin.clone() };
        self.list(Purpose::BackfillNext, begin, Position::Max, Some(self.config.backfill_chunk));
    }

    fn compare(&mut self, begin: Position, end: Position) {
        let Some(target) = self.backfill.target else { return };
        self.send(target, Body::BackfillScan { begin: begin.clone(), end: end.clone() });
        self.list(Purpose::BackfillMine, begin.clone(), end.clone(), None);
        self.backfill.step = Step::Compare { begin, end, mine: None, theirs: None };
    }

    pub(crate) fn backfill_listed(&mut self, purpose: Purpose, objects: Listing) {
        match purpose {
            Purpose::BackfillNext => {
                let Step::Next { begin } = &self.backfill.step else { return };
                let end = match objects.last() {
                    Some((last, _)) if objects.len() >= self.config.backfill_chunk => {
                        Position::At(last.head())
                    }
                    _ => Position::Max,
                };
                self.backfill.step = Step::Drain { begin: begin.clone(), end };
            }
            Purpose::BackfillMine => {
                if let Step::Compare { mine, .. } = &mut self.backfill.step {
                    *mine = Some(objects);
                    self.compared();
                }
            }
            Purpose::BackfillScan { to, begin, end } => {
                self.send(to, Body::BackfillObjects { begin, end, objects })
            }
            Purpose::Push(_) | Purpose::Pull { .. } | Purpose::Redo(_) => {}
        }
    }

    pub(crate) fn on_backfill_objects(
        &mut self,
        from: OsdId,
        begin: &Position,
        end: &Position,
        objects: Listing,
    ) {
        if self.backfill.target != Some(from) {
            return;
        }
        if let Step::Compare { begin: b, end: e, theirs, .. } = &mut self.backfill.step
            && b == begin
            && e == end
        {
            *theirs = Some(objects);
            self.compared();
        }
    }

    fn compared(&mut self) {
        let Some(target) = self.backfill.target else { return };
        let Step::Compare { begin, end, mine: Some(mine), theirs: Some(theirs) } = &self.backfill.step else {
            return;
        };
        let (begin, end) = (begin.clone(), end.clone());
        let mine: BTreeMap<ObjectKey, Version> = mine.iter().cloned().collect();
        let theirs: BTreeMap<ObjectKey, Version> = theirs.iter().cloned().collect();
        let remove: Vec<ObjectKey> =
            theirs.keys().filter(|object| !mine.contains_key(object)).cloned().collect();
        let push: Vec<(ObjectKey, Version)> =
            mine.into_iter().filter(|(object, version)| theirs.get(object) != Some(version)).collect();

        if !remove.is_empty() {
            // Ahead of any write that may make such an object again.
            self.send(target, Body::BackfillProgress { through: begin, remove });
        }
        if let Some(peer) = self.peering.peers.get_mut(&target) {
            peer.sent_through = end.clone();
        }
        let left = push.iter().map(|(object, _)| object.clone()).collect();
        self.backfill.step = Step::Push { end, left, lost: false };
        for (object, version) in push {
            self.read_to_push(object, version, BTreeSet::from([target]));
        }
        self.mark_all_ops_ready();
        self.check_pushed();
    }

    pub(crate) fn backfill_pushed(&mut self, object: &ObjectKey) {
        if let Step::Push { left, .. } = &mut self.backfill.step
            && left.remove(object)
        {
            self.check_pushed();
        }
    }

    /// An object of the step cannot be read here: it is recovered first, and the step is repeated.
    pub(crate) fn backfill_lost(&mut self, object: &ObjectKey) {
        if let Step::Push { left, lost, .. } = &mut self.backfill.step
            && left.remove(object)
        {
            *lost = true;
            self.check_pushed();
        }
    }

    fn check_pushed(&mut self) {
        let Step::Push { end, left, lost } = &self.backfill.step else { return };
        let Some(target) = self.backfill.target.filter(|_| left.is_empty()) else { return };
        if *lost {
            self.next_step();
            return;
        }
        let end = end.clone();
        self.send(target, Body::BackfillProgress { through: end.clone(), remove: Vec::new() });
        self.backfill.step = Step::Record { end };
    }

    pub(crate) fn on_backfill_ack(&mut self, from: OsdId, through: &Position) {
        let recorded = matches!(&self.backfill.step, Step::Record { end } if end == through);
        if !recorded || self.backfill.target != Some(from) {
            return;
        }
        if let Some(peer) = self.peering.peers.get_mut(&from) {
            peer.last_backfill = through.clone();
        }
        if *through == Position::Max {
            self.send(from, Body::BackfillRelease);
            self.next_target();
        } else {
            self.next_step();
        }
    }

    // The target's side.

    pub(crate) fn on_backfill_reserve(&mut self) {
        if self.state == State::ReplicaActive && !self.backfill.remote_slot {
            self.backfill.remote_slot = true;
            self.out.push(Effect::Reserve(Reservation::RemoteBackfill));
        }
    }

    pub(crate) fn on_backfill_release(&mut self) {
        if self.backfill.remote_slot {
            self.backfill.remote_slot = false;
            self.out.push(Effect::Release(Reservation::RemoteBackfill));
        }
    }

    pub(crate) fn on_backfill_scan(&mut self, begin: Position, end: Position) {
        if self.state == State::ReplicaActive
            && let Some(to) = self.primary()
        {
            let purpose = Purpose::BackfillScan { to, begin: begin.clone(), end: end.clone() };
            self.list(purpose, begin, end, None);
        }
    }

    pub(crate) fn on_backfill_progress(&mut self, from: OsdId, through: Position, remove: Vec<ObjectKey>) {
        if self.state != State::ReplicaActive {
            return;
        }
        self.info.last_backfill = self.info.last_backfill.clone().max(through.clone());
        let mut draft = Draft::default();
        draft.objects.extend(remove.into_iter().map(StoreChange::Remove));
        draft.then.push(Then::Send(from, Body::BackfillAck { through }));
        self.persist(draft);
    }
}
