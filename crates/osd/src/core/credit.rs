//! Room that an OSD promises another one in its store, so that what the other one's clients write finds room here.
//!
//! Room is counted along a link: what was sent over it and what was received of it come to the same. The receiver says up to
//! which count the sender may go, and how many times it has said so; the newest word counts, also where it is less than the one
//! before. Until the sender has said that it has heard it, the receiver keeps room for what it said earlier. So two who write to
//! one store never share a promise, and what is left unused comes back as soon as the next word is less.

use super::amount::Amount;
use super::fullness::{Left, Room};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Words kept that the sender may not have heard. It says with each ping which one it has heard: more are of one that does not.
const SAID_MAX: usize = 64;

/// What the receiver of a link says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Credit {
    /// Counts the words on this link, from 1.
    pub seq: u64,
    /// All that may have been sent over the link.
    pub limit: Amount,
    /// More than this does not fit at once, whatever becomes of what is under way.
    pub most: Amount,
}

/// The sender's side.
#[derive(Debug, Default)]
pub(super) struct Spending {
    told: Option<Credit>,
    sent: Amount,
}

impl Spending {
    /// Of a link over which so much is to be sent again.
    pub fn begun_with(sent: Amount) -> Spending {
        Spending { told: None, sent }
    }

    pub fn sent(&mut self, takes: Amount) {
        self.sent = self.sent.plus(takes);
    }

    /// Words may overtake each other where a connection ends.
    pub fn told(&mut self, credit: Credit) {
        if self.told.is_none_or(|told| told.seq < credit.seq) {
            self.told = Some(credit);
        }
    }

    /// The newest word heard.
    pub fn heard(&self) -> Option<u64> {
        self.told.map(|told| told.seq)
    }

    /// Whether the receiver has room for a change, after others that are to be sent.
    pub fn has_room_for(&self, takes: Amount, before: Amount) -> Room {
        match self.told {
            Some(told) if self.sent.plus(before).plus(takes).fits(told.limit) => Room::Yes,
            Some(told) if !takes.fits(told.most) => Room::No,
            // It has not said anything yet, or more is to come.
            _ => Room::Unknown,
        }
    }
}

/// The receiver's side.
#[derive(Debug, Default)]
pub(super) struct Promises {
    seq: u64,
    received: Amount,
    /// What was said and is not known to be over: each of the last ones is less than those before it.
    said: VecDeque<(u64, Amount)>,
    /// With the newest.
    most: Amount,
}

impl Promises {
    pub fn received(&mut self, takes: Amount) {
        self.received = self.received.plus(takes);
    }

    /// What the sender may still send.
    pub fn open(&self) -> Amount {
        self.said.iter().fold(Amount::ZERO, |most, (_, limit)| most.max(*limit)).less(self.received)
    }

    /// The sender has heard this word: those before it are over.
    pub fn heard(&mut self, seq: u64) {
        while self.said.front().is_some_and(|(first, _)| *first < seq.min(self.seq)) {
            self.said.pop_front();
        }
    }

    /// Whether the sender should hear how much there is by now before it has used up what it was told of.
    pub fn is_low(&self) -> bool {
        let newest = self.said.back().map_or(Amount::ZERO, |(_, limit)| limit.less(self.received));
        !self.most.share(2).fits(newest)
    }

    /// Whether a word would give the sender more than it has.
    pub fn could_rise(&self, left: Left, senders: u64) -> bool {
        let newest = self.said.back().map_or(Amount::ZERO, |(_, limit)| limit.less(self.received));
        let most = most(left, senders);
        !most.fits(newest) || !most.fits(self.most)
    }

    /// The next word: of what is left when `others` keep what they were promised, one part for each of the senders, and one for
    /// this OSD's own clients.
    pub fn say(&mut self, left: Left, others: Amount, senders: u64) -> Credit {
        let limit = self.received.plus(left.at_least.less(others).share(senders + 1));
        while self.said.back().is_some_and(|(_, before)| before.fits(limit)) {
            self.said.pop_back();
        }
        self.seq += 1;
        self.said.push_back((self.seq, limit));
        if self.said.len() > SAID_MAX
            && let Some((_, first)) = self.said.pop_front()
            && let Some((_, second)) = self.said.front_mut()
        {
            // Kept as one that is over when the later of the two is: nothing that was promised is given away.
            *second = second.max(first);
        }
        self.most = most(left, senders);
        Credit { seq: self.seq, limit, most: self.most }
    }
}

