//! A small cluster on loopback for tests.
#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use cairn_net::{
    Carrier, CloseReason, ClusterCa, Config, Connection, Credentials, Delivery, Endpoint, Expect, Handler,
    Identity, Receive, Tuning, Validity,
};
use cairn_types::{EntityName, Fsid};
use cairn_wire::{Echo, EchoReply, Frame, Lane, LaneSet, Payload, RequestId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc};

/// Long enough for any honest wait on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One function, two tests.
#[macro_export]
macro_rules! both_carriers {
    ($(async fn $name:ident($net:ident: Net) $body:block)*) => {
        $(async fn $name($net: Net) $body)*
        mod tcp { $(#[test] fn $name() { $crate::common::run(cairn_net::Carrier::Tcp, super::$name); })* }
        mod quic { $(#[test] fn $name() { $crate::common::run(cairn_net::Carrier::Quic, super::$name); })* }
    };
}

pub fn run<F: Future<Output = ()>>(carrier: Carrier, test: impl FnOnce(Net) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test(Net::new(carrier))).await.expect("the test hangs");
    });
}

pub struct Net {
    pub carrier: Carrier,
    pub ca: ClusterCa,
    pub tuning: Tuning,
}

pub fn name(text: &str) -> EntityName {
    text.parse().unwrap()
}

pub fn entity(text: &str) -> Expect {
    Expect::Entity(name(text))
}

pub fn loopback() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

impl Net {
    pub fn new(carrier: Carrier) -> Self {
        // A different cluster each time, the same in every run.
        static CLUSTERS: AtomicU8 = AtomicU8::new(1);
        let ca = ClusterCa::create(Fsid([CLUSTERS.fetch_add(1, SeqCst); 16]), SystemTime::now()).unwrap();
        // The first handshakes of a debug build on a loaded machine take their time.
        let tuning = Tuning {
            handshake_timeout: Duration::from_secs(3),
            keep_alive_interval: Duration::from_millis(300),
            send_queue_bytes_max: 8 << 20,
            udp_buffer_len: 2 << 20,
            ..Tuning::default()
        };
        Net { carrier, ca, tuning }
    }

    pub fn identity(&self, text: &str) -> Identity {
        Identity::try_from(&self.ca.issue(&name(text), Validity::from_now(SystemTime::now())).unwrap())
            .unwrap()
    }

    /// Of the same cluster by its name, with this cluster's CA to trust, but made by another CA.
    pub fn forged(&self, text: &str) -> Identity {
        let forger = ClusterCa::create(self.ca.fsid(), SystemTime::now()).unwrap();
        let Credentials { cert_pem, key_pem, .. } =
            forger.issue(&name(text), Validity::from_now(SystemTime::now())).unwrap();
        Identity::from_pem(self.ca.certificate_pem(), &cert_pem, &key_pem).unwrap()
    }

    pub fn expired(&self, text: &str) -> Identity {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        let validity = Validity { not_before: now - 2 * day, not_after: now - day };
        Identity::try_from(&self.ca.issue(&name(text), validity).unwrap()).unwrap()
    }

    pub fn config(&self, identity: Identity, listen: Option<SocketAddr>) -> Config {
        Config {
            carrier: self.carrier,
            incarnation: 1,
            tuning: self.tuning.clone(),
            ..Config::new(identity, listen)
        }
    }

    pub async fn endpoint_of(&self, identity: Identity, listen: Option<SocketAddr>) -> Endpoint {
        Endpoint::bind(self.config(identity, listen)).await.unwrap()
    }

    pub async fn endpoint(&self, text: &str, listen: Option<SocketAddr>) -> Endpoint {
        self.endpoint_of(self.identity(text), listen).await
    }

    pub async fn listening(&self, text: &str) -> Endpoint {
        self.endpoint(text, loopback()).await
    }

    /// Answers echoes on the reading task.
    pub async fn echo_server(&self, text: &str) -> (Arc<Endpoint>, SocketAddr) {
        let server = Arc::new(self.listening(text).await);
        let addr = server.local_addr().unwrap();
        let accepting = server.clone();
        tokio::spawn(async move { serve_echo(&accepting).await });
        (server, addr)
    }

    /// Connects `client` to `server` and gives both ends, the client's first.
    pub async fn pair(
        &self,
        client: &Endpoint,
        server: &Endpoint,
        lanes: LaneSet,
        at_client: Receive,
        at_server: Receive,
    ) -> (Connection, Connection) {
        let expect = Expect::Entity(server.identity().name().clone());
        let accept = async { server.accept().await.unwrap().accept(at_server).await.unwrap() };
        let connect =
            async { client.connect(server.local_addr().unwrap(), &expect, lanes, at_client).await.unwrap() };
        tokio::join!(connect, accept)
    }
}

pub async fn serve_echo(server: &Endpoint) {
    while let Some(incoming) = server.accept().await {
        let _ = incoming.accept(Receive::Handler(Arc::new(EchoHandler))).await;
    }
}

pub struct EchoHandler;

impl Handler for EchoHandler {
    fn on_frame(&self, connection: &Connection, lane: Lane, frame: Frame) {
        let echo: Echo = frame.message().unwrap();
        let payload = frame.into_payload();
        let reply = EchoReply { request: echo.request, payload_len_bytes: payload.len() as u64 };
        let payload = if echo.return_payload { payload } else { Payload::none() };
        connection.try_send(lane, Frame::new(&reply, payload).unwrap()).unwrap();
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {}
}

/// Takes the control lane always and the others once it is open.
#[derive(Default)]
pub struct Gate {
    open: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    counts: [AtomicU64; 3],
    counted: Notify,
}

impl Gate {
    pub fn open(&self) {
        let mut wakers = self.wakers.lock().unwrap();
        self.open.store(true, SeqCst);
        wakers.drain(..).for_each(Waker::wake);
    }

    pub fn count(&self, lane: Lane) -> u64 {
        self.counts[usize::from(lane.number())].load(SeqCst)
    }

    pub async fn wait_for(&self, lane: Lane, count: u64) {
        loop {
            let counted = self.counted.notified();
            if self.count(lane) >= count {
                return;
            }
            counted.await;
        }
    }
}

impl Handler for Gate {
    fn poll_ready(&self, lane: Lane, cx: &mut Context<'_>) -> Poll<()> {
        let mut wakers = self.wakers.lock().unwrap();
        if lane == Lane::Control || self.open.load(SeqCst) {
            return Poll::Ready(());
        }
        wakers.push(cx.waker().clone());
        Poll::Pending
    }

    fn on_frame(&self, _: &Connection, lane: Lane, _: Frame) {
        self.counts[usize::from(lane.number())].fetch_add(1, SeqCst);
        self.counted.notify_one();
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {}
}

pub fn channel(bound: usize) -> (Receive, mpsc::Receiver<Delivery>) {
    let (sender, receiver) = mpsc::channel(bound);
    (Receive::Channel(sender), receiver)
}

pub async fn next_frame(inbox: &mut mpsc::Receiver<Delivery>) -> (Lane, Frame) {
    match inbox.recv().await {
        Some(Delivery::Frame { lane, frame, .. }) => (lane, frame),
        other => panic!("a frame was due, got {other:?}"),
    }
}

pub fn echo(tid: u64, return_payload: bool, len: usize) -> Frame {
    let data: Bytes = (0..len).map(|i| (i as u64 * 7 + tid) as u8).collect();
    let request = RequestId { client: 1, incarnation: 1, tid };
    Frame::new(&Echo { request, return_payload }, Payload::of(tid * 100, data)).unwrap()
}
