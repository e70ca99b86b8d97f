//! The first bytes of every lane: who is there, and what both speak.
//!
//! These layouts negotiate the version and so are frozen; they are written by hand, field by field.
//! New fields go behind the known ones, where receivers of today skip them.

use crate::lane::{Lane, LaneSet};
use bytes::{Buf, BufMut, BytesMut};
use cairn_types::{EntityName, Fsid};

/// Oldest protocol version this code speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol version this code speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// Feature bits this code has. None is defined yet.
pub const FEATURES: u64 = 0;

/// Longest body of a handshake message.
pub const HANDSHAKE_BODY_LEN_MAX: usize = 1024;
/// Longest text of a refusal, in bytes.
pub const REFUSAL_TEXT_LEN_MAX: usize = 512;

const MAGIC: [u8; 8] = *b"cairnnet";
const PRELUDE_LEN: usize = 12;
const SUM_LEN: usize = 4;
const NAME_LEN_MAX: usize = 80;
const HELLO_LEN_MIN: usize = 69;
const WELCOME_LEN_MIN: usize = 37;
const REFUSAL_LEN_MIN: usize = 12;

/// What one side of a connection speaks and is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Oldest protocol version.
    pub version_min: u32,
    /// Newest protocol version.
    pub version_max: u32,
    /// Feature bits it has.
    pub features: u64,
    /// Feature bits the other side must have.
    pub required: u64,
    /// Its cluster.
    pub fsid: Fsid,
    /// Its name.
    pub name: EntityName,
    /// Grows with every start of the process, so that a peer can tell a restart.
    pub incarnation: u64,
}

/// First message of the side that connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What the connecting side speaks and is.
    pub offer: Offer,
    /// The same in every lane of one connection, drawn anew for each.
    pub connection: [u8; 16],
    /// Which lane this stream is.
    pub lane: Lane,
    /// The lanes the connection will have.
    pub lanes: LaneSet,
}

/// The accepting side agrees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Protocol version of everything that follows.
    pub version: u32,
    /// Feature bits both sides have.
    pub features: u64,
    /// Cluster of the accepting side.
    pub fsid: Fsid,
    /// Name of the accepting side.
    pub name: EntityName,
    /// Incarnation of the accepting side.
    pub incarnation: u64,
}

/// The accepting side does not agree, and closes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// Oldest version the refusing side speaks.
    pub version_min: u32,
    /// Newest version the refusing side speaks.
    pub version_max: u32,
    /// One sentence for people, at most [`REFUSAL_TEXT_LEN_MAX`] bytes.
    pub text: String,
}

/// Why a hello was refused. Numbers unknown to this version are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusalCode(pub u16);

impl RefusalCode {
    /// No version that both speak.
    pub const VERSION: RefusalCode = RefusalCode(1);
    /// A required feature is missing.
    pub const FEATURES: RefusalCode = RefusalCode(2);
    /// Another cluster.
    pub const CLUSTER: RefusalCode = RefusalCode(3);
    /// The name is not that of the certificate.
    pub const IDENTITY: RefusalCode = RefusalCode(4);
    /// The lanes do not make a connection.
    pub const LANES: RefusalCode = RefusalCode(5);
    /// Too many connections are being made.
    pub const BUSY: RefusalCode = RefusalCode(6);
    /// The accepting side is closing.
    pub const CLOSING: RefusalCode = RefusalCode(7);
}

/// Any message of the handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// From the connecting side.
    Hello(Hello),
    /// Agreement.
    Welcome(Welcome),
    /// Refusal.
    Refusal(Refusal),
}

/// Why bytes are not a handshake message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side is not a cairn process.
    #[error("the other side does not speak cairn's protocol (it began with {found:02x?})")]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// Longer than [`HANDSHAKE_BODY_LEN_MAX`].
    #[error("a handshake message of {len} bytes; {HANDSHAKE_BODY_LEN_MAX} are allowed")]
    TooLong {
        /// Claimed.
        len: usize,
    },
    /// The bytes are damaged.
    #[error("a handshake message is damaged: checksum {found:08x} instead of {expected:08x}")]
    Sum {
        /// In the message.
        expected: u32,
        /// Of its bytes.
        found: u32,
    },
    /// A field has a value that none of this kind may have.
    #[error("a handshake message has a bad {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
}

