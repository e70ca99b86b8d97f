//! The pool as the image's code sees it: what it asks for lies on a desk until the world takes it.

use super::tasks::{Slot, Work, lock};
use bytes::Bytes;
use cairn_client::core::{NoticeId, check};
use cairn_client::{Listing, ObjectIo, OpAnswer, OpError, Watch, WatchHandler};
use cairn_mon::session::CallError;
use cairn_types::{EntityAddr, Epoch, ObjectId, PoolId};
use cairn_wire::op::{Op, OpFlags};
use cairn_wire::{ErrorCode, Payload};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The answer to a vector.
pub type Answer = Slot<Result<OpAnswer, OpError>>;

/// What the image's code asks of the world.
pub enum Ask {
    /// To carry out a vector.
    Operate {
        object: String,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
        to: Answer,
    },
    Watch {
        cookie: u64,
        object: String,
        handler: Arc<dyn WatchHandler>,
        to: Slot<Result<(), OpError>>,
    },
    Unwatch {
        cookie: u64,
        to: Answer,
    },
    Acknowledge {
        notice: NoticeId,
        reply: Bytes,
    },
    Block {
        addr: EntityAddr,
        for_ms: u64,
        to: Slot<Result<Epoch, OpError>>,
    },
    Sleep {
        for_us: u64,
        to: Slot<()>,
    },
    Spawn(Work),
}

/// What a process and its image code share.
pub struct Desk {
    asks: Mutex<VecDeque<Ask>>,
    last_cookie: AtomicU64,
    last_number: AtomicU64,
    client: u64,
    addr: EntityAddr,
    pool: PoolId,
}

impl Desk {
    pub fn take(&self) -> Option<Ask> {
        lock(&self.asks).pop_front()
    }

    pub fn put(&self, ask: Ask) {
        lock(&self.asks).push_back(ask);
    }
}

/// The objects of the pool, for one life of a client.
#[derive(Clone)]
pub struct SimIo(pub Arc<Desk>);

impl SimIo {
    pub fn new(client: u64, addr: EntityAddr, pool: PoolId) -> SimIo {
        SimIo(Arc::new(Desk {
            asks: Mutex::default(),
            last_cookie: AtomicU64::new(0),
            last_number: AtomicU64::new(0),
            client,
            addr,
            pool,
        }))
    }
}

impl ObjectIo for SimIo {
    async fn operate(
        &self,
        object: &str,
        ops: Vec<Op>,
        data: Payload,
        flags: OpFlags,
    ) -> Result<OpAnswer, OpError> {
        if let Err(why) = check(Some(object), &ops, &data) {
            return Err(OpError::Invalid { object: object.to_owned(), why });
        }
        let to = Answer::default();
        self.0.put(Ask::Operate { object: object.to_owned(), ops, data, flags, to: to.clone() });
        to.await
    }

    /// Images list nothing.
    async fn list(&self, _after: Option<ObjectId>, _max: u32) -> Result<Listing, OpError> {
        let why = "clients of the simulation do not list objects".to_owned();
        Err(OpError::Monitors(CallError::Refused { code: ErrorCode::INVAL, why }))
    }

    async fn watch(&self, object: &str, handler: Arc<dyn WatchHandler>) -> Result<Watch, OpError> {
        let cookie = self.0.last_cookie.fetch_add(1, Ordering::Relaxed) + 1;
        let to = Slot::default();
        self.0.put(Ask::Watch { cookie, object: object.to_owned(), handler, to: to.clone() });
        to.await.map(|()| Watch { object: object.to_owned(), cookie })
    }

    async fn unwatch(&self, watch: &Watch) -> Result<(), OpError> {
        let to = Answer::default();
        self.0.put(Ask::Unwatch { cookie: watch.cookie, to: to.clone() });
        to.await.map(drop)
    }

    async fn blocklist(&self, addr: EntityAddr, duration: Duration) -> Result<Epoch, OpError> {
        let to = Slot::default();
        self.0.put(Ask::Block { addr, for_ms: duration.as_millis() as u64, to: to.clone() });
        to.await
    }

    async fn sleep(&self, duration: Duration) {
        let to = Slot::default();
        self.0.put(Ask::Sleep { for_us: duration.as_micros() as u64, to: to.clone() });
        to.await
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.put(Ask::Spawn(Box::pin(task)));
    }

    fn next_number(&self) -> u64 {
        self.0.last_number.fetch_add(1, Ordering::Relaxed)
    }

    fn client_id(&self) -> u64 {
        self.0.client
    }

    fn addr(&self) -> EntityAddr {
        self.0.addr
    }

    fn pool_id(&self) -> PoolId {
        self.0.pool
    }

    fn pool_name(&self) -> &str {
        "vms"
    }
}
