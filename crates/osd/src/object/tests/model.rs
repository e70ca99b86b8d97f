//! Random vectors against a plain model: the same answers, and the same object in the store afterwards.

use super::harness::{Cluster, PG, object};
use crate::object::{Fault, Supplied, pack, unpack};
use bytes::Bytes;
use cairn_pg::Version;
use cairn_store::{Op as StoreOp, Transaction};
use cairn_types::{Epoch, ObjectId};
use cairn_wire::op::{Op, OpKind, OpOutput};
use cairn_wire::{ErrorCode, Payload, Segment};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// An object as plainly as can be.
#[derive(Clone, PartialEq, Debug, Default)]
struct Plain {
    data: Vec<u8>,
    xattrs: BTreeMap<String, Bytes>,
    omap: BTreeMap<Bytes, Bytes>,
    header: Bytes,
}

/// What an operation of the model gives.
enum Given {
    Nothing,
    Bytes(Bytes),
    Entries(Vec<(Bytes, Bytes)>, bool),
    Data(u64, Vec<u8>),
    Size(u64),
}

type Result<T> = std::result::Result<T, ErrorCode>;

fn there(object: &mut Option<Plain>) -> Result<&mut Plain> {
    object.as_mut().ok_or(ErrorCode::NOENT)
}

fn run(object: &mut Option<Plain>, op: &OpKind, segment: &[u8]) -> Result<Given> {
    match op {
        OpKind::Stat => return Ok(Given::Size(there(object)?.data.len() as u64)),
        OpKind::Read { offset, len } | OpKind::SparseRead { offset, len } => {
            let data = object.as_ref().map_or(&[][..], |object| &object.data);
            let from = (*offset as usize).min(data.len());
            let len = if *len == 0 { usize::MAX } else { *len as usize };
            return Ok(Given::Data(*offset, data[from..][..len.min(data.len() - from)].to_vec()));
        }
        OpKind::Create { exclusive } => match object {
            Some(_) if *exclusive => return Err(ErrorCode::EXIST),
            _ => _ = object.get_or_insert_default(),
        },
        OpKind::Write { offset, .. } => put(object.get_or_insert_default(), *offset as usize, segment),
        OpKind::WriteFull { .. } => object.get_or_insert_default().data = segment.to_vec(),
        OpKind::Append { .. } => object.get_or_insert_default().data.extend_from_slice(segment),
        OpKind::Zero { offset, len } => {
            if let Some(object) = object {
                let end = ((offset + len) as usize).min(object.data.len());
                let from = (*offset as usize).min(end);
                object.data[from..end].fill(0);
            }
        }
        OpKind::Truncate { size } => there(object)?.data.resize(*size as usize, 0),
        OpKind::Delete => {
            there(object)?;
            *object = None;
        }
        OpKind::CompareExtent { offset, .. } => {
            let data = object.as_ref().map_or(&[][..], |object| &object.data);
            let found = |at: usize| data.get(*offset as usize + at).copied().unwrap_or(0);
            if segment.iter().enumerate().any(|(at, byte)| *byte != found(at)) {
                return Err(ErrorCode::CANCELED);
            }
        }
        OpKind::GetXattr { name } => {
            return there(object)?.xattrs.get(name).cloned().map(Given::Bytes).ok_or(ErrorCode::NODATA);
        }
        OpKind::SetXattr { name, value } => {
            object.get_or_insert_default().xattrs.insert(name.clone(), value.clone());
        }
        OpKind::RemoveXattr { name } => {
            there(object)?.xattrs.remove(name).ok_or(ErrorCode::NODATA)?;
        }
        OpKind::OmapGetVals { after, prefix, max } => {
            let omap = object.as_ref().map(|object| object.omap.clone()).unwrap_or_default();
            let mut entries: Vec<_> =
                omap.into_iter().filter(|(key, _)| key > after && key.starts_with(prefix)).collect();
            let more = entries.len() > *max as usize;
            entries.truncate(*max as usize);
            return Ok(Given::Entries(entries, more));
        }
        OpKind::OmapGetValsByKeys { keys } => {
            let omap = object.as_ref().map(|object| object.omap.clone()).unwrap_or_default();
            let found = keys.iter().filter_map(|key| Some((key.clone(), omap.get(key)?.clone())));
            return Ok(Given::Entries(found.collect(), false));
        }
        OpKind::OmapSet { entries } => {
            object.get_or_insert_default().omap.extend(entries.iter().cloned());
        }
        OpKind::OmapRemove { keys } => {
            let object = there(object)?;
            keys.iter().for_each(|key| _ = object.omap.remove(key));
        }
        OpKind::OmapRemoveRange { first, end } => {
            there(object)?.omap.retain(|key, _| key < first || key >= end);
        }
        OpKind::OmapClear => {
            let object = there(object)?;
            object.omap.clear();
            object.header = Bytes::new();
        }
        OpKind::OmapGetHeader => {
            return Ok(Given::Bytes(object.as_ref().map(|o| o.header.clone()).unwrap_or_default()));
        }
        OpKind::OmapSetHeader { value } => object.get_or_insert_default().header = value.clone(),
        OpKind::OmapCompare { key, value } => {
            let found = object.as_ref().and_then(|object| object.omap.get(key)).cloned();
            if found.unwrap_or_default() != *value {
                return Err(ErrorCode::CANCELED);
            }
        }
        other => panic!("the model does not know {other:?}"),
    }
    Ok(Given::Nothing)
}

