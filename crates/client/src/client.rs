//! A client of a cluster, and its handle on a pool.

use crate::core::check;
use crate::core::limits::MAP_BATCHES_MAX;
use crate::driver::{self, Handle};
use crate::error::ClientError;
use crate::io::{Listing, ObjectIo, OpAnswer, OpError, Watch, WatchHandler};
use cairn_crush::placement::object_hash;
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::subscription::Need;
use cairn_mon::service::{ClusterCommand, Request};
use cairn_mon::session::{CallError, MonClient, Monitors, Update, Wants};
use cairn_net::{Config, Endpoint, Identity};
use cairn_types::{EntityAddr, Epoch, ObjectId, OsdMap, PoolId, SnapId};
use cairn_wire::op::{OMAP_ENTRIES_MAX, Op, OpFlags, OpKind, OpOutput};
use cairn_wire::{ErrorCode, Payload};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Most objects one page of a listing asks an OSD for.
const LIST_PAGE_MAX: u32 = OMAP_ENTRIES_MAX;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Who it is.
    pub identity: Identity,
    /// Where monitors are; one that answers is enough.
    pub monitors: Monitors,
}

/// A client of a cluster; cheap to clone. Must be used inside the tokio runtime it was made in. It ends, and what
/// waits fails, when the last clone and the last [`Pool`] of it are dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle,
    mon: MonClient,
    session: u64,
    addr: EntityAddr,
    last_number: AtomicU64,
}

impl Shared {
    fn new(handle: Handle, mon: MonClient, session: u64, addr: EntityAddr) -> Shared {
        Shared { handle, mon, session, addr, last_number: AtomicU64::new(0) }
    }
}

impl Client {
    /// Finds the cluster and gets its map.
    pub async fn connect(options: &ClientOptions) -> Result<Client, ClientError> {
        let &monitor = options.monitors.addrs().first().ok_or(ClientError::NoMonitors)?;
        let mut config = Config::new(options.identity.clone(), None);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        config.incarnation = started.as_micros() as u64;
        let endpoint = Arc::new(Endpoint::bind(config.clone()).await?);
        let (updates, mut from_monitors) = mpsc::channel(MAP_BATCHES_MAX);
        let mon = MonClient::start(endpoint, options.monitors.clone(), updates);
        let session = mon.session().await?;
        let addr = own_addr(options.monitors.addrs(), session)
            .map_err(|source| ClientError::NoRoute { monitor, source })?;

        // To OSDs it shows the number that is its own alone, so that the blocklist can name it.
        config.incarnation = session;
        let endpoint = Arc::new(Endpoint::bind(config).await?);
        let (maps, map_batches) = mpsc::channel(MAP_BATCHES_MAX);
        let asking = mon.clone();
        let ask_maps = Box::new(move |have: Epoch| {
            asking.subscribe(Wants { osd_map: Some((have, Need::Newest)), ..Wants::default() });
        });
        ask_maps(Epoch(0));
        let handle = driver::start(endpoint, session, addr, map_batches, ask_maps);
        tokio::spawn(async move {
            while let Some(update) = from_monitors.recv().await {
                if let Update::OsdMaps(batch) = update
                    && maps.send(batch).await.is_err()
                {
                    break;
                }
            }
        });
        let client = Client { shared: Arc::new(Shared::new(handle, mon, session, addr)) };
        client.refresh().await?;
        Ok(client)
    }

    /// A client over other sources of maps: for tests.
    #[cfg(test)]
    pub(crate) fn over(handle: Handle, mon: MonClient, session: u64, addr: EntityAddr) -> Client {
        Client { shared: Arc::new(Shared::new(handle, mon, session, addr)) }
    }

    /// A pool by its name.
    pub async fn pool(&self, name: &str) -> Result<Pool, ClientError> {
        let find = |map: &OsdMap| map.pool_by_name(name).map(|(id, _)| self.pool_of(id, name));
        if let Some(pool) = self.map().as_deref().and_then(find) {
            return Ok(pool);
        }
        // It may have been made a moment ago.
        let map = self.refresh().await?;
        find(&map).ok_or_else(|| {
            let pools = map.pools.values().map(|pool| pool.name.clone()).collect();
            ClientError::NoPool { name: name.to_owned(), pools }
        })
    }

    fn pool_of(&self, id: PoolId, name: &str) -> Pool {
        Pool { client: self.clone(), id, name: name.into(), timeout: None }
    }

    /// The newest map that came; `None` only before the first one did.
    pub fn map(&self) -> Option<Arc<OsdMap>> {
        self.shared.handle.map()
    }

    /// Asks the leading monitor for the newest map, and returns when operations go by it or a newer one.
    pub async fn refresh(&self) -> Result<Arc<OsdMap>, ClientError> {
        let Reading::OsdMap(map) = self.shared.mon.read(Query::OsdMap(None)).await? else {
            return Err(ClientError::BadAnswer);
        };
        let epoch = map.epoch;
        self.shared.handle.learn(map);
        Ok(self.wait_for(epoch).await?)
    }

    async fn wait_for(&self, epoch: Epoch) -> Result<Arc<OsdMap>, OpError> {
        let mut maps = self.shared.handle.maps();
        let there = |map: &Option<Arc<OsdMap>>| map.as_ref().is_some_and(|map| map.epoch >= epoch);
        let map = maps.wait_for(there).await.map_err(|_| OpError::Closed)?.clone();
        map.ok_or(OpError::Closed)
    }

    /// The session with the monitors.
    pub fn mon(&self) -> &MonClient {
        &self.shared.mon
    }

