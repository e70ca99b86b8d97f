use super::*;
use crate::service::{ClusterState, Genesis};
use cairn_paxos::{Accepted, Ballot, Command, MonId, Params, Slot};
use cairn_types::{Fsid, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn identity() -> MonIdentity {
    let mons = [("a".to_owned(), Vec::new())].into();
    let genesis = Genesis { fsid: Fsid([7; 16]), now: Timestamp(1_700_000_000_000), mons };
    let mon_map = ClusterState::new(genesis).mon_map().clone();
    MonIdentity { fsid: mon_map.fsid, name: "mon.a".parse().expect("a name"), id: MonId(0), mon_map }
}

fn checkpoint(slot: u64, fill: u8) -> Checkpoint {
    Checkpoint { slot: Slot(slot), state: vec![fill; 100].into() }
}

fn made() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let log = DurableState::bootstrap(BTreeSet::from([MonId(0)]), Params::default()).expect("a log");
    Storage::create(dir.path(), identity(), log, Some(&checkpoint(0, 1))).expect("it is made");
    dir
}

fn accept(slot: u64) -> Record {
    let ballot = Ballot { round: 1, leader: MonId(0) };
    Record::Accept(Accepted { slot: Slot(slot), ballot, command: Command::Noop })
}

/// A slot, accepted and decided.
fn decided(slot: u64) -> Vec<Record> {
    vec![accept(slot), Record::Decide(Slot(slot))]
}

fn open(dir: &TempDir) -> Opened {
    Storage::open(dir.path()).expect("it opens")
}

fn files(dir: &TempDir) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.path()).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
}

/// Three flushes of one slot each; the log file's bytes and where each frame begins and the last ends.
fn three_flushes() -> (TempDir, Vec<u8>, Vec<usize>) {
    let dir = made();
    let Opened { mut storage, .. } = open(&dir);
    let path = log_path(dir.path(), 1);
    let len = || fs::metadata(&path).expect("a log").len() as usize;
    let mut ends = vec![len()];
    for slot in 1..=3 {
        storage.append(decided(slot), None).expect("it is written");
        ends.push(len());
    }
    drop(storage);
    (dir, fs::read(&path).expect("a log"), ends)
}

#[test]
fn what_was_flushed_is_read_again() {
    let dir = made();
    let Opened { mut storage, identity: own, log, checkpoint: state } = open(&dir);
    assert_eq!((own, log.decided, state), (identity(), Slot(0), Some(checkpoint(0, 1))));
    storage.append(decided(1), None).expect("it is written");
    storage.append(decided(2), Some(&checkpoint(2, 5))).expect("it is written");
    storage.append(decided(3), None).expect("it is written");
    let expected = storage.log.clone();
    drop(storage);
    let Opened { storage, log, checkpoint: state, .. } = open(&dir);
    assert_eq!((&log, state), (&expected, Some(checkpoint(2, 5))));
    assert_eq!(log.decided, Slot(3));
    log.check().expect("sound");
    drop(storage);
    let names = ["lock", "log.1", "checkpoint.2"].map(str::to_owned);
    assert_eq!(files(&dir), names.into(), "the replaced checkpoint is gone");
}

#[test]
fn a_torn_tail_is_dropped_and_written_over() {
    let (dir, bytes, ends) = three_flushes();
    let path = log_path(dir.path(), 1);
    for cut in ends[2]..ends[3] {
        fs::write(&path, &bytes[..cut]).expect("a log");
        let Opened { mut storage, log, .. } = open(&dir);
        assert_eq!(log.decided, Slot(2), "cut at {cut}");
        storage.append(decided(3), None).expect("it is written");
        drop(storage);
        assert_eq!(fs::read(&path).expect("a log"), bytes, "cut at {cut}");
    }
}

#[test]
fn a_tail_that_was_never_written_whole_is_dropped() {
    let (dir, bytes, ends) = three_flushes();
    let path = log_path(dir.path(), 1);
    for at in ends[2]..ends[3] {
        let mut torn = bytes.clone();
        torn[at] ^= 0x40;
        // The length was longer, some of the blocks never came.
        torn.extend([0; 64]);
        fs::write(&path, &torn).expect("a log");
        assert_eq!(open(&dir).log.decided, Slot(2), "byte {at}");
        assert_eq!(fs::metadata(&path).expect("a log").len() as usize, ends[2]);
    }
}

