//! The CRUSH map inside the OSD map: read, changed and written through `cairn-crush`.

use super::Refusal;
use super::limits::{MAX_LOCATION_LEVELS, MAX_OSD_ID};
use cairn_crush::build::{EditError, ReplicaMode, SimpleRule};
use cairn_crush::{Algorithm, CrushMap, Step, Tunables, binary};
use cairn_types::{CrushBlob, OsdId, OsdMap, Weight};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where something is: type and name of each bucket above it, such as `root=default host=n1`, in any
/// order.
pub type Location = Vec<(String, String)>;

/// Name of the root every cluster starts with.
pub const DEFAULT_ROOT: &str = "default";
/// Name of the rule every cluster starts with.
pub const DEFAULT_RULE: &str = "replicated_rule";
/// The type of buckets by which failures are told apart.
pub const HOST: &str = "host";

/// The CRUSH map of a new cluster: a root, and a rule that puts each copy on another host.
pub(super) fn first_map() -> CrushBlob {
    let make = || -> Result<CrushMap, EditError> {
        let mut map = CrushMap::new(Tunables::default());
        map.add_bucket(DEFAULT_ROOT, "root", Algorithm::Straw2)?;
        map.add_simple_rule(&SimpleRule {
            name: DEFAULT_RULE,
            root: DEFAULT_ROOT,
            failure_domain: HOST,
            class: None,
            mode: ReplicaMode::Firstn,
            is_erasure: false,
        })?;
        Ok(map)
    };
    // Constants in, a constant out; the test below holds it.
    let bytes = make().ok().and_then(|map| binary::encode(&map).ok()).unwrap_or_default();
    CrushBlob::new(1, bytes)
}

/// Reads the CRUSH map of an OSD map.
pub fn decode(blob: &CrushBlob) -> Result<CrushMap, Refusal> {
    binary::decode(blob.bytes()).map_err(|error| Refusal::BadCrush { why: error.to_string() })
}

/// Changes the CRUSH map of an OSD map; a change that changes nothing makes no new version.
pub(super) fn change<T>(
    osd_map: &mut OsdMap,
    edit: impl FnOnce(&mut CrushMap) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let mut map = decode(&osd_map.crush)?;
    let done = edit(&mut map)?;
    let bytes = binary::encode(&map).map_err(|error| Refusal::BadCrush { why: error.to_string() })?;
    if bytes != osd_map.crush.bytes() {
        osd_map.crush = CrushBlob::new(osd_map.crush.version + 1, bytes);
    }
    Ok(done)
}

/// Finds or makes the buckets of a location, from the top; returns the lowest one.
fn bucket_at(map: &mut CrushMap, location: &Location) -> Result<i32, Refusal> {
    let mut levels = Vec::new();
    for (kind, name) in location {
        let number = map.type_by_name(kind).filter(|number| *number > 0);
        let number = number.ok_or_else(|| EditError::UnknownType(kind.clone()))?;
        levels.push((number, kind, name));
    }
    levels.sort_by_key(|level| std::cmp::Reverse(level.0));
    if levels.is_empty()
        || levels.len() > MAX_LOCATION_LEVELS
        || levels.windows(2).any(|pair| pair[0].0 == pair[1].0)
    {
        return Err(Refusal::BadLocation);
    }
    let mut parent = None;
    for (number, kind, name) in levels {
        let bucket = match map.item_by_name(name) {
            Some(bucket) if map.bucket(bucket).is_some_and(|found| i32::from(found.kind) == number) => bucket,
            Some(_) => return Err(Refusal::NotThatType { name: name.clone(), kind: kind.clone() }),
            None => map.add_bucket(name, kind, Algorithm::Straw2)?,
        };
        // A bucket that hangs elsewhere stays there: an OSD's place must not move its whole host.
        if let Some(parent) = parent
            && map.parents_of(bucket).all(|above| map.is_shadow(above.id))
        {
            map.link(bucket, parent)?;
        }
        parent = Some(bucket);
    }
    parent.ok_or(Refusal::BadLocation)
}

