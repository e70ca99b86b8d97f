//! The data path over loopback: a request with data and a small reply, per carrier.
//!
//! `cargo bench -p cairn-net` prints a table. The server is a process of its own, so that the CPU time of
//! each side is its process's (`CLOCK_PROCESS_CPUTIME_ID`, user and system). Both sides run one thread, verify
//! the block checksums of what they receive, and answer or ask again on the task that read. `--seconds N` sets the length of a
//! run (default 2), further arguments choose carriers by name.

use bytes::Bytes;
use cairn_net::{
    Carrier, CloseReason, ClusterCa, Config, Connection, Credentials, Endpoint, Expect, Handler, Identity,
    QuicMtu, Receive, Validity,
};
use cairn_types::Fsid;
use cairn_wire::{Echo, EchoReply, Frame, GoodbyeReason, Lane, LaneSet, Payload, RequestId};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Marks the server's process, with its carrier.
const SERVER_ENV: &str = "CAIRN_BENCH_SERVER";
/// Names carried from parent to server through the environment.
const PEM_ENV: [&str; 3] = ["CAIRN_BENCH_CA", "CAIRN_BENCH_CERT", "CAIRN_BENCH_KEY"];

const CARRIERS: [(&str, Carrier, QuicMtu); 3] = [
    ("tcp", Carrier::Tcp, QuicMtu::Usual),
    ("quic-1452", Carrier::Quic, QuicMtu::Usual),
    ("quic-6500", Carrier::Quic, QuicMtu::Jumbo(6500)),
];

/// Bytes of data in the request, and requests under way.
const LOADS: [(usize, usize); 3] = [(4096, 1), (4096, 32), (1 << 20, 16)];

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Times that this process went to sleep; each is a wake-up later.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(name: &str, credentials: &Credentials, listen: Option<SocketAddr>) -> Config {
    let (_, carrier, quic_mtu) = CARRIERS.into_iter().find(|(n, ..)| *n == name).unwrap();
    let mut config = Config::new(Identity::try_from(credentials).unwrap(), listen);
    config.carrier = carrier;
    config.tuning.quic_mtu = quic_mtu;
    config
}

struct Server {
    cpu_at_start: Duration,
    sleeps_at_start: u64,
}

impl Handler for Server {
    fn on_frame(&self, connection: &Connection, lane: Lane, frame: Frame) {
        let echo: Echo = frame.message().unwrap();
        let reply = EchoReply { request: echo.request, payload_len_bytes: frame.payload().len() as u64 };
        connection.try_send(lane, Frame::new(&reply, Payload::none()).unwrap()).unwrap();
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {
        let cpu = cpu() - self.cpu_at_start;
        println!("{} {}", cpu.as_nanos(), sleeps() - self.sleeps_at_start);
        std::io::stdout().flush().unwrap();
    }
}

/// Serves connections one after the other and prints what each cost.
fn serve(carrier: &str) {
    let [ca_pem, cert_pem, key_pem] = PEM_ENV.map(|name| std::env::var(name).unwrap());
    let credentials = Credentials { ca_pem, cert_pem, key_pem };
    runtime().block_on(async {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let endpoint = Endpoint::bind(config(carrier, &credentials, listen)).await.unwrap();
        println!("{}", endpoint.local_addr().unwrap());
        while let Some(incoming) = endpoint.accept().await {
            let server = Server { cpu_at_start: cpu(), sleeps_at_start: sleeps() };
            incoming.accept(Receive::Handler(Arc::new(server))).await.unwrap();
        }
    });
}

struct Client {
    state: Mutex<Load>,
    payload: Payload,
    until: Instant,
}

struct Load {
    sent_at: Vec<Instant>,
    under_way: usize,
    latencies: Histogram<u64>,
}

impl Client {
    /// Sends a request in `slot`, which has none under way.
    fn ask(&self, load: &mut Load, connection: &Connection, slot: usize) {
        load.sent_at[slot] = Instant::now();
        load.under_way += 1;
        let request = RequestId { client: 1, incarnation: 1, tid: slot as u64 };
        let frame = Frame::new(&Echo { request, return_payload: false }, self.payload.clone());
        connection.try_send(Lane::Client, frame.unwrap()).unwrap();
    }
}

impl Handler for Client {
    fn on_frame(&self, connection: &Connection, _: Lane, frame: Frame) {
        let reply: EchoReply = frame.message().unwrap();
        assert_eq!(reply.payload_len_bytes, self.payload.len() as u64);
        let slot = reply.request.tid as usize;
        let mut load = self.state.lock().unwrap();
        load.under_way -= 1;
        let took = load.sent_at[slot].elapsed();
        load.latencies.record(took.as_nanos() as u64).unwrap();
        if Instant::now() < self.until {
            self.ask(&mut load, connection, slot);
        } else if load.under_way == 0 {
            connection.close(GoodbyeReason::Done);
        }
    }

