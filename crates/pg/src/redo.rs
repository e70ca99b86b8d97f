//! Roll-forward: what was taken back is made again where nothing else is left of an object.
//!
//! A copy that takes back changes has their result in its store and fetches the object, as it was before them, from another copy. Until
//! then it remembers the entries with the missing object ([`crate::MissingItem::undone`]). When no copy can give what the log
//! asks for, these changes become the next ones of the group: with new versions, and with the requests and answers they had, so
//! that a client that asks again is answered and nothing happens twice.
//!
//! That is right as long as nobody can have seen the object without them. No change of it was made since: one waits until all copies
//! have the object, and the log would ask for it. Reads wait, too, as long as a copy that takes part remembers something; and who has
//! not taken part in everything since that may have served anybody has to forget.

use crate::blob::Blob;
use crate::config::Canary as Bug;
use crate::effect::Effect;
use crate::log::{EntryKind, LogEntry};
use crate::message::Body;
use crate::missing::MissingItem;
use crate::recovery::{Moving, Purpose};
use crate::version::{ObjectKey, Version};
use crate::{Draft, Pg};
use cairn_types::OsdId;

impl Pg {
    /// Whether another copy remembers changes of the object that it has taken back.
    pub(crate) fn may_be_redone(&self, object: &ObjectKey) -> bool {
        let undone = |item: &MissingItem| !item.undone.is_empty();
        let mut peers = self.peering.peers.values();
        peers.any(|peer| peer.missing.get(object).is_some_and(undone))
            && !self.config.canary(Bug::ReadWhatMayBeRedone)
    }

    /// Nobody has what the log asks for. False if nobody has anything newer, either.
    pub(crate) fn begin_redo(&mut self, object: &ObjectKey) -> bool {
        let Some((from, last)) = self.find_undone(object) else { return false };
        if last.kind == EntryKind::Delete {
            self.redo(object, from, None);
            return true;
        }
        let version = last.version;
        self.recovery.moving.insert(object.clone(), Moving::Redoing { from, version });
        if from == self.whoami {
            let token = self.recovery.token(Purpose::Redo(object.clone()));
            self.out.push(Effect::ReadObject { token, object: object.clone() });
        } else {
            self.send(from, Body::Pull { object: object.clone(), need: version });
        }
        true
    }

    /// Who has taken back most of what followed the version that the log asks for, and the last of it.
    fn find_undone(&self, object: &ObjectKey) -> Option<(OsdId, LogEntry)> {
        let own = self.missing.get(object)?;
        let peers = self.peering.peers.iter();
        let peers = peers.filter_map(|(osd, peer)| Some((*osd, peer.missing.get(object)?)));
        let all = std::iter::once((self.whoami, own)).chain(peers);
        let fits = all.filter(|(_, item)| item.need == own.need && item.is_right());
        // A request that is in the log by now was sent again and carried out again.
        let unknown = |entry: &LogEntry| entry.request.is_some_and(|id| self.log.find_request(&id).is_none());
        let may = fits.filter(|(_, item)| item.undone.iter().all(unknown));
        let last = may.filter_map(|(osd, item)| Some((osd, item.undone.last()?)));
        last.max_by_key(|(osd, last)| (last.version, *osd)).map(|(osd, last)| (osd, last.clone()))
    }

    fn redo(&mut self, object: &ObjectKey, from: OsdId, data: Option<Blob>) {
        let missing = if from == self.whoami {
            Some(&self.missing)
        } else {
            self.peering.peers.get(&from).map(|peer| &peer.missing)
        };
        if let Some(item) = missing.and_then(|missing| missing.get(object)) {
            let undone = item.undone.clone();
            self.submit_redo(object.clone(), undone, data);
        }
    }

    /// What was taken back here has been read.
    pub(crate) fn redo_read(&mut self, object: &ObjectKey, found: Option<(Version, Blob)>) {
        let Some(Moving::Redoing { from, version }) = self.recovery.moving.remove(object) else { return };
        match found {
            Some((stored, data)) if stored == version => self.redo(object, from, Some(data)),
            _ => {
                self.missing.forget_undone(object);
                let item = self.missing.get(object).cloned();
                self.persist(Draft { missing: vec![(object.clone(), item)], ..Draft::default() });
                self.start_recovery(object);
            }
        }
    }

    fn is_redoing(&self, from: OsdId, object: &ObjectKey, version: Version) -> bool {
        matches!(self.recovery.moving.get(object),
            Some(Moving::Redoing { from: source, version: asked }) if *source == from && *asked == version)
    }

    /// What was taken back by another copy came.
    pub(crate) fn redo_pulled(&mut self, from: OsdId, object: &ObjectKey, version: Version, data: Blob) {
        if self.is_redoing(from, object, version) {
            self.recovery.moving.remove(object);
            self.redo(object, from, Some(data));
        }
    }

    /// The copy that has taken it back cannot read it, either.
    pub(crate) fn redo_pull_failed(&mut self, from: OsdId, object: &ObjectKey, version: Version) {
        if self.is_redoing(from, object, version) {
            self.recovery.moving.remove(object);
            if let Some(peer) = self.peering.peers.get_mut(&from) {
                peer.missing.forget_undone(object);
            }
            self.start_recovery(object);
        }
    }
}
