//! Monitors, mgrs, OSDs, and the switches of the cluster.

use super::{View, add, count_of};
use crate::service::crush::Topology;
use crate::service::osd::flapping_until;
use cairn_types::{Health, HealthCode, OsdFlag, OsdId, OsdMap, Ratio, Severity};
use std::collections::BTreeSet;

pub(super) fn check(view: View<'_>, health: &mut Health) {
    mons(view, health);
    mgrs(view, health);
    let map = view.state.osd_map();
    let topology = Topology::of(&map.crush);
    osds_down(map, &topology, health);
    flapping(view, health);
    fullness(view, health);
    flags(map, health);
    slow_ops(view, health);
}

fn mons(view: View<'_>, health: &mut Health) {
    let map = view.state.mon_map();
    let members: BTreeSet<&str> = view.quorum.members.iter().map(String::as_str).collect();
    let down: Vec<&str> =
        map.mons.keys().map(String::as_str).filter(|name| !members.contains(name)).collect();
    let quorum = members.iter().copied().collect::<Vec<_>>().join(",");
    let summary = format!("{}/{} monitors down, quorum {quorum}", down.len(), map.mons.len());
    let detail = down
        .iter()
        .map(|name| {
            let addrs = map.mons[*name].addrs.iter().map(|addr| addr.socket.to_string()).collect::<Vec<_>>();
            format!("mon.{name} at {} is not in the quorum", addrs.join(" "))
        })
        .collect();
    let step = "start the monitor again or look at its log; if its host is gone for good, add another one \
                and remove this one with `cairn mon rm NAME`";
    add(health, HealthCode::MonDown, Severity::Warning, summary, detail, step);
}

fn mgrs(view: View<'_>, health: &mut Health) {
    // A cluster that never had a mgr is still being made.
    let map = view.state.mgr_map();
    if map.active.is_none() && map.epoch.0 > 0 {
        let detail = vec!["statistics of placement groups and usage are not gathered".to_owned()];
        let step = "start a mgr; a second one on another host takes over when the first dies";
        add(health, HealthCode::MgrDown, Severity::Warning, "no active mgr".into(), detail, step);
    }
}

fn osds_down(map: &OsdMap, topology: &Topology, health: &mut Health) {
    let is_down = |osd: &OsdId| map.osds.get(osd).is_some_and(|info| !info.up && info.is_in());
    let down: Vec<OsdId> = map.osds.keys().copied().filter(is_down).collect();
    let detail: Vec<String> = down
        .iter()
        .map(|osd| {
            let root = topology.root(*osd).map(|root| format!("root={root},")).unwrap_or_default();
            let gone = if map.osds[osd].is_destroyed() { " and destroyed" } else { "" };
            format!("{osd} ({root}host={}) is down{gone}", topology.host(*osd))
        })
        .collect();
    let summary = format!("{} down", count_of(down.len() as u64, "OSD"));
    let step = "start the OSD again or look at its log and its disk; if the disk is dead, replace it: \
                `cairn osd destroy ID`, then `cairn osd create --id ID`";
    add(health, HealthCode::OsdDown, Severity::Warning, summary, detail, step);

    let hosts = topology.by_host();
    let dead: Vec<(&&str, &Vec<OsdId>)> =
        hosts.iter().filter(|(_, osds)| !osds.is_empty() && osds.iter().all(is_down)).collect();
    let osds: usize = dead.iter().map(|(_, osds)| osds.len()).sum();
    let detail = dead
        .iter()
        .map(|(host, osds)| format!("host {host} ({}) is down", count_of(osds.len() as u64, "OSD")));
    let detail = detail.collect();
    let summary = format!("{} ({}) down", count_of(dead.len() as u64, "host"), count_of(osds as u64, "OSD"));
    let step = "look at the host's power and network, then start its daemons";
    add(health, HealthCode::OsdHostDown, Severity::Warning, summary, detail, step);
}

fn flapping(view: View<'_>, health: &mut Health) {
    let map = view.state.osd_map();
    let held = map.osds.keys().filter_map(|&osd| {
        let until = flapping_until(view.state.osd_record(osd), view.now)?;
        Some(format!("{osd} failed again and again and is kept down until {until}"))
    });
    let detail: Vec<String> = held.collect();
    let summary = format!("{} kept down for flapping", count_of(detail.len() as u64, "OSD"));
    let step = "look at its log, its disk and both its networks; it may boot again at the time given";
    add(health, HealthCode::OsdFlapping, Severity::Warning, summary, detail, step);
}

fn fullness(view: View<'_>, health: &mut Health) {
    let Some(digest) = view.digest else { return };
    let map = view.state.osd_map();
    let ratios = map.ratios;
    let levels: [(HealthCode, Severity, &str, Ratio, Ratio, &str); 3] = [
        (
            HealthCode::OsdFull,
            Severity::Error,
            "full",
            ratios.full,
            Ratio(u32::MAX),
            "clients write nothing until there is room: add OSDs, or delete images or snapshots",
        ),
        (
            HealthCode::OsdBackfillFull,
            Severity::Warning,
            "backfillfull",
            ratios.backfillfull,
            ratios.full,
            "add OSDs or delete data; no backfill goes to these OSDs",
        ),
        (
            HealthCode::OsdNearFull,
            Severity::Warning,
            "nearfull",
            ratios.nearfull,
            ratios.backfillfull,
            "add OSDs or delete data before they are full; `cairn osd df` shows whether the spread is uneven",
        ),
    ];
    for (code, severity, word, from, below, step) in levels {
        let detail: Vec<String> = digest
            .osds
            .iter()
            .filter(|(osd, stat)| map.osds.contains_key(osd) && stat.total_bytes > 0)
            .filter(|(_, stat)| {
                from.reached_by(stat.used_bytes, stat.total_bytes)
                    && !below.reached_by(stat.used_bytes, stat.total_bytes)
            })
            .map(|(osd, stat)| {
                let percent = u128::from(stat.used_bytes) * 100 / u128::from(stat.total_bytes);
                format!("{osd} is {word} at {percent}%")
            })
            .collect();
        let summary = format!("{} {word}", count_of(detail.len() as u64, "OSD"));
        add(health, code, severity, summary, detail, step);
    }
}

fn flags(map: &OsdMap, health: &mut Health) {
    let set: Vec<OsdFlag> = map.flags.iter().collect();
    let severity = match map.flags.has(OsdFlag::Pause) || map.flags.has(OsdFlag::Full) {
        true => Severity::Error,
        false => Severity::Warning,
    };
    let detail = set.iter().map(|flag| format!("flag '{flag}' is set")).collect();
    let summary = format!("flag(s) {} set", map.flags);
    let step = "clear each when its reason is over: `cairn osd unset FLAG` ('full' clears itself)";
    add(health, HealthCode::OsdMapFlags, severity, summary, detail, step);
}

fn slow_ops(view: View<'_>, health: &mut Health) {
    let Some(digest) = view.digest else { return };
    let slow: Vec<_> = digest.osds.iter().filter(|(_, stat)| stat.slow_ops > 0).collect();
    let total: u64 = slow.iter().map(|(_, stat)| u64::from(stat.slow_ops)).sum();
    let detail = slow
        .iter()
        .map(|(osd, stat)| format!("{osd} has {}", count_of(stat.slow_ops.into(), "slow operation")));
    let detail = detail.collect();
    let step = "look at the disk and the network of these OSDs; if one disk is slow, take it out with \
                `cairn osd out ID`";
    add(health, HealthCode::SlowOps, Severity::Warning, count_of(total, "slow operation"), detail, step);
}
