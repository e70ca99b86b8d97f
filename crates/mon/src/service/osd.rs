//! OSDs: made, up, down, in, out, gone.

use super::crush::{self, Location};
use super::limits::{MAX_MARK_DOWNS, MAX_OSD_ID, MAX_OSDS_PER_REQUEST};
use super::timing::{FLAP_HOLD_MAX_MS, FLAP_HOLD_MS, FLAP_LIMIT, FLAP_WINDOW_MS};
use super::{Config, Draft, OsdRecord, Refusal, Reply};
use cairn_types::{EntityAddr, Epoch, OsdFlag, OsdId, OsdInfo, OsdMap, OsdUuid, Ratio, Timestamp, Weight};
use serde::{Deserialize, Serialize};

/// What can be asked about OSDs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OsdCommand {
    /// Gives a new store a number and a place. Asked again for the same store it answers the same.
    Create {
        /// The store.
        uuid: OsdUuid,
        /// The number of a destroyed OSD that this one replaces, or a free one; chosen if not given.
        id: Option<OsdId>,
        /// Device class, such as `ssd`.
        class: Option<String>,
        /// CRUSH weight: TiB by convention.
        weight: Weight,
        /// Its place.
        location: Location,
    },
    /// An OSD says that it runs.
    Boot {
        /// Its number.
        osd: OsdId,
        /// Its store, which must be the one of that number.
        uuid: OsdUuid,
        /// Where clients reach it.
        public: EntityAddr,
        /// Where OSDs reach it.
        cluster: EntityAddr,
        /// Epochs `[begin, end)` after which it stopped cleanly, if it did.
        clean: Option<(Epoch, Epoch)>,
    },
    /// An OSD says that it is about to stop.
    Stopping {
        /// Its number.
        osd: OsdId,
        /// The run that stops.
        public: EntityAddr,
    },
    /// Takes OSDs out: their data goes elsewhere.
    Out {
        /// Which.
        osds: Vec<OsdId>,
    },
    /// Takes OSDs in again.
    In {
        /// Which.
        osds: Vec<OsdId>,
    },
    /// Marks OSDs down; one that runs comes back by itself.
    Down {
        /// Which.
        osds: Vec<OsdId>,
    },
    /// Gives up an OSD's store and keeps its number and place for a new one.
    Destroy {
        /// Which.
        osd: OsdId,
        /// That its data is gone for good is understood.
        confirmed: bool,
    },
    /// Removes an OSD and its place.
    Purge {
        /// Which.
        osd: OsdId,
        /// That its data is gone for good is understood.
        confirmed: bool,
    },
    /// Says that the data of an OSD that is down will not come back: peering stops waiting for it.
    Lost {
        /// Which.
        osd: OsdId,
        /// That writes only it has are lost is understood.
        confirmed: bool,
    },
    /// Gives an OSD a share of the data its CRUSH weight stands for, 0 to 1.
    Reweight {
        /// Which.
        osd: OsdId,
        /// The share.
        weight: Weight,
    },
    /// How readily an OSD is made primary, 0 to 1.
    PrimaryAffinity {
        /// Which.
        osd: OsdId,
        /// The share.
        affinity: Weight,
    },
    /// Puts an OSD at another place, or changes its CRUSH weight or class.
    CrushPlace {
        /// Which.
        osd: OsdId,
        /// A new CRUSH weight.
        weight: Option<Weight>,
        /// A new class.
        class: Option<String>,
        /// Its place.
        location: Location,
    },
    /// Replaces the whole CRUSH map by a binary one.
    CrushSet {
        /// The map.
        bytes: Vec<u8>,
    },
}

