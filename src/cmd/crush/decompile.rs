//! `cairn crush decompile`.

use super::load;
use anyhow::Context;
use cairn_crush::text;
use std::path::PathBuf;

/// Prints the text of a binary map, byte for byte as `crushtool -d` does. Like there, weights have three decimals,
/// so that compiling the text again may give slightly other weights, which is told on stderr; --exact
/// prints them as fine as they are.
#[derive(clap::Args)]
pub struct Args {
    /// The binary map, from `ceph osd getcrushmap` or a compiler
    #[arg(value_name = "FILE")]
    map: PathBuf,
    /// Where to write the text [default: stdout]
    #[arg(short, long, value_name = "MAP.txt")]
    output: Option<PathBuf>,
    /// Print all decimals of the weights, and fail unless the text compiles to this very map
    #[arg(long)]
    exact: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let map = load::load_binary(&args.map)?;
    let context = || format!("cannot decompile {}", args.map.display());
    let source = match args.exact {
        true => text::decompile_exact(&map).with_context(context)?,
        false => text::decompile(&map).with_context(context)?,
    };
    if !args.exact && text::compile(&source).as_ref() != Ok(&map) {
        eprintln!(
            "cairn: compiling this text again gives another map (weights are cut to three decimals): see --exact"
        );
    }
    match &args.output {
        Some(path) => load::write(path, source.as_bytes()),
        None => super::print(&source),
    }
}
