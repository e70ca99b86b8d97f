//! From the tree of a text map to the map.
//!
//! Does what Ceph's compiler does, in the same order (it decides the numbers of classes and of buckets
//! without an id), and refuses besides what could never work.

use super::ast::*;
use super::lexer::At;
use super::order::definition_order;
use super::{
    MAX_BUCKET_WEIGHT, MAX_DEVICE_WEIGHT, MAX_TEXT_BYTES, Position, Reason, TextError, parser, rules,
};
use crate::binary::{MAX_BUCKETS, MAX_DEVICE_ID, MAX_TREE_ITEMS};
use crate::build;
use crate::{Algorithm, ChooseArg, CrushMap, Rule, Step, Tunables};
use cairn_types::Weight;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Compiles a text map. The first thing wrong is reported with its line, column and reason.
pub fn compile(text: &str) -> Result<CrushMap, TextError> {
    if text.len() > MAX_TEXT_BYTES {
        let position = Position { line: 1, column: 1 };
        return Err(TextError { position, reason: Reason::TooLarge(text.len()) });
    }
    let ast = parser::parse(text)?;
    let mut compiler = Compiler::default();
    compiler.tunables(&ast)?;
    compiler.types(&ast)?;
    compiler.devices(&ast)?;
    compiler.reserve_bucket_ids(&ast)?;
    for index in definition_order(&ast)? {
        compiler.bucket(&ast.buckets[index])?;
    }
    compiler.rules(&ast)?;
    for block in &ast.choose_args {
        compiler.choose_args(block)?;
    }
    Ok(compiler.finish())
}

struct Compiler<'a> {
    map: CrushMap,
    type_ids: BTreeMap<&'a str, u16>,
    item_ids: BTreeMap<&'a str, i32>,
    class_ids: BTreeMap<&'a str, i32>,
    /// Sum of the weights of each bucket compiled so far.
    bucket_weights: BTreeMap<i32, u32>,
    /// Every bucket and shadow id the text gives, so that none of them is handed out.
    reserved_ids: BTreeMap<i32, &'a str>,
    /// Where the search for a free bucket id goes on; it never comes back.
    next_bucket_id: i32,
    /// Shadow ids the text asks for, by bucket and class.
    wanted_shadows: BTreeMap<i32, BTreeMap<i32, i32>>,
}

impl Default for Compiler<'_> {
    fn default() -> Self {
        Compiler {
            map: CrushMap {
                // Ceph starts from these, so that a text means the same for ever.
                tunables: Tunables::ARGONAUT,
                max_devices: 0,
                buckets: Vec::new(),
                rules: Vec::new(),
                type_names: BTreeMap::new(),
                item_names: BTreeMap::new(),
                rule_names: BTreeMap::new(),
                item_classes: BTreeMap::new(),
                class_names: BTreeMap::new(),
                shadow_buckets: BTreeMap::new(),
                choose_args: BTreeMap::new(),
            },
            type_ids: BTreeMap::new(),
            item_ids: BTreeMap::new(),
            class_ids: BTreeMap::new(),
            bucket_weights: BTreeMap::new(),
            reserved_ids: BTreeMap::new(),
            next_bucket_id: -1,
            wanted_shadows: BTreeMap::new(),
        }
    }
}

impl<'a> Compiler<'a> {
    fn tunables(&mut self, ast: &Ast<'a>) -> Result<(), TextError> {
        let tunables = &mut self.map.tunables;
        for (name, value) in &ast.tunables {
            let byte = || u8::try_from(value.value).map_err(|_| too_large(value));
            match name.value {
                "choose_local_tries" => tunables.choose_local_tries = value.value,
                "choose_local_fallback_tries" => tunables.choose_local_fallback_tries = value.value,
                "choose_total_tries" => tunables.choose_total_tries = value.value,
                "chooseleaf_descend_once" => tunables.chooseleaf_descend_once = u32::from(value.value != 0),
                "chooseleaf_vary_r" => tunables.chooseleaf_vary_r = byte()?,
                "chooseleaf_stable" => tunables.chooseleaf_stable = byte()?,
                "straw_calc_version" => tunables.straw_calc_version = byte()?,
                "allowed_bucket_algs" => tunables.allowed_bucket_algs = value.value,
                other => return Err(name.error(Reason::UnknownTunable(other.to_owned()))),
            }
        }
        Ok(())
    }

