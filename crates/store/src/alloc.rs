//! Which blocks of the data region are in use, and which may be given out.
//!
//! Two bits a block. `used`: the state refers to it; this is what a checkpoint keeps. `busy`: used, or
//! freed by a transaction that no checkpoint holds yet: such a block is not given out, so that
//! replaying the log never meets a block with another content than it had.
//!
//! Over `busy` lies a summary of the longest free runs ([`Runs`]): in a store that is nearly full and in
//! pieces, a search would else go over gigabytes of it for each piece, and still miss the long runs.

mod runs;

use runs::Runs;
use std::collections::BTreeSet;

/// Blocks under one entry of the index: a bitmap of 4 KiB.
pub const CHUNK_BLOCKS: u64 = 32_768;
const CHUNK_WORDS: usize = (CHUNK_BLOCKS / 64) as usize;
/// Neighbouring device blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Run {
    /// First block, by its place on the device.
    pub unit: u64,
    /// How many.
    pub count: u64,
}

/// The free map.
#[derive(Debug)]
pub struct Allocator {
    /// Device block of bit 0.
    base: u64,
    blocks: u64,
    used: Vec<u64>,
    busy: Runs,
    used_blocks: u64,
    busy_blocks: u64,
    dirty_chunks: BTreeSet<u32>,
    /// The one made dirty last: neighbours follow each other.
    last_dirty: Option<u32>,
}

impl Allocator {
    /// Nothing in use.
    pub fn new(base: u64, blocks: u64) -> Self {
        Allocator {
            base,
            blocks,
            used: vec![0; blocks.div_ceil(64) as usize],
            busy: Runs::new(blocks),
            used_blocks: 0,
            busy_blocks: 0,
            dirty_chunks: BTreeSet::new(),
            last_dirty: None,
        }
    }

    /// Takes over what a checkpoint kept of one chunk. `false` if it does not fit the region.
    pub fn load_chunk(&mut self, chunk: u32, bitmap: &[u8]) -> bool {
        let first = chunk as usize * CHUNK_WORDS;
        if bitmap.len() != CHUNK_WORDS * 8 || first >= self.used.len() {
            return false;
        }
        for (word, bytes) in (first..).zip(bitmap.chunks_exact(8)) {
            let mut value = 0_u64;
            for (shift, byte) in bytes.iter().enumerate() {
                value |= u64::from(*byte) << (8 * shift);
            }
            match self.used.get_mut(word) {
                Some(used) if value & self.busy.word(word) == 0 => {
                    *used = value;
                    self.busy.set_in_word(word, value);
                    self.used_blocks += u64::from(value.count_ones());
                    self.busy_blocks += u64::from(value.count_ones());
                }
                _ if value == 0 => {}
                _ => return false,
            }
        }
        true
    }

    /// One chunk as a checkpoint keeps it.
    pub fn chunk(&self, chunk: u32) -> Vec<u8> {
        let first = chunk as usize * CHUNK_WORDS;
        let end = (first + CHUNK_WORDS).min(self.used.len());
        let mut bitmap = Vec::with_capacity(CHUNK_WORDS * 8);
        self.used[first..end].iter().for_each(|word| bitmap.extend_from_slice(&word.to_le_bytes()));
        bitmap.resize(CHUNK_WORDS * 8, 0);
        bitmap
    }

    /// Chunks changed since this was asked last.
    pub fn take_dirty_chunks(&mut self) -> BTreeSet<u32> {
        self.last_dirty = None;
        std::mem::take(&mut self.dirty_chunks)
    }

    /// Device block of the first.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Blocks in all.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Blocks the state refers to.
    pub fn used_blocks(&self) -> u64 {
        self.used_blocks
    }

    /// Blocks that can be given out.
    pub fn free_blocks(&self) -> u64 {
        self.blocks - self.busy_blocks
    }

    /// Blocks freed that wait for a checkpoint.
    pub fn waiting_blocks(&self) -> u64 {
        self.busy_blocks - self.used_blocks
    }

    /// Whether a device block is in the region.
    pub fn contains(&self, unit: u64) -> bool {
        unit.checked_sub(self.base).is_some_and(|bit| bit < self.blocks)
    }

