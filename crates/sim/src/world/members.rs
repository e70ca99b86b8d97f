//! Monitors that come and go while the cluster runs, in the way of `cairn mon add` and `cairn mon rm`, and whether in the
//! end those of the last map are the ones that agree.

use super::mon::{Mon, mon_addr};
use super::{Ev, Kind, OPERATOR, World};
use crate::network::HostId;
use crate::plan::{Proc, WhichMon};
use cairn_mon::monitor::Setup;
use cairn_mon::service::{MonCommand, Request};
use cairn_paxos::{MonId, Standing, Timing};
use cairn_types::{MonInfo, MonMap};
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

    /// Whether there is room for a monitor.
    pub(super) fn may_add_mon(&self, host: HostId) -> bool {
        let is_taken = self.mons.values().any(|mon| mon.host == host && !mon.retired);
        !is_taken && self.checks.mon_map().is_some_and(|map| map.mons.len() < MONS_MAX)
    }

    /// Makes and starts the monitor that is going to be added, from the map that will have it; asks for it then.
    pub(super) fn join_mon(&mut self, host: HostId, mut map: MonMap) -> Request {
        let n = map.next_id.0 as u16;
        let (name, addr) = (mon_name(host), mon_addr(host, n));
        map.mons.insert(name.clone(), MonInfo { id: map.next_id, addrs: vec![addr] });
        let setup = Setup::joining(map.next_id, 0, Timing::default());
        let known: BTreeSet<MonId> = map.mons.values().map(|mon| mon.id).collect();
        self.mons.insert(n, Mon::new(host, setup, known));
        self.start(Proc::Mon(n));
        Request::Mon(MonCommand::Add { name, addrs: vec![addr] })
    }

    /// A monitor was added under this number.
    pub(super) fn mon_added(&mut self, mon: MonId) {
        if !self.mons.contains_key(&(mon.0 as u16)) {
            self.fail(Kind::Safety, format!("a monitor was added as {mon:?}, which nobody was made for"));
        }
        self.write_conf();
    }

    /// What is asked to remove a monitor, and which it is; `None` when it must stay.
    pub(super) fn removal(&self, which: WhichMon) -> Option<(u16, Request)> {
        let map = self.checks.mon_map().filter(|map| map.mons.len() > 1)?;
        let members: Vec<u16> = map.mons.values().map(|mon| mon.id.0 as u16).collect();
        let leader = self.leading_mon().filter(|n| members.contains(n));
        let n = match which {
            WhichMon::Leader => leader?,
            WhichMon::Nth(n) => members[usize::from(n) % members.len()],
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

    /// Whoever starts from now on finds the monitors there.
    fn write_conf(&mut self) {
        let Some(map) = self.checks.mon_map() else { return };
        self.conf = map.mons.values().flat_map(|mon| &mon.addrs).map(|addr| addr.socket).collect();
    }

    /// Where a process that starts looks for monitors.
    pub(super) fn conf(&self) -> Vec<SocketAddr> {
        self.conf.clone()
    }

    /// Whoever looks after the processes starts those again that cannot find a monitor any more: their configuration has
    /// been written anew since.
    pub(super) fn start_the_lost(&mut self) {
        for who in self.processes().into_iter().chain([OPERATOR]) {
            if !self.is_lost(who) {
                continue;
            }
            let now = self.now();
            self.log.say(now, Some(who), || "knows none of the monitors".to_owned());
            if who == OPERATOR {
                self.renew_operator();
            } else {
                self.stop(who, false);
                self.start(who);
            }
        }
    }

    /// What is not as it should be among monitors when nothing is wrong.
    pub(super) fn mons_unsettled(&self) -> Option<String> {
        let map = self.checks.mon_map()?;
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
