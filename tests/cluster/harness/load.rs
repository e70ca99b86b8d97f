//! A load that verifies: random reads and writes of whole blocks over NBD, at a depth that is always full. What a block
//! must hold follows from its number and how often it was written; each read is compared with that, and so is every
//! block at the end. Two requests for one block are never under way together, so there is one right answer.

use super::nbd::{Command, Nbd};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Bytes of a block.
pub const BLOCK_LEN: usize = 4096;
/// Requests under way.
pub const DEPTH: usize = 16;
/// Of so many requests one is a flush, of the others every third a read.
const FLUSH_EVERY: u64 = 64;
/// A request that waits longer than any outage of these tests has been lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the blocks of a disk must hold.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// How often each was written and answered; 0 is never, and reads as zeros.
    written: Vec<u32>,
    /// Those whose newest write was never answered: either that or the one before is there.
    open: Vec<usize>,
}

/// What a block holds after it was written `times` times.
fn fill(block: usize, times: u32, into: &mut [u8]) {
    if times == 0 {
        return into.fill(0);
    }
    // splitmix64 from a seed that no other (block, times) has.
    let mut state = (block as u64) << 32 | u64::from(times);
    for word in into.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
}

fn holds(data: &[u8], block: usize, times: u32) -> bool {
    let mut expected = [0; BLOCK_LEN];
    fill(block, times, &mut expected);
    data == expected
}

impl Blocks {
    /// A fresh disk.
    pub fn zeros(count: usize) -> Self {
        Blocks { written: vec![0; count], open: Vec::new() }
    }

    /// Reads every block. What was not answered is decided by what is found.
    #[track_caller]
    pub fn verify(&mut self, socket: &Path) {
        let mut nbd = Nbd::connect(socket).unwrap();
        nbd.set_patience(PATIENCE);
        let mut data = [0; BLOCK_LEN];
        let count = self.written.len();
        let mut asked = 0;
        for answered in 0..count {
            while asked < count.min(answered + DEPTH) {
                let offset = (asked * BLOCK_LEN) as u64;
                nbd.send(asked as u64, Command::Read { offset, len: BLOCK_LEN as u32 }).unwrap();
                asked += 1;
            }
            let (block, error) = nbd.reply().unwrap();
            assert_eq!(error, 0, "block {block} cannot be read");
            nbd.data(&mut data).unwrap();
            self.check(block as usize, &data);
        }
    }

    #[track_caller]
    fn check(&mut self, block: usize, data: &[u8]) {
        let times = self.written[block];
        if self.open.contains(&block) && holds(data, block, times + 1) {
            self.written[block] += 1;
        } else if !holds(data, block, times) {
            let older = (0..times).rev().find(|times| holds(data, block, *times));
            panic!(
                "block {block} was written {times} times and holds {}",
                match older {
                    Some(older) => format!("what was written the {older}th time"),
                    None => format!("something else: {:02x?} …", &data[..16]),
                }
            );
        }
        self.open.retain(|open| *open != block);
    }
}

/// A load that runs. Dropped, it stops.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Ended>>,
}

struct Shared {
    stop: AtomicBool,
    /// Requests answered, writes among them.
    answered: AtomicU64,
    writes: AtomicU64,
    /// The end of the gap that is open now, and the longest one since it was asked for.
    gap: Mutex<Gap>,
}

struct Gap {
    last: Instant,
    longest: Duration,
}

/// How a load ended.
pub struct Ended {
    /// What must be there.
    pub blocks: Blocks,
    /// The connection was lost with requests under way.
    pub is_cut_off: bool,
}

