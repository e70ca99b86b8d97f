//! A device in memory that does what real ones do on their worst day, the same way every time.
//!
//! It keeps apart what a reader sees and what a power cut leaves, records every write, discard and
//! flush, and fails by explicit rules. [`SimHandle::recording`] with [`Walker`] gives the image of a
//! power cut at every boundary of a run, without running it again.

mod fault;
mod image;
mod medium;
mod rng;

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use fault::{Fault, FaultRule, OpKind};
pub use image::Image;
pub use medium::{Cut, Event, FlushOutcome, Medium, OpId, Payload, Recording, Walker};
pub use rng::SplitMix64;

use super::{AlignedBuf, BlockingDevice, Completion, Device, Geometry, Io, Wait, Waker};
use fault::FaultPlan;

/// Operations a simulated device takes at once by default: as many as a file's queue.
const QUEUE_ENTRIES: usize = 128;
/// Operations are whole multiples of this, whatever the device's own sector is.
const SECTOR_LEAST: usize = 512;
/// What a discarded range reads as: not zeros, for nobody may rely on its content.
const DISCARDED: u8 = 0xdd;

/// How a simulated device behaves when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Alignment of operations, and what a power cut does not tear: 512 or 4096.
    pub sector_bytes: u32,
    /// Whether discards do anything.
    pub discard: bool,
    /// Bound of the queue.
    pub queue_entries: usize,
    /// With a seed, queued operations complete a few at a time in random order; without, all of
    /// them in order at the next poll.
    pub shuffle: Option<u64>,
    /// Keep the events for [`SimHandle::recording`]. Costs the memory of everything written.
    pub record: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            sector_bytes: 512,
            discard: true,
            queue_entries: QUEUE_ENTRIES,
            shuffle: None,
            record: false,
        }
    }
}

/// Operations a device has done, for figures such as write amplification.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SimStats {
    /// Reads.
    pub reads: u64,
    /// Bytes they asked for.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes they brought.
    pub written_bytes: u64,
    /// Flushes and syncs.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
}

/// The queued side of a simulated medium.
#[derive(Debug)]
pub struct SimDevice {
    shared: Arc<Shared>,
    waker: Arc<SimWaker>,
}

/// Looks at a simulated medium and hurts it, while or after the store uses it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SimHandle {
    shared: Arc<Shared>,
}

struct Shared {
    geometry: Geometry,
    queue_entries: usize,
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    /// What readers see.
    visible: Image,
    /// What a power cut leaves.
    medium: Medium,
    base: Option<Image>,
    events: Vec<Event>,
    event_count: u64,
    queue: Vec<Queued>,
    shuffle: Option<SplitMix64>,
    faults: FaultPlan,
    stats: SimStats,
    next_id: OpId,
    wake: bool,
}

struct Queued {
    tag: u64,
    id: OpId,
    io: Io,
    fault: Option<Fault>,
    /// Polls it is still held back for.
    held: u32,
}

impl SimDevice {
    /// A device of zeros.
    pub fn new(len_bytes: u64, options: SimOptions) -> Self {
        SimDevice::from_image(Image::zeroed(len_bytes), options)
    }

    /// A device that holds an image, all of it stable.
    ///
    /// # Panics
    /// When the image is not a whole number of sectors.
    pub fn from_image(image: Image, options: SimOptions) -> Self {
        assert!(image.len_bytes().is_multiple_of(options.sector_bytes.into()), "whole sectors");
        let shared = Arc::new(Shared {
            geometry: Geometry {
                len_bytes: image.len_bytes(),
                sector_bytes: options.sector_bytes,
                discard: options.discard,
                memory_align_bytes: 1,
            },
            queue_entries: options.queue_entries,
            state: Mutex::new(State {
                visible: image.clone(),
                base: options.record.then(|| image.clone()),
                medium: Medium::new(image, options.sector_bytes),
                events: Vec::new(),
                event_count: 0,
                queue: Vec::new(),
                shuffle: options.shuffle.map(SplitMix64::new),
                faults: FaultPlan::default(),
                stats: SimStats::default(),
                next_id: 0,
                wake: false,
            }),
            woken: Condvar::new(),
        });
        SimDevice { waker: Arc::new(SimWaker { shared: Arc::clone(&shared) }), shared }
    }

