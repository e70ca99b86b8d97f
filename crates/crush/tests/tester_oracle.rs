//! The tester's report against `crushtool --test`, byte for byte. The mappings are those crushtool prints itself,
//! so that this compares selection, order, counts, expectations and form, and nothing of the mapper.

#[path = "support/crushtool.rs"]
mod crushtool;
#[path = "support/random_text.rs"]
mod random_text;

use cairn_crush::tester::{self, Options};
use cairn_crush::text;
use crushtool::CrushTool;
use random_text::{Random, random_text};
use std::fmt::Write;

/// Fresh maps in one run of the test, each with several sets of options.
const FRESH_MAPS: u64 = 25;

/// `CRUSH rule R x X [1,2]` → (R, X, [1, 2])
fn mapping(line: &str) -> Option<(usize, i32, Vec<i32>)> {
    let (rule, rest) = line.strip_prefix("CRUSH rule ")?.split_once(" x ")?;
    let (input, items) = rest.split_once(" [")?;
    let items = items.strip_suffix(']')?.split(',').filter(|item| !item.is_empty());
    Some((rule.parse().ok()?, input.parse().ok()?, items.map(|item| item.parse().unwrap()).collect()))
}

#[test]
fn reports_are_the_same_byte_for_byte() {
    let Some(tool) = CrushTool::find() else { return };
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seeds from {start}");
    for seed in start..start.wrapping_add(FRESH_MAPS) {
        let source = random_text(seed);
        let map = text::compile(&source).unwrap();
        tool.compile(&source).unwrap();
        let mut random = Random(seed);
        for _ in 0..6 {
            let mut options = Options::default();
            let mut arguments = vec!["-i".to_owned(), "map.bin".to_owned(), "--test".to_owned()];
            let mut add = |name: &str, values: &[String]| {
                arguments.push(name.to_owned());
                arguments.extend_from_slice(values);
            };
            if random.chance(50) {
                let rule = random.below(map.rules.len() as u64 + 1) as usize;
                options.rules = Some((rule, rule));
                add("--rule", &[rule.to_string()]);
            }
            if random.chance(50) {
                let replicas = random.below(7) as i32;
                options.num_rep = Some((replicas, replicas));
                add("--num-rep", &[replicas.to_string()]);
            }
            if random.chance(80) {
                let first = random.below(2000) as i32;
                let last = first + random.below(150) as i32 - 2;
                if last >= 0 {
                    options.inputs = Some((first, last));
                    add("--min-x", &[first.to_string()]);
                    add("--max-x", &[last.to_string()]);
                }
            }
            while random.chance(50) {
                let device = random.below(map.max_devices as u64 + 2) as i32;
                let weight = format!("0.{:03}", random.below(1000) * random.below(2));
                options.weights.insert(device, tester::reweight(weight.parse().unwrap()));
                add("--weight", &[device.to_string(), weight]);
            }
            let shows: [(&str, &mut bool); 4] = [
                ("--show-bad-mappings", &mut options.show_bad_mappings),
                ("--show-statistics", &mut options.show_statistics),
                ("--show-utilization", &mut options.show_utilization),
                ("--show-utilization-all", &mut options.show_utilization_all),
            ];
            for (name, shown) in shows {
                *shown = random.chance(40);
                if *shown {
                    add(name, &[]);
                }
            }
            options.show_mappings = true;
            add("--show-mappings", &[]);

            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = tool.run(&arguments);
            assert!(output.status.success(), "seed {seed}: {arguments:?}");
            let theirs = String::from_utf8(output.stdout).unwrap();
            let mut mappings = theirs.lines().filter_map(mapping);
            let (mut ours, mut ours_aside) = (String::new(), String::new());
            let place = |rule: usize, input: i32, _: usize, _: &[_], result: &mut Vec<i32>| {
                let (their_rule, their_input, items) = mappings.next().expect("crushtool maps less");
                assert_eq!((their_rule, their_input), (rule, input), "seed {seed}: {arguments:?}");
                result.extend(items);
            };
            tester::run(&map, &options, place, |event| match event {
                tester::Event::Weights(_) => writeln!(ours_aside, "{event}"),
                _ => writeln!(ours, "{event}"),
            })
            .unwrap();
            assert!(ours == theirs, "seed {seed}: {arguments:?}:\n{}", first_difference(&ours, &theirs));
            assert_eq!(ours_aside, String::from_utf8(output.stderr).unwrap(), "seed {seed}: {arguments:?}");
        }
    }
}

fn first_difference(ours: &str, theirs: &str) -> String {
    let differing = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
    format!("{differing:?} of {} and {} lines", ours.lines().count(), theirs.lines().count())
}
