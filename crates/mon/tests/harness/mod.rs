//! Monitors on simulated hosts with simulated disks, a bad network and virtual time, all from one seed.

mod check;
mod clients;
mod rng;
mod world;

pub use check::Checker;
pub use clients::{Client, Habit};
pub use rng::Rng;
pub use world::{MS, Weather, World};

use cairn_mon::service::Genesis;
use cairn_types::{EntityAddr, Fsid, Timestamp};

pub fn addr(port: u16) -> EntityAddr {
    EntityAddr { socket: ([127, 0, 0, 1], port).into(), nonce: 1 }
}

/// A cluster of monitors `a`, `b`, … on ports from 3300 on.
pub fn genesis(count: u16) -> Genesis {
    let name = |n: u16| char::from(b'a' + n as u8).to_string();
    Genesis {
        fsid: Fsid([7; 16]),
        now: Timestamp(1_000_000),
        mons: (0..count).map(|n| (name(n), vec![addr(3300 + n)])).collect(),
    }
}
