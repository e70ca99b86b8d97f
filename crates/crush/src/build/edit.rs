//! Adding, moving, weighing and removing devices and buckets.

use super::{EditError, check_name, make_bucket};
use crate::binary::{MAX_BUCKETS, MAX_DEVICE_ID, MAX_TREE_ITEMS};
use crate::{Algorithm, Bucket, CrushMap, Step};
use cairn_types::Weight;
use std::collections::{BTreeMap, BTreeSet};

impl CrushMap {
    /// Adds an empty bucket, below nothing yet, with the first free id, and returns that.
    pub fn add_bucket(&mut self, name: &str, kind: &str, algorithm: Algorithm) -> Result<i32, EditError> {
        self.check_free_name(name)?;
        let unknown = || EditError::UnknownType(kind.to_owned());
        let kind = self.type_by_name(kind).and_then(|kind| u16::try_from(kind).ok()).filter(|&kind| kind > 0);
        let kind = kind.ok_or_else(unknown)?;
        let id = (1..=MAX_BUCKETS).map(|n| -n).find(|&id| self.bucket(id).is_none());
        let id = id.ok_or(EditError::NoneLeft("bucket id"))?;
        self.change(|map| {
            let bucket = make_bucket(id, kind, algorithm, &[], &[], map.tunables.straw_calc_version);
            map.place_bucket(bucket.map_err(|_| EditError::WeightOverflow(id))?);
            map.item_names.insert(id, name.to_owned());
            Ok(())
        })?;
        Ok(id)
    }

    /// Adds a device below a bucket.
    pub fn add_device(
        &mut self,
        device: i32,
        name: &str,
        weight: Weight,
        class: Option<&str>,
        parent: i32,
    ) -> Result<(), EditError> {
        if !(0..=MAX_DEVICE_ID).contains(&device) {
            return Err(EditError::IdOutOfRange(device));
        }
        if self.item_names.get(&device).is_none_or(|known| known != name) {
            self.check_free_name(name)?;
        }
        if self.parents_of(device).next().is_some() {
            return Err(EditError::IdTaken(device));
        }
        self.change(|map| {
            map.item_names.insert(device, name.to_owned());
            map.max_devices = map.max_devices.max(device + 1);
            map.put_class(device, class)?;
            map.insert(device, weight.0, parent)
        })
    }

    /// Puts a bucket that is below nothing, or below other buckets, below one more, with the weight it has.
    pub fn link(&mut self, item: i32, parent: i32) -> Result<(), EditError> {
        let weight = self.weight_of(item)?;
        self.change(|map| map.insert(item, weight, parent))
    }

    /// Takes an item from wherever it is and puts it below a bucket, with its weight.
    pub fn move_item(&mut self, item: i32, parent: i32) -> Result<(), EditError> {
        let weight = self.weight_of(item)?;
        if self.is_shadow(item) {
            return Err(EditError::Shadow(item));
        }
        self.change(|map| {
            map.unlink(item)?;
            map.insert(item, weight, parent)
        })
    }

    /// Gives an item another weight, wherever it is.
    pub fn reweight_item(&mut self, item: i32, weight: Weight) -> Result<(), EditError> {
        self.weight_of(item)?;
        if self.is_shadow(item) {
            return Err(EditError::Shadow(item));
        }
        self.change(|map| map.set_weight(item, weight.0))
    }

    /// Gives every device below an item the same weight.
    pub fn reweight_subtree(&mut self, item: i32, weight: Weight) -> Result<(), EditError> {
        self.weight_of(item)?;
        if self.is_shadow(item) {
            return Err(EditError::Shadow(item));
        }
        let devices: BTreeSet<i32> = self.devices_below(item).into_iter().collect();
        self.change(|map| {
            let holders =
                map.originals().filter(|bucket| bucket.items.iter().any(|item| devices.contains(item)));
            let holders: Vec<i32> = holders.map(|bucket| bucket.id).collect();
            for &holder in &holders {
                let Some(bucket) = map.bucket(holder) else { continue };
                let items = bucket.items.iter().copied().zip(bucket.item_weights());
                let wanted = |(item, own)| (item, if devices.contains(&item) { weight.0 } else { own });
                map.refill(holder, items.map(wanted).collect(), &devices)?;
            }
            map.carry_up(holders)
        })
    }

