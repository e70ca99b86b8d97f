//! What happened between two maps, and between two states of health.

use cairn_types::{Health, MgrMap, MonMap, OsdInfo, OsdMap, Severity, Timestamp};
use serde::Serialize;
use std::fmt;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Info,
    /// Look at it.
    Warning,
    /// Some I/O does not go on.
    Error,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub time_ms: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// Where it was seen: `osd`, `pool`, `mon`, `mgr`, `flags`, `health`, `cluster`.
    pub source: &'static str,
    /// What, in a sentence.
    pub text: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Info => "INF",
            Level::Warning => "WRN",
            Level::Error => "ERR",
        };
        write!(f, "{} [{level}] {}: {}", self.time_ms, self.source, self.text)
    }
}

impl Event {
    /// Nobody answers.
    pub fn unreachable(time_ms: Timestamp, error: &str) -> Self {
        Event { time_ms, level: Level::Error, source: "cluster", text: error.to_owned() }
    }
}

/// What the next OSD map has that the last had not.
pub fn of_osd_map(last: &OsdMap, next: &OsdMap) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |level, source, text| events.push(Event { time_ms: next.modified, level, source, text });
    for (osd, info) in &next.osds {
        match last.osds.get(osd) {
            None => add(Level::Info, "osd", format!("{osd} is made")),
            Some(before) => {
                for (level, what) in changes(before, info) {
                    add(level, "osd", format!("{osd} {what} ({})", next.epoch));
                }
            }
        }
    }
    for osd in last.osds.keys().filter(|osd| !next.osds.contains_key(osd)) {
        add(Level::Info, "osd", format!("{osd} is removed"));
    }
    for (id, pool) in &next.pools {
        match last.pools.get(id) {
            None => {
                add(Level::Info, "pool", format!("pool '{}' is made, with {} groups", pool.name, pool.pg_num))
            }
            Some(before) if before != pool => {
                add(Level::Info, "pool", format!("pool '{}' is changed", pool.name))
            }
            Some(_) => {}
        }
    }
    for (_, pool) in last.pools.iter().filter(|(id, _)| !next.pools.contains_key(id)) {
        add(Level::Info, "pool", format!("pool '{}' is removed", pool.name));
    }
    if last.flags != next.flags {
        let set = if next.flags.is_empty() { "none".to_owned() } else { next.flags.to_string() };
        add(Level::Info, "flags", format!("flags that are set: {set}"));
    }
    if last.crush.version != next.crush.version {
        add(Level::Info, "osd", format!("the CRUSH map is changed (version {})", next.crush.version));
    }
    for addr in next.blocklist.keys().filter(|addr| !last.blocklist.contains_key(addr)) {
        add(Level::Warning, "cluster", format!("{addr} is in the blocklist"));
    }
    events
}

fn changes(before: &OsdInfo, now: &OsdInfo) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    if before.is_destroyed() != now.is_destroyed() {
        let (level, what) = match now.is_destroyed() {
            true => (Level::Warning, "is destroyed"),
            false => (Level::Info, "has a new store"),
        };
        found.push((level, what.to_owned()));
    }
    match (before.up, now.up) {
        (true, false) => found.push((Level::Warning, "is down".to_owned())),
        (false, true) => found.push((Level::Info, "is up".to_owned())),
        // A new run took the place of one that nobody had missed.
        (true, true) if before.public != now.public => found.push((Level::Info, "is up anew".to_owned())),
        _ => {}
    }
    match (before.is_in(), now.is_in()) {
        (true, false) => found.push((Level::Warning, "is out: its data goes elsewhere".to_owned())),
        (false, true) => found.push((Level::Info, "is in".to_owned())),
        _ if before.weight != now.weight => found.push((Level::Info, format!("has reweight {}", now.weight))),
        _ => {}
    }
    found
}

/// What the next monitor map has that the last had not.
pub fn of_mon_map(last: &MonMap, next: &MonMap) -> Vec<Event> {
    let added = next.mons.keys().filter(|name| !last.mons.contains_key(*name)).map(|name| (name, "is added"));
    let gone =
        last.mons.keys().filter(|name| !next.mons.contains_key(*name)).map(|name| (name, "is removed"));
    let event = |(name, what): (&String, &str)| Event {
        time_ms: next.modified,
        level: Level::Info,
        source: "mon",
        text: format!("mon.{name} {what}"),
    };
    added.chain(gone).map(event).collect()
}

