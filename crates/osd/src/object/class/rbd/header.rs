//! The header of an image: its omap holds size, features and the like, each under its own key.

use super::super::key_bytes;
use super::{Answer, Bytes, Call, ErrorCode, Stop, answer, fail, nothing, stored};
use cairn_types::{SnapId, Timestamp};
use cairn_wire::ceph::{Malformed, Reader, Writer};

/// Feature bits, from Ceph's `include/rbd/features.h`.
mod feature {
    pub const LAYERING: u64 = 1;
    pub const STRIPING: u64 = 1 << 1;
    pub const EXCLUSIVE_LOCK: u64 = 1 << 2;
    pub const OBJECT_MAP: u64 = 1 << 3;
    pub const FAST_DIFF: u64 = 1 << 4;
    pub const DEEP_FLATTEN: u64 = 1 << 5;
    pub const JOURNALING: u64 = 1 << 6;
    pub const DATA_POOL: u64 = 1 << 7;
    pub const OPERATIONS: u64 = 1 << 8;
    pub const MIGRATING: u64 = 1 << 9;

    /// What this class knows.
    pub const ALL: u64 =
        LAYERING | EXCLUSIVE_LOCK | OBJECT_MAP | FAST_DIFF | DEEP_FLATTEN | DATA_POOL | OPERATIONS;
    /// Not set by clients.
    pub const INTERNAL: u64 = DATA_POOL | OPERATIONS | MIGRATING;
    /// Set and cleared in an image's life.
    pub const MUTABLE: u64 = EXCLUSIVE_LOCK | OBJECT_MAP | FAST_DIFF | JOURNALING;
    /// Cleared in an image's life.
    pub const DISABLE_ONLY: u64 = DEEP_FLATTEN;
    /// Who does not know them must not read.
    pub const INCOMPATIBLE: u64 = LAYERING | STRIPING | DATA_POOL;
    /// Who does not know them must not write.
    pub const RW_INCOMPATIBLE: u64 = INCOMPATIBLE
        | EXCLUSIVE_LOCK
        | OBJECT_MAP
        | FAST_DIFF
        | DEEP_FLATTEN
        | JOURNALING
        | OPERATIONS
        | MIGRATING;
}

/// ENOSYS: features that the class does not know.
const NOSYS: ErrorCode = ErrorCode(-38);
const NO_POOL: i64 = -1;
const SNAP_PREFIX: &str = "snapshot_";

fn u64_of(from: &mut Reader<'_>) -> Result<u64, Malformed> {
    from.u64()
}

/// Where an image's parent is, and how much of the image it still covers.
struct Parent {
    pool: i64,
    namespace: String,
    image: String,
    snap: u64,
    overlap: Option<u64>,
}

impl Parent {
    fn none() -> Parent {
        let (namespace, image) = (String::new(), String::new());
        Parent { pool: NO_POOL, namespace, image, snap: SnapId::HEAD.0, overlap: None }
    }

    fn exists(&self) -> bool {
        self.pool >= 0 && !self.image.is_empty() && self.snap != SnapId::HEAD.0
    }

    fn decode(from: &mut Reader<'_>) -> Result<Parent, Malformed> {
        let (version, mut from) = from.section(2)?;
        if version < 2 {
            // An earlier layout, of releases that cannot have written to this cluster.
            return Err(Malformed);
        }
        let (pool, namespace, image) = (from.i64()?, from.string()?.to_owned(), from.string()?.to_owned());
        let snap = from.u64()?;
        let overlap = if from.u8()? != 0 { Some(from.u64()?) } else { None };
        Ok(Parent { pool, namespace, image, snap, overlap })
    }

    fn encode(&self, out: &mut Writer) {
        out.section(2, 2, |out| {
            out.i64(self.pool).string(&self.namespace).string(&self.image).u64(self.snap);
            optional(out, self.overlap);
        });
    }
}

fn optional(out: &mut Writer, value: Option<u64>) {
    match value {
        Some(value) => out.u8(1).u64(value),
        None => out.u8(0),
    };
}

fn snap_key(snap: u64) -> String {
    format!("{SNAP_PREFIX}{snap:016x}")
}

impl Call<'_, '_> {
    fn parent(&mut self) -> Result<Parent, Stop> {
        Ok(self.get("parent", Parent::decode)?.unwrap_or_else(Parent::none))
    }