#[test]
fn damage_in_front_of_whole_records_is_told() {
    let (dir, bytes, ends) = three_flushes();
    let path = log_path(dir.path(), 1);
    for at in 0..ends[2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).expect("a log");
        match Storage::open(dir.path()) {
            Err(StorageError::Damaged { .. }) => {}
            Err(StorageError::Form { .. }) => assert!((8..10).contains(&at)),
            Err(error) => panic!("byte {at}: {error}"),
            Ok(_) => panic!("byte {at} is damaged and nobody says so"),
        }
    }
    // A record in the middle is missing whole.
    fs::write(&path, [&bytes[..ends[1]], &bytes[ends[2]..]].concat()).expect("a log");
    let error = Storage::open(dir.path()).err().expect("a gap");
    assert!(error.to_string().contains("record 2 is missing"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_told() {
    let dir = made();
    fs::write(checkpoint_path(dir.path(), 1), [9; 100]).expect("a checkpoint");
    let error = Storage::open(dir.path()).err().expect("damage");
    assert!(matches!(error, StorageError::Damaged { what: Damage::Checkpoint, .. }), "{error}");
    fs::remove_file(checkpoint_path(dir.path(), 1)).expect("a checkpoint");
    assert!(matches!(Storage::open(dir.path()), Err(StorageError::Io { .. })));
}

#[test]
fn a_checkpoint_that_no_record_names_does_not_count() {
    let dir = made();
    let Opened { mut storage, .. } = open(&dir);
    storage.append(decided(1), None).expect("it is written");
    drop(storage);
    // The power went between the checkpoint and its record.
    write_checkpoint(dir.path(), 2, &checkpoint(1, 8)).expect("a checkpoint");
    fs::write(dir.path().join("new"), b"half a fil").expect("a file");
    let Opened { mut storage, checkpoint: state, .. } = open(&dir);
    assert_eq!(state, Some(checkpoint(0, 1)));
    storage.append(Vec::new(), Some(&checkpoint(1, 9))).expect("it is written");
    drop(storage);
    assert_eq!(open(&dir).checkpoint, Some(checkpoint(1, 9)));
}

#[test]
fn a_new_file_says_the_same() {
    let dir = made();
    let Opened { mut storage, .. } = open(&dir);
    for slot in 1..=5 {
        storage.append(decided(slot), None).expect("it is written");
    }
    storage.append(Vec::new(), Some(&checkpoint(5, 3))).expect("it is written");
    storage.rotate().expect("a new file");
    storage.append(decided(6), None).expect("it is written");
    let expected = storage.log.clone();
    drop(storage);
    // The old file's removal did not become durable.
    fs::write(log_path(dir.path(), 1), b"old").expect("a file");
    let opened = open(&dir);
    assert_eq!((&opened.log, opened.checkpoint), (&expected, Some(checkpoint(5, 3))));
    assert_eq!(opened.identity, identity());
    let names = ["lock", "log.2", "checkpoint.2"].map(str::to_owned);
    assert_eq!(files(&dir), names.into());
}

#[test]
fn a_file_that_grew_is_begun_anew() {
    let dir = made();
    let Opened { mut storage, .. } = open(&dir);
    storage.bytes = ROTATE_AFTER_BYTES;
    storage.append(decided(1), None).expect("it is written");
    assert_eq!((storage.number, storage.bytes, storage.sequence), (2, 0, 1));
    drop(storage);
    assert_eq!(open(&dir).log.decided, Slot(1));
}

#[test]
fn nobody_else_opens_it() {
    let dir = made();
    let opened = open(&dir);
    assert!(matches!(Storage::open(dir.path()), Err(StorageError::InUse { .. })));
    drop(opened);
    open(&dir);
}

#[test]
fn a_fetched_state_is_written_once() {
    let dir = made();
    let Opened { mut storage, log, .. } = open(&dir);
    let mut ledger = log.base.clone();
    ledger.slot = Slot(9);
    let state = Payload::from(vec![4; 1 << 20]);
    let install = Record::Install { ledger: Box::new(ledger), state: state.clone() };
    storage
        .append(vec![install], Some(&Checkpoint { slot: Slot(9), state: state.clone() }))
        .expect("written");
    assert!(storage.bytes < 10_000);
    drop(storage);
    let opened = open(&dir);
    assert_eq!((opened.log.decided, opened.log.base.slot), (Slot(9), Slot(9)));
    assert_eq!(opened.checkpoint.map(|checkpoint| checkpoint.state), Some(state));
}

/// A device that fails when it is told to.
struct Failing {
    file: Box<dyn LogFile>,
    writes: Arc<AtomicBool>,
    flushes: Arc<AtomicBool>,
}

impl LogFile for Failing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.writes.load(Ordering::Relaxed) {
            true => Err(io::Error::other("no space")),
            false => self.file.append(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.flushes.load(Ordering::Relaxed) {
            true => Err(io::Error::other("a bad block")),
            false => self.file.sync(),
        }
    }
}

#[test]
fn after_a_failure_nothing_is_written_any_more() {
    for fails_at_flush in [false, true] {
        let dir = made();
        let Opened { mut storage, .. } = open(&dir);
        let (writes, flushes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let file = std::mem::replace(&mut storage.file, Box::new(File::open("/dev/null").expect("a file")));
        storage.file = Box::new(Failing { file, writes: writes.clone(), flushes: flushes.clone() });
        storage.append(decided(1), None).expect("it is written");
        let fault = if fails_at_flush { &flushes } else { &writes };
        fault.store(true, Ordering::Relaxed);
        storage.append(decided(2), None).expect_err("the device fails");
        // Healthy again, or so it seems.
        fault.store(false, Ordering::Relaxed);
        let error = storage.append(decided(2), None).expect_err("what a failed flush left is not known");
        assert!(error.to_string().contains("an earlier write failed"), "{error}");
        drop(storage);
        assert!(open(&dir).log.decided >= Slot(1));
    }
}

#[test]
fn all_that_waits_shares_a_flush_and_what_nobody_waits_for_waits() {
    let dir = made();
    let (done, mut told) = tokio::sync::mpsc::unbounded_channel();
    let writer = Writer::start(open(&dir).storage, done).expect("a thread");
    let job = |batch, flush| Job { batch, records: decided(batch), checkpoint: None, flush };
    writer.write(job(1, false));
    writer.write(job(2, true));
    assert_eq!(told.blocking_recv().expect("told").expect("durable"), 2);
    writer.write(job(3, false));
    // What is left is written when it ends.
    drop(writer);
    assert_eq!(told.blocking_recv().expect("told").expect("durable"), 3);
    assert_eq!(open(&dir).log.decided, Slot(3));
}

#[test]
fn a_log_file_has_the_bytes_of_the_document() {
    let mut bytes = Vec::new();
    let batch = Batch {
        records: vec![Record::Decide(Slot(5))],
        checkpoint: Some(CheckpointRef { number: 2, slot: Slot(5), len: 100, crc32: 0x0102_0304 }),
    };
    format::put_frame(7, &batch, &mut bytes).expect("it is small");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = [
        "434d4c46",         // magic
        "0700000000000000", // sequence
        "31000000",         // 49 bytes of body
        "CCCCCCCC",         // checksum
        "0100000000000000", // one record
        "02000000",         // a decision
        "0500000000000000", // of slot 5
        "01",               // a checkpoint
        "0200000000000000", // number 2
        "0500000000000000", // at slot 5
        "6400000000000000", // 100 bytes
        "04030201",         // its checksum
    ];
    let crc32 = format!("{:08x}", crc32fast::hash(&[&bytes[4..16], &bytes[20..]].concat()).swap_bytes());
    assert_eq!(hex, golden.concat().replace("CCCCCCCC", &crc32));
    let header = first_bytes(&Base { identity: identity(), log: DurableState::joining(), checkpoint: None });
    assert_eq!(&header.expect("it is small")[..14], b"cairnmon\x02\0CMLF");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at: proptest::sample::Index, with: Vec<u8>) {
        let path = Path::new("log.1");
        let _ = read_log(path, &bytes);
        let base = Base { identity: identity(), log: DurableState::joining(), checkpoint: None };
        let mut sound = first_bytes(&base).expect("it is small");
        let at = at.index(sound.len());
        let end = sound.len().min(at + with.len());
        sound.splice(at..end, with);
        let _ = read_log(path, &sound);
        // With a checksum that fits.
        let mut forged = sound[..LOG_HEADER_LEN.min(sound.len())].to_vec();
        format::put_frame(0, &serde_bytes_of(&bytes), &mut forged).expect("it is small");
        let _ = read_log(path, &forged);
    }
}

/// Bytes as they are, without a length.
fn serde_bytes_of(bytes: &[u8]) -> impl serde::Serialize + use<'_> {
    struct Raw<'a>(&'a [u8]);
    impl serde::Serialize for Raw<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut tuple = serializer.serialize_tuple(self.0.len())?;
            self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
            tuple.end()
        }
    }
    Raw(bytes)
}
