//! What cannot be opened, and why; on files, as a person meets it.

use std::fs::{File, OpenOptions as FileOptions, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use cairn_store::device::BlockingDevice;
use cairn_store::device::file::{Access, FileMedium, QueueKind};
use cairn_store::device::sim::SimDevice;
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{Engine, Op, OpenOptions, ReadError, ReadRequest, Store, StoreError, Transaction};

use crate::sim_store::{BLOCK, PG, blocks, object, options, write};

const DATA_BYTES: u64 = 4 << 20;

/// A store with objects of one block, closed.
fn made(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("osd");
    let options = options();
    let len_bytes = 2 * BLOCK + options.log_bytes.unwrap() + options.index_bytes.unwrap() + DATA_BYTES;
    let medium: Arc<dyn BlockingDevice> = FileMedium::create(&path, len_bytes).unwrap();
    Engine::<SimDevice>::create(Arc::clone(&medium), &options).unwrap();
    drop(medium);
    let store = open(&path).unwrap();
    store.commit(Transaction { ops: vec![Op::CreateCollection(PG)] }).unwrap();
    for number in 0..10 {
        let ops = vec![write(&format!("object-{number}"), 0, blocks(number, 1))];
        store.commit(Transaction { ops }).unwrap();
    }
    store.close().unwrap();
    path
}

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, &OpenOptions::default(), QueueKind::Threads)
}

fn refusal(path: &Path) -> String {
    open(path).expect_err("it must be refused").to_string()
}

fn read(store: &Store, number: u8) -> Result<Bytes, ReadError> {
    let object = object(&format!("object-{number}"));
    store.fetch(ReadRequest { pg: PG, object, offset: 0, len: u64::MAX }).map(|read| read.data)
}

fn assert_whole(path: &Path) {
    let store = open(path).unwrap();
    (0..10).for_each(|number| assert!(read(&store, number).unwrap() == blocks(number, 1)));
    store.close().unwrap();
    let medium: Arc<dyn BlockingDevice> = FileMedium::open(path, Access::ReadOnly).unwrap();
    let report = fsck::check(&medium, &FsckOptions { deep: true, repair: false }, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report}");
}

/// As a user who is not root, whom no permission stops.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no memory is involved; on Linux it concerns this thread, which ends, and those it starts.
            unsafe { libc::setfsuid(65534) };
            work()
        });
        thread.join().expect("the work ends")
    })
}

#[test]
fn a_file_that_may_only_be_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = made(&dir);
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let said = as_nobody(|| refusal(&path));
    assert_eq!(said, format!("cannot open {}: Permission denied (os error 13)", path.display()));
    // It can be looked at.
    as_nobody(|| {
        let medium: Arc<dyn BlockingDevice> = FileMedium::open(&path, Access::ReadOnly).unwrap();
        let deep = FsckOptions { deep: true, repair: false };
        let report = fsck::check(&medium, &deep, &mut |_, _| {}).unwrap();
        assert!(report.is_clean() && report.objects == 10, "{report}");
        let error = fsck::check(&medium, &FsckOptions { deep: false, repair: true }, &mut |_, _| {});
        assert!(error.unwrap().is_clean(), "there is nothing to mend, so nothing is written");
    });
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_whole(&path);
}

#[test]
fn a_truncated_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    let whole = std::fs::metadata(&path).unwrap().len();
    let log_end = BLOCK + options().log_bytes.unwrap();
    let no_store = "this is not a cairn store: no superblock found (make one with `cairn store create`)";
    let copy = dir.path().join("copy");
    let cut = |len: u64| {
        std::fs::copy(&path, &copy).unwrap();
        FileOptions::new().write(true).open(&copy).unwrap().set_len(len).unwrap();
    };
    for len in [0, 100, BLOCK - 512] {
        cut(len);
        assert_eq!(refusal(&copy), no_store, "{len} bytes");
    }
    let mut lens = vec![BLOCK, 2 * BLOCK, log_end / 2 / BLOCK * BLOCK, log_end, log_end + BLOCK];
    lens.extend([log_end + (1 << 20), whole - DATA_BYTES, whole - DATA_BYTES / 2, whole - BLOCK]);
    for found in lens {
        cut(found);
        assert_eq!(
            refusal(&copy),
            format!(
                "the store was made on {whole} bytes but the device has {found}: it was truncated, or this is not its device"
            )
        );
        // Nothing was written to it, least of all a new store.
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), found);
        let medium: Arc<dyn BlockingDevice> = FileMedium::open(&copy, Access::ReadWrite).unwrap();
        let again = Engine::<SimDevice>::create(medium, &options()).unwrap_err();
        assert!(again.to_string().starts_with("this already is the store of "), "{again}");
    }
    // Made as long as it was, it has what was not cut off, and says what was.
    cut(whole - DATA_BYTES + 5 * BLOCK);
    FileOptions::new().write(true).open(&copy).unwrap().set_len(whole).unwrap();
    let store = open(&copy).unwrap();
    let results: Vec<_> = (0..10).map(|number| (number, read(&store, number))).collect();
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(|(_, result)| result.is_ok());
    assert_eq!((good.len(), bad.len()), (5, 5));
    assert!(good.into_iter().all(|(number, result)| result.unwrap() == blocks(number, 1)));
    assert!(bad.into_iter().all(|(_, result)| matches!(result, Err(ReadError::Corrupt { .. }))));
    assert_whole(&path);
}

