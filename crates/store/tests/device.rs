//! One suite for every device: what the engine relies on holds for io_uring, for threads, through
//! the page cache, and for the simulated medium.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_store::device::file::{Access, FileDevice, FileMedium, OpenError, QueueKind};
use cairn_store::device::sim::{SimDevice, SimOptions, SplitMix64};
use cairn_store::device::{AlignedBuf, BlockingDevice, Completion, Device, Io, Wait};

const LEN: u64 = 8 << 20;

/// A device under test and what has to outlive it.
struct Fixture<D> {
    device: D,
    _dir: Option<tempfile::TempDir>,
}

fn file(kind: QueueKind, parent: &Path) -> Fixture<FileDevice> {
    let dir = tempfile::tempdir_in(parent).expect("temporary directory");
    let medium = FileMedium::create(&dir.path().join("disk"), LEN).expect("create");
    let device = FileDevice::new(medium, kind).expect("queue");
    Fixture { device, _dir: Some(dir) }
}

fn sim(shuffle: Option<u64>) -> Fixture<SimDevice> {
    Fixture { device: SimDevice::new(LEN, SimOptions { shuffle, ..SimOptions::default() }), _dir: None }
}

fn pattern(len: usize, seed: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::new(len);
    buf.set_len(len);
    let mut rng = SplitMix64::new(seed);
    buf.chunks_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_le_bytes()));
    buf
}

fn wait_for(device: &mut impl Device, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        device.poll(Wait::Event, &mut done).expect("poll");
    }
    assert_eq!(done.len(), count);
    done
}

fn one(device: &mut impl Device, io: Io) -> Completion {
    device.submit(77, io);
    let done = wait_for(device, 1).remove(0);
    assert_eq!(done.tag, 77);
    done
}

fn read(device: &mut impl Device, offset: u64, len: usize) -> Vec<u8> {
    let done = one(device, Io::Read { offset, buf: pattern(len, 999) });
    done.result.expect("read");
    done.buf.expect("the buffer comes back").to_vec()
}

/// What was written is read, by the queue and by plain calls, under a full queue and in any order.
fn queued_and_blocking_agree(mut fixture: Fixture<impl Device>) {
    let device = &mut fixture.device;
    let blocking = device.blocking();
    let sector = device.geometry().sector_bytes as usize;
    assert_eq!(device.geometry().len_bytes, LEN);
    assert_eq!(blocking.geometry(), device.geometry());
    let room = device.room() as u64;
    let slot = LEN / room / 4096 * 4096;
    for tag in 0..room {
        let len = (1 + tag as usize % 8) * sector;
        device.submit(
            tag,
            Io::Write { offset: tag * slot, buf: pattern(len, tag).into(), durable: tag % 3 == 0 },
        );
    }
    assert_eq!((device.room(), device.in_flight()), (0, room as usize));
    let mut tags: Vec<u64> = Vec::new();
    for done in wait_for(device, room as usize) {
        done.result.expect("write");
        assert!(
            *done.buf.expect("the buffer comes back")
                == *pattern((1 + done.tag as usize % 8) * sector, done.tag)
        );
        tags.push(done.tag);
    }
    tags.sort_unstable();
    assert_eq!(tags, (0..room).collect::<Vec<_>>());
    assert_eq!(device.in_flight(), 0);
    one(device, Io::Flush).result.expect("flush");
    for tag in 0..room {
        let expected = pattern((1 + tag as usize % 8) * sector, tag);
        assert!(read(device, tag * slot, expected.len()) == *expected, "queued read {tag}");
        let mut out = vec![0; expected.len()];
        blocking.read_at(tag * slot, &mut out).expect("read_at");
        assert!(out == *expected, "blocking read {tag}");
    }
}

/// Plain calls take any offset and length and leave their neighbours alone.
fn blocking_calls_take_any_alignment(mut fixture: Fixture<impl Device>) {
    let blocking = fixture.device.blocking();
    let mut model = vec![0u8; LEN as usize];
    let mut rng = SplitMix64::new(5);
    for step in 0..200u64 {
        let offset = rng.below(LEN) as usize;
        let len = (rng.below(if step % 20 == 0 { 3 << 20 } else { 9000 }) as usize).min(model.len() - offset);
        let bytes = &pattern(len.next_multiple_of(4096).max(4096), step)[..len];
        blocking.write_at(offset as u64, bytes).expect("write_at");
        model[offset..offset + len].copy_from_slice(bytes);
        let from = rng.below(LEN) as usize;
        let mut out = vec![0; (rng.below(20_000) as usize).min(model.len() - from)];
        blocking.read_at(from as u64, &mut out).expect("read_at");
        assert!(out == model[from..from + out.len()], "step {step}");
    }
    blocking.sync().expect("sync");
    assert!(read(&mut fixture.device, 0, LEN as usize) == model);
}

