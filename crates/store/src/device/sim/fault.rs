//! Faults to order: which operations they strike, and what they do.

use std::io;
use std::ops::Range;

/// The kinds of operation a fault can strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// Queued and blocking reads.
    Read,
    /// Queued, blocking and immediate writes.
    Write,
    /// Queued flushes and blocking syncs.
    Flush,
    /// Discards.
    Discard,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation reports this `errno` (EIO, ENOSPC, EROFS …). A failed write leaves its range
    /// unknown, a failed flush everything it should have covered.
    Error(i32),
    /// The operation is reported as done and did nothing: a write that never arrives, a flush that
    /// lies, a read that leaves its buffer as it was.
    Lie,
    /// A write that is to be durable is reported as that and is not: it needs a flush as any other.
    Volatile,
    /// A write lands at this offset instead of its own and is reported as done.
    Misdirect(u64),
    /// A read returns one flipped bit; the medium keeps the right one.
    FlipBit(u64),
    /// A queued operation completes after that many calls of `poll` at the earliest.
    Slow(u32),
}

impl Fault {
    /// The error this fault reports, if it reports one.
    pub(super) fn error(self) -> io::Result<()> {
        match self {
            Fault::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }
}

/// A fault and the operations it strikes.
#[derive(Clone, Debug)]
pub struct FaultRule {
    /// Kind of operation.
    pub kind: OpKind,
    /// Strikes operations that touch this byte range; flushes match always.
    pub range: Range<u64>,
    /// Matching operations let through first.
    pub skip: u64,
    /// Operations struck after that; then the rule is spent.
    pub count: u64,
    /// What happens to them.
    pub fault: Fault,
}

impl FaultRule {
    /// Strikes every operation of a kind, anywhere.
    pub fn every(kind: OpKind, fault: Fault) -> Self {
        FaultRule { kind, range: 0..u64::MAX, skip: 0, count: u64::MAX, fault }
    }

    /// Strikes one operation of a kind: the one after `skip` others.
    pub fn nth(kind: OpKind, skip: u64, fault: Fault) -> Self {
        FaultRule { kind, range: 0..u64::MAX, skip, count: 1, fault }
    }

    /// Limits the rule to operations that touch a byte range.
    #[must_use]
    pub fn within(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }
}

/// The rules of one device, in order: the first that strikes wins.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan(pub(super) Vec<FaultRule>);

impl FaultPlan {
    pub(super) fn strike(&mut self, kind: OpKind, offset: u64, len: u64) -> Option<Fault> {
        for rule in &mut self.0 {
            let touches =
                kind == OpKind::Flush || (rule.range.start < offset + len && offset < rule.range.end);
            if rule.kind != kind || !touches || rule.count == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.count -= 1;
            return Some(rule.fault);
        }
        None
    }
}
