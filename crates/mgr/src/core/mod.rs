//! What a mgr knows, as a state machine: reports, maps and the time go in; beacons and digests come out.

mod groups;
mod rates;

use cairn_types::{
    Digest, EntityAddr, Epoch, Health, IoRates, MgrMap, OsdCounters, OsdId, OsdMap, OsdMapIncremental,
    OsdReport, OsdStat, PgState, PoolId, Timestamp,
};
use groups::Groups;
pub use groups::PROBLEMS_MAX;
use rates::Rates;
use std::collections::BTreeMap;

/// A beacon is sent this often. The monitors replace a mgr after 5 s of silence (`mon_mgr_beacon_grace_ms`): four may
/// be lost.
pub const BEACON_INTERVAL_MS: u64 = 1_000;
/// A digest is made this often: what `status` shows is at most this much older than the reports.
pub const DIGEST_INTERVAL_MS: u64 = 1_000;
/// What was not reported again for this long is stale. OSDs report every 2 s.
pub const REPORT_LIFETIME_MS: u64 = 10_000;
/// Health is asked for this often, for Prometheus; it scrapes every 15 s or more.
pub const HEALTH_INTERVAL_MS: u64 = 5_000;

/// The time, as a driver reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub steady_ms: u64,
    /// For people.
    pub wall: Timestamp,
}

/// What happens to a mgr.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The time has come that was asked for.
    Tick,
    /// Who is active.
    MgrMap(MgrMap),
    /// OSD maps, in order: one to start from, if any, and what follows it.
    OsdMaps {
        /// To start from.
        full: Option<OsdMap>,
        /// What follows.
        increments: Vec<OsdMapIncremental>,
    },
    /// An OSD tells how it is; `from` is who it proved to be.
    Report {
        /// The OSD on the other end.
        from: OsdId,
        /// What it says.
        report: Box<OsdReport>,
    },
    /// The monitors' checks.
    Health(Health),
}

/// What a mgr wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Tell the monitors that it runs.
    Beacon,
    /// Tell the monitors the statistics.
    Digest(Box<Digest>),
    /// Ask the monitors how the cluster is.
    AskHealth,
    /// The maps do not fit together: ask for all of the newest one.
    AskOsdMap,
}

/// Why a report does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportRefused {
    /// Its sender is another OSD.
    #[error("{from} reports as {named}")]
    NotItself {
        /// Who it is.
        from: OsdId,
        /// Who it says it is.
        named: OsdId,
    },
    /// Another mgr gathers.
    #[error("this mgr is not the active one")]
    Standby,
    /// A run of the OSD that is over.
    #[error("{osd} reports as of epoch {reported}, but it is up since {known}")]
    OldRun {
        /// The OSD.
        osd: OsdId,
        /// Its run.
        reported: Epoch,
        /// The newest run.
        known: Epoch,
    },
    /// No such OSD.
    #[error("{osd} is not in the map")]
    Unknown {
        /// The OSD.
        osd: OsdId,
    },
}

/// What is known of one OSD.
#[derive(Clone, PartialEq, Debug)]
pub struct OsdSeen {
    /// Which run.
    pub up_from: Epoch,
    /// When it last reported.
    pub at_ms: u64,
    /// Itself.
    pub stat: OsdStat,
    /// What it did.
    pub counters: OsdCounters,
    rates: Rates,
}

/// A mgr.
#[derive(Debug)]
pub struct Mgr {
    name: String,
    addr: EntityAddr,
    mgr_map: MgrMap,
    osd_map: Option<OsdMap>,
    health: Option<Health>,
    osds: BTreeMap<OsdId, OsdSeen>,
    groups: Groups,
    beacon_at_ms: u64,
    digest_at_ms: u64,
    health_at_ms: u64,
}

