//! What clients ask of objects: vectors of operations, and their answers.
//!
//! The object model is RADOS's. A vector is applied to one object, atomically and in order; reads in it see the
//! changes before them; the first operation that fails ends it (unless its flag says otherwise) and nothing is changed.
//! Bytes of objects travel as the frame's payload: one segment for each operation that carries any, in order. All
//! else (xattrs, omap, class calls) travels in the message.

use crate::codec::List;
use crate::envelope::{ErrorCode, RequestId};
use bytes::Bytes;
use cairn_types::{EntityAddr, Epoch, ObjectId, PgId, SnapId, Timestamp};
use serde::{Deserialize, Serialize};

/// Most operations in one vector.
pub const OPS_MAX: usize = 64;
/// Largest object: four times an image's. Objects are recovered whole, and a frame carries 16 MiB.
pub const OBJECT_LEN_MAX: u64 = 15 << 20;
/// Longest object name, namespace or locator key, in bytes.
pub const OBJECT_NAME_LEN_MAX: usize = 1024;
/// Longest name of an xattr, in bytes.
pub const XATTR_NAME_LEN_MAX: usize = 255;
/// Longest value of an xattr, in bytes.
pub const XATTR_LEN_MAX: usize = 64 << 10;
/// Longest omap key, in bytes.
pub const OMAP_KEY_LEN_MAX: usize = 1024;
/// Longest omap value, in bytes.
pub const OMAP_VALUE_LEN_MAX: usize = 64 << 10;
/// Most omap entries one operation returns; the caller goes on after the last key.
pub const OMAP_ENTRIES_MAX: u32 = 1024;
/// Longest input or output of a class method, notification or acknowledgement, in bytes.
pub const CALL_LEN_MAX: usize = 1 << 20;

/// Which clones a write may have to keep: RADOS's snap context. `ids` descend, none above `seq`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SnapContext {
    /// Newest snapshot its sender knew of.
    pub seq: u64,
    /// Snapshots that exist, newest first.
    pub ids: List<SnapId>,
}

/// A vector for one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpRequest {
    /// The same in every resend.
    pub request: RequestId,
    /// Map by which the sender found the primary.
    pub epoch: Epoch,
    /// The object's group by that map.
    pub pg: PgId,
    /// The object. `snap` is [`SnapId::HEAD`] or, in a vector that only reads, a snapshot.
    pub object: ObjectId,
    /// For writes.
    pub snaps: SnapContext,
    /// The sender's clock: becomes the object's modification time.
    pub mtime: Timestamp,
    /// See [`OpFlags`].
    pub flags: OpFlags,
    /// At most [`OPS_MAX`].
    pub ops: List<Op>,
}

/// Bits of a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OpFlags(pub u32);

impl OpFlags {
    /// Goes on although the cluster or the pool is full: for what frees space.
    pub const FULL_TRY: OpFlags = OpFlags(1);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: OpFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One operation and whether the vector goes on when it fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// What to do.
    pub kind: OpKind,
    /// The vector goes on, and may succeed, although this one fails.
    pub fail_ok: bool,
}

impl From<OpKind> for Op {
    fn from(kind: OpKind) -> Self {
        Op { kind, fail_ok: false }
    }
}

/// What one operation does. Grows at its end. Offsets and lengths are bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are described with their operation")]
pub enum OpKind {
    /// Size and mtime: [`OpOutput::Stat`]. ENOENT if the object is not there.
    Stat,
    /// Bytes of a range, in the payload; shorter at the object's end. Length 0 is to the end.
    Read { offset: u64, len: u64 },
    /// What of a range is stored: [`OpOutput::Extents`], and one segment for each in the payload.
    SparseRead { offset: u64, len: u64 },
    /// Makes the object exist. EEXIST if `exclusive` and it does.
    Create { exclusive: bool },
    /// Writes the segment at `offset`. `len` is the segment's; 0 has no segment and changes only the mtime.
    Write { offset: u64, len: u64 },
    /// Replaces the object's bytes by the segment.
    WriteFull { len: u64 },
    /// Writes the segment at the object's end.
    Append { len: u64 },
    /// Makes a range read as zeros and frees it. Does nothing beyond the object's end or to an object that is not there.
    Zero { offset: u64, len: u64 },
    /// Sets the size. ENOENT if the object is not there.
    Truncate { size: u64 },
    /// Removes the object. ENOENT if it is not there.
    Delete,
    /// Says how the object will be used; kept as advice.
    SetAllocHint { object_len: u64, write_len: u64 },
    /// Goes on only if the object holds the segment at `offset` (beyond its end: zeros). Else CANCELED with the first
    /// difference: [`OpOutput::Number`].
    CompareExtent { offset: u64, len: u64 },
    /// Goes on only if the object's user version is this one: OVERFLOW if newer, RANGE if older.
    AssertVersion { version: u64 },
    /// One xattr: [`OpOutput::Bytes`], NODATA if it is not there.
    GetXattr { name: String },
    /// All xattrs of clients: [`OpOutput::Entries`].
    GetXattrs,
    /// Sets an xattr.
    SetXattr { name: String, value: Bytes },
    /// Removes an xattr. NODATA if it is not there.
    RemoveXattr { name: String },
    /// Goes on only if the xattr has this value (absent is empty). Else CANCELED.
    CompareXattr { name: String, value: Bytes },
    /// Keys after `after`, at most `max`: [`OpOutput::Keys`].
    OmapGetKeys { after: Bytes, max: u32 },
    /// Entries after `after` whose keys begin with `prefix`, at most `max`: [`OpOutput::Entries`].
    OmapGetVals { after: Bytes, prefix: Bytes, max: u32 },
    /// The entries of these keys that are there: [`OpOutput::Entries`].
    OmapGetValsByKeys { keys: List<Bytes> },
    /// Sets entries.
    OmapSet { entries: List<(Bytes, Bytes)> },
    /// Removes entries.
    OmapRemove { keys: List<Bytes> },
    /// Removes the entries with `first <= key < end`; OVERFLOW when they are more than [`OMAP_ENTRIES_MAX`].
    OmapRemoveRange { first: Bytes, end: Bytes },
    /// Removes all entries and the header.
    OmapClear,
    /// The header: [`OpOutput::Bytes`].
    OmapGetHeader,
    /// Sets the header.
    OmapSetHeader { value: Bytes },
    /// Goes on only if the key has this value (absent is empty). Else CANCELED.
    OmapCompare { key: Bytes, value: Bytes },
    /// A method of an object class: [`OpOutput::Bytes`]. Whether it writes is decided by its registration. OPNOTSUPP
    /// if it is not known.
    Call { class: String, method: String, input: Bytes },
    /// Begins, renews or ends a watch under the sender's `cookie`.
    Watch { cookie: u64, action: WatchAction },
    /// Sends `payload` to everyone who watches, and answers when all have acknowledged or `timeout_ms` is over:
    /// [`OpOutput::Notified`]. Alone in its vector.
    Notify { payload: Bytes, timeout_ms: u32 },
    /// Who watches: [`OpOutput::Watchers`].
    ListWatchers,
    /// Objects of the group (the vector's object names none) after a position, at most `max`:
    /// [`OpOutput::Listed`]. Alone in its vector.
    ListObjects { after: Option<Box<ObjectId>>, max: u32 },
}

