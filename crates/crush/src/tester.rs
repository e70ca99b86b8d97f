//! What `crushtool --test` computes: mappings over a range of inputs, and statistics of them.
//!
//! The run hands out [`Event`]s; their `Display` is the very line `crushtool` 16.2 prints. How an input is
//! mapped is the caller's: a function from (rule, input, number of replicas, weights) to items.

use crate::{CrushMap, Step};
use cairn_types::Weight;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use crate::NO_ITEM;

/// The inputs `crushtool` tests unless both ends are given.
pub const DEFAULT_INPUTS: (i32, i32) = (0, 1023);

/// What to test and what to report.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// First and last rule number; all rules if absent.
    pub rules: Option<(usize, usize)>,
    /// First and last number of replicas; those of each rule if absent.
    pub num_rep: Option<(i32, i32)>,
    /// First and last input; [`DEFAULT_INPUTS`] if absent.
    pub inputs: Option<(i32, i32)>,
    /// Reweights by device; any other device of the hierarchy is fully in.
    pub weights: BTreeMap<i32, Weight>,
    /// Report each mapping.
    pub show_mappings: bool,
    /// Report mappings that are too short or have holes.
    pub show_bad_mappings: bool,
    /// Report how many results had which size.
    pub show_statistics: bool,
    /// Report stored and expected inputs of devices that have any. Implies statistics.
    pub show_utilization: bool,
    /// Report those of all devices. Implies statistics.
    pub show_utilization_all: bool,
}

/// One line of the report.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event<'a> {
    /// Reweights of all devices, told with utilization of all. `crushtool` prints it on stderr.
    Weights(&'a [Weight]),
    /// A rule in the range does not exist.
    NoRule {
        /// Number.
        rule: usize,
    },
    /// A rule begins.
    Rule {
        /// Number.
        rule: usize,
        /// Name, or nothing.
        name: &'a str,
        /// First and last input.
        inputs: (i32, i32),
        /// First and last number of replicas.
        num_rep: (i32, i32),
    },
    /// One mapping.
    Mapping {
        /// Rule number.
        rule: usize,
        /// Input.
        input: i32,
        /// Devices in order; [`NO_ITEM`] for none.
        result: &'a [i32],
    },
    /// One mapping that is too short or has a hole.
    BadMapping {
        /// Rule number.
        rule: usize,
        /// Input.
        input: i32,
        /// Number of replicas wanted.
        num_rep: i32,
        /// Devices in order; [`NO_ITEM`] for none.
        result: &'a [i32],
    },
    /// How many results had one size.
    ResultSize {
        /// Rule number.
        rule: usize,
        /// Rule name, or nothing.
        name: &'a str,
        /// Number of replicas wanted.
        num_rep: i32,
        /// Size of the results.
        size: usize,
        /// Results of this size.
        count: i32,
        /// All results.
        total: i32,
    },
    /// What one device holds.
    Device {
        /// Device.
        device: usize,
        /// Inputs mapped to it.
        stored: i32,
        /// Inputs it should hold by its reweight's share.
        expected: f32,
    },
}

/// Reweights by a command line: a float, cut to 16.16 and to the range from 0 to 1.
pub fn reweight(value: f64) -> Weight {
    // Ceph narrows to single precision first; the cast takes NaN to 0 and saturates.
    Weight((value as f32 * 65536.0).clamp(0.0, 65536.0) as u32)
}

/// Runs a test: maps every input of every rule and number of replicas with `place`, and hands the
/// report to `report`, in `crushtool`'s order, until it fails.
///
/// `place` is given rule, input, number of replicas and weights by device, and leaves the result in the vector.
pub fn run<E>(
    map: &CrushMap,
    options: &Options,
    mut place: impl FnMut(usize, i32, usize, &[Weight], &mut Vec<i32>),
    mut report: impl FnMut(Event<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let weights = device_weights(map, &options.weights);
    if options.show_utilization_all {
        report(Event::Weights(&weights))?;
    }
    let inputs = options.inputs.unwrap_or(DEFAULT_INPUTS);
    let statistics = options.show_statistics || options.show_utilization || options.show_utilization_all;
    let (first, last) = options.rules.unwrap_or((0, usize::MAX));
    let end = last.saturating_add(1).min(map.rules.len());
    for number in first..end {
        let Some(rule) = &map.rules[number] else {
            if statistics {
                report(Event::NoRule { rule: number })?;
            }
            continue;
        };
        let name = i32::try_from(number).ok().and_then(|number| map.rule_names.get(&number));
        let name = name.map_or("", String::as_str);
        let num_rep = options.num_rep.unwrap_or((rule.min_size.into(), rule.max_size.into()));
        if statistics {
            report(Event::Rule { rule: number, name, inputs, num_rep })?;
        }
        for replicas in num_rep.0..=num_rep.1 {
            let pass = Pass { rule: number, name, num_rep: replicas, inputs, statistics };
            pass.run(map, options, &weights, &mut place, &mut report)?;
        }
    }
    Ok(())
}

/// One rule with one number of replicas.
struct Pass<'a> {
    rule: usize,
    name: &'a str,
    num_rep: i32,
    inputs: (i32, i32),
    statistics: bool,
}

