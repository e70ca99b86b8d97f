//! Choosing distinct items below a bucket: packed to the front (`firstn`) or each in its position (`indep`).
//!
//! The order in which hashes are drawn, and with which `r`, decides where data lives. Every detail here
//! follows Ceph's `src/crush/mapper.c`, including what looks like an oversight.

use super::buckets::Permutations;
use super::straw2::Draws;
use super::{ChooseArgs, Method, NO_ITEM, Node, Placer, UNDECIDED};
use crate::hash::hash2;
use cairn_types::Weight;
use std::ops::Range;

/// What one choice costs of the draws besides the items it looks at and those it must differ from, so that the
/// bound on draws bounds the time too.
const CHOICE_COST: i64 = 16;

/// One mapping under way.
pub(super) struct Mapping<'a> {
    pub placer: &'a Placer,
    pub x: u32,
    pub weights: &'a [Weight],
    pub choose_args: Option<ChooseArgs>,
    pub draws: &'a mut Draws,
    pub permutations: &'a mut Permutations,
    /// What is left of [`Placer::max_draws`].
    pub draws_left: i64,
}

/// What to choose, and how hard to try.
pub(super) struct Choice {
    /// How many items; above 0.
    pub wanted: i32,
    /// Their type.
    pub kind: i32,
    /// Descents per item.
    pub tries: u32,
    /// Descents for the leaf below an item.
    pub leaf_tries: u32,
    /// Retries in the same bucket after a collision.
    pub local_retries: u32,
    /// Retries in the same bucket by permutation; 0 for none.
    pub local_fallback_retries: u32,
    /// By how much the leaf's `r` depends on the item's.
    pub vary_r: u32,
    /// Whether the leaf's `r` is independent of its position.
    pub is_stable: bool,
}

/// Where a descent ended.
enum Descent {
    /// At an item of the type wanted.
    Found(i32),
    /// At an empty bucket, or at the end of the draws.
    Empty,
    /// At a device while looking for a bucket type.
    WrongKind,
}