    fn types(&mut self, ast: &Ast<'a>) -> Result<(), TextError> {
        for line in &ast.types {
            let id = u16::try_from(line.id.value).map_err(|_| {
                let limit = u16::MAX.into();
                line.id.error(Reason::IdOutOfRange { what: "type", id: line.id.value, limit })
            })?;
            if self.type_ids.insert(line.name.value, id).is_some() {
                return Err(duplicate_name("type", line.name));
            }
            put_name(&mut self.map.type_names, "type", line.id, line.name.value)?;
        }
        Ok(())
    }

    fn devices(&mut self, ast: &Ast<'a>) -> Result<(), TextError> {
        for line in &ast.devices {
            let id = line.id.value;
            if id > MAX_DEVICE_ID {
                return Err(line.id.error(Reason::IdOutOfRange { what: "device", id, limit: MAX_DEVICE_ID }));
            }
            if self.item_ids.insert(line.name.value, id).is_some() {
                return Err(duplicate_name("device", line.name));
            }
            put_name(&mut self.map.item_names, "device", line.id, line.name.value)?;
            if let Some(class) = line.class {
                let class = self.class_id(class.value);
                self.map.item_classes.insert(id, class);
            }
        }
        Ok(())
    }

    /// The number of a class; a new one gets the next number.
    fn class_id(&mut self, name: &'a str) -> i32 {
        // Classes cost text, so that their count fits.
        let next = self.class_ids.len() as i32;
        let id = *self.class_ids.entry(name).or_insert(next);
        self.map.class_names.entry(id).or_insert_with(|| name.to_owned());
        id
    }

    fn reserve_bucket_ids(&mut self, ast: &Ast<'a>) -> Result<(), TextError> {
        for block in &ast.buckets {
            let shadows = block.shadow_ids.iter().map(|(id, _)| ("shadow bucket id", id));
            for (what, id) in block.id.iter().map(|id| ("bucket id", id)).chain(shadows) {
                let limit = -MAX_BUCKETS;
                if id.value < limit {
                    return Err(id.error(Reason::IdOutOfRange { what, id: id.value, limit }));
                }
                if let Some(by) = self.reserved_ids.insert(id.value, block.name.value) {
                    let by = by.to_owned();
                    return Err(id.error(Reason::DuplicateId { what, id: id.value.into(), by }));
                }
            }
        }
        Ok(())
    }

    fn bucket(&mut self, block: &BucketBlock<'a>) -> Result<(), TextError> {
        let kind = self.type_id(block.kind)?;
        if kind == 0 {
            return Err(block.kind.error(Reason::DeviceTypeBucket(block.kind.value.to_owned())));
        }
        let (items, weights) = self.items(block)?;
        if block.algorithm.value == Algorithm::Tree && items.len() > MAX_TREE_ITEMS {
            return Err(block.algorithm.error(Reason::TreeTooLarge { items: items.len() }));
        }
        let id = match block.id {
            Some(id) => id.value,
            None => self.free_bucket_id(block)?,
        };
        for (shadow, class) in &block.shadow_ids {
            let class_id = self.class_id(class.value);
            if self.wanted_shadows.entry(id).or_default().insert(class_id, shadow.value).is_some() {
                return Err(duplicate_name("class of this bucket", *class));
            }
        }
        let straw_calc_version = self.map.tunables.straw_calc_version;
        let bucket =
            build::make_bucket(id, kind, block.algorithm.value, &items, &weights, straw_calc_version)
                .map_err(|_| block.name.error(Reason::WeightOverflow(block.name.value.to_owned())))?;
        self.bucket_weights.insert(id, weights.iter().sum());
        self.item_ids.insert(block.name.value, id);
        self.map.item_names.insert(id, block.name.value.to_owned());
        self.map.place_bucket(bucket);
        Ok(())
    }

    /// The highest id below 0 that no bucket and no shadow has or is given by the text.
    fn free_bucket_id(&mut self, block: &BucketBlock<'a>) -> Result<i32, TextError> {
        while self.reserved_ids.contains_key(&self.next_bucket_id) {
            self.next_bucket_id -= 1;
        }
        let id = self.next_bucket_id;
        let limit = -MAX_BUCKETS;
        if id < limit {
            return Err(block.name.error(Reason::IdOutOfRange { what: "bucket id", id, limit }));
        }
        self.reserved_ids.insert(id, block.name.value);
        Ok(id)
    }

