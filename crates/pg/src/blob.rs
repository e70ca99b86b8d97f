//! Bytes that pass through a group unseen.

use bytes::Bytes;
use cairn_wire::Payload;
use serde::{Deserialize, Serialize};

/// A change of an object, or a whole object: opaque here, cheap to clone.
///
/// The bulk stays in the segments it arrived in, with the checksums its maker gave it, so that what a client
/// writes goes from its socket to the store and to the other copies' sockets without being copied.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Blob {
    /// What to do with the data, or what describes it.
    pub meta: Bytes,
    /// The bulk. Not part of the encoded form: it travels and is stored beside it.
    #[serde(skip)]
    pub data: Payload,
}

impl From<Bytes> for Blob {
    /// All of it as the description, without bulk.
    fn from(meta: Bytes) -> Blob {
        Blob { meta, data: Payload::none() }
    }
}
