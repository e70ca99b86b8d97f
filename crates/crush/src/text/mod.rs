//! Text maps: the language of Ceph's `crushtool`, compiled and decompiled.

mod ast;
mod compiler;
mod decompiler;
mod lexer;
mod order;
mod parser;
mod rules;

pub use compiler::compile;
pub use decompiler::{decompile, decompile_exact};

use std::fmt;
use thiserror::Error;

/// Largest text map taken in. A map of 100,000 OSDs with a weight set has about 20 MiB.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// Largest weight of a device, 100.0, as in Ceph.
pub const MAX_DEVICE_WEIGHT: u32 = 100 << 16;

/// Largest weight of a bucket, 65535.0, as in Ceph.
pub const MAX_BUCKET_WEIGHT: u32 = 65535 << 16;

/// A place in a text map. Both count from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text map is refused, and where. Prints as `LINE:COLUMN: reason`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{position}: {reason}")]
pub struct TextError {
    /// Where.
    pub position: Position,
    /// Why.
    #[source]
    pub reason: Reason,
}

/// Why a text map is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Reason {
    /// Larger than [`MAX_TEXT_BYTES`].
    #[error("the map has {0} bytes, more than the {MAX_TEXT_BYTES} taken in")]
    TooLarge(usize),
    /// A character that begins nothing.
    #[error("the character {0:?} has no meaning here")]
    Character(char),
    /// Something else than the grammar wants.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the grammar wants.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A tunable, device or type after the first bucket.
    #[error("'{0}' must come before the first bucket and the first rule")]
    AfterBuckets(String),
    /// A bucket after a rule.
    #[error("buckets must be defined before rules")]
    BucketAfterRule,
    /// A number beyond its range.
    #[error("the number {0} is too large here")]
    NumberTooLarge(String),
    /// A bucket id from 0 on.
    #[error("a bucket id must be negative, {0} is not")]
    NotNegative(i32),
    /// A weight below 0.
    #[error("the weight {0} is negative")]
    NegativeWeight(String),
    /// A weight above Ceph's bound.
    #[error("the weight is {weight}; the weight of a {what} is limited to {limit}")]
    WeightTooLarge {
        /// The weight.
        weight: cairn_types::Weight,
        /// Device or bucket.
        what: &'static str,
        /// The bound, whole.
        limit: u32,
    },
    /// The weights of a bucket do not fit their sum.
    #[error("the weights of the items of '{0}' add up to more than 65535; lower them")]
    WeightOverflow(String),
    /// Items of a uniform bucket that differ.
    #[error(
        "the item has weight {weight}, the ones before it {before}: the items of a uniform bucket must all have the same weight"
    )]
    UnequalWeights {
        /// This item's.
        weight: cairn_types::Weight,
        /// The ones' before.
        before: cairn_types::Weight,
    },
    /// An algorithm that does not exist.
    #[error("unknown bucket algorithm '{0}': use straw2 (or uniform, list, tree, straw)")]
    UnknownAlgorithm(String),
    /// A hash that does not exist.
    #[error("unknown hash '{0}': the only one is 0, rjenkins1")]
    UnknownHash(String),
    /// A tunable that does not exist.
    #[error("unknown tunable '{0}'")]
    UnknownTunable(String),
    /// A rule type that is neither name nor number.
    #[error("unknown rule type '{0}': use replicated or erasure")]
    UnknownRuleType(String),
    /// A step that does not exist.
    #[error("unknown step '{0}'")]
    UnknownStep(String),
    /// MSR rules of Ceph 19.2 and newer.
    #[error("'{0}' belongs to the MSR rules of Ceph 19.2 and newer, which are not supported")]
    Msr(String),
    /// One name for two things of a kind.
    #[error("the {what} '{name}' is already defined")]
    DuplicateName {
        /// Of which kind.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// One number for two things of a kind.
    #[error("the {what} {id} is already taken by '{by}'")]
    DuplicateId {
        /// Of which kind.
        what: &'static str,
        /// The number.
        id: i64,
        /// Who has it.
        by: String,
    },
    /// Two ids without a class in one bucket.
    #[error("the bucket has an id already")]
    SecondId,
    /// An id beyond what is taken in.
    #[error("the {what} {id} is beyond the limit, {limit}")]
    IdOutOfRange {
        /// Device number, bucket id or type number.
        what: &'static str,
        /// The id.
        id: i32,
        /// The bound.
        limit: i32,
    },
    /// A bucket of a type that is not defined.
    #[error("the type '{0}' is not defined")]
    UnknownType(String),
    /// A bucket of type 0.
    #[error("a bucket cannot have the type '{0}', which is the devices'")]
    DeviceTypeBucket(String),
    /// An item that is not defined.
    #[error("the item '{0}' is not defined")]
    UnknownItem(String),
    /// A bucket used before it is defined, where the order cannot be mended.
    #[error("the bucket '{item}' must be defined before '{bucket}', which holds it")]
    DefinedLater {
        /// The one used.
        item: String,
        /// The one that uses it.
        bucket: String,
    },
    /// Buckets that hold each other.
    #[error("the buckets hold each other in a cycle: {}", .0.join(" → "))]
    Cycle(
        /// Names along the cycle, the first again at the end.
        Vec<String>,
    ),
    /// One item twice in one bucket.
    #[error("the item '{0}' is in this bucket already")]
    ItemTwice(String),
    /// Two items at one position.
    #[error("the position {0} is occupied")]
    PositionTaken(u32),
    /// A position beyond the bucket's size.
    #[error("the position {position} is beyond the bucket's {items} items")]
    PositionTooLarge {
        /// The position.
        position: u32,
        /// The items.
        items: usize,
    },
    /// More items than a tree bucket can have.
    #[error("a tree bucket holds at most {limit} items, this one has {items}: use straw2 or split it", limit = crate::binary::MAX_TREE_ITEMS)]
    TreeTooLarge {
        /// The items.
        items: usize,
    },
    /// A class that no device and no bucket has.
    #[error("there is no device class '{0}'")]
    UnknownClass(String),
    /// A take of a class below a bucket that has none of it.
    #[error("'{item}' has no shadow tree for class '{class}'")]
    NoShadow {
        /// The bucket.
        item: String,
        /// The class.
        class: String,
    },
    /// The shadow trees of the classes cannot be made.
    #[error("the shadow trees of the device classes cannot be made: {0}")]
    ShadowTrees(crate::build::EditError),
    /// A step that needs a working set before there is one.
    #[error("the rule can never be satisfied: nothing is taken before this step")]
    NothingTaken,
    /// A choice of a type that is not there.
    #[error("the rule can never be satisfied: there is no {kind} below '{below}'")]
    NothingToChoose {
        /// The type.
        kind: String,
        /// The item taken.
        below: String,
    },
    /// A rule that emits buckets.
    #[error("the rule can never be satisfied: it emits {0}, not devices")]
    EmitsBuckets(
        /// What it emits.
        String,
    ),
    /// A rule without emit.
    #[error("the rule can never be satisfied: it does not end with emit")]
    NoEmit,
    /// Choose-args for a bucket that is not there.
    #[error("there is no bucket {0}")]
    UnknownBucketId(i32),
    /// Choose-args of another length than the bucket.
    #[error("bucket {bucket} has {items} items and needs as many {what}, not {found}")]
    ChooseArgLength {
        /// The bucket.
        bucket: i32,
        /// Its items.
        items: usize,
        /// Weights or ids.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
}

/// Why a map cannot be written as text.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum DecompileError {
    /// Buckets that hold each other.
    #[error("bucket {bucket} holds {item}, which holds it: the buckets form a cycle")]
    Cycle {
        /// Holder.
        bucket: i32,
        /// Held.
        item: i32,
    },
    /// A class without a name.
    #[error("bucket {bucket} has a shadow for device class {class}, which has no name")]
    UnnamedClass {
        /// The bucket.
        bucket: i32,
        /// The class.
        class: i32,
    },
    /// A take of an item without a name.
    #[error("rule {rule} step {step} takes item {item}, which has no name")]
    UnnamedTake {
        /// Rule number.
        rule: usize,
        /// Step, from 0.
        step: usize,
        /// The item.
        item: i32,
    },
    /// A take of a shadow whose bucket or class is gone.
    #[error("rule {rule} step {step} takes the shadow bucket '{name}', whose bucket or class is gone")]
    OrphanShadow {
        /// Rule number.
        rule: usize,
        /// Step, from 0.
        step: usize,
        /// Name of the shadow bucket.
        name: String,
    },
    /// The text does not compile.
    #[error("the text of the map does not compile: {0}")]
    NotCompilable(#[source] TextError),
    /// The text compiles to another map.
    #[error("the text language cannot express the map: {0} would differ after compiling")]
    NotReproducible(
        /// The first part that differs.
        &'static str,
    ),
}
