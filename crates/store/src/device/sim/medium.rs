//! What a power cut may leave: the bytes that are stable and the writes that are not yet.

use std::sync::Arc;

use super::image::Image;
use super::rng::SplitMix64;

/// Number of a write, discard or flush on one device, in the order of submission.
pub type OpId = u64;

/// What a write puts down.
#[derive(Clone, Debug)]
pub enum Payload {
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A discarded range of so many bytes, which reads as this byte from now on.
    Fill(u64, u8),
}

impl Payload {
    fn len(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Fill(len, _) => *len,
        }
    }
}

/// One step in the life of a device. A power cut may come between any two.
#[derive(Clone, Debug)]
pub enum Event {
    /// A write (or discard) was queued: from here on any part of it may be on the medium.
    Write {
        /// Its number.
        id: OpId,
        /// Where it goes on the medium (not where it should go, when misdirected).
        offset: u64,
        /// What it puts down.
        payload: Payload,
        /// Whether its completion makes it stable.
        durable: bool,
    },
    /// The write was reported as done, or as failed.
    WriteDone {
        /// Its number.
        id: OpId,
        /// False: what is on the medium is anyone's guess, and no later flush makes it certain.
        ok: bool,
    },
    /// A flush was queued: it covers the writes reported as done before it.
    Flush {
        /// Its number.
        id: OpId,
    },
    /// The flush was reported.
    FlushDone {
        /// Its number.
        id: OpId,
        /// What it did.
        outcome: FlushOutcome,
    },
}

/// What a flush did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushOutcome {
    /// The writes it covers are stable.
    Done,
    /// It reported an error. As on Linux the writes it covered are dropped from the cache: whether
    /// they are stable is anyone's guess, and no later flush makes it certain.
    Failed,
    /// It reported success and did nothing.
    Lied,
}

/// Which of the unstable writes a power cut leaves on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// All of them.
    KeepAll,
    /// None of them.
    LoseAll,
    /// None but this one (by position among the unstable writes): it overtook all others.
    KeepOnly(usize),
    /// All but this one: all others overtook it.
    LoseOnly(usize),
    /// All but this one, of which the first `sectors` sectors are kept.
    TearOnly {
        /// Position among the unstable writes.
        index: usize,
        /// Sectors kept.
        sectors: u64,
    },
    /// The oldest so many: they reached the medium in order.
    KeepFirst(usize),
    /// A random half of the writes, by a seed.
    Subset(u64),
    /// A random half of the sectors, each for itself, by a seed.
    Sectors(u64),
}

#[derive(Clone, Debug)]
struct Pending {
    id: OpId,
    offset: u64,
    /// The part of the payload that no later stable write has replaced.
    start: u64,
    len: u64,
    payload: Payload,
    durable: bool,
    /// Value of [`Medium::clock`] at its successful completion.
    done_at: Option<u64>,
    /// Its write or flush failed: no flush covers it any more.
    orphaned: bool,
}

/// The state of a medium with a volatile cache before it.
#[derive(Clone, Debug)]
pub struct Medium {
    stable: Image,
    pending: Vec<Pending>,
    /// Flushes under way, with the clock at their submission.
    flushes: Vec<(OpId, u64)>,
    clock: u64,
    sector_bytes: u64,
}

impl Medium {
    /// A medium at rest. `sector_bytes` is what a power cut does not tear.
    pub fn new(stable: Image, sector_bytes: u32) -> Self {
        Medium {
            stable,
            pending: Vec::new(),
            flushes: Vec::new(),
            clock: 0,
            sector_bytes: sector_bytes.into(),
        }
    }