impl Handshake {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&MAGIC);
        out.put_u8(match self {
            Handshake::Hello(_) => 1,
            Handshake::Welcome(_) => 2,
            Handshake::Refusal(_) => 3,
        });
        out.put_u8(0);
        out.put_u16_le(0);
        match self {
            Handshake::Hello(hello) => hello.put(out),
            Handshake::Welcome(welcome) => welcome.put(out),
            Handshake::Refusal(refusal) => refusal.put(out),
        }
        let body_len = (out.len() - start - PRELUDE_LEN) as u16; // every part is bounded far below 64 KiB
        out[start + 10..start + PRELUDE_LEN].copy_from_slice(&body_len.to_le_bytes());
        let sum = crc32fast::hash(&out[start..]);
        out.put_u32_le(sum);
    }

    /// Takes one message off the front of `buf`, or says that more bytes are needed (`None`).
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Handshake>, HandshakeError> {
        // A stranger is told from the first bytes, without waiting for more of them.
        let known = buf.len().min(MAGIC.len());
        if buf[..known] != MAGIC[..known] {
            let mut found = [0; 8];
            found[..known].copy_from_slice(&buf[..known]);
            return Err(HandshakeError::Magic { found });
        }
        let Some(prelude) = buf.first_chunk::<PRELUDE_LEN>() else {
            return Ok(None);
        };
        let (kind, zero) = (prelude[8], prelude[9]);
        let body_len = usize::from(u16::from_le_bytes([prelude[10], prelude[11]]));
        if body_len > HANDSHAKE_BODY_LEN_MAX {
            return Err(HandshakeError::TooLong { len: body_len });
        }
        let summed_len = PRELUDE_LEN + body_len;
        if buf.len() < summed_len + SUM_LEN {
            return Ok(None);
        }
        let bytes = buf.split_to(summed_len + SUM_LEN);
        let found = crc32fast::hash(&bytes[..summed_len]);
        let expected = (&bytes[summed_len..]).get_u32_le();
        if found != expected {
            return Err(HandshakeError::Sum { expected, found });
        }
        if zero != 0 {
            return Err(HandshakeError::Field { field: "reserved byte" });
        }
        let body = &bytes[PRELUDE_LEN..summed_len];
        let message = match kind {
            1 => Handshake::Hello(Hello::take(body)?),
            2 => Handshake::Welcome(Welcome::take(body)?),
            3 => Handshake::Refusal(Refusal::take(body)?),
            _ => return Err(HandshakeError::Field { field: "kind" }),
        };
        Ok(Some(message))
    }
}

fn long_enough(body: &[u8], min: usize) -> Result<(), HandshakeError> {
    if body.len() < min { Err(HandshakeError::Field { field: "length" }) } else { Ok(()) }
}

fn put_name(name: &EntityName, out: &mut BytesMut) {
    let text = name.to_string();
    out.put_u8(text.len() as u8); // at most NAME_LEN_MAX by EntityName's own bound
    out.put_slice(text.as_bytes());
}

/// The caller has checked that the length byte is there.
fn take_name(body: &mut &[u8]) -> Result<EntityName, HandshakeError> {
    let bad = HandshakeError::Field { field: "name" };
    let len = usize::from(body.get_u8());
    if len == 0 || len > NAME_LEN_MAX || body.len() < len {
        return Err(bad);
    }
    let (name, rest) = body.split_at(len);
    *body = rest;
    std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()).ok_or(bad)
}

fn take_array<const N: usize>(body: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    body.copy_to_slice(&mut bytes);
    bytes
}

impl Hello {
    fn put(&self, out: &mut BytesMut) {
        let offer = &self.offer;
        out.put_u32_le(offer.version_min);
        out.put_u32_le(offer.version_max);
        out.put_u64_le(offer.features);
        out.put_u64_le(offer.required);
        out.put_slice(&offer.fsid.0);
        out.put_slice(&self.connection);
        out.put_u8(self.lane.number());
        out.put_u8(self.lanes.bits());
        out.put_u16_le(0);
        out.put_u64_le(offer.incarnation);
        put_name(&offer.name, out);
    }

