//! Memory that direct I/O accepts.

// Filled in by the device work: anonymous maps from memmap2, cut into 4 KiB multiples, recycled.

/// A page-aligned, zero-initialised buffer whose length is a multiple of 4 KiB.
#[derive(Debug)]
pub struct AlignedBuf {
    map: memmap2::MmapMut,
}

impl AlignedBuf {
    /// A new buffer of at least `len` bytes, rounded up to 4 KiB.
    ///
    /// # Panics
    /// When the system has no memory to give.
    pub fn new(len: usize) -> Self {
        let len = len.next_multiple_of(4096).max(4096);
        AlignedBuf { map: memmap2::MmapMut::map_anon(len).expect("anonymous memory") }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

/// Recycles buffers by size.
#[derive(Debug, Default)]
pub struct BufferPool {}
