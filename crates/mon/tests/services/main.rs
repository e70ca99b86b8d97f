//! The services, each by what it is asked and what it then says.

mod cluster;
mod config;
mod crush;
mod failure;
mod format;
mod health;
mod history;
mod members;
mod osd;
mod pg;
mod pool;
mod property;
mod support;
mod watch;
