//! Names of images and their ids: the object `rbd_id.NAME` of each image, and the pool's `rbd_directory`.

use super::super::key_bytes;
use super::{Answer, Bytes, Call, ErrorCode, Stop, answer, check_id, fail, nothing, stored};
use crate::object::work::FBIG;
use cairn_wire::Segment;
use cairn_wire::ceph::{Malformed, Reader, Writer};

/// EBADF: the id has another name.
const BADF: ErrorCode = ErrorCode(-9);
/// Longest stored id, with its length: what is longer is no id.
const ID_LEN_MAX: u64 = 1024;

fn string(from: &mut Reader<'_>) -> Result<String, Malformed> {
    from.string().map(str::to_owned)
}

fn name_key(name: &str) -> String {
    format!("name_{name}")
}

fn id_key(id: &str) -> String {
    format!("id_{id}")
}

pub fn get_id(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let size = call.work.state.size;
    if size == 0 {
        return fail(ErrorCode::NOENT);
    }
    let content = call.work.read(0, size.min(ID_LEN_MAX))?;
    let id = stored(&content, string)?;
    answer(|out| {
        out.string(&id);
    })
}

pub fn set_id(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let id = string(&mut Reader::new(input))?;
    check_id(&id)?;
    if call.work.state.size != 0 {
        return fail(ErrorCode::EXIST);
    }
    call.work.need()?;
    let mut content = Writer::default();
    content.string(&id);
    if content.len() as u64 > ID_LEN_MAX {
        return fail(ErrorCode::INVAL);
    }
    let Ok(segment) = Segment::new(0, content.finish()) else { return fail(FBIG) };
    call.work.write(0, segment)?;
    nothing()
}

pub fn dir_get_id(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let name = string(&mut Reader::new(input))?;
    let id = call.need(&name_key(&name), string)?;
    answer(|out| {
        out.string(&id);
    })
}

pub fn dir_get_name(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let id = string(&mut Reader::new(input))?;
    let name = call.need(&id_key(&id), string)?;
    answer(|out| {
        out.string(&name);
    })
}

pub fn dir_list(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (after, max) = (from.string()?, from.u64()?);
    let entries = if max == 0 { Vec::new() } else { call.entries("name_", after, max)? };
    for (_, id) in &entries {
        stored(id, string)?;
    }
    answer(|out| {
        out.u32(entries.len() as u32);
        for (name, id) in &entries {
            out.bytes(name).put(id);
        }
    })
}

fn check_name(name: &str) -> Result<(), Stop> {
    if name.is_empty() || name_key(name).len() > cairn_wire::op::OMAP_KEY_LEN_MAX {
        return fail(ErrorCode::INVAL);
    }
    Ok(())
}

fn encoded(text: &str) -> Bytes {
    let mut out = Writer::default();
    out.string(text);
    out.finish()
}

fn put(call: &mut Call<'_, '_>, name: &str, id: &str) {
    let (by_name, by_id) = (name_key(name), id_key(id));
    call.work.omap_set(&[(key_bytes(&by_id), encoded(name)), (key_bytes(&by_name), encoded(id))]);
}

/// Both entries of an image are there and speak of each other; ESTALE if it was renamed meanwhile.
fn check_entries(call: &mut Call<'_, '_>, name: &str, id: &str) -> Result<(), Stop> {
    let (by_name, by_id) = (name_key(name), id_key(id));
    call.work.omap_want(&[by_name.as_bytes(), by_id.as_bytes()])?;
    let found_id = call.need(&by_name, string)?;
    let found_name = call.need(&by_id, string)?;
    if found_id == id && found_name == name { Ok(()) } else { fail(ErrorCode::STALE) }
}

pub fn dir_add_image(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (name, id) = (from.string()?, from.string()?);
    check_name(name)?;
    check_id(id)?;
    let (by_name, by_id) = (name_key(name), id_key(id));
    call.work.omap_want(&[by_name.as_bytes(), by_id.as_bytes()])?;
    if call.work.omap_get(by_name.as_bytes())?.is_some() {
        return fail(ErrorCode::EXIST);
    }
    if call.work.omap_get(by_id.as_bytes())?.is_some() {
        return fail(BADF);
    }
    put(call, name, id);
    nothing()
}

pub fn dir_remove_image(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (name, id) = (from.string()?, from.string()?);
    check_entries(call, name, id)?;
    call.work.omap_remove(&[key_bytes(&id_key(id)), key_bytes(&name_key(name))]);
    nothing()
}

pub fn dir_rename_image(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (name, new_name, id) = (from.string()?, from.string()?, from.string()?);
    check_name(new_name)?;
    check_id(id)?;
    check_entries(call, name, id)?;
    if call.work.omap_get(name_key(new_name).as_bytes())?.is_some() {
        return fail(ErrorCode::EXIST);
    }
    call.remove(&name_key(name));
    put(call, new_name, id);
    nothing()
}
