//! Printing, for people and for programs.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document; sizes in bytes
    Json,
}

/// Prints to stdout, whole.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Whether whoever read the output has seen enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Takes that for no error.
pub fn ignore_broken_pipe(error: anyhow::Error) -> anyhow::Result<()> {
    if is_broken_pipe(&error) { Ok(()) } else { Err(error) }
}

/// Prints a value as one JSON document.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints what a change came to: a sentence, or a document.
pub fn print_line(format: Format, line: &str, document: &serde_json::Value) -> anyhow::Result<()> {
    match format {
        Format::Text => print(&format!("{line}\n")),
        Format::Json => print_json(document),
    }
}

/// Lines of a name and what is said about it, the latter in one column.
pub fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<width$}{value}");
    }
    out
}

/// A table under column names; those that begin with `>` are numbers, set to the right.
pub fn columns<const N: usize>(names: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    // As wide as it is: whoever pipes it into a program gets one line for one thing.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(names.map(|name| name.trim_start_matches('>')));
    table.add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(names) {
        column.set_padding((0, 2));
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = String::new();
    for line in table.lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows = [["vms".to_owned(), "7".to_owned()], ["a".to_owned(), "1024".to_owned()]];
        assert_eq!(columns(["NAME", ">PGS"], rows), "NAME   PGS\nvms      7\na     1024\n");
        assert_eq!(columns(["NAME"], []), "NAME\n");
    }
}
