//! What goes wrong, and when, and what the operator does: drawn from the seed before the run, as data, so that it
//! can be shortened and printed.

use crate::network::{HostId, Weather};
use crate::rng::Rng;
use crate::shape::{Profile, Shape};
use crate::timeline::Instant;
use cairn_types::OsdId;
use std::fmt;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proc {
    /// A monitor, by the number of its host.
    Mon(u16),
    /// An OSD.
    Osd(OsdId),
    /// A client.
    Client(u16),
}

impl fmt::Display for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proc::Mon(n) => write!(f, "mon.h{n}"),
            Proc::Osd(osd) => write!(f, "{osd}"),
            Proc::Client(n) => write!(f, "client.{n}"),
        }
    }
}

/// What a disk does to an OSD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// The next write fails.
    WriteError,
    /// The next read fails.
    ReadError,
    /// One bit of what is stored flips.
    BitRot,
    /// Every operation takes this much longer, microseconds.
    Slow(u64),
}

/// Something that happens to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A process dies and is started again.
    Kill {
        /// Which.
        process: Proc,
        /// When it is started again.
        down_ms: u64,
    },
    /// A process is stopped and goes on.
    Pause {
        /// Which.
        process: Proc,
        /// When it goes on.
        for_ms: u64,
    },
    /// Hosts lose power: what their disks had not flushed is lost, torn or kept.
    PowerOff {
        /// Which.
        hosts: Vec<HostId>,
        /// When they have it again.
        down_ms: u64,
    },
    /// Nothing passes from some hosts to others.
    Cut {
        /// From these.
        from: Vec<HostId>,
        /// To those.
        to: Vec<HostId>,
        /// Nor back.
        both_ways: bool,
        /// When it passes again.
        for_ms: u64,
    },
    /// Links from a host become rough.
    Rough {
        /// Which.
        host: HostId,
        /// How.
        weather: Weather,
        /// When they are calm again.
        for_ms: u64,
    },
    /// Nothing arrives from a host for a while, then all at once.
    Clog {
        /// Which.
        host: HostId,
        /// For how long.
        for_ms: u64,
    },
    /// The wall clock of a host jumps.
    ClockJump {
        /// Which.
        host: HostId,
        /// Forwards, or back.
        by_ms: i64,
    },
    /// The disk of an OSD.
    Disk {
        /// Which.
        osd: OsdId,
        /// What.
        fault: DiskFault,
    },
    /// The operator does something.
    Operator(Deed),
}

/// What an operator does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Takes an OSD out.
    Out(OsdId),
    /// Takes it in.
    In(OsdId),
    /// Gives it a share, in thousandths.
    Reweight(OsdId, u32),
    /// Marks a living OSD down.
    Down(OsdId),
    /// Kills an OSD, destroys its store, and makes a new one under its number.
    Replace(OsdId),
    /// Changes `min_size`.
    MinSize(u32),
    /// Changes `size`.
    Size(u32),
}

/// A step and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// When.
    pub at: Instant,
    /// What.
    pub step: Step,
}

impl Step {
    /// Its kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Kill { .. } => "kill",
            Step::Pause { .. } => "pause",
            Step::PowerOff { .. } => "power off",
            Step::Cut { .. } => "cut",
            Step::Rough { .. } => "rough links",
            Step::Clog { .. } => "clog",
            Step::ClockJump { .. } => "clock jump",
            Step::Disk { fault: DiskFault::WriteError, .. } => "write error",
            Step::Disk { fault: DiskFault::ReadError, .. } => "read error",
            Step::Disk { fault: DiskFault::BitRot, .. } => "bit rot",
            Step::Disk { fault: DiskFault::Slow(_), .. } => "slow disk",
            Step::Operator(Deed::Out(_) | Deed::In(_)) => "out and in",
            Step::Operator(Deed::Reweight(..)) => "reweight",
            Step::Operator(Deed::Down(_)) => "marked down",
            Step::Operator(Deed::Replace(_)) => "replaced disk",
            Step::Operator(Deed::MinSize(_) | Deed::Size(_)) => "pool size",
        }
    }
}

/// Draws the plan of a seed.
pub fn draw(seed: u64, profile: Profile, shape: &Shape) -> Vec<Planned> {
    let rng = &mut Rng::fork(seed, "plan");
    let per_minute = match profile {
        Profile::Light => rng.between(6, 20),
        Profile::Heavy => rng.between(15, 60),
    };
    let count = (per_minute * shape.busy_ms).div_ceil(60_000);
    let mut plan: Vec<Planned> = (0..count)
        .map(|_| {
            // Not in the first seconds, in which the cluster comes up.
            let at = Instant(0).plus_ms(rng.between(3_000, shape.busy_ms));
            Planned { at, step: draw_step(rng, profile, shape) }
        })
        .collect();
    plan.sort_by_key(|planned| planned.at);
    replace_at_most_one(&mut plan);
    plan
}

