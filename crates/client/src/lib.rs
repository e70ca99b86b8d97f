//! The client of a cairn cluster.
//!
//! | what | where |
//! |---|---|
//! | operations on the objects of a pool, as images and commands use them | [`ObjectIo`] in `io` |

pub mod core;
mod driver;
mod io;

pub use io::{
    Ack, BLOCKLIST_DURATION, InvalidOp, Listing, Notice, Notified, ObjectIo, OpAnswer, OpError, Watch,
    WatchHandler,
};
