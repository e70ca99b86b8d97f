//! From a map to its text, in the very form of `crushtool -d`.

use super::{DecompileError, compile};
use crate::{BucketData, CrushMap, Step};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How weights are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weights {
    /// With three decimals, as `crushtool` does.
    ThreeDecimals,
    /// With as many as it takes to read the same weight back.
    Exact,
}

/// The text of a map, byte for byte that of `crushtool -d` 16.2.
///
/// Its weights have three decimals, so that compiling it again gives slightly other weights where
/// these were finer; see [`decompile_exact`].
pub fn decompile(map: &CrushMap) -> Result<String, DecompileError> {
    Decompiler { map, weights: Weights::ThreeDecimals, out: String::new() }.run()
}

/// The text of a map with weights as fine as they are, checked to compile to the very same map.
///
/// # Errors
/// Besides those of [`decompile`], [`DecompileError::NotReproducible`] where the text language cannot
/// express the map: straws or tree nodes of another age, sums that do not add up, numbers of classes
/// in another order than the compiler gives them.
pub fn decompile_exact(map: &CrushMap) -> Result<String, DecompileError> {
    let text = Decompiler { map, weights: Weights::Exact, out: String::new() }.run()?;
    match compile(&text) {
        Ok(again) if again == *map => Ok(text),
        Ok(again) => Err(DecompileError::NotReproducible(first_difference(map, &again))),
        Err(error) => Err(DecompileError::NotCompilable(error)),
    }
}

/// The part of two different maps that differs first, in the order of the binary format.
fn first_difference(map: &CrushMap, again: &CrushMap) -> &'static str {
    let bucket = |map: &CrushMap| map.buckets.clone();
    match () {
        () if map.buckets.len() != again.buckets.len() => "the number of places for buckets",
        () if bucket(map) != bucket(again) => "a bucket",
        () if map.rules != again.rules => "a rule",
        () if map.type_names != again.type_names => "the type names",
        () if map.item_names != again.item_names => "the item names",
        () if map.rule_names != again.rule_names => "the rule names",
        () if map.tunables != again.tunables => "the tunables",
        () if map.class_names != again.class_names => "the numbers of the device classes",
        () if map.item_classes != again.item_classes => "the device classes of items",
        () if map.shadow_buckets != again.shadow_buckets => "the shadow trees",
        () if map.choose_args != again.choose_args => "the choose_args",
        () => "max_devices",
    }
}

struct Decompiler<'a> {
    map: &'a CrushMap,
    weights: Weights,
    out: String,
}

/// Writing into a string cannot fail.
macro_rules! put {
    ($self:ident, $($format:tt)*) => {{
        let _ = write!($self.out, $($format)*);
    }};
}

