//! Device classes: for each class a shadow of every tree, with only the devices of that class.

use super::{EditError, make_bucket};
use crate::validate::bucket_place;
use crate::{ChooseArg, CrushMap, Step};
use cairn_types::Weight;
use std::collections::{BTreeMap, BTreeSet};

/// Bucket → class → shadow.
type Shadows = BTreeMap<i32, BTreeMap<i32, i32>>;

/// Makes the shadow trees of all classes below all roots of a map that has none, as Ceph does.
///
/// `wanted` are ids to use again; other shadows get the first free id.
pub fn populate_classes(map: &mut CrushMap, wanted: &Shadows) -> Result<(), EditError> {
    let used: BTreeSet<i32> = wanted.values().flat_map(|shadows| shadows.values().copied()).collect();
    let held: BTreeSet<i32> =
        map.buckets.iter().flatten().flat_map(|bucket| bucket.items.iter().copied()).collect();
    // From the lowest id on: the order decides the new shadows' ids.
    let roots = map.buckets.iter().flatten().map(|bucket| bucket.id).filter(|id| !held.contains(id)).rev();
    let roots: Vec<i32> = roots.collect();
    let classes: Vec<i32> = map.class_names.keys().copied().collect();
    let mut shades = Shades { wanted, used, next_free: -1, set_weights: BTreeMap::new() };
    for root in roots {
        for &class in &classes {
            shades.add_tree(map, root, class)?;
        }
    }
    Ok(())
}

struct Shades<'a> {
    wanted: &'a Shadows,
    /// Wanted ids, which no other shadow gets.
    used: BTreeSet<i32>,
    /// No id above this one is free.
    next_free: i32,
    /// Sums of the weight sets of the shadows made so far: (set, shadow) → by position.
    set_weights: BTreeMap<(i64, i32), Vec<Weight>>,
}

impl Shades<'_> {
    /// Shadows everything below a bucket, children first. Without recursion: a map may be deep.
    fn add_tree(&mut self, map: &mut CrushMap, root: i32, class: i32) -> Result<(), EditError> {
        let mut path = vec![(root, 0)];
        while let Some((id, position)) = path.last_mut() {
            let id = *id;
            let is_done = map.shadow_buckets.get(&id).is_some_and(|shadows| shadows.contains_key(&class));
            let bucket = map.bucket(id).ok_or(EditError::UnknownBucket(id))?;
            match bucket.items.get(*position) {
                Some(&item) if !is_done => {
                    *position += 1;
                    if item < 0 {
                        path.push((item, 0));
                    }
                }
                _ => {
                    path.pop();
                    if !is_done {
                        self.add(map, id, class)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shadows one bucket whose children have their shadows.
    fn add(&mut self, map: &mut CrushMap, id: i32, class: i32) -> Result<(), EditError> {
        let bucket = map.bucket(id).ok_or(EditError::UnknownBucket(id))?;
        let (mut items, mut weights, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (position, &item) in bucket.items.iter().enumerate() {
            let (item, weight) = match item {
                0.. if map.item_classes.get(&item) == Some(&class) => (item, bucket.item_weight(position)),
                0.. => continue,
                _ => {
                    let shadow = map.shadow_buckets.get(&item).and_then(|shadows| shadows.get(&class));
                    let &shadow = shadow.ok_or(EditError::UnknownBucket(item))?;
                    (shadow, map.bucket(shadow).map_or(0, |bucket| bucket.weight))
                }
            };
            items.push(item);
            weights.push(weight);
            positions.push(position);
        }
        let version = map.tunables.straw_calc_version;
        let wanted = self.wanted.get(&id).and_then(|shadows| shadows.get(&class)).copied();
        let shadow_id = match wanted {
            Some(wanted) => wanted,
            None => self.free_id(map)?,
        };
        let mut shadow = make_bucket(shadow_id, bucket.kind, bucket.algorithm, &items, &weights, version)
            .map_err(|_| EditError::WeightOverflow(id))?;
        shadow.hash = bucket.hash;
        let class_name = map.class_names.get(&class).map_or("", String::as_str);
        let name = format!("{}~{class_name}", map.item_names.get(&id).map_or("", String::as_str));
        map.place_bucket(shadow);
        map.item_classes.insert(shadow_id, class);
        map.item_names.insert(shadow_id, name);
        map.shadow_buckets.entry(id).or_default().insert(class, shadow_id);
        self.add_choose_args(map, id, shadow_id, &items, &positions);
        Ok(())
    }

    /// The weight sets of a shadow: its devices' weights in the original's sets, its buckets' sums.
    fn add_choose_args(
        &mut self,
        map: &mut CrushMap,
        original: i32,
        shadow: i32,
        items: &[i32],
        positions: &[usize],
    ) {
        for (&set, args) in &mut map.choose_args {
            let Some(arg) = args.get(&original).filter(|arg| !arg.weight_sets.is_empty()) else { continue };
            let mut sets = Vec::with_capacity(arg.weight_sets.len());
            let mut sums = Vec::with_capacity(arg.weight_sets.len());
            for (replica, weights) in arg.weight_sets.iter().enumerate() {
                let weight = |item: i32, position: usize| match item {
                    0.. => weights[position],
                    _ => {
                        let sums = self.set_weights.get(&(set, item));
                        sums.and_then(|sums| sums.get(replica)).copied().unwrap_or(Weight::ZERO)
                    }
                };
                let set: Vec<Weight> =
                    items.iter().zip(positions).map(|(&item, &position)| weight(item, position)).collect();
                sums.push(Weight(set.iter().fold(0, |sum, weight| sum.saturating_add(weight.0))));
                sets.push(set);
            }
            self.set_weights.insert((set, shadow), sums);
            args.insert(shadow, ChooseArg { weight_sets: sets, ids: Vec::new() });
        }
    }

    fn free_id(&mut self, map: &CrushMap) -> Result<i32, EditError> {
        while map.bucket(self.next_free).is_some() || self.used.contains(&self.next_free) {
            self.next_free -= 1;
        }
        match self.next_free >= -crate::binary::MAX_BUCKETS {
            true => Ok(self.next_free),
            false => Err(EditError::NoneLeft("bucket id")),
        }
    }
}

impl CrushMap {
    /// Makes all shadow trees anew after a change, each bucket's with its id as before. Classes that neither
    /// a device nor a rule has any more are forgotten.
    pub fn rebuild_shadows(&mut self) -> Result<(), EditError> {
        let shadows = std::mem::take(&mut self.shadow_buckets);
        let by_id: BTreeMap<i32, i32> = shadows
            .values()
            .flat_map(|shadows| shadows.iter().map(|(&class, &shadow)| (shadow, class)))
            .collect();
        let devices = self.item_classes.iter().filter(|(item, _)| **item >= 0).map(|(_, &class)| class);
        let taken = self.rules.iter().flatten().flat_map(|rule| &rule.steps).filter_map(|step| match step {
            Step::Take(item) => by_id.get(item).copied(),
            _ => None,
        });
        let live: BTreeSet<i32> = devices.chain(taken).collect();
        self.class_names.retain(|class, _| live.contains(class));
        for &shadow in by_id.keys() {
            if let Some(place) = bucket_place(shadow).and_then(|place| self.buckets.get_mut(place)) {
                *place = None;
            }
            self.item_names.remove(&shadow);
            self.item_classes.remove(&shadow);
            for args in self.choose_args.values_mut() {
                args.remove(&shadow);
            }
        }
        populate_classes(self, &shadows)
    }
}
