//! A regular file or a block device as the medium.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, StatxFlags};
use rustix::io::Errno;

use super::threads::ThreadQueue;
use super::uring::UringQueue;
use super::{AlignedBuf, BlockingDevice, BufferPool, Completion, Device, Geometry, Io, Wait, Waker};

/// Operations in flight at once. NVMe and virtio disks reach their rate well below it; more would
/// only wait in the block layer, where it cannot be sorted or joined any more.
pub const QUEUE_ENTRIES: usize = 128;
/// Largest aligned piece that an unaligned caller's transfer is cut into.
const BOUNCE_BYTES: usize = 1 << 20;
/// Writes of [`BlockingDevice::write_each`] at once. A virtual disk is at half its rate for 4 KiB by then, and the
/// queue of the running store is not crowded out.
const WRITERS: usize = 16;
/// Idle memory kept for bounces.
const BOUNCE_POOL_BYTES: usize = 8 << 20;

/// Why a medium could not be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused; the kind says why.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process (or another handle of this one) has it.
    #[error("{path} is in use by another process; stop that process first", path = .0.display())]
    InUse(PathBuf),
    /// A directory, a socket …
    #[error("{path} is neither a regular file nor a block device", path = .0.display())]
    NotStorage(PathBuf),
    /// Direct I/O would need operations larger than 4 KiB.
    #[error("{path} wants direct I/O in units of {unit_bytes} bytes; at most 4096 are supported", path = path.display())]
    Unit {
        /// On what.
        path: PathBuf,
        /// The unit.
        unit_bytes: u32,
    },
}

/// How the medium may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// By one handle alone.
    ReadWrite,
    /// By any number of readers at once, while nobody writes.
    ReadOnly,
}

/// Which mechanism carries queued operations.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum QueueKind {
    /// io_uring, or threads where the kernel or a sandbox forbids it (logged).
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Plain threads.
    Threads,
}

/// An open medium: the blocking side of a [`FileDevice`], and all that offline tools need. The lock
/// is held until the last clone of its `Arc` is gone.
pub struct FileMedium {
    file: File,
    path: PathBuf,
    geometry: Geometry,
    /// Transfers bypass the page cache.
    direct: bool,
    bounce: BufferPool,
    /// Held while a sector is read, patched and written back.
    patching: Mutex<()>,
}

