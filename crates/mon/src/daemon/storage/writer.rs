//! The thread that writes: a flush of the disk must not hold up the monitor's messages and timers.

use super::{Storage, StorageError};
use crate::monitor::Checkpoint;
use cairn_paxos::Record;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Batches that wait for the disk. Beyond it the monitor itself waits: one whose disk is that slow must not lead.
const BATCHES_WAITING_MAX: usize = 1024;

/// One batch of the monitor's effects.
#[derive(Debug)]
pub(in crate::daemon) struct Job {
    /// Its number.
    pub batch: u64,
    /// Its records.
    pub records: Vec<Record>,
    /// Its checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Whether somebody waits for it; if not it may wait for the next that somebody does wait for.
    pub flush: bool,
}

/// What the thread tells: all batches up to this one are durable, or nothing will be any more.
pub(in crate::daemon) type Done = Result<u64, StorageError>;

/// The thread. Dropping it waits until what it was given is written.
pub(in crate::daemon) struct Writer {
    /// `None` only while it is dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(storage: Storage, done: mpsc::UnboundedSender<Done>) -> std::io::Result<Writer> {
        let (jobs, inbox) = sync_channel(BATCHES_WAITING_MAX);
        let builder = std::thread::Builder::new().name("mon-storage".to_owned());
        let thread = builder.spawn(move || write_all(storage, &inbox, &done))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in the next batch.
    pub fn write(&self, job: Job) {
        // The thread ends early only after it has told a failure.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All that waits goes out in one flush.
fn write_all(mut storage: Storage, inbox: &Receiver<Job>, done: &mpsc::UnboundedSender<Done>) {
    let mut held: Option<Job> = None;
    loop {
        let first = inbox.recv();
        let over = first.is_err();
        for job in first.into_iter().chain(inbox.try_iter()) {
            match &mut held {
                None => held = Some(job),
                Some(held) => {
                    held.batch = job.batch;
                    held.records.extend(job.records);
                    held.checkpoint = job.checkpoint.or(held.checkpoint.take());
                    held.flush |= job.flush;
                }
            }
        }
        if let Some(Job { batch, records, checkpoint, .. }) = held.take_if(|held| held.flush || over) {
            let result = storage.append(records, checkpoint.as_ref());
            let failed = result.is_err();
            // Whoever listened may be gone; the batch is durable all the same.
            let _ = done.send(result.map(|()| batch));
            if failed {
                return;
            }
        }
        if over {
            return;
        }
    }
}
