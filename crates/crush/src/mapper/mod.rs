//! From an input to devices: the rules of a map, run as Ceph's `crush_do_rule` runs them, to the bit.
//!
//! A [`Placer`] is a map made ready once: contiguous, with the divisions of straw2 prepared. Mapping over
//! it takes no memory but a [`Scratch`] the caller keeps, uses integers only, and always ends.

mod buckets;
mod choose;
mod compile;
mod rule;
mod straw2;

use crate::{CrushMap, MapError, Rule, Tunables};
use cairn_types::Weight;
use std::collections::BTreeMap;

/// In a result of an `indep` rule, the position that got no item (Ceph's `CRUSH_ITEM_NONE`).
pub const NO_ITEM: i32 = 0x7fff_ffff;

/// While an `indep` rule chooses, a position that is still open. No device has this number.
const UNDECIDED: i32 = 0x7fff_fffe;

/// The choose-args set that stands in for sets that are not there (Ceph's `DEFAULT_CHOOSE_ARGS`).
pub const DEFAULT_CHOOSE_ARGS: i64 = -1;

/// Most items one mapping may look at before it gives up with what it has, in a fraction of a second (each choice
/// counts as some items more). Ceph has no such bound: a map may ask for 2^31 tries of buckets of any size. An
/// honest rule that can be satisfied looks at some thousands; one that cannot, for eleven chunks with 100 tries
/// over a flat bucket of 10,000 devices, at eleven million.
pub const MAX_DRAWS: u32 = 1 << 27;

/// A map made ready for mapping. It does not change; make another for another map.
pub struct Placer {
    tunables: Tunables,
    max_devices: i32,
    rules: Vec<Option<Rule>>,
    /// By `-1 - id`.
    nodes: Vec<Option<Node>>,
    items: Vec<i32>,
    /// Weights of lists and trees, straw lengths, wherever a node's method says.
    words: Vec<u32>,
    straw2: straw2::Tables,
    choose_args: BTreeMap<i64, ChooseArgs>,
    /// Each node's replacements side by side, by set.
    replacements: Vec<Replacement>,
    /// Places the permutations need.
    permutation_len: usize,
    kernel: straw2::Kernel,
    max_draws: i64,
}

/// A bucket made ready.
#[derive(Clone, Copy)]
struct Node {
    id: i32,
    kind: i32,
    /// In [`Placer::items`].
    first_item: u32,
    len: u32,
    method: Method,
    /// In the permutations of a [`Scratch`]; of no meaning where none can be asked for.
    permutation: u32,
    /// First and number of its [`Placer::replacements`].
    replacements: (u32, u32),
}

/// How a node chooses. Numbers are places in [`Placer::words`] or of straw2 draws.
#[derive(Clone, Copy)]
enum Method {
    Uniform,
    /// Item weights, then sums.
    List(u32),
    Tree(u32),
    Straw(u32),
    Straw2(u32),
}

/// One set of choose-args of a placer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChooseArgs(u32);

/// What one set of choose-args has for one bucket, in place of the bucket's own draw.
#[derive(Clone, Copy)]
struct Replacement {
    set: ChooseArgs,
    /// The draw for the first replica position.
    first: u32,
    /// How many there are; the last stands for the positions after it. Above 0.
    count: u32,
}

/// Memory a mapping works in. Make one per thread and keep it; it grows to what is asked of it.
#[derive(Default)]
pub struct Scratch {
    working: Vec<i32>,
    chosen: Vec<i32>,
    leaves: Vec<i32>,
    result: Vec<i32>,
    draws: straw2::Draws,
    permutations: buckets::Permutations,
}

impl Scratch {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Placer {
    /// Makes a map ready, if it makes sense.
    pub fn new(map: &CrushMap) -> Result<Self, MapError> {
        compile::compile(map)
    }

    /// Lets a mapping look at `max_draws` items at most, instead of [`MAX_DRAWS`]: for who has maps of strangers and
    /// little time.
    pub fn with_max_draws(mut self, max_draws: u32) -> Self {
        self.max_draws = max_draws.into();
        self
    }

    /// The choose-args set of a pool, or the default one, or none: as Ceph looks it up.
    ///
    /// `crushtool --test` asks for set 0.
    pub fn choose_args(&self, pool: i64) -> Option<ChooseArgs> {
        self.choose_args.get(&pool).or_else(|| self.choose_args.get(&DEFAULT_CHOOSE_ARGS)).copied()
    }

    /// Maps `x` by a rule to at most `num_rep` items.
    ///
    /// `weights` are the in-weights by device (1.0 is fully in; a device beyond the slice is out). The result may be
    /// shorter than asked for, and has [`NO_ITEM`] where an `indep` rule found nothing. A rule that is
    /// not there gives an empty one. `choose_args` must be this placer's own.
    pub fn place<'s>(
        &self,
        rule: usize,
        x: i32,
        num_rep: usize,
        weights: &[Weight],
        choose_args: Option<ChooseArgs>,
        scratch: &'s mut Scratch,
    ) -> &'s [i32] {
        scratch.result.clear();
        if let Some(Some(rule)) = self.rules.get(rule) {
            rule::run(self, rule, x, num_rep, weights, choose_args, scratch);
        }
        &scratch.result
    }

    /// The rule of a number.
    pub fn rule(&self, rule: usize) -> Option<&Rule> {
        self.rules.get(rule)?.as_ref()
    }

    /// One above the largest device number.
    pub fn max_devices(&self) -> i32 {
        self.max_devices
    }

    #[inline(always)]
    fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get((-1_i32).wrapping_sub(id) as u32 as usize)?.as_ref()
    }

    /// What a set of choose-args has for a node.
    fn replacement(&self, node: &Node, set: ChooseArgs) -> Option<&Replacement> {
        let (first, count) = node.replacements;
        let replacements = &self.replacements[first as usize..][..count as usize];
        // Nearly always there is one set.
        let place = replacements.partition_point(|replacement| replacement.set < set);
        replacements.get(place).filter(|replacement| replacement.set == set)
    }

    #[inline(always)]
    fn items_of(&self, node: &Node) -> &[i32] {
        &self.items[node.first_item as usize..][..node.len as usize]
    }

    #[inline(always)]
    fn words_at(&self, first: u32, len: u32) -> &[u32] {
        &self.words[first as usize..][..len as usize]
    }
}
