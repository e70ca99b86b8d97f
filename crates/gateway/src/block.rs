//! A disk as a gateway serves it.

use bytes::Bytes;
use std::error::Error;
use std::future::Future;

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether it refuses every change.
    pub read_only: bool,
    /// Offsets and lengths must be multiples of this: a power of two, at most 65,536; 1 where any byte can be
    /// addressed.
    pub block_min_bytes: u32,
    /// Requests of multiples of this need no reading before writing: a power of two, at least 512.
    pub block_preferred_bytes: u32,
    /// Whether zeroing that may give space back takes less time than writing as many zeros.
    pub zeroes_fast: bool,
}

/// A part of what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segment {
    /// Bytes, at least one.
    Data(Bytes),
    /// This many zeros, at least one, of which none is stored.
    Zero(u32),
}

impl Segment {
    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Segment::Data(data) => data.len() as u64,
            Segment::Zero(len) => u64::from(*len),
        }
    }
}

/// What is known of a range without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Length in bytes, at least 1.
    pub len_bytes: u64,
    /// No space is taken by it: a write to it may find none.
    pub hole: bool,
    /// It reads as zeros. False where that is not known.
    pub zero: bool,
}

/// How a range is to be zeroed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zeroing {
    /// The range may become a hole. False: space for it stays taken, or is taken now.
    pub may_unmap: bool,
    /// Answer when it is durable, not before.
    pub fua: bool,
}

/// Why a device did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// A change of a device that cannot be changed.
    #[error("the device is read-only")]
    ReadOnly,
    /// No room is left for the data.
    #[error("no space is left for it")]
    NoSpace,
    /// Outside the device, which may have been made smaller.
    #[error("the range ends beyond the device, which has {size_bytes} bytes")]
    OutOfRange {
        /// The device's size now.
        size_bytes: u64,
    },
    /// The device is being closed, or has been.
    #[error("the device is being closed")]
    Closing,
    /// Anything that went wrong below.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// A disk.
///
/// Many requests run at a time, and the device orders none of them against each other: whoever needs an order waits
/// for the answer. The rules of durability are those of a disk with a volatile cache: what was answered
/// before a flush began is durable when the flush is answered, whichever handle or connection either came through;
/// a request with `fua` is durable when it is answered.
///
/// Ranges are not empty, and lie inside [`BlockInfo::size_bytes`] as it was when the client attached. A gateway polls a future
/// that it began to its end even when the client has gone, except when its process is about to end.
pub trait BlockDevice: Send + Sync + 'static {
    /// What the device is at this moment.
    fn info(&self) -> BlockInfo;

    /// Reads; the segments together have exactly `len_bytes` bytes.
    fn read(&self, offset: u64, len_bytes: u32)
    -> impl Future<Output = Result<Vec<Segment>, IoError>> + Send;

    /// Writes; with `fua`, answers when it is durable.
    fn write(&self, offset: u64, data: Bytes, fua: bool) -> impl Future<Output = Result<(), IoError>> + Send;

    /// Answers when all that was answered before is durable.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>> + Send;

    /// The range is needed no longer: its space may be given back, and what it reads as is undefined until it is
    /// written again.
    fn discard(
        &self,
        offset: u64,
        len_bytes: u64,
        fua: bool,
    ) -> impl Future<Output = Result<(), IoError>> + Send;

    /// Makes the range read as zeros.
    fn write_zeroes(
        &self,
        offset: u64,
        len_bytes: u64,
        how: Zeroing,
    ) -> impl Future<Output = Result<(), IoError>> + Send;

    /// What is known of the range from its start on: at least one extent and at most `extents_max`. They may end
    /// before the range does, and the last one may end after it.
    fn status(
        &self,
        offset: u64,
        len_bytes: u64,
        extents_max: usize,
    ) -> impl Future<Output = Result<Vec<Extent>, IoError>> + Send;
}
