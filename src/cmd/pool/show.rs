//! `cairn pool ls` and `cairn pool show`.

use super::find;
use crate::cmd::output::columns;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, print, print_json, table};
use cairn_mon::service::crush;
use cairn_mon::service::render::bytes;
use cairn_types::{Digest, OsdMap, Pool, PoolId, PoolStat};
use serde_json::{Value, json};

/// Tell all about a pool
#[derive(clap::Args)]
pub struct Args {
    /// Its name
    name: String,
}

async fn read(context: &Context) -> anyhow::Result<(OsdMap, Digest)> {
    let session = Session::open(context).await?;
    Ok((session.osd_map().await?, session.digest().await?.unwrap_or_default()))
}

/// Lists.
pub fn list(context: &Context) -> anyhow::Result<()> {
    let (map, digest) = block_on(read(context))?;
    if context.format == Format::Json {
        let pools: Vec<_> =
            map.pools.iter().map(|(id, pool)| document(*id, pool, digest.pools.get(id), &map)).collect();
        return print_json(&pools);
    }
    let rows = map.pools.iter().map(|(id, pool)| {
        let figure =
            |figure: fn(&PoolStat) -> String| digest.pools.get(id).map_or_else(|| "-".to_owned(), figure);
        [
            pool.name.clone(),
            id.to_string(),
            format!("{}/{}", pool.size, pool.min_size),
            pool.pg_num.to_string(),
            figure(|stat| stat.objects.to_string()),
            figure(|stat| bytes(stat.stored_bytes)),
            figure(|stat| bytes(stat.used_bytes)),
            pool.application.clone(),
        ]
    });
    print(&columns(["NAME", ">ID", ">SIZE/MIN", ">PGS", ">OBJECTS", ">STORED", ">USED", "APPLICATION"], rows))
}

/// Shows one.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (map, digest) = block_on(read(context))?;
    let (id, pool) = find(&map, &args.name)?;
    let stat = digest.pools.get(&id);
    if context.format == Format::Json {
        return print_json(&document(id, pool, stat, &map));
    }
    let quota = |quota: u64, text: String| if quota == 0 { "none".to_owned() } else { text };
    let figure = |figure: &dyn Fn(&PoolStat) -> String| stat.map_or_else(|| "not known".to_owned(), figure);
    print(&table(&[
        ("name", pool.name.clone()),
        ("number", id.to_string()),
        ("copies", format!("{}, {} for I/O to go on", pool.size, pool.min_size)),
        ("placement groups", format!("{} ({} placed)", pool.pg_num, pool.pgp_num)),
        ("rule", rule(pool, &map)),
        ("flags", if pool.flags.is_empty() { "none".to_owned() } else { pool.flags.to_string() }),
        ("application", pool.application.clone()),
        (
            "quota",
            format!(
                "bytes {}, objects {}",
                quota(pool.quota_bytes, bytes(pool.quota_bytes)),
                quota(pool.quota_objects, pool.quota_objects.to_string()),
            ),
        ),
        ("autoscale", pool.autoscale.to_string()),
        ("made", pool.created.to_string()),
        ("last change", pool.last_change.to_string()),
        ("objects", figure(&|stat| stat.objects.to_string())),
        ("stored", figure(&|stat| bytes(stat.stored_bytes))),
        ("used", figure(&|stat| bytes(stat.used_bytes))),
        ("degraded", figure(&|stat| format!("{} of {} copies", stat.counts.degraded, stat.counts.copies))),
        ("misplaced", figure(&|stat| format!("{} of {} copies", stat.counts.misplaced, stat.counts.copies))),
        ("unfound", figure(&|stat| format!("{} objects", stat.counts.unfound))),
    ]))
}

/// The rule's name, or its number where CRUSH has none for it.
fn rule(pool: &Pool, map: &OsdMap) -> String {
    let names = crush::decode(&map.crush).map(|crush| crush.rule_names).unwrap_or_default();
    names.get(&(pool.crush_rule as i32)).cloned().unwrap_or_else(|| pool.crush_rule.to_string())
}

fn document(id: PoolId, pool: &Pool, stat: Option<&PoolStat>, map: &OsdMap) -> Value {
    json!({
        "name": pool.name,
        "id": id,
        "size": pool.size,
        "min_size": pool.min_size,
        "pg_num": pool.pg_num,
        "pgp_num": pool.pgp_num,
        "rule": rule(pool, map),
        "flags": pool.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>(),
        "application": pool.application,
        "quota_bytes": pool.quota_bytes,
        "quota_objects": pool.quota_objects,
        "autoscale": pool.autoscale,
        "created_ms": pool.created,
        "last_change": pool.last_change,
        "stats": stat,
    })
}
