//! How full the store is, also between two looks at it: what is handed in since the last look may have taken room.

use super::Effect;
use super::event::Usage;
use cairn_pg::{PgTransaction, StoreChange};
use cairn_types::Ratio;

/// Whether a client's write fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// A look will tell: it was asked for.
    Unknown,
}

/// The last look, and what came after it.
#[derive(Debug)]
pub struct Fullness {
    usage: Usage,
    is_asked: bool,
    /// Bytes handed to the store since the last look was asked for. Overwriting takes room until what was there is given
    /// up, so all of them count.
    since_asked_bytes: u64,
    /// And between the two looks before, as long as the last one is not answered.
    before_asked_bytes: u64,
}

impl Fullness {
    pub fn new(usage: Usage) -> Self {
        Fullness { usage, is_asked: false, since_asked_bytes: 0, before_asked_bytes: 0 }
    }

    /// The last look.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Asks for a look, unless one is under way.
    pub fn ask(&mut self, out: &mut Vec<Effect>) {
        if self.is_asked {
            return;
        }
        self.is_asked = true;
        self.before_asked_bytes = std::mem::take(&mut self.since_asked_bytes);
        out.push(Effect::AskUsage);
    }

    /// The answer. It has all that was handed in before it was asked for.
    pub fn told(&mut self, usage: Usage) {
        self.usage = usage;
        self.is_asked = false;
        self.before_asked_bytes = 0;
    }

    /// A transaction goes to the store.
    pub fn handed_in(&mut self, txn: &PgTransaction) {
        let data = |change: &StoreChange| match change {
            StoreChange::Apply { payload, .. } => payload.data.len() as u64,
            StoreChange::Put { data, .. } => data.data.len() as u64,
            StoreChange::Remove(_) => 0,
        };
        self.since_asked_bytes += txn.objects.iter().map(data).sum::<u64>();
    }

    /// Whether so many bytes more stay below a share, in millionths, of the store.
    pub fn has_room_for(&mut self, bytes: u64, share: u32, out: &mut Vec<Effect>) -> Room {
        let (share, total) = (Ratio(share), self.usage.total_bytes.max(1));
        if share.reached_by(self.usage.used_bytes, total) {
            return Room::No;
        }
        let recent = self.before_asked_bytes + self.since_asked_bytes;
        if !share.reached_by(self.usage.used_bytes + recent + bytes, total) {
            return Room::Yes;
        }
        // By the look alone it does not fit: nothing is to come that could change that.
        if recent == 0 {
            return Room::No;
        }
        self.ask(out);
        Room::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used_bytes: u64) -> Usage {
        Usage { total_bytes: 1000, used_bytes, ..Usage::default() }
    }

    #[test]
    fn what_came_after_the_last_look_counts_until_the_next() {
        let mut out = Vec::new();
        let mut fullness = Fullness::new(usage(500));
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::Yes);
        fullness.since_asked_bytes = 350;
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::Unknown);
        assert!(matches!(out[..], [Effect::AskUsage]));
        // Once is enough.
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::Unknown);
        assert_eq!(out.len(), 1);
        // What is handed in while it is looked may not be in the answer.
        fullness.since_asked_bytes = 20;
        fullness.told(usage(600));
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::Yes);
        fullness.told(usage(790));
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::Unknown);
        // Nothing is under way that could give room back.
        let mut fullness = Fullness::new(usage(810));
        assert_eq!(fullness.has_room_for(40, 900_000, &mut out), Room::Yes);
        assert_eq!(fullness.has_room_for(100, 900_000, &mut out), Room::No);
        fullness.told(usage(900));
        assert_eq!(fullness.has_room_for(0, 900_000, &mut out), Room::No);
    }
}