fn put(object: &mut Plain, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if object.data.len() < end {
        object.data.resize(end, 0);
    }
    object.data[offset..end].copy_from_slice(bytes);
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![(0u64..6).prop_map(|block| block * 4096), 0u64..20_000]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![(0u64..3).prop_map(|blocks| blocks * 4096), 0u64..9_000]
}

fn key() -> impl Strategy<Value = Bytes> {
    (0u8..3, 0u8..6).prop_map(|(a, b)| Bytes::from(format!("{}{b}", (b'a' + a) as char)))
}

fn name() -> impl Strategy<Value = String> {
    (0u8..3).prop_map(|n| format!("attr{n}"))
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..4).prop_map(Bytes::from)
}

/// An operation, and what the segment of one that carries data is filled with.
fn op() -> impl Strategy<Value = (OpKind, u8)> {
    let max = 1u32..8;
    let kind = prop_oneof![
        Just(OpKind::Stat),
        (offset(), len()).prop_map(|(offset, len)| OpKind::Read { offset, len }),
        (offset(), len()).prop_map(|(offset, len)| OpKind::SparseRead { offset, len }),
        any::<bool>().prop_map(|exclusive| OpKind::Create { exclusive }),
        (offset(), len()).prop_map(|(offset, len)| OpKind::Write { offset, len }),
        len().prop_map(|len| OpKind::WriteFull { len }),
        (0u64..5_000).prop_map(|len| OpKind::Append { len }),
        (offset(), len()).prop_map(|(offset, len)| OpKind::Zero { offset, len }),
        offset().prop_map(|size| OpKind::Truncate { size }),
        Just(OpKind::Delete),
        (offset(), 0u64..5_000).prop_map(|(offset, len)| OpKind::CompareExtent { offset, len }),
        name().prop_map(|name| OpKind::GetXattr { name }),
        (name(), value()).prop_map(|(name, value)| OpKind::SetXattr { name, value }),
        name().prop_map(|name| OpKind::RemoveXattr { name }),
        (key(), 0usize..2, max).prop_map(|(after, len, max)| {
            let prefix = after.slice(..len);
            OpKind::OmapGetVals { after, prefix, max }
        }),
        vec(key(), 0..4).prop_map(|keys| OpKind::OmapGetValsByKeys { keys: keys.into() }),
        vec((key(), value()), 1..6).prop_map(|entries| OpKind::OmapSet { entries: entries.into() }),
        vec(key(), 1..4).prop_map(|keys| OpKind::OmapRemove { keys: keys.into() }),
        (key(), key()).prop_map(|(first, end)| OpKind::OmapRemoveRange { first, end }),
        Just(OpKind::OmapClear),
        Just(OpKind::OmapGetHeader),
        value().prop_map(|value| OpKind::OmapSetHeader { value }),
        (key(), value()).prop_map(|(key, value)| OpKind::OmapCompare { key, value }),
    ];
    (kind, 0u8..4)
}

