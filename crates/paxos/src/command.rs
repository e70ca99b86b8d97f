//! What a slot can hold.

use std::fmt;
use std::sync::Arc;

use cairn_types::MonId;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ballot::Slot;
use crate::hash::Fnv;

/// Bytes that the log carries for the application and never looks into. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(pub Arc<[u8]>);

impl Payload {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Payload(bytes.into())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload(bytes.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B#{:08x}", self.len(), Fnv::new().bytes(&self.0).finish() as u32)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(bytes.into())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(bytes.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Payload, A::Error> {
        // No reservation by the announced length: it comes from outside.
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// Names a proposal for ever, at every monitor: the caller's session (unique in the life of the
/// cluster) and its number in it. A proposal sent again under its id is applied once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProposalId {
    /// Whose.
    pub session: u64,
    /// Which of theirs.
    pub seq: u64,
}

/// What is proposed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A command of the application.
    App(Payload),
    /// A change of the membership.
    Change(Change),
}

impl Request {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::App(payload) => payload.len(),
            Request::Change(_) => 0,
        }
    }
}

/// One step of membership. One monitor at a time: majorities before and after then always share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Change {
    /// A monitor joins. Its number must be above every number ever used in this log.
    Add(MonId),
    /// A monitor leaves, for ever.
    Remove(MonId),
}

/// A request with its name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Its name.
    pub id: ProposalId,
    /// A slot that was decided when it was first proposed. More than [`crate::Params::window`] slots after it
    /// the proposal is void, so that the ids to remember are bounded.
    pub born: Slot,
    /// What.
    pub request: Request,
}

/// The value of a slot.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Nothing: fills a gap, or carries the log past a membership change.
    Noop,
    /// A proposal.
    Proposal(Proposal),
}

impl Command {
    pub(crate) fn id(&self) -> Option<ProposalId> {
        match self {
            Command::Noop => None,
            Command::Proposal(proposal) => Some(proposal.id),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Command::Noop => 0,
            Command::Proposal(proposal) => proposal.request.bytes(),
        }
    }

    /// Folds the command into the hash of a history.
    pub(crate) fn fold(&self, hash: Fnv) -> Fnv {
        let Command::Proposal(proposal) = self else { return hash.number(0) };
        let hash = hash.number(1).number(proposal.id.session).number(proposal.id.seq).number(proposal.born.0);
        match &proposal.request {
            Request::App(payload) => hash.number(0).number(payload.len() as u64).bytes(&payload.0),
            Request::Change(Change::Add(id)) => hash.number(1).number(u64::from(id.0)),
            Request::Change(Change::Remove(id)) => hash.number(2).number(u64::from(id.0)),
        }
    }
}
