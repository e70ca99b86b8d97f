//! What the monitors can be asked to change, and what they answer.

use super::{AuthCommand, ClusterCommand, ConfigCommand, MonCommand, OsdCommand, PgCommand, PoolCommand};
use cairn_types::{EntityAddr, Epoch, MonChange, MonId, OsdId, PoolId, SnapId};
use cairn_wire::RequestId;
use serde::{Deserialize, Serialize};

/// A change somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// OSDs and where they are.
    Osd(OsdCommand),
    /// Pools.
    Pool(PoolCommand),
    /// Placement groups.
    Pg(PgCommand),
    /// Flags, ratios, blocklist.
    Cluster(ClusterCommand),
    /// Settings.
    Config(ConfigCommand),
    /// Monitors.
    Mon(MonCommand),
    /// Who may connect.
    Auth(AuthCommand),
    /// A number for a client's session, never given twice.
    Session,
    /// What the leader decides by itself. The door to the network refuses it from anyone else.
    Leader(LeaderCommand),
}

impl Request {
    /// Whether doing it twice is as good as once: daemons say the same again until the map shows it. All
    /// others carry a [`Once`].
    pub fn is_repeatable(&self) -> bool {
        match self {
            Request::Osd(command) => {
                matches!(
                    command,
                    OsdCommand::Create { .. } | OsdCommand::Boot { .. } | OsdCommand::Stopping { .. }
                )
            }
            Request::Pg(command) => matches!(command, PgCommand::Temp { .. } | PgCommand::UpThru { .. }),
            Request::Session | Request::Leader(_) => true,
            _ => false,
        }
    }
}

/// Makes a request count once, however often and to whichever monitors it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Once {
    /// Its name.
    pub id: RequestId,
    /// A version of the state its sender knew when it was first sent; the same in every resend.
    pub born: u64,
}

/// Changes the leader makes without being asked, out of reports and the passing of time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaderCommand {
    /// An OSD is dead by the rules of failure reports or has sent no beacon.
    OsdFailed {
        /// The OSD.
        osd: OsdId,
        /// The run of it that is meant.
        up_from: Epoch,
    },
    /// An OSD was down for long.
    OsdAutoOut {
        /// The OSD.
        osd: OsdId,
    },
    /// Entries of the blocklist have run out.
    ExpireBlocklist {
        /// Which, and since which version they stood.
        entries: Vec<(EntityAddr, u64)>,
    },
    /// Some OSD is full, or none is any more.
    OsdFull {
        /// Whether.
        full: bool,
    },
    /// A pool's quota is used up, or no longer.
    PoolFull {
        /// The pool.
        pool: PoolId,
        /// Whether.
        full: bool,
    },
    /// A mgr runs.
    MgrSeen {
        /// Its name.
        name: String,
        /// Where, and which run.
        addr: EntityAddr,
    },
    /// A mgr sends no beacons.
    MgrLost {
        /// Its name.
        name: String,
        /// The run of it that is meant.
        addr: EntityAddr,
    },
    /// Every group is clean past the epochs before this one.
    TrimOsdMaps {
        /// The first epoch to keep.
        first: Epoch,
    },
    /// The members of the log are what the change of a monitor was for, and whoever left is not needed any more.
    MonChanged {
        /// The change.
        change: MonChange,
    },
}

/// What a request got.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is so, changed now or before.
    Done,
    /// A client has this session.
    Session {
        /// Its number.
        client: u64,
    },
    /// An OSD has this number.
    Osd {
        /// Its number.
        osd: OsdId,
    },
    /// A pool was made.
    Pool {
        /// Its number.
        pool: PoolId,
        /// Its placement groups.
        pg_num: u32,
    },
    /// A snapshot number of a pool.
    Snap {
        /// The number.
        snap: SnapId,
    },
    /// A monitor joins under this number.
    Mon {
        /// The number.
        mon: MonId,
    },
    /// An OSD that boots while its last run is still up: that run is marked down now, the OSD asks again
    /// with the next map. Peers must see the two runs in two epochs.
    BootLater {
        /// Map to wait for.
        epoch: Epoch,
    },
}
