//! What goes wrong, and when, and what the operator does: drawn from the seed before the run, as data, so that it
//! can be shortened and printed.

mod monitors;

use crate::network::{HostId, Weather};
use crate::rng::Rng;
use crate::shape::{Profile, Shape};
use crate::timeline::Instant;
use cairn_types::OsdId;
pub use monitors::{Ambush, WhichMon};
use std::fmt;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proc {
    /// A monitor, by its number. In a plan it may be one that is not there, and stands for one that is.
    Mon(u16),
    /// An OSD.
    Osd(OsdId),
    /// A client.
    Client(u16),
}

impl fmt::Display for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proc::Mon(n) => write!(f, "mon.{n}"),
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
    /// From now on flushes and durable writes are said to be done and are not, until power is lost.
    Lie,
}

/// A step of the monitors' agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A candidate has asked for promises.
    Prepare,
    /// It has had the first of them.
    Promise,
    /// A leader has sent a value.
    Accept,
    /// The first of the others has it durably.
    Accepted,
}

/// Whom a primary is cut off from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Hosts of clients.
    Clients,
    /// Hosts of monitors.
    Monitors,
    /// Hosts of other OSDs.
    Osds,
    /// All.
    Everyone,
    /// All but the first client, which is cut off with it.
    EveryoneButAClient,
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
    /// The next monitor that leads dies as soon as it is there.
    KillLeader {
        /// Where.
        phase: Phase,
        /// When it is started again.
        down_ms: u64,
    },
    /// The host of the first group's primary, whichever it is by then, is cut off.
    CutPrimary {
        /// From whom.
        from: Side,
        /// Until when.
        for_ms: u64,
    },
    /// The first group's primary is killed, whichever it is by then.
    KillPrimary {
        /// When it is started again.
        down_ms: u64,
    },
    /// The monitor that leads is stopped and goes on.
    PauseLeader {
        /// When it goes on.
        for_ms: u64,
    },
    /// Something waits for the monitors.
    Ambush(Ambush),
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
    /// Shuts a client out; whoever runs it starts it anew.
    Block(u16),
    /// Changes `min_size`.
    MinSize(u32),
    /// Changes `size`.
    Size(u32),
    /// Adds a monitor on a host, unless one is there or there are five.
    AddMon(HostId),
    /// Removes a monitor, unless it is the last.
    RemoveMon(WhichMon),
    /// Changes a setting so many times, one after the other: a slot of the monitors' log each.
    Configure(u32),
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
            Step::Disk { fault: DiskFault::Lie, .. } => "lying disk",
            Step::KillLeader { .. } => "leader killed in a phase",
            Step::CutPrimary { .. } => "primary cut off",
            Step::KillPrimary { .. } => "primary killed",
            Step::Operator(Deed::Block(_)) => "client shut out",
            Step::Operator(Deed::Out(_) | Deed::In(_)) => "out and in",
            Step::Operator(Deed::Reweight(..)) => "reweight",
            Step::Operator(Deed::Down(_)) => "marked down",
            Step::Operator(Deed::Replace(_)) => "replaced disk",
            Step::Operator(Deed::MinSize(_) | Deed::Size(_)) => "pool size",
            Step::Operator(Deed::AddMon(_)) => "monitor added",
            Step::Operator(Deed::RemoveMon(_)) => "monitor removed",
            Step::Operator(Deed::Configure(_)) => "settings",
            Step::PauseLeader { .. } => "leader paused",
            Step::Ambush(ambush) => ambush.kind(),
        }
    }
}

