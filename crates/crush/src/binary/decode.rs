//! Reading binary maps.

use super::{BinaryError, MAGIC, MAX_BUCKETS, MAX_DEVICE_ID, MAX_MAP_BYTES, MAX_RULES, tree_nodes};
use crate::{Algorithm, Bucket, BucketData, ChooseArg, CrushMap, Rule, Step, Tunables};
use cairn_types::Weight;
use std::collections::BTreeMap;

/// Tunables of a map that stores none: those Ceph had before they were settable. The allowed
/// algorithms are uniform, list and straw.
const UNSTORED_TUNABLES: Tunables = Tunables {
    choose_local_tries: 2,
    choose_local_fallback_tries: 5,
    choose_total_tries: 19,
    chooseleaf_descend_once: 0,
    chooseleaf_vary_r: 0,
    chooseleaf_stable: 0,
    straw_calc_version: 0,
    allowed_bucket_algs: 1 << Algorithm::Uniform as u32
        | 1 << Algorithm::List as u32
        | 1 << Algorithm::Straw as u32,
};

/// Most weights that fitting weight sets to their buckets may add to one map (16 MiB): each is
/// memory that no byte of the input pays for.
const MAX_ADDED_WEIGHTS: usize = 4 << 20;

/// The value Ceph 19.2 and newer give both MSR tunables unless told otherwise.
const MSR_DEFAULT: u32 = 100;

/// Reads a binary map.
///
/// A map written before some part of the tail existed gets Ceph's defaults for it. As in Ceph,
/// `max_devices` is computed anew from the items and names, and choose-args are fitted to
/// the buckets (dropped where the bucket is none of straw2, cut or filled with 0 to its size). What it
/// returns is well formed in itself; whether the hierarchy and the rules make sense is another
/// question, asked by validation.
pub fn decode(bytes: &[u8]) -> Result<CrushMap, BinaryError> {
    if bytes.len() > MAX_MAP_BYTES {
        return Err(BinaryError::TooLarge { bytes: bytes.len() });
    }
    let mut input = Reader { bytes, offset: 0 };
    let magic = input.u32("the magic number")?;
    if magic != MAGIC {
        return Err(BinaryError::BadMagic { found: magic });
    }
    let counts_offset = input.offset;
    let max_buckets = input.count("max_buckets")?;
    let max_rules = input.u32("max_rules")?;
    input.count("max_devices")?;
    input.check_count("max_buckets", counts_offset, max_buckets, 4)?;
    for (field, count, limit) in
        [("max_buckets", max_buckets, MAX_BUCKETS as u32), ("max_rules", max_rules, MAX_RULES)]
    {
        if count > limit {
            return Err(BinaryError::TooMany { field, count, limit });
        }
    }
    let mut buckets = Vec::with_capacity(max_buckets as usize);
    for index in 0..max_buckets as i32 {
        buckets.push(bucket(&mut input, -1 - index)?);
    }

    let mut rules = Vec::with_capacity(max_rules as usize);
    for number in 0..max_rules as usize {
        rules.push(rule(&mut input, number)?);
    }

    let type_names = old_name_table(&mut input, "type names")?;
    let item_names = old_name_table(&mut input, "item names")?;
    let rule_names = old_name_table(&mut input, "rule names")?;

    // Every part from here on is younger than the format; a map may end before any of them.
    let mut tunables = UNSTORED_TUNABLES;
    if !input.at_end() {
        tunables.choose_local_tries = input.u32("choose_local_tries")?;
        tunables.choose_local_fallback_tries = input.u32("choose_local_fallback_tries")?;
        tunables.choose_total_tries = input.u32("choose_total_tries")?;
    }
    if !input.at_end() {
        tunables.chooseleaf_descend_once = input.u32("chooseleaf_descend_once")?;
    }
    if !input.at_end() {
        tunables.chooseleaf_vary_r = input.u8("chooseleaf_vary_r")?;
    }
    if !input.at_end() {
        tunables.straw_calc_version = input.u8("straw_calc_version")?;
    }
    if !input.at_end() {
        tunables.allowed_bucket_algs = input.u32("allowed_bucket_algs")?;
    }
    if !input.at_end() {
        tunables.chooseleaf_stable = input.u8("chooseleaf_stable")?;
    }
    let mut map = CrushMap {
        tunables,
        max_devices: 0,
        buckets,
        rules,
        type_names,
        item_names,
        rule_names,
        item_classes: BTreeMap::new(),
        class_names: BTreeMap::new(),
        shadow_buckets: BTreeMap::new(),
        choose_args: BTreeMap::new(),
    };
    if !input.at_end() {
        map.item_classes = id_table(&mut input, "device classes of items")?;
        map.class_names = name_table(&mut input, "class names")?;
        map.shadow_buckets = shadow_buckets(&mut input)?;
    }
    if !input.at_end() {
        map.choose_args = choose_args(&mut input, &map.buckets)?;
    }
    if !input.at_end() {
        msr_tail(&mut input)?;
    }
    if !input.at_end() {
        return Err(BinaryError::TrailingBytes { offset: input.offset, left: input.left() });
    }
    map.max_devices = devices_end(&map)?;
    Ok(map)
}

