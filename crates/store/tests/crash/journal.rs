//! The harness tested: a journal of a few lines that is right, and the same with each protection
//! left out, which has to be caught.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_store::Transaction;
use cairn_store::device::sim::{Fault, FaultRule, OpKind, SimDevice, SimHandle};
use cairn_store::device::{AlignedBuf, BlockingDevice, Completion, Device, Io, Wait};

use crate::harness::Subject;
use crate::model::State;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    None,
    FlushLeftOut,
    RecordBeforeData,
    NoChecksum,
    EarlyAcknowledgement,
    /// Not the journal's: the medium's.
    LyingFlush,
}

const SLOT: u64 = 8192;
const DATA: u64 = 1 << 20;
const LEN: u64 = 2 << 20;

/// A slot per transaction: its record in the first half of the device, a block of data in the second.
/// The transactions themselves are kept aside; what is on the device says which of them count.
pub struct Journal {
    pub flaw: Flaw,
    history: Mutex<BTreeMap<(u64, u64), Transaction>>,
}

pub struct Open {
    device: SimDevice,
    state: State,
    waiting: VecDeque<(u64, Transaction)>,
    current: Option<(u64, u64, Transaction, Step)>,
    salt: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Middle,
    Last,
}

impl Journal {
    pub fn new(flaw: Flaw) -> Self {
        Journal { flaw, history: Mutex::default() }
    }

    fn step(&self, open: &mut Open, committed: &mut Vec<u64>) {
        let Some((token, id, transaction, step)) = open.current.take() else {
            let Some((token, transaction)) = open.waiting.pop_front() else { return };
            open.salt += 1;
            let id =
                token << 32 | u64::from(crc32fast::hash(format!("{transaction:?}{}", open.salt).as_bytes()));
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.insert((token, id), transaction.clone());
            let offset = if self.flaw == Flaw::RecordBeforeData { 0 } else { DATA };
            open.device.submit(0, write(offset + token * SLOT, id));
            if self.flaw == Flaw::EarlyAcknowledgement {
                committed.push(token);
                open.state.apply(&transaction);
            }
            open.current = Some((token, id, transaction, Step::First));
            return;
        };
        let step = match step {
            Step::First if self.flaw == Flaw::FlushLeftOut => {
                open.device.submit(0, write(token * SLOT, id));
                Step::Last
            }
            Step::First => {
                open.device.submit(0, Io::Flush);
                Step::Middle
            }
            Step::Middle => {
                let offset = if self.flaw == Flaw::RecordBeforeData { DATA } else { 0 };
                open.device.submit(0, write(offset + token * SLOT, id));
                Step::Last
            }
            Step::Last => {
                if self.flaw != Flaw::EarlyAcknowledgement {
                    open.state.apply(&transaction);
                    committed.push(token);
                }
                return;
            }
        };
        open.current = Some((token, id, transaction, step));
    }
}

/// The record is durable by itself; data needs the flush.
fn write(offset: u64, id: u64) -> Io {
    let mut buf = AlignedBuf::new(SLOT as usize);
    buf.chunks_mut(8).for_each(|word| word.copy_from_slice(&id.to_le_bytes()));
    Io::Write { offset, buf: buf.into(), durable: offset < DATA }
}

impl Subject for Journal {
    type Store = Open;

    fn len_bytes(&self) -> u64 {
        LEN
    }

    fn format(&self, _device: Arc<dyn BlockingDevice>) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&self, medium: &SimHandle) {
        if self.flaw == Flaw::LyingFlush {
            medium.inject(FaultRule::every(OpKind::Flush, Fault::Lie));
        }
    }

    fn open(&self, device: SimDevice) -> Result<Open, String> {
        let blocking = device.blocking();
        let mut state = State::default();
        let mut next = 1;
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut slots = [[0; SLOT as usize]; 2];
            blocking.read_at(next * SLOT, &mut slots[0]).map_err(|error| error.to_string())?;
            blocking.read_at(DATA + next * SLOT, &mut slots[1]).map_err(|error| error.to_string())?;
            let id = u64::from_le_bytes(slots[0][..8].try_into().expect("eight bytes"));
            let whole = |slot: &[u8]| slot.chunks(8).all(|word| word == id.to_le_bytes());
            if id == 0 || (!whole(&slots[0]) && self.flaw != Flaw::NoChecksum) {
                break;
            }
            let Some(transaction) = history.get(&(next, id)) else { break };
            if !whole(&slots[0]) || !whole(&slots[1]) {
                return Err(format!("the data of record {next} is not there"));
            }
            state.apply(transaction);
            next += 1;
        }
        Ok(Open { device, state, waiting: VecDeque::new(), current: None, salt: next << 16 })
    }

    fn submit(&self, open: &mut Open, token: u64, transaction: Transaction) -> Result<(), String> {
        open.waiting.push_back((token, transaction));
        Ok(())
    }

    fn poll(&self, open: &mut Open, committed: &mut Vec<u64>) -> Result<(), String> {
        let mut done: Vec<Completion> = Vec::new();
        open.device.poll(Wait::No, &mut done).map_err(|error| error.to_string())?;
        if open.device.in_flight() == 0 {
            self.step(open, committed);
        }
        Ok(())
    }

    fn dump(&self, open: &mut Open) -> Result<State, String> {
        Ok(open.state.clone())
    }

    fn fsck(&self, _device: Arc<dyn BlockingDevice>) -> Result<(), String> {
        Ok(())
    }
}
