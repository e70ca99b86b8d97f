//! OSDs that keep objects in memory, over real connections on loopback.

use crate::client::{Client, Pool};
use crate::driver;
use crate::fixture::{self, CLIENT, client_addr};
use bytes::{Bytes, BytesMut};
use cairn_mon::service::subscription::MapBatch;
use cairn_mon::session::MonClient;
use cairn_net::{CloseReason, ClusterCa, Config, Connection, Endpoint, Handler, Identity, Receive, Validity};
use cairn_types::{EntityAddr, Fsid, ObjectId, OsdMap, PgId, Timestamp};
use cairn_wire::op::{
    NotifyAck, NotifyReply, OpKind, OpOutput, OpReply, OpRequest, OpResult, WatchAction, WatchEvent,
    WatchNews,
};
use cairn_wire::{ErrorCode, Frame, Lane, Message, Payload, Segment};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Long enough for any honest wait on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await.expect("the test hangs") });
}

#[derive(Clone, Default)]
struct Object {
    data: Vec<u8>,
    version: u64,
    mtime: Timestamp,
}

/// A notification that is not acknowledged by all.
struct Notifying {
    from: Connection,
    request: OpRequest,
    left: usize,
    replies: Vec<NotifyReply>,
}

/// What all OSDs of a cluster keep together: placement is not their business here.
#[derive(Default)]
struct Store {
    objects: BTreeMap<(PgId, u32, String), (ObjectId, Object)>,
    watchers: Vec<(ObjectId, u64, Connection)>,
    notifying: BTreeMap<u64, Notifying>,
    last_notify: u64,
}

#[derive(Default)]
pub(super) struct Osds {
    store: Mutex<Store>,
    /// Frames that came.
    pub(super) frames: AtomicU64,
    /// After so many frames each, connections are cut; 0: never.
    pub(super) cut_after: AtomicU64,
}

impl Handler for Osds {
    fn on_frame(&self, connection: &Connection, _lane: Lane, frame: Frame) {
        let count = self.frames.fetch_add(1, Relaxed) + 1;
        let cut_after = self.cut_after.load(Relaxed);
        if cut_after > 0 && count.is_multiple_of(cut_after) {
            return connection.abort();
        }
        if frame.kind() == NotifyAck::KIND {
            return self.acknowledged(frame.message().unwrap());
        }
        let request: OpRequest = frame.message().unwrap();
        if let OpKind::Notify { payload, .. } = &request.ops[0].kind {
            return self.notify(connection, &request, payload.clone());
        }
        let (code, user_version, results, data) = self.carry_out(connection, &request, frame.payload());
        reply(connection, &request, code, user_version, results, data);
    }

    fn on_closed(&self, connection: &Connection, _reason: &CloseReason) {
        self.store.lock().watchers.retain(|(_, _, other)| !other.same(connection));
    }
}

fn reply(
    connection: &Connection,
    request: &OpRequest,
    code: ErrorCode,
    user_version: u64,
    results: Vec<OpResult>,
    data: Payload,
) {
    let reply = OpReply {
        request: request.request,
        epoch: request.epoch,
        code,
        user_version,
        results: results.into(),
    };
    // A connection that is over takes nothing.
    let _ = connection.try_send(Lane::Client, Frame::new(&reply, data).unwrap());
}

impl Osds {
    fn carry_out(
        &self,
        connection: &Connection,
        request: &OpRequest,
        payload: &Payload,
    ) -> (ErrorCode, u64, Vec<OpResult>, Payload) {
        let mut store = self.store.lock();
        let key = (request.pg, request.object.hash, request.object.name.clone());
        let mut object = store.objects.get(&key).map(|(_, object)| object.clone());
        let mut segments = payload.segments().iter().map(Segment::data);
        let mut results = Vec::new();
        let mut read = Vec::new();
        let mut changed = false;
        for op in request.ops.iter() {
            let there = object.as_ref().ok_or(ErrorCode::NOENT);
            let done = match &op.kind {
                OpKind::WriteFull { len } => {
                    let data = if *len > 0 { segments.next().unwrap().to_vec() } else { Vec::new() };
                    changed = true;
                    object = Some(Object { data, ..object.unwrap_or_default() });
                    Ok(OpOutput::None)
                }
                OpKind::Write { offset, len } => {
                    let data = segments.next().unwrap();
                    let written = object.get_or_insert_default();
                    let end = (*offset + *len) as usize;
                    written.data.resize(written.data.len().max(end), 0);
                    written.data[*offset as usize..end].copy_from_slice(data);
                    changed = true;
                    Ok(OpOutput::None)
                }
                OpKind::Read { offset, len } => there.map(|object| {
                    let end = object.data.len().min((*offset + *len) as usize);
                    let data = &object.data[end.min(*offset as usize)..end];
                    read.extend(Segment::new(*offset, Bytes::copy_from_slice(data)).ok());
                    OpOutput::Data { len: data.len() as u64 }
                }),
                OpKind::AssertVersion { version } => {
                    there.and_then(|object| match object.version == *version {
                        true => Ok(OpOutput::None),
                        false => Err(ErrorCode::OVERFLOW),
                    })
                }
                OpKind::Stat => {
                    there.map(|object| OpOutput::Stat { size: object.data.len() as u64, mtime: object.mtime })
                }
                OpKind::Delete => there.map(|_| OpOutput::None).inspect(|_| {
                    changed = true;
                }),
                OpKind::ListObjects { after, max } => Ok(store.list(request.pg, after.as_deref(), *max)),
                OpKind::Watch { cookie, action } => {
                    let (object, cookie) = (request.object.clone(), *cookie);
                    let others = |(of, by, _): &(ObjectId, u64, Connection)| (of, *by) != (&object, cookie);
                    store.watchers.retain(others);
                    if *action != WatchAction::Unwatch {
                        store.watchers.push((object, cookie, connection.clone()));
                    }
                    Ok(OpOutput::None)
                }
                other => panic!("{other:?}"),
            };
            let code = done.as_ref().err().copied().unwrap_or(ErrorCode::OK);
            results.push(OpResult { code, output: done.unwrap_or(OpOutput::None) });
            if code != ErrorCode::OK {
                return (code, 0, results, Payload::default());
            }
        }
        if changed && matches!(request.ops[0].kind, OpKind::Delete) {
            store.objects.remove(&key);
            return (ErrorCode::OK, 0, results, Payload::default());
        }
        let mut object = object.unwrap_or_default();
        if changed {
            object.version += 1;
            object.mtime = request.mtime;
            store.objects.insert(key, (request.object.clone(), object.clone()));
        }
        (ErrorCode::OK, object.version, results, read.into_iter().collect())
    }

