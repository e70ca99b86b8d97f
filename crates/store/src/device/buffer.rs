//! Memory that direct I/O accepts.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

/// Alignment of every buffer and unit of its capacity: the page, which every direct I/O accepts.
const PAGE_BYTES: usize = 4096;
/// Unit of a buffer's length: the smallest sector of a device.
const SECTOR_BYTES: usize = 512;
/// Pieces of up to this size are cut from slabs; larger ones are a map of their own.
const SMALL_MAX_BYTES: usize = 64 << 10;
/// What one slab is cut from. 256 pieces of 4 KiB a system call.
const SLAB_BYTES: usize = 1 << 20;
/// 4 KiB to 64 KiB by powers of two.
const SMALL_CLASSES: usize = 5;
/// 128 KiB to 8 MiB by powers of two. Larger buffers are mapped for one use.
const LARGE_CLASSES: usize = 7;
/// Default of [`BufferPool::new`]'s bound: the log and data writes of a full queue, and as much
/// again in reads handed to callers.
const DEFAULT_BOUND_BYTES: usize = 64 << 20;

/// A page-aligned buffer. Its capacity is a multiple of 4 KiB, its length one of 512 bytes.
///
/// Dropping it gives the memory back to the pool it came from, if any. It implements
/// `AsRef<[u8]>`, so `Bytes::from_owner(buf)` hands its content on without a copy.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
    home: Home,
}

/// Who owns the memory behind a buffer.
enum Home {
    /// Unmapped with the buffer.
    Own { _map: MmapMut },
    /// A whole map of the pool's.
    Map { map: Option<MmapMut>, pool: Arc<Shared> },
    /// A piece of one of the pool's slabs.
    Slab { pool: Arc<Shared> },
}

// SAFETY: the memory at `start` belongs to this buffer alone (its own map, or a piece that the pool
// hands out once), so it may be used from whichever thread holds the buffer.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads; writing needs `&mut`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A new zeroed buffer of `len` bytes rounded up to 4 KiB, outside of any pool.
    ///
    /// # Panics
    /// When the system has no memory to give.
    pub fn new(len: usize) -> Self {
        let capacity = len.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        let mut map = map_anon(capacity);
        AlignedBuf { start: start_of(&mut map), len: capacity, capacity, home: Home::Own { _map: map } }
    }

    /// Bytes that [`Self::set_len`] can reach.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the length within the capacity; bytes uncovered by growth hold whatever was there.
    ///
    /// # Panics
    /// When `len` is zero, not a multiple of 512, or beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len > 0 && len <= self.capacity && len.is_multiple_of(SECTOR_BYTES),
            "buffer length {len} within capacity {}",
            self.capacity
        );
        self.len = len;
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match &mut self.home {
            Home::Own { .. } => {}
            Home::Map { map, pool } => {
                if let Some(map) = map.take() {
                    pool.lock().maps[large_class(self.capacity)].push(map);
                }
            }
            Home::Slab { pool } => pool.lock().pieces[small_class(self.capacity)].push(Piece(self.start)),
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points at `capacity >= len` mapped, initialised bytes (anonymous memory
        // starts as zeros) which live as long as `home`, and only this buffer refers to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// What a write takes its bytes from.
#[derive(Debug)]
pub enum WriteBuf {
    /// A buffer, given back when the write is done.
    Own(AlignedBuf),
    /// Somebody's bytes that lie well enough, held until the write is done: not copied.
    Shared(Bytes),
}

impl WriteBuf {
    /// The buffer, if it is one.
    pub fn into_own(self) -> Option<AlignedBuf> {
        match self {
            WriteBuf::Own(buf) => Some(buf),
            WriteBuf::Shared(_) => None,
        }
    }
}

impl From<AlignedBuf> for WriteBuf {
    fn from(buf: AlignedBuf) -> Self {
        WriteBuf::Own(buf)
    }
}

impl Deref for WriteBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            WriteBuf::Own(buf) => buf,
            WriteBuf::Shared(bytes) => bytes,
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).field("capacity", &self.capacity).finish()
    }
}

/// Recycles buffers by size class (powers of two from 4 KiB), so that an operation costs no system
/// call and no page fault. Cheap to clone; clones share the memory.
///
/// The bound is on what the pool keeps, never on what it gives: beyond it a buffer is mapped for
/// one use and unmapped when dropped.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    bound_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Never read through: their bytes are reached by the pieces cut from them.
    slabs: Vec<MmapMut>,
    pieces: [Vec<Piece>; SMALL_CLASSES],
    maps: [Vec<MmapMut>; LARGE_CLASSES],
    /// Bytes of slabs and of maps, idle and lent.
    held_bytes: usize,
}

/// The start of an idle piece of a slab.
struct Piece(NonNull<u8>);

// SAFETY: an idle piece is referred to by nobody else; whoever takes it from the list owns it.
unsafe impl Send for Piece {}

impl BufferPool {
    /// A pool that keeps at most `bound_bytes` of memory.
    pub fn new(bound_bytes: usize) -> Self {
        BufferPool { shared: Arc::new(Shared { bound_bytes, state: Mutex::default() }) }
    }

    /// A buffer of `len` bytes rounded up to 4 KiB, with **undefined content**: what an earlier user
    /// left. Whoever writes it to a device fills all of it.
    ///
    /// # Panics
    /// When the system has no memory to give.
    pub fn get(&self, len: usize) -> AlignedBuf {
        let len = len.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        let capacity = len.next_power_of_two();
        let lent = if capacity <= SMALL_MAX_BYTES {
            self.shared.lock().piece(capacity, self.shared.bound_bytes).map(|piece| AlignedBuf {
                start: piece.0,
                len,
                capacity,
                home: Home::Slab { pool: Arc::clone(&self.shared) },
            })
        } else if large_class(capacity) < LARGE_CLASSES {
            self.shared.lock().map(capacity, self.shared.bound_bytes).map(|mut map| AlignedBuf {
                start: start_of(&mut map),
                len,
                capacity,
                home: Home::Map { map: Some(map), pool: Arc::clone(&self.shared) },
            })
        } else {
            None
        };
        lent.unwrap_or_else(|| AlignedBuf::new(len))
    }