fn nothing_reaches_past_the_end(mut fixture: Fixture<impl Device>) {
    let device = &mut fixture.device;
    let blocking = device.blocking();
    let kind = |result: io::Result<()>| result.expect_err("past the end").kind();
    let mut out = [0; 2];
    assert_eq!(kind(blocking.read_at(LEN - 1, &mut out)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(blocking.write_at(LEN - 1, &out)), io::ErrorKind::WriteZero);
    assert_eq!(kind(blocking.read_at(u64::MAX, &mut out)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(device.write_durable_now(LEN, &pattern(4096, 1))), io::ErrorKind::WriteZero);
    let write = one(device, Io::Write { offset: LEN - 4096, buf: pattern(8192, 1).into(), durable: false });
    assert_eq!(kind(write.result), io::ErrorKind::WriteZero);
    assert!(write.buf.is_some());
    let read = one(device, Io::Read { offset: LEN - 4096, buf: pattern(8192, 1) });
    assert_eq!(kind(read.result), io::ErrorKind::UnexpectedEof);
    assert!(read.buf.is_some());
    assert_eq!(device.geometry().len_bytes, LEN);
}

fn immediate_writes_and_discards_keep_their_range(mut fixture: Fixture<impl Device>) {
    let device = &mut fixture.device;
    let ones = pattern(64 << 10, 1);
    device.write_durable_now(1 << 20, &ones).expect("immediate write");
    assert!(read(device, 1 << 20, 64 << 10) == *ones);
    one(device, Io::Discard { offset: (1 << 20) + 8192, len: 16_384 }).result.expect("discard");
    let after = read(device, 1 << 20, 64 << 10);
    assert!(after[..8192] == ones[..8192], "before the discarded range");
    assert!(after[24_576..] == ones[24_576..], "after the discarded range");
}

/// A sleep ends by a wake from another thread, once per wake, whether it came before or during.
fn a_waker_ends_a_sleep(mut fixture: Fixture<impl Device>) {
    let device = &mut fixture.device;
    let waker = device.waker();
    let mut done = Vec::new();
    waker.wake();
    waker.wake();
    device.poll(Wait::No, &mut done).expect("a poll that does not sleep leaves the wake");
    device.poll(Wait::Event, &mut done).expect("woken before it slept");
    for round in 0..200u64 {
        let woken = Arc::new(AtomicBool::new(false));
        let (seen, waker) = (Arc::clone(&woken), Arc::clone(&waker));
        let other = std::thread::spawn(move || {
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            seen.store(true, Ordering::SeqCst);
            waker.wake();
        });
        while !woken.load(Ordering::SeqCst) {
            device.poll(Wait::Event, &mut done).expect("poll");
        }
        other.join().expect("waker thread");
        if round % 10 == 0 {
            let io = Io::Write { offset: round * 4096, buf: pattern(4096, round).into(), durable: false };
            device.submit(round, io);
            while device.in_flight() > 0 {
                device.poll(Wait::Event, &mut done).expect("poll");
            }
        }
    }
    assert_eq!(done.len(), 20);
}

/// Dropping a device with operations in flight is safe for their memory.
fn dropping_waits_for_what_is_in_flight(mut fixture: Fixture<impl Device>) {
    let blocking = fixture.device.blocking();
    for tag in 0..32 {
        fixture
            .device
            .submit(tag, Io::Write { offset: tag * 65_536, buf: pattern(65_536, tag).into(), durable: true });
    }
    let mut done = Vec::new();
    fixture.device.poll(Wait::No, &mut done).expect("poll");
    drop(fixture.device);
    let mut out = [0; 16];
    blocking.read_at(0, &mut out).expect("the medium lives on");
}

macro_rules! for_every_device {
    ($($test:ident),* $(,)?) => {
        mod uring {
            use super::*;
            $(#[test] fn $test() { super::$test(file(QueueKind::Uring, &on_disk())); })*
        }
        mod threads {
            use super::*;
            $(#[test] fn $test() { super::$test(file(QueueKind::Threads, &on_disk())); })*
        }
        mod page_cache {
            use super::*;
            $(#[test] fn $test() { super::$test(file(QueueKind::Auto, &in_memory())); })*
        }
        mod simulated {
            use super::*;
            $(#[test] fn $test() { super::$test(sim(None)); })*
        }
        mod simulated_out_of_order {
            use super::*;
            $(#[test] fn $test() { super::$test(sim(Some(11))); })*
        }
    };
}

for_every_device!(
    queued_and_blocking_agree,
    blocking_calls_take_any_alignment,
    nothing_reaches_past_the_end,
    immediate_writes_and_discards_keep_their_range,
    a_waker_ends_a_sleep,
    dropping_waits_for_what_is_in_flight,
);

/// The build directory: a file system on a disk, wherever the temporary directory is.
fn on_disk() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// tmpfs, where the page cache is the only way.
fn in_memory() -> PathBuf {
    PathBuf::from("/dev/shm")
}

#[test]
fn files_on_disk_bypass_the_page_cache() {
    let fixture = file(QueueKind::Auto, &on_disk());
    assert!(fixture.device.medium().is_direct());
    assert!(matches!(fixture.device.geometry().sector_bytes, 512 | 4096));
}

#[test]
fn one_writer_or_many_readers() {
    let fixture = file(QueueKind::Threads, &on_disk());
    let path = fixture.device.medium().path().to_owned();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = FileMedium::open(&path, access).expect_err("in use");
        assert!(matches!(error, OpenError::InUse(_)));
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }
    let blocking = fixture.device.blocking();
    drop(fixture.device);
    assert!(FileMedium::open(&path, Access::ReadWrite).is_err(), "the blocking side holds the lock too");
    drop(blocking);
    let first = FileMedium::open(&path, Access::ReadOnly).expect("reader");
    let second = FileMedium::open(&path, Access::ReadOnly).expect("another reader");
    assert!(FileMedium::open(&path, Access::ReadWrite).is_err());
    assert!(first.write_at(0, &[1]).is_err(), "a reader cannot write");
    drop((first, second));
    FileMedium::open(&path, Access::ReadWrite).expect("free again");
}

#[test]
fn what_is_no_storage_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let refused = |path: &Path| FileMedium::open(path, Access::ReadWrite).expect_err("refused").to_string();
    assert!(refused(dir.path()).contains("neither a regular file nor a block device"));
    assert!(refused(Path::new("/dev/null")).contains("neither"));
    assert!(refused(&dir.path().join("absent")).contains("absent: No such file"));
    let path = dir.path().join("disk");
    FileMedium::create(&path, LEN).expect("create");
    assert!(FileMedium::create(&path, LEN).expect_err("exists").to_string().contains("File exists"));
}

#[test]
fn a_discard_gives_space_back() {
    use std::os::unix::fs::MetadataExt;
    let mut fixture = file(QueueKind::Uring, &on_disk());
    if !fixture.device.geometry().discard {
        eprintln!("left out: this file system cannot punch holes");
        return;
    }
    let path = fixture.device.medium().path().to_owned();
    one(&mut fixture.device, Io::Write { offset: 0, buf: pattern(4 << 20, 1).into(), durable: true })
        .result
        .expect("write");
    let before = std::fs::metadata(&path).expect("stat").blocks();
    one(&mut fixture.device, Io::Discard { offset: 0, len: 4 << 20 }).result.expect("discard");
    let after = std::fs::metadata(&path).expect("stat").blocks();
    assert!(before >= 8192 && after == 0, "{before} blocks before, {after} after");
    assert_eq!(std::fs::metadata(&path).expect("stat").len(), LEN);
}

#[test]
fn pieces_written_together_are_all_there_or_the_error_is_told() {
    let dir = tempfile::tempdir_in(on_disk()).expect("temporary directory");
    let file: Arc<dyn BlockingDevice> = FileMedium::create(&dir.path().join("disk"), LEN).expect("create");
    let simulated = SimDevice::new(LEN, SimOptions::default()).handle().blocking();
    for medium in [file, simulated] {
        // More pieces than are written at once, some of several blocks.
        let mut pieces: Vec<(u64, Vec<u8>)> = (0..100)
            .map(|piece| (piece * 64 * 1024, pattern(4096 * (1 + piece as usize % 3), piece).to_vec()))
            .collect();
        medium.write_each(&pieces).expect("write");
        for (offset, data) in &pieces {
            let mut found = vec![0; data.len()];
            medium.read_at(*offset, &mut found).expect("read");
            assert!(found == *data, "{offset}");
        }
        pieces.insert(50, (LEN, vec![0; 4096]));
        let error = medium.write_each(&pieces).expect_err("past the end");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        medium.write_each(&[]).expect("nothing");
    }
}

/// The kernel keeps a ring's file open for a while after the ring is closed.
#[test]
fn a_closed_device_can_be_opened_at_once() {
    let dir = tempfile::tempdir_in(on_disk()).expect("temporary directory");
    let path = dir.path().join("disk");
    let mut medium = FileMedium::create(&path, LEN).expect("create");
    for round in 0..50 {
        let mut device = FileDevice::new(medium, QueueKind::Uring).expect("queue");
        one(&mut device, Io::Write { offset: 0, buf: pattern(4096, round).into(), durable: false })
            .result
            .expect("write");
        drop(device);
        medium = FileMedium::open(&path, Access::ReadWrite).expect("not in use");
    }
}
