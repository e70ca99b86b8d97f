//! Every bound and time of the client in one place.

/// Most vectors that are sent or wait to be, over all pools; further callers wait in turn (Ceph's
/// `objecter_inflight_ops`).
pub const OPS_IN_FLIGHT_MAX: usize = 1024;
/// Most bytes these vectors carry or ask for; further callers wait in turn. Ceph allows 100 MiB; four of the
/// largest frames keep any disk busy.
pub const BYTES_IN_FLIGHT_MAX: usize = 64 << 20;

/// Most events that wait for the client's task before connections are not read any more: each vector's answer and as
/// many notifications.
pub const INBOX_MAX: usize = 2 * OPS_IN_FLIGHT_MAX;

/// Messages with maps that wait for the client's task; the monitors' connection waits beyond it.
pub const MAP_BATCHES_MAX: usize = 16;

/// Before an OSD that was too busy is asked again, in ms; doubles with every refusal up to the maximum.
pub const BUSY_DELAY_MIN_MS: u64 = 2;
/// See [`BUSY_DELAY_MIN_MS`].
pub const BUSY_DELAY_MAX_MS: u64 = 500;

/// Before a connection that could not be made is tried again, in ms; doubles up to the maximum. The first
/// attempt, and the first after a connection that stood, is at once.
pub const RECONNECT_DELAY_MIN_MS: u64 = 50;
/// See [`RECONNECT_DELAY_MIN_MS`].
pub const RECONNECT_DELAY_MAX_MS: u64 = 2_000;

/// Silence after which an OSD ends a watch (RADOS's default).
pub const WATCH_TIMEOUT_MS: u32 = 30_000;
/// Between two signs of life of a watch: three may be lost.
pub const WATCH_PING_INTERVAL_MS: u64 = 7_500;
/// Notifications of one watch that are remembered, so that one which is sent again after a lost connection is told
/// from a new one, and acknowledged again.
pub const NOTICES_KEPT: usize = 64;
