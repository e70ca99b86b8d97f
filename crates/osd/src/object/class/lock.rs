//! Class `lock`: advisory locks on an object, each an attribute `lock.NAME` of it.

use super::{Answer, Call, Method, answer, nothing, reads, stored, writes};
use crate::object::work::{Stop, fail};
use bytes::Bytes;
use cairn_types::{EntityAddr, EntityKind, Timestamp};
use cairn_wire::ErrorCode;
use cairn_wire::ceph::{Malformed, Reader, Writer};
use cairn_wire::op::XATTR_NAME_LEN_MAX;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub const METHODS: &[Method] = &[
    writes("lock", lock),
    writes("unlock", unlock),
    writes("break_lock", break_lock),
    writes("set_cookie", set_cookie),
    reads("get_info", get_info),
    reads("list_locks", list_locks),
    reads("assert_locked", assert_locked),
];

const PREFIX: &str = "lock.";
const EXCLUSIVE: u8 = 1;
const SHARED: u8 = 2;
/// The caller may hold it already: begin it anew.
const FLAG_MAY_RENEW: u8 = 1;
/// The caller must hold it already.
const FLAG_MUST_RENEW: u8 = 2;

/// Who holds a lock: kind and number of the holder, and its cookie. The order is that of the encoding.
type LockerId = (u8, i64, String);

#[derive(Clone, Debug)]
struct Locker {
    /// 0: never.
    expiration: Timestamp,
    /// As encoded.
    addr: Vec<u8>,
    description: String,
}

#[derive(Clone, Debug, Default)]
struct Lock {
    lockers: BTreeMap<LockerId, Locker>,
    kind: u8,
    tag: String,
}

impl Lock {
    fn encode(&self, out: &mut Writer) {
        out.section(1, 1, |out| {
            out.u32(self.lockers.len() as u32);
            for ((kind, number, cookie), locker) in &self.lockers {
                out.section(1, 1, |out| {
                    out.u8(*kind).i64(*number).string(cookie);
                });
                out.section(1, 1, |out| {
                    out.time(locker.expiration).put(&locker.addr).string(&locker.description);
                });
            }
            out.u8(self.kind).string(&self.tag);
        });
    }

    fn decode(from: &mut Reader<'_>) -> Result<Lock, Malformed> {
        let (_, mut from) = from.section(1)?;
        let mut lock = Lock::default();
        for _ in 0..from.count(12)? {
            let (_, mut id) = from.section(1)?;
            let id = (id.u8()?, id.i64()?, id.string()?.to_owned());
            let (_, mut info) = from.section(1)?;
            let expiration = info.time()?;
            let addr = take_addr(&mut info)?.to_vec();
            let description = info.string()?.to_owned();
            lock.lockers.insert(id, Locker { expiration, addr, description });
        }
        lock.kind = from.u8()?;
        lock.tag = from.string()?.to_owned();
        Ok(lock)
    }
}

/// An address as Ceph's `entity_addr_t` with the feature of several addresses: marker 1, then a section of type,
/// nonce and socket address. What of our nonce does not fit its 32 bits stands where the socket address has none of
/// its own: the padding of IPv4, the scope of IPv6.
fn encode_addr(addr: &EntityAddr) -> Vec<u8> {
    const TYPE_LEGACY: u32 = 1;
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let (nonce_low, nonce_high) = (addr.nonce as u32, (addr.nonce >> 32) as u32);
    let mut out = Writer::with_capacity(48);
    out.u8(1).section(1, 1, |out| {
        out.u32(TYPE_LEGACY).u32(nonce_low);
        let port = addr.socket.port().to_be_bytes();
        match addr.socket.ip() {
            IpAddr::V4(ip) => out.u32(16).u16(INET).put(&port).put(&ip.octets()).u32(nonce_high).u32(0),
            IpAddr::V6(ip) => out.u32(28).u16(INET6).put(&port).u32(0).put(&ip.octets()).u32(nonce_high),
        };
    });
    out.finish().to_vec()
}

/// The bytes of an encoded address.
fn take_addr<'a>(from: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let all = from.rest();
    if from.u8()? != 1 {
        return Err(Malformed);
    }
    from.section(1)?;
    Ok(&all[..all.len() - from.rest().len()])
}

/// Kinds of entities as Ceph numbers them.
fn kind_number(kind: EntityKind) -> u8 {
    match kind {
        EntityKind::Mon => 1,
        EntityKind::Osd => 4,
        EntityKind::Client => 8,
        EntityKind::Mgr => 16,
    }
}

impl Call<'_, '_> {
    fn locker(&self, cookie: &str) -> LockerId {
        (kind_number(self.sender.entity.kind()), self.sender.client as i64, cookie.to_owned())
    }

    /// A lock without those whose time is over; none: nobody ever held it. ENOENT if the object is not there.
    fn read_lock(&mut self, name: &str) -> Result<Lock, Stop> {
        self.work.need()?;
        let Some(value) = self.work.state.xattr(&format!("{PREFIX}{name}")) else {
            return Ok(Lock::default());
        };
        let mut lock = stored(value, Lock::decode)?;
        let now = self.now;
        lock.lockers.retain(|_, locker| locker.expiration == Timestamp(0) || locker.expiration >= now);
        Ok(lock)
    }

