//! Linearizability of one register with writes that are all different, in `O(n log n)`.
//!
//! Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26 (1997), theorem for histories in which it
//! is known which write each read saw. A register here is a 4 KiB block of an object, or a small object; the value of
//! a write is its number. Operations that were never answered may have happened at any time after they were sent, or
//! not at all.

use crate::timeline::Instant;
use std::collections::BTreeMap;

/// What a write puts there. 0 is what was there before every write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value(pub u64);

impl Value {
    /// Before every write: zeros, or no object.
    pub const INITIAL: Value = Value(0);
}

/// One write or read, from when it was sent to when it was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    sent: Instant,
    answered: Instant,
}

const NEVER: Instant = Instant(u64::MAX);

/// The operations on one register.
#[derive(Clone, Default, Debug)]
pub struct Register {
    writes: BTreeMap<Value, Span>,
    /// Of the answered reads of a value: the latest start and the earliest end. More is not needed of them.
    reads: BTreeMap<Value, Span>,
    /// Writes of clients that were shut out: by when each had happened, if it has.
    fences: BTreeMap<Value, Instant>,
    /// A read whose answer no write explains.
    invented: Option<Value>,
    operations: u64,
}

/// Why the answers fit no order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A value was read that nobody wrote.
    Invented(Value),
    /// A value was read before its write was sent.
    FromTheFuture(Value),
    /// `old` was read after `new` had replaced it for good; or `new` was seen, then `old`.
    Stale {
        /// The value that should have been gone.
        old: Value,
        /// What had replaced it.
        new: Value,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Invented(value) => write!(f, "value {} was read, which nobody wrote", value.0),
            Fault::FromTheFuture(value) => write!(f, "value {} was read before its write was sent", value.0),
            Fault::Stale { old, new } => {
                write!(f, "value {} was read although value {} had replaced it", old.0, new.0)
            }
        }
    }
}

impl Register {
    /// A write of `value` was sent. Every write needs a value of its own.
    pub fn write_sent(&mut self, value: Value, at: Instant) {
        self.operations += 1;
        let before = self.writes.insert(value, Span { sent: at, answered: NEVER });
        assert!(before.is_none() && value != Value::INITIAL, "writes are told apart by their values");
    }

    /// It was answered: it has happened.
    pub fn write_answered(&mut self, value: Value, at: Instant) {
        if let Some(write) = self.writes.get_mut(&value) {
            write.answered = at;
        }
    }

    /// Its client is shut out by now: if it has not happened yet it never will.
    pub fn write_fenced(&mut self, value: Value, at: Instant) {
        let open = self.writes.get(&value).is_some_and(|write| write.answered == NEVER);
        if open {
            self.fences.entry(value).or_insert(at);
        }
    }

    /// It was refused: it has not happened, and never will.
    pub fn write_refused(&mut self, value: Value) {
        self.writes.remove(&value);
        if self.reads.contains_key(&value) {
            self.invented.get_or_insert(value);
        }
    }

    /// A read sent at `sent` was answered with `value` at `answered`.
    pub fn read(&mut self, value: Value, sent: Instant, answered: Instant) {
        self.operations += 1;
        if value != Value::INITIAL && !self.writes.contains_key(&value) {
            self.invented.get_or_insert(value);
        }
        let reads = self.reads.entry(value).or_insert(Span { sent, answered });
        reads.sent = reads.sent.max(sent);
        reads.answered = reads.answered.min(answered);
    }

