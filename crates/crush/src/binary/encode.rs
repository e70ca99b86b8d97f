//! Writing binary maps.

use super::{BinaryError, MAGIC, MAX_TREE_ITEMS, tree_nodes};
use crate::{Algorithm, Bucket, BucketData, ChooseArg, CrushMap, Rule, Step};
use std::collections::BTreeMap;

/// Writes a map as `crushtool` of Ceph 12.2 to 18 does: with classes and choose-args, without
/// anything younger.
///
/// Fails where the parts of the map do not fit each other, so that a reader could not make sense
/// of them.
pub fn encode(map: &CrushMap) -> Result<Vec<u8>, BinaryError> {
    let mut out = Vec::new();
    put_u32(&mut out, MAGIC);
    put_length(&mut out, map.buckets.len());
    put_length(&mut out, map.rules.len());
    put_i32(&mut out, map.max_devices);
    for (index, bucket) in map.buckets.iter().enumerate() {
        match bucket {
            None => put_u32(&mut out, 0),
            Some(bucket) => put_bucket(&mut out, index, bucket)?,
        }
    }
    for rule in &map.rules {
        match rule {
            None => put_u32(&mut out, 0),
            Some(rule) => put_rule(&mut out, rule),
        }
    }
    put_names(&mut out, "type names", &map.type_names)?;
    put_names(&mut out, "item names", &map.item_names)?;
    put_names(&mut out, "rule names", &map.rule_names)?;

    let tunables = &map.tunables;
    put_u32(&mut out, tunables.choose_local_tries);
    put_u32(&mut out, tunables.choose_local_fallback_tries);
    put_u32(&mut out, tunables.choose_total_tries);
    put_u32(&mut out, tunables.chooseleaf_descend_once);
    out.push(tunables.chooseleaf_vary_r);
    out.push(tunables.straw_calc_version);
    put_u32(&mut out, tunables.allowed_bucket_algs);
    out.push(tunables.chooseleaf_stable);

    put_ids(&mut out, &map.item_classes);
    put_names(&mut out, "class names", &map.class_names)?;
    put_length(&mut out, map.shadow_buckets.len());
    for (&bucket, shadows) in &map.shadow_buckets {
        put_i32(&mut out, bucket);
        put_ids(&mut out, shadows);
    }
    put_length(&mut out, map.choose_args.len());
    for (&set, args) in &map.choose_args {
        put_choose_args(&mut out, map, set, args)?;
    }
    Ok(out)
}

fn put_bucket(out: &mut Vec<u8>, index: usize, bucket: &Bucket) -> Result<(), BinaryError> {
    let id = bucket.id;
    // Widened, so that no id and no length can overflow the comparison.
    if -1 - i64::from(id) != index as i64 {
        return Err(BinaryError::BucketPlace { index, id });
    }
    let items = bucket.items.len();
    let check = |values: &[u32], what| match values.len() == items {
        true => Ok(()),
        false => Err(BinaryError::BucketShape { id, items, weights: values.len(), what }),
    };
    put_u32(out, bucket.algorithm as u32);
    put_i32(out, id);
    out.extend_from_slice(&bucket.kind.to_le_bytes());
    out.push(bucket.algorithm as u8);
    out.push(bucket.hash);
    put_u32(out, bucket.weight);
    put_length(out, items);
    for &item in &bucket.items {
        put_i32(out, item);
    }
    match (bucket.algorithm, &bucket.data) {
        (Algorithm::Uniform, BucketData::Uniform { item_weight }) => put_u32(out, *item_weight),
        (Algorithm::List, BucketData::List { item_weights, sum_weights }) => {
            check(item_weights, "weights")?;
            check(sum_weights, "sums of weights")?;
            put_pairs(out, item_weights, sum_weights);
        }
        (Algorithm::Tree, BucketData::Tree { node_weights }) => {
            if items > MAX_TREE_ITEMS {
                return Err(BinaryError::TreeTooLarge { id, items });
            }
            let wanted = tree_nodes(items);
            if node_weights.len() != wanted {
                return Err(BinaryError::TreeNodes { id, items, nodes: node_weights.len(), wanted });
            }
            // At most 128, by the check of the items.
            out.push(wanted as u8);
            put_words(out, node_weights);
        }
        (Algorithm::Straw, BucketData::Straw { item_weights, straws }) => {
            check(item_weights, "weights")?;
            check(straws, "straws")?;
            put_pairs(out, item_weights, straws);
        }
        (Algorithm::Straw2, BucketData::Straw2 { item_weights }) => {
            check(item_weights, "weights")?;
            put_words(out, item_weights);
        }
        _ => return Err(BinaryError::BucketPlace { index, id }),
    }
    Ok(())
}

