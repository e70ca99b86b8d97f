//! Committed maps to those who want them. Any monitor serves its subscribers from what it has applied:
//! maps carry their versions, so late is never wrong.

use super::{Effects, Monitor, Publication, Subscriber, Subscription};
use crate::service::ClusterState;
use crate::service::limits::MAX_MAPS_PER_MESSAGE;
use crate::service::subscription::next_maps;
use cairn_types::Epoch;
use std::collections::BTreeMap;

/// Subscribers of one monitor.
pub const MAX_SUBSCRIBERS: usize = 1 << 14;

/// Epochs of the OSD map sent to a subscriber beyond what it said it has: two full messages are under way
/// at most.
pub const MAX_UNACKNOWLEDGED_EPOCHS: u32 = 2 * MAX_MAPS_PER_MESSAGE;

#[derive(Clone, Debug)]
struct Entry {
    wants: Subscription,
    /// Newest epoch of the OSD map sent.
    sent: Epoch,
}

/// Who wants what.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscribers {
    entries: BTreeMap<Subscriber, Entry>,
    /// Those to be looked at although the state did not change.
    news: Vec<Subscriber>,
    /// Version of the state that everybody was looked at for.
    version: Option<u64>,
}

impl Subscribers {
    pub fn set(&mut self, subscriber: Subscriber, wants: Subscription, out: &mut Effects) {
        if self.entries.len() >= MAX_SUBSCRIBERS && !self.entries.contains_key(&subscriber) {
            return out.publish.push((subscriber, Publication::Refused));
        }
        let has = wants.osd_map.map_or(Epoch(0), |(have, _)| have);
        // What is under way to it need not be sent again; a subscriber that lost it connects anew.
        let sent = self.entries.get(&subscriber).map_or(has, |known| known.sent.max(has));
        self.entries.insert(subscriber, Entry { wants, sent });
        self.news.push(subscriber);
    }

    pub fn remove(&mut self, subscriber: Subscriber) {
        self.entries.remove(&subscriber);
    }
}

impl Monitor {
    /// Sends what is new to those who want it.
    pub(super) fn publish(&mut self, out: &mut Effects) {
        let Some(state) = &self.state else { return };
        let Subscribers { entries, news, version } = &mut self.subscribers;
        if *version != Some(state.version()) {
            *version = Some(state.version());
            news.clear();
            for (&subscriber, entry) in entries.iter_mut() {
                entry.publish(subscriber, state, out);
            }
        }
        for subscriber in news.drain(..) {
            if let Some(entry) = entries.get_mut(&subscriber) {
                entry.publish(subscriber, state, out);
            }
        }
    }
}

impl Entry {
    fn publish(&mut self, subscriber: Subscriber, state: &ClusterState, out: &mut Effects) {
        let mut send = |publication| out.publish.push((subscriber, publication));
        let wants = &mut self.wants;
        if let Some((have, need)) = wants.osd_map {
            while self.sent.0.saturating_sub(have.0) < MAX_UNACKNOWLEDGED_EPOCHS {
                let batch = next_maps(state.osd_maps(), self.sent, need);
                let Some(last) = batch.last() else { break };
                self.sent = last;
                send(Publication::OsdMaps(batch));
            }
        }
        // These are small and whole: what was sent counts as received until the connection ends.
        if let Some(have) = &mut wants.mon_map
            && *have < state.mon_map().epoch
        {
            *have = state.mon_map().epoch;
            send(Publication::MonMap(state.mon_map().clone()));
        }
        if let Some(have) = &mut wants.mgr_map
            && *have < state.mgr_map().epoch
        {
            *have = state.mgr_map().epoch;
            send(Publication::MgrMap(state.mgr_map().clone()));
        }
        if let Some(have) = &mut wants.config
            && *have != state.config().version
        {
            *have = state.config().version;
            let values = state.config().effective(&wants.who);
            send(Publication::Config { version: *have, values });
        }
    }
}
