//! The object store of one OSD, on one file or block device.
//!
//! The layout is a document: `docs/format/store.md`. The way of a transaction: [`engine::Engine::submit`]
//! → planned against the state (`state::plan`) → applied to it → in a record of the log, with all that
//! waits (`engine::commit`) → acknowledged → put in place (`engine::writeback`) → in the index
//! (`engine::checkpoint`).

mod alloc;
#[cfg_attr(not(any(test, feature = "canary")), allow(dead_code))]
mod canary;
pub mod device;
pub mod dump;
pub mod engine;
mod error;
pub mod format;
pub mod fsck;
mod index;
mod key;
pub mod limits;
mod state;
mod store;
mod txn;

#[cfg(any(test, feature = "canary"))]
pub use canary::Canary;
pub use engine::{CreateOptions, Engine, Event, OpenOptions, ReadData, ReadRequest, Stat, Usage};
pub use error::{Damage, ReadError, StoreError, SubmitError, TransactionError};
pub use store::{Rejected, Store};
pub use txn::{Op, Sums, Transaction};
