//! The clocks of the process.

use crate::core::Now;
use cairn_pg::Time;
use cairn_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// Longest sleep: what is further away is looked at again then.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Both clocks, read now. The steady one runs while the machine is suspended.
pub fn now() -> Now {
    let steady = clock_gettime(ClockId::Boottime);
    let steady_us = steady.tv_sec as u64 * 1_000_000 + steady.tv_nsec as u64 / 1_000;
    Now { steady_us, wall: wall() }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

/// Grows with every start of the process, as long as the wall clock is not set back.
pub fn nonce() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// Sleeps until `at` on the steady clock, or for ever without one. May end a moment early.
pub async fn sleep_until(at: Option<Time>) {
    match at {
        Some(at) => {
            let left_us = at.0.saturating_mul(1_000).saturating_sub(now().steady_us);
            tokio::time::sleep(Duration::from_micros(left_us).min(SLEEP_MAX)).await;
        }
        None => std::future::pending().await,
    }
}
