//! Whether vectors keep the bounds of the wire, and answers fit their vectors.

use crate::io::InvalidOp;
use cairn_wire::op::{OBJECT_NAME_LEN_MAX, OPS_MAX, Op, OpKind, OpOutput, OpReply};
use cairn_wire::{PAYLOAD_LEN_MAX, Payload};

/// Whether a vector may be sent. `name` is `None` for operations on a group.
pub fn check(name: Option<&str>, ops: &[Op], data: &Payload) -> Result<(), InvalidOp> {
    if let Some(name) = name
        && (name.is_empty() || name.len() > OBJECT_NAME_LEN_MAX)
    {
        return Err(InvalidOp::NameLen(name.len()));
    }
    if ops.is_empty() || ops.len() > OPS_MAX {
        return Err(InvalidOp::OpCount(ops.len()));
    }
    let wanted = ops.iter().map(|op| op.kind.segment_len()).filter(|&len| len > 0);
    if !wanted.eq(data.segments().iter().map(|segment| segment.data().len() as u64)) {
        return Err(InvalidOp::Segments);
    }
    if data.len() > PAYLOAD_LEN_MAX {
        return Err(InvalidOp::DataLen(data.len()));
    }
    Ok(())
}

/// Bytes a vector keeps in flight: what it carries or asks for.
pub fn cost_bytes(ops: &[Op], data: &Payload) -> usize {
    let read = |op: &Op| match op.kind {
        // Length 0 is to the end: an image's object, most likely.
        OpKind::Read { len: 0, .. } => 4 << 20,
        OpKind::Read { len, .. } | OpKind::SparseRead { len, .. } => len.min(PAYLOAD_LEN_MAX as u64) as usize,
        _ => 0,
    };
    data.len() + ops.iter().map(read).sum::<usize>()
}

/// Whether a reply tells of each operation and of each segment that came with it.
pub(super) fn fits(ops: &[Op], reply: &OpReply, data: &Payload) -> bool {
    let lengths = reply.results.iter().flat_map(|result| {
        let (one, many) = match &result.output {
            OpOutput::Data { len } => (Some(*len).filter(|&len| len > 0), &[][..]),
            OpOutput::Extents(extents) => (None, &extents[..]),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|&(_, len)| len))
    });
    reply.results.len() == ops.len()
        && lengths.eq(data.segments().iter().map(|segment| segment.data().len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cairn_types::Epoch;
    use cairn_wire::op::OpResult;
    use cairn_wire::{ErrorCode, RequestId};

    fn write(len: u64) -> Op {
        OpKind::Write { offset: 0, len }.into()
    }

    #[test]
    fn vectors_beyond_a_bound_are_refused() {
        let data = Payload::of(0, Bytes::from_static(b"four"));
        assert_eq!(check(Some("a"), &[write(4)], &data), Ok(()));
        assert_eq!(check(Some("a"), &[write(0), write(4)], &data), Ok(()));
        assert_eq!(check(Some(""), &[write(4)], &data), Err(InvalidOp::NameLen(0)));
        assert_eq!(check(Some(&"a".repeat(1025)), &[write(4)], &data), Err(InvalidOp::NameLen(1025)));
        assert_eq!(check(Some("a"), &[], &data), Err(InvalidOp::OpCount(0)));
        assert_eq!(check(Some("a"), &vec![write(0); 65], &data), Err(InvalidOp::OpCount(65)));
        assert_eq!(check(Some("a"), &[write(5)], &data), Err(InvalidOp::Segments));
        assert_eq!(check(Some("a"), &[OpKind::Stat.into()], &data), Err(InvalidOp::Segments));
        let large = Payload::of(0, vec![0; PAYLOAD_LEN_MAX + 1].into());
        let op = write(PAYLOAD_LEN_MAX as u64 + 1);
        assert_eq!(check(Some("a"), &[op], &large), Err(InvalidOp::DataLen(PAYLOAD_LEN_MAX + 1)));
    }

    #[test]
    fn an_answer_that_claims_other_bytes_than_it_has_does_not_fit() {
        let data = Payload::of(0, Bytes::from_static(b"four"));
        let reply = |outputs: Vec<OpOutput>| OpReply {
            request: RequestId { client: 1, incarnation: 0, tid: 1 },
            epoch: Epoch(1),
            code: ErrorCode::OK,
            user_version: 1,
            results: outputs.into_iter().map(|output| OpResult { code: ErrorCode::OK, output }).collect(),
        };
        let read = [Op::from(OpKind::Read { offset: 0, len: 4 })];
        assert!(fits(&read, &reply(vec![OpOutput::Data { len: 4 }]), &data));
        assert!(fits(&read, &reply(vec![OpOutput::Extents(vec![(0, 4)].into())]), &data));
        assert!(fits(&read, &reply(vec![OpOutput::Data { len: 0 }]), &Payload::default()));
        assert!(!fits(&read, &reply(vec![OpOutput::Data { len: 3 }]), &data));
        assert!(!fits(&read, &reply(vec![]), &Payload::default()));
        assert!(!fits(&read, &reply(vec![OpOutput::Data { len: 4 }]), &Payload::default()));
    }
}