/// Puts an OSD at a location, adding it if CRUSH does not know it. Weight and class of one that is known
/// are changed where given.
pub(super) fn place_osd(
    map: &mut CrushMap,
    osd: OsdId,
    weight: Option<Weight>,
    class: Option<&str>,
    location: &Location,
) -> Result<(), Refusal> {
    let parent = bucket_at(map, location)?;
    if map.parents_of(osd.0).next().is_none() {
        let weight = weight.unwrap_or(Weight::ONE);
        return Ok(map.add_device(osd.0, &osd.to_string(), weight, class, parent)?);
    }
    if !map.parents_of(osd.0).any(|bucket| bucket.id == parent) {
        map.move_item(osd.0, parent)?;
    }
    if let Some(weight) = weight {
        map.reweight_item(osd.0, weight)?;
    }
    if class.is_some() {
        map.set_class(osd.0, class)?;
    }
    Ok(())
}

/// Takes an OSD out of CRUSH, if it is there.
pub(super) fn remove_osd(map: &mut CrushMap, osd: OsdId) -> Result<(), Refusal> {
    if map.parents_of(osd.0).next().is_some() {
        map.remove_item(osd.0)?;
    }
    Ok(())
}

/// The number of a rule by its name; without one, the first rule.
pub(super) fn rule(map: &CrushMap, name: Option<&str>) -> Result<u32, Refusal> {
    let mut rules = map.rule_names.iter();
    let found = match name {
        Some(name) => rules.find(|(_, known)| *known == name),
        None => rules.next(),
    };
    let names = || map.rule_names.values().cloned().collect::<Vec<_>>().join(", ");
    match found.and_then(|(number, _)| u32::try_from(*number).ok()) {
        Some(number) => Ok(number),
        None => Err(Refusal::NoRule { rule: name.unwrap_or("(any)").to_owned(), known: names() }),
    }
}

/// Reads a whole new CRUSH map, which must keep every rule that is in use and name no device that no OSD
/// can be. An OSD that it leaves out gets no data.
pub(super) fn replacement(bytes: &[u8], osd_map: &OsdMap) -> Result<CrushBlob, Refusal> {
    let bad = |why: String| Refusal::BadCrush { why };
    let map = binary::decode(bytes).map_err(|error| bad(error.to_string()))?;
    map.validate().map_err(|error| bad(error.to_string()))?;
    if map.max_devices > MAX_OSD_ID + 1 {
        return Err(bad(format!("it has devices above {MAX_OSD_ID}")));
    }
    for pool in osd_map.pools.values() {
        if !map.rules.get(pool.crush_rule as usize).is_some_and(Option::is_some) {
            return Err(bad(format!("it lacks rule {}, which pool '{}' uses", pool.crush_rule, pool.name)));
        }
    }
    let bytes = binary::encode(&map).map_err(|error| bad(error.to_string()))?;
    Ok(CrushBlob::new(osd_map.crush.version + 1, bytes))
}

/// Where every OSD is, read once from a CRUSH map.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    hosts: BTreeMap<OsdId, String>,
    roots: BTreeMap<OsdId, String>,
}

impl Topology {
    /// Reads the places of all OSDs. A CRUSH map that does not decode has none; the monitors accept no
    /// such map.
    pub fn of(blob: &CrushBlob) -> Self {
        let mut topology = Topology::default();
        let Ok(map) = decode(blob) else { return topology };
        let name = |id: i32| map.item_names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let host = map.type_by_name(HOST);
        for bucket in map.buckets.iter().flatten().filter(|bucket| !map.is_shadow(bucket.id)) {
            let is_root = map.parents_of(bucket.id).next().is_none();
            if !is_root && host != Some(bucket.kind.into()) {
                continue;
            }
            for osd in map.devices_below(bucket.id).into_iter().map(OsdId) {
                if host == Some(bucket.kind.into()) {
                    topology.hosts.insert(osd, name(bucket.id));
                }
                if is_root {
                    topology.roots.insert(osd, name(bucket.id));
                }
            }
        }
        topology
    }

    /// The host of an OSD. One that CRUSH does not place is its own host.
    pub fn host(&self, osd: OsdId) -> String {
        self.hosts.get(&osd).cloned().unwrap_or_else(|| osd.to_string())
    }

    /// The root of an OSD.
    pub fn root(&self, osd: OsdId) -> Option<&str> {
        self.roots.get(&osd).map(String::as_str)
    }

    /// The OSDs of each host.
    pub fn by_host(&self) -> BTreeMap<&str, Vec<OsdId>> {
        let mut hosts: BTreeMap<&str, Vec<OsdId>> = BTreeMap::new();
        for (&osd, host) in &self.hosts {
            hosts.entry(host).or_default().push(osd);
        }
        hosts
    }
}