/// Two disks lost in one run may be all copies of something, which is no bug.
fn replace_at_most_one(plan: &mut Vec<Planned>) {
    let mut lost = None;
    plan.retain(|planned| match &planned.step {
        Step::Operator(Deed::Replace(osd))
        | Step::Disk { osd, fault: DiskFault::BitRot | DiskFault::WriteError } => {
            *lost.get_or_insert(*osd) == *osd
        }
        _ => true,
    });
}

fn draw_step(rng: &mut Rng, profile: Profile, shape: &Shape) -> Step {
    let osd = OsdId(rng.below(u64::from(shape.osds)) as i32);
    let host = HostId(rng.below(shape.hosts.len() as u64) as u16);
    let any_host = HostId(rng.below(shape.hosts.len() as u64 + u64::from(shape.clients)) as u16);
    let process = match rng.below(10) {
        0..=2 => Proc::Mon(rng.below(u64::from(shape.mons)) as u16),
        3 => Proc::Client(rng.below(u64::from(shape.clients)) as u16),
        _ => Proc::Osd(osd),
    };
    let spell_ms = [rng.between(10, 400), rng.between(400, 3_000), rng.between(3_000, 12_000)];
    let for_ms = spell_ms[rng.below(3) as usize];
    match rng.below(if profile == Profile::Light { 60 } else { 100 }) {
        0..=17 => Step::Kill { process, down_ms: for_ms },
        18..=25 => Step::Pause { process, for_ms },
        26..=33 => draw_cut(rng, shape, any_host, for_ms),
        34..=39 => Step::Rough { host: any_host, weather: draw_weather(rng), for_ms },
        40..=43 => Step::PowerOff { hosts: vec![host], down_ms: for_ms },
        44..=49 => Step::Operator(if rng.permille(500) { Deed::Out(osd) } else { Deed::In(osd) }),
        50..=53 => Step::Operator(Deed::Down(osd)),
        54..=59 => Step::Clog { host: any_host, for_ms },
        60..=64 => {
            let rack = rng.below(3) as u16;
            let hosts = shape.hosts.iter().filter(|host| host.rack == rack).map(|host| host.id).collect();
            Step::PowerOff { hosts, down_ms: for_ms }
        }
        65..=68 => {
            Step::PowerOff { hosts: shape.hosts.iter().map(|host| host.id).collect(), down_ms: for_ms }
        }
        69..=74 => Step::ClockJump { host, by_ms: rng.between(0, 7_200_000) as i64 - 3_600_000 },
        75..=79 => Step::Disk { osd, fault: DiskFault::Slow(rng.between(1_000, 100_000)) },
        80..=81 => Step::Disk { osd, fault: DiskFault::WriteError },
        82 => Step::Disk { osd, fault: DiskFault::ReadError },
        83..=84 => Step::Disk { osd, fault: DiskFault::BitRot },
        85..=90 => Step::Operator(Deed::Reweight(osd, rng.between(0, 1_000) as u32)),
        91..=94 => Step::Operator(Deed::Replace(osd)),
        95..=97 => Step::Operator(Deed::MinSize(rng.between(1, 2) as u32)),
        _ => Step::Operator(Deed::Size(rng.between(2, 3) as u32)),
    }
}

fn draw_cut(rng: &mut Rng, shape: &Shape, host: HostId, for_ms: u64) -> Step {
    let mut hosts: Vec<HostId> = shape.all_hosts().collect();
    rng.shuffle(&mut hosts);
    let (from, to) = if rng.permille(500) {
        // One host from all others.
        (vec![host], hosts.into_iter().filter(|other| *other != host).collect())
    } else {
        // Two parts, which may leave some who see both.
        let cut = rng.between(1, hosts.len() as u64 - 1) as usize;
        let seen_by_both = rng.below(2) as usize;
        (hosts[..cut].to_vec(), hosts[(cut + seen_by_both).min(hosts.len())..].to_vec())
    };
    Step::Cut { from, to, both_ways: rng.permille(600), for_ms }
}

fn draw_weather(rng: &mut Rng) -> Weather {
    Weather {
        delay_min_us: rng.between(40, 2_000),
        delay_max_us: rng.between(2_000, 150_000),
        loss_permille: rng.below(200),
        duplication_permille: rng.below(100),
        reordering_permille: rng.below(300),
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.at, self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_has_one_plan_and_all_kinds_come_up() {
        let mut kinds = BTreeSet::new();
        for seed in 0..200 {
            let shape = Shape::draw(seed, Profile::Heavy);
            let plan = draw(seed, Profile::Heavy, &shape);
            assert_eq!(plan, draw(seed, Profile::Heavy, &shape));
            assert!(plan.is_sorted_by_key(|planned| planned.at));
            kinds.extend(plan.iter().map(|planned| planned.step.kind()));
        }
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }
}