/// One above the largest device number among items and names, which is what Ceph keeps in
/// `max_devices`.
fn devices_end(map: &CrushMap) -> Result<i32, BinaryError> {
    let items = map.buckets.iter().flatten().flat_map(|bucket| bucket.items.iter().copied());
    let names = map.item_names.keys().next_back().copied();
    let last = items.chain(names).max().unwrap_or(-1).max(-1);
    if last > MAX_DEVICE_ID {
        return Err(BinaryError::DeviceIdTooLarge { id: last });
    }
    Ok(last + 1)
}

fn bucket(input: &mut Reader<'_>, expected_id: i32) -> Result<Option<Bucket>, BinaryError> {
    let offset = input.offset;
    let number = input.u32("a bucket's algorithm")?;
    if number == 0 {
        return Ok(None);
    }
    let algorithm = match number {
        1 => Algorithm::Uniform,
        2 => Algorithm::List,
        3 => Algorithm::Tree,
        4 => Algorithm::Straw,
        5 => Algorithm::Straw2,
        algorithm => return Err(BinaryError::UnknownAlgorithm { offset, id: expected_id, algorithm }),
    };
    let id = input.i32("a bucket's id")?;
    if id != expected_id {
        return Err(BinaryError::BucketIdMismatch { offset, expected: expected_id, found: id });
    }
    let kind = input.u16("a bucket's type")?;
    let second = input.u8("a bucket's algorithm")?;
    if u32::from(second) != number {
        return Err(BinaryError::AlgorithmMismatch { offset, id, first: number, second });
    }
    let hash = input.u8("a bucket's hash")?;
    let weight = input.u32("a bucket's weight")?;
    // Items and weights are counted once, here: the weights of list and straw buckets are pairs.
    let bytes_per_item = match algorithm {
        Algorithm::Uniform | Algorithm::Tree => 4,
        Algorithm::Straw2 => 8,
        Algorithm::List | Algorithm::Straw => 12,
    };
    let size_offset = input.offset;
    let size = input.u32("a bucket's size")?;
    input.check_count("a bucket's size", size_offset, size, bytes_per_item)?;
    let size = size as usize;
    let items = input.array(size, Reader::i32, "a bucket's item")?;
    let data = match algorithm {
        Algorithm::Uniform => {
            BucketData::Uniform { item_weight: input.u32("a uniform bucket's item weight")? }
        }
        Algorithm::List => {
            let (item_weights, sum_weights) = input.pairs(size, "a list bucket's weights")?;
            BucketData::List { item_weights, sum_weights }
        }
        Algorithm::Tree => {
            let nodes = usize::from(input.u8("a tree bucket's node count")?);
            let wanted = tree_nodes(size);
            if nodes != wanted {
                return Err(BinaryError::TreeNodes { id, items: size, nodes, wanted });
            }
            BucketData::Tree { node_weights: input.array(nodes, Reader::u32, "a tree bucket's node weight")? }
        }
        Algorithm::Straw => {
            let (item_weights, straws) = input.pairs(size, "a straw bucket's weights")?;
            BucketData::Straw { item_weights, straws }
        }
        Algorithm::Straw2 => {
            BucketData::Straw2 { item_weights: input.array(size, Reader::u32, "a straw2 bucket's weight")? }
        }
    };
    Ok(Some(Bucket { id, kind, algorithm, hash, weight, items, data }))
}

