//! Lanes: the few ordered streams of one connection.

use std::fmt;

/// One ordered stream of a connection. Nothing is ordered between lanes, and a lane whose receiver
/// has stopped reading does not hold up the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Maps, peering, heartbeats, commands. Part of every connection.
    Control = 0,
    /// Client operations and their replication.
    Client = 1,
    /// Recovery, backfill and scrub.
    Recovery = 2,
}

impl Lane {
    /// Every lane, by number.
    pub const ALL: [Lane; 3] = [Lane::Control, Lane::Client, Lane::Recovery];

    /// The lane with this number on the wire.
    pub fn from_number(number: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(number)).copied()
    }

    /// Its number on the wire, and its place in [`Lane::ALL`].
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Control => "control",
            Lane::Client => "client",
            Lane::Recovery => "recovery",
        })
    }
}

/// The lanes of one connection; the control lane is always among them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneSet(u8);

impl LaneSet {
    /// Only the control lane.
    pub const CONTROL: LaneSet = LaneSet(1);
    /// What a client of the cluster needs.
    pub const CLIENT: LaneSet = LaneSet(0b011);
    /// Every lane: between OSDs.
    pub const ALL: LaneSet = LaneSet(0b111);

    /// The set with these bits, or `None` when the control lane is missing or a lane is unknown.
    pub fn from_bits(bits: u8) -> Option<LaneSet> {
        (bits & 1 == 1 && bits & !LaneSet::ALL.0 == 0).then_some(LaneSet(bits))
    }

    /// One bit per lane, the lowest for lane 0.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether `lane` is one of them.
    pub fn contains(self, lane: Lane) -> bool {
        self.0 >> lane.number() & 1 == 1
    }

    /// The lanes in order of number.
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        Lane::ALL.into_iter().filter(move |lane| self.contains(*lane))
    }

    /// How many lanes, at least 1.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}
