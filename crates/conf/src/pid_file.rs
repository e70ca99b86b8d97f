//! Which process a daemon is, told by a file that it keeps locked while it lives.
//!
//! A number alone may be that of a stranger by the time it is read: process numbers come around again, and a killed
//! daemon removes nothing. The lock goes with the process, whatever ends it.

use crate::PidFileError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the lock is tried for: somebody may hold it for the moment of a look.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// A pid file held by this process. Dropped, it is removed.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _lock: File,
}

/// A daemon that runs, found by its pid file. It cannot be mistaken for a later process of the same number.
#[derive(Debug)]
pub struct Held {
    /// Its process.
    pub pid: i32,
    handle: OwnedFd,
}

impl PidFile {
    /// Writes this process's number for `name`, unless another one is `name` already.
    pub fn take(path: &Path, name: &str) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < until => sleep(LOCK_INTERVAL),
                Err(Errno::WOULDBLOCK) => {
                    let pid = read_pid(&mut file).map_err(failed)?.unwrap_or_default();
                    return Err(PidFileError::Running { name: name.to_owned(), pid });
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(PidFile { path: path.to_owned(), _lock: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Under the lock, so it is this process's own.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The daemon whose pid file this is, if it runs.
pub fn running(path: &Path) -> Result<Option<Held>, PidFileError> {
    find(path).map_err(|source| PidFileError::Io { path: path.to_owned(), source })
}

fn find(path: &Path) -> io::Result<Option<Held>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !is_locked(&file)? {
        return Ok(None);
    }
    // Locked and not written yet: it starts in this moment, and is not there yet.
    let Some(pid) = read_pid(&mut file)?.and_then(Pid::from_raw) else { return Ok(None) };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    // While the lock is held, the number is its holder's; so the handle, opened before this look, is of the holder.
    if !is_locked(&file)? {
        return Ok(None);
    }
    Ok(Some(Held { pid: pid.as_raw_nonzero().get(), handle }))
}

fn is_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn read_pid(file: &mut File) -> io::Result<Option<i32>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(32).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

impl Held {
    /// Sends a signal. One that is gone by now is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Waits for the process to end; whether it did in time.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                ready => return Ok(ready? > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_once_and_goes_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("osd.0.pid");
        assert!(running(&path).unwrap().is_none());
        let held = PidFile::take(&path, "osd.0").unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(running(&path).unwrap().map(|held| held.pid), Some(pid));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        let error = PidFile::take(&path, "osd.0").unwrap_err();
        assert_eq!(error.to_string(), format!("osd.0 is running already, as process {pid}"));
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn the_number_of_a_stranger_is_not_taken_for_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("osd.0.pid");
        // As a killed daemon leaves it, with a number that is in use: this test's own.
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(running(&path).unwrap().is_none());
        for text in ["", "x", "0", "-1", "99999999999999999999"] {
            std::fs::write(&path, text).unwrap();
            assert!(running(&path).unwrap().is_none(), "{text:?}");
        }
        // And is taken over.
        let _held = PidFile::take(&path, "osd.0").unwrap();
        assert!(running(&path).unwrap().is_some());
    }
}