    /// A handle on the medium that outlives the device.
    pub fn handle(&self) -> SimHandle {
        SimHandle { shared: Arc::clone(&self.shared) }
    }
}

impl SimHandle {
    /// Another queue on the same medium, as the next process has it when the last one was killed: what was
    /// written is there to be read, and no more stable than it was.
    pub fn reopen(&self) -> SimDevice {
        let shared = Arc::clone(&self.shared);
        SimDevice { waker: Arc::new(SimWaker { shared: Arc::clone(&shared) }), shared }
    }

    /// Adds a rule, after those that are there.
    pub fn inject(&self, rule: FaultRule) {
        self.shared.lock().faults.0.push(rule);
    }

    /// Removes all rules.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.0.clear();
    }

    /// Flips one bit at rest: what is read from now on and what a power cut leaves.
    pub fn rot(&self, offset: u64, bit: u32) {
        let mut byte = [0];
        let mut state = self.shared.lock();
        state.visible.read(offset, &mut byte);
        state.scribble(offset, &[byte[0] ^ (1 << (bit % 8))]);
    }

    /// Puts bytes on the medium behind everyone's back.
    pub fn scribble(&self, offset: u64, bytes: &[u8]) {
        self.shared.lock().scribble(offset, bytes);
    }

    /// What a reader would see now.
    pub fn image(&self) -> Image {
        self.shared.lock().visible.clone()
    }

    /// The image that a power cut now would leave.
    pub fn power_cut(&self, cut: &Cut) -> Image {
        self.shared.lock().medium.cut(cut)
    }

    /// Writes that a power cut now may lose, tear or reorder.
    pub fn unstable(&self) -> usize {
        self.shared.lock().medium.unstable()
    }

    /// Events so far, recorded or not.
    pub fn event_count(&self) -> u64 {
        self.shared.lock().event_count
    }

    /// What happened since the device was made.
    ///
    /// # Panics
    /// When the device was not told to record.
    pub fn recording(&self) -> Recording {
        let state = self.shared.lock();
        Recording {
            base: state.base.clone().expect("a device made with `record`"),
            sector_bytes: self.shared.geometry.sector_bytes,
            events: state.events.clone(),
        }
    }

    /// Operations done so far.
    pub fn stats(&self) -> SimStats {
        self.shared.lock().stats
    }

    /// The blocking side of the medium.
    pub fn blocking(&self) -> Arc<dyn BlockingDevice> {
        Arc::new(SimBlocking { shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a failed test; what it left is still the best there is to see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_range(&self, offset: u64, len: u64, past_end: io::ErrorKind) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.geometry.len_bytes => Ok(()),
            _ => Err(past_end.into()),
        }
    }

    fn assert_aligned(&self, offset: u64, len: u64) {
        let sector = u64::from(self.geometry.sector_bytes);
        assert!(
            offset.is_multiple_of(sector) && len.is_multiple_of(sector) && len > 0,
            "operation at {offset} of {len} bytes is not aligned to {sector}"
        );
    }
}

impl State {
    fn event(&mut self, event: Event) {
        self.medium.apply(&event);
        self.event_count += 1;
        if self.base.is_some() {
            self.events.push(event);
        }
    }

    fn scribble(&mut self, offset: u64, bytes: &[u8]) {
        self.visible.write(offset, bytes);
        self.medium.stable_mut().write(offset, bytes);
    }

    fn new_id(&mut self) -> OpId {
        self.next_id += 1;
        self.next_id
    }

    /// Queued operations that would race with this one: the device's first rule.
    fn assert_no_overlap(&self, offset: u64, len: u64, writes: bool) {
        for queued in &self.queue {
            let Some((other, other_len, other_writes)) = range_of(&queued.io) else { continue };
            assert!(
                !(writes && other_writes) || other + other_len <= offset || offset + len <= other,
                "operation at {offset} of {len} bytes overlaps one in flight at {other} of {other_len} bytes"
            );
        }
    }

