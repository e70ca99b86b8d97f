//! Times and bounds of an OSD, each with its reason.

use cairn_mon::service::timing::{BEACON_INTERVAL_MS, HEARTBEAT_GRACE_MS, HEARTBEAT_INTERVAL_MS};

/// Settings. [`Config::default`] is what a daemon runs with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Of each group.
    pub pg: cairn_pg::Config,
    /// Log entries that a group keeps at least, however little room the store's index has: requests are remembered
    /// by them, and one client has at most 1,024 in flight.
    pub log_entries_least: usize,
    /// Clients' operations taken in and not answered, over all groups; beyond it the answer is BUSY. A client has
    /// at most a few hundred in flight.
    pub client_ops_max: usize,
    /// Bytes that came with those. They stay in memory until every copy has them.
    pub client_bytes_max: usize,
    /// Clients' operations that wait for a newer map; beyond it the answer is BUSY.
    pub waiting_for_map_max: usize,
    /// Messages of OSDs that wait for a newer map, or for a removal to end. Beyond it the connection is closed;
    /// what was not acknowledged comes again over the next.
    pub waiting_messages_max: usize,
    /// Memory for what is known of objects, so that it need not be read again; about 250 bytes for most.
    pub cache_bytes_max: usize,
    /// Notifications under way, over all objects; beyond it the answer is BUSY.
    pub notifies_max: usize,
    /// Longest time a notification waits for its watchers, milliseconds. A longer one asked for is cut.
    pub notify_timeout_max_ms: u64,
    /// How often others are asked whether they live, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Silence after which one is reported to the monitors, milliseconds.
    pub heartbeat_grace_ms: u64,
    /// OSDs that are asked, at least, if there are so many: enough that two hosts notice a death even where few
    /// groups are shared. Ceph's figure.
    pub heartbeat_peers_min: usize,
    /// How often the monitors are told that this OSD runs, milliseconds.
    pub beacon_interval_ms: u64,
    /// How often the mgr is told, milliseconds: the resolution of the rates that it shows.
    pub report_interval_ms: u64,
    /// After how long the monitors are asked to boot again, milliseconds.
    pub boot_retry_ms: u64,
    /// How long a stop waits for the monitors to mark this OSD down, milliseconds. Without it the others notice
    /// by themselves.
    pub stop_timeout_ms: u64,
    /// Wait before another attempt to connect, milliseconds. A refusal is reported at each.
    pub reconnect_ms: u64,
    /// Messages received and not acknowledged; acknowledgements also ride on time, `ack_delay_ms`.
    pub ack_every: u64,
    /// Longest time until a message is acknowledged, milliseconds. The sender keeps it until then.
    pub ack_delay_ms: u64,
    /// Groups that backfill from here, and groups that are backfilled to here, each: Ceph's figure, so that clients
    /// keep most of the disk.
    pub backfills_max: usize,
    /// Share of the store, in millionths, from which on clients write nothing here whatever the map says: what
    /// peering and recovery write must still fit. Ceph's figure.
    pub failsafe_full: u32,
    /// And share from which on objects that other copies send wait for room: above the other, so that a copy is made whole
    /// although clients have written all that they may.
    pub recovery_full: u32,
    /// An operation that waits for longer counts as slow, milliseconds: Ceph's figure.
    pub slow_op_ms: u64,
    /// Epochs of the map between two that are kept whole: rebuilding one applies at most so many changes.
    pub full_map_interval: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pg: cairn_pg::Config::default(),
            log_entries_least: 1_024,
            client_ops_max: 8_192,
            client_bytes_max: 512 << 20,
            waiting_for_map_max: 1_024,
            waiting_messages_max: 4_096,
            cache_bytes_max: 64 << 20,
            notifies_max: 1_024,
            notify_timeout_max_ms: 30_000,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            heartbeat_grace_ms: HEARTBEAT_GRACE_MS,
            heartbeat_peers_min: 10,
            beacon_interval_ms: BEACON_INTERVAL_MS,
            report_interval_ms: 2_000,
            boot_retry_ms: 1_000,
            stop_timeout_ms: 3_000,
            reconnect_ms: 250,
            ack_every: 64,
            ack_delay_ms: 100,
            backfills_max: 1,
            failsafe_full: 970_000,
            recovery_full: 985_000,
            slow_op_ms: 30_000,
            full_map_interval: 64,
        }
    }
}
