//! The one door to the serialization library: bincode 2 behind four rules it does not keep by itself.
//!
//! 1. Decoding allocates no more than the named limit, whatever a length claims.
//! 2. All input is used, or the caller is told how much was (the library leaves a rest silently).
//! 3. No sequence has elements that encode to nothing: the limit counts bytes, so a lying length of
//!    those would loop for ever. Sequences on the wire are [`List`]s, which refuse such elements
//!    when they are compiled.
//! 4. Integers have their full size and are little-endian, so that a layout can be read from a dump.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes that decoding one value may claim, and the longest value that is encoded.
pub const VALUE_LEN_MAX: usize = 4 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<VALUE_LEN_MAX>,
> = bincode::config::standard().with_fixed_int_encoding().with_limit::<VALUE_LEN_MAX>();

/// Why bytes are not the value that was asked for, or a value has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode as this type: too short, a bad enum number, text that is not UTF-8, or
    /// lengths past [`VALUE_LEN_MAX`].
    #[error("malformed value: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes are left behind the value.
    #[error("{left} bytes behind the value")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The value does not encode: longer than [`VALUE_LEN_MAX`], or a sequence of unknown length.
    #[error("value cannot be encoded: {0}")]
    Unencodable(#[from] bincode::error::EncodeError),
    /// The value is longer than [`VALUE_LEN_MAX`].
    #[error("value of {len} bytes is longer than the {VALUE_LEN_MAX} allowed")]
    TooLong {
        /// Bytes it would take.
        len: usize,
    },
}

/// Appends `value` to `out`.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    bincode::serde::encode_into_std_write(value, out, CONFIG)?;
    let len = out.len() - start;
    if len > VALUE_LEN_MAX {
        out.truncate(start);
        return Err(CodecError::TooLong { len });
    }
    Ok(())
}

/// Decodes one value from the front of `bytes`; returns it and the bytes used.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    Ok(bincode::serde::decode_from_slice(bytes, CONFIG)?)
}

/// Decodes one value from all of `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    if used != bytes.len() {
        return Err(CodecError::Trailing { left: bytes.len() - used });
    }
    Ok(value)
}

/// A sequence on the wire. `T` takes room in memory, which for data types means that it takes bytes on
/// the wire; anything else does not compile. Byte strings are `bytes::Bytes`, which decode in one copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct List<T>(#[serde(deserialize_with = "sized_elements")] Vec<T>);

fn sized_elements<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    const { assert!(size_of::<T>() > 0, "elements of a List must encode to at least one byte") };
    Vec::deserialize(deserializer)
}

impl<T> List<T> {
    /// The elements, owned.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(elements: Vec<T>) -> Self {
        List(elements)
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        List(iter.into_iter().collect())
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_their_size_and_lengths_eight_bytes() {
        let mut out = vec![0xff];
        encode(&(1u8, 2u32, List::from(vec![3u16]), "ä"), &mut out).unwrap();
        assert_eq!(
            out,
            [
                &[0xff, 1, 2, 0, 0, 0][..],
                &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0],
                &[2, 0, 0, 0, 0, 0, 0, 0, 0xc3, 0xa4]
            ]
            .concat()
        );
    }

    #[test]
    fn a_rest_is_refused() {
        assert!(matches!(decode::<u16>(&[1, 0, 9]), Err(CodecError::Trailing { left: 1 })));
        assert_eq!(decode_prefix::<u16>(&[1, 0, 9]).unwrap(), (1, 2));
    }

    #[test]
    fn a_lying_length_is_refused_before_it_costs_anything() {
        for len in [5u64, 1 << 20, 1 << 32, u64::MAX] {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend([0; 4]);
            assert!(matches!(decode::<List<u64>>(&bytes), Err(CodecError::Malformed(_))), "{len}");
            assert!(matches!(decode::<bytes::Bytes>(&bytes), Err(CodecError::Malformed(_))), "{len}");
            assert!(matches!(decode::<String>(&bytes), Err(CodecError::Malformed(_))), "{len}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_encoded() {
        let mut out = Vec::new();
        assert!(encode(&List::from(vec![0u64; VALUE_LEN_MAX / 8]), &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn text_must_be_utf8_and_an_option_zero_or_one() {
        assert!(decode::<String>(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff]).is_err());
        assert!(decode::<Option<u8>>(&[2, 0]).is_err());
    }
}
