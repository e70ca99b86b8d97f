//! Tools of Debian, run to their end.

use std::process::{Command, Output};

/// Runs a tool.
pub fn run(tool: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(tool);
    command.args(arguments).output().unwrap_or_else(|error| {
        panic!("this test needs `{tool}` ({error}): ./test installs it when run as root, and else says what to install")
    })
}

/// Runs a tool that must succeed, and gives what it printed.
#[track_caller]
pub fn succeed(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments);
    assert!(
        output.status.success(),
        "{tool} {arguments:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
