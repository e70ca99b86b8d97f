//! Making and changing maps as an operator does.
//!
//! Every operation leaves a valid map or, with an error, the map as it was. Sums of weights, straw lengths, the
//! shadow trees of device classes and the weight sets of choose-args follow each change by themselves.

mod bucket;
mod classes;
mod edit;
mod rules;
mod tunables;

pub use bucket::{WeightOverflow, make_bucket};
pub use classes::populate_classes;
pub use rules::{ReplicaMode, SimpleRule};

use crate::binary::{MAX_BUCKETS, MAX_DEVICE_ID, MAX_TREE_ITEMS};
use crate::{Bucket, CrushMap, MapError, Tunables};
use std::collections::BTreeMap;
use thiserror::Error;

/// The types of a new map, as Ceph gives them.
pub const DEFAULT_TYPES: [&str; 12] =
    ["osd", "host", "chassis", "rack", "row", "pdu", "pod", "room", "datacenter", "zone", "region", "root"];

/// Why a change is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EditError {
    /// The map itself makes no sense.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An item that is not there.
    #[error("the map has no item {0}")]
    UnknownItem(i32),
    /// A name that nothing has.
    #[error("the map has no item named '{0}'")]
    UnknownName(String),
    /// A bucket that is not there.
    #[error("the map has no bucket {0}")]
    UnknownBucket(i32),
    /// A type that is not there.
    #[error("the map has no bucket type '{0}'")]
    UnknownType(String),
    /// A class that no device has.
    #[error("no device below '{root}' can have class '{class}': the map has no such shadow tree")]
    UnknownClass {
        /// Where the rule starts.
        root: String,
        /// The class.
        class: String,
    },
    /// A name that cannot be written in a text map.
    #[error("'{0}' cannot be a name: use letters, digits, '-', '_' and '.'")]
    BadName(String),
    /// A name in use.
    #[error("the name '{name}' belongs to {owner} already")]
    NameTaken {
        /// The name.
        name: String,
        /// Item or rule number.
        owner: i32,
    },
    /// An id in use.
    #[error("the id {0} is taken")]
    IdTaken(i32),
    /// An id beyond what is taken in.
    #[error("the id {0} is out of range: devices are 0 to {MAX_DEVICE_ID}, buckets -1 to -{MAX_BUCKETS}")]
    IdOutOfRange(i32),
    /// Something below itself.
    #[error("{item} cannot be put into {parent}, which is below it")]
    Cycle {
        /// What is put.
        item: i32,
        /// Where.
        parent: i32,
    },
    /// An item in its place already.
    #[error("{item} is in bucket {parent} already")]
    AlreadyThere {
        /// The item.
        item: i32,
        /// The bucket.
        parent: i32,
    },
    /// A bucket of a type that does not belong above the item.
    #[error("bucket {parent} is no place for {item}: its type is not above the item's")]
    WrongLevel {
        /// The item.
        item: i32,
        /// The bucket.
        parent: i32,
    },
    /// A bucket that still holds something.
    #[error("bucket {0} is not empty: remove or move its items first, or remove it with all below it")]
    NotEmpty(i32),
    /// A bucket that a rule starts from.
    #[error("rule {rule} takes {item}: change or remove the rule first")]
    InUse {
        /// The item.
        item: i32,
        /// The rule.
        rule: usize,
    },
    /// A shadow bucket, which follows its original.
    #[error("{0} is a shadow of a device class: change the bucket it stands for")]
    Shadow(i32),
    /// A class for what is no device.
    #[error("{0} is no device and cannot have a device class")]
    NotADevice(i32),
    /// Weights that do not fit.
    #[error("the weights below bucket {0} add up to more than 65535; lower them")]
    WeightOverflow(i32),
    /// Two weights in a uniform bucket.
    #[error("bucket {0} is uniform: all its items have one weight")]
    UnequalWeights(i32),
    /// Too many items for a tree.
    #[error("bucket {0} is a tree, which holds at most {MAX_TREE_ITEMS} items: use straw2")]
    TreeTooLarge(i32),
    /// No number left.
    #[error("there is no free {0} left")]
    NoneLeft(&'static str),
}

impl CrushMap {
    /// A map without buckets and rules, with Ceph's types.
    pub fn new(tunables: Tunables) -> Self {
        let type_names = (0..).zip(DEFAULT_TYPES.map(str::to_owned)).collect();
        CrushMap {
            tunables,
            max_devices: 0,
            buckets: Vec::new(),
            rules: Vec::new(),
            type_names,
            item_names: BTreeMap::new(),
            rule_names: BTreeMap::new(),
            item_classes: BTreeMap::new(),
            class_names: BTreeMap::new(),
            shadow_buckets: BTreeMap::new(),
            choose_args: BTreeMap::new(),
        }
    }

    /// The device or bucket of a name.
    pub fn item_by_name(&self, name: &str) -> Option<i32> {
        self.item_names.iter().find(|(_, known)| *known == name).map(|(&id, _)| id)
    }

    /// The number of a bucket type.
    pub fn type_by_name(&self, name: &str) -> Option<i32> {
        self.type_names.iter().find(|(_, known)| *known == name).map(|(&id, _)| id)
    }

    /// The number of a device class.
    pub fn class_by_name(&self, name: &str) -> Option<i32> {
        self.class_names.iter().find(|(_, known)| *known == name).map(|(&id, _)| id)
    }

    /// The buckets that hold an item, shadows included.
    pub fn parents_of(&self, item: i32) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter().flatten().filter(move |bucket| bucket.items.contains(&item))
    }

    /// All devices at or below an item, in order of their numbers.
    pub fn devices_below(&self, item: i32) -> Vec<i32> {
        let mut devices: Vec<i32> = self.subtree(item).into_iter().filter(|&item| item >= 0).collect();
        devices.sort_unstable();
        devices
    }

    /// Whether a bucket is the shadow of another for one device class.
    pub fn is_shadow(&self, bucket: i32) -> bool {
        bucket < 0 && self.item_classes.contains_key(&bucket)
    }

    /// An item and everything below it, each once, parents first.
    fn subtree(&self, item: i32) -> Vec<i32> {
        let mut found = vec![item];
        let mut seen: std::collections::BTreeSet<i32> = found.iter().copied().collect();
        let mut at = 0;
        while let Some(&item) = found.get(at) {
            at += 1;
            for &child in self.bucket(item).map_or(&[][..], |bucket| &bucket.items) {
                if seen.insert(child) {
                    found.push(child);
                }
            }
        }
        found
    }

    /// Type number of an item; 0 for a device.
    fn kind_of(&self, item: i32) -> i32 {
        self.bucket(item).map_or(0, |bucket| bucket.kind.into())
    }

    /// Puts a bucket at its id's place. The table doubles from 8, as Ceph's does: its length is part of
    /// the binary map.
    pub(crate) fn place_bucket(&mut self, bucket: Bucket) {
        let place = (-1 - bucket.id) as usize;
        while self.buckets.len() <= place {
            let grown = (self.buckets.len() * 2).max(8);
            self.buckets.resize(grown, None);
        }
        self.buckets[place] = Some(bucket);
    }
}

/// Whether a text map can hold the name.
fn check_name(name: &str) -> Result<(), EditError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.chars().all(is_good) {
        true => Ok(()),
        false => Err(EditError::BadName(name.to_owned())),
    }
}
