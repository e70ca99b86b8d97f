//! Little-endian fields.

use crate::limits::NUMBER_MAX;
use bytes::Bytes;

/// What is decoded ends too soon, goes on too long, or says something impossible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Takes fields from the front.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Of all of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Reader { rest: bytes }
    }

    /// So many bytes, copied.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let field = self.rest.first_chunk::<N>().copied().ok_or(Malformed)?;
        let _ = self.rest.split_to(N);
        Ok(field)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes: a number that counts transactions, objects or omaps.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        self.u64().and_then(|number| if number <= NUMBER_MAX { Ok(number) } else { Err(Malformed) })
    }

    /// So many bytes, not copied.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if len > self.rest.len() {
            return Err(Malformed);
        }
        Ok(self.rest.split_to(len))
    }

    /// A length and so many bytes, at most `limit`.
    pub fn bytes(&mut self, limit: usize) -> Result<Bytes, Malformed> {
        let len = self.u32()? as usize;
        if len > limit { Err(Malformed) } else { self.take(len) }
    }

    /// As [`Self::bytes`], for text.
    pub fn string(&mut self, limit: usize) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(limit)?.to_vec()).map_err(|_| Malformed)
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Everything was taken.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Appends fields.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// A length and the bytes.
    fn put_bytes(&mut self, value: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(value.len() as u32);
        self.extend_from_slice(value);
    }
}
