//! A text map as written, before names are looked up.

use super::lexer::At;
use crate::Algorithm;
use cairn_types::Weight;

/// A whole text map. Each list is in the order of the text.
#[derive(Default)]
pub(super) struct Ast<'a> {
    pub tunables: Vec<(At<&'a str>, At<u32>)>,
    pub devices: Vec<DeviceLine<'a>>,
    pub types: Vec<TypeLine<'a>>,
    pub buckets: Vec<BucketBlock<'a>>,
    pub rules: Vec<RuleBlock<'a>>,
    pub choose_args: Vec<ChooseArgsBlock>,
}

/// `device ID NAME [class CLASS]`
pub(super) struct DeviceLine<'a> {
    pub id: At<i32>,
    pub name: At<&'a str>,
    pub class: Option<At<&'a str>>,
}

/// `type ID NAME`
pub(super) struct TypeLine<'a> {
    pub id: At<i32>,
    pub name: At<&'a str>,
}

/// `TYPE NAME { … }`
pub(super) struct BucketBlock<'a> {
    pub kind: At<&'a str>,
    pub name: At<&'a str>,
    pub id: Option<At<i32>>,
    /// `id ID class CLASS`
    pub shadow_ids: Vec<(At<i32>, At<&'a str>)>,
    pub algorithm: At<Algorithm>,
    pub items: Vec<ItemLine<'a>>,
}

/// `item NAME [weight WEIGHT] [pos POSITION]`
pub(super) struct ItemLine<'a> {
    pub name: At<&'a str>,
    pub weight: Option<At<Weight>>,
    pub position: Option<At<u32>>,
}

/// `rule [NAME] { … }`
pub(super) struct RuleBlock<'a> {
    /// Where the block starts.
    pub keyword: At<()>,
    pub name: Option<At<&'a str>>,
    pub id: At<u8>,
    pub kind: u8,
    pub min_size: u8,
    pub max_size: u8,
    pub steps: Vec<At<StepLine<'a>>>,
}

/// `step …`
pub(super) enum StepLine<'a> {
    /// A step without names.
    Plain(crate::Step),
    /// `take ITEM [class CLASS]`
    Take { item: At<&'a str>, class: Option<At<&'a str>> },
    /// `choose|chooseleaf firstn|indep NUM type TYPE`
    Choose { leaf: bool, indep: bool, num: i32, kind: At<&'a str> },
}

/// `choose_args ID { … }`
pub(super) struct ChooseArgsBlock {
    pub id: At<i64>,
    pub args: Vec<ChooseArgBlock>,
}

/// `{ bucket_id ID [weight_set [ … ]] [ids [ … ]] }`
pub(super) struct ChooseArgBlock {
    pub bucket: At<i32>,
    pub weight_sets: Vec<At<Vec<Weight>>>,
    pub ids: Option<At<Vec<i32>>>,
}
