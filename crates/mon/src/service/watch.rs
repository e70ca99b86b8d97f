//! What the leading monitor alone remembers: who has reported whom, who has been heard of, since when
//! something lasts. It turns that into requests; the log decides. A new leader starts with nothing, and
//! every waiting time starts anew: late, never wrong.
//!
//! Waiting times are measured with the leader's steady clock, so a wall clock that is wrong marks nobody out and lets nobody
//! out of the blocklist.

use super::crush::Topology;
use super::failure::{Reports, Rules};
use super::limits::MAX_TRIM_PER_TRANSACTION;
use super::osd::{in_share, up_share};
use super::timing::{BEACON_GRACE_MS, EPOCHS_KEPT_MIN};
use super::{Block, ClusterState, FailureReport, LeaderCommand, Request, Verdict};
use cairn_types::{Digest, EntityAddr, Epoch, OsdFlag, OsdId, OsdMap, PoolFlag};
use std::collections::BTreeMap;

/// The leader's clock at one moment. Its wall clock tells nothing here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Steady clock in milliseconds from any start.
    pub steady_ms: u64,
}

/// The leader's memory.
#[derive(Clone, Debug)]
pub struct Watch {
    reports: Reports,
    /// OSD → run and when it was last heard of.
    heard: BTreeMap<OsdId, (Epoch, u64)>,
    /// OSD → since when it is down.
    down_since: BTreeMap<OsdId, (Epoch, u64)>,
    /// Mgr → run and when it was last heard of.
    mgrs: BTreeMap<String, (EntityAddr, u64)>,
    /// Blocklist entry → since which version it stands, and its end.
    blocked: BTreeMap<EntityAddr, (u64, u64)>,
    topology: Topology,
    crush_version: Option<u32>,
}

/// What is to be done now, and when to look again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// For the log, in order.
    pub requests: Vec<Request>,
    /// Steady time of the next deadline; none if only events matter.
    pub next_ms: Option<u64>,
}

impl Watch {
    /// The memory of a monitor that becomes leader.
    pub fn new(state: &ClusterState, now: Now) -> Self {
        let mut watch = Watch {
            reports: Reports::default(),
            heard: BTreeMap::new(),
            down_since: BTreeMap::new(),
            mgrs: BTreeMap::new(),
            blocked: BTreeMap::new(),
            topology: Topology::default(),
            crush_version: None,
        };
        watch.observe(state, now);
        watch
    }

    /// Takes note of a changed state. Call it after each applied transaction, before anything else.
    pub fn observe(&mut self, state: &ClusterState, now: Now) {
        let map = state.osd_map();
        if self.crush_version != Some(map.crush.version) {
            self.topology = Topology::of(&map.crush);
            self.crush_version = Some(map.crush.version);
        }
        let at = now.steady_ms;
        let runs = |up: bool| map.osds.iter().filter(move |(_, info)| info.up == up);
        keep(&mut self.heard, runs(true).map(|(&osd, info)| (osd, (info.up_from, at))));
        keep(&mut self.down_since, runs(false).map(|(&osd, info)| (osd, (info.down_at, at))));
        let mgrs = &state.mgr_map;
        let mgrs = mgrs.active.iter().map(|(name, info)| (name, info)).chain(&mgrs.standbys);
        keep(&mut self.mgrs, mgrs.map(|(name, info)| (name.clone(), (info.addr, at))));
        // All of its time anew: how much has passed, only clocks that this leader does not have could tell.
        let ends = |block: &Block| (block.since, at.saturating_add(block.for_ms));
        keep(&mut self.blocked, state.blocks.iter().map(|(&addr, block)| (addr, ends(block))));
    }

    /// An OSD's report on another.
    pub fn report(
        &mut self,
        state: &ClusterState,
        report: &FailureReport,
        now: Now,
    ) -> (Verdict, Option<Request>) {
        // Who reports, lives.
        if let Some((_, heard)) = self.heard.get_mut(&report.reporter) {
            *heard = now.steady_ms;
        }
        let verdict = self.reports.take(report, rules(state, &self.topology), now.steady_ms);
        let dead = LeaderCommand::OsdFailed { osd: report.target, up_from: report.up_from };
        (verdict, (verdict == Verdict::Dead).then_some(Request::Leader(dead)))
    }

    /// A sign of life of a run of an OSD.
    pub fn beacon(&mut self, osd: OsdId, up_from: Epoch, now: Now) {
        if let Some((run, heard)) = self.heard.get_mut(&osd)
            && *run == up_from
        {
            *heard = now.steady_ms;
        }
    }

    /// A sign of life of a mgr; a request if it is a new one.
    pub fn mgr_beacon(&mut self, name: &str, addr: EntityAddr, now: Now) -> Option<Request> {
        match self.mgrs.get_mut(name) {
            Some((known, heard)) if *known == addr => {
                *heard = now.steady_ms;
                None
            }
            _ => Some(Request::Leader(LeaderCommand::MgrSeen { name: name.to_owned(), addr })),
        }
    }

    /// What is due; `digest` is the mgr's statistics if they are fresh. Call it when `next_ms` is reached
    /// and after each event. What it asks for it asks for again until the state shows it.
    pub fn tick(&mut self, state: &ClusterState, digest: Option<&Digest>, now: Now) -> Due {
        let map = state.osd_map();
        let mut due = Due::default();
        self.find_dead(state, now, &mut due);
        self.find_out(state, now, &mut due);
        let grace_ms = state.config.of_monitors("mon_mgr_beacon_grace_ms");
        for (name, (addr, heard)) in &self.mgrs {
            if due.reached(heard + grace_ms, now) {
                due.ask(LeaderCommand::MgrLost { name: name.clone(), addr: *addr });
            }
        }
        let mut expired = Vec::new();
        for (addr, (since, at)) in &self.blocked {
            if due.reached(*at, now) {
                expired.push((*addr, *since));
            }
        }
        if !expired.is_empty() {
            due.ask(LeaderCommand::ExpireBlocklist { entries: expired });
        }
        if let Some(digest) = digest {
            for command in fullness(map, digest).into_iter().chain(trim(state, digest)) {
                due.ask(command);
            }
        }
        due
    }

