//! Images: what their blocks hold, and that only the holder of the lock changes them.
//!
//! Each holder of an image's lock has a number that grows from holder to holder: the version of the header that taking
//! the lock made. Once an OSD has carried out something that a holder asked of a data object, no write of an earlier
//! holder may take effect there any more.

use super::register::{Register, Value};
use crate::timeline::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// Names an image for as long as there are any: its id.
pub type ImageId = String;

/// A data object.
type DataObject = (ImageId, u64);

/// A 4 KiB block of an image.
type Block = (ImageId, u64);

/// A write without an answer.
#[derive(Debug)]
struct Open {
    block: u64,
    holder: u64,
}

/// What is known of all images.
#[derive(Debug, Default)]
pub struct Images {
    registers: BTreeMap<Block, Register>,
    open: BTreeMap<DataObject, BTreeMap<Value, Open>>,
    /// The latest holder for whom something was carried out.
    latest: BTreeMap<DataObject, u64>,
    /// Writes that were sent when a later holder's operations had been carried out there.
    late: BTreeSet<Value>,
    /// Blocks that were discarded: they read as zeros at any time, and no write tells when.
    discarded: BTreeSet<Block>,
}

/// A part of an operation: a block of a data object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Of the image.
    pub image: ImageId,
    /// Number of the data object.
    pub object: u64,
    /// Block of the image.
    pub block: u64,
}

impl Images {
    /// The image's code sends a write of one block.
    pub fn write_sent(&mut self, place: &Place, value: Value, holder: u64, at: Instant) {
        let object = (place.image.clone(), place.object);
        self.register(place).write_sent(value, at);
        if self.latest.get(&object).is_some_and(|latest| *latest > holder) {
            self.late.insert(value);
        }
        self.open.entry(object).or_default().insert(value, Open { block: place.block, holder });
    }

    /// It was answered.
    ///
    /// # Errors
    /// It was sent too late to be carried out.
    pub fn write_answered(&mut self, place: &Place, value: Value, at: Instant) -> Result<(), String> {
        let object = (place.image.clone(), place.object);
        if let Some(open) = self.open.get_mut(&object) {
            open.remove(&value);
        }
        self.register(place).write_answered(value, at);
        self.not_late(place, value)
    }

    /// Something that a holder asked of a data object was carried out there.
    pub fn carried_out(&mut self, image: &str, object: u64, holder: u64, at: Instant) {
        let key = (image.to_owned(), object);
        let latest = self.latest.entry(key.clone()).or_default();
        *latest = holder.max(*latest);
        let latest = *latest;
        let Some(open) = self.open.get(&key) else { return };
        for (value, write) in open.iter().filter(|(_, write)| write.holder < latest) {
            if let Some(register) = self.registers.get_mut(&(image.to_owned(), write.block)) {
                register.write_fenced(*value, at);
            }
        }
    }

    /// Zeros may be there from now on.
    pub fn discarded(&mut self, image: &str, block: u64) {
        self.discarded.insert((image.to_owned(), block));
    }

    /// A block was read.
    ///
    /// # Errors
    /// It has what a holder wrote who was none any more.
    pub fn read(
        &mut self,
        place: &Place,
        value: Value,
        sent: Instant,
        answered: Instant,
    ) -> Result<(), String> {
        let block = (place.image.clone(), place.block);
        if value == Value::INITIAL && self.discarded.contains(&block) {
            return Ok(());
        }
        self.register(place).read(value, sent, answered);
        self.not_late(place, value)
    }

    fn register(&mut self, place: &Place) -> &mut Register {
        self.registers.entry((place.image.clone(), place.block)).or_default()
    }

    fn not_late(&self, place: &Place, value: Value) -> Result<(), String> {
        if self.late.contains(&value) {
            return Err(format!(
                "block {} of image {}: write {} was carried out although another client had the lock",
                place.block, place.image, value.0
            ));
        }
        Ok(())
    }

    /// Writes and reads so far.
    pub fn operations(&self) -> u64 {
        self.registers.values().map(Register::operations).sum()
    }

    /// Whether clients saw what one copy of each block could have shown them.
    pub fn check(&self) -> Result<(), String> {
        for ((image, block), register) in &self.registers {
            register
                .check()
                .map_err(|fault| format!("block {block} of image {image} is not linearizable: {fault}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { image: "a".to_owned(), object: 0, block: 1 }
    }

    #[test]
    fn a_write_of_an_earlier_holder_does_not_come_late() {
        let mut images = Images::default();
        images.write_sent(&place(), Value(1), 5, Instant(1));
        images.write_sent(&place(), Value(2), 9, Instant(2));
        images.write_answered(&place(), Value(2), Instant(3)).unwrap();
        images.carried_out("a", 0, 9, Instant(3));
        images.read(&place(), Value(2), Instant(4), Instant(5)).unwrap();
        assert_eq!(images.check(), Ok(()));
        images.read(&place(), Value(1), Instant(6), Instant(7)).unwrap();
        assert!(images.check().is_err());
    }

    #[test]
    fn a_write_of_an_earlier_holder_may_have_come_in_time() {
        let mut images = Images::default();
        images.write_sent(&place(), Value(1), 5, Instant(1));
        images.carried_out("a", 0, 9, Instant(3));
        images.read(&place(), Value(1), Instant(4), Instant(5)).unwrap();
        images.write_answered(&place(), Value(1), Instant(6)).unwrap();
        assert_eq!(images.check(), Ok(()));
    }

    #[test]
    fn what_an_earlier_holder_sends_too_late_is_not_answered() {
        let mut images = Images::default();
        images.carried_out("a", 0, 9, Instant(3));
        images.write_sent(&place(), Value(1), 5, Instant(4));
        assert!(images.write_answered(&place(), Value(1), Instant(6)).is_err());
        // Its own, and in another object: nobody has been there.
        images.write_sent(&place(), Value(2), 9, Instant(7));
        images.write_answered(&place(), Value(2), Instant(8)).unwrap();
        let elsewhere = Place { object: 1, block: 2, ..place() };
        images.write_sent(&elsewhere, Value(3), 5, Instant(9));
        images.write_answered(&elsewhere, Value(3), Instant(10)).unwrap();
    }
}