    /// Ids and weights of a bucket's items, by position.
    fn items(&self, block: &BucketBlock<'a>) -> Result<(Vec<i32>, Vec<u32>), TextError> {
        let count = block.items.len();
        let mut taken = BTreeSet::new();
        for position in block.items.iter().filter_map(|line| line.position.as_ref()) {
            if position.value as usize >= count {
                let position_value = position.value;
                return Err(
                    position.error(Reason::PositionTooLarge { position: position_value, items: count })
                );
            }
            if !taken.insert(position.value) {
                return Err(position.error(Reason::PositionTaken(position.value)));
            }
        }
        let mut items = vec![0; count];
        let mut weights = vec![0; count];
        let mut seen = BTreeSet::new();
        let mut free = (0..).filter(|position| !taken.contains(position));
        let mut sum = 0_u32;
        let mut uniform_weight = None;
        for line in &block.items {
            let Some(&id) = self.item_ids.get(line.name.value) else {
                return Err(line.name.error(Reason::UnknownItem(line.name.value.to_owned())));
            };
            if !seen.insert(id) {
                return Err(line.name.error(Reason::ItemTwice(line.name.value.to_owned())));
            }
            let weight = match line.weight {
                Some(weight) => checked_weight(weight, id)?,
                None => self.bucket_weights.get(&id).map_or(Weight::ONE, |&weight| Weight(weight)),
            };
            let before = *uniform_weight.get_or_insert(weight);
            if block.algorithm.value == Algorithm::Uniform && before != weight {
                let position = line.weight.map_or(line.name.position, |weight| weight.position);
                return Err(TextError { position, reason: Reason::UnequalWeights { weight, before } });
            }
            sum = sum
                .checked_add(weight.0)
                .ok_or_else(|| line.name.error(Reason::WeightOverflow(block.name.value.to_owned())))?;
            let position = match line.position {
                Some(position) => position.value,
                // As many positions are free as items have none.
                None => free.next().unwrap_or(0),
            } as usize;
            items[position] = id;
            weights[position] = weight.0;
        }
        Ok((items, weights))
    }

    fn rules(&mut self, ast: &Ast<'a>) -> Result<(), TextError> {
        let Some(first) = ast.rules.first() else { return Ok(()) };
        // Ceph makes the shadow trees when it meets the first rule; a map without rules has none.
        build::populate_classes(&mut self.map, &self.wanted_shadows)
            .map_err(|error| first.keyword.error(Reason::ShadowTrees(error)))?;
        let mut names = BTreeSet::new();
        for block in &ast.rules {
            let number = block.id.value;
            if let Some(name) = block.name {
                if !names.insert(name.value) {
                    return Err(duplicate_name("rule", name));
                }
                put_name(&mut self.map.rule_names, "rule number", block.id, name.value)?;
            }
            let index = usize::from(number);
            if self.map.rules.get(index).is_some_and(Option::is_some) {
                let by = self.map.rule_names.get(&number.into()).cloned().unwrap_or_default();
                return Err(block.id.error(Reason::DuplicateId {
                    what: "rule number",
                    id: number.into(),
                    by,
                }));
            }
            let mut steps = Vec::with_capacity(block.steps.len());
            for step in &block.steps {
                steps.push(self.step(step)?);
            }
            let positions = block.steps.iter().map(|step| step.position);
            rules::check(&self.map, &steps).map_err(|(step, reason)| TextError {
                position: positions.clone().nth(step).unwrap_or(block.keyword.position),
                reason,
            })?;
            if self.map.rules.len() <= index {
                self.map.rules.resize(index + 1, None);
            }
            let (kind, min_size, max_size) = (block.kind, block.min_size, block.max_size);
            self.map.rules[index] = Some(Rule { ruleset: number, kind, min_size, max_size, steps });
        }
        Ok(())
    }

    fn step(&self, step: &At<StepLine<'a>>) -> Result<Step, TextError> {
        match &step.value {
            StepLine::Plain(step) => Ok(*step),
            StepLine::Take { item, class } => {
                let Some(&id) = self.item_ids.get(item.value) else {
                    return Err(item.error(Reason::UnknownItem(item.value.to_owned())));
                };
                let Some(class) = class else { return Ok(Step::Take(id)) };
                let Some(class_id) = self.class_ids.get(class.value) else {
                    return Err(class.error(Reason::UnknownClass(class.value.to_owned())));
                };
                match self.map.shadow_buckets.get(&id).and_then(|shadows| shadows.get(class_id)) {
                    Some(&shadow) => Ok(Step::Take(shadow)),
                    None => {
                        let (item, class_name) = (item.value.to_owned(), class.value.to_owned());
                        Err(class.error(Reason::NoShadow { item, class: class_name }))
                    }
                }
            }
            &StepLine::Choose { leaf, indep, num, kind } => {
                let kind = self.type_id(kind)?.into();
                Ok(match (leaf, indep) {
                    (false, false) => Step::ChooseFirstn { num, kind },
                    (false, true) => Step::ChooseIndep { num, kind },
                    (true, false) => Step::ChooseleafFirstn { num, kind },
                    (true, true) => Step::ChooseleafIndep { num, kind },
                })
            }
        }
    }

