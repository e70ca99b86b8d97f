//! A device that begins to fail under a running store.

use cairn_store::device::Wait;
use cairn_store::device::sim::{Cut, Fault, FaultRule, OpKind, SimHandle, SplitMix64};
use cairn_store::fsck::{self, FsckOptions};
use cairn_store::{Event, ReadError, ReadRequest, StoreError, SubmitError, Transaction, TransactionError};

use crate::model::{Generator, SMALL, State, object as model_object, pg};
use crate::sim_store::{self, BLOCK, PG, Sim, blocks, image, object, options, write};

const DATA_BYTES: u64 = 8 << 20;
const EIO: Fault = Fault::Error(libc::EIO);
const WORKLOAD: usize = 40;

/// What came of a workload on a device that fails at some point.
struct Outcome {
    /// The state after each number of transactions.
    states: Vec<State>,
    acknowledged: usize,
    /// What stopped the store, if anything did.
    cause: Option<StoreError>,
}

/// Transactions, a few at a time, with checkpoints between them, until the store stops.
fn work(store: &mut Sim, seed: u64) -> Outcome {
    let mut generator = Generator::new(seed, SMALL);
    let mut outcome = Outcome { states: vec![State::default()], acknowledged: 0, cause: None };
    let mut events = Vec::new();
    let mut answered = 0;
    for sequence in 1..=WORKLOAD {
        let last = outcome.states.last().expect("one at least");
        let transaction = generator.next(last, sequence);
        let mut next = last.clone();
        next.apply(&transaction);
        outcome.states.push(next);
        store.engine.submit(sequence as u64, transaction).expect("a healthy store");
        if sequence.is_multiple_of(7) {
            store.engine.request_checkpoint();
        }
        loop {
            let polled = store.engine.poll(Wait::Event, &mut events);
            for event in events.drain(..) {
                if let Event::Committed { result, .. } = event {
                    answered += 1;
                    match result {
                        Ok(()) => outcome.acknowledged += 1,
                        Err(TransactionError::Store(StoreError::Poisoned(_))) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            if let Err(error) = polled {
                assert_eq!(answered, sequence, "everybody gets an answer");
                outcome.cause = Some(error);
                return outcome;
            }
            let is_idle = store.engine.unfinished() == 0 && !store.engine.is_checkpointing();
            if is_idle || !sequence.is_multiple_of(3) {
                break;
            }
        }
    }
    while store.engine.unfinished() > 0 || store.engine.is_checkpointing() {
        if let Err(error) = store.engine.poll(Wait::Event, &mut events) {
            outcome.cause = Some(error);
            break;
        }
    }
    outcome.acknowledged +=
        events.iter().filter(|event| matches!(event, Event::Committed { result: Ok(()), .. })).count();
    outcome
}

/// It says why it stopped, whoever asks for whatever.
fn assert_stopped(store: &mut Sim, cause: &StoreError) {
    let said = cause.to_string();
    assert!(matches!(cause, StoreError::Poisoned(_)), "{said}");
    assert!(said.starts_with("the store stopped after an error and must be opened anew: "), "{said}");
    let error = store.engine.submit(0, Transaction::default()).unwrap_err();
    assert!(matches!(&error, SubmitError::Store(error) if error.to_string() == said), "{error}");
    let request = ReadRequest { pg: pg(0), object: model_object("object-0"), offset: 0, len: 1 };
    assert_eq!(store.engine.read(0, request).unwrap_err().to_string(), said);
    let stat = store.engine.stat(pg(0), &model_object("object-0")).unwrap_err();
    assert!(matches!(stat, ReadError::Store(_)) && stat.to_string() == said, "{stat}");
    assert_eq!(store.engine.list(pg(0), None, 1).unwrap_err().to_string(), said);
    assert_eq!(store.engine.poll(Wait::No, &mut Vec::new()).unwrap_err().to_string(), said);
}

/// On a device that works, whatever of the cached writes reached it.
fn assert_nothing_lost(device: &SimHandle, outcome: &Outcome, rng: &mut SplitMix64) {
    for cut in [Cut::KeepAll, Cut::LoseAll, Cut::Sectors(rng.next_u64()), Cut::Subset(rng.next_u64())] {
        let image = device.power_cut(&cut);
        let report = sim_store::fsck(image.clone()).unwrap();
        assert!(report.is_clean(), "{cut:?}: {report}");
        let mut store = Sim::on(image);
        let sequence = match store.engine.stat(pg(0), &model_object("marker")) {
            Ok(stat) => std::str::from_utf8(&stat.xattrs["seq"]).unwrap().parse().unwrap(),
            Err(_) => 0,
        };
        assert!(
            sequence >= outcome.acknowledged,
            "{cut:?}: {sequence} of {} are there",
            outcome.acknowledged
        );
        for (seed, objects) in &outcome.states[sequence].collections {
            for (name, object) in objects {
                let data = store.read_in(pg(*seed), name).unwrap();
                assert!(data == object.data, "{cut:?}: {seed}/{name}");
            }
        }
    }
}

fn fail_at_each(kind: OpKind) -> Vec<String> {
    let base = image(&options(), DATA_BYTES);
    let mut rng = SplitMix64::new(3);
    let mut causes = Vec::new();
    for skip in 0.. {
        // The collection of the other tests is in the way of the model's.
        let mut store = Sim::on(base.clone());
        store.run(vec![cairn_store::Op::RemoveCollection(PG)]).unwrap();
        store.device.inject(FaultRule::nth(kind, skip, EIO));
        let outcome = work(&mut store, 11);
        let Some(cause) = &outcome.cause else {
            assert_eq!(outcome.acknowledged, WORKLOAD);
            break;
        };
        assert_stopped(&mut store, cause);
        assert_nothing_lost(&store.device, &outcome, &mut rng);
        causes.push(cause.to_string());
    }
    causes
}

#[test]
fn after_any_failed_write_it_stops_and_nothing_acknowledged_is_lost() {
    let causes = fail_at_each(OpKind::Write);
    assert!(causes.len() > 60, "{} writes", causes.len());
    for part in [
        "cannot write the log at device offset ",
        "cannot write data at device offset ",
        "the index failed: ",
    ] {
        assert!(causes.iter().any(|cause| cause.contains(part)), "{part:?} in none of {causes:#?}");
    }
    assert!(!causes.iter().any(|cause| cause.contains("device offset 0")), "{causes:#?}");
}

#[test]
fn after_any_failed_flush_it_stops_and_nothing_acknowledged_is_lost() {
    let causes = fail_at_each(OpKind::Flush);
    assert!(causes.len() > 15, "{} flushes", causes.len());
    for part in ["cannot flush the device: ", "the index failed: "] {
        assert!(causes.iter().any(|cause| cause.contains(part)), "{part:?} in none of {causes:#?}");
    }
}

#[test]
fn a_failed_write_says_what_and_where() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    store.device.inject(FaultRule::nth(OpKind::Write, 0, EIO));
    let error = store.run(vec![write("object", 0, blocks(1, 1))]).unwrap_err().to_string();
    let (start, offset) = error.split_once("at device offset ").expect("a place");
    assert_eq!(start, "the store stopped after an error and must be opened anew: cannot write the log ");
    let (offset, cause) = offset.split_once(": ").unwrap();
    let offset: u64 = offset.parse().unwrap();
    assert!((BLOCK..BLOCK + options().log_bytes.unwrap()).contains(&offset), "{offset}");
    assert_eq!(cause, "Input/output error (os error 5)");
}

#[test]
fn a_block_that_cannot_be_read_is_named_and_the_store_goes_on() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    let data: Vec<u8> = (0..8 * BLOCK).map(|at| (at / BLOCK) as u8).collect();
    store.run(vec![write("object", 0, data)]).unwrap();
    store.checkpoint();
    let mut store = Sim::on(store.device.image());
    let dump = cairn_store::dump::Dump::open(&store.device.blocking()).unwrap().object(PG, &object("object"));
    let at = dump.unwrap().extents[0].device_offset + 5 * BLOCK;
    store.device.inject(FaultRule::every(OpKind::Read, EIO).within(at..at + BLOCK));
    let sentence = |offset: u64, device_offset: u64| {
        format!(
            "object {} cannot be read at byte {offset} (device offset {device_offset}): Input/output error (os error 5)",
            object("object")
        )
    };
    let error = store.read("object", 5 * BLOCK + 9, 1).unwrap_err();
    assert!(matches!(error, ReadError::Device { .. }));
    assert_eq!(error.to_string(), sentence(5 * BLOCK, at));
    // The block itself is named in a longer read, too.
    let error = store.read("object", 0, u64::MAX).unwrap_err();
    assert_eq!(error.to_string(), sentence(5 * BLOCK, at));
    let error = store.run(vec![write("object", 5 * BLOCK + 1, vec![1; 10])]).unwrap_err();
    assert_eq!(error.to_string(), sentence(5 * BLOCK, at));
    // All else goes on, and so does this once it can be read again.
    assert!(store.read("object", 6 * BLOCK, BLOCK).unwrap() == blocks(6, 1));
    store.run(vec![write("object", 6 * BLOCK, blocks(0x66, 1))]).unwrap();
    let options = FsckOptions { deep: true, repair: false };
    let report = fsck::check(&store.device.blocking(), &options, &mut |_, _| {}).unwrap().to_string();
    assert!(report.contains(&format!("cannot be read at byte 20480 (device offset {at})")), "{report}");
    store.device.clear_faults();
    assert!(store.read("object", 5 * BLOCK, BLOCK).unwrap() == blocks(5, 1));
    store.checkpoint();
    assert!(sim_store::fsck(store.device.image()).unwrap().is_clean());
}

#[test]
fn a_store_that_cannot_read_its_log_is_not_opened() {
    let mut store = Sim::on(image(&options(), DATA_BYTES));
    store.run(vec![write("object", 0, blocks(1, 1))]).unwrap();
    let image = store.device.image();
    let device = cairn_store::device::sim::SimDevice::from_image(image.clone(), Default::default());
    let log = BLOCK..BLOCK + options().log_bytes.unwrap();
    device.handle().inject(FaultRule::nth(OpKind::Read, 0, EIO).within(log));
    let runner = Box::new(cairn_store::engine::runner::Inline::default());
    let error = cairn_store::Engine::open(device, &Default::default(), runner).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the log at device offset "), "{error}");
    assert!(error.ends_with(": Input/output error (os error 5)"), "{error}");
    assert!(Sim::on(image).read("object", 0, BLOCK).unwrap() == blocks(1, 1));
}
