//! A monitor on disk: the records of its log and its newest checkpoint. Blocking; `writer` puts it on a thread.
//!
//! ```text
//! DIR/lock            held while a process runs this monitor
//! DIR/log.N           who it is, the log as it was when the file was begun, then one frame per flush
//! DIR/checkpoint.N    the state at one slot; named, with its checksum, by the newest frame that has one
//! ```
//!
//! A flush is one frame, written and then made durable, so a power cut leaves whole frames and at most one broken one
//! behind them. A broken frame with a whole one behind it was durable once: the monitor may have promised what it
//! says, and refuses to run. After the first failed write or flush nothing is written any more: what the system
//! keeps of a failed flush is not known.

mod format;
mod writer;

#[cfg(test)]
mod tests;

pub use format::MonIdentity;
pub(super) use writer::{Done, Job, Writer};

use crate::monitor::Checkpoint;
use cairn_paxos::{DurableState, Payload, Record};
use format::{Base, Batch, CheckpointRef, FORM, LOG_HEADER_LEN, LOG_MAGIC};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Bytes of frames after which a new log file is begun, if they are also more than the log as it is takes twice:
/// then writing it anew costs less than what was written meanwhile.
const ROTATE_AFTER_BYTES: u64 = 16 << 20;

/// Why a monitor's storage cannot be used (any more).
#[derive(Debug, Error)]
pub enum StorageError {
    /// The system says no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no monitor.
    #[error("there is no monitor in {}: create it first", dir.display())]
    Missing {
        /// Where.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("{} has a monitor already", dir.display())]
    Exists {
        /// Where.
        dir: PathBuf,
    },
    /// Another process runs it.
    #[error("another process runs the monitor in {}", dir.display())]
    InUse {
        /// Where.
        dir: PathBuf,
    },
    /// Written by another version.
    #[error("{} has form {found}, this program knows form {FORM}: update it", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u16,
    },
    /// What was durable is damaged.
    #[error(
        "{} is damaged at byte {offset}: {what}. What this monitor promised is lost: remove it from the cluster and add \
         a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: Damage,
    },
    /// More than a frame takes.
    #[error("the log of the monitor cannot be written down: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum Damage {
    /// Not a log file.
    #[error("it does not begin as a monitor's log")]
    Start,
    /// A frame's checksum or length.
    #[error("a record is broken, and whole ones follow it")]
    Frame,
    /// A frame whose checksum is right.
    #[error("a record cannot be read: {0}")]
    Body(#[from] bincode::error::DecodeError),
    /// A frame is missing.
    #[error("record {expected} is missing")]
    Sequence {
        /// Which.
        expected: u64,
    },
    /// The checkpoint.
    #[error("the checkpoint's length or checksum is wrong")]
    Checkpoint,
}

/// What can be appended to and made durable.
trait LogFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The files of one monitor, open for writing.
pub(super) struct Storage {
    dir: PathBuf,
    /// Holds the lock.
    _lock: File,
    identity: MonIdentity,
    file: Box<dyn LogFile>,
    number: u64,
    /// Of the next frame.
    sequence: u64,
    /// Of the first frame, and of all others.
    base_bytes: u64,
    bytes: u64,
    log: DurableState,
    checkpoint: Option<CheckpointRef>,
    failed: bool,
}

/// A monitor as it is on disk.
pub(super) struct Opened {
    pub storage: Storage,
    pub identity: MonIdentity,
    pub log: DurableState,
    pub checkpoint: Option<Checkpoint>,
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StorageError + 'a {
    move |source| StorageError::Io { doing, path: path.to_owned(), source }
}

fn log_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}"))
}

fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("checkpoint.{number}"))
}

/// Takes the lock, so that no two processes are the same monitor.
fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("make durable", dir))
}

/// Makes a file with this content, durable and whole or not at all.
fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> Result<File, StorageError> {
    let temporary = dir.join("new");
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes).map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("make durable", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("create", path))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Numbers of the files `PREFIX.N` of a folder.
fn numbers(dir: &Path, prefix: &str) -> Result<Vec<u64>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let name = entry.map_err(io_error("read", dir))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('.')?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// What a log file says.
struct Contents {
    base: Base,
    log: DurableState,
    checkpoint: Option<CheckpointRef>,
    /// Of the next frame.
    sequence: u64,
    /// Bytes of header and first frame.
    base_len: usize,
    /// Bytes that are whole; what follows was never durable.
    len: usize,
}

