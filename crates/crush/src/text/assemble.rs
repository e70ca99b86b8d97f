//! Making buckets and shadow trees for the compiler.

use crate::{Algorithm, Bucket, BucketData, CrushMap};
use std::collections::{BTreeMap, BTreeSet};

/// The sum of a bucket's weights does not fit.
#[derive(Debug)]
pub(super) struct WeightOverflow;

/// A bucket over items with their weights.
pub(super) fn make_bucket(
    id: i32,
    kind: u16,
    algorithm: Algorithm,
    items: &[i32],
    weights: &[u32],
    straw_calc_version: u8,
) -> Result<Bucket, WeightOverflow> {
    let mut weight = 0_u32;
    let mut sum_weights = Vec::with_capacity(weights.len());
    for &item_weight in weights {
        weight = weight.checked_add(item_weight).ok_or(WeightOverflow)?;
        sum_weights.push(weight);
    }
    let item_weights = weights.to_vec();
    let data = match algorithm {
        Algorithm::Uniform => BucketData::Uniform { item_weight: weights.first().copied().unwrap_or(0) },
        Algorithm::List => BucketData::List { item_weights, sum_weights },
        Algorithm::Tree => BucketData::Tree { node_weights: tree_weights(weights) },
        Algorithm::Straw => BucketData::Straw { straws: straws(weights, straw_calc_version), item_weights },
        Algorithm::Straw2 => BucketData::Straw2 { item_weights },
    };
    Ok(Bucket { id, kind, algorithm, hash: 0, weight, items: items.to_vec(), data })
}

fn tree_weights(weights: &[u32]) -> Vec<u32> {
    let nodes = crate::binary::tree_nodes(weights.len());
    let mut node_weights = vec![0_u32; nodes];
    for (position, &weight) in weights.iter().enumerate() {
        let mut node = 2 * position + 1;
        let mut height = 0;
        loop {
            node_weights[node] += weight;
            if node == nodes / 2 {
                break;
            }
            node = if node & (2 << height) != 0 { node - (1 << height) } else { node + (1 << height) };
            height += 1;
        }
    }
    node_weights
}

fn straws(weights: &[u32], version: u8) -> Vec<u32> {
    let size = weights.len();
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by_key(|&index| weights[index]);
    let mut straws = vec![0_u32; size];
    let (mut straw, mut below, mut last) = (1.0_f64, 0.0_f64, 0.0_f64);
    let mut left = size as u32;
    let mut i = 0;
    while i < size {
        let weight = weights[order[i]];
        if weight == 0 {
            i += 1;
            if version >= 1 {
                left -= 1;
            }
            continue;
        }
        straws[order[i]] = (straw * 65536.0) as i64 as u32;
        i += 1;
        if i == size {
            break;
        }
        let next = weights[order[i]];
        if version == 0 {
            if next == weight {
                continue;
            }
            below += (f64::from(weight) - last) * f64::from(left);
            left -= order[i..].iter().take_while(|&&index| weights[index] == next).count() as u32;
        } else {
            below += (f64::from(weight) - last) * f64::from(left);
            left -= 1;
        }
        let above = f64::from(left.wrapping_mul(next - weight));
        let share = below / (below + above);
        straw *= (1.0 / share).powf(1.0 / f64::from(left));
        last = f64::from(weight);
    }
    straws
}

/// Puts a bucket at its id's place, with the table grown as Ceph grows it.
pub(super) fn place_bucket(map: &mut CrushMap, bucket: Bucket) {
    let place = (-1 - bucket.id) as usize;
    while map.buckets.len() <= place {
        let grown = (map.buckets.len() * 2).max(8);
        map.buckets.resize(grown, None);
    }
    map.buckets[place] = Some(bucket);
}

/// Makes the shadow trees of all classes below all roots.
pub(super) fn populate_classes(
    map: &mut CrushMap,
    wanted: &BTreeMap<i32, BTreeMap<i32, i32>>,
) -> Result<(), String> {
    let used: BTreeSet<i32> = wanted.values().flat_map(|shadows| shadows.values().copied()).collect();
    let held: BTreeSet<i32> = map.buckets.iter().flatten().flat_map(|bucket| bucket.items.clone()).collect();
    let roots: Vec<i32> =
        map.buckets.iter().flatten().map(|bucket| bucket.id).filter(|id| !held.contains(id)).rev().collect();
    let classes: Vec<i32> = map.class_names.keys().copied().collect();
    for root in roots {
        for &class in &classes {
            shadow(map, root, class, wanted, &used)?;
        }
    }
    Ok(())
}

fn shadow(
    map: &mut CrushMap,
    id: i32,
    class: i32,
    wanted: &BTreeMap<i32, BTreeMap<i32, i32>>,
    used: &BTreeSet<i32>,
) -> Result<i32, String> {
    if let Some(&done) = map.shadow_buckets.get(&id).and_then(|shadows| shadows.get(&class)) {
        return Ok(done);
    }
    let original = map.buckets[(-1 - id) as usize].clone().ok_or("missing bucket")?;
    let (mut items, mut weights) = (Vec::new(), Vec::new());
    for (position, &item) in original.items.iter().enumerate() {
        if item >= 0 {
            if map.item_classes.get(&item) == Some(&class) {
                items.push(item);
                weights.push(match &original.data {
                    BucketData::Uniform { item_weight } => *item_weight,
                    BucketData::List { item_weights, .. }
                    | BucketData::Straw { item_weights, .. }
                    | BucketData::Straw2 { item_weights } => item_weights[position],
                    BucketData::Tree { node_weights } => node_weights[2 * position + 1],
                });
            }
        } else {
            let child = shadow(map, item, class, wanted, used)?;
            items.push(child);
            weights.push(map.buckets[(-1 - child) as usize].as_ref().map_or(0, |bucket| bucket.weight));
        }
    }
    let shadow_id = match wanted.get(&id).and_then(|shadows| shadows.get(&class)) {
        Some(&wanted) => wanted,
        None => (1..)
            .map(|n| -n)
            .find(|id| !used.contains(id) && !matches!(map.buckets.get((-1 - id) as usize), Some(Some(_))))
            .ok_or("no id left")?,
    };
    let version = map.tunables.straw_calc_version;
    let copy = make_bucket(shadow_id, original.kind, original.algorithm, &items, &weights, version)
        .map_err(|_| "weights overflow".to_owned())?;
    place_bucket(map, copy);
    map.item_classes.insert(shadow_id, class);
    let name = format!("{}~{}", map.item_names[&id], map.class_names[&class]);
    map.item_names.insert(shadow_id, name);
    map.shadow_buckets.entry(id).or_default().insert(class, shadow_id);
    Ok(shadow_id)
}

/// The legacy profile.
pub(super) const LEGACY: crate::Tunables = crate::Tunables {
    choose_local_tries: 2,
    choose_local_fallback_tries: 5,
    choose_total_tries: 19,
    chooseleaf_descend_once: 0,
    chooseleaf_vary_r: 0,
    chooseleaf_stable: 0,
    straw_calc_version: 0,
    allowed_bucket_algs: 22,
};