    /// ENOENT for a snapshot that is not there.
    fn need_snap(&mut self, snap: u64) -> Result<Bytes, Stop> {
        let value = self.work.omap_get(snap_key(snap).as_bytes())?;
        value.map_or_else(|| fail(ErrorCode::NOENT), Ok)
    }
}

pub fn create(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (size, order, features, prefix) = (from.u64()?, from.u8()?, from.u64()?, from.string()?);
    let data_pool = if from.is_empty() { NO_POOL } else { from.i64()? };
    if features & !feature::ALL != 0 {
        return fail(NOSYS);
    }
    let has_data_pool = features & feature::DATA_POOL != 0;
    if prefix.is_empty() || features & feature::OPERATIONS != 0 || has_data_pool != (data_pool != NO_POOL) {
        return fail(ErrorCode::INVAL);
    }
    if call.work.omap_get(b"object_prefix")?.is_some() {
        return fail(ErrorCode::EXIST);
    }
    let encode = |fill: &dyn Fn(&mut Writer)| {
        let mut out = Writer::default();
        fill(&mut out);
        out.finish()
    };
    let now = call.now;
    let time = |out: &mut Writer| {
        out.time(now);
    };
    let mut entries = vec![
        (key_bytes("access_timestamp"), encode(&time)),
        (key_bytes("create_timestamp"), encode(&time)),
        (key_bytes("features"), encode(&|out| _ = out.u64(features))),
        (key_bytes("modify_timestamp"), encode(&time)),
        (key_bytes("object_prefix"), encode(&|out| _ = out.string(prefix))),
        (key_bytes("order"), encode(&|out| _ = out.u8(order))),
        (key_bytes("size"), encode(&|out| _ = out.u64(size))),
        (key_bytes("snap_seq"), encode(&|out| _ = out.u64(0))),
    ];
    if has_data_pool {
        entries.push((key_bytes("data_pool_id"), encode(&|out| _ = out.i64(data_pool))));
    }
    call.work.omap_set(&entries);
    nothing()
}

pub fn get_size(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let snap = Reader::new(input).u64()?;
    call.work.omap_want(&[b"order", b"size"])?;
    let order = call.need("order", |from| from.u8())?;
    let size = if snap == SnapId::HEAD.0 {
        call.need("size", u64_of)?
    } else {
        let value = call.need_snap(snap)?;
        stored(&value, |from| {
            let (_, mut from) = from.section(8)?;
            from.u64()?;
            from.string()?;
            from.u64()
        })?
    };
    answer(|out| {
        out.u8(order).u64(size);
    })
}

pub fn set_size(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let size = Reader::new(input).u64()?;
    call.work.omap_want(&[b"size", b"parent"])?;
    let before = call.need("size", u64_of)?;
    let mut parent = call.parent()?;
    call.set("size", |out| _ = out.u64(size));
    // What was cut off does not show the parent again when the image grows.
    if size < before && parent.exists() && parent.overlap.is_some_and(|overlap| overlap > size) {
        parent.overlap = Some(size);
        call.set("parent", |out| parent.encode(out));
    }
    nothing()
}

pub fn get_features(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    from.u64()?;
    let read_only = !from.is_empty() && from.u8()? != 0;
    let features = call.need("features", u64_of)?;
    let incompatible = if read_only { feature::INCOMPATIBLE } else { feature::RW_INCOMPATIBLE };
    answer(|out| {
        out.u64(features).u64(features & incompatible);
    })
}

pub fn set_features(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (features, mask) = (from.u64()?, from.u64()?);
    let before = call.get("features", u64_of)?.unwrap_or(0);
    if mask & feature::INTERNAL != 0 {
        return fail(ErrorCode::INVAL);
    }
    let mask = mask & feature::ALL;
    let (enabled, disabled) = (features & mask, !features & mask);
    if enabled & !feature::MUTABLE != 0 || disabled & !(feature::MUTABLE | feature::DISABLE_ONLY) != 0 {
        return fail(ErrorCode::INVAL);
    }
    call.set("features", |out| _ = out.u64(before & !mask | enabled));
    nothing()
}

pub fn get_flags(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let snap = Reader::new(input).u64()?;
    call.work.need()?;
    let flags = if snap == SnapId::HEAD.0 {
        call.get("flags", u64_of)?.unwrap_or(0)
    } else {
        let value = call.need_snap(snap)?;
        stored(&value, |from| {
            let (_, mut from) = from.section(8)?;
            from.u64()?;
            from.string()?;
            from.u64()?;
            from.u8()?;
            from.u64()
        })?
    };
    answer(|out| {
        out.u64(flags);
    })
}