fn rule(input: &mut Reader<'_>, number: usize) -> Result<Option<Rule>, BinaryError> {
    if input.u32("a rule's presence")? == 0 {
        return Ok(None);
    }
    let length_offset = input.offset;
    let length = input.u32("a rule's length")?;
    let ruleset = input.u8("a rule's ruleset")?;
    let kind = input.u8("a rule's type")?;
    let min_size = input.u8("a rule's min_size")?;
    let max_size = input.u8("a rule's max_size")?;
    input.check_count("a rule's length", length_offset, length, 12)?;
    let mut steps = Vec::with_capacity(length as usize);
    for index in 0..length as usize {
        steps.push(step(input, number, index)?);
    }
    Ok(Some(Rule { ruleset, kind, min_size, max_size, steps }))
}

fn step(input: &mut Reader<'_>, rule: usize, step: usize) -> Result<Step, BinaryError> {
    let op = input.u32("a step's operation")?;
    let first = input.i32("a step's argument")?;
    let second = input.i32("a step's argument")?;
    let (decoded, unused) = match op {
        0 => (Step::Noop, first | second),
        1 => (Step::Take(first), second),
        2 => (Step::ChooseFirstn { num: first, kind: second }, 0),
        3 => (Step::ChooseIndep { num: first, kind: second }, 0),
        4 => (Step::Emit, first | second),
        6 => (Step::ChooseleafFirstn { num: first, kind: second }, 0),
        7 => (Step::ChooseleafIndep { num: first, kind: second }, 0),
        8 => (Step::SetChooseTries(first), second),
        9 => (Step::SetChooseleafTries(first), second),
        10 => (Step::SetChooseLocalTries(first), second),
        11 => (Step::SetChooseLocalFallbackTries(first), second),
        12 => (Step::SetChooseleafVaryR(first), second),
        13 => (Step::SetChooseleafStable(first), second),
        op => return Err(BinaryError::UnknownStep { rule, step, op }),
    };
    if unused != 0 {
        return Err(BinaryError::StepArgument { rule, step, op, argument: unused });
    }
    Ok(decoded)
}

/// A table of names whose keys some old versions wrote in 64 bits. The upper half of such a key
/// is 0 where the length should be, and names are never empty, which tells the two apart.
fn old_name_table(input: &mut Reader<'_>, table: &'static str) -> Result<BTreeMap<i32, String>, BinaryError> {
    let count = input.table_count(table, 9)?;
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let key = input.i32(table)?;
        let mut length = input.u32(table)?;
        if length == 0 {
            length = input.u32(table)?;
        }
        insert_name(&mut names, table, key, input.take(length as usize, table)?)?;
    }
    Ok(names)
}

fn name_table(input: &mut Reader<'_>, table: &'static str) -> Result<BTreeMap<i32, String>, BinaryError> {
    let count = input.table_count(table, 9)?;
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let key = input.i32(table)?;
        let length = input.u32(table)?;
        insert_name(&mut names, table, key, input.take(length as usize, table)?)?;
    }
    Ok(names)
}

