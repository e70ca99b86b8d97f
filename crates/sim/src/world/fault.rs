//! What goes wrong, by the plan, and how it is undone.

use super::{Ev, World};
use crate::network::{HostId, Weather};
use crate::plan::{Deed, DiskFault, Proc, Side, Step};
use cairn_types::OsdId;

/// The end of a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Start(Proc),
    Resume(Proc),
    PowerOn(Vec<HostId>),
    Uncut(Vec<(HostId, HostId)>),
    Calm(Vec<(HostId, HostId)>),
    /// What a monitor has sent and was held up.
    Release(u64),
}

impl World {
    pub(super) fn step(&mut self, at: usize) {
        if self.calm {
            return;
        }
        let step = self.plan[at].step.clone();
        let now = self.now();
        self.log.say(now, None, || format!("{step:?}"));
        *self.faults.entry(step.kind()).or_default() += 1;
        match step {
            Step::Kill { process, down_ms } => {
                let process = self.meant(process);
                self.stop(process, false);
                self.later(down_ms, Undo::Start(process));
            }
            Step::Pause { process, for_ms } => self.pause_for(self.meant(process), for_ms),
            Step::PauseLeader { for_ms } => {
                if let Some(leader) = self.leading_mon() {
                    self.pause_for(Proc::Mon(leader), for_ms);
                }
            }
            Step::PowerOff { hosts, down_ms } => {
                self.power_off(&hosts);
                self.later(down_ms, Undo::PowerOn(hosts));
            }
            Step::Cut { from, to, both_ways, for_ms } => {
                let mut links: Vec<(HostId, HostId)> =
                    from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))).collect();
                if both_ways {
                    links.extend(links.clone().into_iter().map(|(a, b)| (b, a)));
                }
                self.cut_links(links, for_ms);
            }
            Step::Rough { host, weather, for_ms } => {
                let links = self.links_of(host);
                links.iter().for_each(|(a, b)| self.network.set_weather(*a, *b, Some(weather)));
                self.later(for_ms, Undo::Calm(links));
            }
            Step::Clog { host, for_ms } => {
                let until = now.plus_ms(for_ms);
                for (a, b) in self.links_of(host) {
                    if a == host {
                        self.network.clog(a, b, until);
                    }
                }
            }
            Step::ClockJump { host, by_ms } => {
                if let Some(machine) = self.machines.get_mut(&host) {
                    machine.wall_ms += by_ms;
                }
            }
            Step::Disk { osd, fault } => self.hurt_disk(osd, fault),
            Step::KillLeader { phase, down_ms } => self.doom = Some((phase, down_ms)),
            Step::CutPrimary { from, for_ms } => self.cut_primary(from, for_ms),
            Step::KillPrimary { down_ms } => {
                if let Some(osd) = self.first_primary() {
                    self.stop(Proc::Osd(osd), false);
                    self.later(down_ms, Undo::Start(Proc::Osd(osd)));
                }
            }
            Step::Ambush(ambush) => self.lay(ambush),
            Step::Operator(Deed::Replace(osd)) => self.replace_disk(osd),
            Step::Operator(deed) => self.deed(&deed),
        }
    }

    fn hurt_disk(&mut self, osd: OsdId, fault: DiskFault) {
        let drawn = [self.rng_disk.next(), self.rng_disk.next()];
        let Some(node) = self.osds.get_mut(&osd) else { return };
        if let DiskFault::Slow(us) = fault {
            node.disk.slow_us = us;
            return;
        }
        node.hurt = true;
        node.disk.hurt(fault, drawn);
    }

    /// The primary of the first group, as the newest map has it.
    fn first_primary(&self) -> Option<OsdId> {
        let first = self.led().min_by_key(|stats| (stats.pgid, std::cmp::Reverse(stats.epoch)))?;
        first.acting.first().copied()
    }

    fn cut_primary(&mut self, from: Side, for_ms: u64) {
        let Some(primary) = self.first_primary() else { return };
        let host = self.host_of(Proc::Osd(primary));
        let cluster = self.shape.hosts.len() as u16;
        let is_meant = |other: HostId| match from {
            Side::Clients => other.0 >= cluster,
            Side::Monitors => self.mons.values().any(|mon| mon.host == other && !mon.retired),
            Side::Osds => self.osds.values().any(|node| node.host == other),
            Side::Everyone | Side::EveryoneButAClient => true,
        };
        let mut inside = vec![host];
        if from == Side::EveryoneButAClient {
            inside.push(self.shape.client_host(0));
        }
        let others = self.shape.all_hosts().filter(|other| !inside.contains(other) && is_meant(*other));
        let links: Vec<(HostId, HostId)> = others
            .flat_map(|other| inside.iter().flat_map(move |host| [(*host, other), (other, *host)]))
            .collect();
        let now = self.now();
        self.log.say(now, None, || format!("{primary} is the primary, on h{}", host.0));
        self.cut_links(links, for_ms);
    }

    fn pause_for(&mut self, process: Proc, for_ms: u64) {
        self.pause(process);
        self.later(for_ms, Undo::Resume(process));
    }

    pub(super) fn cut_links(&mut self, links: Vec<(HostId, HostId)>, for_ms: u64) {
        links.iter().for_each(|(a, b)| self.network.cut(*a, *b, true));
        self.links_cut();
        self.later(for_ms, Undo::Uncut(links));
    }

    /// Every datagram on these links arrives twice.
    pub(super) fn double_links(&mut self, links: Vec<(HostId, HostId)>, for_ms: u64) {
        let weather = Weather { duplication_permille: 1_000, ..Weather::CALM };
        links.iter().for_each(|(a, b)| self.network.set_weather(*a, *b, Some(weather)));
        self.later(for_ms, Undo::Calm(links));
    }

    pub(super) fn strike(&mut self, process: Proc, down_ms: u64) {
        self.stop(process, false);
        if self.calm {
            self.start(process);
        } else {
            self.later(down_ms, Undo::Start(process));
        }
    }

    fn links_of(&self, host: HostId) -> Vec<(HostId, HostId)> {
        let others = self.shape.all_hosts().filter(|other| *other != host);
        others.flat_map(|other| [(host, other), (other, host)]).collect()
    }

    pub(super) fn later(&mut self, ms: u64, undo: Undo) {
        self.line.after_us(ms * 1_000, Ev::Undo(undo));
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        // In the end all was undone at once.
        if self.calm {
            return;
        }
        let now = self.now();
        self.log.say(now, None, || format!("end of: {undo:?}"));
        match undo {
            Undo::Start(process) => self.start(process),
            Undo::Resume(process) => self.resume(process),
            Undo::PowerOn(hosts) => self.power_on(&hosts),
            Undo::Uncut(links) => {
                links.iter().for_each(|(a, b)| self.network.cut(*a, *b, false));
                self.links_mended();
            }
            Undo::Calm(links) => {
                links.iter().for_each(|(a, b)| self.network.set_weather(*a, *b, None));
            }
            Undo::Release(number) => self.release(number),
        }
    }

    /// No more faults: everything is whole and runs, and the operator mends what was changed.
    pub(super) fn end_faults(&mut self) {
        self.calm = true;
        self.doom = None;
        self.end_ambushes();
        let now = self.now();
        self.log.say(now, None, || "all faults are over".to_owned());
        self.network.heal();
        self.links_mended();
        let hosts: Vec<HostId> = self.machines.keys().copied().collect();
        self.power_on(&hosts);
        for who in self.paused.keys().copied().collect::<Vec<_>>() {
            self.resume(who);
        }
        for node in self.osds.values_mut() {
            node.disk.slow_us = 0;
            node.disk.heal();
        }
        for host in hosts {
            for who in self.processes_on(host) {
                self.start(who);
            }
        }
        self.drop_ballast();
        self.mend();
    }
}
