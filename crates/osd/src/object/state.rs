//! What is known of an object without its bytes and its omap, and how that is stored (`docs/format/objects.md`).

use bytes::Bytes;
use cairn_pg::Version;
use cairn_store::Stat;
use cairn_types::{EntityAddr, Epoch, Timestamp};
use cairn_wire::ceph::{Malformed, Reader, Writer};
use cairn_wire::op::Watcher;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Stored attribute: the version of the group's change that made the object what it is.
pub const VERSION_XATTR: &str = "_v";
/// Stored attribute: [`Info`].
pub const INFO_XATTR: &str = "_i";
/// Stored attribute: who watches; absent when nobody does.
pub const WATCHERS_XATTR: &str = "_w";
/// Stands before the names of clients' attributes in the store.
pub const CLIENT_XATTR_PREFIX: char = '.';

/// Most watches of one object.
pub const WATCHERS_MAX: usize = 128;
/// Of the room that the store gives an object's attributes, what is kept for our own: `_i`, `_v` and
/// [`WATCHERS_MAX`] watchers of at most 47 bytes come to less.
pub const OWN_XATTRS_LEN: usize = 8 << 10;
/// Room for names and values of clients' attributes of one object together.
pub const CLIENT_XATTRS_LEN_MAX: usize = cairn_store::limits::XATTRS_BYTES_MAX - OWN_XATTRS_LEN;

const INFO_VERSION: u8 = 1;
const WATCHERS_VERSION: u8 = 1;

/// Why a stored object is not one that clients can use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadObject {
    /// An attribute of ours is not there.
    #[error("attribute {name} of the object is missing: it was not written by this program")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// An attribute of ours does not decode.
    #[error("attribute {name} of the object is damaged, or of a version that is not known here")]
    Malformed {
        /// Its name.
        name: &'static str,
    },
    /// An attribute has a name that nothing here gives.
    #[error("attribute {name:?} of the object has a name that is not known here")]
    Unknown {
        /// Its name.
        name: String,
    },
}

/// What clients see of an object beside its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Version for users: grows with every change that is not one of its watches.
    pub user_version: u64,
    /// The last writer's clock.
    pub mtime: Timestamp,
    /// Bytes the object will have, as advised; 0: not known.
    pub expected_object_len: u64,
    /// Bytes of its usual write, as advised; 0: not known.
    pub expected_write_len: u64,
}

impl Info {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(33);
        out.u8(INFO_VERSION).u64(self.user_version).u64(self.mtime.0);
        out.u64(self.expected_object_len).u64(self.expected_write_len);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Info, Malformed> {
        let mut from = Reader::new(bytes);
        if from.u8()? != INFO_VERSION {
            return Err(Malformed);
        }
        let info = Info {
            user_version: from.u64()?,
            mtime: Timestamp(from.u64()?),
            expected_object_len: from.u64()?,
            expected_write_len: from.u64()?,
        };
        from.end()?;
        Ok(info)
    }
}

/// A version as `_v` holds it.
pub fn encode_version(version: Version) -> Bytes {
    let mut out = Writer::with_capacity(12);
    out.u32(version.epoch.0).u64(version.version);
    out.finish()
}

/// The version in `_v`.
///
/// # Errors
/// [`BadObject::Malformed`].
pub fn decode_version(bytes: &[u8]) -> Result<Version, BadObject> {
    let mut from = Reader::new(bytes);
    let mut version = || {
        let version = Version { epoch: Epoch(from.u32()?), version: from.u64()? };
        from.end().map(|()| version)
    };
    version().map_err(|_| BadObject::Malformed { name: VERSION_XATTR })
}

pub(crate) fn encode_watchers(watchers: &[Watcher]) -> Bytes {
    let mut out = Writer::with_capacity(5 + 48 * watchers.len());
    out.u8(WATCHERS_VERSION).u32(watchers.len() as u32);
    for Watcher { client, cookie, addr, timeout_ms } in watchers {
        out.u64(*client).u64(*cookie).u32(*timeout_ms).u64(addr.nonce).u16(addr.socket.port());
        match addr.socket.ip() {
            IpAddr::V4(ip) => out.u8(4).put(&ip.octets()),
            IpAddr::V6(ip) => out.u8(6).put(&ip.octets()),
        };
    }
    out.finish()
}