    /// A buffer of `len` bytes rounded up to 4 KiB, all zero.
    ///
    /// # Panics
    /// When the system has no memory to give.
    pub fn get_zeroed(&self, len: usize) -> AlignedBuf {
        let mut buf = self.get(len);
        buf.fill(0);
        buf
    }

    /// Bytes the pool keeps, idle and lent: never more than its bound.
    pub fn held_bytes(&self) -> usize {
        self.shared.lock().held_bytes
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        BufferPool::new(DEFAULT_BOUND_BYTES)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The lists are whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("bound_bytes", &self.bound_bytes).finish_non_exhaustive()
    }
}

impl State {
    fn piece(&mut self, capacity: usize, bound_bytes: usize) -> Option<Piece> {
        let class = small_class(capacity);
        if self.pieces[class].is_empty() && self.reserve(SLAB_BYTES, bound_bytes) {
            let mut slab = map_anon(SLAB_BYTES);
            let start = start_of(&mut slab);
            for at in (0..SLAB_BYTES).step_by(capacity).rev() {
                // SAFETY: `at` is within the slab that `start` begins.
                self.pieces[class].push(Piece(unsafe { start.add(at) }));
            }
            self.slabs.push(slab);
        }
        self.pieces[class].pop()
    }

    fn map(&mut self, capacity: usize, bound_bytes: usize) -> Option<MmapMut> {
        let idle = self.maps[large_class(capacity)].pop();
        if idle.is_some() {
            return idle;
        }
        self.reserve(capacity, bound_bytes).then(|| map_anon(capacity))
    }

    /// Counts `bytes` as held, unmapping idle large maps where that makes the room.
    fn reserve(&mut self, bytes: usize, bound_bytes: usize) -> bool {
        for class in (0..LARGE_CLASSES).rev() {
            while self.held_bytes + bytes > bound_bytes {
                let Some(map) = self.maps[class].pop() else { break };
                self.held_bytes -= map.len();
            }
        }
        let fits = self.held_bytes + bytes <= bound_bytes;
        if fits {
            self.held_bytes += bytes;
        }
        fits
    }
}

fn small_class(capacity: usize) -> usize {
    (capacity / PAGE_BYTES).trailing_zeros() as usize
}

fn large_class(capacity: usize) -> usize {
    (capacity / SMALL_MAX_BYTES).trailing_zeros() as usize - 1
}

fn map_anon(len: usize) -> MmapMut {
    MmapMut::map_anon(len).expect("anonymous memory")
}

fn start_of(map: &mut MmapMut) -> NonNull<u8> {
    NonNull::from(&mut **map).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_sized() {
        for len in [0, 1, 512, 4096, 4097, 100_000] {
            let mut buf = AlignedBuf::new(len);
            assert!(buf.as_ptr().addr().is_multiple_of(4096));
            assert_eq!(buf.len(), len.next_multiple_of(4096).max(4096));
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.set_len(1536);
            assert_eq!(buf.len(), 1536);
        }
    }

    #[test]
    #[should_panic(expected = "buffer length 1000")]
    fn a_length_off_the_sector_is_refused() {
        AlignedBuf::new(4096).set_len(1000);
    }

    #[test]
    fn live_buffers_never_share_memory() {
        let pool = BufferPool::new(8 << 20);
        let sizes = [4096, 8192, 12_288, 65_536, 70_000, 1 << 20, 9 << 20];
        for round in 0..3u8 {
            let mut live: Vec<AlignedBuf> = Vec::new();
            for index in 0..300 {
                let mut buf =
                    pool.get(sizes[index % sizes.len()].min(if index > 40 { 65_536 } else { usize::MAX }));
                assert!(buf.as_ptr().addr().is_multiple_of(4096));
                buf.fill((index as u8).wrapping_add(round));
                live.push(buf);
            }
            for (index, buf) in live.iter().enumerate() {
                assert!(buf.iter().all(|byte| *byte == (index as u8).wrapping_add(round)), "buffer {index}");
            }
            assert!(pool.held_bytes() <= 8 << 20);
        }
    }

    #[test]
    fn memory_is_reused_and_outlives_the_pool_handle() {
        let pool = BufferPool::default();
        let first = pool.get(4096).as_ptr();
        assert_eq!(pool.get(4096).as_ptr(), first);
        let large = pool.get(1 << 20).as_ptr();
        assert_eq!(pool.get(1 << 20).as_ptr(), large);
        assert!(pool.get_zeroed(8192).iter().all(|byte| *byte == 0));
        let mut kept = pool.get(4096);
        drop(pool);
        kept.fill(7);
        let bytes = Bytes::from_owner(kept);
        assert_eq!(bytes.len(), 4096);
    }

    #[test]
    fn idle_maps_make_room_for_other_sizes() {
        let pool = BufferPool::new(4 << 20);
        let maps: Vec<_> = (0..4).map(|_| pool.get(1 << 20)).collect();
        assert_eq!(pool.held_bytes(), 4 << 20);
        drop(pool.get(4096)); // beyond the bound: mapped for one use
        assert_eq!(pool.held_bytes(), 4 << 20);
        drop(maps);
        let _piece = pool.get(4096);
        assert_eq!(pool.held_bytes(), 4 << 20);
        assert_eq!(pool.shared.lock().slabs.len(), 1);
    }
}
