//! The NBD server, over real sockets.

mod protocol;
mod support;
mod tools;
