//! The CRUSH map as the OSD map carries it.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// An encoded CRUSH map and its version. Opaque here: `cairn-crush` reads and changes it. The bytes
/// are shared among copies of the map.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrushBlob {
    /// Grows by one with every change of the CRUSH map.
    pub version: u32,
    bytes: Bytes,
}

impl CrushBlob {
    /// A CRUSH map in binary form.
    pub fn new(version: u32, bytes: Vec<u8>) -> Self {
        CrushBlob { version, bytes: Bytes(bytes.into()) }
    }

    /// The binary form.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.0
    }
}

impl fmt::Debug for CrushBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrushBlob(version {}, {} bytes)", self.version, self.bytes().len())
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Bytes(Arc<[u8]>);

/// Most bytes set aside on the word of a length alone.
const TRUSTED_LEN_BYTES: usize = 64 << 10;

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByteString;

        impl<'de> Visitor<'de> for ByteString {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a CRUSH map")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(TRUSTED_LEN_BYTES));
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes.into()))
            }
        }

        deserializer.deserialize_byte_buf(ByteString)
    }
}
