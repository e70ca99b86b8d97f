//! Elapsed time and the durations of the protocol.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A reading of one monitor's monotonic clock, in microseconds since any fixed start. Readings of
/// different monitors, or of one monitor before and after a restart, are never compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, length: Duration) -> Moment {
        let us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(us))
    }
}

/// The durations of the protocol. All monitors of a cluster must use the same `lease` and
/// `drift_ppm`: the safety of lease reads rests on them. The others only shape how fast things go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// Between two signs of life of a leader, and between resends of an unanswered accept.
    pub heartbeat: Duration,
    /// How long a follower that heard its leader helps nobody else to lead.
    pub lease: Duration,
    /// Silence of the leader after which a follower asks for an election; also how long a leader
    /// goes on without hearing a majority.
    pub election: Duration,
    /// Added to `election` per rank, so that the lowest monitor usually stands first.
    pub rank_step: Duration,
    /// Upper bound of the random part of the election timer.
    pub jitter: Duration,
    /// How wrong the rate of a monitor's clock may be, in parts per million.
    pub drift_ppm: u32,
    /// Before a question for missing entries is asked again.
    pub learn_retry: Duration,
    /// Before a proposal without outcome is sent to the leader again.
    pub forward_retry: Duration,
    /// After which a proposal without outcome is reported as uncertain.
    pub proposal: Duration,
    /// After which an application state kept for monitors that catch up is dropped, counted from
    /// its last use.
    pub snapshot_idle: Duration,
}

impl Default for Timing {
    /// The loss of a leader is mended in about a second: an OSD failure that comes with it must
    /// still be handled within two.
    fn default() -> Self {
        Timing {
            // A fifth of the lease: four heartbeats may be lost before a read has to wait.
            heartbeat: Duration::from_millis(100),
            lease: Duration::from_millis(500),
            // Above the lease, so that a candidate is not refused for a lease that still runs.
            election: Duration::from_millis(600),
            // A round trip and a flush on a slow disk: the next rank finds a candidate already there.
            rank_step: Duration::from_millis(60),
            // Below the rank step, so that the lowest monitor that is up leads.
            jitter: Duration::from_millis(40),
            // Crystal clocks are within 100 ppm and kernels slew by 500; virtual machines need room.
            drift_ppm: 10_000,
            learn_retry: Duration::from_millis(200),
            forward_retry: Duration::from_millis(300),
            proposal: Duration::from_secs(10),
            snapshot_idle: Duration::from_secs(10),
        }
    }
}

/// Why a [`Timing`] cannot work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TimingError {
    /// Followers would leave between two signs of life.
    #[error("the heartbeat must be less than half of the lease")]
    HeartbeatTooSlow,
    /// Candidates would always meet a lease that still runs.
    #[error("the election timeout must be longer than the lease")]
    ElectionTooShort,
    /// No lease is left after the allowance.
    #[error("clock drift must be below 100000 ppm (a tenth)")]
    DriftTooLarge,
}

impl Timing {
    /// Checks the relations between the durations.
    pub fn check(&self) -> Result<(), TimingError> {
        if self.heartbeat.is_zero() || self.heartbeat * 2 >= self.lease {
            return Err(TimingError::HeartbeatTooSlow);
        }
        if self.election <= self.lease {
            return Err(TimingError::ElectionTooShort);
        }
        if self.drift_ppm >= 100_000 {
            return Err(TimingError::DriftTooLarge);
        }
        Ok(())
    }

    /// How long, by its own clock, a leader may rely on a follower that counts [`Timing::lease`] by
    /// another one. The follower's clock may run fast by the drift and the leader's slow by it:
    /// `lease × (1 − d) / (1 + d)`, rounded down.
    #[must_use]
    pub fn leader_lease(&self) -> Duration {
        const MILLION: u128 = 1_000_000;
        let drift = u128::from(self.drift_ppm);
        let us = self.lease.as_micros() * MILLION.saturating_sub(drift) / (MILLION + drift);
        Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
    }
}

/// SplitMix64: spreads election timers. Seeded by the driver, so that a run can be repeated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration below `bound` (zero if `bound` is below a microsecond).
    pub(crate) fn below(&mut self, bound: Duration) -> Duration {
        let us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        if us == 0 { Duration::ZERO } else { Duration::from_micros(self.next() % us) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timing_is_sound() {
        assert_eq!(Timing::default().check(), Ok(()));
        assert!(Timing::default().leader_lease() < Timing::default().lease);
    }

    #[test]
    fn unsound_timings_are_refused() {
        let good = Timing::default();
        let slow = Timing { heartbeat: good.lease / 2, ..good };
        assert_eq!(slow.check(), Err(TimingError::HeartbeatTooSlow));
        let eager = Timing { election: good.lease, ..good };
        assert_eq!(eager.check(), Err(TimingError::ElectionTooShort));
        let wild = Timing { drift_ppm: 100_000, ..good };
        assert_eq!(wild.check(), Err(TimingError::DriftTooLarge));
    }

    #[test]
    fn the_lease_of_a_slow_leader_ends_before_that_of_a_fast_follower() {
        let timing = Timing::default();
        let drift = f64::from(timing.drift_ppm) / 1e6;
        let leader_real = timing.leader_lease().as_secs_f64() / (1.0 - drift);
        let follower_real = timing.lease.as_secs_f64() / (1.0 + drift);
        assert!(leader_real <= follower_real);
    }
}
