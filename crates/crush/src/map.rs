//! The CRUSH map as plain data, with the meaning and the numbers of Ceph's.

use cairn_types::Weight;
use std::collections::BTreeMap;

/// How a bucket chooses among its items. The numbers are those of the binary map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// Equal weights, constant time.
    Uniform = 1,
    /// Linked list: best when items are only ever added.
    List = 2,
    /// Binary tree of weights.
    Tree = 3,
    /// The first straw bucket, with precomputed straw lengths.
    Straw = 4,
    /// Straws drawn from an exponential distribution; the one to use.
    Straw2 = 5,
}

/// An inner node of the hierarchy. Its id is negative.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Negative number of the bucket.
    pub id: i32,
    /// Type number, above 0 (0 is the devices').
    pub kind: u16,
    /// How it chooses.
    pub algorithm: Algorithm,
    /// Hash number; 0 is rjenkins1, the only one there is.
    pub hash: u8,
    /// Sum of the items' weights, as stored.
    pub weight: u32,
    /// Children: devices from 0, buckets below 0.
    pub items: Vec<i32>,
    /// What its algorithm keeps besides.
    pub data: BucketData,
}

/// Algorithm-specific part of a bucket, as the binary map stores it. Weights are 16.16.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BucketData {
    /// One weight for all.
    Uniform {
        /// Weight of each item.
        item_weight: u32,
    },
    /// Weights and their running sums.
    List {
        /// Per item.
        item_weights: Vec<u32>,
        /// Sum of the weights up to and including the item.
        sum_weights: Vec<u32>,
    },
    /// Weights of the nodes of a binary tree; leaves at odd positions.
    Tree {
        /// Per node.
        node_weights: Vec<u32>,
    },
    /// Weights and straw lengths.
    Straw {
        /// Per item.
        item_weights: Vec<u32>,
        /// Length of each item's straw, 16.16.
        straws: Vec<u32>,
    },
    /// Weights alone.
    Straw2 {
        /// Per item.
        item_weights: Vec<u32>,
    },
}

/// One step of a rule. A negative or zero `num` is relative to the number of replicas wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Do nothing.
    Noop,
    /// Start from an item.
    Take(i32),
    /// Choose `num` items of type `kind`, packed to the front.
    ChooseFirstn {
        /// How many.
        num: i32,
        /// Type number.
        kind: i32,
    },
    /// Choose `num` items of type `kind`, each keeping its position.
    ChooseIndep {
        /// How many.
        num: i32,
        /// Type number.
        kind: i32,
    },
    /// Put the working set into the result.
    Emit,
    /// Choose buckets of type `kind` and one device below each.
    ChooseleafFirstn {
        /// How many.
        num: i32,
        /// Type number.
        kind: i32,
    },
    /// The same, each keeping its position.
    ChooseleafIndep {
        /// How many.
        num: i32,
        /// Type number.
        kind: i32,
    },
    /// For the rest of the rule.
    SetChooseTries(i32),
    /// For the rest of the rule.
    SetChooseleafTries(i32),
    /// For the rest of the rule.
    SetChooseLocalTries(i32),
    /// For the rest of the rule.
    SetChooseLocalFallbackTries(i32),
    /// For the rest of the rule.
    SetChooseleafVaryR(i32),
    /// For the rest of the rule.
    SetChooseleafStable(i32),
}

/// A placement rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Number the mask stores ("ruleset"); Ceph keeps it equal to the rule's own number.
    pub ruleset: u8,
    /// 1 replicated, 3 erasure.
    pub kind: u8,
    /// Smallest pool size it was meant for.
    pub min_size: u8,
    /// Largest pool size it was meant for.
    pub max_size: u8,
    /// What to do.
    pub steps: Vec<Step>,
}

/// Knobs of the mapping, with their names in a text map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunables {
    /// `choose_local_tries`
    pub choose_local_tries: u32,
    /// `choose_local_fallback_tries`
    pub choose_local_fallback_tries: u32,
    /// `choose_total_tries`
    pub choose_total_tries: u32,
    /// `chooseleaf_descend_once`
    pub chooseleaf_descend_once: u32,
    /// `chooseleaf_vary_r`
    pub chooseleaf_vary_r: u8,
    /// `chooseleaf_stable`
    pub chooseleaf_stable: u8,
    /// `straw_calc_version`
    pub straw_calc_version: u8,
    /// `allowed_bucket_algs`, a mask of `1 << algorithm`
    pub allowed_bucket_algs: u32,
}

/// Replaces the weights (by position of the replica) and ids a straw2 bucket hashes with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChooseArg {
    /// One set of item weights per replica position; the last stands for the positions after it.
    pub weight_sets: Vec<Vec<Weight>>,
    /// Ids to hash in place of the items' own; empty for none.
    pub ids: Vec<i32>,
}

/// A whole map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrushMap {
    /// Knobs.
    pub tunables: Tunables,
    /// One above the largest device number.
    pub max_devices: i32,
    /// Bucket `id` stands at index `-1 - id`. The length is the binary map's `max_buckets`.
    pub buckets: Vec<Option<Bucket>>,
    /// By rule number. The length is the binary map's `max_rules`.
    pub rules: Vec<Option<Rule>>,
    /// Type number → name; 0 is the devices'.
    pub type_names: BTreeMap<i32, String>,
    /// Device or bucket → name. Shadow buckets are named `NAME~CLASS`.
    pub item_names: BTreeMap<i32, String>,
    /// Rule number → name.
    pub rule_names: BTreeMap<i32, String>,
    /// Device or shadow bucket → device class.
    pub item_classes: BTreeMap<i32, i32>,
    /// Device class → name.
    pub class_names: BTreeMap<i32, String>,
    /// Bucket → device class → its shadow bucket.
    pub shadow_buckets: BTreeMap<i32, BTreeMap<i32, i32>>,
    /// Choose-args id (a pool's, or −1 for the default set) → bucket id → replacement.
    pub choose_args: BTreeMap<i64, BTreeMap<i32, ChooseArg>>,
}
