//! `cairn crush`: placement maps, offline.

mod compile;
mod decompile;
mod load;
mod map_object;
mod test;
mod whatif;

use super::{Format, print};
use anyhow::{anyhow, bail};
use cairn_crush::{CrushMap, Placer, tester};
use cairn_types::Weight;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// Subcommands of `cairn crush`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Compile a text map in crushtool's language to a binary one
    Compile(compile::Args),
    /// Print the text of a binary map, as crushtool -d does
    Decompile(decompile::Args),
    /// Map a range of inputs and print mappings and statistics, as crushtool --test does
    Test(test::Args),
    /// Tell the placement group and the OSDs of an object, as osdmaptool does
    MapObject(map_object::Args),
    /// Tell what a planned change moves, and how full each OSD gets
    Whatif(Box<whatif::Args>),
}

/// Runs one.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    let outcome = match command {
        Command::Compile(args) => compile::run(&args),
        Command::Decompile(args) => decompile::run(&args),
        Command::Test(args) => test::run(&args),
        Command::MapObject(args) => map_object::run(&args),
        Command::Whatif(args) => whatif::run(&args),
    };
    outcome.or_else(super::ignore_broken_pipe)?;
    Ok(ExitCode::SUCCESS)
}

/// The map of a file made ready for mapping, if it makes sense.
fn make_ready(map: &CrushMap, path: &Path) -> anyhow::Result<Placer> {
    Placer::new(map).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Pairs of OSD and reweight, from the command line.
fn parse_weights(words: &[String]) -> anyhow::Result<BTreeMap<i32, Weight>> {
    let mut weights = BTreeMap::new();
    for pair in words.chunks(2) {
        let [osd, weight] = pair else { bail!("--weight takes an OSD and a weight") };
        let Ok(device) = osd.parse::<i32>() else {
            bail!("--weight: '{osd}' is not an OSD's number: write --weight 3 0.5");
        };
        let Ok(value) = weight.parse::<f64>() else {
            bail!("--weight: '{weight}' is not a weight: write --weight {device} 0.5");
        };
        weights.insert(device, tester::reweight(value));
    }
    Ok(weights)
}