    fn begin(&mut self, io: &Io, len_bytes: u64) -> (OpId, Option<Fault>) {
        let id = self.new_id();
        let (offset, len, _) = range_of(io).unwrap_or((0, 0, false));
        let kind = match io {
            Io::Read { .. } => OpKind::Read,
            Io::Write { .. } => OpKind::Write,
            Io::Flush => OpKind::Flush,
            Io::Discard { .. } => OpKind::Discard,
        };
        let fault = self.faults.strike(kind, offset, len);
        if kind != OpKind::Flush && offset.checked_add(len).is_none_or(|end| end > len_bytes) {
            return (id, fault); // fails in `finish` and touches nothing
        }
        match io {
            Io::Read { .. } => {
                self.stats.reads += 1;
                self.stats.read_bytes += len;
            }
            Io::Write { buf, durable, .. } => {
                self.stats.writes += 1;
                self.stats.written_bytes += len;
                self.begin_write(id, offset, &buf[..], *durable, fault, len_bytes);
            }
            Io::Flush => {
                self.stats.flushes += 1;
                self.event(Event::Flush { id });
            }
            Io::Discard { .. } => {
                self.stats.discards += 1;
                if fault != Some(Fault::Lie) {
                    let payload = Payload::Fill(len, DISCARDED);
                    self.event(Event::Write { id, offset, payload, durable: false });
                }
            }
        }
        (id, fault)
    }

    fn begin_write(
        &mut self,
        id: OpId,
        offset: u64,
        bytes: &[u8],
        durable: bool,
        fault: Option<Fault>,
        end: u64,
    ) {
        let offset = match fault {
            Some(Fault::Lie) => return,
            Some(Fault::Misdirect(elsewhere)) => elsewhere.min(end - bytes.len() as u64),
            _ => offset,
        };
        let durable = durable && fault != Some(Fault::Volatile);
        self.event(Event::Write { id, offset, payload: Payload::Bytes(bytes.into()), durable });
    }

    /// Completes an operation: what it reports, and its effect on what readers see.
    fn finish(&mut self, id: OpId, io: &mut Io, fault: Option<Fault>, len_bytes: u64) -> io::Result<()> {
        if let Some((offset, len, writes)) = range_of(io)
            && offset.checked_add(len).is_none_or(|end| end > len_bytes)
        {
            let kind = if writes { io::ErrorKind::WriteZero } else { io::ErrorKind::UnexpectedEof };
            return Err(kind.into());
        }
        let result = fault.map_or(Ok(()), Fault::error);
        match io {
            Io::Read { offset, buf } => self.finish_read(*offset, buf, fault),
            Io::Write { .. } | Io::Discard { .. } if fault == Some(Fault::Lie) => {}
            Io::Write { offset, buf, .. } => {
                if let (Ok(()), Some(Fault::Misdirect(elsewhere))) = (&result, fault) {
                    self.visible.write(elsewhere.min(len_bytes - buf.len() as u64), buf);
                } else if result.is_ok() {
                    self.visible.write(*offset, buf);
                }
                self.event(Event::WriteDone { id, ok: result.is_ok() });
            }
            Io::Discard { offset, len } => {
                if result.is_ok() {
                    self.visible.fill(*offset, *len, DISCARDED);
                }
                self.event(Event::WriteDone { id, ok: result.is_ok() });
            }
            Io::Flush => {
                let outcome = match fault {
                    Some(Fault::Lie) => FlushOutcome::Lied,
                    _ if result.is_err() => FlushOutcome::Failed,
                    _ => FlushOutcome::Done,
                };
                self.event(Event::FlushDone { id, outcome });
            }
        }
        result
    }

    fn finish_read(&mut self, offset: u64, out: &mut [u8], fault: Option<Fault>) {
        match fault {
            Some(Fault::Error(_) | Fault::Lie) => {}
            Some(Fault::FlipBit(bit)) => {
                self.visible.read(offset, out);
                let at = (bit / 8) as usize % out.len();
                out[at] ^= 1 << (bit % 8);
            }
            _ => self.visible.read(offset, out),
        }
        // What is being written there has arrived in part: every other sector.
        for queued in &self.queue {
            let Io::Write { offset: start, buf, .. } = &queued.io else { continue };
            let overlap = offset.max(*start)..(offset + out.len() as u64).min(start + buf.len() as u64);
            for at in overlap.step_by(SECTOR_LEAST).filter(|at| (at / SECTOR_LEAST as u64).is_multiple_of(2))
            {
                let (to, from) = ((at - offset) as usize, (at - start) as usize);
                out[to..to + SECTOR_LEAST].copy_from_slice(&buf[from..from + SECTOR_LEAST]);
            }
        }
    }

