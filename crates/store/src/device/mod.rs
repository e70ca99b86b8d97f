//! The seam between the store and its medium: queued I/O for the engine, plain calls for the
//! index and the offline tools.
//!
//! Rules every implementation keeps, and the simulated one tortures:
//!
//! - Operations queued together may finish in any order, unless one waits for the other's
//!   completion before it is queued. The engine never has two queued writes or discards that overlap.
//!   A read may overlap one: each of its sectors is old or new then, which the engine notices by the
//!   block's checksum, and reads again.
//! - A completed write may still be lost, torn at [`Geometry::sector_bytes`], or reordered with
//!   others by a power cut until a [`Io::Flush`] queued after its completion has completed, or
//!   when it was written with `durable` (which covers that write only).
//! - After the first error of a write or flush the content of everything not yet flushed is
//!   unknown. The engine poisons itself; a device need not.

mod buffer;
pub mod checked;
pub mod file;
pub mod overlay;
pub mod sim;
mod threads;
mod uring;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use buffer::{AlignedBuf, BufferPool, WriteBuf};

/// What the medium can do, read once at open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes of the file or block device.
    pub len_bytes: u64,
    /// Alignment of offset and length of direct I/O, and the unit that a power cut does not tear:
    /// 512 or 4096.
    pub sector_bytes: u32,
    /// Whether [`Io::Discard`] gives space back; where false it succeeds and does nothing.
    pub discard: bool,
    /// What the address of memory for direct I/O is a multiple of; a power of two, 4096 at most.
    pub memory_align_bytes: u32,
}

/// One operation to queue. Offsets and lengths are multiples of [`Geometry::sector_bytes`].
#[derive(Debug)]
pub enum Io {
    /// Fill `buf` from `offset`.
    Read {
        /// Byte position on the device.
        offset: u64,
        /// Destination; all of it is filled or the operation fails.
        buf: AlignedBuf,
    },
    /// Write all of `buf` at `offset`.
    Write {
        /// Byte position on the device.
        offset: u64,
        /// Source, at a multiple of [`Geometry::memory_align_bytes`].
        buf: WriteBuf,
        /// On completion the bytes survive a power cut without a further flush.
        durable: bool,
    },
    /// Everything whose completion was seen before this was queued survives a power cut.
    Flush,
    /// The range holds nothing: its content is undefined from here on, its space may be freed.
    Discard {
        /// Byte position on the device.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// The end of one queued operation.
#[derive(Debug)]
pub struct Completion {
    /// The tag given to [`Device::submit`].
    pub tag: u64,
    /// The buffer of a read, or of a write that owned one, given back whatever the outcome.
    pub buf: Option<AlignedBuf>,
    /// A short transfer is an error, never a partial success.
    pub result: io::Result<()>,
}

/// How long [`Device::poll`] may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Collect what is there.
    No,
    /// Sleep until an operation completes or the device's [`Waker`] is used.
    Event,
    /// As `Event`; with nothing in flight, for at most so long.
    EventFor(Duration),
}

/// Wakes the thread sleeping in [`Device::poll`] from another thread. Cheap to clone.
pub trait Waker: Send + Sync + fmt::Debug {
    /// Makes the current or the next sleeping `poll` return.
    fn wake(&self);
}

/// Queued access to the medium, owned by one thread.
pub trait Device: Send {
    /// What the medium can do.
    fn geometry(&self) -> Geometry;

    /// Operations that can be queued now without exceeding the device's bound.
    fn room(&self) -> usize;

    /// Queues one operation under a tag of the caller's choice. The caller keeps to [`Self::room`];
    /// beyond it the call panics, for that is a broken bound and not a condition to handle.
    fn submit(&mut self, tag: u64, io: Io);

    /// Hands what was queued to the kernel, then appends finished operations to `done`.
    ///
    /// # Errors
    /// Only when the queue itself is broken; an operation's own failure is in its [`Completion`].
    fn poll(&mut self, wait: Wait, done: &mut Vec<Completion>) -> io::Result<()>;

    /// Operations queued and not yet returned by [`Self::poll`].
    fn in_flight(&self) -> usize;

    /// Writes durably and waits, on this thread: the shortest path when nothing else is in flight
    /// (no hop to a kernel worker and back).
    ///
    /// # Errors
    /// The write's own failure; a short write is one.
    fn write_durable_now(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()>;

    /// A handle that wakes this device's sleeper.
    fn waker(&self) -> Arc<dyn Waker>;

    /// The same medium by plain blocking calls, usable from other threads.
    fn blocking(&self) -> Arc<dyn BlockingDevice>;
}

/// Plain blocking access to the same medium: for the index library, for opening and for offline
/// tools. Any alignment and length; implementations bounce through aligned memory as needed.
pub trait BlockingDevice: Send + Sync + fmt::Debug {
    /// What the medium can do.
    fn geometry(&self) -> Geometry;

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// The medium's; reading past its end is `UnexpectedEof`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// The medium's; writing past its end is `WriteZero`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Writes pieces that do not overlap, in any order and several at once: at one after the other a checkpoint
    /// would wait its turn, behind the data of writers, for each page of the index.
    ///
    /// # Errors
    /// As [`Self::write_at`], of any of them; which of the others were written is unknown then.
    fn write_each(&self, pieces: &[(u64, Vec<u8>)]) -> io::Result<()> {
        pieces.iter().try_for_each(|(offset, data)| self.write_at(*offset, data))
    }

    /// Makes every write that has returned durable, whichever interface wrote it.
    ///
    /// # Errors
    /// The medium's.
    fn sync(&self) -> io::Result<()>;
}