    /// Gives a device a class, or none.
    pub fn set_class(&mut self, device: i32, class: Option<&str>) -> Result<(), EditError> {
        if device < 0 {
            return Err(EditError::NotADevice(device));
        }
        self.weight_of(device)?;
        self.change(|map| map.put_class(device, class))
    }

    /// Removes a device, or a bucket that is empty.
    pub fn remove_item(&mut self, item: i32) -> Result<(), EditError> {
        if self.bucket(item).is_some_and(|bucket| !bucket.items.is_empty()) {
            return Err(EditError::NotEmpty(item));
        }
        self.remove_subtree(item)
    }

    /// Removes an item and all that is below it and nowhere else: a host with its OSDs.
    pub fn remove_subtree(&mut self, item: i32) -> Result<(), EditError> {
        if !self.has_item(item) {
            return Err(EditError::UnknownItem(item));
        }
        if self.is_shadow(item) {
            return Err(EditError::Shadow(item));
        }
        self.change(|map| {
            map.unlink(item)?;
            let mut doomed = vec![item];
            while let Some(item) = doomed.pop() {
                if map.originals().any(|bucket| bucket.items.contains(&item)) {
                    continue;
                }
                map.check_unused(item)?;
                if let Some(bucket) = map.bucket(item).cloned() {
                    doomed.extend(&bucket.items);
                    map.forget_bucket(item);
                }
                map.item_names.remove(&item);
                map.item_classes.remove(&item);
            }
            let devices = map.buckets.iter().flatten().flat_map(|bucket| bucket.items.iter());
            map.max_devices = devices.chain(map.item_names.keys()).max().map_or(0, |&most| most.max(-1) + 1);
            Ok(())
        })
    }

    /// Applies a change with its consequences, or nothing of it.
    fn change(&mut self, edit: impl FnOnce(&mut CrushMap) -> Result<(), EditError>) -> Result<(), EditError> {
        let mut map = self.clone();
        edit(&mut map)?;
        if !map.class_names.is_empty() || !map.shadow_buckets.is_empty() {
            map.rebuild_shadows()?;
        }
        map.validate()?;
        *self = map;
        Ok(())
    }

    fn check_free_name(&self, name: &str) -> Result<(), EditError> {
        check_name(name)?;
        match self.item_by_name(name) {
            Some(owner) => Err(EditError::NameTaken { name: name.to_owned(), owner }),
            None => Ok(()),
        }
    }

    /// Weight an item has in the first bucket that holds it, or a bucket's own.
    fn weight_of(&self, item: i32) -> Result<u32, EditError> {
        let held = self.originals().find_map(|bucket| {
            let position = bucket.items.iter().position(|&other| other == item)?;
            Some(bucket.item_weight(position))
        });
        let own = self.bucket(item).map(|bucket| bucket.weight);
        held.or(own).ok_or(EditError::UnknownItem(item))
    }

    /// Buckets that are no shadows.
    fn originals(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().flatten().filter(|bucket| !self.is_shadow(bucket.id))
    }

    fn put_class(&mut self, device: i32, class: Option<&str>) -> Result<(), EditError> {
        let Some(class) = class else {
            self.item_classes.remove(&device);
            return Ok(());
        };
        check_name(class)?;
        let number = self.class_by_name(class);
        let number = number.unwrap_or_else(|| self.class_names.keys().next_back().map_or(0, |last| last + 1));
        self.class_names.insert(number, class.to_owned());
        self.item_classes.insert(device, number);
        Ok(())
    }

