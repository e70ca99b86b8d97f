//! Where the bytes of an image are.

use std::ops::Range;

/// Size of an image and of its objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Objects have `2^order` bytes.
    pub order: u8,
}

/// A part of a range that lies in one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Index of the object.
    pub object: u64,
    /// First byte within the object.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u64,
    /// First byte within the range.
    pub at: u64,
}

impl Layout {
    /// Bytes of an object.
    pub fn object_len(self) -> u64 {
        1 << self.order
    }

    /// Objects of an image of `size` bytes.
    pub fn object_count(self, size: u64) -> u64 {
        size.div_ceil(self.object_len())
    }

    /// The parts of `[offset, offset + len)`, in order.
    pub fn extents(self, offset: u64, len: u64) -> impl Iterator<Item = Extent> {
        let object_len = self.object_len();
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == len {
                return None;
            }
            let start = offset + done;
            let within = start % object_len;
            let part = (object_len - within).min(len - done);
            let extent = Extent { object: start / object_len, offset: within, len: part, at: done };
            done += part;
            Some(extent)
        })
    }
}

/// The blocks of 4 KiB of `data`, which begins at a multiple of them, that are not all zeros, as ranges that do not touch.
pub fn data_ranges(data: &[u8]) -> Vec<Range<usize>> {
    const BLOCK: usize = 4096;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (at, block) in data.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let (start, end) = (at * BLOCK, at * BLOCK + block.len());
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

/// Whether all bytes are 0; at the speed of memory.
pub fn is_zero(data: &[u8]) -> bool {
    let (chunks, rest) = data.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_objects() {
        let layout = Layout { order: 12 };
        let parts: Vec<_> = layout.extents(4090, 4200).collect();
        assert_eq!(
            parts,
            [
                Extent { object: 0, offset: 4090, len: 6, at: 0 },
                Extent { object: 1, offset: 0, len: 4096, at: 6 },
                Extent { object: 2, offset: 0, len: 98, at: 4102 },
            ]
        );
        assert_eq!(layout.extents(5, 0).count(), 0);
        assert_eq!((layout.object_count(0), layout.object_count(4097)), (0, 2));
    }

    #[test]
    fn zero_blocks_are_left_out() {
        let mut data = vec![0; 5 * 4096 + 100];
        data[4096] = 1;
        data[2 * 4096 + 4095] = 1;
        data[5 * 4096 + 99] = 1;
        assert_eq!(data_ranges(&data), [4096..3 * 4096, 5 * 4096..5 * 4096 + 100]);
        assert_eq!(data_ranges(&[0; 9000]), []);
    }
}
