//! Binary CRUSH maps, as `ceph osd getcrushmap` and `crushtool -c -o` write them.
//!
//! The layout is described in `docs/format/crush-binary.md`. Decoding bounds everything by the
//! input's own size: a lying length is refused before memory is taken for it.

mod decode;
mod encode;

pub use decode::decode;
pub use encode::encode;

use thiserror::Error;

/// First word of every binary map.
pub const MAGIC: u32 = 0x0001_0000;

/// Largest binary map taken in. A map of 100,000 OSDs with classes and a weight set has about 10 MiB.
pub const MAX_MAP_BYTES: usize = 64 << 20;

/// Largest device number taken in, so that tables by device stay small. Far above any cluster.
pub const MAX_DEVICE_ID: i32 = (1 << 20) - 1;

/// Most places for buckets, so that a table of them stays small. Far above any cluster: with three device
/// classes it has room for 65,536 hosts.
pub const MAX_BUCKETS: i32 = 1 << 18;

/// Most rules, as in Ceph: their numbers are bytes.
pub const MAX_RULES: u32 = 1 << 8;

/// Most items of a tree bucket: the format counts its nodes in one byte, so that a tree of 65 to
/// 128 items (256 nodes) cannot be written; `crushtool` aborts on one.
pub const MAX_TREE_ITEMS: usize = 64;

