//! What travels between OSDs, and from them to the mgr: the kinds 96 to 127 of `docs/format/wire.md`.
//!
//! The bulk of a change or of an object is the frame's payload, with the checksums its maker gave it; all else is in
//! the message. What comes in is checked here as far as one message can be: a group may rely on it.

use crate::core::{Amount, Credit, PeerMessage, Received};
use cairn_pg::{Activation, Body, LogEntry, Message, MissingItem, Version};
use cairn_types::{EntityAddr, Epoch, ObjectId, OsdReport, PgId};
use cairn_wire::op::{OBJECT_NAME_LEN_MAX, Ping, Pong};
use cairn_wire::{Frame, FrameError, Kind, Lane, Message as _, MessageError, Payload};
use serde::{Deserialize, Serialize};

/// First on a connection between OSDs, by who opened it; on the control lane. Nothing else before the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerHello {
    /// Which link of this run: a higher one replaces a lower one.
    pub link: u64,
    /// The sender.
    pub from: EntityAddr,
    /// Who it should be.
    pub to: EntityAddr,
}

/// The answer to [`PeerHello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerWelcome {
    /// Last message of the link received on the client lane.
    pub client: u64,
    /// Last message of the link received on the recovery lane.
    pub recovery: u64,
    /// Room for what is sent over it.
    pub credit: Credit,
}

/// From one copy of a group to another. The bulk of its body is the payload.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GroupMessage {
    /// Counts the messages of the link on this lane, from 1.
    pub seq: u64,
    /// The group.
    pub pgid: PgId,
    /// What is said.
    pub message: Message,
}

/// To who opened the connection: received so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerAck {
    /// Last message received on the client lane.
    pub client: u64,
    /// Last message received on the recovery lane.
    pub recovery: u64,
    /// Room for what is sent next.
    pub credit: Credit,
}

/// By who opened the connection: which word about room was heard last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerHeard {
    /// Its number.
    pub credit: u64,
}

/// To the active mgr.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report(pub OsdReport);

/// Why a frame is no message of an OSD, or a message no frame.
#[derive(Debug, thiserror::Error)]
pub enum PeerMessageError {
    /// Not a kind that OSDs send each other.
    #[error("{0} is not for OSDs")]
    Kind(Kind),
    /// It came where it does not belong.
    #[error("{kind} came on the {lane} lane")]
    Lane {
        /// What it is.
        kind: Kind,
        /// Where it came.
        lane: Lane,
    },
    /// The message does not decode.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The message is too long for a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A payload came with a message that has none.
    #[error("{len} bytes came with a message that carries none")]
    StrayPayload {
        /// How many.
        len: usize,
    },
    /// What it says cannot be.
    #[error("a message of group {pgid} cannot be: {why}")]
    Nonsense {
        /// The group.
        pgid: PgId,
        /// Which rule it breaks.
        why: &'static str,
    },
}

/// A message as a frame, for the lane that its sender chose.
///
/// # Errors
/// When it is longer than a frame may be.
pub fn to_frame(message: PeerMessage) -> Result<Frame, FrameError> {
    match message {
        PeerMessage::Hello { link, from, to } => Frame::new(&PeerHello { link, from, to }, Payload::none()),
        PeerMessage::Welcome { received: Received { client, recovery }, credit } => {
            Frame::new(&PeerWelcome { client, recovery, credit }, Payload::none())
        }
        PeerMessage::Group { seq, pgid, message } => GroupMessage { seq, pgid, message }.into_frame(),
        PeerMessage::Ack { received: Received { client, recovery }, credit } => {
            Frame::new(&PeerAck { client, recovery, credit }, Payload::none())
        }
        PeerMessage::Heard { credit } => Frame::new(&PeerHeard { credit }, Payload::none()),
        PeerMessage::Ping(ping) => Frame::new(&ping, Payload::none()),
        PeerMessage::Pong(pong) => Frame::new(&pong, Payload::none()),
    }
}

/// What an OSD says with a frame that came on `lane`. The checksums of its payload are not looked at: see
/// [`bulk_of`].
///
/// # Errors
/// When it is not for OSDs, does not decode, came on a lane it does not belong on, or says what cannot be.
pub fn from_frame(lane: Lane, frame: Frame) -> Result<PeerMessage, PeerMessageError> {
    let kind = frame.kind();
    if kind == GroupMessage::KIND {
        let GroupMessage { seq, pgid, message } = GroupMessage::from_frame(frame)?;
        if message.body.lane() != lane {
            return Err(PeerMessageError::Lane { kind, lane });
        }
        return Ok(PeerMessage::Group { seq, pgid, message });
    }
    no_payload(frame.payload())?;
    if lane != Lane::Control {
        return Err(PeerMessageError::Lane { kind, lane });
    }
    Ok(match kind {
        PeerHello::KIND => {
            let PeerHello { link, from, to } = frame.message()?;
            PeerMessage::Hello { link, from, to }
        }
        PeerWelcome::KIND => {
            let PeerWelcome { client, recovery, credit } = frame.message()?;
            PeerMessage::Welcome { received: Received { client, recovery }, credit }
        }
        PeerAck::KIND => {
            let PeerAck { client, recovery, credit } = frame.message()?;
            PeerMessage::Ack { received: Received { client, recovery }, credit }
        }
        PeerHeard::KIND => {
            let PeerHeard { credit } = frame.message()?;
            PeerMessage::Heard { credit }
        }
        Ping::KIND => PeerMessage::Ping(frame.message()?),
        Pong::KIND => PeerMessage::Pong(frame.message()?),
        kind => return Err(PeerMessageError::Kind(kind)),
    })
}

