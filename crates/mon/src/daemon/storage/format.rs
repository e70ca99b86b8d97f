//! The bytes of a monitor's log file: `docs/format/mon-log.md`.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use cairn_paxos::limits::SNAPSHOT_BYTES_MAX;
use cairn_paxos::{DurableState, Record, Slot};
use cairn_types::{EntityName, Fsid, MonId, MonMap};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// First bytes of a log file.
pub(super) const LOG_MAGIC: [u8; 8] = *b"cairnmon";
/// Form of everything behind it.
pub(super) const FORM: u16 = 2;
/// Bytes in front of the first frame: magic and form.
pub(super) const LOG_HEADER_LEN: usize = 10;
/// First bytes of a frame.
const FRAME_MAGIC: [u8; 4] = *b"CMLF";
/// Bytes of a frame in front of its body: magic, sequence, length, checksum.
pub(super) const FRAME_HEADER_LEN: usize = 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<{ SNAPSHOT_BYTES_MAX as usize }>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<{ SNAPSHOT_BYTES_MAX as usize }>();

/// A state in a file of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct CheckpointRef {
    /// In the file's name.
    pub number: u64,
    /// Where the state stands.
    pub slot: Slot,
    /// Bytes of the file.
    pub len: u64,
    /// Of the file.
    pub crc32: u32,
}

/// Who a monitor is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonIdentity {
    /// The cluster.
    pub fsid: Fsid,
    /// Its name.
    pub name: EntityName,
    /// Its number in the replicated log.
    pub id: MonId,
    /// The monitors as they were when it was made: whom to talk to before it has the state.
    pub mon_map: MonMap,
}

/// The first frame of a log file: all that was known when it was begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Base {
    pub identity: MonIdentity,
    pub log: DurableState,
    pub checkpoint: Option<CheckpointRef>,
}

/// Every other frame: what became durable together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Batch {
    pub records: Vec<Record>,
    pub checkpoint: Option<CheckpointRef>,
}

/// Appends a frame to `out`.
pub(super) fn put_frame<T: Serialize>(
    sequence: u64,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), bincode::error::EncodeError> {
    let start = out.len();
    out.extend(FRAME_MAGIC);
    out.extend(sequence.to_le_bytes());
    out.extend([0; 8]);
    bincode::serde::encode_into_std_write(value, out, CONFIG)?;
    let body = start + FRAME_HEADER_LEN;
    let Ok(len) = u32::try_from(out.len() - body) else {
        return Err(bincode::error::EncodeError::Other("a frame has at most 4 GiB"));
    };
    out[start + 12..start + 16].copy_from_slice(&len.to_le_bytes());
    let crc32 = checksum(&out[start + 4..start + 16], &out[body..]);
    out[start + 16..body].copy_from_slice(&crc32.to_le_bytes());
    Ok(())
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

/// The frame at the start of `bytes`: its sequence and body. `None` if there is no whole frame.
pub(super) fn frame(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEADER_LEN>()?;
    let (magic, head) = head.split_first_chunk::<4>()?;
    let sequence = u64::from_le_bytes(head[..8].try_into().ok()?);
    let len = u32::from_le_bytes(head[8..12].try_into().ok()?) as usize;
    let crc32 = u32::from_le_bytes(head[12..].try_into().ok()?);
    let body = rest.get(..len).filter(|_| *magic == FRAME_MAGIC)?;
    (checksum(&head[..12], body) == crc32).then_some((sequence, body))
}

/// Whether a whole frame with a sequence of `from` or later stands anywhere in `bytes`.
pub(super) fn frame_anywhere(bytes: &[u8], from: u64) -> bool {
    let starts = bytes.windows(FRAME_MAGIC.len()).enumerate().filter(|(_, window)| *window == FRAME_MAGIC);
    starts.into_iter().any(|(at, _)| frame(&bytes[at..]).is_some_and(|(sequence, _)| sequence >= from))
}

/// Reads a body, to its last byte.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, bincode::error::DecodeError> {
    let (value, used) = bincode::serde::decode_from_slice(body, CONFIG)?;
    match used == body.len() {
        true => Ok(value),
        false => Err(bincode::error::DecodeError::Other("bytes follow the value")),
    }
}
