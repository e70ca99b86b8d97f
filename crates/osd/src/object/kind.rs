//! How a vector may be ordered among others on its object, and whether it is within bounds.

use super::class;
use cairn_pg::OpKind as Kind;
use cairn_types::SnapId;
use cairn_wire::ErrorCode;
use cairn_wire::op::{
    CALL_LEN_MAX, OBJECT_NAME_LEN_MAX, OMAP_KEY_LEN_MAX, OMAP_VALUE_LEN_MAX, OPS_MAX, OpKind, OpRequest,
    WatchAction, XATTR_LEN_MAX, XATTR_NAME_LEN_MAX,
};

/// ENAMETOOLONG: a name or key is longer than any may be. RADOS answers it too.
const NAMETOOLONG: ErrorCode = ErrorCode(-36);

/// How a vector may be ordered. One that changes its object and tells nothing of it (a blind write) may follow an
/// unfinished write at once. Whether a class call writes is decided by the method's registration.
///
/// # Errors
/// INVAL, NAMETOOLONG (-36) or OVERFLOW: out of bounds, or empty. OPNOTSUPP: a class or method that is not known, or
/// anything that has to do with snapshots.
pub fn kind_of(request: &OpRequest) -> Result<Kind, ErrorCode> {
    let object = &request.object;
    if request.ops.is_empty() || request.ops.len() > OPS_MAX {
        return Err(ErrorCode::INVAL);
    }
    if [&object.name, &object.namespace, &object.key].iter().any(|name| name.len() > OBJECT_NAME_LEN_MAX) {
        return Err(NAMETOOLONG);
    }
    if object.snap != SnapId::HEAD {
        return Err(ErrorCode::OPNOTSUPP);
    }
    let (mut reads, mut writes) = (false, false);
    for op in request.ops.iter() {
        check(&op.kind, request.ops.len())?;
        let (reads_too, writes_too) = needs(&op.kind)?;
        reads |= reads_too;
        writes |= writes_too;
    }
    if writes && (request.snaps.seq != 0 || !request.snaps.ids.is_empty()) {
        return Err(ErrorCode::OPNOTSUPP);
    }
    Ok(match (reads, writes) {
        (_, false) => Kind::Read,
        (false, true) => Kind::Write,
        (true, true) => Kind::ReadWrite,
    })
}

/// Whether what an operation answers depends on the object, and whether it changes it.
fn needs(op: &OpKind) -> Result<(bool, bool), ErrorCode> {
    Ok(match op {
        OpKind::Stat
        | OpKind::Read { .. }
        | OpKind::SparseRead { .. }
        | OpKind::CompareExtent { .. }
        | OpKind::AssertVersion { .. }
        | OpKind::GetXattr { .. }
        | OpKind::GetXattrs
        | OpKind::CompareXattr { .. }
        | OpKind::OmapGetKeys { .. }
        | OpKind::OmapGetVals { .. }
        | OpKind::OmapGetValsByKeys { .. }
        | OpKind::OmapGetHeader
        | OpKind::OmapCompare { .. }
        | OpKind::Notify { .. }
        | OpKind::ListWatchers
        | OpKind::ListObjects { .. }
        | OpKind::Watch { action: WatchAction::Ping, .. } => (true, false),
        OpKind::Create { exclusive: false }
        | OpKind::Write { .. }
        | OpKind::WriteFull { .. }
        | OpKind::Append { .. }
        | OpKind::Zero { .. }
        | OpKind::SetAllocHint { .. }
        | OpKind::SetXattr { .. }
        | OpKind::OmapSet { .. }
        | OpKind::OmapSetHeader { .. } => (false, true),
        // They answer ENOENT, EEXIST or ENODATA.
        OpKind::Create { exclusive: true }
        | OpKind::Truncate { .. }
        | OpKind::Delete
        | OpKind::RemoveXattr { .. }
        | OpKind::OmapRemove { .. }
        | OpKind::OmapRemoveRange { .. }
        | OpKind::OmapClear
        | OpKind::Watch { .. } => (true, true),
        OpKind::Call { class, method, .. } => {
            (true, class::find(class, method).ok_or(ErrorCode::OPNOTSUPP)?.writes)
        }
    })
}

fn bounded(len: usize, max: usize, code: ErrorCode) -> Result<(), ErrorCode> {
    if len <= max { Ok(()) } else { Err(code) }
}

fn xattr_name(name: &str) -> Result<(), ErrorCode> {
    bounded(1, name.len(), ErrorCode::INVAL)?;
    bounded(name.len(), XATTR_NAME_LEN_MAX, NAMETOOLONG)
}

/// A key that is set: the empty one cannot be listed, since a listing begins after it.
fn omap_key(key: &[u8]) -> Result<(), ErrorCode> {
    bounded(1, key.len(), ErrorCode::INVAL)?;
    bounded(key.len(), OMAP_KEY_LEN_MAX, NAMETOOLONG)
}

fn check(op: &OpKind, ops: usize) -> Result<(), ErrorCode> {
    let position = |key: &[u8]| bounded(key.len(), OMAP_KEY_LEN_MAX, NAMETOOLONG);
    match op {
        OpKind::GetXattr { name } | OpKind::RemoveXattr { name } => xattr_name(name),
        OpKind::SetXattr { name, value } | OpKind::CompareXattr { name, value } => {
            xattr_name(name)?;
            bounded(value.len(), XATTR_LEN_MAX, ErrorCode::OVERFLOW)
        }
        OpKind::OmapGetKeys { after, .. } => position(after),
        OpKind::OmapGetVals { after, prefix, .. } => position(after).and_then(|()| position(prefix)),
        OpKind::OmapGetValsByKeys { keys } | OpKind::OmapRemove { keys } => {
            keys.iter().try_for_each(|key| omap_key(key))
        }
        OpKind::OmapSet { entries } => entries.iter().try_for_each(|(key, value)| {
            omap_key(key)?;
            bounded(value.len(), OMAP_VALUE_LEN_MAX, ErrorCode::OVERFLOW)
        }),
        OpKind::OmapRemoveRange { first, end } => position(first).and_then(|()| position(end)),
        OpKind::OmapSetHeader { value } => bounded(value.len(), OMAP_VALUE_LEN_MAX, ErrorCode::OVERFLOW),
        OpKind::OmapCompare { key, value } => {
            omap_key(key)?;
            bounded(value.len(), OMAP_VALUE_LEN_MAX, ErrorCode::OVERFLOW)
        }
        OpKind::Call { input, .. } => bounded(input.len(), CALL_LEN_MAX, ErrorCode::OVERFLOW),
        OpKind::Notify { payload, .. } => {
            bounded(payload.len(), CALL_LEN_MAX, ErrorCode::OVERFLOW)?;
            bounded(ops, 1, ErrorCode::INVAL)
        }
        OpKind::ListObjects { .. } => bounded(ops, 1, ErrorCode::INVAL),
        _ => Ok(()),
    }
}
