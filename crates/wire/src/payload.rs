//! Data that travels behind a message, with the checksums of its blocks.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// Bytes under one checksum: a block of the object store.
pub const BLOCK_LEN: usize = 4096;

/// One buffer of an operation and the CRC-32 of each block it touches.
///
/// Blocks are those of the object the bytes belong to: `phase` is where in a block the first byte
/// lies, so a checksum made by the client is the one the store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    phase: u16,
    data: Bytes,
    /// CRC-32s as they stand on the wire: little-endian, four bytes per block.
    sums: Bytes,
}

/// The segments of one frame, in order; most frames have none or one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    segments: SmallVec<[Segment; 1]>,
}

/// Why bytes and checksums do not make a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PayloadError {
    /// A segment without bytes.
    #[error("a segment of a payload has no bytes")]
    Empty,
    /// The first byte lies past the first block.
    #[error("a segment starts {phase} bytes into a block of {BLOCK_LEN}")]
    Phase {
        /// As given.
        phase: u16,
    },
    /// Not one checksum per block.
    #[error("a segment of {blocks} blocks comes with {sums} bytes of checksums")]
    SumCount {
        /// Blocks the bytes touch.
        blocks: usize,
        /// Bytes of checksums given, four per block expected.
        sums: usize,
    },
    /// The data is not what its maker summed: it was damaged in memory or on the way.
    #[error(
        "block {block} of the payload is damaged: its checksum is {found:08x}, {expected:08x} came with it"
    )]
    Damaged {
        /// Counted over the segment.
        block: usize,
        /// What came with the data.
        expected: u32,
        /// What the data gives.
        found: u32,
    },
}

/// Blocks that `len` bytes touch when the first lies `phase` bytes into its block.
pub(crate) fn block_count(phase: u16, len: usize) -> usize {
    (usize::from(phase) + len).div_ceil(BLOCK_LEN)
}

impl Segment {
    /// Sums `data`, whose first byte lies at `offset` of its object. Fails on empty data.
    pub fn new(offset: u64, data: Bytes) -> Result<Self, PayloadError> {
        let phase = (offset % BLOCK_LEN as u64) as u16;
        if data.is_empty() {
            return Err(PayloadError::Empty);
        }
        let mut sums = BytesMut::with_capacity(4 * block_count(phase, data.len()));
        for block in blocks(phase, &data) {
            sums.put_u32_le(crc32fast::hash(block));
        }
        Ok(Segment { phase, data, sums: sums.freeze() })
    }

    /// Takes checksums made elsewhere, four little-endian bytes per block, without looking at the data:
    /// see [`Segment::verify`].
    pub fn with_sums(phase: u16, data: Bytes, sums: Bytes) -> Result<Self, PayloadError> {
        if data.is_empty() {
            return Err(PayloadError::Empty);
        }
        if usize::from(phase) >= BLOCK_LEN {
            return Err(PayloadError::Phase { phase });
        }
        let blocks = block_count(phase, data.len());
        if sums.len() != 4 * blocks {
            return Err(PayloadError::SumCount { blocks, sums: sums.len() });
        }
        Ok(Segment { phase, data, sums })
    }

    /// Compares every block with its checksum; about 0.1 µs per block.
    pub fn verify(&self) -> Result<(), PayloadError> {
        for (block, (bytes, expected)) in blocks(self.phase, &self.data).zip(self.sums()).enumerate() {
            let found = crc32fast::hash(bytes);
            if found != expected {
                return Err(PayloadError::Damaged { block, expected, found });
            }
        }
        Ok(())
    }

    /// Offset of the first byte within its block, below [`BLOCK_LEN`].
    pub fn phase(&self) -> u16 {
        self.phase
    }

    /// The bytes; sharing them copies nothing.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The checksum of each block the bytes touch.
    pub fn sums(&self) -> impl ExactSizeIterator<Item = u32> {
        self.sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum))
    }

    pub(crate) fn sum_bytes(&self) -> &Bytes {
        &self.sums
    }
}

/// The parts of `data` that lie in each block it touches.
fn blocks(phase: u16, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (head, rest) = data.split_at(data.len().min(BLOCK_LEN - usize::from(phase)));
    std::iter::once(head).chain(rest.chunks(BLOCK_LEN))
}

impl Payload {
    /// No data.
    pub fn none() -> Self {
        Payload::default()
    }

    /// Sums `data` that starts at `offset` of its object; empty data gives an empty payload.
    pub fn of(offset: u64, data: Bytes) -> Self {
        Segment::new(offset, data).map(Payload::from).unwrap_or_default()
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Adds a segment at the end. The limits of a frame are checked when the frame is made.
    pub fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// Bytes of all segments.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|s| s.data.len()).sum()
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl From<Segment> for Payload {
    fn from(segment: Segment) -> Self {
        Payload { segments: SmallVec::from_iter([segment]) }
    }
}

impl FromIterator<Segment> for Payload {
    fn from_iter<I: IntoIterator<Item = Segment>>(iter: I) -> Self {
        Payload { segments: iter.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_follow_the_blocks_of_the_object() {
        let data: Bytes = (0..10_000u32).map(|i| i as u8).collect();
        let segment = Segment::new(3 * 4096 + 1000, data.clone()).unwrap();
        assert_eq!(segment.phase(), 1000);
        let expected = [&data[..3096], &data[3096..7192], &data[7192..]].map(crc32fast::hash);
        assert_eq!(segment.sums().collect::<Vec<_>>(), expected);
        assert_eq!(segment.verify(), Ok(()));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let data = vec![7u8; 5000];
        let segment = Segment::new(100, data.clone().into()).unwrap();
        for at in [0, 3995, 3996, 4999] {
            let mut bad = data.clone();
            bad[at] ^= 1;
            let bad = Segment::with_sums(100, bad.into(), segment.sum_bytes().clone()).unwrap();
            let block = usize::from(at >= 3996);
            assert!(
                matches!(bad.verify(), Err(PayloadError::Damaged { block: b, .. }) if b == block),
                "{at}"
            );
        }
    }

    #[test]
    fn sums_must_match_the_blocks_in_number() {
        let data = Bytes::from_static(&[0; 4096]);
        let sums = |n| Bytes::from(vec![0; n]);
        assert!(Segment::with_sums(0, data.clone(), sums(4)).is_ok());
        assert!(Segment::with_sums(1, data.clone(), sums(8)).is_ok());
        assert_eq!(
            Segment::with_sums(1, data.clone(), sums(4)),
            Err(PayloadError::SumCount { blocks: 2, sums: 4 })
        );
        assert_eq!(Segment::with_sums(4096, data, sums(8)), Err(PayloadError::Phase { phase: 4096 }));
        assert_eq!(Segment::with_sums(0, Bytes::new(), sums(0)), Err(PayloadError::Empty));
        assert!(Payload::of(0, Bytes::new()).is_empty());
    }
}
