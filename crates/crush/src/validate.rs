//! Whether a map makes sense: the check every map passes before anything is mapped over it.

use crate::binary::{MAX_BUCKETS, MAX_DEVICE_ID, MAX_RULES, tree_nodes};
use crate::{Algorithm, Bucket, BucketData, ChooseArg, CrushMap, Step};
use thiserror::Error;

/// Why a map is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MapError {
    /// `max_devices` outside of what is taken in.
    #[error("max_devices is {0}; it must be from 0 to {limit}", limit = MAX_DEVICE_ID + 1)]
    MaxDevices(i32),
    /// More places for buckets than are taken in.
    #[error("the map has {0} places for buckets; at most {MAX_BUCKETS} are taken in")]
    TooManyBuckets(usize),
    /// More rules than are taken in.
    #[error("the map has {0} places for rules; at most {MAX_RULES} are taken in")]
    TooManyRules(usize),
    /// A bucket in another's place.
    #[error("bucket {id} stands at place {place}, which belongs to bucket {}", -1 - (*place as i64))]
    BucketPlace {
        /// Its id.
        id: i32,
        /// Where it stands.
        place: usize,
    },
    /// A bucket of the devices' type.
    #[error("bucket {0} has type 0, which is the devices'")]
    DeviceTypeBucket(i32),
    /// A hash that does not exist.
    #[error("bucket {id} hashes with {hash}; the only hash is 0, rjenkins1")]
    UnknownHash {
        /// The bucket.
        id: i32,
        /// The number.
        hash: u8,
    },
    /// A bucket whose data is another algorithm's or of another length.
    #[error("bucket {id} has {items} items, but its {what} do not fit them")]
    BucketShape {
        /// The bucket.
        id: i32,
        /// Its items.
        items: usize,
        /// Which part.
        what: &'static str,
    },
    /// An item that is not there.
    #[error("bucket {bucket} holds {item}, which the map does not have")]
    MissingItem {
        /// The bucket.
        bucket: i32,
        /// What it holds.
        item: i32,
    },
    /// A bucket below itself.
    #[error("bucket {0} is below itself")]
    Cycle(i32),
    /// A rule that starts from what is not there.
    #[error("rule {rule} step {step} takes {item}, which the map does not have")]
    MissingTake {
        /// Rule number.
        rule: usize,
        /// Step, from 0.
        step: usize,
        /// What it takes.
        item: i32,
    },
    /// A replacement for a bucket that is not there.
    #[error("choose_args {set} replaces the weights of bucket {bucket}, which the map does not have")]
    ChooseArgBucket {
        /// Choose-args id.
        set: i64,
        /// The bucket.
        bucket: i32,
    },
    /// A replacement of another length than its bucket.
    #[error("choose_args {set}: the {what} of bucket {bucket} do not fit its {items} items")]
    ChooseArgShape {
        /// Choose-args id.
        set: i64,
        /// The bucket.
        bucket: i32,
        /// Its items.
        items: usize,
        /// Which part.
        what: &'static str,
    },
}

impl CrushMap {
    /// The bucket of an id, if the map has it.
    pub fn bucket(&self, id: i32) -> Option<&Bucket> {
        self.buckets.get(bucket_place(id)?)?.as_ref()
    }

    /// Checks everything mapping relies on: every id in its place, every length, nothing missing, no
    /// cycle. Over a map that passes, every mapping ends.
    pub fn validate(&self) -> Result<(), MapError> {
        if !(0..=MAX_DEVICE_ID + 1).contains(&self.max_devices) {
            return Err(MapError::MaxDevices(self.max_devices));
        }
        if self.buckets.len() > MAX_BUCKETS as usize {
            return Err(MapError::TooManyBuckets(self.buckets.len()));
        }
        if self.rules.len() > MAX_RULES as usize {
            return Err(MapError::TooManyRules(self.rules.len()));
        }
        for (place, bucket) in self.buckets.iter().enumerate() {
            if let Some(bucket) = bucket {
                self.validate_bucket(place, bucket)?;
            }
        }
        self.validate_no_cycle()?;
        for (rule, steps) in self.rules.iter().enumerate() {
            for (step, operation) in steps.iter().flat_map(|rule| rule.steps.iter().enumerate()) {
                match *operation {
                    Step::Take(item) if !self.has_item(item) => {
                        return Err(MapError::MissingTake { rule, step, item });
                    }
                    _ => {}
                }
            }
        }
        for (&set, args) in &self.choose_args {
            for (&bucket, arg) in args {
                self.validate_choose_arg(set, bucket, arg)?;
            }
        }
        Ok(())
    }

