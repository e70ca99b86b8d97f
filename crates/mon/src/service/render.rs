//! Text for people, of the documents programs read.

use super::crush::TreeNode;
use super::status::Status;
use cairn_types::{Health, OsdId, OsdMap, Severity};
use std::fmt::Write;

/// The text of `cairn status`.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let Status { mon, mgr, osd, pool, pg, usage, io, .. } = status;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  cluster:\n    id:     {}\n    health: {}", status.fsid, status.health.status);
    for check in status.health.checks.values() {
        let _ = writeln!(out, "            {}", check.summary);
    }
    let _ = writeln!(out, "\n  services:");
    let leader = mon.leader.as_ref().map_or("no leader".to_owned(), |leader| format!("leader {leader}"));
    let _ = writeln!(out, "    mon: {} daemons, quorum {} ({leader})", mon.total, mon.quorum.join(","));
    let active = mgr.active.as_ref().map_or("none active".to_owned(), |name| format!("{name}(active)"));
    let standbys = match mgr.standbys.is_empty() {
        true => String::new(),
        false => format!(", standbys: {}", mgr.standbys.join(", ")),
    };
    let _ = writeln!(out, "    mgr: {active}{standbys}");
    let _ = writeln!(out, "    osd: {} osds: {} up, {} in; epoch {}", osd.total, osd.up, osd.r#in, osd.epoch);
    if !osd.flags.is_empty() {
        let _ = writeln!(out, "         flags {}", osd.flags.join(","));
    }
    let _ = writeln!(out, "\n  data:\n    pools:   {} pools, {} pgs", pool.total, pg.total);
    let _ = writeln!(out, "    objects: {} objects, {}", pool.objects, bytes(pool.stored_bytes));
    let (used, avail, total) = (usage.used_bytes, usage.avail_bytes, usage.total_bytes);
    let _ = writeln!(out, "    usage:   {} used, {} / {} avail", bytes(used), bytes(avail), bytes(total));
    for (what, count) in [("degraded", pg.degraded), ("misplaced", pg.misplaced)] {
        if count > 0 {
            let share = count as f64 * 100.0 / pg.copies.max(1) as f64;
            let _ = writeln!(out, "             {count}/{} objects {what} ({share:.3}%)", pg.copies);
        }
    }
    if pg.unfound > 0 {
        let _ = writeln!(out, "             {} objects unfound", pg.unfound);
    }
    let mut states: Vec<_> = pg.states.iter().collect();
    states.sort_by_key(|(state, count)| (std::cmp::Reverse(**count), **state));
    let width = states.first().map_or(0, |(_, count)| count.to_string().len());
    for (n, (state, count)) in states.into_iter().enumerate() {
        let head = if n == 0 { "pgs:" } else { "" };
        let _ = writeln!(out, "    {head:<8} {count:<width$} {state}");
    }
    let client = io.read_bytes_per_s + io.write_bytes_per_s + io.read_ops_per_s + io.write_ops_per_s > 0;
    let recovery = io.recovery_bytes_per_s + io.recovery_objects_per_s > 0;
    if client || recovery {
        let _ = writeln!(out, "\n  io:");
    }
    if client {
        let (read, write) = (bytes(io.read_bytes_per_s), bytes(io.write_bytes_per_s));
        let (read_ops, write_ops) = (io.read_ops_per_s, io.write_ops_per_s);
        let _ =
            writeln!(out, "    client:   {read}/s rd, {write}/s wr, {read_ops} op/s rd, {write_ops} op/s wr");
    }
    if recovery {
        let rate = bytes(io.recovery_bytes_per_s);
        let _ = writeln!(out, "    recovery: {rate}/s, {} objects/s", io.recovery_objects_per_s);
    }
    out
}

/// The text of `cairn health`, with what to do about each check.
pub fn health(health: &Health) -> String {
    let mut out = format!("{}\n", health.status);
    for (code, check) in &health.checks {
        let word = match check.severity {
            Severity::Warning => "WRN",
            Severity::Error => "ERR",
        };
        let _ = writeln!(out, "[{word}] {code}: {}", check.summary);
        for line in &check.detail {
            let _ = writeln!(out, "    {line}");
        }
        let _ = writeln!(out, "    next: {}", check.next_step);
    }
    out
}

/// The text of `cairn osd tree`.
pub fn osd_tree(nodes: &[TreeNode], map: &OsdMap) -> String {
    let names = nodes.iter().map(|node| 4 * node.depth + node.kind.len() + 1 + node.name.len());
    let width = names.max().unwrap_or(0).max("TYPE NAME".len());
    let mut out = format!("ID   CLASS  WEIGHT   {:<width$}  STATUS     REWEIGHT  PRI-AFF\n", "TYPE NAME");
    for node in nodes {
        let indent = "    ".repeat(node.depth);
        let label = match node.id {
            ..0 => format!("{indent}{} {}", node.kind, node.name),
            0.. => format!("{indent}{}", node.name),
        };
        let class = node.class.as_deref().unwrap_or("");
        let line = format!("{:>3}  {class:<5}  {}  {label:<width$}", node.id, node.weight);
        let info = map.osds.get(&OsdId(node.id));
        let state = info.map_or(String::new(), |info| {
            let word = match (info.is_destroyed(), info.up) {
                (true, _) => "destroyed",
                (false, true) => "up",
                (false, false) => "down",
            };
            format!("  {word:<9}   {}  {}", info.weight, info.primary_affinity)
        });
        let _ = writeln!(out, "{}", format!("{line}{state}").trim_end());
    }
    out
}

/// Bytes in binary units with at most three digits that matter: `793 B`, `9.5 GiB`, `24 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Tenths of the unit, rounded half up.
    let unit = (count.ilog2() / 10).min(6);
    let tenths = (u128::from(count) * 10 + (1 << (10 * unit - 1))) >> (10 * unit);
    let name = UNITS[unit as usize - 1];
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (tenths + 5) / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_short_and_rounded() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10_200, "10 KiB"),
            (1_048_575, "1024 KiB"),
            (24 << 30, "24 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }
}