    /// Takes out of the queue what completes at this poll, in the order of its completion.
    fn due(&mut self, at_least_one: bool) -> Vec<Queued> {
        loop {
            let mut due = Vec::new();
            match &mut self.shuffle {
                None => {
                    for queued in std::mem::take(&mut self.queue) {
                        if queued.held == 0 { due.push(queued) } else { self.queue.push(queued) }
                    }
                }
                Some(rng) => {
                    let take = rng.below(self.queue.len() as u64 + 1);
                    for _ in 0..take {
                        let at = rng.below(self.queue.len() as u64) as usize;
                        if self.queue[at].held == 0 {
                            due.push(self.queue.swap_remove(at));
                        }
                    }
                }
            }
            for queued in &mut self.queue {
                queued.held = queued.held.saturating_sub(1);
            }
            if !due.is_empty() || !at_least_one || self.queue.is_empty() {
                return due;
            }
        }
    }
}

impl Device for SimDevice {
    fn geometry(&self) -> Geometry {
        self.shared.geometry
    }

    fn room(&self) -> usize {
        self.shared.queue_entries - self.in_flight()
    }

    fn submit(&mut self, tag: u64, io: Io) {
        let mut state = self.shared.lock();
        assert!(state.queue.len() < self.shared.queue_entries, "the device's queue is full");
        if let Some((offset, len, writes)) = range_of(&io) {
            self.shared.assert_aligned(offset, len);
            state.assert_no_overlap(offset, len, writes);
        }
        let (id, fault) = state.begin(&io, self.shared.geometry.len_bytes);
        let held = if let Some(Fault::Slow(polls)) = fault { polls } else { 0 };
        state.queue.push(Queued { tag, id, io, fault, held });
    }

