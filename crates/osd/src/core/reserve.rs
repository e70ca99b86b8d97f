//! Slots: how many groups move whole objects at a time.

use cairn_pg::Reservation;
use cairn_types::PgId;
use std::collections::VecDeque;

/// One kind of slot: who has one, who waits, in order.
#[derive(Debug, Default)]
struct Slots {
    held: Vec<PgId>,
    waiting: VecDeque<PgId>,
}

impl Slots {
    fn release(&mut self, pgid: PgId) {
        self.held.retain(|held| *held != pgid);
        self.waiting.retain(|waiting| *waiting != pgid);
    }
}

/// The slots of this OSD.
#[derive(Debug, Default)]
pub(super) struct Reserver {
    local: Slots,
    remote: Slots,
}

impl Reserver {
    fn slots(&mut self, what: Reservation) -> &mut Slots {
        match what {
            Reservation::LocalBackfill => &mut self.local,
            Reservation::RemoteBackfill => &mut self.remote,
        }
    }

    /// A group asks for a slot; [`Reserver::grant`] gives it.
    pub fn ask(&mut self, what: Reservation, pgid: PgId) {
        let slots = self.slots(what);
        if !slots.held.contains(&pgid) && !slots.waiting.contains(&pgid) {
            slots.waiting.push_back(pgid);
        }
    }

    /// A group gives back its slot or its place.
    pub fn release(&mut self, what: Reservation, pgid: PgId) {
        self.slots(what).release(pgid);
    }

    /// A group is gone.
    pub fn forget(&mut self, pgid: PgId) {
        self.local.release(pgid);
        self.remote.release(pgid);
    }

    /// The next group that gets a slot, while there are any. `may_receive`: there is room here for others' objects.
    pub fn grant(&mut self, slots_max: usize, may_receive: bool) -> Option<(PgId, Reservation)> {
        let kinds = [(Reservation::LocalBackfill, true), (Reservation::RemoteBackfill, may_receive)];
        for (what, may) in kinds {
            let slots = self.slots(what);
            if may
                && slots.held.len() < slots_max
                && let Some(pgid) = slots.waiting.pop_front()
            {
                slots.held.push(pgid);
                return Some((pgid, what));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::PoolId;

    fn pg(seed: u32) -> PgId {
        PgId { pool: PoolId(1), seed }
    }

    #[test]
    fn slots_are_given_in_order_and_given_back() {
        let mut reserver = Reserver::default();
        for seed in [3, 1, 2, 3] {
            reserver.ask(Reservation::LocalBackfill, pg(seed));
        }
        reserver.ask(Reservation::RemoteBackfill, pg(9));
        assert_eq!(reserver.grant(1, false), Some((pg(3), Reservation::LocalBackfill)));
        assert_eq!(
            reserver.grant(1, false),
            None,
            "no slot is left, and there is no room for others' objects"
        );
        assert_eq!(reserver.grant(1, true), Some((pg(9), Reservation::RemoteBackfill)));
        reserver.forget(pg(1));
        reserver.release(Reservation::LocalBackfill, pg(3));
        assert_eq!(reserver.grant(1, true), Some((pg(2), Reservation::LocalBackfill)));
        assert_eq!(reserver.grant(1, true), None);
    }
}