fn put_rule(out: &mut Vec<u8>, rule: &Rule) {
    put_u32(out, 1);
    put_length(out, rule.steps.len());
    out.extend_from_slice(&[rule.ruleset, rule.kind, rule.min_size, rule.max_size]);
    for &step in &rule.steps {
        let (op, first, second) = match step {
            Step::Noop => (0, 0, 0),
            Step::Take(item) => (1, item, 0),
            Step::ChooseFirstn { num, kind } => (2, num, kind),
            Step::ChooseIndep { num, kind } => (3, num, kind),
            Step::Emit => (4, 0, 0),
            Step::ChooseleafFirstn { num, kind } => (6, num, kind),
            Step::ChooseleafIndep { num, kind } => (7, num, kind),
            Step::SetChooseTries(tries) => (8, tries, 0),
            Step::SetChooseleafTries(tries) => (9, tries, 0),
            Step::SetChooseLocalTries(tries) => (10, tries, 0),
            Step::SetChooseLocalFallbackTries(tries) => (11, tries, 0),
            Step::SetChooseleafVaryR(value) => (12, value, 0),
            Step::SetChooseleafStable(value) => (13, value, 0),
        };
        put_u32(out, op);
        put_i32(out, first);
        put_i32(out, second);
    }
}

fn put_choose_args(
    out: &mut Vec<u8>,
    map: &CrushMap,
    set: i64,
    args: &BTreeMap<i32, ChooseArg>,
) -> Result<(), BinaryError> {
    out.extend_from_slice(&set.to_le_bytes());
    put_length(out, args.len());
    // By place, from bucket -1 on.
    for (&id, arg) in args.iter().rev() {
        let index = -1 - i64::from(id);
        let place = usize::try_from(index).ok().and_then(|index| map.buckets.get(index));
        let Some(Some(bucket)) = place else {
            return Err(BinaryError::ChooseArgBucket {
                set,
                index: u32::try_from(index).unwrap_or(u32::MAX),
                max_buckets: map.buckets.len(),
            });
        };
        if !arg.ids.is_empty() && arg.ids.len() != bucket.items.len() {
            let items = bucket.items.len();
            return Err(BinaryError::ChooseArgIds { set, bucket: id, items, ids: arg.ids.len() });
        }
        put_u32(out, index as u32);
        put_length(out, arg.weight_sets.len());
        for weights in &arg.weight_sets {
            put_length(out, weights.len());
            for weight in weights {
                put_u32(out, weight.0);
            }
        }
        put_length(out, arg.ids.len());
        for &id in &arg.ids {
            put_i32(out, id);
        }
    }
    Ok(())
}

fn put_names(
    out: &mut Vec<u8>,
    table: &'static str,
    names: &BTreeMap<i32, String>,
) -> Result<(), BinaryError> {
    put_length(out, names.len());
    for (&key, name) in names {
        if name.is_empty() {
            return Err(BinaryError::EmptyName { table, key });
        }
        put_i32(out, key);
        put_length(out, name.len());
        out.extend_from_slice(name.as_bytes());
    }
    Ok(())
}

fn put_ids(out: &mut Vec<u8>, ids: &BTreeMap<i32, i32>) {
    put_length(out, ids.len());
    for (&key, &value) in ids {
        put_i32(out, key);
        put_i32(out, value);
    }
}

/// A length as the format stores it. Nothing in memory reaches 2^32 elements of these kinds
/// before the map exceeds every bound on input.
fn put_length(out: &mut Vec<u8>, length: usize) {
    put_u32(out, length as u32);
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_words(out: &mut Vec<u8>, values: &[u32]) {
    for &value in values {
        put_u32(out, value);
    }
}

fn put_pairs(out: &mut Vec<u8>, firsts: &[u32], seconds: &[u32]) {
    for (&first, &second) in firsts.iter().zip(seconds) {
        put_u32(out, first);
        put_u32(out, second);
    }
}