/// Draws the plan of a seed.
pub fn draw(seed: u64, profile: Profile, shape: &Shape) -> Vec<Planned> {
    let rng = &mut Rng::fork(seed, "plan");
    let per_minute = match profile {
        Profile::Narrow => rng.between(30, 90),
        Profile::Monitors => rng.between(60, 150),
        Profile::Light => rng.between(6, 20),
        Profile::Heavy => rng.between(15, 60),
        Profile::Images | Profile::Full => rng.between(6, 20),
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
    keep_what_is_survivable(&mut plan, shape);
    plan
}

/// Leaves out of a plan what no cluster survives. Two disks that are lost in one run may be all copies of something, and so
/// may one where one copy is enough to answer: that is no bug.
fn keep_what_is_survivable(plan: &mut Vec<Planned>, shape: &Shape) {
    let mut lost = None;
    plan.retain(|planned| match &planned.step {
        Step::Operator(Deed::Replace(osd))
        | Step::Disk {
            osd,
            fault: DiskFault::BitRot | DiskFault::WriteError | DiskFault::ReadError | DiskFault::Lie,
        } => shape.min_size >= 2 && *lost.get_or_insert(*osd) == *osd,
        _ => true,
    });
    if lost.is_some() {
        plan.retain(|planned| !matches!(planned.step, Step::Operator(Deed::MinSize(1))));
    }
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
    match profile {
        Profile::Narrow => return draw_narrow(rng, shape, osd, process, for_ms),
        Profile::Monitors => return monitors::draw_all(rng, shape, for_ms),
        Profile::Images => return draw_images(rng, shape, process, for_ms),
        Profile::Full => return draw_full(rng, shape, osd, process, for_ms),
        Profile::Light | Profile::Heavy => {}
    }
    match rng.below(if profile == Profile::Light { 90 } else { 124 }) {
        0..=17 => Step::Kill { process, down_ms: for_ms },
        18..=25 => Step::Pause { process, for_ms },
        26..=33 => draw_cut(rng, shape, any_host, for_ms),
        34..=39 => Step::Rough { host: any_host, weather: draw_weather(rng), for_ms },
        40..=43 => Step::PowerOff { hosts: vec![host], down_ms: for_ms },
        44..=49 => Step::Operator(if rng.permille(500) { Deed::Out(osd) } else { Deed::In(osd) }),
        50..=53 => Step::Operator(Deed::Down(osd)),
        54..=59 => Step::Clog { host: any_host, for_ms },
        60..=63 => Step::KillPrimary { down_ms: for_ms },
        64..=67 => {
            let sides = [Side::Clients, Side::Monitors, Side::Osds, Side::Everyone];
            Step::CutPrimary { from: sides[rng.below(4) as usize], for_ms }
        }
        68..=71 => {
            let phases = [Phase::Prepare, Phase::Promise, Phase::Accept, Phase::Accepted];
            Step::KillLeader { phase: phases[rng.below(4) as usize], down_ms: for_ms }
        }
        72..=73 => Step::Operator(Deed::Block(rng.below(u64::from(shape.clients)) as u16)),
        74..=75 => Step::Disk { osd, fault: DiskFault::BitRot },
        76..=79 => {
            let rack = rng.below(3) as u16;
            let hosts = shape.hosts.iter().filter(|host| host.rack == rack).map(|host| host.id).collect();
            Step::PowerOff { hosts, down_ms: for_ms }
        }
        80..=84 => {
            Step::PowerOff { hosts: shape.hosts.iter().map(|host| host.id).collect(), down_ms: for_ms }
        }
        85..=89 => Step::Disk { osd, fault: DiskFault::Slow(rng.between(1_000, 100_000)) },
        90..=95 => Step::ClockJump { host, by_ms: rng.between(0, 7_200_000) as i64 - 3_600_000 },
        96..=97 => Step::Disk { osd, fault: DiskFault::WriteError },
        98..=99 => Step::Disk { osd, fault: DiskFault::ReadError },
        100..=105 => Step::Operator(Deed::Reweight(osd, rng.between(0, 1_000) as u32)),
        106..=109 => Step::Operator(Deed::Replace(osd)),
        110..=113 => Step::Operator(Deed::MinSize(rng.between(1, 2) as u32)),
        114..=115 => Step::Operator(Deed::Size(rng.between(2, 3) as u32)),
        _ => monitors::draw_some(rng, shape, for_ms),
    }
}

/// What meets the group's primary, or everything.
fn draw_narrow(rng: &mut Rng, shape: &Shape, osd: OsdId, process: Proc, for_ms: u64) -> Step {
    match rng.below(100) {
        0..=13 => Step::KillPrimary { down_ms: for_ms },
        14..=23 => Step::CutPrimary { from: Side::EveryoneButAClient, for_ms: rng.between(2_000, 8_000) },
        24..=31 => {
            let sides = [Side::Clients, Side::Monitors, Side::Osds, Side::Everyone];
            Step::CutPrimary { from: sides[rng.below(4) as usize], for_ms }
        }
        32..=45 => Step::Kill { process, down_ms: for_ms },
        46..=51 => Step::Pause { process, for_ms },
        52..=60 => {
            Step::PowerOff { hosts: shape.hosts.iter().map(|host| host.id).collect(), down_ms: for_ms }
        }
        61..=64 => Step::PowerOff {
            hosts: vec![HostId(rng.below(shape.hosts.len() as u64) as u16)],
            down_ms: for_ms,
        },
        65..=71 => Step::Rough {
            host: HostId(rng.below(shape.hosts.len() as u64) as u16),
            weather: draw_weather(rng),
            for_ms,
        },
        72..=79 => Step::Disk { osd, fault: DiskFault::Slow(rng.between(2_000, 60_000)) },
        80..=84 => {
            let phases = [Phase::Prepare, Phase::Promise, Phase::Accept, Phase::Accepted];
            Step::KillLeader { phase: phases[rng.below(4) as usize], down_ms: for_ms }
        }
        85..=88 => Step::Operator(if rng.permille(500) { Deed::Out(osd) } else { Deed::In(osd) }),
        89..=90 => Step::Operator(Deed::Down(osd)),
        91..=94 => Step::Operator(Deed::Block(rng.below(u64::from(shape.clients)) as u16)),
        _ => Step::Disk { osd, fault: DiskFault::BitRot },
    }
}

/// What meets clients of images, often for so long that they are taken for dead.
fn draw_images(rng: &mut Rng, shape: &Shape, process: Proc, for_ms: u64) -> Step {
    let number = rng.below(u64::from(shape.clients)) as u16;
    let client = Proc::Client(number);
    let for_ms = if rng.permille(500) { rng.between(28_000, 45_000) } else { for_ms };
    let hosts = |wanted: &dyn Fn(&crate::shape::Host) -> bool| -> Vec<HostId> {
        shape.hosts.iter().filter(|host| wanted(host)).map(|host| host.id).collect()
    };
    match rng.below(100) {
        0..=19 => Step::Pause { process: client, for_ms },
        20..=31 => Step::Kill { process: client, down_ms: for_ms },
        32..=61 => {
            let to = match rng.below(3) {
                0 => hosts(&|_| true),
                1 => hosts(&|host| !host.osds.is_empty()),
                _ => hosts(&|host| host.mon),
            };
            let both_ways = rng.permille(600);
            Step::Cut { from: vec![shape.client_host(number)], to, both_ways, for_ms }
        }
        62..=69 => Step::Rough { host: shape.client_host(number), weather: draw_weather(rng), for_ms },
        70..=77 => Step::Clog { host: shape.client_host(number), for_ms },
        78..=83 => Step::KillPrimary { down_ms: for_ms },
        84..=89 => Step::Kill { process, down_ms: for_ms },
        90..=93 => Step::PowerOff { hosts: hosts(&|_| true), down_ms: for_ms.min(5_000) },
        94..=96 => Step::CutPrimary { from: Side::Osds, for_ms },
        _ => Step::Operator(Deed::Block(number)),
    }
}

/// What makes copies catch up, or writes break off.
fn draw_full(rng: &mut Rng, shape: &Shape, osd: OsdId, process: Proc, for_ms: u64) -> Step {
    let host = HostId(rng.below(shape.hosts.len() as u64) as u16);
    let for_ms = if rng.permille(300) { rng.between(6_000, 12_000) } else { for_ms };
    match rng.below(100) {
        0..=24 => Step::KillPrimary { down_ms: for_ms },
        25..=44 => Step::Kill { process, down_ms: for_ms },
        45..=54 => Step::PowerOff {
            hosts: shape.hosts.iter().map(|host| host.id).collect(),
            down_ms: for_ms.min(5_000),
        },
        55..=64 => Step::PowerOff { hosts: vec![host], down_ms: for_ms },
        65..=74 => {
            let sides = [Side::Clients, Side::Monitors, Side::Osds, Side::Everyone];
            Step::CutPrimary { from: sides[rng.below(4) as usize], for_ms }
        }
        75..=82 => Step::Pause { process, for_ms },
        83..=88 => Step::Rough { host, weather: draw_weather(rng), for_ms },
        89..=92 => Step::Disk { osd, fault: DiskFault::Slow(rng.between(2_000, 60_000)) },
        93..=96 => Step::Operator(Deed::Replace(osd)),
        _ => Step::Operator(Deed::Down(osd)),
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
        assert_eq!(kinds.len(), 26, "{kinds:?}");
    }
}
