//! Deliberate bugs, so that the tests can show that they would find them. Off, and without a way to
//! switch them on, outside tests.

/// One protection left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// Data for fresh blocks is not flushed before its record.
    FlushLeftOut,
    /// A record is written before the data it refers to.
    RecordBeforeData,
    /// Acknowledged when the record's write is queued, not when it is durable.
    EarlyAcknowledgement,
    /// The record's write is not durable by itself and not flushed.
    RecordNotDurable,
    /// Freed blocks are given out at once, not after a checkpoint.
    EarlyReuse,
    /// A checkpoint is committed before its blocks are in place.
    CheckpointBeforeData,
    /// The log lets go of records before the checkpoint is committed.
    EarlyTrim,
    /// Blocks are written over before their record is durable.
    EarlyWriteBack,
    /// What is read is not verified.
    NoChecksum,
}
