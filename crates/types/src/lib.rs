//! Identifiers, units and cluster maps shared by every part of cairn, as plain data.
//!
//! Words have their RADOS meaning. One newtype per id, so that an OSD number can never stand
//! where a pool number is meant. Nothing here reads a clock, draws entropy or does I/O.

mod addr;
mod digest;
mod entity;
mod health;
mod ids;
mod mgr_map;
mod mon_map;
mod object;
mod osd_map;
mod pg_state;
mod report;
mod text;
mod time;
mod weight;

pub use addr::{EntityAddr, ParseEntityAddrError};
pub use digest::{Digest, IoRates, OsdStat, PgCounts, PgProblem, PoolStat};
pub use entity::{EntityKind, EntityName, Fsid, ParseEntityNameError, ParseFsidError};
pub use health::{Health, HealthCheck, HealthCode, HealthStatus, ParseHealthCodeError, Severity};
pub use ids::{Epoch, MonId, OsdId, ParsePgIdError, PgId, PoolId, SnapId};
pub use mgr_map::{MgrInfo, MgrMap};
pub use mon_map::{MonChange, MonInfo, MonMap, MonStep};
pub use object::ObjectId;
pub use osd_map::{
    CrushBlob, MapFault, OsdFlag, OsdFlags, OsdInfo, OsdMap, OsdMapIncremental, OsdUuid, Pool, PoolFlag,
    PoolFlags, Ratio, Ratios,
};
pub use pg_state::{ParsePgStateError, PgState};
pub use report::{LATENCY_CLASSES, Latencies, OsdCounters, OsdReport, PgReport};
pub use time::Timestamp;
pub use weight::Weight;
