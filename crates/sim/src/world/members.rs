//! Monitors that come and go while the cluster runs, in the way of `cairn mon add` and `cairn mon rm`, and whether in the
//! end those of the last map are the ones that agree.

use super::mon::{Mon, mon_addr};
use super::{Ev, Kind, World};
use crate::network::HostId;
use crate::plan::{Proc, WhichMon};
use cairn_mon::monitor::Setup;
use cairn_mon::service::{MonCommand, Request};
use cairn_paxos::{MonId, Standing, Timing};
use cairn_types::{MonMap, MonStep};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Monitors of a cluster at most, in a simulated one.
const MONS_MAX: usize = 5;
/// How often it is asked whether a removed monitor is still needed.
const ASK_AGAIN_MS: u64 = 200;

/// The name of the monitor on a host: whoever comes there after another has its name, and a number of its own.
pub(super) fn mon_name(host: HostId) -> String {
    format!("h{}", host.0)
}

impl World {
    /// Monitors that run or will run again, in the order of numbers.
    pub(super) fn present_mons(&self) -> Vec<u16> {
        self.mons.iter().filter(|(_, mon)| !mon.retired).map(|(n, _)| *n).collect()
    }

    /// The process that a plan means: of monitors, one that is there.
    pub(super) fn meant(&self, process: Proc) -> Proc {
        let Proc::Mon(n) = process else { return process };
        let present = self.present_mons();
        if present.contains(&n) || present.is_empty() {
            return process;
        }
        Proc::Mon(present[usize::from(n) % present.len()])
    }

    /// The monitor that leads by the newest ballot.
    pub(super) fn leading_mon(&self) -> Option<u16> {
        let ballot = |mon: &Mon| mon.monitor.as_ref().and_then(|monitor| monitor.log().leading());
        let leaders = self.mons.iter().filter_map(|(n, mon)| Some((ballot(mon)?, *n)));
        leaders.max().map(|(_, n)| n)
    }

    /// Which monitor listens at an address: the last one that was made for it.
    pub(super) fn mon_at(&self, addr: SocketAddr) -> Proc {
        let found = self.mons.iter().rev().find(|(_, mon)| mon.addr == addr);
        Proc::Mon(found.map_or(u16::MAX, |(n, _)| *n))
    }

    /// What is asked to add a monitor, if there is room for one.
    pub(super) fn addition(&self, host: HostId) -> Option<Request> {
        let is_taken = self.mons.values().any(|mon| mon.host == host && !mon.retired);
        let count = self.checks.mon_map()?.peers().count();
        if is_taken || count >= MONS_MAX {
            return None;
        }
        let addrs = vec![mon_addr(host, self.mons_made)];
        Some(Request::Mon(MonCommand::Add { name: mon_name(host), addrs }))
    }

    /// Makes and starts the monitor that was given this number, from the map that has it.
    pub(super) fn join_mon(&mut self, id: MonId, map: MonMap) {
        let made_for = map.change.as_ref().filter(|change| change.mon.id == id).cloned();
        let host = made_for.as_ref().and_then(|change| change.name.strip_prefix('h')?.parse().ok());
        let addr = made_for.and_then(|change| Some(change.mon.addrs.first()?.socket));
        let (Some(host), Some(addr)) = (host, addr) else {
            return self.fail(Kind::Safety, format!("{id:?} was to be added and is nowhere in {map:?}"));
        };
        let setup = Setup::joining(id, 0, Timing::default(), map);
        let n = id.0 as u16;
        self.mons.insert(n, Mon::new(HostId(host), addr, setup));
        self.start(Proc::Mon(n));
    }

    /// What is asked to remove a monitor, or to take one back that joins, and which it is; `None` when it must stay.
    pub(super) fn removal(&self, which: WhichMon) -> Option<(u16, Request)> {
        let map = self.checks.mon_map()?;
        let voters: Vec<MonId> = map.mons.values().map(|mon| mon.id).filter(|_| map.mons.len() > 1).collect();
        let joins = map.change.iter().filter(|change| change.step == MonStep::Joins);
        let all: Vec<MonId> = voters.iter().copied().chain(joins.map(|change| change.mon.id)).collect();
        let leader = self.leading_mon().filter(|n| voters.contains(&MonId((*n).into())));
        let n = match which {
            WhichMon::Leader => leader?,
            WhichMon::Nth(n) => all.get(usize::from(n) % all.len().max(1))?.0 as u16,
        };
        let name = mon_name(self.mons.get(&n)?.host);
        Some((n, Request::Mon(MonCommand::Remove { name })))
    }

    /// A monitor was removed from the map, and nobody needs its voice any more.
    pub(super) fn end_mon(&mut self, n: u16) {
        self.retire(n);
        self.write_conf();
    }

    /// A monitor is still needed: asked again in a moment.
    pub(super) fn ask_again(&mut self) {
        self.line.after_us(ASK_AGAIN_MS * 1_000, Ev::OperatorAsks);
    }

    /// A monitor ends for good; its disk is empty.
    pub(super) fn retire(&mut self, n: u16) {
        let who = Proc::Mon(n);
        if self.mons.get(&n).is_none_or(|mon| mon.retired) {
            return;
        }
        self.stop(who, false);
        let now = self.now();
        self.log.say(now, Some(who), || "is gone for good".to_owned());
        if let Some(mon) = self.mons.get_mut(&n) {
            mon.retired = true;
        }
    }

    /// Whoever reads its configuration from now on finds the monitors there.
    pub(super) fn write_conf(&mut self) {
        let Some(map) = self.checks.mon_map() else { return };
        self.conf = map.mons.values().flat_map(|mon| &mon.addrs).map(|addr| addr.socket).collect();
    }

    /// Where a process looks for monitors when it starts, or finds none.
    pub(super) fn conf(&self) -> Vec<SocketAddr> {
        self.conf.clone()
    }

    /// What is not as it should be among monitors when nothing is wrong.
    pub(super) fn mons_unsettled(&self) -> Option<String> {
        let map = self.checks.mon_map()?;
        if let Some(change) = &map.change {
            return Some(format!("mon.{} {:?}", change.mon.id.0, change.step));
        }
        let members: BTreeSet<MonId> = map.mons.values().map(|mon| mon.id).collect();
        for id in &members {
            let monitor = self.mons.get(&(id.0 as u16)).and_then(|mon| mon.monitor.as_ref());
            let Some(monitor) = monitor else { return Some(format!("mon.{} does not run", id.0)) };
            let log = monitor.log();
            let voters = log.configs().newest().map(|(_, newest)| &newest.members);
            if log.standing() != Standing::Voter || voters != Some(&members) {
                let standing = log.standing();
                return Some(format!("mon.{} is a {standing:?} among {voters:?} of {members:?}", id.0));
            }
            if log.leader().is_none_or(|leader| !members.contains(&leader)) {
                return Some(format!("mon.{} has {:?} for a leader", id.0, log.leader()));
            }
            let version = monitor.state().map(cairn_mon::service::ClusterState::version);
            if version != self.checks.newest_version() {
                return Some(format!("mon.{} is at version {version:?}", id.0));
            }
        }
        let is_left = |n: &u16| !members.contains(&MonId((*n).into()));
        self.present_mons()
            .into_iter()
            .find(is_left)
            .map(|n| format!("mon.{n} was removed and is still there"))
    }
}
