//! Every bound of the crate, with its reason.

/// Default of [`crate::Params::alpha`]: how many slots may be open at once, and how many slots
/// after its own a membership change takes effect. At one durable write per slot and 100 µs to
/// 1 ms per write, 16 open slots keep disk and network busy; monitors decide few commands a second.
pub const ALPHA_DEFAULT: u64 = 16;

/// Largest [`crate::Params::alpha`] a log may be made with: bounds a promise and an accept message.
pub const ALPHA_MAX: u64 = 256;

/// Default of [`crate::Params::window`]: for how many slots a proposal's id is remembered, and
/// after how many slots an undecided proposal is void. Well above a full queue, so that a proposal
/// is not void before its turn.
pub const WINDOW_DEFAULT: u64 = 4096;

/// Proposals a leader holds that have no slot yet; one more is refused as busy.
pub const QUEUE_ENTRIES_MAX: usize = 1024;

/// Payload bytes a leader holds in its queue.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Proposals a monitor tracks for its own callers until each has an outcome.
pub const PENDING_ENTRIES_MAX: usize = 1024;

/// Payload bytes of those.
pub const PENDING_BYTES_MAX: usize = 32 << 20;

/// Largest payload of one proposal. A promise carries up to alpha of them and must fit into the largest message there is,
/// 16 MiB, or nobody could be elected any more; a change of the map of a large cluster has room many times.
pub const PAYLOAD_BYTES_MAX: usize = 960 << 10;

/// Entries in one answer to a monitor that lags.
pub const LEARN_ENTRIES_MAX: usize = 256;

/// Payload bytes after which such an answer is closed (it always carries at least one entry).
pub const LEARN_BYTES_MAX: usize = 1 << 20;

/// Bytes of application state in one message.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Largest application state that is accepted from another monitor.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// How often a proposal may be passed on between monitors that each know a better one; two hops
/// cross a partial partition, more would only circle.
pub const FORWARD_HOPS_MAX: u8 = 2;
