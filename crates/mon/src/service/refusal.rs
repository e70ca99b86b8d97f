//! Why the monitors refuse a request: what failed, on what, what to do.

use super::ConfigSection;
use cairn_crush::build::EditError;
use cairn_types::{
    EntityAddr, EntityName, Epoch, MapFault, OsdFlag, OsdId, OsdUuid, PgId, PoolFlag, Ratio, Weight,
};
use cairn_wire::ErrorCode;
use thiserror::Error;

/// Why a request is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[allow(missing_docs)] // The sentence of each variant says what it and its fields are.
pub enum Refusal {
    #[error("{osd} does not exist; `cairn osd ls` lists those that do")]
    NoOsd { osd: OsdId },
    #[error("{osd} exists already; destroy it first, or leave the number out to get a free one")]
    OsdExists { osd: OsdId },
    #[error("the store is {osd} already and cannot be {wanted} too; start it as {osd}")]
    StoreHasNumber { osd: OsdId, wanted: OsdId },
    #[error("{osd} was destroyed; make a store for it with `cairn osd create --id {}`", .osd.0)]
    OsdDestroyed { osd: OsdId },
    #[error(
        "{osd} has store {known}, but the one that starts is {found}; check which disk is which, or destroy {osd} and create it anew"
    )]
    OtherStore { osd: OsdId, known: OsdUuid, found: OsdUuid },
    #[error("{osd} at {addr} is an earlier run than the one the map knows; restart it")]
    OldRun { osd: OsdId, addr: EntityAddr },
    #[error(
        "{addr} is in the blocklist; remove the entry with `cairn osd blocklist rm {addr}` if it may come back"
    )]
    Blocklisted { addr: EntityAddr },
    #[error("{osd} stays as it is while flag '{flag}' is set; clear it with `cairn osd unset {flag}`")]
    FlagSet { flag: OsdFlag, osd: OsdId },
    #[error("{osd} went down too often lately and is kept down for another {} s; look at its disk, its network and its log", .for_ms.div_ceil(1000))]
    Flapping { osd: OsdId, for_ms: u64 },
    #[error("{osd} changes in this very moment; try again")]
    Busy { osd: OsdId },
    #[error("{osd} is not up in the map; it must boot first")]
    OsdNotUp { osd: OsdId },
    #[error("cannot {what} {osd} while it is up; stop it first")]
    OsdUp { osd: OsdId, what: &'static str },
    #[error("to {what} {on} cannot be undone; confirm it")]
    Unconfirmed { what: &'static str, on: String },
    #[error("{found} is no share; give a number from 0 to 1")]
    NoShare { found: Weight },
    #[error("a place is given as type=name for each level, each type once, such as root=default host=n1")]
    BadLocation,
    #[error("'{name}' exists and is no {kind}; choose another name")]
    NotThatType { name: String, kind: String },
    #[error("the CRUSH map is not changed: {0}")]
    Crush(#[from] EditError),
    #[error("the CRUSH map cannot be used: {why}")]
    BadCrush { why: String },
    #[error("there is no CRUSH rule '{rule}'; there are: {known}")]
    NoRule { rule: String, known: String },
    #[error("pool '{pool}' does not exist; `cairn pool ls` lists those that do")]
    NoPool { pool: String },
    #[error("pool '{pool}' exists already; choose another name")]
    PoolExists { pool: String },
    #[error("pool '{pool}' has flag '{flag}' set; clear it first with `cairn pool set {pool} {flag} false`")]
    PoolFlagSet { pool: String, flag: PoolFlag },
    #[error(
        "size {size} with min_size {min_size} cannot be: size is 1 to 10, min_size 1 to size; change the other one first"
    )]
    BadSizes { size: u8, min_size: u8 },
    #[error("{found} placement groups cannot be: give 1 to 65536")]
    BadPgNum { found: u32 },
    #[error(
        "{pg_num} placement groups would make {per_osd} on each of {osds} OSDs, more than 250; give fewer or add OSDs"
    )]
    TooManyPgs { pg_num: u32, per_osd: u64, osds: u64 },
    #[error(
        "pool '{pool}' has {have} placement groups, and a pool keeps the number it was made with; make another pool with `cairn pool create --pg-num N` and copy the data"
    )]
    PgNumFixed { pool: String, have: u32 },
    #[error("flag '{flag}' is set and cleared by the monitors themselves")]
    FlagOfTheMonitors { flag: &'static str },
    #[error(
        "'{name}' cannot be a name: use letters, digits, '-', '_' and '.', not in front, at most 64 for daemons and 128 for pools"
    )]
    BadName { name: String },
    #[error("there is no placement group {pg}; `cairn pg ls` lists them")]
    NoPg { pg: PgId },
    #[error("a set for {pg} names 1 to {size} different OSDs")]
    BadSet { pg: PgId, size: u8 },
    #[error("{found} is not made yet, the newest is {have}; wait for it")]
    FutureEpoch { found: Epoch, have: Epoch },
    #[error(
        "nearfull {nearfull}, backfillfull {backfillfull}, full {full} cannot be: each must be at least the one before, and at most 1"
    )]
    BadRatios { nearfull: Ratio, backfillfull: Ratio, full: Ratio },
    #[error("a blocklist entry lasts from 1 to {most_ms} ms, not {found_ms}")]
    BadDuration { found_ms: u64, most_ms: u64 },
    #[error("{addr} is not in the blocklist; `cairn osd blocklist ls` shows it")]
    NotBlocked { addr: EntityAddr },
    #[error("there is no option '{option}'; there are: {known}")]
    NoOption { option: String, known: String },
    #[error("option {option} cannot be '{value}': give {wanted}")]
    BadValue { option: &'static str, value: String, wanted: String },
    #[error("option '{option}' is not set for {section}; nothing to remove")]
    NotSet { option: String, section: ConfigSection },
    #[error("mon.{name} does not exist; `cairn mon ls` lists those that do")]
    NoMon { name: String },
    #[error("mon.{name} exists at other addresses; remove it first")]
    MonExists { name: String },
    #[error("mon.{name} is the last monitor; add another one first")]
    LastMon { name: String },
    #[error("mon.{name} has one of these addresses; give another port or host")]
    AddrTaken { name: String },
    #[error("a monitor has 1 to {most} addresses, not {found}")]
    BadAddrs { found: usize, most: usize },
    #[error(
        "mon.{name} joins at the moment, and one monitor changes at a time; try again when `cairn mon ls` shows that it does no more, or take it back with `cairn mon rm {name}`"
    )]
    MonJoins { name: String },
    #[error(
        "mon.{name} leaves at the moment, and one monitor changes at a time; try again when `cairn mon ls` does not show it any more"
    )]
    MonLeaves { name: String },
    #[error("{name} is not on the list of those who may connect; `cairn auth ls` shows it")]
    NoEntity { name: EntityName },
    #[error("too many {what}: at most {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "{osd} stays up in the map: only {up} of {of} OSDs are up, below mon_osd_min_up_ratio, so the network is the likelier fault; look at it first"
    )]
    TooFewUp { osd: OsdId, up: u64, of: u64 },
    #[error("{osd} stays in: only {still_in} of {of} OSDs are in, below mon_osd_min_in_ratio; take it out by hand with `cairn osd out {}` if its data is to be copied", .osd.0)]
    TooFewIn { osd: OsdId, still_in: u64, of: u64 },
    #[error(
        "the request was first sent at version {born}, and what was done before version {oldest} is forgotten; look whether it was done, then send it anew"
    )]
    TooOld { born: u64, oldest: u64 },
    #[error(
        "the request says it was first sent at version {born}, but the cluster is at {have}; is it meant for another cluster?"
    )]
    BornInFuture { born: u64, have: u64 },
    #[error("{epoch} of the OSD map is not kept; those from {first} to {last} are")]
    NoEpoch { epoch: Epoch, first: Epoch, last: Epoch },
    #[error("the request carries no id, so it could be done twice; send it with one")]
    NoId,
    #[error("only the leading monitor decides this, by itself")]
    NotYours,
    #[error("the change takes {len_bytes} bytes, more than {most_bytes}; split it")]
    TooLarge { len_bytes: usize, most_bytes: usize },
    #[error("the change would make a map that cannot be: {0}")]
    Map(#[from] MapFault),
}

