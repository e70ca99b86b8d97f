//! Calls of the object classes `rbd` and `lock`, as bytes.

use super::error::ImageError;
use super::names::{LOCK, LOCK_TAG};
use crate::io::{ObjectIo, OpAnswer, OpError};
use bytes::Bytes;
use cairn_types::EntityAddr;
use cairn_wire::Payload;
use cairn_wire::ceph::{Malformed, Reader, Writer};
use cairn_wire::op::{Op, OpFlags, OpKind, OpOutput};
use std::net::{IpAddr, SocketAddr};

/// Snapshot id of the live image.
const HEAD: u64 = u64::MAX - 1;
/// Exclusive locks.
const LOCK_EXCLUSIVE: u8 = 1;
/// Kind of a locker that is a client.
const KIND_CLIENT: u8 = 8;

/// A call.
pub fn call(class: &str, method: &str, fill: impl FnOnce(&mut Writer)) -> Op {
    let mut input = Writer::default();
    fill(&mut input);
    OpKind::Call { class: class.into(), method: method.into(), input: input.finish() }.into()
}

/// What an image's name holds: its id, in the form in which the class keeps it.
pub fn id_content(id: &str) -> Bytes {
    let mut content = Writer::default();
    content.string(id);
    content.finish()
}

/// The output of operation `at`, a call that succeeded.
pub fn output(answer: &OpAnswer, at: usize) -> Result<&Bytes, Malformed> {
    match answer.results.get(at).map(|result| &result.output) {
        Some(OpOutput::Bytes(bytes)) => Ok(bytes),
        _ => Err(Malformed),
    }
}

/// Carries out a vector without bytes.
pub async fn run(io: &impl ObjectIo, object: &str, ops: Vec<Op>) -> Result<OpAnswer, OpError> {
    io.operate(object, ops, Payload::none(), OpFlags::default()).await
}

/// The same for what takes next to no room: it is done in a full cluster as well, or nobody could make room there.
pub async fn run_even_full(io: &impl ObjectIo, object: &str, ops: Vec<Op>) -> Result<OpAnswer, OpError> {
    io.operate(object, ops, Payload::none(), OpFlags::FULL_TRY).await
}

/// What an image's header says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes.
    pub size: u64,
    /// Objects have `2^order` bytes.
    pub order: u8,
    /// Bits.
    pub features: u64,
    /// What the names of its data objects begin with.
    pub object_prefix: String,
}

/// Makes a header.
pub fn create_header(header: &Header) -> Op {
    call("rbd", "create", |out| {
        out.u64(header.size).u8(header.order).u64(header.features).string(&header.object_prefix).i64(-1);
    })
}

/// The vector that reads a header.
pub fn header_vector() -> Vec<Op> {
    vec![
        call("rbd", "get_size", |out| {
            out.u64(HEAD);
        }),
        call("rbd", "get_features", |out| {
            out.u64(HEAD).u8(0);
        }),
        call("rbd", "get_object_prefix", |_| {}),
    ]
}

/// What it gave.
pub fn read_header(answer: &OpAnswer) -> Result<Header, Malformed> {
    let mut size = Reader::new(output(answer, 0)?);
    let (order, size) = (size.u8()?, size.u64()?);
    let features = Reader::new(output(answer, 1)?).u64()?;
    let object_prefix = Reader::new(output(answer, 2)?).string()?.to_owned();
    Ok(Header { size, order, features, object_prefix })
}

/// Sets the size.
pub fn set_size(size: u64) -> Op {
    call("rbd", "set_size", |out| {
        out.u64(size);
    })
}

/// A string that a call gave.
pub fn read_string(answer: &OpAnswer, at: usize) -> Result<String, Malformed> {
    Ok(Reader::new(output(answer, at)?).string()?.to_owned())
}

/// Images of the directory after a name, at most `max`.
pub fn dir_list(after: &str, max: u64) -> Op {
    call("rbd", "dir_list", |out| {
        out.string(after).u64(max);
    })
}

/// Names and ids, in the order of names.
pub fn read_dir_list(answer: &OpAnswer) -> Result<Vec<(String, String)>, Malformed> {
    let mut from = Reader::new(output(answer, 0)?);
    let count = from.count(8)?;
    (0..count).map(|_| Ok((from.string()?.to_owned(), from.string()?.to_owned()))).collect()
}

/// Takes the exclusive lock.
pub fn lock(cookie: &str) -> Op {
    call("lock", "lock", |out| {
        out.section(1, 1, |out| {
            out.string(LOCK).u8(LOCK_EXCLUSIVE).string(cookie).string(LOCK_TAG).string("").u64(0).u8(0);
        });
    })
}

/// Gives it back.
pub fn unlock(cookie: &str) -> Op {
    call("lock", "unlock", |out| {
        out.section(1, 1, |out| {
            out.string(LOCK).string(cookie);
        });
    })
}

/// Takes it from who holds it.
pub fn break_lock(owner: &Owner) -> Op {
    call("lock", "break_lock", |out| {
        out.section(1, 1, |out| {
            out.string(LOCK).u8(KIND_CLIENT).u64(owner.client).string(&owner.cookie);
        });
    })
}

/// Who holds it.
pub fn lock_info() -> Op {
    call("lock", "get_info", |out| {
        out.section(1, 1, |out| {
            out.string(LOCK);
        });
    })
}

/// One who holds the lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its session.
    pub client: u64,
    /// Its name of the lock.
    pub cookie: String,
    /// As the blocklist names it.
    pub addr: EntityAddr,
}

