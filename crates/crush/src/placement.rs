//! From an object to its OSDs, as Ceph's OSD map goes: name → placement group → raw → up → acting.
//!
//! The steps and their order are those of `OSDMap::_pg_to_up_acting_osds` (Ceph's `src/osd/OSDMap.cc`).

mod map;

use crate::hash::{hash_bytes, hash2};
use crate::{NO_ITEM, Placer, Scratch};
use cairn_types::{OsdId, PgId, PoolId, Weight};
use std::collections::BTreeMap;

/// Between namespace and name in what is hashed.
const NAMESPACE_SEPARATOR: u8 = 0x1f;

/// What placement needs to know of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Its number.
    pub id: PoolId,
    /// Replicas, or chunks of an erasure code.
    pub size: u32,
    /// Placement groups; above 0.
    pub pg_num: u32,
    /// Placement groups that are placed apart from each other; above 0 and not above `pg_num`.
    pub pgp_num: u32,
    /// Number of its CRUSH rule.
    pub rule: usize,
    /// Whether positions mean something, so that an OSD that is lost leaves a hole (erasure codes). In a replicated
    /// pool the others move up.
    pub is_positional: bool,
    /// Whether the pool's number is hashed into the placement (Ceph's `hashpspool`, on for every pool since
    /// 2013). Without, the groups of all pools fall on the same OSDs.
    pub is_seeded: bool,
}

impl Pool {
    /// The group of an object by the hash of its name.
    pub fn pg_of_hash(&self, hash: u32) -> PgId {
        PgId { pool: self.id, seed: stable_mod(hash, self.pg_num) }
    }

    /// What CRUSH is given for a group, or for the whole hash of an object in it.
    pub fn placement_seed(&self, seed: u32) -> u32 {
        let seed = stable_mod(seed, self.pgp_num);
        // Ceph mixes in the lower half of the number.
        let pool = self.id.0 as u32;
        if self.is_seeded { hash2(seed, pool) } else { seed.wrapping_add(pool) }
    }
}

/// The hash that places an object: of its locator key if it has one, else of its name, with the namespace
/// in front if there is one.
pub fn object_hash(namespace: &str, key: &str, name: &str) -> u32 {
    let placed_by = if key.is_empty() { name } else { key };
    match namespace {
        "" => hash_bytes(&[placed_by.as_bytes()]),
        _ => hash_bytes(&[namespace.as_bytes(), &[NAMESPACE_SEPARATOR], placed_by.as_bytes()]),
    }
}

/// `x` modulo `count` in a way that stays as it is for most `x` when `count` grows by one: only what falls to the
/// new number moves. `count` is above 0.
pub fn stable_mod(x: u32, count: u32) -> u32 {
    let mask = u32::MAX.checked_shr((count - 1).leading_zeros()).unwrap_or(0);
    if x & mask < count { x & mask } else { x & (mask >> 1) }
}

/// What placement needs to know of an OSD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OsdState {
    /// Whether there is such an OSD.
    pub exists: bool,
    /// Whether it answers.
    pub is_up: bool,
    /// In-weight: 1.0 is fully in, 0 out.
    pub weight: Weight,
    /// Share of its groups it is willing to lead, 1.0 for all.
    pub primary_affinity: Weight,
}

impl OsdState {
    /// Up, in and willing.
    pub const READY: OsdState =
        OsdState { exists: true, is_up: true, weight: Weight::ONE, primary_affinity: Weight::ONE };
    /// There is none.
    pub const ABSENT: OsdState =
        OsdState { exists: false, is_up: false, weight: Weight::ZERO, primary_affinity: Weight::ONE };
}

/// All OSDs by number, with their weights side by side for CRUSH.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Osds {
    states: Vec<OsdState>,
    weights: Vec<Weight>,
}

impl Osds {
    /// From the states by number.
    pub fn new(states: Vec<OsdState>) -> Self {
        let weights = states.iter().map(|state| state.weight).collect();
        Osds { states, weights }
    }

    /// The state of an OSD; [`OsdState::ABSENT`] beyond the last one and for [`NO_ITEM`].
    pub fn state(&self, osd: i32) -> OsdState {
        let state = usize::try_from(osd).ok().and_then(|osd| self.states.get(osd));
        state.copied().unwrap_or(OsdState::ABSENT)
    }

    /// Changes the state of an OSD, which may be a new one.
    pub fn set(&mut self, osd: OsdId, state: OsdState) {
        let Ok(index) = usize::try_from(osd.0) else { return };
        if self.states.len() <= index {
            self.states.resize(index + 1, OsdState::ABSENT);
            self.weights.resize(index + 1, Weight::ZERO);
        }
        self.states[index] = state;
        self.weights[index] = state.weight;
    }

