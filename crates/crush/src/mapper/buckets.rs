//! How the older algorithms choose one item of a bucket, and the permutations some of them need.

use super::choose::Mapping;
use super::{Method, Node};
use crate::hash::{hash3, hash4};

/// In place of a count of decided positions: only the first is, and nothing else is written yet. The
/// number is Ceph's and can be mistaken for a count in a bucket of more than 65,535 items; so it is here.
const ONLY_FIRST: u32 = 0xffff;

/// The permutations of the buckets, begun anew for each mapping.
#[derive(Default)]
pub(super) struct Permutations {
    order: Vec<u32>,
    states: Vec<State>,
    mapping: u64,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The mapping this state belongs to; in any other the permutation has not begun.
    mapping: u64,
    /// How many positions are decided.
    decided: u32,
}

impl Permutations {
    /// Forgets all permutations, with room for so many buckets and so many places in all.
    pub(super) fn begin(&mut self, nodes: usize, places: usize) {
        self.mapping += 1;
        if self.order.len() < places {
            self.order.resize(places, 0);
        }
        if self.states.len() < nodes {
            self.states.resize(nodes, State::default());
        }
    }
}

impl Mapping<'_> {
    /// One item of a bucket that is not empty, by the bucket's own algorithm.
    #[inline(always)]
    pub(super) fn choose_in(&mut self, node: &Node, r: i32, position: usize) -> i32 {
        match node.method {
            Method::Straw2(draw) => self.choose_straw2(node, draw, r, position),
            Method::Uniform => self.choose_by_permutation(node, r),
            Method::List(words) => self.choose_list(node, words, r),
            Method::Tree(words) => self.choose_tree(node, words, r),
            Method::Straw(words) => self.choose_straw(node, words, r),
        }
    }

    /// The item at place `r` of a random permutation, decided as far as it is asked for.
    pub(super) fn choose_by_permutation(&mut self, node: &Node, r: i32) -> i32 {
        let items = self.placer.items_of(node);
        let len = node.len;
        let place = r as u32 % len;
        let mapping = self.permutations.mapping;
        let state = &mut self.permutations.states[(-1 - node.id) as usize];
        let order = &mut self.permutations.order[node.permutation as usize..][..len as usize];
        let draw = |position: u32, choices: u32| hash3(self.x, node.id as u32, position) % choices;
        if state.mapping != mapping || state.decided == 0 {
            state.mapping = mapping;
            if place == 0 {
                order[0] = draw(0, len);
                state.decided = ONLY_FIRST;
                return items[order[0] as usize];
            }
            for (position, index) in order.iter_mut().enumerate() {
                *index = position as u32;
            }
            state.decided = 0;
        } else if state.decided == ONLY_FIRST {
            let first = order[0];
            for (position, index) in order.iter_mut().enumerate().skip(1) {
                *index = position as u32;
            }
            order[first as usize] = 0;
            // Where the first is item 0 itself the line above has written what stood there.
            order[0] = first;
            state.decided = 1;
        }
        while state.decided <= place {
            let position = state.decided;
            // The last one has nothing left to be swapped with.
            if position < len - 1 {
                let other = position + draw(position, len - position);
                order.swap(position as usize, other as usize);
            }
            state.decided += 1;
        }
        items[order[place as usize] as usize]
    }

    /// From the youngest item on, each is taken with its share of the weight up to it.
    fn choose_list(&self, node: &Node, words: u32, r: i32) -> i32 {
        let items = self.placer.items_of(node);
        let item_weights = self.placer.words_at(words, node.len);
        let sum_weights = self.placer.words_at(words + node.len, node.len);
        for index in (0..items.len()).rev() {
            let hash = hash4(self.x, items[index] as u32, r as u32, node.id as u32) & 0xffff;
            if (u64::from(hash) * u64::from(sum_weights[index])) >> 16 < u64::from(item_weights[index]) {
                return items[index];
            }
        }
        items[0]
    }

    /// Down a binary tree whose nodes are numbered in order: leaves are odd, and a node's number of
    /// trailing zeros is its height.
    fn choose_tree(&self, node: &Node, words: u32, r: i32) -> i32 {
        let items = self.placer.items_of(node);
        let weights = self.placer.words_at(words, 2 * node.len.next_power_of_two());
        let mut at = weights.len() as u32 / 2;
        while at & 1 == 0 {
            let hash = hash4(self.x, at, r as u32, node.id as u32);
            let point = (u64::from(hash) * u64::from(weights[at as usize])) >> 32;
            let half = 1 << (at.trailing_zeros() - 1);
            let left = at - half;
            at = if point < u64::from(weights[left as usize]) { left } else { at + half };
        }
        // Weights that do not add up lead beyond the last item.
        items.get(at as usize >> 1).copied().unwrap_or(items[0])
    }

    /// The longest straw, each of its item's length times a hash.
    fn choose_straw(&mut self, node: &Node, words: u32, r: i32) -> i32 {
        let items = self.placer.items_of(node);
        let straws = self.placer.words_at(words, node.len);
        let (mut best, mut best_draw) = (0, 0);
        for (index, (&item, &straw)) in items.iter().zip(straws).enumerate() {
            let draw = u64::from(hash3(self.x, item as u32, r as u32) & 0xffff) * u64::from(straw);
            if index == 0 || draw > best_draw {
                (best, best_draw) = (index, draw);
            }
        }
        items[best]
    }
}