impl Decompiler<'_> {
    fn run(mut self) -> Result<String, DecompileError> {
        self.tunables();
        self.devices();
        self.types();
        put!(self, "\n# buckets\n");
        self.buckets()?;
        put!(self, "\n# rules\n");
        for number in 0..self.map.rules.len() {
            self.rule(number)?;
        }
        self.choose_args();
        put!(self, "\n# end crush map\n");
        Ok(self.out)
    }

    /// Only those that differ from what the compiler starts with.
    fn tunables(&mut self) {
        let t = &self.map.tunables;
        put!(self, "# begin crush map\n");
        // Ceph prints the words as signed numbers, but for the mask of algorithms.
        let lines: [(&str, i64, i64); 8] = [
            ("choose_local_tries", (t.choose_local_tries as i32).into(), 2),
            ("choose_local_fallback_tries", (t.choose_local_fallback_tries as i32).into(), 5),
            ("choose_total_tries", (t.choose_total_tries as i32).into(), 19),
            ("chooseleaf_descend_once", (t.chooseleaf_descend_once as i32).into(), 0),
            ("chooseleaf_vary_r", t.chooseleaf_vary_r.into(), 0),
            ("chooseleaf_stable", t.chooseleaf_stable.into(), 0),
            ("straw_calc_version", t.straw_calc_version.into(), 0),
            ("allowed_bucket_algs", t.allowed_bucket_algs.into(), 22),
        ];
        for (name, value, default) in lines {
            if value != default {
                put!(self, "tunable {name} {value}\n");
            }
        }
    }

    fn devices(&mut self) {
        let map = self.map;
        put!(self, "\n# devices\n");
        for (id, name) in map.item_names.range(0..map.max_devices.max(0)) {
            put!(self, "device {id} {name}");
            if let Some(class) = map.item_classes.get(id).and_then(|class| map.class_names.get(class)) {
                put!(self, " class {class}");
            }
            put!(self, "\n");
        }
    }

    fn types(&mut self) {
        let map = self.map;
        put!(self, "\n# types\n");
        if !map.type_names.is_empty() && !map.type_names.contains_key(&0) {
            put!(self, "type 0 osd\n");
        }
        for (id, name) in map.type_names.range(0..) {
            put!(self, "type {id} {name}\n");
        }
    }

    /// Every bucket after the buckets it holds, from bucket -1 on.
    fn buckets(&mut self) -> Result<(), DecompileError> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            Unseen,
            Open,
            Written,
        }
        let map = self.map;
        let mut states = vec![State::Unseen; map.buckets.len()];
        // The way from the top: a bucket's place and how many of its items have been looked at.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for top in 0..map.buckets.len() {
            if states[top] == State::Unseen && map.buckets[top].is_some() {
                states[top] = State::Open;
                path.push((top, 0));
            }
            while let Some((place, looked_at)) = path.last_mut() {
                let place = *place;
                let Some(bucket) = &map.buckets[place] else {
                    unreachable!("only buckets that exist are opened")
                };
                let Some(&item) = bucket.items.get(*looked_at) else {
                    self.bucket(place)?;
                    states[place] = State::Written;
                    path.pop();
                    continue;
                };
                *looked_at += 1;
                let below = match usize::try_from(-1 - i64::from(item)) {
                    Ok(below) if map.buckets.get(below).is_some_and(Option::is_some) => below,
                    _ => continue,
                };
                match states[below] {
                    State::Written => {}
                    State::Open => return Err(DecompileError::Cycle { bucket: bucket.id, item }),
                    State::Unseen => {
                        states[below] = State::Open;
                        path.push((below, 0));
                    }
                }
            }
        }
        Ok(())
    }

    fn bucket(&mut self, place: usize) -> Result<(), DecompileError> {
        let map = self.map;
        let Some(bucket) = &map.buckets[place] else { return Ok(()) };
        let id = bucket.id;
        // Shadow buckets are made anew by the compiler; what their names contain tells them apart.
        if map.item_names.get(&id).is_some_and(|name| !is_valid_name(name)) {
            return Ok(());
        }
        put!(self, "{} {} {{\n", TypeName(map, bucket.kind.into()), ItemName(map, id));
        put!(self, "\tid {id}\t\t# do not change unnecessarily\n");
        for (class, shadow) in map.shadow_buckets.get(&id).into_iter().flatten() {
            let Some(class) = map.class_names.get(class) else {
                return Err(DecompileError::UnnamedClass { bucket: id, class: *class });
            };
            put!(self, "\tid {shadow} class {class}\t\t# do not change unnecessarily\n");
        }
        put!(self, "\t# weight {}\n", Fixed(bucket.weight));
        let (algorithm, note) = match &bucket.data {
            BucketData::Uniform { .. } => {
                ("uniform", format!("\t# do not change bucket size ({}) unnecessarily", bucket.items.len()))
            }
            BucketData::List { .. } => {
                ("list", "\t# add new items at the end; do not change order unnecessarily".to_owned())
            }
            BucketData::Tree { .. } => {
                ("tree", "\t# do not change pos for existing items unnecessarily".to_owned())
            }
            BucketData::Straw { .. } => ("straw", String::new()),
            BucketData::Straw2 { .. } => ("straw2", String::new()),
        };
        put!(self, "\talg {algorithm}{note}\n");
        put!(self, "\thash {}\t# {}\n", bucket.hash, if bucket.hash == 0 { "rjenkins1" } else { "unknown" });
        let has_positions = matches!(bucket.data, BucketData::Uniform { .. } | BucketData::Tree { .. });
        for (position, &item) in bucket.items.iter().enumerate() {
            put!(self, "\titem {}", ItemName(map, item));
            self.item_weight(item, stored_weight(&bucket.data, position));
            if has_positions {
                put!(self, " pos {position}");
            }
            put!(self, "\n");
        }
        put!(self, "}}\n");
        Ok(())
    }

    fn item_weight(&mut self, item: i32, weight: u32) {
        if self.weights == Weights::ThreeDecimals {
            put!(self, " weight {}", Fixed(weight));
            return;
        }
        let float = weight as f32;
        // Above 256.0 a float has no room for the last bits. Left out, a bucket's weight is the sum of its items.
        if float as u32 == weight {
            put!(self, " weight {}", float / 65536.0);
        } else if item >= 0 {
            put!(self, " weight {}", Fixed(weight));
        }
    }

    fn rule(&mut self, number: usize) -> Result<(), DecompileError> {
        let map = self.map;
        let Some(rule) = &map.rules[number] else { return Ok(()) };
        let name = i32::try_from(number).ok().and_then(|number| map.rule_names.get(&number));
        put!(self, "rule {} {{\n\tid {number}\n", name.map_or("", String::as_str));
        if usize::from(rule.ruleset) != number {
            let ruleset = rule.ruleset;
            put!(
                self,
                "\t# WARNING: ruleset {ruleset} != id {number}; this will not recompile to the same map\n"
            );
        }
        match rule.kind {
            1 => put!(self, "\ttype replicated\n"),
            3 => put!(self, "\ttype erasure\n"),
            other => put!(self, "\ttype {other}\n"),
        }
        put!(self, "\tmin_size {}\n\tmax_size {}\n", rule.min_size, rule.max_size);
        for (index, step) in rule.steps.iter().enumerate() {
            put!(self, "\tstep ");
            match *step {
                Step::Noop => put!(self, "noop"),
                Step::Take(item) => self.take(number, index, item)?,
                Step::Emit => put!(self, "emit"),
                Step::SetChooseTries(tries) => put!(self, "set_choose_tries {tries}"),
                Step::SetChooseleafTries(tries) => put!(self, "set_chooseleaf_tries {tries}"),
                Step::SetChooseLocalTries(tries) => put!(self, "set_choose_local_tries {tries}"),
                Step::SetChooseLocalFallbackTries(tries) => {
                    put!(self, "set_choose_local_fallback_tries {tries}");
                }
                Step::SetChooseleafVaryR(value) => put!(self, "set_chooseleaf_vary_r {value}"),
                Step::SetChooseleafStable(value) => put!(self, "set_chooseleaf_stable {value}"),
                Step::ChooseFirstn { num, kind } => {
                    put!(self, "choose firstn {num} type {}", TypeName(map, kind));
                }
                Step::ChooseIndep { num, kind } => {
                    put!(self, "choose indep {num} type {}", TypeName(map, kind))
                }
                Step::ChooseleafFirstn { num, kind } => {
                    put!(self, "chooseleaf firstn {num} type {}", TypeName(map, kind));
                }
                Step::ChooseleafIndep { num, kind } => {
                    put!(self, "chooseleaf indep {num} type {}", TypeName(map, kind));
                }
            }
            put!(self, "\n");
        }
        put!(self, "}}\n");
        Ok(())
    }

    /// A shadow bucket is written as the bucket it shadows and its class.
    fn take(&mut self, rule: usize, step: usize, item: i32) -> Result<(), DecompileError> {
        let map = self.map;
        let Some(name) = map.item_names.get(&item) else {
            return Err(DecompileError::UnnamedTake { rule, step, item });
        };
        let Some((bucket, class)) = name.split_once('~') else {
            put!(self, "take {name}");
            return Ok(());
        };
        let is_named = |names: &BTreeMap<i32, String>, name: &str| names.values().any(|other| other == name);
        if !is_named(&map.item_names, bucket) || !is_named(&map.class_names, class) {
            return Err(DecompileError::OrphanShadow { rule, step, name: name.clone() });
        }
        put!(self, "take {bucket} class {class}");
        Ok(())
    }

    fn choose_args(&mut self) {
        if self.map.choose_args.is_empty() {
            return;
        }
        put!(self, "\n# choose_args\n");
        for (&set, args) in &self.map.choose_args {
            // Ceph prints the id as unsigned, and reads it back so.
            put!(self, "choose_args {} {{\n", set as u64);
            for (bucket, arg) in args.iter().rev() {
                if arg.weight_sets.is_empty() && arg.ids.is_empty() {
                    continue;
                }
                put!(self, "  {{\n    bucket_id {bucket}\n");
                if !arg.weight_sets.is_empty() {
                    put!(self, "    weight_set [\n");
                    for weights in &arg.weight_sets {
                        put!(self, "      [ ");
                        for weight in weights {
                            match self.weights {
                                Weights::ThreeDecimals => put!(self, "{} ", Fixed(weight.0)),
                                Weights::Exact => put!(self, "{} ", weight.0 as f32 / 65536.0),
                            }
                        }
                        put!(self, "]\n");
                    }
                    put!(self, "    ]\n");
                }
                if !arg.ids.is_empty() {
                    put!(self, "    ids [ ");
                    for id in &arg.ids {
                        put!(self, "{id} ");
                    }
                    put!(self, "]\n");
                }
                put!(self, "  }}\n");
            }
            put!(self, "}}\n");
        }
    }
}