    fn find_dead(&mut self, state: &ClusterState, now: Now, due: &mut Due) {
        let map = state.osd_map();
        let rules = rules(state, &self.topology);
        let mut dead = self.reports.sweep(rules, now.steady_ms);
        if let Some(end) = self.reports.next_end_ms() {
            due.reached(end, now);
        }
        for (&osd, (_, heard)) in &self.heard {
            let silent = due.reached(heard + BEACON_GRACE_MS, now);
            if silent && !map.flags.has(OsdFlag::NoDown) && rules.may_lose_one {
                dead.push(osd);
            }
        }
        dead.sort_unstable();
        dead.dedup();
        for osd in dead {
            if let Some(info) = map.osds.get(&osd) {
                due.ask(LeaderCommand::OsdFailed { osd, up_from: info.up_from });
            }
        }
    }

    fn find_out(&self, state: &ClusterState, now: Now, due: &mut Due) {
        let map = state.osd_map();
        let interval_ms = state.config.of_monitors("mon_osd_down_out_interval_ms");
        let (mut still_in, of, min_in) = in_share(map, &state.config);
        if interval_ms == 0 || map.flags.has(OsdFlag::NoOut) {
            return;
        }
        for (&osd, (_, since)) in &self.down_since {
            let Some(info) = map.osds.get(&osd) else { continue };
            // One that has never booted holds nothing that could be copied elsewhere.
            if !info.is_in() || info.up_from == Epoch(0) || !due.reached(since + interval_ms, now) {
                continue;
            }
            if min_in.reached_by(still_in, of) {
                still_in -= 1;
                due.ask(LeaderCommand::OsdAutoOut { osd });
            }
        }
    }
}

impl Due {
    /// Whether a deadline is reached; if not, it is one to wake up for.
    fn reached(&mut self, deadline_ms: u64, now: Now) -> bool {
        if deadline_ms <= now.steady_ms {
            return true;
        }
        self.next_ms = Some(self.next_ms.map_or(deadline_ms, |next| next.min(deadline_ms)));
        false
    }

    fn ask(&mut self, command: LeaderCommand) {
        self.requests.push(Request::Leader(command));
    }
}

fn rules<'a>(state: &'a ClusterState, topology: &'a Topology) -> Rules<'a> {
    let (up, of, min_up) = up_share(state.osd_map(), &state.config);
    Rules {
        map: state.osd_map(),
        topology,
        grace_ms: state.config.of_monitors("osd_heartbeat_grace_ms"),
        may_lose_one: min_up.reached_by(up, of),
    }
}

/// Makes the memory hold exactly what is there now; what was there in the same version keeps its time.
fn keep<K: Ord, V: PartialEq>(
    memory: &mut BTreeMap<K, (V, u64)>,
    present: impl Iterator<Item = (K, (V, u64))>,
) {
    let mut before = std::mem::take(memory);
    for (key, (version, at)) in present {
        let entry = match before.remove(&key) {
            Some(known) if known.0 == version => known,
            _ => (version, at),
        };
        memory.insert(key, entry);
    }
}

/// Whether OSDs or pools have become full or are no longer.
fn fullness(map: &OsdMap, digest: &Digest) -> Vec<LeaderCommand> {
    let mut commands = Vec::new();
    let is_full = |(osd, stat): (&OsdId, &cairn_types::OsdStat)| {
        let is_in = map.osds.get(osd).is_some_and(|info| info.is_in());
        is_in && stat.total_bytes > 0 && map.ratios.full.reached_by(stat.used_bytes, stat.total_bytes)
    };
    let full = digest.osds.iter().any(is_full);
    if full != map.flags.has(OsdFlag::Full) {
        commands.push(LeaderCommand::OsdFull { full });
    }
    for (&id, pool) in &map.pools {
        let Some(stat) = digest.pools.get(&id) else { continue };
        let used_up = |quota: u64, used: u64| quota > 0 && used >= quota;
        let full = used_up(pool.quota_bytes, stat.stored_bytes) || used_up(pool.quota_objects, stat.objects);
        if full != pool.flags.has(PoolFlag::Full) {
            commands.push(LeaderCommand::PoolFull { pool: id, full });
        }
    }
    commands
}

/// Epochs go once every group of every pool is clean past them, and never the newest ones.
fn trim(state: &ClusterState, digest: &Digest) -> Option<LeaderCommand> {
    let map = state.osd_map();
    let wanted: u64 = map.pools.values().map(|pool| u64::from(pool.pg_num)).sum();
    let clean = match digest.last_epoch_clean_min {
        _ if wanted == 0 => map.epoch,
        Some(clean) if digest.pg_total() == wanted => clean,
        _ => return None,
    };
    let kept = state.osd_maps.first();
    let target = clean.0.min(map.epoch.0.saturating_sub(EPOCHS_KEPT_MIN));
    let first = Epoch(target.min(kept.0 + MAX_TRIM_PER_TRANSACTION));
    // In steps of a quarter of that: a transaction per epoch would be as many again.
    (first.0 >= kept.0 + MAX_TRIM_PER_TRANSACTION / 4).then_some(LeaderCommand::TrimOsdMaps { first })
}