    /// Whether a device number is in range or a bucket exists.
    pub(crate) fn has_item(&self, item: i32) -> bool {
        match item {
            0.. => item < self.max_devices,
            _ => self.bucket(item).is_some(),
        }
    }

    fn validate_bucket(&self, place: usize, bucket: &Bucket) -> Result<(), MapError> {
        let id = bucket.id;
        if bucket_place(id) != Some(place) {
            return Err(MapError::BucketPlace { id, place });
        }
        if bucket.kind == 0 {
            return Err(MapError::DeviceTypeBucket(id));
        }
        if bucket.hash != 0 {
            return Err(MapError::UnknownHash { id, hash: bucket.hash });
        }
        let items = bucket.items.len();
        let wrong = |what| Err(MapError::BucketShape { id, items, what });
        match (&bucket.data, bucket.algorithm) {
            (BucketData::Uniform { .. }, Algorithm::Uniform) => {}
            (BucketData::List { item_weights, sum_weights }, Algorithm::List) => {
                if item_weights.len() != items || sum_weights.len() != items {
                    return wrong("weights");
                }
            }
            (BucketData::Tree { node_weights }, Algorithm::Tree) => {
                if node_weights.len() != tree_nodes(items) {
                    return wrong("nodes");
                }
            }
            (BucketData::Straw { item_weights, straws }, Algorithm::Straw) => {
                if item_weights.len() != items || straws.len() != items {
                    return wrong("straws");
                }
            }
            (BucketData::Straw2 { item_weights }, Algorithm::Straw2) => {
                if item_weights.len() != items {
                    return wrong("weights");
                }
            }
            _ => return wrong("data, which are another algorithm's,"),
        }
        match bucket.items.iter().find(|&&item| !self.has_item(item)) {
            Some(&item) => Err(MapError::MissingItem { bucket: id, item }),
            None => Ok(()),
        }
    }

    /// Depth first without recursion: a hostile map may be as deep as it has buckets.
    fn validate_no_cycle(&self) -> Result<(), MapError> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.buckets.len()];
        let mut path: Vec<(&Bucket, usize)> = Vec::new();
        for bucket in self.buckets.iter().flatten() {
            let mut next = Some(bucket);
            loop {
                if let Some(bucket) = next.take() {
                    let mark = &mut marks[(-1 - bucket.id) as usize];
                    match *mark {
                        Mark::New => {
                            *mark = Mark::Open;
                            path.push((bucket, 0));
                        }
                        Mark::Open => return Err(MapError::Cycle(bucket.id)),
                        Mark::Done => {}
                    }
                }
                let Some((bucket, position)) = path.last_mut() else { break };
                match bucket.items.get(*position) {
                    Some(&item) => {
                        *position += 1;
                        next = self.bucket(item);
                    }
                    None => {
                        marks[(-1 - bucket.id) as usize] = Mark::Done;
                        path.pop();
                    }
                }
            }
        }
        Ok(())
    }

    fn validate_choose_arg(&self, set: i64, bucket: i32, arg: &ChooseArg) -> Result<(), MapError> {
        let Some(Bucket { items, .. }) = self.bucket(bucket) else {
            return Err(MapError::ChooseArgBucket { set, bucket });
        };
        let items = items.len();
        let wrong = |what| Err(MapError::ChooseArgShape { set, bucket, items, what });
        if arg.weight_sets.iter().any(|weights| weights.len() != items) {
            return wrong("weights");
        }
        if !arg.ids.is_empty() && arg.ids.len() != items {
            return wrong("ids");
        }
        Ok(())
    }
}

/// Where the bucket of an id stands; nothing for a device.
pub(crate) fn bucket_place(id: i32) -> Option<usize> {
    usize::try_from(-1 - i64::from(id)).ok()
}
