//! Identifiers and units shared by every part of cairn, as plain data.
//!
//! Words have their RADOS meaning. One newtype per id, so that an OSD number can never stand
//! where a pool number is meant. Nothing here reads a clock, draws entropy or does I/O.

mod entity;
mod ids;
mod object;
mod weight;

pub use entity::{EntityKind, EntityName, Fsid, ParseEntityNameError, ParseFsidError};
pub use ids::{Epoch, MonId, OsdId, ParsePgIdError, PgId, PoolId, SnapId};
pub use object::ObjectId;
pub use weight::Weight;