impl FileMedium {
    /// Opens and locks an existing file or block device.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, access: Access) -> Result<Arc<Self>, OpenError> {
        let system = |action| move |source| OpenError::System { action, path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(system("open"))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotStorage(path.to_owned()));
        }
        // O_EXCL without O_CREAT claims a block device against mounts and other claims.
        let claim = if kind.is_block_device() && access == Access::ReadWrite { libc::O_EXCL } else { 0 };
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(access == Access::ReadWrite)
                .custom_flags(flags | claim)
                .open(path)
        };
        let (file, direct) = match open(libc::O_DIRECT) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => (open(0), false),
            opened => (opened, true),
        };
        let file = file.map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::BUSY) => OpenError::InUse(path.to_owned()),
            _ => system("open")(source),
        })?;
        let lock = match access {
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        };
        rustix::fs::flock(&file, lock).map_err(|error| match error {
            Errno::WOULDBLOCK => OpenError::InUse(path.to_owned()),
            error => system("lock")(error.into()),
        })?;
        if !direct {
            tracing::warn!(path = %path.display(), "no direct I/O on this file system: going through the page cache");
        }
        let geometry = geometry(&file, kind.is_block_device(), direct, access).map_err(system("examine"))?;
        if geometry.sector_bytes > 4096 {
            return Err(OpenError::Unit { path: path.to_owned(), unit_bytes: geometry.sector_bytes });
        }
        Ok(Arc::new(FileMedium {
            file,
            path: path.to_owned(),
            geometry,
            direct,
            bounce: BufferPool::new(BOUNCE_POOL_BYTES),
            patching: Mutex::new(()),
        }))
    }

    /// Makes a regular file of the given length, all holes, and opens it.
    ///
    /// # Errors
    /// [`OpenError`]; one that exists is refused.
    pub fn create(path: &Path, len_bytes: u64) -> Result<Arc<Self>, OpenError> {
        let system = |source| OpenError::System { action: "create", path: path.to_owned(), source };
        let file = File::create_new(path).map_err(system)?;
        file.set_len(len_bytes).and_then(|()| file.sync_all()).map_err(system)?;
        // The name has to survive a power cut too.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(system)?;
        FileMedium::open(path, Access::ReadWrite)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether transfers bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Fills an aligned buffer, however many calls it takes.
    pub(super) fn read_aligned(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Writes an aligned buffer, however many calls it takes. Durable is an fdatasync after it, which
    /// was measured to be faster than RWF_DSYNC: `docs/decisions/store-device.md`.
    pub(super) fn write_aligned(&self, offset: u64, buf: &[u8], durable: bool) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pwrite(&self.file, &buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if durable { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        loop {
            match rustix::fs::fdatasync(&self.file) {
                Err(Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }

    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.geometry.discard {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, PUNCH, offset, len) {
                Err(Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }

    /// The write would grow a regular file, which has the length the store was made with.
    pub(super) fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.geometry.len_bytes => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn aligned_start(&self, offset: u64) -> u64 {
        offset - offset % u64::from(self.geometry.sector_bytes)
    }

    fn aligned_end(&self, end: u64) -> u64 {
        end.next_multiple_of(self.geometry.sector_bytes.into())
    }
}

/// Frees space and keeps the length. On a block device the kernel turns it into a write of zeros
/// that unmaps, so that file and device take one path and io_uring knows both.
pub(super) const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

fn geometry(file: &File, block_device: bool, direct: bool, access: Access) -> io::Result<Geometry> {
    let len_bytes = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?;
    let mut sector_bytes = 512;
    if block_device {
        // A sector of 512 bytes on a medium of 4096 is torn with its neighbours.
        sector_bytes = rustix::fs::ioctl_blksszget(file)?
            .max(rustix::fs::ioctl_blkpbszget(file).unwrap_or(512))
            .min(4096);
    } else if direct {
        sector_bytes = direct_unit(file)?.max(512);
        if let Some(physical) = physical_sector(file) {
            sector_bytes = sector_bytes.max(physical.min(4096));
        }
    }
    let discard = access == Access::ReadWrite
        && if block_device {
            device_number(file, true)
                .and_then(|device| queue_setting(device, "write_zeroes_max_bytes"))
                .unwrap_or(0)
                > 0
        } else {
            // Past the end there is nothing to lose: only whether it is supported is learnt.
            rustix::fs::fallocate(file, PUNCH, len_bytes.next_multiple_of(4096), 4096).is_ok()
        };
    // The tail of a file that is no whole number of sectors cannot be used.
    let len_bytes = len_bytes - len_bytes % u64::from(sector_bytes);
    Ok(Geometry { len_bytes, sector_bytes, discard, memory_align_bytes: memory_align_bytes(file) })
}

/// Where memory for direct I/O may lie: what the kernel says, else at pages.
fn memory_align_bytes(file: &File) -> u32 {
    let asked = StatxFlags::DIOALIGN;
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, asked);
    let told = stat.ok().filter(|stat| stat.stx_mask & asked.bits() != 0).map(|stat| stat.stx_dio_mem_align);
    told.filter(|align| align.is_power_of_two() && *align <= 4096).unwrap_or(4096)
}

/// The unit of direct I/O on a regular file: what the kernel says, else what a read accepts.
fn direct_unit(file: &File) -> io::Result<u32> {
    let asked = StatxFlags::DIOALIGN;
    if let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, asked)
        && stat.stx_mask & asked.bits() != 0
        && stat.stx_dio_offset_align != 0
    {
        return Ok(stat.stx_dio_offset_align);
    }
    let mut buf = AlignedBuf::new(4096);
    match rustix::io::pread(file, &mut buf[..512], 512) {
        Err(Errno::INVAL) => Ok(4096),
        Ok(_) => Ok(512),
        Err(error) => Err(error.into()),
    }
}

/// The physical sector of the disk under a file system, where there is exactly one.
fn physical_sector(file: &File) -> Option<u32> {
    queue_setting(device_number(file, false)?, "physical_block_size")
        .and_then(|bytes| u32::try_from(bytes).ok())
}

fn device_number(file: &File, of_the_file_itself: bool) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some(if of_the_file_itself {
        (stat.stx_rdev_major, stat.stx_rdev_minor)
    } else {
        (stat.stx_dev_major, stat.stx_dev_minor)
    })
}

/// A number from the block queue of a device or, for a partition, of its disk.
fn queue_setting((major, minor): (u32, u32), name: &str) -> Option<u64> {
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

impl Drop for FileMedium {
    fn drop(&mut self) {
        // Closing is not enough: the kernel keeps a ring's registered file, and with it the lock, for
        // a while after the ring is closed. Nothing can be done about a failure, and closing follows.
        let _ = rustix::fs::flock(&self.file, FlockOperation::NonBlockingUnlock);
    }
}

impl BlockingDevice for FileMedium {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match offset.checked_add(out.len() as u64) {
            Some(end) if end <= self.geometry.len_bytes => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let mut done = 0;
        while done < out.len() {
            let from = offset + done as u64;
            let start = self.aligned_start(from);
            let skip = (from - start) as usize;
            let take = (out.len() - done).min(BOUNCE_BYTES - skip);
            let mut buf = self.bounce.get(skip + take);
            buf.set_len((self.aligned_end(from + take as u64) - start) as usize);
            self.read_aligned(start, &mut buf)?;
            out[done..done + take].copy_from_slice(&buf[skip..skip + take]);
            done += take;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let mut done = 0;
        while done < data.len() {
            let from = offset + done as u64;
            let start = self.aligned_start(from);
            let skip = (from - start) as usize;
            let take = (data.len() - done).min(BOUNCE_BYTES - skip);
            let len = (self.aligned_end(from + take as u64) - start) as usize;
            let mut buf = self.bounce.get(len);
            buf.set_len(len);
            let whole = skip == 0 && take == len;
            let _patching = (!whole).then(|| self.patching.lock().unwrap_or_else(PoisonError::into_inner));
            if !whole {
                self.read_aligned(start, &mut buf)?;
            }
            buf[skip..skip + take].copy_from_slice(&data[done..done + take]);
            self.write_aligned(start, &buf, false)?;
            done += take;
        }
        Ok(())
    }

    fn write_each(&self, pieces: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let write = || -> io::Result<()> {
            while let Some((offset, data)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.write_at(*offset, data)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            for _ in 1..WRITERS.min(pieces.len()) {
                // With fewer threads, down to this one alone, it takes longer.
                let Ok(writer) = std::thread::Builder::new().spawn_scoped(scope, write) else { break };
                others.push(writer);
            }
            let own = write();
            others.into_iter().map(|writer| writer.join()).fold(own, |all, one| {
                all.and(one.unwrap_or_else(|payload| std::panic::resume_unwind(payload)))
            })
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }
}

impl fmt::Debug for FileMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMedium").field("path", &self.path).field("geometry", &self.geometry).finish()
    }
}

/// A file or block device with a queue: what a running store owns.
/// Used and dropped on the thread that made it: from Linux 6.1 on its ring refuses any other.
#[derive(Debug)]
pub struct FileDevice {
    medium: Arc<FileMedium>,
    queue: Queue,
}

#[derive(Debug)]
enum Queue {
    Uring(Box<UringQueue>),
    Threads(ThreadQueue),
}

impl FileDevice {
    /// Opens and locks an existing file or block device for reading and writing.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        FileDevice::new(FileMedium::open(path, Access::ReadWrite)?, QueueKind::Auto)
    }

    /// Puts a queue before an open medium.
    ///
    /// # Errors
    /// When threads cannot be started, or io_uring was asked for and is not to be had.
    pub fn new(medium: Arc<FileMedium>, kind: QueueKind) -> Result<Self, OpenError> {
        let system = |action| {
            let path = medium.path.clone();
            move |source| OpenError::System { action, path, source }
        };
        let queue = match kind {
            QueueKind::Threads => None,
            QueueKind::Uring | QueueKind::Auto => match UringQueue::new(Arc::clone(&medium), QUEUE_ENTRIES) {
                Ok(queue) => Some(Queue::Uring(Box::new(queue))),
                Err(source) if kind == QueueKind::Uring => return Err(system("start io_uring for")(source)),
                Err(error) => {
                    tracing::warn!(path = %medium.path.display(), %error, "no io_uring here: using threads");
                    None
                }
            },
        };
        let queue = match queue {
            Some(queue) => queue,
            None => Queue::Threads(
                ThreadQueue::new(Arc::clone(&medium), QUEUE_ENTRIES).map_err(system("start threads for"))?,
            ),
        };
        Ok(FileDevice { medium, queue })
    }

    /// The open medium.
    pub fn medium(&self) -> &Arc<FileMedium> {
        &self.medium
    }

    /// Whether queued operations go through io_uring.
    pub fn is_uring(&self) -> bool {
        matches!(self.queue, Queue::Uring(_))
    }

    fn check(&self, io: &Io) {
        let (offset, len) = match io {
            Io::Read { offset, buf } => (*offset, buf.len() as u64),
            Io::Write { offset, buf, .. } => {
                let align = self.medium.geometry.memory_align_bytes as usize;
                let address = buf.as_ptr().addr();
                assert!(address.is_multiple_of(align), "memory at {address:#x} is not aligned to {align}");
                (*offset, buf.len() as u64)
            }
            Io::Discard { offset, len } => (*offset, *len),
            Io::Flush => return,
        };
        let sector = u64::from(self.medium.geometry.sector_bytes);
        assert!(
            offset.is_multiple_of(sector) && len.is_multiple_of(sector) && len > 0,
            "operation at {offset} of {len} bytes is not aligned to {sector}"
        );
    }
}

impl Device for FileDevice {
    fn geometry(&self) -> Geometry {
        self.medium.geometry
    }

    fn room(&self) -> usize {
        QUEUE_ENTRIES - self.in_flight()
    }

    fn submit(&mut self, tag: u64, io: Io) {
        self.check(&io);
        assert!(self.room() > 0, "the device's queue is full");
        match &mut self.queue {
            Queue::Uring(queue) => queue.submit(tag, io),
            Queue::Threads(queue) => queue.submit(tag, io),
        }
    }

    fn poll(&mut self, wait: Wait, done: &mut Vec<Completion>) -> io::Result<()> {
        match &mut self.queue {
            Queue::Uring(queue) => queue.poll(wait, done),
            Queue::Threads(queue) => queue.poll(wait, done),
        }
    }

    fn in_flight(&self) -> usize {
        match &self.queue {
            Queue::Uring(queue) => queue.in_flight(),
            Queue::Threads(queue) => queue.in_flight(),
        }
    }

    fn write_durable_now(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        self.medium.check_write(offset, buf.len() as u64)?;
        self.medium.write_aligned(offset, buf, true)
    }

    fn waker(&self) -> Arc<dyn Waker> {
        match &self.queue {
            Queue::Uring(queue) => queue.waker(),
            Queue::Threads(queue) => queue.waker(),
        }
    }

    fn blocking(&self) -> Arc<dyn BlockingDevice> {
        Arc::clone(&self.medium) as Arc<dyn BlockingDevice>
    }
}
