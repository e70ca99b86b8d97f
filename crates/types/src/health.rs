//! How the cluster is, in checks with the codes operators know.

use crate::text::serde_as_text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How bad one check is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Severity {
    /// The cluster serves; look at it.
    #[serde(rename = "HEALTH_WARN")]
    Warning,
    /// Some I/O does not go on, or data is at risk.
    #[serde(rename = "HEALTH_ERR")]
    Error,
}

/// How bad all is: the worst of the checks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum HealthStatus {
    /// No check.
    #[default]
    #[serde(rename = "HEALTH_OK")]
    Ok,
    /// Warnings.
    #[serde(rename = "HEALTH_WARN")]
    Warning,
    /// An error.
    #[serde(rename = "HEALTH_ERR")]
    Error,
}

impl From<Severity> for HealthStatus {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Warning => HealthStatus::Warning,
            Severity::Error => HealthStatus::Error,
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HealthStatus::Ok => "HEALTH_OK",
            HealthStatus::Warning => "HEALTH_WARN",
            HealthStatus::Error => "HEALTH_ERR",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What a check is about.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum HealthCode {
            $($(#[$doc])* $variant,)*
        }

        impl HealthCode {
            /// Every code, in the order they are shown.
            pub const ALL: &'static [HealthCode] = &[$(HealthCode::$variant),*];

            /// The code as operators write it.
            pub fn as_str(self) -> &'static str {
                match self { $(HealthCode::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// A monitor is not in the quorum.
    MonDown = "MON_DOWN",
    /// No mgr is active.
    MgrDown = "MGR_DOWN",
    /// An OSD that is in is down.
    OsdDown = "OSD_DOWN",
    /// Every OSD of a host is down.
    OsdHostDown = "OSD_HOST_DOWN",
    /// An OSD goes down and comes back again and again.
    OsdFlapping = "OSD_FLAPPING",
    /// An OSD is full: clients write nothing.
    OsdFull = "OSD_FULL",
    /// An OSD takes no backfill.
    OsdBackfillFull = "OSD_BACKFILLFULL",
    /// An OSD will be full soon.
    OsdNearFull = "OSD_NEARFULL",
    /// Switches of the cluster are set.
    OsdMapFlags = "OSDMAP_FLAGS",
    /// Fewer OSDs than a pool has copies.
    TooFewOsds = "TOO_FEW_OSDS",
    /// Operations wait too long in an OSD.
    SlowOps = "SLOW_OPS",
    /// Placement groups do not serve.
    PgAvailability = "PG_AVAILABILITY",
    /// Copies are missing.
    PgDegraded = "PG_DEGRADED",
    /// Recovery waits for room.
    PgRecoveryFull = "PG_RECOVERY_FULL",
    /// Backfill waits for room.
    PgBackfillFull = "PG_BACKFILL_FULL",
    /// Copies differ.
    PgDamaged = "PG_DAMAGED",
    /// No copy of an object is known to exist.
    ObjectUnfound = "OBJECT_UNFOUND",
    /// Copies are on other OSDs than they should be.
    ObjectMisplaced = "OBJECT_MISPLACED",
    /// A pool has used up its quota.
    PoolFull = "POOL_FULL",
    /// A pool has nearly used up its quota.
    PoolNearFull = "POOL_NEAR_FULL",
    /// A pool has fewer placement groups than it should.
    PoolTooFewPgs = "POOL_TOO_FEW_PGS",
    /// A pool keeps one copy only.
    PoolNoRedundancy = "POOL_NO_REDUNDANCY",
    /// A pool is not said to be used by anything.
    PoolAppNotEnabled = "POOL_APP_NOT_ENABLED",
    /// OSDs carry more placement groups than they should.
    TooManyPgs = "TOO_MANY_PGS",
}

impl fmt::Display for HealthCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a health code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseHealthCodeError;

impl fmt::Display for ParseHealthCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such health code; `cairn health` prints those in force, such as OSD_DOWN")
    }
}

impl std::error::Error for ParseHealthCodeError {}

impl FromStr for HealthCode {
    type Err = ParseHealthCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().find(|code| code.as_str() == text).copied().ok_or(ParseHealthCodeError)
    }
}

serde_as_text!(HealthCode, String, |code| code.to_string(), |text: String| text.parse().ok());

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthCheck {
    /// How bad.
    pub severity: Severity,
    /// One line: what is wrong.
    pub summary: String,
    /// How many things are concerned.
    pub count: u64,
    /// Which things, one line each, bounded.
    pub detail: Vec<String>,
    /// What to do about it.
    pub next_step: String,
}

/// All checks that do not hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Health {
    /// The worst of them.
    pub status: HealthStatus,
    /// By code.
    pub checks: BTreeMap<HealthCode, HealthCheck>,
}

impl Health {
    /// Adds a check.
    pub fn add(&mut self, code: HealthCode, check: HealthCheck) {
        self.status = self.status.max(check.severity.into());
        self.checks.insert(code, check);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_print_as_they_parse_and_the_worst_check_is_the_status() {
        for &code in HealthCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert!("OSD_DWN".parse::<HealthCode>().is_err());
        let check = |severity| HealthCheck {
            severity,
            summary: String::new(),
            count: 1,
            detail: Vec::new(),
            next_step: String::new(),
        };
        let mut health = Health::default();
        health.add(HealthCode::OsdFull, check(Severity::Error));
        health.add(HealthCode::OsdDown, check(Severity::Warning));
        assert_eq!(health.status, HealthStatus::Error);
        assert!(
            serde_json::to_string(&health)
                .unwrap()
                .starts_with(r#"{"status":"HEALTH_ERR","checks":{"OSD_DOWN":"#)
        );
    }
}