    /// Takes one step.
    ///
    /// # Panics
    /// When the completion of something never submitted is given.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { id, offset, payload, durable } => self.pending.push(Pending {
                id: *id,
                offset: *offset,
                start: 0,
                len: payload.len(),
                payload: payload.clone(),
                durable: *durable,
                done_at: None,
                orphaned: false,
            }),
            Event::WriteDone { id, ok } => {
                self.clock += 1;
                let clock = self.clock;
                let mut durable = false;
                for write in self.pending.iter_mut().filter(|write| write.id == *id) {
                    write.done_at = ok.then_some(clock);
                    write.orphaned = !ok;
                    durable = *ok && write.durable;
                }
                if durable {
                    self.settle(|write| write.id == *id);
                }
            }
            Event::Flush { id } => self.flushes.push((*id, self.clock)),
            Event::FlushDone { id, outcome } => {
                let at = self.flushes.iter().position(|flush| flush.0 == *id).expect("flush under way");
                let (_, clock) = self.flushes.swap_remove(at);
                let covered =
                    move |write: &Pending| !write.orphaned && write.done_at.is_some_and(|done| done <= clock);
                match outcome {
                    FlushOutcome::Done => self.settle(covered),
                    FlushOutcome::Failed => {
                        self.pending.iter_mut().filter(|w| covered(w)).for_each(|w| w.orphaned = true);
                    }
                    FlushOutcome::Lied => {}
                }
            }
        }
    }

    /// Number of writes that a power cut now may lose, tear or reorder.
    pub fn unstable(&self) -> usize {
        self.pending.len()
    }

    /// Sectors of one unstable write.
    pub fn unstable_sectors(&self, index: usize) -> u64 {
        self.pending[index].len.div_ceil(self.sector_bytes)
    }

    /// The bytes that survive whatever happens.
    pub fn stable(&self) -> &Image {
        &self.stable
    }

    /// Changes the bytes at rest behind everyone's back.
    pub fn stable_mut(&mut self) -> &mut Image {
        &mut self.stable
    }

    /// The image after a power cut now.
    pub fn cut(&self, cut: &Cut) -> Image {
        let mut image = self.stable.clone();
        let mut rng = SplitMix64::new(match cut {
            Cut::Subset(seed) | Cut::Sectors(seed) => *seed,
            _ => 0,
        });
        for (index, write) in self.pending.iter().enumerate() {
            match *cut {
                Cut::LoseAll => break,
                Cut::KeepAll => write.put(&mut image, 0, write.len),
                Cut::KeepOnly(only) if only == index => write.put(&mut image, 0, write.len),
                Cut::KeepOnly(_) => {}
                Cut::LoseOnly(only) if only == index => {}
                Cut::LoseOnly(_) => write.put(&mut image, 0, write.len),
                Cut::TearOnly { index: torn, sectors } if torn == index => {
                    write.put(&mut image, 0, write.len.min(sectors * self.sector_bytes));
                }
                Cut::TearOnly { .. } => write.put(&mut image, 0, write.len),
                Cut::KeepFirst(first) if index < first => write.put(&mut image, 0, write.len),
                Cut::KeepFirst(_) => break,
                Cut::Subset(_) => {
                    if rng.one_in(2) {
                        write.put(&mut image, 0, write.len);
                    }
                }
                Cut::Sectors(_) => {
                    for at in (0..write.len).step_by(self.sector_bytes as usize) {
                        if rng.one_in(2) {
                            write.put(&mut image, at, self.sector_bytes.min(write.len - at));
                        }
                    }
                }
            }
        }
        image
    }

    /// Makes the chosen writes stable, in their order, over whatever older unstable writes hold for
    /// the same bytes.
    fn settle(&mut self, covered: impl Fn(&Pending) -> bool) {
        let mut kept: Vec<Pending> = Vec::new();
        for write in std::mem::take(&mut self.pending) {
            if covered(&write) {
                write.put(&mut self.stable, 0, write.len);
                let end = write.offset + write.len;
                if kept.iter().any(|older| older.offset < end && write.offset < older.offset + older.len) {
                    kept = kept.into_iter().flat_map(|older| older.without(write.offset, end)).collect();
                }
            } else {
                kept.push(write);
            }
        }
        self.pending = kept;
    }
}

impl Pending {
    fn put(&self, image: &mut Image, at: u64, len: u64) {
        match &self.payload {
            Payload::Bytes(bytes) => {
                let from = (self.start + at) as usize;
                image.write(self.offset + at, &bytes[from..from + len as usize]);
            }
            Payload::Fill(_, byte) => image.fill(self.offset + at, len, *byte),
        }
    }

    /// What remains of it outside of a range.
    fn without(self, start: u64, end: u64) -> impl Iterator<Item = Pending> {
        let own_end = self.offset + self.len;
        let head = (self.offset, start.clamp(self.offset, own_end));
        let tail = (end.clamp(self.offset, own_end), own_end);
        [head, (tail.0.max(head.1), tail.1)].into_iter().filter(|(from, to)| from < to).map(
            move |(from, to)| Pending {
                offset: from,
                start: self.start + (from - self.offset),
                len: to - from,
                ..self.clone()
            },
        )
    }
}

/// A recorded run: where it began and what happened.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The medium at the start.
    pub base: Image,
    /// What a power cut does not tear.
    pub sector_bytes: u32,
    /// Every step.
    pub events: Vec<Event>,
}

/// Walks a [`Recording`] so that a power cut can be made at each of its boundaries without running
/// anything again.
#[derive(Debug)]
pub struct Walker<'a> {
    recording: &'a Recording,
    medium: Medium,
    position: usize,
}