pub(super) fn run(draft: &mut Draft<'_>, command: &OsdCommand) -> Result<Reply, Refusal> {
    match command {
        OsdCommand::Create { uuid, id, class, weight, location } => {
            create(draft, *uuid, *id, class.as_deref(), *weight, location)
        }
        OsdCommand::Boot { osd, uuid, public, cluster, clean } => {
            boot(draft, *osd, *uuid, *public, *cluster, *clean)
        }
        OsdCommand::Stopping { osd, public } => {
            if draft.osd(*osd)?.public == Some(*public) {
                mark_down(draft, *osd, false)?;
            }
            Ok(Reply::Done)
        }
        OsdCommand::Out { osds } => for_each(draft, osds, |_, info| {
            info.weight = Weight::ZERO;
            info.weight_before_auto_out = None;
        }),
        OsdCommand::In { osds } => for_each(draft, osds, |_, info| take_in(info)),
        OsdCommand::Down { osds } => {
            check_count(osds)?;
            osds.iter().try_for_each(|&osd| mark_down(draft, osd, false))?;
            Ok(Reply::Done)
        }
        OsdCommand::Destroy { osd, confirmed } => destroy(draft, *osd, *confirmed),
        OsdCommand::Purge { osd, confirmed } => purge(draft, *osd, *confirmed),
        OsdCommand::Lost { osd, confirmed } => lost(draft, *osd, *confirmed),
        OsdCommand::Reweight { osd, weight } => {
            check_share(*weight)?;
            let info = draft.osd(*osd)?;
            info.weight = *weight;
            info.weight_before_auto_out = None;
            Ok(Reply::Done)
        }
        OsdCommand::PrimaryAffinity { osd, affinity } => {
            check_share(*affinity)?;
            draft.osd(*osd)?.primary_affinity = *affinity;
            Ok(Reply::Done)
        }
        OsdCommand::CrushPlace { osd, weight, class, location } => {
            draft.osd(*osd)?;
            crush::change(&mut draft.next.osd_map, |map| {
                crush::place_osd(map, *osd, *weight, class.as_deref(), location)
            })?;
            Ok(Reply::Done)
        }
        OsdCommand::CrushSet { bytes } => {
            let map = &mut draft.next.osd_map;
            let replacement = crush::replacement(bytes, map)?;
            if replacement.bytes() != map.crush.bytes() {
                map.crush = replacement;
            }
            Ok(Reply::Done)
        }
    }
}

fn create(
    draft: &mut Draft<'_>,
    uuid: OsdUuid,
    wanted: Option<OsdId>,
    class: Option<&str>,
    weight: Weight,
    location: &Location,
) -> Result<Reply, Refusal> {
    let osds = &draft.next.osd_map.osds;
    if let Some((&osd, _)) = osds.iter().find(|(_, info)| info.uuid == Some(uuid)) {
        return match wanted {
            Some(wanted) if wanted != osd => Err(Refusal::StoreHasNumber { osd, wanted }),
            _ => Ok(Reply::Osd { osd }),
        };
    }
    let free = || (0..=MAX_OSD_ID).map(OsdId).find(|osd| !osds.contains_key(osd));
    let osd =
        wanted.or_else(free).ok_or(Refusal::TooMany { what: "OSDs", limit: MAX_OSD_ID as usize + 1 })?;
    if !(0..=MAX_OSD_ID).contains(&osd.0) {
        return Err(Refusal::TooMany { what: "OSDs", limit: MAX_OSD_ID as usize + 1 });
    }
    let before = osds.get(&osd);
    if before.is_some_and(|before| !before.is_destroyed()) {
        return Err(Refusal::OsdExists { osd });
    }
    let lost_at = before.map_or(Epoch(0), |before| before.lost_at);
    let down_at = before.map_or(Epoch(0), |before| before.down_at);
    let no_in = draft.next.osd_map.flags.has(OsdFlag::NoIn);
    let weight_in = if no_in { Weight::ZERO } else { Weight::ONE };
    let info = OsdInfo { lost_at, down_at, weight: weight_in, ..OsdInfo::new(uuid) };
    draft.next.osd_map.osds.insert(osd, info);
    crush::change(&mut draft.next.osd_map, |map| crush::place_osd(map, osd, Some(weight), class, location))?;
    Ok(Reply::Osd { osd })
}