/// What the bucket stores as the weight of its item at `position`.
fn stored_weight(data: &BucketData, position: usize) -> u32 {
    let at = |weights: &[u32], index: usize| weights.get(index).copied().unwrap_or(0);
    match data {
        BucketData::Uniform { item_weight } => *item_weight,
        BucketData::List { item_weights, .. }
        | BucketData::Straw { item_weights, .. }
        | BucketData::Straw2 { item_weights } => at(item_weights, position),
        BucketData::Tree { node_weights } => at(node_weights, 2 * position + 1),
    }
}

/// Whether a bucket's name can stand in a text map.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A 16.16 weight with three decimals. Ceph converts the word as a signed one, in single precision.
struct Fixed(u32);

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.0 as i32 as f32 / 65536.0)
    }
}

/// A type's name, or what stands for it.
struct TypeName<'a>(&'a CrushMap, i32);

impl std::fmt::Display for TypeName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.type_names.get(&self.1), self.1) {
            (Some(name), _) => f.write_str(name),
            (None, 0) => f.write_str("device"),
            (None, kind) => write!(f, "type{kind}"),
        }
    }
}

/// An item's name, or what stands for it.
struct ItemName<'a>(&'a CrushMap, i32);

impl std::fmt::Display for ItemName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.item_names.get(&self.1), self.1) {
            (Some(name), _) => f.write_str(name),
            (None, device @ 0..) => write!(f, "device{device}"),
            (None, bucket) => write!(f, "bucket{}", -1 - i64::from(bucket)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_decimals_are_rounded_as_the_c_library_rounds() {
        // Ties go to the even digit, and more than 24 bits are lost before.
        let cases = [
            (0x1000, "0.062"),
            (0x3000, "0.188"),
            (0x10000, "1.000"),
            (0x1_999a, "1.600"),
            (0x0fff_ffff, "4096.000"),
            (0xffff_ffff, "-0.000"),
            (0x8000_0000, "-32768.000"),
        ];
        for (weight, text) in cases {
            assert_eq!(Fixed(weight).to_string(), text);
        }
    }
}
