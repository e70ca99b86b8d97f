//! What travels between monitors and everybody: the kinds 64 to 95 of `docs/format/wire.md`, all on the control
//! lane. [`to_frame`] and [`from_frame`] carry each, also one that is too large for the body of a frame, such as the map
//! of a very large cluster or the entries of a promise.

use crate::monitor::{Answer, Call, CallTag, DaemonNews, PeerMessage, Publication};
use crate::service::subscription::Need;
use crate::service::{Once, PoolCommand, Reply, Request};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use cairn_paxos::{Ballot, Message, Moment, MonId, Slot};
use cairn_types::{Epoch, OsdId};
use cairn_wire::{
    CodecError, Frame, FrameError, Kind, Message as WireMessage, MessageError, PAYLOAD_LEN_MAX, Payload,
    RequestId,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One monitor to another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MonPeer(pub PeerMessage);

/// Somebody asks something of the monitor it is connected to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonCall {
    /// The caller's name of it, one for each question of a connection; comes back in the answer.
    pub tag: CallTag,
    /// What is asked.
    pub call: Call,
}

/// What it gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MonAnswer {
    /// From the call.
    pub tag: CallTag,
    /// The answer.
    pub answer: Answer,
}

/// A daemon tells something and waits for no answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MonNews(pub DaemonNews);

/// What the sender wants to be kept up to date about, with what it has now; replaces what it said before. Each
/// `None` is not wanted; each 0 is wanted and not there yet. Who asks is known from the certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MonSubscribe {
    /// OSD maps after this epoch.
    pub osd_map: Option<(Epoch, Need)>,
    /// The monitor map, if newer.
    pub mon_map: Option<Epoch>,
    /// The mgr map, if newer.
    pub mgr_map: Option<Epoch>,
    /// The sender's settings, if of another version of all settings.
    pub config: Option<u64>,
}

/// What is new, for a subscriber.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonPublication(pub Publication);

/// A message that is too large for the body of a frame: its fields, in the same form, are the frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MonLarge {
    /// What it is.
    pub kind: u16,
    /// Version of its form.
    pub version: u8,
    /// Oldest version whose reader understands it.
    pub oldest_reader: u8,
}

/// Why a frame is not the message that was asked for.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Its body.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The payload of a large one.
    #[error("a large message is malformed: {0}")]
    Large(#[from] bincode::error::DecodeError),
    /// A payload in several pieces, or with something behind the fields.
    #[error("the payload of a large message is not its fields")]
    Payload,
}

const LARGE: Configuration<LittleEndian, Fixint, Limit<PAYLOAD_LEN_MAX>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<PAYLOAD_LEN_MAX>();

/// The frame of one of these messages.
pub fn to_frame<M: WireMessage>(message: &M) -> Result<Frame, FrameError> {
    match Frame::new(message, Payload::none()) {
        Err(FrameError::TooLong { .. } | FrameError::Codec(CodecError::TooLong { .. })) => {}
        done => return done,
    }
    let fields = bincode::serde::encode_to_vec(message, LARGE).map_err(CodecError::from)?;
    let large = MonLarge { kind: M::KIND.0, version: M::VERSION, oldest_reader: M::OLDEST_READER };
    Frame::new(&large, Payload::of(0, fields.into()))
}

/// What a frame carries.
pub fn kind_of(frame: &Frame) -> Result<Kind, MessageError> {
    match frame.kind() {
        MonLarge::KIND => Ok(Kind(frame.message::<MonLarge>()?.kind)),
        kind => Ok(kind),
    }
}

/// Reads one of these messages.
pub fn from_frame<M: WireMessage>(frame: &Frame) -> Result<M, ReadError> {
    if frame.kind() != MonLarge::KIND {
        return Ok(frame.message()?);
    }
    let MonLarge { kind, version, oldest_reader } = frame.message()?;
    if Kind(kind) != M::KIND {
        return Err(MessageError::Kind { expected: M::KIND, got: Kind(kind) }.into());
    }
    if version < M::VERSION {
        return Err(MessageError::TooOld { kind: M::KIND, version, oldest: M::VERSION }.into());
    }
    if oldest_reader > M::VERSION {
        let error = MessageError::TooNew { kind: M::KIND, version, oldest_reader, ours: M::VERSION };
        return Err(error.into());
    }
    let [segment] = frame.payload().segments() else { return Err(ReadError::Payload) };
    let (message, used) = bincode::serde::decode_from_slice(segment.data(), LARGE)?;
    match version == M::VERSION && used != segment.data().len() {
        true => Err(ReadError::Payload),
        false => Ok(message),
    }
}

