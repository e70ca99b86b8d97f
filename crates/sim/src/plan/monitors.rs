//! What meets the monitors: moments between two messages of their agreement that chance alone would take years to hit.

use super::{Deed, Phase, Proc, Step, draw_cut, draw_weather};
use crate::network::HostId;
use crate::rng::Rng;
use crate::shape::Shape;
use cairn_types::OsdId;

/// Something that waits for a step of the agreement, and then happens at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ambush {
    /// A leader that has decided dies before anybody hears of it.
    Untold {
        /// The others are killed with it, and are back at once: what they have not flushed is lost.
        followers: bool,
        /// When the leader is started again.
        down_ms: u64,
    },
    /// What a leader proposes is on its way until another one has decided, who dies before it tells; then it arrives.
    Late {
        /// The others are killed too and are back before it arrives.
        restart: bool,
        /// When the second leader is started again.
        down_ms: u64,
    },
    /// A leader that proposes is cut off with one other, and whatever the two say to each other arrives twice.
    Minority {
        /// Until when.
        for_ms: u64,
    },
}

impl Ambush {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Ambush::Untold { .. } => "leader killed with a secret",
            Ambush::Late { .. } => "proposal of a leader of before",
            Ambush::Minority { .. } => "leader cut off with another",
        }
    }

    fn draw(rng: &mut Rng) -> Ambush {
        let down_ms = rng.between(1_500, 5_000);
        match rng.below(10) {
            0..=3 => Ambush::Untold { followers: rng.permille(800), down_ms },
            4..=7 => Ambush::Late { restart: rng.permille(500), down_ms },
            _ => Ambush::Minority { for_ms: rng.between(1_000, 4_000) },
        }
    }
}

/// Which monitor an operator removes: by whoever is there when it comes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhichMon {
    /// The leader.
    Leader,
    /// One in the order of numbers, counted round.
    Nth(u16),
}

impl WhichMon {
    fn draw(rng: &mut Rng) -> WhichMon {
        if rng.permille(300) { WhichMon::Leader } else { WhichMon::Nth(rng.below(5) as u16) }
    }
}

fn phase(rng: &mut Rng) -> Phase {
    let phases = [Phase::Prepare, Phase::Promise, Phase::Accept, Phase::Accepted];
    phases[rng.below(4) as usize]
}

fn any_host(rng: &mut Rng, shape: &Shape) -> HostId {
    HostId(rng.below(shape.hosts.len() as u64) as u16)
}

/// A monitor more, or one less.
pub(super) fn draw_member(rng: &mut Rng, shape: &Shape) -> Step {
    Step::Operator(if rng.permille(500) {
        Deed::AddMon(any_host(rng, shape))
    } else {
        Deed::RemoveMon(WhichMon::draw(rng))
    })
}

/// What meets the monitors of any cluster.
pub(super) fn draw_some(rng: &mut Rng, shape: &Shape, for_ms: u64) -> Step {
    match rng.below(8) {
        0..=1 => draw_member(rng, shape),
        2..=5 => Step::Ambush(Ambush::draw(rng)),
        _ => Step::PauseLeader { for_ms },
    }
}

/// What meets the monitors and little else.
pub(super) fn draw_all(rng: &mut Rng, shape: &Shape, for_ms: u64) -> Step {
    let mon = Proc::Mon(rng.below(5) as u16);
    match rng.below(100) {
        0..=29 => Step::Ambush(Ambush::draw(rng)),
        30..=44 => Step::Operator(Deed::Configure(rng.between(1, 20) as u32)),
        45..=47 => Step::Operator(Deed::Configure(rng.between(200, 400) as u32)),
        48..=57 => draw_member(rng, shape),
        58..=67 => Step::Kill { process: mon, down_ms: for_ms },
        68..=72 => Step::Pause { process: mon, for_ms },
        73..=77 => Step::PauseLeader { for_ms },
        78..=82 => Step::KillLeader { phase: phase(rng), down_ms: for_ms },
        83..=87 => {
            let host = any_host(rng, shape);
            draw_cut(rng, shape, host, for_ms)
        }
        88..=91 => Step::Rough { host: any_host(rng, shape), weather: draw_weather(rng), for_ms },
        92..=93 => Step::Clog { host: any_host(rng, shape), for_ms },
        94..=95 => Step::PowerOff { hosts: vec![any_host(rng, shape)], down_ms: for_ms },
        96..=97 => {
            Step::PowerOff { hosts: shape.hosts.iter().map(|host| host.id).collect(), down_ms: for_ms }
        }
        98 => Step::ClockJump {
            host: any_host(rng, shape),
            by_ms: rng.between(0, 7_200_000) as i64 - 3_600_000,
        },
        _ => Step::Operator(Deed::Down(OsdId(rng.below(u64::from(shape.osds)) as i32))),
    }
}
