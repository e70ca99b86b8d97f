//! `cairn pg show`.

use super::parse_pg;
use super::placed::{Places, set, state};
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, print, print_json, table};
use anyhow::anyhow;
use cairn_types::PgId;

/// Tell where a placement group is and how it is
#[derive(clap::Args)]
pub struct Args {
    /// Its name, such as 1.1f
    #[arg(value_parser = parse_pg)]
    pg: PgId,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (map, digest) = block_on(async {
        let session = Session::open(context).await?;
        anyhow::Ok((session.osd_map().await?, session.digest().await?))
    })?;
    let places = Places::new(&map, digest.as_ref())?;
    let pg = args.pg;
    let placed = places
        .one(pg)
        .ok_or_else(|| anyhow!("there is no placement group {pg}; `cairn pg ls` lists them"))?;
    if context.format == Format::Json {
        return print_json(&placed);
    }
    let since = placed.for_ms.map_or_else(String::new, |ms| format!(", for {:.1} s", ms as f64 / 1000.0));
    let pool = map.pools.get(&pg.pool).map_or_else(String::new, |pool| pool.name.clone());
    print(&table(&[
        ("pg", pg.to_string()),
        ("pool", pool),
        ("state", format!("{}{since}", state(&placed))),
        ("up", set(&placed.up, placed.up_primary)),
        ("acting", set(&placed.acting, placed.acting_primary)),
    ]))
}
