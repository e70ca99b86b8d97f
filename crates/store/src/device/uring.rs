//! Queued operations by io_uring.
//!
//! A durable write is a write and, when that is done, an fdatasync: `docs/decisions/store-device.md`
//! has the figures. The two are not linked in the ring: a chain that the kernel takes only half of is
//! cut, and the flush would run before its write.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::event::EventfdFlags;
use rustix::fs::Timespec;
use rustix::thread::futex;

use super::file::{FileMedium, PUNCH};
use super::{AlignedBuf, Completion, Io, Wait, Waker};

/// `user_data` of the read that waits for the waker.
const WAKE: u64 = u64::MAX;
/// The registered file's number.
const FILE: types::Fixed = types::Fixed(0);
/// Times one operation is queued again after EAGAIN or EINTR before its error is reported.
const RETRIES: u8 = 32;

/// Reads and large writes are handed to the kernel without waiting for the next poll when what is queued is this share
/// (1 / n) of what it has already: the medium works while the rest is made. At depth 32 that is some ten system calls
/// in place of one, and a third more 4 KiB reads a second.
const SUBMIT_SHARE: usize = 2;
/// From so many bytes on a write is large. Smaller ones are records, which come one at a time, and blocks put in place,
/// for which nobody waits: they go together.
const LARGE_WRITE_LEN: usize = 64 << 10;

// States of the sleeper. A wake costs a system call only while it sleeps.
const AWAKE: u32 = 0;
/// In the ring, which reads the waker's eventfd.
const ASLEEP: u32 = 1;
const WOKEN: u32 = 2;
/// On the state itself, with nothing in the ring that could end: for both sides some microseconds less than the
/// eventfd.
const PARKED: u32 = 3;

pub(super) struct UringQueue {
    ring: IoUring,
    medium: Arc<FileMedium>,
    slots: Vec<Option<InFlight>>,
    free: Vec<usize>,
    /// Found wrong, or without effect, before the kernel was asked.
    early: VecDeque<Completion>,
    waker: Arc<UringWaker>,
    /// Where the kernel puts the eventfd's counter. On the heap: it must not move while the ring
    /// reads into it.
    wake_count: Box<[u8; 8]>,
    wake_armed: bool,
}

struct InFlight {
    tag: u64,
    io: Io,
    /// Bytes of `io`'s buffer already transferred.
    done: usize,
    /// A durable write is on the medium and its flush is under way.
    syncing: bool,
    retries: u8,
}

struct UringWaker {
    state: AtomicU32,
    event: OwnedFd,
}

impl UringQueue {
    pub(super) fn new(medium: Arc<FileMedium>, entries: usize) -> io::Result<Self> {
        // One more for the waker's read.
        let ring_entries = u32::try_from((entries + 1).next_power_of_two()).map_err(io::Error::other)?;
        let ring = build(ring_entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Fallocate::CODE];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_files(&[medium.fd().as_raw_fd()])?;
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(UringQueue {
            ring,
            medium,
            slots: (0..entries).map(|_| None).collect(),
            free: (0..entries).rev().collect(),
            early: VecDeque::new(),
            waker: Arc::new(UringWaker { state: AtomicU32::new(AWAKE), event }),
            wake_count: Box::default(),
            wake_armed: false,
        })
    }

    pub(super) fn submit(&mut self, tag: u64, io: Io) {
        let (write, discard) = match &io {
            Io::Write { offset, buf, .. } => (Some((*offset, buf.len() as u64)), false),
            Io::Discard { offset, len } => (Some((*offset, *len)), true),
            Io::Read { .. } | Io::Flush => (None, false),
        };
        let refused = write.and_then(|(offset, len)| self.medium.check_write(offset, len).err());
        if refused.is_some() || (discard && !super::BlockingDevice::geometry(&*self.medium).discard) {
            self.early.push_back(completion(tag, io, refused.map_or(Ok(()), Err)));
            return;
        }
        let slot = self.free.pop().expect("the caller keeps to the bound of the queue");
        let is_pressing = match &io {
            Io::Read { .. } => true,
            Io::Write { buf, .. } => buf.len() >= LARGE_WRITE_LEN,
            Io::Flush | Io::Discard { .. } => false,
        };
        self.slots[slot] = Some(InFlight { tag, io, done: 0, syncing: false, retries: 0 });
        self.push_slot(slot);
        if !is_pressing {
            return;
        }
        let queued = self.ring.submission().len();
        let under_way = (self.slots.len() - self.free.len()).saturating_sub(queued);
        if queued * SUBMIT_SHARE >= under_way {
            // What is wrong with the ring, the next poll will tell.
            let _ = self.enter(0);
        }
    }