impl Pass<'_> {
    fn run<E>(
        &self,
        map: &CrushMap,
        options: &Options,
        weights: &[Weight],
        place: &mut impl FnMut(usize, i32, usize, &[Weight], &mut Vec<i32>),
        report: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let &Pass { rule, name, num_rep, inputs, statistics } = self;
        // Ceph's sums and products of these wrap around, and decide what is printed.
        let total_weight = weights.iter().fold(0_i32, |sum, weight| sum.wrapping_add(weight.0 as i32));
        if total_weight == 0 {
            return Ok(());
        }
        let total = inputs.1.wrapping_sub(inputs.0).wrapping_add(1);
        let replicas = num_rep.min(most_affected(map, rule));
        let expected_total = replicas.wrapping_mul(total) as f32;

        let mut stored = vec![0_i32; weights.len()];
        let mut sizes: BTreeMap<usize, i32> = BTreeMap::new();
        let mut result = Vec::new();
        for input in inputs.0..=inputs.1 {
            result.clear();
            place(rule, input, num_rep.max(0) as usize, weights, &mut result);
            if options.show_mappings {
                report(Event::Mapping { rule, input, result: &result })?;
            }
            let mut has_hole = false;
            for &item in &result {
                match usize::try_from(item).ok().and_then(|device| stored.get_mut(device)) {
                    Some(count) => *count += 1,
                    None => has_hole = true,
                }
            }
            *sizes.entry(result.len()).or_default() += 1;
            if options.show_bad_mappings && (has_hole || result.len() as i64 != i64::from(num_rep)) {
                report(Event::BadMapping { rule, input, num_rep, result: &result })?;
            }
        }
        if !statistics {
            return Ok(());
        }
        for (size, count) in sizes {
            report(Event::ResultSize { rule, name, num_rep, size, count, total })?;
        }
        for (device, (&stored, weight)) in stored.iter().zip(weights).enumerate() {
            let share = weight.0 as f32 / total_weight as f32;
            let expected = share * expected_total;
            let is_shown = match options.show_utilization {
                true => expected > 0.0 && stored > 0,
                false => options.show_utilization_all,
            };
            if is_shown {
                report(Event::Device { device, stored, expected })?;
            }
        }
        Ok(())
    }
}

/// Weight of every device: what is asked for, else 1 for those in the hierarchy and 0 for the others.
fn device_weights(map: &CrushMap, asked: &BTreeMap<i32, Weight>) -> Vec<Weight> {
    let present: BTreeSet<i32> =
        map.buckets.iter().flatten().flat_map(|bucket| bucket.items.iter().copied()).collect();
    (0..map.max_devices)
        .map(|device| match asked.get(&device) {
            Some(&weight) => weight,
            None if present.contains(&device) => Weight::ONE,
            None => Weight::ZERO,
        })
        .collect()
}