fn boot(
    draft: &mut Draft<'_>,
    osd: OsdId,
    uuid: OsdUuid,
    public: EntityAddr,
    cluster: EntityAddr,
    clean: Option<(Epoch, Epoch)>,
) -> Result<Reply, Refusal> {
    let (epoch, now, flags) = (draft.epoch(), draft.now, draft.next.osd_map.flags);
    let was_up = draft.base.osd_map().is_up(osd);
    let held_until = flapping_until(draft.next.osd_records.get(&osd), now);
    let blocked = [public, cluster].into_iter().find(|addr| draft.next.osd_map.is_blocklisted(addr));
    let info = *draft.osd(osd)?;
    match info.uuid {
        None => return Err(Refusal::OsdDestroyed { osd }),
        Some(known) if known != uuid => return Err(Refusal::OtherStore { osd, known, found: uuid }),
        Some(_) => {}
    }
    if info.public.is_some_and(|known| known.nonce > public.nonce) {
        return Err(Refusal::OldRun { osd, addr: public });
    }
    if info.up && (info.public, info.cluster) == (Some(public), Some(cluster)) {
        return Ok(Reply::Done);
    }
    if let Some(addr) = blocked {
        return Err(Refusal::Blocklisted { addr });
    }
    if info.up {
        mark_down(draft, osd, true)?;
        return Ok(Reply::BootLater { epoch });
    }
    if was_up {
        // Marked down by this very transaction: up again only in another epoch.
        return Ok(Reply::BootLater { epoch });
    }
    if flags.has(OsdFlag::NoUp) {
        return Err(Refusal::FlagSet { flag: OsdFlag::NoUp, osd });
    }
    if let Some(until) = held_until {
        return Err(Refusal::Flapping { osd, for_ms: until.since_ms(now) });
    }
    let info = draft.osd(osd)?;
    info.up = true;
    info.up_from = epoch;
    info.public = Some(public);
    info.cluster = Some(cluster);
    if let Some((begin, end)) = clean {
        // Taken only if it is an interval of the map's past and newer than the one known.
        if begin < end && end < epoch && begin >= info.last_clean_interval.0 {
            info.last_clean_interval = (begin, end);
        }
    }
    if !flags.has(OsdFlag::NoIn) && info.weight_before_auto_out.is_some() {
        take_in(info);
    }
    Ok(Reply::Done)
}

/// Until when an OSD is kept down because it failed too often lately.
pub(super) fn flapping_until(record: Option<&OsdRecord>, now: Timestamp) -> Option<Timestamp> {
    let recent = record?.mark_downs.iter().filter(|at| is_recent(**at, now));
    let last = *recent.clone().max()?;
    let over = recent.count().checked_sub(FLAP_LIMIT)?;
    let doubled = 1u64.checked_shl(over as u32).unwrap_or(u64::MAX);
    let until = last.plus_ms(FLAP_HOLD_MS.saturating_mul(doubled).min(FLAP_HOLD_MAX_MS));
    (until > now).then_some(until)
}

/// Whether a mark-down counts. What lies ahead was written by a wall clock that has been set back since: to wait
/// for it could take hours.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since_ms(at) < FLAP_WINDOW_MS
}

/// Marks an OSD down; `failed` counts it towards flapping. Stand-in sets that only had dead members go.
fn mark_down(draft: &mut Draft<'_>, osd: OsdId, failed: bool) -> Result<(), Refusal> {
    let (epoch, now) = (draft.epoch(), draft.now);
    // Up since this very transaction: nobody would see that run.
    let booted_now = !draft.base.osd_map().is_up(osd);
    let info = draft.osd(osd)?;
    if !info.up {
        return Ok(());
    }
    if booted_now {
        return Err(Refusal::Busy { osd });
    }
    info.up = false;
    info.down_at = epoch;
    if failed {
        let downs = &mut draft.next.osd_records.entry(osd).or_default().mark_downs;
        downs.retain(|at| is_recent(*at, now));
        downs.push(now);
        let excess = downs.len().saturating_sub(MAX_MARK_DOWNS);
        downs.drain(..excess);
    }
    let map = &mut draft.next.osd_map;
    let up: Vec<OsdId> = map.osds.iter().filter(|(_, info)| info.up).map(|(&osd, _)| osd).collect();
    map.pg_temp.retain(|_, set| set.iter().any(|member| up.binary_search(member).is_ok()));
    map.primary_temp.retain(|_, primary| *primary != osd);
    Ok(())
}

/// By the rules of failure reports, or for want of beacons, a run of an OSD is dead.
pub(super) fn failed(draft: &mut Draft<'_>, osd: OsdId, up_from: Epoch) -> Result<Reply, Refusal> {
    let no_down = draft.next.osd_map.flags.has(OsdFlag::NoDown);
    let info = draft.osd(osd)?;
    if !info.up || info.up_from != up_from {
        return Ok(Reply::Done);
    }
    if no_down {
        return Err(Refusal::FlagSet { flag: OsdFlag::NoDown, osd });
    }
    let (up, of, min) = up_share(&draft.next.osd_map, &draft.next.config);
    if !min.reached_by(up, of) {
        return Err(Refusal::TooFewUp { osd, up, of });
    }
    mark_down(draft, osd, true)?;
    Ok(Reply::Done)
}

/// OSDs that are up, those they are counted among, and the share from which on one may be marked down
/// by what others say or by its silence. One that is out and down does not count.
pub(super) fn up_share(map: &OsdMap, config: &Config) -> (u64, u64, Ratio) {
    let counted = map.osds.values().filter(|info| info.up || info.is_in()).count() as u64;
    (map.up_count() as u64, counted, config.share("mon_osd_min_up_ratio"))
}

