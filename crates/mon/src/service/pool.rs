//! Pools.

use super::crush;
use super::draft::clip;
use super::limits::{MAX_PG_NUM, MAX_POOL_SIZE, MAX_POOLS, NAME_LEN_MAX};
use super::timing::{MAX_PGS_PER_OSD, TARGET_PGS_PER_OSD};
use super::{Draft, Refusal, Reply};
use cairn_types::{OsdMap, Pool, PoolFlag, PoolFlags, PoolId, SnapId};
use serde::{Deserialize, Serialize};

/// Copies of a pool made without saying how many.
pub const DEFAULT_SIZE: u8 = 3;
/// Groups of a pool made while there is no OSD to reckon with.
const PG_NUM_WITHOUT_OSDS: u32 = 32;
/// Fewest groups that are chosen: fewer spread badly over even three OSDs.
const PG_NUM_CHOSEN_MIN: u32 = 8;
/// Most that are chosen; an operator may ask for more.
const PG_NUM_CHOSEN_MAX: u32 = 4096;

/// What can be asked about pools.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PoolCommand {
    /// Makes a pool.
    Create {
        /// Its name.
        name: String,
        /// Copies; 3 if not given.
        size: Option<u8>,
        /// Copies that must be there for I/O; more than half of `size` if not given.
        min_size: Option<u8>,
        /// Placement groups; chosen by the number of OSDs if not given.
        pg_num: Option<u32>,
        /// Name of a CRUSH rule; the first one if not given.
        rule: Option<String>,
        /// What uses it, such as `rbd`; may be empty.
        application: String,
    },
    /// Changes a pool.
    Set {
        /// Its name.
        name: String,
        /// What.
        setting: PoolSetting,
    },
    /// Removes a pool and all that is in it.
    Remove {
        /// Its name.
        name: String,
        /// Its name once more.
        confirm: String,
    },
    /// Gives out the next snapshot number of a pool.
    NextSnap {
        /// Its name.
        name: String,
    },
}

/// What can be changed of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PoolSetting {
    /// Copies.
    Size(u8),
    /// Copies that must be there for I/O.
    MinSize(u8),
    /// Placement groups. Refused unless it is the number there is: groups do not split or merge yet.
    PgNum(u32),
    /// Name of the CRUSH rule.
    Rule(String),
    /// A switch.
    Flag(PoolFlag, bool),
    /// What uses it.
    Application(String),
    /// Most bytes; 0 for no quota.
    QuotaBytes(u64),
    /// Most objects; 0 for no quota.
    QuotaObjects(u64),
    /// Whether the number of placement groups is changed without asking.
    Autoscale(bool),
    /// Its name.
    Name(String),
}

pub(super) fn run(draft: &mut Draft<'_>, command: &PoolCommand) -> Result<Reply, Refusal> {
    match command {
        PoolCommand::Create { name, size, min_size, pg_num, rule, application } => {
            create(draft, name, *size, *min_size, *pg_num, rule.as_deref(), application)
        }
        PoolCommand::Set { name, setting } => set(draft, name, setting),
        PoolCommand::Remove { name, confirm } => remove(draft, name, confirm),
        PoolCommand::NextSnap { name } => {
            let epoch = draft.epoch();
            let (_, pool) = draft.pool(name)?;
            pool.snap_seq = SnapId(pool.snap_seq.0 + 1);
            pool.flags = pool.flags.with(PoolFlag::SelfManagedSnaps, true);
            pool.last_change = epoch;
            Ok(Reply::Snap { snap: pool.snap_seq })
        }
    }
}

fn create(
    draft: &mut Draft<'_>,
    name: &str,
    size: Option<u8>,
    min_size: Option<u8>,
    pg_num: Option<u32>,
    rule: Option<&str>,
    application: &str,
) -> Result<Reply, Refusal> {
    let (epoch, now) = (draft.epoch(), draft.now);
    let map = &mut draft.next.osd_map;
    check_name(name)?;
    check_application(application)?;
    if map.pool_by_name(name).is_some() {
        return Err(Refusal::PoolExists { pool: name.to_owned() });
    }
    if map.pools.len() >= MAX_POOLS {
        return Err(Refusal::TooMany { what: "pools", limit: MAX_POOLS });
    }
    let size = size.unwrap_or(DEFAULT_SIZE);
    let min_size = min_size.unwrap_or(size - size / 2);
    check_sizes(size, min_size)?;
    let crush_rule = crush::rule(&crush::decode(&map.crush)?, rule)?;
    let pg_num = pg_num.unwrap_or_else(|| choose_pg_num(map, size));
    check_pg_num(map, None, pg_num, size)?;
    let id = PoolId(map.pool_max.0 + 1);
    map.pool_max = id;
    let pool = Pool {
        name: name.to_owned(),
        size,
        min_size,
        pg_num,
        pgp_num: pg_num,
        crush_rule,
        flags: PoolFlags::default(),
        application: application.to_owned(),
        snap_seq: SnapId(0),
        quota_bytes: 0,
        quota_objects: 0,
        autoscale: true,
        created: now,
        last_change: epoch,
    };
    map.pools.insert(id, pool);
    Ok(Reply::Pool { pool: id, pg_num })
}

/// Half of what the OSDs can still carry up to [`TARGET_PGS_PER_OSD`], rounded down to a power of two: room
/// is left for pools to come. Three OSDs and three copies make 32.
pub(super) fn choose_pg_num(map: &OsdMap, size: u8) -> u32 {
    let osds = map.in_count() as u64;
    if osds == 0 {
        return PG_NUM_WITHOUT_OSDS;
    }
    let room = (osds * TARGET_PGS_PER_OSD).saturating_sub(pg_copies(map, None)) / u64::from(size) / 2;
    let fits = room.clamp(PG_NUM_CHOSEN_MIN.into(), PG_NUM_CHOSEN_MAX.into());
    1 << fits.ilog2()
}

