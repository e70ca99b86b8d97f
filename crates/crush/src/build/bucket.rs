//! The five kinds of buckets, with what each keeps besides its items.

use crate::binary::tree_nodes;
use crate::{Algorithm, Bucket, BucketData};
use std::cmp::Ordering;

/// The sum of a bucket's weights does not fit 16.16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeightOverflow;

/// A bucket over items with their weights. A uniform one takes the first weight for all, as Ceph does.
pub fn make_bucket(
    id: i32,
    kind: u16,
    algorithm: Algorithm,
    items: &[i32],
    weights: &[u32],
    straw_calc_version: u8,
) -> Result<Bucket, WeightOverflow> {
    let item_weights = weights.to_vec();
    let mut weight = 0_u32;
    let mut sum_weights = Vec::with_capacity(weights.len());
    for item_weight in weights {
        weight = weight.checked_add(*item_weight).ok_or(WeightOverflow)?;
        sum_weights.push(weight);
    }
    let data = match algorithm {
        Algorithm::Uniform => BucketData::Uniform { item_weight: weights.first().copied().unwrap_or(0) },
        Algorithm::List => BucketData::List { item_weights, sum_weights },
        Algorithm::Tree => BucketData::Tree { node_weights: tree_weights(weights) },
        Algorithm::Straw => BucketData::Straw { straws: straws(weights, straw_calc_version), item_weights },
        Algorithm::Straw2 => BucketData::Straw2 { item_weights },
    };
    Ok(Bucket { id, kind, algorithm, hash: 0, weight, items: items.to_vec(), data })
}

impl Bucket {
    /// Weight of the item at a position, by the bucket's own weights; 0 where there is none.
    pub fn item_weight(&self, position: usize) -> u32 {
        if position >= self.items.len() {
            return 0;
        }
        let weight = match &self.data {
            BucketData::Uniform { item_weight } => Some(item_weight),
            BucketData::List { item_weights, .. }
            | BucketData::Straw { item_weights, .. }
            | BucketData::Straw2 { item_weights } => item_weights.get(position),
            BucketData::Tree { node_weights } => node_weights.get(2 * position + 1),
        };
        weight.copied().unwrap_or(0)
    }

    /// Weights of all items.
    pub fn item_weights(&self) -> Vec<u32> {
        (0..self.items.len()).map(|position| self.item_weight(position)).collect()
    }
}

/// The leaves at odd nodes, and each inner node the sum of the two below it. In a node's number the
/// trailing zeros are its height.
fn tree_weights(weights: &[u32]) -> Vec<u32> {
    let mut nodes = vec![0_u32; tree_nodes(weights.len())];
    let root = nodes.len() / 2;
    for (position, &weight) in weights.iter().enumerate() {
        let mut node = 2 * position + 1;
        nodes[node] += weight;
        while node != root {
            let half = 1 << node.trailing_zeros();
            let is_right = node & (half << 1) != 0;
            node = if is_right { node - half } else { node + half };
            nodes[node] += weight;
        }
    }
    nodes
}

/// Lengths of the straws: the lightest item's is 1, and each heavier one's so much longer that the chance
/// to be the longest, times a hash, is the weight's share (nearly: that is why there is straw2).
///
/// Doubles, step by step as in Ceph's `crush_calc_straw`, for the result is part of the map. Version 0 counts
/// the items that remain wrongly where weights repeat or are 0, and is kept for the maps that have it.
fn straws(weights: &[u32], version: u8) -> Vec<u32> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Stable: items of one weight keep their order.
    order.sort_by_key(|&index| weights[index]);
    let mut straws = vec![0; weights.len()];
    let mut remaining = weights.len() as u32;
    let (mut straw, mut below, mut last_weight) = (1.0_f64, 0.0_f64, 0.0_f64);
    for (rank, &index) in order.iter().enumerate() {
        let weight = weights[index];
        if weight == 0 {
            if version > 0 {
                remaining -= 1;
            }
            continue;
        }
        straws[index] = fixed_point(straw);
        let heavier = &order[rank + 1..];
        let Some(&next_index) = heavier.first() else { break };
        let next = weights[next_index];
        if version == 0 && next.cmp(&weight) == Ordering::Equal {
            continue;
        }
        below += (f64::from(weight) - last_weight) * f64::from(remaining);
        remaining -= match version {
            0 => heavier.iter().take_while(|&&index| weights[index] == next).count() as u32,
            _ => 1,
        };
        // A product of 32 bits, which wraps.
        let above = f64::from(remaining.wrapping_mul(next - weight));
        straw *= (1.0 / (below / (below + above))).powf(1.0 / f64::from(remaining));
        last_weight = f64::from(weight);
    }
    straws
}

/// 16.16, cut as C on x86-64 cuts a double: by way of 64 bits, and 0 for what does not fit them.
fn fixed_point(value: f64) -> u32 {
    let scaled = value * 65536.0;
    match scaled < i64::MAX as f64 {
        true => scaled as i64 as u32,
        false => 0,
    }
}
