//! What images and commands need of a pool. [`crate::Pool`] is the cluster's; tests and simulations have their own.

use bytes::Bytes;
use cairn_mon::session::CallError;
use cairn_types::{EntityAddr, Epoch, ObjectId, PoolId};
use cairn_wire::op::{NotifyReply, Op, OpFlags, OpKind, OpOutput, OpResult};
use cairn_wire::{ErrorCode, Payload};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long a process stays in the blocklist unless said otherwise: Ceph's default, far above any lease or
/// time-out after which the process would act on old knowledge.
pub const BLOCKLIST_DURATION: Duration = Duration::from_secs(3600);

/// Operations on the objects of one pool, in the default namespace.
///
/// Futures may be dropped: the operation may have happened or not. Vectors for one object that are under way at the same
/// time are sent in the order in which `operate` was first polled, and sent again in that order after lost connections
/// and changes of the map. Only an OSD that is too busy to take one may take a later one first: where order
/// matters, await the one before.
pub trait ObjectIo: Clone + Send + Sync + 'static {
    /// Carries out a vector on one object, atomically. `data` has one segment for each operation that carries bytes,
    /// in order ([`cairn_wire::op::OpKind::segment_len`]).
    ///
    /// Waits as long as the cluster cannot serve it (a disk that hangs does not fail either), unless the pool
    /// handle has a time-out. An answer whose code is not OK is [`OpError::Code`].
    fn operate(
        &self,
        object: &str,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
    ) -> impl Future<Output = Result<OpAnswer, OpError>> + Send;

    /// Objects of the pool in no particular order, at most about `max`, after a place that an earlier call gave.
    fn list(
        &self,
        after: Option<ObjectId>,
        max: u32,
    ) -> impl Future<Output = Result<Listing, OpError>> + Send;

    /// Watches an object, which must exist, until [`ObjectIo::unwatch`] or the end of this client. The watch is
    /// kept up over lost connections and changes of the map.
    fn watch(
        &self,
        object: &str,
        handler: Arc<dyn WatchHandler>,
    ) -> impl Future<Output = Result<Watch, OpError>> + Send;

    /// Ends a watch; its handler hears nothing after this returns.
    fn unwatch(&self, watch: &Watch) -> impl Future<Output = Result<(), OpError>> + Send;

    /// Tells everyone who watches `object`, and waits until all have acknowledged or `timeout` is over.
    fn notify(
        &self,
        object: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Notified, OpError>> + Send {
        async move {
            let timeout_ms = timeout.as_millis().try_into().unwrap_or(u32::MAX);
            let ops = vec![OpKind::Notify { payload, timeout_ms }.into()];
            let answer = self.operate(object, ops, Payload::none(), OpFlags::default()).await?;
            match answer.results.into_iter().next().map(|result| result.output) {
                Some(OpOutput::Notified { acknowledged, missed }) => {
                    Ok(Notified { acknowledged: acknowledged.into_vec(), missed: missed.into_vec() })
                }
                _ => Err(OpError::BadAnswer { object: object.to_owned() }),
            }
        }
    }

    /// Puts a process into the cluster's blocklist for `duration`. When this returns, this client uses a map that has
    /// the entry, and no operation it sends from then on is served by an OSD that does not know of it.
    fn blocklist(
        &self,
        addr: EntityAddr,
        duration: Duration,
    ) -> impl Future<Output = Result<Epoch, OpError>> + Send;

    /// Waits, by the clock of whoever carries the operations out.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Lets `task` run beside its caller, until it ends or the process does. May be called by a [`WatchHandler`].
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// A number that this process has not had from here before.
    fn next_number(&self) -> u64;

    /// This process's session number: what watchers and lock owners are told apart by (RADOS's global id).
    fn client_id(&self) -> u64;

    /// This process, as the blocklist names it.
    fn addr(&self) -> EntityAddr;

    /// The pool.
    fn pool_id(&self) -> PoolId;

    /// The pool's name when the handle was made.
    fn pool_name(&self) -> &str;
}

/// A vector that was carried out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpAnswer {
    /// The object's version for users after it; 0 if the object never was.
    pub user_version: u64,
    /// One for each operation.
    pub results: Vec<OpResult>,
    /// Bytes that were read: the segments that `results` tell of, in order.
    pub data: Payload,
}

/// Some objects of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// The objects. May be none although there is a `next`.
    pub objects: Vec<ObjectId>,
    /// Go on after this; `None`: that was all.
    pub next: Option<ObjectId>,
}