    pub(super) fn poll(&mut self, wait: Wait, done: &mut Vec<Completion>) -> io::Result<()> {
        let before = done.len();
        done.extend(self.early.drain(..));
        self.enter_if_useful()?;
        self.collect(done);
        if wait == Wait::No {
            // What `collect` queued again must not wait for the next call. A wake is left for the
            // next sleep.
            return self.enter_if_useful();
        }
        if done.len() > before {
            self.waker.state.store(AWAKE, Ordering::SeqCst);
            return self.enter_if_useful();
        }
        if self.in_flight() == 0 {
            self.waker.park(wait);
            return self.enter_if_useful();
        }
        loop {
            // Every time: the last one may have gone to a wake that came after its sleep.
            self.arm_wake();
            if self.waker.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                // Woken before it slept: no eventfd was written.
                self.waker.state.store(AWAKE, Ordering::SeqCst);
                return self.enter_if_useful();
            }
            let entered = self.enter(1);
            let woken = self.waker.state.swap(AWAKE, Ordering::SeqCst) == WOKEN;
            entered?;
            self.collect(done);
            if woken || done.len() > before {
                return self.enter_if_useful();
            }
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len() + self.early.len()
    }

    pub(super) fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    /// Enters the kernel when something is queued for it, or when it has completions that it posts
    /// only there.
    fn enter_if_useful(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        let useful = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if useful { self.enter(0) } else { Ok(()) }
    }

    /// Hands over what is queued and waits for `want` completions.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(want) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // Completions have to be collected, or the kernel is short of memory, before it takes
                // more. What it did not take stays queued for the next call.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        let fd = types::Fd(self.waker.event.as_raw_fd());
        let entry = opcode::Read::new(fd, self.wake_count.as_mut_ptr(), 8).build().user_data(WAKE);
        self.wake_armed = true;
        self.push(entry);
    }

    fn push_slot(&mut self, slot: usize) {
        let flight = self.slots[slot].as_mut().expect("a slot in use");
        let done = flight.done;
        let entry = match &mut flight.io {
            Io::Read { offset, buf } => {
                let rest = &mut buf[done..];
                opcode::Read::new(FILE, rest.as_mut_ptr(), length(rest)).offset(*offset + done as u64).build()
            }
            Io::Write { offset, buf, .. } if !flight.syncing => {
                let rest = &buf[done..];
                opcode::Write::new(FILE, rest.as_ptr(), length(rest)).offset(*offset + done as u64).build()
            }
            Io::Write { .. } | Io::Flush => {
                opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build()
            }
            Io::Discard { offset, len } => {
                opcode::Fallocate::new(FILE, *len).offset(*offset).mode(PUNCH.bits() as i32).build()
            }
        };
        self.push(entry.user_data(slot as u64));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the entry's memory is a buffer in `slots` or `wake_count`; both stay where they are
        // until the completion is collected, which `drop` waits for, and nobody touches them before.
        unsafe { self.ring.submission().push(&entry) }
            .expect("the ring has room for the bound and the waker");
    }

    fn collect(&mut self, done: &mut Vec<Completion>) {
        // `collect` may queue again while it goes through the completions.
        while let Some(entry) = self.next_completion() {
            if entry.user_data() == WAKE {
                self.wake_armed = false;
                continue;
            }
            let slot = entry.user_data() as usize;
            let flight = self.slots[slot].as_mut().expect("a completion of something in flight");
            match flight.advance(entry.result()) {
                Some(result) => {
                    let flight = self.slots[slot].take().expect("seen above");
                    self.free.push(slot);
                    done.push(completion(flight.tag, flight.io, result));
                }
                None => self.push_slot(slot),
            }
        }
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

/// A ring whose completions are taken by the thread that made it, when it asks for them: nothing interrupts it.
fn build(entries: u32) -> io::Result<IoUring> {
    let deferred =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(entries);
    match deferred {
        // Kernels before 6.1.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(entries)
        }
        built => built,
    }
}

