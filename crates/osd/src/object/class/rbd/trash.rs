//! Images on their way out: `rbd_trash`, one omap entry `id_ID` for each.

use super::{Answer, Bytes, Call, ErrorCode, Stop, answer, check_id, fail, nothing, stored};
use cairn_types::Timestamp;
use cairn_wire::ceph::{Malformed, Reader, Writer};

const PREFIX: &str = "id_";

struct Spec {
    source: u8,
    name: String,
    deletion: Timestamp,
    deferment: Timestamp,
    state: u8,
}

impl Spec {
    fn decode(from: &mut Reader<'_>) -> Result<Spec, Malformed> {
        let (version, mut from) = from.section(2)?;
        Ok(Spec {
            source: from.u8()?,
            name: from.string()?.to_owned(),
            deletion: from.time()?,
            deferment: from.time()?,
            // The first version had none.
            state: if version >= 2 { from.u8()? } else { 0 },
        })
    }

    fn encode(&self, out: &mut Writer) {
        out.section(2, 1, |out| {
            out.u8(self.source).string(&self.name).time(self.deletion).time(self.deferment).u8(self.state);
        });
    }
}

fn key_of(id: &str) -> Result<String, Stop> {
    check_id(id)?;
    let key = format!("{PREFIX}{id}");
    if key.len() > cairn_wire::op::OMAP_KEY_LEN_MAX { fail(ErrorCode::INVAL) } else { Ok(key) }
}

pub fn add(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let key = key_of(from.string()?)?;
    let spec = Spec::decode(&mut from)?;
    if call.work.omap_get(key.as_bytes())?.is_some() {
        return fail(ErrorCode::EXIST);
    }
    call.set(&key, |out| spec.encode(out));
    nothing()
}

pub fn get(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let key = key_of(Reader::new(input).string()?)?;
    let spec = call.need(&key, Spec::decode)?;
    answer(|out| spec.encode(out))
}

pub fn list(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (after, max) = (from.string()?, from.u64()?);
    let mut specs = Vec::new();
    if max > 0 {
        for (id, spec) in call.entries(PREFIX, after, max)? {
            specs.push((id, stored(&spec, Spec::decode)?));
        }
    }
    answer(|out| {
        out.u32(specs.len() as u32);
        for (id, spec) in &specs {
            spec.encode(out.bytes(id));
        }
    })
}

pub fn remove(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let key = key_of(Reader::new(input).string()?)?;
    call.need(&key, Spec::decode)?;
    call.remove(&key);
    nothing()
}

/// From one state to another; ESTALE if it is in neither.
pub fn state_set(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let key = key_of(from.string()?)?;
    let (to, expected) = (from.u8()?, from.u8()?);
    let mut spec = call.need(&key, Spec::decode)?;
    if spec.state == expected {
        spec.state = to;
        call.set(&key, |out| spec.encode(out));
    } else if spec.state != to {
        return fail(ErrorCode::STALE);
    }
    nothing()
}