fn read_log(path: &Path, bytes: &[u8]) -> Result<Contents, StorageError> {
    let damaged =
        |offset: usize, what| StorageError::Damaged { path: path.to_owned(), offset: offset as u64, what };
    let start = bytes.strip_prefix(&LOG_MAGIC).and_then(|rest| rest.first_chunk());
    let form = u16::from_le_bytes(*start.ok_or_else(|| damaged(0, Damage::Start))?);
    if form != FORM {
        return Err(StorageError::Form { path: path.to_owned(), found: form });
    }
    let mut at = LOG_HEADER_LEN;
    let Some((0, body)) = format::frame(&bytes[at..]) else { return Err(damaged(at, Damage::Start)) };
    let base: Base = format::read(body).map_err(|error| damaged(at, error.into()))?;
    at += format::FRAME_HEADER_LEN + body.len();
    let mut contents = Contents {
        log: base.log.clone(),
        checkpoint: base.checkpoint,
        base,
        sequence: 1,
        base_len: at,
        len: at,
    };
    while let Some((sequence, body)) = format::frame(&bytes[at..]) {
        if sequence != contents.sequence {
            return Err(damaged(at, Damage::Sequence { expected: contents.sequence }));
        }
        let batch: Batch = format::read(body).map_err(|error| damaged(at, error.into()))?;
        batch.records.iter().for_each(|record| contents.log.absorb(record));
        contents.checkpoint = batch.checkpoint.or(contents.checkpoint);
        contents.sequence += 1;
        at += format::FRAME_HEADER_LEN + body.len();
    }
    if format::frame_anywhere(&bytes[at..], contents.sequence) {
        return Err(damaged(at, Damage::Frame));
    }
    contents.len = at;
    Ok(contents)
}

fn first_bytes(base: &Base) -> Result<Vec<u8>, StorageError> {
    let mut bytes = LOG_MAGIC.to_vec();
    bytes.extend(FORM.to_le_bytes());
    format::put_frame(0, base, &mut bytes)?;
    Ok(bytes)
}

fn write_checkpoint(dir: &Path, number: u64, checkpoint: &Checkpoint) -> Result<CheckpointRef, StorageError> {
    let bytes = checkpoint.state.as_slice();
    write_whole(dir, &checkpoint_path(dir, number), bytes)?;
    let (len, crc32) = (bytes.len() as u64, crc32fast::hash(bytes));
    Ok(CheckpointRef { number, slot: checkpoint.slot, len, crc32 })
}

