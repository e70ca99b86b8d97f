//! Peers that die or stop, as real processes.

mod common;

use cairn_net::{Carrier, CloseReason, Config, Connection, Credentials, Endpoint, Identity, Validity};
use cairn_wire::LaneSet;
use common::*;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const CARRIER_ENV: &str = "CAIRN_TEST_CARRIER";
const PEM_ENV: [&str; 3] = ["CAIRN_TEST_CA", "CAIRN_TEST_CERT", "CAIRN_TEST_KEY"];
/// Stands in front of the address that the child prints among what the test harness prints.
const ADDR_MARK: &str = "listening on ";

/// An echo server in a process of its own, ended with the test.
struct Peer {
    child: Child,
    addr: SocketAddr,
}

impl Peer {
    fn start(net: &Net) -> Peer {
        let validity = Validity::from_now(SystemTime::now());
        let credentials = net.ca.issue(&name("osd.0"), validity).unwrap();
        let pems = [&credentials.ca_pem, &credentials.cert_pem, &credentials.key_pem];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_peer", "--nocapture"])
            .env(CARRIER_ENV, format!("{:?}", net.carrier))
            .envs(PEM_ENV.into_iter().zip(pems))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(ADDR_MARK)?.1.parse().unwrap()))
            .expect("the peer prints its address");
        Peer { child, addr }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process: started by the tests below, nothing to do otherwise.
#[test]
fn the_peer() {
    let Ok(carrier) = std::env::var(CARRIER_ENV) else { return };
    let [ca_pem, cert_pem, key_pem] = PEM_ENV.map(|name| std::env::var(name).unwrap());
    let identity = Identity::try_from(&Credentials { ca_pem, cert_pem, key_pem }).unwrap();
    let carrier = if carrier == "Quic" { Carrier::Quic } else { Carrier::Tcp };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let config = Config { carrier, ..Config::new(identity, loopback()) };
        let server = Endpoint::bind(config).await.unwrap();
        println!("\n{ADDR_MARK}{}", server.local_addr().unwrap());
        serve_echo(&server).await;
    });
}

async fn connected(net: &Net, peer: &Peer) -> (Endpoint, Connection) {
    let client = net.endpoint("client.admin", None).await;
    let (receive, mut inbox) = channel(4);
    let connection = client.connect(peer.addr, &entity("osd.0"), LaneSet::ALL, receive).await.unwrap();
    connection.send(cairn_wire::Lane::Client, echo(1, true, 5000)).await.unwrap();
    next_frame(&mut inbox).await;
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    (client, connection)
}

#[test]
fn a_killed_peer_is_reported_at_once_over_tcp() {
    run(Carrier::Tcp, async |mut net: Net| {
        // Silence cannot be what ends the connection here.
        net.tuning.keep_alive_interval = PATIENCE;
        let mut peer = Peer::start(&net);
        let (_client, connection) = connected(&net, &peer).await;
        peer.child.kill().unwrap();
        let reason = connection.closed().await;
        assert!(matches!(reason, CloseReason::Lost), "{reason}");
    });
}

#[test]
fn a_killed_peer_is_silent_over_quic() {
    run(Carrier::Quic, async |net: Net| {
        let mut peer = Peer::start(&net);
        let (_client, connection) = connected(&net, &peer).await;
        peer.child.kill().unwrap();
        let reason = connection.closed().await;
        assert!(matches!(reason, CloseReason::Silent), "{reason}");
    });
}

fn a_stopped_peer_is_silent(carrier: Carrier) {
    run(carrier, async |net: Net| {
        let peer = Peer::start(&net);
        let (_client, connection) = connected(&net, &peer).await;
        let start = Instant::now();
        peer.signal(Signal::STOP);
        let reason = connection.closed().await;
        peer.signal(Signal::CONT);
        assert!(matches!(reason, CloseReason::Silent), "{reason}");
        // Not before its time: that many whole intervals without a word, less the one in which it stopped.
        let intervals = net.tuning.silent_intervals_max - 1;
        assert!(start.elapsed() + Duration::from_millis(50) > net.tuning.keep_alive_interval * intervals);
    });
}

#[test]
fn a_stopped_peer_is_silent_over_tcp() {
    a_stopped_peer_is_silent(Carrier::Tcp);
}

#[test]
fn a_stopped_peer_is_silent_over_quic() {
    a_stopped_peer_is_silent(Carrier::Quic);
}

#[test]
fn a_peer_that_stops_while_connecting_runs_into_the_timeout() {
    for carrier in [Carrier::Tcp, Carrier::Quic] {
        run(carrier, async |mut net: Net| {
            net.tuning.handshake_timeout = Duration::from_millis(700);
            let peer = Peer::start(&net);
            peer.signal(Signal::STOP);
            let client = net.endpoint("client.admin", None).await;
            let (receive, _inbox) = channel(1);
            let error = client.connect(peer.addr, &entity("osd.0"), LaneSet::ALL, receive).await.unwrap_err();
            assert!(matches!(error, cairn_net::ConnectError::TimedOut { .. }), "{error}");
        });
    }
}
