//! Coming up, staying up, stopping.

use super::event::MonitorAnswer;
use super::{Effect, MonitorTag, Osd, StopReason, Superblock};
use cairn_mon::monitor::DaemonNews;
use cairn_mon::service::{OsdCommand, Reply, Request};
use cairn_pg::Time;
use cairn_types::{Epoch, OsdInfo};
use cairn_wire::ErrorCode;

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The newest map does not have this run up.
    Booting {
        /// When the monitors are asked again.
        ask_at: Time,
        /// No earlier than with this map.
        wait_for: Epoch,
    },
    /// The newest map has this run up.
    Up {
        up_from: Epoch,
        /// When the monitors are told again that it runs.
        beacon_at: Time,
    },
    /// Asked to stop: waits until the map has it down, no longer than this.
    Stopping { up_from: Option<Epoch>, until: Time },
    /// Nothing is done any more.
    Stopped,
}

impl Osd {
    /// What the newest map says of this OSD.
    fn me(&self) -> Option<&OsdInfo> {
        self.maps.current()?.osds.get(&self.whoami())
    }

    /// The epoch from which on the newest map has this run up.
    fn up_in_map(&self) -> Option<Epoch> {
        let me = self.me()?;
        let this_run = me.uuid == Some(self.superblock.uuid)
            && (me.public, me.cluster) == (Some(self.public), Some(self.cluster));
        (me.up && this_run).then_some(me.up_from)
    }

    /// The epoch this run is up from; `None` while it is not.
    pub(super) fn up_from(&self) -> Option<Epoch> {
        match self.phase {
            Phase::Up { up_from, .. } => Some(up_from),
            Phase::Stopping { up_from, .. } => up_from,
            Phase::Booting { .. } | Phase::Stopped => None,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped)
    }

    pub(super) fn boot_wake_at(&self) -> Option<Time> {
        match self.phase {
            Phase::Booting { ask_at, .. } => self.maps.current().map(|_| ask_at),
            Phase::Up { beacon_at, .. } => Some(beacon_at),
            Phase::Stopping { until, .. } => Some(until),
            Phase::Stopped => None,
        }
    }

    /// A new map: whether this run is up in it.
    pub(super) fn boot_on_map(&mut self) {
        let up = self.up_in_map();
        match (self.phase, up) {
            (Phase::Booting { .. }, Some(up_from)) => {
                self.phase = Phase::Up { up_from, beacon_at: self.time };
                // Whatever this store's number was before it, was over when it booted.
                if self.superblock.born.is_none() {
                    let born = Some(Epoch(up_from.0.saturating_sub(1)));
                    self.superblock = Superblock { born, ..self.superblock };
                    self.out.push(Effect::SaveSuperblock(self.superblock));
                }
            }
            (Phase::Booting { ask_at, wait_for }, None) => {
                if wait_for > Epoch(0) && self.maps.epoch() >= wait_for {
                    self.phase = Phase::Booting { ask_at: self.time.min(ask_at), wait_for: Epoch(0) };
                }
            }
            (Phase::Up { beacon_at, .. }, Some(up_from)) => self.phase = Phase::Up { up_from, beacon_at },
            (Phase::Up { .. }, None) => {
                let ours = self.me().is_some_and(|me| me.uuid == Some(self.superblock.uuid));
                if !ours {
                    return self.stop(StopReason::NotOurs { osd: self.whoami() });
                }
                // Somebody took it for dead.
                self.phase = Phase::Booting { ask_at: self.time, wait_for: Epoch(0) };
            }
            (Phase::Stopping { up_from: Some(from), .. }, None) => self.stopped_cleanly(Some(from)),
            (Phase::Stopping { .. } | Phase::Stopped, _) => {}
        }
    }

    /// Whatever is due.
    pub(super) fn tick_boot(&mut self) {
        match self.phase {
            Phase::Booting { ask_at, wait_for } if ask_at <= self.time && self.maps.current().is_some() => {
                let ask_at = self.time.plus_ms(self.config.boot_retry_ms);
                self.phase = Phase::Booting { ask_at, wait_for };
                let command = OsdCommand::Boot {
                    osd: self.whoami(),
                    uuid: self.superblock.uuid,
                    public: self.public,
                    cluster: self.cluster,
                    clean: self.clean,
                };
                self.boot_asked = Some(self.ask_monitors(Request::Osd(command)));
            }
            Phase::Up { up_from, beacon_at } if beacon_at <= self.time => {
                let beacon_at = self.time.plus_ms(self.config.beacon_interval_ms);
                self.phase = Phase::Up { up_from, beacon_at };
                self.out.push(Effect::Tell(DaemonNews::OsdBeacon { osd: self.whoami(), up_from }));
            }
            Phase::Stopping { up_from, until } if until <= self.time => self.stopped_cleanly(up_from),
            _ => {}
        }
    }

    pub(super) fn ask_monitors(&mut self, request: Request) -> MonitorTag {
        self.next_tag += 1;
        let tag = MonitorTag(self.next_tag);
        self.out.push(Effect::AskMonitors { tag, request });
        tag
    }

    /// What the monitors said. Only about booting it matters: everything else shows in the map.
    pub(super) fn monitors_said(&mut self, tag: MonitorTag, answer: MonitorAnswer) {
        if self.boot_asked != Some(tag) {
            return;
        }
        self.boot_asked = None;
        let Phase::Booting { ask_at, .. } = self.phase else { return };
        match answer {
            MonitorAnswer::Done(Reply::BootLater { epoch }) => {
                let ask_at = if self.maps.epoch() >= epoch { self.time } else { ask_at };
                self.phase = Phase::Booting { ask_at, wait_for: epoch };
            }
            // The number is another store's or nobody's, or this run is an old or a blocked one.
            MonitorAnswer::Refused { code, why }
                if [ErrorCode::INVAL, ErrorCode::NOENT, ErrorCode::STALE, ErrorCode::BLOCKLISTED]
                    .contains(&code) =>
            {
                self.stop(StopReason::Refused { why });
            }
            MonitorAnswer::Done(_) | MonitorAnswer::Refused { .. } | MonitorAnswer::Failed => {}
        }
    }

    /// The process is to stop. Who waits for this OSD hears of it before it is gone.
    pub(super) fn begin_stop(&mut self) {
        match self.phase {
            Phase::Up { up_from, .. } => {
                let until = self.time.plus_ms(self.config.stop_timeout_ms);
                self.phase = Phase::Stopping { up_from: Some(up_from), until };
                let command = OsdCommand::Stopping { osd: self.whoami(), public: self.public };
                self.ask_monitors(Request::Osd(command));
            }
            Phase::Booting { .. } => self.stopped_cleanly(None),
            Phase::Stopping { .. } | Phase::Stopped => {}
        }
    }

    /// All that was handed to the store comes before this in its order.
    fn stopped_cleanly(&mut self, up_from: Option<Epoch>) {
        if let Some(up_from) = up_from {
            let clean = Some((up_from, self.maps.epoch()));
            self.superblock = Superblock { clean, ..self.superblock };
            self.out.push(Effect::SaveSuperblock(self.superblock));
        }
        self.stop(StopReason::Clean);
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Stopped;
            self.out.push(Effect::Stopped(reason));
        }
    }
}
