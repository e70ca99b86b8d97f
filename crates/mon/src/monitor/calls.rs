//! Calls of clients from arrival to answer. The monitor that was called keeps a call until it has an answer
//! and hands it to whoever leads, again and again: what is carried out is seen in the log, what is refused
//! or read the leader tells.

use super::{Answer, Call, CallTag, Effects, Monitor, Now, Origin, PeerMessage};
use crate::service::{Refusal, Request};
use cairn_paxos::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Calls that wait for an answer at one monitor.
pub const MAX_CALLS: usize = 4096;

/// How long a call waits: several elections must have failed. The caller then asks another monitor.
pub const CALL_TIMEOUT_MS: u64 = 10_000;

/// Before a call is handed to the leader again: well above a round and a flush, as for proposals of the log.
const RETRY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
struct Waiting {
    call: Call,
    deadline: Moment,
    retry_at: Moment,
}

/// The calls made here that have no answer yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    waiting: BTreeMap<CallTag, Waiting>,
}

impl Calls {
    /// Whoever leads may have changed: ask at once.
    pub fn retry_now(&mut self, now: Now) {
        for call in self.waiting.values_mut() {
            call.retry_at = now.steady;
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn wake_at(&self) -> Option<Moment> {
        self.waiting.values().map(|call| call.retry_at.min(call.deadline)).min()
    }
}

impl Monitor {
    pub(super) fn take_call(&mut self, tag: CallTag, call: Call, out: &mut Effects) {
        let refusal = match &call {
            Call::Read(_) => None,
            Call::Change { request: Request::Leader(_), .. } => Some(Refusal::NotYours),
            Call::Change { once: None, request } if !request.is_repeatable() => Some(Refusal::NoId),
            Call::Change { .. } => None,
        };
        if let Some(refusal) = refusal {
            return out.answers.push((tag, Answer::refused(&refusal)));
        }
        if self.calls.waiting.len() >= MAX_CALLS || self.fault.is_some() {
            return out.answers.push((tag, Answer::Busy));
        }
        let now = self.now.steady;
        let deadline = now + Duration::from_millis(CALL_TIMEOUT_MS);
        self.calls.waiting.entry(tag).or_insert(Waiting { call, deadline, retry_at: now });
    }

    /// Hands calls that are due to the leader, and gives up those whose time is over.
    pub(super) fn tick_calls(&mut self, out: &mut Effects) {
        let now = self.now.steady;
        let over: Vec<CallTag> =
            self.calls.waiting.iter().filter(|(_, call)| call.deadline <= now).map(|(tag, _)| *tag).collect();
        for tag in over {
            self.answer_own(tag, Answer::TimedOut, out);
        }
        let Monitor { calls, lead, node, run, .. } = self;
        for (&tag, waiting) in calls.waiting.iter_mut().filter(|(_, call)| call.retry_at <= now) {
            waiting.retry_at = now + RETRY;
            let (run, call) = (*run, waiting.call.clone());
            if let Some(lead) = lead {
                // A full queue empties before the next try, and a refusal has been told here without fail.
                let _ = lead.enqueue(Origin { mon: node.id(), run, tag }, call);
            } else if let Some(leader) = node.leader() {
                out.early.push((leader, PeerMessage::Call { run, tag, call }));
            }
        }
    }

    /// A call that another monitor hands to this one because it takes it for the leader.
    pub(super) fn take_forwarded(&mut self, origin: Origin, call: Call, out: &mut Effects) {
        if let Call::Change { request: Request::Leader(_), .. } = call {
            return;
        }
        // Who does not lead keeps silent: the origin tries again when it hears who does.
        if let Some(lead) = &mut self.lead
            && let Some(answer) = lead.enqueue(origin, call)
        {
            self.deliver(origin, answer, out);
        }
    }

    /// Brings an answer to where the call was made.
    pub(super) fn deliver(&mut self, origin: Origin, answer: Answer, out: &mut Effects) {
        let Origin { mon, run, tag } = origin;
        if mon != self.node.id() {
            out.early.push((mon, PeerMessage::Answer { run, tag, answer }));
        } else if run == self.run {
            self.answer_own(tag, answer, out);
        }
    }

    /// Answers a call made here, once.
    pub(super) fn answer_own(&mut self, tag: CallTag, answer: Answer, out: &mut Effects) {
        if self.calls.waiting.remove(&tag).is_some() {
            out.answers.push((tag, answer));
        }
    }
}