    fn type_id(&self, name: At<&str>) -> Result<u16, TextError> {
        match self.type_ids.get(name.value) {
            Some(&id) => Ok(id),
            None => Err(name.error(Reason::UnknownType(name.value.to_owned()))),
        }
    }

    fn choose_args(&mut self, block: &ChooseArgsBlock) -> Result<(), TextError> {
        let mut args = BTreeMap::new();
        for arg in &block.args {
            let id = arg.bucket.value;
            let place =
                usize::try_from(-1 - i64::from(id)).ok().and_then(|index| self.map.buckets.get(index));
            let Some(Some(bucket)) = place else {
                return Err(arg.bucket.error(Reason::UnknownBucketId(id)));
            };
            let items = bucket.items.len();
            for weights in &arg.weight_sets {
                if weights.value.len() != items {
                    let found = weights.value.len();
                    return Err(weights.error(Reason::ChooseArgLength {
                        bucket: id,
                        items,
                        what: "weights",
                        found,
                    }));
                }
            }
            if let Some(ids) = &arg.ids
                && ids.value.len() != items
            {
                let found = ids.value.len();
                return Err(ids.error(Reason::ChooseArgLength { bucket: id, items, what: "ids", found }));
            }
            let weight_sets = arg.weight_sets.iter().map(|weights| weights.value.clone()).collect();
            let ids = arg.ids.as_ref().map(|ids| ids.value.clone()).unwrap_or_default();
            match args.entry(id) {
                Entry::Occupied(_) => {
                    let by = self.map.item_names.get(&id).cloned().unwrap_or_default();
                    let (what, id) = ("choose_args entry for bucket", id.into());
                    return Err(arg.bucket.error(Reason::DuplicateId { what, id, by }));
                }
                Entry::Vacant(entry) => entry.insert(ChooseArg { weight_sets, ids }),
            };
        }
        // A replacement of nothing is none.
        args.retain(|_, arg| !(arg.weight_sets.is_empty() && arg.ids.is_empty()));
        if self.map.choose_args.insert(block.id.value, args).is_some() {
            let (what, by) = ("choose_args id", "an earlier block".to_owned());
            return Err(block.id.error(Reason::DuplicateId { what, id: block.id.value, by }));
        }
        Ok(())
    }

    fn finish(mut self) -> CrushMap {
        let items = self.map.buckets.iter().flatten().flat_map(|bucket| bucket.items.iter().copied());
        let names = self.map.item_names.keys().next_back().copied();
        self.map.max_devices = items.chain(names).max().unwrap_or(-1).max(-1) + 1;
        self.map
    }
}

/// The weight, if Ceph allows it for the item.
fn checked_weight(weight: At<Weight>, item: i32) -> Result<Weight, TextError> {
    let (what, limit) = match item {
        0.. => ("device", MAX_DEVICE_WEIGHT),
        _ => ("bucket", MAX_BUCKET_WEIGHT),
    };
    if weight.value.0 > limit {
        return Err(weight.error(Reason::WeightTooLarge { weight: weight.value, what, limit: limit >> 16 }));
    }
    Ok(weight.value)
}

/// Gives a number its name, once.
fn put_name<N: Into<i32> + Copy>(
    names: &mut BTreeMap<i32, String>,
    what: &'static str,
    id: At<N>,
    name: &str,
) -> Result<(), TextError> {
    match names.entry(id.value.into()) {
        Entry::Vacant(entry) => {
            entry.insert(name.to_owned());
            Ok(())
        }
        Entry::Occupied(entry) => {
            let (id_value, by) = (id.value.into().into(), entry.get().clone());
            Err(id.error(Reason::DuplicateId { what, id: id_value, by }))
        }
    }
}

fn duplicate_name(what: &'static str, name: At<&str>) -> TextError {
    name.error(Reason::DuplicateName { what, name: name.value.to_owned() })
}

fn too_large(value: &At<u32>) -> TextError {
    value.error(Reason::NumberTooLarge(value.value.to_string()))
}
