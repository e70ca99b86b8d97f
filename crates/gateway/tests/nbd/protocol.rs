//! What no tool shows: order, bounds, errors and endings, by a client that speaks the protocol by hand.

use crate::support::{Memory, Served, UNIT};
use cairn_gateway::nbd::proto::*;
use cairn_gateway::nbd::{BindError, Export, Listener, Server, ServerError};
use cairn_gateway::{IoError, Segment};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Far longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client with simple replies.
struct Client(UnixStream);

impl Client {
    fn attach(served: &Served) -> Self {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; GREETING_LEN];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream.write_all(&OPTION_MAGIC.to_be_bytes()).unwrap();
        stream.write_all(&option::EXPORT_NAME.to_be_bytes()).unwrap();
        stream.write_all(&0u32.to_be_bytes()).unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        assert_eq!(u64::from_be_bytes(export[..8].try_into().unwrap()), served.device.size_bytes);
        Client(stream)
    }

    fn request(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(0u16.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes
    }

    fn send(&mut self, command: u16, cookie: u64, offset: u64, len: u32) {
        self.0.write_all(&Self::request(command, cookie, offset, len)).unwrap();
    }

    /// The error and cookie of the next reply.
    fn reply(&mut self) -> (u32, u64) {
        let mut reply = [0; SIMPLE_REPLY_LEN];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
    }

    fn data(&mut self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.0.read_exact(&mut data).unwrap();
        data
    }

    fn assert_closed(&mut self) {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the server should have closed: {other:?}"),
        }
    }
}

/// Waits for something that happens in the server's thread.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let start = Instant::now();
    while !test() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Takes all permits of the device: requests stay inside it.
fn hold(device: &Memory) {
    device.gate.forget_permits(usize::MAX >> 3);
}

#[test]
fn a_later_request_does_not_wait_for_an_earlier_one() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    hold(&served.device);
    client.send(command::READ, 1, 0, 512);
    until("the read", || served.device.inside.load(Ordering::SeqCst) == 1);
    // Answered by the server itself.
    client.send(command::CACHE, 2, 0, 512);
    assert_eq!(client.reply(), (0, 2));
    served.device.gate.add_permits(1);
    assert_eq!(client.reply(), (0, 1));
    assert_eq!(client.data(512), [0; 512]);
}

#[test]
fn no_more_requests_are_taken_than_the_bound_and_all_are_answered_in_the_end() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    hold(&served.device);
    let count = IN_FLIGHT_REQUESTS_MAX as u64 + 100;
    let bytes: Vec<u8> =
        (0..count).flat_map(|cookie| Client::request(command::READ, cookie, 0, 512)).collect();
    client.0.write_all(&bytes).unwrap();
    let inside = || served.device.inside.load(Ordering::SeqCst);
    until("the bound", || inside() == IN_FLIGHT_REQUESTS_MAX);
    served.device.gate.add_permits(1 << 20);
    let mut seen: Vec<u64> = (0..count)
        .map(|_| {
            let (error, cookie) = client.reply();
            client.data(512);
            assert_eq!(error, 0);
            cookie
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..count));
    assert_eq!(served.device.inside_max.load(Ordering::SeqCst), IN_FLIGHT_REQUESTS_MAX);
}

#[test]
fn payload_in_flight_is_bounded_until_the_client_reads_its_replies() {
    let served = Served::unix(Memory::new(64 * MIB));
    let mut client = Client::attach(&served);
    // Each read takes half of the bytes: two may begin, and a third when the first reply has left.
    let half = PAYLOAD_MAX / 2;
    for cookie in 0..4 {
        client.send(command::READ, cookie, 0, half);
    }
    let begun = || served.device.begun.load(Ordering::SeqCst);
    until("two reads", || begun() == 2);
    // A second connection is served meanwhile, so the first one had its turn.
    let mut other = Client::attach(&served);
    for cookie in 0..20 {
        other.send(command::FLUSH, cookie, 0, 0);
        assert_eq!(other.reply(), (0, cookie));
    }
    assert_eq!(begun(), 2 + 20);
    for _ in 0..4 {
        assert_eq!(client.reply().0, 0);
        client.data(half as usize);
    }
    assert_eq!(begun(), 4 + 20);
}

#[test]
fn a_refused_write_is_skipped_and_what_follows_is_understood() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    client.send(command::WRITE, 1, MIB - 512, 300_000);
    client.0.write_all(&vec![1; 300_000]).unwrap();
    client.send(command::WRITE, 2, 0, 5);
    client.0.write_all(b"cairn").unwrap();
    client.send(4711, 3, 0, 0);
    assert_eq!(client.reply(), (Errno::NoSpc as u32, 1));
    let mut rest = [client.reply(), client.reply()];
    rest.sort_by_key(|(_, cookie)| *cookie);
    assert_eq!(rest, [(0, 2), (Errno::Inval as u32, 3)]);
    client.send(command::READ, 4, 0, 6);
    assert_eq!(client.reply(), (0, 4));
    assert_eq!(client.data(6), b"cairn\0");
}