    fn write_lock(&mut self, name: &str, lock: &Lock) -> Answer {
        let name = format!("{PREFIX}{name}");
        if name.len() > XATTR_NAME_LEN_MAX {
            return fail(ErrorCode::INVAL);
        }
        let mut value = Writer::default();
        lock.encode(&mut value);
        self.work.set_xattr(&name, value.finish())?;
        nothing()
    }

    /// A lock that the caller holds with this type, tag and cookie; else EBUSY.
    fn held(&mut self, name: &str, kind: u8, cookie: &str, tag: &str) -> Result<Lock, Stop> {
        if !matches!(kind, EXCLUSIVE | SHARED) || name.is_empty() {
            return fail(ErrorCode::INVAL);
        }
        let lock = self.read_lock(name)?;
        let is_held = lock.kind == kind && lock.tag == tag && lock.lockers.contains_key(&self.locker(cookie));
        if is_held { Ok(lock) } else { fail(ErrorCode::BUSY) }
    }

    fn drop_locker(&mut self, name: &str, id: &LockerId) -> Answer {
        let mut lock = self.read_lock(name)?;
        if lock.lockers.remove(id).is_none() {
            return fail(ErrorCode::NOENT);
        }
        self.write_lock(name, &lock)
    }
}

fn lock(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let (name, kind) = (from.string()?, from.u8()?);
    let (cookie, tag, description) = (from.string()?, from.string()?, from.string()?);
    let (duration, flags) = (from.time()?, from.u8()?);
    let (may_renew, must_renew) = (flags & FLAG_MAY_RENEW != 0, flags & FLAG_MUST_RENEW != 0);
    if !matches!(kind, EXCLUSIVE | SHARED) || name.is_empty() || (may_renew && must_renew) {
        return fail(ErrorCode::INVAL);
    }
    let mut lock = match call.read_lock(name) {
        Err(Stop::Fail(ErrorCode::NOENT)) => Lock::default(),
        read => read?,
    };
    if !lock.lockers.is_empty() && tag != lock.tag {
        return fail(ErrorCode::BUSY);
    }
    let id = call.locker(cookie);
    match lock.lockers.remove(&id) {
        Some(_) if !may_renew && !must_renew => return fail(ErrorCode::EXIST),
        None if must_renew => return fail(ErrorCode::NOENT),
        _ => {}
    }
    if !lock.lockers.is_empty() && (kind == EXCLUSIVE || lock.kind != kind) {
        return fail(ErrorCode::BUSY);
    }
    let expiration = match duration {
        Timestamp(0) => Timestamp(0),
        Timestamp(ms) => call.now.plus_ms(ms),
    };
    let (addr, description) = (encode_addr(&call.sender.addr), description.to_owned());
    lock.lockers.insert(id, Locker { expiration, addr, description });
    (lock.kind, lock.tag) = (kind, tag.to_owned());
    call.write_lock(name, &lock)
}

fn unlock(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let (name, cookie) = (from.string()?, from.string()?);
    let id = call.locker(cookie);
    call.drop_locker(name, &id)
}

fn break_lock(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let name = from.string()?;
    let (kind, number, cookie) = (from.u8()?, from.i64()?, from.string()?);
    call.drop_locker(name, &(kind, number, cookie.to_owned()))
}

fn set_cookie(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let (name, kind, cookie) = (from.string()?, from.u8()?, from.string()?);
    let (tag, new_cookie) = (from.string()?, from.string()?);
    let mut lock = call.held(name, kind, cookie, tag)?;
    if lock.lockers.contains_key(&call.locker(new_cookie)) {
        return fail(ErrorCode::BUSY);
    }
    if let Some(locker) = lock.lockers.remove(&call.locker(cookie)) {
        lock.lockers.insert(call.locker(new_cookie), locker);
    }
    call.write_lock(name, &lock)
}

fn get_info(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let lock = call.read_lock(from.string()?)?;
    answer(|out| lock.encode(out))
}

fn list_locks(call: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    call.work.need()?;
    let names = call.work.state.xattrs.iter().flat_map(|xattrs| xattrs.keys());
    let names: Vec<&str> = names.filter_map(|name| name.strip_prefix(PREFIX)).collect();
    answer(|out| {
        out.section(1, 1, |out| {
            out.u32(names.len() as u32);
            names.iter().for_each(|name| {
                out.string(name);
            });
        });
    })
}

fn assert_locked(call: &mut Call<'_, '_>, input: &Bytes) -> Answer {
    let (_, mut from) = Reader::new(input).section(1)?;
    let (name, kind) = (from.string()?, from.u8()?);
    let (cookie, tag) = (from.string()?, from.string()?);
    call.held(name, kind, cookie, tag).and_then(|_| nothing())
}
