//! Little-endian encodings, ours and those that Ceph's object classes store.
//!
//! Strings and byte strings are a `u32` length and the bytes. A *section* is what Ceph wraps its structures in:
//! version `u8`, oldest version that can read it `u8`, length `u32`, content; a reader skips what it does not know.

use bytes::Bytes;
use cairn_types::Timestamp;

/// The bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Reads from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! integers {
    ($($name:ident: $type:ty),*) => {
        impl Reader<'_> {
            $(
                #[doc = concat!("A `", stringify!($type), "`.")]
                pub fn $name(&mut self) -> Result<$type, Malformed> {
                    let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
                    self.rest = rest;
                    Ok(<$type>::from_le_bytes(*bytes))
                }
            )*
        }

        impl Writer {
            $(
                #[doc = concat!("A `", stringify!($type), "`.")]
                pub fn $name(&mut self, value: $type) -> &mut Self {
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                    self
                }
            )*
        }
    };
}

integers!(u8: u8, u16: u16, u32: u32, u64: u64, i64: i64);

impl<'a> Reader<'a> {
    /// Of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything was read.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// A count of elements, each at least `least` bytes long: never more than there can be.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count <= self.rest.len() / least.max(1) { Ok(count) } else { Err(Malformed) }
    }

    /// A section that version `known` of its structure can read: its version and content.
    pub fn section(&mut self, known: u8) -> Result<(u8, Reader<'a>), Malformed> {
        let (version, oldest) = (self.u8()?, self.u8()?);
        let content = self.bytes()?;
        if oldest > known { Err(Malformed) } else { Ok((version, Reader::new(content))) }
    }

    /// A moment: seconds and nanoseconds, each `u32`.
    pub fn time(&mut self) -> Result<Timestamp, Malformed> {
        let (seconds, nanoseconds) = (self.u32()?, self.u32()?);
        Ok(Timestamp(u64::from(seconds) * 1_000 + u64::from(nanoseconds) / 1_000_000))
    }
}

/// Writes at the end.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// With room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Writer { bytes: Vec::with_capacity(capacity) }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets all behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Raw bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A byte string. What is longer than 4 GiB cannot come here: every input is bounded far below.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).put(bytes)
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A section, whose content `fill` writes.
    pub fn section(&mut self, version: u8, oldest: u8, fill: impl FnOnce(&mut Writer)) -> &mut Self {
        self.u8(version).u8(oldest);
        let at = self.bytes.len();
        self.u32(0);
        fill(self);
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        self
    }

    /// A moment: seconds and nanoseconds, each `u32`.
    pub fn time(&mut self, time: Timestamp) -> &mut Self {
        self.u32((time.0 / 1_000) as u32).u32((time.0 % 1_000) as u32 * 1_000_000)
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}
