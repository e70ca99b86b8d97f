//! The monitors as the group sees them: one sequence of maps.

use cairn_pg::{OsdState, PgMap};
use cairn_types::{Epoch, OsdId};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Authority {
    /// Epoch 1 first.
    pub maps: Vec<PgMap>,
    osds: BTreeMap<OsdId, OsdState>,
    out: Vec<OsdId>,
    /// Order in which placement likes the OSDs.
    pub order: Vec<OsdId>,
    pg_temp: Vec<OsdId>,
    pub size: usize,
    pub min_size: usize,
}

impl Authority {
    pub fn new(order: Vec<OsdId>, size: usize, min_size: usize) -> Authority {
        let state = OsdState { up: true, up_from: Epoch(1), up_thru: Epoch(0), lost_at: Epoch(0) };
        let osds = order.iter().map(|osd| (*osd, state)).collect();
        let mut authority =
            Authority { maps: Vec::new(), osds, out: Vec::new(), order, pg_temp: Vec::new(), size, min_size };
        authority.publish();
        authority
    }

    pub fn epoch(&self) -> Epoch {
        Epoch(self.maps.len() as u32)
    }

    pub fn latest(&self) -> &PgMap {
        self.maps.last().expect("the first map is made with the authority")
    }

    pub fn map(&self, epoch: u32) -> &PgMap {
        &self.maps[epoch as usize - 1]
    }

    fn next(&self) -> Epoch {
        Epoch(self.maps.len() as u32 + 1)
    }

    fn publish(&mut self) {
        // A down OSD keeps its place until it is out; its place is empty meanwhile.
        let placed = self.order.iter().filter(|osd| !self.out.contains(osd)).take(self.size);
        let up: Vec<OsdId> = placed.filter(|osd| self.osds[osd].up).copied().collect();
        self.pg_temp.retain(|osd| self.osds[osd].up);
        let acting = if self.pg_temp.is_empty() { up.clone() } else { self.pg_temp.clone() };
        self.maps.push(PgMap {
            epoch: self.next(),
            up_primary: up.first().copied(),
            up,
            primary: acting.first().copied(),
            acting,
            size: self.size,
            min_size: self.min_size,
            osds: Arc::new(self.osds.clone()),
        });
    }

    pub fn is_up(&self, osd: OsdId) -> bool {
        self.osds[&osd].up
    }

    pub fn mark_down(&mut self, osd: OsdId) {
        if self.is_up(osd) {
            self.osds.entry(osd).and_modify(|state| state.up = false);
            self.publish();
        }
    }

    /// An OSD comes up: first it is seen to have been down. Returns the epoch it is up from.
    pub fn boot(&mut self, osd: OsdId) -> Epoch {
        self.mark_down(osd);
        let epoch = self.next();
        self.osds.entry(osd).and_modify(|state| {
            state.up = true;
            state.up_from = epoch;
        });
        self.publish();
        epoch
    }

    pub fn set_out(&mut self, osd: OsdId, out: bool) {
        if out == self.out.contains(&osd) {
            return;
        }
        if out {
            self.out.push(osd);
        } else {
            self.out.retain(|o| *o != osd);
        }
        self.publish();
    }

    pub fn all_in(&mut self) {
        for osd in self.order.clone() {
            self.set_out(osd, false);
        }
    }

    pub fn out(&self) -> &[OsdId] {
        &self.out
    }

    pub fn up_thru(&mut self, osd: OsdId, epoch: Epoch) {
        let state = self.osds[&osd];
        if state.up && epoch >= state.up_from && state.up_thru < epoch {
            self.osds.entry(osd).and_modify(|state| state.up_thru = epoch);
            self.publish();
        }
    }

    pub fn pg_temp(&mut self, from: OsdId, acting: Vec<OsdId>) {
        if self.latest().primary == Some(from)
            && self.pg_temp != acting
            && acting.iter().all(|osd| self.is_up(*osd))
        {
            self.pg_temp = acting;
            self.publish();
        }
    }

    pub fn set_min_size(&mut self, min_size: usize) {
        self.min_size = min_size;
        self.publish();
    }
}