/// OSDs that are in, all there are, and the share from which on one may be marked out.
pub(super) fn in_share(map: &OsdMap, config: &Config) -> (u64, u64, Ratio) {
    (map.in_count() as u64, map.osds.len() as u64, config.share("mon_osd_min_in_ratio"))
}

/// An OSD was down for long: out, remembering its weight.
pub(super) fn auto_out(draft: &mut Draft<'_>, osd: OsdId) -> Result<Reply, Refusal> {
    let no_out = draft.next.osd_map.flags.has(OsdFlag::NoOut);
    let info = draft.osd(osd)?;
    if info.up || !info.is_in() {
        return Ok(Reply::Done);
    }
    if no_out {
        return Err(Refusal::FlagSet { flag: OsdFlag::NoOut, osd });
    }
    let (still_in, of, min) = in_share(&draft.next.osd_map, &draft.next.config);
    if !min.reached_by(still_in, of) {
        return Err(Refusal::TooFewIn { osd, still_in, of });
    }
    let info = draft.osd(osd)?;
    info.weight_before_auto_out = Some(info.weight);
    info.weight = Weight::ZERO;
    Ok(Reply::Done)
}

fn take_in(info: &mut OsdInfo) {
    if !info.is_in() {
        info.weight = info.weight_before_auto_out.take().unwrap_or(Weight::ONE);
    }
}

fn destroy(draft: &mut Draft<'_>, osd: OsdId, confirmed: bool) -> Result<Reply, Refusal> {
    let epoch = draft.epoch();
    let info = draft.osd(osd)?;
    if info.is_destroyed() {
        return Ok(Reply::Done);
    }
    check_gone(osd, info, confirmed, "destroy")?;
    // Its data is gone with its store: peering must not wait for it.
    info.lost_at = epoch;
    info.uuid = None;
    info.public = None;
    info.cluster = None;
    info.primary_affinity = Weight::ONE;
    draft.next.osd_records.remove(&osd);
    Ok(Reply::Done)
}

fn purge(draft: &mut Draft<'_>, osd: OsdId, confirmed: bool) -> Result<Reply, Refusal> {
    check_gone(osd, draft.osd(osd)?, confirmed, "purge")?;
    draft.next.osd_records.remove(&osd);
    let map = &mut draft.next.osd_map;
    map.osds.remove(&osd);
    for set in map.pg_temp.values_mut().chain(map.upmap.values_mut()) {
        set.retain(|member| *member != osd);
    }
    map.pg_temp.retain(|_, set| !set.is_empty());
    map.upmap.retain(|_, set| !set.is_empty());
    map.primary_temp.retain(|_, primary| *primary != osd);
    for items in map.upmap_items.values_mut() {
        items.retain(|(from, to)| *from != osd && *to != osd);
    }
    map.upmap_items.retain(|_, items| !items.is_empty());
    crush::change(map, |crush| crush::remove_osd(crush, osd))?;
    Ok(Reply::Done)
}

fn lost(draft: &mut Draft<'_>, osd: OsdId, confirmed: bool) -> Result<Reply, Refusal> {
    let epoch = draft.epoch();
    let info = draft.osd(osd)?;
    check_gone(osd, info, confirmed, "declare lost")?;
    info.lost_at = epoch;
    Ok(Reply::Done)
}

fn check_gone(osd: OsdId, info: &OsdInfo, confirmed: bool, what: &'static str) -> Result<(), Refusal> {
    if info.up {
        return Err(Refusal::OsdUp { osd, what });
    }
    if confirmed { Ok(()) } else { Err(Refusal::Unconfirmed { what, on: osd.to_string() }) }
}

fn check_share(weight: Weight) -> Result<(), Refusal> {
    if weight <= Weight::ONE { Ok(()) } else { Err(Refusal::NoShare { found: weight }) }
}

fn check_count(osds: &[OsdId]) -> Result<(), Refusal> {
    if osds.len() <= MAX_OSDS_PER_REQUEST {
        return Ok(());
    }
    Err(Refusal::TooMany { what: "OSDs in one command", limit: MAX_OSDS_PER_REQUEST })
}

fn for_each(
    draft: &mut Draft<'_>,
    osds: &[OsdId],
    change: impl Fn(OsdId, &mut OsdInfo),
) -> Result<Reply, Refusal> {
    check_count(osds)?;
    for &osd in osds {
        change(osd, draft.osd(osd)?);
    }
    Ok(Reply::Done)
}
