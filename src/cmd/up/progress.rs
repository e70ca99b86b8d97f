//! Waiting for a cluster to be well, with a line that tells how far it is.

use super::bring_up::{self, Daemons};
use crate::cmd::session::Session;
use anyhow::bail;
use cairn_mon::monitor::Query;
use cairn_mon::service::status::Status;
use cairn_types::{Health, HealthCheck, HealthCode, PgState, Severity};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often the cluster is looked at while it comes up.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long one look may take: while there is no quorum nobody answers, and a daemon that did not start is to be
/// noticed.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// The line, on stderr, where that is a terminal.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
        let bar = ProgressBar::new_spinner();
        let bar = style.map_or(bar.clone(), |style| bar.with_style(style));
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    fn say(&self, line: String) {
        self.0.set_message(line);
    }

    /// Takes it away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Waits until a majority of the monitors agrees.
pub async fn wait_for_quorum(
    session: &Session,
    daemons: &mut Daemons,
    progress: &Progress,
    timeout: Duration,
) -> anyhow::Result<()> {
    let until = Instant::now() + timeout;
    progress.say("waiting for the monitors to agree".to_owned());
    let impatient = session.impatient(LOOK_TIMEOUT);
    loop {
        match impatient.read(Query::Version).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => daemons.check()?,
        }
        sleep(INTERVAL).await;
    }
}

/// Waits for HEALTH_OK and gives the status; the last one seen when the time is over.
pub async fn wait_until_well(
    session: &Session,
    daemons: &mut Daemons,
    progress: &Progress,
    until: Instant,
) -> anyhow::Result<Status> {
    let mut is_pool_made = false;
    loop {
        daemons.check()?;
        let status = session.status().await?;
        progress.say(line(&status));
        if !is_pool_made {
            is_pool_made = bring_up::first_pool(session, &status).await?;
        } else if is_settled(&status.health) {
            return Ok(status);
        }
        if Instant::now() > until {
            if status.osd.total > 0 && status.osd.up == 0 {
                bail!(
                    "no OSD came up in time: their logs in {} tell why",
                    daemons.layout().log_dir().display()
                );
            }
            return Ok(status);
        }
        sleep(INTERVAL).await;
    }
}

/// Whether waiting makes it no better: all is well, or what is said is about how the cluster was set up.
pub fn is_settled(health: &Health) -> bool {
    const BY_CHOICE: [HealthCode; 8] = [
        HealthCode::OsdMapFlags,
        HealthCode::OsdNearFull,
        HealthCode::PoolNearFull,
        HealthCode::PoolTooFewPgs,
        HealthCode::PoolNoRedundancy,
        HealthCode::PoolAppNotEnabled,
        HealthCode::TooFewOsds,
        HealthCode::TooManyPgs,
    ];
    let is_by_choice = |(code, check): (&HealthCode, &HealthCheck)| {
        check.severity == Severity::Warning && BY_CHOICE.contains(code)
    };
    health.checks.iter().all(is_by_choice)
}

fn line(status: &Status) -> String {
    let (mon, osd, pg) = (&status.mon, &status.osd, &status.pg);
    let well = PgState::ACTIVE | PgState::CLEAN;
    let clean: u64 = pg.states.iter().filter(|(state, _)| state.has(well)).map(|(_, count)| count).sum();
    format!(
        "monitors {}/{}, mgr {}, OSDs up {}/{}, groups active+clean {clean}/{}",
        mon.quorum.len(),
        mon.total,
        status.mgr.active.as_deref().unwrap_or("none"),
        osd.up,
        osd.total,
        pg.total,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_is_not_waited_for() {
        let check = |severity| HealthCheck {
            severity,
            summary: String::new(),
            count: 1,
            detail: Vec::new(),
            next_step: String::new(),
        };
        let mut health = Health::default();
        assert!(is_settled(&health));
        health.add(HealthCode::PoolNoRedundancy, check(Severity::Warning));
        assert!(is_settled(&health));
        health.add(HealthCode::PgDegraded, check(Severity::Warning));
        assert!(!is_settled(&health));
        let mut health = Health::default();
        health.add(HealthCode::TooFewOsds, check(Severity::Error));
        assert!(!is_settled(&health));
    }
}
