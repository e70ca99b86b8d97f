//! Who takes part in a cluster, and which cluster.

use crate::OsdId;
use crate::text::serde_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The cluster's own id: 128 bits drawn once at creation, printed as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fsid(pub [u8; 16]);

/// What a daemon or client is. The order is that of [`EntityKind::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// Monitor.
    Mon,
    /// Object storage daemon.
    Osd,
    /// Manager.
    Mgr,
    /// Whoever uses the cluster: CLI, gateway, hypervisor.
    Client,
}

/// Kind and id of one daemon or client, printed `kind.id`: `mon.a`, `osd.0`, `client.admin`.
///
/// The id is 1 to [`EntityName::ID_LEN_MAX`] characters out of `a-z A-Z 0-9 - _ .`, not starting with
/// a dot; an OSD's is its number in decimal. So a name can stand in a file name, a URI and a
/// certificate without escapes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityName {
    kind: EntityKind,
    id: String,
}

impl EntityKind {
    /// Every kind.
    pub const ALL: [EntityKind; 4] = [EntityKind::Mon, EntityKind::Osd, EntityKind::Mgr, EntityKind::Client];

    /// The word in front of the dot.
    pub fn as_str(self) -> &'static str {
        match self {
            EntityKind::Mon => "mon",
            EntityKind::Osd => "osd",
            EntityKind::Mgr => "mgr",
            EntityKind::Client => "client",
        }
    }
}

impl EntityName {
    /// Longest id, in bytes. With the longest kind and the dot a name stays below 72 bytes.
    pub const ID_LEN_MAX: usize = 64;

    /// The name of `kind` with `id`, or why there is none.
    pub fn new(kind: EntityKind, id: &str) -> Result<Self, ParseEntityNameError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > Self::ID_LEN_MAX || id.starts_with('.') || !id.bytes().all(plain) {
            return Err(ParseEntityNameError);
        }
        let name = EntityName { kind, id: id.to_owned() };
        // One spelling per OSD: osd.1, never osd.01 or osd.+1.
        if kind == EntityKind::Osd && name.osd_id().is_none_or(|osd| osd.0.to_string() != id) {
            return Err(ParseEntityNameError);
        }
        Ok(name)
    }

    /// What it is.
    pub fn kind(&self) -> EntityKind {
        self.kind
    }

    /// The part behind the dot.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of an OSD; `None` for every other kind.
    pub fn osd_id(&self) -> Option<OsdId> {
        (self.kind == EntityKind::Osd).then(|| self.id.parse().ok().filter(|n| *n >= 0).map(OsdId))?
    }
}

impl From<OsdId> for EntityName {
    fn from(osd: OsdId) -> Self {
        EntityName { kind: EntityKind::Osd, id: osd.0.to_string() }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.id)
    }
}

impl fmt::Debug for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(EntityName, (EntityKind, String), |name| (name.kind, name.id.clone()), |(kind, id): (
    EntityKind,
    String
)| EntityName::new(
    kind, &id
)
.ok());
serde_as_text!(Fsid, [u8; 16], |fsid| fsid.0, |bytes| Some(Fsid(bytes)));

/// Why a text is not an entity name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseEntityNameError;

impl fmt::Display for ParseEntityNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name is written KIND.ID such as mon.a, osd.0, mgr.a or client.admin")
    }
}

impl std::error::Error for ParseEntityNameError {}

/// Why a text is not a cluster id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseFsidError;

impl fmt::Display for ParseFsidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cluster id is a UUID such as 3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c10")
    }
}

impl std::error::Error for ParseFsidError {}

impl FromStr for EntityName {
    type Err = ParseEntityNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once('.').ok_or(ParseEntityNameError)?;
        let kind = EntityKind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or(ParseEntityNameError)?;
        EntityName::new(kind, id)
    }
}

impl FromStr for Fsid {
    type Err = ParseFsidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(ParseFsidError);
        }
        let mut fsid = [0u8; 16];
        let mut digits = 0;
        for (i, &byte) in bytes.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(ParseFsidError);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(ParseFsidError)?;
            fsid[digits / 2] = fsid[digits / 2] << 4 | digit as u8;
            digits += 1;
        }
        Ok(Fsid(fsid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_as_they_parse() {
        for text in ["mon.a", "osd.0", "osd.2147483647", "mgr.n1", "client.admin", "client.a.b_c-D"] {
            assert_eq!(text.parse::<EntityName>().unwrap().to_string(), text);
        }
        assert_eq!("osd.7".parse::<EntityName>().unwrap().osd_id(), Some(OsdId(7)));
        assert_eq!(EntityName::from(OsdId(7)), "osd.7".parse().unwrap());
        assert_eq!("mon.7".parse::<EntityName>().unwrap().osd_id(), None);
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = format!("client.{}", "x".repeat(65));
        let bad = ["", "mon", "mon.", ".a", "mds.a", "osd.a", "osd.-1", "osd.01", "osd.2147483648", "osd.+1"];
        for text in bad.into_iter().chain(["client./etc", "client.a b", "client.ä", "client...", &long]) {
            assert_eq!(text.parse::<EntityName>(), Err(ParseEntityNameError), "{text:?}");
        }
    }

    #[test]
    fn a_cluster_id_prints_as_it_parses() {
        let text = "3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c10";
        let fsid: Fsid = text.parse().unwrap();
        assert_eq!(fsid.0[..4], [0x3f, 0x2a, 0x6c, 0x1e]);
        assert_eq!(fsid.to_string(), text);
        for bad in
            ["", "3f2a6c1e8b1d4a579c0e5d2f7b8a9c10", "3f2a6c1e-8b1d-4a57-9c0e-5d2f7b8a9c1g", &text[1..]]
        {
            assert_eq!(bad.parse::<Fsid>(), Err(ParseFsidError), "{bad:?}");
        }
    }
}
