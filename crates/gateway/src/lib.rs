//! Block devices, as hypervisors attach them.
//!
//! A gateway serves a [`BlockDevice`]: whatever has a size and can read, write, flush and discard. What stands
//! behind it (a disk image in a cluster, memory in a test) is not known here.
//!
//! - [`nbd`]: the NBD server, over a unix socket or over TCP with TLS.

pub mod block;
pub mod nbd;

pub use block::{BlockDevice, BlockInfo, Extent, IoError, Segment, Zeroing};
