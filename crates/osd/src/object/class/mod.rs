//! Object classes: methods that run at the object, over the same view as the other operations of their vector.
//!
//! Names, arguments, answers and what is stored are those of Ceph's classes (`src/cls`), so that what operators and
//! tools know of images and locks holds here.

mod lock;
mod rbd;

use super::Sender;
use super::work::{Stop, Work, fail};
use bytes::Bytes;
use cairn_types::Timestamp;
use cairn_wire::ErrorCode;
use cairn_wire::ceph::{Malformed, Reader, Writer};

/// Arguments that do not decode: EINVAL.
impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Stop::Fail(ErrorCode::INVAL)
    }
}

/// A method as it runs.
pub struct Call<'a, 'v> {
    /// The object.
    pub work: &'a mut Work<'v>,
    /// Who calls.
    pub sender: &'a Sender,
    /// The primary's clock.
    pub now: Timestamp,
}

/// What a method answers.
type Answer = Result<Bytes, Stop>;

/// A registered method.
pub struct Method {
    name: &'static str,
    /// It may change the object.
    pub writes: bool,
    /// Runs it on its input.
    pub run: fn(&mut Call<'_, '_>, &Bytes) -> Answer,
}

const fn reads(name: &'static str, run: fn(&mut Call<'_, '_>, &Bytes) -> Answer) -> Method {
    Method { name, writes: false, run }
}

const fn writes(name: &'static str, run: fn(&mut Call<'_, '_>, &Bytes) -> Answer) -> Method {
    Method { name, writes: true, run }
}

/// A method by its names.
pub fn find(class: &str, method: &str) -> Option<&'static Method> {
    let methods = match class {
        "lock" => lock::METHODS,
        "rbd" => rbd::METHODS,
        _ => return None,
    };
    methods.iter().find(|known| known.name == method)
}

/// Nothing to say.
fn nothing() -> Answer {
    Ok(Bytes::new())
}

/// An answer that `fill` writes.
fn answer(fill: impl FnOnce(&mut Writer)) -> Answer {
    let mut out = Writer::default();
    fill(&mut out);
    Ok(out.finish())
}

/// Decodes what is stored: EIO when it is damaged.
fn stored<T>(bytes: &[u8], decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<T, Stop> {
    decode(&mut Reader::new(bytes)).map_err(|Malformed| Stop::Fail(ErrorCode::IO))
}

impl Call<'_, '_> {
    /// The value of an omap key, decoded; `None`: the key is not there.
    fn get<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Stop> {
        match self.work.omap_get(key.as_bytes())? {
            Some(value) => stored(&value, decode).map(Some),
            None => Ok(None),
        }
    }

    /// The same; ENOENT if the key is not there.
    fn need<T>(
        &mut self,
        key: &str,
        decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Stop> {
        match self.get(key, decode)? {
            Some(value) => Ok(value),
            None => fail(ErrorCode::NOENT),
        }
    }

    /// Sets an omap key.
    fn set(&mut self, key: &str, fill: impl FnOnce(&mut Writer)) {
        let mut value = Writer::default();
        fill(&mut value);
        self.work.omap_set(&[(key_bytes(key), value.finish())]);
    }

    /// Removes an omap key.
    fn remove(&mut self, key: &str) {
        self.work.omap_remove(&[key_bytes(key)]);
    }
}

fn key_bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}
