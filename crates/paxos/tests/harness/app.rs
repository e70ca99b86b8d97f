//! The application on the log: a register and a hash of all that was applied.

use cairn_paxos::{Applied, Apply, Payload, Slot};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct App {
    pub slot: Slot,
    pub register: u64,
    pub hash: u64,
    pub padding: usize,
}

impl App {
    pub fn new(padding: usize) -> Self {
        App { padding, ..App::default() }
    }

    /// The next slot, or a whole state. `Err` says what the log did wrong.
    pub fn apply(&mut self, apply: &Apply) -> Result<(), String> {
        match apply {
            Apply::Slot { slot, applied } => {
                if *slot != self.slot.next() {
                    return Err(format!("apply of {slot} after {}", self.slot));
                }
                self.slot = *slot;
                if let Applied::Command { id, payload } = applied {
                    self.register =
                        u64::from_le_bytes(payload.as_slice()[..8].try_into().expect("eight bytes"));
                    self.hash = (self.hash ^ self.register ^ id.seq.rotate_left(32) ^ id.session)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                Ok(())
            }
            Apply::Install { slot, state } => {
                if *slot <= self.slot {
                    return Err(format!("install of {slot} over {}", self.slot));
                }
                let bytes = state.as_slice();
                let number =
                    |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
                let read = App {
                    slot: Slot(number(0)),
                    register: number(8),
                    hash: number(16),
                    padding: self.padding,
                };
                if read.slot != *slot || bytes.len() != 24 + self.padding {
                    return Err(format!("state installed at {slot} says {}", read.slot));
                }
                *self = read;
                Ok(())
            }
        }
    }

    pub fn state(&self) -> Payload {
        let mut bytes = Vec::with_capacity(24 + self.padding);
        for number in [self.slot.0, self.register, self.hash] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(24 + self.padding, 0xa5);
        bytes.into()
    }
}
