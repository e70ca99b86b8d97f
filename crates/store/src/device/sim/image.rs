//! The bytes of a simulated medium, shared between copies until written.

use std::sync::Arc;

const PAGE_BYTES: usize = 4096;
const CHUNK_PAGES: usize = 256;
const CHUNK_BYTES: u64 = (PAGE_BYTES * CHUNK_PAGES) as u64;

type Page = [u8; PAGE_BYTES];

/// 1 MiB; an absent page reads as zeros.
#[derive(Clone)]
struct Chunk([Option<Arc<Page>>; CHUNK_PAGES]);

/// A sparse, copy-on-write image. A clone costs one reference per MiB; a write copies the pages it
/// touches only.
#[derive(Clone)]
pub struct Image {
    len_bytes: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl Image {
    /// An image of zeros.
    pub fn zeroed(len_bytes: u64) -> Self {
        Image { len_bytes, chunks: vec![None; len_bytes.div_ceil(CHUNK_BYTES) as usize] }
    }

    /// An image with the given content.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut image = Image::zeroed(bytes.len() as u64);
        image.write(0, bytes);
        image
    }

    /// Bytes of the medium.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The same medium cut short or extended by zeros.
    #[must_use]
    pub fn resized(&self, len_bytes: u64) -> Self {
        let mut image = self.clone();
        if len_bytes < self.len_bytes {
            // What is cut off must not come back when the image is extended again.
            let page_end = len_bytes.next_multiple_of(PAGE_BYTES as u64).min(self.len_bytes);
            image.fill(len_bytes, page_end - len_bytes, 0);
            let chunk_end = len_bytes.next_multiple_of(CHUNK_BYTES).min(self.len_bytes);
            image.fill(page_end, chunk_end - page_end, 0);
        }
        image.chunks.resize(len_bytes.div_ceil(CHUNK_BYTES) as usize, None);
        image.len_bytes = len_bytes;
        image
    }

    /// Fills `out` from `offset`.
    ///
    /// # Panics
    /// Past the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        assert!(offset + out.len() as u64 <= self.len_bytes, "read within the image");
        for (page, at, range) in pieces(offset, out.len()) {
            let out = &mut out[range];
            match self.page(page) {
                Some(bytes) => out.copy_from_slice(&bytes[at..at + out.len()]),
                None => out.fill(0),
            }
        }
    }

    /// Writes `data` at `offset`.
    ///
    /// # Panics
    /// Past the end.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.len_bytes, "write within the image");
        for (page, at, range) in pieces(offset, data.len()) {
            let data = &data[range];
            self.page_mut(page)[at..at + data.len()].copy_from_slice(data);
        }
    }

    /// Fills a range with one byte.
    ///
    /// # Panics
    /// Past the end.
    pub fn fill(&mut self, offset: u64, len: u64, byte: u8) {
        assert!(offset + len <= self.len_bytes, "fill within the image");
        for (page, at, range) in pieces(offset, len as usize) {
            if byte == 0 && range.len() == PAGE_BYTES {
                self.drop_page(page);
            } else {
                self.page_mut(page)[at..at + range.len()].fill(byte);
            }
        }
    }

    /// All of it in one piece, for small images.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len_bytes as usize];
        self.read(0, &mut bytes);
        bytes
    }

    fn page(&self, page: u64) -> Option<&Page> {
        let (chunk, index) = split(page);
        self.chunks[chunk].as_ref()?.0[index].as_deref()
    }

    fn page_mut(&mut self, page: u64) -> &mut Page {
        let (chunk, index) = split(page);
        let chunk = self.chunks[chunk].get_or_insert_with(|| Arc::new(Chunk([const { None }; CHUNK_PAGES])));
        let page = &mut Arc::make_mut(chunk).0[index];
        Arc::make_mut(page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }

    fn drop_page(&mut self, page: u64) {
        let (chunk, index) = split(page);
        if let Some(chunk) = &mut self.chunks[chunk]
            && chunk.0[index].is_some()
        {
            Arc::make_mut(chunk).0[index] = None;
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

fn split(page: u64) -> (usize, usize) {
    ((page / CHUNK_PAGES as u64) as usize, (page % CHUNK_PAGES as u64) as usize)
}

/// Cuts a byte range at page boundaries: (page number, offset in the page, range of the whole).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let at = (position % PAGE_BYTES as u64) as usize;
        let take = (PAGE_BYTES - at).min(len - done);
        let piece = (position / PAGE_BYTES as u64, at, done..done + take);
        done += take;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::SplitMix64;

    #[test]
    fn an_image_holds_what_a_flat_array_holds_and_clones_are_independent() {
        let len = 3 * CHUNK_BYTES as usize + 512;
        let mut flat = vec![0u8; len];
        let mut image = Image::zeroed(len as u64);
        let mut rng = SplitMix64::new(1);
        let before = image.clone();
        for step in 0..400u32 {
            let offset = rng.below(len as u64) as usize;
            let size = (rng.below(20_000) as usize).min(len - offset);
            let byte = (step % 5) as u8;
            flat[offset..offset + size].fill(byte);
            if step % 2 == 0 {
                image.fill(offset as u64, size as u64, byte);
            } else {
                image.write(offset as u64, &vec![byte; size]);
            }
        }
        assert!(image.to_vec() == flat);
        assert!(before.to_vec().iter().all(|byte| *byte == 0));
        let cut = image.resized(700_001).resized(len as u64);
        flat[700_001..].fill(0);
        assert!(cut.to_vec() == flat);
    }
}