/// The bulk of a message, if it is of a kind that carries any.
pub fn bulk_of(message: &PeerMessage) -> Option<&Payload> {
    let PeerMessage::Group { message, .. } = message else { return None };
    match &message.body {
        Body::RepOp { payload: Some(blob), .. }
        | Body::Redo { data: Some(blob), .. }
        | Body::Push { data: blob, .. } => Some(&blob.data),
        _ => None,
    }
}

/// The bulk of a body, taken out of it.
fn take_payload(body: &mut Body) -> Payload {
    match body {
        Body::RepOp { payload: Some(blob), .. }
        | Body::Redo { data: Some(blob), .. }
        | Body::Push { data: blob, .. } => std::mem::take(&mut blob.data),
        _ => Payload::none(),
    }
}

impl GroupMessage {
    /// As a frame. The bulk is not copied.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn into_frame(mut self) -> Result<Frame, FrameError> {
        let payload = take_payload(&mut self.message.body);
        Frame::new(&self, payload)
    }

    /// From a frame of its kind, checked.
    ///
    /// # Errors
    /// When it does not decode, or says what cannot be.
    pub fn from_frame(frame: Frame) -> Result<GroupMessage, PeerMessageError> {
        let mut decoded: GroupMessage = frame.message()?;
        let payload = frame.into_payload();
        match &mut decoded.message.body {
            Body::RepOp { payload: Some(blob), .. }
            | Body::Redo { data: Some(blob), .. }
            | Body::Push { data: blob, .. } => blob.data = payload,
            _ => no_payload(&payload)?,
        }
        decoded.check()?;
        Ok(decoded)
    }

    /// What a group takes for granted: entries in order, names within bounds and of the group's pool.
    fn check(&self) -> Result<(), PeerMessageError> {
        let pgid = self.pgid;
        let nonsense = |why| Err(PeerMessageError::Nonsense { pgid, why });
        let entries = |tail: Version, entries: &[LogEntry]| {
            let versions = std::iter::once(tail).chain(entries.iter().map(|entry| entry.version));
            versions.is_sorted_by(|a, b| a < b)
        };
        let position = |position: &cairn_pg::Position| match position {
            cairn_pg::Position::At(object) => can_have(pgid, [&**object]),
            _ => true,
        };
        let fine = match &self.message.body {
            Body::Log { segment, .. } | Body::Activate(Activation { segment, .. }) => {
                let head = segment.entries.last().map_or(segment.tail, |entry| entry.version);
                if !entries(segment.tail, &segment.entries) || head != segment.head {
                    return nonsense("its log is not in order");
                }
                can_have(pgid, segment.entries.iter().map(|entry| &*entry.object))
            }
            Body::RepOp { follows, entries: new, .. } => {
                if new.is_empty() || !entries(*follows, new) {
                    return nonsense("its entries are not in order");
                }
                can_have(pgid, new.iter().map(|entry| &*entry.object))
            }
            Body::Redo { follows, entries: new, .. } => {
                let object = new.first().map(|entry| &entry.object);
                if new.is_empty()
                    || !entries(*follows, new)
                    || new.iter().any(|entry| Some(&entry.object) != object)
                {
                    return nonsense("its entries are not in order");
                }
                can_have(pgid, object.map(|object| &**object))
            }
            Body::Activated { missing, .. } => {
                let is_other = |object: &cairn_pg::ObjectKey, item: &MissingItem| {
                    !entries(Version::ZERO, &item.undone) || item.undone.iter().any(|e| e.object != *object)
                };
                if missing.iter().any(|(object, item)| is_other(object, item)) {
                    return nonsense("what it took back is not in order");
                }
                can_have(pgid, missing.iter().map(|(object, _)| &**object))
            }
            Body::Pull { object, .. }
            | Body::PullFailed { object, .. }
            | Body::Push { object, .. }
            | Body::PushReply { object, .. } => can_have(pgid, [&**object]),
            Body::BackfillScan { begin, end } => position(begin) && position(end),
            Body::BackfillObjects { begin, end, objects: listed } => {
                if !listed.is_sorted_by(|a, b| a.0 < b.0) {
                    return nonsense("its objects are not in order");
                }
                position(begin) && position(end) && can_have(pgid, listed.iter().map(|(object, _)| &**object))
            }
            Body::BackfillProgress { through, remove } => {
                position(through) && can_have(pgid, remove.iter().map(|object| &**object))
            }
            Body::BackfillAck { through } => position(through),
            Body::Info { info, .. } => position(&info.last_backfill),
            Body::QueryInfo
            | Body::QueryLog { .. }
            | Body::Share { .. }
            | Body::RepOpReply { .. }
            | Body::BackfillReserve
            | Body::BackfillGranted
            | Body::BackfillRelease
            | Body::LeaseRequest { .. }
            | Body::LeaseGrant { .. }
            | Body::RemoveCopy => true,
        };
        match &self.message.body {
            Body::Info { info, .. } | Body::Log { info, .. } if info.pgid != pgid => {
                nonsense("its info is of another group")
            }
            _ if !fine => nonsense("it names an object that the group cannot have"),
            _ => Ok(()),
        }
    }
}

