//! How full a store is, as an OSD has to know it.

use super::log_step_bytes;
use crate::core::{Space, Usage};
use cairn_store::Engine;
use cairn_store::device::Device;

/// Of the store's index, what groups' logs may take, in percent. The rest is for the objects.
const LOGS_SHARE_PERCENT: u64 = 60;
/// A log entry in the index: measured between 230 and 290 bytes with the names of images' objects.
const LOG_ENTRY_BYTES: u64 = 320;
/// Share of the index, in percent, from which on it should be known how much of it is in use, and not only at most.
const INDEX_SETTLED_PERCENT: u64 = 50;

/// Looks how full the store is. On the store's thread.
pub fn look<D: Device>(engine: &mut Engine<D>) -> Usage {
    let usage = engine.usage();
    // A checkpoint makes it exact; the next look will find that.
    if usage.index_used_bytes > usage.index_settled_bytes
        && usage.index_used_bytes >= usage.index_bytes / 100 * INDEX_SETTLED_PERCENT
    {
        engine.request_checkpoint();
    }
    usage_of(&usage)
}

fn usage_of(usage: &cairn_store::Usage) -> Usage {
    let data = Space {
        total_bytes: usage.data_bytes,
        used_bytes: usage.used_bytes,
        used_at_most_bytes: usage.used_bytes + usage.queued_bytes,
        reserve_bytes: usage.reserve_bytes,
    };
    let index = Space {
        total_bytes: usage.index_bytes,
        used_bytes: usage.index_settled_bytes,
        used_at_most_bytes: usage.index_used_bytes,
        reserve_bytes: usage.index_reserve_bytes,
    };
    Usage {
        data,
        index,
        log_entries_max: usage.index_bytes / 100 * LOGS_SHARE_PERCENT / LOG_ENTRY_BYTES,
        log_step_bytes: log_step_bytes(usage.log_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_logs_get_a_share_of_the_index() {
        let usage = cairn_store::Usage { index_bytes: 40 << 20, ..cairn_store::Usage::default() };
        // 60 % of 40 MiB at 320 bytes each.
        assert_eq!(usage_of(&usage).log_entries_max, 78_643);
        assert_eq!(usage_of(&cairn_store::Usage::default()).log_entries_max, 0);
    }
}