/// Why a binary map cannot be read or written. Offsets are in bytes from the start of the map.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BinaryError {
    /// Larger than [`MAX_MAP_BYTES`].
    #[error("the map has {bytes} bytes, more than the {MAX_MAP_BYTES} taken in")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another file altogether.
    #[error(
        "not a binary CRUSH map: it starts with {found:#010x}, a map with {MAGIC:#010x} \
         (a text map must be compiled first; an OSD map holds its CRUSH map inside: osdmaptool --export-crush)"
    )]
    BadMagic {
        /// What stands there.
        found: u32,
    },
    /// The input ends inside a field.
    #[error("the map ends too early: {field} at byte {offset} wants {wanted} bytes, {left} are left")]
    Truncated {
        /// Byte of the field.
        offset: usize,
        /// What was being read.
        field: &'static str,
        /// Its size.
        wanted: usize,
        /// What remains.
        left: usize,
    },
    /// A count that the rest of the input cannot hold.
    #[error("{field} at byte {offset} is {count}, but the {left} bytes after it cannot hold so many")]
    CountTooLarge {
        /// Byte of the count.
        offset: usize,
        /// Which count.
        field: &'static str,
        /// Its value.
        count: u32,
        /// Bytes after it.
        left: usize,
    },
    /// More places than [`MAX_BUCKETS`] or [`MAX_RULES`].
    #[error("{field} is {count}; at most {limit} are taken in")]
    TooMany {
        /// Which count.
        field: &'static str,
        /// Its value.
        count: u32,
        /// The bound.
        limit: u32,
    },
    /// A negative `max_buckets` or `max_devices`.
    #[error("{field} is negative: {value}")]
    NegativeCount {
        /// Which.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// An algorithm number that does not exist.
    #[error("bucket {id} at byte {offset} has the unknown algorithm {algorithm}")]
    UnknownAlgorithm {
        /// Byte of the bucket.
        offset: usize,
        /// The id its place gives it.
        id: i32,
        /// The number.
        algorithm: u32,
    },
    /// The algorithm is written twice, and differently.
    #[error("bucket {id} at byte {offset} names its algorithm as {first} and then as {second}")]
    AlgorithmMismatch {
        /// Byte of the bucket.
        offset: usize,
        /// The id its place gives it.
        id: i32,
        /// Before the bucket.
        first: u32,
        /// In the bucket.
        second: u8,
    },
    /// A bucket stored in another bucket's place.
    #[error("the bucket at byte {offset} stands in the place of bucket {expected} but has the id {found}")]
    BucketIdMismatch {
        /// Byte of the bucket.
        offset: usize,
        /// The id its place gives it.
        expected: i32,
        /// The id it has.
        found: i32,
    },
    /// A tree bucket whose node count does not fit its items.
    #[error("tree bucket {id} has {items} items and {nodes} nodes; {items} items need {wanted} nodes")]
    TreeNodes {
        /// The bucket.
        id: i32,
        /// Its items.
        items: usize,
        /// Its nodes.
        nodes: usize,
        /// What they should be.
        wanted: usize,
    },
    /// More than [`MAX_TREE_ITEMS`].
    #[error(
        "tree bucket {id} has {items} items; the format cannot hold more than {MAX_TREE_ITEMS}: use straw2 \
         or split the bucket"
    )]
    TreeTooLarge {
        /// The bucket.
        id: i32,
        /// Its items.
        items: usize,
    },
    /// A device number above [`MAX_DEVICE_ID`].
    #[error("device {id} is above the largest device number taken in, {MAX_DEVICE_ID}")]
    DeviceIdTooLarge {
        /// The number.
        id: i32,
    },
    /// A step this version does not know.
    #[error(
        "rule {rule} step {step} has the unknown operation {op}{}",
        if (14..=16).contains(op) { " (an MSR step of Ceph 19.2 or newer, which is not supported)" } else { "" }
    )]
    UnknownStep {
        /// Rule number.
        rule: usize,
        /// Step, from 0.
        step: usize,
        /// Operation number.
        op: u32,
    },
    /// A step with a value where its operation takes none.
    #[error(
        "rule {rule} step {step} (operation {op}) has the argument {argument}, where the operation takes none"
    )]
    StepArgument {
        /// Rule number.
        rule: usize,
        /// Step, from 0.
        step: usize,
        /// Operation number.
        op: u32,
        /// The value.
        argument: i32,
    },
    /// A name that is empty.
    #[error("{table}: the name of {key} is empty")]
    EmptyName {
        /// Which table.
        table: &'static str,
        /// Its key.
        key: i32,
    },
    /// A name that is not UTF-8.
    #[error("{table}: the name of {key} is not UTF-8")]
    NameNotUtf8 {
        /// Which table.
        table: &'static str,
        /// Its key.
        key: i32,
    },
    /// One key twice.
    #[error("{table}: the key {key} is there twice")]
    DuplicateKey {
        /// Which table.
        table: &'static str,
        /// The key.
        key: i64,
    },
    /// A replacement of ids whose number is not the bucket's size.
    #[error("choose_args {set}: bucket {bucket} has {items} items and {ids} replacement ids")]
    ChooseArgIds {
        /// Choose-args id.
        set: i64,
        /// Bucket.
        bucket: i32,
        /// Its items.
        items: usize,
        /// The ids.
        ids: usize,
    },
    /// Weight sets so much shorter than their buckets that filling them up would take too much memory.
    #[error("choose_args {set}: the weight sets of bucket {bucket} are far shorter than the bucket")]
    ChooseArgWeights {
        /// Choose-args id.
        set: i64,
        /// Bucket.
        bucket: i32,
    },
    /// A replacement for a bucket place outside the map.
    #[error("choose_args {set} names bucket place {index}, outside the map's {max_buckets}")]
    ChooseArgBucket {
        /// Choose-args id.
        set: i64,
        /// The place.
        index: u32,
        /// The map's places.
        max_buckets: usize,
    },
    /// MSR tunables other than the defaults.
    #[error(
        "the map sets MSR tunables (msr_descents {descents}, msr_collision_tries {collision_tries}) of Ceph 19.2 \
         or newer, which are not supported"
    )]
    MsrTunables {
        /// `msr_descents`
        descents: u32,
        /// `msr_collision_tries`
        collision_tries: u32,
    },
    /// Bytes after the map's last part.
    #[error("{left} bytes follow the end of the map at byte {offset}")]
    TrailingBytes {
        /// End of the map.
        offset: usize,
        /// Bytes after it.
        left: usize,
    },
    /// On writing: a bucket whose parts do not fit each other.
    #[error("bucket {id} has {items} items but {weights} {what}")]
    BucketShape {
        /// The bucket.
        id: i32,
        /// Its items.
        items: usize,
        /// Length of the part.
        weights: usize,
        /// Which part.
        what: &'static str,
    },
    /// On writing: a bucket that does not stand at its id's place or whose data is another algorithm's.
    #[error(
        "the bucket at place {index} (id {id}) stands elsewhere than its id says, or its data is not its algorithm's"
    )]
    BucketPlace {
        /// Place.
        index: usize,
        /// Id.
        id: i32,
    },
}

/// Nodes of the binary tree over `items` leaves; 0 for an empty bucket.
pub(crate) fn tree_nodes(items: usize) -> usize {
    match items {
        0 => 0,
        n => 2 * n.next_power_of_two(),
    }
}
