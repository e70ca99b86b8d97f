//! Hosts: their clocks, and whether they have power.

use super::World;
use crate::network::HostId;
use crate::plan::Proc;
use crate::rng::Rng;
use crate::shape::Shape;
use crate::timeline::Instant;
use cairn_types::Timestamp;
use std::collections::BTreeMap;

/// How wrong the rate of a clock may be, parts per million. The cores are made for 10,000 between two clocks.
const DRIFT_PPM_MAX: u64 = 4_000;
/// Wall clock at the start, milliseconds since 1970.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// A host.
#[derive(Debug)]
pub(super) struct Machine {
    pub powered: bool,
    /// What the steady clock says at the start of the run.
    start_us: u64,
    /// Parts per million above the true rate, or below it.
    drift_ppm: i64,
    /// Added to the wall clock.
    pub wall_ms: i64,
}

/// The hosts of a cluster, of clients and the operator.
pub(super) fn machines(shape: &Shape, rng: &mut Rng) -> BTreeMap<HostId, Machine> {
    let ids = shape.all_hosts().chain([shape.client_host(shape.clients)]);
    let machine = |rng: &mut Rng| Machine {
        powered: true,
        start_us: rng.between(1_000_000, 1_000_000_000_000),
        drift_ppm: rng.between(0, 2 * DRIFT_PPM_MAX) as i64 - DRIFT_PPM_MAX as i64,
        wall_ms: rng.between(0, 10_000) as i64 - 5_000,
    };
    ids.map(|id| (id, machine(rng))).collect()
}

impl Machine {
    /// The steady clock.
    pub fn steady_us(&self, now: Instant) -> u64 {
        let drift = now.0 as i128 * i128::from(self.drift_ppm) / 1_000_000;
        (i128::from(self.start_us) + now.0 as i128 + drift) as u64
    }

    /// The first moment at which the steady clock says this.
    pub fn when_steady(&self, steady_us: u64) -> Instant {
        let elapsed = u128::from(steady_us.saturating_sub(self.start_us));
        let at = elapsed * 1_000_000 / (1_000_000 + self.drift_ppm) as u128;
        Instant(at as u64 + 1)
    }

    /// The wall clock.
    pub fn wall(&self, now: Instant) -> Timestamp {
        let ms = WALL_START_MS as i64 + (now.0 / 1_000) as i64 + self.wall_ms;
        Timestamp(ms as u64)
    }
}

impl World {
    pub(super) fn machine(&self, host: HostId) -> &Machine {
        &self.machines[&host]
    }

    /// The steady clock of a process.
    pub(super) fn steady_us(&self, who: Proc) -> u64 {
        self.machine(self.host_of(who)).steady_us(self.now())
    }

    pub(super) fn wall(&self, who: Proc) -> Timestamp {
        self.machine(self.host_of(who)).wall(self.now())
    }

    /// When the steady clock of a process says this.
    pub(super) fn when_steady(&self, who: Proc, steady_us: u64) -> Instant {
        self.machine(self.host_of(who)).when_steady(steady_us)
    }

    pub(super) fn is_powered(&self, host: HostId) -> bool {
        self.machine(host).powered
    }

    /// Processes of a host.
    pub(super) fn processes_on(&self, host: HostId) -> Vec<Proc> {
        let mons = self.mons.keys().map(|n| Proc::Mon(*n));
        let osds = self.osds.keys().map(|osd| Proc::Osd(*osd));
        let clients = self.clients.keys().map(|n| Proc::Client(*n));
        mons.chain(osds).chain(clients).filter(|who| self.host_of(*who) == host).collect()
    }

    pub(super) fn power_off(&mut self, hosts: &[HostId]) {
        for host in hosts {
            if let Some(machine) = self.machines.get_mut(host) {
                machine.powered = false;
            }
        }
        for host in hosts {
            for who in self.processes_on(*host) {
                self.stop(who, true);
            }
        }
    }

    pub(super) fn power_on(&mut self, hosts: &[HostId]) {
        for host in hosts {
            let Some(machine) = self.machines.get_mut(host) else { continue };
            if machine.powered {
                continue;
            }
            machine.powered = true;
            self.reset_strangers(*host);
            for who in self.processes_on(*host) {
                self.start(who);
            }
        }
    }

    /// Ends a process: by a signal, or with its host's power.
    pub(super) fn stop(&mut self, who: Proc, power_cut: bool) {
        self.paused.remove(&who);
        if self.life(who).is_none() {
            return;
        }
        let now = self.now();
        self.log.say(now, Some(who), || if power_cut { "loses power" } else { "is killed" }.to_owned());
        match who {
            Proc::Mon(n) => self.stop_mon(n),
            Proc::Osd(osd) => self.stop_osd(osd, power_cut),
            Proc::Client(n) => self.stop_client(n),
        }
        self.process_gone(who, power_cut);
    }

    /// Starts a process, if its host has power and it does not run.
    pub(super) fn start(&mut self, who: Proc) {
        let is_gone = matches!(who, Proc::Mon(n) if self.mons.get(&n).is_none_or(|mon| mon.retired));
        if is_gone || !self.is_powered(self.host_of(who)) || self.life(who).is_some() {
            return;
        }
        let now = self.now();
        self.log.say(now, Some(who), || "starts".to_owned());
        match who {
            Proc::Mon(n) => self.start_mon(n),
            Proc::Osd(osd) => self.start_osd(osd),
            Proc::Client(n) => self.start_client(n),
        }
    }

    pub(super) fn pause(&mut self, who: Proc) {
        if self.life(who).is_some() {
            let now = self.now();
            self.log.say(now, Some(who), || "is paused".to_owned());
            self.paused.entry(who).or_default();
        }
    }

    pub(super) fn resume(&mut self, who: Proc) {
        let Some(waiting) = self.paused.remove(&who) else { return };
        let now = self.now();
        self.log.say(now, Some(who), || format!("goes on; {} events wait", waiting.len()));
        for event in waiting {
            self.line.at(now, event);
        }
    }
}