impl<'a> Mapping<'a> {
    /// Fills `out[outpos..]` with up to `count` distinct items and returns the new end.
    ///
    /// With `leaves`, a device below each item goes to the same position there.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn choose_firstn(
        &mut self,
        top: &Node,
        choice: &Choice,
        out: &mut [i32],
        mut outpos: usize,
        mut count: usize,
        mut leaves: Option<&mut [i32]>,
        parent_r: i32,
    ) -> usize {
        let mut rep = if choice.is_stable { 0 } else { outpos as i32 };
        while rep < choice.wanted && count > 0 {
            let mut failures = 0_u32;
            'descent: loop {
                let mut node = top;
                let mut failures_here = 0_u32;
                loop {
                    let r = rep.wrapping_add(parent_r).wrapping_add(failures as i32);
                    let mut has_collided = false;
                    let mut found = None;
                    self.draws_left -= CHOICE_COST + i64::from(node.len) + outpos as i64;
                    if self.draws_left < 0 {
                        return outpos;
                    }
                    if node.len > 0 {
                        let is_fallback = choice.local_fallback_retries > 0
                            && failures_here >= node.len >> 1
                            && failures_here > choice.local_fallback_retries;
                        let item = match is_fallback {
                            true => self.choose_by_permutation(node, r),
                            false => self.choose_in(node, r, outpos),
                        };
                        let (kind, next) = kind_of(self.placer, item);
                        if kind != choice.kind {
                            match next {
                                Some(next) => {
                                    node = next;
                                    continue;
                                }
                                // A device where a bucket is wanted: no more tries for this one.
                                None => break 'descent,
                            }
                        }
                        has_collided = out[..outpos].contains(&item);
                        let is_rejected = !has_collided
                            && (!self.find_leaf(next, choice, item, r, outpos, count, leaves.as_deref_mut())
                                || kind == 0 && self.is_out(item));
                        if !has_collided && !is_rejected {
                            found = Some(item);
                        }
                    }
                    if let Some(item) = found {
                        out[outpos] = item;
                        outpos += 1;
                        count -= 1;
                        break 'descent;
                    }
                    failures = failures.wrapping_add(1);
                    failures_here = failures_here.wrapping_add(1);
                    let is_local = has_collided && failures_here <= choice.local_retries
                        || choice.local_fallback_retries > 0
                            && failures_here <= node.len.wrapping_add(choice.local_fallback_retries);
                    if is_local {
                        continue;
                    }
                    if failures < choice.tries {
                        continue 'descent;
                    }
                    break 'descent;
                }
            }
            rep += 1;
        }
        outpos
    }

    /// Puts a device below the item into `leaves[outpos]`, where one is wanted; says whether it worked.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn find_leaf(
        &mut self,
        node: Option<&Node>,
        choice: &Choice,
        item: i32,
        r: i32,
        outpos: usize,
        count: usize,
        leaves: Option<&mut [i32]>,
    ) -> bool {
        let Some(leaves) = leaves else { return true };
        let Some(node) = node else {
            leaves[outpos] = item;
            return true;
        };
        let parent_r = match choice.vary_r {
            0 => 0,
            vary => r.wrapping_shr(vary - 1),
        };
        let leaf = Choice {
            wanted: if choice.is_stable { 1 } else { outpos as i32 + 1 },
            kind: 0,
            tries: choice.leaf_tries,
            leaf_tries: 0,
            ..*choice
        };
        self.choose_firstn(node, &leaf, leaves, outpos, count, None, parent_r) > outpos
    }

    /// Fills every one of the `slots` with a distinct item or [`NO_ITEM`].
    pub(super) fn choose_indep(
        &mut self,
        top: &Node,
        choice: &Choice,
        out: &mut [i32],
        slots: Range<usize>,
        mut leaves: Option<&mut [i32]>,
        parent_r: i32,
    ) {
        out[slots.clone()].fill(UNDECIDED);
        if let Some(leaves) = leaves.as_deref_mut() {
            leaves[slots.clone()].fill(UNDECIDED);
        }
        let mut open = slots.len();
        let mut failures = 0;
        'tries: while open > 0 && failures < choice.tries {
            for slot in slots.clone() {
                if out[slot] != UNDECIDED {
                    continue;
                }
                self.draws_left -= slots.len() as i64;
                let (item, r) = match self.descend_indep(top, choice, slot, slots.start, failures, parent_r) {
                    (Descent::Found(item), r) => (item, r),
                    (Descent::Empty, _) if self.draws_left < 0 => break 'tries,
                    (Descent::Empty, _) => continue,
                    (Descent::WrongKind, _) => {
                        out[slot] = NO_ITEM;
                        if let Some(leaves) = leaves.as_deref_mut() {
                            leaves[slot] = NO_ITEM;
                        }
                        open -= 1;
                        continue;
                    }
                };
                if out[slots.clone()].contains(&item) {
                    continue;
                }
                let (kind, node) = kind_of(self.placer, item);
                if let Some(leaves) = leaves.as_deref_mut() {
                    match node {
                        Some(node) => {
                            let leaf = Choice { kind: 0, tries: choice.leaf_tries, leaf_tries: 0, ..*choice };
                            self.choose_indep(node, &leaf, leaves, slot..slot + 1, None, r);
                            if leaves[slot] == NO_ITEM {
                                continue;
                            }
                        }
                        None => leaves[slot] = item,
                    }
                }
                if kind == 0 && self.is_out(item) {
                    continue;
                }
                out[slot] = item;
                open -= 1;
            }
            failures += 1;
        }
        let close = |vector: &mut [i32]| {
            for slot in vector.iter_mut().filter(|slot| **slot == UNDECIDED) {
                *slot = NO_ITEM;
            }
        };
        close(&mut out[slots.clone()]);
        if let Some(leaves) = leaves {
            close(&mut leaves[slots]);
        }
    }

    /// One descent for a slot, and the `r` of its last choice.
    fn descend_indep(
        &mut self,
        top: &Node,
        choice: &Choice,
        slot: usize,
        position: usize,
        failures: u32,
        parent_r: i32,
    ) -> (Descent, i32) {
        let wanted = choice.wanted;
        let mut node = top;
        loop {
            // A uniform bucket whose size the count divides would try the same items again and again.
            let is_divided = matches!(node.method, Method::Uniform) && node.len.is_multiple_of(wanted as u32);
            let stride = if is_divided { wanted.wrapping_add(1) } else { wanted };
            let r = (slot as i32).wrapping_add(parent_r).wrapping_add(stride.wrapping_mul(failures as i32));
            self.draws_left -= CHOICE_COST + i64::from(node.len);
            if node.len == 0 || self.draws_left < 0 {
                return (Descent::Empty, r);
            }
            let item = self.choose_in(node, r, position);
            let (kind, next) = kind_of(self.placer, item);
            if kind == choice.kind {
                return (Descent::Found(item), r);
            }
            match next {
                Some(next) => node = next,
                None => return (Descent::WrongKind, r),
            }
        }
    }

    /// Whether the device's in-weight rejects this input.
    #[inline(always)]
    fn is_out(&self, item: i32) -> bool {
        match self.weights.get(item as u32 as usize) {
            None | Some(&Weight::ZERO) => true,
            Some(&weight) if weight >= Weight::ONE => false,
            Some(&weight) => hash2(self.x, item as u32) & 0xffff >= weight.0,
        }
    }
}

/// Type of an item, and its node if it is a bucket. Validation has seen to it that there is one.
#[inline(always)]
fn kind_of(placer: &Placer, item: i32) -> (i32, Option<&Node>) {
    match item {
        0.. => (0, None),
        _ => match placer.node(item) {
            Some(node) => (node.kind, Some(node)),
            None => (0, None),
        },
    }
}