    /// In-weights by number.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    fn is_up(&self, osd: i32) -> bool {
        let state = self.state(osd);
        state.exists && state.is_up
    }

    /// Whether an override may name the OSD: not if it is known and out.
    fn is_out(&self, osd: i32) -> bool {
        usize::try_from(osd).ok().and_then(|osd| self.weights.get(osd)).is_some_and(|&weight| weight.0 == 0)
    }
}

/// Where groups are placed otherwise than CRUSH would.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// All OSDs of a group (`pg-upmap`). Ignored while any of them is out.
    pub upmap: BTreeMap<PgId, Vec<i32>>,
    /// One OSD of a group for another (`pg-upmap-items`), in order. A pair is ignored while its second OSD
    /// is out or holds the group already.
    pub upmap_items: BTreeMap<PgId, Vec<(i32, i32)>>,
    /// Who acts for a group in place of the up set, until that is ready.
    pub pg_temp: BTreeMap<PgId, Vec<i32>>,
    /// Who leads a group in place of the first.
    pub primary_temp: BTreeMap<PgId, OsdId>,
}

/// Where one group is. Keep it and map the next group into it: it takes no memory once it has grown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PgMapping {
    /// By CRUSH and the upmaps, down OSDs included. [`NO_ITEM`] is a hole, here and below.
    pub raw: Vec<i32>,
    /// Who should hold it now.
    pub up: Vec<i32>,
    /// Who should lead it.
    pub up_primary: Option<OsdId>,
    /// Who holds it now.
    pub acting: Vec<i32>,
    /// Who leads it.
    pub acting_primary: Option<OsdId>,
}

/// The parts of an OSD map that place groups.
#[derive(Clone, Copy)]
pub struct Placement<'a> {
    /// The CRUSH map.
    pub placer: &'a Placer,
    /// The OSDs.
    pub osds: &'a Osds,
    /// What is placed otherwise.
    pub overrides: &'a Overrides,
}

impl Placement<'_> {
    /// Maps the group with a seed, or that of an object with a hash.
    pub fn map(&self, pool: &Pool, seed: u32, scratch: &mut Scratch, mapping: &mut PgMapping) {
        let pg = pool.pg_of_hash(seed);
        let placement_seed = pool.placement_seed(seed);
        self.map_raw(pool, placement_seed, scratch, &mut mapping.raw);
        self.apply_upmap(pg, &mut mapping.raw);

        mapping.up.clear();
        for &osd in &mapping.raw {
            match (self.osds.is_up(osd), pool.is_positional) {
                (true, _) => mapping.up.push(osd),
                (false, true) => mapping.up.push(NO_ITEM),
                (false, false) => {}
            }
        }
        mapping.up_primary = first_of(&mapping.up);
        self.apply_affinity(pool, placement_seed, mapping);

        mapping.acting.clear();
        for &osd in self.overrides.pg_temp.get(&pg).map_or(&[][..], Vec::as_slice) {
            match (self.osds.is_up(osd), pool.is_positional) {
                (true, _) => mapping.acting.push(osd),
                (false, true) => mapping.acting.push(NO_ITEM),
                (false, false) => {}
            }
        }
        let primary_temp = self.overrides.primary_temp.get(&pg).copied();
        mapping.acting_primary = primary_temp.or_else(|| first_of(&mapping.acting));
        if mapping.acting.is_empty() {
            mapping.acting.extend_from_slice(&mapping.up);
            mapping.acting_primary = mapping.acting_primary.or(mapping.up_primary);
        }
    }

    /// What CRUSH says, without OSDs that do not exist.
    fn map_raw(&self, pool: &Pool, placement_seed: u32, scratch: &mut Scratch, raw: &mut Vec<i32>) {
        let choose_args = self.placer.choose_args(pool.id.0);
        let weights = self.osds.weights();
        let size = pool.size as usize;
        let placed = self.placer.place(pool.rule, placement_seed as i32, size, weights, choose_args, scratch);
        raw.clear();
        for &osd in placed {
            match (self.osds.state(osd).exists, pool.is_positional) {
                (true, _) => raw.push(osd),
                (false, true) => raw.push(NO_ITEM),
                (false, false) => {}
            }
        }
    }

    fn apply_upmap(&self, pg: PgId, raw: &mut Vec<i32>) {
        if let Some(wanted) = self.overrides.upmap.get(&pg) {
            if wanted.iter().any(|&osd| osd != NO_ITEM && self.osds.is_out(osd)) {
                return;
            }
            raw.clear();
            raw.extend_from_slice(wanted);
        }
        for &(from, to) in self.overrides.upmap_items.get(&pg).map_or(&[][..], Vec::as_slice) {
            if raw.contains(&to) || to != NO_ITEM && self.osds.is_out(to) {
                continue;
            }
            if let Some(place) = raw.iter_mut().find(|osd| **osd == from) {
                *place = to;
            }
        }
    }

    /// Passes over OSDs that would rather not lead, by their share and a hash of group and OSD; the first one
    /// leads if all would rather not.
    fn apply_affinity(&self, pool: &Pool, placement_seed: u32, mapping: &mut PgMapping) {
        let affinity = |osd: i32| self.osds.state(osd).primary_affinity;
        if mapping.up.iter().all(|&osd| osd == NO_ITEM || affinity(osd) == Weight::ONE) {
            return;
        }
        let is_willing = |osd: i32| {
            let affinity = affinity(osd);
            affinity >= Weight::ONE || hash2(placement_seed, osd as u32) >> 16 < affinity.0
        };
        let is_osd = |osd: i32| osd != NO_ITEM;
        let willing = mapping.up.iter().position(|&osd| is_osd(osd) && is_willing(osd));
        let Some(place) = willing.or_else(|| mapping.up.iter().position(|&osd| is_osd(osd))) else { return };
        mapping.up_primary = Some(OsdId(mapping.up[place]));
        if !pool.is_positional {
            mapping.up[..=place].rotate_right(1);
        }
    }
}