fn decode_watchers(bytes: &[u8]) -> Result<Vec<Watcher>, Malformed> {
    let mut from = Reader::new(bytes);
    if from.u8()? != WATCHERS_VERSION {
        return Err(Malformed);
    }
    let count = from.count(35)?;
    let mut watchers = Vec::with_capacity(count);
    for _ in 0..count {
        let (client, cookie, timeout_ms) = (from.u64()?, from.u64()?, from.u32()?);
        let (nonce, port) = (from.u64()?, from.u16()?);
        let ip = match from.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(*from.take(4)?.first_chunk().ok_or(Malformed)?)),
            6 => IpAddr::V6(Ipv6Addr::from(*from.take(16)?.first_chunk().ok_or(Malformed)?)),
            _ => return Err(Malformed),
        };
        let addr = EntityAddr { socket: SocketAddr::new(ip, port), nonce };
        watchers.push(Watcher { client, cookie, addr, timeout_ms });
    }
    from.end()?;
    Ok(watchers)
}

/// What is known of an object, there or not, without its bytes and its omap. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectState {
    pub(crate) exists: bool,
    pub(crate) size: u64,
    pub(crate) version: Version,
    pub(crate) info: Info,
    pub(crate) watchers: Option<Arc<Vec<Watcher>>>,
    /// By the names clients use.
    pub(crate) xattrs: Option<Arc<BTreeMap<String, Bytes>>>,
    /// Bytes of names and values in `xattrs`, as the store counts them.
    pub(crate) xattrs_len: usize,
    pub(crate) omap_header: Bytes,
}

impl ObjectState {
    /// An object that is not there.
    pub fn absent() -> ObjectState {
        ObjectState::default()
    }

    /// What the store says of an object; `None`: it is not there.
    ///
    /// # Errors
    /// What is stored was not made by [`super::apply`] or [`super::unpack`].
    pub fn from_stored(stat: Option<Stat>) -> Result<ObjectState, BadObject> {
        let Some(stat) = stat else { return Ok(ObjectState::absent()) };
        let mut state = ObjectState { exists: true, size: stat.size, ..ObjectState::default() };
        state.omap_header = stat.omap_header;
        let mut xattrs = BTreeMap::new();
        let (mut has_version, mut has_info) = (false, false);
        for (name, value) in stat.xattrs {
            if let Some(client) = name.strip_prefix(CLIENT_XATTR_PREFIX) {
                state.xattrs_len += name.len() + value.len();
                xattrs.insert(client.to_owned(), value);
                continue;
            }
            match name.as_str() {
                VERSION_XATTR => {
                    state.version = decode_version(&value)?;
                    has_version = true;
                }
                INFO_XATTR => {
                    state.info =
                        Info::decode(&value).map_err(|_| BadObject::Malformed { name: INFO_XATTR })?;
                    has_info = true;
                }
                WATCHERS_XATTR => {
                    let watchers =
                        decode_watchers(&value).map_err(|_| BadObject::Malformed { name: WATCHERS_XATTR })?;
                    state.watchers = (!watchers.is_empty()).then(|| Arc::new(watchers));
                }
                _ => return Err(BadObject::Unknown { name }),
            }
        }
        state.xattrs = (!xattrs.is_empty()).then(|| Arc::new(xattrs));
        for (is_there, name) in [(has_version, VERSION_XATTR), (has_info, INFO_XATTR)] {
            if !is_there {
                return Err(BadObject::Missing { name });
            }
        }
        Ok(state)
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The version recorded when this was read of the store; lags behind after changes that were only executed.
    /// [`Version::ZERO`]: it was not there.
    pub fn stored_version(&self) -> Version {
        self.version
    }

    /// Version, time and advice.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Who watches.
    pub fn watchers(&self) -> &[Watcher] {
        self.watchers.as_deref().map_or(&[], Vec::as_slice)
    }

    /// About how much memory it takes, for bounding caches.
    pub fn memory_bytes(&self) -> usize {
        size_of::<ObjectState>() + self.xattrs_len + self.omap_header.len() + 64 * self.watchers().len()
    }

    pub(crate) fn xattr(&self, name: &str) -> Option<&Bytes> {
        self.xattrs.as_deref()?.get(name)
    }

    pub(crate) fn set_xattr(&mut self, name: &str, value: Bytes) {
        let added = 1 + name.len() + value.len();
        let before = Arc::make_mut(self.xattrs.get_or_insert_default()).insert(name.to_owned(), value);
        self.xattrs_len += added;
        self.xattrs_len -= before.map_or(0, |before| 1 + name.len() + before.len());
    }

    pub(crate) fn remove_xattr(&mut self, name: &str) {
        if let Some(xattrs) = &mut self.xattrs
            && let Some(before) = Arc::make_mut(xattrs).remove(name)
        {
            self.xattrs_len -= 1 + name.len() + before.len();
            if xattrs.is_empty() {
                self.xattrs = None;
            }
        }
    }
}