    fn on_closed(&self, _: &Connection, _: &CloseReason) {}
}

fn start_server(carrier: &str, ca: &ClusterCa) -> (Child, BufReader<std::process::ChildStdout>, SocketAddr) {
    let credentials = ca.issue(&"osd.0".parse().unwrap(), Validity::from_now(SystemTime::now())).unwrap();
    let pems = [&credentials.ca_pem, &credentials.cert_pem, &credentials.key_pem];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(SERVER_ENV, carrier)
        .envs(PEM_ENV.into_iter().zip(pems))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let addr = line.trim().parse().unwrap();
    (child, lines, addr)
}

fn main() {
    if let Ok(carrier) = std::env::var(SERVER_ENV) {
        return serve(&carrier);
    }
    let mut length = Duration::from_secs(2);
    let mut chosen = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => length = Duration::from_secs(args.next().unwrap().parse().unwrap()),
            "--bench" => {} // cargo's own
            name => chosen.push(name.to_owned()),
        }
    }
    let ca = ClusterCa::create(Fsid([1; 16]), SystemTime::now()).unwrap();
    let credentials =
        ca.issue(&"client.bench".parse().unwrap(), Validity::from_now(SystemTime::now())).unwrap();
    println!(
        "{:<11} {:>8} {:>5} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "carrier",
        "bytes",
        "depth",
        "ops/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "cli us/op",
        "srv us/op",
        "cli slp/op",
        "srv slp/op"
    );
    for (name, ..) in
        CARRIERS.into_iter().filter(|(n, ..)| chosen.is_empty() || chosen.iter().any(|c| c == n))
    {
        let (mut child, mut lines, addr) = start_server(name, &ca);
        let runtime = runtime();
        let endpoint = runtime.block_on(Endpoint::bind(config(name, &credentials, None))).unwrap();
        for (len, depth) in LOADS {
            let client = Arc::new(Client {
                state: Mutex::new(Load {
                    sent_at: vec![Instant::now(); depth],
                    under_way: 0,
                    latencies: Histogram::new(3).unwrap(),
                }),
                payload: Payload::of(0, Bytes::from(vec![0x5a; len])),
                until: Instant::now() + length,
            });
            let (mut used, mut slept, mut took) = Default::default();
            runtime.block_on(async {
                let receive = Receive::Handler(client.clone());
                let expect = Expect::Entity("osd.0".parse().unwrap());
                let connection = endpoint.connect(addr, &expect, LaneSet::CLIENT, receive).await.unwrap();
                let (cpu_at_start, sleeps_at_start, start) = (cpu(), sleeps(), Instant::now());
                {
                    let mut load = client.state.lock().unwrap();
                    (0..depth).for_each(|slot| client.ask(&mut load, &connection, slot));
                }
                connection.closed().await;
                (used, slept, took) = (cpu() - cpu_at_start, sleeps() - sleeps_at_start, start.elapsed());
            });
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap());
            let (server_ns, server_slept) = (numbers.next().unwrap(), numbers.next().unwrap());
            let latencies = &client.state.lock().unwrap().latencies;
            let ops = latencies.len() as f64;
            println!(
                "{name:<11} {len:>8} {depth:>5} {:>10.0} {:>8.0} {:>9.1} {:>9.1} {:>9.2} {:>9.2} {:>9.3} {:>9.3}",
                ops / took.as_secs_f64(),
                ops * len as f64 / took.as_secs_f64() / 1e6,
                latencies.value_at_quantile(0.5) as f64 / 1e3,
                latencies.value_at_quantile(0.99) as f64 / 1e3,
                used.as_secs_f64() * 1e6 / ops,
                server_ns as f64 / 1e3 / ops,
                slept as f64 / ops,
                server_slept as f64 / ops,
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
