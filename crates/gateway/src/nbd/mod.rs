//! The NBD server: fixed newstyle negotiation, structured replies, multi-connection, TLS.
//!
//! The protocol is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>; names of constants are
//! its own without the prefix. [`negotiate`] and [`transmit`] are the protocol without sockets, `connection` and
//! [`server`] carry it out. `docs/nbd.md` says what is served, the bounds, and how to attach.

mod connection;
mod listen;
pub mod negotiate;
mod outbox;
pub mod proto;
pub mod server;
pub mod transmit;

pub use listen::{BindError, Listener};
pub use server::{Export, Server, ServerError};
