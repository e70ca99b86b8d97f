//! The name of an object.

use crate::{PoolId, SnapId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Everything that tells one stored object from another within a pool, with the hash that places it.
///
/// `hash` is rjenkins over the locator key if there is one, else the name, with the namespace in
/// front (see `cairn-crush`); it is carried because objects are listed and backfilled in hash order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ObjectId {
    /// The pool the object was written to.
    pub pool: PoolId,
    /// Placement hash of the name, all 32 bits.
    pub hash: u32,
    /// Namespace within the pool; empty for the default one.
    pub namespace: String,
    /// Locator key; empty when the name places the object.
    pub key: String,
    /// The object's name.
    pub name: String,
    /// Which version: [`SnapId::HEAD`] or a clone kept for a snapshot.
    pub snap: SnapId,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:08x}:", self.pool, self.hash)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}@", self.key)?;
        }
        f.write_str(&self.name)?;
        if self.snap != SnapId::HEAD {
            write!(f, "@{}", self.snap.0)?;
        }
        Ok(())
    }
}
