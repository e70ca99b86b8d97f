//! Mappings against what `crushtool` gave once, kept in `tests/data/mappings`. See the README there.

#[path = "support/crushtool.rs"]
mod crushtool;
#[path = "support/mappings.rs"]
mod mappings;
#[path = "support/random_mapping.rs"]
mod random_mapping;
#[path = "support/random_text.rs"]
#[allow(dead_code)]
mod random_text;

use cairn_crush::{Placer, Scratch, text};
use crushtool::CrushTool;
use random_mapping::{Job, random_job};
use std::path::PathBuf;

/// Random jobs kept.
const JOBS: u64 = 40;

/// Most inputs of one.
const INPUTS: i32 = 40;

/// Between the map, the arguments and the output.
const CUT: &str = "==== crushtool ";

fn path(seed: u64) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/mappings/job-{seed}.golden"))
}

#[test]
fn mappings_are_the_goldens() {
    if std::env::var_os("CAIRN_REWRITE_GOLDENS").is_some() {
        rewrite();
    }
    let mut scratch = Scratch::new();
    for seed in 1..=JOBS {
        let path = path(seed);
        let golden =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (map_text, rest) = golden.split_once(CUT).unwrap();
        let (arguments, expected) = rest.split_once('\n').unwrap();
        let job = Job::from_arguments(map_text, arguments);
        let map = text::compile(&job.text).unwrap();
        let placer = Placer::new(&map).unwrap();
        let ours = mappings::report(&map, &placer, &job.options(), &mut scratch);
        if let Some(difference) = mappings::first_difference(&ours, expected) {
            panic!("{}: (ours, golden) {difference:?}", path.display());
        }
    }
}

fn rewrite() {
    let tool =
        CrushTool::find().expect("goldens are made by crushtool: install the Debian package ceph-base");
    for seed in 1..=JOBS {
        let job = random_job(seed, INPUTS);
        tool.compile(&job.text).unwrap();
        let arguments = job.arguments("map.bin");
        let output = String::from_utf8(tool.run(&arguments).stdout).unwrap();
        std::fs::write(path(seed), format!("{}{CUT}{}\n{output}", job.text, arguments.join(" "))).unwrap();
    }
}