    /// This process's session number: unique in the cluster's life.
    pub fn session(&self) -> u64 {
        self.shared.session
    }

    /// This process, as the blocklist names it: its address towards the monitors, port 0, and the session number.
    pub fn addr(&self) -> EntityAddr {
        self.shared.addr
    }
}

/// The address by which the system would speak to the first monitor it has a way to. Nothing is sent.
fn own_addr(monitors: &[SocketAddr], session: u64) -> std::io::Result<EntityAddr> {
    let mut last = None;
    for monitor in monitors {
        let any: SocketAddr = if monitor.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let found = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(monitor)?;
            socket.local_addr()
        });
        match found {
            Ok(addr) => {
                return Ok(EntityAddr { socket: SocketAddr::new(addr.ip(), 0), nonce: session });
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
}

/// The objects of one pool.
#[derive(Clone)]
pub struct Pool {
    client: Client,
    id: PoolId,
    name: Arc<str>,
    timeout: Option<Duration>,
}

impl Pool {
    /// The same pool, with operations that are given up after a while ([`OpError::TimedOut`]): for commands. A disk
    /// waits.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Pool {
        Pool { timeout: Some(timeout), ..self.clone() }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An object of the default namespace.
    fn object(&self, name: &str) -> ObjectId {
        ObjectId {
            pool: self.id,
            hash: object_hash("", "", name),
            namespace: String::new(),
            key: String::new(),
            name: name.to_owned(),
            snap: SnapId::HEAD,
        }
    }

    /// Stands for a group where no object is meant: a hash that is below the number of groups is the group's own.
    fn group(&self, seed: u32) -> ObjectId {
        ObjectId { hash: seed, ..self.object("") }
    }

    fn handle(&self) -> &Handle {
        &self.client.shared.handle
    }

    fn pg_num(&self) -> Result<u32, OpError> {
        let map = self.client.map().ok_or(OpError::Closed)?;
        map.pools.get(&self.id).map(|pool| pool.pg_num).ok_or(OpError::NoPool { pool: self.id })
    }

    /// One page of one group.
    async fn list_group(&self, seed: u32, after: Option<ObjectId>, max: u32) -> Result<Listing, OpError> {
        let ops = vec![OpKind::ListObjects { after: after.map(Box::new), max }.into()];
        let (object, data) = (self.group(seed), Payload::default());
        let answer = self.handle().operate(object, ops, data, OpFlags::default(), self.timeout).await?;
        match answer.results.into_iter().next().map(|result| result.output) {
            Some(OpOutput::Listed { objects, next }) => {
                Ok(Listing { objects: objects.into_vec(), next: next.map(|next| *next) })
            }
            _ => Err(OpError::BadAnswer { object: String::new() }),
        }
    }
}

impl ObjectIo for Pool {
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
        self.handle().operate(self.object(object), ops, data, flags, self.timeout).await
    }

    async fn list(&self, after: Option<ObjectId>, max: u32) -> Result<Listing, OpError> {
        let (pg_num, max) = (self.pg_num()?, max.max(1));
        let first = after.as_ref().map_or(0, |after| seed_of(after.hash, pg_num));
        let mut after = after;
        let mut objects: Vec<ObjectId> = Vec::new();
        for seed in first..pg_num {
            loop {
                let room = (max as usize).saturating_sub(objects.len()).clamp(1, LIST_PAGE_MAX as usize);
                let page = self.list_group(seed, after.take(), room as u32).await?;
                objects.extend(page.objects);
                if objects.len() >= max as usize {
                    // Of a group that is listed to its end the last object leads on to the next group.
                    let last_group = seed + 1 == pg_num && page.next.is_none();
                    let next = page.next.or_else(|| objects.last().cloned().filter(|_| !last_group));
                    return Ok(Listing { objects, next });
                }
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(Listing { objects, next: None })
    }

    async fn watch(&self, object: &str, handler: Arc<dyn WatchHandler>) -> Result<Watch, OpError> {
        let cookie = self.handle().watch(self.object(object), handler).await?;
        Ok(Watch { object: object.to_owned(), cookie })
    }

    async fn unwatch(&self, watch: &Watch) -> Result<(), OpError> {
        self.handle().unwatch(watch.cookie).await
    }

    async fn blocklist(&self, addr: EntityAddr, duration: Duration) -> Result<Epoch, OpError> {
        let for_ms = duration.as_millis().try_into().unwrap_or(u64::MAX);
        let request = Request::Cluster(ClusterCommand::Block { addr, for_ms });
        self.client.shared.mon.change(request).await?;
        match self.client.refresh().await {
            Ok(map) => Ok(map.epoch),
            Err(ClientError::Op(error)) => Err(error),
            Err(ClientError::Monitors(error)) => Err(OpError::Monitors(error)),
            Err(error) => {
                let why = error.to_string();
                Err(OpError::Monitors(CallError::Refused { code: ErrorCode::IO, why }))
            }
        }
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }

    fn next_number(&self) -> u64 {
        self.client.shared.last_number.fetch_add(1, Ordering::Relaxed)
    }

    fn client_id(&self) -> u64 {
        self.client.session()
    }

    fn addr(&self) -> EntityAddr {
        self.client.addr()
    }

    fn pool_id(&self) -> PoolId {
        self.id
    }

    fn pool_name(&self) -> &str {
        &self.name
    }
}

fn seed_of(hash: u32, pg_num: u32) -> u32 {
    cairn_crush::placement::stable_mod(hash, pg_num.max(1))
}
