//! What goes into a monitor and what comes out.

use super::{Query, Reading};
use crate::service::subscription::{MapBatch, Need};
use crate::service::{FailureReport, Once, Refusal, Reply, Request};
use cairn_paxos::{Message, Moment, MonId, Payload, Poison, Record, Slot};
use cairn_types::{Digest, EntityAddr, EntityName, Epoch, MgrMap, MonMap, OsdId, Timestamp};
use cairn_wire::ErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// A monitor's clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Wall clock, for stamps that people read.
    pub wall: Timestamp,
    /// Steady clock, which also runs while the machine is suspended, for all waiting.
    pub steady: Moment,
}

impl Now {
    pub(super) fn steady_ms(self) -> u64 {
        self.steady.0 / 1_000
    }
}

/// The driver's name of a call, unique within one start of a monitor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CallTag(pub u64);

/// The driver's name of a subscriber: a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subscriber(pub u64);

/// Something somebody asks of the monitors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Call {
    /// A change.
    Change {
        /// Makes it count once; needed unless [`Request::is_repeatable`].
        once: Option<Once>,
        /// The change.
        request: Request,
    },
    /// A question.
    Read(Query),
}

/// What a call gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is so, for good.
    Done {
        /// What it got.
        reply: Reply,
        /// The version of the state that has it.
        version: u64,
    },
    /// It was refused; nothing was changed.
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why and what to do, for people.
        why: String,
    },
    /// What was asked for.
    Read(Box<Reading>),
    /// No leader took it up in time. A change may still happen: ask again, here or elsewhere, with the same
    /// [`Once`].
    TimedOut,
    /// Too much waits here: ask again in a moment, or another monitor.
    Busy,
}

impl Answer {
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Answer::Refused { code: refusal.code(), why: refusal.to_string() }
    }
}

/// What daemons tell without waiting for an answer. The driver has checked who speaks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum DaemonNews {
    /// An OSD on another one.
    Failure(FailureReport),
    /// An OSD runs.
    OsdBeacon {
        /// Which.
        osd: OsdId,
        /// Which run of it.
        up_from: Epoch,
    },
    /// A mgr runs.
    MgrBeacon {
        /// Which.
        name: String,
        /// Where, and which run of it.
        addr: EntityAddr,
    },
    /// The active mgr's statistics.
    Digest {
        /// Which mgr.
        mgr: String,
        /// The statistics.
        digest: Box<Digest>,
    },
}

/// What monitors say to each other. None of it needs to arrive, or in order, or once.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Of the replicated log.
    Log(Message),
    /// A follower hands a call to the leader.
    Call {
        /// The follower's start.
        run: u64,
        /// Its name of the call.
        tag: CallTag,
        /// The call.
        call: Call,
    },
    /// What became of it. What the log decides is not told: the follower sees it there.
    Answer {
        /// From the call.
        run: u64,
        /// From the call.
        tag: CallTag,
        /// The answer.
        answer: Answer,
    },
    /// A daemon's news, passed on.
    News(DaemonNews),
    /// Where the monitors are.
    MonMap(Box<MonMap>),
}

/// What a subscriber wants and has. Each `None` is not wanted; each 0 is wanted and not there yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// Who it is: settings differ.
    pub who: EntityName,
    /// OSD maps after this epoch.
    pub osd_map: Option<(Epoch, Need)>,
    /// The monitor map, if newer.
    pub mon_map: Option<Epoch>,
    /// The mgr map, if newer.
    pub mgr_map: Option<Epoch>,
    /// Its settings, if of another version of all settings.
    pub config: Option<u64>,
}

/// What a subscriber is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Publication {
    /// OSD maps, in order and without a gap.
    OsdMaps(MapBatch),
    /// The monitor map.
    MonMap(MonMap),
    /// The mgr map.
    MgrMap(MgrMap),
    /// What is set for the subscriber, by option.
    Config {
        /// Version of all settings.
        version: u64,
        /// What is set.
        values: BTreeMap<String, String>,
    },
    /// There are too many subscribers: try another monitor.
    Refused,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The moment of [`Effects::timer`] has come, or may have.
    Tick,
    /// A message over the authenticated connection of another monitor.
    Peer {
        /// Which.
        from: MonId,
        /// What.
        message: PeerMessage,
    },
    /// The records and the checkpoint of this batch, and so of all before it, are durable.
    Persisted {
        /// [`Effects::batch`].
        batch: u64,
    },
    /// Writing or reading failed. The monitor never answers again.
    StorageFailed,
    /// Somebody asks. The answer comes in [`Effects::answers`].
    Call {
        /// The driver's name of it.
        tag: CallTag,
        /// What.
        call: Call,
    },
    /// A daemon tells.
    News(DaemonNews),
    /// Somebody wants maps, or has received some: say it again with what is there now.
    Subscribe {
        /// Who.
        subscriber: Subscriber,
        /// What.
        wants: Subscription,
    },
    /// A subscriber is gone.
    Unsubscribe {
        /// Who.
        subscriber: Subscriber,
    },
    /// A monitor of this cluster that is not known here says where the monitors are.
    MonMap(MonMap),
    /// The process is about to stop.
    Resign,
}

/// A state to make durable, which replaces the one before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The last slot it includes.
    pub slot: Slot,
    /// The state, as [`super::encode_state`] makes it.
    pub state: Payload,
}

/// Why a monitor stopped answering for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// Its log.
    #[error(transparent)]
    Log(#[from] Poison),
    /// An entry or state it cannot read.
    #[error(
        "the monitor cannot read what the others agreed on at {slot}; is it older than they are? Update it"
    )]
    Unreadable {
        /// Where.
        slot: Slot,
    },
}

/// News for the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// It leads now.
    Leads,
    /// It does not lead (any more).
    Follows {
        /// Whom it follows, if anyone.
        leader: Option<MonId>,
    },
    /// It was removed and nobody needs it any more: stop the process.
    Retired,
    /// It will never answer again.
    Stopped(Fault),
}

/// Everything a monitor wants done after one event.
///
/// The order that a driver keeps: send `early`; make `persist` and `checkpoint` durable as one atomic batch,
/// batches in order; hand in [`Event::Persisted`]; send `after`. `answers` and `publish` need not wait: what
/// they tell is decided by a majority. While `must_flush` is false the batch may wait for a later one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Effects {
    /// Number of this batch, ascending.
    pub batch: u64,
    /// Messages that need not wait.
    pub early: Vec<(MonId, PeerMessage)>,
    /// Records of the log, in order.
    pub persist: Vec<Record>,
    /// A state that replaces the one on disk.
    pub checkpoint: Option<Checkpoint>,
    /// Messages that wait for the flush.
    pub after: Vec<(MonId, PeerMessage)>,
    /// Whether something waits for the flush.
    pub must_flush: bool,
    /// Answers to calls made here.
    pub answers: Vec<(CallTag, Answer)>,
    /// Maps for subscribers.
    pub publish: Vec<(Subscriber, Publication)>,
    /// News for the driver.
    pub notices: Vec<Notice>,
    /// When to hand in [`Event::Tick`]; replaces the earlier timer.
    pub timer: Option<Moment>,
}