/// Ceph's estimate of how many replicas a rule can place at most: the least, over the types it
/// names, of the buckets of that type (shadows included) and the number it asks for.
///
/// It takes every step but take and emit for a choice, so that a set step counts as one of its
/// value in devices; and as devices are no buckets, type 0 never limits. Both are kept, as the
/// expected utilization depends on it.
fn most_affected(map: &CrushMap, rule: usize) -> i32 {
    let Some(Some(rule)) = map.rules.get(rule) else { return 0 };
    let mut kinds = Vec::new();
    let mut asked = BTreeMap::new();
    for step in &rule.steps {
        let (num, kind) = match *step {
            Step::Noop | Step::Take(_) | Step::Emit => continue,
            Step::ChooseFirstn { num, kind }
            | Step::ChooseIndep { num, kind }
            | Step::ChooseleafFirstn { num, kind }
            | Step::ChooseleafIndep { num, kind } => (num, kind),
            Step::SetChooseTries(value)
            | Step::SetChooseleafTries(value)
            | Step::SetChooseLocalTries(value)
            | Step::SetChooseLocalFallbackTries(value)
            | Step::SetChooseleafVaryR(value)
            | Step::SetChooseleafStable(value) => (value, 0),
        };
        kinds.push(kind);
        asked.insert(kind, num);
    }
    let mut most: BTreeMap<i32, i32> = BTreeMap::new();
    for &kind in &kinds {
        for &id in map.item_names.range(..0).map(|(id, _)| id) {
            let bucket = map.buckets.get((-1 - id) as usize).and_then(Option::as_ref);
            if bucket.is_some_and(|bucket| i32::from(bucket.kind) == kind) {
                *most.entry(kind).or_default() += 1;
            }
        }
    }
    for kind in &kinds {
        let most = most.entry(*kind).or_default();
        if asked[kind] > 0 && asked[kind] < *most {
            *most = asked[kind];
        }
    }
    let bound = (map.buckets.len() as i32).max(map.max_devices);
    kinds.iter().map(|kind| most[kind]).filter(|&most| most > 0).fold(bound, i32::min)
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Event::Weights(weights) => {
                f.write_str("devices weights (hex): [")?;
                for (index, weight) in weights.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{:x}", weight.0)?;
                }
                f.write_str("]")
            }
            Event::NoRule { rule } => write!(f, "rule {rule} dne"),
            Event::Rule { rule, name, inputs, num_rep } => {
                let ((first, last), (least, most)) = (inputs, num_rep);
                write!(f, "rule {rule} ({name}), x = {first}..{last}, numrep = {least}..{most}")
            }
            Event::Mapping { rule, input, result } => {
                write!(f, "CRUSH rule {rule} x {input} {}", Items(result))
            }
            Event::BadMapping { rule, input, num_rep, result } => {
                write!(f, "bad mapping rule {rule} x {input} num_rep {num_rep} result {}", Items(result))
            }
            Event::ResultSize { rule, name, num_rep, size, count, total } => {
                write!(f, "rule {rule} ({name}) num_rep {num_rep} result size == {size}:\t{count}/{total}")
            }
            Event::Device { device, stored, expected } => {
                write!(f, "  device {device}:\t\t stored : {stored}\t expected : {}", General(expected))
            }
        }
    }
}

/// Items as Ceph prints a vector: `[1,2,3]`.
pub struct Items<'a>(
    /// The items.
    pub &'a [i32],
);

impl fmt::Display for Items<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{item}")?;
        }
        f.write_str("]")
    }
}

/// A float as a C++ stream prints it: six significant digits, without trailing zeros.
struct General(f32);

impl fmt::Display for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: i32 = 6;
        let value = f64::from(self.0);
        if value == 0.0 || !value.is_finite() {
            return write!(f, "{value}");
        }
        // Rounded to six digits first: rounding may add a digit in front.
        let scientific = format!("{value:.*e}", DIGITS as usize - 1);
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..DIGITS).contains(&exponent) {
            let fixed = format!("{value:.*}", (DIGITS - 1 - exponent) as usize);
            let trimmed = match fixed.contains('.') {
                true => fixed.trim_end_matches('0').trim_end_matches('.'),
                false => &fixed,
            };
            return f.write_str(trimmed);
        }
        let mantissa = match mantissa.contains('.') {
            true => mantissa.trim_end_matches('0').trim_end_matches('.'),
            false => mantissa,
        };
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{mantissa}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_a_stream_prints_them() {
        let cases = [
            (0.0, "0"),
            (682.666_7, "682.667"),
            (1_365.333_4, "1365.33"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.6, "1e+06"),
            (100_000.0, "100000"),
            (0.5, "0.5"),
            (0.000_012_3, "1.23e-05"),
            (-2.0, "-2"),
        ];
        for (value, text) in cases {
            assert_eq!(General(value).to_string(), text);
        }
    }

    #[test]
    fn a_reweight_is_cut_to_its_range() {
        assert_eq!(reweight(0.1), Weight(6553));
        assert_eq!(reweight(-1.0), Weight::ZERO);
        assert_eq!(reweight(7.5), Weight::ONE);
        assert_eq!(reweight(f64::NAN), Weight::ZERO);
    }
}