    /// Writes and answered reads so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether one order explains all answers.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(value) = self.invented {
            return Err(Fault::Invented(value));
        }
        // All that belongs to one value: from the earliest end of an operation with it to the latest start. When
        // the end comes first, the value was there for all of that time (a forward zone); otherwise it was there
        // at some moment between them (a backward zone).
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        let initial = Span { sent: Instant(0), answered: Instant(0) };
        for (&value, write) in std::iter::once((&Value::INITIAL, &initial)).chain(&self.writes) {
            let reads = self.reads.get(&value);
            if reads.is_some_and(|reads| reads.answered < write.sent) {
                return Err(Fault::FromTheFuture(value));
            }
            // A write that nobody saw or answered need not have happened, fenced or not.
            let has_happened = reads.is_some() || write.answered != NEVER;
            let fence = self.fences.get(&value).copied().filter(|_| has_happened).unwrap_or(NEVER);
            let answered = write.answered.min(fence);
            let first_end = reads.map_or(answered, |reads| reads.answered.min(answered));
            let last_start = reads.map_or(write.sent, |reads| reads.sent.max(write.sent));
            if first_end == NEVER {
                continue; // Neither answered nor seen: it need not have happened.
            }
            if first_end < last_start {
                forward.push((first_end, last_start, value));
            } else {
                backward.push((last_start, first_end, value));
            }
        }
        forward.sort_unstable();
        for pair in forward.windows(2) {
            if pair[0].1 > pair[1].0 {
                return Err(Fault::Stale { old: pair[0].2, new: pair[1].2 });
            }
        }
        for (start, end, value) in backward {
            // The zones do not overlap, so only the last that begins before `start` can enclose it.
            let at = forward.partition_point(|zone| zone.0 < start);
            if let Some(zone) = at.checked_sub(1).map(|at| forward[at])
                && end < zone.1
            {
                return Err(Fault::Stale { old: zone.2, new: value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[derive(Clone, Copy, Debug)]
    struct Op {
        write: bool,
        value: u64,
        sent: u64,
        answered: Option<u64>,
    }

    fn register(ops: &[Op]) -> Register {
        let mut register = Register::default();
        for op in ops.iter().filter(|op| op.write) {
            register.write_sent(Value(op.value), Instant(op.sent));
            if let Some(at) = op.answered {
                register.write_answered(Value(op.value), Instant(at));
            }
        }
        for op in ops.iter().filter(|op| !op.write) {
            if let Some(at) = op.answered {
                register.read(Value(op.value), Instant(op.sent), Instant(at));
            }
        }
        register
    }

    /// Every order is tried: the oracle.
    fn explained(ops: &[Op], done: u32, state: u64) -> bool {
        let open = |at: &usize| done & (1 << at) == 0;
        let must: Vec<usize> = (0..ops.len()).filter(open).filter(|&at| ops[at].answered.is_some()).collect();
        if must.is_empty() {
            return true;
        }
        let first_end = must.iter().filter_map(|&at| ops[at].answered).min().unwrap_or(u64::MAX);
        (0..ops.len()).filter(open).any(|at| {
            let op = ops[at];
            if op.sent > first_end || (!op.write && (op.answered.is_none() || op.value != state)) {
                return false;
            }
            explained(ops, done | 1 << at, if op.write { op.value } else { state })
        })
    }

    #[test]
    fn it_agrees_with_trying_every_order() {
        let mut rng = Rng::new(1);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..60_000 {
            let count = rng.between(2, 7) as usize;
            let writes = rng.between(1, 3);
            let mut ops = Vec::new();
            // Distinct times, so that "before" has one meaning.
            let mut times: Vec<u64> = (1..=2 * count as u64).collect();
            rng.shuffle(&mut times);
            for at in 0..count {
                let (a, b) = (times[2 * at], times[2 * at + 1]);
                let write = (at as u64) < writes;
                let value = if write { at as u64 + 1 } else { rng.below(writes + 1) };
                let answered = (!rng.permille(150)).then_some(a.max(b));
                ops.push(Op { write, value, sent: a.min(b), answered });
            }
            let expected = explained(&ops, 0, 0);
            assert_eq!(register(&ops).check().is_ok(), expected, "{ops:?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 10_000 && bad > 10_000, "{good} good, {bad} bad: both must be met");
    }

    #[test]
    fn it_says_what_is_wrong() {
        let op = |write, value, sent, answered| Op { write, value, sent, answered: Some(answered) };
        let stale = [op(true, 1, 1, 2), op(true, 2, 3, 4), op(false, 1, 5, 6)];
        assert_eq!(register(&stale).check(), Err(Fault::Stale { old: Value(1), new: Value(2) }));
        let lost = [op(true, 1, 1, 2), op(false, 0, 3, 4)];
        assert_eq!(register(&lost).check(), Err(Fault::Stale { old: Value(0), new: Value(1) }));
        assert_eq!(register(&[op(false, 9, 3, 4)]).check(), Err(Fault::Invented(Value(9))));
        let future = [op(false, 1, 1, 2), op(true, 1, 3, 4)];
        assert_eq!(register(&future).check(), Err(Fault::FromTheFuture(Value(1))));
    }

    #[test]
    fn a_fenced_write_does_not_come_late() {
        let writes = [
            Op { write: true, value: 1, sent: 1, answered: None },
            Op { write: true, value: 2, sent: 3, answered: Some(4) },
        ];
        let read = |value, sent| Op { write: false, value, sent, answered: Some(sent + 1) };
        let late = [writes[0], writes[1], read(2, 6), read(1, 8)];
        assert_eq!(register(&late).check(), Ok(()));
        let mut fenced = register(&late);
        fenced.write_fenced(Value(1), Instant(5));
        assert!(fenced.check().is_err());
        let mut seen_before = register(&[writes[0], read(1, 2)]);
        seen_before.write_fenced(Value(1), Instant(5));
        assert_eq!(seen_before.check(), Ok(()));
    }

    #[test]
    fn a_refused_write_is_never_seen() {
        let write = Op { write: true, value: 1, sent: 1, answered: None };
        let read = |value, sent| Op { write: false, value, sent, answered: Some(sent + 1) };
        let mut unseen = register(&[write, read(0, 2)]);
        unseen.write_refused(Value(1));
        assert_eq!(unseen.check(), Ok(()));
        unseen.read(Value(1), Instant(5), Instant(6));
        assert_eq!(unseen.check(), Err(Fault::Invented(Value(1))));
        let mut seen = register(&[write, read(1, 2)]);
        seen.write_refused(Value(1));
        assert_eq!(seen.check(), Err(Fault::Invented(Value(1))));
    }

    #[test]
    fn a_write_without_an_answer_may_come_late_or_never() {
        let write = Op { write: true, value: 1, sent: 1, answered: None };
        let read = |value, sent| Op { write: false, value, sent, answered: Some(sent + 1) };
        assert_eq!(register(&[write, read(0, 2), read(1, 4)]).check(), Ok(()));
        assert_eq!(register(&[write, read(0, 2)]).check(), Ok(()));
        assert!(register(&[write, read(1, 2), read(0, 4)]).check().is_err());
    }
}
