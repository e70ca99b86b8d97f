//! A stored value: one byte of version, then the fields in the codec of the wire.

use bytes::Bytes;
use cairn_wire::CodecError;
use cairn_wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of every value so far.
pub(super) const VERSION: u8 = 3;

/// Why bytes are not the value that should be there.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// Nothing, or a form of another version.
    #[error("it has version {found:?}; this cairn knows {VERSION}")]
    Version {
        /// First byte, if there is one.
        found: Option<u8>,
    },
    /// The fields do not decode.
    #[error(transparent)]
    Fields(#[from] CodecError),
}

/// The bytes of a value.
///
/// # Panics
/// When it is longer than the codec allows, 4 MiB: what is stored was bounded where it came in.
pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = Vec::with_capacity(192);
    encode_into(value, &mut out);
    out.into()
}

/// As [`encode()`], behind what is there.
pub(super) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    out.push(VERSION);
    codec::encode(value, out).expect("bounded where it came in");
}

/// A value from its bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormError> {
    match bytes.split_first() {
        Some((&VERSION, fields)) => Ok(codec::decode(fields)?),
        first => Err(FormError::Version { found: first.map(|(version, _)| *version) }),
    }
}
