//! What can be measured, and how much of the raw disk is wanted of it.

use super::load::{Content, OBJECT_BYTES, Request, SMALL_BYTES};
use cairn_store::ReadRequest;
use cairn_store::device::sim::SplitMix64;
use cairn_types::{ObjectId, PgId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Durable overwrites at random places
    Randwrite,
    /// Durable overwrites from the first object to the last, and again
    Seqwrite,
    /// Reads from the first object to the last, and again
    Seqread,
    /// Reads at random places
    Randread,
}

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    pub kind: Kind,
    /// Divides an object.
    pub block_bytes: u64,
    pub depth: usize,
}

/// What the store is to reach beside the raw disk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// Mean latency, at most so many times that of the disk.
    Latency(f64),
    /// Operations per second, at least this share of the disk's.
    Rate(f64),
}

/// All that is measured when nothing is said.
pub const TABLE: [Workload; 5] = [
    Workload { kind: Kind::Randwrite, block_bytes: SMALL_BYTES, depth: 1 },
    Workload { kind: Kind::Randwrite, block_bytes: SMALL_BYTES, depth: 32 },
    Workload { kind: Kind::Seqwrite, block_bytes: OBJECT_BYTES, depth: 4 },
    Workload { kind: Kind::Seqread, block_bytes: OBJECT_BYTES, depth: 4 },
    Workload { kind: Kind::Randread, block_bytes: SMALL_BYTES, depth: 32 },
];

impl Kind {
    pub fn is_write(self) -> bool {
        matches!(self, Kind::Randwrite | Kind::Seqwrite)
    }

    pub fn is_random(self) -> bool {
        matches!(self, Kind::Randwrite | Kind::Randread)
    }

    /// The word for it, fio's too when random (`randwrite`), or of which fio's is a part (`seqwrite`).
    pub fn name(self) -> &'static str {
        match self {
            Kind::Randwrite => "randwrite",
            Kind::Seqwrite => "seqwrite",
            Kind::Seqread => "seqread",
            Kind::Randread => "randread",
        }
    }
}

impl Workload {
    /// What it reads is to be read through once before it is measured. Of what a virtual disk's host or a disk's
    /// own memory holds, most is what was written or read last: the store's objects or fio's file, whichever had
    /// its turn later, and that would be measured. Reads in order do it themselves, from round to round.
    pub fn is_read_through_first(&self) -> bool {
        self.kind == Kind::Randread
    }

    /// For those of the table.
    pub fn goal(&self) -> Option<Goal> {
        let goals =
            [Goal::Latency(1.25), Goal::Rate(0.6), Goal::Rate(0.85), Goal::Rate(0.85), Goal::Rate(0.85)];
        TABLE.iter().position(|workload| workload == self).map(|at| goals[at])
    }

    /// Its requests, for so long from the first on: there always is one.
    pub fn requests(
        self,
        objects: Arc<[(PgId, ObjectId)]>,
        content: Arc<Content>,
        mut rng: SplitMix64,
        runtime: Duration,
    ) -> impl FnMut() -> Option<Request> + Send + 'static {
        let per_object = OBJECT_BYTES / self.block_bytes;
        let blocks = per_object * objects.len() as u64;
        let (mut next, mut start) = (0, None::<Instant>);
        move || {
            match start {
                Some(start) if start.elapsed() > runtime => return None,
                Some(_) => {}
                None => start = Some(Instant::now()),
            }
            let block = if self.kind.is_random() { rng.below(blocks) } else { next % blocks };
            next += 1;
            let place = &objects[(block / per_object) as usize];
            let (offset, len) = (block % per_object * self.block_bytes, self.block_bytes);
            Some(if self.kind.is_write() {
                content.write(place, offset, len, &mut rng)
            } else {
                Request::Read(ReadRequest { pg: place.0, object: place.1.clone(), offset, len })
            })
        }
    }
}
