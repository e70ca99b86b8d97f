//! What a seed's cluster is made of.

use crate::network::HostId;
use crate::rng::Rng;
use cairn_types::OsdId;

/// Of a store that does not get full.
pub const DATA_BYTES: u64 = 38 << 20;
/// Of a store's log: short, so that checkpoints are many and data leaves it.
pub const LOG_BYTES: u64 = 1 << 20;
/// Of an object that takes room.
pub const BALLAST_BYTES: u64 = 16 << 10;

/// How much is asked of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// One group, few objects, and faults that nearly all meet its primary or everything: where canaries are found fast.
    Narrow,
    /// Two to five monitors, requests that keep their log busy, and faults that nearly all meet them.
    Monitors,
    /// A small cluster and few faults: a smoke test.
    Light,
    /// Everything at once.
    Heavy,
    /// Images under the exclusive lock, and faults that nearly all meet the clients that use them.
    Images,
    /// Stores that are too small for what clients write, and faults that make copies catch up in what room is left.
    Full,
}

impl Profile {
    /// All.
    pub const ALL: [Profile; 6] =
        [Profile::Narrow, Profile::Monitors, Profile::Light, Profile::Heavy, Profile::Images, Profile::Full];
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "narrow" => Ok(Profile::Narrow),
            "monitors" => Ok(Profile::Monitors),
            "light" => Ok(Profile::Light),
            "heavy" => Ok(Profile::Heavy),
            "images" => Ok(Profile::Images),
            "full" => Ok(Profile::Full),
            _ => Err(format!(
                "there is no profile {text}; there are narrow, monitors, light, heavy, images and full"
            )),
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Profile::Narrow => "narrow",
            Profile::Monitors => "monitors",
            Profile::Light => "light",
            Profile::Heavy => "heavy",
            Profile::Images => "images",
            Profile::Full => "full",
        })
    }
}

/// One machine with at most one OSD for each disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Its number; it is named `h0`, `h1`…
    pub id: HostId,
    /// Its rack: `r0`, `r1`…
    pub rack: u16,
    /// Whether a monitor runs here.
    pub mon: bool,
    /// OSDs here.
    pub osds: Vec<OsdId>,
}

/// The cluster of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Machines of the cluster, monitors first.
    pub hosts: Vec<Host>,
    /// Monitors at the start: 1 to 5.
    pub mons: u16,
    /// OSDs: 3 to 12.
    pub osds: u16,
    /// Copies of the pool.
    pub size: u32,
    /// Copies needed to acknowledge.
    pub min_size: u32,
    /// Placement groups.
    pub pg_num: u32,
    /// Clients, each on a machine of its own.
    pub clients: u16,
    /// The last of them use an image under the exclusive lock, and nothing else.
    pub lockers: u16,
    /// The first of them do nothing but read: what waits for a lost replica does not keep them from it.
    pub readers: u16,
    /// Objects that clients write to, each of [`Shape::blocks`] blocks.
    pub objects: u32,
    /// 4 KiB blocks of an object.
    pub blocks: u32,
    /// Bytes of a store's log.
    pub log_bytes: u64,
    /// Bytes of a store for data.
    pub data_bytes: u64,
    /// Each OSD's store has so many less than that of the one before.
    pub uneven_bytes: u64,
    /// Objects of [`BALLAST_BYTES`] that clients make, and delete when there is no room: to fill stores with.
    pub ballast: u32,
    /// How long clients ask and faults happen, milliseconds.
    pub busy_ms: u64,
}