fn insert_name(
    names: &mut BTreeMap<i32, String>,
    table: &'static str,
    key: i32,
    bytes: &[u8],
) -> Result<(), BinaryError> {
    if bytes.is_empty() {
        return Err(BinaryError::EmptyName { table, key });
    }
    let name = std::str::from_utf8(bytes).map_err(|_| BinaryError::NameNotUtf8 { table, key })?;
    match names.insert(key, name.to_owned()) {
        Some(_) => Err(BinaryError::DuplicateKey { table, key: key.into() }),
        None => Ok(()),
    }
}

fn id_table(input: &mut Reader<'_>, table: &'static str) -> Result<BTreeMap<i32, i32>, BinaryError> {
    let count = input.table_count(table, 8)?;
    let mut ids = BTreeMap::new();
    for _ in 0..count {
        let key = input.i32(table)?;
        if ids.insert(key, input.i32(table)?).is_some() {
            return Err(BinaryError::DuplicateKey { table, key: key.into() });
        }
    }
    Ok(ids)
}

fn shadow_buckets(input: &mut Reader<'_>) -> Result<BTreeMap<i32, BTreeMap<i32, i32>>, BinaryError> {
    let table = "shadow buckets";
    let count = input.table_count(table, 8)?;
    let mut shadows = BTreeMap::new();
    for _ in 0..count {
        let key = input.i32(table)?;
        if shadows.insert(key, id_table(input, table)?).is_some() {
            return Err(BinaryError::DuplicateKey { table, key: key.into() });
        }
    }
    Ok(shadows)
}

fn choose_args(
    input: &mut Reader<'_>,
    buckets: &[Option<Bucket>],
) -> Result<BTreeMap<i64, BTreeMap<i32, ChooseArg>>, BinaryError> {
    let table = "choose_args";
    let count = input.table_count(table, 12)?;
    let mut added_weights = 0;
    let mut sets = BTreeMap::new();
    for _ in 0..count {
        let set = input.i64(table)?;
        let mut args = BTreeMap::new();
        for _ in 0..input.table_count("choose_args of one set", 12)? {
            let index = input.u32(table)?;
            let Some(place) = buckets.get(index as usize) else {
                return Err(BinaryError::ChooseArgBucket { set, index, max_buckets: buckets.len() });
            };
            // The place is below the bucket count, which fits an i32.
            let id = -1 - index as i32;
            let mut weight_sets = Vec::new();
            for _ in 0..input.table_count("a weight set's positions", 4)? {
                let size = input.table_count("a weight set's size", 4)?;
                weight_sets.push(input.array(
                    size,
                    |input, field| input.u32(field).map(Weight),
                    "a weight",
                )?);
            }
            let ids_count = input.table_count("replacement ids", 4)?;
            let ids = input.array(ids_count, Reader::i32, "a replacement id")?;
            let items = place.as_ref().map_or(0, |bucket| bucket.items.len());
            if !ids.is_empty() && ids.len() != items {
                return Err(BinaryError::ChooseArgIds { set, bucket: id, items, ids: ids.len() });
            }
            let keeps = place.as_ref().is_some_and(|bucket| bucket.algorithm == Algorithm::Straw2);
            let arg = ChooseArg { weight_sets, ids };
            if args.insert(id, (keeps, arg)).is_some() {
                return Err(BinaryError::DuplicateKey { table, key: id.into() });
            }
        }
        let fitted = fit_choose_args(set, args, buckets, &mut added_weights)?;
        if sets.insert(set, fitted).is_some() {
            return Err(BinaryError::DuplicateKey { table, key: set });
        }
    }
    Ok(sets)
}

