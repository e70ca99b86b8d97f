//! `cairn crush map-object`.

use super::{Format, load};
use anyhow::bail;
use cairn_crush::placement::{OsdState, Osds, Overrides, PgMapping, Placement, Pool, object_hash};
use cairn_crush::tester::Items;
use cairn_crush::{NO_ITEM, Scratch};
use cairn_types::{OsdId, PoolId};
use serde_json::json;
use std::path::PathBuf;

/// Tells the placement group and the OSDs of an object, in the form of `osdmaptool --test-map-object`, with every OSD
/// up and in.
#[derive(clap::Args)]
pub struct Args {
    /// The object's name
    name: String,
    /// The map, binary or text
    #[arg(long, value_name = "FILE|MAP.txt")]
    crush: PathBuf,
    /// Placement groups of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pg_num: u32,
    /// Number of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    pool_id: i64,
    /// Replicas of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    size: u16,
    /// Rule of the pool
    #[arg(long, value_name = "N", default_value_t = 0)]
    rule: usize,
    /// Namespace of the object
    #[arg(long, default_value = "")]
    namespace: String,
    /// Locator key, which is hashed in place of the name
    #[arg(long)]
    key: Option<String>,
    /// Reweight of an OSD, from 0 (out) to 1 (fully in); may be repeated
    #[arg(long, short = 'w', num_args = 2, value_names = ["OSD", "W"], action = clap::ArgAction::Append)]
    weight: Vec<String>,
    /// text is osdmaptool's
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Ceph's pool type of erasure codes, which a rule names.
const ERASURE: u8 = 3;

pub fn run(args: &Args) -> anyhow::Result<()> {
    let map = load::load_map(&args.crush)?;
    let placer = super::make_ready(&map, &args.crush)?;
    let Some(rule) = placer.rule(args.rule) else {
        bail!("{} has no rule {}: choose one with --rule", args.crush.display(), args.rule);
    };
    let mut osds = Osds::new(vec![OsdState::READY; usize::try_from(map.max_devices).unwrap_or(0)]);
    for (device, weight) in super::parse_weights(&args.weight)? {
        if (0..map.max_devices).contains(&device) {
            osds.set(OsdId(device), OsdState { weight, ..OsdState::READY });
        }
    }
    let pool = Pool {
        id: PoolId(args.pool_id),
        size: args.size.into(),
        pg_num: args.pg_num,
        pgp_num: args.pg_num,
        rule: args.rule,
        is_positional: rule.kind == ERASURE,
        is_seeded: true,
    };
    let hash = object_hash(&args.namespace, args.key.as_deref().unwrap_or_default(), &args.name);
    let mut mapping = PgMapping::default();
    let placement = Placement { placer: &placer, osds: &osds, overrides: &Overrides::default() };
    placement.map(&pool, hash, &mut Scratch::new(), &mut mapping);
    let (pgid, osds) = (pool.pg_of_hash(hash), mapping.acting);
    match args.format {
        Format::Text => super::print(&format!(" object '{}' -> {pgid} -> {}\n", args.name, Items(&osds))),
        Format::Json => {
            let osds: Vec<_> = osds.iter().map(|&osd| (osd != NO_ITEM).then_some(osd)).collect();
            super::print(&format!("{}\n", json!({"object": args.name, "pg": pgid.to_string(), "osds": osds})))
        }
    }
}
