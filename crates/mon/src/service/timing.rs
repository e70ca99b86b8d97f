//! Every time and share the monitors decide by, each with its reason. Those with an option name can be
//! set by the operator (`config`).

use cairn_types::Ratio;

/// How often OSDs ping each other. Half a second lets three losses in a row fit the grace below.
pub const HEARTBEAT_INTERVAL_MS: u64 = 500;

/// Option `osd_heartbeat_grace_ms`: silence after which a peer's report counts. A process that is
/// stopped must be replaced within 5 s; 2.5 s of that here leave as much for peering.
pub const HEARTBEAT_GRACE_MS: u64 = 2_500;

/// How long a failure report counts. Reporters repeat theirs every heartbeat interval while it lasts,
/// so a report that is not renewed for this long was taken back or its reporter is gone.
pub const REPORT_LIFETIME_MS: u64 = 10_000;

/// Hosts that must agree on a failure (one where only one other host exists): a single host whose own
/// network is broken must not be able to mark the rest of the cluster down.
pub const REPORTER_HOSTS: usize = 2;

/// How often an OSD tells the monitors that it runs. The second way to notice a death, for when nobody
/// is left to report it; cheap enough for thousands of OSDs.
pub const BEACON_INTERVAL_MS: u64 = 10_000;

/// An OSD without a beacon for this long is down: six beacons lost in a row.
pub const BEACON_GRACE_MS: u64 = 60_000;

/// Option `mon_osd_down_out_interval_ms`: an OSD that has been down for this long is marked out and its
/// data copied elsewhere. Ten minutes: longer than a reboot, and what operators of Ceph expect.
pub const DOWN_OUT_INTERVAL_MS: u64 = 600_000;

/// Option `mon_osd_min_in_ratio`: the monitors mark no OSD out by themselves while fewer than this share
/// of the OSDs are in. The share is taken before, as Ceph does, so that the first of three can go. What fails on that scale is a network or a room, and copying the data of a
/// quarter of the cluster onto the rest would fill it.
pub const MIN_IN_SHARE: Ratio = Ratio::percent(75);

/// Option `mon_osd_min_up_ratio`: reports mark no OSD down while fewer than this share of the OSDs are up. By then the reports say more about the network than about the OSDs.
pub const MIN_UP_SHARE: Ratio = Ratio::percent(30);

/// Mark-downs by failure within this time count as flapping.
pub const FLAP_WINDOW_MS: u64 = 600_000;

/// An OSD marked down so often within [`FLAP_WINDOW_MS`] is kept down for a while. Each time costs every
/// one of its groups a peering; Ceph's OSDs give up at the same count.
pub const FLAP_LIMIT: usize = 5;

/// How long an OSD at the limit is kept down after its last mark-down; doubles with each one more.
pub const FLAP_HOLD_MS: u64 = 60_000;

/// Longest time an OSD is kept down for flapping.
pub const FLAP_HOLD_MAX_MS: u64 = 480_000;

/// Option `mon_mgr_beacon_grace_ms`: a mgr without a beacon for this long is replaced. It only gathers
/// statistics, so a few seconds of old figures do no harm; a needless change does little either.
pub const MGR_BEACON_GRACE_MS: u64 = 5_000;

/// A digest older than this is not shown as the present: three of the mgr's rounds of five seconds.
pub const DIGEST_LIFETIME_MS: u64 = 15_000;

/// How long a client stays in the blocklist when no time is given: Ceph's hour.
pub const BLOCKLIST_DEFAULT_MS: u64 = 3_600_000;

/// Groups an OSD should carry: enough for an even spread, few enough for memory and peering. The figure
/// Ceph's operators are used to.
pub const TARGET_PGS_PER_OSD: u64 = 100;

/// Groups an OSD may carry at most, counted over all pools when one is made or grown.
pub const MAX_PGS_PER_OSD: u64 = 250;

/// Epochs between two full maps in the history: rebuilding any epoch applies at most so many increments.
pub const FULL_MAP_INTERVAL: u32 = 64;

/// Epochs kept although every group is clean past them, for daemons that were away for a moment.
pub const EPOCHS_KEPT_MIN: u32 = 500;