    /// Returns at once when nothing is in flight and nobody else holds a waker: such a sleep could
    /// never end.
    fn poll(&mut self, wait: Wait, done: &mut Vec<Completion>) -> io::Result<()> {
        let mut state = self.shared.lock();
        let sleeps = wait != Wait::No;
        // It has no time of its own: a limited sleep is over at once.
        if wait == Wait::Event && state.queue.is_empty() && Arc::strong_count(&self.waker) > 1 {
            while !state.wake {
                state = self.shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let woken = sleeps && std::mem::take(&mut state.wake);
        for mut queued in state.due(sleeps && !woken) {
            let result =
                state.finish(queued.id, &mut queued.io, queued.fault, self.shared.geometry.len_bytes);
            let buf = match queued.io {
                Io::Read { buf, .. } => Some(buf),
                Io::Write { buf, .. } => buf.into_own(),
                Io::Flush | Io::Discard { .. } => None,
            };
            done.push(Completion { tag: queued.tag, buf, result });
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.shared.lock().queue.len()
    }

    fn write_durable_now(&mut self, offset: u64, buf: &AlignedBuf) -> io::Result<()> {
        self.shared.assert_aligned(offset, buf.len() as u64);
        self.shared.lock().write_now(offset, buf, true, self.shared.geometry.len_bytes)
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    fn blocking(&self) -> Arc<dyn BlockingDevice> {
        self.handle().blocking()
    }
}

impl Drop for SimDevice {
    /// What is queued happens, as with a file: dropping a handle is no power cut.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for mut queued in std::mem::take(&mut state.queue) {
            // Nobody is left to be told of its failure.
            let _ = state.finish(queued.id, &mut queued.io, queued.fault, self.shared.geometry.len_bytes);
        }
    }
}

impl State {
    /// A write of whole sectors, from its submission to its completion.
    fn write_now(&mut self, offset: u64, bytes: &[u8], durable: bool, len_bytes: u64) -> io::Result<()> {
        let len = bytes.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > len_bytes) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.assert_no_overlap(offset, len, true);
        self.stats.writes += 1;
        self.stats.written_bytes += len;
        let id = self.new_id();
        let fault = self.faults.strike(OpKind::Write, offset, len);
        self.begin_write(id, offset, bytes, durable, fault, len_bytes);
        let result = fault.map_or(Ok(()), Fault::error);
        match (&result, fault) {
            (_, Some(Fault::Lie)) => return result,
            (Ok(()), Some(Fault::Misdirect(elsewhere))) => {
                self.visible.write(elsewhere.min(len_bytes - len), bytes)
            }
            (Ok(()), _) => self.visible.write(offset, bytes),
            (Err(_), _) => {}
        }
        self.event(Event::WriteDone { id, ok: result.is_ok() });
        result
    }
}

struct SimWaker {
    shared: Arc<Shared>,
}

impl Waker for SimWaker {
    fn wake(&self) {
        self.shared.lock().wake = true;
        self.shared.woken.notify_all();
    }
}

struct SimBlocking {
    shared: Arc<Shared>,
}

impl BlockingDevice for SimBlocking {
    fn geometry(&self) -> Geometry {
        self.shared.geometry
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.shared.check_range(offset, out.len() as u64, io::ErrorKind::UnexpectedEof)?;
        if out.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.assert_no_overlap(offset, out.len() as u64, false);
        state.stats.reads += 1;
        state.stats.read_bytes += out.len() as u64;
        let fault = state.faults.strike(OpKind::Read, offset, out.len() as u64);
        state.finish_read(offset, out, fault);
        fault.map_or(Ok(()), Fault::error)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shared.check_range(offset, data.len() as u64, io::ErrorKind::WriteZero)?;
        if data.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        let sector = u64::from(self.shared.geometry.sector_bytes);
        let start = offset - offset % sector;
        let end = (offset + data.len() as u64).next_multiple_of(sector);
        if (start, end) == (offset, offset + data.len() as u64) {
            return state.write_now(offset, data, false, self.shared.geometry.len_bytes);
        }
        // As a file does it: sectors are read, patched and written whole.
        let mut sectors = vec![0; (end - start) as usize];
        state.visible.read(start, &mut sectors);
        sectors[(offset - start) as usize..][..data.len()].copy_from_slice(data);
        state.write_now(start, &sectors, false, self.shared.geometry.len_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.shared.lock();
        let (id, fault) = state.begin(&Io::Flush, self.shared.geometry.len_bytes);
        state.finish(id, &mut Io::Flush, fault, self.shared.geometry.len_bytes)
    }
}

/// Offset, length, whether it writes.
fn range_of(io: &Io) -> Option<(u64, u64, bool)> {
    match io {
        Io::Read { offset, buf } => Some((*offset, buf.len() as u64, false)),
        Io::Write { offset, buf, .. } => Some((*offset, buf.len() as u64, true)),
        Io::Discard { offset, len } => Some((*offset, *len, true)),
        Io::Flush => None,
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimBlocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBlocking").field("geometry", &self.shared.geometry).finish()
    }
}

impl fmt::Debug for SimWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimWaker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(len: usize, byte: u8) -> AlignedBuf {
        let mut buf = AlignedBuf::new(len);
        buf.set_len(len);
        buf.fill(byte);
        buf
    }

    fn write(device: &mut SimDevice, offset: u64, byte: u8) -> io::Result<()> {
        device.submit(0, Io::Write { offset, buf: aligned(512, byte).into(), durable: false });
        let mut done = Vec::new();
        device.poll(Wait::Event, &mut done)?;
        done.remove(0).result
    }

    fn byte_at(handle: &SimHandle, offset: u64) -> u8 {
        let mut byte = [0];
        handle.blocking().read_at(offset, &mut byte).expect("read");
        byte[0]
    }

    #[test]
    fn rules_strike_the_operations_they_name() {
        let mut device = SimDevice::new(1 << 20, SimOptions::default());
        let handle = device.handle();
        handle.inject(FaultRule::nth(OpKind::Write, 1, Fault::Error(libc::EIO)).within(4096..8192));
        write(&mut device, 0, 1).expect("outside of the range");
        write(&mut device, 4096, 1).expect("let through");
        assert_eq!(write(&mut device, 4608, 1).unwrap_err().raw_os_error(), Some(libc::EIO));
        write(&mut device, 4608, 1).expect("spent");

        handle.inject(FaultRule::nth(OpKind::Write, 0, Fault::Misdirect(16_384)));
        write(&mut device, 8192, 5).expect("reported as done");
        assert_eq!((byte_at(&handle, 8192), byte_at(&handle, 16_384)), (0, 5));

        handle.inject(FaultRule::nth(OpKind::Write, 0, Fault::Lie));
        write(&mut device, 8192, 6).expect("reported as done");
        assert_eq!(byte_at(&handle, 8192), 0);

        handle.inject(FaultRule::nth(OpKind::Read, 0, Fault::FlipBit(1)));
        assert_eq!(byte_at(&handle, 0), 3);
        assert_eq!(byte_at(&handle, 0), 1);
        handle.rot(0, 7);
        assert_eq!(byte_at(&handle, 0), 0x81);

        handle.inject(FaultRule::nth(OpKind::Flush, 0, Fault::Error(libc::EIO)));
        assert!(handle.blocking().sync().is_err());
        handle.blocking().sync().expect("spent");
    }

