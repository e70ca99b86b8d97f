//! How full the store is, also between two looks at it: what is handed in since the last look may have taken room.

use super::Effect;
use super::amount::Amount;
use super::event::{Space, Usage};
use cairn_types::Ratio;

/// Whether a change fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Room {
    /// It does.
    Yes,
    /// A look will tell.
    Unknown,
    /// It does not.
    No,
}

/// What is left for clients' changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// By the last look alone: there is no more.
    pub at_most: Amount,
    /// Whatever has come since then: there is no less.
    pub at_least: Amount,
}

/// The last look, and what came after it.
#[derive(Debug)]
pub struct Fullness {
    usage: Usage,
    is_asked: bool,
    /// Handed to the store since the last look was asked for. Overwriting takes room until what was there is given
    /// up, so all of it counts.
    since_asked: Amount,
    /// And between the two looks before, as long as the last one is not answered.
    before_asked: Amount,
}

/// What of a space is within a share, in millionths.
fn within(space: Space, share: u32) -> u64 {
    let total = u128::from(space.total_bytes.saturating_sub(space.reserve_bytes));
    u64::try_from(total * u128::from(share) / u128::from(Ratio::ONE.0)).unwrap_or(u64::MAX)
}

impl Fullness {
    pub fn new(usage: Usage) -> Self {
        Fullness { usage, is_asked: false, since_asked: Amount::ZERO, before_asked: Amount::ZERO }
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
        self.before_asked = std::mem::take(&mut self.since_asked);
        out.push(Effect::AskUsage);
    }

    /// The answer. It has all that was handed in before it was asked for.
    pub fn told(&mut self, usage: Usage) {
        self.usage = usage;
        self.is_asked = false;
        self.before_asked = Amount::ZERO;
    }

    /// A transaction that takes so much at most goes to the store.
    pub fn handed_in(&mut self, takes: Amount) {
        self.since_asked = self.since_asked.plus(takes);
    }

    /// What is left below a share, in millionths, of the store.
    pub fn left(&self, share: u32) -> Left {
        let Usage { data, index, .. } = self.usage;
        let most = Amount { data: within(data, share), index: within(index, share) };
        let used = Amount { data: data.used_bytes, index: index.used_bytes };
        let may_be_used = Amount { data: data.used_at_most_bytes, index: index.used_at_most_bytes };
        let recent = self.before_asked.plus(self.since_asked);
        Left { at_most: most.less(used), at_least: most.less(may_be_used.max(used)).less(recent) }
    }

    /// Whether a change fits below a share of the store, beside what was promised to others. A look is asked for if that would
    /// tell.
    pub fn has_room_for(
        &mut self,
        takes: Amount,
        promised: Amount,
        share: u32,
        out: &mut Vec<Effect>,
    ) -> Room {
        let left = self.left(share);
        if left.at_most.data == 0 || left.at_most.index == 0 || !takes.fits(left.at_most) {
            return Room::No;
        }
        if takes.plus(promised).fits(left.at_least) {
            return Room::Yes;
        }
        // Others keep no more than half of what is left, as soon as they have heard how much that is: nothing is to come that
        // could change it.
        if left.at_least == left.at_most && !takes.plus(takes).fits(left.at_most) {
            return Room::No;
        }
        self.ask(out);
        Room::Unknown
    }

    /// Whether most of what is left may have been used since the last look.
    pub fn is_stale(&self, left: Left) -> bool {
        !self.before_asked.plus(self.since_asked).fits(left.at_most.share(2))
    }

    /// Whether it fits for certain.
    pub fn fits(&self, takes: Amount, promised: Amount, share: u32) -> bool {
        takes.plus(promised).fits(self.left(share).at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used_bytes: u64) -> Usage {
        let space =
            Space { total_bytes: 1_000, used_bytes, used_at_most_bytes: used_bytes, reserve_bytes: 0 };
        let index = Space { total_bytes: 1_000, ..Space::default() };
        Usage { data: space, index, ..Usage::default() }
    }

    fn data(data: u64) -> Amount {
        Amount { data, index: 0 }
    }

    fn ask(fullness: &mut Fullness, bytes: u64, promised: u64, out: &mut Vec<Effect>) -> Room {
        fullness.has_room_for(data(bytes), data(promised), 900_000, out)
    }

    #[test]
    fn what_came_after_the_last_look_counts_until_the_next() {
        let mut out = Vec::new();
        let mut fullness = Fullness::new(usage(500));
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::Yes);
        fullness.handed_in(data(350));
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::Unknown);
        assert!(matches!(out[..], [Effect::AskUsage]));
        // Once is enough.
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::Unknown);
        assert_eq!(out.len(), 1);
        // What is handed in while it is looked may not be in the answer.
        fullness.handed_in(data(20));
        fullness.told(usage(600));
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::Yes);
        fullness.told(usage(790));
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::Unknown);
        // Nothing is under way that could give room back.
        let mut fullness = Fullness::new(usage(810));
        assert_eq!(ask(&mut fullness, 40, 0, &mut out), Room::Yes);
        assert_eq!(ask(&mut fullness, 100, 0, &mut out), Room::No);
        fullness.told(usage(900));
        assert_eq!(ask(&mut fullness, 0, 0, &mut out), Room::No);
    }

    #[test]
    fn what_others_were_promised_is_not_spent_twice() {
        let mut out = Vec::new();
        let mut fullness = Fullness::new(usage(500));
        assert_eq!(ask(&mut fullness, 200, 200, &mut out), Room::Yes);
        assert_eq!(ask(&mut fullness, 200, 201, &mut out), Room::Unknown);
        // They will not keep so much, but half.
        assert_eq!(ask(&mut fullness, 201, 400, &mut out), Room::No);
        assert!(
            fullness.fits(data(200), data(200), 900_000) && !fullness.fits(data(201), data(200), 900_000)
        );
    }

    #[test]
    fn an_index_that_runs_out_is_a_store_that_runs_out() {
        let mut out = Vec::new();
        let index =
            Space { total_bytes: 1_000, used_bytes: 300, used_at_most_bytes: 800, reserve_bytes: 125 };
        let mut fullness = Fullness::new(Usage { index, ..usage(0) });
        let takes = |index| Amount { data: 0, index };
        // 90 % of what not only removals may take is 787; 300 of them are in use for certain.
        assert_eq!(fullness.has_room_for(takes(1), Amount::ZERO, 900_000, &mut out), Room::Unknown);
        assert_eq!(fullness.has_room_for(takes(488), Amount::ZERO, 900_000, &mut out), Room::No);
        let index = Space { used_at_most_bytes: 300, ..index };
        fullness.told(Usage { index, ..usage(0) });
        assert_eq!(fullness.has_room_for(takes(487), Amount::ZERO, 900_000, &mut out), Room::Yes);
    }
}
