//! A watchdog: a core that spins within one event is a verdict, not a run that never ends.
//!
//! Virtual time cannot show it, since no event ends: whoever runs a seed beats a pulse before each event, and a thread
//! beside it looks whether it still does. How long an event may take is the only thing here that is measured by a real
//! clock; it is a thousand times what the slowest takes.

use crate::plan::Proc;
use crate::timeline::Instant;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one event may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    /// How many events came before.
    pub events: u64,
    /// When it is, in the run's own time.
    pub at: Instant,
    /// To whom it happens.
    pub who: Option<Proc>,
}

/// Beaten by who runs a seed.
#[derive(Clone, Default, Debug)]
pub struct Pulse(Arc<Mutex<Beat>>);

impl Pulse {
    /// Something begins.
    pub fn beat(&self, beat: Beat) {
        *self.last() = beat;
    }

    fn last(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` in a thread of its own.
///
/// # Errors
/// The beat after which there was none for `patience`. The thread is left to itself: nothing can end it.
pub fn watch<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce(Pulse) -> T + Send + 'static,
) -> Result<T, Beat> {
    let pulse = Pulse::default();
    let (done, result) = channel();
    let of_worker = pulse.clone();
    // Nobody waits for the result of one that was given up.
    let worker = std::thread::spawn(move || drop(done.send(work(of_worker))));
    let mut before = None;
    loop {
        match result.recv_timeout(patience) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                let last = *pulse.last();
                if before.replace(last) == Some(last) {
                    return Err(last);
                }
            }
            Err(RecvTimeoutError::Disconnected) => match worker.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(*pulse.last()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_comes_to_an_end_is_waited_for() {
        let slow = |pulse: Pulse| {
            for events in 0..40 {
                pulse.beat(Beat { events, ..Beat::default() });
                std::thread::sleep(Duration::from_millis(5));
            }
            7
        };
        // It takes longer than the patience for one event.
        assert_eq!(watch(Duration::from_millis(60), slow), Ok(7));
    }

    #[test]
    fn what_spins_within_an_event_is_given_up_and_named() {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let last = Beat { events: 3, at: Instant(5_000), who: Some(Proc::Mon(2)) };
        let spins = move |pulse: Pulse| {
            for events in 0..=3 {
                pulse.beat(Beat { events, ..last });
            }
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        assert_eq!(watch(Duration::from_millis(30), spins), Err(last));
        over.store(true, Ordering::Relaxed);
    }
}