    #[test]
    fn a_lying_flush_leaves_writes_unstable() {
        let mut device = SimDevice::new(1 << 20, SimOptions::default());
        let handle = device.handle();
        handle.inject(FaultRule::nth(OpKind::Flush, 0, Fault::Lie));
        write(&mut device, 0, 1).expect("write");
        handle.blocking().sync().expect("said done");
        assert_eq!(handle.unstable(), 1);
        handle.blocking().sync().expect("done");
        assert_eq!(handle.unstable(), 0);
    }

    #[test]
    fn slow_operations_are_overtaken_and_a_sleep_still_ends() {
        let mut device = SimDevice::new(1 << 20, SimOptions::default());
        device.handle().inject(FaultRule::nth(OpKind::Write, 0, Fault::Slow(3)));
        for tag in 0..2 {
            device.submit(tag, Io::Write { offset: tag * 512, buf: aligned(512, 1).into(), durable: false });
        }
        let mut done = Vec::new();
        device.poll(Wait::Event, &mut done).expect("poll");
        assert_eq!(done.iter().map(|done| done.tag).collect::<Vec<_>>(), [1]);
        device.poll(Wait::Event, &mut done).expect("poll");
        assert_eq!(done.iter().map(|done| done.tag).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    #[should_panic(expected = "overlaps one in flight")]
    fn racing_operations_are_a_broken_engine() {
        let mut device = SimDevice::new(1 << 20, SimOptions::default());
        device.submit(0, Io::Write { offset: 0, buf: aligned(1024, 1).into(), durable: false });
        device.submit(1, Io::Write { offset: 512, buf: aligned(512, 1).into(), durable: false });
    }

    #[test]
    fn a_read_that_overtakes_a_write_sees_a_part_of_it() {
        let mut device = SimDevice::new(1 << 20, SimOptions::default());
        device.handle().inject(FaultRule::nth(OpKind::Write, 0, Fault::Slow(1)));
        device.submit(0, Io::Write { offset: 4096, buf: aligned(4096, 7).into(), durable: false });
        device.submit(1, Io::Read { offset: 4096, buf: aligned(4096, 1) });
        let mut done = Vec::new();
        device.poll(Wait::Event, &mut done).expect("poll");
        let read = done.pop().and_then(|done| done.buf).expect("the read");
        let sectors: Vec<u8> = read.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(sectors, [7, 0, 7, 0, 7, 0, 7, 0]);
    }

    #[test]
    fn a_recording_replays_to_the_same_medium() {
        let options = SimOptions { record: true, shuffle: Some(3), ..SimOptions::default() };
        let mut device = SimDevice::new(1 << 20, options);
        let mut rng = SplitMix64::new(9);
        let mut done = Vec::new();
        for step in 0..300u64 {
            let offset = (step % 64) * 8192;
            let io = match rng.below(8) {
                0 => Io::Flush,
                1 => Io::Discard { offset, len: 4096 },
                n => Io::Write { offset, buf: aligned(512 * n as usize, step as u8).into(), durable: n == 7 },
            };
            device.submit(step, io);
            while device.in_flight() > 20 {
                device.poll(Wait::Event, &mut done).expect("poll");
            }
        }
        let handle = device.handle();
        let recording = handle.recording();
        let mut walker = Walker::new(&recording);
        while walker.step().is_some() {}
        assert_eq!(walker.position() as u64, handle.event_count());
        for cut in [Cut::KeepAll, Cut::LoseAll, Cut::Sectors(4), Cut::Subset(5)] {
            assert!(walker.medium().cut(&cut).to_vec() == handle.power_cut(&cut).to_vec(), "{cut:?}");
        }
    }
}
