//! What changes take of a store, reckoned from above and the same by whoever sends and whoever receives them: of its data,
//! in whole blocks, and of its index.

use cairn_pg::{Blob, Body, LogEntry, Message, PgTransaction, StoreChange};
use cairn_wire::BLOCK_LEN;
use serde::{Deserialize, Serialize};

/// Of the index, what an object's name takes, with its attributes that a change does not mention, and what is added to each.
const OBJECT_BYTES: u64 = 512;
/// Of the index, what a block's place and checksum take.
const PLACE_BYTES: u64 = 16;
/// Of the index, what an entry of a group's log takes, or of its missing set, beside names and answers.
const ENTRY_BYTES: u64 = 192;

/// Bytes of a store's data and of its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Of the data, in whole blocks.
    pub data: u64,
    /// Of the index.
    pub index: u64,
}

impl Amount {
    /// None.
    pub const ZERO: Amount = Amount { data: 0, index: 0 };

    /// Both together.
    pub fn plus(self, more: Amount) -> Amount {
        Amount { data: self.data.saturating_add(more.data), index: self.index.saturating_add(more.index) }
    }

    /// What is left without the other; none where that is more.
    pub fn less(self, other: Amount) -> Amount {
        Amount { data: self.data.saturating_sub(other.data), index: self.index.saturating_sub(other.index) }
    }

    /// One of so many parts.
    pub fn share(self, parts: u64) -> Amount {
        Amount { data: self.data / parts, index: self.index / parts }
    }

    /// The larger of each.
    pub fn max(self, other: Amount) -> Amount {
        Amount { data: self.data.max(other.data), index: self.index.max(other.index) }
    }

    /// Whether both are within the other's.
    pub fn fits(self, room: Amount) -> bool {
        self.data <= room.data && self.index <= room.index
    }

    /// Of a change of an object, or of a whole one.
    pub fn of_blob(blob: &Blob) -> Amount {
        let block = BLOCK_LEN as u64;
        let blocks = blob.data.segments().iter().map(|segment| {
            // A run of holes and data takes an entry for each end; that is in what an object takes.
            (u64::from(segment.phase()) + segment.data().len() as u64).div_ceil(block)
        });
        let blocks: u64 = blocks.sum();
        let index = OBJECT_BYTES + blob.meta.len() as u64 + blocks * PLACE_BYTES;
        Amount { data: blocks * block, index }
    }

    /// Of an entry of a group's log.
    pub fn of_entry(entry: &LogEntry) -> Amount {
        let object = &entry.object;
        let names = object.namespace.len() + object.key.len() + object.name.len();
        Amount { data: 0, index: ENTRY_BYTES + (names + entry.result.len()) as u64 }
    }

    fn of_entries<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Amount {
        entries.into_iter().map(Amount::of_entry).fold(Amount::ZERO, Amount::plus)
    }

    /// Of a message that its receiver has to carry out in its order, whether there is room or not.
    pub fn of_message(message: &Message) -> Amount {
        match &message.body {
            Body::RepOp { entries, payload: blob, .. } | Body::Redo { entries, data: blob, .. } => {
                Amount::of_entries(entries).plus(blob.as_ref().map_or(Amount::ZERO, Amount::of_blob))
            }
            _ => Amount::ZERO,
        }
    }

    /// Of a transaction of a group.
    pub fn of_transaction(txn: &PgTransaction) -> Amount {
        let objects = txn.objects.iter().map(|change| match change {
            StoreChange::Apply { payload: blob, .. } | StoreChange::Put { data: blob, .. } => {
                Amount::of_blob(blob)
            }
            StoreChange::Remove(_) => Amount::ZERO,
        });
        let older = txn.log.prepend.iter().flat_map(|(_, older)| older);
        let entries = Amount::of_entries(txn.log.append.iter().chain(older));
        let missing = txn.missing.iter().filter_map(|(object, item)| {
            let names = object.namespace.len() + object.key.len() + object.name.len();
            let own = Amount { data: 0, index: ENTRY_BYTES + names as u64 };
            Some(Amount::of_entries(&item.as_ref()?.undone).plus(own))
        });
        objects.chain(missing).fold(entries, Amount::plus)
    }
}
