//! Runs a workload on a simulated device once, then opens the store from the image of a power cut
//! at every boundary of what was recorded.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_store::Transaction;
use cairn_store::device::BlockingDevice;
use cairn_store::device::sim::{Cut, Image, Recording, SimDevice, SimHandle, SimOptions, SplitMix64, Walker};

use crate::model::{Generator, SMALL, State};

/// Polls after which a store that still has not committed is stuck.
const MAX_POLLS: usize = 10_000;

/// A kind of store under test, with all that makes it this kind (broken or not).
pub trait Subject: Sync {
    type Store;

    /// Bytes of the device its workloads run on.
    fn len_bytes(&self) -> u64;
    fn format(&self, device: Arc<dyn BlockingDevice>) -> Result<(), String>;
    /// Brings a formatted device to where its history starts, still empty.
    fn settle(&self, _device: SimDevice) -> Result<(), String> {
        Ok(())
    }
    /// Faults of the medium that its workloads run on.
    fn prepare(&self, _medium: &SimHandle) {}
    fn open(&self, device: SimDevice) -> Result<Self::Store, String>;
    /// The transaction is numbered `token`.
    fn submit(&self, store: &mut Self::Store, token: u64, transaction: Transaction) -> Result<(), String>;
    /// Lets it work a little; tokens that are durable from now on are added, in order.
    fn poll(&self, store: &mut Self::Store, committed: &mut Vec<u64>) -> Result<(), String>;
    /// Its whole content, through its reads.
    fn dump(&self, store: &mut Self::Store) -> Result<State, String>;
    /// What is wrong with a store at rest.
    fn fsck(&self, device: Arc<dyn BlockingDevice>) -> Result<(), String>;
}

/// How hard to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Transactions in one workload.
    pub transactions: usize,
    /// One image in so many is also checked offline.
    pub fsck_one_in: u64,
    /// One image in so many is also used further, and its power cut again.
    pub again_one_in: u64,
}

/// A store that broke its promise, and how to see it again.
#[derive(Debug)]
pub struct Failure {
    seed: u64,
    place: String,
    problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}: {}", self.seed, self.place, self.problem)
    }
}

/// A finished run.
struct Run {
    recording: Recording,
    /// What was submitted and acknowledged when so many events had happened.
    marks: Vec<Mark>,
    /// The content after each number of transactions.
    states: Vec<State>,
}

#[derive(Clone, Copy)]
struct Mark {
    events: usize,
    submitted: usize,
    acknowledged: usize,
}

impl Run {
    /// Fewest and most transactions that may be there after a power cut at an event.
    fn bounds(&self, position: usize) -> (usize, usize) {
        let seen = self.marks.iter().take_while(|mark| mark.events <= position);
        seen.fold((0, 0), |(acknowledged, submitted), mark| {
            (acknowledged.max(mark.acknowledged), submitted.max(mark.submitted))
        })
    }
}

/// All crash points of one workload. Counts the images opened in `points`.
pub fn torture<S: Subject>(
    subject: &S,
    seed: u64,
    effort: Effort,
    points: &AtomicU64,
) -> Result<(), Failure> {
    let mut rng = SplitMix64::new(seed ^ 0x5eed);
    let fail = |place: &str, problem| Failure { seed, place: place.to_owned(), problem };
    let run = guarded(|| {
        let options =
            SimOptions { sector_bytes: if seed.is_multiple_of(8) { 4096 } else { 512 }, ..options(&mut rng) };
        let device = SimDevice::new(subject.len_bytes(), options);
        let handle = device.handle();
        subject.format(handle.blocking())?;
        subject.settle(device)?;
        // Formatting is not atomic; the history starts with a formatted device at rest.
        let image = handle.power_cut(&Cut::LoseAll);
        run(subject, image, options, State::default(), 0, effort.transactions, seed, &mut rng)
    })
    .map_err(|problem| fail("workload", problem))?;
    each_cut(&run, &mut rng, |position, cut, image, rng| {
        points.fetch_add(1, Ordering::Relaxed);
        let bounds = run.bounds(position);
        let place = || format!("power cut after event {position} of {}, {cut:?}", run.recording.events.len());
        let sector_bytes = run.recording.sector_bytes;
        let fsck = rng.one_in(effort.fsck_one_in);
        let found = guarded(|| check(subject, image.clone(), sector_bytes, bounds, &run.states, fsck))
            .map_err(|problem| fail(&place(), problem))?;
        if rng.one_in(effort.again_one_in) {
            again(subject, image, found, &run, rng, points)
                .map_err(|problem| fail(&format!("{}, then", place()), problem))?;
        }
        Ok(())
    })
}

/// Opens a crash image, goes on with it, and cuts the power at each boundary of that.
fn again<S: Subject>(
    subject: &S,
    image: Image,
    found: usize,
    first: &Run,
    rng: &mut SplitMix64,
    points: &AtomicU64,
) -> Result<(), String> {
    let options = SimOptions { sector_bytes: first.recording.sector_bytes, ..options(rng) };
    let start = first.states[found].clone();
    let seed = rng.next_u64();
    let second = guarded(|| run(subject, image, options, start, found, 3, seed, rng))?;
    each_cut(&second, rng, |position, cut, image, rng| {
        points.fetch_add(1, Ordering::Relaxed);
        let (fewest, most) = second.bounds(position);
        let bounds = (fewest.max(found), most.max(found));
        guarded(|| check(subject, image, options.sector_bytes, bounds, &second.states, rng.one_in(8)))
            .map(drop)
            .map_err(|problem| format!("power cut {position} of the recovery, {cut:?}: {problem}"))
    })
}