/// What the next mgr map has that the last had not.
pub fn of_mgr_map(now: Timestamp, last: &MgrMap, next: &MgrMap) -> Vec<Event> {
    let active = |map: &MgrMap| map.active.as_ref().map(|(name, info)| (name.clone(), info.addr));
    if active(last) == active(next) {
        return Vec::new();
    }
    let (level, text) = match &next.active {
        Some((name, _)) => (Level::Info, format!("mgr.{name} is active")),
        None => (Level::Warning, "no mgr is active".to_owned()),
    };
    vec![Event { time_ms: now, level, source: "mgr", text }]
}

/// Checks that came, changed and went.
pub fn of_health(now: Timestamp, last: &Health, next: &Health) -> Vec<Event> {
    let mut events = Vec::new();
    let mut add = |level, text| events.push(Event { time_ms: now, level, source: "health", text });
    for (code, check) in &next.checks {
        let level = match check.severity {
            Severity::Warning => Level::Warning,
            Severity::Error => Level::Error,
        };
        match last.checks.get(code) {
            Some(before) if before.severity == check.severity && before.summary == check.summary => {}
            _ => add(level, format!("{code}: {}", check.summary)),
        }
    }
    for (code, check) in last.checks.iter().filter(|(code, _)| !next.checks.contains_key(code)) {
        add(Level::Info, format!("{code} is over (was: {})", check.summary));
    }
    if last.status != next.status {
        let level = if next.checks.is_empty() { Level::Info } else { Level::Warning };
        add(level, format!("the cluster is now {}", next.status));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{CrushBlob, Fsid, HealthCheck, HealthCode, OsdFlag, OsdId, OsdUuid, Weight};

    fn map() -> OsdMap {
        let mut map = OsdMap::new(Fsid([1; 16]), Timestamp(1000), CrushBlob::new(1, Vec::new()));
        for n in 0..2 {
            map.osds.insert(OsdId(n), OsdInfo { up: true, ..OsdInfo::new(OsdUuid([0; 16])) });
        }
        map
    }

    fn texts(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.text.as_str()).collect()
    }

    #[test]
    fn each_change_of_the_map_is_told_once() {
        let last = map();
        assert!(of_osd_map(&last, &last).is_empty());
        let mut next = map();
        next.epoch = last.epoch.next();
        let zero = next.osds.get_mut(&OsdId(0)).unwrap();
        (zero.up, zero.weight) = (false, Weight::ZERO);
        next.osds.remove(&OsdId(1));
        next.osds.insert(OsdId(2), OsdInfo::new(OsdUuid([2; 16])));
        next.flags = next.flags.with(OsdFlag::NoOut, true);
        assert_eq!(
            texts(&of_osd_map(&last, &next)),
            [
                "osd.0 is down (e2)",
                "osd.0 is out: its data goes elsewhere (e2)",
                "osd.2 is made",
                "osd.1 is removed",
                "flags that are set: noout",
            ]
        );
        // And back: what the map no longer has is gone, what is up again is told as such.
        let back = texts(&of_osd_map(&next, &last)).join("|");
        assert!(
            back.contains("osd.0 is up (e1)|osd.0 is in (e1)") && back.contains("osd.2 is removed"),
            "{back}"
        );
    }

    #[test]
    fn a_check_is_told_when_it_comes_changes_and_goes() {
        let check = |summary: &str| HealthCheck {
            severity: Severity::Warning,
            summary: summary.to_owned(),
            count: 1,
            detail: Vec::new(),
            next_step: String::new(),
        };
        let (well, mut one, mut two) = (Health::default(), Health::default(), Health::default());
        one.add(HealthCode::OsdDown, check("1 osds down"));
        two.add(HealthCode::OsdDown, check("2 osds down"));
        let now = Timestamp(0);
        assert_eq!(
            texts(&of_health(now, &well, &one)),
            ["OSD_DOWN: 1 osds down", "the cluster is now HEALTH_WARN"]
        );
        assert!(of_health(now, &one, &one).is_empty());
        assert_eq!(texts(&of_health(now, &one, &two)), ["OSD_DOWN: 2 osds down"]);
        let over = of_health(now, &two, &well);
        assert_eq!(texts(&over), ["OSD_DOWN is over (was: 2 osds down)", "the cluster is now HEALTH_OK"]);
        assert_eq!(
            over[1].to_string(),
            "1970-01-01T00:00:00.000Z [INF] health: the cluster is now HEALTH_OK"
        );
    }
}