impl<'a> Walker<'a> {
    /// Stands before the first event.
    pub fn new(recording: &'a Recording) -> Self {
        let medium = Medium::new(recording.base.clone(), recording.sector_bytes);
        Walker { recording, medium, position: 0 }
    }

    /// Events that have happened.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The medium between the last event and the next.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// Lets the next event happen and gives it, or `None` at the end.
    pub fn step(&mut self) -> Option<&'a Event> {
        let event = self.recording.events.get(self.position)?;
        self.medium.apply(event);
        self.position += 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    fn write(id: OpId, sector: u64, sectors: usize, byte: u8, durable: bool) -> Event {
        let payload = Payload::Bytes(vec![byte; sectors * SECTOR].into());
        Event::Write { id, offset: sector * SECTOR as u64, payload, durable }
    }

    fn done(id: OpId) -> Event {
        Event::WriteDone { id, ok: true }
    }

    /// The byte that each sector holds.
    fn sectors(image: &Image) -> Vec<u8> {
        image.to_vec().chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    fn run(events: &[Event]) -> Medium {
        let mut medium = Medium::new(Image::zeroed(8 * SECTOR as u64), SECTOR as u32);
        events.iter().for_each(|event| medium.apply(event));
        medium
    }

    #[test]
    fn a_write_is_unstable_until_a_flush_queued_after_its_completion_is_done() {
        let early = run(&[
            write(0, 0, 2, 7, false),
            Event::Flush { id: 1 },
            done(0),
            Event::FlushDone { id: 1, outcome: FlushOutcome::Done },
        ]);
        assert_eq!(early.unstable(), 1);
        assert_eq!(sectors(&early.cut(&Cut::LoseAll)), [0; 8]);
        let late = [write(0, 0, 2, 7, false), done(0), Event::Flush { id: 1 }];
        assert_eq!(run(&late).unstable(), 1);
        for (outcome, unstable) in
            [(FlushOutcome::Done, 0), (FlushOutcome::Lied, 1), (FlushOutcome::Failed, 1)]
        {
            let mut medium = run(&late);
            medium.apply(&Event::FlushDone { id: 1, outcome });
            assert_eq!(medium.unstable(), unstable);
            // A second flush helps after a lie, never after an error.
            medium.apply(&Event::Flush { id: 2 });
            medium.apply(&Event::FlushDone { id: 2, outcome: FlushOutcome::Done });
            assert_eq!(medium.unstable(), usize::from(outcome == FlushOutcome::Failed));
        }
    }

    #[test]
    fn a_durable_write_covers_itself_only_and_wins_over_older_ones() {
        let medium = run(&[
            write(0, 0, 4, 1, false),
            done(0),
            write(1, 5, 1, 2, false),
            done(1),
            write(2, 1, 2, 3, true),
            done(2),
        ]);
        assert_eq!(sectors(&medium.cut(&Cut::LoseAll)), [0, 3, 3, 0, 0, 0, 0, 0]);
        assert_eq!(sectors(&medium.cut(&Cut::KeepAll)), [1, 3, 3, 1, 0, 2, 0, 0]);
        assert_eq!(medium.unstable(), 3); // the first write is left in two parts
        assert_eq!(sectors(&medium.cut(&Cut::KeepOnly(1))), [0, 3, 3, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn cuts_choose_among_the_unstable_writes() {
        let medium = run(&[
            write(0, 0, 2, 1, false),
            done(0),
            write(1, 2, 3, 2, false),
            Event::Write { id: 2, offset: 3 * 512, payload: Payload::Fill(1024, 9), durable: false },
        ]);
        let cut = |cut| sectors(&medium.cut(&cut));
        assert_eq!(cut(Cut::KeepAll), [1, 1, 2, 9, 9, 0, 0, 0]);
        assert_eq!(cut(Cut::LoseOnly(2)), [1, 1, 2, 2, 2, 0, 0, 0]);
        assert_eq!(cut(Cut::KeepOnly(2)), [0, 0, 0, 9, 9, 0, 0, 0]);
        assert_eq!(cut(Cut::KeepFirst(1)), [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cut(Cut::TearOnly { index: 1, sectors: 1 }), [1, 1, 2, 9, 9, 0, 0, 0]);
        let all: std::collections::BTreeSet<_> = (0..4000).map(|seed| cut(Cut::Sectors(seed))).collect();
        assert_eq!(all.len(), 2 * 2 * 2 * 3 * 3); // every sector on its own: old, first, second
        let all: std::collections::BTreeSet<_> = (0..100).map(|seed| cut(Cut::Subset(seed))).collect();
        assert_eq!(all.len(), 8);
    }
}
