//! A disk in memory, sparse in units of 4 KiB, and the way to run Debian's tools against a server of it.

use bytes::Bytes;
use cairn_gateway::nbd::{Export, Listener, Server};
use cairn_gateway::{BlockDevice, BlockInfo, Extent, IoError, Segment, Zeroing};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};

pub const UNIT: u64 = 4096;

/// Blocks that were written; all others read as zeros and take no space.
pub struct Memory {
    pub size_bytes: u64,
    pub read_only: bool,
    pub blocks: Mutex<BTreeMap<u64, Box<[u8; UNIT as usize]>>>,
    /// Requests take a permit; a test that holds them holds the device.
    pub gate: Semaphore,
    pub flushes: AtomicU64,
    pub forced: AtomicU64,
    /// Requests that ever came, that are inside now, and the most that ever were.
    pub begun: AtomicU64,
    pub inside: AtomicUsize,
    pub inside_max: AtomicUsize,
    /// The next request fails with this.
    pub fail: Mutex<Option<IoError>>,
}

struct Inside<'a>(&'a Memory);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Memory {
    pub fn new(size_bytes: u64) -> Self {
        Memory {
            size_bytes,
            read_only: false,
            blocks: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            flushes: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            inside_max: AtomicUsize::new(0),
            fail: Mutex::new(None),
        }
    }

    pub fn stored_bytes(&self) -> u64 {
        self.blocks.lock().len() as u64 * UNIT
    }

    async fn enter(&self, offset: u64, len: u64) -> Result<Inside<'_>, IoError> {
        assert!(len > 0 && offset + len <= self.size_bytes, "a range the server should have refused");
        self.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.inside_max.fetch_max(now, Ordering::SeqCst);
        let inside = Inside(self);
        let _permit = self.gate.acquire().await.expect("never closed");
        // Others get their turn in between, as with a real device.
        tokio::task::yield_now().await;
        match self.fail.lock().take() {
            Some(error) => Err(error),
            None => Ok(inside),
        }
    }

    pub fn put(&self, offset: u64, data: &[u8]) {
        let mut blocks = self.blocks.lock();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let inside = (at % UNIT) as usize;
            let here = (UNIT as usize - inside).min(data.len() - done);
            let block = blocks.entry(at / UNIT).or_insert_with(|| Box::new([0; UNIT as usize]));
            block[inside..inside + here].copy_from_slice(&data[done..done + here]);
            done += here;
        }
    }

    fn unmap(&self, offset: u64, len: u64) {
        let end = offset + len;
        let (first, last) = (offset.div_ceil(UNIT), end / UNIT);
        if first < last {
            let mut blocks = self.blocks.lock();
            let whole: Vec<u64> = blocks.range(first..last).map(|(block, _)| *block).collect();
            whole.iter().for_each(|block| {
                blocks.remove(block);
            });
        }
        let edges = [(offset, (first * UNIT).min(end)), ((last * UNIT).max(offset), end)];
        for (from, to) in edges {
            if from < to {
                self.put(from, &vec![0; (to - from) as usize]);
            }
        }
    }
}

impl BlockDevice for Memory {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            size_bytes: self.size_bytes,
            read_only: self.read_only,
            block_min_bytes: 1,
            block_preferred_bytes: 4096,
            zeroes_fast: true,
        }
    }

    async fn read(&self, offset: u64, len_bytes: u32) -> Result<Vec<Segment>, IoError> {
        let _inside = self.enter(offset, u64::from(len_bytes)).await?;
        let blocks = self.blocks.lock();
        let (mut at, end) = (offset, offset + u64::from(len_bytes));
        let mut segments = Vec::new();
        while at < end {
            let here = (UNIT - at % UNIT).min(end - at) as usize;
            segments.push(match blocks.get(&(at / UNIT)) {
                Some(block) => {
                    let from = (at % UNIT) as usize;
                    Segment::Data(Bytes::copy_from_slice(&block[from..from + here]))
                }
                None => Segment::Zero(here as u32),
            });
            at += here as u64;
        }
        Ok(segments)
    }

    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError> {
        let _inside = self.enter(offset, data.len() as u64).await?;
        self.put(offset, &data);
        self.forced.fetch_add(u64::from(fua), Ordering::SeqCst);
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        let _inside = self.enter(0, 1).await?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn discard(&self, offset: u64, len_bytes: u64, _fua: bool) -> Result<(), IoError> {
        let _inside = self.enter(offset, len_bytes).await?;
        self.unmap(offset, len_bytes);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, len_bytes: u64, how: Zeroing) -> Result<(), IoError> {
        let _inside = self.enter(offset, len_bytes).await?;
        if how.may_unmap {
            self.unmap(offset, len_bytes);
        } else {
            self.put(offset, &vec![0; len_bytes as usize]);
        }
        Ok(())
    }

    async fn status(&self, offset: u64, len_bytes: u64, extents_max: usize) -> Result<Vec<Extent>, IoError> {
        let _inside = self.enter(offset, len_bytes).await?;
        let blocks = self.blocks.lock();
        let (mut at, end) = (offset, offset + len_bytes);
        let mut extents = Vec::new();
        while at < end && extents.len() < extents_max {
            let hole = !blocks.contains_key(&(at / UNIT));
            // The next block of the other kind.
            let to = if hole {
                blocks.range(at / UNIT..).next().map_or(self.size_bytes, |(block, _)| block * UNIT)
            } else {
                let mut block = at / UNIT;
                while blocks.contains_key(&block) {
                    block += 1;
                }
                block * UNIT
            };
            extents.push(Extent { len_bytes: to.min(self.size_bytes) - at, hole, zero: hole });
            at = to;
        }
        Ok(extents)
    }
}

/// A server of one device with its own directory, stopped when it is dropped.
pub struct Served {
    pub device: Arc<Memory>,
    pub dir: tempfile::TempDir,
    stop: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    /// Serves on a unix socket, `nbd.sock` in the directory.
    pub fn unix(device: Memory) -> Self {
        Self::on(device, |dir| Listener::unix(&dir.join("nbd.sock")).unwrap()).0
    }

    /// Serves on a listener made inside the server's runtime; with it comes its TCP address.
    pub fn on(
        device: Memory,
        listen: impl FnOnce(&Path) -> Listener + Send + 'static,
    ) -> (Self, Option<std::net::SocketAddr>) {
        let dir = tempfile::tempdir().unwrap();
        let device = Arc::new(device);
        let export =
            Export { name: "vms/disk".into(), description: "a test disk".into(), device: device.clone() };
        let server = Server::new(vec![export]).unwrap();
        let stop = Arc::new(Notify::new());
        let (ready, listening) = std::sync::mpsc::channel();
        let (path, stopped) = (dir.path().to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = listen(&path);
                ready.send(listener.local_addr()).unwrap();
                server.run(listener, stopped.notified()).await;
            });
        });
        let addr = listening.recv().expect("the server listens");
        (Served { device, dir, stop, thread: Some(thread) }, addr)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("nbd.sock")
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///vms%2Fdisk?socket={}", self.socket().display())
    }

    /// Asks it to stop without waiting.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until it has stopped.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

/// Runs a tool to its end.
pub fn run(tool: &str, arguments: &[&str]) -> Output {
    let packages = "fio libnbd-bin qemu-utils e2fsprogs";
    Command::new(tool).args(arguments).output().unwrap_or_else(|error| {
        panic!("this test needs `{tool}` ({error}): run ./test as root, or `apt-get install {packages}`")
    })
}

/// Runs a tool that must succeed, and gives what it printed.
pub fn succeed(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments);
    assert!(
        output.status.success(),
        "{tool} {arguments:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