impl Storage {
    /// Makes the files of a new monitor.
    pub fn create(
        dir: &Path,
        identity: MonIdentity,
        log: DurableState,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), StorageError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let _lock = lock(dir)?;
        if !numbers(dir, "log")?.is_empty() {
            return Err(StorageError::Exists { dir: dir.to_owned() });
        }
        let checkpoint = checkpoint.map(|checkpoint| write_checkpoint(dir, 1, checkpoint)).transpose()?;
        // The log comes last: without it there is no monitor.
        write_whole(dir, &log_path(dir, 1), &first_bytes(&Base { identity, log, checkpoint })?)?;
        Ok(())
    }

    /// Reads a monitor and readies it for writing.
    pub fn open(dir: &Path) -> Result<Opened, StorageError> {
        let missing = || StorageError::Missing { dir: dir.to_owned() };
        if !dir.is_dir() {
            return Err(missing());
        }
        let lock = lock(dir)?;
        let number = numbers(dir, "log")?.pop().ok_or_else(missing)?;
        let path = log_path(dir, number);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        let Contents { base, log, checkpoint, sequence, base_len, len } = read_log(&path, &bytes)?;
        let state = checkpoint.map(|known| Self::read_checkpoint(dir, known)).transpose()?;
        let mut file = OpenOptions::new().write(true).open(&path).map_err(io_error("open", &path))?;
        if len < bytes.len() {
            tracing::info!(path = %path.display(), torn_bytes = bytes.len() - len, "the last flush was cut short");
            file.set_len(len as u64).map_err(io_error("shorten", &path))?;
            file.sync_all().map_err(io_error("make durable", &path))?;
        }
        file.seek(SeekFrom::End(0)).map_err(io_error("write", &path))?;
        let storage = Storage {
            dir: dir.to_owned(),
            _lock: lock,
            identity: base.identity.clone(),
            file: Box::new(file),
            number,
            sequence,
            base_bytes: base_len as u64,
            bytes: (len - base_len) as u64,
            log: log.clone(),
            checkpoint,
            failed: false,
        };
        storage.remove_old();
        Ok(Opened { storage, identity: base.identity, log, checkpoint: state })
    }

    fn read_checkpoint(dir: &Path, known: CheckpointRef) -> Result<Checkpoint, StorageError> {
        let path = checkpoint_path(dir, known.number);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        if bytes.len() as u64 != known.len || crc32fast::hash(&bytes) != known.crc32 {
            return Err(StorageError::Damaged { path, offset: 0, what: Damage::Checkpoint });
        }
        Ok(Checkpoint { slot: known.slot, state: bytes.into() })
    }

    /// Removes files that a newer one has replaced. One that stays does no harm: the next start removes it.
    fn remove_old(&self) {
        let current = self.checkpoint.map(|checkpoint| checkpoint.number);
        for (prefix, keep) in [("log", Some(self.number)), ("checkpoint", current)] {
            for number in numbers(&self.dir, prefix).unwrap_or_default() {
                if Some(number) != keep {
                    let path = self.dir.join(format!("{prefix}.{number}"));
                    if let Err(error) = fs::remove_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "an old file of the monitor stays");
                    }
                }
            }
        }
    }

    /// Makes records and checkpoint durable, all or nothing.
    pub fn append(
        &mut self,
        records: Vec<Record>,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), StorageError> {
        let path = log_path(&self.dir, self.number);
        if self.failed {
            let source = io::Error::other("an earlier write failed");
            return Err(StorageError::Io { doing: "write", path, source });
        }
        // Until it is known to have gone well.
        self.failed = true;
        let replaced = self.checkpoint;
        let next = replaced.map_or(1, |checkpoint| checkpoint.number + 1);
        let written = checkpoint.map(|new| write_checkpoint(&self.dir, next, new)).transpose()?;
        let records: Vec<Record> =
            records.into_iter().map(|record| without_state(record, checkpoint)).collect();
        let batch = Batch { records, checkpoint: written };
        let mut bytes = Vec::new();
        format::put_frame(self.sequence, &batch, &mut bytes)?;
        self.file.append(&bytes).map_err(io_error("write", &path))?;
        self.file.sync().map_err(io_error("make durable", &path))?;
        self.sequence += 1;
        self.bytes += bytes.len() as u64;
        batch.records.iter().for_each(|record| self.log.absorb(record));
        self.checkpoint = written.or(replaced);
        if self.bytes > ROTATE_AFTER_BYTES.max(2 * self.base_bytes) {
            self.rotate()?;
        } else if written.is_some() {
            self.remove_old();
        }
        self.failed = false;
        Ok(())
    }

    /// Begins a new log file.
    fn rotate(&mut self) -> Result<(), StorageError> {
        let (identity, log) = (self.identity.clone(), self.log.clone());
        let bytes = first_bytes(&Base { identity, log, checkpoint: self.checkpoint })?;
        let file = write_whole(&self.dir, &log_path(&self.dir, self.number + 1), &bytes)?;
        self.file = Box::new(file);
        self.number += 1;
        (self.sequence, self.base_bytes, self.bytes) = (1, bytes.len() as u64, 0);
        self.remove_old();
        Ok(())
    }
}

/// A state that was fetched whole is in the checkpoint of the same batch: once is enough.
fn without_state(record: Record, checkpoint: Option<&Checkpoint>) -> Record {
    match record {
        Record::Install { ledger, .. }
            if checkpoint.is_some_and(|checkpoint| checkpoint.slot >= ledger.slot) =>
        {
            Record::Install { ledger, state: Payload::from(&[][..]) }
        }
        other => other,
    }
}
