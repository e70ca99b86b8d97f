//! The form of one message: version, oldest reader, length, fields.

use crate::codec::{self, CodecError};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// Bytes in front of the fields.
pub(crate) const MESSAGE_HEADER_LEN: usize = 6;

/// What a frame's message is. Numbers are given in the tables of kinds and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u16);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::registry::entry(*self) {
            Some(entry) => f.write_str(entry.name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

/// A message with its place in a registry. Implemented by the tables that [`kinds!`](crate::kinds) makes, only.
pub trait Message: Serialize + DeserializeOwned {
    /// Its number.
    const KIND: Kind;
    /// Version of the form written by this code.
    const VERSION: u8;
    /// Oldest version whose reader understands that form by skipping its tail.
    const OLDEST_READER: u8;

    /// Reads an older form. Kinds that kept none refuse.
    fn decode_older(version: u8, _fields: &[u8]) -> Result<Self, MessageError> {
        Err(MessageError::TooOld { kind: Self::KIND, version, oldest: Self::VERSION })
    }
}

/// Why bytes are not the message that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The frame carries another kind.
    #[error("expected {expected}, got {got}")]
    Kind {
        /// What the caller asked for.
        expected: Kind,
        /// What the frame says.
        got: Kind,
    },
    /// The length does not fit the bytes.
    #[error("{kind}: the message says {claimed} bytes of fields, {present} are there")]
    Length {
        /// Of the message.
        kind: Kind,
        /// By its header.
        claimed: usize,
        /// In the body, behind the header.
        present: usize,
    },
    /// Shorter than the message header.
    #[error("{kind}: {len} bytes are too few for a message")]
    Truncated {
        /// Of the message.
        kind: Kind,
        /// Bytes there are.
        len: usize,
    },
    /// Written by a newer release in a form that this one cannot read.
    #[error(
        "{kind} version {version} needs a reader of version {oldest_reader}, this one has {ours}: upgrade this side"
    )]
    TooNew {
        /// Of the message.
        kind: Kind,
        /// Of the form.
        version: u8,
        /// Oldest that can read it.
        oldest_reader: u8,
        /// What this code has.
        ours: u8,
    },
    /// Written by an older release in a form that is no longer kept.
    #[error("{kind} version {version} is older than {oldest}, the oldest read here: upgrade the other side")]
    TooOld {
        /// Of the message.
        kind: Kind,
        /// Of the form.
        version: u8,
        /// Oldest that this code reads.
        oldest: u8,
    },
    /// The fields do not decode.
    #[error("{kind} version {version}: {source}")]
    Fields {
        /// Of the message.
        kind: Kind,
        /// Of the form.
        version: u8,
        /// What the codec says.
        source: CodecError,
    },
}

/// The message with its header.
pub(crate) fn encode<M: Message>(message: &M) -> Result<Bytes, CodecError> {
    let mut out = Vec::with_capacity(MESSAGE_HEADER_LEN + 64);
    out.extend([M::VERSION, M::OLDEST_READER, 0, 0, 0, 0]);
    codec::encode(message, &mut out)?;
    let len = (out.len() - MESSAGE_HEADER_LEN) as u32; // at most VALUE_LEN_MAX
    out[2..MESSAGE_HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    Ok(out.into())
}

/// Reads a message with its header from all of `bytes`, by the version rules of the format.
pub(crate) fn decode<M: Message>(bytes: &[u8]) -> Result<M, MessageError> {
    let kind = M::KIND;
    let Some((header, fields)) = bytes.split_first_chunk::<MESSAGE_HEADER_LEN>() else {
        return Err(MessageError::Truncated { kind, len: bytes.len() });
    };
    let [version, oldest_reader, l0, l1, l2, l3] = *header;
    let claimed = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if claimed != fields.len() {
        return Err(MessageError::Length { kind, claimed, present: fields.len() });
    }
    if version < M::VERSION {
        return M::decode_older(version, fields);
    }
    if version > M::VERSION && oldest_reader > M::VERSION {
        return Err(MessageError::TooNew { kind, version, oldest_reader, ours: M::VERSION });
    }
    let in_kind = |source| MessageError::Fields { kind, version, source };
    let (message, used) = codec::decode_prefix(fields).map_err(in_kind)?;
    if version == M::VERSION && used != fields.len() {
        return Err(in_kind(CodecError::Trailing { left: fields.len() - used }));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Old {
        a: u8,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct New {
        a: u8,
        b: u16,
    }

    impl Message for Old {
        const KIND: Kind = Kind(60_000);
        const VERSION: u8 = 1;
        const OLDEST_READER: u8 = 1;
    }

    impl Message for New {
        const KIND: Kind = Kind(60_000);
        const VERSION: u8 = 2;
        const OLDEST_READER: u8 = 1;

        fn decode_older(version: u8, fields: &[u8]) -> Result<Self, MessageError> {
            let old: Old = codec::decode(fields).map_err(|source| MessageError::Fields {
                kind: Self::KIND,
                version,
                source,
            })?;
            Ok(New { a: old.a, b: 500 })
        }
    }

    #[test]
    fn an_old_reader_skips_a_new_tail() {
        let bytes = encode(&New { a: 1, b: 2 }).unwrap();
        assert_eq!(bytes[..], [2, 1, 3, 0, 0, 0, 1, 2, 0]);
        assert_eq!(decode::<Old>(&bytes).unwrap(), Old { a: 1 });
    }

    #[test]
    fn a_new_reader_reads_the_older_form_it_kept() {
        let bytes = encode(&Old { a: 1 }).unwrap();
        assert_eq!(decode::<New>(&bytes).unwrap(), New { a: 1, b: 500 });
    }

    #[test]
    fn a_form_that_cannot_be_read_names_the_versions() {
        let mut bytes = encode(&New { a: 1, b: 2 }).unwrap().to_vec();
        bytes[1] = 2;
        let error = decode::<Old>(&bytes).unwrap_err();
        assert!(
            matches!(error, MessageError::TooNew { version: 2, oldest_reader: 2, ours: 1, .. }),
            "{error}"
        );
        bytes[0] = 0;
        let error = decode::<Old>(&bytes).unwrap_err();
        assert!(matches!(error, MessageError::TooOld { version: 0, oldest: 1, .. }), "{error}");
    }

    #[test]
    fn the_same_version_uses_every_byte() {
        let bytes = [1, 1, 2, 0, 0, 0, 7, 7];
        assert!(matches!(
            decode::<Old>(&bytes),
            Err(MessageError::Fields { source: CodecError::Trailing { left: 1 }, .. })
        ));
        assert!(matches!(
            decode::<Old>(&bytes[..7]),
            Err(MessageError::Length { claimed: 2, present: 1, .. })
        ));
        assert!(matches!(decode::<Old>(&bytes[..5]), Err(MessageError::Truncated { len: 5, .. })));
    }
}