/// Ceph's repair of sets that some versions left behind after a change of the hierarchy: only straw2
/// buckets keep theirs, and a weight set is cut, or filled with 0, to the bucket's size.
/// `added_weights` counts what is filled in over the whole map.
fn fit_choose_args(
    set: i64,
    args: BTreeMap<i32, (bool, ChooseArg)>,
    buckets: &[Option<Bucket>],
    added_weights: &mut usize,
) -> Result<BTreeMap<i32, ChooseArg>, BinaryError> {
    let positions = args.values().map(|(_, arg)| arg.weight_sets.len()).max().unwrap_or(0);
    let mut fitted = BTreeMap::new();
    for (id, (keeps, mut arg)) in args {
        if !keeps || (arg.weight_sets.is_empty() && arg.ids.is_empty()) {
            continue;
        }
        if arg.weight_sets.len() == positions {
            let items = buckets[(-1 - id) as usize].as_ref().map_or(0, |bucket| bucket.items.len());
            for weights in &mut arg.weight_sets {
                *added_weights += items.saturating_sub(weights.len());
                if *added_weights > MAX_ADDED_WEIGHTS {
                    return Err(BinaryError::ChooseArgWeights { set, bucket: id });
                }
                weights.resize(items, Weight::ZERO);
            }
        }
        fitted.insert(id, arg);
    }
    Ok(fitted)
}

/// Two tunables Ceph 19.2 and newer append. Their defaults change nothing in a map whose steps we
/// know, and are left out when the map is written again.
fn msr_tail(input: &mut Reader<'_>) -> Result<(), BinaryError> {
    if input.left() != 8 {
        return Err(BinaryError::TrailingBytes { offset: input.offset, left: input.left() });
    }
    let descents = input.u32("msr_descents")?;
    let collision_tries = input.u32("msr_collision_tries")?;
    if (descents, collision_tries) != (MSR_DEFAULT, MSR_DEFAULT) {
        return Err(BinaryError::MsrTunables { descents, collision_tries });
    }
    Ok(())
}

/// Little-endian fields out of a byte slice.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    fn at_end(&self) -> bool {
        self.left() == 0
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], BinaryError> {
        if length > self.left() {
            return Err(BinaryError::Truncated {
                offset: self.offset,
                field,
                wanted: length,
                left: self.left(),
            });
        }
        let taken = &self.bytes[self.offset..self.offset + length];
        self.offset += length;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BinaryError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N, field)?);
        Ok(value)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, BinaryError> {
        self.fixed(field).map(u8::from_le_bytes)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, BinaryError> {
        self.fixed(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, BinaryError> {
        self.fixed(field).map(u32::from_le_bytes)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, BinaryError> {
        self.fixed(field).map(i32::from_le_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, BinaryError> {
        self.fixed(field).map(i64::from_le_bytes)
    }

    /// A count the format stores as a signed word.
    fn count(&mut self, field: &'static str) -> Result<u32, BinaryError> {
        let value = self.i32(field)?;
        u32::try_from(value).map_err(|_| BinaryError::NegativeCount { field, value })
    }

    /// Refuses a count whose elements, of at least `least_bytes` each, the input cannot hold.
    fn check_count(
        &self,
        field: &'static str,
        offset: usize,
        count: u32,
        least_bytes: usize,
    ) -> Result<(), BinaryError> {
        if count as usize > self.left() / least_bytes {
            return Err(BinaryError::CountTooLarge { offset, field, count, left: self.left() });
        }
        Ok(())
    }

    fn table_count(&mut self, field: &'static str, least_bytes: usize) -> Result<usize, BinaryError> {
        let offset = self.offset;
        let count = self.u32(field)?;
        self.check_count(field, offset, count, least_bytes)?;
        Ok(count as usize)
    }

    /// `count` fields, whose space the caller has checked.
    fn array<T>(
        &mut self,
        count: usize,
        read: impl Fn(&mut Self, &'static str) -> Result<T, BinaryError>,
        field: &'static str,
    ) -> Result<Vec<T>, BinaryError> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(read(self, field)?);
        }
        Ok(values)
    }

    /// `count` pairs of words, as two arrays.
    fn pairs(&mut self, count: usize, field: &'static str) -> Result<(Vec<u32>, Vec<u32>), BinaryError> {
        let mut firsts = Vec::with_capacity(count);
        let mut seconds = Vec::with_capacity(count);
        for _ in 0..count {
            firsts.push(self.u32(field)?);
            seconds.push(self.u32(field)?);
        }
        Ok((firsts, seconds))
    }
}