impl Refusal {
    /// The code programs see; people read the sentence.
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::NoOsd { .. }
            | Refusal::NoPool { .. }
            | Refusal::NoPg { .. }
            | Refusal::NoRule { .. }
            | Refusal::NoOption { .. }
            | Refusal::NoMon { .. }
            | Refusal::NoEntity { .. }
            | Refusal::NoEpoch { .. }
            | Refusal::NotBlocked { .. }
            | Refusal::NotSet { .. } => ErrorCode::NOENT,
            Refusal::OsdExists { .. }
            | Refusal::PoolExists { .. }
            | Refusal::MonExists { .. }
            | Refusal::AddrTaken { .. }
            | Refusal::StoreHasNumber { .. } => ErrorCode::EXIST,
            Refusal::Unconfirmed { .. }
            | Refusal::NotYours
            | Refusal::FlagOfTheMonitors { .. }
            | Refusal::PoolFlagSet { .. } => ErrorCode::PERM,
            Refusal::Blocklisted { .. } => ErrorCode::BLOCKLISTED,
            Refusal::OldRun { .. } | Refusal::TooOld { .. } => ErrorCode::STALE,
            Refusal::OsdUp { .. } | Refusal::LastMon { .. } => ErrorCode::BUSY,
            Refusal::FlagSet { .. }
            | Refusal::Flapping { .. }
            | Refusal::Busy { .. }
            | Refusal::OsdNotUp { .. }
            | Refusal::FutureEpoch { .. }
            | Refusal::TooFewUp { .. }
            | Refusal::TooFewIn { .. }
            | Refusal::MonJoins { .. }
            | Refusal::MonLeaves { .. } => ErrorCode::AGAIN,
            Refusal::TooMany { .. } | Refusal::TooManyPgs { .. } => ErrorCode::RANGE,
            Refusal::PgNumFixed { .. } => ErrorCode::OPNOTSUPP,
            Refusal::TooLarge { .. } => ErrorCode::OVERFLOW,
            Refusal::OsdDestroyed { .. }
            | Refusal::OtherStore { .. }
            | Refusal::NoShare { .. }
            | Refusal::BadLocation
            | Refusal::NotThatType { .. }
            | Refusal::Crush(_)
            | Refusal::BadCrush { .. }
            | Refusal::BadSizes { .. }
            | Refusal::BadPgNum { .. }
            | Refusal::BadName { .. }
            | Refusal::BadSet { .. }
            | Refusal::BadRatios { .. }
            | Refusal::BadDuration { .. }
            | Refusal::BadValue { .. }
            | Refusal::BadAddrs { .. }
            | Refusal::BornInFuture { .. }
            | Refusal::NoId
            | Refusal::Map(_) => ErrorCode::INVAL,
        }
    }
}