/// When nothing is under way, each of the senders comes to one of `2 * senders` parts; less than that is always enough.
fn most(left: Left, senders: u64) -> Amount {
    left.at_most.share(2 * senders + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: u64) -> Amount {
        Amount { data, index: data }
    }

    fn left(bytes: u64) -> Left {
        Left { at_most: data(bytes), at_least: data(bytes) }
    }

    #[test]
    fn a_sender_spends_what_it_was_told_of_and_no_more() {
        let (mut promises, mut spending) = (Promises::default(), Spending::default());
        assert_eq!(spending.has_room_for(data(1), Amount::ZERO), Room::Unknown, "nothing is known yet");
        spending.told(promises.say(left(100), Amount::ZERO, 1));
        assert_eq!(spending.has_room_for(data(50), Amount::ZERO), Room::Yes);
        assert_eq!(
            spending.has_room_for(data(51), Amount::ZERO),
            Room::No,
            "half of it is for the receiver's own clients"
        );
        spending.sent(data(30));
        assert_eq!(
            spending.has_room_for(data(21), Amount::ZERO),
            Room::Unknown,
            "what was sent may have taken room"
        );
        promises.received(data(30));
        spending.told(promises.say(left(70), Amount::ZERO, 1));
        assert_eq!(spending.has_room_for(data(35), Amount::ZERO), Room::Yes);
    }

    #[test]
    fn one_that_never_says_what_it_has_heard_keeps_its_promise_in_a_bounded_list() {
        let mut promises = Promises::default();
        for bytes in (0..1_000).rev() {
            promises.say(left(2 * bytes), Amount::ZERO, 1);
        }
        assert_eq!((promises.said.len(), promises.open()), (SAID_MAX, data(999)));
        promises.heard(1_000);
        assert_eq!((promises.said.len(), promises.open()), (1, data(0)));
    }

    #[test]
    fn what_was_promised_is_kept_until_less_has_been_heard() {
        let mut promises = Promises::default();
        let first = promises.say(left(100), Amount::ZERO, 1);
        assert_eq!(promises.open(), data(50));
        let second = promises.say(left(20), Amount::ZERO, 1);
        assert_eq!((second.limit, promises.open()), (data(10), data(50)));
        promises.received(data(5));
        promises.heard(first.seq);
        assert_eq!(promises.open(), data(45));
        promises.heard(second.seq);
        assert_eq!(promises.open(), data(5));
        // One that has not been said is none.
        promises.heard(9);
        assert_eq!(promises.open(), data(5));
        // A higher one makes those before it void.
        promises.say(left(100), Amount::ZERO, 1);
        assert_eq!((promises.open(), promises.said.len()), (data(50), 1));
    }

    /// Whatever the order in which words, changes and answers arrive, all that is promised fits.
    #[test]
    fn several_senders_never_share_a_promise() {
        for seed in 0..200_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut room = 1_000_u64;
            let mut links: Vec<(Promises, Spending)> = (0..3).map(|_| Default::default()).collect();
            let mut to_sender: Vec<VecDeque<Credit>> = vec![VecDeque::new(); 3];
            let mut to_receiver: Vec<VecDeque<u64>> = vec![VecDeque::new(); 3];
            let mut heard: Vec<VecDeque<u64>> = vec![VecDeque::new(); 3];
            for _ in 0..400 {
                let n = draw(3) as usize;
                match draw(6) {
                    0 => {
                        let others = (0..3).filter(|at| *at != n).map(|at| links[at].0.open());
                        let others = others.fold(Amount::ZERO, Amount::plus);
                        let credit = links[n].0.say(left(room), others, 3);
                        to_sender[n].push_back(credit);
                    }
                    1 => {
                        if let Some(credit) = to_sender[n].pop_front() {
                            links[n].1.told(credit);
                        }
                    }
                    2 => {
                        let takes = draw(60);
                        if links[n].1.has_room_for(data(takes), Amount::ZERO) == Room::Yes {
                            links[n].1.sent(data(takes));
                            to_receiver[n].push_back(takes);
                        }
                    }
                    3 => {
                        if let Some(takes) = to_receiver[n].pop_front() {
                            links[n].0.received(data(takes));
                            room = room.checked_sub(takes).expect("what was promised fits");
                        }
                    }
                    4 => heard[n].extend(links[n].1.heard()),
                    _ => {
                        if let Some(seq) = heard[n].pop_front() {
                            links[n].0.heard(seq);
                        }
                    }
                }
                let promised =
                    links.iter().map(|(promises, _)| promises.open()).fold(Amount::ZERO, Amount::plus);
                assert!(promised.fits(data(room)), "seed {seed}: {promised:?} of {room} were promised");
            }
        }
    }
}
