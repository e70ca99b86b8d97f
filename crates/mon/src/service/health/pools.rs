//! Pools: copies, groups, quotas.

use super::{View, add, count_of};
use crate::service::crush;
use crate::service::limits::MAX_PG_NUM;
use crate::service::pool::pg_copies;
use crate::service::timing::{MAX_PGS_PER_OSD, TARGET_PGS_PER_OSD};
use cairn_types::{Health, HealthCode, OsdId, OsdMap, Pool, PoolFlag, PoolId, Severity};
use std::collections::BTreeSet;

pub(super) fn check(view: View<'_>, health: &mut Health) {
    let map = view.state.osd_map();
    too_few_osds(map, health);
    too_few_groups(map, health);
    too_many_groups(map, health);
    redundancy(map, health);
    applications(view, health);
    quotas(view, health);
}

fn pools(map: &OsdMap, test: impl Fn(&Pool) -> bool, say: impl Fn(&Pool) -> String) -> Vec<String> {
    map.pools.values().filter(|pool| test(pool)).map(say).collect()
}

/// OSDs that are in and below where a pool's rule starts.
fn osds_for(map: &OsdMap, pool: &Pool) -> u64 {
    let Ok(crush) = crush::decode(&map.crush) else { return 0 };
    let below: BTreeSet<i32> = crush::rule_roots(&crush, pool.crush_rule)
        .into_iter()
        .flat_map(|root| crush.devices_below(root))
        .collect();
    below.iter().filter(|osd| map.osds.get(&OsdId(**osd)).is_some_and(|info| info.is_in())).count() as u64
}

fn too_few_osds(map: &OsdMap, health: &mut Health) {
    let say = |pool: &Pool| {
        let osds = osds_for(map, pool);
        format!(
            "pool '{}' keeps {} copies, but its rule reaches {} in",
            pool.name,
            pool.size,
            count_of(osds, "OSD")
        )
    };
    let detail = pools(map, |pool| osds_for(map, pool) < u64::from(pool.size), say);
    let summary = format!("too few OSDs for {}", count_of(detail.len() as u64, "pool"));
    let step = "add OSDs on further hosts, or lower the pool's size with `cairn pool set POOL size N`";
    add(health, HealthCode::TooFewOsds, Severity::Warning, summary, detail, step);
}

/// A pool warns when it has less than this part of the groups it should: between powers of two there is no
/// point in being exact.
const TOO_FEW_FACTOR: u64 = 4;

/// Half of an even share of what the pool's OSDs should carry, rounded down to a power of two: what a pool
/// is made with when nothing is asked for.
fn wanted_groups(map: &OsdMap, pool: &Pool) -> u64 {
    let copies = osds_for(map, pool) * TARGET_PGS_PER_OSD / map.pools.len().max(1) as u64;
    let groups = copies / u64::from(pool.size.max(1)) / 2;
    1 << groups.clamp(1, MAX_PG_NUM.into()).ilog2()
}

fn too_few_groups(map: &OsdMap, health: &mut Health) {
    let few = |pool: &Pool| u64::from(pool.pg_num) * TOO_FEW_FACTOR < wanted_groups(map, pool);
    let wanted = |pool: &Pool| wanted_groups(map, pool);
    let say = |pool: &Pool| {
        format!(
            "pool '{}' has {} placement groups, should have at least {}",
            pool.name,
            pool.pg_num,
            wanted(pool)
        )
    };
    let detail = pools(map, few, say);
    let summary = format!("{} with too few placement groups", count_of(detail.len() as u64, "pool"));
    let step = "data and load spread unevenly: make a pool with more by `cairn pool create --pg-num N` and move \
                what matters there";
    add(health, HealthCode::PoolTooFewPgs, Severity::Warning, summary, detail, step);
}

fn too_many_groups(map: &OsdMap, health: &mut Health) {
    let osds = map.in_count() as u64;
    let copies = pg_copies(map, None);
    if osds > 0 && copies > osds * MAX_PGS_PER_OSD {
        let per_osd = copies.div_ceil(osds);
        let detail = vec![format!("{copies} copies of placement groups on {}", count_of(osds, "OSD"))];
        let summary = format!("too many placement groups per OSD ({per_osd}, more than {MAX_PGS_PER_OSD})");
        let step = "add OSDs, or take those that are out in again";
        add(health, HealthCode::TooManyPgs, Severity::Warning, summary, detail, step);
    }
}

fn redundancy(map: &OsdMap, health: &mut Health) {
    let say = |pool: &Pool| format!("pool '{}' keeps one copy", pool.name);
    let detail = pools(map, |pool| pool.size == 1, say);
    let summary = format!("{} without redundancy", count_of(detail.len() as u64, "pool"));
    let step = "a single dead disk loses data: `cairn pool set POOL size 3`";
    add(health, HealthCode::PoolNoRedundancy, Severity::Warning, summary, detail, step);
}

/// A pool that is used, by nobody knows what.
fn applications(view: View<'_>, health: &mut Health) {
    let Some(digest) = view.digest else { return };
    let used = |id: &PoolId| digest.pools.get(id).is_some_and(|stat| stat.objects > 0);
    let unnamed =
        view.state.osd_map().pools.iter().filter(|(id, pool)| pool.application.is_empty() && used(id));
    let detail: Vec<String> =
        unnamed.map(|(_, pool)| format!("pool '{}' is not said to be used by anything", pool.name)).collect();
    let summary = format!("{} without an application", count_of(detail.len() as u64, "pool"));
    let step = "say what uses it, such as `cairn pool set POOL application rbd`";
    add(health, HealthCode::PoolAppNotEnabled, Severity::Warning, summary, detail, step);
}

/// From this share of a quota on health warns, in per cent: Ceph's `mon_pool_quota_warn_threshold` is unset
/// by default; this is the nearfull ratio's neighbour.
const QUOTA_WARN_PERCENT: u64 = 85;

fn quotas(view: View<'_>, health: &mut Health) {
    let map = view.state.osd_map();
    let full =
        pools(map, |pool| pool.flags.has(PoolFlag::Full), |pool| format!("pool '{}' is full", pool.name));
    let summary = format!("{} full", count_of(full.len() as u64, "pool"));
    let step = "clients write nothing there: delete data, or raise the quota with `cairn pool set POOL quota_bytes N`";
    add(health, HealthCode::PoolFull, Severity::Error, summary, full, step);

    let Some(digest) = view.digest else { return };
    let near = |quota: u64, used: u64| {
        quota > 0 && u128::from(used) * 100 >= u128::from(quota) * u128::from(QUOTA_WARN_PERCENT)
    };
    let mut detail = Vec::new();
    for (id, pool) in &map.pools {
        let Some(stat) = digest.pools.get(id) else { continue };
        let is_near = near(pool.quota_bytes, stat.stored_bytes) || near(pool.quota_objects, stat.objects);
        if is_near && !pool.flags.has(PoolFlag::Full) {
            detail.push(format!("pool '{}' has used {QUOTA_WARN_PERCENT}% of its quota or more", pool.name));
        }
    }
    let summary = format!("{} nearly full", count_of(detail.len() as u64, "pool"));
    let step = "delete data, or raise the quota before writes stop";
    add(health, HealthCode::PoolNearFull, Severity::Warning, summary, detail, step);
}
