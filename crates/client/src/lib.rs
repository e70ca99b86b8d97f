//! The client of a cairn cluster.
//!
//! | what | where |
//! |---|---|
//! | a connection to a cluster, and its pools | [`Client`], [`Pool`] in `client` |
//! | operations on the objects of a pool, as images and commands use them | [`ObjectIo`] in `io` |
//! | whole objects: put, get, stat, list, remove | [`objects`] |
//! | disk images in the layout of RBD format 2 | [`image`] |
//! | load and its measurement | [`mod@bench`] |
//! | which OSD, when to send, when again; pure | [`core`] |
//! | connections, timers, callers | `driver` |

pub mod bench;
mod client;
pub mod core;
mod driver;
mod error;
#[cfg(test)]
mod fixture;
pub mod image;
mod io;
pub mod objects;

pub use client::{Client, ClientOptions, Pool};
pub use error::ClientError;
pub use io::{
    Ack, BLOCKLIST_DURATION, InvalidOp, Listing, Notice, Notified, ObjectIo, OpAnswer, OpError, Watch,
    WatchHandler,
};
