//! An image's, or a pool's, settings: omap keys `metadata_KEY` with the raw values.

use super::super::key_bytes;
use super::{Answer, Bytes, Call, ErrorCode, Stop, answer, fail, nothing};
use cairn_wire::ceph::Reader;
use cairn_wire::op::{OMAP_KEY_LEN_MAX, OMAP_VALUE_LEN_MAX};

const PREFIX: &str = "metadata_";

fn key_of(key: &str) -> Result<Bytes, Stop> {
    let key = format!("{PREFIX}{key}");
    if key.len() > OMAP_KEY_LEN_MAX { fail(ErrorCode::INVAL) } else { Ok(key.into()) }
}

pub fn get(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let key = key_of(Reader::new(input).string()?)?;
    match call.work.omap_get(&key)? {
        Some(value) => answer(|out| {
            out.bytes(&value);
        }),
        None => fail(ErrorCode::NOENT),
    }
}

pub fn list(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (after, max) = (from.string()?, from.u64()?);
    let entries = call.entries(PREFIX, after, max)?;
    answer(|out| {
        out.u32(entries.len() as u32);
        for (key, value) in &entries {
            out.bytes(key).bytes(value);
        }
    })
}

pub fn set(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let mut entries = Vec::new();
    for _ in 0..from.count(8)? {
        let key = key_of(from.string()?)?;
        let value = from.bytes()?;
        if value.len() > OMAP_VALUE_LEN_MAX {
            return fail(ErrorCode::INVAL);
        }
        entries.push((key, input.slice_ref(value)));
    }
    call.work.omap_set(&entries);
    nothing()
}

pub fn remove(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let key = Reader::new(input).string()?;
    call.work.need()?;
    call.work.omap_remove(&[key_bytes(&format!("{PREFIX}{key}"))]);
    nothing()
}
