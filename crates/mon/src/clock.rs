//! The clocks and the entropy of the drivers.

use cairn_paxos::Moment;
use cairn_types::Timestamp;
use ring::rand::SecureRandom;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// Longest sleep: timers further away are looked at again then.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// The steady clock, which also runs while the machine is suspended.
pub(crate) fn steady() -> Moment {
    let now = clock_gettime(ClockId::Boottime);
    Moment(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000)
}

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

/// A number nobody can guess and nothing draws again.
pub(crate) fn draw() -> u64 {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has entropy");
    u64::from_le_bytes(bytes)
}

/// Sleeps until `timer`, or for ever without one.
pub(crate) async fn sleep_until(timer: Option<Moment>) {
    match timer {
        // A timer of the runtime may end a moment early; the cores bear that.
        Some(at) => tokio::time::sleep(at.since(steady()).min(SLEEP_MAX)).await,
        None => std::future::pending().await,
    }
}
