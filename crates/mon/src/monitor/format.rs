//! The bytes of log entries and of the state: `docs/format/mon-log.md`.

use super::CallTag;
use crate::service::{ClusterState, Refusal, Reply, Transaction};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use cairn_paxos::limits::{PAYLOAD_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use cairn_paxos::{MonId, Payload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the form of log entries.
const ENTRY_VERSION: u16 = 2;
/// Version of the form of the state.
const STATE_VERSION: u16 = 2;
const VERSION_LEN: usize = 2;

const ENTRY: Configuration<LittleEndian, Fixint, Limit<PAYLOAD_BYTES_MAX>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<PAYLOAD_BYTES_MAX>();
const STATE: Configuration<LittleEndian, Fixint, Limit<{ SNAPSHOT_BYTES_MAX as usize }>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ SNAPSHOT_BYTES_MAX as usize }>();

/// Whose call an answer in the log is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The monitor that was called.
    pub mon: MonId,
    /// Which start of it: another one knows nothing of the call.
    pub run: u64,
    /// Its name of the call.
    pub tag: CallTag,
}

/// What a slot of the log carries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The change.
    pub transaction: Transaction,
    /// What the calls that it carries out get, once it is applied.
    pub answers: Vec<(Origin, Reply)>,
}

/// Why bytes are no entry or state.
#[derive(Debug, Error)]
pub enum FormatError {
    /// Of another version.
    #[error("it has version {found}, this program knows {known}")]
    Version {
        /// Found.
        found: u16,
        /// Known here.
        known: u16,
    },
    /// Not even a version.
    #[error("it has {len} bytes, fewer than a version takes")]
    Short {
        /// How many there are.
        len: usize,
    },
    /// Malformed.
    #[error("it is malformed: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes are left over.
    #[error("{left} bytes follow it")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// The bytes of an entry, unless they are more than the log takes.
pub fn encode_entry(entry: &Entry) -> Result<Payload, Refusal> {
    let bytes = encode(ENTRY_VERSION, entry);
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::TooLarge { len_bytes: bytes.len(), most_bytes: PAYLOAD_BYTES_MAX });
    }
    Ok(bytes.into())
}

/// The bytes of a state.
pub fn encode_state(state: &ClusterState) -> Payload {
    encode(STATE_VERSION, state).into()
}

fn encode<T: Serialize>(version: u16, value: &T) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    // Only sequences of unknown length and foreign errors fail, and a Vec takes everything; the types have
    // neither, and the tests encode each of them.
    let written = bincode::serde::encode_into_std_write(value, &mut bytes, STATE);
    debug_assert!(written.is_ok(), "the state has a binary form: {written:?}");
    bytes
}

/// Reads an entry.
pub fn decode_entry(bytes: &Payload) -> Result<Entry, FormatError> {
    decode(ENTRY_VERSION, bytes.as_slice(), ENTRY)
}

/// Reads a state.
pub fn decode_state(bytes: &Payload) -> Result<ClusterState, FormatError> {
    decode(STATE_VERSION, bytes.as_slice(), STATE)
}

fn decode<T: DeserializeOwned, C: bincode::config::Config>(
    known: u16,
    bytes: &[u8],
    config: C,
) -> Result<T, FormatError> {
    let (version, body) =
        bytes.split_first_chunk::<VERSION_LEN>().ok_or(FormatError::Short { len: bytes.len() })?;
    let found = u16::from_le_bytes(*version);
    if found != known {
        return Err(FormatError::Version { found, known });
    }
    let (value, used) = bincode::serde::decode_from_slice(body, config)?;
    match body.len() - used {
        0 => Ok(value),
        left => Err(FormatError::Trailing { left }),
    }
}