/// Whether a group can have objects of these names.
fn can_have<'a>(pgid: PgId, objects: impl IntoIterator<Item = &'a ObjectId>) -> bool {
    let fits = |text: &str| text.len() <= OBJECT_NAME_LEN_MAX;
    let mut objects = objects.into_iter();
    objects.all(|o| o.pool == pgid.pool && fits(&o.namespace) && fits(&o.key) && fits(&o.name))
}

fn no_payload(payload: &Payload) -> Result<(), PeerMessageError> {
    if payload.is_empty() { Ok(()) } else { Err(PeerMessageError::StrayPayload { len: payload.len() }) }
}

fn sample_addr(port: u16, nonce: u64) -> EntityAddr {
    EntityAddr { socket: std::net::SocketAddr::from(([127, 0, 0, 1], port)), nonce }
}

fn sample_credit() -> Credit {
    let amount = |data, index| Amount { data, index };
    Credit { seq: 3, limit: amount(1 << 30, 1 << 20), most: amount(1 << 28, 1 << 18) }
}

fn sample_group_message() -> GroupMessage {
    let object = ObjectId {
        pool: cairn_types::PoolId(3),
        hash: 0x1234_5678,
        namespace: String::new(),
        key: String::new(),
        name: "rbd_data.1f.0000000000000000".into(),
        snap: cairn_types::SnapId::HEAD,
    };
    let version = |version| Version { epoch: Epoch(9), version };
    let entry = LogEntry {
        version: version(8),
        prior_version: version(5),
        object: object.into(),
        kind: cairn_pg::EntryKind::Modify,
        request: Some(cairn_pg::RequestId { client: 0x1122_3344, incarnation: 5, tid: 6 }),
        result: bytes::Bytes::from_static(b"ok"),
    };
    let payload = cairn_pg::Blob { meta: bytes::Bytes::from_static(b"change"), data: Payload::none() };
    let body = Body::RepOp {
        follows: version(7),
        entries: vec![entry],
        payload: Some(payload),
        trim_to: version(2),
        committed_to: version(6),
    };
    let pgid = PgId { pool: cairn_types::PoolId(3), seed: 0x18 };
    GroupMessage { seq: 17, pgid, message: Message { epoch: Epoch(9), body } }
}

fn sample_report() -> OsdReport {
    let pg = cairn_types::PgReport {
        pg: PgId { pool: cairn_types::PoolId(3), seed: 0x18 },
        epoch: Epoch(9),
        state: cairn_types::PgState::ACTIVE | cairn_types::PgState::CLEAN,
        up: vec![cairn_types::OsdId(1), cairn_types::OsdId(2)],
        acting: vec![cairn_types::OsdId(2)],
        last_epoch_clean: Epoch(8),
        objects: 10,
        stored_bytes: 40_960,
        counts: cairn_types::PgCounts { copies: 20, degraded: 1, misplaced: 2, unfound: 0 },
        blocked_by: Vec::new(),
    };
    let mut counters = cairn_types::OsdCounters { read_ops: 1, read_bytes: 4096, ..Default::default() };
    counters.read_latency.add(100);
    OsdReport {
        osd: cairn_types::OsdId(2),
        up_from: Epoch(4),
        epoch: Epoch(9),
        stat: cairn_types::OsdStat { total_bytes: 1 << 30, used_bytes: 1 << 20, pgs: 1, slow_ops: 0 },
        counters,
        pgs: vec![pg],
    }
}

cairn_wire::kinds! {
    range 96..=127;
    96 PeerHello, version 1, oldest 1, "peer-hello",
        sample PeerHello { link: 2, from: sample_addr(6801, 11), to: sample_addr(6803, 12) };
    97 PeerWelcome, version 2, oldest 2, "peer-welcome",
        sample PeerWelcome { client: 5, recovery: 6, credit: sample_credit() };
    98 GroupMessage, version 3, oldest 3, "group-message", sample sample_group_message();
    99 PeerAck, version 2, oldest 2, "peer-ack",
        sample PeerAck { client: 7, recovery: 8, credit: sample_credit() };
    100 PeerHeard, version 1, oldest 1, "peer-heard", sample PeerHeard { credit: 9 };
    120 Report, version 1, oldest 1, "osd-report", sample Report(sample_report());
}
