//! `cairn crush test`.

use super::{Format, load};
use cairn_crush::hash::hash2;
use cairn_crush::tester::{self, Event, Options};
use cairn_crush::{NO_ITEM, Scratch};
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Maps a range of inputs with the rules of a map and prints what `crushtool --test` prints, byte for byte, so that
/// `diff` tells a difference.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("show").required(true).multiple(true)))]
pub struct Args {
    /// The map, binary or text
    #[arg(short = 'i', long = "input", value_name = "FILE|MAP.txt")]
    map: PathBuf,
    /// Test this rule only [default: all rules]
    #[arg(long, value_name = "N", conflicts_with_all = ["min_rule", "max_rule"])]
    rule: Option<usize>,
    /// First rule
    #[arg(long, value_name = "N", requires = "max_rule")]
    min_rule: Option<usize>,
    /// Last rule
    #[arg(long, value_name = "N", requires = "min_rule")]
    max_rule: Option<usize>,
    /// Number of replicas [default: from the rule's min_size to its max_size]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=MAX_REPLICAS))]
    num_rep: Option<i32>,
    /// Only this input
    #[arg(long, value_name = "N", conflicts_with_all = ["min_x", "max_x"], value_parser = clap::value_parser!(i32).range(0..))]
    x: Option<i32>,
    /// First input. As in crushtool, without --max-x it is ignored [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    min_x: Option<i32>,
    /// Last input. As in crushtool, without --min-x it is ignored [default: 1023]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    max_x: Option<i32>,
    /// Hash the inputs with this pool, as the placement groups of a pool are
    #[arg(long, value_name = "N")]
    pool_id: Option<i32>,
    /// Reweight of an OSD, from 0 (out) to 1 (fully in); may be repeated
    #[arg(long, short = 'w', num_args = 2, value_names = ["OSD", "W"], action = clap::ArgAction::Append)]
    weight: Vec<String>,
    /// Print each mapping
    #[arg(long, group = "show")]
    show_mappings: bool,
    /// Print mappings that found too few OSDs
    #[arg(long, group = "show")]
    show_bad_mappings: bool,
    /// Print how many results had which size
    #[arg(long, group = "show")]
    show_statistics: bool,
    /// Print what the OSDs in use hold and should hold
    #[arg(long, group = "show")]
    show_utilization: bool,
    /// Print what all OSDs hold and should hold
    #[arg(long, group = "show")]
    show_utilization_all: bool,
    /// text is crushtool's; json is one object a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// More replicas than any pool has.
const MAX_REPLICAS: i64 = 1000;

pub fn run(args: &Args) -> anyhow::Result<()> {
    let map = load::load_map(&args.map)?;
    let options = options(args)?;
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let placer = super::make_ready(&map, &args.map)?;
    // crushtool maps with the choose-args of pool 0, or the default ones.
    let choose_args = placer.choose_args(0);
    let mut scratch = Scratch::new();
    let place = |rule: usize, input: i32, most: usize, weights: &[_], result: &mut Vec<i32>| {
        let input = match args.pool_id {
            Some(pool) => hash2(input as u32, pool as u32) as i32,
            None => input,
        };
        result.extend_from_slice(placer.place(rule, input, most, weights, choose_args, &mut scratch));
    };
    tester::run(&map, &options, place, |event| -> io::Result<()> {
        match (args.format, event) {
            (Format::Json, event) => writeln!(out, "{}", json(event)),
            // crushtool has it on stderr.
            (Format::Text, Event::Weights(_)) => writeln!(io::stderr(), "{event}"),
            (Format::Text, event) => writeln!(out, "{event}"),
        }
    })?;
    out.flush()?;
    Ok(())
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let weights = super::parse_weights(&args.weight)?;
    let pair = |first: Option<usize>, last: Option<usize>| first.zip(last);
    let single = |value: Option<i32>| value.map(|value| (value, value));
    Ok(Options {
        rules: pair(args.rule, args.rule).or(pair(args.min_rule, args.max_rule)),
        num_rep: single(args.num_rep),
        inputs: single(args.x).or(args.min_x.zip(args.max_x)),
        weights,
        show_mappings: args.show_mappings,
        show_bad_mappings: args.show_bad_mappings,
        show_statistics: args.show_statistics,
        show_utilization: args.show_utilization,
        show_utilization_all: args.show_utilization_all,
    })
}

/// One event as an object; the place of a missing device is null.
fn json(event: Event<'_>) -> Value {
    let osds = |result: &[i32]| -> Vec<Value> {
        result.iter().map(|&item| if item == NO_ITEM { Value::Null } else { item.into() }).collect()
    };
    match event {
        Event::Weights(weights) => {
            json!({"event": "weights", "weights": weights.iter().map(|weight| weight.as_f64()).collect::<Vec<_>>()})
        }
        Event::NoRule { rule } => json!({"event": "no_rule", "rule": rule}),
        Event::Rule { rule, name, inputs, num_rep } => json!({
            "event": "rule", "rule": rule, "name": name, "min_x": inputs.0, "max_x": inputs.1,
            "min_rep": num_rep.0, "max_rep": num_rep.1,
        }),
        Event::Mapping { rule, input, result } => {
            json!({"event": "mapping", "rule": rule, "x": input, "osds": osds(result)})
        }
        Event::BadMapping { rule, input, num_rep, result } => {
            json!({"event": "bad_mapping", "rule": rule, "x": input, "num_rep": num_rep, "osds": osds(result)})
        }
        Event::ResultSize { rule, name, num_rep, size, count, total } => json!({
            "event": "result_size", "rule": rule, "name": name, "num_rep": num_rep, "size": size,
            "count": count, "total": total,
        }),
        Event::Device { device, stored, expected } => {
            json!({"event": "device", "osd": device, "stored": stored, "expected": expected})
        }
    }
}
