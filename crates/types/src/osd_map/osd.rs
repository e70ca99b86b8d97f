//! One OSD in the map.

use crate::text::serde_as_text;
use crate::{EntityAddr, Epoch, Fsid, ParseFsidError, Weight};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Id of one OSD's store, drawn when the store is made: a number reused by a new disk is told from
/// the old one by it. Printed as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OsdUuid(pub [u8; 16]);

impl fmt::Display for OsdUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fsid(self.0).fmt(f)
    }
}

impl FromStr for OsdUuid {
    type Err = ParseFsidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(OsdUuid(text.parse::<Fsid>()?.0))
    }
}

serde_as_text!(OsdUuid, [u8; 16], |uuid| uuid.0, |bytes| Some(OsdUuid(bytes)));

/// What the map says of one OSD. An OSD that has no entry does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OsdInfo {
    /// Whether it runs, as far as the monitors know.
    pub up: bool,
    /// How much of its data it is given: 0 is out, 1.0 fully in (`reweight`).
    pub weight: Weight,
    /// The weight it had when the monitors marked it out by themselves; it gets it back when it boots.
    pub weight_before_auto_out: Option<Weight>,
    /// How readily it is made primary, 0 to 1.0.
    pub primary_affinity: Weight,
    /// Its store; none once it is destroyed, so that the number waits for a new disk.
    pub uuid: Option<OsdUuid>,
    /// Epoch in which it was last marked up; 0 before its first boot.
    pub up_from: Epoch,
    /// Epoch up to which it was certainly alive: peers need not ask about writes after it.
    pub up_thru: Epoch,
    /// Epoch in which it was last marked down; 0 if never.
    pub down_at: Epoch,
    /// The last interval of epochs `[begin, end)` after which it stopped cleanly.
    pub last_clean_interval: (Epoch, Epoch),
    /// Epoch in which the operator gave its data up as lost; 0 if never.
    pub lost_at: Epoch,
    /// Where clients and monitors reach it; none before its first boot.
    pub public: Option<EntityAddr>,
    /// Where other OSDs reach it.
    pub cluster: Option<EntityAddr>,
}

impl OsdInfo {
    /// An OSD whose store was just made: down, in, never booted.
    pub fn new(uuid: OsdUuid) -> Self {
        OsdInfo {
            up: false,
            weight: Weight::ONE,
            weight_before_auto_out: None,
            primary_affinity: Weight::ONE,
            uuid: Some(uuid),
            up_from: Epoch(0),
            up_thru: Epoch(0),
            down_at: Epoch(0),
            last_clean_interval: (Epoch(0), Epoch(0)),
            lost_at: Epoch(0),
            public: None,
            cluster: None,
        }
    }

    /// Whether it is given data.
    pub fn is_in(&self) -> bool {
        self.weight > Weight::ZERO
    }

    /// Whether its store is gone and its number waits for a new one.
    pub fn is_destroyed(&self) -> bool {
        self.uuid.is_none()
    }
}