#[test]
fn errors_of_the_device_reach_the_client_and_the_connection_goes_on() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    for (error, errno) in [
        (IoError::NoSpace, Errno::NoSpc),
        (IoError::ReadOnly, Errno::Perm),
        (IoError::Closing, Errno::Shutdown),
        (IoError::Failed("a test".into()), Errno::Io),
    ] {
        *served.device.fail.lock() = Some(error);
        client.send(command::TRIM, 9, 0, 4096);
        assert_eq!(client.reply(), (errno as u32, 9));
    }
    client.send(command::FLUSH, 10, 0, 0);
    assert_eq!(client.reply(), (0, 10));
}

#[test]
fn whoever_breaks_the_protocol_is_cut_off_and_others_are_not() {
    let served = Served::unix(Memory::new(MIB));
    let mut honest = Client::attach(&served);
    let mut wrong = Client::attach(&served);
    wrong.0.write_all(&[0xee; REQUEST_LEN]).unwrap();
    wrong.assert_closed();
    let mut long = Client::attach(&served);
    long.send(command::WRITE, 1, 0, PAYLOAD_MAX + 1);
    long.assert_closed();
    honest.send(command::FLUSH, 1, 0, 0);
    assert_eq!(honest.reply(), (0, 1));
}

#[test]
fn disconnect_waits_for_what_is_outstanding() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    hold(&served.device);
    client.send(command::WRITE, 1, 0, 512);
    client.0.write_all(&[7; 512]).unwrap();
    client.send(command::DISC, 2, 0, 0);
    until("the write", || served.device.inside.load(Ordering::SeqCst) == 1);
    served.device.gate.add_permits(1);
    assert_eq!(client.reply(), (0, 1));
    client.assert_closed();
}

#[test]
fn what_a_lost_client_began_is_finished() {
    let served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    hold(&served.device);
    client.send(command::WRITE, 1, 0, 512);
    client.0.write_all(&[7; 512]).unwrap();
    until("the write", || served.device.inside.load(Ordering::SeqCst) == 1);
    drop(client);
    served.device.gate.add_permits(1);
    until("the end of the write", || served.device.inside.load(Ordering::SeqCst) == 0);
    assert_eq!(served.device.stored_bytes(), UNIT);
}

#[test]
fn a_server_that_stops_answers_what_is_in_progress_and_takes_its_socket_away() {
    let mut served = Served::unix(Memory::new(MIB));
    let mut client = Client::attach(&served);
    let mut idle = Client::attach(&served);
    let negotiating = UnixStream::connect(served.socket()).unwrap();
    hold(&served.device);
    client.send(command::WRITE, 1, 0, 512);
    client.0.write_all(&[7; 512]).unwrap();
    until("the write", || served.device.inside.load(Ordering::SeqCst) == 1);
    served.stop();
    idle.assert_closed();
    assert!(!served.socket().exists());
    served.device.gate.add_permits(1);
    assert_eq!(client.reply(), (0, 1));
    client.assert_closed();
    served.join();
    drop(negotiating);
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale file is left behind");
    let listener = Listener::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Listener::unix(&path), Err(BindError::Served { .. })));
    drop(listener);
    assert!(!path.exists(), "the file goes with its listener");

    std::fs::write(&path, b"precious").unwrap();
    assert!(matches!(Listener::unix(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert!(matches!(Listener::unix(&dir.path().join("no/s")), Err(BindError::Unix { .. })));
    let long = dir.path().join("x".repeat(200));
    assert!(matches!(Listener::unix(&long), Err(BindError::PathTooLong { .. })));
}

#[test]
fn exports_that_cannot_be_offered_are_refused() {
    let export = |name: &str| Export {
        name: name.to_owned(),
        description: String::new(),
        device: Arc::new(Memory::new(MIB)),
    };
    assert!(matches!(Server::<Memory>::new(vec![]), Err(ServerError::NoExport)));
    assert!(matches!(Server::new(vec![export("a"), export("a")]), Err(ServerError::SameName { .. })));
    let long = "x".repeat(STRING_MAX + 1);
    assert!(matches!(Server::new(vec![export(&long)]), Err(ServerError::TextTooLong { .. })));
    assert!(Server::new(vec![export("a"), export("b")]).is_ok());
    assert_eq!(Segment::Zero(3).len_bytes(), 3);
}
