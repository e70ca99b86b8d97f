//! Bounds of what the monitors take in and keep. All are far above what a cluster needs; they are here so
//! that a mistake or a lying message cannot fill the monitors.

/// Pools.
pub const MAX_POOLS: usize = 1 << 10;
/// Largest OSD number.
pub const MAX_OSD_ID: i32 = (1 << 16) - 1;
/// Placement groups of one pool: Ceph's `mon_max_pool_pg_num`.
pub const MAX_PG_NUM: u32 = 1 << 16;
/// Copies of one pool.
pub const MAX_POOL_SIZE: u8 = 10;
/// Bytes of a pool's or an application's name.
pub const NAME_LEN_MAX: usize = 128;
/// Entries of the blocklist.
pub const MAX_BLOCKLIST: usize = 1 << 14;
/// Longest time in the blocklist: ten years.
pub const MAX_BLOCKLIST_MS: u64 = 10 * 365 * 86_400_000;
/// Bytes of a setting's value.
pub const CONFIG_VALUE_LEN_MAX: usize = 1 << 10;
/// Completed requests that are remembered: at a thousand commands a minute, a quarter of an hour.
pub const MAX_REMEMBERED: usize = 1 << 14;
/// Settings.
pub const MAX_SETTINGS: usize = 1 << 14;
/// Entities that may connect.
pub const MAX_ENTITIES: usize = 1 << 16;
/// Monitors: more only cost time, and an even number survives no more than the odd one below it.
pub const MAX_MONITORS: usize = 9;
/// Addresses of one monitor.
pub const MAX_ADDRS: usize = 4;
/// Mgrs.
pub const MAX_MGRS: usize = 32;
/// Groups one `pg_temp` request may name.
pub const MAX_PGS_PER_REQUEST: usize = 1 << 12;
/// OSDs one command may name.
pub const MAX_OSDS_PER_REQUEST: usize = 1 << 12;
/// Levels of a CRUSH location.
pub const MAX_LOCATION_LEVELS: usize = 12;
/// Reporters remembered for one OSD.
pub const MAX_REPORTERS: usize = 64;
/// Mark-downs remembered for one OSD.
pub const MAX_MARK_DOWNS: usize = 16;
/// Increments sent in one message.
pub const MAX_MAPS_PER_MESSAGE: u32 = 40;
/// Epochs trimmed in one transaction.
pub const MAX_TRIM_PER_TRANSACTION: u32 = 256;
/// Lines of detail of one health check.
pub const MAX_DETAIL_LINES: usize = 50;
