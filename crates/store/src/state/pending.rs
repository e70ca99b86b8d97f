//! Blocks whose content is in the log and not yet in its place.
//!
//! A block has at most one write to its place under way. While a checkpoint runs, the version that the
//! checkpoint's index speaks of must reach its place even when a later transaction overwrites or frees
//! the block: it is kept beside the newer one and written first.

use crate::limits::BLOCK_BYTES;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// One content of a block.
#[derive(Clone, Debug)]
struct Version {
    data: Bytes,
    /// The transaction that wrote it.
    seq: u64,
}

#[derive(Debug, Default)]
struct Block {
    /// What reads see; none once the block was freed.
    current: Option<Version>,
    /// What the running checkpoint needs in place, if that is not `current`.
    kept: Option<Version>,
    /// Transaction of the version being written.
    writing: Option<u64>,
    /// Counted as needed by the running checkpoint.
    needed: bool,
}

/// A version to write to its place now.
#[derive(Clone, Debug)]
pub struct Due {
    /// Device block.
    pub unit: u64,
    /// Content.
    pub data: Bytes,
    /// Which version.
    pub seq: u64,
}

/// All such blocks, by their place.
#[derive(Debug, Default)]
pub struct Pending {
    blocks: BTreeMap<u64, Block>,
    versions: usize,
    /// The last transaction in the running checkpoint.
    cut: Option<u64>,
    /// Blocks that the running checkpoint still needs a write of, or the end of one.
    needed: usize,
    /// Those of them that may have to be written yet, in order.
    queue: VecDeque<u64>,
    /// Where background write-back goes on.
    cursor: u64,
}

impl Pending {
    /// What a read of the block sees, if it is not in its place.
    pub fn get(&self, unit: u64) -> Option<&Bytes> {
        self.blocks.get(&unit)?.current.as_ref().map(|version| &version.data)
    }

    /// A transaction gives the block this content.
    pub fn insert(&mut self, unit: u64, data: Bytes, seq: u64) {
        let block = self.blocks.entry(unit).or_default();
        self.versions += 1;
        self.versions -= retire(block, self.cut);
        block.current = Some(Version { data, seq });
    }

    /// A transaction frees the block.
    pub fn free(&mut self, unit: u64) {
        let Some(block) = self.blocks.get_mut(&unit) else { return };
        self.versions -= retire(block, self.cut);
        self.settle(unit);
    }

    /// A transaction frees neighbouring blocks, or gives them content that is in its place already.
    pub fn free_run(&mut self, unit: u64, count: u64) {
        let here: Vec<u64> = self.blocks.range(unit..unit + count).map(|(unit, _)| *unit).collect();
        here.into_iter().for_each(|unit| self.free(unit));
    }

    /// The version is in its place.
    pub fn written(&mut self, unit: u64, seq: u64) {
        let Some(block) = self.blocks.get_mut(&unit) else { return };
        debug_assert_eq!(block.writing, Some(seq));
        block.writing = None;
        for version in [&mut block.kept, &mut block.current] {
            if version.as_ref().is_some_and(|version| version.seq == seq) {
                *version = None;
                self.versions -= 1;
            }
        }
        self.settle(unit);
    }

    /// Drops what is done with.
    fn settle(&mut self, unit: u64) {
        let Some(block) = self.blocks.get_mut(&unit) else { return };
        if block.needed && !block.is_needed(self.cut) {
            block.needed = false;
            self.needed -= 1;
        }
        if let Block { current: None, kept: None, writing: None, .. } = block {
            self.blocks.remove(&unit);
        }
    }

    /// A checkpoint of everything up to `cut` begins: all versions there are belong to it.
    pub fn begin_checkpoint(&mut self, cut: u64) {
        debug_assert!(self.cut.is_none() && self.needed == 0);
        self.cut = Some(cut);
        for block in self.blocks.values_mut() {
            block.needed = true;
        }
        self.needed = self.blocks.len();
        self.queue = self.blocks.keys().copied().collect();
    }

    /// The checkpoint's index is durable.
    pub fn end_checkpoint(&mut self) {
        self.cut = None;
    }

    /// Whether everything that the running checkpoint speaks of is in its place.
    pub fn is_checkpoint_in_place(&self) -> bool {
        self.needed == 0
    }