pub fn set_flags(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let mut from = Reader::new(input);
    let (flags, mask) = (from.u64()?, from.u64()?);
    if !from.is_empty() && from.u64()? != SnapId::HEAD.0 {
        return fail(ErrorCode::OPNOTSUPP);
    }
    call.work.need()?;
    let before = call.get("flags", u64_of)?.unwrap_or(0);
    call.set("flags", |out| _ = out.u64(before & !mask | flags & mask));
    nothing()
}

pub fn get_object_prefix(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let prefix = call.need("object_prefix", |from| from.string().map(str::to_owned))?;
    answer(|out| {
        out.string(&prefix);
    })
}

pub fn get_data_pool(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let pool = call.get("data_pool_id", |from| from.i64())?.unwrap_or(NO_POOL);
    answer(|out| {
        out.i64(pool);
    })
}

fn get_time(call: &mut Call<'_, '_>, key: &str) -> Answer {
    let time = call.get(key, |from| from.time())?.unwrap_or(Timestamp(0));
    answer(|out| {
        out.time(time);
    })
}

fn set_time(call: &mut Call<'_, '_>, key: &str) -> Answer {
    call.work.need()?;
    let now = call.now;
    call.set(key, |out| _ = out.time(now));
    nothing()
}

pub fn get_create_timestamp(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    get_time(call, "create_timestamp")
}

pub fn get_access_timestamp(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    get_time(call, "access_timestamp")
}

pub fn get_modify_timestamp(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    get_time(call, "modify_timestamp")
}

pub fn set_access_timestamp(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    set_time(call, "access_timestamp")
}

pub fn set_modify_timestamp(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    set_time(call, "modify_timestamp")
}

pub fn get_snapcontext(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let seq = call.need("snap_seq", u64_of)?;
    let mut ids = Vec::new();
    for (key, _) in call.entries(SNAP_PREFIX, "", 0)? {
        let id = std::str::from_utf8(&key).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        ids.push(id.map_or_else(|| fail(ErrorCode::IO), Ok)?);
    }
    answer(|out| {
        out.u64(seq).u32(ids.len() as u32);
        for id in ids.iter().rev() {
            out.u64(*id);
        }
    })
}

pub fn get_protection_status(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let snap = Reader::new(input).u64()?;
    call.work.need()?;
    if snap == SnapId::HEAD.0 {
        return fail(ErrorCode::INVAL);
    }
    let value = call.need_snap(snap)?;
    let status = stored(&value, |from| {
        let (_, mut from) = from.section(8)?;
        from.u64()?;
        from.string()?;
        from.u64()?;
        from.u8()
    })?;
    answer(|out| {
        out.u8(status);
    })
}

pub fn snapshot_get(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let snap = Reader::new(input).u64()?;
    call.need_snap(snap)?;
    // What would be stored of one is not what this method answers, and nothing stores one yet.
    fail(ErrorCode::OPNOTSUPP)
}

pub fn snapshot_get_limit(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let limit = call.get("snap_limit", u64_of)?.unwrap_or(u64::MAX);
    answer(|out| {
        out.u64(limit);
    })
}

pub fn parent_get(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    call.work.need()?;
    let parent = call.parent()?;
    answer(|out| {
        out.section(1, 1, |out| {
            out.i64(parent.pool).string(&parent.namespace).string(&parent.image).u64(parent.snap);
        });
    })
}

pub fn parent_overlap_get(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let snap = Reader::new(input).u64()?;
    call.work.need()?;
    let overlap = if snap == SnapId::HEAD.0 {
        call.parent()?.overlap
    } else {
        call.need_snap(snap)?;
        None
    };
    answer(|out| optional(out, overlap))
}

pub fn op_features_get(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    let features = call.get("op_features", u64_of)?.unwrap_or(0);
    answer(|out| {
        out.u64(features);
    })
}

pub fn get_all_features(_: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    answer(|out| {
        out.u64(feature::ALL);
    })
}

/// The group an image is in: none is, yet.
pub fn image_group_get(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    call.work.need()?;
    if let Some(spec) = call.work.omap_get(b"rbd_group_ref")? {
        return Ok(spec);
    }
    answer(|out| {
        out.section(1, 1, |out| {
            out.i64(NO_POOL).string("");
        });
    })
}