    /// Appends an item to a bucket.
    fn insert(&mut self, item: i32, weight: u32, parent: i32) -> Result<(), EditError> {
        let bucket = self.bucket(parent).ok_or(EditError::UnknownBucket(parent))?;
        if let Some(&shadow) = [item, parent].iter().find(|&&id| self.is_shadow(id)) {
            return Err(EditError::Shadow(shadow));
        }
        if bucket.items.contains(&item) {
            return Err(EditError::AlreadyThere { item, parent });
        }
        if self.subtree(item).contains(&parent) {
            return Err(EditError::Cycle { item, parent });
        }
        if self.kind_of(item) >= bucket.kind.into() {
            return Err(EditError::WrongLevel { item, parent });
        }
        let mut items: Vec<(i32, u32)> = bucket.items.iter().copied().zip(bucket.item_weights()).collect();
        items.push((item, weight));
        self.refill(parent, items, &BTreeSet::new())?;
        self.carry_up([parent])
    }

    /// Takes an item out of all buckets.
    fn unlink(&mut self, item: i32) -> Result<(), EditError> {
        let holders = self.originals().filter(|bucket| bucket.items.contains(&item));
        let holders: Vec<i32> = holders.map(|bucket| bucket.id).collect();
        for &holder in &holders {
            let Some(bucket) = self.bucket(holder) else { continue };
            let items = bucket.items.iter().copied().zip(bucket.item_weights());
            let items = items.filter(|&(other, _)| other != item).collect();
            self.refill(holder, items, &BTreeSet::new())?;
        }
        self.carry_up(holders)
    }

    fn set_weight(&mut self, item: i32, weight: u32) -> Result<(), EditError> {
        let holders = self.originals().filter(|bucket| bucket.items.contains(&item));
        let holders: Vec<i32> = holders.map(|bucket| bucket.id).collect();
        for &holder in &holders {
            let Some(bucket) = self.bucket(holder) else { continue };
            let items = bucket.items.iter().copied().zip(bucket.item_weights());
            let items = items.map(|(other, own)| (other, if other == item { weight } else { own })).collect();
            self.refill(holder, items, &BTreeSet::from([item]))?;
        }
        self.carry_up(holders)
    }

    /// Gives a bucket other items, and every weight set of it the same: items it had keep their weights
    /// there unless they are `reweighted`, new ones get their own.
    fn refill(
        &mut self,
        id: i32,
        items: Vec<(i32, u32)>,
        reweighted: &BTreeSet<i32>,
    ) -> Result<(), EditError> {
        let bucket = self.bucket(id).ok_or(EditError::UnknownBucket(id))?;
        match bucket.algorithm {
            Algorithm::Uniform if items.iter().any(|item| item.1 != items[0].1) => {
                return Err(EditError::UnequalWeights(id));
            }
            Algorithm::Tree if items.len() > MAX_TREE_ITEMS => return Err(EditError::TreeTooLarge(id)),
            _ => {}
        }
        let before: BTreeMap<i32, usize> = bucket.items.iter().copied().zip(0..).collect();
        let ids: Vec<i32> = items.iter().map(|item| item.0).collect();
        let weights: Vec<u32> = items.iter().map(|item| item.1).collect();
        let version = self.tunables.straw_calc_version;
        let mut made = make_bucket(id, bucket.kind, bucket.algorithm, &ids, &weights, version)
            .map_err(|_| EditError::WeightOverflow(id))?;
        made.hash = bucket.hash;
        self.place_bucket(made);
        for arg in self.choose_args.values_mut().filter_map(|args| args.get_mut(&id)) {
            for set in &mut arg.weight_sets {
                let weight = |&(item, weight): &(i32, u32)| match before.get(&item) {
                    Some(&position) if !reweighted.contains(&item) => set[position],
                    _ => Weight(weight),
                };
                *set = items.iter().map(weight).collect();
            }
            if !arg.ids.is_empty() {
                let replaced = |&item: &i32| before.get(&item).map_or(item, |&position| arg.ids[position]);
                arg.ids = ids.iter().map(replaced).collect();
            }
        }
        Ok(())
    }