fn check(cluster: &mut Cluster, id: &ObjectId, model: &mut Option<Plain>, ops: &[((OpKind, u8), bool)]) {
    let mut payload = Payload::none();
    let mut next = model.clone();
    let mut given = Vec::new();
    let mut code = ErrorCode::OK;
    let writes = ops.iter().any(|((op, _), _)| {
        !matches!(
            op,
            OpKind::Stat
                | OpKind::Read { .. }
                | OpKind::SparseRead { .. }
                | OpKind::CompareExtent { .. }
                | OpKind::GetXattr { .. }
                | OpKind::OmapGetVals { .. }
                | OpKind::OmapGetValsByKeys { .. }
                | OpKind::OmapGetHeader
                | OpKind::OmapCompare { .. }
        )
    });
    for ((op, fill), fail_ok) in ops {
        let segment = vec![*fill; op.segment_len() as usize];
        let offset = match op {
            OpKind::Write { offset, .. } => *offset,
            _ => 0,
        };
        if let Ok(segment) = Segment::new(offset, segment.clone().into()) {
            payload.push(segment);
        }
        if code != ErrorCode::OK {
            continue;
        }
        let result = if !writes && model.is_none() {
            code = ErrorCode::NOENT;
            Err(ErrorCode::NOENT)
        } else {
            run(&mut next, op, &segment)
        };
        if let (Err(failure), false) = (&result, fail_ok) {
            code = *failure;
        }
        given.push(result);
    }
    if code == ErrorCode::OK {
        *model = next;
    }
    let vector =
        ops.iter().map(|((kind, _), fail_ok)| Op { kind: kind.clone(), fail_ok: *fail_ok }).collect();
    let outcome = cluster.run(id, vector, payload);
    assert_eq!(outcome.code, code);
    assert_eq!(outcome.results.len(), given.len());
    let mut segments = outcome.data.segments().iter();
    for (result, given) in outcome.results.iter().zip(given) {
        match (given, &result.output) {
            (Err(failure), _) => assert_eq!(result.code, failure),
            (Ok(Given::Nothing), OpOutput::None) => {}
            (Ok(Given::Bytes(bytes)), OpOutput::Bytes(found)) => assert_eq!(*found, bytes),
            (Ok(Given::Entries(entries, more)), OpOutput::Entries { entries: found, more: found_more }) => {
                assert_eq!(**found, *entries);
                assert_eq!(*found_more, more);
            }
            (Ok(Given::Size(size)), OpOutput::Stat { size: found, .. }) => assert_eq!(*found, size),
            // What is read beside a change is not given.
            (Ok(Given::Data(..)), OpOutput::None) if writes => {}
            (Ok(Given::Data(_, data)), OpOutput::Data { len }) => {
                assert_eq!(*len, data.len() as u64);
                if *len > 0 {
                    let segment = segments.next().unwrap();
                    segment.verify().unwrap();
                    assert_eq!(**segment.data(), *data);
                }
            }
            (Ok(Given::Data(offset, data)), OpOutput::Extents(extents)) => {
                let mut found = vec![0; data.len()];
                for (at, len) in extents.iter() {
                    let segment = segments.next().unwrap();
                    segment.verify().unwrap();
                    let at = (at - offset) as usize;
                    found[at..at + *len as usize].copy_from_slice(segment.data());
                }
                assert!(found == data, "sparse read at {offset}");
            }
            (_, output) => panic!("unexpected {output:?}"),
        }
    }
    assert!(segments.next().is_none());
    // What is stored.
    let state = cluster.state(id);
    assert_eq!(state.exists(), model.is_some());
    let Some(model) = model else { return };
    assert!(*cluster.content(id) == *model.data);
    assert_eq!(state.size(), model.data.len() as u64);
    assert_eq!(cluster.omap(id), model.omap.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(state.omap_header, model.header);
    let xattrs = state.xattrs.as_deref().cloned().unwrap_or_default();
    assert_eq!(xattrs, model.xattrs);
}

/// Sends the object to another copy, by way of bytes, where something else stands under its name.
fn check_pack(cluster: &mut Cluster, id: &ObjectId) {
    let Ok(stat) = cluster.store.stat(PG, id) else { return };
    let Supplied::Extents(extents) = cluster.supply(id, &Fault::Extents { offset: 0, len: stat.size }) else {
        panic!()
    };
    let read = |&(offset, len): &(u64, u64)| match cluster.supply(id, &Fault::Data { offset, len }) {
        Supplied::Data(read) => read,
        other => panic!("{other:?}"),
    };
    let reads: Vec<_> = extents.iter().map(read).collect();
    let packed = pack(&stat, &extents, &reads, &cluster.omap(id)).unwrap();
    packed.data.segments().iter().for_each(|segment| segment.verify().unwrap());
    let copy = object("copy");
    cluster.write(&copy, 3, "something else");
    let mut transaction = Transaction::default();
    unpack(&packed, PG, &copy, Version { epoch: Epoch(9), version: 9 }, &mut transaction).unwrap();
    for op in &transaction.ops {
        if let StoreOp::Write { offset, data, checksums, .. } = op {
            let is_whole = offset % 4096 == 0 && data.len() % 4096 == 0;
            assert_eq!(checksums.is_some(), is_whole);
        }
    }
    cluster.store.commit(transaction).unwrap();
    let (a, b) = (cluster.state(id), cluster.state(&copy));
    assert_eq!(crate::object::ObjectState { version: b.version, ..a }, b);
    assert_eq!(cluster.content(id), cluster.content(&copy));
    assert_eq!(cluster.omap(id), cluster.omap(&copy));
    let Supplied::Extents(copied) = cluster.supply(&copy, &Fault::Extents { offset: 0, len: stat.size })
    else {
        panic!()
    };
    assert_eq!(copied, extents);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn vectors_do_what_a_plain_model_does(
        vectors in vec(vec((op(), any::<bool>()), 1..6), 1..14)
    ) {
        let mut cluster = Cluster::new();
        let id = object("object");
        let mut model = None;
        for ops in &vectors {
            check(&mut cluster, &id, &mut model, ops);
        }
        check_pack(&mut cluster, &id);
    }
}