    /// The next neighbouring versions that the running checkpoint needs in place, at most `most`.
    pub fn next_for_checkpoint(&mut self, most: usize, durable: u64) -> Vec<Due> {
        let mut due: Vec<Due> = Vec::new();
        let mut looks = self.queue.len();
        while looks > 0 && due.len() < most {
            let Some(&unit) = self.queue.front() else { break };
            let version =
                self.blocks.get(&unit).filter(|block| block.needed).map(|block| match block.writing {
                    Some(_) => None,
                    None => {
                        block.kept.as_ref().or(block.current.as_ref().filter(|v| Some(v.seq) <= self.cut))
                    }
                });
            match version {
                // Done with, by background write-back.
                None => {
                    self.queue.pop_front();
                }
                Some(Some(version)) if version.seq <= durable => {
                    if due.last().is_some_and(|last: &Due| last.unit + 1 != unit) {
                        break;
                    }
                    due.push(Due { unit, data: version.data.clone(), seq: version.seq });
                    self.queue.pop_front();
                }
                // An older version is under way, or the log is not that far: later.
                Some(_) if due.is_empty() => self.queue.rotate_left(1),
                Some(_) => break,
            }
            looks -= 1;
        }
        due
    }

    /// The next neighbouring versions whose transactions are durable, at most `most`, going around.
    pub fn next_in_background(&mut self, most: usize, durable: u64) -> Vec<Due> {
        for from in [self.cursor, 0] {
            let mut due: Vec<Due> = Vec::new();
            for (&unit, block) in self.blocks.range((Bound::Included(from), Bound::Unbounded)) {
                if due.last().is_some_and(|last| last.unit + 1 != unit) || due.len() == most {
                    break;
                }
                let version = block.kept.as_ref().or(block.current.as_ref());
                match version.filter(|version| block.writing.is_none() && version.seq <= durable) {
                    Some(version) => due.push(Due { unit, data: version.data.clone(), seq: version.seq }),
                    None if due.is_empty() => {}
                    None => break,
                }
            }
            if let Some(last) = due.last() {
                self.cursor = last.unit + 1;
                return due;
            }
        }
        Vec::new()
    }

    /// They are being written.
    pub fn begin_write(&mut self, due: &[Due]) {
        for Due { unit, seq, .. } in due {
            if let Some(block) = self.blocks.get_mut(unit) {
                block.writing = Some(*seq);
            }
        }
    }

    /// Payload held.
    pub fn bytes(&self) -> usize {
        self.versions * BLOCK_BYTES as usize
    }
}

impl Block {
    fn is_needed(&self, cut: Option<u64>) -> bool {
        self.kept.is_some()
            || self.writing.is_some_and(|seq| Some(seq) <= cut)
            || self.current.as_ref().is_some_and(|version| Some(version.seq) <= cut)
    }
}

/// The current version gives way; returns how many versions are dropped for good.
fn retire(block: &mut Block, cut: Option<u64>) -> usize {
    let Some(version) = block.current.take() else { return 0 };
    let needed = cut.is_some_and(|cut| version.seq <= cut) && block.writing != Some(version.seq);
    if needed {
        debug_assert!(block.kept.is_none() && block.needed);
        block.kept = Some(version);
        return 0;
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Bytes {
        vec![byte; BLOCK_BYTES as usize].into()
    }

    #[test]
    fn a_checkpoint_gets_its_version_in_place_though_the_block_is_overwritten_and_freed() {
        let mut pending = Pending::default();
        pending.insert(7, block(1), 1);
        pending.begin_checkpoint(1);
        pending.insert(7, block(2), 2);
        pending.insert(7, block(3), 3);
        pending.free(7);
        assert_eq!(pending.get(7), None);
        assert!(!pending.is_checkpoint_in_place());
        let due = pending.next_for_checkpoint(8, 3);
        assert_eq!((due.len(), due[0].seq), (1, 1));
        pending.begin_write(&due);
        assert!(!pending.is_checkpoint_in_place());
        pending.written(7, 1);
        assert!(pending.is_checkpoint_in_place() && pending.blocks.is_empty());
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn a_version_under_way_is_not_written_twice_and_not_before_it_is_durable() {
        let mut pending = Pending::default();
        pending.insert(7, block(1), 1);
        assert!(pending.next_in_background(8, 0).is_empty());
        let due = pending.next_in_background(8, 1);
        pending.begin_write(&due);
        pending.insert(7, block(2), 2);
        assert!(pending.next_in_background(8, 2).is_empty());
        pending.written(7, 1);
        assert_eq!(pending.get(7), Some(&block(2)));
        assert_eq!(pending.next_in_background(8, 2)[0].seq, 2);
        assert_eq!(pending.bytes(), BLOCK_BYTES as usize);
    }
}
