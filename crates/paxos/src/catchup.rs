//! Full state for a monitor that lags behind what others still hold as entries. The one that lags
//! pulls, piece by piece; the one that has it keeps one state in memory while it is being fetched.

use std::time::Duration;

use cairn_types::MonId;

use crate::ballot::Slot;
use crate::command::Payload;
use crate::effects::{Apply, Notice};
use crate::hash::Fnv;
use crate::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES};
use crate::message::Message;
use crate::node::{Node, Role};
use crate::state::{Ledger, Record};
use crate::timers::Moment;

/// A state being fetched.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Incoming {
    ledger: Box<Ledger>,
    len: u64,
    hash: u64,
    bytes: Vec<u8>,
    heard_at: Moment,
}

impl Incoming {
    /// Whether pieces still come; otherwise another source is asked.
    pub(crate) fn alive(&self, now: Moment, retry: Duration) -> bool {
        now.since(self.heard_at) < retry
    }
}

/// A state being given out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Outgoing {
    ledger: Box<Ledger>,
    state: Payload,
    hash: u64,
    used_at: Moment,
}

impl Node {
    /// Sends the first piece of a state from which the entries we hold go on, or asks the application
    /// for one.
    pub(crate) fn offer_snapshot(&mut self, to: MonId) {
        match &self.outgoing {
            Some(outgoing) if outgoing.ledger.slot >= self.state.base.slot => {
                let slot = outgoing.ledger.slot;
                self.send_piece(to, slot, 0);
            }
            _ => {
                self.outgoing = None;
                // A second request may be a retry; the application may have dropped the first question.
                let known = self.snapshot_waiters.contains(&to);
                self.snapshot_waiters.insert(to);
                if known || self.snapshot_waiters.len() == 1 {
                    self.fx.notices.push(Notice::NeedSnapshot);
                }
            }
        }
    }

    /// The application hands in its state at `slot`.
    pub(crate) fn on_snapshot(&mut self, slot: Slot, state: Payload) {
        let Some(ledger) = self.state.ledger_at(slot) else { return };
        let hash = Fnv::new().bytes(state.as_slice()).finish();
        self.outgoing = Some(Outgoing { ledger: Box::new(ledger), state, hash, used_at: self.now });
        for to in std::mem::take(&mut self.snapshot_waiters) {
            self.send_piece(to, slot, 0);
        }
    }

    pub(crate) fn on_snapshot_request(&mut self, from: MonId, slot: Slot, offset: u64) {
        match &self.outgoing {
            Some(outgoing) if outgoing.ledger.slot == slot => self.send_piece(from, slot, offset),
            _ => self.offer_snapshot(from),
        }
    }

    fn send_piece(&mut self, to: MonId, slot: Slot, offset: u64) {
        let Some(outgoing) = &mut self.outgoing else { return };
        let all = outgoing.state.as_slice();
        let Some(rest) = usize::try_from(offset).ok().and_then(|offset| all.get(offset..)) else { return };
        outgoing.used_at = self.now;
        let bytes = Payload::from(&rest[..rest.len().min(SNAPSHOT_CHUNK_BYTES)]);
        let ledger = (offset == 0).then(|| outgoing.ledger.clone());
        let (len, hash) = (all.len() as u64, outgoing.hash);
        self.early(to, Message::SnapshotChunk { slot, offset, len, hash, ledger, bytes });
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(crate) fn on_snapshot_chunk(
        &mut self,
        from: MonId,
        slot: Slot,
        offset: u64,
        len: u64,
        hash: u64,
        ledger: Option<Box<Ledger>>,
        bytes: &Payload,
    ) {
        if slot <= self.state.decided || len > SNAPSHOT_BYTES_MAX {
            return;
        }
        let same = |incoming: &Incoming| {
            incoming.ledger.slot == slot && incoming.len == len && incoming.hash == hash
        };
        if !self.incoming.as_ref().is_some_and(same) {
            // A different state: take it up if it is a beginning and nothing better is coming in.
            let busy = self.incoming.as_ref().is_some_and(|have| {
                have.ledger.slot >= slot && have.alive(self.now, self.timing.learn_retry)
            });
            let Some(ledger) = ledger.filter(|ledger| offset == 0 && ledger.slot == slot && !busy) else {
                return;
            };
            self.incoming = Some(Incoming { ledger, len, hash, bytes: Vec::new(), heard_at: self.now });
        }
        let Some(incoming) = &mut self.incoming else { return };
        let have = incoming.bytes.len() as u64;
        let fits = offset == have && have + bytes.len() as u64 <= len;
        if fits {
            incoming.bytes.extend_from_slice(bytes.as_slice());
            incoming.heard_at = self.now;
        }
        let have = incoming.bytes.len() as u64;
        if have < len {
            // A first piece may be the answer to a repeated question: the fetch goes on where it stood.
            // Any other piece that does not fit is a copy, and asking again would only multiply copies.
            if !fits && offset != 0 {
                return;
            }
            self.early(from, Message::SnapshotRequest { slot, offset: have });
            return;
        }
        let Some(incoming) = self.incoming.take() else { return };
        if Fnv::new().bytes(&incoming.bytes).finish() != incoming.hash {
            // Damaged, or pieces of two states: begin again when asked to by the next sign of life.
            return;
        }
        self.install(incoming.ledger, incoming.bytes.into());
    }

    fn install(&mut self, ledger: Box<Ledger>, state: Payload) {
        let slot = ledger.slot;
        if matches!(self.role, Role::Leader(_)) {
            // See `on_learn`: what we proposed in these slots need not be what was decided there.
            self.step_down(None);
            self.wait_for_leader();
        }
        self.ledger = (*ledger).clone();
        self.record(Record::Install { ledger, state: state.clone() });
        self.fx.apply.push(Apply::Install { slot, state });
        self.asked = None;
        // Entries above the installed slot that we accepted stay, and may be decided already.
        self.settle_by_recent();
        self.after_progress();
    }

    pub(crate) fn snapshot_deadline(&self) -> Option<Moment> {
        self.outgoing.as_ref().map(|outgoing| outgoing.used_at + self.timing.snapshot_idle)
    }

    pub(crate) fn drop_idle_snapshot(&mut self) {
        if self.snapshot_deadline().is_some_and(|at| at <= self.now) {
            self.outgoing = None;
        }
    }
}