impl InFlight {
    /// Takes what the kernel returned; `None` when the operation has to go on.
    fn advance(&mut self, returned: i32) -> Option<io::Result<()>> {
        if returned < 0 {
            if matches!(-returned, libc::EINTR | libc::EAGAIN) && self.retries < RETRIES {
                self.retries += 1;
                return None;
            }
            return Some(Err(io::Error::from_raw_os_error(-returned)));
        }
        let (len, at_end, durable) = match &self.io {
            _ if self.syncing => return Some(Ok(())),
            Io::Read { buf, .. } => (buf.len(), io::ErrorKind::UnexpectedEof, false),
            Io::Write { buf, durable, .. } => (buf.len(), io::ErrorKind::WriteZero, *durable),
            Io::Flush | Io::Discard { .. } => return Some(Ok(())),
        };
        self.done += returned as usize;
        match returned {
            _ if self.done >= len && durable => {
                self.syncing = true;
                None
            }
            _ if self.done >= len => Some(Ok(())),
            0 => Some(Err(at_end.into())),
            _ => None,
        }
    }
}

impl Drop for UringQueue {
    /// Waits for everything in flight: the kernel writes into memory that is about to be freed.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.in_flight() > self.early.len() || self.wake_armed {
            if self.wake_armed {
                self.waker.signal();
            }
            if let Err(error) = self.enter(1) {
                // The ring is broken. Leaking the buffers is the only safe way left.
                tracing::error!(%error, path = %self.medium.path().display(), "cannot drain io_uring");
                std::mem::forget(std::mem::take(&mut self.slots));
                std::mem::forget(std::mem::take(&mut self.wake_count));
                return;
            }
            self.collect(&mut done);
        }
    }
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringQueue").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

fn completion(tag: u64, io: Io, result: io::Result<()>) -> Completion {
    let buf: Option<AlignedBuf> = match io {
        Io::Read { buf, .. } => Some(buf),
        Io::Write { buf, .. } => buf.into_own(),
        Io::Flush | Io::Discard { .. } => None,
    };
    Completion { tag, buf, result }
}

/// What one entry can carry; the rest follows as after any short transfer.
fn length(rest: &[u8]) -> u32 {
    u32::try_from(rest.len()).unwrap_or(1 << 30)
}

impl UringWaker {
    /// Sleeps until the next wake, or not at all if that came before.
    fn park(&self, wait: Wait) {
        let limit = match wait {
            Wait::EventFor(most) => Timespec::try_from(most).ok(),
            Wait::Event | Wait::No => None,
        };
        let parked = self.state.compare_exchange(AWAKE, PARKED, Ordering::SeqCst, Ordering::SeqCst);
        while parked.is_ok() && self.state.load(Ordering::SeqCst) == PARKED {
            // Woken, interrupted, or changed before it slept: the state tells.
            let slept = futex::wait(&self.state, futex::Flags::PRIVATE, PARKED, limit.as_ref());
            if slept == Err(rustix::io::Errno::TIMEDOUT) {
                break;
            }
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    fn signal(&self) {
        // Fails only when the counter is full, and then the sleeper is awake long since.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl Waker for UringWaker {
    fn wake(&self) {
        match self.state.swap(WOKEN, Ordering::SeqCst) {
            ASLEEP => self.signal(),
            PARKED => {
                // Fails only for a bad address.
                let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
            }
            _ => {}
        }
    }
}

impl fmt::Debug for UringWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UringWaker")
    }
}