/// Changes a field of both superblocks and makes their checksums right: the 4 bytes that hold it now.
fn change_superblocks(path: &Path, field: std::ops::Range<usize>, value: &[u8]) {
    let file = FileOptions::new().read(true).write(true).open(path).unwrap();
    for place in [0, BLOCK + options().log_bytes.unwrap()] {
        let mut block = vec![0; BLOCK as usize];
        file.read_exact_at(&mut block, place).unwrap();
        let sum = |block: &[u8], at: usize| crc32fast::hash(&block[..at]).to_le_bytes();
        let is_sum = |at: &usize| sum(&block, *at)[..] == block[*at..*at + 4];
        let at = (64..=508).step_by(4).find(is_sum).expect("a checksum");
        block[field.clone()].copy_from_slice(value);
        let sum = sum(&block, at);
        block[at..at + 4].copy_from_slice(&sum);
        file.write_all_at(&block, place).unwrap();
    }
}

#[test]
fn a_store_of_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    for version in [0_u32, 2, 77] {
        change_superblocks(&path, 8..12, &version.to_le_bytes());
        assert_eq!(
            refusal(&path),
            format!(
                "the store has format version {version}; this cairn knows 1: use the version that wrote it"
            )
        );
        let medium: Arc<dyn BlockingDevice> = FileMedium::open(&path, Access::ReadWrite).unwrap();
        let error = Engine::<SimDevice>::create(medium, &options()).unwrap_err();
        assert!(matches!(error, StoreError::Version { .. }), "a store of the future is a store: {error}");
    }
    change_superblocks(&path, 8..12, &1_u32.to_le_bytes());
    assert_whole(&path);
}

#[test]
fn a_store_of_another_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    let of = |cluster: u8| OpenOptions { cluster: Some([cluster; 16]), ..OpenOptions::default() };
    let error = Store::open(&path, &of(5), QueueKind::Threads).unwrap_err().to_string();
    assert_eq!(
        error,
        "the store belongs to cluster 04040404040404040404040404040404, not to 05050505050505050505050505050505"
    );
    Store::open(&path, &of(4), QueueKind::Threads).unwrap().close().unwrap();
    assert_whole(&path);
}

#[test]
fn a_store_that_somebody_has_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&dir);
    let sentence = format!("{} is in use by another process; stop that process first", path.display());
    let store = open(&path).unwrap();
    assert_eq!(refusal(&path), sentence);
    let reader = FileMedium::open(&path, Access::ReadOnly).unwrap_err();
    assert_eq!(reader.to_string(), sentence);
    let flock = |arguments: &[&str]| {
        let mut command = Command::new("flock");
        command.args(arguments).arg(&path);
        command
    };
    let missing = "the tool flock is wanted: install Debian's package util-linux";
    let other = flock(&["--nonblock", "--exclusive"]).arg("true").status().expect(missing);
    assert_eq!(other.code(), Some(1), "another process is kept out");
    assert!(read(&store, 3).unwrap() == blocks(3, 1));
    store.close().unwrap();
    let other = flock(&["--nonblock", "--exclusive"]).arg("true").status().expect(missing);
    assert!(other.success(), "a closed store is free");

    // And the other way round.
    let mut holder = flock(&["--exclusive"])
        .args(["sh", "-c", "echo held; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect(missing);
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    assert_eq!(refusal(&path), sentence);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_whole(&path);
}

#[test]
fn what_is_no_file_or_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert_eq!(
        refusal(&path),
        format!("cannot open {}: No such file or directory (os error 2)", path.display())
    );
    let folder = dir.path().display().to_string();
    assert_eq!(refusal(dir.path()), format!("{folder} is neither a regular file nor a block device"));
    File::create(&path).unwrap().set_len(16 << 20).unwrap();
    assert_eq!(
        refusal(&path),
        "this is not a cairn store: no superblock found (make one with `cairn store create`)"
    );
}