impl Load {
    /// Begins, on blocks that hold what is told.
    pub fn start(socket: &Path, blocks: Blocks) -> Self {
        let gap = Mutex::new(Gap { last: Instant::now(), longest: Duration::ZERO });
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            gap,
        });
        let (own, socket) = (shared.clone(), socket.to_owned());
        let thread = std::thread::Builder::new().name("load".to_owned());
        let thread = thread.spawn(move || Worker::new(&own, socket, blocks).work()).unwrap();
        Load { shared, thread: Some(thread) }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Relaxed)
    }

    /// Writes among them.
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Relaxed)
    }

    /// The longest time without an answer since this was last asked, with the one that lasts.
    pub fn longest_gap(&self) -> Duration {
        let mut gap = self.shared.gap.lock().unwrap();
        let longest = gap.longest.max(gap.last.elapsed());
        gap.longest = Duration::ZERO;
        longest
    }

    /// Waits until so many more requests are answered: it goes on.
    #[track_caller]
    pub fn wait_for_answers(&self, more: u64, within: Duration) {
        let (begun, from) = (Instant::now(), self.answered());
        while self.answered() < from + more {
            assert!(
                begun.elapsed() < within,
                "{} answers within {within:?}, not {more}",
                self.answered() - from
            );
            assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "the load ended");
            sleep(Duration::from_millis(5));
        }
    }

    /// Lets what is under way be answered, and ends. An error that the load met is a panic.
    #[track_caller]
    pub fn stop(mut self) -> Ended {
        self.shared.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().expect("the load meets no error")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

#[derive(Clone, Copy)]
enum Request {
    Read(usize),
    Write(usize),
    Flush,
}

struct Worker<'a> {
    shared: &'a Shared,
    socket: PathBuf,
    blocks: Blocks,
    /// By cookie.
    under_way: Vec<Option<Request>>,
    is_busy: Vec<bool>,
    random: u64,
    sent: u64,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, socket: PathBuf, blocks: Blocks) -> Self {
        let is_busy = vec![false; blocks.written.len()];
        Worker { shared, socket, blocks, under_way: vec![None; DEPTH], is_busy, random: 0x2545_f491, sent: 0 }
    }

    fn work(mut self) -> Ended {
        let is_cut_off = match self.run() {
            Ok(()) => false,
            Err(error) if is_end(&error) => true,
            Err(error) => panic!("no answer within {PATIENCE:?}: {error}"),
        };
        for request in self.under_way.iter().flatten() {
            if let Request::Write(block) = request {
                self.blocks.open.push(*block);
            }
        }
        Ended { blocks: self.blocks, is_cut_off }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut nbd = Nbd::connect(&self.socket)?;
        nbd.set_patience(PATIENCE);
        let mut free: VecDeque<usize> = (0..DEPTH).collect();
        let mut data = [0; BLOCK_LEN];
        loop {
            if !self.shared.stop.load(Relaxed) {
                while let Some(cookie) = free.pop_front() {
                    self.send(&mut nbd, cookie)?;
                }
            }
            if free.len() == DEPTH {
                return Ok(());
            }
            let (cookie, error) = nbd.reply()?;
            let cookie = cookie as usize;
            let request = self.under_way[cookie].expect("a reply to what was asked");
            assert_eq!(error, 0, "an error reaches the client");
            if let Request::Read(block) = request {
                nbd.data(&mut data)?;
                self.blocks.check(block, &data);
            }
            self.answered(request);
            self.under_way[cookie] = None;
            free.push_back(cookie);
        }
    }

    fn send(&mut self, nbd: &mut Nbd, cookie: usize) -> io::Result<()> {
        self.sent += 1;
        if self.sent.is_multiple_of(FLUSH_EVERY) {
            self.under_way[cookie] = Some(Request::Flush);
            return nbd.send(cookie as u64, Command::Flush);
        }
        let block = loop {
            let block = self.random() as usize % self.is_busy.len();
            if !self.is_busy[block] {
                break block;
            }
        };
        self.is_busy[block] = true;
        let offset = (block * BLOCK_LEN) as u64;
        if self.random().is_multiple_of(3) {
            self.under_way[cookie] = Some(Request::Read(block));
            return nbd.send(cookie as u64, Command::Read { offset, len: BLOCK_LEN as u32 });
        }
        self.under_way[cookie] = Some(Request::Write(block));
        let mut data = [0; BLOCK_LEN];
        fill(block, self.blocks.written[block] + 1, &mut data);
        nbd.send(cookie as u64, Command::Write { offset, data: &data })
    }

    fn answered(&mut self, request: Request) {
        match request {
            Request::Flush => {}
            Request::Read(block) => self.is_busy[block] = false,
            Request::Write(block) => {
                self.is_busy[block] = false;
                self.blocks.written[block] += 1;
                self.shared.writes.fetch_add(1, Relaxed);
            }
        }
        self.shared.answered.fetch_add(1, Relaxed);
        let mut gap = self.shared.gap.lock().unwrap();
        let now = Instant::now();
        gap.longest = gap.longest.max(now - gap.last);
        gap.last = now;
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}

/// The server has gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}