    /// Whether the state refers to it.
    pub fn is_used(&self, unit: u64) -> bool {
        let bit = unit - self.base;
        self.used[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Whether it is neither in use nor to be given out: reserved, or freed since the checkpoint.
    pub fn is_waiting(&self, unit: u64) -> bool {
        self.contains(unit) && !self.is_used(unit) && self.busy.is_set(unit - self.base)
    }

    /// Every run of blocks that the state does not refer to, in order.
    pub fn each_unused_run(&self, mut visit: impl FnMut(Run)) {
        let mut run: Option<(u64, u64)> = None;
        for (word, &used) in self.used.iter().enumerate() {
            let first = word as u64 * 64;
            let end = (self.blocks - first).min(64);
            let mut bit = 0;
            while bit < end {
                let rest = used >> bit;
                if rest & 1 == 1 {
                    bit += u64::from(rest.trailing_ones());
                    continue;
                }
                let len = u64::from(rest.trailing_zeros()).min(end - bit);
                run = match run {
                    Some((start, count)) if start + count == first + bit => Some((start, count + len)),
                    other => {
                        if let Some((start, count)) = other {
                            visit(Run { unit: self.base + start, count });
                        }
                        Some((first + bit, len))
                    }
                };
                bit += len;
            }
        }
        if let Some((start, count)) = run {
            visit(Run { unit: self.base + start, count });
        }
    }

    /// Reserves up to `wanted` neighbouring blocks: so many if there is a run that long, else the longest there
    /// is. They are busy then, and used once [`Self::mark_used`] says so.
    ///
    /// Long enough runs are taken from the front: what was in use once is given out before what never was, so
    /// that a sparse file or a thin volume takes little more than what is in it.
    pub fn reserve(&mut self, wanted: u64) -> Option<Run> {
        let (first, count) = self.busy.find(wanted)?;
        self.busy.set(first, count);
        self.busy_blocks += count;
        Some(Run { unit: self.base + first, count })
    }

    /// Gives back what was reserved and not used.
    pub fn unreserve(&mut self, run: Run) {
        self.busy.clear(run.unit - self.base, run.count);
        self.busy_blocks -= run.count;
    }

    /// The state refers to it from here on. `false`, and nothing changed, if it does so already or the
    /// block is not in the region.
    #[must_use]
    pub fn mark_used(&mut self, unit: u64) -> bool {
        if !self.contains(unit) || self.is_used(unit) {
            return false;
        }
        let bit = unit - self.base;
        let (word, mask) = ((bit / 64) as usize, 1 << (bit % 64));
        self.used[word] |= mask;
        self.used_blocks += 1;
        if !self.busy.is_set(bit) {
            self.busy.set(bit, 1);
            self.busy_blocks += 1;
        }
        self.mark_dirty(bit);
        true
    }

    /// The state does not refer to it any more; it stays busy until [`Self::release`]. `false`, and
    /// nothing changed, if the state did not refer to it.
    #[must_use]
    pub fn mark_freed(&mut self, unit: u64) -> bool {
        if !self.contains(unit) || !self.is_used(unit) {
            return false;
        }
        let bit = unit - self.base;
        self.used[(bit / 64) as usize] &= !(1 << (bit % 64));
        self.used_blocks -= 1;
        self.mark_dirty(bit);
        true
    }

    fn mark_dirty(&mut self, bit: u64) {
        let chunk = (bit / CHUNK_BLOCKS) as u32;
        if self.last_dirty != Some(chunk) {
            self.last_dirty = Some(chunk);
            self.dirty_chunks.insert(chunk);
        }
    }

    /// Freed blocks can be given out again.
    pub fn release(&mut self, run: Run) {
        debug_assert!((run.unit..run.unit + run.count).all(|unit| !self.is_used(unit)), "{run:?} is in use");
        self.unreserve(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_given_out_once_and_comes_back() {
        let mut allocator = Allocator::new(100, 1000);
        let mut runs = Vec::new();
        while let Some(run) = allocator.reserve(7) {
            for unit in run.unit..run.unit + run.count {
                assert!(allocator.mark_used(unit));
                assert!(!allocator.mark_used(unit));
            }
            runs.push(run);
        }
        assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), 1000);
        assert_eq!((allocator.free_blocks(), allocator.used_blocks()), (0, 1000));
        let loaded = {
            let mut other = Allocator::new(100, 1000);
            assert!(other.load_chunk(0, &allocator.chunk(0)));
            other
        };
        assert_eq!(loaded.used, allocator.used);
        for unit in 100..1100 {
            assert!(allocator.mark_freed(unit));
        }
        assert_eq!((allocator.free_blocks(), allocator.waiting_blocks()), (0, 1000));
        assert_eq!(allocator.reserve(1), None);
        allocator.release(Run { unit: 100, count: 500 });
        (600..1100).for_each(|unit| allocator.release(Run { unit, count: 1 }));
        assert_eq!(allocator.reserve(2000), Some(Run { unit: 100, count: 1000 }));
    }

    #[test]
    fn a_long_run_is_preferred_to_the_first_hole() {
        let mut allocator = Allocator::new(0, 256);
        let run = allocator.reserve(256).unwrap();
        allocator.unreserve(Run { unit: 10, count: 3 });
        allocator.unreserve(Run { unit: 60, count: 20 });
        assert_eq!(run.count, 256);
        assert_eq!(allocator.reserve(16), Some(Run { unit: 60, count: 16 }));
        assert_eq!(allocator.reserve(16), Some(Run { unit: 76, count: 4 }));
        assert_eq!(allocator.reserve(16), Some(Run { unit: 10, count: 3 }));
        assert_eq!(allocator.reserve(1), None);
    }

    #[test]
    fn a_bitmap_that_does_not_fit_is_refused() {
        let mut allocator = Allocator::new(0, 10);
        assert!(!allocator.load_chunk(0, &[0xff; 4096]));
        assert!(!allocator.load_chunk(1, &[0; 4096]));
        assert!(!allocator.load_chunk(0, &[0; 10]));
    }
}
