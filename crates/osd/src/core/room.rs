//! Room in this store and in those of the other copies: who may write, and what waits for room.

use super::fullness::{Left, Room};
use super::peers::Incoming;
use super::{Amount, Osd};
use cairn_pg::{Blob, Body, OpId};
use cairn_types::{OsdFlag, PgId, PoolFlag};
use cairn_wire::ErrorCode;
use cairn_wire::op::OpFlags;

/// Of the index, what a vector takes at most that is carried out in any case: a lock, a watch, a deletion.
const SMALL_BYTES: u64 = 4 << 10;

/// Of the index, what the entry of a vector in its group's log takes: an answer is seldom longer.
const ENTRY_BYTES: u64 = 1 << 10;

impl Osd {
    /// What is left of this store for clients' changes.
    pub(super) fn left(&self) -> Left {
        self.fullness.left(self.config.failsafe_full)
    }

    /// What a change is answered for which there is no room here, or on another copy. Looked at now and not when the request
    /// came: recovery may have filled the store while it waited, and a resend of what was carried out is answered as before.
    pub(super) fn lacks_room(&mut self, id: OpId, change: &Blob) -> Option<ErrorCode> {
        let (op, map) = (self.ops.get(&id)?, self.maps.current()?);
        // What this OSD does by itself gives room back.
        op.conn?;
        let mut takes = Amount::of_blob(change);
        if op.request.flags.contains(OpFlags::FULL_TRY) {
            if takes.fits(Amount { data: 0, index: SMALL_BYTES }) {
                return None;
            }
        } else {
            let pool_is_full =
                map.pools.get(&op.pgid.pool).is_some_and(|pool| pool.flags.has(PoolFlag::Full));
            if map.flags.has(OsdFlag::Full) || pool_is_full {
                return Some(ErrorCode::NOSPC);
            }
        }
        takes.index += ENTRY_BYTES;
        let (group, before) = (self.groups.get(&op.pgid)?, self.admitted);
        let takers = group.pg.takers(&op.object);
        let others = takers.map(|osd| self.peers.has_room_for(osd, takes, before)).max();
        let promised = self.peers.promised().plus(before);
        let here = self.fullness.has_room_for(takes, promised, self.config.failsafe_full, &mut self.out);
        match here.max(others.unwrap_or(Room::Yes)) {
            Room::Yes => {
                self.admitted = before.plus(takes);
                self.ops.get_mut(&id)?.takes = takes;
                None
            }
            Room::No => Some(ErrorCode::NOSPC),
            // The client asks again: a look is under way, or the other OSD will say more.
            Room::Unknown => Some(ErrorCode::BUSY),
        }
    }

    /// The change of a vector is handed to the store and sent now, or is none any more.
    pub(super) fn is_handed_in(&mut self, id: OpId) {
        if let Some(op) = self.ops.get_mut(&id) {
            self.admitted = self.admitted.less(std::mem::take(&mut op.takes));
        }
    }

    /// Keeps an object that another copy sends, and that does not fit, until there is room. What clients write has to be taken in
    /// its order; for this nobody waits but who wants to change the object.
    pub(super) fn unless_too_large(&mut self, incoming: Incoming) -> Option<Incoming> {
        if !self.is_too_large(&incoming) {
            return Some(incoming);
        }
        self.fullness.ask(&mut self.out);
        self.pushes.push_back(incoming);
        None
    }

    fn is_too_large(&self, incoming: &Incoming) -> bool {
        let Body::Push { data, .. } = &incoming.message.body else { return false };
        !self.fullness.fits(Amount::of_blob(data), self.peers.promised(), self.config.recovery_full)
    }

    /// What waits for room in an interval that is over is not wanted any more.
    pub(super) fn drop_old_pushes(&mut self, pgid: PgId) {
        let Some(group) = self.groups.get(&pgid) else { return };
        let first = group.pg.info().history.same_interval_since;
        self.pushes.retain(|push| push.pgid != pgid || push.message.epoch >= first);
    }

    /// A look has told.
    pub(super) fn found_room(&mut self) {
        for push in std::mem::take(&mut self.pushes) {
            if self.is_too_large(&push) {
                self.pushes.push_back(push);
                continue;
            }
            self.deliver(push);
            // What it takes counts for the next.
            self.settle();
        }
        self.peers.room_changed(self.left());
    }

    /// Others hear how much room there is for them, those that have to.
    pub(super) fn tell_room(&mut self) {
        if self.peers.has_nothing_to_tell() {
            return;
        }
        let left = self.left();
        if self.fullness.is_stale(left) {
            self.fullness.ask(&mut self.out);
        }
        self.peers.tell_room(left, &mut self.out);
    }
}
