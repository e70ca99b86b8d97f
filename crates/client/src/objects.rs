//! Whole objects, as `cairn put`, `get`, `ls` and their fellows use them.

use crate::io::{ObjectIo, OpAnswer, OpError};
use bytes::Bytes;
use cairn_types::{ObjectId, Timestamp};
use cairn_wire::op::{OBJECT_LEN_MAX, OpFlags, OpKind, OpOutput};
use cairn_wire::{ErrorCode, Payload, Segment};

/// Most bytes one vector moves here: an image's object.
pub const PIECE_LEN: usize = 4 << 20;
/// How often a read begins anew because the object was written in the middle of it.
pub const GET_ATTEMPTS_MAX: u32 = 10;
/// Objects asked for at once by [`ls`].
const LS_PAGE: u32 = 1024;

/// Why a whole object was not moved.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ObjectError {
    /// More than an object holds.
    #[error(
        "object '{object}' would have {len} bytes; an object holds at most {OBJECT_LEN_MAX}: use an image"
    )]
    TooLarge {
        /// The object.
        object: String,
        /// Bytes.
        len: u64,
    },
    /// Somebody keeps writing it.
    #[error(
        "object '{object}' was written {GET_ATTEMPTS_MAX} times while it was read; read it when it rests"
    )]
    Unsteady {
        /// The object.
        object: String,
    },
    /// The cluster.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// What is known of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
    /// When it was last changed, by its writer's clock.
    pub mtime: Timestamp,
    /// Grows with every change.
    pub user_version: u64,
}

/// Replaces an object's bytes. Up to [`PIECE_LEN`] at once; a larger object is for a moment shorter than it
/// will be.
pub async fn put(io: &impl ObjectIo, object: &str, data: Bytes) -> Result<(), ObjectError> {
    let len = data.len() as u64;
    if len > OBJECT_LEN_MAX {
        return Err(ObjectError::TooLarge { object: object.to_owned(), len });
    }
    let mut offset = 0;
    loop {
        let piece = data.slice(offset..data.len().min(offset + PIECE_LEN));
        let (piece_len, at) = (piece.len() as u64, offset as u64);
        let kind = match offset {
            0 => OpKind::WriteFull { len: piece_len },
            _ => OpKind::Write { offset: at, len: piece_len },
        };
        io.operate(object, vec![kind.into()], Payload::of(at, piece), OpFlags::default()).await?;
        offset += piece_len as usize;
        if offset >= data.len() {
            return Ok(());
        }
    }
}

/// All bytes of an object, as pieces in order and of one version.
pub async fn get(io: &impl ObjectIo, object: &str) -> Result<Vec<Bytes>, ObjectError> {
    for _ in 0..GET_ATTEMPTS_MAX {
        match get_once(io, object).await {
            Err(ObjectError::Op(error)) if error.code() == Some(ErrorCode::OVERFLOW) => {}
            done => return done,
        }
    }
    Err(ObjectError::Unsteady { object: object.to_owned() })
}

async fn get_once(io: &impl ObjectIo, object: &str) -> Result<Vec<Bytes>, ObjectError> {
    let mut pieces = Vec::new();
    let (mut offset, mut version) = (0, None);
    loop {
        let assert = version.map(|version| OpKind::AssertVersion { version }.into());
        let read = OpKind::Read { offset, len: PIECE_LEN as u64 }.into();
        let ops = assert.into_iter().chain([read]).collect();
        let OpAnswer { user_version, data, .. } =
            io.operate(object, ops, Payload::default(), OpFlags::default()).await?;
        let len = data.len() as u64;
        pieces.extend(data.segments().iter().map(Segment::data).cloned());
        offset += len;
        if len < PIECE_LEN as u64 || offset >= OBJECT_LEN_MAX {
            return Ok(pieces);
        }
        version = Some(user_version);
    }
}

/// Size and time of an object.
pub async fn stat(io: &impl ObjectIo, object: &str) -> Result<ObjectStat, ObjectError> {
    let ops = vec![OpKind::Stat.into()];
    let answer = io.operate(object, ops, Payload::default(), OpFlags::default()).await?;
    match answer.results.first().map(|result| &result.output) {
        Some(&OpOutput::Stat { size, mtime }) => {
            Ok(ObjectStat { size, mtime, user_version: answer.user_version })
        }
        _ => Err(OpError::BadAnswer { object: object.to_owned() }.into()),
    }
}

/// Removes an object; an error if there is none.
pub async fn rm(io: &impl ObjectIo, object: &str) -> Result<(), ObjectError> {
    // Goes on when the cluster is full: it frees space.
    let ops = vec![OpKind::Delete.into()];
    io.operate(object, ops, Payload::default(), OpFlags::FULL_TRY).await?;
    Ok(())
}

/// Every object of the pool, page by page, in no particular order. `each` returns whether to go on.
pub async fn ls(io: &impl ObjectIo, mut each: impl FnMut(ObjectId) -> bool) -> Result<(), ObjectError> {
    let mut after = None;
    loop {
        let page = io.list(after, LS_PAGE).await?;
        for object in page.objects {
            if !each(object) {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
