//! A device whose writes stay in memory: for tools that look at a store and must not change it, while the
//! index library writes a little whenever it opens and closes.

use super::{BlockingDevice, Geometry};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const BLOCK: usize = 4096;
/// Most blocks kept, 256 MiB: many times what opening and closing an index writes.
const BLOCKS_MAX: usize = (256 << 20) / BLOCK;

/// Another device, never written to.
#[derive(Debug)]
pub struct Overlay {
    base: Arc<dyn BlockingDevice>,
    written: Mutex<BTreeMap<u64, Box<[u8; BLOCK]>>>,
}

impl Overlay {
    /// Over a device that may be read-only.
    pub fn new(base: Arc<dyn BlockingDevice>) -> Self {
        Overlay { base, written: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Box<[u8; BLOCK]>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a block and a range of bytes from `offset` meet: (start in the block, start in the range, length).
fn overlap(block: u64, offset: u64, len: usize) -> (usize, usize, usize) {
    let start = block * BLOCK as u64;
    let from = start.max(offset);
    let to = (start + BLOCK as u64).min(offset + len as u64);
    ((from - start) as usize, (from - offset) as usize, (to - from) as usize)
}

impl BlockingDevice for Overlay {
    fn geometry(&self) -> Geometry {
        self.base.geometry()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        self.base.read_at(offset, out)?;
        let blocks = offset / BLOCK as u64..(offset + out.len() as u64).div_ceil(BLOCK as u64);
        for (&block, content) in written.range(blocks) {
            let (within, at, len) = overlap(block, offset, out.len());
            out[at..at + len].copy_from_slice(&content[within..within + len]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.geometry().len_bytes);
        let end = end.ok_or(io::ErrorKind::WriteZero)?;
        let mut written = self.lock();
        for block in offset / BLOCK as u64..end.div_ceil(BLOCK as u64) {
            if written.len() >= BLOCKS_MAX && !written.contains_key(&block) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let (within, at, len) = overlap(block, offset, data.len());
            let content = match written.entry(block) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mut content = Box::new([0; BLOCK]);
                    if len < BLOCK {
                        let start = block * BLOCK as u64;
                        let there = (self.geometry().len_bytes - start).min(BLOCK as u64) as usize;
                        self.base.read_at(start, &mut content[..there])?;
                    }
                    entry.insert(content)
                }
            };
            content[within..within + len].copy_from_slice(&data[at..at + len]);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::{SimDevice, SimOptions};

    #[test]
    fn what_is_written_is_read_and_the_base_stays() {
        let device = SimDevice::new(1 << 20, SimOptions::default());
        let base = device.handle().blocking();
        base.write_at(4000, &[1; 9000]).unwrap();
        let overlay = Overlay::new(Arc::clone(&base));
        overlay.write_at(5000, &[2; 5000]).unwrap();
        overlay.write_at((1 << 20) - 1, &[3]).unwrap();
        assert!(overlay.write_at(1 << 20, &[3]).is_err());
        let mut out = vec![0; 10000];
        overlay.read_at(4000, &mut out).unwrap();
        let mut expected = vec![1; 9000];
        expected.resize(10000, 0);
        assert_eq!(out[..1000], expected[..1000]);
        assert_eq!(out[1000..6000], [2; 5000]);
        assert_eq!(out[6000..], expected[6000..]);
        base.read_at(4000, &mut out).unwrap();
        assert_eq!(out, expected);
    }
}
