//! Whether all holds: every now and then, and in the end.

use super::{Ev, Kind, LOOK_EVERY_MS, World};
use crate::plan::Proc;
use crate::timeline::Instant;
use cairn_osd::core::{Osd, Query, QueryAnswer};
use cairn_osd::persist::{Answering, Step};
use cairn_pg::{ListRange, PgStats, Position};
use cairn_store::device::Wait;
use cairn_store::{Event, ReadData, ReadError};
use cairn_types::{Epoch, OsdId, PgId};
use std::collections::BTreeMap;

/// How long after the last fault everything may take. An OSD that was marked down often is kept down by the
/// monitors for up to eight minutes; everything else takes seconds.
const SETTLE_MS: u64 = 600_000;
/// Looks between two checks of what clients saw.
const CHECK_EVERY_LOOKS: u64 = 8;

impl World {
    pub(super) fn look(&mut self) {
        self.line.after_us(LOOK_EVERY_MS * 1_000, Ev::Look);
        let now = self.now();
        let busy_until = Instant(0).plus_ms(self.shape.busy_ms);
        if (now.0 / (LOOK_EVERY_MS * 1_000)).is_multiple_of(CHECK_EVERY_LOOKS)
            && let Err(why) = self.checks.check()
        {
            return self.fail(Kind::Safety, why);
        }
        if now >= busy_until && !self.calm {
            return self.end_faults();
        }
        self.write_conf();
        if !self.calm {
            return;
        }
        let waits_for = self.unsettled();
        match waits_for {
            None => self.last_judgement(),
            // A disk that has rotted may have had the only copy of an object that was not being changed elsewhere.
            Some(_) if now.since_us(busy_until) > SETTLE_MS * 1_000 && self.has_lost_to_rot() => {
                self.log.say(now, None, || "an object has rotted where it was the last".to_owned());
                self.settled_at = Some(now);
            }
            Some(why) if now.since_us(busy_until) > SETTLE_MS * 1_000 => {
                self.fail(Kind::Liveness, format!("{} s after the last fault {why}", SETTLE_MS / 1_000));
            }
            Some(_) => {}
        }
    }

    /// What is not as it should be when nothing is wrong.
    fn unsettled(&self) -> Option<String> {
        if !self.is_idle() {
            return Some("the operator has no answer".to_owned());
        }
        if let Some((n, client)) = self.clients.iter().find(|(_, client)| client.in_flight() > 0) {
            let groups = self.group_states();
            return Some(format!("client.{n} waits for {} answers; {groups}", client.in_flight()));
        }
        if let Some(why) = self.mons_unsettled() {
            return Some(why);
        }
        if let Some(why) = self.images_unsettled() {
            return Some(why);
        }
        let epoch = self.checks.newest_epoch();
        if let Some(osd) = self.osds.keys().find(|osd| !self.is_up(**osd, epoch)) {
            return Some(format!("{osd} is not up"));
        }
        let clean = self.led().filter(|stats| stats.epoch == epoch && stats.state.clean).count();
        if clean != self.shape.pg_num as usize {
            return Some(format!("{clean} groups are clean; {}", self.group_states()));
        }
        None
    }

    fn has_lost_to_rot(&self) -> bool {
        self.osds.values().any(|node| node.hurt) && self.led().any(|stats| stats.state.recovery_unfound)
    }

    fn cores(&self) -> impl Iterator<Item = (OsdId, &Osd)> {
        self.osds.iter().filter_map(|(osd, node)| Some((*osd, node.core.as_ref()?)))
    }

    fn is_up(&self, osd: OsdId, epoch: Epoch) -> bool {
        let core = self.osds.get(&osd).and_then(|node| node.core.as_ref());
        let map = core.and_then(Osd::map);
        map.is_some_and(|map| map.epoch == epoch && map.is_up(osd))
    }

    /// What primaries say of their groups.
    pub(super) fn led(&self) -> impl Iterator<Item = PgStats> {
        self.cores().flat_map(|(_, core)| core.groups()).filter_map(|group| group.stats())
    }

    fn group_states(&self) -> String {
        let mut text = format!("newest map {}", self.checks.newest_epoch());
        for (osd, core) in self.cores() {
            text += &format!("; {osd} at {}", core.map().map_or(Epoch(0), |map| map.epoch));
            for group in core.groups() {
                text += &format!(" {}={:?}", group.pgid(), group.state());
                if let Some(stats) = group.stats() {
                    text += &format!("[{} up {:?} acting {:?}]", stats.state, stats.up, stats.acting);
                }
            }
        }
        text
    }

