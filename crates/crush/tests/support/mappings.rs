//! The report of a job, by our own mapper.

use cairn_crush::tester::{self, Options};
use cairn_crush::{CrushMap, Placer, Scratch};
use std::fmt::Write;

/// What `crushtool` would print.
pub fn report(map: &CrushMap, placer: &Placer, options: &Options, scratch: &mut Scratch) -> String {
    let mut text = String::new();
    // The set crushtool tests with.
    let choose_args = placer.choose_args(0);
    tester::run(
        map,
        options,
        |rule, x, num_rep, weights, result| {
            result.extend_from_slice(placer.place(rule, x, num_rep, weights, choose_args, scratch));
        },
        |event| writeln!(text, "{event}"),
    )
    .unwrap();
    text
}

/// The first lines that differ.
pub fn first_difference<'a>(ours: &'a str, theirs: &'a str) -> Option<(&'a str, &'a str)> {
    if ours == theirs {
        return None;
    }
    let lines = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
    Some(lines.unwrap_or(("(one ends", "before the other)")))
}
