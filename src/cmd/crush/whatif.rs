//! `cairn crush whatif`.

use super::{Format, load, make_ready, print};
use anyhow::{anyhow, bail};
use cairn_crush::placement::{OsdState, Osds, Overrides, Pool};
use cairn_crush::whatif::{self, Amount, Change, Cluster, Outcome, PoolUse, capacity_by_weight};
use cairn_crush::{CrushMap, tester};
use cairn_types::{OsdId, PoolId, Weight};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// Tells how much data a planned change moves, from where to where, and how full each OSD gets. The change is OSDs or
/// hosts lost (--lose), OSDs reweighted (--reweight), disks added (--add), CRUSH weights changed (--crush-weight), items
/// removed (--remove), another map (--to, such as an edited text map), or several of these at once, in this order.
/// Nothing is changed.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("plan").required(true).multiple(true)))]
pub struct Args {
    /// The map as it is, binary or text
    #[arg(long, value_name = "FILE|MAP.txt")]
    crush: PathBuf,
    /// The map after the change
    #[arg(long, value_name = "FILE|MAP.txt", group = "plan")]
    to: Option<PathBuf>,
    /// A new OSD with its CRUSH weight below a bucket; may be repeated
    #[arg(long, value_name = "osd.N=W@BUCKET", group = "plan")]
    add: Vec<String>,
    /// A new CRUSH weight of an OSD or bucket; may be repeated
    #[arg(long, value_name = "NAME=W", group = "plan")]
    crush_weight: Vec<String>,
    /// An OSD, or a bucket with all its OSDs, that is taken out of the map; may be repeated
    #[arg(long, value_name = "NAME", group = "plan")]
    remove: Vec<String>,
    /// A new reweight of an OSD, from 0 (out) to 1 (fully in); may be repeated
    #[arg(long, value_name = "osd.N=W", group = "plan")]
    reweight: Vec<String>,
    /// An OSD, or a bucket with all its OSDs, that is lost for good; may be repeated
    #[arg(long, value_name = "NAME", group = "plan")]
    lose: Vec<String>,
    /// Placement groups of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pg_num: u32,
    /// Replicas of the pool, or chunks of its erasure code
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    size: u16,
    /// Chunks of the pool's erasure code that hold data; not given for copies
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1000))]
    data_chunks: Option<u32>,
    /// Number of the pool
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    pool_id: i64,
    /// Rule of the pool
    #[arg(long, value_name = "N", default_value_t = 0)]
    rule: usize,
    /// Bytes stored in the pool, each counted once
    #[arg(long, value_name = "N")]
    bytes: u64,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let before = load::load_map(&args.crush)?;
    let path_after = args.to.as_ref().unwrap_or(&args.crush);
    let mut after = load::load_map(path_after)?;
    let osds = all_ready(&before);
    let mut osds_after = all_ready(&after);
    let placer = make_ready(&before, &args.crush)?;
    make_ready(&after, path_after)?;
    plan(args, &mut after, &mut osds_after)?;
    let placer_after = make_ready(&after, path_after)?;
    for (placer, path) in [(&placer, &args.crush), (&placer_after, path_after)] {
        if placer.rule(args.rule).is_none() {
            bail!("{} has no rule {}: choose one with --rule", path.display(), args.rule);
        }
    }
    let pool = Pool {
        id: PoolId(args.pool_id),
        size: args.size.into(),
        pg_num: args.pg_num,
        pgp_num: args.pg_num,
        rule: args.rule,
        is_positional: args.data_chunks.is_some(),
        is_seeded: true,
    };
    let pools = [PoolUse { pool, stored_bytes: args.bytes, data_chunks: args.data_chunks.unwrap_or(1) }];
    let overrides = &Overrides::default();
    let (capacity, capacity_after) = (capacity_by_weight(&before), capacity_by_weight(&after));
    let cluster_before = Cluster { placer: &placer, osds: &osds, overrides, capacity_bytes: &capacity };
    let cluster_after =
        Cluster { placer: &placer_after, osds: &osds_after, overrides, capacity_bytes: &capacity_after };
    let outcome = whatif::compare(&cluster_before, &cluster_after, &pools);
    let name = |osd: OsdId| {
        let known = after.item_names.get(&osd.0).or(before.item_names.get(&osd.0));
        known.cloned().unwrap_or_else(|| osd.to_string())
    };
    print(&match args.format {
        Format::Text => table(name, &outcome),
        Format::Json => format!("{}\n", as_json(&outcome)),
    })
}