/// Copies of placement groups the OSDs carry for all pools but one.
pub(super) fn pg_copies(map: &OsdMap, except: Option<PoolId>) -> u64 {
    let others = map.pools.iter().filter(|(id, _)| Some(**id) != except);
    others.map(|(_, pool)| u64::from(pool.pg_num) * u64::from(pool.size)).sum()
}

fn check_pg_num(map: &OsdMap, pool: Option<PoolId>, pg_num: u32, size: u8) -> Result<(), Refusal> {
    if !(1..=MAX_PG_NUM).contains(&pg_num) {
        return Err(Refusal::BadPgNum { found: pg_num });
    }
    let osds = map.in_count() as u64;
    let copies = pg_copies(map, pool) + u64::from(pg_num) * u64::from(size);
    if osds > 0 && copies > osds * MAX_PGS_PER_OSD {
        return Err(Refusal::TooManyPgs { pg_num, per_osd: copies.div_ceil(osds), osds });
    }
    Ok(())
}

fn check_sizes(size: u8, min_size: u8) -> Result<(), Refusal> {
    if (1..=MAX_POOL_SIZE).contains(&size) && (1..=size).contains(&min_size) {
        return Ok(());
    }
    Err(Refusal::BadSizes { size, min_size })
}

/// A pool's name stands in commands, paths and URIs: `POOL/IMAGE`.
fn check_name(name: &str) -> Result<(), Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX && !name.starts_with(['.', '-']);
    if fits && name.bytes().all(plain) { Ok(()) } else { Err(Refusal::BadName { name: clip(name) }) }
}

fn check_application(application: &str) -> Result<(), Refusal> {
    if application.is_empty() { Ok(()) } else { check_name(application) }
}

fn set(draft: &mut Draft<'_>, name: &str, setting: &PoolSetting) -> Result<Reply, Refusal> {
    let epoch = draft.epoch();
    let (id, pool) = draft.pool(name)?;
    let mut pool = pool.clone();
    let before = pool.clone();
    let map = &draft.next.osd_map;
    let held = |flag: PoolFlag| {
        if before.flags.has(flag) {
            return Err(Refusal::PoolFlagSet { pool: name.to_owned(), flag });
        }
        Ok(())
    };
    match setting {
        PoolSetting::Size(size) => {
            held(PoolFlag::NoSizeChange)?;
            check_sizes(*size, pool.min_size)?;
            check_pg_num(map, Some(id), pool.pg_num, *size)?;
            pool.size = *size;
        }
        PoolSetting::MinSize(min_size) => {
            held(PoolFlag::NoSizeChange)?;
            check_sizes(pool.size, *min_size)?;
            pool.min_size = *min_size;
        }
        PoolSetting::PgNum(pg_num) => {
            held(PoolFlag::NoPgChange)?;
            // OSDs would look for the objects of a new group where they are not.
            if *pg_num != pool.pg_num {
                return Err(Refusal::PgNumFixed { pool: name.to_owned(), have: pool.pg_num });
            }
        }
        PoolSetting::Rule(rule) => pool.crush_rule = crush::rule(&crush::decode(&map.crush)?, Some(rule))?,
        PoolSetting::Flag(flag @ (PoolFlag::Full | PoolFlag::SelfManagedSnaps), _) => {
            return Err(Refusal::FlagOfTheMonitors { flag: flag.as_str() });
        }
        PoolSetting::Flag(flag, on) => pool.flags = pool.flags.with(*flag, *on),
        PoolSetting::Application(application) => {
            check_application(application)?;
            pool.application = application.clone();
        }
        PoolSetting::QuotaBytes(bytes) => pool.quota_bytes = *bytes,
        PoolSetting::QuotaObjects(objects) => pool.quota_objects = *objects,
        PoolSetting::Autoscale(on) => pool.autoscale = *on,
        PoolSetting::Name(new) => {
            check_name(new)?;
            if map.pool_by_name(new).is_some_and(|(other, _)| other != id) {
                return Err(Refusal::PoolExists { pool: new.clone() });
            }
            pool.name = new.clone();
        }
    }
    if pool != before {
        pool.last_change = epoch;
        draft.next.osd_map.pools.insert(id, pool);
    }
    Ok(Reply::Done)
}

fn remove(draft: &mut Draft<'_>, name: &str, confirm: &str) -> Result<Reply, Refusal> {
    let (id, pool) = draft.pool(name)?;
    if pool.flags.has(PoolFlag::NoDelete) {
        return Err(Refusal::PoolFlagSet { pool: name.to_owned(), flag: PoolFlag::NoDelete });
    }
    if confirm != name {
        return Err(Refusal::Unconfirmed { what: "remove with all its data", on: format!("pool '{name}'") });
    }
    draft.retain_pgs(|pg| pg.pool != id);
    draft.next.osd_map.pools.remove(&id);
    Ok(Reply::Done)
}

/// A pool's quota is used up, or no longer.
pub(super) fn set_full(draft: &mut Draft<'_>, id: PoolId, full: bool) -> Result<Reply, Refusal> {
    let epoch = draft.epoch();
    if let Some(pool) = draft.next.osd_map.pools.get_mut(&id)
        && pool.flags.has(PoolFlag::Full) != full
    {
        pool.flags = pool.flags.with(PoolFlag::Full, full);
        pool.last_change = epoch;
    }
    Ok(Reply::Done)
}
