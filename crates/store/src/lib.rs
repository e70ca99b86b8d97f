//! The object store of one OSD, on one file or block device.
//!
//! The layout is a document: `docs/format/store.md`.

pub mod device;
mod txn;

pub use txn::{Op, Transaction};
