//! What travels between monitors and everybody: the kinds 64 to 95 of `docs/format/wire.md`, all on the control
//! lane.

use crate::monitor::{Answer, Call, CallTag, DaemonNews, PeerMessage, Publication};
use crate::service::subscription::Need;
use crate::service::{Once, PoolCommand, Reply, Request};
use cairn_paxos::{Ballot, Message, Moment, MonId, Slot};
use cairn_types::{Epoch, OsdId};
use cairn_wire::RequestId;
use serde::{Deserialize, Serialize};

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
    64 MonPeer, version 1, oldest 1, "mon-peer", sample MonPeer(sample_peer_message());
    65 MonCall, version 1, oldest 1, "mon-call", sample MonCall { tag: CallTag(9), call: sample_call() };
    66 MonAnswer, version 1, oldest 1, "mon-answer", sample MonAnswer {
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
    69 MonPublication, version 1, oldest 1, "mon-publication", sample MonPublication(Publication::Config {
        version: 3,
        values: [("osd_heartbeat_grace_ms".to_owned(), "2500".to_owned())].into(),
    });
}