/// One line of the tree of OSDs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TreeNode {
    /// Bucket (below 0) or OSD.
    pub id: i32,
    /// Levels above it.
    pub depth: usize,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Device class of an OSD.
    pub class: Option<String>,
    /// CRUSH weight.
    pub weight: Weight,
}

/// The tree of buckets and OSDs, each line below the one it hangs from; OSDs that CRUSH does not place
/// come last.
pub fn tree(osd_map: &OsdMap) -> Result<Vec<TreeNode>, Refusal> {
    let map = decode(&osd_map.crush)?;
    let mut nodes = Vec::new();
    let originals = map.buckets.iter().flatten().filter(|bucket| !map.is_shadow(bucket.id));
    let roots = originals.filter(|bucket| map.parents_of(bucket.id).next().is_none());
    for root in roots {
        push_subtree(&map, root.id, Weight(root.weight), 0, &mut nodes);
    }
    let placed: Vec<i32> = nodes.iter().map(|node: &TreeNode| node.id).collect();
    for osd in osd_map.osds.keys().filter(|osd| !placed.contains(&osd.0)) {
        push_subtree(&map, osd.0, Weight::ZERO, 0, &mut nodes);
    }
    Ok(nodes)
}

fn push_subtree(map: &CrushMap, id: i32, weight: Weight, depth: usize, nodes: &mut Vec<TreeNode>) {
    let bucket = map.bucket(id);
    let kind = bucket.map_or(0, |bucket| i32::from(bucket.kind));
    let class = map.item_classes.get(&id).and_then(|class| map.class_names.get(class));
    let name = map.item_names.get(&id).cloned();
    nodes.push(TreeNode {
        id,
        depth,
        name: name.unwrap_or_else(|| if id < 0 { id.to_string() } else { OsdId(id).to_string() }),
        kind: map.type_names.get(&kind).cloned().unwrap_or_else(|| kind.to_string()),
        class: class.cloned(),
        weight,
    });
    let Some(bucket) = bucket else { return };
    for (position, &item) in bucket.items.iter().enumerate() {
        push_subtree(map, item, Weight(bucket.item_weight(position)), depth + 1, nodes);
    }
}

/// The buckets rules start from.
pub fn rule_roots(map: &CrushMap, rule: u32) -> Vec<i32> {
    let steps = map.rules.get(rule as usize).and_then(Option::as_ref).map_or(&[][..], |rule| &rule.steps);
    steps.iter().filter_map(|step| if let Step::Take(item) = step { Some(*item) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_map_has_a_root_and_a_rule() {
        let map = decode(&first_map()).unwrap();
        let root = map.item_by_name(DEFAULT_ROOT).unwrap();
        assert_eq!(rule(&map, None), Ok(0));
        assert_eq!(rule(&map, Some(DEFAULT_RULE)), Ok(0));
        assert_eq!(rule_roots(&map, 0), [root]);
        assert!(rule(&map, Some("ssd")).unwrap_err().to_string().contains(DEFAULT_RULE));
    }

    #[test]
    fn buckets_are_made_on_the_way_and_hosts_stay_where_they_are() {
        let mut map = decode(&first_map()).unwrap();
        let at = |pairs: &[(&str, &str)]| -> Location {
            pairs.iter().map(|(kind, name)| (kind.to_string(), name.to_string())).collect()
        };
        let n1 = at(&[("host", "n1"), ("root", "default"), ("rack", "r1")]);
        place_osd(&mut map, OsdId(0), Some(Weight::ONE), Some("ssd"), &n1).unwrap();
        place_osd(&mut map, OsdId(1), None, None, &at(&[("root", "default"), ("host", "n1")])).unwrap();
        let blob = CrushBlob::new(2, binary::encode(&map).unwrap());
        let topology = Topology::of(&blob);
        assert_eq!(topology.by_host(), BTreeMap::from([("n1", vec![OsdId(0), OsdId(1)])]));
        assert_eq!(topology.root(OsdId(1)), Some("default"));
        assert_eq!(
            map.parents_of(map.item_by_name("n1").unwrap()).next().unwrap().kind,
            3,
            "still in its rack"
        );
        for bad in
            [at(&[]), at(&[("shelf", "s")]), at(&[("host", "a"), ("host", "b")]), at(&[("host", "default")])]
        {
            assert!(place_osd(&mut map, OsdId(2), None, None, &bad).is_err(), "{bad:?}");
        }
    }
}
