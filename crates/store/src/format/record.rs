//! A record of the log: the transactions of one group commit.

use super::codec::{Put, Reader};
use crate::limits::RECORD_BYTES_MAX;
use bytes::Bytes;

/// First word of a record.
const MAGIC: u32 = 0x6c67_7263;
/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 48;
/// Longest body: all payload of one commit, or one transaction however large, with what describes it.
pub const BODY_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

/// The start of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Number of the first transaction in it.
    pub seq: u64,
    /// How many transactions.
    pub count: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// CRC-32 of the body.
    pub body_crc: u32,
}

impl Header {
    /// As it stands in the ring of the store with this number.
    pub fn encode(&self, store: &[u8; 16]) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_u32(MAGIC);
        out.put_u32(self.count);
        out.extend_from_slice(store);
        out.put_u64(self.seq);
        out.put_u32(self.body_bytes);
        out.put_u32(self.body_crc);
        out.put_u32(0);
        let crc = crc32fast::hash(&out);
        out.put_u32(crc);
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    /// `None` where no record of this store starts.
    pub fn decode(bytes: &[u8], store: &[u8; 16]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        let magic = reader.u32().ok()?;
        let count = reader.u32().ok()?;
        let of = reader.take(16).ok()?;
        let header = Header {
            seq: reader.number().ok()?,
            count,
            body_bytes: reader.u32().ok()?,
            body_crc: reader.u32().ok()?,
        };
        let reserved = reader.u32().ok()?;
        let crc = reader.u32().ok()?;
        let is_ours = magic == MAGIC && of.as_ref() == store;
        let is_whole = crc == crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        let is_bounded = header.body_bytes as usize <= BODY_BYTES_MAX && count > 0 && header.seq > 0;
        (is_ours && is_whole && is_bounded && reserved == 0).then_some(header)
    }
}