impl Shape {
    /// Of a seed.
    pub fn draw(seed: u64, profile: Profile) -> Shape {
        let rng = &mut Rng::fork(seed, "shape");
        let (mons, osds) = match profile {
            Profile::Narrow => ([1, 3, 3][rng.below(3) as usize], rng.between(3, 4)),
            Profile::Monitors => ([2, 3, 3, 4, 5, 5][rng.below(6) as usize], 3),
            Profile::Light | Profile::Images => ([1, 3][rng.below(2) as usize], rng.between(3, 4)),
            // As many stores as copies.
            Profile::Full => ([1, 3][rng.below(2) as usize], 3),
            Profile::Heavy => ([1, 2, 3, 3, 3, 4, 5][rng.below(7) as usize], rng.between(3, 12)),
        };
        // More OSDs than hosts: some hosts have two or three.
        let osd_hosts = rng.between(3, osds.min(6));
        let host_count = match profile {
            // Room for monitors to come.
            Profile::Monitors => 6,
            _ => osd_hosts.max(mons),
        };
        let racks = rng.between(1, 3);
        let mut hosts: Vec<Host> = (0..host_count)
            .map(|at| Host {
                id: HostId(at as u16),
                rack: (at % racks) as u16,
                mon: at < mons,
                osds: Vec::new(),
            })
            .collect();
        for osd in 0..osds {
            hosts[(osd % osd_hosts) as usize].osds.push(OsdId(osd as i32));
        }
        if profile == Profile::Monitors {
            return Shape {
                hosts,
                mons: mons as u16,
                osds: osds as u16,
                size: 2,
                min_size: 1,
                pg_num: 1,
                clients: 1,
                lockers: 0,
                readers: 0,
                objects: 1,
                blocks: 1,
                log_bytes: LOG_BYTES,
                data_bytes: DATA_BYTES,
                uneven_bytes: 0,
                ballast: 0,
                busy_ms: rng.between(12_000, 20_000),
            };
        }
        if profile == Profile::Narrow {
            return Shape {
                hosts,
                mons: mons as u16,
                osds: osds as u16,
                size: 3,
                min_size: rng.between(1, 2) as u32,
                pg_num: 1,
                clients: 3,
                lockers: 0,
                readers: 1,
                objects: rng.between(1, 3) as u32,
                blocks: 1,
                log_bytes: LOG_BYTES,
                data_bytes: DATA_BYTES,
                uneven_bytes: 0,
                ballast: 0,
                busy_ms: rng.between(12_000, 20_000),
            };
        }
        if profile == Profile::Full {
            let data_bytes = rng.between(4, 8) << 20;
            let draw = rng.below(3) as usize;
            return Shape {
                hosts,
                mons: mons as u16,
                osds: osds as u16,
                size: 3,
                min_size: 2,
                pg_num: [1, 2, 4][draw],
                clients: rng.between(2, 3) as u16,
                lockers: 0,
                readers: 0,
                objects: rng.between(2, 8) as u32,
                blocks: rng.between(1, 4) as u32,
                log_bytes: LOG_BYTES * [8, 4, 1][draw],
                data_bytes,
                // Copies with less room than their primary, and with more.
                uneven_bytes: [0, data_bytes / 64, data_bytes / 8]
                    [Rng::fork(seed, "uneven").below(3) as usize],
                ballast: (2 * data_bytes / BALLAST_BYTES) as u32,
                busy_ms: rng.between(30_000, 50_000),
            };
        }
        let lockers = match profile {
            Profile::Narrow | Profile::Monitors | Profile::Full => 0,
            Profile::Light | Profile::Heavy => [0, 0, 1, 2][rng.below(4) as usize],
            Profile::Images => rng.between(2, 3) as u16,
        };
        let others = if profile == Profile::Images { 0 } else { rng.between(1, 3) as u16 };
        let size = if rng.permille(800) { 3 } else { 2 };
        let min_size = if size == 3 && rng.permille(150) { 1 } else { 2 };
        let draw = rng.below(4) as usize;
        Shape {
            hosts,
            mons: mons as u16,
            osds: osds as u16,
            size,
            min_size: min_size.min(size),
            pg_num: [1, 2, 4, 8][draw],
            clients: others + lockers,
            lockers,
            readers: 0,
            objects: rng.between(2, 12) as u32,
            blocks: rng.between(1, 4) as u32,
            // With few groups the log of each is long for a store with a short one.
            log_bytes: if draw < 2 { LOG_BYTES << Rng::fork(seed, "log").below(4) } else { LOG_BYTES },
            data_bytes: DATA_BYTES,
            uneven_bytes: 0,
            ballast: 0,
            busy_ms: match profile {
                Profile::Heavy => rng.between(20_000, 60_000),
                Profile::Images => rng.between(60_000, 120_000),
                _ => rng.between(8_000, 20_000),
            },
        }
    }

    /// The host of an OSD.
    pub fn host_of(&self, osd: OsdId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.osds.contains(&osd))
    }

    /// Where a client runs: behind the hosts of the cluster.
    pub fn client_host(&self, client: u16) -> HostId {
        HostId(self.hosts.len() as u16 + client)
    }

    /// Every host, those of clients, too.
    pub fn all_hosts(&self) -> impl Iterator<Item = HostId> {
        (0..self.hosts.len() as u16 + self.clients).map(HostId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_sound_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            for profile in Profile::ALL {
                let shape = Shape::draw(seed, profile);
                assert_eq!(shape, Shape::draw(seed, profile));
                assert_eq!(shape.hosts.iter().filter(|host| host.mon).count(), usize::from(shape.mons));
                assert_eq!(
                    shape.hosts.iter().map(|host| host.osds.len()).sum::<usize>(),
                    usize::from(shape.osds)
                );
                let with_osds = shape.hosts.iter().filter(|host| !host.osds.is_empty()).count();
                assert!(with_osds >= shape.size as usize && shape.min_size <= shape.size);
                seen.insert((shape.mons, shape.osds, shape.size, shape.min_size, shape.pg_num));
            }
        }
        assert!(seen.len() > 100);
    }
}