    fn notify(&self, from: &Connection, request: &OpRequest, payload: Bytes) {
        let mut store = self.store.lock();
        store.last_notify += 1;
        let id = store.last_notify;
        let heard = store.watchers.iter().filter(|(object, _, _)| *object == request.object);
        let heard: Vec<_> = heard.cloned().collect();
        for (object, cookie, connection) in &heard {
            let what = WatchNews::Notify { id, notifier: request.request.client, payload: payload.clone() };
            let event = WatchEvent { object: object.clone(), cookie: *cookie, what };
            let _ = connection.try_send(Lane::Client, Frame::new(&event, Payload::default()).unwrap());
        }
        let (from, request) = (from.clone(), request.clone());
        store.notifying.insert(id, Notifying { from, request, left: heard.len(), replies: Vec::new() });
    }

    fn acknowledged(&self, ack: NotifyAck) {
        let mut store = self.store.lock();
        let Some(notifying) = store.notifying.get_mut(&ack.id) else { return };
        notifying.left -= 1;
        notifying.replies.push(NotifyReply { client: CLIENT, cookie: ack.cookie, reply: ack.reply });
        if notifying.left == 0 {
            let Notifying { from, request, replies, .. } = store.notifying.remove(&ack.id).unwrap();
            let output = OpOutput::Notified { acknowledged: replies.into(), missed: Vec::new().into() };
            let results = vec![OpResult { code: ErrorCode::OK, output }];
            reply(&from, &request, ErrorCode::OK, 1, results, Payload::default());
        }
    }
}

impl Store {
    fn list(&self, pg: PgId, after: Option<&ObjectId>, max: u32) -> OpOutput {
        let behind =
            |hash: u32, name: &str| after.is_none_or(|at| (hash, name) > (at.hash, at.name.as_str()));
        let group = self.objects.iter().filter(|((of, _, _), _)| *of == pg);
        let mut left =
            group.filter(|((_, hash, name), _)| behind(*hash, name)).map(|(_, (id, _))| id.clone());
        let objects: Vec<_> = left.by_ref().take(max as usize).collect();
        let next = left.next().and(objects.last().cloned()).map(Box::new);
        OpOutput::Listed { objects: objects.into(), next }
    }
}

/// A client, and the OSDs it thinks are a cluster.
pub(super) struct Cluster {
    pub(super) osds: Arc<Osds>,
    pub(super) client: Client,
    pub(super) maps: mpsc::Sender<MapBatch>,
    pub(super) map: OsdMap,
    _endpoints: Vec<Arc<Endpoint>>,
}

impl Cluster {
    pub(super) async fn start(count: usize) -> Self {
        let ca = ClusterCa::create(Fsid([7; 16]), SystemTime::now()).unwrap();
        let identity = |name: &str| {
            let credentials = ca.issue(&name.parse().unwrap(), Validity::from_now(SystemTime::now()));
            Identity::try_from(&credentials.unwrap()).unwrap()
        };
        let osds = Arc::new(Osds::default());
        let (mut endpoints, mut addrs) = (Vec::new(), Vec::new());
        for osd in 0..count {
            let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            let config = Config::new(identity(&format!("osd.{osd}")), listen);
            let endpoint = Arc::new(Endpoint::bind(config).await.unwrap());
            addrs.push(EntityAddr { socket: endpoint.local_addr().unwrap(), nonce: 1 });
            let (accepting, handler) = (endpoint.clone(), osds.clone());
            tokio::spawn(async move {
                while let Some(incoming) = accepting.accept().await {
                    // A client that goes away while it connects is no concern here.
                    let _ = incoming.accept(Receive::Handler(handler.clone())).await;
                }
            });
            endpoints.push(endpoint);
        }
        let endpoint = Arc::new(Endpoint::bind(Config::new(identity("client.admin"), None)).await.unwrap());
        let map = fixture::map(&addrs, 8, count.min(2) as u8);
        let (maps, batches) = mpsc::channel(16);
        let handle = driver::start(endpoint.clone(), CLIENT, client_addr(), batches, Box::new(|_| {}));
        let batch = MapBatch { full: Some(map.clone()), ..MapBatch::default() };
        maps.send(batch).await.unwrap();
        let mut seen = handle.maps();
        seen.wait_for(Option::is_some).await.unwrap();
        // Nothing here asks monitors, and there are none.
        let mon = MonClient::start(endpoint, Vec::new(), mpsc::channel(1).0);
        let client = Client::over(handle, mon, CLIENT, client_addr());
        Cluster { osds, client, maps, map, _endpoints: endpoints }
    }

    pub(super) async fn pool(&self) -> Pool {
        self.client.pool("vms").await.unwrap()
    }
}

/// Bytes that tell their place.
pub(super) fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect::<BytesMut>().freeze()
}