fn first_of(osds: &[i32]) -> Option<OsdId> {
    osds.iter().find(|&&osd| osd != NO_ITEM).map(|&osd| OsdId(osd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{ReplicaMode, SimpleRule};
    use crate::{Algorithm, CrushMap, Tunables};

    const OSDS: i32 = 8;

    fn placer() -> Placer {
        let mut map = CrushMap::new(Tunables::default());
        let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
        for osd in 0..OSDS {
            map.add_device(osd, &format!("osd.{osd}"), Weight::ONE, None, root).unwrap();
        }
        for (name, mode) in [("replicated", ReplicaMode::Firstn), ("erasure", ReplicaMode::Indep)] {
            let rule = SimpleRule {
                name,
                root: "default",
                failure_domain: "osd",
                class: None,
                mode,
                is_erasure: false,
            };
            map.add_simple_rule(&rule).unwrap();
        }
        Placer::new(&map).unwrap()
    }

    fn pool(is_positional: bool) -> Pool {
        Pool {
            id: PoolId(3),
            size: 3,
            pg_num: 64,
            pgp_num: 64,
            rule: usize::from(is_positional),
            is_positional,
            is_seeded: true,
        }
    }

    fn map(pool: &Pool, seed: u32, osds: &Osds, overrides: &Overrides) -> PgMapping {
        let placer = placer();
        let mut mapping = PgMapping::default();
        Placement { placer: &placer, osds, overrides }.map(pool, seed, &mut Scratch::new(), &mut mapping);
        mapping
    }

    fn all_ready() -> Osds {
        Osds::new(vec![OsdState::READY; OSDS as usize])
    }

    #[test]
    fn names_are_hashed_with_namespace_and_key() {
        assert_eq!(object_hash("", "", "x"), 0xd6d9_af33);
        assert_eq!(object_hash("ns1", "", "x"), 0x5850_e139);
        assert_eq!(object_hash("ns1", "x", "anything"), 0x5850_e139);
        assert_eq!(object_hash("", "", "obj1"), 0x6cf8_deff);
    }

    #[test]
    fn stable_mod_moves_only_what_falls_to_the_new_number() {
        for count in 1..300 {
            for x in 0..2000 {
                let (before, after) = (stable_mod(x, count), stable_mod(x, count + 1));
                assert!(before < count && (after == before || after == count), "{x} {count}");
            }
        }
        assert_eq!(stable_mod(u32::MAX, u32::MAX), 0x7fff_ffff);
        assert_eq!(stable_mod(12, 1), 0);
    }

    #[test]
    fn a_down_osd_leaves_a_hole_or_the_others_move_up() {
        for is_positional in [false, true] {
            let pool = pool(is_positional);
            let whole = map(&pool, 5, &all_ready(), &Overrides::default());
            assert_eq!((whole.raw.len(), &whole.acting), (3, &whole.up));
            let mut osds = all_ready();
            osds.set(OsdId(whole.up[0]), OsdState { is_up: false, ..OsdState::READY });
            let mapping = map(&pool, 5, &osds, &Overrides::default());
            assert_eq!(mapping.raw, whole.raw);
            let rest = &whole.up[1..];
            let expected = if is_positional { [&[NO_ITEM], rest].concat() } else { rest.to_vec() };
            assert_eq!(mapping.up, expected);
            assert_eq!(mapping.up_primary, Some(OsdId(whole.up[1])));
        }
    }

    #[test]
    fn upmaps_apply_while_their_targets_are_in() {
        let pool = pool(false);
        let pg = pool.pg_of_hash(9);
        let mut osds = all_ready();
        let crush = map(&pool, 9, &osds, &Overrides::default()).raw;
        let spare: Vec<i32> = (0..OSDS).filter(|osd| !crush.contains(osd)).collect();
        let mut overrides = Overrides::default();
        overrides
            .upmap_items
            .insert(pg, vec![(crush[1], spare[0]), (crush[2], crush[0]), (spare[1], spare[2])]);
        // The second pair would give one OSD twice, the third starts from an OSD that is not there.
        assert_eq!(map(&pool, 9, &osds, &overrides).up, [crush[0], spare[0], crush[2]]);
        overrides.upmap.insert(pg, vec![spare[1], crush[1], spare[2]]);
        assert_eq!(map(&pool, 9, &osds, &overrides).up, [spare[1], spare[0], spare[2]]);
        osds.set(OsdId(spare[0]), OsdState { weight: Weight::ZERO, ..OsdState::READY });
        assert_eq!(map(&pool, 9, &osds, &overrides).up, [spare[1], crush[1], spare[2]]);
        osds.set(OsdId(spare[2]), OsdState { weight: Weight::ZERO, ..OsdState::READY });
        let raw = map(&pool, 9, &osds, &Overrides::default()).raw;
        assert_eq!(map(&pool, 9, &osds, &overrides).up, raw);
    }

    #[test]
    fn an_osd_without_affinity_leads_only_when_none_other_can() {
        for is_positional in [false, true] {
            let pool = pool(is_positional);
            let plain = map(&pool, 7, &all_ready(), &Overrides::default()).up;
            let mut osds = all_ready();
            let unwilling = OsdState { primary_affinity: Weight::ZERO, ..OsdState::READY };
            osds.set(OsdId(plain[0]), unwilling);
            let mapping = map(&pool, 7, &osds, &Overrides::default());
            assert_eq!(mapping.up_primary, Some(OsdId(plain[1])));
            let moved = [plain[1], plain[0], plain[2]];
            assert_eq!(mapping.up, if is_positional { plain.clone() } else { moved.to_vec() });
            let mapping = map(&pool, 7, &Osds::new(vec![unwilling; OSDS as usize]), &Overrides::default());
            assert_eq!((mapping.up_primary, mapping.up), (Some(OsdId(plain[0])), plain));
        }
    }

    #[test]
    fn half_an_affinity_leads_half_as_often() {
        let pool = Pool { pg_num: 4096, pgp_num: 4096, ..pool(false) };
        let half = OsdState { primary_affinity: Weight(0x8000), ..OsdState::READY };
        let mut osds = all_ready();
        osds.set(OsdId(0), half);
        let (placer, overrides) = (placer(), Overrides::default());
        let (mut scratch, mut mapping) = (Scratch::new(), PgMapping::default());
        let mut led = [0_u32; 2];
        for seed in 0..pool.pg_num {
            for (led, osds) in led.iter_mut().zip([&all_ready(), &osds]) {
                Placement { placer: &placer, osds, overrides: &overrides }.map(
                    &pool,
                    seed,
                    &mut scratch,
                    &mut mapping,
                );
                *led += u32::from(mapping.up_primary == Some(OsdId(0)));
            }
        }
        // Of n groups led, half stay, give or take four deviations of sqrt(n / 4).
        let expected = f64::from(led[0]) / 2.0;
        assert!((f64::from(led[1]) - expected).abs() < 4.0 * (f64::from(led[0]) / 4.0).sqrt(), "{led:?}");
    }

    #[test]
    fn temporary_sets_act_while_they_are_up() {
        let pool = pool(false);
        let pg = pool.pg_of_hash(3);
        let mut osds = all_ready();
        let up = map(&pool, 3, &osds, &Overrides::default()).up;
        let spare: Vec<i32> = (0..OSDS).filter(|osd| !up.contains(osd)).collect();
        let mut overrides = Overrides::default();
        overrides.pg_temp.insert(pg, vec![spare[0], up[1]]);
        let mapping = map(&pool, 3, &osds, &overrides);
        assert_eq!((&mapping.up, mapping.up_primary), (&up, Some(OsdId(up[0]))));
        assert_eq!((mapping.acting, mapping.acting_primary), (vec![spare[0], up[1]], Some(OsdId(spare[0]))));
        overrides.primary_temp.insert(pg, OsdId(up[1]));
        assert_eq!(map(&pool, 3, &osds, &overrides).acting_primary, Some(OsdId(up[1])));
        overrides.primary_temp.clear();
        osds.set(OsdId(spare[0]), OsdState { is_up: false, ..OsdState::READY });
        assert_eq!(map(&pool, 3, &osds, &overrides).acting, [up[1]]);
        osds.set(OsdId(up[1]), OsdState { is_up: false, ..OsdState::READY });
        let mapping = map(&pool, 3, &osds, &overrides);
        assert_eq!(mapping.acting, mapping.up);
    }
}