    /// Carries the weights of changed buckets up to all that hold them, here and in the weight sets. Weights
    /// elsewhere stay, even where an operator has made them other than the sums.
    fn carry_up(&mut self, changed: impl IntoIterator<Item = i32>) -> Result<(), EditError> {
        // A bucket's type is above its items': lowest first, each is visited once in a usual map.
        let mut open: BTreeSet<(i32, i32)> = changed.into_iter().map(|id| (self.kind_of(id), id)).collect();
        while let Some((_, id)) = open.pop_first() {
            let holders = self.originals().filter(|bucket| bucket.items.contains(&id));
            for holder in holders.map(|bucket| bucket.id).collect::<Vec<_>>() {
                if self.carry_into(id, holder)? {
                    open.insert((self.kind_of(holder), holder));
                }
            }
        }
        Ok(())
    }

    /// Gives a bucket in its holder the weight it has; says whether that was news.
    fn carry_into(&mut self, id: i32, holder: i32) -> Result<bool, EditError> {
        let weight = self.bucket(id).map_or(0, |bucket| bucket.weight);
        let bucket = self.bucket(holder).ok_or(EditError::UnknownBucket(holder))?;
        let Some(position) = bucket.items.iter().position(|&item| item == id) else { return Ok(false) };
        let mut has_changed = bucket.item_weight(position) != weight;
        if has_changed {
            let items = bucket.items.iter().copied().zip(bucket.item_weights());
            let items = items.map(|(item, own)| (item, if item == id { weight } else { own })).collect();
            self.refill(holder, items, &BTreeSet::new())?;
        }
        for args in self.choose_args.values_mut() {
            let below = args.get(&id).map_or(Vec::new(), |arg| sums(&arg.weight_sets));
            for (replica, set) in
                args.get_mut(&holder).into_iter().flat_map(|arg| &mut arg.weight_sets).enumerate()
            {
                let carried = below.get(replica).or(below.last()).copied().unwrap_or(Weight(weight));
                has_changed |= set[position] != carried;
                set[position] = carried;
            }
        }
        Ok(has_changed)
    }

    /// Whether no rule starts from an item or one of its shadows.
    fn check_unused(&self, item: i32) -> Result<(), EditError> {
        let shadows = self.shadow_buckets.get(&item);
        let is_item = |taken: i32| {
            taken == item || shadows.is_some_and(|shadows| shadows.values().any(|&shadow| shadow == taken))
        };
        for (rule, steps) in self.rules.iter().enumerate() {
            let mut steps = steps.iter().flat_map(|rule| &rule.steps);
            if steps.any(|step| matches!(*step, Step::Take(taken) if is_item(taken))) {
                return Err(EditError::InUse { item, rule });
            }
        }
        Ok(())
    }

    /// Takes a bucket with its shadows, names and weight sets out of the map.
    fn forget_bucket(&mut self, id: i32) {
        let shadows = self.shadow_buckets.remove(&id).unwrap_or_default();
        for id in shadows.into_values().chain([id]) {
            if let Some(place) = self.buckets.get_mut((-1 - id) as usize) {
                *place = None;
            }
            self.item_names.remove(&id);
            self.item_classes.remove(&id);
            for args in self.choose_args.values_mut() {
                args.remove(&id);
            }
        }
    }
}

/// The sum of each weight set.
fn sums(sets: &[Vec<Weight>]) -> Vec<Weight> {
    let sum = |set: &Vec<Weight>| Weight(set.iter().fold(0, |sum, weight| sum.saturating_add(weight.0)));
    sets.iter().map(sum).collect()
}
