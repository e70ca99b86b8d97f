//! States of a group on one OSD, and which may follow which.

/// Where peering and activation stand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// A new interval was seen and not yet acted on, or this OSD is not up in the map.
    Reset,
    /// Primary: asking everyone who may know of a write for their info.
    GetInfo,
    /// Primary: an interval that may have gone rw has no survivor that is up.
    Down,
    /// Primary: those who answered cannot vouch for the history.
    Incomplete,
    /// Primary: asked the monitors for another acting set.
    WaitActingChange,
    /// Primary: fetching the authoritative log.
    GetLog,
    /// Primary: waiting for the monitors to record `up_thru`.
    WaitUpThru,
    /// Primary: every copy is taking over the log and making the activation durable; each answers
    /// with its missing set (RADOS `GetMissing` and the wait for activation in one).
    GetMissing,
    /// Primary: serving, and recovering what is missing. With fewer copies than `min_size` it
    /// recovers but serves nothing, and is called `peered`.
    Active,
    /// Not primary, and not (yet) told what to do in this interval.
    Stray,
    /// Member of the acting set, or backfill target, activated by the primary.
    ReplicaActive,
    /// The copy is gone.
    Removed,
}

impl State {
    /// Whether `to` may follow. Total: a new state or a new edge has to be written here.
    pub fn may_become(self, to: State) -> bool {
        use State::*;
        match (self, to) {
            (Removed, _) => false,
            // A new interval may begin at any moment.
            (_, Reset) => true,
            (Reset, GetInfo | Stray) => true,
            (Reset, _) => false,
            // Whom to ask can change while the interval lasts: someone came up, or went down.
            (GetInfo | Down | Incomplete | WaitActingChange | GetLog | WaitUpThru, GetInfo) => true,
            (GetInfo, Down | Incomplete | WaitActingChange | GetLog | WaitUpThru) => true,
            (GetLog, WaitUpThru | Incomplete) => true,
            (WaitUpThru, GetMissing) => true,
            (GetMissing, Active) => true,
            (Stray, ReplicaActive | Removed) => true,
            (
                GetInfo | Down | Incomplete | WaitActingChange | GetLog | WaitUpThru | GetMissing | Active
                | Stray | ReplicaActive,
                _,
            ) => false,
        }
    }

    /// Whether this is a state of the primary before it serves.
    pub fn is_peering(self) -> bool {
        use State::*;
        match self {
            GetInfo | Down | Incomplete | WaitActingChange | GetLog | WaitUpThru | GetMissing => true,
            Reset | Active | Stray | ReplicaActive | Removed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};

    const ALL: [State; 12] = [
        Reset,
        GetInfo,
        Down,
        Incomplete,
        WaitActingChange,
        GetLog,
        WaitUpThru,
        GetMissing,
        Active,
        Stray,
        ReplicaActive,
        Removed,
    ];

    #[test]
    fn nothing_goes_active_without_up_thru_and_activation() {
        let into = |to| ALL.into_iter().filter(|s| s.may_become(to)).collect::<Vec<_>>();
        assert_eq!(into(Active), [GetMissing]);
        assert_eq!(into(GetMissing), [WaitUpThru]);
        assert_eq!(into(ReplicaActive), [Stray]);
    }

    #[test]
    fn a_new_interval_interrupts_everything_but_removal() {
        for state in ALL {
            assert_eq!(state.may_become(Reset), state != Removed);
        }
    }
}