/// Who holds it, if anyone.
pub fn read_lock_info(answer: &OpAnswer, at: usize) -> Result<Option<Owner>, Malformed> {
    let (_, mut from) = Reader::new(output(answer, at)?).section(1)?;
    let mut owner = None;
    for _ in 0..from.count(12)? {
        let (_, mut id) = from.section(1)?;
        let (_kind, client, cookie) = (id.u8()?, id.u64()?, id.string()?.to_owned());
        let (_, mut info) = from.section(1)?;
        let _expiration = info.time()?;
        let addr = read_addr(&mut info)?;
        owner.get_or_insert(Owner { client, cookie, addr });
    }
    Ok(owner)
}

/// An address as the class `lock` keeps it (`entity_addr_t`); the upper half of our nonce stands where the socket
/// address has nothing of its own.
fn read_addr(from: &mut Reader<'_>) -> Result<EntityAddr, Malformed> {
    const INET: u16 = 2;
    const INET6: u16 = 10;
    if from.u8()? != 1 {
        return Err(Malformed);
    }
    let (_, mut addr) = from.section(1)?;
    let (_type, nonce_low, _len) = (addr.u32()?, addr.u32()?, addr.u32()?);
    let family = addr.u16()?;
    let port = u16::from_be_bytes(addr.take(2)?.try_into().map_err(|_| Malformed)?);
    let (ip, nonce_high) = match family {
        INET => {
            let ip: [u8; 4] = addr.take(4)?.try_into().map_err(|_| Malformed)?;
            (IpAddr::from(ip), addr.u32()?)
        }
        INET6 => {
            let _flow = addr.u32()?;
            let ip: [u8; 16] = addr.take(16)?.try_into().map_err(|_| Malformed)?;
            (IpAddr::from(ip), addr.u32()?)
        }
        _ => return Err(Malformed),
    };
    let nonce = u64::from(nonce_low) | u64::from(nonce_high) << 32;
    Ok(EntityAddr { socket: SocketAddr::new(ip, port), nonce })
}

/// What clients of one image tell each other through its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// This client has the lock now.
    AcquiredLock,
    /// The lock is free.
    ReleasedLock,
    /// Who holds the lock shall give it up.
    RequestLock,
    /// The header has changed.
    HeaderUpdate,
    /// Something this version has no use for.
    Other,
}

impl Notice {
    /// The bytes, from client `client`.
    pub fn encode(self, client: u64) -> Bytes {
        let mut out = Writer::default();
        out.section(7, 1, |out| {
            match self {
                Notice::AcquiredLock => out.u32(0).u64(client).u64(0),
                Notice::ReleasedLock => out.u32(1).u64(client).u64(0),
                Notice::RequestLock => out.u32(2).u64(client).u64(0).u8(0),
                Notice::HeaderUpdate | Notice::Other => out.u32(3),
            };
        });
        out.finish()
    }

    /// From bytes; whatever is not understood is [`Notice::Other`].
    pub fn decode(bytes: &[u8]) -> Notice {
        let op = Reader::new(bytes).section(7).and_then(|(_, mut from)| from.u32());
        match op {
            Ok(0) => Notice::AcquiredLock,
            Ok(1) => Notice::ReleasedLock,
            Ok(2) => Notice::RequestLock,
            Ok(3) => Notice::HeaderUpdate,
            _ => Notice::Other,
        }
    }
}

/// The owner's answer to [`Notice::RequestLock`]: 0 or an errno.
pub fn encode_response(code: i32) -> Bytes {
    let mut out = Writer::default();
    out.section(1, 1, |out| {
        out.u32(code as u32);
    });
    out.finish()
}

/// What the owner answered; `None` is no answer.
pub fn decode_response(bytes: &[u8]) -> Option<i32> {
    let (_, mut from) = Reader::new(bytes).section(1).ok()?;
    from.u32().ok().map(|code| code as i32)
}

/// Turns what cannot be read into an error that names it.
pub fn well_formed<T>(
    read: Result<T, Malformed>,
    name: &str,
    what: &'static str,
    object: &str,
) -> Result<T, ImageError> {
    read.map_err(|Malformed| ImageError::Malformed { name: name.into(), what, object: object.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_wire::ErrorCode;
    use cairn_wire::op::OpResult;

    fn answered(bytes: &[u8]) -> OpAnswer {
        let output = OpOutput::Bytes(Bytes::copy_from_slice(bytes));
        OpAnswer { results: vec![OpResult { code: ErrorCode::OK, output }], ..OpAnswer::default() }
    }

    #[test]
    fn notices_are_as_other_clients_send_them() {
        assert_eq!(Notice::HeaderUpdate.encode(9)[..], [7, 1, 4, 0, 0, 0, 3, 0, 0, 0]);
        let request = Notice::RequestLock.encode(0x0102);
        assert_eq!(request[..10], [7, 1, 21, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(request[10..], [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for notice in [Notice::AcquiredLock, Notice::ReleasedLock, Notice::RequestLock, Notice::HeaderUpdate]
        {
            assert_eq!(Notice::decode(&notice.encode(7)), notice);
        }
        assert_eq!(Notice::decode(b"garbage"), Notice::Other);
        assert_eq!(decode_response(&encode_response(-30)), Some(-30));
        assert_eq!(decode_response(b""), None);
    }

    #[test]
    fn a_lock_without_holder_is_free() {
        // The encoding of a lock that was held once: no lockers, type 1, tag "internal".
        let mut out = Writer::default();
        out.section(1, 1, |out| {
            out.u32(0).u8(1).string("internal");
        });
        assert_eq!(read_lock_info(&answered(&out.finish()), 0), Ok(None));
        assert!(read_lock_info(&answered(b"x"), 0).is_err());
    }
}