/// What became of a notification.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notified {
    /// Who answered what.
    pub acknowledged: Vec<NotifyReply>,
    /// Who did not in time: (session, cookie).
    pub missed: Vec<(u64, u64)>,
}

/// Names a watch of this client.
#[must_use = "a watch lasts until it is ended"]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// The object.
    pub object: String,
    /// The client's number of it, never used twice: what lockers put in their cookies.
    pub cookie: u64,
}

/// Hears what happens at a watched object. Called on the client's own task: work of any length belongs on another.
pub trait WatchHandler: Send + Sync + 'static {
    /// Somebody notifies. Acknowledged when `ack` is used or dropped, which may be later and elsewhere. The same
    /// notification is not handed in twice while the object's primary stays the same.
    fn notified(&self, notice: Notice, ack: Ack);

    /// The watch was lost for a while and holds again: notifications may have been missed, so look at the object.
    fn renewed(&self) {}

    /// The watch is over although nobody ended it: the object is gone, or this client is in the blocklist.
    fn ended(&self, why: OpError);
}

/// A notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Of the watch.
    pub cookie: u64,
    /// Session of who notifies.
    pub notifier: u64,
    /// What it says.
    pub payload: Bytes,
}

/// Acknowledges one notification; with nothing to say when dropped.
pub struct Ack(Option<Box<dyn FnOnce(Bytes) + Send>>);

impl Ack {
    /// `send` carries the answer back. For implementations of [`ObjectIo`].
    pub fn new(send: impl FnOnce(Bytes) + Send + 'static) -> Self {
        Ack(Some(Box::new(send)))
    }

    /// Answers; at most [`cairn_wire::op::CALL_LEN_MAX`] bytes.
    pub fn reply(mut self, reply: Bytes) {
        if let Some(send) = self.0.take() {
            send(reply);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(Bytes::new());
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// Why an operation did not succeed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpError {
    /// The vector ended with an error; nothing was changed.
    #[error("object '{object}': {code}")]
    Code {
        /// The object.
        object: String,
        /// Of the operation that ended the vector.
        code: ErrorCode,
        /// One for each operation carried out, the failing one last.
        results: Vec<OpResult>,
    },
    /// The vector breaks a bound of the wire, and was not sent.
    #[error("object '{object}': {why}")]
    Invalid {
        /// The object.
        object: String,
        /// Which bound.
        why: InvalidOp,
    },
    /// OSDs refuse this process.
    #[error(
        "this client ({addr}) is in the blocklist, most likely because another one took over its work; \
         close what it has open and start it anew"
    )]
    Blocklisted {
        /// As the blocklist names it.
        addr: EntityAddr,
    },
    /// The pool was removed.
    #[error("pool {pool} does not exist any more")]
    NoPool {
        /// The pool.
        pool: PoolId,
    },
    /// Not answered within the time-out of the pool handle. It may still happen.
    #[error("object '{object}': no answer within {after_ms} ms; 'cairn health' tells what is missing")]
    TimedOut {
        /// The object.
        object: String,
        /// The time-out, in milliseconds.
        after_ms: u64,
    },
    /// The answer does not fit the question: a defect of the OSD's or this program.
    #[error("object '{object}': the OSD's answer does not fit what was asked")]
    BadAnswer {
        /// The object.
        object: String,
    },
    /// The monitors did not do what was asked of them.
    #[error(transparent)]
    Monitors(#[from] CallError),
    /// The client was shut down.
    #[error("the connection to the cluster was closed by this program")]
    Closed,
}

/// Which bound of the wire a vector breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidOp {
    /// No operation, or more than [`cairn_wire::op::OPS_MAX`].
    #[error("a vector of {0} operations; from 1 to {max} are possible", max = cairn_wire::op::OPS_MAX)]
    OpCount(usize),
    /// An empty name, or one longer than [`cairn_wire::op::OBJECT_NAME_LEN_MAX`].
    #[error("a name of {0} bytes; from 1 to {max} are possible", max = cairn_wire::op::OBJECT_NAME_LEN_MAX)]
    NameLen(usize),
    /// The segments are not those the operations speak of.
    #[error("the data does not match the operations")]
    Segments,
    /// More than a frame takes.
    #[error("{0} bytes of data; a vector carries at most {max}", max = cairn_wire::PAYLOAD_LEN_MAX)]
    DataLen(usize),
    /// More than a message takes.
    #[error("the operations do not fit into one message")]
    MessageLen,
}

impl OpError {
    /// The code an OSD gave, if it is that.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            OpError::Code { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the OSD said that there is no such object or entry.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(ErrorCode::NOENT)
    }
}