    fn take(mut body: &[u8]) -> Result<Self, HandshakeError> {
        long_enough(body, HELLO_LEN_MIN)?;
        let (version_min, version_max) = (body.get_u32_le(), body.get_u32_le());
        let (features, required) = (body.get_u64_le(), body.get_u64_le());
        let fsid = Fsid(take_array(&mut body));
        let connection = take_array(&mut body);
        let lane = Lane::from_number(body.get_u8()).ok_or(HandshakeError::Field { field: "lane" })?;
        let lanes = LaneSet::from_bits(body.get_u8())
            .filter(|lanes| lanes.contains(lane))
            .ok_or(HandshakeError::Field { field: "lane set" })?;
        body.advance(2);
        let incarnation = body.get_u64_le();
        let name = take_name(&mut body)?;
        if version_min > version_max {
            return Err(HandshakeError::Field { field: "version range" });
        }
        let offer = Offer { version_min, version_max, features, required, fsid, name, incarnation };
        Ok(Hello { offer, connection, lane, lanes })
    }
}

impl Welcome {
    fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.version);
        out.put_u64_le(self.features);
        out.put_slice(&self.fsid.0);
        out.put_u64_le(self.incarnation);
        put_name(&self.name, out);
    }

    fn take(mut body: &[u8]) -> Result<Self, HandshakeError> {
        long_enough(body, WELCOME_LEN_MIN)?;
        let (version, features) = (body.get_u32_le(), body.get_u64_le());
        let fsid = Fsid(take_array(&mut body));
        let incarnation = body.get_u64_le();
        let name = take_name(&mut body)?;
        Ok(Welcome { version, features, fsid, name, incarnation })
    }
}

impl Refusal {
    fn put(&self, out: &mut BytesMut) {
        let mut len = self.text.len().min(REFUSAL_TEXT_LEN_MAX);
        while !self.text.is_char_boundary(len) {
            len -= 1;
        }
        out.put_u16_le(self.code.0);
        out.put_u16_le(len as u16);
        out.put_u32_le(self.version_min);
        out.put_u32_le(self.version_max);
        out.put_slice(&self.text.as_bytes()[..len]);
    }

    fn take(mut body: &[u8]) -> Result<Self, HandshakeError> {
        long_enough(body, REFUSAL_LEN_MIN)?;
        let code = RefusalCode(body.get_u16_le());
        let text_len = usize::from(body.get_u16_le());
        let (version_min, version_max) = (body.get_u32_le(), body.get_u32_le());
        let bad = HandshakeError::Field { field: "text" };
        if text_len > REFUSAL_TEXT_LEN_MAX || text_len > body.len() {
            return Err(bad);
        }
        let text = std::str::from_utf8(&body[..text_len]).map_err(|_| bad)?.to_owned();
        Ok(Refusal { code, version_min, version_max, text })
    }
}

impl Offer {
    /// What this code speaks, in the name of `name`.
    pub fn ours(fsid: Fsid, name: EntityName, incarnation: u64) -> Self {
        Offer {
            version_min: PROTOCOL_MIN,
            version_max: PROTOCOL_MAX,
            features: FEATURES,
            required: 0,
            fsid,
            name,
            incarnation,
        }
    }

    /// The accepting side's answer to `theirs`: the newest version and the features both have, or why
    /// there is no understanding.
    pub fn answer(&self, theirs: &Offer) -> Result<Welcome, Refusal> {
        let refuse = |code, text| {
            Err(Refusal { code, version_min: self.version_min, version_max: self.version_max, text })
        };
        if theirs.fsid != self.fsid {
            let text =
                format!("{} is of cluster {}, you are of cluster {}", self.name, self.fsid, theirs.fsid);
            return refuse(RefusalCode::CLUSTER, text);
        }
        let version = self.version_max.min(theirs.version_max);
        if version < self.version_min.max(theirs.version_min) {
            let text = format!(
                "{} speaks protocol versions {} to {}, {} speaks {} to {}: upgrade the older one",
                self.name,
                self.version_min,
                self.version_max,
                theirs.name,
                theirs.version_min,
                theirs.version_max
            );
            return refuse(RefusalCode::VERSION, text);
        }
        for (who, lacking) in
            [(&theirs.name, self.required & !theirs.features), (&self.name, theirs.required & !self.features)]
        {
            if lacking != 0 {
                let text = format!("{who} lacks the required features {lacking:#x}: upgrade it");
                return refuse(RefusalCode::FEATURES, text);
            }
        }
        Ok(Welcome {
            version,
            features: self.features & theirs.features,
            fsid: self.fsid,
            name: self.name.clone(),
            incarnation: self.incarnation,
        })
    }
}
