//! The groups: made, given maps and messages, and what they ask for carried out.

use super::effect::Query;
use super::execute::Asked;
use super::group::Group;
use super::maps::View;
use super::peers::Incoming;
use super::{Amount, Config, Effect, Osd};
use cairn_pg::{Body, Effect as PgEffect, Event as PgEvent, MonitorRequest, PersistedPg, Pg, Reply, Timer};
use cairn_types::{Epoch, OsdFlag, OsdId, PgId};
use std::collections::{BTreeSet, VecDeque};

impl Osd {
    /// A group is told something, after what it was told before.
    pub(super) fn tell(&mut self, pgid: PgId, event: PgEvent) {
        self.todo.push_back((pgid, event));
    }

    /// Until nobody has anything to say any more.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some((pgid, event)) = self.todo.pop_front() {
                self.drive(pgid, event);
            }
            if !self.grant_slot() {
                return;
            }
        }
    }

    fn drive(&mut self, pgid: PgId, event: PgEvent) {
        if let PgEvent::Executed { op, .. } = &event {
            self.is_handed_in(*op);
        }
        let Some(group) = self.groups.get_mut(&pgid) else {
            // Gone meanwhile.
            if let PgEvent::Op(op) = event {
                self.group_replied(op.id, Reply::NotPrimary(self.maps.epoch()));
            }
            return;
        };
        self.executing = match &event {
            PgEvent::Executed { op, .. } => Some(*op),
            _ => None,
        };
        let mut effects = std::mem::take(&mut self.group_effects);
        group.pg.handle_into(self.time, event, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(pgid, effect);
        }
        self.group_effects = effects;
        self.executing = None;
    }

    fn carry_out(&mut self, pgid: PgId, effect: PgEffect) {
        match effect {
            PgEffect::Persist(txn) => {
                self.handed_in(pgid, &txn);
                self.fullness.handed_in(Amount::of_transaction(&txn));
                self.out.push(Effect::Persist { pgid, txn });
            }
            PgEffect::Send { to, message } => {
                self.count_recovery(&message.body);
                if let Some(map) = self.maps.current() {
                    self.peers.send(self.time, to, pgid, message, map, &mut self.out);
                }
            }
            PgEffect::Execute(op) => self.execute(op.id),
            PgEffect::Reply { op, reply } => self.group_replied(op, reply),
            PgEffect::Monitor(MonitorRequest::UpThru(epoch)) => {
                self.want_up_thru = self.want_up_thru.max(Some(epoch));
            }
            PgEffect::Monitor(MonitorRequest::PgTemp(acting)) => {
                self.want_pg_temp.insert(pgid, acting);
            }
            PgEffect::ArmTimer { timer, at } => {
                if let Some(before) = self.group_timers.insert((pgid, timer), at) {
                    self.group_timer_queue.remove(&(before, pgid, timer));
                }
                self.group_timer_queue.insert((at, pgid, timer));
            }
            PgEffect::ReadObject { token, object } => {
                self.ask(pgid, Query::Object { object }, Asked::Object { pgid, token });
            }
            PgEffect::List { token, range } => {
                self.ask(pgid, Query::List { range }, Asked::Objects { pgid, token });
            }
            PgEffect::Reserve(what) => self.reserver.ask(what, pgid),
            PgEffect::Release(what) => self.reserver.release(what, pgid),
            PgEffect::NewInterval => {
                self.new_interval(pgid);
                self.drop_old_pushes(pgid);
            }
            PgEffect::Stats(stats) => {
                let Some(group) = self.groups.get_mut(&pgid) else { return };
                let was_active = group.stats.as_ref().is_some_and(|stats| stats.state.active);
                let is_active = stats.state.active;
                group.stats = Some(stats);
                if is_active && !was_active {
                    self.ask(pgid, Query::Tally, Asked::Tally { pgid });
                }
            }
            PgEffect::Remove => self.remove_group(pgid),
        }
    }

    fn count_recovery(&mut self, body: &Body) {
        if let Body::Push { data, .. } = body {
            self.counters.recovered_objects += 1;
            self.counters.recovered_bytes += data.data.len() as u64;
        }
    }

    /// Gives the next free slot to who waits for it.
    fn grant_slot(&mut self) -> bool {
        let Some(map) = self.maps.current() else { return false };
        if map.flags.has(OsdFlag::NoBackfill) {
            return false;
        }
        let has_room = !map
            .ratios
            .backfillfull
            .reached_by(self.fullness.usage().used_bytes(), self.fullness.usage().total_bytes().max(1));
        let Some((pgid, what)) = self.reserver.grant(self.config.backfills_max, has_room) else {
            return false;
        };
        self.tell(pgid, PgEvent::Reserved(what));
        true
    }

    /// Bounds every group's log so that all together find room in the store.
    pub(super) fn share_log_room(&mut self) {
        let Config { pg: wanted, log_entries_least, .. } = self.config;
        let share = self.fullness.usage().log_entries_max / (self.groups.len() as u64).max(1);
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        // A group drops entries only when there are up to a sixteenth too many.
        let share = (share - share / 16).max(log_entries_least);
        let bytes = usize::try_from(self.fullness.usage().log_step_bytes).unwrap_or(usize::MAX);
        let bytes = wanted.log_step_bytes.min(bytes);
        let bounds = (wanted.log_min_entries.min(share), wanted.log_max_entries.min(share), bytes);
        if self.log_bounds != bounds {
            self.log_bounds = bounds;
            self.groups.values_mut().for_each(|group| group.pg.bound_log(bounds.0, bounds.1, bounds.2));
        }
    }

    /// Settings of a group that begins now.
    fn group_config(&self) -> cairn_pg::Config {
        let (log_min_entries, log_max_entries, log_step_bytes) = self.log_bounds;
        cairn_pg::Config { log_min_entries, log_max_entries, log_step_bytes, ..self.config.pg }
    }

    /// Whatever is due.
    pub(super) fn tick_groups(&mut self) {
        while let Some(&(at, pgid, timer)) = self.group_timer_queue.first()
            && at <= self.time
        {
            self.group_timer_queue.pop_first();
            self.group_timers.remove(&(pgid, timer));
            self.tell(pgid, PgEvent::Timer(timer));
        }
    }

    /// Groups as they were stored, and every map since that they want to see.
    pub(super) fn load_groups(&mut self, groups: Vec<PersistedPg>) {
        for persisted in groups {
            let pgid = persisted.info.pgid;
            let pg = Pg::load(self.time, self.whoami(), persisted, self.group_config());
            self.groups.insert(pgid, Group::new(pg));
            self.catch_up(pgid);
        }
        self.share_log_room();
        self.remove_groups_without_pool();
    }

    /// Gives a group that was just made or loaded the maps there are.
    fn catch_up(&mut self, pgid: PgId) {
        let Some(group) = self.groups.get_mut(&pgid) else { return };
        for view in self.maps.views_from(group.pg.first_map_needed()) {
            if let Some(map) = view.group(pgid, &mut self.places) {
                group.map = Some(map.clone());
                self.todo.push_back((pgid, PgEvent::Map(map)));
            }
        }
    }

    /// Makes a group that this OSD has nothing of.
    fn make_group(&mut self, pgid: PgId) {
        let Some(born) = self.superblock.born else { return };
        let created = self.maps.pool_created(pgid.pool);
        let pg = Pg::new(self.whoami(), pgid, created, born, self.group_config());
        self.groups.insert(pgid, Group::new(pg));
        self.share_log_room();
        self.catch_up(pgid);
        self.tell(pgid, PgEvent::ActOnMap);
        // Those that came for it and had to wait are older than what comes from now on.
        let (ours, others) = std::mem::take(&mut self.held).into_iter().partition(|held| held.pgid == pgid);
        self.held = others;
        for Incoming { from, pgid, message } in ours {
            self.tell(pgid, PgEvent::Message { from, message });
        }
    }

    /// The group is gone from here: its pool was removed, or it is clean without this copy.
    fn remove_group(&mut self, pgid: PgId) {
        if self.groups.remove(&pgid).is_none() {
            return;
        }
        self.cache.remove_group(pgid);
        self.pushes.retain(|push| push.pgid != pgid);
        self.reserver.forget(pgid);
        for timer in [Timer::Lease, Timer::PriorLease, Timer::Monitor] {
            if let Some(at) = self.group_timers.remove(&(pgid, timer)) {
                self.group_timer_queue.remove(&(at, pgid, timer));
            }
        }
        let ops: Vec<_> = self.ops.iter().filter(|(_, op)| op.pgid == pgid).map(|(id, _)| *id).collect();
        for op in ops {
            self.group_replied(op, Reply::NotPrimary(self.maps.epoch()));
        }
        self.removing.insert(pgid);
        self.out.push(Effect::RemoveGroup { pgid });
    }

    /// Nothing of a group is left in the store: it may be made again.
    pub(super) fn group_removed(&mut self, pgid: PgId) {
        self.removing.remove(&pgid);
        self.placed = None;
        self.make_groups();
        self.deliver_held();
    }

    fn remove_groups_without_pool(&mut self) {
        let Some(view) = self.maps.view() else { return };
        let gone: Vec<PgId> = self.groups.keys().filter(|pgid| !view.has_group(**pgid)).copied().collect();
        gone.into_iter().for_each(|pgid| self.remove_group(pgid));
    }

    /// New maps for all groups there are.
    pub(super) fn groups_on_maps(&mut self, epochs: &[Epoch]) {
        for &epoch in epochs {
            let Some(view) = self.maps.view_of(epoch) else { continue };
            let before = self.maps.view_of(Epoch(epoch.0 - 1));
            let unmoved = before.is_some_and(|before| view.places_as(before));
            for (&pgid, group) in &mut self.groups {
                let again = group.map.as_ref().filter(|map| unmoved && map.epoch.next() == epoch);
                let map = match again {
                    Some(map) => Some(view.group_again(map)),
                    None => view.group(pgid, &mut self.places),
                };
                if let Some(map) = map {
                    group.map = Some(map.clone());
                    self.todo.push_back((pgid, PgEvent::Map(map)));
                }
            }
        }
        self.remove_groups_without_pool();
    }

    /// All maps were given: groups act on the newest, new ones are made, and what waited is delivered.
    pub(super) fn groups_act(&mut self) {
        // Before this run's boot is in the map, that map speaks of an earlier run.
        if self.up_from().is_none() && !self.was_up {
            return;
        }
        self.was_up = true;
        for &pgid in self.groups.keys() {
            self.todo.push_back((pgid, PgEvent::ActOnMap));
        }
        self.make_groups();
        self.deliver_held();
    }

    /// Makes the groups that the newest map gives this OSD.
    fn make_groups(&mut self) {
        if self.up_from().is_none() {
            return;
        }
        let Some(view) = self.maps.view().cloned() else { return };
        if self.placed.as_ref().is_some_and(|placed: &View| view.places_as(placed)) {
            return;
        }
        let whoami = self.whoami();
        let mut new = Vec::new();
        for pgid in view.groups() {
            if self.groups.contains_key(&pgid) || self.removing.contains(&pgid) {
                continue;
            }
            let map = view.group(pgid, &mut self.places);
            if map.is_some_and(|map| map.up.contains(&whoami) || map.acting.contains(&whoami)) {
                new.push(pgid);
            }
        }
        self.placed = Some(view);
        new.into_iter().for_each(|pgid| self.make_group(pgid));
    }

    /// Whether a message cannot be given to its group, or thrown away, by what is known now.
    pub(super) fn must_wait(&self, pgid: PgId, epoch: Epoch) -> bool {
        let is_new = epoch > self.maps.epoch() && !self.groups.contains_key(&pgid);
        self.up_from().is_none() || self.removing.contains(&pgid) || is_new
    }

    /// A message for a group.
    pub(super) fn deliver(&mut self, incoming: Incoming) {
        if self.must_wait(incoming.pgid, incoming.message.epoch) {
            return self.held.push_back(incoming);
        }
        let Some(Incoming { from, pgid, message }) = self.unless_too_large(incoming) else { return };
        if self.groups.contains_key(&pgid) {
            return self.tell(pgid, PgEvent::Message { from, message });
        }
        // Whoever asks for an answer gets it, even if there is nothing to tell. The rest is of the past.
        let is_question = matches!(
            message.body,
            Body::QueryInfo | Body::QueryLog { .. } | Body::Activate { .. } | Body::Pull { .. }
        );
        if is_question && self.maps.view().is_some_and(|view| view.has_group(pgid)) {
            self.make_group(pgid);
            self.tell(pgid, PgEvent::Message { from, message });
        }
    }

    /// What waited for a map or a removal is looked at again, in its order.
    fn deliver_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        while let Some(incoming) = held.pop_front() {
            let pgid = incoming.pgid;
            let had = self.groups.contains_key(&pgid);
            self.deliver(incoming);
            if !had && self.groups.contains_key(&pgid) {
                // It was made just now: the others that came for it follow at once.
                let (ours, others): (VecDeque<_>, _) = held.into_iter().partition(|held| held.pgid == pgid);
                held = others;
                ours.into_iter().for_each(|incoming| self.deliver(incoming));
            }
        }
    }

    /// Whether this OSD is primary of the group.
    pub(super) fn leads(&self, pgid: PgId) -> bool {
        let map = self.groups.get(&pgid).and_then(|group| group.map.as_ref());
        map.is_some_and(|map| map.primary == Some(self.whoami()))
    }

    /// Whose life this OSD watches: those it shares groups with, and if these are few its neighbours by number.
    pub(super) fn wanted_peers(&self) -> Option<BTreeSet<OsdId>> {
        self.up_from()?;
        let map = self.maps.current()?;
        let whoami = self.whoami();
        let maps = self.groups.values().filter_map(|group| group.map.as_ref());
        let mut wanted: BTreeSet<OsdId> =
            maps.flat_map(|map| map.up.iter().chain(&map.acting)).copied().collect();
        let above = map.osds.range(OsdId(whoami.0 + 1)..);
        let others = above.chain(map.osds.range(..whoami)).filter(|(_, info)| info.up).map(|(osd, _)| *osd);
        for osd in others {
            if wanted.len() > self.config.heartbeat_peers_min {
                break;
            }
            wanted.insert(osd);
        }
        wanted.remove(&whoami);
        Some(wanted)
    }

    /// The groups that this OSD is primary of.
    pub(super) fn led(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|(pgid, _)| self.leads(**pgid)).map(|(_, group)| group)
    }
}