/// Makes all changes of the plan, in order.
fn plan(args: &Args, map: &mut CrushMap, osds: &mut Osds) -> anyhow::Result<()> {
    let mut apply = |option: &str, text: &str, change: &dyn Fn(&CrushMap) -> anyhow::Result<Change>| {
        let made = change(map).and_then(|change| Ok(change.apply(map, osds)?));
        made.map_err(|error| anyhow!("{option} {text}: {error}"))
    };
    for text in &args.add {
        apply("--add", text, &|map| {
            let parts = text.strip_prefix("osd.").and_then(|rest| rest.split_once('='));
            let parts = parts.and_then(|(osd, rest)| Some((osd.parse().ok()?, rest.split_once('@')?)));
            let Some((osd, (weight, parent))) = parts else { bail!("write it as osd.12=1.5@host3") };
            let (weight, parent) = (crush_weight(weight)?, item_id(map, parent)?);
            Ok(Change::AddOsd { osd: OsdId(osd), weight, class: None, parent })
        })?;
    }
    for text in &args.crush_weight {
        apply("--crush-weight", text, &|map| {
            let Some((name, weight)) = text.split_once('=') else { bail!("write it as osd.3=1.5") };
            Ok(Change::CrushReweight { item: item_id(map, name)?, weight: crush_weight(weight)? })
        })?;
    }
    for text in &args.remove {
        apply("--remove", text, &|map| Ok(Change::Remove { item: item_id(map, text)? }))?;
    }
    for text in &args.reweight {
        apply("--reweight", text, &|map| {
            let Some((name, value)) = text.split_once('=') else { bail!("write it as osd.3=0.8") };
            let Ok(value) = value.parse::<f64>() else { bail!("'{value}' is not a weight") };
            if !(0.0..=1.0).contains(&value) {
                bail!("a reweight is from 0 (out) to 1 (fully in)");
            }
            let osd = item_id(map, name)?;
            if osd < 0 {
                bail!("{name} is a bucket; only OSDs have a reweight");
            }
            Ok(Change::Reweight { osd: OsdId(osd), weight: tester::reweight(value) })
        })?;
    }
    for text in &args.lose {
        apply("--lose", text, &|map| Ok(Change::Lose { item: item_id(map, text)? }))?;
    }
    Ok(())
}

fn all_ready(map: &CrushMap) -> Osds {
    Osds::new(vec![OsdState::READY; usize::try_from(map.max_devices).unwrap_or(0)])
}

fn item_id(map: &CrushMap, name: &str) -> anyhow::Result<i32> {
    map.item_by_name(name).ok_or_else(|| anyhow!("the map has no OSD or bucket '{name}'"))
}

/// A CRUSH weight as operators write it.
fn crush_weight(text: &str) -> anyhow::Result<Weight> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=65535.0).contains(&value) => Ok(Weight((value * 65536.0) as u32)),
        _ => bail!("'{text}' is not a weight from 0 to 65535"),
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

/// Bytes with a binary unit.
fn sized(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

fn table(name: impl Fn(OsdId) -> String, outcome: &Outcome) -> String {
    let mut out = String::new();
    let Outcome { held, moved, rebuilt, health_after, .. } = outcome;
    let share = percent(moved.bytes, held.bytes).unwrap_or(0.0);
    let _ = writeln!(out, "moves {} of {} ({share:.2} %)", sized(moved.bytes), sized(held.bytes));
    let _ = writeln!(out, "the least for this outcome is {}", sized(outcome.least_bytes));
    if rebuilt.bytes > 0 {
        let _ = writeln!(out, "{} of it is rebuilt from other copies", sized(rebuilt.bytes));
    }
    let _ = writeln!(out, "{} of {} placement groups change", outcome.remapped_pgs, outcome.pgs);
    if health_after.missing_shards > 0 {
        let _ = writeln!(
            out,
            "{} replicas of {} placement groups find no OSD; {} groups have none at all",
            health_after.missing_shards, health_after.degraded_pgs, health_after.unmapped_pgs
        );
    }
    if !outcome.flows.is_empty() {
        let _ = writeln!(out, "\n{:<12} {:<12} {:>8} {:>14}", "FROM", "TO", "SHARDS", "BYTES");
        for (&(from, to), &Amount { shards, bytes }) in &outcome.flows {
            let from = from.map_or("-".to_owned(), &name);
            let _ = writeln!(out, "{from:<12} {:<12} {shards:>8} {:>14}", name(to), sized(bytes));
        }
    }
    let _ =
        writeln!(out, "\n{:<12} {:>14} {:>14} {:>14} {:>8}", "OSD", "CAPACITY", "BEFORE", "AFTER", "FULL");
    for (&osd, used) in &outcome.osds {
        let full = percent(used.after.bytes, used.capacity_bytes)
            .map_or("-".to_owned(), |full| format!("{full:.1} %"));
        let (capacity, before, after) =
            (sized(used.capacity_bytes), sized(used.before.bytes), sized(used.after.bytes));
        let _ = writeln!(out, "{:<12} {capacity:>14} {before:>14} {after:>14} {full:>8}", name(osd));
    }
    out
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let flows = outcome.flows.iter();
    let moves: Vec<_> = flows
        .map(|(&(from, to), flow)| {
            json!({"from": from.map(|osd| osd.0), "to": to.0, "shards": flow.shards, "bytes": flow.bytes})
        })
        .collect();
    let osds = outcome.osds.iter();
    let osds: Vec<_> = osds
        .map(|(osd, used)| {
            json!({
                "osd": osd.0, "capacity_bytes": used.capacity_bytes, "bytes_before": used.before.bytes,
                "bytes_after": used.after.bytes, "shards_before": used.before.shards,
                "shards_after": used.after.shards,
            })
        })
        .collect();
    json!({
        "moved_bytes": outcome.moved.bytes, "moved_shards": outcome.moved.shards,
        "rebuilt_bytes": outcome.rebuilt.bytes, "least_bytes": outcome.least_bytes,
        "placed_bytes": outcome.held.bytes, "pgs": outcome.pgs, "remapped_pgs": outcome.remapped_pgs,
        "degraded_pgs_before": outcome.health_before.degraded_pgs,
        "degraded_pgs": outcome.health_after.degraded_pgs, "unmapped_pgs": outcome.health_after.unmapped_pgs,
        "missing_replicas": outcome.health_after.missing_shards, "moves": moves, "osds": osds,
    })
}