/// The device of one run: the order of completions is chance, too.
fn options(rng: &mut SplitMix64) -> SimOptions {
    let shuffle = (!rng.one_in(4)).then(|| rng.next_u64());
    SimOptions { record: true, shuffle, discard: !rng.one_in(4), ..SimOptions::default() }
}

/// A broken store may also panic; that is a failure like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

#[expect(clippy::too_many_arguments, reason = "one call each for the first run and the one after a crash")]
fn run<S: Subject>(
    subject: &S,
    image: Image,
    options: SimOptions,
    start: State,
    done_before: usize,
    transactions: usize,
    seed: u64,
    rng: &mut SplitMix64,
) -> Result<Run, String> {
    let device = SimDevice::from_image(image, options);
    let handle = device.handle();
    subject.prepare(&handle);
    let mut generator = Generator::new(seed, SMALL);
    // `states` is indexed by sequence; what is before the start can no longer be found.
    let mut states = vec![State::default(); done_before];
    states.push(start);
    let mut acknowledged = done_before;
    let mut marks = vec![Mark { events: 0, submitted: done_before, acknowledged }];
    let mut store = subject.open(device)?;
    let mut committed = Vec::new();
    for sequence in done_before + 1..=done_before + transactions {
        let state = states.last().expect("one at least");
        let transaction = generator.next(state, sequence);
        let mut next = state.clone();
        next.apply(&transaction);
        states.push(next);
        marks.push(Mark { events: events(&handle), submitted: sequence, acknowledged });
        subject.submit(&mut store, sequence as u64, transaction)?;
        for _ in 0..rng.below(4) {
            subject.poll(&mut store, &mut committed)?;
            acknowledged = in_order(&mut committed, acknowledged)?;
            marks.push(Mark { events: events(&handle), submitted: sequence, acknowledged });
        }
    }
    let last = done_before + transactions;
    for _ in 0..MAX_POLLS {
        if acknowledged == last {
            let dump = subject.dump(&mut store)?;
            compare(&dump, states.last().expect("one at least"))?;
            let recording = handle.recording();
            return Ok(Run { recording, marks, states });
        }
        subject.poll(&mut store, &mut committed)?;
        acknowledged = in_order(&mut committed, acknowledged)?;
        marks.push(Mark { events: events(&handle), submitted: last, acknowledged });
    }
    Err(format!("stuck: {acknowledged} of {last} transactions committed after {MAX_POLLS} polls"))
}

fn events(handle: &SimHandle) -> usize {
    handle.event_count() as usize
}

fn in_order(committed: &mut Vec<u64>, mut acknowledged: usize) -> Result<usize, String> {
    for token in committed.drain(..) {
        if token != acknowledged as u64 + 1 {
            return Err(format!("transaction {token} was acknowledged after {acknowledged}"));
        }
        acknowledged += 1;
    }
    Ok(acknowledged)
}

/// Visits every boundary of a run with every kind of power cut.
fn each_cut<E>(
    run: &Run,
    rng: &mut SplitMix64,
    mut visit: impl FnMut(usize, Cut, Image, &mut SplitMix64) -> Result<(), E>,
) -> Result<(), E> {
    let mut walker = Walker::new(&run.recording);
    loop {
        for cut in cuts(&walker, rng) {
            visit(walker.position(), cut, walker.medium().cut(&cut), rng)?;
        }
        if walker.step().is_none() {
            return Ok(());
        }
    }
}

fn cuts(walker: &Walker<'_>, rng: &mut SplitMix64) -> Vec<Cut> {
    let medium = walker.medium();
    let unstable = medium.unstable();
    if unstable == 0 {
        return vec![Cut::KeepAll];
    }
    let mut cuts =
        vec![Cut::KeepAll, Cut::LoseAll, Cut::Sectors(rng.next_u64()), Cut::Sectors(rng.next_u64())];
    // The newest write is the one this boundary is about; of the others one by chance.
    for index in [unstable - 1, rng.below(unstable as u64) as usize] {
        let sectors = medium.unstable_sectors(index);
        if sectors > 1 {
            cuts.push(Cut::TearOnly { index, sectors: 1 + rng.below(sectors - 1) });
        }
        if unstable > 1 {
            cuts.extend([Cut::KeepOnly(index), Cut::LoseOnly(index)]);
        }
    }
    if unstable > 2 {
        cuts.extend([
            Cut::Subset(rng.next_u64()),
            Cut::KeepFirst(1 + rng.below(unstable as u64 - 1) as usize),
        ]);
    }
    cuts
}

/// Opens an image and compares all of it; gives the number of transactions it holds.
fn check<S: Subject>(
    subject: &S,
    image: Image,
    sector_bytes: u32,
    (fewest, most): (usize, usize),
    states: &[State],
    fsck: bool,
) -> Result<usize, String> {
    let device = SimDevice::from_image(image, SimOptions { sector_bytes, ..SimOptions::default() });
    let handle = device.handle();
    if fsck {
        subject.fsck(handle.blocking()).map_err(|problem| format!("fsck before opening: {problem}"))?;
    }
    let mut store = subject.open(device).map_err(|problem| format!("open: {problem}"))?;
    let found = subject.dump(&mut store)?;
    let sequence = found.sequence()?;
    if sequence < fewest {
        return Err(format!("{fewest} transactions were acknowledged, {sequence} are there"));
    }
    if sequence > most {
        return Err(format!("{most} transactions were submitted, {sequence} are there"));
    }
    compare(&found, &states[sequence]).map_err(|problem| format!("prefix of {sequence}: {problem}"))?;
    drop(store);
    if fsck {
        subject.fsck(handle.blocking()).map_err(|problem| format!("fsck after opening: {problem}"))?;
    }
    Ok(sequence)
}

fn compare(found: &State, expected: &State) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(expected.difference(found)) }
}