    fn last_judgement(&mut self) {
        if let Err(why) = self.checks.check() {
            return self.fail(Kind::Safety, why);
        }
        let acting: BTreeMap<PgId, Vec<OsdId>> = self.led().map(|stats| (stats.pgid, stats.acting)).collect();
        for (pgid, members) in acting {
            let mut first: Option<(OsdId, BTreeMap<String, String>)> = None;
            for osd in members {
                let copy = match self.copy_of(osd, pgid) {
                    Ok(copy) => copy,
                    // What has rotted is known by its checksum, and not read.
                    Err(_) if self.osds.get(&osd).is_some_and(|node| node.hurt) => continue,
                    Err(why) => return self.fail(Kind::Safety, format!("{pgid} on {osd}: {why}")),
                };
                if let Some(left) = copy.keys().find(|name| is_of_image(name)) {
                    let why = format!("{left} is left in {pgid} on {osd}, although its image was removed");
                    return self.fail(Kind::Safety, why);
                }
                match &first {
                    None => first = Some((osd, copy)),
                    Some((other, expected)) if *expected != copy => {
                        let differs = difference(expected, &copy);
                        let why = format!("{pgid} is clean and differs between {other} and {osd}: {differs}");
                        return self.fail(Kind::Safety, why);
                    }
                    Some(_) => {}
                }
            }
        }
        for (osd, node) in &self.osds {
            let findings = if node.hurt { Ok(Vec::new()) } else { node.disk.findings() };
            let why = match findings {
                Ok(findings) if findings.is_empty() => continue,
                Ok(findings) => findings.join("; "),
                Err(why) => why,
            };
            return self.fail(Kind::Safety, format!("the store of {osd} is not in order: {why}"));
        }
        let now = self.now();
        self.log.say(now, None, || "all is well".to_owned());
        self.settled_at = Some(now);
    }

    /// A whole copy of a group: version, data, attributes and omap of each object, as recovery would send it.
    fn copy_of(&mut self, osd: OsdId, pgid: PgId) -> Result<BTreeMap<String, String>, String> {
        let all = ListRange { begin: Position::Min, end: Position::Max, limit: None };
        let QueryAnswer::Listed(objects) = self.answer_now(osd, pgid, Query::List { range: all })? else {
            return Err("the list cannot be read".to_owned());
        };
        let mut copy = BTreeMap::new();
        for (object, version) in objects {
            let answer = self.answer_now(osd, pgid, Query::Object { object: object.clone() })?;
            let QueryAnswer::Object(Some((stored, blob))) = answer else {
                return Err(format!("{} cannot be read", object.name));
            };
            let mut hash = 0xcbf2_9ce4_8422_2325_u64;
            let data = blob.data.segments().iter().flat_map(|segment| segment.data());
            for byte in blob.meta.iter().chain(data) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            copy.insert(object.name.clone(), format!("{version:?} {stored:?} {hash:016x}"));
        }
        Ok(copy)
    }

    /// Asks a store and waits for it, outside of virtual time.
    fn answer_now(&mut self, osd: OsdId, pgid: PgId, query: Query) -> Result<QueryAnswer, String> {
        let node = self.osds.get_mut(&osd).ok_or("there is no such OSD")?;
        let engine = node.disk.engine().ok_or("the store is not open")?;
        let mut answering = Answering::new(pgid, query);
        loop {
            match answering.step(engine).map_err(|error| error.to_string())? {
                Step::Done(answer) => return Ok(answer),
                Step::Again(next) => answering = next,
                Step::Read(requests, reading) => {
                    let mut got: Vec<Option<Result<ReadData, ReadError>>> = Vec::new();
                    for (at, request) in requests.into_iter().enumerate() {
                        engine.read(u64::MAX - at as u64, request).map_err(|error| error.to_string())?;
                        got.push(None);
                    }
                    let mut events = Vec::new();
                    while got.iter().any(Option::is_none) {
                        engine.poll(Wait::Event, &mut events).map_err(|error| error.to_string())?;
                        for event in events.drain(..) {
                            if let Event::Read { token, result } = event
                                && let Some(slot) = got.get_mut((u64::MAX - token) as usize)
                            {
                                *slot = Some(result);
                            }
                        }
                    }
                    return reading
                        .finish(got.into_iter().flatten().collect())
                        .map_err(|error| error.to_string());
                }
            }
        }
    }

    /// The processes of the cluster, for whoever shows what each did last.
    pub fn processes(&self) -> Vec<Proc> {
        let mons = self.mons.keys().map(|n| Proc::Mon(*n));
        let osds = self.osds.keys().map(|osd| Proc::Osd(*osd));
        mons.chain(osds).chain(self.clients.keys().map(|n| Proc::Client(*n))).collect()
    }
}

/// Objects that go with their image; the pool's directory of images stays.
fn is_of_image(name: &str) -> bool {
    ["rbd_id.", "rbd_header.", "rbd_data."].iter().any(|prefix| name.starts_with(prefix))
}

fn difference(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> String {
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differing
        .take(3)
        .map(|name| format!("{name}: {:?} and {:?}", a.get(name), b.get(name)))
        .collect::<Vec<_>>()
        .join("; ")
}