impl OpKind {
    /// Bytes of the payload segment that belongs to it; 0: it has none.
    pub fn segment_len(&self) -> u64 {
        match *self {
            OpKind::Write { len, .. }
            | OpKind::WriteFull { len }
            | OpKind::Append { len }
            | OpKind::CompareExtent { len, .. } => len,
            _ => 0,
        }
    }
}

/// What a watch operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WatchAction {
    /// Begins, or goes on after a lost connection. `timeout_ms` without a sign ends it.
    Watch {
        /// Milliseconds.
        timeout_ms: u32,
    },
    /// Lives. ENOENT: the watch is gone, begin anew.
    Ping,
    /// Ends.
    Unwatch,
}

/// The answer to a vector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpReply {
    /// Of the vector.
    pub request: RequestId,
    /// Map of the OSD. With [`ErrorCode::STALE`]: send it again by a map at least as new.
    pub epoch: Epoch,
    /// OK, or the code of the operation that ended the vector, or why it was not looked at: STALE (see `epoch`), BUSY (again
    /// later), BLOCKLISTED, NOSPC.
    pub code: ErrorCode,
    /// The object's version for users after it: grows with every change; 0 if it never was.
    pub user_version: u64,
    /// One for each operation carried out.
    pub results: List<OpResult>,
}

/// What one operation gave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpResult {
    /// How it went.
    pub code: ErrorCode,
    /// What it gave.
    pub output: OpOutput,
}

/// What an operation gives. Grows at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are described with their output")]
pub enum OpOutput {
    /// Nothing.
    None,
    /// The next segment of the payload, of this length; 0: none.
    Data {
        len: u64,
    },
    /// The next segments of the payload, one for each (offset, length).
    Extents(List<(u64, u64)>),
    Stat {
        size: u64,
        mtime: Timestamp,
    },
    Number(u64),
    Bytes(Bytes),
    Keys {
        keys: List<Bytes>,
        more: bool,
    },
    Entries {
        entries: List<(Bytes, Bytes)>,
        more: bool,
    },
    Watchers(List<Watcher>),
    Notified {
        acknowledged: List<NotifyReply>,
        missed: List<(u64, u64)>,
    },
    /// The next call goes on after `next`; `None`: that was all.
    Listed {
        objects: List<ObjectId>,
        next: Option<Box<ObjectId>>,
    },
}

/// One watch of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watcher {
    /// The client's session.
    pub client: u64,
    /// The client's name of the watch.
    pub cookie: u64,
    /// The client, as the blocklist names it.
    pub addr: EntityAddr,
    /// Silence that ends it.
    pub timeout_ms: u32,
}

/// What one watcher answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotifyReply {
    /// Its session.
    pub client: u64,
    /// Its watch.
    pub cookie: u64,
    /// Its answer.
    pub reply: Bytes,
}

/// To a watcher: somebody notifies, or the watch is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchEvent {
    /// The object.
    pub object: ObjectId,
    /// The watcher's name of its watch.
    pub cookie: u64,
    /// What happened.
    pub what: WatchNews,
}

/// What a watcher hears.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WatchNews {
    /// To be answered with [`NotifyAck`].
    Notify {
        /// Names the notification at this OSD.
        id: u64,
        /// Session of the sender.
        notifier: u64,
        /// What it says.
        payload: Bytes,
    },
    /// The watch is over: it ran out, or the object was removed.
    Ended,
}

/// From a watcher: heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotifyAck {
    /// The object.
    pub object: ObjectId,
    /// The watch.
    pub cookie: u64,
    /// Of the notification.
    pub id: u64,
    /// The answer.
    pub reply: Bytes,
}

/// Between OSDs: are you there, and do you know me? On the control lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ping {
    /// Which ping.
    pub seq: u64,
    /// Newest map of the sender.
    pub epoch: Epoch,
}

/// The answer to a [`Ping`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// Of the ping.
    pub seq: u64,
    /// Newest map of the sender.
    pub epoch: Epoch,
}