impl Mgr {
    /// The mgr `name` (`a` for `mgr.a`) at `addr`, which has yet to hear anything.
    pub fn new(name: &str, addr: EntityAddr) -> Mgr {
        Mgr {
            name: name.to_owned(),
            addr,
            mgr_map: MgrMap::default(),
            osd_map: None,
            health: None,
            osds: BTreeMap::new(),
            groups: Groups::default(),
            beacon_at_ms: 0,
            digest_at_ms: 0,
            health_at_ms: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, and which run it is.
    pub fn addr(&self) -> EntityAddr {
        self.addr
    }

    /// Whether this run of this mgr is the active one.
    pub fn is_active(&self) -> bool {
        let active = self.mgr_map.active.as_ref();
        active.is_some_and(|(name, info)| *name == self.name && info.addr == self.addr)
    }

    /// The newest map of mgrs.
    pub fn mgr_map(&self) -> &MgrMap {
        &self.mgr_map
    }

    /// The newest map of OSDs.
    pub fn osd_map(&self) -> Option<&OsdMap> {
        self.osd_map.as_ref()
    }

    /// The monitors' checks, when they were last asked.
    pub fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// The OSDs that have reported.
    pub fn osds(&self) -> &BTreeMap<OsdId, OsdSeen> {
        &self.osds
    }

    /// When the next [`Event::Tick`] is due, by the steady clock.
    pub fn wakes_at_ms(&self) -> u64 {
        match self.is_active() {
            true => self.beacon_at_ms.min(self.digest_at_ms).min(self.health_at_ms),
            false => self.beacon_at_ms,
        }
    }

    /// Takes an event in. A report that does not count is told as an error and changes nothing.
    pub fn handle(&mut self, now: Now, event: Event) -> Result<Vec<Effect>, ReportRefused> {
        match event {
            Event::Tick => return Ok(self.tick(now)),
            Event::MgrMap(map) => self.take_mgr_map(map),
            Event::OsdMaps { full, increments } => return Ok(self.take_osd_maps(full, &increments)),
            Event::Report { from, report } => self.take_report(now, from, *report)?,
            Event::Health(health) => self.health = Some(health),
        }
        Ok(Vec::new())
    }

    fn tick(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if due(&mut self.beacon_at_ms, now, BEACON_INTERVAL_MS) {
            effects.push(Effect::Beacon);
        }
        if self.is_active() {
            if due(&mut self.digest_at_ms, now, DIGEST_INTERVAL_MS) {
                effects.push(Effect::Digest(Box::new(self.digest(now))));
            }
            if due(&mut self.health_at_ms, now, HEALTH_INTERVAL_MS) {
                effects.push(Effect::AskHealth);
            }
        }
        effects
    }

    fn take_mgr_map(&mut self, map: MgrMap) {
        if map.epoch < self.mgr_map.epoch {
            return;
        }
        self.mgr_map = map;
        if !self.is_active() {
            // Another one has newer figures; when this one's turn comes it starts afresh.
            self.osds.clear();
            self.groups = Groups::default();
            self.health = None;
        }
    }

    fn take_osd_maps(&mut self, full: Option<OsdMap>, increments: &[OsdMapIncremental]) -> Vec<Effect> {
        let mut map = match (full, self.osd_map.take()) {
            (Some(full), Some(own)) if full.epoch < own.epoch => own,
            (Some(full), _) => full,
            (None, Some(own)) => own,
            (None, None) => return vec![Effect::AskOsdMap],
        };
        for change in increments {
            if change.epoch <= map.epoch {
                continue;
            }
            match map.apply(change) {
                Ok(next) => map = next,
                Err(_) => {
                    self.osd_map = Some(map);
                    return vec![Effect::AskOsdMap];
                }
            }
        }
        self.osds.retain(|osd, _| map.osds.contains_key(osd));
        self.groups.retain(&map);
        self.osd_map = Some(map);
        Vec::new()
    }

    fn take_report(&mut self, now: Now, from: OsdId, report: OsdReport) -> Result<(), ReportRefused> {
        let osd = report.osd;
        if from != osd {
            return Err(ReportRefused::NotItself { from, named: osd });
        }
        if !self.is_active() {
            return Err(ReportRefused::Standby);
        }
        // The OSD may know a newer map; of the past this one is sure.
        if let Some(map) = self.osd_map.as_ref().filter(|map| map.epoch >= report.epoch) {
            let known = map.osds.get(&osd).ok_or(ReportRefused::Unknown { osd })?.up_from;
            if report.up_from < known {
                return Err(ReportRefused::OldRun { osd, reported: report.up_from, known });
            }
        }
        let mut rates = match self.osds.remove(&osd) {
            Some(seen) if seen.up_from > report.up_from => {
                let known = seen.up_from;
                self.osds.insert(osd, seen);
                return Err(ReportRefused::OldRun { osd, reported: report.up_from, known });
            }
            Some(seen) if seen.up_from == report.up_from => seen.rates,
            _ => Rates::default(),
        };
        rates.add(now.steady_ms, &report.counters);
        self.groups.take(now.steady_ms, osd, report.pgs, self.osd_map.as_ref());
        let OsdReport { up_from, stat, counters, .. } = report;
        self.osds.insert(osd, OsdSeen { up_from, at_ms: now.steady_ms, stat, counters, rates });
        Ok(())
    }

    /// Groups by pool and state, those that were reported.
    pub fn groups_by_pool(&self, now: Now) -> BTreeMap<PoolId, BTreeMap<PgState, u64>> {
        self.osd_map.as_ref().map(|map| self.groups.by_pool(now.steady_ms, map)).unwrap_or_default()
    }

    /// The statistics of this moment.
    pub fn digest(&self, now: Now) -> Digest {
        let mut digest = Digest { made: now.wall, ..Digest::default() };
        if let Some(map) = &self.osd_map {
            digest.osdmap_epoch = map.epoch;
            self.groups.sum_up(now.steady_ms, map, &mut digest);
        }
        digest.osds = self.osds.iter().map(|(osd, seen)| (*osd, seen.stat)).collect();
        digest.io = self.osds.values().fold(IoRates::default(), |sum, seen| {
            let own = seen.rates.at(now.steady_ms);
            IoRates {
                read_bytes_per_s: sum.read_bytes_per_s + own.read_bytes_per_s,
                write_bytes_per_s: sum.write_bytes_per_s + own.write_bytes_per_s,
                read_ops_per_s: sum.read_ops_per_s + own.read_ops_per_s,
                write_ops_per_s: sum.write_ops_per_s + own.write_ops_per_s,
                recovery_bytes_per_s: sum.recovery_bytes_per_s + own.recovery_bytes_per_s,
                recovery_objects_per_s: sum.recovery_objects_per_s + own.recovery_objects_per_s,
            }
        });
        digest
    }
}

/// Whether `at_ms` has come; if so it moves on. Rounds that were missed are not made up for.
fn due(at_ms: &mut u64, now: Now, interval_ms: u64) -> bool {
    let is_due = *at_ms <= now.steady_ms;
    if is_due {
        *at_ms = now.steady_ms + interval_ms;
    }
    is_due
}

#[cfg(test)]
pub(crate) mod tests;