fn sample_peer_message() -> PeerMessage {
    PeerMessage::Log(Message::Accept {
        ballot: Ballot { round: 3, leader: MonId(1) },
        stamp: Moment(1_000_000),
        decided: Slot(7),
        hash: 0x0102_0304_0506_0708,
        entries: Vec::new(),
    })
}

fn sample_call() -> Call {
    let id = RequestId { client: 0x1122_3344, incarnation: 0, tid: 6 };
    Call::Change {
        once: Some(Once { id, born: 5 }),
        request: Request::Pool(PoolCommand::NextSnap { name: "vms".into() }),
    }
}

cairn_wire::kinds! {
    range 64..=95;
    64 MonPeer, version 2, oldest 2, "mon-peer", sample MonPeer(sample_peer_message());
    65 MonCall, version 2, oldest 2, "mon-call", sample MonCall { tag: CallTag(9), call: sample_call() };
    66 MonAnswer, version 2, oldest 2, "mon-answer", sample MonAnswer {
        tag: CallTag(9),
        answer: Answer::Done { reply: Reply::Session { client: 12 }, version: 34 },
    };
    67 MonNews, version 1, oldest 1, "mon-news",
        sample MonNews(DaemonNews::OsdBeacon { osd: OsdId(2), up_from: Epoch(11) });
    68 MonSubscribe, version 1, oldest 1, "mon-subscribe", sample MonSubscribe {
        osd_map: Some((Epoch(10), Need::EveryEpoch)),
        mon_map: Some(Epoch(1)),
        mgr_map: None,
        config: Some(3),
    };
    69 MonPublication, version 2, oldest 2, "mon-publication", sample MonPublication(Publication::Config {
        version: 3,
        values: [("osd_heartbeat_grace_ms".to_owned(), "2500".to_owned())].into(),
    });
    70 MonLarge, version 1, oldest 1, "mon-large",
        sample MonLarge { kind: 64, version: 1, oldest_reader: 1 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_paxos::{Accepted, Command, Proposal, ProposalId};

    fn promise(bytes_each: usize) -> MonPeer {
        let ballot = Ballot { round: 1, leader: MonId(0) };
        let accepted = (1..=16).map(|slot| {
            let payload = cairn_paxos::Payload::from(vec![slot as u8; bytes_each]);
            let id = ProposalId { session: 1, seq: slot };
            let request = cairn_paxos::Request::App(payload);
            let command = Command::Proposal(Proposal { id, born: Slot(0), request });
            Accepted { slot: Slot(slot), ballot, command }
        });
        let (decided, accepted) = (Slot(0), accepted.collect());
        MonPeer(PeerMessage::Log(Message::Promise { ballot, decided, accepted }))
    }

    #[test]
    fn a_promise_of_the_largest_entries_travels() {
        for (bytes_each, kind) in
            [(10, MonPeer::KIND), (cairn_paxos::limits::PAYLOAD_BYTES_MAX, MonLarge::KIND)]
        {
            let sent = promise(bytes_each);
            let frame = to_frame(&sent).expect("it fits");
            assert_eq!(frame.kind(), kind);
            assert_eq!(kind_of(&frame).expect("a kind"), MonPeer::KIND);
            assert_eq!(from_frame::<MonPeer>(&frame).expect("it reads"), sent);
            assert!(from_frame::<MonCall>(&frame).is_err());
        }
    }

    #[test]
    fn a_large_message_that_lies_is_refused() {
        let fields = to_frame(&promise(1)).expect("it fits").message_bytes().slice(6..);
        let sound = MonLarge { kind: 64, version: 2, oldest_reader: 2 };
        let read = |large: MonLarge, fields: bytes::Bytes| {
            let frame = Frame::new(&large, Payload::of(0, fields)).expect("a frame");
            from_frame::<MonPeer>(&frame)
        };
        assert_eq!(read(sound, fields.clone()).expect("sound"), promise(1));
        for len in 0..fields.len() {
            assert!(read(sound, fields.slice(..len)).is_err(), "{len} bytes");
        }
        let longer = [&fields[..], &[0]].concat();
        assert!(matches!(read(sound, longer.clone().into()), Err(ReadError::Payload)));
        // A newer form may have more behind it, unless it says that it cannot be read.
        assert!(read(MonLarge { version: 3, ..sound }, longer.clone().into()).is_ok());
        assert!(read(MonLarge { version: 3, oldest_reader: 3, ..sound }, longer.into()).is_err());
    }
}
