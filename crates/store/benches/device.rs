//! What a durable 4 KiB write costs by each way of asking for it, at depth 1, and the device's queue
//! at depth 32. `CAIRN_BENCH_DIR` names a directory on the disk to measure.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Instant;

use cairn_store::device::file::{FileDevice, FileMedium, QueueKind};
use cairn_store::device::{AlignedBuf, BlockingDevice, Device, Io, Wait};
use criterion::{Criterion, criterion_group, criterion_main};
use io_uring::{IoUring, opcode, squeue, types};

const LEN: u64 = 64 << 20;

fn bench(criterion: &mut Criterion) {
    let parent = std::env::var_os("CAIRN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("temporary directory");
    let path = dir.path().join("disk");
    let medium = FileMedium::create(&path, LEN).expect("create");
    // Overwrites of a log: no allocation is on the path.
    let zeros = vec![0u8; 1 << 20];
    (0..LEN >> 20).for_each(|mib| medium.write_at(mib << 20, &zeros).expect("fill"));
    medium.sync().expect("fill");
    drop(medium);
    let file = std::fs::OpenOptions::new();
    let file = {
        use std::os::unix::fs::OpenOptionsExt;
        file.clone().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).expect("open")
    };
    durable_writes(&file);
    drop(file);

    let mut at = 0;
    let mut next = move || {
        at = (at + 4096) % LEN;
        at
    };
    for (name, kind) in [("io_uring", QueueKind::Uring), ("threads", QueueKind::Threads)] {
        let medium = FileMedium::open(&path, cairn_store::device::file::Access::ReadWrite).expect("open");
        let mut device = FileDevice::new(medium, kind).expect("queue");
        let mut group = criterion.benchmark_group(format!("{name}, 32 operations of 4 KiB at once"));
        for (what, write, durable) in
            [("read", false, false), ("write", true, false), ("durable write", true, true)]
        {
            let mut buffers: Vec<AlignedBuf> = (0..32).map(|_| AlignedBuf::new(4096)).collect();
            let mut done = Vec::new();
            group.throughput(criterion::Throughput::Elements(32));
            group.bench_function(what, |b| {
                b.iter(|| {
                    for buf in buffers.drain(..) {
                        let offset = next();
                        let io = if write {
                            Io::Write { offset, buf: buf.into(), durable }
                        } else {
                            Io::Read { offset, buf }
                        };
                        device.submit(0, io);
                    }
                    while device.in_flight() > 0 {
                        device.poll(Wait::Event, &mut done).expect("poll");
                    }
                    buffers.extend(done.drain(..).map(|done| done.buf.expect("a buffer")));
                });
            });
        }
        group.finish();
    }
}

/// Each way in turn, for disks drift: medians and 99th percentiles on stderr.
fn durable_writes(file: &File) {
    const ROUNDS: u64 = 40;
    const PER_ROUND: u64 = 25;
    let mut buf = AlignedBuf::new(4096);
    buf.fill(7);
    let fd = types::Fd(file.as_raw_fd());
    let mut ring: IoUring = IoUring::builder().setup_coop_taskrun().build(8).expect("io_uring");
    let mut run = |entries: &[squeue::Entry]| {
        // SAFETY: the buffer outlives the call, which waits for every completion.
        unsafe { ring.submission().push_multiple(entries) }.expect("room");
        ring.submit_and_wait(entries.len()).expect("submit");
        ring.completion().for_each(|entry| assert!(entry.result() >= 0));
    };
    let names =
        ["pwrite + fdatasync", "pwritev2 RWF_DSYNC", "io_uring RWF_DSYNC", "io_uring write > fdatasync"];
    let mut took = [const { Vec::new() }; 4];
    for step in 0..ROUNDS * PER_ROUND {
        let offset = step * 4096 % LEN;
        for (way, took) in took.iter_mut().enumerate() {
            let write = opcode::Write::new(fd, buf.as_ptr(), 4096).offset(offset);
            let start = Instant::now();
            match way {
                0 => {
                    rustix::io::pwrite(file, &buf, offset).expect("write");
                    rustix::fs::fdatasync(file).expect("sync");
                }
                1 => {
                    let slice = [std::io::IoSlice::new(&buf)];
                    rustix::io::pwritev2(file, &slice, offset, rustix::io::ReadWriteFlags::DSYNC)
                        .expect("write");
                }
                2 => run(&[write.rw_flags(libc::RWF_DSYNC).build()]),
                _ => run(&[
                    write.build().flags(squeue::Flags::IO_LINK),
                    opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
                ]),
            }
            took.push(start.elapsed().as_micros());
        }
    }
    for (name, took) in names.iter().zip(&mut took) {
        took.sort_unstable();
        eprintln!("{name:<28} p50 {} us, p99 {} us", took[took.len() / 2], took[took.len() * 99 / 100]);
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
