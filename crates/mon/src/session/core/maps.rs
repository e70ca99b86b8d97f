//! What the process wants to be told, what it was told, and what the monitor is told of that.

use super::{Effects, Sent};
use crate::message::MonSubscribe;
use crate::monitor::Publication;
use crate::service::limits::MAX_MAPS_PER_MESSAGE;
use crate::service::subscription::MapBatch;
use crate::session::{Update, Wants};
use cairn_types::{Epoch, MonMap};
use std::net::SocketAddr;

/// Epochs of the OSD map after which the monitor is told that they were taken: half a message, so that it has room
/// for two messages under way all the time.
const ACKNOWLEDGE_EVERY_EPOCHS: u32 = MAX_MAPS_PER_MESSAGE / 2;

/// A map is missing between what was received and what came.
#[derive(Debug)]
pub(super) struct Gap;

/// What is wanted and what is there.
#[derive(Debug, Default)]
pub(super) struct Maps {
    wants: Wants,
    /// Newest OSD map received.
    received: Epoch,
    /// Newest OSD map that the process has taken.
    taken: Epoch,
    /// Newest one that the monitor was told of.
    acknowledged: Epoch,
    /// Always followed: it says where the monitors are.
    mon_map: Option<MonMap>,
    mgr_map: Epoch,
    config: u64,
}

impl Maps {
    /// Says what is wanted from now on.
    pub fn set(&mut self, wants: Wants, out: &mut Effects) {
        if let Some((epoch, need)) = wants.osd_map {
            // Who says again what it wants need not know how far it is.
            let goes_on = self.wants.osd_map.is_some_and(|(_, before)| before == need);
            self.received = if goes_on { self.received.max(epoch) } else { epoch };
            self.taken = self.received;
        }
        let shown_now = wants.mon_map && !self.wants.mon_map;
        out.updates.extend(self.mon_map.iter().filter(|_| shown_now).cloned().map(Update::MonMap));
        self.wants = wants;
    }

    /// Tells the monitor.
    pub fn subscribe(&mut self, out: &mut Effects) {
        self.acknowledged = self.received;
        let told = MonSubscribe {
            osd_map: self.wants.osd_map.map(|(_, need)| (self.received, need)),
            mon_map: Some(self.mon_map.as_ref().map_or(Epoch(0), |map| map.epoch)),
            mgr_map: self.wants.mgr_map.then_some(self.mgr_map),
            config: self.wants.config.then_some(self.config),
        };
        out.send.push(Sent::Subscribe(told));
    }

    /// Takes what came; where the monitors are if that may be new.
    pub fn take(
        &mut self,
        publication: Publication,
        out: &mut Effects,
    ) -> Result<Option<Vec<SocketAddr>>, Gap> {
        match publication {
            Publication::OsdMaps(batch) => {
                if self.wants.osd_map.is_some()
                    && let Some((batch, last)) = self.new_of(batch)?
                {
                    self.received = last;
                    out.updates.push(Update::OsdMaps(batch));
                }
            }
            Publication::MonMap(map) => {
                if self.mon_map.as_ref().is_none_or(|known| known.epoch < map.epoch) {
                    let addrs =
                        map.mons.values().flat_map(|mon| &mon.addrs).map(|addr| addr.socket).collect();
                    out.updates.extend(self.wants.mon_map.then(|| Update::MonMap(map.clone())));
                    self.mon_map = Some(map);
                    return Ok(Some(addrs));
                }
            }
            Publication::MgrMap(map) => {
                if self.wants.mgr_map && map.epoch > self.mgr_map {
                    self.mgr_map = map.epoch;
                    out.updates.push(Update::MgrMap(map));
                }
            }
            Publication::Config { version, values } => {
                // A monitor that lags has an older one; the newer one follows.
                if self.wants.config && version > self.config {
                    self.config = version;
                    out.updates.push(Update::Config { version, values });
                }
            }
            Publication::Refused => {}
        }
        Ok(None)
    }

    /// What of a batch was not received before, and the epoch it leads to.
    fn new_of(&self, batch: MapBatch) -> Result<Option<(MapBatch, Epoch)>, Gap> {
        let MapBatch { full, mut increments, oldest } = batch;
        let full = full.filter(|map| map.epoch > self.received);
        increments.retain(|change| change.epoch > self.received);
        let start = full.as_ref().map_or(self.received, |map| map.epoch);
        let mut at = start;
        for change in &increments {
            if change.epoch != at.next() {
                return Err(Gap);
            }
            at = change.epoch;
        }
        Ok((at > self.received).then_some((MapBatch { full, increments, oldest }, at)))
    }

    /// The process has taken the OSD maps up to `epoch`; whether it is time to tell the monitor.
    pub fn delivered(&mut self, epoch: Epoch) -> bool {
        self.taken = self.taken.max(epoch);
        let unsaid = self.taken.0.saturating_sub(self.acknowledged.0);
        self.taken == self.received && unsaid >= ACKNOWLEDGE_EVERY_EPOCHS
    }
}
