//! Making a map ready.

use super::straw2::{Kernel, Tables};
use super::{ChooseArgs, MAX_DRAWS, Method, Node, Placer, Replacement};
use crate::validate::bucket_place;
use crate::{Bucket, BucketData, CrushMap, MapError, Step};
use cairn_types::Weight;
use std::collections::BTreeMap;

pub(super) fn compile(map: &CrushMap) -> Result<Placer, MapError> {
    map.validate()?;
    let mut placer = Placer {
        tunables: map.tunables,
        max_devices: map.max_devices,
        rules: map.rules.clone(),
        nodes: Vec::with_capacity(map.buckets.len()),
        items: Vec::new(),
        words: Vec::new(),
        straw2: Tables::default(),
        choose_args: BTreeMap::new(),
        replacements: Vec::new(),
        permutation_len: 0,
        kernel: Kernel::detect(),
        max_draws: MAX_DRAWS.into(),
    };
    let has_fallback = has_fallback(map);
    for bucket in &map.buckets {
        let node = bucket.as_ref().map(|bucket| node(&mut placer, bucket, has_fallback));
        placer.nodes.push(node);
    }
    replace(&mut placer, map);
    Ok(placer)
}

/// Adds the draws of the choose-args. What it takes is in proportion to their entries, not to sets times buckets.
fn replace(placer: &mut Placer, map: &CrushMap) {
    let mut placed = Vec::new();
    for (number, (&pool, args)) in map.choose_args.iter().enumerate() {
        let set = ChooseArgs(number as u32);
        placer.choose_args.insert(pool, set);
        for (&id, arg) in args {
            // Validation has found the bucket. Other algorithms take no replacements.
            let Some((bucket, place)) = map.bucket(id).zip(bucket_place(id)) else { continue };
            let BucketData::Straw2 { item_weights } = &bucket.data else { continue };
            let own: Vec<Weight> = item_weights.iter().copied().map(Weight).collect();
            let ids = if arg.ids.is_empty() { &bucket.items } else { &arg.ids };
            let sets = if arg.weight_sets.is_empty() { std::slice::from_ref(&own) } else { &arg.weight_sets };
            let first = placer.straw2.len();
            for weights in sets {
                placer.straw2.add(ids, &bucket.items, weights.iter().map(|weight| weight.0));
            }
            placed.push((place, Replacement { set, first, count: placer.straw2.len() - first }));
        }
    }
    // Stable: the sets of a place stay in order.
    placed.sort_by_key(|&(place, _)| place);
    for group in placed.chunk_by(|a, b| a.0 == b.0) {
        if let Some(node) = &mut placer.nodes[group[0].0] {
            node.replacements = (placer.replacements.len() as u32, group.len() as u32);
        }
        placer.replacements.extend(group.iter().map(|(_, replacement)| *replacement));
    }
}

/// Whether any mapping can fall back to permutations of buckets of every algorithm.
fn has_fallback(map: &CrushMap) -> bool {
    let steps = map.rules.iter().flatten().flat_map(|rule| &rule.steps);
    map.tunables.choose_local_fallback_tries > 0
        || steps
            .into_iter()
            .any(|step| matches!(*step, Step::SetChooseLocalFallbackTries(tries) if tries > 0))
}

fn node(placer: &mut Placer, bucket: &Bucket, has_fallback: bool) -> Node {
    let first_item = placer.items.len() as u32;
    placer.items.extend_from_slice(&bucket.items);
    let words = placer.words.len() as u32;
    let method = match &bucket.data {
        BucketData::Uniform { .. } => Method::Uniform,
        BucketData::List { item_weights, sum_weights } => {
            placer.words.extend_from_slice(item_weights);
            placer.words.extend_from_slice(sum_weights);
            Method::List(words)
        }
        BucketData::Tree { node_weights } => {
            placer.words.extend_from_slice(node_weights);
            Method::Tree(words)
        }
        BucketData::Straw { straws, .. } => {
            placer.words.extend_from_slice(straws);
            Method::Straw(words)
        }
        BucketData::Straw2 { item_weights } => {
            Method::Straw2(placer.straw2.add(&bucket.items, &bucket.items, item_weights.iter().copied()))
        }
    };
    let permutation = placer.permutation_len as u32;
    if has_fallback || matches!(method, Method::Uniform) {
        placer.permutation_len += bucket.items.len();
    }
    let kind = bucket.kind.into();
    let len = bucket.items.len() as u32;
    Node { id: bucket.id, kind, first_item, len, method, permutation, replacements: (0, 0) }
}
